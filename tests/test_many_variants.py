"""Figures of many variants, of long names, and of names in any script: all is there, nothing lies
over something else."""

import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.text import Text
from small_study import FIGURES, SIDES, build

from bench.experiments.trainings.show import figure_code_usage
from bench.report import drawing, glyphs
from bench.report.drawing import write_figure
from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms
from workflow import ROOT

NAMES = "variant {i}, cfg_scale {w:g}, history {h}"
LONG = (
    "a variant with the number {i} and a name that tells all about its settings: cfg_scale {w:g}, "
    "history {h}, masks, resampling"
)


def study(folder, count, pattern=NAMES, **more):
    return Results.load(
        build(folder, [pattern.format(i=i, w=1 + i / 10, h=i % 3) for i in range(count)], **more)
    )


def texts_of(figure):
    """Visible texts by what they are, with their places; ticks outside of the limits are not
    drawn."""
    figure.canvas.draw()
    found = []
    for artist in figure.findobj(
        lambda a: isinstance(a, Text) and a.get_visible() and a.get_text().strip()
    ):
        if not any(axes.get_visible() is False for axes in [artist.axes] if axes is not None):
            found.append((artist.get_text(), artist.get_window_extent()))
    return found


def overlap(one, other):
    """Share of the smaller box that the other one covers."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return (
        0
        if min(width, height) <= 0
        else width * height / min(one.width * one.height, other.width * other.height)
    )


CASES = [(name, *case) for name in FIGURES for case in ((2, LONG), (7, NAMES), (30, NAMES))]


@pytest.mark.parametrize("name, count, pattern", [*CASES, ("fid", 30, LONG), ("growth", 7, LONG)])
def test_every_name_can_be_read(tmp_path, name, count, pattern):
    """Catches names that lie over each other, that leave the figure, or that are missing."""
    results = study(tmp_path, count, pattern)
    figure, _ = rooms.function_of("figures", name)(View(results, "s"))
    shown = texts_of(figure)
    whole = figure.bbox.expanded(1.01, 1.01)
    long = [(text, box) for text, box in shown if len(text) > 5]
    for text, box in long:
        assert (
            whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        ), f"{text!r} is cut off"
    straight = [(text, box) for text, box in long if "\n" not in text or count > 12]
    for (text, box), (other, place) in itertools.combinations(straight, 2):
        assert overlap(box, place) < 0.1, f"{text!r} lies over {other!r}"
    if name != "code_usage":
        said = {" ".join(text.split()) for text, _ in shown}
        assert {" ".join(variant.split()) for variant in results.variants("s")} <= said
    plt.close(figure)


PUBLISHED = [
    ("digits", "adaptation", "tokens_per_forward"),
    ("digits", "diversity", "diversity_wall"),
    ("digits", "peers", "pairs"),
    ("digits", "peers_window", "pairs"), ("digits", "representation", "detail_plane"),
    ("digits", "representation", "gradient_cosine"), ("digits", "restoration", "restoration"),
    ("digits_few", "classify", "funnel"), ("digits_few", "classify", "smoothing"),
    ("digits_ablations", "zero_shot", "zero_shot"),
    ("digits_ablations", "zero_shot", "zero_shot_strips"),
]  # fmt: skip


def renamed(results, suite, more):
    """The results of one suite, its variants and groups with longer names."""
    old, about = results.variants_of[suite], results.about["suites"][suite]
    names = {of["group"]: of["group"] + more for of in old.values()}
    names |= {name: name.replace(of["group"], names[of["group"]], 1) for name, of in old.items()}
    told = {key: value for key, value in about.items() if key != "claims"}
    if "shown" in told.get("diversity", {}):
        shown = [names[name] for name in told["diversity"]["shown"]]
        told["diversity"] = {**told["diversity"], "shown": shown}
    results.about["suites"] = {suite: {**told, "claims": []}}
    of_suite = {names[name]: {**of, "group": names[of["group"]]} for name, of in old.items()}
    results.variants_of.clear()
    results.variants_of[suite] = of_suite
    return results


def slanted_apart(one, other):
    """Whether two slanted names have room for their lines beside each other."""
    (x, y), (u, v) = (text.get_transform().transform(text.get_position()) for text in (one, other))
    slope = np.radians(one.get_rotation())
    lines = [1 + text.get_text().count("\n") for text in (one, other)]
    line = 0.1 * one.figure.dpi
    return abs((u - x) * np.sin(slope) - (v - y) * np.cos(slope)) >= line * sum(lines) / 2


@pytest.mark.parametrize("study, suite, name", PUBLISHED)
def test_long_names_can_be_read_in_figures_of_every_kind(study, suite, name):
    """Catches names of a grid's length that lie over each other, above panels, columns or below
    them, or that leave the figure."""
    results = Results.load(ROOT / "results" / study / "published")
    results = renamed(results, suite, ", trained with many masks of own tokens")
    figure, _ = rooms.function_of("figures", name)(View(results, suite))
    level = [(text, box) for text, box in texts_of(figure) if len(text) > 5]
    whole = figure.bbox.expanded(1.01, 1.01)
    for text, box in level:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1, f"{text!r} is cut off"
    turned = set()
    for panel in figure.axes:
        texts = panel.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text())
        turned |= {text.get_text() for text in texts if text.get_rotation()}
        slanted = [text for text in texts if text.get_rotation() % 90]
        for one, other in itertools.combinations(slanted, 2):
            assert slanted_apart(one, other), f"{one.get_text()!r} on {other.get_text()!r}"
    level = [(text, box) for text, box in level if text not in turned]
    for (text, box), (other, place) in itertools.combinations(level, 2):
        assert overlap(box, place) < 0.1, f"{text!r} lies over {other!r}"
    plt.close(figure)


def test_a_hundred_variants_are_looked_up_once(tmp_path, monkeypatch):
    """Catches rows that are searched again for every panel, line and caption: minutes at a hundred
    variants."""
    results, calls = study(tmp_path, 30), []
    search = Results._select
    monkeypatch.setattr(
        Results, "_select", lambda self, *what: calls.append(what) or search(self, *what)
    )
    for name in ("fid", "per_scale"):
        plt.close(rooms.function_of("figures", name)(View(results, "s"))[0])
    assert len(calls) == len(set(calls)) > 30


SCRIPTS = [
    "中文 名字", "Кириллица", "αβγ δ", "😀 emoji", "e\u0301 combined", "नमस्ते", "السلام", "עברית",
    "한국어", "\u200bzero width", "tab\tand\nbreak",
    "$x$ and $y", "_hidden", "__x__", "a^2_3", "100 %", "#1", "back\\slash", "{braces}",
    "a & b < c", "\\$x\\$", "x--y", "\ue000 private", "\x07 bell",
]  # fmt: skip


def test_names_of_any_script_are_drawn(tmp_path):
    """Catches empty boxes, warnings of missing glyphs, names that are read as formulas and names
    that a legend hides."""
    results = Results.load(build(tmp_path, SCRIPTS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("fid", "samples", "per_scale"):
            figure, caption = rooms.function_of("figures", name)(View(results, "s"))
            shown = {text.replace("\\$", "$").strip() for text, _ in texts_of(figure)}
            write_figure(tmp_path / name, figure, caption)
            if name != "samples":
                assert {
                    "Кириллица",
                    "_hidden",
                    "$x$ and $y",
                    "100 %",
                    "é combined",
                    "{braces}",
                    "tab and break",
                } <= shown
                assert {"\\u200bzero width", "\\ue000 private"} <= shown
    assert (tmp_path / "fid.png").stat().st_size and "_hidden" in (tmp_path / "fid.svg").read_text(
        encoding="utf-8"
    )


def test_what_no_font_has_is_escaped(monkeypatch):
    """Catches a box instead of a letter on a machine without a font for it; a font that is there is
    used."""
    monkeypatch.setattr(glyphs, "covered", lambda: frozenset(map(ord, "abc é")))
    monkeypatch.setattr(glyphs, "lends", lambda character: False)
    assert glyphs.drawable("中 a b") == "\\u4e2d a b" and glyphs.drawable("e\u0301") == "é"
    assert glyphs.text("😀") == "\\U0001f600"


def font_of(path, character):
    """A font file with one letter, a filled square."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(character): "letter"})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "letter": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def test_a_font_that_nobody_listed_lends_its_letters(tmp_path, monkeypatch):
    """Catches a name in escapes on a machine that has a font for it."""
    letter = "\U00012000"  # cuneiform, which no usual font has
    font_of(tmp_path / "one.ttf", letter)
    fonts = [*font_manager.fontManager.ttflist]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    glyphs.lends.cache_clear()
    assert glyphs.drawable(letter) == "\\U00012000"
    font_manager.fontManager.addfont(tmp_path / "one.ttf")
    glyphs.lends.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, axes = plt.subplots()
        axes.set_title(glyphs.text(letter))
        write_figure(tmp_path / "f", figure, "c")
    assert axes.get_title() == letter
    drawing.lenders.clear()
    glyphs.lends.cache_clear()


def test_a_caption_says_what_escapes_stand_for(tmp_path, monkeypatch):
    """Catches a figure of escapes in which no reader knows which name is which."""
    monkeypatch.setattr(glyphs, "lends", lambda character: False)
    results = Results.load(build(tmp_path, ["plain", "\u4e2d\u6587 w = 2"]))
    figure, caption = rooms.function_of("figures", "fid")(View(results, "s"))
    write_figure(tmp_path / "fid", figure, caption)
    said = (tmp_path / "fid.rst").read_text(encoding="utf-8")
    assert "u6587 w = 2 is \u4e2d\u6587 w = 2" in said and "plain is" not in said


def test_rows_hold_classes_by_label(tmp_path):
    """Catches a grid of samples whose rows are seeds modulo classes though the labels are known;
    class names stand beside them."""
    labels = np.array([2, 0, 1, 2, 0, 1, 1, 2, 0, 0, 0, 0])
    images = {
        "real/classes": np.array(["cat", "dog", "$ cow"]),
        "real/labels": labels,
        "sample/v0-0/labels": labels,
    }
    drawn, _ = rooms.function_of("figures", "samples")(View(study(tmp_path, 1, images=images), "s"))
    panel = drawn.axes[0]
    assert [mark.get_text() for mark in panel.get_yticklabels()] == [
        "cat",
        "dog",
        "\\$ cow",
    ] and panel.get_ylabel() == "class"
    mosaic = panel.images[0].get_array()
    # shade of image i is 20 i; the images of class 0 are 1, 4, 8, 9, ...
    assert mosaic[::5, ::5, 0][:, :3].tolist() == [[20, 80, 160], [40, 100, 120], [0, 60, 140]]
    plt.close(drawn)


def test_the_caption_counts_the_seeds_that_are_shown(tmp_path):
    """Catches `the same 40 seeds` beside a rare class of two,
    and classes without a row that nobody is told of."""
    labels = np.array([0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1])
    images = {"real/labels": labels, "sample/v0-0/labels": labels}
    results = study(tmp_path, 1, images=images)
    for classes, shown, words in (
        (3, 12, "order of classes;"),
        (12, 4 + 2, "order of classes, the first 10 of 12;"),
    ):
        results.about["dataset"]["num_classes"] = classes
        drawn, caption = rooms.function_of("figures", "samples")(View(results, "s"))
        assert f"the same {shown} seeds in the same places" in caption and words in caption
        plt.close(drawn)


@pytest.mark.parametrize("classes", [0, 1])
def test_without_classes_all_images_are_shown(tmp_path, classes):
    """Catches one row of a class 0 and nine empty ones, where labels are kept and all are 0."""
    labels = np.zeros(12, int)
    results = study(tmp_path, 1, images={"real/labels": labels, "sample/v0-0/labels": labels})
    results.about["dataset"]["num_classes"] = classes
    drawn, caption = rooms.function_of("figures", "samples")(View(results, "s"))
    assert "the same 12 seeds in the same places" in caption
    assert drawn.axes[0].get_ylabel() == "row"
    plt.close(drawn)


def test_long_class_names_become_a_key(tmp_path):
    """Catches class names that are cut off, or that squeeze the images."""
    names = np.array(["n02123045 tabby, tabby cat", ".. dog", "cow"])
    labels = np.arange(12) % 3
    results = study(tmp_path, 1, images={"real/classes": names, "sample/v0-0/labels": labels})
    drawn, caption = rooms.function_of("figures", "samples")(View(results, "s"))
    assert [mark.get_text() for mark in drawn.axes[0].get_yticklabels()] == ["0", "1", "2"]
    assert r"Classes: 0 n02123045 tabby, tabby cat; 1 \.. dog; 2 cow." in caption
    plt.close(drawn)


def test_class_names_that_no_font_draws_become_a_key(tmp_path, monkeypatch):
    """Catches rows that are called \\u732b: the caption is text and holds the name itself; a
    decomposed accent is drawn."""
    monkeypatch.setattr(glyphs, "covered", lambda: frozenset(map(ord, "catdogn é0123")))
    labels = np.arange(12) % 3
    for third, marks in (("猫", ["0", "1", "2"]), ("cane\u0301", ["cat", "dog", "cané"])):
        names = np.array(["cat", "dog", third])
        results = study(tmp_path, 1, images={"real/classes": names, "sample/v0-0/labels": labels})
        drawn, caption = rooms.function_of("figures", "samples")(View(results, "s"))
        assert [mark.get_text() for mark in drawn.axes[0].get_yticklabels()] == marks
        assert ("Classes: 0 cat; 1 dog; 2 猫." in caption) == (third == "猫")
        plt.close(drawn)


def test_collapsed_scales_are_ringed_and_named_once(tmp_path):
    """Catches words at every scale that lie over one another, and a ring at a healthy scale."""
    root = build(tmp_path, ["a", "b"])
    rows = pd.read_csv(root / "metrics.csv", dtype=str, keep_default_na=False)
    rows.loc[(rows["metric"] == "scale_collapsed") & (rows["scale"] != "0"), "value"] = "1"
    rows.to_csv(root / "metrics.csv", index=False)
    figure, _ = figure_code_usage(View(Results.load(root), "s"))
    panel = figure.axes[0]
    codes, _quarter, ring = panel.lines
    assert ring.get_label().startswith("collapsed") and [*codes.get_xdata()] == [*SIDES]
    assert [*ring.get_xdata()] == [*codes.get_xdata()][1:]
    assert [*ring.get_ydata()] == [*codes.get_ydata()][1:] and not panel.texts
    words = [words.get_text() for legend in figure.legends for words in legend.get_texts()]
    assert sum("collapsed" in said for said in words) == 1


def test_a_dollar_beside_reconstructions_is_escaped_once():
    """Catches a backslash that is shown before a dollar of a name."""
    results = Results.load(ROOT / "results" / "fashion32_tokenizers" / "published")
    results = renamed(results, "ablation_tokenizer", " $x$")
    view = View(results, "ablation_tokenizer")
    figure, _ = rooms.function_of("figures", "reconstructions")(view)
    shown = [text for text, _ in texts_of(figure) if "x" in text and "$" in text]
    assert shown and all("\\" not in text.replace("\\$", "$") for text in shown), shown
    plt.close(figure)
