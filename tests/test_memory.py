"""The memory of a verb does not grow with the number of images, which are read some at a time.

Each case runs in a process of its own, on few and on many images. Mapped pages count
apart: the system takes them back when it needs them."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.pipeline import metrics, set_distances
from bench.pipeline.scratch import bytes_on_disk, on_disk
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
# a network that does nothing: what verbs hold around it is what they read
NETWORK = """
class Same:
    config = SimpleNamespace(image_size=128, in_channels=3)
    def at(self, schedule):
        return self
    def to_latent(self, images):
        return images
    def encode(self, images):
        return torch.zeros(len(images), 5, dtype=torch.long), images
    def to_image(self, images):
        return images
    def decode(self, tokens_BL, schedule=None):
        return torch.zeros(len(tokens_BL), 3, 128, 128)
"""
# the verbs' own loops around a network that does nothing: what they hold is what they read
LOOP = (
    """
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

"""
    + NETWORK
    + """
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
)

# images that rooms need more than once, and what is made of them, around the same network
ROOMS = (
    """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch
from bench.experiments.classify.verb import HeldOut
from bench.experiments.error_propagation.verb import Probe, drift
from bench.experiments.memorisation import verb as memorisation
from bench.experiments.restoration_baselines.verb import Swap
from bench.experiments.zero_shot.verb import each_on_disk
from bench.pipeline import likeness, restored, set_distances
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.restored import CleanImages
from bench.pipeline.scratch import on_disk
from srdd.schedule import ScaleSchedule

likeness.ROWS = restored.BATCH = 16
folder, schedule, cpu = Path.cwd(), ScaleSchedule((1, 2)), torch.device("cpu")
images = torch.from_numpy(np.load("test_images.npy", mmap_mode="r+"))
count = len(images)

"""
    + NETWORK
    + """
run = SimpleNamespace(inputs={"data": folder, "features": folder}, out=folder, device=cpu)
run.config = {"dataset": {}}
run.settings = lambda key, kind: SimpleNamespace(kind="pretrained")
if sys.argv[1] == "restore":
    restored.ssim = lambda clean, other: np.zeros(len(clean))  # takes minutes, an image at a time
    clean = CleanImages(run, 1.0, None)
    assert len(clean) == count
    noisy = clean.degraded("contrast")
    assert clean.scores(noisy)["psnr"][0] > 5
    swap = Swap(clean, Same(), schedule)
    assert swap.psnr(lambda tokens_BL: tokens_BL, swap.tokens_NL) > 5
    assert swap.rolled(1).shape == swap.latent(noisy).shape == noisy.shape
elif sys.argv[1] == "classify":
    class Held(HeldOut):
        def __init__(self):
            self.run, self.device, self.tokenizer, self.ladder = run, cpu, Same(), Same()
            self.together, self.rows_N, self.images_NCHW = 16, np.arange(count), images
    held = Held()
    assert held.encode(held.shifted("contrast"))[0].shape == images.shape
elif sys.argv[1] == "errors":
    model = SimpleNamespace(position=torch.zeros(1), schedule=schedule)
    probe = Probe(model, Same(), None, torch.zeros(count), 0, 16, folder)
    states = probe.states(torch.zeros(count, 5, dtype=torch.long))
    assert len(drift(states[:, :, ::8, ::8] + 1, states[:, :, ::8, ::8])) == count
    assert probe.images(states).shape == images.shape
elif sys.argv[1] == "memorise":
    def sampled(images_NCHW, *how):
        for i in range(0, count, 16):
            images_NCHW[i : i + 16] = images[i : i + 16]
        return None, 16
    class Drawn(memorisation.Drawing):
        def __init__(self):
            self.run, self.tokenizer, self.labels_N = run, Same(), range(count)
            self.evaluation = self.sampler = self.first = self.progress = None
            self.batch = memorisation.BATCH = 16
    memorisation.open_model = memorisation.made_ready = lambda *how: None
    memorisation.sample_into = sampled
    set_distances.REDUCED = 64  # rows of 96 KiB
    parts = [images[i : i + 16].numpy() for i in range(0, count, 16)]
    drawn, seen = [Drawn().images(None)], parts[:1]
    distances_M, held_H = memorisation.distances(drawn, iter(parts), iter(seen), run)
    assert len(distances_M) == len(held_H) == count and not held_H.any()
else:
    assert each_on_disk(folder, images.numpy(), lambda part: 255 - part).min() == 255
"""
)
# features of both sides, as they come from a network, and distances of all their pairs
DISTANCES = """
import sys
from types import SimpleNamespace
import torch
from bench.pipeline import metrics, set_distances
from bench.pipeline.scratch import Rows

count, D = int(sys.argv[1]), 8192
# of small sets too, no more than so many are float64 at once, and distances of 16 rows
set_distances.WIDE, set_distances.BLOCK = 2**18, 16 * count

def features(seed):
    rows = Rows(count)
    for i in range(0, count, 100):
        rows.add(torch.rand(100, D, generator=torch.Generator().manual_seed(seed + i)))
    return rows.whole()

class Known:
    device = torch.device("cpu")
    real = features(0), None
    def of_reference(self, images):
        return self.real
    def once(self, what, images, make):
        return make()

class Drawn(metrics.Scored):
    layers = features(10**6), None

print(metrics.metric_density_coverage(Drawn(None, None, SimpleNamespace(images=None), Known())))
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


def ready_for(room: str, folder: Path, count: int) -> list[str]:
    """The held-out images of a room, as an array."""
    shape = (count, 3, SIDE, SIDE)
    np.lib.format.open_memmap(folder / "test_images.npy", "w+", np.uint8, shape).flush()
    np.save(folder / "test_labels.npy", np.zeros(count, np.int64))
    (folder / "data.json").write_text(json.dumps({"kind": "arrays"}))
    return [sys.executable, "-c", ROOMS, room]


READY = {
    "prepare": ready_to_prepare,
    "encode": ready_to_encode,
    "reconstruct": ready_to_reconstruct,
    **{
        room: partial(ready_for, room)
        for room in ("restore", "classify", "errors", "zero_shot", "memorise")
    },
}
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="needs Linux's /proc"
)


def grown(ready, tmp_path: Path, few: int, many: int) -> float:
    """Bytes of memory that each further image takes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["SRDD_CACHE"] = str(tmp_path / "cache")
    peaks = []
    for count in (few, many):
        folder = tmp_path / str(count)
        folder.mkdir()
        peaks.append(used_by(ready(folder, count), folder, environment).peak_bytes)
    assert peaks[0] > 2**25
    return (peaks[1] - peaks[0]) / (many - few)


@needs_proc
@pytest.mark.parametrize("what", READY)
def test_memory_does_not_grow_with_images(what, tmp_path):
    """Catches images, or what is read of each, that are all held at once: 1 200 more would
    take 56 MiB as bytes."""
    assert grown(READY[what], tmp_path, FEW, MANY) < 0.5 * IMAGE_BYTES


@needs_proc
def test_features_are_held_once_in_float32(tmp_path):
    """Catches features that are held as parts and whole, or all in float64: two to three times as
    much as they take."""

    def ready(folder: Path, count: int) -> list[str]:
        return [sys.executable, "-c", DISTANCES, str(count)]

    both = 2 * 4 * 8192  # features of a real and a drawn image
    assert 0.4 * both < grown(ready, tmp_path, 300, 900) < 1.5 * both


def test_distances_of_pieces_are_those_of_all(monkeypatch):
    """Catches a piece that is lost, or taken twice."""
    x_ND, y_MD = torch.rand(60, 5), torch.rand(70, 5)
    wide = x_ND.double(), y_MD.double()
    radii_N = set_distances.squared_radii(wide[0])
    whole = set_distances.density_coverage(wide[0], radii_N, wide[1])
    monkeypatch.setattr(set_distances, "WIDE", 5 * 16)
    assert set_distances.widened(x_ND) is x_ND
    pieces_N = set_distances.squared_radii(x_ND)
    assert torch.allclose(pieces_N, radii_N, rtol=1e-12, atol=0) and pieces_N.dtype == torch.double
    assert set_distances.density_coverage(x_ND, pieces_N, y_MD) == whole


def test_precision_compares_fewer_of_many():
    """Catches 10 000 x 50 000 distances, five times over, and small sets that are compared in other
    parts than before."""
    assert metrics.prc_rows(10_000) == 10_000
    assert metrics.prc_rows(50_000) * 50_000 <= 2**25
    assert metrics.prc_rows(10**9) == 1


def test_what_lies_on_disk_is_what_was_put_there(tmp_path):
    """Catches parts in another order or of another type, and a file that stays."""
    parts = [torch.arange(12.0).view(4, 3), torch.ones(1, 3), torch.zeros(2, 3)]
    mapped = on_disk(tmp_path, (part.clone() for part in parts))
    assert torch.equal(mapped, torch.cat(parts)) and mapped.dtype == torch.float32
    across = on_disk(tmp_path, [torch.arange(6).view(3, 2).T, torch.zeros(1, 3, dtype=torch.long)])
    assert across.tolist() == [[0, 2, 4], [1, 3, 5], [0, 0, 0]]
    assert on_disk(tmp_path, [torch.zeros(3, 0, 2)] * 2).shape == (6, 0, 2)
    filled = bytes_on_disk(tmp_path, (2, 3))
    filled[1] = 7
    assert filled.tolist() == [[0, 0, 0], [7, 7, 7]] and not any(tmp_path.iterdir())
