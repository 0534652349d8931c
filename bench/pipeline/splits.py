"""Which image lies on which side: by content, so that no copy is on two sides.

A side follows from a hash: no seed, no order. Every class is trained on. Images that belong
together (equal content, or one group of `dataset.group`) move as one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ..study.errors import ConfigError

Key = bytes


def share_of(key: Key, salt: str) -> float:
    """A number in [0, 1) that follows from a key."""
    return int.from_bytes(hashlib.sha256(salt.encode() + key).digest()[:8], "big") / 2**64


def group_keys(names: Sequence[str], pattern: str) -> list[Key | None]:
    """What the pattern's first bracket, or the whole pattern, finds in each name; None where it
    finds nothing, or an empty word."""
    expression = re.compile(pattern)
    which = 1 if expression.groups else 0
    matches = map(expression.search, names)
    words = [match[which] if match else None for match in matches]
    return [b"group:" + os.fsencode(word) if word else None for word in words]


def joined(keys: Sequence[Key], groups: Sequence[Key | None]) -> list[Key]:
    """One key for all images that hang together by equal content or a common group, however long
    the chain."""
    parent: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for key, group in zip(keys, groups):
        if group is not None:
            first, second = sorted((root(key), root(group)))
            parent[second] = first
    return [root(key) for key in keys]


def sides(keys: Iterable[Key], test_share: float, val_share: float) -> list[str]:
    """`test`, `val` or `train` for each key; test_share 0: a set with a test part of its own."""
    where = []
    for key in keys:
        if share_of(key, "test") < test_share:
            where.append("test")
        else:
            where.append("val" if share_of(key, "val") < val_share else "train")
    return where


def with_all_classes(where: Sequence[str], keys: Sequence[Key], labels: Sequence[int]) -> list[str]:
    """Sides on which every class has a training image: of a class that is held out whole, one key
    moves, chosen by hash, with all that has the same key."""
    where = list(where)
    lacking = set(labels) - {label for side, label in zip(where, labels) if side == "train"}
    if not lacking:
        return where
    rows: dict[Key, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    of_class: dict[int, set[Key]] = {}
    for key, label in zip(keys, labels):
        if label in lacking:
            of_class.setdefault(label, set()).add(key)
    for label in sorted(of_class):
        if not any(
            where[i] == "train" for key in of_class[label] for i in rows[key] if labels[i] == label
        ):
            for i in rows[max(of_class[label], key=lambda key: (share_of(key, "test"), key))]:
                where[i] = "train"
    return where


def some_of_all(keys: Sequence[Key], labels: Sequence[int], count: int | None) -> list[int]:
    """Indices of `count` images in their order, chosen by hash, at least one of each class that
    there is; all where count is None.

    Raises ConfigError for a count below the number of classes.
    """
    if count is None or count >= len(keys):
        return list(range(len(keys)))
    classes = set(labels)
    if count < len(classes):
        raise ConfigError(
            f"dataset.train_images: {count} leaves some of the {len(classes)} classes without a "
            "training image"
        )
    order = sorted(range(len(keys)), key=lambda i: share_of(keys[i], "train"))
    first: dict[int, int] = {}
    for i in order:
        first.setdefault(labels[i], i)
    chosen = set(first.values())
    for i in order:
        if len(chosen) == count:
            break
        chosen.add(i)
    return sorted(chosen)


def copies(keys: Sequence[Key], of: Sequence[Key]) -> int:
    """How many keys are also among others: exact copies on two sides."""
    others = set(of)
    return sum(key in others for key in keys)


def contradictions(keys: Sequence[Key], labels: Sequence[int]) -> int:
    """How many different contents stand under more than one label."""
    pairs = Counter(key for key, _ in set(zip(keys, labels)))
    return sum(count > 1 for count in pairs.values())


def array_keys(images_NCHW: np.ndarray) -> list[Key]:
    """A key of each image's pixels."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images_NCHW]
