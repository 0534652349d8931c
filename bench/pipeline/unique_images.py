"""Which training images `training.unique_images` leaves."""

from __future__ import annotations

import numpy as np

from ..study.errors import ConfigError
from .datasets import ArrayImages, SplitImages
from .splits import array_keys, some_of_all


def chosen_rows(images: SplitImages, count: int) -> np.ndarray:
    """Indices of `count` images in their order, chosen by a hash of pixels, or of files as they
    were prepared; those of a smaller count are among them.

    Raises ConfigError for more than there are, or fewer than classes.
    """
    if count > len(images):
        raise ConfigError(
            f"training.unique_images: {count}: the training split has {len(images)}; "
            "give as many or fewer"
        )
    classes = len(set(images.labels_N.tolist()))
    if count < classes:
        raise ConfigError(
            f"training.unique_images: {count}: leaves some of the {classes} classes without an "
            f"image; give {classes} or more"
        )
    if isinstance(images, ArrayImages):
        keys = array_keys(images.images_NCHW)
    else:
        assert images.recorded is not None  # of prepared data it always is
        keys = [row.tobytes() for row in images.recorded.sums_N]
    return np.array(some_of_all(keys, images.labels_N.tolist(), count))


def learnt_rows(images: SplitImages, unique: int | None) -> np.ndarray:
    """Indices of the training images that a training learns from. unique: its
    `training.unique_images`, None for all. Raises ConfigError as `chosen_rows` does."""
    return np.arange(len(images)) if unique is None else chosen_rows(images, unique)
