"""The table of probabilities of drawn tokens says which variants have no row, and why."""

import pandas as pd
from small_study import build

from bench.experiments.sweep.show import table_sampling_probability
from bench.report.results import Results
from bench.report.view import View


def test_variants_without_a_row_are_named(tmp_path):
    """Catches a sampler of several passes, and one whose run failed, that the table leaves out
    without a word; and a list of all variants of a grid, which nobody reads."""
    results = Results.load(build(tmp_path, ["once", "several_", "failed", "grid 1", "grid 2"]))
    for name in ("grid 1", "grid 2"):
        results.variants("s")[name]["group"] = "grid"
    view, run = View(results, "s"), "sample/v{}-{}".format
    head = {"study": "x", "train_seed": 0, "scale": 0, "value": 0.5}
    rows = []
    for i, names in enumerate(view.variants.values()):
        keys = {key: names[key] for key in ("tokenizer", "model", "sampler")}
        metrics = ("nfe", "drawn_probability_q50", "drawn_below_0.1")[: (3, 1, 0, 1, 1)[i]]
        for seed in view.about["train_seeds"]:
            more = {**head, **keys, "train_seed": seed, "run_id": run(i, seed)}
            rows += [{**more, "metric": name} for name in metrics]
    rows = pd.DataFrame(rows)
    rows.loc[rows["metric"] == "nfe", "scale"] = None
    results.metrics = pd.concat([results.metrics, rows], ignore_index=True)
    results.runs.loc[results.runs["run_id"].str.contains("v2-"), ["status", "reason"]] = "oom", "x"
    table, caption = table_sampling_probability(view)
    assert set(table["Variant"]) == {"once"}
    assert "Without a row, as their samplers draw a token more than once" in caption
    assert r"from: several\_; grid." in caption and "failed: seeds 0, 1, 2 oom (x)" in caption
