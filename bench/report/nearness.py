"""What counts as near to a training image, for all rooms that show how near samples are.

Imports no torch.
"""

from __future__ import annotations

from .view import View


def near_quantile(view: View) -> float:
    """Share of held-out images whose distance counts as near."""
    return float((view.about.get("memorisation") or {}).get("quantile", 0.05))


def near_words(view: View) -> str:
    """What the nearest-image rate is, for the details of a caption."""
    share = f"{100 * near_quantile(view):g}%"
    return (
        "Nearest-image rate: share of samples as near to an image that was seen as the nearest "
        f"{share} of held-out images are, or nearer. Fresh samples have about "
        f"{share}, copies 100%, poor ones less. Distances of pixels; all images as the tokenizer "
        "makes them."
    )
