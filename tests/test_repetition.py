"""The room of repeated images: its fits by known curves, its rules, figures, tables, refusals."""

import itertools
import json
import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from small_study import SAMPLER

from bench.experiments.repetition import show, tables
from bench.experiments.repetition.crossing import Crossing, crossover, matched_epochs
from bench.experiments.repetition.curves import (
    curves,
    fits,
    fitted,
    read,
    schedule_error_words,
    schedule_errors,
    systems,
    warm_words,
)
from bench.experiments.repetition.fit import (
    FORMS,
    Curve,
    Points,
    _solve,
    bootstrap,
    effective_data,
    fit,
    interval,
    profile,
    sure,
)
from bench.experiments.repetition.plan import evaluations_after_warmup
from bench.report.claims import judged
from bench.report.estimate import show as show_number
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.rows import write_metrics, write_runs
from bench.runtime.variants_file import write_variants
from bench.study.errors import ConfigError
from bench.study.names import config_hash
from bench.study.plan import load_study
from bench.study.schema import Claim
from bench.study.settings import TrainingConfig

SIZES = (85, 170, 341, 682, 1363)
EPOCHS = np.array([1, 2, 4, 8, 16, 32, 64.0])


def made(r_star, noise=0.0, seeds=1, start=0, b=0.6):
    """Curves of a known R*, with noise of the log loss."""
    rng, found = np.random.default_rng(start), []
    for seed in range(seeds):
        for images in SIZES:
            losses = 2.5 + 40 / effective_data(images, EPOCHS, r_star) ** b
            losses = losses * np.exp(noise * rng.standard_normal(len(EPOCHS)))
            found.append(Curve(images, seed, EPOCHS * images / 64, EPOCHS, losses, 64.0))
    return found


# ---------------------------------------------------------------- the form


def test_effective_data_has_its_limits():
    """Catches repeats that count from the first epoch on, and a form that ends elsewhere."""
    assert effective_data(100, 1, 7.0) == 100
    assert effective_data(100, 9, 1e9) == pytest.approx(900, rel=1e-6)
    assert effective_data(100, 1e6, 7.0) == pytest.approx(800)
    assert effective_data(100, 0.5, 7.0) == 50, "below one epoch every image is new"
    along = effective_data(100, np.linspace(0, 60, 200), 7.0)
    assert (np.diff(along) > 0).all()
    assert (np.diff([float(effective_data(100, 9, R)) for R in (0.1, 1, 7, 40, 900)]) > 0).all()
    assert (np.diff(effective_data(np.arange(1, 50), 9, 7.0)) > 0).all()


@pytest.mark.parametrize("name", FORMS)
def test_slopes_are_those_of_the_loss(name):
    """Catches an analytic slope that differs from the difference quotient."""
    points = Points.of(made(15.0))
    theta = np.array(
        {"effective": [0.4, 3.1, 0.5, 2.0], "additive": [0.4, 3.1, 0.5, -4, 1.3, 0.4]}[name]
    )
    form = FORMS[name]
    exact = form.log_losses(theta, points)[1]
    for i in range(len(theta)):
        step = np.eye(len(theta))[i] * 1e-6
        above, below = (form.log_losses(theta + sign * step, points)[0] for sign in (1, -1))
        assert exact[:, i] == pytest.approx((above - below) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("r_star", [4.0, 15.0, 31.0, 500.0])
def test_the_fit_finds_a_known_number_without_noise(r_star):
    """Catches a start that leads elsewhere, and a bound in the way."""
    found = fit("effective", made(r_star))
    wanted = {"E": 2.5, "B": 40.0, "b": 0.6, "R*": r_star}
    assert found.values == pytest.approx(wanted, rel=1e-4)
    assert found.rms < 1e-9 and found.points == 35 and found.bounded == ()
    assert found.losses(np.array([85.0]), np.array([4.0])) == pytest.approx(
        made(r_star)[0].losses_P[2]
    )


@pytest.mark.parametrize(("r_star", "noise", "identified"), [
    (4.0, 0.002, True), (15.0, 0.002, True), (31.0, 0.01, True), (500.0, 0.01, False),
])  # fmt: skip
def test_noise_widens_the_intervals_until_nothing_is_identified(r_star, noise, identified):
    """Catches an interval that leaves the truth out, and a number far beyond the epochs seen that
    is printed as if it were known."""
    some = made(r_star, noise, seeds=3)
    found = sure(some, bootstrap({"a": some}, 150)["a"])
    assert found.identified == identified
    for low, high in (found.bootstrap, found.profile):
        assert low * 0.97 < r_star < high * 1.03
    assert found.fit.rms == pytest.approx(noise, rel=0.3)
    assert show.scaling.r_star_words(found).endswith("not identified") != identified


@pytest.mark.parametrize("E", [-0.5, 2.5])
def test_a_search_from_an_earlier_fit_ends_at_the_least_cost(E):
    """Catches a search that ends early, or that stays at a bound where it began, as an irreducible
    loss of none does: resamples and profiles go on from the best fit."""
    rng, some = np.random.default_rng(0), []
    for seed, images in itertools.product(range(3), SIZES):
        losses = E + 40 / effective_data(images, EPOCHS, 60.0) ** 0.2
        losses = losses * np.exp(0.01 * rng.standard_normal(len(EPOCHS)))
        some.append(Curve(images, seed, EPOCHS * images / 64, EPOCHS, losses, 64.0))
    best = fit("effective", some)
    assert ("E" in best.bounded) == (E < 0)
    for _ in range(6):
        drawn = [some[i] for i in rng.integers(0, len(some), len(some))]
        least = fit("effective", drawn).cost
        assert fit("effective", drawn, best).cost == pytest.approx(least, rel=1e-5)
    points, form = Points.of(some), FORMS["effective"]
    for log_R in (2.0, 3.0, 6.0):
        costs = [_solve(form, points, start, {3: log_R})[1] for start in form.starts(points)[::3]]
        warm = _solve(form, points, best.theta, {3: log_R})[1]
        assert warm == pytest.approx(min(costs), rel=1e-5)


def test_the_order_of_seeds_and_rows_changes_nothing():
    """Catches a resample, a start or a sum that depends on the order of its rows."""
    some = made(15.0, 0.005, seeds=3)
    other = [some[i] for i in np.random.default_rng(3).permutation(len(some))]
    assert fit("effective", some) == fit("effective", other)
    first, second = (bootstrap({"a": one}, 30)["a"] for one in (some, other))
    assert first.tolist() == second.tolist()
    assert profile(some, fit("effective", some)) == profile(other, fit("effective", other))


def test_resamples_of_two_systems_are_paired():
    """Catches trainings of one seed that are drawn apart: one beside itself does not differ."""
    some = made(15.0, 0.01, seeds=3)
    more = [Curve(c.images, c.seed, c.steps_P, c.epochs_P, c.losses_P * 1.1, 64.0) for c in some]
    drawn = bootstrap({"a": some, "b": more}, 40)
    assert drawn["a"].std() > 0.005
    assert (drawn["a"] - drawn["b"]).std() < 0.2 * drawn["a"].std()


def asked(ours, theirs):
    """What one reading says of two systems."""
    drawn = bootstrap({"ours": ours, "theirs": theirs}, 150)
    return show.scaling._once(sure(ours, drawn["ours"]), sure(theirs, drawn["theirs"]))


def of_seeds(*r_stars):
    """Curves whose R* is that of their seed."""
    some = [made(r_star, 0.002, seeds=len(r_stars)) for r_star in r_stars]
    return [curve for seed, of in enumerate(some) for curve in of if curve.seed == seed]


def test_what_the_trainings_of_one_seed_share_decides_nothing():
    """Catches an R* that is above another's because one seed's tokenizer made it so: resamples take
    its curves as independent, and decide."""
    even = of_seeds(15.0, 15.0, 15.0)
    word, reason, p = asked(of_seeds(15.5, 24.0, 60.0), even)
    low, high = re.search(r"\[(\S+), (\S+)\] over curves", reason).groups()
    assert float(low) > 0 and word == "not decided" and p > 0.05, reason
    low, high = re.search(r"\[(\S+), (\S+)\] over seeds", reason).groups()
    assert float(low) < 0 < float(high), reason
    word, reason, p = asked(of_seeds(30.0, 28.0, 32.0), even)
    assert word == "yes" and p < 0.05, reason
    assert asked(even, of_seeds(30.0, 28.0, 32.0))[0] == "no"
    word, reason, p = asked(of_seeds(30.0, 28.0), of_seeds(15.0, 15.0))
    assert (word, p) == ("not decided", 1.0) and reason.endswith("fewer than three training seeds")


def test_the_interval_over_seeds_is_that_of_seeds_fitted_alone():
    """Catches R* of a seed that curves of the others move."""
    some = of_seeds(10.0, 20.0, 40.0)
    logs = sure(some, bootstrap({"a": some}, 20)["a"]).seeds
    assert list(logs) == [0, 1, 2]
    assert np.exp([*logs.values()]) == pytest.approx([10.0, 20.0, 40.0], rel=0.1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(loss):
    """Catches a search that ends as if all were well, with numbers that are none."""
    first, *others = made(20.0)
    losses_P = first.losses_P.copy()
    losses_P[1] = loss
    with pytest.raises(ValueError, match="finite"):
        fit("effective", [replace(first, losses_P=losses_P), *others])


def test_too_few_points_are_not_fitted():
    """Catches four numbers that are fitted to four points."""
    two = [curve for curve in made(15.0) if curve.images < 300]
    assert fit("effective", two) is None and fit("additive", two) is None
    assert Points.of(two).lacks == "not enough points (14 of 2 numbers of images)"
    assert sure(two, bootstrap({"a": two}, 5)["a"]) is None
    one = [Curve(U, 0, np.ones(1), np.ones(1), np.full(1, 3.0), 1.0) for U in SIZES[:4]]
    assert Points.of(one).lacks == "not enough points (4 of 4 numbers of images)"
    assert Points.of([]).lacks and interval(np.array([np.nan])) == (-math.inf, math.inf)


def test_a_tail_makes_the_monotone_form_small_and_the_additive_one_fits():
    """Catches the two readings that are one, and an additive form that cannot bend up."""
    tails = []
    for curve in made(60.0):
        over = 0.004 * np.maximum(curve.epochs_P - 1, 0) ** 1.4 / curve.images**0.2
        losses = curve.losses_P + over
        best = curve.epochs_P[losses.argmin()]
        tails.append(Curve(curve.images, 0, curve.steps_P, curve.epochs_P, losses, best))
    cut = [curve.until_best() for curve in tails]
    assert all((np.diff(curve.losses_P) < 0).all() for curve in cut)
    assert sum(len(c.losses_P) for c in cut) < sum(len(c.losses_P) for c in tails)
    whole = fit("effective", tails).values["R*"]
    assert whole < 0.7 * fit("effective", cut).values["R*"]
    bends = fit("additive", tails)
    assert 10 * bends.rms < fit("effective", tails).rms


# ---------------------------------------------------------------- free of any form


def line(level, slope, first=1e6, count=9):
    compute = np.geomspace(first, first * 1e4, count)
    return compute, level - slope * np.log10(compute / first)


def test_crossings_of_known_curves():
    """Catches a crossing of the losses instead of the best so far, and the axis of the compute."""
    slow, fast = line(5.0, 0.6), line(4.4, 0.3)
    # 5 - 0.6 x = 4.4 - 0.3 x at x = 2
    assert crossover(*slow, *fast) == (pytest.approx(1e8, rel=1e-6), False)
    assert crossover(*fast, *slow) is None, "it is above at the end"
    between = line(5.0, 0.6, count=5), line(4.4, 0.3, count=17)
    assert crossover(*between[0], *between[1]).compute == pytest.approx(1e8, rel=1e-6)


def test_below_from_the_first_evaluation_is_an_upper_limit():
    """Catches a compute of a crossing that nobody saw: it lies before the first evaluation."""
    low, high = line(4.0, 0.3), line(4.4, 0.3)
    assert crossover(*low, *high) == (pytest.approx(1e6), True)
    later = line(4.0, 0.3, first=1e7)
    assert crossover(*later, *high) == (pytest.approx(1e7), True), "the first that both have"
    cell = tables._compute_cell([Crossing(1e6, True), Crossing(1e8, False)])
    assert cell == "before 10,000,000" and cell.numbers["value"] is None
    assert cell.numbers["before"] == pytest.approx(1e7)
    seen = tables._compute_cell([Crossing(1e6, False), Crossing(1e8, False)])
    assert seen == "10,000,000" and seen.numbers == {"value": pytest.approx(1e7), "before": None}


def test_a_touch_is_no_crossing_and_a_second_crossing_counts():
    """Catches the first time that a curve is below, from which it does not stay."""
    compute = np.geomspace(1e6, 1e10, 5)
    other = np.array([5.0, 4.5, 4.0, 3.8, 3.6])
    touching = np.array([5.5, 4.7, 4.0, 3.9, 3.6])
    assert crossover(compute, touching, compute, other) is None
    twice = np.array([5.5, 4.4, 4.1, 3.9, 3.5])
    found = crossover(compute, twice, compute, other)
    assert 1e9 < found.compute < 1e10 and found.compute == pytest.approx(1e9 * 10**0.5)
    rising = np.array([5.5, 4.4, 9.0, 9.0, 9.0])
    assert crossover(compute, rising, compute, np.full(5, 4.5)).compute < 1e7, (
        "the best so far stays"
    )
    early = crossover(compute, other, compute[:3], np.array([5.5, 4.6, 3.9]))
    assert early.compute > 1e8, "what ended early keeps its best"


def test_matched_epochs_compare_equal_steps():
    """Catches epochs of the larger set, and evaluations at other steps."""
    steps = np.arange(1, 6) * 20.0
    fresh = Curve(200, 0, steps, steps * 64 / 200, np.array([5, 4, 3.5, 3.2, 3.0]), 32.0)
    losses = fresh.losses_P * np.array([1.0, 1.0, 1.005, 1.02, 1.2])
    few = Curve(100, 0, steps, steps * 64 / 100, losses, 64.0)
    between = few.epochs_P[2] + (few.epochs_P[3] - few.epochs_P[2]) * 0.005 / 0.015
    assert matched_epochs(few, fresh) == pytest.approx(between)
    assert matched_epochs(fresh, few) == math.inf
    above = Curve(100, 0, steps, few.epochs_P, fresh.losses_P * 1.5, 64.0)
    assert matched_epochs(above, fresh) is None
    elsewhere = Curve(100, 0, steps + 1, few.epochs_P, losses, 64.0)
    assert matched_epochs(elsewhere, fresh) is None


# ---------------------------------------------------------------- results of a made study

SEEDS = (0, 1, 2)
SYSTEMS = {"VAR": (8.0, 20.0, None), "SRDD": (40.0, 60.0, 0.05)}
BATCH = 64
EVERY = 40


def losses_of(system, images, seed, steps, tail=0.05):
    """A curve with a known R* and a tail; the bound lies a little below one pass."""
    r_star, turn, _ = SYSTEMS[system]
    epochs = steps * BATCH / images
    losses = 2.5 + 40 / effective_data(images, epochs, r_star) ** 0.6
    losses = losses + tail * np.maximum(epochs / turn - 1, 0) ** 1.2
    return losses * np.exp(
        0.002 * np.random.default_rng([seed, images]).standard_normal(len(steps))
    )


def record(i, name, group, images, **training):
    """A variant as results name it."""
    settings = {
        "unique_images": images,
        "batch_size": BATCH,
        "final_lr": 1.0,
        "steps": 400,
        **training,
    }
    sampler = {**SAMPLER, "cfg_scale": 1.0}
    model = {"patch_nums": [1, 2], "num_classes": 3, "system": group}
    identity = config_hash({"dataset": {}, "tokenizer": {}, "model": model, "training": settings})
    return {
        "timed": f"t{i}", "tokenizer": "v8-" + config_hash({"dataset": {}, "tokenizer": {}}),
        "model": f"m-{identity}", "sampler": f"s-{config_hash(sampler)}", "history": 0,
        "mask": None, "depth": 1, "patch_nums": [1, 2], "group": group,
        "grid": {"training.unique_images": images},
        "jobs": {"": [], **{str(seed): [f"train_subset/v{i}-{seed}"] for seed in SEEDS}},
        "settings": {"sampler": sampler, "model": model, "training": settings},
    }  # fmt: skip


def rows_of(i, names, system, images, seed, last, tail):
    """What a training of that system reports."""
    steps = np.arange(EVERY, last + 1, EVERY)
    losses, bound = losses_of(system, images, seed, steps, tail), SYSTEMS[system][2]
    epochs = steps * BATCH / images
    head = {"study": "x", "dataset": "d", "unit": "u", "train_seed": seed,
            "run_id": f"train_subset/v{i}-{seed}", "tokenizer": names["tokenizer"],
            "model": names["model"]}  # fmt: skip
    kept = int(losses.argmin())
    best = losses[kept] - (bound or 0)
    once = {"epochs_to_best": epochs[kept], "best_loss": best, "kept_loss_test": losses[kept],
            "best_loss_train": best - 0.3, "train_flops_image": 3e6, "kept_at_end": 0,
            "unique_images": images}  # fmt: skip
    rows = [{**head, "metric": name, "value": float(value)} for name, value in once.items()]
    along = {"epochs": epochs, "loss_test": losses}
    if bound:
        along |= {"loss_test_any_order": losses - bound,
                  "loss_test_any_order_error": np.full(len(steps), 0.004)}  # fmt: skip
        rows.append({**head, "metric": "loss_test_any_order", "value": float(best)})
    for name, values in along.items():
        rows += [{**head, "metric": name, "step": int(step), "value": float(value)}
                 for step, value in zip(steps, values)]  # fmt: skip
    return rows


def build(folder, sizes=(85, 170, 341, 682), last=800, ended=(), more=(), tail=0.05, fid=None):
    """Results of VAR and SRDD at several numbers of images. ended: (variant, seed) that diverged;
    more: further variants as (name, system, images, last, training)."""
    entries = [
        (f"{system}, unique_images {U}", system, U, last, {}) for system in SYSTEMS for U in sizes
    ]
    variants, rows, runs = {}, [], []
    for i, (name, system, images, until, training) in enumerate([*entries, *more]):
        names = variants[name] = record(i, name, system, images, **training)
        for seed in SEEDS:
            bad = (name, seed) in ended
            runs.append({"run_id": f"train_subset/v{i}-{seed}", "stage": "train_subset",
                         "status": "diverged" if bad else "ok", "config_json": "{}",
                         "reason": "loss is nan at step 3" if bad else ""})  # fmt: skip
            if not bad:
                rows += rows_of(i, names, system, images, seed, until, tail)
            if fid is not None and not bad:
                rows.append(
                    {
                        **rows[-1],
                        "metric": "fid_x8",
                        "value": fid,
                        "step": None,
                        "sampler": names["sampler"],
                        "seed_first": 200 * seed,
                        "seed_last": 200 * seed + 199,
                    }
                )
    suite = {
        "claim": "what is asked", "claims": [], "measure": ["repetition"],
        "figures": [], "tables": [], "train_seeds": list(SEEDS), "published": [],
        "runs": [run["run_id"] for run in runs],
        "repetition": {"form": "effective", "bootstrap": 100},
    }  # fmt: skip
    study = {
        "study": "x", "scope": None, "reduced": None, "suites": {"s": suite},
        "train_seeds": list(SEEDS), "latency": {}, "tokenizer_seed": "train_seed",
        "evaluation": {"num_images": 200, "first_seed": 0},
        "features": {"kind": "trained", "name": "x8", "dim": 8},
        "dataset": {"name": "d", "num_classes": 3},
    }  # fmt: skip
    runs.append({"run_id": "study/x", "stage": "study", "status": "ok",
                 "config_json": json.dumps(study)})  # fmt: skip
    folder.mkdir(parents=True)
    write_metrics(folder / "metrics.csv", rows)
    write_runs(folder / "runs.csv", runs)
    write_variants(folder / "variants.csv", {"s": variants})
    np.savez(folder / "images.npz")
    return View(Results.load(folder), "s")


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return build(tmp_path_factory.mktemp("repetition") / "all")


def claimed(rule, **more):
    return Claim(
        **{"text": "t", "rule": rule, "variant": "SRDD", "against": "VAR", **more}
    ).model_dump()


def test_curves_take_the_smaller_loss(view):
    """Catches the bound of a model with masks that is not read, and systems that are mixed."""
    assert systems(view)["VAR"] == {U: f"VAR, unique_images {U}" for U in (85, 170, 341, 682)}
    of = curves(view)
    assert {name: len(some) for name, some in of.items()} == {"VAR": 12, "SRDD": 12}
    steps = np.arange(EVERY, 801, EVERY)
    first = next(c for c in of["SRDD"] if (c.images, c.seed) == (170, 2))
    assert first.losses_P == pytest.approx(losses_of("SRDD", 170, 2, steps) - 0.05)
    assert first.epochs_P == pytest.approx(steps * BATCH / 170)


def test_evaluations_of_the_warm_up_are_not_fitted(tmp_path):
    """Catches points of a rising rate that bend a fit, and curves that lose them in figures."""
    slow = [(f"{system}, unique_images 999", system, 999, 800, {"warmup": warmup})
            for system, warmup in (("VAR", 2 * EVERY), ("SRDD", 0))]  # fmt: skip
    view = build(tmp_path / "slow", more=slow)
    first = {name: [curve.steps_P[0] for curve in of if curve.images == 999]
             for name, of in fitted(view).items()}  # fmt: skip
    assert first == {"VAR": [3 * EVERY] * len(SEEDS), "SRDD": [EVERY] * len(SEEDS)}
    assert all(curve.steps_P[0] == EVERY for of in curves(view).values() for curve in of)
    assert all(curve.steps_P[0] == 3 * EVERY for curve in read(view, "to the minimum")["VAR"]
               if curve.images == 999)  # fmt: skip


def test_what_lies_in_the_warm_up_is_said(tmp_path):
    """Catches a training that is in no fit, without a word: one whose every evaluation, and one
    whose best, comes while the learning rate rises."""
    slow = [("VAR, unique_images 999", "VAR", 999, 800, {"warmup": 800}),
            ("SRDD, unique_images 999", "SRDD", 999, 800, {"warmup": 2 * EVERY})]  # fmt: skip
    view = build(tmp_path / "slow", more=slow)
    said = warm_words(view)
    assert said.count("every evaluation") == len(SEEDS) and "SRDD" not in said
    rows = view.results.metrics
    early = (rows["metric"] == "epochs_to_best") & (
        rows["model"] == view.variants[slow[1][0]]["model"]
    )
    view.results.metrics = rows.assign(value=rows["value"].where(~early, EVERY * BATCH / 999))
    again = View(view.results, view.suite)
    view.results.metrics = view.results.metrics.copy()
    assert warm_words(again).count("its best loss; the fit with the tail has the rest") == len(
        SEEDS
    )
    assert warm_words(build(tmp_path / "usual")) == ""
    assert any("In no fit" in part for part in show.figure_repetition(view)[1].details)


@pytest.mark.parametrize("steps,every,warmup,after", [
    (100, 20, 0, 5), (100, 20, 20, 4), (100, 20, 99, 1), (90, 20, 79, 2), (90, 20, 80, 1),
    (12, 20, 5, 1),
])  # fmt: skip
def test_evaluations_after_the_warm_up_are_counted(steps, every, warmup, after):
    """Catches the last evaluation forgotten, or counted twice."""
    training = TrainingConfig(steps=steps, eval_every=every, warmup=warmup)
    evaluated = {*range(every, steps + 1, every), steps}
    assert evaluations_after_warmup(training) == after == sum(at > warmup for at in evaluated)


def test_a_training_that_hardly_leaves_the_warm_up_is_said_before_it_runs(tmp_path):
    """Catches a training that no fit reads, found out after it has run."""
    bases = {"hot": {"base": "var", "grid": {"training.unique_images": [85, 170, 341]},
                     "delta": {"training.steps": 40, "training.eval_every": 20,
                               "training.warmup": 39, "training.final_lr": 1.0,
                               "training.snapshot_every": 20}}}  # fmt: skip
    said = [line for line in planned(tmp_path, claims=[], variants=bases).warnings
            if "training.warmup: fewer than two evaluations" in line]  # fmt: skip
    assert len(said) == 1 and "(and 2 more)" in said[0], said
    bases["hot"]["delta"]["training.warmup"] = 0
    again = planned(tmp_path, claims=[], variants=bases).warnings
    assert not any("fewer than two evaluations" in line for line in again)


def test_scaling_is_asked_twice(view, tmp_path):
    """Catches a verdict of one reading, a sign, and a reason that keeps the other reading quiet."""
    word, reason = judged(view, claimed("scaling"))
    assert word == "not decided" and reason.endswith("; the readings differ"), reason
    assert reason.startswith("R* of SRDD against that of VAR; to the minimum: yes, ")
    assert "; with the tail: not decided, " in reason and "(a poor fit)" in reason
    first = fits(view, "to the minimum")
    assert first["VAR"].fit.values["R*"] == pytest.approx(8.0, rel=0.15)
    without = build(tmp_path / "without", last=400, tail=0.0)
    word, reason = judged(without, claimed("scaling"))
    assert word == "yes" and "; with the tail: yes, " in reason, reason
    turned = {**claimed("scaling"), "variant": "VAR", "against": "SRDD"}
    assert judged(without, turned)[0] == "no"
    assert judged(without, turned).p == pytest.approx(2 / 101), "no resample of 100 points back"
    assert judged(view, claimed("scaling")).p == 1.0


def test_a_p_value_counts_the_rarer_side():
    """Catches a one-sided share, and a chance of 0."""
    draws = np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8, np.nan])
    assert show.scaling.two_sided(draws) == pytest.approx(2 * 2 / 10)
    assert show.scaling.two_sided(-draws) == pytest.approx(2 * 2 / 10)
    assert show.scaling.two_sided(np.zeros(9)) == 1.0


def test_scaling_needs_three_sizes(tmp_path):
    """Catches a word that follows from two numbers of images."""
    few = build(tmp_path / "few", sizes=(85, 170))
    assert judged(few, claimed("scaling"))[0] == "not decided"
    assert "not enough points against not enough points" not in judged(few, claimed("scaling"))[1]
    table, _ = show.table_scaling_fit(few)
    assert set(table["R*"]) == {"not enough points"}


def test_every_number_of_images_must_agree(view):
    """Catches a rule that looks at one number of images, and the direction of its metric."""
    word, reason = judged(view, claimed("every", metric="epochs_to_best", better="higher"))
    assert word == "yes" and all(f" at {U}" in reason for U in (85, 170, 341, 682)), reason
    assert judged(view, claimed("every", metric="epochs_to_best", better="lower"))[0] == "no"
    assert (
        judged(view, claimed("every", metric="unique_images", better="lower"))[0] == "not decided"
    )
    nothing = judged(view, claimed("every", metric="loss_one_epoch", better="lower"))
    assert nothing[0] == "not decided" and "fewer than three" in nothing[1]


@pytest.mark.parametrize("name", ["repetition", "data_value", "crossover", "repetition_map"])
def test_figures_draw_every_system(view, name):
    """Catches a figure without its panels, and a caption that cannot stand below it."""
    figure, caption = getattr(show, f"figure_{name}")(view)
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    drawn = sum(bool(axes.lines or axes.collections) for axes in panels)
    assert drawn >= {"repetition": 2, "data_value": 2, "crossover": 4, "repetition_map": 1}[name]
    assert caption.too_long is None and "what is asked" in caption
    if name == "repetition":
        dashed = [line for line in panels[0].lines if line.get_linestyle() == "--"]
        assert len(dashed) == 5, "one fit for each number of images and one for the legend"
        assert "R* of VAR: to the minimum" in caption and "with the tail" in caption
    if name == "data_value":
        bands = [part for axes in panels for part in axes.collections if part.get_paths()]
        lowest = min(path.vertices[:, 1].min() for part in bands for path in part.get_paths())
        assert panels[0].get_ylim()[0] <= lowest or "or below -5 %" in caption
    plt.close(figure)


def test_a_vertical_line_has_the_symbol_of_its_system(view, monkeypatch):
    """Catches a crossing that only its colour tells from that of another system."""
    monkeypatch.setattr(show.tables, "middle_crossing", lambda *of: 1e7 if of[1] != of[2] else None)
    figure, _ = show.figure_crossover(view)
    panel = figure.axes[0]
    curves = {line.get_label(): line for line in panel.lines}
    tops = [line for line in panel.lines if list(line.get_xdata()) == [1e7] and line.get_marker()]
    assert tops and all(line.get_ydata()[0] == 1 for line in tops)
    others = [line for name, line in curves.items() if not name.startswith("_")][1:]
    assert [top.get_marker() for top in tops] == [line.get_marker() for line in others]
    plt.close(figure)


def test_every_entry_of_the_legend_has_a_line(view):
    """Catches a name of the largest set, against which the others are drawn, beside no line."""
    for name in ("data_value", "repetition"):
        figure, _ = getattr(show, f"figure_{name}")(view)
        drawn = {
            line.get_label() for axes in figure.axes for line in axes.lines if len(line.get_xdata())
        }
        (legend,) = figure.legends
        said = {words.get_text() for words in legend.get_texts()} - {"fit"}
        assert said <= drawn and f"{85} images" in said
        assert ("682 images" in said) == (name == "repetition")
        plt.close(figure)


@pytest.mark.parametrize(
    "crossings, place",
    [
        ([(1e6, False), (1e8, False), (1e7, False)], 1e7),
        ([(1e6, False), (1e8, False), None], 1e7),
        ([(1e6, False), None, None], None),
        ([(1e6, False), (1e8, False), (1e5, True)], None),
    ],
)
def test_a_line_of_a_crossing_is_the_table_s_number(view, monkeypatch, crossings, place):
    """Catches a line at the mean of some seeds where another crossed before, nobody knows when."""
    by_seed = {seed: one and Crossing(*one) for seed, one in enumerate(crossings)}
    monkeypatch.setattr(tables, "crossings", lambda *_: by_seed)
    found = tables.middle_crossing(view, "SRDD", "VAR", 170)
    assert found is None if place is None else found == pytest.approx(place)


def test_tables_hold_the_numbers_of_the_rows(view):
    """Catches a mean of other rows, and R* that stands alone."""
    table, caption = show.table_repetition(view)
    assert len(table) == 8 and caption.too_long is None
    row = table[(table["System"] == "SRDD") & (table["Unique images"] == "170")].iloc[0]
    assert row["Best loss (nats/token)"].numbers["mean"] == pytest.approx(
        view.estimate("SRDD, unique_images 170", "best_loss").mean)  # fmt: skip
    assert row["One pass (nats/token)"].numbers["mean"] == pytest.approx(
        row["Best loss (nats/token)"].numbers["mean"] + 0.05)  # fmt: skip
    assert row["Generalisation gap (nats/token)"].numbers["mean"] == pytest.approx(0.3)
    assert table[table["Unique images"] == "682"]["Matched epochs"].eq("-").all()
    fitted, caption = show.table_scaling_fit(view)
    assert list(fitted["Reading"][:3]) == [
        "to the minimum",
        "with the tail",
        "additive, all points",
    ]
    assert caption.too_long is None and "Read both readings" in caption
    crossed, caption = show.table_crossover(view)
    assert len(crossed) == 4 and caption.too_long is None
    assert set(crossed["Seeds"]) <= {f"{n} of 3" for n in range(4)}
    for images in (85, 682):
        found = tables.crossings(view, "SRDD", "VAR", images)
        row = crossed[crossed["Unique images"] == str(images)].iloc[0]
        assert row["Seeds"].numbers["crossed"] == sum(C is not None for C in found.values())


def test_a_score_at_the_best_step_is_shown_where_there_is_one(view, tmp_path):
    """Catches a column of a score that nobody took, and one that is taken and not shown."""
    scored, _ = show.table_repetition(build(tmp_path / "fid", sizes=(85, 170), last=200, fid=3.5))
    assert [cell.numbers["mean"] for cell in scored["FID (x8)"]] == [3.5] * 4
    assert "FID (x8)" in scored.attrs["shown"]
    assert "FID (x8)" not in show.table_repetition(view)[0]


def test_a_diverged_training_is_left_out_and_named(tmp_path):
    """Catches a curve without an end that is fitted, and one that vanishes quietly."""
    bad = ("VAR, unique_images 170", 1)
    view = build(tmp_path / "bad", ended=[bad])
    assert len(curves(view)["VAR"]) == 11
    table, caption = show.table_repetition(view)
    status = table[(table["System"] == "VAR") & (table["Unique images"] == "170")]["Status"].iloc[0]
    assert status.startswith("seed 1 diverged (loss is nan")
    assert "seed 1 diverged" in caption
    figure, _ = show.figure_repetition(view)
    assert "seed 1 diverged" in figure.get_suptitle()
    plt.close(figure)


def test_a_curve_of_one_evaluation_is_dropped_and_named(tmp_path):
    """Catches a point that is taken for a curve."""
    lone = ("alone", "VAR", 1363, EVERY, {})
    view = build(tmp_path / "lone", more=[lone])
    assert all(len(curve.losses_P) > 1 for some in curves(view).values() for curve in some)
    assert "Left out, with one evaluation alone: alone seed 0" in show.table_repetition(view)[1]


def test_a_falling_rate_says_the_error_of_the_method(tmp_path):
    """Catches a control that is taken for a system, and an error of other steps."""
    falling = ("falls", "VAR", 170, 200, {"final_lr": 0.1, "steps": 200})
    view = build(tmp_path / "falls", more=[falling])
    assert "falls" not in str(systems(view)) and set(schedule_errors(view)) == {"falls"}
    assert schedule_errors(view)["falls"] == pytest.approx([0, 0, 0], abs=0.02)
    caption = show.table_repetition(view)[1]
    assert "Error of the method: log of the held-out loss" in caption
    said = next(line for line in caption.details if line.startswith("Error of the method"))
    worst = max(schedule_errors(view)["falls"])
    assert f"in log units: falls {show_number(worst)}." in said and "%" not in said


def test_an_error_in_the_overfitted_tail_is_called_so(tmp_path):
    """Catches an error beyond the minimum that is read as one of the curve before it."""
    early, late = (
        (name, "VAR", 170, steps, {"final_lr": 0.1, "steps": steps})
        for name, steps in (("early", EVERY), ("late", 800))
    )
    view = build(tmp_path / "tail", more=[late])
    assert "in the overfitted tail: all." in schedule_error_words(view)
    assert "tail" not in schedule_error_words(build(tmp_path / "early", more=[early]))
    both = build(tmp_path / "both", more=[early, late])
    assert "in the overfitted tail: late." in schedule_error_words(both)


# ---------------------------------------------------------------- plan


def planned(tmp_path, **changes):
    """The plan of a study of digits with the suite, changed."""
    suite = {"figures": [], "tables": [], **changes}
    study = {"study": "r", "like": "digits", "reduced": "x", "take": ["repetition"],
             "suites": {"repetition": suite}}  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return load_study(path)


@pytest.mark.parametrize("name", ["digits", "fashion32", "fashion", "imagenet256"])
def test_the_studies_plan_their_suite(name):
    """Catches a suite that names a variant, a number of images, a setting that its study lacks."""
    plan = load_study(f"{show.__file__.split('bench')[0]}workflows/config/{name}.yaml")
    jobs = plan.suites["repetition"]
    assert sum(run_id.startswith("train_subset/") for run_id in jobs) >= 9
    assert not any(run_id.startswith(("sample/", "evaluate/")) for run_id in jobs), (
        "none is sampled"
    )
    assert not any(line.startswith("suites.repetition.") for line in plan.warnings), plan.warnings


def test_scores_are_of_the_same_trainings():
    """Catches a suite of scores whose models differ from those of the losses in more than how often
    weights are saved."""
    plan = load_study(f"{show.__file__.split('bench')[0]}workflows/config/digits.yaml")

    def trainings(suite):
        configs = [plan.jobs[run_id].config for run_id in plan.suites[suite]
                   if run_id.startswith("train_subset/")]  # fmt: skip
        return {
            config_hash({**one, "training": {**one["training"], "snapshot_every": 0}})
            for one in configs
        }

    scored, jobs = trainings("repetition_fid"), plan.suites["repetition_fid"]
    assert len(scored) == 27 and scored < trainings("repetition")
    assert sum(run_id.startswith("memorisation/") for run_id in jobs) == 27
    assert any(run_id.startswith("evaluate/") for run_id in jobs)


SCALING = {"text": "t", "rule": "scaling", "variant": "SRDD", "against": "VAR"}
BAD = {
    "a metric that nothing reads": (
        {"claims": [{**SCALING, "metric": "best_loss"}]}, "rule scaling compares R* alone"),
    "a variant of a grid": (
        {"claims": [{**SCALING, "variant": "SRDD, unique_images 85"}]},
        "rule scaling compares entries"),
    "a sweep of something else": (
        {"claims": [{**SCALING, "variant": "VAR depth sweep"}]},
        "a grid of training.unique_images"),
    "other numbers of images": (
        {"claims": [{**SCALING, "rule": "every", "metric": "best_loss", "better": "lower",
                     "variant": "VAR depth"}]}, "rule every compares equal ones"),
    "no direction": (
        {"claims": [{**SCALING, "rule": "every", "metric": "best_loss"}]}, "better: is missing"),
    "a form that is none": ({"repetition": {"form": "cubic"}}, "repetition.form"),
    "few resamples": ({"repetition": {"bootstrap": 3}}, "repetition.bootstrap"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_work(tmp_path, case):
    """Catches a claim that no row can decide, after hours of training."""
    asked, words = BAD[case]
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, **asked)
    text = str(error.value)
    assert words in text and "suites.repetition." in text and "\n" not in text, text
