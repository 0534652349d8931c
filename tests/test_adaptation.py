"""The room that asks whether a trained model can be adapted to several passes a scale: its jobs,
what it refuses, its numbers, rules, figures and tables."""

import itertools
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import yaml
from scipy.stats import ttest_1samp
from small_study import SEEDS, build, variant

from bench.experiments.adaptation import plan as adaptation_plan
from bench.experiments.adaptation import show, verb
from bench.experiments.adaptation.models import (
    by_model,
    one_pass_of,
    same_weights,
    share_of_teacher,
    teacher_in,
)
from bench.experiments.adaptation.same import equivalence
from bench.experiments.zero_shot import plan as zero_shot_plan
from bench.pipeline.artefacts import open_split
from bench.pipeline.held_out import HeldOut, one_pass_loss
from bench.pipeline.unique_images import chosen_rows
from bench.report.claims import claim_details, judged
from bench.report.estimate import estimate
from bench.report.results import Results
from bench.report.sheets import by_group as show_by_group
from bench.report.view import View
from bench.runtime.ranks import Ranks
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.schema import Claim
from bench.study.subsets import OF_SUBSETS
from srdd.config import SamplerConfig
from srdd.schedule import ScaleSchedule

SHORT = {
    "training.steps": 8,
    "training.warmup": 2,
    "training.patience": None,
    "distill": {"arm": "real", "teacher": {"base": "sdd"}},
}
VARIANTS = {
    "SDD": {"base": "sdd"},
    "went on": {"base": "sdd", "delta": SHORT},
    "adapted": {"base": "srdd", "delta": {**SHORT, "sampler.refine_steps": 0}},
    "shuffled": {
        "base": "srdd",
        "delta": SHORT,
        "grid": {"sampler.refine_steps": [1, 3]},
    },
}
SAME = {"rule": "same", "margin": 0.3, "variant": "adapted", "against": "went on"}


def planned(tmp_path, variants=None, claims=(), **more):
    """The plan of a study of digits that asks for this room."""
    suite = {"claim": "c", "measure": ["sweep", "adaptation"], "variants": variants or VARIANTS}
    suite |= {
        "figures": ["tokens_per_forward", "intra_scale"],
        "tables": ["adaptation", "decoding"],
    }
    suite |= {"claims": [{"text": f"claim {i}", **claim} for i, claim in enumerate(claims)], **more}
    study = {"study": "adapt", "like": "digits", "reduced": "x", "take": [], "suites": {"a": suite}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return load_study(path)


def refused(tmp_path, **asked):
    """The line that a study is refused with."""
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, **asked)
    text = str(error.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- plan


def test_one_job_counts_all_samplers_of_a_model(tmp_path):
    """Catches a model that is asked once for each sampler, a teacher that is trained again, and a
    student that is not its teacher's."""
    plan = planned(tmp_path)
    stages = [run_id.split("/")[0] for run_id in plan.jobs]
    # the teacher, what went on and the student, with three training seeds each
    assert (stages.count("train"), stages.count("distill"), stages.count("adaptation")) == (3, 6, 9)
    samplers = {}
    for job in plan.jobs.values():
        if job.stage == "adaptation":
            samplers[len(job.config["samplers"])] = samplers.get(len(job.config["samplers"]), 0) + 1
    assert samplers == {1: 6, 3: 3}


def test_another_score_counts_no_image_again(tmp_path):
    """Catches counts that are made again for a metric that they do not read, and counts of other
    images under one name."""
    names = {}
    for change in ({}, {"metrics": ["fidelity"]}, {"num_images": 1300}, {"batch_size": 128}):
        path = tmp_path / "study.yaml"
        planned(tmp_path)
        study = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**study, "evaluation": change}, sort_keys=False))
        jobs = load_study(path).jobs.values()
        names[str(change)] = {job.run_id for job in jobs if job.stage == "adaptation"}
    first, scored, more, batch = names.values()
    assert first == scored and not first & more and not first & batch


@pytest.mark.parametrize("name", ["digits", "fashion32", "fashion", "imagenet256"])
def test_the_studies_plan_their_suite(name):
    """Catches a suite that names a variant, a metric or a setting that its study lacks."""
    plan = load_study(verb.__file__.split("bench")[0] + f"workflows/config/{name}.yaml")
    assert any(run_id.startswith("adaptation/") for run_id in plan.suites["adaptation"])


def test_its_rules_serve_suites_that_measure_something_else(tmp_path):
    """Catches rules that only this room's own measure may use: other rooms name them too."""
    bound = {"rule": "value", "metric": "kept_loss_test", "better": "lower"}
    sides = {"variant": "adapted", "against": "went on"}
    few = {name: VARIANTS[name] for name in ("went on", "adapted")}
    for measure in ("scores", "convergence"):
        claims = [SAME, {**bound, **sides}]
        asked = {"measure": [measure], "figures": [], "tables": [], "claims": claims}
        assert planned(tmp_path, variants=few, **asked).suites["a"]


def changed(name, **delta):
    """The variants with one that is changed."""
    entry = VARIANTS[name]
    return {**VARIANTS, name: {**entry, "delta": {**entry.get("delta", {}), **delta}}}


RANKED = {"name": "shuffled", "confidence": "peak"}
WITHOUT = {name: VARIANTS[name] for name in ("SDD", "went on")}
BAD = {
    "elbo without masks": (
        {"variants": changed("went on", **{"training.mask_weight": "elbo"})},
        ["training.mask_weight: 'elbo'", "model.mask_prob is 0"],
    ),
    "a confidence that nothing ranks by": (
        {"variants": changed("shuffled", **{"sampler.select": RANKED})},
        ["sampler.select", "unknown setting of select shuffled 'confidence'"],
    ),
    "adapted for no step": (
        {"variants": changed("shuffled", **{"training.steps": 0})},
        ["training.steps", "greater than or equal to 1", "0"],
    ),
    "refined without masks": (
        {"variants": changed("went on", **{"sampler.name": "srdd", "sampler.refine_steps": 1})},
        ["sampler.refine_steps 1: refines a model trained without masks"],
    ),
    "a student without the masks of its teacher": (
        {"variants": changed("went on", distill={**SHORT["distill"], "teacher": {"base": "srdd"}})},
        ["mask_prob 0.0: the teacher's is 1.0"],
    ),
    "a margin that is missing": (
        {"claims": [{key: SAME[key] for key in ("rule", "variant", "against")}]},
        ["suites.a.claims.margin: is missing; rule same"],
    ),
    "a margin of 0": ({"claims": [{**SAME, "margin": 0}]}, ["margin", "greater than 0", "0"]),
    "a margin that nothing reads": (
        {"claims": [{**SAME, "rule": "score"}]},
        ["suites.a.claims.margin: 0.3: of claim 'claim 0'", "rule same alone", "rule score"],
    ),
    "a direction of no difference": (
        {"claims": [{**SAME, "better": "lower"}]},
        ["suites.a.claims.better: 'lower': rule same reads none"],
    ),
    "no direction": (
        {"claims": [{**SAME, "rule": "value", "margin": None, "metric": "intra_scale_gain"}]},
        ["suites.a.claims.better: is missing", "'intra_scale_gain'"],
    ),
    "the wrong direction": (
        {"claims": [{**SAME, "rule": "value", "margin": None, "metric": "loss_test_any_order",
                     "better": "higher"}]},
        ["suites.a.claims.better: 'higher': of loss_test_any_order lower is better"],
    ),
    "a metric with its extractor": (
        {"claims": [{**SAME, "metric": "fid_digits64"}]},
        ["suites.a.claims.metric: 'fid_digits64': write 'fid', without the extractor digits64"],
    ),
    "a metric that is none": (
        {"claims": [{**SAME, "metric": "FID of all"}]},
        ["suites.a.claims.metric: 'FID of all': a name of small letters"],
    ),
    "a number of another measure": (
        {"claims": [{**SAME, "metric": "inpaint_psnr_unknown"}]},
        ["suites.a.claims.metric: 'inpaint_psnr_unknown': is reported by measure zero_shot, this"],
    ),
    "a number of this room without its measure": (
        {"measure": ["sweep"], "figures": [], "tables": [],
         "claims": [{**SAME, "metric": "peak_max"}]},
        ["suites.a.claims.metric: 'peak_max': is reported by measure adaptation", "has sweep; add"],
    ),
    "a number of masks": (
        {"claims": [{**SAME, "metric": "loss_test_any_order", "against": "went on"}]},
        ["suites.a.claims.metric: 'loss_test_any_order': 'went on' has none", "model.mask_prob"],
    ),
    "a number of fewer images": (
        {"claims": [{**SAME, "metric": "epochs_to_best"}]},
        ["suites.a.claims.metric: 'epochs_to_best'", "without training.unique_images"],
    ),
    "a grid": (
        {"claims": [{**SAME, "variant": "shuffled"}]},
        ["suites.a.claims.variant: 'shuffled' is a grid; name one of its variants"],
    ),
    "a figure without masks": (
        {"variants": WITHOUT, "figures": ["intra_scale"]},
        ["suites.a.figures: 'intra_scale' shows models that read own tokens"],
    ),
    "a figure of one pass": (
        {"variants": WITHOUT, "figures": ["tokens_per_forward"]},
        ["suites.a.figures: 'tokens_per_forward' shows samplers of several passes"],
    ),
    "a figure without scores": (
        {"measure": ["adaptation"], "figures": ["tokens_per_forward"], "tables": []},
        ["suites.a.figures: 'tokens_per_forward' shows FID; add sweep to measure"],
    ),
    "one point": (
        {"adaptation": {"hidden_points": 1}},
        ["adaptation.hidden_points", "greater than or equal to 2", "1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_work(tmp_path, case):
    """Catches a traceback, and what shows after hours of training only."""
    asked, words = BAD[case]
    line = refused(tmp_path, **asked)
    assert all(word in line for word in words), line


def test_what_trainings_and_own_metrics_report_needs_no_measure(tmp_path, monkeypatch):
    """Catches a legal claim that is refused: numbers of trainings on fewer images, and a metric of
    one's own with the name of another measure's number."""
    some = {
        base: {"base": base, "delta": {"training.unique_images": 200}} for base in ("sdd", "var")
    }
    claim = {"rule": "value", "better": "lower", "variant": "sdd", "against": "var"}
    shown = {"measure": ["scores"], "figures": [], "tables": []}
    for metric in OF_SUBSETS:
        planned(tmp_path, some, [{**claim, "metric": metric}], **shown)
    nearest = {**claim, "metric": "nearest_rate"}
    with pytest.raises(ConfigError, match="is reported by measure memorisation"):
        planned(tmp_path, some, [nearest], **shown)
    monkeypatch.setattr(adaptation_plan, "legal_metrics", lambda study: ([], ["nearest_rate"]))
    planned(tmp_path, some, [nearest], **shown)


@pytest.mark.parametrize(
    "given, words",
    [
        (lambda *_: {}["x"], "x"),
        (lambda *_: None, "not iterable"),
        (lambda *_: "inpaint_psnr_unknown", "must be a list of names"),
        (lambda *_: [3], "must be a list of names"),
    ],
    ids=["raises", "nothing", "one word", "a number"],
)
def test_a_room_that_cannot_say_what_it_reports_is_named(tmp_path, monkeypatch, given, words):
    """Catches a traceback, and a name that counts as reported since it is part of a string."""
    monkeypatch.setattr(zero_shot_plan, "reports", given)
    claim = {"rule": "value", "metric": "inpaint_psnr_unknown", "variant": "sdd", "against": "var"}
    both = {base: {"base": base} for base in ("sdd", "var")}
    shown = {"measure": ["zero_shot"], "figures": [], "tables": []}
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, both, [claim], **shown)
    line = str(error.value)
    assert "bench/experiments/zero_shot/plan.py: reports: " in line and words in line
    assert "\n" not in line


def test_a_claim_is_named_where_a_suite_has_several(tmp_path):
    """Catches a line about one of many claims that leaves the reader to look for it."""
    other = {**SAME, "metric": "recall"}
    line = refused(tmp_path, claims=[other, {**SAME, "variant": "shuffled"}])
    assert line.endswith("shuffled, refine_steps 3) (claim 'claim 1')"), line
    line = refused(tmp_path, claims=[other, {**SAME, "variant": "adaptet"}])
    assert "did you mean 'adapted'?" in line and line.endswith("(claim 'claim 1')"), line
    assert "(claim" not in refused(tmp_path, claims=[{**SAME, "variant": "shuffled"}])


def test_what_is_hardly_meant_is_said(tmp_path):
    """Catches an adapted model whose scales attend to partly masked ones, and a misspelt number
    that a rule finds missing at the very end."""
    claim = {**SAME, "metric": "loss_test_any_ordr"}
    full = {"base": "srdd", "delta": {**SHORT, "model.history": None}}
    claims = [claim, {**claim, "text": "again"}]
    plan = planned(tmp_path, variants={**VARIANTS, "full": full}, claims=claims)
    said = "\n".join(plan.warnings)
    assert "variants.full.model.history: None: scales attend to earlier ones" in said
    assert "variants.adapted.model.history" not in said
    (line,) = [line for line in plan.warnings if "claims.metric" in line]
    assert "unknown metric 'loss_test_any_ordr'; did you mean 'loss_test_any_order'?" in line
    assert "kept_loss_test" in line and len(line) < 500, "nearest few of some two hundred names"
    assert "full" not in "\n".join(planned(tmp_path).warnings)


# ---------------------------------------------------------------- numbers


def enumerated_losses(model, ladder, tokens_NL, labels_N):
    """Mean loss of the hidden tokens of the second scale, by how many are hidden, and the variance
    of one draw of sets, over all sets."""
    V, found = model.config.codebook_size, {}
    inputs = ladder.teacher_forced_inputs(tokens_NL)
    for number in range(1, 5):
        by_set = []
        for hidden in itertools.combinations(range(1, 5), number):
            own = tokens_NL.clone()
            own[:, [0, *hidden]] = V
            log_p = model(inputs, labels_N, own_BL=own).log_softmax(-1)
            by_set.append(-log_p.gather(-1, tokens_NL[..., None])[:, list(hidden), 0].mean(1))
        losses_SN = torch.stack(by_set)
        found[number] = losses_SN.mean().item(), losses_SN.var(0, unbiased=False).mean().item()
    return found


def test_losses_of_hidden_tokens_by_enumeration(make_model, make_ladder):
    """Catches a loss over revealed tokens, sets of another size, and own tokens that are not shown:
    all sets of a scale of four tokens are enumerated."""
    schedule, N, draws = ScaleSchedule((1, 2)), 40, 150
    model = make_model(patch_nums=(1, 2), history=0, mask_prob=1.0)
    ladder = make_ladder(schedule)
    tokens_NL = torch.randint(7, (N, 5), generator=torch.Generator().manual_seed(1))
    labels_N = torch.arange(N) % 3
    data = HeldOut(
        "test", tokens_NL.numpy(), labels_N.numpy(), ladder, torch.device("cpu"), Ranks()
    )
    with torch.no_grad():
        wanted = enumerated_losses(model, ladder, tokens_NL, labels_N)
    first, second = verb.hidden_losses(model, data, 4, draws)
    assert list(second) == [1, 2, 3, 4] and list(first) == [1]
    for number, (loss, variance) in wanted.items():
        error = math.sqrt(variance / (N * draws))
        assert second[number] == pytest.approx(loss, abs=4 * error + 1e-5)
    values = [loss for loss, _ in wanted.values()]
    assert max(values) - min(values) > 0.02, "the test must be able to fail"
    by_scale = one_pass_loss(model, data).by_scale
    assert [first[1], second[4]] == pytest.approx(by_scale, abs=1e-5)


def test_training_images_are_those_that_were_learnt_from(make_ladder, tmp_path):
    """Catches losses of training images over some that the model never saw."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        np.save(tmp_path / f"{split}_images.npy", rng.integers(0, 256, (count, 1, 4, 4), np.uint8))
        np.save(tmp_path / f"{split}_labels.npy", np.arange(count) % 3)
        np.save(tmp_path / f"{split}_tokens.npy", np.arange(count)[:, None].repeat(5, 1))
    (tmp_path / "data.json").write_text('{"kind": "arrays"}')
    probe = object.__new__(verb.Probe)
    probe.model = SimpleNamespace(config=SimpleNamespace(conditional=True))
    probe.ladder = make_ladder(ScaleSchedule((1, 2)))
    probe.settings = SimpleNamespace(hidden_images=9)
    probe.run = SimpleNamespace(
        inputs={"data": tmp_path, "tokens": tmp_path}, device=torch.device("cpu"), ranks=Ranks(),
        config={"training": {"unique_images": 12}},
    )  # fmt: skip
    learnt = chosen_rows(open_split(tmp_path, "train"), 12)
    found = probe.split("train")
    rows = found.tokens_NL[:, 0].tolist()
    assert len(rows) == 9 and set(rows) < set(learnt.tolist())
    assert found.labels_N.tolist() == [row % 3 for row in rows]
    assert len(set(probe.split("test").tokens_NL[:, 0].tolist()) - set(range(20))) == 0
    probe.run.config = {"training": None}
    assert not set(probe.split("train").tokens_NL[:, 0].tolist()) <= set(learnt.tolist())


def test_hidden_numbers_run_from_one_to_all():
    """Catches a scale of which not all, or none, is hidden."""
    assert verb.hidden_numbers(16, 5) == [1, 5, 9, 12, 16]
    assert verb.hidden_numbers(1, 5) == [1] * 5 and verb.hidden_numbers(4, 2) == [1, 4]
    sets = verb.hidden_sets(
        ScaleSchedule((1, 2, 3)), [1, 2, 9], 50, torch.Generator().manual_seed(0)
    )
    counts = [sets[:, piece].sum(1).unique().tolist() for piece in ScaleSchedule((1, 2, 3)).slices]
    assert counts == [[1], [2], [9]]
    assert sets[:, 1:5].float().mean(0).min() > 0.25, "every place is hidden as often"


def probe_of(model, ladder, rows, said):
    """What the verb asks, over a model in memory."""
    probe = object.__new__(verb.Probe)
    probe.run = SimpleNamespace(
        add=lambda metric, value, unit, **names: rows.append((metric, value, names)),
        say=said.append,
        device=torch.device("cpu"),
    )
    probe.model, probe.ladder, probe.identity = model, ladder, {"model": "m"}
    probe.seeds, probe.labels_N = range(5, 15), torch.arange(10) % 3
    probe.images = SimpleNamespace(batch_size=4)
    return probe


def test_what_a_sampler_takes_is_reported(make_model, make_ladder):
    """Catches a mean over batches of other sizes, a count of another sampler, and a bound that no
    position reaches, which nobody is told of."""
    model, ladder = make_model(history=0, mask_prob=1.0), make_ladder(ScaleSchedule((1, 2, 3)))
    for bound, reached in ((0.3, True), (0.9999, False)):
        select = {"name": "dynamic", "commit_above": bound}
        config = SamplerConfig(name="srdd", refine_steps=3, select=select)
        rows, said = [], []
        entry = {"name": "s", "sampler": config.model_dump(mode="json")}
        probe_of(model, ladder, rows, said).report_sampler(entry)
        numbers = {name: value for name, value, names in rows if "scale" not in names}
        passes = [value for name, value, names in rows if name == "image_passes"]
        counted = verb.count_passes(model, ladder, torch.arange(10) % 3, range(5, 15), config)[1]
        assert passes == pytest.approx(counted.passes_BK.double().mean(0).tolist())
        each = 14 / counted.passes_BK.sum(1).double()
        assert numbers["image_tokens_per_forward"] == pytest.approx(each.mean().item())
        evals = (counted.passes_BK * torch.tensor([1, 4, 9])).sum(1).double().mean().item()
        assert numbers["image_token_evals"] == pytest.approx(evals)
        assert numbers["peak_q99"] <= numbers["peak_max"] < 1.0
        assert all(names["sampler"] == "s" and names["model"] == "m" for _, _, names in rows)
        assert bool(said) != reached
    assert said[0].startswith("sampler.select.commit_above 0.9999: fewer than one open")


# ---------------------------------------------------------------- rules


def test_the_same_within_a_margin_by_two_one_sided_tests():
    """Catches a p-value of another hypothesis, and a word that does not follow from it."""
    for values, margin in (
        ([0.1, 0.05, -0.02], 0.3), ([0.1, 0.3, -0.2], 0.3), ([0.5, 0.55, 0.6], 0.3),
        ([-0.5, -0.55, -0.6], 0.3), ([0.29, 0.31, 0.30], 0.3), ([0.2, 0.25, 0.1, 0.15], 0.3),
    ):  # fmt: skip
        found = estimate(values)
        word, p, _ = equivalence(found, margin)
        upper = ttest_1samp(values, margin, alternative="less").pvalue
        lower = ttest_1samp(values, -margin, alternative="greater").pvalue
        above = ttest_1samp(values, margin, alternative="greater").pvalue
        below = ttest_1samp(values, -margin, alternative="less").pvalue
        inside = abs(found.mean) < margin
        wanted = 2 * (max(upper, lower) if inside else min(above, below))
        assert p == pytest.approx(min(1, wanted), abs=1e-9)
        is_in = -margin < found.low and found.high < margin
        is_out = found.low > margin or found.high < -margin
        assert word == ("yes" if is_in else "no" if is_out else "not decided")
        assert (p < 0.05) == (word != "not decided")
    assert equivalence(estimate([0.1, 0.1, 0.1]), 0.3)[:2] == ("not decided", None)
    assert equivalence(estimate([0.0, 0.0, 0.0]), 0.3)[:2] == ("yes", None), "nothing differs"
    assert equivalence(estimate([0.1, 0.1]), 0.3)[0] == "not decided", "two seeds decide nothing"
    assert equivalence(None, 0.3) == ("not decided", None, "")


def rows_for(view, variant, metric, values, **columns):
    """Rows of a number of a variant, one for each training seed."""
    names, i = view.variants[variant], list(view.variants).index(variant)
    head = {"study": "x", "metric": metric, "unit": "score", **columns}
    head |= {key: names[key] for key in ("tokenizer", "model")}
    return [
        {**head, "train_seed": seed, "run_id": f"sample/v{i}-{seed}", "value": value}
        for seed, value in zip(SEEDS, values)
    ]


def results_with(tmp_path, rows, names=("a", "b")):
    """Results of a small study with further rows: (variant, metric, values, columns)."""
    bare = View(Results.load(build(tmp_path / "bare", list(names))), "s")
    more = [
        row for variant, *rest, columns in rows for row in rows_for(bare, variant, *rest, **columns)
    ]
    return View(Results.load(build(tmp_path / "full", list(names), more=more)), "s")


def asked(rule, **more):
    claim = {"text": "t", "rule": rule, "variant": "b", "against": "a", **more}
    return Claim(**claim).model_dump()


def test_any_number_is_judged_by_its_paired_difference(tmp_path):
    """Catches a rule that looks for a score, the wrong direction, and a missing number that is
    judged."""
    rows = [
        ("a", "loss_test_any_order", (2.9, 3.0, 3.1), {}),
        ("b", "loss_test_any_order", (2.8, 2.91, 2.99), {}),
        ("a", "image_tokens_per_forward", (2.0, 2.1, 2.2), {}),
        ("b", "image_tokens_per_forward", (3.0, 3.11, 3.2), {}),
    ]
    view = results_with(tmp_path, rows)
    word, reason = judgement = judged(view, asked("value", metric="loss_test_any_order"))
    assert word == "yes" and reason.startswith("loss_test_any_order of b minus that of a")
    assert judgement.p == pytest.approx(ttest_1samp([-0.1, -0.09, -0.11], 0).pvalue)
    turned = {**asked("value", metric="loss_test_any_order"), "better": "higher"}
    assert judged(view, turned)[0] == "no"
    drawn = asked("value", metric="image_tokens_per_forward", better="higher")
    assert judged(view, drawn)[0] == "yes"
    assert judged(view, asked("value", metric="fid"))[0] == "no", "FID of b is higher by 0.1"
    word, reason = judged(view, asked("value", metric="peak_q99", better="lower"))
    assert word == "no such metric" and reason == "no row of this suite has peak_q99"


OWN = {"seed_first": 900, "seed_last": 919, "num_images": 20}  # no sample of the study


def test_numbers_over_images_of_their_own_are_judged(tmp_path):
    """Catches a rule that sees the study's own samples alone: its claim said not decided, and no
    reader could tell why."""
    rows = [
        ("a", "inpaint_psnr_unknown", (18.0, 18.1, 18.2), OWN),
        ("b", "inpaint_psnr_unknown", (18.5, 18.61, 18.7), OWN),
    ]
    view = results_with(tmp_path, rows)
    word, reason = judged(view, asked("value", metric="inpaint_psnr_unknown", better="higher"))
    assert word == "yes" and "+0.503" in reason


FIRST = {"seed_first": 0, "seed_last": 99, "num_images": 100}
SECOND = {"seed_first": 100, "seed_last": 199, "num_images": 100}
LOW, HIGH, EMPTY = (1.0, 1.1, 1.2), (2.0, 2.11, 2.2), (None, None, None)


@pytest.mark.parametrize(
    "rows",
    [
        [("a", LOW, FIRST), ("b", HIGH, SECOND)],
        [("a", LOW, {"seed_first": 0, "seed_last": 199}), ("b", HIGH, FIRST)],
        [("a", LOW, {**OWN, "num_images": 10}), ("b", HIGH, OWN)],
        [("a", LOW, FIRST), ("a", LOW, SECOND), ("b", HIGH, FIRST)],
        [("a", LOW, FIRST), ("a", EMPTY, SECOND), ("b", EMPTY, FIRST), ("b", HIGH, SECOND)],
    ],
    ids=["other seeds", "the study's and a half", "other counts", "halves", "empty halves"],
)
def test_numbers_over_different_images_are_no_pair(tmp_path, rows):
    """Catches a yes that follows from two samples and not from two variants."""
    view = results_with(tmp_path, [(name, "drawn", *rest) for name, *rest in rows])
    for rule, more in (("value", {"better": "higher"}), ("same", {"margin": 5})):
        word, reason = judged(view, asked(rule, metric="drawn", **more))
        assert word == "not decided" and "none; no training has one number of both" in reason


def test_a_margin_holds_for_no_fid_of_another_extractor(tmp_path):
    """Catches a margin in units of one extractor by which another judges: of completed images
    too."""
    rows = [(name, "inpaint_fid_x8", (1.0, 1.1, 1.2), OWN) for name in "ab"]
    rows += [(name, "inpaint_fid_lite", (9.0, 9.1, 9.2), OWN) for name in "ab"]
    view = results_with(tmp_path, rows)
    lite = {"kind": "pretrained", "name": "lite", "network": "efficientnet_lite0", "dim": 1280}
    view.results.features["lite"] = lite
    claim = asked("same", metric="inpaint_fid", margin=0.3)
    assert judged(view, claim)[0] == "yes"
    assert judged(view.by("lite"), claim) == (
        "no such metric",
        "the margin is stated in units of x8",
    )


@pytest.mark.parametrize("rule", ["value", "same"])
@pytest.mark.parametrize(
    "axes, said",
    [
        ({"scale": 2}, "each scale;"),
        ({"step": 7}, "each step;"),
        ({"scale": 1, "step": 7}, "each scale and step;"),
    ],
)
def test_a_number_of_each_scale_or_step_is_said_to_be_one(tmp_path, rule, axes, said):
    """Catches a claim that ends with a bare dash where many numbers stand."""
    rows = [(name, "loss_there", (1.0, 1.1, 1.2), axes) for name in "ab"]
    view, claim = results_with(tmp_path, rows), asked(rule, metric="loss_there", better="lower")
    word, reason = judged(view, {**claim, "margin": 1.0 if rule == "same" else None})
    assert word == "not decided" and f"loss_there has a number of {said}" in reason


def test_same_is_judged_by_the_margin_that_the_claim_states(tmp_path):
    """Catches a margin that is not read, and FID of another extractor's name."""
    view = results_with(tmp_path, [])
    word, reason = judged(view, asked("same", margin=0.3))
    assert word == "yes" and reason.endswith("the same within 0.3")
    assert reason.startswith("fid_x8 of b minus that of a")
    assert judged(view, asked("same", margin=0.05))[0] == "no", "0.1 apart with little spread"
    assert judged(view, {**asked("same"), "margin": None})[0] == "not decided"
    lite = {"kind": "pretrained", "name": "lite", "network": "efficientnet_lite0", "dim": 1280}
    view.results.features["lite"] = lite
    assert "by lite" not in " ".join(claim_details(view.by("x8")))
    word, reason = judged(view.by("lite"), asked("same", margin=0.3))
    assert (word, reason) == ("no such metric", "the margin is stated in units of x8")


# ---------------------------------------------------------------- figures and tables


def adapted(view):
    """Settings that make `b` a student of `a` with masks, and `c` a sampler of it."""
    a, b, c = (view.variants[name] for name in "abc")
    for names, mask_prob in ((a, 0.0), (b, 1.0), (c, 1.0)):
        names["settings"]["model"]["mask_prob"] = mask_prob
    teacher = {"model": dict(a["settings"]["model"]), "training": dict(a["settings"]["training"])}
    b["settings"]["distill"] = c["settings"]["distill"] = {"arm": "real", "teacher": teacher}
    c["model"] = b["model"]
    c["sampler"] = "s-several"
    c["settings"]["sampler"] = {
        **b["settings"]["sampler"], "name": "srdd", "refine_steps": 3,
        "select": {"name": "dynamic", "commit_above": 0.85, "confidence": "peak"},
    }  # fmt: skip
    return view


@pytest.fixture
def view(tmp_path):
    """A teacher, its student and a sampler of the student."""
    rows = [(name, "loss_val", (3.0, 3.0, 3.0), {"step": 10}) for name in "ab"]
    rows += [("b", "loss_val", (3.0, 2.9, 2.9), {"step": 20})]
    rows += [
        ("b", "kept_loss_test", (2.9, 2.9, 3.0), {}),
        ("b", "intra_scale_gain", (0.1,) * 3, {}),
    ]
    for count, loss in ((1, 2.5), (2, 2.7), (4, 2.9)):
        for split, more in (("test", 0.0), ("train", -0.1 * count)):
            values = (loss + more, loss + more + 0.02, loss + more + 0.01)
            rows.append(("b", f"loss_{split}_hidden_{count}", values, {"scale": 1}))
    rows += [("b", "loss_test_hidden_16", (3.0,) * 3, {"scale": 2})]
    several = {"sampler": "s-several"}
    rows += [("b", "fid_x8", (4.0, 4.1, 4.2), {**several, "seed_first": 0, "seed_last": 199})]
    rows += [("b", "image_tokens_per_forward", (2.0, 2.1, 2.2), several)]
    rows += [("b", "peak_max", (0.5, 0.5, 0.6), several), ("b", "peak_q99", (0.4,) * 3, several)]
    found = adapted(results_with(tmp_path, rows, "abc"))
    runs = found.variants["b"]["jobs"]
    found.variants["c"]["jobs"] = runs
    return found


def test_models_are_told_from_samplers(view):
    """Catches a sampler shown as a training of its own, and a student without its teacher."""
    assert by_model(view) == {"a": ["a"], "b": ["b", "c"]}
    assert teacher_in(view, "b") == "a" and teacher_in(view, "a") is None
    # 20 steps of the student over the 10 that the teacher kept
    assert share_of_teacher(view, "b") == [2.0, 2.0, 2.0]


def test_the_table_of_models_says_what_each_learnt(view):
    """Catches FID of another number of passes, and the bound of a model that has none."""
    table, caption = show.table_adaptation(view)
    assert table["Model"].tolist() == ["a", "b"]
    student = table.iloc[1]
    assert student["Share of the teacher's tokens"].numbers == {"value": 2.0}
    assert student["FID (x8), dynamic, T = 4"].numbers["mean"] == pytest.approx(4.1)
    assert student["FID (x8), T = 1"].numbers["mean"] == pytest.approx(5.111)
    assert table.iloc[0]["Intra-scale gain (nats/token)"] == "-"
    assert caption.too_long is None and "Share" in caption.whole


def test_the_table_of_samplers_says_what_is_hardly_reached(view):
    """Catches a rule that commits its quota alone and is told as one that adapts."""
    table, caption = show.table_decoding(view)
    row = table.set_index("Variant").loc["c"]
    assert row["Tokens per forward"].numbers["mean"] == pytest.approx(2.1)
    assert row["Likeliest code, 99 % quantile"].numbers["mean"] == pytest.approx(0.4)
    assert "c: fewer than one open position in a hundred reaches commit_above 0.85" in caption
    assert table.set_index("Variant").loc["a", "Status"] != "ok", (
        "a number that is missing is named"
    )
    assert "Every sampler: FID beside class agreement. Tokens" in caption, "no other was scored"
    assert "Coverage" not in " ".join(table.columns)


def test_a_score_that_a_training_seed_lacks_is_said(view):
    """Catches FID over fewer training seeds than the losses beside it, in a row called ok."""
    rows, model = view.results.metrics, view.variants["b"]["model"]
    fid = (rows["metric"] == "fid_x8") & (rows["model"] == model) & (rows["train_seed"] == 1)
    view.results.metrics = rows[~fid]
    view.results.known.clear()
    models = show.table_adaptation(view)[0].set_index("Model")["Status"]
    samplers = show.table_decoding(view)[0].set_index("Variant")["Status"]
    assert samplers["c"] == "FID (x8): seed 1 not measured" and models["a"] == "ok"
    assert models["b"] == "FID (x8), T = 1 and 1 more: seed 1 not measured"


def test_the_figure_of_hidden_tokens_shows_both_splits(view):
    """Catches a panel of another scale, a line for each sampler, a split that is left out, and the
    spread of the seeds' own tokenizers taken for that of what own tokens gain."""
    figure, caption = show.figure_intra_scale(view)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["scale 1, 2x2", "scale 2, 4x4"]
    solid, dotted, zero, _ = panels[0].lines
    np.testing.assert_allclose(solid.get_xdata(), [1, 2, 4])
    np.testing.assert_allclose(solid.get_ydata(), [-0.4, -0.2, 0.0], atol=1e-12)
    np.testing.assert_allclose(dotted.get_ydata(), [-0.1, 0.0, 0.0], atol=1e-12)
    assert list(zero.get_ydata()) == [0, 0] and panels[0].get_xticks().tolist() == [1, 2, 4]
    heights = panels[0].collections[0].get_paths()[0].vertices[:, 1]
    assert set(heights.round(6)) == {-0.4, -0.2, 0.0}, "seeds differ, their differences do not"
    assert panels[1].lines[0].get_xdata().tolist() == [16.0] and caption.too_long is None
    labels = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert labels == ["b", "dotted: the same, training images"]
    plt.close("all")


def test_the_figure_of_passes_draws_what_was_counted(view):
    """Catches a line at the passes of a batch, and a variant that is left out in silence."""
    figure, caption = show.figure_tokens_per_forward(view)
    panel = figure.axes[0]
    assert panel.get_ylabel() == "FID (x8)"
    points = [c for c in panel.containers if c.get_label() == "c"]
    assert points[0].lines[0].get_xdata() == pytest.approx([2.1])
    assert "a: " in figure.get_suptitle() and caption.too_long is None
    plt.close("all")


def test_a_line_ends_with_one_pass_of_the_same_weights(tmp_path):
    """Catches one pass of other weights, a line that begins at two passes, and variants of one
    pass that hide each other or stand beside their number."""
    single, several = {"sampler": variant(0, "a")["sampler"]}, {"sampler": "s-several"}
    rows = [(name, "image_tokens_per_forward", (4.0,) * 3, single) for name in "ab"]
    rows += [("b", "image_tokens_per_forward", (2.0, 2.1, 2.2), several)]
    rows += [("b", "fid_x8", (4.0, 4.1, 4.2), {**several, "seed_first": 0, "seed_last": 199})]
    view = adapted(results_with(tmp_path, rows, "abc"))
    assert [one_pass_of(view, name) for name in "abc"] == [None, None, "b"]
    figure, caption = show.figure_tokens_per_forward(view)
    passes, _, names, _ = figure.axes
    line = next(line for line in passes.lines if line.get_label() == "c")
    assert line.get_xdata() == pytest.approx([2.1, 4.0])
    assert line.get_ydata() == pytest.approx([4.1, view.score("b", "fid").mean])
    assert [label.get_text() for label in names.get_yticklabels()] == ["a", "b"]
    drawn = {one.lines[0].get_ydata()[0]: one.lines[0].get_xdata()[0] for one in names.containers}
    scores = {row: view.score(name, "fid").mean for row, name in enumerate("ab")}
    assert drawn == pytest.approx(scores) and names.get_xlabel() == "FID (x8)"
    assert names.get_title() == "one pass: 4 tokens\nper forward" and caption.too_long is None
    view.variants["c"]["settings"]["sampler"]["temperature"] = 0.7
    assert one_pass_of(view, "c") is None, "one pass at another temperature is no pass of it"
    plt.close("all")


def test_one_pass_of_several_schedules_says_how_many_tokens_each(tmp_path):
    """Catches one number of tokens for variants that differ in it."""
    single = {"sampler": variant(0, "a")["sampler"]}
    tokens = {"a": (4.0,) * 3, "b": (7.5,) * 3}
    rows = [(name, "image_tokens_per_forward", some, single) for name, some in tokens.items()]
    figure, _ = show.figure_tokens_per_forward(adapted(results_with(tmp_path, rows, "abc")))
    names = figure.axes[-2]
    assert [label.get_text() for label in names.get_yticklabels()] == ["a (4)", "b (7.5)"]
    assert names.get_title() == "one pass (tokens per\nforward)"
    plt.close("all")


def test_groups_of_several_passes_stand_above_those_of_one(tmp_path, monkeypatch):
    """Catches rules on one sheet and what they are read against on another, and variants of one
    pass on an axis of passes."""
    view = adapted(results_with(tmp_path, [], "abc"))
    wanted = [["c"], ["a", "b"]]
    assert [list(part.variants) for part in show._sheets(view)] == wanted
    monkeypatch.setattr(show, "by_group", lambda part: show_by_group(part, 2))
    assert [list(part.variants) for part in show._sheets(view)] == wanted


def test_trainings_that_kept_the_same_weights_are_told(tmp_path):
    """Catches budgets told apart whose weights are one, and a model taken for another that kept the
    same step by chance."""
    losses = {"a": (2.9, 2.9, 3.0), "b": (2.9, 2.9, 3.0), "c": (2.9, 2.9, 3.1)}
    rows = [(name, "kept_loss_test", values, {}) for name, values in losses.items()]
    view = results_with(tmp_path, rows, "abc")
    assert same_weights(view) == {"a": ["b"]}
    table, caption = show.table_adaptation(view)
    assert table["Kept step"].tolist() == ["10"] * 3 and "Kept step" in table.attrs["shown"]
    for said in (caption, show.table_decoding(view)[1], show.figure_tokens_per_forward(view)[1]):
        assert "a; b: the same weights, of step 10." in said
    plt.close("all")
