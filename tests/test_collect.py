"""What collect gathers for the figures."""

import numpy as np

from bench import collect
from bench.datasets import ArrayPictures


def test_real_pictures_keep_the_order_of_classes(monkeypatch, tmp_path):
    """Catches a class with few held-out pictures that shifts all that follow into the wrong row of the sample grid."""
    labels = np.array([0, 0, 0, 1, 2, 2])
    images = labels[:, None, None, None].astype(np.uint8) * np.ones((1, 1, 2, 2), np.uint8)
    monkeypatch.setattr(collect, "open_split", lambda folder, split: ArrayPictures(images, labels))
    shown = collect.real_pictures(tmp_path)["real/images"][:, 0, 0, 0]
    assert shown.tolist() == [0, 1, 2, 0]
