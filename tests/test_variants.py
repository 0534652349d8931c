"""What is said of each variant of a study: resolved once,
its names and the jobs behind it written once."""

from collections import Counter

import pytest

from bench.runtime.variants_file import read_variants, write_variants
from bench.study import chain, resolve
from bench.study.plan import load_study
from bench.study.variants import jobs_behind, variants_of
from workflow import ROOT, SMOKE

DIGITS = ROOT / "workflows" / "config" / "digits.yaml"


def test_each_variant_is_resolved_and_each_tokenizer_made_once(monkeypatch):
    """Catches a plan that takes minutes for a study of many suites, since each question of a
    variant resolves it again."""
    calls = Counter()

    def counted(function, key):
        def call(*arguments, **more):
            calls[key(*arguments)] += 1
            return function(*arguments, **more)

        return call

    monkeypatch.setattr(
        resolve, "resolve", counted(resolve.resolve, lambda study, entry, at, *more: at)
    )
    monkeypatch.setattr(
        chain,
        "_tokenizer_job",
        counted(chain._tokenizer_job, lambda study, spec, seed: (spec.model_dump_json(), seed)),
    )
    study = load_study(DIGITS).study
    assert len(calls) > 150 and set(calls.values()) == {1}
    for suite in study.suites:
        list(resolve.variants_and_teachers(study, suite))
    assert set(calls.values()) == {1}


def test_a_copy_of_a_study_forgets_what_followed_from_the_first(monkeypatch):
    """Catches jobs of a changed study that are named by the settings of the first."""
    study = load_study(SMOKE).study
    name = next(iter(study.suites))
    variant = resolve.resolve_variant(study, name, resolve.variant_names(study, name)[0])
    changed = study.model_copy(
        update={"dataset": study.dataset.model_copy(update={"val_share": 0.3})}
    )
    before, after = (chain.tokenizer_job(one, variant)[0].run_id for one in (study, changed))
    assert before != after and chain.tokenizer_job(study, variant)[0].run_id == before


def by_hand(job, identity):
    """Whether a job's number is a variant's, by what the job's config says."""
    same = job.identity.get("tokenizer") == identity["tokenizer"]
    model, sampler = job.identity.get("model"), job.identity.get("sampler")
    sides = job.config.get("patch_nums", identity["patch_nums"])
    return (
        same
        and model in (None, identity["model"])
        and sampler in (None, identity["sampler"])
        and sides == identity["patch_nums"]
    )


@pytest.mark.parametrize("path", [DIGITS, SMOKE], ids=lambda path: path.stem)
def test_jobs_behind_a_variant_are_its_own_in_reading_order(path):
    """Catches a run of another variant, seed or schedule behind a number, and one that is left out
    or read before it is made."""
    whole = load_study(path)
    for suite in whole.suites:
        for name, names in variants_of(whole, suite).items():
            behind = [run_id for of_seed in names["jobs"].values() for run_id in of_seed]
            expected = {i for i in whole.suites[suite] if by_hand(whole.jobs[i], names)}
            assert set(behind) == expected and len(behind) == len(expected), (suite, name)
            for seed, run_ids in names["jobs"].items():
                seen = set(names["jobs"].get("", ())) if seed else set()
                for run_id in run_ids:
                    config = whole.jobs[run_id].config
                    own = config.get("train_seed", config.get("tokenizer_seed"))
                    assert seed == ("" if own is None else str(own)), run_id
                    read = set(whole.jobs[run_id].inputs.values()) & set(behind)
                    assert read <= seen, run_id
                    seen.add(run_id)


def test_every_stage_of_a_trained_variant_is_behind_it():
    """Catches a verb whose failures explain no missing number: samplers of a sweep share one job,
    trainings have a tokenizer each."""
    whole = load_study(DIGITS)
    stages = set()
    for suite in whole.suites:
        for names in variants_of(whole, suite).values():
            stages |= {
                run_id.split("/")[0] for of_seed in names["jobs"].values() for run_id in of_seed
            }
    assert stages == {run_id.split("/")[0] for run_id in whole.jobs} - {
        "prepare",
        "features",
        "latency",
    }


def test_what_no_model_reads_comes_last():
    """Catches a baseline that failed, given as the cause of a missing score."""
    whole = load_study(SMOKE)
    names = next(iter(variants_of(whole, "main").values()))
    stages = [run_id.split("/")[0] for run_id in next(iter(names["jobs"].values()))]
    assert stages[0] == "tokenizer" and stages[-1] == "baselines" and "evaluate" in stages
    assert jobs_behind({}, names) == {}


def test_the_table_gives_back_what_was_planned(tmp_path):
    """Catches a setting, a null, an order or a name with a comma that the file loses."""
    whole = load_study(DIGITS)
    planned = {suite: variants_of(whole, suite) for suite in whole.suites}
    write_variants(tmp_path / "variants.csv", planned)
    read = read_variants(tmp_path / "variants.csv", whole.suites)
    assert list(read) == list(planned)
    for suite in planned:
        assert list(read[suite]) == list(planned[suite])
        for name, names in planned[suite].items():
            grid = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in names["grid"].items()
            }
            assert read[suite][name] == {**names, "grid": grid}
