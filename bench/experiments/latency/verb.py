"""Verb: time and peak memory of sampling, all variants in one process, rounds interleaved so that
drift of the machine hits all alike.

Weights are drawn, not trained: they do not change the time of a network call. They may change how
many calls a rule that exits early makes; nfe counts those that were timed. Every repeat is kept;
the decoder is timed apart.

A batch size is timed until the 95 % t-interval of each variant's paired log ratio to the first
variant is `width` wide or less: `rounds` at least, `max_rounds` at most. The width says when to
stop, never the sign. What is sure is timed no more; `rounds` is reported for every variant and
batch size.

Memory, counted by the GPU's allocator, or on the CPU tensor by tensor, in rows apart:
`peak_memory_bytes`, what tensors of a draw hold at their peak above the weights (the sampler's
working memory); `weights_bytes` and `tokenizer_bytes`, the weights of network and tokenizer;
`decoder_peak_bytes`, the same peak of decoding; `pipeline_peak_bytes`, of the whole: all weights,
and the larger of the sampler's peak and the decoder's with the tokens and the state that live
beside it.
"""

from __future__ import annotations

import json
import math
import random
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.cost import dry_run, least_flops, sampling_bytes, sampling_cost
from srdd.fused import FusedStep
from srdd.memory import is_out_of_memory
from srdd.model import ScaleTransformer
from srdd.noise import derive_seed, first_weights, generator
from srdd.replay import Replay
from srdd.sampling import generate, guided_denoiser
from srdd.tokenizer import Tokenizer
from srdd.watch import Calls

from ...pipeline.floors import DTYPES, Floor, Rates, best_rates, measure_rates, sampling_floors
from ...pipeline.sampling import made_ready
from ...report.estimate import paired
from ...runtime.clock import seconds, synchronise
from ...runtime.progress import Progress
from ...runtime.verb import Run
from .plan import Settings

ALONE = True  # times are taken alone on the machine


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make and that still live; `peak` is the most so
    far."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in given and storage._cdata not in self.known:
                self._count(storage, storage.nbytes())
        return out

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def forget() -> None:
            self.known.discard(key)
            self.live -= size

        weakref.finalize(storage, forget)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    """The memory behind all tensors of a nest of lists and dicts."""
    tensors = (leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor))
    return [tensor.untyped_storage() for tensor in tensors]


@dataclass
class TimedVariant:
    """One variant, ready to be timed."""

    name: str
    identity: dict[str, str]
    model: ScaleTransformer
    tokenizer: Tokenizer
    sampler: SamplerConfig
    dtype: torch.dtype = torch.float32
    calls: dict[int, Calls] = field(default_factory=dict)  # of the network, counted, by batch size

    def draw(self, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their state, without the decoder. Every draw of a batch size is the same, and
        its calls are those of one."""
        calls = Calls()
        labels_B = (torch.arange(batch) % max(1, self.model.config.num_classes)).to(device)
        ladder = self.tokenizer.at(self.model.schedule)
        drawn = generate(self.model, ladder, labels_B, range(batch), self.sampler, calls=calls)
        self.calls[batch] = calls
        return drawn

    def counted(self, batch: int) -> Calls:
        """Calls of the network for a batch; where it did not fit, those of the largest that did, or
        of a dry run."""
        if not self.calls:
            return dry_run(self.model.config, self.sampler)
        return self.calls.get(batch, self.calls[max(self.calls)])

    def replays(self, batch: int) -> bool:
        """Whether draws of a batch size replay what was recorded: not those of a rule that looks at
        what it drew, nor where memory held no record."""
        known = (self.model.replays or {}).values()
        return any(isinstance(one, Replay) and len(one.labels_B) == batch for one in known)

    def decode(self, state_BChw: torch.Tensor) -> torch.Tensor:
        """State to images."""
        device, half = state_BChw.device.type, self.dtype == torch.bfloat16
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return self.tokenizer.to_image(state_BChw)


def build(name: str, entry: dict, device: torch.device, config: Settings) -> TimedVariant:
    """A variant with drawn weights, the network's in the precision that is asked for, its step
    compiled where that is asked for."""
    with first_weights(0):
        model = ScaleTransformer(ModelConfig.model_validate_json(json.dumps(entry["model"])))
        tokenizer = Tokenizer(TokenizerConfig.model_validate_json(json.dumps(entry["tokenizer"])))
    for module in (model, tokenizer):
        module.init_weights(generator("latency"))
        module.eval()
    model, tokenizer = made_ready(model.to(device), config), tokenizer.to(device)
    sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
    return TimedVariant(
        name, entry["identity"], model, tokenizer, sampler, DTYPES[config.precision]
    )


def all_that_fit(run: Run, entries: dict[str, dict], config: Settings) -> list[TimedVariant]:
    """The variants whose weights find memory: one that is too large leaves rows without a number,
    and the others are timed. Raises what the last one raised where none fits."""
    variants: list[TimedVariant] = []
    last: RuntimeError | MemoryError | None = None
    for name, entry in entries.items():
        try:
            variants.append(build(name, entry, run.device, config))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # without the frames, which hold the weights that did not fit
            last = error.with_traceback(None)
            run.say(f"{name}: its weights are out of memory")
            for batch in config.batch_sizes:
                run.add("latency_s", None, "s/batch", num_images=batch, **entry["identity"])
            run.add("largest_batch", None, "images", **entry["identity"])
    if last is not None and not variants:
        raise last
    return variants


def peak_of(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes that tensors hold at once during a call, beyond what was held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronise(device)
        return torch.cuda.max_memory_allocated(device) - before
    with TensorBytes() as counter:
        call()
    return counter.peak


def bytes_of(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def add_memory(run: Run, variant: TimedVariant, batch: int) -> None:
    """Rows of the sampler's, the decoder's and the whole pipeline's peak.

    A compiled program keeps caches between batches and hides its tensors, and a recorded sample
    asks for no memory: the same program is counted operation by operation, with a cache of its own.
    """
    model, drawn = variant.model, []
    kept = model.cache_pool, model.replays
    model.cache_pool = model.replays = None
    try:
        with torch.compiler.set_stance("force_eager"):
            sampler = peak_of(lambda: drawn.append(variant.draw(batch, run.device)), run.device)
            decoder = peak_of(lambda: variant.decode(drawn[0][1]), run.device)
    finally:
        model.cache_pool, model.replays = kept
    alive = sum(tensor.nbytes for tensor in drawn[0])
    weights = bytes_of(model) + bytes_of(variant.tokenizer)
    pipeline = weights + max(sampler, decoder + alive)
    identity = {**variant.identity, "num_images": batch}
    run.add("peak_memory_bytes", sampler, "bytes", **identity)
    run.add("decoder_peak_bytes", decoder, "bytes", **identity)
    run.add("pipeline_peak_bytes", pipeline, "bytes", **identity)


@torch.no_grad()
def scale_seconds(variant: TimedVariant, batch: int, device: torch.device) -> list[float]:
    """Time of the network at each scale of one sample, guidance included."""
    model, times = variant.model, []
    denoise = guided_denoiser(model, variant.sampler)
    labels_B = torch.zeros(batch, dtype=torch.long, device=device)
    for k, length in enumerate(model.schedule.lengths):
        inputs_BCl = torch.zeros(batch, model.config.codebook_dim, length, device=device)
        inputs_BlC = inputs_BCl.transpose(1, 2)  # in memory as read_scale gives them
        # called at once: k and the inputs are those of this round of the loop
        times.append(seconds(lambda: denoise(inputs_BlC, k, labels_B), device))  # noqa: B023
    return times


@torch.no_grad()
def measure(run: Run, variant: TimedVariant, batch: int, repeat: int) -> float:
    """One repeat of one variant at one batch size; returns the seconds of the draw."""
    device = run.device
    identity = {**variant.identity, "num_images": batch, "repeat": repeat}
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    time = seconds(lambda: drawn.append(variant.draw(batch, device)), device)
    decoder_time = seconds(lambda: variant.decode(drawn[0][1]), device)
    run.add("latency_s", time, "s/batch", **identity)
    run.add("decoder_s", decoder_time, "s/batch", **identity)
    for k, value in enumerate(scale_seconds(variant, batch, device)):
        run.add("latency_scale_s", value, "s/batch", scale=k, **identity)
    return time


def attempt(run: Run, variant: TimedVariant, batch: int, call: Callable[[], object]) -> bool:
    """Whether a call fits into memory; one that does not is said and leaves no number."""
    try:
        call()
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        run.say(f"{variant.name} at batch {batch}: out of memory")
        run.add("latency_s", None, "s/batch", num_images=batch, **variant.identity)
        return False


class Rounds:
    """Which variants and batch sizes are timed in the next round, by the seconds of all rounds so
    far."""

    def __init__(self, fits: dict[tuple[str, int], bool], first: str, config: Settings) -> None:
        self.fits, self.first, self.config = fits, first, config
        self.times: dict[tuple[str, int], list[float]] = defaultdict(list)

    def unsure(self, name: str, batch: int) -> bool:
        """Whether the ratio to the first variant is not yet as narrow as is asked for; a variant
        without one to be held against is sure after the least number of rounds."""
        pair = [self.times[key] for key in ((self.first, batch), (name, batch))]
        if name == self.first or not all(pair):
            return False
        # both were timed in the same rounds, one after the other
        logs = [pd.Series(values).map(math.log) for values in pair]
        log_ratio = paired(*logs)
        if log_ratio is None or log_ratio.half is None:
            return True
        return 2 * log_ratio.half > self.config.width

    def wanted(self, repeat: int) -> list[tuple[str, int]]:
        """Cells of the round number `repeat`; none when all are sure, or the limit is reached."""
        cells = [key for key, there in self.fits.items() if there]
        if repeat < self.config.rounds:
            return cells
        if repeat >= self.config.max_rounds:
            return []
        again = [key for key in cells if self.unsure(*key)]
        # each is held against the first variant in the same round
        also = {batch for _, batch in again}
        return [key for key in cells if key in again or (key[0] == self.first and key[1] in also)]


def add_floors(run: Run, variants: list[TimedVariant], config: Settings, rates: Rates) -> None:
    """The least time that this machine needs for each variant and batch, whole and scale by scale,
    also for one that did not fit."""
    number_bytes = DTYPES[config.precision].itemsize
    for variant in variants:
        model, sampler = variant.model.config, variant.sampler
        calls = variant.counted(max(config.batch_sizes))
        cost = sampling_cost(model, sampler, calls)
        run.add_cost(cost, **variant.identity)
        # one for all batches, unless their images take other calls
        costs = {calls.per_image(model.schedule.num_scales): cost}
        for batch in config.batch_sizes:
            calls = variant.counted(batch)
            key = calls.per_image(model.schedule.num_scales)
            if key not in costs:
                costs[key] = sampling_cost(model, sampler, calls)
            if costs[key] is not cost:
                run.add_cost(costs[key], **variant.identity, num_images=batch)
            moved = sampling_bytes(model, sampler, batch, number_bytes, calls)
            flops_K = least_flops(model, costs[key])
            by_scale = sampling_floors(rates, flops_K, moved, batch)
            add_floor_rows(run, by_scale, {**variant.identity, "num_images": batch})


def add_floor_rows(run: Run, by_scale: Sequence[Floor], identity: dict[str, Any]) -> None:
    """Both floors of a batch, whole and scale by scale."""
    memory = sum(floor.memory_s for floor in by_scale)
    operations = sum(floor.operations_s for floor in by_scale)
    run.add("floor_memory_s", memory, "s/batch", **identity)
    run.add("floor_operations_s", operations, "s/batch", **identity)
    for k, floor in enumerate(by_scale):
        run.add("floor_memory_scale_s", floor.memory_s, "s/batch", scale=k, **identity)
        run.add("floor_operations_scale_s", floor.operations_s, "s/batch", scale=k, **identity)


def warmed_up(run: Run, variant: TimedVariant, batch: int, config: Settings) -> bool:
    """Warm up, and count memory; whether the batch fits."""

    def probe() -> None:
        # a compiled step is captured at its second call
        for _ in range(config.warmup + config.compile):
            variant.draw(batch, run.device)
            scale_seconds(variant, batch, run.device)
        add_memory(run, variant, batch)
        if isinstance(variant.model.step, FusedStep):
            identity = {**variant.identity, "num_images": batch}
            run.add("replayed", int(variant.replays(batch)), "share", **identity)

    return attempt(run, variant, batch, probe)


def what_fits(
    run: Run, variants: list[TimedVariant], config: Settings
) -> dict[tuple[str, int], bool]:
    """Whether each variant and batch size fits; reports bytes of weights and the largest batch."""
    fits = {}
    for variant in variants:
        run.add("weights_bytes", bytes_of(variant.model), "bytes", **variant.identity)
        run.add("tokenizer_bytes", bytes_of(variant.tokenizer), "bytes", **variant.identity)
        largest = None
        for batch in config.batch_sizes:
            fits[variant.name, batch] = warmed_up(run, variant, batch, config)
            if fits[variant.name, batch]:
                largest = max(batch, largest or 0)
        run.add("largest_batch", largest, "images", **variant.identity)
    return fits


def time_rounds(run: Run, rounds: Rounds, variants: list[TimedVariant]) -> Rates:
    """Time round after round until all is sure; returns the rates of the fastest one.

    The machine is rated once a round, like all that is held against the rates; also where nothing
    fitted.
    """
    config, by_name, rates = rounds.config, {variant.name: variant for variant in variants}, []
    progress = Progress(run.run_id, config.max_rounds, unit="round")
    for repeat in range(config.max_rounds):
        cells = rounds.wanted(repeat)
        if repeat >= config.rounds and not cells:
            break
        rates.append(measure_rates(run.device, DTYPES[config.precision], repeats=3))
        run.add("copy_bandwidth", rates[-1].bandwidth, "bytes/s", repeat=repeat)
        run.add("matmul_rate", rates[-1].matmul, "flop/s", repeat=repeat)
        random.Random(derive_seed("round", repeat)).shuffle(cells)
        for name, batch in cells:
            rounds.times[name, batch].append(measure(run, by_name[name], batch, repeat))
        progress.advance(note=f"{len(cells)} of {len(rounds.fits)} cells")
    progress.close()
    for (name, batch), values in rounds.times.items():
        run.add("rounds", len(values), "rounds", num_images=batch, **by_name[name].identity)
    return best_rates(rates)


@torch.no_grad()
def work(run: Run) -> None:
    config, entries = run.settings("latency", Settings), run.config["variants"]
    variants = all_that_fit(run, entries, config)
    rounds = Rounds(what_fits(run, variants, config), next(iter(entries)), config)
    rates = time_rounds(run, rounds, variants)
    add_floors(run, variants, config, rates)
