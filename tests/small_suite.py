"""A suite of the smoke study whose jobs run in this process, and what collect makes of them."""

import importlib
import json

import pandas as pd
import pytest

from bench.pipeline import collect
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.verb import main
from bench.runtime.verbs import stages, verbs
from bench.study.plan import load_study
from bench.study.variants import variants_of

KEYS = (
    "study", "reduced", "evaluation", "features", "dataset", "train_seeds", "tokenizer_seed",
    "latency",
)  # fmt: skip


class SmallSuite:
    """The jobs of a suite, run in this process."""

    def __init__(self, root, name, study):
        self.root, self.name, self.plan = root, name, load_study(study)
        self.jobs = {run_id: self.plan.jobs[run_id] for run_id in self.plan.suites[name]}
        done = set()
        while len(done) < len(self.jobs):
            for run_id, job in self.jobs.items():
                if run_id not in done and set(job.inputs.values()) <= done:
                    assert self.call(run_id) == 0, run_id
                    done.add(run_id)

    def words(self, run_id, out, **training):
        """What the verb of a job is told, with another training where that is asked for."""
        job = self.jobs[run_id]
        about = json.loads(json.dumps(job.about))
        about["config"].get("training", {}).update(training)
        path = self.root / "configs" / f"{out.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"study": "smoke", **about}))
        inputs = [w for role, read in job.inputs.items() for w in (f"--{role}", self.root / read)]
        return [*map(str, (path, out, *inputs, "--threads", 1, "--device", "cpu", "--record"))]

    def call(self, run_id, out=None, **training):
        """Run a job, elsewhere or with another training where that is asked for."""
        job, words = self.jobs[run_id], self.words(run_id, out or self.root / run_id, **training)
        verb = stages()[job.stage].name
        work = importlib.import_module(verbs()[verb].module).work
        with pytest.raises(SystemExit) as left:
            main(verb, work, tuple(job.inputs), words)
        return left.value.code

    def of(self, stage):
        return [run_id for run_id, job in self.jobs.items() if job.stage == stage]

    def rows(self, run_id):
        return pd.read_csv(self.root / run_id / "metrics.csv")

    def results(self):
        """What collect makes of the suite."""
        return collected(self.plan, self.name, self.root)

    def view(self):
        return View(self.results(), self.name)


def collected(plan, name, root, **changes):
    """The results of a suite whose jobs lie below a folder, as collect writes them; changes: of
    what it says of the suite."""
    study, runs = json.loads(plan.study.model_dump_json()), sorted(plan.suites[name])
    about = {**study["suites"][name], "variants": variants_of(plan, name), "runs": runs, **changes}
    told = {
        "scope": name,
        "suites": {name: about},
        "folders": {run_id: str(root / run_id) for run_id in runs},
        **{key: study[key] for key in KEYS},
    }
    (root / "plan.json").write_text(json.dumps(told))
    collect.collect(root / "plan.json", root / "collected")
    return Results.load(root / "collected")
