"""A study scored by two extractors: every score and every claim by each, and what is said where
their verdicts differ."""

import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from small_study import GRID, SEEDS, TOKENIZER, build

from bench.experiments.claims.show import table_claims
from bench.experiments.scores.real import kid_words
from bench.experiments.scores.show import figure_fid, table_costs, table_scores
from bench.report.cells import readable
from bench.report.claims import by_others, claim_details, judged
from bench.report.results import Results
from bench.report.view import View
from bench.report.words import extractors_words, reference_words
from bench.runtime.study_row import check_study
from bench.study.schema import Claim

OTHER = {"kind": "pretrained", "name": "lite", "network": "efficientnet_lite0", "dim": 1280}
TRAINED = {"kind": "trained", "name": "x8", "dim": 8}


def asked(metric="fid", rule="score", text="b beats a"):
    return Claim(text=text, rule=rule, variant="b", against="a", metric=metric).model_dump()


def scores_of(plain, values):
    """Rows of scores by the second extractor. values: by variant, metric, a number per seed."""
    rows = []
    for i, (variant, of_metric) in enumerate(values.items()):
        names = plain.variants("s")[variant]
        head = {key: names[key] for key in ("tokenizer", "model", "sampler")}
        head |= {"study": "x", "unit": "score", "seed_first": 0, "seed_last": 199}
        for metric, numbers in of_metric.items():
            for seed, value in zip(SEEDS, numbers):
                about = {"metric": metric, "train_seed": seed, "run_id": f"sample/v{i}-{seed}"}
                rows.append({**head, **about, "value": value, "num_images": 200})
    return rows


def baseline(metric, value):
    about = {"study": "x", "tokenizer": TOKENIZER, "model": GRID, "run_id": "baselines/g-1"}
    return {**about, "metric": metric, "value": value, "unit": "score"}


def made(folder, fid_a, fid_b, claims=(), features=(TRAINED, OTHER), more=()):
    """Results where b has a higher FID by x8, and by lite the FIDs that are given."""
    values = {
        "a": {"fid_lite": fid_a, "fid_pixels": [7.0, 7.01, 7.0]},
        "b": {"fid_lite": fid_b, "fid_pixels": [7.0, 7.0, 7.01]},
    }
    rows = scores_of(Results.load(build(folder / "plain", ["a", "b"])), values)
    features = list(features)
    folder = build(folder / "two", ["a", "b"], claims, more=[*rows, *more], features=features)
    return Results.load(folder)


def differing(folder, **more):
    """Results where b has a lower FID by lite."""
    return made(folder, [3.0, 3.1, 3.2], [2.0, 2.15, 2.2], **more)


def agreeing(folder, **more):
    return made(folder, [2.0, 2.15, 2.2], [3.0, 3.1, 3.2], **more)


def test_a_claim_is_judged_by_each_extractor(tmp_path):
    """Catches a verdict of one extractor that is printed as if the other agreed."""
    claims = [asked(), asked("is", text="b has more"), asked(rule="latency", text="b is faster")]
    results = differing(tmp_path, claims=claims)
    table, caption = table_claims(View(results, "s"))
    assert table["Holds here"].tolist() == ["no", "yes", "no"]
    assert table["By lite"].tolist() == ["yes", "-", "-"], "lite scored no IS, and no time needs it"
    assert table["By lite, after Holm"].tolist() == ["yes", "-", "-"]
    because = table["Because"].tolist()
    assert "; by lite: yes, -0.983 [" in because[0] and "the evaluators differ" in because[0]
    assert "lite" not in because[1] and "lite" not in because[2]
    assert [*readable(table)[0].columns][:4] == [
        "Claim",
        "Holds here",
        "After Holm",
        "By lite",
    ] or ({"Claim", "Holds here", "By lite", "Because"} <= {*readable(table)[0].columns})
    assert "Holds here: by x8. By lite:" in caption
    words = " ".join(claim_details(View(results, "s")))
    assert "b beats a: no, after Holm no, by lite yes" in words and "evaluators differ" in words


def test_verdicts_that_agree_are_called_no_difference(tmp_path):
    """Catches a warning at every claim, which nobody reads any more."""
    results = agreeing(tmp_path, claims=[asked()])
    row = table_claims(View(results, "s"))[0].iloc[0]
    assert row["Holds here"] == row["By lite"] == "no"
    assert "; by lite: no, +0.983 [" in row["Because"] and "differ" not in row["Because"]


def test_not_decided_by_the_other_is_a_difference(tmp_path):
    """Catches `yes` that rests on one extractor alone, without a word."""
    results = made(tmp_path, [3.0, 3.1, 3.2], [2.0, 3.5, 3.3], claims=[asked()])
    row = table_claims(View(results, "s"))[0].iloc[0]
    assert (row["Holds here"], row["By lite"]) == ("no", "not decided")
    assert row["Because"].endswith("the evaluators differ")


def test_the_order_of_the_list_says_who_is_first(tmp_path):
    """Catches the trained extractor that is always the main one, and class agreement that is looked
    for under the name of one that knows no classes."""
    claims = [asked(), asked("class_agreement", text="b is of its class")]
    results = differing(tmp_path, claims=claims, features=[OTHER, TRAINED])
    assert results.extractors == ("lite", "x8") and results.extractor == "lite"
    assert results.score_name("fid") == "fid_lite"
    assert results.score_name("class_agreement") == "class_agreement_x8"
    table, _ = table_claims(View(results, "s"))
    assert table["Holds here"].tolist() == ["yes", "not decided"]
    assert table["By x8"].tolist() == ["no", "-"]
    scores = table_scores(View(results, "s"))[0].set_index("Variant")
    assert scores.loc["a", "Class agreement (x8)"].startswith("0.9")
    figure, caption = figure_fid(View(results, "s"))
    names = figure.axes[2].get_legend_handles_labels()[1]
    assert names == ["class agreement (x8)"], "lite scored no share"
    assert "of CAS" not in caption
    results.about["evaluation"]["metrics"] = ["fidelity", "classification_accuracy", "pixels"]
    assert "of all scores that name no other (of CAS x8); x8" in extractors_words(results)
    results.about["features"][0]["reference"] = "r.npz"
    results.known.clear()
    assert "for other scores; by x8 the held-out" in reference_words(results)
    assert reference_words(results).endswith("; of CAS and pixels as by x8.")
    plt.close("all")


def test_holm_of_each_extractor_counts_every_claim_once(tmp_path):
    """Catches a family that holds a claim twice because two extractors judge it, and one that
    leaves out what needs no extractor."""
    others = [asked("fid_pixels", text=f"{i}") for i in range(60)]
    close = {"fid_a": [3.0, 3.1, 3.2], "fid_b": [2.8, 2.85, 3.05]}
    alone = made(tmp_path / "alone", **close, claims=[asked()])
    many = made(tmp_path / "many", **close, claims=[asked(), *others])
    for results, word in ((alone, "yes"), (many, "not decided")):
        row = table_claims(View(results, "s"))[0].iloc[0]
        assert (row["By lite"], row["By lite, after Holm"]) == ("yes", word)
    p = judged(View(alone, "s").by("lite"), asked()).p
    assert 0.05 > p > 0.05 / 61


def test_nearer_is_judged_by_each(tmp_path):
    """Catches a distance to the score of real images by another extractor."""
    real = [baseline("reference_fid_x8", 6.0), baseline("reference_fid_lite", 2.0)]
    results = agreeing(tmp_path, claims=[asked(rule="nearer")], more=real)
    row = table_claims(View(results, "s"))[0].iloc[0]
    assert (row["Holds here"], row["By lite"]) == ("yes", "no")
    other = by_others(View(results, "s"), asked(rule="nearer"), ("yes", ""))["lite"]
    assert "fid_lite to the 2.00 of real held-out images" in other[1]


def halves_of(plain, name, values):
    """Rows of a FID on both halves of the sample seeds. values: by variant, its mean on each."""
    rows = []
    for half, (first, last) in enumerate(plain.halves):
        numbers = {}
        for variant, means in values.items():
            numbers[variant] = {f"fid_{name}": [means[half] * (1 + 0.01 * seed) for seed in SEEDS]}
        seeds = {"seed_first": first, "seed_last": last, "num_images": last - first + 1}
        rows += [{**row, **seeds} for row in scores_of(plain, numbers)]
    return rows


def test_tuning_follows_each_extractor(tmp_path):
    """Catches a setting that one extractor chose and another one scores."""
    plain = Results.load(build(tmp_path / "plain", ["a", "b", "c"]))
    chosen = {"a": (3.0, 3.0), "b": (2.0, 2.0), "c": (2.5, 4.0)}
    other = {"a": (3.0, 3.0), "b": (2.5, 4.0), "c": (2.0, 3.5)}
    more = halves_of(plain, "x8", chosen) + halves_of(plain, "lite", other)
    features = [TRAINED, OTHER]
    folder = build(tmp_path / "two", ["a", "b", "c"], more=more, features=features)
    results = Results.load(folder)
    for name, names in results.variants("s").items():
        names["group"] = "alone" if name == "a" else "tried"
    claim = {**asked(rule="tuned"), "variant": "tried", "against": "alone"}
    word, reason = judged(View(results, "s"), claim)
    assert word == "yes" and "fid_x8 of b minus that of a" in reason
    word, reason = by_others(View(results, "s"), claim, (word, reason))["lite"]
    assert word == "no" and "fid_lite of c minus that of a" in reason


def test_the_table_of_scores_has_each_fid(tmp_path):
    """Catches a second extractor whose FID stands in no table, or stands there in place of a column
    that a reader needs."""
    floors = [baseline("floor_fid_lite", 0.5), baseline("reconstruction_fid_lite", 0.75)]
    results = differing(tmp_path, more=floors)
    table, caption = table_scores(View(results, "s"))
    by = table.set_index("Variant")
    assert by.loc["a", "FID (lite)"] == "3.10 ± 0.25"
    assert by.loc["Floor: real training images", "FID (lite)"] == "0.500"
    assert (by.loc["b", "Verdict"], by.loc["b", "Verdict (lite)"]) == ("higher", "lower")
    assert by.loc["b", "Verdict after Holm, this table (lite)"] == "lower"
    assert by.loc["b", "FID (lite) minus a, paired"].startswith("-0.98")
    after = "Verdict after Holm, this table"
    columns = {"FID (x8)", "FID (lite)", after, f"{after} (lite)"}
    columns |= {"Variant", "FID (x8) minus a, paired", "Class agreement (x8)"}
    assert {*table.attrs["shown"]} == columns
    assert not any("KID" in title for title in table.columns), "nobody measured it"
    assert "Extractors: x8 (a classifier trained on the training split), of all scores" in caption
    assert "lite (EfficientNet-Lite0, trained on ImageNet" in caption
    assert "N = 200 and the number of held-out images, 300, are below the 1280" in caption


def test_what_another_extractor_lacks_is_said(tmp_path):
    """Catches a row that is called ok, of all training seeds, where another extractor scored only
    some, and its verdict without a word of those that it is over."""
    results = differing(tmp_path, claims=[asked()])
    model = results.variants("s")["b"]["model"]
    rows = results.metrics
    lost = (rows["metric"] == "fid_lite") & (rows["model"] == model) & (rows["train_seed"] == 1)
    results.metrics = rows[~lost]
    table, _ = table_scores(View(results, "s"))
    by = table.set_index("Variant")["Status"]
    assert (by["a"], by["b"]) == ("ok", "FID (lite): seed 1 not measured")
    assert "Status" in table.attrs["shown"]
    because = table_claims(View(results, "s"))[0]["Because"].iloc[0]
    assert "] (over 2 of 3 training seeds: seed 1 not measured)" in because


def test_how_kid_was_taken_is_said_of_each_extractor(tmp_path):
    """Catches all pairs that are said of an extractor whose features are too many for them."""
    real = [baseline(f"reference_is_{name}", 2.0) for name in ("x8", "lite")]
    results = agreeing(tmp_path, more=real)
    for name in ("x8", "lite"):
        scored = results.metrics[results.metrics["metric"] == f"fid_{name}"]
        scored = scored.assign(metric=f"kid_{name}")
        results.metrics = pd.concat([results.metrics, scored], ignore_index=True)
    assert "KID: over all pairs." in table_scores(View(results, "s"))[1]
    results.about["evaluation"]["num_images"] = 50_000
    held = results.metrics["metric"] == "num_test"
    results.metrics.loc[held, "value"] = 10_000
    results.known.clear()
    words = "KID: by x8 over all pairs; by lite mean over 100 random subsets."
    assert words == kid_words(View(results, "s"))


def test_class_agreement_stands_beside_that_of_real_images(tmp_path):
    """Catches an agreement of 0.8 that looks poor where the classifier takes no more than that of
    real images for their class."""
    about = {"study": "x", "unit": "share", "metric": "class_accuracy_test_x8", "value": 0.65}
    results = agreeing(tmp_path, more=[{**about, "run_id": "prepare/d-1"}])
    table, caption = table_scores(View(results, "s"))
    by = table.set_index("Variant")
    assert by.loc["Held-out images themselves", "Class agreement (x8)"] == "0.650"
    assert "Class agreement of real held-out images: 0.650." in caption
    assert "held-out images: 0.65" not in table_costs(View(results, "s"))[1]
    floor = pd.DataFrame([baseline("floor_class_agreement_x8", 0.8)])
    results.metrics = pd.concat([results.metrics, floor], ignore_index=True)
    reason = judged(View(results, "s"), asked("class_agreement", "nearer"))[1]
    assert "to the 0.650 of real held-out images" in reason, "not to what it was trained on"


def taught(results, variant, **training):
    """The same results, with a tokenizer of a variant that was trained so."""
    run = {"run_id": f"tokenizer/{variant}", "stage": "tokenizer", "status": "ok"}
    run["config_json"] = json.dumps({"tokenizer": {"training": training}})
    results.runs = pd.concat([results.runs, pd.DataFrame([run])], ignore_index=True)
    results.variants("s")[variant]["jobs"][""].append(run["run_id"])
    return results


@pytest.mark.parametrize(
    "training, said",
    [({"perceptual": 0.5}, True), ({"perceptual": 0.5, "perceptual_network": "lpips"}, False),
     ({"perceptual_network": "efficientnet_lite0"}, False)],
)  # fmt: skip
def test_an_extractor_that_taught_a_tokenizer_is_no_independent_judge(tmp_path, training, said):
    """Catches a reconstruction that is praised by the network that it was trained to please."""
    claims = [asked(), asked("is", text="b has more")]
    results = taught(differing(tmp_path, claims=claims), "b", **training)
    words = "; a tokenizer was trained on the network of lite"
    because = table_claims(View(results, "s"))[0]["Because"]
    assert [words in reason for reason in because] == [said, False], "lite scored no IS"
    sentence = "Tokenizers of b were trained with a perceptual loss on the network of lite"
    for caption in (table_claims(View(results, "s"))[1], table_scores(View(results, "s"))[1]):
        assert (sentence in caption) == said


def test_one_mapping_of_an_older_study_is_one_extractor(tmp_path):
    """Catches published results that can no longer be read, or read otherwise."""
    results = Results.load(build(tmp_path, ["a", "b"], claims=[asked()]))
    assert results.extractors == ("x8",) and results.others == ()
    table, _ = table_claims(View(results, "s"))
    assert [*table.columns] == ["Claim", "Holds here", "After Holm", "Because", "Of", "Suite"]


@pytest.mark.parametrize(
    "features, said",
    [
        ([], "features: Value should have at least 1 item"),
        ([{**OTHER, "name": 3}], "features.0.name"),
    ],
)
def test_damaged_extractors_are_named(tmp_path, features, said):
    """Catches a traceback for a damaged row of the study."""
    results = Results.load(build(tmp_path, ["a", "b"]))
    with pytest.raises(ValueError, match=said):
        check_study({**results.about, "features": features}, "runs.csv: study")
