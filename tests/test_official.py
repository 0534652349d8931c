"""Official weights through the whole suite: one study, from .pth files to a table;
what bad files and bad entries get."""

import hashlib
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bench.experiments.distillation.arms import arm_details
from bench.pipeline import metrics
from bench.pipeline.collect import collect
from bench.report.results import Results
from bench.report.view import View
from bench.runtime import verb
from bench.runtime.verbs import stages
from bench.study import rooms
from bench.study.before import missing_files
from bench.study.plan import load_study
from bench.study.variants import variants_of
from official_weights import ABOUT, PARITY, states, var_state
from srdd.checkpoint import load_model, load_tokenizer, save_model
from srdd.config import ModelConfig
from srdd.official import cfg_from_var
from srdd.sampling import generate
from stub_inception import DIM, StubInception
from workflow import planned, snakemake

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "workflows" / "jobs.smk").read_text(encoding="utf-8")


def sum_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_files(root):
    """Images, official weights and a reference file;
    returns what stands for the words in capitals."""
    root.mkdir(exist_ok=True)
    rng, places = np.random.default_rng(0), {"IMAGES": root / "images"}
    for label in range(10):
        for i in range(14):
            path = root / "images" / f"class{label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 25 * (label + 1), (64, 64, 3)).astype(np.uint8)).save(
                path
            )
    for name, state in zip(("VQVAE", "VAR"), states()):
        places[name] = root / f"{name.lower()}.pth"
        torch.save(state, places[name])
    places["STUB"], places["REFERENCE"] = root / "stub.pth", root / "reference.npz"
    places["STUB"].write_bytes(b"stands for Inception")
    arr_0 = rng.integers(0, 256, (120, 64, 64, 3)).astype(np.uint8)
    features = StubInception()(torch.from_numpy(arr_0).permute(0, 3, 1, 2))[0].double().numpy()
    np.savez(
        places["REFERENCE"], arr_0=arr_0, mu=features.mean(0), sigma=np.cov(features, rowvar=False)
    )
    return {
        **places,
        **{f"{name}_SUM": sum_of(path) for name, path in places.items() if path.is_file()},
    }


def write_study(path, places, **changes):
    """The study with its places filled in; keywords replace them."""
    text = (ROOT / "tests" / "studies" / "official.yaml").read_text(encoding="utf-8")
    for key, value in {**places, **changes}.items():
        text = text.replace(key if key.endswith("_SUM") else f"{key}_PLACE", str(value))
    path.write_text(text)
    return path


class Suite:
    """Jobs of a study, carried out in this process by their verbs."""

    def __init__(self, root, plan):
        self.root, self.plan = root, plan

    def run(self, run_id):
        job = self.plan.jobs[run_id]
        config = self.root / "configs" / f"{run_id}.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"study": "official", **job.about}))
        module = importlib.import_module(stages()[job.stage].module)
        words = [
            str(w) for role, needed in job.inputs.items() for w in (f"--{role}", self.root / needed)
        ]
        with pytest.raises(SystemExit) as end:
            verb.main(
                stages()[job.stage].name,
                module.work,
                tuple(job.inputs),
                [str(config), str(self.root / run_id), "--device", "cpu", *words],
            )
        return end.value.code

    def run_all(self):
        done = set()
        while todo := [
            run_id
            for run_id, job in self.plan.jobs.items()
            if run_id not in done and set(job.inputs.values()) <= done
        ]:
            for run_id in todo:
                assert self.run(run_id) == 0, run_id
                done.add(run_id)
        assert done == set(self.plan.jobs)

    def folder(self, stage):
        return next(
            self.root / run_id for run_id in self.plan.jobs if run_id.startswith(f"{stage}/")
        )

    def tables(self):
        """The table of scores and its caption, by the verbs that make them."""
        study, plan = json.loads(self.plan.study.model_dump_json()), self.plan
        suite = {
            **study["suites"]["official"],
            "train_seeds": [0],
            "variants": variants_of(plan, "official"),
        }
        about = {
            "study": "official",
            "scope": None,
            "suites": {"official": {**suite, "runs": plan.jobs_of("official")}},
        }
        about |= {
            key: study[key]
            for key in (
                "reduced",
                "evaluation",
                "features",
                "dataset",
                "train_seeds",
                "tokenizer_seed",
                "latency",
            )
        }
        (self.root / "plan.json").write_text(
            json.dumps({**about, "folders": {run: str(self.root / run) for run in plan.jobs}})
        )
        collect(self.root / "plan.json", self.root / "all")
        results = Results.load(self.root / "all")
        return results, *rooms.function_of("tables", "scores")(View(results, "official"))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def suite(places, tmp_path_factory):
    """The study, carried out."""
    root = tmp_path_factory.mktemp("official")
    patch = pytest.MonkeyPatch()
    patch.setattr(metrics.Extractor, "network", property(lambda self: StubInception()))
    plan = load_study(write_study(root / "official.yaml", places))
    assert missing_files(plan) == []
    made = Suite(root, plan)
    made.run_all()
    patch.undo()
    return made


@torch.no_grad()
def test_what_the_suite_samples_from_is_the_public_var(suite):
    """Catches weights that change on their way through the suite: its files must give the tokens
    that the public code recorded."""
    tokenizer = load_tokenizer(suite.folder("tokenizer") / "tokenizer.safetensors")
    model = load_model(suite.folder("import_model") / "model.safetensors")
    with np.load(PARITY / "var_tiny.npz") as recorded:
        labels, wanted = (
            torch.from_numpy(recorded["labels"]),
            torch.from_numpy(recorded["sampled_tokens_BL"]),
        )
        pixels = torch.from_numpy(recorded["sampled_image"])
    sampler = cfg_from_var(cfg=ABOUT["cfg"], top_k=ABOUT["top_k"])
    tokens_BL, f_hat_BChw = generate(model, tokenizer.at(model.schedule), labels, [0, 1], sampler)
    assert torch.equal(tokens_BL, wanted)
    torch.testing.assert_close(
        tokenizer.to_image(f_hat_BChw).clamp(-1, 1).add(1).mul(0.5), pixels, rtol=0, atol=1e-4
    )


def test_a_fine_tuned_sdd_starts_from_the_official_weights(suite):
    """Catches a student that begins at random, or one that keeps its teacher's mask."""
    student, teacher = (
        load_model(suite.folder(stage) / "model.safetensors")
        for stage in ("distill", "import_model")
    )
    assert (student.config.history, teacher.config.history) == (0, None)
    pairs = [(a, b) for a, b in zip(student.state_dict().values(), teacher.state_dict().values())]
    assert all((a - b).abs().max() < 0.01 for a, b in pairs) and any(
        not torch.equal(a, b) for a, b in pairs
    )


def test_an_imported_model_is_scored_as_a_trained_one(suite):
    """Catches a table that lacks the imported variant, calls it trained, hides what FID is held
    against, or mixes in published numbers."""
    results, table, caption = suite.tables()
    assert set(results.runs["status"]) == {"ok"}
    shown = table.set_index("Variant")
    for variant in ("VAR", "SDD"):
        assert (
            results.score(variant, "official", "fid").mean > 0
            and shown.loc[variant, "Status"] == "ok"
        )
    assert (
        shown.loc["VAR", "Published FID (its own evaluator)"] == "1.25 (nobody)"
        and shown.loc["SDD", "Published FID (its own evaluator)"] == ""
    )
    assert "1.25" not in shown.loc["VAR", "FID (stub64)"]
    for words in (
        "reference.npz, its statistics for FID and its 120 images",
        "VAR: imported weights",
        "never compared with ours",
    ):
        assert words in caption
    assert "SDD: imported" not in caption and "no training image" not in caption


def test_words_of_distillation_know_imported_teachers(suite):
    """Catches a table or caption of students that counts the tokens of a teacher whose training
    nobody saw, or that needs them."""
    results, _, _ = suite.tables()
    words = " ".join(arm_details(View(results, "official")))
    assert "VAR: imported weights, not trained here" in words
    assert (
        "SDD: arm real from an imported teacher, 2 steps, "
        "how many tokens its teacher read is not known" in words
    )
    table, _ = rooms.function_of("tables", "distillation")(View(results, "official"))
    assert table.set_index("Variant").loc["SDD", "Training steps"] == "2"
    assert set(
        table.set_index("Variant").loc[["VAR", "SDD"], "Tokens read in training (million)"]
    ) == {"-"}


def test_no_place_of_a_file_is_published(suite, places):
    """Catches a path of this machine in the settings that a result is known by."""
    for stage in ("import_model", "tokenizer", "distill", "evaluate"):
        row = json.loads((suite.folder(stage) / "row.json").read_text())
        for name in ("VAR", "VQVAE"):
            assert str(places[name]) not in row["config_json"]
    assert (
        places["VAR_SUM"]
        in json.loads((suite.folder("import_model") / "row.json").read_text())["config_json"]
    )


# ---------------------------------------------------------------- names of jobs


def ids(path, places, **changes):
    return set(load_study(write_study(path, places, **changes)).jobs)


def test_a_file_is_known_by_its_sum_and_not_by_its_place(places, tmp_path):
    """Catches a job that runs again because a file was moved,
    and one that does not when the file is another."""
    before = ids(tmp_path / "s.yaml", places)
    assert (
        ids(
            tmp_path / "s.yaml",
            places,
            VAR="hf://FoundationVision/var/var_tiny.pth",
            VQVAE="/elsewhere/v.pth",
        )
        == before
    )
    other = ids(tmp_path / "s.yaml", places, VAR_SUM="a" * 64)
    assert {run.split("/")[0] for run in before ^ other} == {
        "import_model",
        "distill",
        "sample",
        "evaluate",
    }
    other = ids(tmp_path / "s.yaml", places, VQVAE_SUM="a" * 64)
    assert {run.split("/")[0] for run in before & other} == {"prepare", "features"}


def test_a_sum_that_is_not_filled_in_is_asked_for_before_any_job_and_not_when_planning(
    places, tmp_path
):
    """Catches a study with a blank that cannot even be planned,
    or that starts with weights nobody checked."""
    plan = load_study(write_study(tmp_path / "s.yaml", places, VAR_SUM="null", VQVAE_SUM="null"))
    found = missing_files(plan)
    assert any(
        "official.variants.VAR (delta and base).weights: " in line and "needs its sha256" in line
        for line in found
    )
    assert any("distill.teacher.weights" in line for line in found) and any(
        "tokenizer.weights" in line for line in found
    )
    assert missing_files(plan, [run for run in plan.jobs if run.startswith("prepare/")]) == [], (
        "no job that runs reads them"
    )
    plan = load_study(write_study(tmp_path / "s.yaml", places, VAR="hf://a/b/c.pth"))
    assert missing_files(plan) == []
    plan = load_study(write_study(tmp_path / "s.yaml", places, VAR="/nowhere/c.pth"))
    assert "no file at /nowhere/c.pth" in missing_files(plan)[0]


def test_the_workflow_imports_and_refuses_before_any_job(places, tmp_path):
    """Catches a run that starts with weights whose sum is not filled in, a rule that does not find
    its file, or one that looks where the file lay before it was moved."""
    found = {}
    for name, changes in {"blank": {"VAR_SUM": "null"}, "good": {}}.items():
        path = write_study(tmp_path / f"{name}.yaml", places, **changes)
        run_id = next(run for run in load_study(path).jobs if run.startswith("import_model/"))
        row, config = (
            f"results/official/{run_id}/row.json",
            tmp_path / f"results/official/configs/{run_id}.json",
        )
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"files": {"weights": "/where/it/lay/before.pth"}}))
        found[name] = snakemake(ROOT, f"--configfile={path}", "--directory", tmp_path, "--", row)
        assert (tmp_path / row).is_file() == (name != "blank")
    assert (
        found["blank"][0] != 0
        and "needs its sha256" in found["blank"][1]
        and "import_model_job" in planned(found["blank"][1])
    )
    assert found["good"][0] == 0, found["good"][1]


# ---------------------------------------------------------------- bad files


@pytest.fixture
def importing(places, tmp_path, capsys):
    """Runs the import of a file under changed settings; returns its one line."""

    def run(file, sha256="right", stage="import_model", **changes):
        plan = load_study(write_study(tmp_path / "s.yaml", places))
        job = next(job for job in plan.jobs.values() if job.stage == stage)
        right = sum_of(file) if sha256 == "right" else sha256
        part = job.config if stage == "import_model" else job.config["tokenizer"]
        if stage == "import_model":
            part["weights"] = {"file": str(file), "sha256": right}
            part["model"] |= changes
        else:
            part["weights"], part["sha256"] = str(file), right
            part["config"] |= changes
        job.files.clear()
        job.inputs.clear()
        code = Suite(tmp_path, plan).run(job.run_id)
        assert code not in (0, None), "it was taken"
        assert str(code).startswith("error: ") and "\n" not in str(code)
        assert not list(tmp_path.glob(f"{stage}/*/*.safetensors"))
        return str(code)

    return run


def saved(path, content):
    torch.save(content, path)
    return path


class Stranger:
    """An object that a file must not bring in."""


def bad_files(root):
    """Name: (file, words of the one line)."""
    var = states()[1]
    whole = saved(root / "whole.pth", var).read_bytes()
    (root / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (root / "text.pth").write_text("not a file of torch")
    (root / "empty.pth").write_text("")
    save_file({key: value.contiguous() for key, value in var.items()}, root / "really.pth")
    (root / "really.safetensors").write_bytes(whole)
    torch.save({"a": var}, root / "old.pth", _use_new_zipfile_serialization=False)
    less, short = dict(var), dict(var)
    del less["head.bias"]
    short["head.bias"] = short["head.bias"][:-1]
    return {
        "truncated": (root / "cut.pth", ["cut.pth", "damaged"]),
        "text": (root / "text.pth", ["text.pth", "damaged"]),
        "empty": (root / "empty.pth", ["empty.pth"]),
        "objects": (saved(root / "objects.pth", {"a": Stranger()}), ["objects.pth", "objects"]),
        "list": (saved(root / "list.pth", [var]), ["list.pth", "list"]),
        "nested": (root / "old.pth", ["old.pth", "'a'", "flat dict"]),
        "safetensors as pth": (root / "really.pth", ["really.pth", "holds safetensors"]),
        "pth as safetensors": (root / "really.safetensors", ["really.safetensors"]),
        "the other part": (
            saved(root / "vqvae.pth", states()[0]),
            ["vqvae.pth", "word_embed.weight is missing"],
        ),
        "missing key": (saved(root / "less.pth", less), ["less.pth", "missing head.bias"]),
        "extra key": (
            saved(root / "more.pth", {**var, "stranger": torch.zeros(1)}),
            ["more.pth", "unknown stranger"],
        ),
        "whole numbers": (
            saved(root / "whole.pth", {**var, "head.bias": var["head.bias"].long()}),
            ["whole.pth", "head.bias holds torch.int64"],
        ),
        "not finite": (
            saved(root / "nan.pth", {**var, "head.bias": var["head.bias"] / 0}),
            ["nan.pth", "head.bias holds a number that is not finite"],
        ),
        "misshapen": (
            saved(root / "short.pth", short),
            ["short.pth", "head.bias has shape [63]", "[64] expected"],
        ),
    }


BAD = [
    "truncated", "text", "empty", "objects", "list", "nested", "safetensors as pth",
    "pth as safetensors", "the other part", "missing key", "extra key", "whole numbers",
    "not finite", "misshapen",
]  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(importing, tmp_path, case):
    """Catches a bad file that ends as a traceback, as many lines, or as weights."""
    file, words = bad_files(tmp_path)[case]
    line = importing(file)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"depth": 3}, "depth is 2 in the file, 3 asked for"),
        ({"width": 64, "heads": 1}, "heads is 2 in the file, 1 asked for"),
        ({"num_classes": 5}, "num_classes is 10 in the file, 5 asked for"),
        ({"patch_nums": [1, 2, 4]}, "patch_nums is [1, 2, 3, 4] in the file, [1, 2, 4] asked for"),
        ({"shared_adaln": True}, "shared_adaln is False in the file, True asked for"),
        ({"qk_norm": False}, "qk_norm is True in the file, False asked for"),
    ],
)
def test_sizes_that_differ_from_the_study(importing, places, changes, words):
    """Catches a model of other sizes than the study says, or an error that hides the file,
    the key or one of the values."""
    line = importing(places["VAR"], **changes)
    assert words in line and str(places["VAR"]) in line


def test_tokenizers_that_do_not_fit(importing, places, tmp_path):
    """Catches an official VQ-VAE of other sizes, or a file of another kind,
    that becomes a tokenizer."""
    line = importing(places["VQVAE"], stage="tokenizer", codebook_size=32)
    assert "codebook_size is 64 in the file, 32 asked for" in line
    assert "encoder.conv_in.weight is missing" in importing(places["VAR"], stage="tokenizer")
    (tmp_path / "t.safetensors").write_bytes(places["VQVAE"].read_bytes())
    assert "t.safetensors" in importing(tmp_path / "t.safetensors", stage="tokenizer")


def test_a_sum_that_differs_or_is_missing(importing, places):
    """Catches weights that are read before they are known,
    and a refusal that touches the user's file."""
    before = places["VAR"].read_bytes()
    line = importing(places["VAR"], sha256="a" * 64)
    assert places["VAR_SUM"] in line and "a" * 64 in line
    assert "needs its sha256" in importing(places["VAR"], sha256=None)
    assert places["VAR"].read_bytes() == before


def test_weights_of_this_project_are_taken_too(places, tmp_path):
    """Catches a model.safetensors of a training elsewhere that cannot be used,
    or one that is used under other settings."""
    from srdd.official import import_model

    save_model(tmp_path / "m.safetensors", import_model(states()[1]))
    plan = load_study(
        write_study(tmp_path / "s.yaml", places, VAR=tmp_path / "m.safetensors", VAR_SUM="null")
    )
    run_id = next(run for run in plan.jobs if run.startswith("import_model/"))
    assert Suite(tmp_path, plan).run(run_id) != 0, "its drop_path is another"
    save_model(tmp_path / "m.safetensors", import_model(states()[1], drop_path=0.0))
    assert Suite(tmp_path, plan).run(run_id) != 0, "the file is not the one that was planned"
    plan = load_study(tmp_path / "s.yaml")
    run_id = next(run for run in plan.jobs if run.startswith("import_model/"))
    assert Suite(tmp_path, plan).run(run_id) == 0
    assert load_model(tmp_path / run_id / "model.safetensors").config.drop_path == 0


def test_an_older_file_of_torch_in_half_precision(tmp_path):
    """Catches a file that cannot be mapped, or is not float32, and is refused or comes out
    otherwise than it says."""
    from bench.pipeline.import_official import read_pth

    config = ModelConfig(
        patch_nums=(1, 3), codebook_size=5, codebook_dim=2, num_classes=7, depth=1, width=4, heads=1
    )
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in var_state(config).items()
    }
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = read_pth(tmp_path / "old.pth", config)
    assert (
        torch.equal(model.head.weight, state["head.weight"].float())
        and model.head.weight.dtype == torch.float32
    )


def test_a_shared_adaln_model_without_its_schedule(tmp_path):
    """Catches an import verb that only knows the files of depth 16: var_d36-s shares its AdaLN;
    a file may lack lvl_1L."""
    from bench.pipeline.import_official import read_pth

    config = ModelConfig(
        patch_nums=(1, 3),
        codebook_size=5,
        codebook_dim=2,
        num_classes=7,
        depth=1,
        width=4,
        heads=1,
        shared_adaln=True,
        history=0,
    )
    state = var_state(config)
    del state["lvl_1L"], state["attn_bias_for_masking"]
    assert read_pth(saved(tmp_path / "s.pth", state), config).config == config


def test_dimensions_of_the_stub():
    """Catches a stub whose features are not what the study says."""
    assert StubInception()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))[0].shape == (2, DIM)
