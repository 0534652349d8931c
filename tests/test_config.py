"""Studies: what is refused, in which words; what follows from a study."""

import copy
from pathlib import Path

import pytest
import yaml

from bench.config import ConfigError, load_study

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
STUDIES = sorted((ROOT / "workflows" / "config").glob("*.yaml"))


def edited(tmp_path, **changes):
    """The smoke study with dotted keys changed; a value of ... removes the key."""
    data = yaml.safe_load(SMOKE.read_text().replace("3e-3", "3.0e-3"))
    data = copy.deepcopy(data)
    for dotted, value in changes.items():
        *parents, last = dotted.split("/")
        node = data
        for part in parents:
            node = node[part]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


BAD = {
    "misspelt key": ({"evaluation/num_imges": 100}, ["evaluation.num_imges", "num_images"]),
    "misspelt key in a base": ({"bases/var/model/hisory": 1}, ["hisory", "history"]),
    "misspelt key in a delta": ({"suites/main/variants/SDD/delta": {"model.histroy": 0}}, ["SDD", "histroy", "history"]),
    "wrong type": ({"bases/var/training/steps": "many"}, ["training.steps", "many"]),
    "a number as text": ({"evaluation/num_images": "100"}, ["evaluation.num_images"]),
    "value out of range": ({"evaluation/num_images": 3}, ["evaluation.num_images", "100", "3"]),
    "schedule does not grow": ({"bases/var/model/patch_nums": [1, 3, 2, 4]}, ["patch_nums", "[1, 3, 2, 4]", "larger"]),
    "schedule does not end at the latent": ({"bases/var/model/patch_nums": [1, 2, 3]}, ["patch_nums", "[1, 2, 3]", "4"]),
    "tokenizer schedule does not end": ({"bases/var/tokenizer/config/patch_nums": [1, 2]}, ["patch_nums", "latent size 4"]),
    "cfg_scale below 1": ({"bases/var/sampler/cfg_scale": 0.5}, ["cfg_scale", "0.5", "1"]),
    "guidance without class dropout": ({"bases/var/model/class_dropout": 0.0}, ["cfg_scale", "class_dropout"]),
    "missing base": ({"suites/main/variants/SDD/base": "vra"}, ["SDD.base", "'vra'", "'var'"]),
    "class count": ({"bases/var/model/num_classes": 7}, ["num_classes", "7", "10"]),
    "codebook does not fit": ({"bases/var/model/codebook_size": 32}, ["codebook_size", "32", "16"]),
    "unknown figure": ({"suites/main/figures": ["fidd"]}, ["figures", "fidd", "fid"]),
    "unknown table": ({"suites/main/tables": ["score"]}, ["tables", "scores"]),
    "unknown metric": ({"evaluation/metrics": ["fid"]}, ["metrics", "fid", "fidelity"]),
    "unknown dataset": ({"dataset/name": "digit"}, ["dataset.name", "digit", "digits"]),
    "unknown sampler": ({"bases/var/sampler/name": "vra"}, ["sampler.name", "var"]),
    "unknown ramp": ({"bases/var/sampler/cfg_ramp": "cosine"}, ["cfg_ramp", "cosine", "linear"]),
    "unknown mask": ({"bases/var/model/mask": "windows"}, ["model.mask", "windows"]),
    "width and heads": ({"bases/var/model/heads": 3}, ["width 16", "heads 3"]),
    "suite named as a rule": ({"suites/figures": {"claim": "x", "variants": {"a": {"base": "var"}}}}, ["suites.figures"]),
    "same settings twice": ({"suites/main/variants/twin": {"base": "var"}}, ["twin", "same settings", "VAR"]),
    "timed twice": ({"suites/latency/variants/SDD/delta": {"training.steps": 13}}, ["latency", "SDD", "same settings", "VAR"]),
    "same seed twice": ({"train_seeds": [1, 1]}, ["train_seeds", "[1, 1]"]),
    "features without classes": ({"dataset/num_classes": 0}, ["features.kind", "inception"]),
    "missing key": ({"dataset": ...}, ["dataset", "missing"]),
    "delta through a value": ({"suites/main/variants/SDD/delta": {"model.depth.x": 1}}, ["model.depth"]),
    "top_k above the codes": ({"bases/var/sampler/top_k": 17}, ["top_k", "17", "16"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_study_is_one_line_with_key_value_and_remedy(case, tmp_path):
    """Catches a wrong setting that would start work, or an error that does not say which file, key, value and what is legal."""
    changes, words = BAD[case]
    path = edited(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    for word in words:
        assert word in text, text


def test_two_variants_of_one_name(tmp_path):
    """Catches YAML's habit of silently keeping the last of two equal keys."""
    path = tmp_path / "twice.yaml"
    path.write_text(SMOKE.read_text().replace("      SDD: {base", "      VAR: {base", 1))
    with pytest.raises(ConfigError, match=r"'VAR' stands twice"):
        load_study(path)


def test_missing_and_unreadable_files(tmp_path):
    """Catches a traceback where a path is wrong or a file is no YAML."""
    with pytest.raises(ConfigError, match="no such file"):
        load_study(tmp_path / "none.yaml")
    for text in ("a: [1", "- 1\n- 2\n", ""):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError):
            load_study(tmp_path / "bad.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_published_studies_are_sound(path):
    """Catches a study in the project that its own checks refuse; each suite has a claim."""
    plan = load_study(path)
    assert plan.study.study == path.stem
    assert all(suite.claim for suite in plan.study.suites.values())


def test_suites_share_trainings():
    """Catches a model that is trained twice because two suites name it differently."""
    plan = load_study(ROOT / "workflows" / "config" / "digits.yaml")
    train = {suite: {run for run in runs if run.startswith("train/")} for suite, runs in plan.suites.items()}
    assert train["main"] <= train["ablation_history"]
    assert train["main"] == train["convergence"]
    assert not train["latency"]


def test_a_setting_changes_only_what_depends_on_it(tmp_path):
    """Catches a hash that leaves something out (stale results) or takes too much in (needless trainings)."""
    before = set(load_study(edited(tmp_path)).jobs)
    there = {run.split("/")[0] for run in before}
    guided = set(load_study(edited(tmp_path, **{"bases/var/sampler/cfg_scale": 2.0})).jobs)
    stages = {run.split("/")[0] for run in before ^ guided}
    sampled = {"sample", "evaluate", "sweep", "zero_shot", "error_propagation"}
    assert stages == there & (sampled | {"latency"})
    longer = set(load_study(edited(tmp_path, **{"bases/var/training/steps": 13})).jobs)
    assert {run.split("/")[0] for run in before ^ longer} == there & (sampled | {"train", "distill", "equivalence"})
    claim = set(load_study(edited(tmp_path, **{"suites/main/claim": "other words"})).jobs)
    assert claim == before


def test_adding_a_variant_is_one_line(tmp_path):
    """Catches an expansion that touches the baselines when a user adds a variant."""
    before = load_study(edited(tmp_path))
    entry = {"base": "var", "delta": {"model.history": 1}}
    after = load_study(edited(tmp_path, **{"suites/main/variants/mine": entry}))
    new = set(after.jobs) - set(before.jobs)
    assert set(before.jobs) < set(after.jobs)
    assert sorted(run.split("/")[0] for run in new) == ["evaluate"] * 2 + ["sample"] * 2 + ["train"] * 2
    assert after.identities["main"]["mine"]["history"] == 1
