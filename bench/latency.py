"""Verb: time and peak memory of sampling, all variants in one process, rounds interleaved so that
drift of the machine hits all alike.

Weights are drawn, not trained: they do not change the time of a network call. They may change how
many calls a rule that exits early makes; nfe counts those that were timed. Every repeat is kept;
the decoder is timed apart. Memory is what tensors hold at their peak above the weights: counted by
the GPU's allocator, or on the CPU tensor by tensor.
"""

from __future__ import annotations

import json
import random
import weakref
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.cost import dry_run, sampling_bytes, sampling_cost
from srdd.model import ScaleTransformer
from srdd.noise import derive_seed, generator
from srdd.sampling import generate, guided_denoiser
from srdd.tokenizer import Tokenizer
from srdd.watch import Calls

from .config import LatencyConfig
from .encode import placed
from .floors import DTYPES, Rates, best_rates, measure_rates, sampling_floors, seconds, synchronise
from .progress import Progress
from .sample import made_ready
from .verb import Run, is_out_of_memory, main


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make and that still live; `peak` is the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
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


@dataclass
class Contender:
    """One variant, ready to be timed."""

    name: str
    identity: dict[str, str]
    model: ScaleTransformer
    tokenizer: Tokenizer
    sampler: SamplerConfig
    dtype: torch.dtype = torch.float32
    calls: dict[int, Calls] = field(default_factory=dict)  # of the network, counted, by batch size

    def draw(self, batch: int, device: torch.device) -> torch.Tensor:
        """Tokens to state, without the decoder. Every draw of a batch size is the same, and its
        calls are those of one."""
        calls = Calls()
        labels_B = (torch.arange(batch) % max(1, self.model.config.num_classes)).to(device)
        ladder = self.tokenizer.at(self.model.schedule)
        drawn = generate(self.model, ladder, labels_B, range(batch), self.sampler, calls=calls)
        self.calls[batch] = calls
        return drawn[1]

    def counted(self, batch: int) -> Calls:
        """Calls of the network for a batch; where it did not fit, those of the largest that did, or
        of a dry run."""
        if not self.calls:
            return dry_run(self.model.config, self.sampler)
        return self.calls.get(batch, self.calls[max(self.calls)])

    def decode(self, state_BChw: torch.Tensor) -> torch.Tensor:
        """State to pictures."""
        with torch.autocast(state_BChw.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.tokenizer.to_image(state_BChw)


def build(name: str, entry: dict, device: torch.device, config: LatencyConfig) -> Contender:
    """A variant with drawn weights, the network's in the precision that is asked for, its step compiled where that is asked for."""
    model = ScaleTransformer(ModelConfig.model_validate_json(json.dumps(entry["model"])))
    tokenizer = Tokenizer(TokenizerConfig.model_validate_json(json.dumps(entry["tokenizer"])))
    for module in (model, tokenizer):
        module.init_weights(generator("latency"))
        module.eval()
    model, tokenizer = made_ready(model.to(device), config), placed(tokenizer, device)
    sampler = SamplerConfig.model_validate_json(json.dumps(entry["sampler"]))
    return Contender(name, entry["identity"], model, tokenizer, sampler, DTYPES[config.precision])


def peak_memory(contender: Contender, batch: int, device: torch.device) -> int:
    """Most bytes that tensors hold at once during a draw, beyond what was held before it. A compiled program keeps caches between batches
    and hides its tensors: the same program is counted operation by operation, with a cache of its own."""
    model = contender.model
    kept, model.cache_pool = model.cache_pool, None
    try:
        with torch.compiler.set_stance("force_eager"):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
                contender.draw(batch, device)
                synchronise(device)
                return torch.cuda.max_memory_allocated(device) - before
            with TensorBytes() as counter:
                contender.draw(batch, device)
            return counter.peak
    finally:
        model.cache_pool = kept


@torch.no_grad()
def scale_seconds(contender: Contender, batch: int, device: torch.device) -> list[float]:
    """Time of the network at each scale of one sample, guidance included."""
    model, times = contender.model, []
    denoise = guided_denoiser(model, contender.sampler)
    labels_B = torch.zeros(batch, dtype=torch.long, device=device)
    for k, length in enumerate(model.schedule.lengths):
        # in memory as read_scale gives them
        inputs_BlC = torch.zeros(batch, model.config.codebook_dim, length, device=device).transpose(1, 2)
        times.append(seconds(lambda: denoise(inputs_BlC, k, labels_B), device))  # noqa: B023 (called at once)
    return times


@torch.no_grad()
def measure(run: Run, contender: Contender, batch: int, repeat: int) -> None:
    """One repeat of one variant at one batch size."""
    device = run.device
    here = {**contender.identity, "num_images": batch, "repeat": repeat}
    state: list[torch.Tensor] = []
    run.add("latency_s", seconds(lambda: state.append(contender.draw(batch, device)), device), "s/batch", **here)
    run.add("decoder_s", seconds(lambda: contender.decode(state[0]), device), "s/batch", **here)
    for k, value in enumerate(scale_seconds(contender, batch, device)):
        run.add("latency_scale_s", value, "s/batch", scale=k, **here)


def attempt(run: Run, contender: Contender, batch: int, call) -> bool:
    """Whether a call fits into memory; one that does not is said and leaves no number."""
    try:
        call()
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        run.say(f"{contender.name} at batch {batch}: out of memory")
        run.add("latency_s", None, "s/batch", num_images=batch, **contender.identity)
        return False


def add_floors(run: Run, contenders: list[Contender], config: LatencyConfig, rates: Rates) -> None:
    """The least time that this machine needs for each variant and batch, whole and scale by scale, also for one that did not fit."""
    number_bytes = DTYPES[config.precision].itemsize
    for contender in contenders:
        model, sampler = contender.model.config, contender.sampler
        calls = contender.counted(max(config.batch_sizes))
        cost = sampling_cost(model, sampler, calls)
        run.add_cost(cost, **contender.identity)
        # one for all batches, unless their images take other calls
        costs = {calls.per_image(model.schedule.num_scales): cost}
        for batch in config.batch_sizes:
            here = {**contender.identity, "num_images": batch}
            calls = contender.counted(batch)
            if (key := calls.per_image(model.schedule.num_scales)) not in costs:
                costs[key] = sampling_cost(model, sampler, calls)
            cost, moved = costs[key], sampling_bytes(model, sampler, batch, number_bytes, calls)
            floors = sampling_floors(rates, cost, moved, batch)
            run.add("floor_memory_s", sum(floor.memory_s for floor in floors), "s/batch", **here)
            run.add("floor_operations_s", sum(floor.operations_s for floor in floors), "s/batch", **here)
            for k, floor in enumerate(floors):
                run.add("floor_memory_scale_s", floor.memory_s, "s/batch", scale=k, **here)
                run.add("floor_operations_scale_s", floor.operations_s, "s/batch", scale=k, **here)


@torch.no_grad()
def work(run: Run) -> None:
    config = run.settings("latency", LatencyConfig)
    contenders = [build(name, entry, run.device, config) for name, entry in run.config["variants"].items()]
    fits = {}
    for contender in contenders:
        weights = sum(p.numel() * p.element_size() for p in contender.model.parameters())
        run.add("weights_bytes", weights, "bytes", **contender.identity)
        for batch in config.batch_sizes:

            def probe(contender=contender, batch=batch):
                # a compiled step is captured at its second call
                for _ in range(config.warmup + config.compile):
                    contender.draw(batch, run.device)
                    scale_seconds(contender, batch, run.device)
                peak = peak_memory(contender, batch, run.device)
                run.add("peak_memory_bytes", peak, "bytes", num_images=batch, **contender.identity)

            fits[contender.name, batch] = attempt(run, contender, batch, probe)
        largest = max((batch for batch in config.batch_sizes if fits[contender.name, batch]), default=None)
        run.add("largest_batch", largest, "images", **contender.identity)
    rates: list[Rates] = []
    progress = Progress(run.run_id, config.rounds, unit="round")
    for repeat in range(config.rounds):
        # once a round, like all that is held against them
        rates.append(measure_rates(run.device, DTYPES[config.precision], repeats=3))
        run.add("copy_bandwidth", rates[-1].bandwidth, "bytes/s", repeat=repeat)
        run.add("matmul_rate", rates[-1].matmul, "flop/s", repeat=repeat)
        cells = [(contender, batch) for batch in config.batch_sizes for contender in contenders if fits[contender.name, batch]]
        random.Random(derive_seed("round", repeat)).shuffle(cells)
        for contender, batch in cells:
            measure(run, contender, batch, repeat)
        progress.advance()
    progress.close()
    add_floors(run, contenders, config, best_rates(rates))


if __name__ == "__main__":
    main("latency", work)
