"""Where the time of one sample goes on a GPU: kernels by total time, and the idle gaps of each
scale. Not a test.

    python tests/gpu/profile_sampling.py [--depth 16] [--batch 1] [--history none|0]
        [--eager | --fewer]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from contextlib import nullcontext

import torch
from measure import GPU, SAMPLER, SCHEDULE, config, fewer
from torch.profiler import ProfilerActivity, profile

from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.quantizer import Quantizer
from srdd.sampling import generate


@torch.no_grad()
def main() -> None:
    """One warm sample, profiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--history", default="none")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--fewer", action="store_true", help="kernels of candidates.py")
    parser.add_argument("--top", type=int, default=18)
    options = parser.parse_args()
    history = None if options.history == "none" else int(options.history)
    model, quantizer = ScaleTransformer(config(options.depth, history)), Quantizer(4096, 32)
    for module in (model, quantizer):
        module.init_weights(generator("profile"))
        module.eval().to(GPU)
    model.to(torch.bfloat16)
    if not options.eager:
        model.compile_step()
    labels, ladder = torch.arange(options.batch, device=GPU), quantizer.at(SCHEDULE)

    def draw() -> None:
        with fewer() if options.fewer else nullcontext():
            generate(model, ladder, labels, range(options.batch), SAMPLER)

    for _ in range(4):
        draw()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        draw()
        torch.cuda.synchronize()
    events = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    events.sort()
    whole, busy = events[-1][1] - events[0][0], sum(end - start for start, end, _ in events)
    print(
        f"depth {options.depth}, history {history}, batch {options.batch}: {len(events)} kernels, "
        f"{whole / 1e3:.3f} ms from first to last, busy {busy / whole:.0%}"
    )
    # a scale ends with its draw
    scale, last, rows = 0, events[0][0], defaultdict(lambda: [0, 0.0, 0.0])
    for start, end, name in events:
        row = rows[scale]
        row[0], row[1], row[2] = row[0] + 1, row[1] + end - start, row[2] + max(0.0, start - last)
        last = max(last, end)
        scale += "_draw_kernel" in name
    for k, (count, used, idle) in rows.items():
        print(f"scale {k}: {count} kernels, {used:.0f} us busy, {idle:.0f} us idle")
    totals = defaultdict(lambda: [0, 0.0])
    for start, end, name in events:
        totals[name][0] += 1
        totals[name][1] += end - start
    for name, (count, used) in sorted(totals.items(), key=lambda x: -x[1][1])[: options.top]:
        print(f"{used:9.0f} us {count:5d} x {used / count:7.2f} us  {name[:90]}")


if __name__ == "__main__":
    main()
