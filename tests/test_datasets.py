"""Images: splits without leaks, folders as users have them, damaged files named."""

import functools
import gzip
import hashlib
import http.server
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bench.pipeline import datasets
from bench.pipeline.prepare import load
from bench.study.checks import most_to_train_on
from bench.study.errors import ConfigError
from bench.study.settings import DatasetConfig


def config(**changes) -> DatasetConfig:
    return DatasetConfig(
        **{"name": "digits", "image_size": 8, "channels": 1, "num_classes": 10, **changes}
    )


def test_digits_splits_share_no_image():
    """Catches a held-out image that is also trained on,
    and a split that changes from run to run."""
    splits = load(config())
    seen = {
        split: {hashlib.sha256(image.tobytes()).digest() for image in splits[split].images_NCHW}
        for split in splits
    }
    assert (
        not seen["train"] & seen["test"]
        and not seen["train"] & seen["val"]
        and not seen["val"] & seen["test"]
    )
    assert sum(len(splits[split]) for split in splits) == 1797
    again = load(config())
    assert all(np.array_equal(splits[s].images_NCHW, again[s].images_NCHW) for s in splits)
    assert splits["train"].images_NCHW.max() == 255


def test_other_than_the_asked_number_of_training_images_is_refused(monkeypatch):
    """Catches a study that says 5 000 images, and trains on the 1 400 that there are or on all of a
    loader of one's own."""
    count = len(load(config())["train"])
    assert len(load(config(train_images=count))["train"]) == count
    with pytest.raises(ConfigError, match=f"train_images: {count + 1}: .* has {count} images"):
        load(config(train_images=count + 1))
    for shares in ((0.01, 0.01), (0.05, 0.2), (0.3, 0.45), (0.45, 0.1)):
        data = config(val_share=shares[0], test_share=shares[1])
        most = most_to_train_on(SimpleNamespace(dataset=data))
        assert 0 <= most - len(load(data)["train"]) < 250, "a plan refuses what can be, or nothing"
    whole = datasets.load_digits(config())
    monkeypatch.setattr(datasets, "load_digits", lambda config: whole)
    with pytest.raises(ConfigError, match=f"train has {count} images, .* asks for 50; take as"):
        load(config(train_images=50))


def test_fewer_training_images_leave_the_held_out_ones_alone():
    """Catches a data-size sweep whose reference set moves with it."""
    small, full = load(config(train_images=50)), load(config())
    assert len(small["train"]) == 50
    assert np.array_equal(small["test"].images_NCHW, full["test"].images_NCHW)


@pytest.mark.parametrize("changes", [{"num_classes": 9}, {"num_classes": 11}, {"image_size": 4}])
def test_digits_that_do_not_fit_the_config(changes):
    """Catches a class count or size that fits only by accident."""
    with pytest.raises(ConfigError, match=r"dataset\."):
        load(config(**changes))


def folder(tmp_path, classes=("cat", "dog"), count=30, size=(20, 14), parts=("",)):
    """Noise images in class folders, one smooth gradient a class,
    so that crops can be told apart."""
    rng = np.random.default_rng(0)
    for part in parts:
        for name in classes or ("",):
            place = tmp_path / part / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(
                    place / f"{i:03d}.png"
                )
    return tmp_path


def test_class_folders(tmp_path):
    """Catches labels that do not follow the sorted folder names, sizes that are not the config's,
    an image on two sides."""
    root = folder(tmp_path)
    splits = load(
        config(
            name="image_folder",
            path=str(root),
            image_size=8,
            channels=3,
            num_classes=2,
            val_share=0.2,
        )
    )
    paths = [path for images in splits.values() for path in images.paths]
    assert len(paths) == len(set(paths)) == 60
    for images in splits.values():
        assert all(
            (path.parent.name == "dog") == label
            for path, label in zip(images.paths, images.labels_N)
        )
    assert splits["train"].read([0, 1]).shape == (2, 3, 8, 8)


def test_own_train_and_val_parts_are_kept(tmp_path):
    """Catches an ImageNet-like folder whose validation part is mixed into the training."""
    root = folder(tmp_path, parts=("train", "val"))
    splits = load(
        config(
            name="image_folder",
            path=str(root),
            image_size=8,
            channels=3,
            num_classes=2,
            val_share=0.2,
        )
    )
    assert all("/val/" in str(path) for path in splits["test"].paths)
    assert len(splits["test"]) == 60
    assert all("/train/" in str(path) for split in ("train", "val") for path in splits[split].paths)


def test_flat_folder_has_no_classes(tmp_path):
    """Catches FFHQ-like folders that need sub-folders to be read."""
    root = folder(tmp_path, classes=())
    splits = load(
        config(
            name="image_folder",
            path=str(root),
            image_size=8,
            channels=1,
            num_classes=0,
            val_share=0.2,
        )
    )
    assert sum(map(len, splits.values())) == 30
    assert set(splits["train"].labels_N) == {0}


def test_crop_is_central_and_keeps_the_aspect(tmp_path):
    """Catches a squeezed image: VAR resizes the short side to 1.125 of the size and crops the
    middle."""
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (32, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    pixels = datasets.read_image(tmp_path / "ramp.png", 16, 1)[0].astype(int)
    # short side 32 -> 18, long side 64 -> 36: a pixel of the crop spans 64/36 of the original, 16
    # of them 28
    assert 95 < pixels[0].mean() < 160
    assert pixels[0, -1] - pixels[0, 0] == pytest.approx(255 * 15 / 36, abs=12)
    crops = [
        datasets.read_image(tmp_path / "ramp.png", 16, 1, crop_seed=seed).tobytes()
        for seed in (1, 1, 2, 3, 4)
    ]
    assert crops[0] == crops[1] and len(set(crops)) > 1


def test_damaged_image_is_named(tmp_path):
    """Catches a truncated file that stops a training in the middle,
    or an error that does not say which file."""
    root = folder(tmp_path)
    whole = (root / "cat" / "003.png").read_bytes()
    (root / "cat" / "003.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"003\.png: damaged image"):
        datasets.read_image(root / "cat" / "003.png", 8, 3)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"path": None}, "dataset.path"),
        ({"path": "/no/such/folder"}, "no folder"),
        ({"num_classes": 3}, "3 does not fit the 2"),
    ],
)
def test_folder_errors(tmp_path, changes, words):
    """Catches a missing folder or a wrong class count that shows only later."""
    root = folder(tmp_path)
    settings = {
        "name": "image_folder",
        "path": str(root),
        "image_size": 8,
        "channels": 3,
        "num_classes": 2,
        **changes,
    }
    with pytest.raises(ConfigError, match=words):
        load(config(**settings))


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def garments(tmp_path, count: dict[str, int]) -> dict[str, np.ndarray]:
    """Fashion-MNIST's four files with noise in them."""
    rng, arrays = np.random.default_rng(0), {}
    for name in datasets.FASHION_FILES:
        N = count["train" if "train" in name else "t10k"]
        arrays[name] = rng.integers(1, 255, (N, 28, 28)) if "images" in name else np.arange(N) % 10
        (tmp_path / name).write_bytes(idx(arrays[name]))
    return arrays


def sums_of(tmp_path) -> dict[str, str]:
    files = datasets.FASHION_FILES
    return {
        name: hashlib.sha256(gzip.decompress((tmp_path / name).read_bytes())).hexdigest()
        for name in files
    }


def test_fashion_mnist_is_read_padded_and_checked(tmp_path, monkeypatch):
    """Catches a wrong idx reader, a shifted border, and files that are not what they say."""
    arrays = garments(tmp_path, {"train": 120, "t10k": 30})
    settings = config(name="fashion_mnist", path=str(tmp_path), image_size=32, val_share=0.2)
    with pytest.raises(ValueError, match="sha256"):
        load(settings)
    monkeypatch.setattr(datasets, "FASHION_FILES", sums_of(tmp_path))
    splits = load(settings)
    assert len(splits["test"]) == 30 and len(splits["train"]) + len(splits["val"]) == 120
    image = splits["test"].images_NCHW[0, 0]
    assert np.array_equal(image[2:-2, 2:-2], arrays["t10k-images-idx3-ubyte.gz"][0])
    assert image[:2].sum() == image[-2:].sum() == image[:, :2].sum() == image[:, -2:].sum() == 0


@pytest.mark.parametrize("size", [1, 5, 8, 27, 28])
def test_fashion_mnist_is_reduced_by_area(tmp_path, monkeypatch, size):
    """Catches a resampling that skips or smooths, a shifted grid, a mean that is cut instead of
    rounded, labels out of step."""
    arrays = garments(tmp_path, {"train": 120, "t10k": 30})
    monkeypatch.setattr(datasets, "FASHION_FILES", sums_of(tmp_path))
    splits = load(config(name="fashion_mnist", path=str(tmp_path), image_size=size, val_share=0.2))
    held_out = arrays["t10k-images-idx3-ubyte.gz"]
    # every pixel in size x size equal parts, so that a new pixel is a block of 28 x 28 of them
    parts = held_out.repeat(size, 1).repeat(size, 2).reshape(30, size, 28, size, 28)
    exact = np.floor(parts.mean((2, 4)) + 0.5)
    assert np.array_equal(splits["test"].images_NCHW[:, 0], exact)
    assert np.array_equal(splits["test"].labels_N, arrays["t10k-labels-idx1-ubyte.gz"])
    assert len(splits["train"]) + len(splits["val"]) == 120


def test_garments_that_become_equal_stay_on_one_side(tmp_path, monkeypatch):
    """Catches sides that follow from the pixels before the reduction: the model would be selected
    by what it is trained on."""
    arrays = garments(tmp_path, {"train": 120, "t10k": 30})
    name = "train-images-idx3-ubyte.gz"
    images = np.tile(arrays[name][:1], (120, 1, 1))
    images[np.arange(120), 0, np.arange(120) % 28] ^= (
        1  # nothing that a mean over 7 x 7 pixels shows
    )
    images[60:] = arrays[name][60:]
    (tmp_path / name).write_bytes(idx(images))
    monkeypatch.setattr(datasets, "FASHION_FILES", sums_of(tmp_path))
    splits = load(config(name="fashion_mnist", path=str(tmp_path), image_size=4, val_share=0.4))
    seen = {
        split: {image.tobytes() for image in splits[split].images_NCHW}
        for split in ("train", "val")
    }
    assert not seen["train"] & seen["val"] and len(seen["train"] | seen["val"]) < 120


def test_fashion_mnist_missing_file(tmp_path):
    """Catches a path without the files that ends in a download somewhere else."""
    with pytest.raises(ConfigError, match="dataset.path"):
        load(config(name="fashion_mnist", path=str(tmp_path), image_size=32))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server of this machine with Fashion-MNIST's four files, no Debian package,
    an empty cache; yields what was asked."""
    asked, place = [], tmp_path / "mirror"
    place.mkdir()
    garments(place, {"train": 120, "t10k": 30})

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path[1:])
            super().do_GET()

        def log_message(self, *words):
            pass

    handler = functools.partial(Handler, directory=str(place))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    sums = {
        name: hashlib.md5((place / name).read_bytes()).hexdigest()
        for name in datasets.FASHION_FILES
    }
    monkeypatch.setattr(datasets, "FASHION_FILES", sums_of(place))
    monkeypatch.setattr(datasets, "FASHION_MD5", sums)
    monkeypatch.setattr(datasets, "FASHION_URL", f"http://127.0.0.1:{server.server_address[1]}/")
    monkeypatch.setattr(datasets, "DEBIAN_FASHION", tmp_path / "no package")
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()


def test_fashion_mnist_is_downloaded_once(mirror, tmp_path):
    """Catches a download that is repeated, lands outside the cache, or leaves a temporary file."""
    settings = config(name="fashion_mnist", image_size=28, val_share=0.2)
    for _ in range(2):
        assert len(load(settings)["test"]) == 30
    assert sorted(mirror) == sorted(datasets.FASHION_FILES)
    assert sorted(path.name for path in (tmp_path / "cache" / "fashion-mnist").iterdir()) == sorted(
        mirror
    )


def test_a_damaged_download_is_refused_and_then_replaced(mirror, tmp_path):
    """Catches half a file that is kept, and a damaged copy in the cache that stays for ever."""
    name, settings = next(iter(datasets.FASHION_FILES)), config(name="fashion_mnist", image_size=28)
    whole = (tmp_path / "mirror" / name).read_bytes()
    (tmp_path / "mirror" / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ConfigError, match=rf"^dataset\.path: .*{name} cannot be downloaded .*four \.gz files$"
    ):
        load(settings)
    assert not list((tmp_path / "cache").rglob("*.gz"))
    (tmp_path / "mirror" / name).write_bytes(whole)
    load(settings)
    (tmp_path / "cache" / "fashion-mnist" / name).write_bytes(b"damaged")
    load(settings)
    assert mirror.count(name) == 3


def test_no_network_is_one_line(mirror, monkeypatch):
    """Catches a client's traceback, and a line that does not say what to do."""
    for url, words in ((datasets.FASHION_URL + "none/", "404"), ("http://127.0.0.1:9/", "refused")):
        monkeypatch.setattr(datasets, "FASHION_URL", url)
        with pytest.raises(
            ConfigError, match=f"cannot be downloaded .*{words}.*dataset-fashion-mnist"
        ) as error:
            load(config(name="fashion_mnist", image_size=28))
        assert "\n" not in str(error.value)


def test_a_full_disk_is_not_blamed_on_the_server(mirror, tmp_path):
    """Catches a cache that cannot be written and is told as a missing network."""
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises((FileExistsError, NotADirectoryError, PermissionError)):
        load(config(name="fashion_mnist", image_size=28))


def test_fewer_images_of_a_folder_are_of_all_classes(tmp_path):
    """Catches a cut of the first paths, which are those of the first class."""
    root = folder(tmp_path, classes=("a", "b", "c"), count=60)
    parts = datasets.load_image_folder(
        config(
            name="image_folder",
            path=str(root),
            image_size=8,
            channels=3,
            num_classes=3,
            train_images=40,
        )
    )
    labels = parts["train"].labels_N
    assert len(labels) == 40 and (np.bincount(labels, minlength=3) >= 5).all()
    assert [path.parent.name for path in parts["train"].paths] == ["abc"[label] for label in labels]
