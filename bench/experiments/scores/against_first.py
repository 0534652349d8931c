"""FID of every variant minus that of the suite's first, by each extractor."""

from __future__ import annotations

from ...report.cells import Cell, spread
from ...report.estimate import FEWEST, holm, show_difference, verdict
from ...report.view import View
from ...study.escaping import rst

MOST_DIFFERENCES = 12  # listed one by one in a caption


def _by(view: View) -> str:
    """The ending of a title that says by which extractor, where it is not the study's first."""
    results = view.results
    return "" if results.extractor == results.extractors[0] else f" ({results.extractor})"


def difference_title(view: View) -> str:
    return f"{view.results.label('FID')} minus {next(iter(view.variants))}, paired"


def verdict_title(view: View) -> str:
    return f"Verdict{_by(view)}"


def after_holm_title(view: View) -> str:
    return f"Verdict after Holm, this table{_by(view)}"


def verdicts(view: View) -> dict[str, dict[str, str]]:
    """FID of every variant minus that of the first: the difference, what it decides, and what it
    decides when all rows of the table are tested together (Holm 1979)."""
    first, *others = view.variants
    fid, title = view.results.score_name("fid"), difference_title(view)
    alone, together = verdict_title(view), after_holm_title(view)
    differences = {name: view.difference(name, fid) for name in others}
    tested = {n: d for n, d in differences.items() if d is not None and d.count >= FEWEST}
    p_values = {name: difference.p for name, difference in tested.items()}
    rejected = holm({name: p for name, p in p_values.items() if p is not None})
    rows = {first: {title: Cell("first"), alone: "", together: ""}}
    for name, difference in differences.items():
        word = {"yes": "lower", "no": "higher"}.get(verdict(tested.get(name)), "not decided")
        corrected = word if name in rejected else "not decided"
        cell = spread(difference, difference=True)
        rows[name] = {title: cell, alone: word, together: corrected}
    return rows


def fid_differences(view: View) -> str:
    """Paired FID differences to the first variant, by each extractor."""
    first, *others = view.variants
    if not others:
        return "One variant, nothing to compare."
    if len(others) > MOST_DIFFERENCES and "scores" in view.about["tables"]:
        return f"Differences to {rst(first)}, paired by training seed: in table scores."
    return " ".join(_listed(asked) for asked in (view, *map(view.by, view.results.others)))


def _listed(view: View) -> str:
    """The differences by one extractor."""
    first, *others = view.variants
    metric, shown = view.results.score_name("fid"), []
    for name in others:
        shown.append(f"{rst(name)} {show_difference(view.difference(name, metric))}")
    what = f"{view.results.label('FID')} minus that of {rst(first)}"
    return f"{what}, paired by training seed, 95 % t-interval: {'; '.join(shown)}."


def twin_words(view: View) -> str:
    """Which variants of other settings have the same FID in every training seed, as where training
    longer keeps the same weights: a comparison with one is one with the other."""
    groups: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for variant in view.variants:
        scores = view.of(variant, view.results.score_name("fid"))
        groups.setdefault(tuple(scores.sort_index().items()), []).append(variant)
    twins = [names for scores, names in groups.items() if len(scores) > 1 and len(names) > 1]
    words = "; ".join(" and ".join(map(rst, names)) for names in twins)
    same = "The same FID in every training seed, so that claims on one are claims on the other"
    return f"{same}: {words}." if twins else ""
