"""The memory of a verb does not grow with the number of images, which are read some at a time.

Each case runs in a process of its own, on few and on many images. Mapped pages count
apart: the system takes them back when it needs them."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.speed.memory import used_by

ROOT = Path(__file__).resolve().parent.parent
FEW, MANY, SIDE = 400, 1600, 128
IMAGE_BYTES = 3 * SIDE * SIDE  # of one image; as floats it takes four times as many
PREPARE = """
import sys
from bench.__main__ import main
sys.argv = ["bench", "prepare", "config.json", "out", "--device", "cpu", "--threads", "1"]
main()
"""
# the verbs' own loops around a network that does nothing: what they hold is what they read
LOOP = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch
from bench.pipeline import baselines, tokenizing
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.features import batches
from srdd.schedule import ScaleSchedule

tokenizing.BATCH = 16
count, schedule, cpu = int(sys.argv[2]), ScaleSchedule((1, 2)), torch.device("cpu")

class Same:
    config = SimpleNamespace(image_size=128)
    def at(self, schedule):
        return self
    def to_latent(self, images):
        return images
    def encode(self, images):
        return torch.zeros(len(images), schedule.seq_len, dtype=torch.long), images
    def to_image(self, images):
        return images
    def decode(self, tokens_BL, schedule):
        return torch.zeros(len(tokens_BL), 3, 128, 128)

if sys.argv[1] == "encode":
    images = ArrayImages(np.load("images.npy", mmap_mode="r"), np.zeros(count))
    tokenizing.encode_split(Same(), schedule, images, Path("tokens.npy"), cpu, "encode")
else:
    tokens_NL = np.load("tokens.npy", mmap_mode="r")
    rows_N = np.arange(count) % len(tokens_NL)
    lazy = baselines.reconstruction(Same(), schedule, tokens_NL, rows_N, cpu)
    for part in batches(lazy, 16):
        assert part.shape[1:] == (3, 128, 128)
"""


def write_images(folder: Path, count: int) -> None:
    """A folder of different images, in parts and without classes."""
    from PIL import Image

    source = np.random.default_rng(0)
    for part, number in (("train", count), ("val", 4), ("test", 4)):
        (folder / part).mkdir(parents=True)
        for i in range(number):
            small = Image.fromarray(source.integers(0, 256, (4, 4, 3), np.uint8))
            small.resize((SIDE, SIDE)).save(folder / part / f"{i}.jpg")


def ready_to_prepare(folder: Path, count: int) -> list[str]:
    write_images(folder / "images", count)
    dataset = {
        "name": "image_folder",
        "image_size": SIDE,
        "channels": 3,
        "num_classes": 0,
        "path": str(folder / "images"),
    }
    job = {"study": "x", "run_id": "prepare/x", "identity": {}, "inputs": {}}
    (folder / "config.json").write_text(json.dumps({**job, "config": {"dataset": dataset}}))
    return [sys.executable, "-c", PREPARE]


def ready_to_encode(folder: Path, count: int) -> list[str]:
    shape = (count, 3, SIDE, SIDE)
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape).flush()
    return [sys.executable, "-c", LOOP, "encode", str(count)]


def ready_to_reconstruct(folder: Path, count: int) -> list[str]:
    """The second reader of tokens: images of many long rows."""
    shape = (count, IMAGE_BYTES // 4)
    np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.int32, shape).flush()
    return [sys.executable, "-c", LOOP, "reconstruct", str(count)]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
@pytest.mark.parametrize("ready", [ready_to_prepare, ready_to_encode, ready_to_reconstruct])
def test_memory_does_not_grow_with_images(ready, tmp_path):
    """Catches images, or what is read of each, that are all held at once: 1 200 more would
    take 56 MiB as bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["SRDD_CACHE"] = str(tmp_path / "cache")
    peaks = []
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        folder.mkdir()
        peaks.append(used_by(ready(folder, count), folder, environment).peak_bytes)
    more = (peaks[1] - peaks[0]) / ((MANY - FEW) * IMAGE_BYTES)
    assert peaks[0] > 2**25 and more < 0.3
