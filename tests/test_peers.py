"""The room peers: which dial is turned, what it is held against, what its suites may ask."""

from pathlib import Path

import pytest
from test_config import edited

from bench.experiments.peers.dials import DIALS, attended_pairs, counterparts, reached, turned
from bench.report.absent import reach
from bench.study.errors import ConfigError
from bench.study.names import whole
from bench.study.plan import load_study
from bench.study.settings import TrainingConfig
from srdd.config import ModelConfig, SamplerConfig

ROOT = Path(__file__).resolve().parent.parent
SIDES = (1, 2, 3, 4)


def names_of(tokenizer="t", **changes):
    """A variant as variants.csv has it; changes: dotted keys with _ for the dot."""
    parts = {
        "model": {"patch_nums": SIDES, "history": 0, "depth": 4},
        "training": {},
        "sampler": {},
    }
    for key, value in changes.items():
        section, name = key.split("_", 1)
        parts[section][name] = value
    made = {
        "model": ModelConfig(**parts["model"]),
        "training": TrainingConfig(**parts["training"]),
        "sampler": SamplerConfig(**parts["sampler"]),
    }
    model = made["model"]
    return {
        "tokenizer": tokenizer, "settings": {key: whole(part) for key, part in made.items()},
        "history": model.history, "depth": model.depth, "mask": model.mask,
        "patch_nums": list(model.patch_nums),
    }  # fmt: skip


class Seen:
    """As much of a view as names of variants."""

    def __init__(self, **variants):
        self.variants = variants


# ---------------------------------------------------------------- dials


def test_off_is_what_settings_stand_at():
    """Catches a dial whose off value is not the default: every variant would have it turned."""
    names = names_of()
    assert turned(names["settings"]) == []
    for dial in DIALS.values():
        assert dial.value(names["settings"]) == dial.off == dial.value({})


TURNED = {
    "history vector": ({"model_history_vector": 3}, "3"),
    "window": ({"model_window": 3, "model_window_from": 2}, "3, window_from 2"),
    "loss weight": ({"training_loss_weight": "bell"}, "bell"),
    "correction": ({"training_correction": "requantise"}, "requantise, noise 0.3"),
    "state": ({"model_state": "last"}, "last"),
    "detail": ({"sampler_detail_scale": 0.1}, "0.1, ramp constant, prior dse"),
}


@pytest.mark.parametrize("name", DIALS)
def test_a_turned_dial_is_named_and_held_against_the_same_without(name):
    """Catches a difference to another schedule, sampler or training than the variant's own."""
    changes, words = TURNED[name]
    names = names_of(sampler_cfg_scale=1.5, **changes)
    assert turned(names["settings"]) == [name]
    assert DIALS[name].words(names["settings"]) == words
    view = Seen(
        off=names_of(), guided=names_of(sampler_cfg_scale=1.5), mine=names,
        longer=names_of(sampler_cfg_scale=1.5, training_steps=900),
    )  # fmt: skip
    assert counterparts(view) == {"mine": "guided"}
    assert counterparts(Seen(off=view.variants["off"], mine=names)) == {}


def test_a_rollout_says_its_own_settings():
    """Catches numbers of a correction that this kind does not read."""
    given = {"name": "rollout", "draw": "drawn", "weight": 1.0}
    words = DIALS["correction"].words(names_of(training_correction=given)["settings"])
    assert words == "rollout, draw drawn, target teacher, weight 1.0"


def test_another_tokenizer_is_compared_where_the_state_asks_for_it_alone():
    """Catches a scale that replaces without a counterpart, and others beside another tokenizer."""
    view = Seen(
        off=names_of(), swap=names_of("other", model_state="replace"),
        last=names_of("other", model_state="last"),
    )  # fmt: skip
    assert counterparts(view) == {"swap": "off"}


def test_two_dials_are_held_against_none():
    """Catches a combination that is compared with one of its own dials."""
    view = Seen(
        vector=names_of(model_history_vector=2), off=names_of(),
        both=names_of(model_history_vector=2, training_loss_weight="side"),
    )  # fmt: skip
    assert counterparts(view) == {"vector": "off", "both": "off"}
    assert turned(view.variants["both"]["settings"]) == ["history vector", "loss weight"]


def test_results_of_older_versions_have_all_dials_off():
    """Catches a table that stops at rows that know no dial."""
    names = names_of()
    for dial in DIALS.values():
        names["settings"][dial.section].pop(dial.key)
    assert turned(names["settings"]) == [] and attended_pairs(names) == 354


def test_pairs_and_reach():
    """Catches a reach times the depth for a history vector, and pairs of a mask that nobody
    counted."""

    def model(**changes):
        return names_of(**{f"model_{key}": value for key, value in changes.items()})

    assert attended_pairs(model(window=3)) == 242
    assert attended_pairs(model(history=None)) > attended_pairs(model(history=1)) > 354
    assert attended_pairs(model(history=None, mask="mine")) is None
    reaches = [model(), model(history_vector=1), model(history_vector=3), model(history_vector=9)]
    assert list(map(reached, reaches)) == [0, 0, 2, 2]
    assert reached(model(history=None)) == reached(model(history=1)) == 3
    assert reached(model(history=None, mask="mine")) is None
    view = Seen(three=names_of(model_history_vector=3), one=names_of(model_history_vector=1))
    assert reach(view).endswith("not Markov in the state: three 2.")


# ---------------------------------------------------------------- suites


def suite(variants, **more):
    return {"suites/s": {"claim": "c", "measure": ["scores"], "variants": variants, **more}}


BAD = {
    "a table without a dial": (suite({"a": {"base": "var"}}, tables=["dials"]), "tables: 'dials'"),
    "a figure of one place": (
        suite({"a": {"base": "var"}, "b": {"base": "var", "delta": {"sampler.top_p": 0.9}}},
              figures=["pairs"]),
        "figures: 'pairs' needs variants that attend to different numbers of pairs",
    ),
    "an even window": (
        suite({"a": {"base": "var", "delta": {"model.window": 2}}}),
        "window 2: has no middle for the token itself",
    ),
    "a vector of what is seen": (
        suite({"a": {"base": "var", "delta": {"model.history_vector": 2}}}),
        "history_vector 2: pools inputs that are seen already",
    ),
    "a weight of a regression": (
        suite({"a": {"base": "var", "delta": {
            "model.head": "gauss", "sampler.name": "gauss", "training.loss_weight": "side"}}}),
        "training.loss_weight: 'side' weighs the cross-entropy of tokens",
    ),
    "an unknown weight": (
        suite({"a": {"base": "var", "delta": {"training.loss_weight": "bel"}}}),
        "training.loss_weight: unknown name 'bel'; did you mean 'bell'",
    ),
    "a correction of a student": (
        suite({"a": {"base": "var", "delta": {
            "training.correction": "rollout", "distill.arm": "real",
            "distill.teacher": {"base": "var"}}}}),
        "training.correction: 'rollout' beside distill.arm real",
    ),
    "a correction without a name": (
        suite({"a": {"base": "var", "delta": {"training.correction": {"noise": 0.1}}}}),
        "training.correction: has no name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_suite_that_cannot_be_is_refused_in_one_line(tmp_path, case):
    """Catches a figure of nothing, and a setting whose fault shows after an hour."""
    changes, words = BAD[case]
    with pytest.raises(ConfigError) as refused:
        load_study(edited(tmp_path, **changes))
    assert words in str(refused.value) and "\n" not in str(refused.value)


CAUTIONS = {
    "more scales than there are": (
        {"model.history": 0, "model.history_vector": 5}, "model.history_vector: 5: only 2 scales"
    ),
    "a window that hides nothing": (
        {"model.window": 5}, "model.window: 5: no scale from 0 on has a larger side (4)"
    ),
    "a first scale of no window": ({"model.window_from": 1}, "model.window_from: is not read"),
    "a ramp of no detail": (
        {"sampler.detail_ramp": "grow", "sampler.top_p": 0.9},
        "delta.sampler.detail_ramp: is not read, detail_scale is 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CAUTIONS)
def test_dials_that_do_nothing_are_said(tmp_path, case):
    """Catches one model under two names, trained twice."""
    delta, words = CAUTIONS[case]
    variants = {"a": {"base": "var"}, "b": {"base": "var", "delta": delta}}
    plan = load_study(edited(tmp_path, **suite(variants)))
    assert any(f"suites.s.variants.b.{words}" in line for line in plan.warnings)


def test_a_correction_and_what_is_set_of_it_are_one_setting(tmp_path):
    """Catches a name that its own settings push out."""
    delta = {"training.correction.noise": 0.1, "training.correction": "requantise"}
    variants = {"a": {"base": "var", "delta": delta}}
    plan = load_study(edited(tmp_path, **suite(variants)))
    trains = [plan.jobs[job] for job in plan.suites["s"] if job.startswith("train/")]
    given = {"name": "requantise", "noise": 0.1}
    assert trains and all(job.config["training"]["correction"] == given for job in trains)


@pytest.mark.parametrize("study", ["digits", "fashion32", "fashion"])
def test_every_dial_has_a_suite_that_runs_alone(study):
    """Catches a suite that leans on another, and a study that lost one."""
    plan = load_study(ROOT / "workflows" / "config" / f"{study}.yaml")
    names = {name for name in plan.suites if name.startswith("peers_")}
    assert names == {f"peers_{name}" for name in (
        "history_vector", "window", "loss_weight", "correction", "state", "detail"
    )}  # fmt: skip
    assert not any(plan.study.suites[name].core for name in (*names, "peers"))
    assert not [line for line in plan.warnings if "suites.peers" in line]
