"""What sampling must move and compute at least, the rates it is held against, and the rows, figure
and table made of both."""

import gc
import itertools
import json
import math
import weakref
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.experiments.latency import verb as latency
from bench.experiments.latency.plan import Settings as LatencyConfig
from bench.experiments.latency.times import floor_s, over_floor
from bench.pipeline import floors
from bench.pipeline.floors import Rates
from bench.report.estimate import show
from bench.report.results import Results
from bench.report.timing import batches, milliseconds, round_times
from bench.report.view import View
from bench.runtime.rows import METRIC_COLUMNS, read_rows
from bench.runtime.verb import main
from bench.study import rooms
from srdd import masks
from srdd import sampling as drawing
from srdd.config import SamplerConfig
from srdd.cost import _flops, least_flops, sampling_bytes, sampling_cost
from srdd.fused import FusedStep
from srdd.noise import GivenNoise
from srdd.replay import Replay

ROOT = Path(__file__).resolve().parent.parent
D, V, C, DEPTH, HEADS, LENGTHS = 16, 7, 4, 2, 2, (1, 4, 9)  # of the tiny model
HIDDEN = 4 * D
# qkv and its two biases, a scale per head, the projection out, the MLP
BLOCK = (3 * D * D + 2 * D + HEADS) + (D * D + D) + (D * HIDDEN + HIDDEN) + (HIDDEN * D + D)
ADALN = DEPTH * (6 * D * D + 6 * D) + 2 * D * D + 2 * D
MODULATIONS = D + DEPTH * 6 * D + 2 * D  # a class row, and what follows from it


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("history", [None, 0, 1])
@pytest.mark.parametrize("guided", [False, True])
def test_bytes_are_what_a_hand_counts(model_config, history, guided):
    """Catches weights that are forgotten or read once an image, a modulation read at every scale, a
    cache that is not read or that is written where nobody reads it,
    both halves' logits where one set is enough."""
    for B in (1, 5):
        found = sampling_bytes(
            model_config(history=history),
            SamplerConfig(cfg_scale=2.0 if guided else 1.0),
            B,
            number_bytes=2,
        )
        for k, length in enumerate(LENGTHS):
            weights = (
                DEPTH * BLOCK + D * V + V + length * D + D + (length * D if k == 0 else C * D + D)
            )
            doubled = 2 if guided and (history != 0 or k > 0) else 1
            seen = {None: sum(LENGTHS[:k]), 0: 0, 1: LENGTHS[k - 1] if k else 0}[history]
            kept = length if history != 0 and k < 2 else 0
            cache = 2 * D * DEPTH * B * doubled * (seen + kept)
            adaln = ADALN + (B + guided) * MODULATIONS if k == 0 else 0
            assert found[k] == 2 * (weights + cache + adaln + B * length * V)


@pytest.mark.parametrize("mask_prob", [0.0, 0.5])
@pytest.mark.parametrize("shared_adaln", [False, True])
def test_weights_read_are_those_with_a_gradient(make_model, shared_adaln, mask_prob):
    """Catches a weight that the count leaves out or invents:
    whatever the network reads at a scale has a gradient."""
    model = make_model(shared_adaln=shared_adaln, mask_prob=mask_prob, history=0)
    one, two = (sampling_bytes(model.config, SamplerConfig(), B, number_bytes=1) for B in (1, 2))
    denoise, labels_B = model.denoiser(), torch.tensor([0])
    for k, length in enumerate(LENGTHS):
        model.zero_grad(set_to_none=True)
        denoise(torch.ones(1, length, C), k, labels_B).square().sum().backward(retain_graph=True)
        found = 0
        for name, weight in model.named_parameters():
            table = name in ("position", "level_embedding.weight", "own_embedding.weight")
            adaln = "modulation" in name
            if weight.grad is None or name == "class_embedding.weight" or (adaln and k > 0):
                continue  # a class row counts by image; modulations are kept from scale 0 on
            found += D * int((weight.grad != 0).any(1).sum()) if table else weight.numel()
        assert 2 * one[k] - two[k] == found, (
            "what does not grow with the batch is what is read once"
        )


@given(
    batch=st.integers(1, 64), more=st.integers(1, 64), history=st.sampled_from([None, 0, 1, 2]),
    w=st.sampled_from([1.0, 2.0]), passes=st.integers(0, 3),
)  # fmt: skip
def test_bytes_grow_with_batch_history_and_passes(model_config, batch, more, history, w, passes):
    """Catches a floor that falls where more is asked for."""
    sampler = SamplerConfig(name="srdd", cfg_scale=w, refine_steps=passes)
    found = sampling_bytes(model_config(history=history, mask_prob=0.5), sampler, batch)
    larger = sampling_bytes(model_config(history=history, mask_prob=0.5), sampler, batch + more)
    longer = sampling_bytes(model_config(history=None, mask_prob=0.5), sampler, batch)
    again = sampling_bytes(
        model_config(history=history, mask_prob=0.5),
        sampler.model_copy(update={"refine_steps": passes + 1}),
        batch,
    )
    for a, b, c, d in zip(found, larger, longer, again):
        assert a < b and a <= c and a < d and b * batch <= a * (batch + more)


def test_a_mask_of_ones_own_needs_what_it_shows(model_config, monkeypatch):
    """Catches floors of a mask that are those of VAR: hidden pairs, and keys that nobody reads."""

    def mask_blocks(schedule):
        """Own scale alone, as history 0 has it."""
        return masks.scale_mask(schedule, 0)

    def mask_first(schedule):
        """The own token, and of earlier scales the very first alone."""
        mask_LL = torch.eye(schedule.seq_len, dtype=torch.bool)
        mask_LL[:, 0] = True
        return mask_LL

    for mask in (mask_blocks, mask_first):
        monkeypatch.setattr(masks, mask.__name__, mask, raising=False)
    plain, sampler = SamplerConfig(), SamplerConfig(cfg_scale=2.0, cfg_ramp="constant")
    own, blocks = model_config(history=0), model_config(history=None, mask="blocks")
    for asked in (plain, sampler):
        assert sampling_bytes(blocks, asked, 3) == sampling_bytes(own, asked, 3)
        least = [least_flops(config, sampling_cost(config, asked)) for config in (blocks, own)]
        assert least[0] == least[1]
    first, every = model_config(history=None, mask="first"), model_config(history=None)
    costs = [sampling_cost(config, plain) for config in (first, every)]
    moved = [sampling_bytes(config, plain, 3) for config in (every, first)]
    for k, length in enumerate(LENGTHS):
        seen, last = sum(LENGTHS[:k]), k == len(LENGTHS) - 1
        hidden = length * (seen + length) - (2 * length - (k == 0))
        every_flops = costs[1].by_scale[k][2]
        assert every_flops - least_flops(first, costs[0])[k] == 2 * 2 * D * hidden * DEPTH
        unread = max(0, seen - 1) + (0 if last else length - (k == 0))
        assert moved[0][k] - moved[1][k] == 4 * 3 * 2 * D * DEPTH * unread


def test_histories_differ_by_attention_and_cache_alone(model_config):
    """Catches an SDD whose floor is lower for another reason than its mask."""
    every, own = model_config(history=None), model_config(history=0)
    costs = [sampling_cost(config, SamplerConfig()) for config in (every, own)]
    moved = [sampling_bytes(config, SamplerConfig(), 3, 4) for config in (every, own)]
    for k, length in enumerate(LENGTHS):
        seen = sum(LENGTHS[:k])
        assert (
            costs[0].by_scale[k][2] - costs[1].by_scale[k][2] == 2 * 2 * D * length * seen * DEPTH
        )
        assert moved[0][k] - moved[1][k] == 4 * 3 * 2 * D * DEPTH * (
            seen + (length if k < 2 else 0)
        )


@pytest.mark.parametrize(
    "settings", [{}, {"cfg_scale": 2.0}, {"name": "srdd", "cfg_scale": 2.0, "refine_steps": 2}]
)
@pytest.mark.parametrize("history", [None, 0])
def test_operations_are_proportional_to_the_batch(model_config, history, settings):
    """Catches a floor of a batch that is not that of its images:
    operations are counted for one image and multiplied."""
    config, sampler = model_config(history=history, mask_prob=0.5), SamplerConfig(**settings)
    assert _flops(config, sampler, 5) == [
        5 * flops for _, _, flops in sampling_cost(config, sampler).by_scale
    ]


def test_a_floor_is_the_longer_of_two():
    """Catches bytes divided by the wrong rate, and floors that are added where both happen at
    once."""
    found = floors.sampling_floors(
        Rates(bandwidth=10.0, matmul=100.0), (30, 400), (20, 20), batch=2
    )
    assert [(f.memory_s, f.operations_s, f.seconds) for f in found] == [
        (2.0, 0.6, 2.0),
        (2.0, 8.0, 8.0),
    ]


def test_a_busy_round_lowers_no_floor():
    """Catches a mean or median of rates: time over floor would fall below 1 because the machine was
    busy while it was rated."""
    found = floors.best_rates([Rates(1.0, 9.0), Rates(3.0, 2.0), Rates(1.0, 2.0)])
    assert found == Rates(3.0, 9.0)


@pytest.fixture
def small(monkeypatch):
    """Rates of small tensors: quick, and only good for tests."""
    monkeypatch.setattr(floors, "COPIED_BYTES", {"cpu": 2**16})
    monkeypatch.setattr(floors, "MATMUL_SIDE", {"cpu": 32})


def test_rates_have_their_units(small, monkeypatch):
    """Catches a copy that counts its bytes once, and a multiply-add that counts as one operation:
    the clock says half a second."""
    called = []
    monkeypatch.setattr(floors, "seconds", lambda call, device: called.append(call()) or 0.5)
    cpu = torch.device("cpu")
    assert floors.copy_bandwidth(cpu) == 2 * 2**16 / 0.5
    assert floors.matmul_rate(cpu, torch.bfloat16) == 2 * 32**3 / 0.5
    assert len(called) == 14


# ---------------------------------------------------------------- the verb


@pytest.fixture
def timed(tmp_path, small, model_config, tokenizer_config, monkeypatch):
    """Run the latency verb on two tiny variants; returns its metrics as a table."""
    monkeypatch.setattr(latency, "measure_rates", lambda device, dtype, repeats: Rates(1e9, 1e10))

    def run(changes=None, **settings):
        entries = {
            name: {
                "identity": {"model": name, "sampler": "s"},
                "tokenizer": tokenizer_config(patch_nums=(1, 2, 3), image_size=6).model_dump(),
                "model": model_config(history=history, **(changes or {})).model_dump(),
                "sampler": SamplerConfig(cfg_scale=2.0).model_dump(),
            }
            for name, history in (("VAR", None), ("SDD", 0))
        }
        settings = {"batch_sizes": [1, 2], "rounds": 2, "max_rounds": 2, **settings}
        return latency_rows(tmp_path, {"latency": settings, "variants": entries})

    return run


def latency_rows(folder, config):
    """What the latency verb reports of a config."""
    (folder / "config.json").write_text(
        json.dumps({"run_id": "latency/t-1", "study": "t", "config": config})
    )
    words = [str(folder / "config.json"), str(folder / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit) as left:
        main("latency", latency.work, argv=words)
    assert left.value.code == 0, left.value.code
    rows = read_rows(folder / "out" / "metrics.csv", METRIC_COLUMNS)
    return pd.DataFrame(rows).replace("", None)


@pytest.fixture
def timed_entry(tmp_path, small, model_config, tokenizer_config, monkeypatch):
    """Rows of a sampler whose rule ends early, and the same sampler after its draws."""
    monkeypatch.setattr(latency, "measure_rates", lambda device, dtype, repeats: Rates(1e9, 1e10))
    rule = {"name": "threshold", "p_resample": 0.14}
    sampler = SamplerConfig(name="srdd", refine_steps=4, select=rule, temperature=0.03)
    entry = {
        "identity": {"model": "m", "sampler": "s"},
        "tokenizer": tokenizer_config(patch_nums=(1, 2, 3), image_size=6).model_dump(),
        "model": model_config(history=0, mask_prob=0.5).model_dump(),
        "sampler": sampler.model_dump(),
    }
    settings = {"batch_sizes": [1, 16], "rounds": 2, "max_rounds": 2}
    rows = latency_rows(tmp_path, {"latency": settings, "variants": {"a": entry}})
    variant = latency.build("a", entry, torch.device("cpu"), LatencyConfig(**settings))
    with torch.no_grad():
        for batch in (1, 16):
            variant.draw(batch, torch.device("cpu"))
    return rows, variant


def values(rows, metric, **where):
    rows = rows[rows["metric"] == metric]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows["value"].astype(float).tolist()


def test_latency_rows_hold_their_floors(timed, model_config):
    """Catches a floor of another variant, batch or dtype, a whole that is not the sum of its
    scales, rates that are not kept."""
    rows = timed()
    assert len(values(rows, "copy_bandwidth")) == len(values(rows, "matmul_rate")) == 2  # rounds
    sampler = SamplerConfig(cfg_scale=2.0)
    for name, history in (("VAR", None), ("SDD", 0)):
        config = model_config(history=history)
        cost = sampling_cost(config, sampler)
        for batch in (1, 2):
            here = {"model": name, "num_images": str(batch)}
            moved = sampling_bytes(config, sampler, batch, 4)
            for k in range(3):
                assert values(rows, "floor_memory_scale_s", scale=str(k), **here) == [
                    pytest.approx(moved[k] / 1e9)
                ]
                computed = batch * cost.by_scale[k][2] / 1e10
                assert values(rows, "floor_operations_scale_s", scale=str(k), **here) == [
                    pytest.approx(computed)
                ]
            assert values(rows, "floor_memory_s", **here) == [pytest.approx(sum(moved) / 1e9)]
            assert values(rows, "floor_operations_s", **here) == [
                pytest.approx(batch * cost.flops / 1e10)
            ]
        assert values(rows, "largest_batch", model=name) == [2]


def test_a_batch_costs_what_it_was_timed_with(timed_entry):
    """Catches the calls of the largest batch beside the time of one image, which a rule that ends
    early draws in fewer."""
    rows, variant = timed_entry
    made = {batch: variant.calls[batch].per_image(3) for batch in (1, 16)}
    assert sum(made[1]) < sum(made[16])
    assert values(rows[rows["num_images"].isna()], "nfe") == [sum(made[16])]
    assert values(rows, "nfe", num_images="1") == [sum(made[1])]
    assert values(rows, "passes_used", num_images="1") == list(map(float, made[1]))
    assert values(rows, "nfe", num_images="16") == []


def test_the_floor_of_a_window_counts_the_pairs_that_it_keeps(timed, model_config):
    """Catches a floor of all pairs, under which a windowed model could not be told from the whole
    one: tokens of the last scale see one key of nine, in both halves of guidance."""
    where = {"model": "SDD", "num_images": "2", "scale": "2"}
    whole, windowed = (
        values(timed(changes), "floor_operations_scale_s", **where)
        for changes in ({}, {"window": 1})
    )
    config = model_config(history=0)
    hidden = 9 * (9 - 1) * 4 * config.width * config.depth * 2  # flops of an image
    assert whole[0] - windowed[0] == pytest.approx(2 * hidden / 1e10)


def test_latency_in_bfloat16(timed, model_config):
    """Catches bfloat16 that is asked for and not used: weights take half the bytes,
    and so does the memory floor."""
    rows = timed(precision="bfloat16")
    weights = sum(p.numel() for p in latency.ScaleTransformer(model_config()).parameters())
    assert values(rows, "weights_bytes", model="VAR") == [2 * weights]
    moved = sampling_bytes(model_config(), SamplerConfig(cfg_scale=2.0), 2, 2)
    assert values(rows, "floor_memory_s", model="VAR", num_images="2") == [
        pytest.approx(sum(moved) / 1e9)
    ]
    assert len(values(rows, "latency_s", model="VAR", num_images="2")) == 2


def test_the_largest_batch_that_fits_is_named(timed, monkeypatch):
    """Catches a reader left with 'oom' and no batch to use instead,
    and a floor that is missing for what did not fit."""
    draw = latency.TimedVariant.draw

    def scarce(self, batch, device):
        if batch > 1 or self.name == "VAR":
            raise torch.OutOfMemoryError("out of memory")
        return draw(self, batch, device)

    monkeypatch.setattr(latency.TimedVariant, "draw", scarce)
    rows = timed()
    assert values(rows, "largest_batch", model="SDD") == [1] and math.isnan(
        values(rows, "largest_batch", model="VAR")[0]
    )
    assert len(values(rows, "floor_memory_s")) == 4
    assert all(math.isnan(v) for v in values(rows, "latency_s", num_images="2"))


def test_rounds_end_where_the_ratio_is_sure():
    """Catches rounds that stop at the first sign they like, small batches that are timed on for the
    sake of large ones, a partner that is no longer timed, and no end."""
    config = LatencyConfig(batch_sizes=(1, 8), rounds=3, max_rounds=9)
    cells = [(name, batch) for name in ("VAR", "SDD", "SRDD") for batch in (1, 8)]
    rounds = latency.Rounds({key: key != ("SRDD", 8) for key in cells}, "VAR", config)
    assert rounds.wanted(0) == rounds.wanted(2) == cells[:5], "what did not fit is not timed"
    drift = [1.0, 4.0, 2.0]  # of the machine; ratios know nothing of it
    for slow in drift:
        for key in cells[:5]:
            rounds.times[key].append(slow * (2.0 if key[0] == "SDD" else 1.0))
    assert rounds.wanted(3) == [], "all ratios are equal round by round"
    rounds.times["SDD", 8][0] *= 1.01  # its interval is 0.028 wide in the logarithm
    assert rounds.wanted(3) == []
    rounds.times["SDD", 8][0] *= 1.01
    assert rounds.wanted(3) == [("VAR", 8), ("SDD", 8)]
    rounds.times["SRDD", 1][0] *= 1.5
    assert rounds.wanted(3) == [("VAR", 1), ("VAR", 8), ("SDD", 8), ("SRDD", 1)]
    assert rounds.wanted(9) == [], "the limit"


def test_rounds_are_reported(timed, monkeypatch):
    """Catches rounds beyond the limit, and a cell whose number of rounds nobody can read."""
    times = itertools.count(1)
    monkeypatch.setattr(latency, "seconds", lambda call, device: (call(), 1.0 + next(times) % 7)[1])
    rows = timed(max_rounds=4)
    assert values(rows, "rounds") == [4.0] * 4 and len(values(rows, "latency_s")) == 16
    with pytest.raises(ValueError, match="max_rounds 2: is less than rounds 3"):
        LatencyConfig(rounds=3, max_rounds=2)
    assert LatencyConfig(rounds=50).max_rounds == 50


def test_memory_stands_in_rows_apart(timed, tokenizer_config):
    """Catches a sampler's working memory that is given out as that of the pipeline, which needs the
    weights and the decoder too."""
    rows = timed()
    for name in ("VAR", "SDD"):
        weights, tokenizer = (
            values(rows, f"{what}_bytes", model=name)[0] for what in ("weights", "tokenizer")
        )
        for batch in (1, 2):
            here = {"model": name, "num_images": str(batch)}
            sampler, decoder, whole = (
                values(rows, f"{what}_bytes", **here)[0]
                for what in ("peak_memory", "decoder_peak", "pipeline_peak")
            )
            tokens, state = 8 * (1 + 4 + 9), 4 * 4 * 3 * 3  # int64; float32, C x h x w
            assert whole == weights + tokenizer + max(sampler, decoder + batch * (tokens + state))
            one = values(rows, "decoder_peak_bytes", model=name, num_images="1")[0]
            assert decoder == batch * one > 0
    whole = latency.Tokenizer(tokenizer_config(patch_nums=(1, 2, 3), image_size=6))
    assert tokenizer == 4 * sum(p.numel() for p in whole.parameters())


def test_latency_of_a_compiled_step(timed, monkeypatch):
    """Catches the time of a program that was not compiled under the name of one that was, and a
    count of memory that cannot look into a compiled one."""
    compiled, whole = [], latency.ScaleTransformer.compile_step
    monkeypatch.setattr(
        latency.ScaleTransformer,
        "compile_step",
        lambda model: compiled.append(model) or whole(model, backend="aot_eager"),
    )
    plain, rows = timed(), timed(compile=True)
    assert len(compiled) == 2
    # a static cache, and buffers that a compiled program hides, are part of it
    peaks = [
        [
            values(found, "peak_memory_bytes", num_images="2", model=name)[0]
            for name in ("VAR", "SDD")
        ]
        for found in (plain, rows)
    ]
    assert peaks[0] == peaks[1] and peaks[1][0] > peaks[1][1], "VAR keeps keys and values, SDD none"
    assert all(value > 0 for value in values(rows, "peak_memory_bytes") + values(rows, "latency_s"))


class Held(Replay):
    """A record without a GPU: draws anew, and has room for one image only."""

    def __init__(self, draw, labels_B, asked, weights):
        if len(labels_B) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.draw, self.labels_B, self.asked, self.weights = draw, labels_B, asked, weights

    def __call__(self, labels_B, noise):
        return self.draw(labels_B, GivenNoise(noise.all_of(self.asked)))


def test_a_sample_that_was_not_replayed_says_so(timed, monkeypatch):
    """Catches the time of kernels that are started one by one under the name of a record, held
    against that of one."""

    def on_a_gpu(model):
        model.step, model.replays = FusedStep(model), {}

    monkeypatch.setattr(latency.ScaleTransformer, "compile_step", on_a_gpu)
    monkeypatch.setattr(drawing, "Replay", Held)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    rows = timed(compile=True)
    assert values(rows, "replayed", num_images="1") == [1.0, 1.0]
    assert values(rows, "replayed", num_images="2") == [0.0, 0.0]
    assert not values(timed(), "replayed")


# ---------------------------------------------------------------- figure and table

FLOOR_ROWS = ("floor_memory", "floor_operations", "copy_bandwidth", "matmul_rate", "largest_batch")


@pytest.fixture
def committed():
    """The digits' published results. Claims of other suites are left out: their verdicts take a
    minute, and nothing here reads them."""
    results = Results.load(ROOT / "results" / "digits" / "published")
    for suite, about in results.about["suites"].items():
        about["claims"] = about["claims"] if suite.startswith("latency") else []
    return results


@pytest.fixture
def published(committed):
    """The same as an older version wrote them, without floors."""
    committed.metrics = committed.metrics[
        ~committed.metrics["metric"].str.startswith(FLOOR_ROWS)
    ].reset_index(drop=True)
    return committed


@pytest.fixture
def with_floors(published):
    """The same with a floor beside each measured time: 1 ms a scale by memory, 2 ms times the
    scale's number by operations."""
    rows = published.metrics
    run = published.latency_run("latency")["run_id"]
    times = rows[
        (rows["run_id"] == run) & (rows["metric"] == "latency_scale_s") & (rows["repeat"] == 0)
    ]
    memory = times.assign(metric="floor_memory_scale_s", value=1e-3, repeat=np.nan)
    operations = times.assign(
        metric="floor_operations_scale_s", value=2e-3 * times["scale"], repeat=np.nan
    )
    rates = [
        {"metric": name, "value": value / (1 + r), "repeat": r, "run_id": run}
        for r in (1, 0)
        for name, value in (("copy_bandwidth", 2e10), ("matmul_rate", 1.5e11))
    ]
    fits = times.drop_duplicates("model").assign(
        metric="largest_batch", value=64.0, repeat=np.nan, scale=np.nan
    )
    published.metrics = pd.concat(
        [rows, memory, operations, fits, pd.DataFrame(rates)], ignore_index=True
    )
    return published


def test_time_over_floor_is_what_a_hand_divides(with_floors):
    """Catches floors whose maximum is taken over the whole sample instead of scale by scale,
    and a ratio of other rounds."""
    assert floor_s(View(with_floors, "latency"), "VAR", 16) == pytest.approx(
        1e-3 + 2e-3 + 4e-3 + 6e-3
    )
    logs = np.log(with_floors.rounds("latency", "latency_s", "VAR", 16) / 13e-3)
    found = over_floor(View(with_floors, "latency"), "VAR", 16)
    assert (
        found.mean == pytest.approx(logs.mean()) and found.count == len(logs) > 2 and found.half > 0
    )
    table, caption = rooms.function_of("tables", "latency")(View(with_floors, "latency"))
    row = table[(table["Variant"] == "VAR") & (table["Batch"] == "16")].iloc[0]
    assert row["Floor per image (ms)"].numbers["value"] == pytest.approx(13 / 16)
    assert row["Time / floor"].numbers["mean"] == pytest.approx(math.exp(found.mean))
    assert (
        row["Time / floor"].numbers["low"]
        < row["Time / floor"].numbers["mean"]
        < row["Time / floor"].numbers["high"]
    )
    assert (
        "VAR 64, SDD 64" in caption
        and "20.0 GB/s" in caption
        and "150 GFLOP/s in float32" in caption
    )


@pytest.mark.parametrize("device, compiled", [("NVIDIA H200", True), ("cpu, 2 threads", True),
                                              ("NVIDIA H200", False)])  # fmt: skip
def test_scales_are_told_apart_from_a_sample_that_replays_graphs(with_floors, device, compiled):
    """Catches times of scales that seem to be those of the sample beside them, 6 times as short."""
    runs = with_floors.runs
    timed = runs["run_id"] == with_floors.latency_run("latency")["run_id"]
    runs.loc[timed, "device"] = device
    config = json.loads(runs.loc[timed, "config_json"].iloc[0])
    config.setdefault("latency", {})["compile"] = compiled
    runs.loc[timed, "config_json"] = json.dumps(config)
    rows = with_floors.metrics
    peaks = rows[
        (rows["metric"] == "peak_memory_bytes") & rows["run_id"].isin(runs["run_id"][timed])
    ]
    whole = (peaks["num_images"] < 64).astype(float)
    peaks = peaks.assign(metric="replayed", value=whole)
    with_floors.metrics = pd.concat([rows, peaks], ignore_index=True)
    view = View(with_floors, "latency")
    for name in ("latency", "floors"):
        _, caption = rooms.function_of("figures", name)(view)
        told = [detail for detail in caption.details if "replays recorded graphs" in detail]
        assert bool(told) == (compiled and device.startswith("NVIDIA"))
        for detail in told:
            assert detail.endswith("Not replayed but drawn anew: VAR at batch 64; SDD at batch 64.")


def test_weights_without_memory_leave_the_others_timed(timed, monkeypatch):
    """Catches a suite without one time because the weights of one variant are too large, or are
    held while the next one looks for room."""
    build, too_large = latency.build, []

    def small_alone(name, *rest):
        built = build(name, *rest)
        if name == "VAR":
            too_large.append(weakref.ref(built.model))
            raise torch.OutOfMemoryError("out of memory")
        gc.collect()
        assert [held() for held in too_large] == [None]
        return built

    monkeypatch.setattr(latency, "build", small_alone)
    rows = timed()
    numbers = rows[rows["metric"] == "latency_s"].groupby("model")["value"].count()
    assert numbers.to_dict() == {"SDD": 4, "VAR": 0}
    lost = rows[(rows["model"] == "VAR") & (rows["metric"] == "latency_s")]
    assert lost["num_images"].astype(int).tolist() == [1, 2]
    assert values(rows, "largest_batch", model="SDD") == [2]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({}, None),
        ({"precision": "bfloat16"}, "; network: bfloat16."),
        ({"precision": "bfloat16", "compile": True}, "; network: bfloat16, compiled."),
    ],
)
def test_captions_of_times_say_how_the_network_ran(with_floors, settings, words):
    """Catches times in bfloat16, or of a compiled network, that read as the usual ones."""
    runs = with_floors.runs
    timed = runs["run_id"] == with_floors.latency_run("latency")["run_id"]
    config = json.loads(runs.loc[timed, "config_json"].iloc[0])
    config["latency"] = {**config.get("latency", {}), **settings}
    runs.loc[timed, "config_json"] = json.dumps(config)
    view = View(with_floors, "latency")
    for kind, name in [("figures", "latency"), ("figures", "floors"), ("tables", "latency")]:
        _, caption = rooms.function_of(kind, name)(view)
        assert (words in caption) if words else ("; network:" not in caption)


def test_figure_labels_every_ratio_and_floor(with_floors):
    """Catches a variant, batch or scale without its ratio, a floor that is not drawn, and a caption
    without machine or rates."""
    figure, caption = rooms.function_of("figures", "floors")(View(with_floors, "latency"))
    whole, small, large = figure.axes
    sizes = batches(View(with_floors, "latency"))
    assert [len(panel.texts) for panel in figure.axes] == [2 * len(sizes), 2 * 4, 2 * 4]
    middle = with_floors.rounds("latency", "latency_s", "VAR", sizes[0]).median()
    assert whole.texts[0].get_text() == show(middle / 13e-3, 2)
    assert (
        whole.get_ylabel().endswith("(ms)")
        and "batch 1\n" in small.get_title()
        and "batch 64\n" in large.get_title()
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["VAR", "SDD", "memory floor", "operation floor"]
    for words in (
        "float32",
        "threads",
        "20.0 GB/s",
        "150 GFLOP/s",
        "95 % t-interval: VAR",
        "at batch 64",
        "torch",
    ):
        assert words in caption


def test_ratios_of_three_digits_do_not_run_into_each_other(committed):
    """Catches 108 beside 113 that reads 108113, as on a machine that had other work."""
    rows = committed.metrics
    floors = rows["metric"].str.startswith("floor_")
    committed.metrics = rows.assign(value=rows["value"].where(~floors, rows["value"] / 60))
    figure, _ = rooms.function_of("figures", "floors")(View(committed, "latency_256px"))
    figure.canvas.draw()
    rows = defaultdict(list)
    for text in figure.axes[1].texts:
        rows[text.get_position()[1]].append(text)
    assert len(rows) == 2
    for texts in rows.values():
        assert sum(len(text.get_text()) > 2 and "." not in text.get_text() for text in texts) > 5
        boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.x0)
        gaps = [right.x0 - left.x1 for left, right in zip(boxes, boxes[1:])]
        assert min(gaps) > 0.3 * boxes[0].height, gaps  # a word apart


def test_older_results_have_figures_and_tables_without_floors(published):
    """Catches a new column or figure that makes what was published before unreadable,
    or an invented floor."""
    figure, caption = rooms.function_of("figures", "floors")(View(published, "latency"))
    assert "no floor" in caption
    assert all(
        panel.texts[0].get_text().replace("\n", " ") == "no floor was measured"
        for panel in figure.axes
    )
    table, caption = rooms.function_of("tables", "latency")(View(published, "latency"))
    assert (
        not [column for column in table.columns if "loor" in column]
        and "floor" not in caption.whole.lower()
    )
    assert over_floor(View(published, "latency"), "VAR", 1) is None


def test_a_suite_that_was_never_timed_has_a_figure(published):
    """Catches a traceback where the latency run is missing."""
    published.runs = published.runs[~published.runs["run_id"].str.startswith("latency/")]
    figure, caption = rooms.function_of("figures", "floors")(View(published, "latency"))
    assert "Not timed" in caption and len(figure.axes) == 3


def test_a_time_is_that_of_one_image_at_the_largest_batch_that_ran():
    """Catches a time of a batch, of another variant or size, and of one that did not fit."""
    rows = pd.DataFrame(
        [("A", 1, 0.5), ("A", 8, 0.8), ("A", 8, 1.6), ("A", 64, None), ("B", 4, 2.0)],
        columns=["variant", "num_images", "value"],
    )
    view = SimpleNamespace(latency=lambda metric: rows if metric == "latency_s" else None)
    times, batch = round_times(view, "A")
    assert (times.tolist(), batch) == ([pytest.approx(100.0), pytest.approx(200.0)], 8)
    assert milliseconds(view, "A") == (pytest.approx(150.0), 8)
    assert milliseconds(view, "B") == (pytest.approx(500.0), 4)
    assert milliseconds(view, "C") is None
