"""Captions of figures on images that have no classes."""

import itertools

import matplotlib.pyplot as plt
import pytest
from small_study import SEEDS, build, variant

from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms

FIGURES = {
    "samples": "in the same order of classes",
    "reconstructions": "one of each class in turn",
    "diversity_wall": "one sample seed and class",
}


@pytest.mark.parametrize("name", FIGURES)
def test_captions_know_no_class_where_there_is_none(tmp_path, name):
    """Catches an order of classes that images without any are said to have."""
    results = Results.load(build(tmp_path, ["a", "b"]))
    results.about["suites"]["s"]["diversity"] = {"shown": ["a", "b"], "num_images": 200}
    draw = rooms.function_of("figures", name)
    assert FIGURES[name] in draw(View(results, "s"))[1]
    results.about["dataset"]["num_classes"] = 0
    for names in results.variants("s").values():
        names["settings"]["model"]["num_classes"] = 0
    results.known.clear()
    assert "class" not in draw(View(results, "s"))[1]
    plt.close("all")


def test_variance_inside_classes_is_not_that_of_all_images(tmp_path):
    """Catches one column with the variance of real images inside their classes, and of images
    without classes over all of them."""
    more = []
    for i, seed in itertools.product(range(2), SEEDS):
        names = {key: variant(i, "")[key] for key in ("tokenizer", "model", "sampler")}
        more.append({
            "study": "x", "dataset": "d", "train_seed": seed, "run_id": f"sample/v{i}-{seed}",
            "unit": "score", "metric": "variance_pixels", "value": 0.3 + 0.01 * seed,
            "num_images": 200, "seed_first": 0, "seed_last": 199, **names,
        })  # fmt: skip
    results = Results.load(build(tmp_path, ["a", "b"], more=more))
    results.variants("s")["b"]["settings"]["model"]["num_classes"] = 0
    for classes, wanted, said in ((3, "-", "variants without classes (b)"), (0, "0.310", "")):
        results.about["dataset"]["num_classes"] = classes
        results.known.clear()
        table, caption = rooms.function_of("tables", "scores")(View(results, "s"))
        shown = table.set_index("Variant")["Variance within classes (pixels)"]
        assert shown["a"].startswith("0.310") and shown["b"].startswith(wanted)
        assert said in str(caption) and ("Variance within" in str(caption)) == bool(said)
