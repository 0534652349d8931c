"""Times that only a GPU can tell, beside what the device can do at best: training of VAR-d16 in
bfloat16, ways to attend, ways to sample. Not tests.

    python tests/gpu/measure.py [--depth 16] [--out FOLDER] [--limit-seconds 120]

Writes FOLDER/gpu_cuda.csv again after each row, or gpu_cuda_part.csv while an earlier run there
has more rows, and prints a table last.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import srdd.attention
from bench.pipeline.floors import measure_rates, sampling_floors
from bench.runtime.clock import seconds
from bench.runtime.provenance import git_state
from bench.speed.counting import training_work
from bench.speed.steps import training_step
from bench.speed.whole import write_whole
from srdd.attention import attend_by_scale
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.cost import dry_run, least_flops, sampling_bytes, sampling_cost
from srdd.loss import linear_cross_entropy
from srdd.masks import scale_mask
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Quantizer
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

GPU = torch.device("cuda")
SCHEDULE = ScaleSchedule((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
SAMPLER = SamplerConfig(cfg_scale=2.5, cfg_ramp="linear", top_k=900, top_p=0.96)
NAMES = {None: "VAR", 0: "SDD"}
COLUMNS = [
    "what", "way", "batch", "seconds", "low_s", "high_s", "floor_s", "over_floor", "matmul_share",
    "peak_bytes", "first_s", "rounds", "depth", "copy_bandwidth", "matmul_rate", "device", "torch",
    "commit", "dirty",
]  # fmt: skip


def config(depth: int, history: int | None) -> ModelConfig:
    """VAR of a depth, at the size of its public weights."""
    return ModelConfig(
        patch_nums=SCHEDULE.patch_nums, codebook_size=4096, codebook_dim=32, num_classes=1000,
        history=history, depth=depth, width=64 * depth, heads=depth,
    )  # fmt: skip


class Table:
    """Rows as they come, as long as there is time; what was asked for later is left out."""

    def __init__(self, out: Path, depth: int, limit_seconds: float) -> None:
        self.ends = time.monotonic() + limit_seconds
        self.rates = measure_rates(GPU, torch.bfloat16)
        self.out, self.rows, self.left_out = out / "gpu_cuda.csv", [], []
        self.written = self.out
        commit, dirty = git_state()
        self.about = {
            "depth": depth, "copy_bandwidth": self.rates.bandwidth,
            "matmul_rate": self.rates.matmul, "device": torch.cuda.get_device_name(GPU),
            "torch": torch.__version__, "commit": commit, "dirty": dirty,
        }  # fmt: skip

    def add(
        self, what: str, way: str, batch: int, call: Callable[[], object], rounds: int = 10,
        floor_s: float | None = None, flops: float | None = None, replays: bool = False,
    ) -> None:  # fmt: skip
        """Time a call: once for all that it compiles, then round after round."""
        if self.late():
            self.left_out.append(f"{what}, {way}, batch {batch}")
            return
        try:
            first = seconds(call, GPU)
            for _ in range(2):
                call()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before, times = torch.cuda.memory_allocated(), []
            for _ in range(rounds):
                times.append(seconds(call, GPU))
            peak = torch.cuda.max_memory_allocated() - before
        except Exception as error:  # a row that fails must not cost the others
            print(f"{what}, {way}, batch {batch}: {type(error).__name__}: {error}", flush=True)
            return
        median = statistics.median(times)
        row: dict[str, Any] = {
            "what": what, "way": way, "batch": batch, "seconds": median, "low_s": min(times),
            "high_s": max(times), "floor_s": floor_s,
            "over_floor": median / floor_s if floor_s else None,
            "matmul_share": flops / median / self.rates.matmul if flops else None,
            # nothing is allocated where a record is replayed
            "peak_bytes": None if replays else peak,
            "first_s": first, "rounds": rounds, **self.about,
        }  # fmt: skip
        self.rows.append(row)
        self.written = write_whole(self.out, self.rows, COLUMNS, ["what", "batch", "way"])
        print(line(row), flush=True)

    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.ends

    def show(self) -> None:
        """All rows, below what they are of; then what was left out, and which file holds them."""
        about, rates = self.about, self.rates
        print(f"\n{about['device']}, torch {about['torch']}, {about['commit']}")
        print(
            f"copies {rates.bandwidth / 1e12:.2f} TB/s, products {rates.matmul / 1e12:.0f} TFLOP/s"
        )
        print("\n".join(map(line, self.rows)))
        if self.left_out:
            print(f"left out, --limit-seconds: {'; '.join(self.left_out)}")
        print(f"written to {self.written}" if self.rows else "nothing was timed")


def line(row: dict[str, Any]) -> str:
    """A row in one line."""
    over = f"{row['over_floor']:6.2f}" if row["over_floor"] else "     -"
    share = f"{row['matmul_share']:6.1%}" if row["matmul_share"] else "     -"
    name = f"{row['what']:<26} {row['way']:<24} {row['batch']:>4}"
    spread = f"[{row['low_s'] * 1e3:.3f} {row['high_s'] * 1e3:.3f}]"
    peak = f"{row['peak_bytes'] / 2**20:8.0f} MiB" if row["peak_bytes"] else " " * 12
    time_ms, first = f"{row['seconds'] * 1e3:9.3f} ms", f"first {row['first_s']:.1f} s"
    return f"{name} {time_ms} {spread:<20} {over} {share} {peak} {first}"


def attention(table: Table) -> None:
    """Forward and backward of attention alone, the size of d16."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    B, H, L, d = 32, 16, SCHEDULE.seq_len, 64
    q, k, v, up = (torch.randn(B, L, H, d, device=GPU, dtype=torch.bfloat16) for _ in range(4))
    q, k, v, up = (x.transpose(1, 2) for x in (q, k, v, up))
    for x in (q, k, v):
        x.requires_grad_()
    scale_L = torch.tensor(
        [i for i, n in enumerate(SCHEDULE.lengths) for _ in range(n)], device=GPU
    )
    flex = torch.compile(flex_attention)
    for history, name in NAMES.items():
        pairs = SCHEDULE.attended_pairs(history)
        # two products forward, four backward: what is computed again is not asked for
        flops = 3 * 4 * B * H * d * pairs
        what = f"attention, {name}"

        def run(attend: Callable[[], torch.Tensor]) -> None:
            torch.autograd.grad(attend(), (q, k, v), up)

        def sees(b, h, i, j, history=history):
            return scale_L[i] >= scale_L[j] if history is None else scale_L[i] == scale_L[j]

        blocks = create_block_mask(sees, None, None, L, L, device=GPU)
        mask_LL = scale_mask(SCHEDULE, history).to(GPU)
        ways = {
            "scale by scale": lambda h=history: attend_by_scale(q, k, v, SCHEDULE, h, 1.0),
            "flex": lambda b=blocks: flex(q, k, v, block_mask=b, scale=1.0),
            "dense mask": lambda m=mask_LL: F.scaled_dot_product_attention(
                q, k, v, attn_mask=m, scale=1.0
            ),
        }
        for way, attend in ways.items():
            table.add(what, way, B, lambda a=attend: run(a), flops=flops)


def training_call(made: ModelConfig, compiled: bool, batch: int) -> Callable[[], None]:
    """A whole step of a fresh model, its forward pass in bfloat16."""
    inputs = torch.randn(batch, SCHEDULE.seq_len, 32, device=GPU)
    labels = torch.arange(batch, device=GPU)
    tokens = torch.randint(4096, (batch, SCHEDULE.seq_len), device=GPU)

    def loss_of(model: ScaleTransformer) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return linear_cross_entropy(model.hidden(inputs, labels), model.head, tokens)

    return training_step(made, loss_of, compiled)


def training(table: Table, depth: int, batch: int) -> None:
    """Whole steps, as they are and with blocks compiled."""
    for history, name in NAMES.items():
        for way in ("as it is", "blocks compiled"):
            made = config(depth, history)
            _, flops = training_work(made, batch)
            step = training_call(made, way == "blocks compiled", batch)
            table.add(f"training, {name}", way, batch, step, flops=flops)
            step = None
            torch.cuda.empty_cache()


def attended_together(history: int | None, tokens: int) -> AbstractContextManager[object]:
    """Where compiled code attends the scales of so many tokens under one mask, and not scale by
    scale."""
    blocks = srdd.attention._query_blocks(SCHEDULE, history, tokens)
    there = tuple(
        block if block.seen_lm is None else block._replace(seen_lm=block.seen_lm.to(GPU))
        for block in blocks
    )
    return patch.object(srdd.attention, "_query_blocks", lambda *_: there)


# tokens of the scales that a step attends under one mask: those of the first eight scales, all
TOGETHER = {"compiled, 255 together": 255, "compiled, one mask": SCHEDULE.seq_len}


def together(table: Table, depth: int, batch: int) -> None:
    """Whole steps with blocks compiled, small scales or all of them under one mask."""
    for history, name in NAMES.items():
        made = config(depth, history)
        _, flops = training_work(made, batch)
        for way, tokens in TOGETHER.items():
            with attended_together(history, tokens):
                step = training_call(made, True, batch)
                table.add(f"training, {name}", way, batch, step, flops=flops)
            step = None
            torch.cuda.empty_cache()


def flash() -> AbstractContextManager[object]:
    """Attention by the flash kernels; torch may take cuDNN's otherwise."""
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION])


def fewer() -> AbstractContextManager[object]:
    """The kernels of candidates.py, which Triton must be there for."""
    from candidates import fewer_kernels

    return fewer_kernels()


# how a batch is drawn, and what else is in force
WAYS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "as it is": nullcontext,
    "kernels": nullcontext,
    "kernels, graphs": nullcontext,
    "kernels, graphs, flash": flash,
    "fewer kernels, graphs": fewer,
}


@torch.no_grad()
def sampling(table: Table, depth: int, batches: list[int]) -> None:
    """A whole batch without the decoder."""
    quantizer = Quantizer(4096, 32)
    quantizer.init_weights(generator("measure"))
    ladder = quantizer.to(GPU).at(SCHEDULE)
    for history, name in NAMES.items():
        made = config(depth, history)
        model = ScaleTransformer(made)
        model.init_weights(generator("measure"))
        model.to(GPU, torch.bfloat16).eval()
        calls = dry_run(made, SAMPLER)
        cost = sampling_cost(made, SAMPLER, calls)
        for way, in_force in WAYS.items():
            if way == "kernels":
                model.compile_step()
            model.replays = {} if "graphs" in way else None
            for batch in batches:
                labels = torch.arange(batch, device=GPU)
                moved = sampling_bytes(made, SAMPLER, batch, 2, calls)
                floors = sampling_floors(table.rates, least_flops(made, cost), moved, batch)

                def draw() -> None:
                    with in_force():  # noqa: B023
                        generate(model, ladder, labels, range(batch), SAMPLER)  # noqa: B023

                floor_s = sum(floor.seconds for floor in floors)
                about = floor_s, batch * cost.flops, "graphs" in way
                table.add(f"sampling, {name}", way, batch, draw, 10, *about)
            model.free_compiled()
            torch.cuda.empty_cache()


@torch.no_grad()
def decoding(table: Table, batch: int) -> None:
    """The decoder of the public tokenizer's size."""
    made = TokenizerConfig(
        patch_nums=SCHEDULE.patch_nums, image_size=256, in_channels=3, codebook_size=4096,
        codebook_dim=32, channels=160, channel_multipliers=(1, 1, 2, 2, 4), num_res_blocks=2,
    )  # fmt: skip
    tokenizer = Tokenizer(made)
    tokenizer.init_weights(generator("measure"))
    tokenizer.to(GPU).eval()
    state = torch.randn(batch, 32, 16, 16, device=GPU)
    for way in ("as it is", "channels last", "channels last, bf16"):
        if way != "as it is":
            tokenizer = tokenizer.to(memory_format=torch.channels_last)

        def decode(half: bool = way.endswith("bf16")) -> None:
            with torch.autocast("cuda", torch.bfloat16, enabled=half):
                tokenizer.to_image(state)  # noqa: B023

        table.add("decoder", way, batch, decode, 5)


def main() -> None:
    """All rows, as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--train-batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--limit-seconds", type=float, default=120)
    parser.add_argument(
        "--parts", nargs="+",
        default=["sampling", "training", "attention", "decoding", "together"],
    )  # fmt: skip
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(options.out, options.depth, options.limit_seconds)
    parts = {
        "sampling": lambda: sampling(table, options.depth, options.batch),
        "training": lambda: training(table, options.depth, options.train_batch),
        "attention": lambda: attention(table),
        "decoding": lambda: decoding(table, 64),
        "together": lambda: together(table, options.depth, options.train_batch),
    }
    failed: list[str] = []
    for name in options.parts:
        if table.late():
            table.left_out.append(name)
            continue
        try:
            parts[name]()
        except KeyboardInterrupt:  # of run.py, whose time is over: what was measured is shown
            failed.append(f"{name}, stopped")
            break
        except Exception as error:  # the others are measured all the same
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
            traceback.print_exc()
        # what a failed part held goes first
        gc.collect()
        torch.cuda.empty_cache()
    table.show()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
