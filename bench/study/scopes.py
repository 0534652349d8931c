"""Where the results of a study go, and what stands in its folder before the first job.
Imports no torch.

A scope is what is collected and drawn together: the default run (None), all suites ("full"),
or one suite by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .checks import enough_images
from .contents import Contents
from .errors import ConfigError
from .escaping import sentence
from .jobs import Plan
from .load import differ
from .plan import study_name
from .variants import variants_of

What = Literal["figures", "tables"]

ROOT = Path("results")
OURS = Path("workflows/config")  # the studies that come with the project
# of the files of a figure or table; the last one holds its caption
ENDINGS: dict[What, tuple[str, ...]] = {
    "figures": ("png", "svg", "rst"),
    "tables": ("csv", "md", "rst"),
}
OF_SUITE = ("claim", "claims", "published", "measure", "figures", "tables", "tuned_on")
OF_STUDY = ("reduced", "evaluation", "features", "dataset", "train_seeds", "tokenizer_seed")


def known_contents(file: str | Path, trusted: bool) -> Contents:
    """What earlier plans found in the files that a study names. trusted: take their word for it, as
    a job does of the plan that started it. Raises ConfigError for a study without a name."""
    memory = ROOT / study_name(file) / "configs" / "contents.json"
    try:
        sums = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        sums = {}
    return Contents(sums if isinstance(sums, dict) else {}, trusted=trusted)


@dataclass(frozen=True)
class Scopes:
    """The folders of a study.

    choice: whose results figures show: "own", "published", or "auto", which takes published ones
    until this machine has its own; published_suites: the settings of the suites that were
    published, by name.
    """

    plan: Plan
    choice: str = "auto"
    published_suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def study(self) -> str:
        return self.plan.study.study

    @property
    def results(self) -> Path:
        return ROOT / self.study

    @property
    def published(self) -> Path:
        return self.results / "published"

    def folder(self, run_id: str) -> str:
        """The folder of a job."""
        return f"{self.results}/{run_id}"

    # ------------------------------------------------------------ figures and tables

    def place(self, scope: str | None) -> Path:
        """Where the results of a scope go."""
        if scope is None:
            return self.results
        return self.results / "full" if scope == "full" else self.results / "suites" / scope

    def origin_of(self, scope: str | None, own: bool = False) -> Path:
        """Where the figures and tables of a scope come from: this machine's runs, or the published
        rows alone. own: never the latter. Raises ConfigError where published ones are asked for and
        there are none."""
        place, is_published = self.place(scope), (self.published / "metrics.csv").is_file()
        if scope is None and self.choice == "published":
            if not is_published:
                raise ConfigError(
                    f"--config results=published: {self.published} holds no metrics.csv"
                )
            return self.published
        if scope is not None or own or self.choice == "own":
            return place
        return self.published if is_published and not (place / "metrics.csv").is_file() else place

    def outputs(self, what: What, scope: str | None, own: bool = False) -> list[str]:
        """Paths of the figures or tables of a scope, in all their formats."""
        place, names = self.place(scope), self.plan.outputs_of(what, scope)
        if self.origin_of(scope, own) == self.published:
            place, names = self.results / "from_published", self.published_outputs(what)
        return [
            (place / what / f"{name}.{ending}").as_posix()
            for name in names
            for ending in ENDINGS[what]
        ]

    def published_outputs(self, what: What) -> list[str]:
        """Names of the figures or tables that the published rows can make:
        those of the suites that were published."""
        return [
            f"{suite}_{name}"
            for suite, about in self.published_suites.items()
            for name in about[what]
        ]

    def shown(self, what: What, scope: str | None) -> tuple[list[str], list[str]]:
        """The figures or tables of a scope, or of what is published ("published"), and the rules of
        its claims: names of functions."""
        if scope == "published":
            suites = self.published_suites.values()
            names = {name for about in suites for name in about[what]}
            rules = {claim["rule"] for about in suites for claim in about["claims"]}
        else:
            own = [self.plan.study.suites[name] for name in self.plan.suites_of(scope)]
            names = {name for suite in own for name in getattr(suite, what)}
            rules = {claim.rule for suite in own for claim in suite.claims}
        return sorted(names), sorted(rules)

    # ---------------------------------------------- what is written when a study is planned

    def plan_path(self, scope: str | None) -> Path:
        return self.place(scope) / "plan.json"

    def plan_text(self, scope: str | None) -> str:
        """plan.json of a scope: what collect gathers, and what its figures call each variant."""
        study, run_ids = self.plan.described(), self.plan.jobs_of(scope)
        about = {
            "study": self.study,
            "scope": scope,
            "files": self.plan.files,
            "suites": {name: self._suite(name, study) for name in self.plan.suites_of(scope)},
            **{key: study[key] for key in OF_STUDY},
            "folders": {run_id: self.folder(run_id) for run_id in run_ids},
        }
        # a line a key: of longer texts Python's faster encoder makes one line alone
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _suite(self, name: str, study: dict[str, Any]) -> dict[str, Any]:
        """What plan.json says of a suite. study: its settings as the plan describes them."""
        return {
            **{key: study["suites"][name][key] for key in OF_SUITE},
            **self.plan.told_of(name),
            "train_seeds": list(self.plan.study.seeds_of(name)),
            "variants": variants_of(self.plan, name),
            "runs": self.plan.jobs_of(name),
        }

    def about_study(self) -> str:
        """What stands in front of the report: the study, how its numbers are read, where to begin,
        and its file."""
        study, (file, *others) = self.plan.study, self.plan.files
        side, seeds = study.dataset.image_size, ", ".join(map(str, study.train_seeds))
        extractors = " and ".join(f"``{features.name}``" for features in study.features)
        begin = []
        for table in ("scores", "claims"):
            suites = self.plan.suites_of(None)
            having = [name for name in suites if table in study.suites[name].tables]
            begin += [f"``{name}_{table}``" for name in having[:1]]
        more = [f"{len(others) - 2} more"] if len(others) > 2 else []
        others = [*(f"``{other}``" for other in others[:2]), *more]
        parts = [
            f"REDUCED STUDY: {sentence(study.reduced)}" if study.reduced else "",
            f"Study ``{self.study}``: ``{study.dataset.name}`` at {side}x{side} pixels, training "
            f"seeds {seeds}, scores of {study.evaluation.num_images:,} images a seed by "
            f"{extractors}.",
            f"Begin with {' and '.join(begin)} of the tables." if begin else "",
            "A number is a mean over training seeds with the half of its 95 % t-interval. A claim "
            "holds, or not, where the interval of its paired difference excludes 0; else it is "
            "not decided.",
            f"Read from ``{file}``" + (f", which takes {', '.join(others)}." if others else "."),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def about(self) -> Iterator[tuple[Path, str]]:
        """What stands in front of the report, and what is known of the files that the study names:
        path and text."""
        folder = self.results / "configs"
        yield folder / "about.rst", self.about_study()
        if self.plan.contents:
            yield folder / "contents.json", json.dumps(self.plan.contents, indent=1) + "\n"

    def config_of(self, run_id: str) -> tuple[Path, str]:
        """The config of a job: path and text. Its name holds a hash of its content, so that a file,
        once written, is right but for the places of files."""
        told = {"study": self.study, **self.plan.jobs[run_id].about}
        path = self.results / "configs" / f"{run_id}.json"
        return path, json.dumps(told, indent=1) + "\n"

    # ------------------------------------------------------------ what is asked before any work

    @property
    def file_memory(self) -> Path:
        """Names the study file that this folder belongs to."""
        return self.results / "configs" / "study_file.txt"

    def name_clash(self, file: Path) -> str | None:
        """Why another study's tables would be replaced: two studies of one name share a folder, the
        one that ran last, or one that comes with the project. None where there is no other. Raises
        OSError or ValueError where the other file cannot be read or is no study any more."""
        file, others = file.absolute(), [OURS / f"{self.study}.yaml"]
        if self.file_memory.is_file():
            others.insert(0, Path(self.file_memory.read_text(encoding="utf-8").strip()))
        for other in others:
            same = other.absolute() == file
            if same or not other.is_file() or not differ(other, file):
                continue
            if study_name(other) == self.study:
                return (
                    f"{file}: study: {self.study!r}: {other} has this name too, "
                    f"and its tables and figures in {self.results} "
                    "are replaced; give each study a name of its own"
                )
        return None

    def too_few_prepared(self) -> str | None:
        """Why the images that are prepared are too few, as for a study that grew; None where they
        are not, or none are yet."""
        for run_id, job in self.plan.jobs.items():
            about = self.results / run_id / "data.json"
            if not job.needs or not about.is_file():
                continue
            try:
                counts = dict(json.loads(about.read_text(encoding="utf-8")).get("counts", {}))
            except (AttributeError, TypeError, ValueError):
                return f"{about}: is damaged; delete {about.parent} and give the same command again"
            if counts and (problem := enough_images(counts, job.needs)):
                return problem
        return None

    def inputs_of(self, run_id: str) -> dict[str, str]:
        """The folders that a job reads, by role. Raises ConfigError for a job of another study."""
        if run_id not in self.plan.jobs:
            raise ConfigError(f"{run_id}: no job of this study")
        return {role: self.folder(needed) for role, needed in self.plan.jobs[run_id].inputs.items()}
