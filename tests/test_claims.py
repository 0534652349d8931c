"""Verdicts of claims: which way a metric points, metrics that are none, and what captions say of
labels, copies and bias."""

import pandas as pd
import pytest
from small_study import build

from bench.experiments.claims.show import table_claims
from bench.experiments.scores.show import table_scores
from bench.report.claims import direction, judged
from bench.report.results import Results
from bench.report.view import View
from bench.report.words import reference_details
from bench.study.schema import Claim
from bench.study.scores import BETTER, better


def claim(metric="fid", stated=None, rule="score", variant="b", against="a"):
    return Claim(
        text="b beats a", rule=rule, variant=variant, against=against, metric=metric, better=stated
    ).model_dump()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """b has a higher FID, a higher IS, and is slower than a."""
    return Results.load(build(tmp_path_factory.mktemp("claims"), ["a", "b"]))


@pytest.mark.parametrize(
    "metric, stated, word",
    [
        ("is", None, "yes"), ("is", "higher", "yes"), ("is", "lower", "no"),
        ("fid", None, "no"), ("fid", "lower", "no"), ("fid", "higher", "yes"),
    ],
)  # fmt: skip
def test_a_claim_points_as_its_metric_does(results, metric, stated, word):
    """Catches `no` for an IS that is higher, because lower was taken to be better for every
    metric."""
    found, reason = judged(View(results, "s"), claim(metric, stated))
    assert found == word
    assert ("states that" in reason) == ((metric, stated) in {("is", "lower"), ("fid", "higher")})


def test_a_claim_of_an_older_version_keeps_its_direction(results):
    """Catches a published verdict that changes its meaning: its row says lower,
    and the reason says that this is unusual."""
    assert judged(View(results, "s"), {**claim("is"), "better": "lower"})[0] == "no"
    older = claim("is")
    del older["better"]
    assert direction(older) == "higher"


@pytest.mark.parametrize("metric", ["recal", "FID", "fid_x8", "inception_score", "psnr"])
@pytest.mark.parametrize("rule", ["score", "tuned"])
def test_a_metric_that_no_row_has_is_no_metric(results, rule, metric):
    """Catches `not decided` for a misspelt metric, as if more seeds could decide it."""
    word, reason = judged(View(results, "s"), claim(metric, "higher", rule))
    assert word == "no such metric" and f"{metric}_x8" in reason and "recall" in reason


def test_a_metric_without_scores_yet_is_not_decided(tmp_path):
    """Catches a known score of trainings that failed that is called no metric at all."""
    folder = build(tmp_path, ["a", "b"])
    lines = (folder / "metrics.csv").read_text().split("\n")
    (folder / "metrics.csv").write_text("\n".join(line for line in lines if ",0,199," not in line))
    found = Results.load(folder)
    assert judged(View(found, "s"), claim("fid"))[0] == "not decided"
    assert judged(View(found, "s"), claim("recal"))[0] == "no such metric"


def test_a_direction_that_nobody_knows_is_asked_for(tmp_path):
    """Catches a metric of a user's own that is judged as if lower were better."""
    head = {"study": "x", "unit": "score", "seed_first": 0, "seed_last": 199, "metric": "charm_x8"}
    plain = Results.load(build(tmp_path / "plain", ["a", "b"]))
    names = plain.variants("s")
    more = [
        {**head, **{key: names[name][key] for key in ("tokenizer", "model", "sampler")},
         "train_seed": seed, "value": value * (1 + 0.1 * seed),
         "run_id": f"sample/v{i}-{seed}"}
        for i, (name, value) in enumerate((("a", 1.0), ("b", 2.0))) for seed in (0, 1, 2)
    ]  # fmt: skip
    found = Results.load(build(tmp_path / "more", ["a", "b"], more=more))
    word, reason = judged(View(found, "s"), claim("charm"))
    assert word == "not decided" and "say better: lower or better: higher" in reason
    assert (
        judged(View(found, "s"), claim("charm", "higher"))[0] == "yes"
        and judged(View(found, "s"), claim("charm", "lower"))[0] == "no"
    )


def test_rules_of_time_and_memory_hear_a_stated_direction(results):
    """Catches `better: higher` of a claim about time that is silently read as lower."""
    words = {
        stated: judged(View(results, "s"), claim(stated=stated, rule="latency"))[0]
        for stated in (None, "lower", "higher")
    }
    assert words == {None: "no", "lower": "no", "higher": "yes"}


def test_tuning_follows_the_direction(results):
    """Catches the worst guidance that is picked as the best, where a higher score is better."""
    assert results.tuned("a", "s", "is_x8") is None  # no halves here
    group = {"g": ["a", "b"]}
    results.groups, halves = lambda suite: group, results.halves
    results.known |= {
        ("of", name, "s", "is_x8", *halves[0]): results.of(name, "s", "is_x8")
        for name in ("a", "b")
    }
    assert (
        results.tuned("g", "s", "is_x8") == "a"
        and results.tuned("g", "s", "is_x8", lower=False) == "b"
    )


@pytest.mark.parametrize(
    "metric, way",
    [("inpaint_psnr_unknown", "higher"), ("super_resolution_ssim_whole", "higher"),
     ("kept_loss_test", "lower"), ("kid", "lower"),
     ("token_accuracy_test_scale", "higher"), ("floor_fid", "lower"),
     ("nearest_fill_inpaint_class_agreement", "higher"), ("recal", None), ("this", None),
     ("FID", None), ("", None)],
)  # fmt: skip
def test_directions_of_the_project_s_own_metrics(metric, way):
    """Catches a metric whose name holds another one's, and a misspelt one that gets a direction."""
    assert better(metric) == way and set(BETTER.values()) == {"lower", "higher"}


def test_claims_that_are_markup_stay_in_the_caption(tmp_path):
    """Catches a claim that begins with two dots and vanishes as a comment,
    and one that is a list of its own."""
    about = {
        "text": ".. b beats a",
        "origin": "ours",
        "rule": "score",
        "variant": "b",
        "against": "a",
        "metric": "is",
    }
    found = Results.load(build(tmp_path, ["a", "b"], claims=[{**about, "better": None}]))
    found.suite("s")["claim"] = "1"
    caption = table_scores(View(found, "s"))[1]
    assert caption.details[0] == "1\\." and r"Claim: \.. b beats a: yes" in caption
    assert table_claims(View(found, "s"))[0]["Claim"].tolist() == [".. b beats a"]


# ---------------------------------------------------------------- captions


def words_of(tmp_path, more=(), **about):
    found = Results.load(build(tmp_path, ["a"], more=more, **about))
    reference = " ".join(reference_details(found, View(found, "s")))
    return reference, table_scores(View(found, "s"))[1]


@pytest.mark.parametrize(
    "labels, said, ideal",
    [
        ("training", "shares of the training split", True),
        ("balanced", "every class equally often", True),
        (None, "modulo classes", False),
    ],
)
def test_captions_say_how_labels_were_drawn(tmp_path, labels, said, ideal):
    """Catches a floor of other labels that is called what a perfect generator scores."""
    reference, scores = words_of(
        tmp_path, evaluation={"num_images": 200, "first_seed": 0, "labels": labels}
    )
    assert said in reference and said in scores
    assert ("what a perfect generator" in scores) == ideal and (
        "need not score the same" in scores
    ) != ideal


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_captions_say_where_samples_are_not_of_float32(tmp_path, precision):
    """Catches scores of samples in bfloat16 that read as the usual ones."""
    evaluation = {"num_images": 200, "first_seed": 0, "precision": precision}
    reference, scores = words_of(tmp_path, evaluation=evaluation)
    for words in (reference, scores):
        assert ("per training seed, drawn in bfloat16, " in words) == (precision == "bfloat16")
        assert "float32" not in words


def test_without_classes_no_label_is_named(tmp_path):
    """Catches labels in the caption of images that were asked for no class."""
    reference, scores = words_of(tmp_path, dataset={"name": "d", "num_classes": 0})
    assert "Label" not in reference and "what a perfect generator" in scores


def test_copies_are_said(tmp_path):
    """Catches `no training image` beside a split that holds copies."""
    head = {
        "study": "x",
        "run_id": "prepare/d-1",
        "unit": "images",
        "metric": "test_copies_of_train",
    }
    reference, _ = words_of(tmp_path / "some", more=[{**head, "value": 90}])
    assert (
        "90 of them exact copies of training images" in reference and "no training" not in reference
    )
    assert "no training image" in words_of(tmp_path / "none", more=[{**head, "value": 0}])[0]


@pytest.mark.parametrize(
    "dim, kind, said",
    [(64, "trained", None), (256, "trained", "N = 200 is below the 256 dimensions"),
     (2048, "inception",
      "N = 200 and the number of held-out images, 300, are below the 2048 dimensions"),
     (128, "inception", "Inception-v3, 128 dimensions")],
)  # fmt: skip
def test_too_few_images_for_the_features_are_said(tmp_path, dim, kind, said):
    """Catches a FID of fewer images than the covariance has dimensions, printed without a word, and
    a hidden layer of Inception."""
    reference, _ = words_of(tmp_path, features={"kind": kind, "name": "x8", "dim": dim})
    assert (said in reference) if said else ("dominated by bias" not in reference)
    assert (f"{dim} dimensions" in reference) == (said is not None)


def test_variants_of_the_same_scores_are_named(tmp_path):
    """Catches a control that kept the same weights, and stands beside its original as if it had
    been measured apart."""
    folder = build(tmp_path, ["a", "b", "c"])
    first = View(Results.load(folder), "s")
    told = [table_scores(first)[1].details]
    rows = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
    theirs = {
        name: (rows["metric"] == "fid_x8") & (rows["model"] == first.variants[name]["model"])
        for name in ("a", "c")
    }
    rows.loc[theirs["c"], "value"] = rows.loc[theirs["a"], "value"].to_numpy()
    rows.to_csv(folder / "metrics.csv", index=False)
    told.append(table_scores(View(Results.load(folder), "s"))[1].details)
    words = ["are claims on the other: a and c." in " ".join(details) for details in told]
    assert words == [False, True]
