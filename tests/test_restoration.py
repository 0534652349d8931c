"""The rooms of restoration from end to end: models that are told a degraded image are trained,
asked to restore, held against what takes no model, collected, drawn and judged."""

import importlib
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import signal
from small_suite import SmallSuite
from test_config import edited

from bench.experiments.restoration import reading, show
from bench.experiments.restoration.plan import REDRAWS
from bench.experiments.restoration.reading import mean_of, regression_words, ways_of
from bench.experiments.restoration.show import judge_carries, judge_restored
from bench.experiments.restoration.swapped import coarse_excess, coarse_share
from bench.experiments.restoration_baselines.plan import Settings, problems
from bench.experiments.restoration_baselines.verb import (
    Restorers,
    UNet,
    fitted,
    median,
    ridge_of,
    wiener,
)
from bench.pipeline.artefacts import open_split
from bench.pipeline.datasets import to_float, to_uint8
from bench.pipeline.degraded import DegradedSplit
from bench.pipeline.paired_folder import degraded_path, refuse_unpaired
from bench.pipeline.prepare import read_dataset
from bench.report.claims import judged, seeds_behind
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.verb import main
from bench.study import rooms
from bench.study.contents import content_of, suffixes_read
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.restore_settings import FOUR
from bench.study.settings import DatasetConfig
from srdd.checkpoint import load_model
from srdd.conditioning import condition_latent
from srdd.degradation import degraded
from srdd.noise import derive_seed, generator

TOLD = {"model.num_classes": 0, "sampler.cfg_scale": 1.0}
SUITE = {
    "claim": "c",
    "measure": ["restoration", "restoration_baselines"],
    "train_seeds": [0],
    "restoration": {"refiner": {"steps": 4, "batch_size": 8}, "passes": [1, 2]},
    "restoration_baselines": {"steps": 20, "units": 16, "train_images": 200, "unet": 4},
    "claims": [
        {
            "text": "coarse", "rule": "carries", "variant": "state", "against": "control",
            "metric": "swap_excess_blur", "better": "higher",
        },
        {
            "text": "mean", "rule": "restored", "variant": "state", "against": "argmax",
            "metric": "psnr_expected", "better": "higher",
        },
    ],
    "variants": {
        "state": {"base": "var", "delta": {**TOLD, "model.condition": "state"}},
        "cross": {
            "base": "var", "delta": {**TOLD, "model.history": 0, "model.condition": "cross"},
        },
        "SRDD": {"base": "var", "delta": {"model.history": 0, "model.mask_prob": 1.0}},
        "SDD": {"base": "var", "delta": {"model.history": 0}},
        "started": {
            "base": "var",
            "delta": {
                **TOLD, "model.history": 0, "model.condition": "cross",
                "distill": {
                    "arm": "restore", "teacher": {"base": "var", "delta": {"model.history": 0}},
                },
            },
        },
    },
    "figures": ["restoration", "perception", "restoration_time", "swap", "restoration_strips"],
    "tables": ["restoration", "swap", "claims"],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root, few = tmp_path_factory.mktemp("restoration"), {"num_images": 100}
    rooms = {room: {**SUITE[room], **few} for room in ("restoration", "restoration_baselines")}
    study = edited(root, **{"suites/restoration": {**SUITE, **rooms}})
    return SmallSuite(root, "restoration", study)


@pytest.fixture(scope="module")
def view(made):
    return made.view()


# ---------------------------------------------------------------- jobs and trainings


def test_a_model_that_is_told_is_trained_by_its_own_verb(made):
    """Catches a training that is renamed where nothing is told, and one that is told and trained
    without."""
    assert len(made.of("restore")) == 2 and len(made.of("train")) == 2
    assert len(made.of("distill")) == 1
    assert len(made.of("restoration")) == 5 and len(made.of("restoration_baselines")) == 1
    for run_id in made.of("train"):
        assert "restore" not in made.jobs[run_id].config
        assert "condition" not in made.jobs[run_id].config["model"]
    told = {made.jobs[run_id].config["model"]["condition"] for run_id in made.of("restore")}
    assert told == {"state", "cross"}


def test_a_training_learns_and_ends_the_same_again_and_in_parts(made, tmp_path):
    """Catches a batch that does not follow from the seed, and a loss that is no share of it."""
    run_id = made.of("restore")[0]
    loss = made.rows(run_id).query("metric == 'loss_val'").set_index("step")["value"]
    assert loss.iloc[-1] < loss.iloc[0]
    first = load_model(made.root / run_id / "model.safetensors").state_dict()
    assert made.call(run_id, tmp_path / "again") == 0
    again = load_model(tmp_path / "again" / "model.safetensors").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert made.call(run_id, tmp_path / "parts", accumulate=4) == 0
    parts = load_model(tmp_path / "parts" / "model.safetensors").state_dict()
    assert max((first[name] - parts[name]).abs().max() for name in first) < 1e-3
    assert first["condition.input.weight"].abs().max() > 0


def test_a_restoration_starts_from_a_model_that_was_told_nothing(made, tmp_path):
    """Catches a start from drawn weights, and a training that is told no degraded images."""
    (run_id,) = made.of("distill")
    path = made.root / made.jobs[run_id].inputs["teacher"] / "model.safetensors"
    teacher = load_model(path).state_dict()
    assert made.call(run_id, tmp_path / "still", lr=1e-12) == 0
    still = load_model(tmp_path / "still" / "model.safetensors").state_dict()
    teacher["class_embedding.weight"] = teacher["class_embedding.weight"][-1:]
    for name, value in teacher.items():
        torch.testing.assert_close(still[name], value, atol=1e-6, rtol=0)
    assert load_model(made.root / run_id / "model.safetensors").condition.start_gain.abs() > 0


def test_one_instance_an_image_and_degradation(made):
    """Catches an image that is degraded otherwise in another batch, or as that of another split."""
    data = made.root / made.of("prepare")[0]
    split = DegradedSplit(data, "test", 1.0)
    whole = split.mixed(FOUR, [0, 1, 2, 3, 0], [3, 4, 5, 6, 7])
    for place, (kind, row) in enumerate(zip((0, 1, 2, 3, 0), (3, 4, 5, 6, 7))):
        assert torch.equal(split.degraded(FOUR[kind], [row])[0], whole[place])
    clean = split.clean([3])
    wanted = degraded("noise", clean, [derive_seed("degraded", "test", 3)])
    assert torch.equal(split.degraded("noise", [3]), wanted)
    noise = DegradedSplit(data, "train", 1.0).degraded("noise", [3])
    assert not torch.allclose(noise - DegradedSplit(data, "train", 1.0).clean([3]), wanted - clean)


# ---------------------------------------------------------------- numbers


def test_every_way_has_its_numbers(view):
    """Catches a way without a score, and a mean that is not that of the degradations."""
    ways = {
        "state": ("argmax", "expected", "draw", "refined", "restored"),
        "cross": ("argmax", "expected", "draw", "refined", "restored"),
        "SRDD": ("known", "repair", "restored"),
        "SDD": ("known", "restored"),
    }
    for variant, names in ways.items():
        for way in names:
            of_kinds = [view.estimate(variant, f"psnr_{way}_{kind}").mean for kind in FOUR]
            assert view.estimate(variant, f"psnr_{way}").mean == pytest.approx(np.mean(of_kinds))
            for score in ("ssim", "class_agreement", "feature_distance"):
                assert view.estimate(variant, f"{score}_{way}_noise") is not None
    assert view.estimate("SDD", "psnr_repair") is None
    same = view.estimate("state", "psnr_restored").mean
    assert same == view.estimate("state", "psnr_expected").mean
    repeats = view.select("SRDD", "psnr_repair").set_index("repeat")["value"]
    most = view.estimate("SRDD", "psnr_repair").mean
    assert repeats.loc[2] == most
    assert view.estimate("SRDD", "token_evals_repair").mean == 2 * 21
    assert view.estimate("SRDD", "p_resample_repair").mean in REDRAWS
    assert view.estimate("state", "token_evals").mean == 21


def test_teacher_forced_tokens_are_named_so_and_not_scored(view):
    """Catches the argmax of true coarser tokens reported as a restoration."""
    for kind in FOUR:
        free, forced = (
            view.estimate("state", f"token_accuracy_{how}_{kind}").mean
            for how in ("free", "forced")
        )
        assert 0 <= free <= forced + 0.05
    metrics = set(view.results.metrics["metric"])
    assert not [name for name in metrics if "forced" in name and not name.startswith("token_acc")]


def test_ends_of_a_swap_are_round_trips(view):
    """Catches a cut that is off by one, and a control that is the image itself."""
    names = view.variants["state"]
    for kind in FOUR:
        trip = view.grid_value(names, f"psnr_round_trip_{kind}")
        ceiling = view.grid_value(names, f"psnr_ceiling_{kind}")
        for part, ends in (("coarse", (ceiling, trip)), ("fine", (trip, ceiling))):
            for again in ("", "again_"):
                found = view.grid_scales(names, f"swap_{again}{part}_{kind}")
                assert (found[0], found[3]) == pytest.approx(ends, abs=0.02), (kind, again, part)
        parts = [view.grid_scales(names, f"swap_{part}_{kind}") for part in ("coarse", "fine")]
        errors = [10 ** (-psnr_m / 10) for psnr_m in parts]
        coarse, fine = (error_m[1] - errors[0][0] for error_m in errors)
        wanted = [coarse / (coarse + fine)] if coarse + fine > 0 else []
        assert coarse_share(view, "state", kind).tolist() == pytest.approx(wanted)


def swapped(psnr):
    """A view of two training seeds with these PSNR by kind: clean, coarse half, fine half."""

    def of(names, metric, scale):
        _, half, kind = metric.split("_")
        clean, coarse, fine = psnr[kind]
        value = clean if scale == 0 else coarse if half == "coarse" else fine
        return pd.Series([value, value], index=[0, 1], dtype=float)

    return SimpleNamespace(
        variants={"SDD": {"patch_nums": [1, 2, 3, 4]}},
        grid_seeds=of,
        grid_scales=lambda names, metric: [1, 2, 3] if metric.split("_")[2] in psnr else [],
    )


def db(error):
    return -10 * math.log10(error)


@pytest.mark.parametrize("strength", [1e-6, 0.01, 1.0, 50.0])
def test_the_coarse_share_does_not_follow_from_how_much_is_destroyed(strength):
    """Catches a weak degradation that seems to lie in coarse scales, as its halves cost little and
    the control's fine half costs much."""
    psnr = {
        "control": (db(1), db(1 + 3), db(1 + 9)),
        "noise": (db(1), db(1 + strength), db(1 + 3 * strength)),
    }
    view = swapped(psnr)
    assert coarse_share(view, "SDD", "noise").tolist() == pytest.approx([0.25, 0.25], rel=1e-6)
    assert coarse_excess(view, "SDD", "noise").tolist() == pytest.approx([0, 0], abs=1e-6)


def test_tokens_that_add_no_error_are_not_judged():
    """Catches a verdict on a degradation that changes nothing."""
    view = swapped({"control": (db(1), db(4), db(10)), "noise": (db(1), db(1), db(1))})
    assert not len(coarse_excess(view, "SDD", "noise"))
    claim = {"variant": "SDD", "metric": "swap_excess_noise", "better": "higher"}
    word, reason = judge_carries(view, claim)
    assert word == "not decided" and reason == "swap_excess_noise: tokens of noise add no error"
    other = swapped({"control": (db(1), db(4), db(10)), "blur": (db(1), db(1), db(1))})
    other.grid_seeds = lambda *_: pd.Series(dtype=float)
    assert judge_carries(other, claim)[1].endswith("no tokens of this suite were swapped")


@pytest.mark.parametrize(("coarse", "fine", "share"), [(1.1, 0.91, 1), (0.91, 1.1, 0)])
def test_a_half_that_lowers_the_error_has_no_share_outside_of_0_to_1(coarse, fine, share):
    """Catches a coarse half that is said to carry ten times the added error, as degraded tokens of
    the fine half happened to be nearer to the image than the clean ones."""
    view = swapped({"noise": (db(1), db(coarse), db(fine))})
    assert coarse_share(view, "SDD", "noise").tolist() == [share, share]


def test_a_verdict_of_swaps_says_which_training_seeds_it_lacks():
    """Catches a verdict over two tokenizers of three that says nothing of the third."""
    whole = Results.load(Path(__file__).parents[1] / "results" / "digits" / "published")
    about = whole.suite("restoration")
    claim = next(one for one in about["claims"] if one["metric"] == "swap_excess_blur")
    first, *_, last = about["train_seeds"]
    rows = whole.metrics
    lost = rows["metric"].str.startswith("swap_") & (rows["train_seed"] == last)
    part = Results(whole.folder, rows[~lost], whole.runs, whole.about, whole.variants_of)
    every, few = View(whole, "restoration"), View(part, "restoration")
    judgement = judged(few, claim)
    assert judgement[1].endswith(f"; over 2 of 3 training seeds: seed {last} not measured")
    assert str(last) not in seeds_behind(few, claim, judgement).split()
    assert "training seeds" not in judged(every, claim)[1]


def test_a_regression_beats_the_input(view):
    """Catches a regression on images in another order, or fitted the wrong way round."""
    names = view.variants["state"]
    for kind in ("noise", "contrast"):
        scores = {
            way: view.grid_value(names, f"psnr_{way}_{kind}")
            for way in ("input", "ridge", "mlp", "unet")
        }
        assert min(scores["ridge"], scores["unet"]) > scores["input"] and np.isfinite(scores["mlp"])
    assert view.grid_value(names, "unet_parameters") == sum(
        9 * n * m + m for n, m in ((1, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (24, 8))
    ) + sum(9 * n * m + m for n, m in ((12, 4), (4, 1)))


def test_a_unet_takes_any_side_and_starts_as_the_input():
    """Catches a skip between unequal sides, and weights that depend on earlier draws."""
    image = torch.rand(2, 3, 7, 10, generator=generator("x"))
    network = UNet(3, 4, generator("u"))
    assert torch.equal(network(image), image)
    again = UNet(3, 4, generator("u")).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    source, settings = generator("d"), Settings(steps=60, lr=1e-2)

    def draw(source):
        clean = torch.randint(100, (8, 3, 7, 10), generator=source, dtype=torch.uint8)
        return clean + 100, clean

    trained = fitted(network, draw, source, settings, torch.device("cpu"))
    degraded_BCHW, clean_BCHW = (to_float(part) for part in draw(generator("test")))
    left = (trained(degraded_BCHW) - clean_BCHW).abs().mean()
    assert left < 0.5 * (degraded_BCHW - clean_BCHW).abs().mean()


def test_a_unet_sees_the_images_that_the_mlp_sees(made):
    """Catches an image with the degradation of another one."""
    (run_id,) = set(made.of("restoration_baselines"))
    run = SimpleNamespace(
        inputs={"data": made.root / made.of("prepare")[0]}, config=made.jobs[run_id].config
    )
    ways = object.__new__(Restorers)
    ways.settings = Settings(batch_size=6, train_images=200)
    ways.split = DegradedSplit.of(run, "train", 1.0)
    ways.rows = [5, 2, 9]
    degraded_BCHW, clean_BCHW = ways._drawn(generator("draw"))
    places = torch.randint(12, (6,), generator=generator("draw"))
    names = ways.settings.degradations
    x = torch.cat([to_uint8(ways.split.degraded(name, ways.rows)) for name in names])
    y = torch.cat([to_uint8(ways.split.clean(ways.rows))] * 4)
    assert torch.equal(degraded_BCHW, x[places]) and torch.equal(clean_BCHW, y[places])


def test_ridge_regression_is_the_closed_form():
    """Catches a penalty of the offset, and one that is not of every image."""
    x = (torch.rand(40, 1, 2, 2, generator=generator("x")) * 255).byte()
    y = 255 - x
    exact = ridge_of(x, y, 1e-12)(x)
    assert (exact.int() - y.int()).abs().max() <= 1
    heavy = ridge_of(x, y, 1e9)(x).float()
    assert heavy.std(0).max() < 1 and (heavy[0] - y.float().mean(0)).abs().max() <= 1


def test_filters_leave_what_is_flat_and_lose_a_speck():
    flat = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)
    assert torch.equal(median(flat), flat)
    speck = flat.clone()
    speck[0, 0, 4, 4] = 255
    assert torch.equal(median(speck), flat)
    assert torch.equal(wiener(flat), flat)


def test_the_wiener_filter_knows_no_black_beyond_the_edge():
    """Catches windows that hold zeros at the border: a white image got a grey frame, and images on
    white were restored worse than the same ones on black. Inside it is that of scipy."""
    images = (torch.rand(3, 2, 9, 9, generator=generator("w")) * 255).byte()
    assert (wiener(255 - images).int() - (255 - wiener(images)).int()).abs().max() <= 1
    wide = np.pad(images.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for of_image, wide_CHW in zip(wiener(images), wide):
        for of_plane, plane, raw in zip(of_image, wide_CHW, wide_CHW[:, 1:-1, 1:-1]):
            windows = np.lib.stride_tricks.sliding_window_view(plane, (3, 3))
            mean, variance = windows.mean((2, 3)), windows.var((2, 3))
            noise = variance.mean()
            kept = np.where(variance > noise, 1 - noise / np.maximum(variance, 1e-9), 0.0)
            expected = (mean + kept * (raw - mean)).clip(0, 255)
            assert np.abs(of_plane.numpy() - expected).max() <= 0.5 + 1e-6
            # scipy's own, told the same noise, away from its black border
            own = signal.wiener(raw, (3, 3), noise)[1:-1, 1:-1].clip(0, 255)
            assert np.abs(of_plane.numpy()[1:-1, 1:-1] - own).max() <= 0.5 + 1e-6


# ---------------------------------------------------------------- shown and judged


@pytest.mark.parametrize("name", SUITE["figures"])
def test_figures_are_drawn_whole(view, name):
    """Catches a panel without data, and a number that is missing."""
    figure, caption = rooms.function_of("figures", name)(view)
    titles = [axes.get_title() or axes.get_ylabel() for axes in figure.axes]
    if name != "restoration_time":
        assert all(any(kind in title for title in titles) for kind in FOUR)
    said = [words.get_text() for axes in figure.axes for words in axes.texts]
    assert not [words for words in said if "no " in words or "not" in words]
    assert figure.get_suptitle() == "" and len(caption.text.split()) <= 60


def test_what_lies_together_is_shown_larger(view):
    """Catches a plane in which all that was trained to restore is one spot, and a larger one that
    leaves some of it out."""
    figure, _ = rooms.function_of("figures", "perception")(view)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 2 * len(FOUR)
    for whole, near in zip(panels[::2], panels[1::2]):
        assert np.ptp(near.get_xlim()) < 0.9 * np.ptp(whole.get_xlim()), near.get_title()
        (low, high), (bottom, top) = near.get_xlim(), near.get_ylim()
        kind = whole.get_title()
        for way in ways_of(view, "state"):
            x, y = (mean_of(view, "state", f"{score}_{way}_{kind}").mean
                    for score in ("psnr", "class_agreement"))  # fmt: skip
            assert low < x < high and bottom < y < top
    plt.close(figure)


def test_a_variant_is_told_by_a_letter_too(view):
    """Catches variants that only their colour tells apart, and a letter of another variant."""
    figure, _ = rooms.function_of("figures", "restoration_time")(view)
    (panel,) = figure.axes
    letters = dict(zip("abcdefghij", view.variants))
    said = [words.get_text() for words in figure.legends[0].get_texts()]
    assert {f"{letter}: {name}" for letter, name in letters.items()} <= set(said)
    places = {(words.get_text(), *words.xy) for words in panel.texts}
    for letter, name in letters.items():
        for way in ways_of(view, name):
            x, y = (view.estimate(name, f"{what}_{way}") for what in ("restore_ms", "psnr"))
            assert (letter, x.mean, y.mean) in places
    plt.close(figure)


def test_a_figure_without_intervals_promises_none(view):
    """Catches details that tell of intervals which are not drawn."""
    _, caption = rooms.function_of("figures", "swap")(view)
    assert "interval over the training seeds" not in caption.whole


def test_headings_of_strips_lie_on_no_other(view):
    """Catches slanted headings of two lines, which lie on their neighbours."""
    figure, _ = rooms.function_of("figures", "restoration_strips")(view)
    for panel in figure.axes:
        said = [label.get_text() for label in panel.get_xticklabels() if panel.get_visible()]
        assert not [words for words in said if "\n" in words]
    plt.close(figure)


def test_tables_have_every_way_and_degradation(view):
    """Catches a way that is left out, and a baseline under the name of a model."""
    table, caption = rooms.function_of("tables", "restoration")(view)
    told = table[table["Variant"] == "state"]
    assert list(told["Decoding"]) == [
        "likeliest code", "mean code", "drawn", "likeliest code, refined",
    ]  # fmt: skip
    assert (table["Status"] == "ok").all()
    assert {"(MLP)", "(as it is)", "(ceiling: clean tokens)"} <= set(table["Variant"])
    assert any("no restoration" in line for line in caption.details)
    swap, _ = rooms.function_of("tables", "swap")(view)
    assert list(swap["Degradation"]) == [*FOUR, "control"]


def claim(**changes):
    return {**SUITE["claims"][1], "margin": None, "origin": "ours", **changes}


def three_seeds(view, monkeypatch, values):
    """A view whose metrics have three training seeds."""
    about = dict(view.about)
    about["train_seeds"] = [0, 1, 2]
    by_seed = {name: pd.Series(of, index=[0, 1, 2]) for name, of in values.items()}
    blank = pd.Series(dtype=float)
    monkeypatch.setattr(View, "of", lambda self, variant, metric: by_seed.get(metric, blank))
    monkeypatch.setattr(
        View, "grid_seeds", lambda self, names, metric, scale=None: by_seed.get(metric, blank)
    )
    return view


def test_a_way_is_judged_against_another_of_its_own(view, monkeypatch):
    """Catches a difference the wrong way round, of unpaired seeds, or of another way."""
    values = {
        "psnr_expected": [18.0, 19.0, 20.0], "psnr_argmax": [17.0, 18.1, 18.9],
        "psnr_mlp": [19.0, 20.1, 20.9], "feature_distance_argmax": [3.0, 3.1, 3.2],
        "feature_distance_mlp": [4.0, 4.2, 4.1],
    }  # fmt: skip
    seen = three_seeds(view, monkeypatch, values)
    assert judge_restored(seen, claim())[0] == "yes"
    assert judge_restored(seen, claim(against="mlp"))[0] == "no"
    closer = claim(metric="feature_distance_argmax", against="mlp", better="lower")
    assert judge_restored(seen, closer)[0] == "yes"
    assert judge_restored(seen, claim(against="draw"))[0] == "not decided"
    alone = three_seeds(view, monkeypatch, {**values, "psnr_restored": [16.0, 17.2, 17.9]})
    word, reason = judge_restored(alone, claim(metric="psnr_argmax", against="restored"))
    assert word == "yes" and "minus psnr_restored" in reason
    seen = three_seeds(view, monkeypatch, values)
    excess = pd.Series([-0.3, -0.31, -0.33], index=[0, 1, 2])
    monkeypatch.setattr(show, "coarse_excess", lambda view, variant, kind: excess)
    carries = claim(rule="carries", metric="swap_excess_blur", against="control")
    assert judge_carries(seen, carries)[0] == "no"
    assert judge_carries(seen, {**carries, "better": "lower"})[0] == "yes"


def test_a_regression_of_all_seeds_is_said_to_have_no_noise(view, monkeypatch):
    """Catches an interval that is read as one over trainings of both sides."""
    values = {"psnr_argmax": [17.0, 18.1, 18.9], "psnr_mlp": [19.0, 20.1, 20.9]}
    seen = three_seeds(view, monkeypatch, values)
    mine = claim(metric="psnr_argmax", against="mlp")
    assert "own noise" not in judge_restored(seen, mine)[1]
    assert regression_words(seen) == "Regressions are fitted anew for each training seed."
    shared = pd.Series([18.0], index=[-1])
    monkeypatch.setattr(View, "of", lambda self, variant, metric: (
        pd.Series(values["psnr_argmax"], index=[0, 1, 2])
        if metric == "psnr_argmax" else pd.Series(dtype=float)))  # fmt: skip
    monkeypatch.setattr(View, "grid_seeds", lambda self, names, metric: shared)
    assert "one fit of it for all seeds" in judge_restored(seen, mine)[1]
    assert "their own noise is in no interval" in regression_words(seen)


def test_one_seed_decides_nothing(view):
    for one in SUITE["claims"]:
        judge = rooms.function_of("rule", one["rule"])
        word, reason = judge(view, {**one, "margin": None, "origin": "ours"})
        assert word == "not decided" and "fewer than three" in reason


# ---------------------------------------------------------------- what is refused


REFUSED = [
    ({"restoration": {"degradations": []}}, "restoration.degradations: must hold at least 1"),
    (
        {"restoration": {"degradations": ["gaussian_blur"]}},
        "restoration.degradations: gaussian_blur: changes nothing at 8 pixels",
    ),
    (
        {"restoration": {"degradations": ["noise", "nois"]}},
        "restoration.degradations: unknown degradation 'nois'; did you mean 'noise'",
    ),
    (
        {"restoration": {"strength": 3.0}},
        "restoration.strength 3: of occlusion hides a square larger than the image",
    ),
    (
        {"restoration": {"degradations": ["paired"]}},
        "paired: the dataset 'digits' has no degraded images of its own",
    ),
    (
        {"restoration": {"refiner": {"width": 10, "heads": 3}}},
        "restoration.refiner.width: 10 is not a multiple of 3 heads (variant 'state')",
    ),
    ({"restoration": {"decode": ["best"]}}, "restoration.decode"),
    (
        {"restoration_baselines": {"degradations": ["mist"]}},
        "restoration_baselines.degradations: unknown degradation 'mist'",
    ),
    (
        {"restoration_baselines": {"num_images": 100}},
        "restoration_baselines.num_images: 100: differs from restoration.num_images",
    ),
    (
        {"restoration": {"p_resample": 0.1}, "variants": {"state": SUITE["variants"]["state"]}},
        "restoration.p_resample: 0.1: is not read, no variant of this suite has masks",
    ),
    (
        {"restoration_baselines": {"swap": False}, "claims": []},
        "figures: swap: restoration_baselines.swap is false, no tokens are swapped",
    ),
    (
        {"restoration_baselines": {"swap": False}, "claims": [], "figures": []},
        "tables: swap: restoration_baselines.swap is false, no tokens are swapped",
    ),
    (
        {"measure": ["restoration", "restoration_baselines", "scores"]},
        "variants.state.model.condition: 'state': measure scores has no degraded images for it",
    ),
]


@pytest.mark.parametrize("changes,words", REFUSED, ids=[str(words) for _, words in REFUSED])
def test_bad_suites_are_refused_in_one_line(tmp_path, changes, words):
    with pytest.raises(ConfigError) as refused:
        load_study(edited(tmp_path, **{"suites/restoration": {**SUITE, **changes}}))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_plane_of_class_agreement_needs_a_classifier(tmp_path):
    """Catches a figure that is planned and whose panels are all not measured."""
    suite = {**SUITE, "claims": [], "tables": ["restoration"]}
    features = {"kind": "inception", "name": "inception64", "dim": 64}
    given = {"features": features, "evaluation/metrics": ["fidelity"]}
    wrong = "restoration.figures: perception: needs class agreement, of features of kind trained"
    with pytest.raises(ConfigError, match=wrong):
        load_study(edited(tmp_path, **{"suites/restoration": suite, **given}))
    left = {"suites/restoration": {**suite, "figures": ["restoration"]}}
    assert load_study(edited(tmp_path, **left, **given)).jobs


STATE = {"model.condition": "state"}
DELTAS = [
    ({"model.num_classes": 10}, "num_classes 10: condition state is told the image and no class"),
    ({"sampler.cfg_scale": 1.5}, "sampler.cfg_scale: 1.5"),
    ({"model.mask_prob": 0.5}, "mask_prob 0.5: condition state draws every scale once"),
    ({"restore": {"degradations": []}}, "restore.degradations"),
    ({"restore": {"degradations": ["mist"]}}, "restore.degradations: unknown degradation 'mist'"),
    ({"restore": {"strength": 2.0}}, "restore.strength 2: of contrast turns black into white"),
    ({"model.condition": "none", "restore": {}}, "restore: is not read, model.condition is none"),
    ({"model.codebook_dim": 5}, "model.codebook_dim: 5 does not fit the tokenizer's 4"),
    (
        {"distill": {"arm": "real", "teacher": {"base": "var"}}},
        "distill: model.condition 'state' is trained here, by itself",
    ),
    ({"weights": {"file": "w.safetensors"}}, "weights: model.condition 'state' is trained here"),
    (
        {"model.condition": "none", "distill": {"arm": "restore", "teacher": {"base": "var"}}},
        "distill.arm: restore: model.condition is none; set it, or take arm real",
    ),
    (
        {
            "distill": {
                "arm": "restore",
                "teacher": {"base": "var", "delta": {"model.mask_prob": 0.5}},
            }
        },
        "no masks and no place for its embedding of own tokens; name a teacher with mask_prob 0",
    ),
    (
        {"distill": {"arm": "restore", "num_samples": 9, "teacher": {"base": "var"}}},
        "distill.num_samples: 9: arm 'restore' does not read it; leave it out",
    ),
    (
        {"distill": {"arm": "restore", "teacher": {"base": "var", "delta": {**TOLD, **STATE}}}},
        "model.condition state: the teacher's is state; a restoration starts from a model",
    ),
]


@pytest.mark.parametrize("delta,words", DELTAS, ids=[words for _, words in DELTAS])
def test_bad_variants_are_refused_in_one_line(tmp_path, delta, words):
    given = {**TOLD, "model.condition": "state", **delta}
    variants = {**SUITE["variants"], "state": {"base": "var", "delta": given}}
    with pytest.raises(ConfigError) as refused:
        load_study(edited(tmp_path, **{"suites/restoration": {**SUITE, "variants": variants}}))
    assert words in str(refused.value) and "\n" not in str(refused.value)


CLAIMS = [
    ({"metric": "fid"}, "metric: 'fid': <score>_<way> or <score>_<way>_<degradation>"),
    ({"better": "lower"}, "better: 'lower': of psnr higher is better"),
    ({"against": "best"}, "against: unknown variant 'best'"),
    ({"rule": "carries", "against": "control"}, "metric: unknown metric 'psnr_expected'"),
    (
        {"rule": "carries", "metric": "swap_excess_blur", "against": "SDD"},
        "against: 'SDD': rule carries holds a swap against that of another image's tokens",
    ),
]


OFF = [
    (
        {"against": "unet"}, {"restoration_baselines": {"unet": None}},
        "against: 'unet': unet of 'state' is not measured, "
        "restoration_baselines.unet is null (measured: argmax, "
    ),
    (
        {"against": "mlp"}, {"restoration_baselines": {"regressions": False}},
        "against: 'mlp': mlp of 'state' is not measured, restoration_baselines.regressions is",
    ),
    (
        {"metric": "psnr_ridge"}, {"restoration_baselines": {"regressions": False}},
        "metric: 'psnr_ridge': ridge of 'state' is not measured, restoration_baselines.regressions",
    ),
    (
        {"against": "ceiling"}, {"measure": ["restoration"]},
        "against: 'ceiling': needs measure restoration_baselines",
    ),
    (
        {"against": "draw"}, {"restoration": {"decode": ["argmax", "expected"]}},
        "against: 'draw': draw of 'state' is not measured, restoration.decode lacks it "
        "(measured: argmax, expected, restored, input",
    ),
    (
        {"metric": "psnr_refined"}, {"restoration": {}},
        "metric: 'psnr_refined': refined of 'state' is not measured, restoration.refiner is null",
    ),
    (
        {"rule": "value", "metric": "psnr_refined", "against": "cross"}, {"restoration": {}},
        "metric: 'psnr_refined': measure restoration does not report it of 'state'",
    ),
    (
        {"rule": "value", "metric": "psnr_known", "variant": "SDD", "against": "cross"}, {},
        "metric: 'psnr_known': measure restoration does not report it of 'cross'",
    ),
    ({"metric": "psnr_repair"}, {}, "metric: 'psnr_repair': repair of 'state' is not measured ("),
    (
        {"rule": "carries", "metric": "swap_excess_blur", "against": "control"},
        {"restoration_baselines": {"swap": False}},
        "metric: 'swap_excess_blur': restoration_baselines.swap is false",
    ),
]  # fmt: skip


@pytest.mark.parametrize("changes,suite,words", OFF, ids=[words for *_, words in OFF])
def test_claims_on_what_is_not_measured_are_refused(tmp_path, changes, suite, words):
    """Catches a claim that ends as not decided, after all work, since its suite leaves out what it
    is held against."""
    bad = {**SUITE["claims"][1], "variant": "state", **changes}
    shows = {"figures": [], "tables": []}
    whole = {**SUITE, **shows, **suite, "claims": [bad]}
    with pytest.raises(ConfigError) as refused:
        load_study(edited(tmp_path, **{"suites/restoration": whole}))
    assert words in str(refused.value) and "suites.restoration.claims" in str(refused.value)


def test_a_variant_named_like_a_way_is_not_taken_for_it(tmp_path):
    """Catches a claim against a variant that is judged against a way of the other one."""
    variants = {**SUITE["variants"], "ridge": SUITE["variants"]["SDD"]}
    del variants["SDD"]
    bad = {**SUITE["claims"][1], "variant": "state", "against": "ridge"}
    with pytest.raises(ConfigError, match="against: 'ridge': a way to restore and a variant"):
        load_study(edited(tmp_path, **{
            "suites/restoration": {**SUITE, "variants": variants, "claims": [bad]}
        }))  # fmt: skip


@pytest.mark.parametrize("changes,words", CLAIMS, ids=[words for _, words in CLAIMS])
def test_bad_claims_are_refused_in_one_line(tmp_path, changes, words):
    bad = {**SUITE["claims"][1], **changes}
    with pytest.raises(ConfigError) as refused:
        load_study(edited(tmp_path, **{"suites/restoration": {**SUITE, "claims": [bad]}}))
    assert words in str(refused.value)


def test_large_images_have_no_regression():
    """Catches a matrix of 16 384 rows that is found to be too large in the job."""
    told = Settings()
    study = SimpleNamespace(
        told=lambda suite, room: told,
        dataset=DatasetConfig(name="digits", image_size=128, channels=1, num_classes=10),
    )
    suite = SimpleNamespace(measure=("restoration_baselines",))
    one = SimpleNamespace(name="restoration", suite=suite)
    (line,) = problems(study, one)
    assert "regressions: true: images of 16,384 numbers" in line
    told = Settings(regressions=False, unet=32)
    assert not list(problems(study, one))


# ---------------------------------------------------------------- folders of pairs

PAIRED = {"degradations": ["paired"]}


def pairs(root, count=60):
    """A folder of clean images and of the same ones paler, in two classes."""
    source = np.random.default_rng(0)
    for i in range(count):
        pixels = source.integers(0, 256, (8, 8), dtype=np.uint8)
        for part, array in (("clean", pixels), ("degraded", pixels // 2)):
            path = root / part / f"class{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


def prepared(tmp_path, root):
    """The folder of prepared pairs, and the digest that a plan knows them by."""
    about = dict(name="paired_folder", path=str(root), image_size=8, channels=1, num_classes=2)
    known = content_of(root, suffixes_read("paired_folder"))
    config = DatasetConfig(**about, crop=False, content=known)
    run = {"config": {"dataset": json.loads(config.model_dump_json())}, "run_id": "prepare/p"}
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"study": "s", "identity": {}, "inputs": {}, **run}))
    out = tmp_path / "prepare" / "p"
    work = importlib.import_module("bench.pipeline.prepare").work
    with pytest.raises(SystemExit) as left:
        main("prepare", work, (), [str(job), str(out), "--device", "cpu"])
    return out, known, left.value.code


def test_pairs_are_prepared_and_read_together(tmp_path, make_tokenizer):
    """Catches a partner of another image, and clean images that are those of the other part."""
    # a root that is called clean and lies beside another folder of degraded images
    root = pairs(tmp_path / "clean" / "pairs")
    shutil.copytree(root / "clean", tmp_path / "degraded" / "pairs" / "clean")
    out, known, code = prepared(tmp_path, root)
    assert code == 0
    assert sum(len(open_split(out, name)) for name in ("train", "val", "test")) == 60
    split = DegradedSplit(out, "train", 1.0, known)
    rows = list(range(len(split)))
    clean = open_split(out, "train").read(rows).int()
    paler = split.degraded("paired", rows).add(1).mul(127.5).round().int()
    assert torch.equal(paler, clean // 2)
    tokenizer = make_tokenizer()
    ladder = tokenizer.at(tokenizer.config.schedule)
    told = condition_latent("state", tokenizer, ladder, split.degraded("paired", rows[:2]))
    assert told.shape == (2, 4, 4, 4)


def blacken(path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def test_a_partner_that_changes_is_never_read_as_the_old_one(tmp_path):
    """Catches results that stand for degraded images which are not there any more."""
    root = pairs(tmp_path / "pairs")
    out, known, _ = prepared(tmp_path, root)
    opened, other = (DegradedSplit(out, "test", 1.0, known) for _ in range(2))
    before = opened.degraded("paired", [0])
    clean = opened.images.paths[0]
    blacken(root / "degraded" / clean.relative_to(root / "clean"))
    with pytest.raises(ValueError, match="has changed since it was prepared"):
        opened.degraded("paired", [0])
    with pytest.raises(ConfigError, match="have changed since this run was planned"):
        other.degraded("paired", [1])
    assert before.std() > 0


def test_a_damaged_partner_is_named_when_images_are_prepared(tmp_path):
    """Catches a training that stops at the first damaged partner, hours later."""
    root = pairs(tmp_path / "pairs")
    path = root / "degraded" / "class1" / "3.png"
    path.write_bytes(path.read_bytes()[:60])  # the header with its size is whole
    _, _, words = prepared(tmp_path, root)
    assert "degraded/class1/3.png: damaged image" in words and "\n" not in words


def test_a_partner_of_other_pixels_is_planned_anew(tmp_path):
    """Catches old rows that count as done though what a model was told has changed."""
    root = pairs(tmp_path / "pairs")
    file = study_of_pairs(tmp_path, root)
    planned = load_study(file).suites["restoration"]
    assert load_study(file).suites["restoration"] == planned
    blacken(root / "degraded" / "class1" / "1.png")
    assert not load_study(file).suites["restoration"] & planned


def test_a_folder_of_pairs_may_lie_in_and_hold_a_folder_clean(tmp_path):
    root = tmp_path / "clean" / "pairs"
    for part in ("clean", "degraded"):
        (root / part / "clean").mkdir(parents=True)
        for name in ("clean/a.png", "b.png"):
            (root / part / name).touch()
    for name in ("clean/a.png", "b.png"):
        assert degraded_path(root / "clean" / name, root) == root / "degraded" / name


def study_of_pairs(tmp_path, root, **more):
    """The file of a study whose models restore the degraded images of a folder of pairs."""
    about = {
        "name": "paired_folder", "path": str(root), "image_size": 8, "channels": 1,
        "num_classes": 2, "crop": False, "test_share": 0.3, "val_share": 0.1,
    }  # fmt: skip
    state = {**TOLD, "model.condition": "state", "restore": PAIRED}
    suite = {
        **SUITE, "restoration": PAIRED, "restoration_baselines": PAIRED, "claims": [],
        "variants": {"state": {"base": "var", "delta": state}},
    }  # fmt: skip
    place = tmp_path / "study"
    place.mkdir(exist_ok=True)
    return edited(place, **{"dataset": about, "suites/restoration": suite, **more})


def test_a_study_of_pairs_is_planned_and_trained_on_them(tmp_path):
    """Catches a dataset that only its loader's test can name."""
    root = pairs(tmp_path / "pairs")
    plan = load_study(study_of_pairs(tmp_path, root))
    told = [plan.jobs[run_id] for run_id in plan.suites["restoration"]]
    (train,) = (job for job in told if job.stage == "restore")
    assert train.config["restore"] == PAIRED
    assert plan.jobs[train.inputs["data"]].config["dataset"]["name"] == "paired_folder"
    with pytest.raises(ConfigError, match="dataset.path: is missing; paired_folder needs"):
        load_study(study_of_pairs(tmp_path, root, **{"dataset/path": None}))


def test_other_data_have_no_partners(made):
    split = DegradedSplit(made.root / made.of("prepare")[0], "test", 1.0)
    with pytest.raises(ConfigError, match="paired: these images have no degraded partners"):
        split.degraded("paired", [0])


@pytest.mark.parametrize("suffix", ("jpg", "png", "webp"))
def test_sizes_of_pairs_are_those_of_upright_images(tmp_path, suffix):
    """Catches a pair that is refused since a camera stored one image on its side, and one that is
    taken though its images are turned differently."""
    turned, exif = Image.new("L", (8, 6)), Image.Exif()
    exif[0x0112] = 6
    for part in ("clean", "degraded"):
        (tmp_path / part).mkdir()
        turned.save(tmp_path / part / f"a.{suffix}", exif=exif)
    refuse_unpaired(tmp_path)
    Image.new("L", (6, 8)).save(tmp_path / "degraded" / f"a.{suffix}")
    refuse_unpaired(tmp_path)
    Image.new("L", (8, 6)).save(tmp_path / "degraded" / f"a.{suffix}")
    with pytest.raises(ConfigError, match="has 8x6 pixels, its clean image 6x8"):
        refuse_unpaired(tmp_path)


@pytest.mark.parametrize(
    "ways,words",
    [
        (("input", "ridge", "mlp", "ceiling"), "as it is, a linear and a nonlinear regression on"),
        (("input", "unet", "ceiling"), "the input as it is, a U-Net. Dashed: "),
        (("input", "ceiling"), "the input as it is. Dashed: "),
    ],
)
def test_a_caption_names_the_lines_that_are_there(monkeypatch, ways, words):
    """Catches regressions in a caption of a suite that has none."""
    monkeypatch.setattr(reading, "ways_without", lambda view: list(ways))
    assert words in reading.line_words(None)
    assert ("regression" in reading.line_words(None)) == ("ridge" in ways)
    monkeypatch.setattr(reading, "ways_without", lambda view: [])
    assert reading.line_words(None) == ""


def test_unequal_pairs_are_refused_by_the_first(tmp_path):
    root = pairs(tmp_path / "pairs", 4)
    refuse_unpaired(root)
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(root / "degraded" / "class1" / "1.png")
    with pytest.raises(ConfigError, match=r"class1/1.png has 8x4 pixels, its clean image 8x8"):
        refuse_unpaired(root)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "degraded" / "class1" / "1.png")
    (root / "degraded" / "class0" / "2.png").rename(root / "degraded" / "class0" / "x.png")
    with pytest.raises(ConfigError, match=r"clean/class0/2.png has no partner in degraded \(and 1"):
        refuse_unpaired(root)
    shutil.rmtree(root / "degraded")
    with pytest.raises(ConfigError, match="has no folder degraded; pairs lie in clean"):
        refuse_unpaired(root)
    with pytest.raises(ConfigError, match="dataset.path: is missing; paired_folder needs"):
        config = DatasetConfig(name="paired_folder", image_size=8, channels=1, num_classes=2)
        read_dataset(config)


def test_a_caption_says_what_the_models_learnt(view, monkeypatch):
    """Catches models that are said to learn a degradation, or a strength of it, that they never
    saw."""
    words = reading.run_details(view)[0]
    assert words.endswith("of strength 1. One model learns all of them.")
    monkeypatch.setitem(view.about["restoration"], "degradations", ["jpeg"])
    words = reading.run_details(view)[0]
    assert "learns all" not in words
    assert "state, cross, started: blur, contrast, noise, occlusion of strength 1." in words
    untold = view.only(["SRDD", "SDD"])
    assert reading.run_details(untold)[0].endswith("(jpeg), of strength 1.")
    assert "A model is told" in " ".join(reading.run_details(view))
    assert "A model is told" not in " ".join(reading.run_details(untold))
