"""What of the tokenizers follows from the size of a study's images, where they are another study's.
Imports no torch."""

from __future__ import annotations

from typing import Any

from .errors import ConfigError

LEVELS = "channel_multipliers"


def fitted(
    whole: dict[str, Any], own: dict[str, Any], parent: dict[str, Any], name: str
) -> list[str]:
    """Give the tokenizers of another study as many levels as images of this size need, so that
    their grids stay what they are: each level but one halves the side. Changes `whole`.

    own: what the study says itself; parent, name: the other study. Returns what to say of it.
    Raises ConfigError for a size that no number of levels fits.
    """
    side, before = _side(whole), _side(parent)
    if side is None or before is None or side == before or not isinstance(whole.get("bases"), dict):
        return []
    lines = {}
    for base, settings in whole["bases"].items():
        config = _at(settings, "tokenizer", "config")
        given = _at(own, "bases", base, "tokenizer", "config")
        if not _follows(config, before) or {LEVELS, "patch_nums", "image_size"} & set(given):
            continue
        levels = _levels(config, side, base, name)
        whole["bases"][base] = _with_levels(settings, levels)
        lines[base] = levels
    if not lines:
        return []
    levels = next(iter(lines.values()))
    return [
        f"dataset.image_size: {side}: {name} has {before} pixels, so the tokenizers of "
        f"{', '.join(lines)} get "
        f"{len(levels)} levels ({LEVELS} {levels}); give tokenizer.config.{LEVELS} in bases for "
        f"others"
    ]


def _side(study: dict[str, Any]) -> int | None:
    side = _at(study, "dataset").get("image_size")
    return side if isinstance(side, int) and side > 0 else None


def _at(node: Any, *keys: str) -> dict[str, Any]:
    """The mapping at a place; an empty one where there is none."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _follows(config: dict[str, Any], before: int) -> bool:
    """Whether a tokenizer was made for the images of the other study, with levels that fit them."""
    levels, sides = config.get(LEVELS), config.get("patch_nums")
    if config.get("image_size", before) != before or not isinstance(sides, list) or not sides:
        return False
    if not isinstance(sides[-1], int) or not isinstance(levels, list) or not levels:
        return False
    return bool(sides[-1] * 2 ** (len(levels) - 1) == before)


def _levels(config: dict[str, Any], side: int, base: str, name: str) -> list[int]:
    """As many levels as lead from images of this side to the grid of the tokenizer: the last one
    again, or fewer. Raises ConfigError."""
    levels, latent = config[LEVELS], config["patch_nums"][-1]
    ratio, rest = divmod(side, latent)
    if rest or ratio & (ratio - 1):
        sizes = ", ".join(str(latent * 2**power) for power in range(1, 6))
        raise ConfigError(
            f"dataset.image_size: {side}: does not halve to the {latent}x{latent} tokens of base "
            f"{base!r} of {name}; "
            f"take {sizes}, or give patch_nums and {LEVELS} in tokenizer.config of every base"
        )
    count = ratio.bit_length()
    return [*levels[:count], *[levels[-1]] * (count - len(levels))]


def _with_levels(settings: dict[str, Any], levels: list[int]) -> dict[str, Any]:
    tokenizer = settings["tokenizer"]
    config = {**tokenizer["config"], LEVELS: levels}
    return {**settings, "tokenizer": {**tokenizer, "config": config}}
