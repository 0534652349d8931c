"""The tasks of a suite, their baselines, and how a caption tells them. Imports no torch."""

from __future__ import annotations

from ...report.completion import at, count_words, lost_words
from ...report.view import View
from ...report.words import held_out, sample_words, samplers, seeds_details, with_classes

TASKS = {
    "inpaint": "in-painting",
    "outpaint": "out-painting",
    "super_resolution": "super-resolution",
}
BASELINES = {"inpaint": "nearest_fill", "outpaint": "nearest_fill", "super_resolution": "bicubic"}
BASELINE_NAMES = {"nearest_fill": "nearest-mean fill", "bicubic": "bicubic"}
CEILING = "reconstruction from all true tokens"


def tasks(view: View) -> list[str]:
    """The tasks that the suite asks for; of variants of one scale no super-resolution."""
    asked = [name for name in TASKS if view.about["zero_shot"][name]]
    has_coarse = bool(true_scales(view.of_suite))
    return [name for name in asked if name != "super_resolution" or has_coarse]


def has_boxes(view: View) -> bool:
    """Whether a task of the suite has a part of the image that is unknown."""
    return tasks(view) != ["super_resolution"]


def true_scales(view: View) -> list[int]:
    """Every m of super-resolution that a variant of the suite can have."""
    return list(range(1, max(len(names["patch_nums"]) for names in view.variants.values())))


def level(view: View, variant: str, metric: str) -> float | None:
    """The value of a baseline or, the mean over tokenizers where training seeds have their own, of
    the ceiling."""
    values = at(view, variant, metric)
    if not len(values):
        return None
    # a mean of equal numbers may round to another one
    return float(values.iloc[0] if values.nunique() == 1 else values.mean())


def rows_lost(view: View) -> str:
    """One line that names every variant and seed without the first number of the first task."""
    task = tasks(view)[0]
    return lost_words(view, f"{task}_psnr_whole", 1 if task == "super_resolution" else None)


def strip_run(view: View, variant: str) -> str | None:
    """run_id of the zero-shot images of the first training seed that has some."""
    for seed in view.about["train_seeds"]:
        jobs = view.results.jobs_of(view.variants[variant], seed)
        for run_id in jobs.loc[jobs["stage"] == "zero_shot", "run_id"]:
            if run_id in view.about["runs"] and f"{run_id}/original" in view.results.images:
                return run_id
    return None


# ---------------------------------------------------------------- in words


def protocol_details(view: View) -> tuple[str, ...]:
    """Details of a caption: how the tasks are set (VAR, arXiv 2404.02905)."""
    about, boxes = view.about["zero_shot"], []
    for name in ("inpaint", "outpaint"):
        if about[name]:
            boxes.append(f"{TASKS[name]} ({', '.join(f'{share:g}' for share in about[name])})")
    details = []
    if boxes:
        details += [
            f"Boxes as (top, left, bottom, right) in shares of the side: {', '.join(boxes)}. "
            f"In-painting hides the box, out-painting all else.",
            "A scale keeps the true tokens where the bilinear share of what is known exceeds 0.5. "
            "A scale of at most 3 tokens keeps all of them (VAR's protocol). True tokens come "
            "from the whole image: the coarse ones know a little of what is hidden, which the "
            "fill does not.",
            "Nearest-mean fill: the mean of the known pixels at the smallest distance. It keeps "
            "every known pixel exactly, which a decoded image cannot. So the unknown part decides.",
        ]
    if "super_resolution" in tasks(view):
        details.append(
            "Super-resolution keeps the true tokens of the first m scales. Bicubic enlarges the "
            "image reduced to the share of its side that the m-th grid has of the last one."
        )
    details.append("Completed images are scored as decoded: no known pixel is pasted over them.")
    return tuple(details)


def known_words(view: View) -> str:
    """What a strip shows of what its tasks know."""
    words = ["what is known, grey where it is not"] if has_boxes(view) else []
    if "super_resolution" in tasks(view):
        where = "for super-resolution " if words else ""
        words.append(f"{where}the reduced image that bicubic enlarges")
    return "; ".join(words)


def run_details(view: View) -> tuple[str, ...]:
    """Details of a caption: N, seeds, interval, sampler: how the numbers were made."""
    classes = ", with their true classes" if with_classes(view) else ""
    return (
        f"N = {count_words(view, 'zero_shot')} images of {held_out(view.results)}{classes}; "
        f"{sample_words(view.results)}.",
        *seeds_details(view),
        samplers(view),
    )
