"""CIFAR-10: the binary layout, wherever it lies, and one line for whatever is not it."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from bench.pipeline import cifar
from bench.pipeline.prepare import load
from bench.study.errors import ConfigError
from bench.study.settings import DatasetConfig

COUNT = 40  # records of a small file


def config(**changes) -> DatasetConfig:
    settings = {"name": "cifar10", "image_size": 32, "channels": 3, "num_classes": 10}
    return DatasetConfig(**{**settings, "val_share": 0.2, **changes})


def made(seed: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A small file of the layout, its images and labels; the first record is red above and blue
    below."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8)
    images[0] = 0
    images[0, 0, :16], images[0, 2, 16:] = 255, 255
    images[0, 1, 0, seed] = 1  # no two files begin alike
    labels = np.arange(COUNT) % 10
    rows = [bytes([label]) + image.tobytes() for label, image in zip(labels.tolist(), images)]
    return b"".join(rows), images, labels


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """Six small files in the folder that the archive unpacks."""
    monkeypatch.setenv("SRDD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / cifar.FOLDER
    folder.mkdir(parents=True)
    for seed, name in enumerate((*cifar.TRAIN, cifar.TEST)):
        (folder / name).write_bytes(made(seed)[0])
    return folder


@pytest.fixture
def small(monkeypatch):
    """Files of few records are what is expected."""
    monkeypatch.setattr(cifar, "RECORDS", COUNT)


@pytest.fixture
def packed(unpacked, monkeypatch):
    """The archive of the small files, whose sum is the one asked for."""
    path = unpacked.parent.parent / "packed" / cifar.ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(unpacked.iterdir()):
            archive.add(file, f"{cifar.FOLDER}/{file.name}")
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_records_are_a_label_and_three_planes():
    """Catches pixels that are read colour by colour within a row, or labels out of step."""
    data, images, labels = made(0)
    read_images, read_labels = cifar.records(data, "file", COUNT)
    assert np.array_equal(read_images, images) and np.array_equal(read_labels, labels)
    assert read_images[0, :, 0, 5].tolist() == [255, 0, 0]
    assert read_images[0, :, 31, 5].tolist() == [0, 0, 255]


@pytest.mark.parametrize("place", ["", cifar.FOLDER])
def test_an_unpacked_folder(unpacked, small, place):
    """Catches a test part that is trained on, and a folder one level above that is not seen."""
    splits = load(config(path=str(unpacked.parent / place)))
    assert np.array_equal(splits["test"].images_NCHW, made(5)[1])
    assert len(splits["train"]) + len(splits["val"]) == 5 * COUNT


def test_an_archive(packed, small, unpacked):
    """Catches an archive that gives other images than its files."""
    by_archive, by_folder = load(config(path=str(packed))), load(config(path=str(unpacked)))
    for split in by_folder:
        assert np.array_equal(by_archive[split].images_NCHW, by_folder[split].images_NCHW)
    assert len(load(config(path=str(packed.parent), image_size=36))["test"].images_NCHW[0, 0]) == 36


def test_files_of_another_length_are_refused(unpacked):
    """Catches a part of the set that is taken for the whole."""
    with pytest.raises(ConfigError, match="data_batch_1.bin holds 122920 bytes, 10000 records"):
        load(config(path=str(unpacked)))


def test_a_label_that_is_no_class(unpacked, small):
    """Catches CIFAR-100, whose records begin with another label."""
    file = unpacked / cifar.TEST
    file.write_bytes(b"\x63" + file.read_bytes()[1:])
    with pytest.raises(ConfigError, match="test_batch.bin holds the label 99, 0 to 9 are legal"):
        load(config(path=str(unpacked)))


def test_missing_and_other_files(unpacked, small, tmp_path):
    """Catches a path without the set that ends in a download, and an archive of another content."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty holds no cifar-10-binary\.tar\.gz"):
        load(config(path=str(tmp_path / "empty")))
    (tmp_path / cifar.ARCHIVE).write_bytes(b"other")
    with pytest.raises(ConfigError, match="sha256 is .* is expected"):
        load(config(path=str(tmp_path)))
    (unpacked / cifar.TRAIN[2]).unlink()
    with pytest.raises(ConfigError, match="holds no data_batch_3.bin"):
        load(config(path=str(unpacked)))


def test_it_is_downloaded_once_and_checked(packed, small, monkeypatch):
    """Catches a second download, half a file that is kept, and a server's silence that is a
    traceback."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *words):
            pass

    handler = functools.partial(Handler, directory=str(packed.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        monkeypatch.setattr(cifar, "URL", f"http://127.0.0.1:{server.server_address[1]}/")
        for _ in range(2):
            assert len(load(config())["test"]) == COUNT
        assert asked == [f"/{cifar.ARCHIVE}"]
        cifar.fetch_cifar10()[0].unlink()
        monkeypatch.setattr(cifar, "SHA256", "0" * 64)
        with pytest.raises(ConfigError, match="cannot be downloaded .*; put it into"):
            load(config())
        monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/")
        with pytest.raises(ConfigError, match="cannot be downloaded .*refused"):
            load(config())
    finally:
        server.shutdown()
        server.server_close()


def test_what_the_archive_lacks_is_named(packed, small, monkeypatch):
    """Catches a KeyError of an archive whose sum is right and whose files have other names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    packed.write_bytes(buffer.getvalue())
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    with pytest.raises(ConfigError, match="holds no data_batch_1.bin"):
        load(config(path=str(packed)))
