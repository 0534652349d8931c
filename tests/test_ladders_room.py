"""The room ladders from end to end: a regression, a head of bits and sides that repeat are trained,
measured, collected, drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_suite import SmallSuite
from test_config import edited
from test_ranks import finish, torchrun

from bench.experiments.ladders import show, verb
from bench.pipeline.sampling import growth, sample_into
from bench.report.completion import along_scales
from bench.study import rooms
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from srdd.checkpoint import load_model
from srdd.config import SamplerConfig
from srdd.tokenizer_checkpoint import load_tokenizer

SUITE = {
    "claim": "c",
    "measure": ["ladders"],
    "train_seeds": [0],
    "ladders": {"num_images": 40, "noise": [0.0, 0.3], "micro_batches": 3},
    "variants": {
        "VAR": {"base": "var"},
        "gauss": {"base": "var", "delta": {"model.head": "gauss", "sampler.name": "gauss"}},
        "mean": {
            "base": "var",
            "delta": {
                "model.head": "gauss", "sampler.name": "gauss", "sampler.temperature": 0.0,
            },
        },
        "bits 4-4": {
            "base": "var",
            "delta": {
                "model.head": "bits", "tokenizer.config.patch_nums": [4, 4],
                "tokenizer.training.code_order": "tree",
            },
        },
    },
    "figures": ["refine_error", "noise_shift", "gradient_noise", "bands"],
    "tables": ["factors"],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("ladders")
    return SmallSuite(root, "ladders", edited(root, **{"suites/ladders": SUITE}))


@pytest.fixture(scope="module")
def view(made):
    return made.view()


def test_a_regression_is_one_training_for_both_temperatures(made):
    """Catches a mean that is trained again, and a regression that the verb train trains."""
    assert len(made.of("regress")) == 1 and len(made.of("train")) == 2
    assert len(made.of("ladders")) == 3


def test_a_regression_learns_and_knows_its_width(made):
    """Catches widths that are not those of the training residuals: sigma squared, over scales and
    channels, is the training error of the kept weights without what a step drops."""
    (run_id,) = made.of("regress")
    model = load_model(made.root / run_id / "model.safetensors")
    sigma = model.head.sigma_KC
    assert sigma.shape == (3, 4) and (sigma > 0).all() and (sigma != 1).any()
    rows = made.rows(run_id)
    train = rows[rows["metric"] == "regression_mse_train"].set_index("step")["value"]
    test = rows[rows["metric"] == "regression_mse_test"].set_index("step")["value"]
    lengths = np.array([1, 4, 16])
    mean = (sigma.square().mean(1).numpy() * lengths).sum() / lengths.sum()
    assert mean == pytest.approx(test.min(), rel=0.3) and train.iloc[-1] < train.iloc[0]
    for path in (made.root / run_id / "snapshots").glob("*.safetensors"):
        assert (load_model(path).head.sigma_KC != 1).all()


def test_a_regression_ends_with_the_same_weights_again(made, tmp_path):
    """Catches a batch or a width that does not follow from the seed."""
    (run_id,) = made.of("regress")
    again = tmp_path / "again"
    assert made.call(run_id, again) == 0
    first = load_model(made.root / run_id / "model.safetensors").state_dict()
    second = load_model(again / "model.safetensors").state_dict()
    assert all((first[name] == second[name]).all() for name in first)


def test_micro_batches_change_no_regression(made, tmp_path):
    """Catches a loss that is no share of the whole batch's mean."""
    (run_id,) = made.of("regress")
    assert made.call(run_id, tmp_path / "parts", accumulate=4) == 0
    first, second = (
        load_model(path / "model.safetensors").head.mean.weight
        for path in (made.root / run_id, tmp_path / "parts")
    )
    assert (first - second).abs().max() < 1e-4


def test_two_processes_regress_as_one(made, tmp_path):
    """Catches widths of a snapshot that one process asks the others for, which are at the next
    step."""
    (run_id,) = made.of("regress")
    words = made.words(run_id, tmp_path / "two")
    code, text = finish(torchrun("-m", "bench", "regress", *words))
    assert code == 0, text
    found, wanted = (folder / "snapshots" for folder in (tmp_path / "two", made.root / run_id))
    names = sorted(path.name for path in wanted.iterdir())
    assert len(names) > 1 and names == sorted(path.name for path in found.iterdir())
    for name in names:
        one, two = (load_model(folder / name).state_dict() for folder in (wanted, found))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


def test_the_growth_of_a_regression_ends_with_its_image(made, view):
    """Catches images of the nearest codes beside samples that were made of residuals."""
    (run_id,) = made.of("regress")
    (tokenizer_id,) = made.of("tokenizer")[:1]
    model = load_model(made.root / run_id / "model.safetensors")
    tokenizer = load_tokenizer(made.root / tokenizer_id / "tokenizer.safetensors")
    images, labels = np.zeros((3, 1, 8, 8), np.uint8), torch.tensor([1, 2, 3])
    sampler, progress = SamplerConfig(name="gauss"), SimpleNamespace(advance=lambda count: None)
    tokens, _ = sample_into(images, model, tokenizer, sampler, labels, 5, 3, progress)
    strip = growth(tokenizer, model, sampler, labels, 5, tokens)
    assert strip.shape == (3, 3, 1, 8, 8)
    assert np.abs(strip[:, -1].astype(int) - images).max() <= 1
    assert (strip[:, 0] != strip[:, -1]).any()


def test_a_student_was_never_drawn_anew(made, monkeypatch):
    """Catches noise at step 0 of a network that a training from another's weights never had."""
    monkeypatch.setattr(verb, "open_model", lambda run, path: path.name)
    monkeypatch.setattr(verb, "first_network", lambda *_: torch.nn.Identity())
    (run_id,) = made.of("regress")
    run = SimpleNamespace(
        inputs={"train": made.root / run_id}, config=made.plan.jobs[run_id].config, device="cpu",
        settings=lambda *_: None,
    )  # fmt: skip
    steps = [step for step, _ in verb.snapshots(run)]
    assert steps[:2] == [None, 0] and len(steps) > 2
    run.config = {**run.config, "distill": {}}
    assert [step for step, _ in verb.snapshots(run)][0] is None
    assert 0 not in [step for step, _ in verb.snapshots(run)]


def test_measures_agree_where_they_ask_the_same(view):
    """Catches a step that is counted from 1, a floor that is that of another system."""
    for variant, names in view.variants.items():
        K = len(names["patch_nums"])
        by_scale = {
            metric: along_scales(view, variant, metric).set_index("scale")["value"]
            for metric in ("refine_error", "ladder_error", "noise_s0")
        }
        assert len(by_scale["refine_error"]) == K and len(by_scale["noise_s0"]) == K + 1
        last = by_scale["refine_error"][K - 1]
        assert by_scale["noise_s0"][K - 1] == pytest.approx(last, rel=1e-4)
        floor = by_scale["ladder_error"][K - 1]
        assert by_scale["noise_s0"][K] == pytest.approx(floor, rel=1e-4)
        assert view.estimate(variant, "gradient_noise").mean > 0
        bands = (f"band_share_latent_b{j}" for j in range(4))
        shares = [along_scales(view, variant, band)["value"] for band in bands]
        assert np.sum(shares, 0) == pytest.approx(1.0)


def test_regressions_have_no_bits(view):
    """Catches bits of a system that has no codes, and a head of bits that is as large as one of
    codes."""
    assert view.estimate("gauss", "bits_per_image") is None
    assert view.estimate("VAR", "bits_per_image").mean == 21 * 4
    width, C = 16, 4
    sizes = {name: view.estimate(name, "head_parameters").mean for name in view.variants}
    assert sizes["bits 4-4"] == (width + 1) * 4 and sizes["VAR"] == (width + 1) * 16
    assert sizes["gauss"] == sizes["mean"] == (width + 1) * C


@pytest.mark.parametrize("name", SUITE["figures"])
def test_figures_show_every_model_once(view, name):
    """Catches a model that is drawn twice, for two samplers, and one that is left out."""
    figure, caption = rooms.function_of("figures", name)(view)
    lines = {line.get_label() for axes in figure.axes for line in axes.lines}
    assert {"VAR", "gauss", "bits 4-4"} <= lines and "mean" not in lines
    assert figure.get_suptitle() == "" and caption.text


def test_a_suite_that_draws_nothing_has_no_words_on_scores(view, monkeypatch):
    """Catches a number of generated images, and columns of scores, where none were generated."""
    table, caption = show.table_factors(view)
    assert "generated images" not in caption and "Extractor" not in caption
    assert not [title for title in table if "FID" in title or "agreement" in title]
    assert "FID never judges alone" not in caption and "One training seed" in caption
    monkeypatch.setitem(view.about, "measure", ["scores", "ladders"])
    table, caption = show.table_factors(view)
    assert "generated images" in caption and view.results.label("FID") in table


def test_levels_without_a_panel_are_named(view, monkeypatch):
    """Catches noise that was measured and is left out without a word, and a class where models
    know none."""
    assert "not drawn" not in show.figure_noise_shift(view)[1]
    assert "the class alone" in show.figure_noise_shift(view)[1]
    monkeypatch.setitem(view.about["ladders"], "noise", [0.5, 0.0, 0.1, 0.2, 0.3, 0.4])
    monkeypatch.setitem(view.results.about["dataset"], "num_classes", 0)
    caption = show.figure_noise_shift(view)[1]
    assert "Measured and not drawn: 0.1, 0.4." in caption and "the class alone" not in caption


def test_variants_that_add_the_same_bands_have_one_line(view, monkeypatch):
    """Catches lines that lie hidden below the last one, and a step that is left out of the
    comparison."""
    other_last: list[str] = []

    def lent(view, variant, metric):
        rows = along_scales(view, "VAR" if variant == "gauss" else variant, metric)
        last = rows["scale"] == rows["scale"].max()
        if variant in other_last and metric.endswith("image"):
            return rows.assign(value=rows["value"].mask(last, 9.0))
        return rows

    def labels():
        figure, _ = show.figure_bands(view)
        return {line.get_label() for axes in figure.axes for line in axes.lines}

    monkeypatch.setattr(show, "along_scales", lent)
    assert {"VAR; gauss", "bits 4-4"} <= labels() and not labels() & {"VAR", "gauss"}
    other_last.append("gauss")
    assert {"VAR", "gauss"} <= labels()


def test_the_true_step_has_no_dashes_of_a_variant(view):
    """Catches an error of the tokenizer in the style of another variant's line."""
    figure, _ = show.figure_refine_error(view)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == len({line.get_marker() for line in hollow}) == 3
    assert {line.get_linestyle() for line in hollow} == {"-"}


def test_the_table_has_a_row_for_every_system(view):
    """Catches a system without a row, and numbers of another."""
    table, _ = rooms.function_of("tables", "factors")(view)
    rows = table.set_index("Variant")
    assert list(rows.index) == list(SUITE["variants"])
    assert rows.loc["mean", "Refinement error"] == rows.loc["gauss", "Refinement error"] != "-"
    assert rows.loc["bits 4-4", "Tokens"] == "32" and rows.loc["bits 4-4", "Head"] == "bits"
    assert rows.loc["mean", "Temperature"] == "0" and (rows["Status"] == "ok").all()


def test_a_drowned_gradient_is_called_so(view, monkeypatch):
    """Catches a mean over the trainings that happen to have a number."""
    rows = view.results.metrics
    mine = (rows["metric"] == "gradient_noise") & (rows["run_id"] == ladder_run(view, "VAR"))
    assert mine.sum() == 1
    monkeypatch.setattr(view.results, "metrics", rows.assign(value=rows["value"].mask(mine)))
    table, caption = rooms.function_of("tables", "factors")(view)
    noise = table.set_index("Variant")["Gradient noise"]
    assert noise["VAR"] == "too noisy" != noise["bits 4-4"]
    assert any(line.startswith("Too noisy: in a training") for line in caption.details)


def test_imported_weights_are_not_called_drowned(view, monkeypatch):
    """Catches gradients that nobody measured, given out as too noisy."""
    rows = view.results.metrics
    mine = rows["metric"].str.startswith("gradient_noise")
    kept = rows[~(mine & (rows["run_id"] == ladder_run(view, "VAR")))]
    monkeypatch.setattr(view.results, "metrics", kept)
    monkeypatch.setitem(view.variants["VAR"]["settings"], "training", None)
    table, caption = rooms.function_of("tables", "factors")(view)
    assert table.set_index("Variant")["Gradient noise"]["VAR"] == "-"
    assert not any(line.startswith("Too noisy") for line in caption.details)
    figure, caption = rooms.function_of("figures", "gradient_noise")(view)
    assert "At steps that only some trainings have, means are over those." in caption
    assert "too noisy" not in figure.get_suptitle() and "VAR: seed 0" in figure.get_suptitle()


def ladder_run(view, variant):
    """The job that measured a variant."""
    (run_id,) = set(view.select(variant, "gradient_noise")["run_id"])
    return run_id


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"noise": [0.1]}, "compares levels"),
        ({"noise": [0.1, 0.1]}, "noise"),
        ({"micro_batches": 1}, "micro_batches"),
        ({"num_images": 0}, "num_images"),
    ],
)
def test_bad_settings_are_said_in_one_line(tmp_path, settings, words):
    """Catches a figure of one level, a level twice, and gradients of which there is one."""
    suite = {**SUITE, "ladders": settings}
    with pytest.raises(ConfigError, match=words) as error:
        load_study(edited(tmp_path, **{"suites/ladders": suite}))
    assert "\n" not in str(error.value)
