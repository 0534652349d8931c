"""The public VAR code (FoundationVision/VAR) against ours, round by round in turn. Not a test.

    python -m bench.speed.benchmark_public CHECKOUT [--depth 16] [--batch 1 8 64] [--compiled]

Both sides hold the same random weights, and their float32 logits are compared first. Timed are
sampling without the decoder, whole training steps, and the decoder. Ratios below 1 mean that ours
is faster. The floor of a side is what its model (VAR, SDD) must move or compute, in the precision.

Writes results/benchmarks/public_<device>.csv again after each row, or public_<device>_part.csv
while an earlier run there has more rows, and prints a table last. A side that does not fit into
memory leaves its time empty.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from srdd.cost import Cost, dry_run, least_flops, sampling_bytes, sampling_cost
from srdd.loss import linear_cross_entropy
from srdd.model import ScaleTransformer
from srdd.official import cfg_from_var
from srdd.sampling import generate
from srdd.watch import Calls

from ..pipeline.floors import DTYPES, Rates, floor_of, measure_rates, sampling_floors
from ..runtime.provenance import git_state
from ..runtime.ranks import Ranks
from ..runtime.verb import choose_device, device_name
from .counting import training_work
from .public import (
    AGREE,
    CFG,
    CLASSES,
    HISTORIES,
    TOP_K,
    TOP_P,
    Pair,
    attention_path,
    autocast_of,
    build_pair,
    check_checkout,
    disagreement,
    public_sampling,
    random_batch,
)
from .rounds import HEADER, Makers, Side, Table, in_turn, row_of

SAMPLER = cfg_from_var(CFG, TOP_K, TOP_P)
PUBLIC, KEPT = "public VAR", "public VAR, casts kept"


# ---------------------------------------------------------------- sides


@dataclass(frozen=True)
class Variant:
    """A way to run our model when it samples."""

    name: str
    prepare: Callable[[ScaleTransformer], None]
    warm_up: int
    free: Callable[[ScaleTransformer], object]


def leave(model: ScaleTransformer) -> None:
    """The model as it is."""


PLAIN = Variant("", leave, 1, leave)
# a CUDA graph is recorded in the second call
COMPILED = Variant(", compiled", ScaleTransformer.compile_step, 3, ScaleTransformer.free_compiled)


@dataclass(frozen=True)
class Setting:
    """What all rows of a run share; what was counted of a model is counted once."""

    pair: Pair
    precision: str
    rates: Rates
    counted: dict[str, tuple[Calls, Cost]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where both sides run."""
        return self.pair.device


def sampling_side(setting: Setting, variant: Variant, model_name: str, batch: int) -> Side:
    """Our sampler: weights of the precision, from the first scale to the state f_hat_BChw."""
    pair, dtype = setting.pair, DTYPES[setting.precision]
    model = pair.ours(model_name).to(dtype)
    variant.prepare(model)
    labels_B = torch.arange(batch, device=pair.device) % CLASSES
    ladder = pair.ladder
    floor_s, flops = sampling_work(setting, model_name, batch)

    def draw() -> object:
        return generate(model, ladder, labels_B, range(batch), SAMPLER)

    return Side(
        draw,
        variant.warm_up,
        model.replays is not None,
        floor_s,
        flops,
        free=lambda: variant.free(model),
    )


def sampling_work(setting: Setting, model_name: str, batch: int) -> tuple[float, float]:
    """Floor in seconds, and operations, of a batch that a model draws."""
    config, dtype = setting.pair.config_of(model_name), DTYPES[setting.precision]
    if model_name not in setting.counted:
        calls = dry_run(config, SAMPLER)
        setting.counted[model_name] = calls, sampling_cost(config, SAMPLER, calls)
    calls, cost = setting.counted[model_name]
    moved = sampling_bytes(config, SAMPLER, batch, dtype.itemsize, calls)
    floors = sampling_floors(setting.rates, least_flops(config, cost), moved, batch)
    return sum(floor.seconds for floor in floors), batch * cost.flops


def public_side(setting: Setting, batch: int, casts_kept: bool) -> Side:
    """The public sampler, up to the state f_hat_BChw.

    casts_kept: autocast keeps its bfloat16 weights within a batch, as it does for weights that may
    be trained. The public demo freezes them, so that every scale casts them anew.
    """
    pair, work = setting.pair, sampling_work(setting, "VAR", batch)
    draw = public_sampling(pair, batch, setting.precision)

    def before() -> object:
        return pair.var.requires_grad_(casts_kept)

    return Side(draw, 1, False, *work, before, pair.free_caches)


def sampling_makers(setting: Setting, variant: Variant, batch: int) -> Makers:
    """The public sampler as its demo runs it, and with kept casts; our VAR and SDD."""
    makers: Makers = {PUBLIC: lambda: public_side(setting, batch, False)}
    if setting.precision != "float32":
        makers[KEPT] = lambda: public_side(setting, batch, True)
    for name in HISTORIES:
        makers[f"{name}{variant.name}"] = lambda name=name: sampling_side(  # type: ignore[misc]
            setting, variant, name, batch
        )
    return makers


def training_side(
    setting: Setting,
    variant: str,
    model: torch.nn.Module,
    loss_of: Callable[[], torch.Tensor],
    batch: int,
) -> Side:
    """A whole step: forward, cross-entropy, backward, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    moved, flops = training_work(setting.pair.config_of(variant), batch)

    def step() -> None:
        with autocast_of(setting.device, setting.precision):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    floor_s = floor_of(setting.rates, moved, flops).seconds
    return Side(step, 2, False, floor_s, flops, free=optimizer.zero_grad)


def public_training(setting: Setting, batch: int) -> Side:
    """The public model with its dense mask, all logits in float32."""
    pair = setting.pair
    tokens_BL, inputs_BLC, labels_B = random_batch(pair, batch)
    later_BLC = inputs_BLC[:, pair.config.schedule.lengths[0] :]
    model = pair.var.requires_grad_(True).train()

    def loss_of() -> torch.Tensor:
        return F.cross_entropy(model(labels_B, later_BLC).flatten(0, 1), tokens_BL.flatten())

    return training_side(setting, "VAR", model, loss_of, batch)


def our_training(setting: Setting, variant: str, batch: int) -> Side:
    """Our model scale by scale, no more logits held than a chunk's."""
    tokens_BL, inputs_BLC, labels_B = random_batch(setting.pair, batch)
    model = setting.pair.ours(variant).train()

    def loss_of() -> torch.Tensor:
        hidden_BLD = model.hidden(inputs_BLC, labels_B)
        return linear_cross_entropy(hidden_BLD, model.head, tokens_BL)

    return training_side(setting, variant, model, loss_of, batch)


def training_makers(setting: Setting, batch: int) -> Makers:
    """Steps of the public VAR, of our VAR and of our SDD."""
    return {
        PUBLIC: lambda: public_training(setting, batch),
        "VAR": lambda: our_training(setting, "VAR", batch),
        "SDD": lambda: our_training(setting, "SDD", batch),
    }


def decoder_makers(setting: Setting, batch: int) -> Makers:
    """Both decoders on one state, under the same autocast."""
    pair, side = setting.pair, setting.pair.config.schedule.latent_size
    shape = batch, pair.config.codebook_dim, side, side

    def maker(decode: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Side]:
        @torch.no_grad()
        def call() -> object:
            with autocast_of(setting.device, setting.precision):
                return decode(f_hat_BChw)

        f_hat_BChw = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(pair.device)
        return lambda: Side(call)

    def ours(f_hat_BChw: torch.Tensor) -> torch.Tensor:
        return pair.tokenizer.to_image(f_hat_BChw).clamp(-1, 1)

    return {PUBLIC: maker(pair.decode), "VAR": maker(ours)}


# ---------------------------------------------------------------- a run


def compared(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which sides a row compares, (ours, theirs): our VAR with each public one, our SDD with the
    last of them, which has the most spared, and with our VAR."""
    public = [name for name in names if name.startswith(PUBLIC)]
    first, *others = (name for name in names if name not in public)
    rows = [(first, theirs) for theirs in public]
    for other in others:
        rows += [(other, public[-1]), (other, first)]
    return rows


@dataclass(frozen=True)
class Group:
    """Sides that are timed in turn, of which several rows come."""

    what: str
    batch: int
    makers: Callable[[], Makers]
    masked: bool = False
    note: str = ""


def groups_of(options: argparse.Namespace, setting: Setting) -> list[Group]:
    """All that is timed, in order: what matters most comes first."""
    batches = options.batch

    def sampling(variant: Variant, batch: int) -> Group:
        makers = partial(sampling_makers, setting, variant, batch)
        return Group("sampling", batch, makers, note=variant.name)

    B = options.train_batch
    return [
        *(sampling(PLAIN, batch) for batch in batches),
        Group("training", B, partial(training_makers, setting, B), masked=True),
        *(sampling(variant, batch) for variant in variants_of(options) for batch in batches),
        *(Group("decoder", b, partial(decoder_makers, setting, b)) for b in batches),
    ]


def variants_of(options: argparse.Namespace) -> list[Variant]:
    """Ways to run our sampler beside the plain one."""
    return [COMPILED] if options.compiled else []


def run(groups: list[Group], setting: Setting, table: Table, rounds: int, ends: float) -> None:
    """Time group after group until the clock shows `ends`, in seconds of time.monotonic."""

    def late() -> bool:
        return time.monotonic() > ends

    for group in groups:
        name = f"{group.what}{group.note} B={group.batch}"
        timed = {} if late() else in_turn(group.makers(), rounds, setting.device, late)
        if not timed or all(each.times == [] for each in timed.values()):
            table.left_out.append(name)
            continue
        attention = attention_path(setting.pair, group.masked, setting.precision)
        for ours, theirs in compared(list(timed)):
            row = row_of(timed[ours], timed[theirs], setting.rates.matmul)
            sides = {"what": group.what, "batch": group.batch, "ours": ours, "theirs": theirs}
            table.add({**sides, **row, "public_attention": attention})


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The words of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed.benchmark_public")
    parser.add_argument("path", type=Path, help="a checkout of FoundationVision/VAR")
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--width", type=int, help="of the transformer; 64 a block")
    parser.add_argument("--channels", type=int, default=160, help="of the VQVAE")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64], help="when it samples")
    parser.add_argument("--train-batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", choices=tuple(DTYPES), help="bfloat16 on a GPU")
    parser.add_argument("--compiled", action="store_true", help="our compiled step too")
    parser.add_argument("--out", type=Path, help="results/benchmarks/public_<device>.csv")
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    return parser.parse_args(argv)


def build(options: argparse.Namespace, device: torch.device) -> tuple[Pair, float]:
    """Both sides, and by how much their logits differ. Raises ValueError where they do not
    agree."""
    width = options.width or 64 * options.depth
    pair = build_pair(options.path, options.depth, width, options.channels, device)
    gap = disagreement(pair)
    print(f"teacher-forced logits, float32: largest difference {gap:.2g} standard deviations")
    if not gap <= AGREE:
        raise ValueError(f"logits differ by {gap:.2g} standard deviations, more than {AGREE}")
    return pair, gap


def work(options: argparse.Namespace, argv: Sequence[str]) -> None:
    """A whole run. Raises ValueError for a folder that is no checkout, and for sides that
    differ."""
    ends = time.monotonic() + options.limit_seconds
    check_checkout(options.path)
    device = choose_device(options.device, Ranks())
    precision = options.precision or ("bfloat16" if device.type == "cuda" else "float32")
    pair, gap = build(options, device)
    setting = Setting(pair, precision, measure_rates(device, DTYPES[precision]))
    commit, dirty = git_state()
    shared = {
        "precision": precision,
        "depth": options.depth,
        "width": pair.config.width,
        "channels": options.channels,
        "disagreement": gap,
        "copy_bandwidth": setting.rates.bandwidth,
        "matmul_rate": setting.rates.matmul,
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "torch": torch.__version__,
        "commit": commit,
        "dirty": dirty,
        "command": shlex.join(["python", "-m", "bench.speed.benchmark_public", *argv]),
    }
    out = options.out or Path(f"results/benchmarks/public_{device.type}.csv")
    table = Table(out, shared)
    print(f"{shared['device']}, torch {torch.__version__}, {precision}", HEADER, sep="\n")
    run(groups_of(options, setting), setting, table, options.rounds, ends)
    table.show()


def main(argv: Sequence[str] | None = None) -> None:
    """Run it and leave: exit status 0, or 1 with one line that says what is wrong."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        work(parse(argv), argv)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
