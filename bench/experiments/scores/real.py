"""What real images score, beside which generated ones are read."""

from __future__ import annotations

from typing import Any

from ...report.cells import Cell, number
from ...report.estimate import Estimate, show
from ...report.view import View
from ...report.words import given_images, held_out_agreement, without_classes
from ...study.checks import WITHIN_CLASSES
from ...study.escaping import rst
from ...study.scores import kid_is_exact

HELD_OUT = "Held-out images themselves"
GIVEN = "Images of features.reference themselves"


def real_scores(view: View, variant: str, metric: str) -> tuple[float | None, float | None]:
    """What training images, and what the images that scores are held against themselves, score;
    None where nobody measured it."""
    names, score = view.variants[variant], view.results.score_name(metric)
    train, held = (view.grid_value(names, f"{line}_{score}") for line in ("floor", "reference"))
    if metric == "class_agreement":  # that of held-out images is the extractor's own accuracy
        held = held_out_agreement(view.results)
    return train, held


def which_real(view: View, metric: str) -> str:
    """Which real images those are that a score is held against: of a file IS alone was taken."""
    return "reference" if metric == "is" and given_images(view.results) else "held-out"


def reference_rows(view: View, row: dict[str, str]) -> list[dict[str, str]]:
    """Rows of the images that scores are held against: held-out ones, and those of a file where an
    extractor has some. row: what all extractors say."""
    views = [view, *map(view.by, view.results.others)]
    # of these images nothing else was scored
    of_files = {one.results.label("IS") for one in views if given_images(one.results)}
    empty = Cell(number(None), mean=None)
    rows = []
    for label, of_file in ((HELD_OUT, False), (GIVEN, True)):
        cells = {title: row[title] if (title in of_files) == of_file else empty for title in row}
        rows.append(cells | {"Variant": label, "Status": "ok"})
    agreement = held_out_agreement(view.results)
    if agreement is not None and view.scored("class_agreement"):
        title = view.results.label("Class agreement")
        rows[0][title] = Cell(number(agreement), mean=agreement)
    # older results have none
    return [one for one in rows if set(one.values()) - {"-", one["Variant"], one["Status"]}]


def beside_real(view: View, variant: str, name: str) -> Estimate | None:
    """A score of a variant, None where that of real images is taken inside classes and the
    variant's of all images at once."""
    if name in WITHIN_CLASSES and variant in without_classes(view):
        return None
    return view.score(variant, name)


def within_words(view: View) -> str:
    """Which variants have no variance inside classes; empty where all have one."""
    names = without_classes(view) if len(view.rows_of("variance_pixels")) else []
    said = ", ".join(map(rst, names))
    return f"Variance within classes: none of variants without classes ({said})." if said else ""


def kid_words(view: View) -> str:
    """How KID was taken, by each extractor where they differ."""
    views = view, *map(view.by, view.results.others)
    ways = {asked.results.extractor: _kid_way(asked) for asked in views}
    if len(set(ways.values())) == 1:
        way = ways[view.results.extractor]
        return f"KID: {way}." if way else ""
    said = (f"by {name} {way}" for name, way in ways.items() if way)
    return f"KID: {'; '.join(said)}."


def _kid_way(view: View) -> str:
    """Whether KID takes all pairs; empty where it was not measured, or the sizes are not known."""
    results = view.results
    features = results.features[results.extractor]
    held = results.rows_of("num_test")["value"].dropna()
    measured = len(view.rows_of(results.score_name("kid")))
    if not measured or not len(held) or not features.get("dim"):
        return ""
    if features.get("reference") or not len(results.rows_of(f"reference_is_{results.extractor}")):
        return ""  # of a file with images of its own, or of an older version
    count = results.about["evaluation"]["num_images"]
    exact = kid_is_exact(count, int(held.iloc[0]), features["dim"])
    return "over all pairs" if exact else "mean over 100 random subsets"


def real_words(view: View, claim: dict[str, Any]) -> str:
    """Of IS: what real images score, and whether the side with more is farther from them; empty for
    other scores."""
    if claim["metric"] != "is":
        return ""
    train, held = real_scores(view, claim["variant"], "is")
    measured = {"train": train, which_real(view, "is").replace("-", " "): held}
    parts = [f"{show(value)} {name}" for name, value in measured.items() if value is not None]
    real = train if held is None else held
    if real is None:
        return ""
    words = f"; real images: {', '.join(parts)}"
    scores = {claim[key]: view.score(claim[key], "is") for key in ("variant", "against")}
    means = {name: score.mean for name, score in scores.items() if score is not None}
    if len(means) < len(scores):
        return words
    more, less = sorted(means, key=lambda name: -means[name])
    if abs(means[more] - real) > abs(means[less] - real):
        shown = [f"{name}'s {show(means[name])}" for name in (more, less)]
        words += f"; {shown[0]} is farther from real images than {shown[1]}"
    return words
