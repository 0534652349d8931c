"""Captions of figures on images that have no classes."""

import matplotlib.pyplot as plt
import pytest
from small_study import build

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
