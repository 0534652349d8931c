"""The room of copies: what counts as near, its job on known samples, its figure, what is
refused."""

import dataclasses
import importlib
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from test_config import edited
from test_repetition import build
from test_train_subset import MASKED, Made

from bench.experiments.memorisation import show, verb
from bench.experiments.memorisation.plan import spread_steps
from bench.experiments.memorisation.verb import near_shares
from bench.experiments.repetition import show as repetition
from bench.pipeline.reference import Reference
from bench.pipeline.set_distances import nearest_squared, pixel_rows
from bench.pipeline.unique_images import chosen_rows
from bench.study.errors import ConfigError
from bench.study.plan import load_study

SUITE = {
    "claim": "c",
    "measure": ["repetition", "memorisation"],
    "memorisation": {"ratio": 1.5},
    "train_seeds": [0],
    "variants": {
        "VAR": {"base": "var", "grid": {"training.unique_images": [40]},
                "delta": {"training.snapshot_every": 4}},
        "masked": {"base": "var", "delta": {**MASKED, "training.unique_images": 40}},
    },
}  # fmt: skip


# ---------------------------------------------------------------- what is near


def test_nearest_is_the_least_of_all_distances():
    """Catches a block that is left out, a part that overwrites another, a root."""
    x_MD, y_ND = (torch.from_numpy(np.random.default_rng(i).normal(size=(n, 5)))
                  for i, n in ((0, 31), (1, 47)))  # fmt: skip
    whole_MN = (x_MD[:, None] - y_ND[None]).square().sum(-1)
    found_M = nearest_squared(x_MD, y_ND.split(10))
    assert torch.allclose(found_M, whole_MN.amin(1), atol=1e-12)
    assert found_M.dtype == torch.float64 and (nearest_squared(y_ND, [y_ND]) < 1e-12).all()


def test_pixels_are_rows_of_numbers_around_zero():
    """Catches bytes, and pixels of an image in two rows."""
    images = np.zeros((3, 1, 4, 4), np.uint8)
    images[2] = 255
    rows_ND = pixel_rows(images)
    assert rows_ND.shape == (3, 16) and rows_ND[0].tolist() == [-1.0] * 16
    assert rows_ND[2].tolist() == [1.0] * 16


def test_copies_are_all_near_and_fresh_ones_rarely():
    """Catches a quantile of the wrong set, and a comparison the wrong way round."""
    rng = np.random.default_rng(0)
    seen, held, fresh = (torch.from_numpy(rng.normal(size=(n, 6))) for n in (60, 2000, 4000))
    copies = seen[torch.from_numpy(rng.integers(0, 60, 500))]
    mixed = torch.cat([copies, fresh[:500]])
    sets = [nearest_squared(one, [seen]) for one in (copies, fresh, mixed, seen + 9)]
    shares = near_shares(sets, nearest_squared(held, [seen]), 0.05)
    assert shares[0] == 1 and shares[1] == pytest.approx(0.05, abs=0.015)
    assert shares[2] == pytest.approx(0.525, abs=0.02) and shares[3] == 0
    assert near_shares(sets, nearest_squared(held, [seen]), 0.2)[1] == pytest.approx(0.2, abs=0.03)


def test_weights_are_those_that_trainings_share():
    """Catches steps that follow from where a training ends, and all of them."""
    steps = list(range(20, 241, 20))
    assert spread_steps(steps, 1.5) == [20, 40, 60, 100, 160, 240]
    assert spread_steps(steps[:7], 1.5) == [20, 40, 60, 100]
    assert spread_steps(steps, 2.0) == [20, 40, 80, 160] and spread_steps(steps, None) == []
    assert spread_steps([], 2.0) == []


# ---------------------------------------------------------------- the job


class WithCopies(Made):
    """The trainings of the suite with the features that its jobs read."""

    def __init__(self, root):
        self.root = root
        self.plan = load_study(edited(root, **{"suites/memorisation": SUITE}))
        wanted = self.plan.suites["memorisation"]
        for stage in ("prepare", "tokenizer", "encode", "features", "train_subset"):
            for run_id in sorted(wanted):
                if run_id.startswith(f"{stage}/"):
                    assert self.call(run_id) == 0, run_id


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return WithCopies(tmp_path_factory.mktemp("memorisation"))


def metric_of(rows, metric):
    """Values of a metric by step, -1 for the kept weights."""
    some = rows[rows["metric"] == metric]
    return dict(zip(some["step"].fillna(-1).astype(int), some["value"]))


def test_the_job_scores_kept_weights_and_those_along_the_training(made, tmp_path):
    """Catches FID of another set, a step that is left out, a name that no variant finds."""
    run_id = made.find("memorisation", snapshot_every=4)
    assert made.call(run_id, tmp_path / "out") == 0
    rows = pd.read_csv(tmp_path / "out" / "metrics.csv")
    for metric in ("fid_held_out_digits16", "fid_seen_digits16", "nearest_rate"):
        found = metric_of(rows, metric)
        assert set(found) == {-1, 4, 8, 12}, metric
    assert metric_of(rows, "seen_images") == {-1: 40}
    assert set(metric_of(rows, "fid_seen_of_held_out_digits16")) == {-1}
    names = made.plan.jobs[run_id].identity
    for column in ("model", "tokenizer", "sampler"):
        assert set(rows[column]) == {names[column]}
    shares = pd.Series(metric_of(rows, "nearest_rate"))
    assert shares.between(0, 1).all()


def rows_of_known(made, out, monkeypatch, split, raw=False):
    """What the job says of samples that are images of a split, as the tokenizer makes them or raw:
    of the training split those that were seen."""
    run_id = made.find("memorisation", snapshot_every=4)
    images = verb.open_split(made.root / made.find("prepare"), split)
    rows_N = chosen_rows(images, 40) if split == "train" else np.arange(len(images))

    def known(self, weights):
        parts = images.array(rows_N) if raw else np.concatenate([*self.decoded(split, rows_N)])
        return parts[np.arange(len(self.labels_N)) % len(parts)]

    monkeypatch.setattr(verb.Drawing, "images", known)
    assert made.call(run_id, out) == 0
    return pd.read_csv(out / "metrics.csv")


def test_copies_and_held_out_images_have_known_rates(made, tmp_path, monkeypatch):
    """Catches distances to images that were not seen, and blur that counts as near: samples that
    are training images as the tokenizer makes them are all copies, held-out ones are not."""
    copies, fresh = (
        rows_of_known(made, tmp_path / split, monkeypatch, split) for split in ("train", "test")
    )
    assert set(metric_of(copies, "nearest_rate").values()) == {1.0}
    rates = metric_of(fresh, "nearest_rate").values()
    assert all(0.02 <= rate <= 0.09 for rate in rates), rates


def test_fid_is_against_the_images_that_were_seen(made, tmp_path, monkeypatch):
    """Catches FID against the whole training split, or the two sides swapped: the images that were
    seen, five times each, are their own reference."""
    rows = rows_of_known(made, tmp_path / "raw", monkeypatch, "train", raw=True)
    seen, held_out = (metric_of(rows, f"fid_{what}_digits16")[-1] for what in ("seen", "held_out"))
    assert seen < 0.02 * held_out
    fresh = metric_of(rows, "fid_seen_of_held_out_digits16")[-1]
    assert seen < 0.02 * fresh and fresh == pytest.approx(held_out, rel=0.2)


def test_weights_that_are_gone_are_refused(made, tmp_path, capsys):
    """Catches a curve of the kept weights alone where snapshots were removed."""
    with pytest.raises(ConfigError, match="holds no weights; train again"):
        verb.weights_of(tmp_path, 2.0)
    assert verb.weights_of(tmp_path, None) == [(None, tmp_path / "model.safetensors")]


# ---------------------------------------------------------------- figure and table


def with_fid(view):
    """The made results with what the job reports, by known numbers."""
    rows = view.results.metrics
    along = rows[(rows["metric"] == "epochs") & rows["step"].isin([40, 80, 160, 320])]
    ended = rows[rows["metric"] == "unique_images"]
    new = []
    for metric, base in (("fid_held_out_x8", 4.0), ("fid_seen_x8", 3.0), ("nearest_rate", 0.2)):
        new += [along.assign(metric=metric, value=base + along["step"] / 1000)]
        new += [ended.assign(metric=metric, value=base)]
    new.append(ended.assign(metric="seen_images"))
    new.append(ended.assign(metric="fid_seen_of_held_out_x8", value=2.0))
    new.append(ended.assign(metric="kept_step", value=160))
    view.results.metrics = pd.concat([rows, *new], ignore_index=True)
    return view


@pytest.fixture
def view(tmp_path):
    return with_fid(build(tmp_path / "memorised", sizes=(85, 341), last=400))


def test_the_figure_follows_from_metrics_alone(view):
    """Catches epochs of another number of images, and lines of the wrong kind."""
    figure, caption = show.figure_memorisation(view)
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == ["85 images", "341 images", "", ""]
    for axes, rates, images in zip(figure.axes[:2], figure.axes[2:], (85, 341)):
        lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
        assert len(lines) == 4, "two systems, held out and seen"
        epochs = [step * 64 / images for step in (40, 80, 160, 320)]
        assert all(line.get_xdata() == pytest.approx(epochs) for line in lines)
        solid = [line for line in lines if line.get_linestyle() == "-"]
        assert len(solid) == 2
        assert all(line.get_ydata() == pytest.approx([4.04, 4.08, 4.16, 4.32]) for line in solid)
        dashed = [line for line in lines if line.get_linestyle() == "--"]
        assert all(line.get_ydata() == pytest.approx([3.04, 3.08, 3.16, 3.32]) for line in dashed)
        copies = [line for line in rates.lines if len(line.get_xdata()) == 4]
        assert len(copies) == 2 and all(
            line.get_xdata() == pytest.approx(epochs) for line in copies
        )
        assert all(line.get_ydata() == pytest.approx([0.24, 0.28, 0.36, 0.52]) for line in copies)
    assert caption.too_long is None and "SRDD, unique_images 85 0.2" in caption
    plt.close(figure)


def test_two_of_one_group_are_told_apart(view):
    """Catches lines of two learning rates of one grid with one name and one colour."""
    for names in view.variants.values():
        names["group"] = "both"
    figure, _ = show.figure_memorisation(view)
    for axes, images in zip(figure.axes[:2], (85, 341)):
        solid = [line for line in axes.lines if line.get_label().endswith(", held out")]
        wanted = {f"{system}, unique_images {images}, held out" for system in ("VAR", "SRDD")}
        assert {line.get_label() for line in solid} == wanted
        assert len({line.get_color() for line in solid}) == 2
    plt.close(figure)


def test_a_figure_without_points_along_trainings_has_those_of_the_end(view):
    """Catches a logarithmic axis with nothing on it, after all jobs, and FID against the images
    that were seen in the legend alone (ratio null)."""
    rows = view.results.metrics
    view.results.metrics = rows[~rows["metric"].str.contains("nearest|fid_") | rows["step"].isna()]
    figure, _ = show.figure_memorisation(view)
    figure.canvas.draw()
    rates = np.concatenate([np.atleast_1d(line.get_ydata()) for line in figure.axes[2].lines])
    assert np.isclose(rates, 0.2).any(), "that of the kept weights"
    named = [line for line in figure.axes[0].lines if line.get_label().startswith("VAR")]
    points = {line.get_label(): line.get_xydata().tolist() for line in named}
    end = pytest.approx(160 * 64 / 85)
    assert points == {"VAR, held out": [[end, 4.0]], "VAR, images it saw": [[end, 3.0]]}
    plt.close(figure)


def test_copies_are_told_where_held_out_images_equal_some_that_were_seen():
    """Catches a threshold of 0 that rounding decides: copies of it would be none."""
    source = torch.Generator().manual_seed(0)
    seen = torch.randint(0, 256, (100, 3072), generator=source).double() / 127.5 - 1
    held = torch.cat([seen[:30], -seen[30:]])
    nearest = [nearest_squared(part, [seen]) for part in (seen.flip(0), held)]
    assert near_shares(nearest, nearest[1], 0.05) == [1.0, pytest.approx(0.3)]


def test_nothing_measured_is_said(tmp_path):
    """Catches an empty figure that looks like a result."""
    figure, caption = show.figure_memorisation(build(tmp_path / "none", sizes=(85,), last=200))
    assert "missing: VAR, unique_images 85" in figure.get_suptitle()
    assert caption.too_long is None
    plt.close(figure)


def test_the_table_of_repetition_has_rate_and_gap(view):
    """Catches a rate that is measured and not shown, and gaps without a word on their losses."""
    table, caption = repetition.table_repetition(view)
    shown = table.attrs["shown"]
    assert {"Nearest-image rate", "Generalisation gap (nats/token)"} <= set(shown)
    assert [cell.numbers["mean"] for cell in table["Nearest-image rate"]] == pytest.approx(
        [0.2] * 4
    )
    assert "These are different quantities" in caption and "copies" in caption
    plain, _ = repetition.table_repetition(view.only([]))
    assert "Nearest-image rate" not in plain


# ---------------------------------------------------------------- what is refused


def changed(tmp_path, **suite):
    return load_study(edited(tmp_path, **{"suites/memorisation": {**SUITE, **suite}}))


BAD = {
    "a student": (
        {
            "variants": {
                "one": {
                    "base": "var",
                    "delta": {"distill": {"arm": "real", "teacher": {"base": "var"}}},
                }
            }
        },
        "variants.one.distill: which images its teacher saw",
    ),
    "a ratio that never moves on": ({"memorisation": {"ratio": 1.0}}, "memorisation.ratio"),
    "a ratio that is a word": ({"memorisation": {"ratio": "all"}}, "memorisation.ratio"),
    "half of all images": ({"memorisation": {"quantile": 0.5}}, "memorisation.quantile"),
    "no quantile": ({"memorisation": {"quantile": 0.0}}, "memorisation.quantile"),
    "a key that is none": ({"memorisation": {"k": 3}}, "memorisation.k"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_work(tmp_path, case):
    """Catches what would show after all trainings only."""
    asked, words = BAD[case]
    with pytest.raises(ConfigError) as error:
        changed(tmp_path, **asked)
    text = str(error.value)
    assert words in text and "suites.memorisation" in text and "\n" not in text, text


def test_what_is_hardly_meant_is_said(tmp_path):
    """Catches one point along a training, and a covariance of fewer images than features."""
    entry = {"base": "var", "delta": {"training.unique_images": 30, "training.snapshot_every": 99}}
    said = [line for line in changed(tmp_path, variants={"one": entry}).warnings
            if line.startswith("suites.memorisation.variants.one: training.")]  # fmt: skip
    assert any("snapshot_every: 99: gives one point along 12 steps" in line for line in said)
    one = changed(tmp_path, variants={"one": entry}, memorisation={"ratio": None})
    assert not any("snapshot_every" in line for line in one.warnings)


def test_the_job_is_named_by_what_it_reads(tmp_path):
    """Catches a setting that does not reach the job, and a default that stands in its name."""
    first, second = (
        {run for run in changed(tmp_path, memorisation=told).jobs if run.startswith("memorisation")}
        for told in ({}, {"ratio": 2.0, "quantile": 0.05})
    )
    other = changed(tmp_path, memorisation={"quantile": 0.1}).jobs
    assert first == second and not first & set(other)


def test_the_verb_is_listed():
    """Catches a room whose work is not found by its name."""
    assert importlib.import_module("bench.runtime.verbs").verbs()["memorisation"].inputs
    assert json.dumps(verb.INPUTS) == json.dumps(
        ["data", "tokenizer", "tokens", "train", "features"]
    )


def test_held_out_is_the_split_where_scores_have_a_file(made, tmp_path, monkeypatch):
    """Catches a FID that is called that of held-out images and is against a file of statistics."""
    plain = rows_of_known(made, tmp_path / "plain", monkeypatch, "train")
    opened = verb.open_one

    def with_file(run):
        extractor, _ = opened(run)
        about = extractor.config.model_copy(update={"reference": "adm.npz"})
        statistics = {"mu": np.ones(about.dim), "sigma": np.eye(about.dim)}
        return dataclasses.replace(extractor, config=about), Reference(np.zeros(3), statistics)

    monkeypatch.setattr(verb, "open_one", with_file)
    beside = rows_of_known(made, tmp_path / "file", monkeypatch, "train")
    assert beside["value"].tolist() == plain["value"].tolist()


def test_held_out_is_told_apart_from_a_file_of_statistics(view):
    """Catches a caption that names the file of all other scores."""
    words = "Held-out images are those of the held-out split"
    assert words not in show.figure_memorisation(view)[1]
    view.results.about["features"] |= {"reference": "adm.npz"}
    assert words in " ".join(show.figure_memorisation(view.only([*view.variants]))[1].details)
    plt.close("all")
