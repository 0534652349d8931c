"""A job, and the plan of a study: its jobs and which of them each suite needs. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from . import rooms
from .names import config_hash, credit_of, known_dataset, known_features, paths_of, whole
from .schema import Study
from .settings import WeightsConfig


@dataclass(frozen=True)
class Job:
    """One run of one verb: what it is told (config), the jobs whose folders it reads (inputs, by
    role), and the names that its numbers carry (identity, which follows from the config). files:
    weights that it reads, by key; paths: other files of the study that it reads, by key; needs:
    images that each split must have for what the study measures.
    None of these is part of its name."""

    stage: str
    config: dict[str, Any] = field(hash=False)
    inputs: dict[str, str] = field(hash=False)
    slug: str = ""
    identity: dict[str, str] = field(default_factory=dict, hash=False)
    files: dict[str, WeightsConfig] = field(default_factory=dict, hash=False)
    paths: dict[str, str] = field(default_factory=dict, hash=False)
    needs: dict[str, int] = field(default_factory=dict, hash=False)

    @property
    def about(self) -> dict[str, Any]:
        """What its verb reads."""
        places = {key: weights.file for key, weights in self.files.items()} | self.paths
        more: dict[str, Any] = {"files": places} if places else {}
        more |= {"needs": self.needs} if self.needs else {}
        return {
            "run_id": self.run_id,
            "identity": self.identity,
            "inputs": self.inputs,
            "config": self.config,
            **more,
        }

    @cached_property
    def run_id(self) -> str:
        name = f"{self.slug}-" if self.slug else ""
        return f"{self.stage}/{name}{config_hash(self.config)}"


@dataclass
class Plan:
    """A study, its jobs by run_id, and which of them each suite needs."""

    study: Study
    jobs: dict[str, Job] = field(default_factory=dict)
    suites: dict[str, set[str]] = field(default_factory=dict)
    identities: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # that the study was read from, its own first
    # what is legal and hardly meant, to be said once before any work
    warnings: list[str] = field(default_factory=list)
    # suites that the default run takes in beside those that are core
    also: frozenset[str] = frozenset()

    def add(self, suite: str, job: Job) -> str:
        job.paths.update(paths_of(self.study, job.config))
        self.jobs[job.run_id] = job
        self.suites.setdefault(suite, set()).add(job.run_id)
        for run_id in job.inputs.values():
            self.suites[suite].add(run_id)
        return job.run_id

    @property
    def contents(self) -> dict[str, str]:
        """What is known of the files that the study names, by path."""
        return dict(self.study._contents.digests)

    def described(self) -> dict[str, Any]:
        """The settings of the study with its files by content and name, and not by their place."""
        study, described = self.study, []
        for features in study.features:
            described.append(whole(known_features(study, features)))
            if features.reference is not None:
                described[-1]["reference"] = Path(features.reference).name
        dataset = whole(known_dataset(study)) | {"credit": credit_of(study.dataset)}
        return {**whole(study), "dataset": dataset, "features": described}

    def told_of(self, suite: str) -> dict[str, Any]:
        """What each measure of a suite is told, by room, for those that can be told something."""
        measured = self.study.suites[suite].measure
        return {
            room: whole(self.study.told(suite, room))
            for room in rooms.with_settings()
            if room in measured
        }

    def suites_of(self, scope: str | None) -> list[str]:
        """Names of the suites of a scope, in the order of the study: one, all ("full"), or those of
        the default run (None): the core ones and `also`."""
        return [
            name
            for name, suite in self.study.suites.items()
            if scope in (name, "full") or (scope is None and (suite.core or name in self.also))
        ]

    def jobs_of(self, scope: str | None) -> list[str]:
        """run_ids of a scope."""
        return sorted(set().union(*(self.suites[name] for name in self.suites_of(scope))))

    def outputs_of(self, what: Literal["figures", "tables"], scope: str | None) -> list[str]:
        """Names of the figures or tables of a scope, in the order of the study: <suite>_<name>."""
        return [
            f"{suite}_{name}"
            for suite in self.suites_of(scope)
            for name in getattr(self.study.suites[suite], what)
        ]
