"""The room peers from end to end: every dial is trained, drawn, scored, timed, collected and
shown."""

import pandas as pd
import pytest
from small_suite import SmallSuite
from test_config import edited

from bench.experiments.peers.dials import unguided
from bench.study import rooms
from srdd.checkpoint import load_tensors

ON = {
    "vector 2": {"model.history_vector": 2},
    "window 3": {"model.window": 3},
    "bell": {"training.loss_weight": "bell"},
    "requantise": {"training.correction": "requantise"},
    "rollout": {"training.correction": "rollout"},
    "last": {"model.state": "last"},
    "replace": {"tokenizer.config.combine": "replace"},
    "detail": {"sampler.detail_scale": 0.2},
}
SUITE = {
    "claim": "c",
    "measure": ["scores", "latency"],
    "train_seeds": [0],
    "latency": {"batch_sizes": [2], "rounds": 2, "max_rounds": 2},
    "variants": {
        "SDD": {"base": "var", "delta": {"model.history": 0}},
        **{
            name: {"base": "var", "delta": {"model.history": 0, **delta}}
            for name, delta in ON.items()
        },
        "VAR": {"base": "var"},
    },
    "figures": ["fid", "per_scale", "pairs"],
    "tables": ["scores", "dials"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("peers")
    return SmallSuite(root, "peers", edited(root, **{"suites/peers": SUITE}))


@pytest.fixture(scope="module")
def view(made):
    return made.view()


@pytest.fixture(scope="module")
def rows(view):
    return rooms.function_of("tables", "dials")(view)[0].set_index("Variant")


def test_every_dial_is_another_training_but_that_of_the_sampler(made, view):
    """Catches a dial that nothing reads: weights of all trainings differ."""
    models = {name: names["model"] for name, names in view.variants.items()}
    assert models["detail"] == models["SDD"] and len(set(models.values())) == len(models) - 1
    weights = []
    for run_id in made.jobs:
        if run_id.startswith("train/"):
            tensors, _ = load_tensors(made.root / run_id / "model.safetensors")
            weights.append(tensors["head.weight"])
    assert len(weights) == 9
    for i, one in enumerate(weights):
        assert not any((one == other).all() for other in weights[:i])


def test_the_table_names_dials_costs_and_differences(rows):
    """Catches a row beside the wrong variant, and a difference that is not that of its scores."""
    assert list(rows.index) == list(SUITE["variants"])
    assert all(rows.loc[name, "Beside"] == "SDD" for name in ON)
    assert rows.loc["SDD", "Beside"] == rows.loc["VAR", "Beside"] == "-"
    dials = rows["Dial"].to_dict()
    assert dials == {
        "SDD": "-", "VAR": "-", "vector 2": "history vector", "window 3": "window",
        "bell": "loss weight", "requantise": "correction", "rollout": "correction",
        "last": "state", "replace": "state", "detail": "detail",
    }  # fmt: skip
    numbers = {name: cell.numbers["value"] for name, cell in rows["Attended pairs"].items()}
    assert numbers["SDD"] == 1 + 16 + 256 and numbers["VAR"] == 1 + 20 + 336
    assert numbers["window 3"] == 1 + 16 + 16 * 9
    width = 16
    sizes = {name: cell.numbers["value"] for name, cell in rows["Parameters"].items()}
    assert sizes["vector 2"] - sizes["SDD"] == 3 * width * width + width
    assert len(set(sizes.values())) == 2
    assert rows.loc["vector 2", "Scales reached"] == "1"
    assert all(cell.numbers["value"] > 0 for cell in rows["Time per image (ms)"])


def test_dials_without_a_counterpart_are_named(view):
    """Catches `-` for a difference, without the reason that nothing stands on the other side."""
    table = rooms.function_of("tables", "dials")
    assert "so without differences" not in table(view)[1]
    _, caption = table(view.only(["VAR", "bell", "detail"]))
    assert "but for its dials, so without differences: bell, detail." in caption


def test_differences_are_those_of_the_scores(view, rows):
    """Catches a difference of other variants, and losses of other tokens side by side."""
    fid = view.results.score_name("fid")
    for name in ON:
        wanted = view.of(name, fid).iloc[0] - view.of("SDD", fid).iloc[0]
        cell = rows.loc[name, f"{view.results.label('FID')} minus off"]
        assert cell.numbers["mean"] == pytest.approx(wanted)
        loss = rows.loc[name, "Held-out loss minus off (nats/token)"].numbers["mean"]
        if name == "replace":
            assert loss is None or pd.isna(loss)
        else:
            own, off = (view.of(one, "kept_loss_test").iloc[0] for one in (name, "SDD"))
            assert loss == pytest.approx(own - off)


def test_the_figure_has_a_place_for_every_variant_by_its_pairs(view):
    """Catches a variant that is left out or drawn where another stands, and equal pairs beside
    their number."""
    figure, caption = rooms.function_of("figures", "pairs")(view)
    fid, loss = figure.axes[:2]
    for panel in (fid, loss):
        bars = {bar.get_label(): bar.lines[0].get_xdata()[0] for bar in panel.containers}
        left_out = {"replace"} if panel is loss else set()  # other tokens, another loss
        assert set(bars) == set(SUITE["variants"]) - left_out
        names = [label.get_text() for label in panel.get_xticklabels()]
        assert len(names) == len(SUITE["variants"])
        assert all(names[place] == name for name, place in bars.items())
        groups = {text.get_text(): text.get_position()[0] for text in panel.texts}
        assert list(groups) == sorted(groups, key=int) and {"161", "273", "357"} <= set(groups)
        assert groups["161"] == names.index("window 3") and groups["357"] == names.index("VAR")
        edges = [line.get_xdata()[0] for line in panel.lines if line.get_color() == "0.8"]
        assert len(edges) == len(groups) - 1 and edges[-1] < bars["VAR"]
    assert caption.too_long is None


@pytest.mark.parametrize("name", ["fid", "per_scale"])
def test_figures_of_other_rooms_know_the_dials(view, name):
    """Catches a variant that a figure which is there cannot draw."""
    _, caption = rooms.function_of("figures", name)(view)
    assert caption.text and "detail 0.2" in caption or name == "per_scale"


def test_one_guidance_stands_for_all_of_a_sweep():
    """Catches three marks of one dial at one place, a grid of another setting that is thinned with
    them, and a sweep without w = 1 that vanishes."""
    grids = {
        "a, 1.0": {"sampler.cfg_scale": 1.0},
        "a, 2.0": {"sampler.cfg_scale": 2.0},
        "b, 0.1, 1.0": {"sampler.cfg_scale": 1.0, "sampler.detail_scale": 0.1},
        "b, 0.2, 2.0": {"sampler.cfg_scale": 2.0, "sampler.detail_scale": 0.2},
        "c, 2.0": {"sampler.cfg_scale": 2.0},
        "d": {},
    }

    class Sweep:
        variants = {name: {"group": name[0], "grid": grid} for name, grid in grids.items()}

        def sampler(self, name):
            return {"cfg_scale": grids[name].get("sampler.cfg_scale", 1.5)}

        def only(self, names):
            return list(names)

    assert unguided(Sweep()) == [name for name in grids if name != "a, 2.0"]
