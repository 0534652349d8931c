"""Which extractors scored a study, and which of them is asked. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from ..study.scores import needs_classes, score_name


class Extractors:
    """What results know of their feature extractors."""

    about: dict[str, Any]
    asked: str | None  # the extractor whose scores are asked for; None: the study's first

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """Settings of every extractor by name, in the study's order; older results have one."""
        features = self.about["features"]
        listed = features if isinstance(features, list) else [features]
        return {about["name"]: about for about in listed}

    @property
    def extractors(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def extractor(self) -> str:
        """The extractor whose scores are asked for: the study's first unless `by` chose another."""
        return self.asked or self.extractors[0]

    @property
    def others(self) -> tuple[str, ...]:
        """All extractors but the one that scores are asked of."""
        return tuple(name for name in self.extractors if name != self.extractor)

    def extractor_of(self, score: str) -> str:
        """The extractor that a score, such as fid or class_agreement, is named after: what needs
        classes is measured once, by the first extractor that was trained on them."""
        if not needs_classes(score):
            return self.extractor
        trained = (name for name, about in self.features.items() if about["kind"] == "trained")
        return next(trained, self.extractors[0])

    def score_name(self, name: str) -> str:
        """The metric of a score as claims and tables call it: fid with the extractor's name behind
        it, fid_pixels as it is."""
        return score_name(name, self.extractor_of(name))

    def score_columns(self, titles: Iterable[str]) -> dict[str, str]:
        """Metrics of scores, such as Class agreement, by the titles of their columns."""
        names = {title: title.lower().replace(" ", "_") for title in titles}
        return {self.label(title): self.score_name(name) for title, name in names.items()}

    def label(self, name: str) -> str:
        """A score's name with its extractor, such as FID (digits64)."""
        return f"{name} ({self.extractor_of(name.lower().replace(' ', '_'))})"
