"""What tables say where one training seed of several has no number: a mean over the seeds that are
left never stands there as if all were behind it."""

from functools import cache
from pathlib import Path

import pytest

from bench.report.claims import judged, seeds_behind
from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms

PUBLISHED = Path(__file__).parent.parent / "results"


@cache
def published(study):
    """Published results without their claims, whose verdicts take longer than the tables."""
    results = Results.load(PUBLISHED / study / "published")
    for suite in results.about["suites"].values():
        suite["claims"] = []
    return results


def without(study, *jobs):
    """Published results in which some jobs found no memory."""
    whole = published(study)
    metrics = whole.metrics[~whole.metrics["run_id"].isin(jobs)].reset_index(drop=True)
    assert len(metrics) < len(whole.metrics)
    runs, lost = whole.runs.copy(), whole.runs["run_id"].isin(jobs)
    runs.loc[lost, ["status", "reason"]] = "oom", "no memory"
    return Results(whole.folder, metrics, runs, whole.about, whole.variants_of)


def status(results, suite, table, row):
    """Status of the row that begins like this."""
    rows, _ = rooms.function_of("tables", table)(View(results, suite))
    begins = rows.iloc[:, 0].astype(str)
    return rows.loc[begins.str.startswith(row), "Status"].iloc[0]


RECONSTRUCTION = "Reconstruction, schedule 1-2-3-4"
FID = "FID (digits64)"
# study, suite, table, variant whose job of a stage is lost, its seed, the row that shows its
# number, the columns that lack it where the row has others of the seed
LOST = [
    ("fashion32", "ablation_guidance", "guidance", "VAR, cfg_scale 2.5", "sweep", 1, "VAR", ""),
    ("digits", "adaptation", "decoding", "SDD", "sweep", 6, "SDD", f"{FID} and 4 more"),
    ("digits", "adaptation", "adaptation", "SDD", "sweep", 6, "SDD", f"{FID}, T = 1"),
    ("digits", "ladders", "factors", "VAR", "evaluate", 6, "VAR", f"{FID} and 5 more"),
    ("digits", "repetition_fid", "repetition", "VAR, unique_images 85", "evaluate", 6, "VAR", FID),
    ("digits", "repetition_fid", "repetition", "VAR, unique_images 85", "memorisation", 6, "VAR",
     "Nearest-image rate and 2 more"),
    ("digits", "main", "scores", "VAR", "baselines", 6, RECONSTRUCTION, ""),
    ("digits", "main", "tokenizer", "VAR", "encode", 6, "1-2-3-4", ""),
    ("digits", "restoration", "restoration", "VAR state", "restoration_baselines", 6, "(as it is)",
     ""),
    ("fashion32_tokenizers", "ablation_tokenizer", "reconstruction", "+ adversarial", "baselines",
     1, "+ adversarial", "rFID (fashion64)"),
]  # fmt: skip


@pytest.mark.parametrize("study, suite, table, variant, stage, seed, row, name", LOST)
def test_a_row_names_the_seed_that_its_means_are_without(
    study, suite, table, variant, stage, seed, row, name
):
    jobs = published(study).variants(suite)[variant]["jobs"][str(seed)]
    lost = next(one for one in jobs if one.startswith(f"{stage}/"))
    assert status(published(study), suite, table, row) == "ok"
    words = f"{name}: " if name else ""
    said = f"{words}seed {seed} oom (no memory)"
    assert status(without(study, lost), suite, table, row) == said


@pytest.mark.parametrize("suite, table, row, column", [
    ("main", "scores", "Reconstruction", "FID (lite0_64) and 6 more"),
    ("ablation_tokenizer", "reconstruction", "+ perceptual", "rFID (lite0_64)"),
])  # fmt: skip
def test_a_column_that_no_seed_has_is_named(suite, table, row, column):
    """Catches a row of dashes by the second extractor that is called ok, all its jobs lost."""
    whole = published("emoji")
    scored = whole.metrics["metric"] == "reconstruction_fid_lite0_64"
    lost = whole.metrics.loc[scored, "run_id"].unique()
    said = f"{column}: seeds 0, 1, 2 oom (no memory)"
    assert status(without("emoji", *lost), suite, table, row) == said


def test_a_row_that_no_seed_has_says_why():
    """Catches `not measured` of reconstructions whose jobs all found no memory."""
    whole = published("digits")
    scored = whole.metrics["metric"] == "reconstruction_fid_digits64"
    lost = whole.metrics.loc[scored, "run_id"].unique()
    results = without("digits", *lost)
    assert status(results, "main", "scores", RECONSTRUCTION) == "oom (no memory)"


def test_rooms_that_measure_tokenizers_say_so():
    """Catches the failed training of a model as the reason for what a tokenizer lacks."""
    stages = set()
    for study in ("digits", "digits_few", "emoji"):
        names = published(study).runs["run_id"].str.extract(r"^(\w+)/\d+(?:\.\d+)+-").dropna()
        stages |= set(names[0])  # jobs that are called by a schedule alone
    assert stages - {"encode", "baselines"} == set(rooms.which("OF_TOKENIZER"))


@pytest.mark.parametrize("table", ["classification", "class_shifts"])
def test_a_caption_names_the_seed_that_classifiers_of_tokens_are_without(table):
    """Catches a mean over two tokenizers of three that nothing says."""
    whole = published("digits_few")
    jobs = whole.variants("classify")["VAR"]["jobs"]["6"]
    lost = next(one for one in jobs if one.startswith("class_baselines/"))
    words = "naive Bayes on token counts, the study's classifier on reconstructions: seed 6 oom"
    captions = []
    for results in (whole, without("digits_few", lost)):
        _, caption = rooms.function_of("tables", table)(View(results, "classify"))
        captions.append(" ".join(caption.details))
    assert words not in captions[0] and words in captions[1]


def test_a_figure_of_codes_names_the_seed_whose_tokenizer_it_is_without():
    whole = published("fashion32")
    jobs = whole.variants("main")["VAR"]["jobs"]["1"]
    lost = next(one for one in jobs if one.startswith("encode/"))
    notes = []
    for results in (whole, without("fashion32", lost)):
        figure, _ = rooms.function_of("figures", "code_usage")(View(results, "main"))
        notes.append(figure.get_suptitle())
    assert not notes[0] and notes[1].endswith(": seed 1 oom (no memory)")


def test_a_score_that_is_no_number_in_one_seed_is_named():
    whole = published("fashion8")
    names, metrics = whole.variants("main")["SDD"], whole.metrics.copy()
    mine = (metrics["model"] == names["model"]) & (metrics["sampler"] == names["sampler"])
    mine &= (metrics["metric"] == "coverage_fashion8") & (metrics["train_seed"] == 6)
    metrics.loc[mine, "value"] = float("nan")
    results = Results(whole.folder, metrics, whole.runs, whole.about, whole.variants_of)
    assert status(results, "main", "scores", "SDD") == "Coverage (fashion8): seed 6 not measured"
    assert status(results, "main", "scores", "VAR") == "ok"


@pytest.mark.parametrize("study, suite, variant, stage, metric", [
    ("digits_few", "classify", "VAR", "classify", "funnel"),
    ("digits_few", "classify", "VAR", "classify", "accuracy_only_scale1"),
    ("digits", "representation", "VAR", "representation",
     "detail_r2_dcr_codes_over_naive"),
    ("fashion32_rooms", "equivalence", "VAR", "equivalence", "path_kl_equal_state"),
    ("digits", "repetition", "VAR, unique_images 85", "train_subset", "scaling"),
])  # fmt: skip
def test_a_verdict_names_the_seed_that_its_numbers_are_without(
    study, suite, variant, stage, metric
):
    """Catches a reason that does not name what rows call the numbers, so that two trainings of
    three are given out as all."""
    whole = published(study)
    claims = Results.load(whole.folder).about["suites"][suite]["claims"]
    claim = next(one for one in claims if metric in (one["metric"], one["rule"]))
    first, second, third = whole.suite(suite)["train_seeds"]
    jobs = whole.variants(suite)[variant]["jobs"][str(second)]
    lost = next(one for one in jobs if one.startswith(f"{stage}/"))
    if stage == "representation":
        lost = next(one for one in jobs if one.startswith("representation/dcr_codes-"))
    view = View(without(study, lost), suite)
    judgement = judged(view, claim)
    said = f"; over 2 of 3 training seeds: seed {second} oom (no memory)"
    assert judgement[0] == "not decided" and judgement[1].endswith(said)
    assert seeds_behind(view, claim, judgement) == f"{first} {third}"
    assert "training seeds:" not in judged(View(whole, suite), claim)[1]


def test_a_ceiling_is_taken_from_the_variant_that_has_it_whole():
    """Catches the tokenizer's reconstruction over two seeds of three in a row called ok, where
    another variant has it of all three."""
    study, suite = "fashion32_rooms", "zero_shot"
    jobs = [
        next(job for job in names["jobs"]["1"] if job.startswith("zero_shot/"))
        for names in published(study).variants(suite).values()
    ]
    ceilings = []
    for results in (published(study), without(study, jobs[0]), without(study, *jobs)):
        table, _ = rooms.function_of("tables", "zero_shot")(View(results, suite))
        ceilings.append(table[table["Variant"].str.startswith("reconstruction from all")].iloc[0])
    whole, one_lost, all_lost = ceilings
    assert whole["Status"] == "ok" and one_lost.equals(whole)
    assert all_lost["Status"] == "seed 1 oom (no memory)"
