"""Samples of every variant, kept, and their scores: the jobs, and what the figures, tables and
rules read."""

from __future__ import annotations

from collections.abc import Iterator

from ...study.chain import score_jobs
from ...study.jobs import Plan
from ...study.schema import Claim, Study, Variant
from ...study.suite_checks import Resolved, score_problems, side_problems

NEEDS = {
    name: "scored"
    for name in ("figure_fid", "table_scores", "table_costs", "judge_score", "judge_nearer")
}
SHOWS_FID = ("figure_fid", "table_scores")

SCORES = TRAINS = DRAWS = True


def jobs(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """Images, kept on disk, and their scores."""
    score_jobs(plan, suite, variants)


def rule_problems(study: Study, one: Resolved, claim: Claim) -> Iterator[str]:
    """Metrics that are not measured, and sides that are grids."""
    yield from score_problems(study, one.suite, claim)
    yield from side_problems(one, claim)
