"""A study whose functions of one's own break their contract is refused before any work."""

import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from bench.pipeline import check
from bench.study.before import names_own, refused_function
from bench.study.plan import load_study
from srdd import (
    balance,
    corruption,
    degradation,
    guidance,
    heads,
    loss,
    masks,
    sampling,
    tokenizer,
)
from srdd import select as rules
from srdd.lookup import PLACES, names_in
from srdd.masks import scale_mask

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
NAN = float("nan")


def add(monkeypatch, module, prefix, function):
    monkeypatch.setattr(module, f"{prefix}_mine", function, raising=False)


def sampler_of(change):
    """A sampler of one's own: VAR's, which may change what it returns."""
    return lambda *asked: change(*sampling.sample_var(*asked))


def study_with(tmp_path, measure="scores", **delta):
    """The smoke study whose main suite has one variant with these settings."""
    study = yaml.safe_load(SMOKE.read_text())
    base = next(iter(study["bases"]))
    suite = {
        "claim": "mine",
        "measure": [measure],
        "variants": {"mine": {"base": base, "delta": delta}},
    }
    study["suites"] = {"main": suite}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def checked(monkeypatch, path):
    """What `python -m bench check` says of a study, here, where the test's functions are."""
    monkeypatch.setattr(sys, "argv", ["check", str(path), "main"])
    try:
        check.main()
    except SystemExit as left:
        return left.code
    return None


def counts_images(denoise, ladder, labels_B, *more):
    """A sampler whose tokens follow from how many images are drawn at once."""
    tokens_BL, _ = sampling.sample_var(denoise, ladder, labels_B, *more)
    tokens_BL = (tokens_BL + len(labels_B)) % 4
    return tokens_BL, ladder.decode(tokens_BL)


FIRST = {
    "mask": (
        masks,
        "mask",
        lambda s: ~scale_mask(s, None),
        {"model.mask": "mine"},
        "mask_mine: lets token 0",
    ),
    "sampler": (
        sampling,
        "sample",
        sampler_of(lambda t, f: t),
        {"sampler.name": "mine"},
        "sample_mine: gives int64",
    ),
    "not even a sampler": (
        sampling,
        "sample",
        lambda *a: [][0],
        {"sampler.name": "mine"},
        "sample_mine: IndexError: .*test_check.py",
    ),
    "chance": (
        sampling,
        "sample",
        sampler_of(lambda t, f: ((torch.rand(t.shape) * 4).long(), f)),
        {"sampler.name": "mine"},
        "sample_mine: gives something else each time",
    ),
    "place in the batch": (
        sampling,
        "sample",
        lambda denoise, ladder, labels_B, noise, config, known=None: sampling.sample_var(
            denoise, ladder, labels_B, sampling.ImageNoise(range(len(labels_B))), config, known
        ),
        {"sampler.name": "mine"},
        "sample_mine: an image depends on its place in the batch",
    ),
    "state of other tokens": (
        sampling,
        "sample",
        sampler_of(lambda t, f: (t, 0.5 * f)),
        {"sampler.name": "mine"},
        "sample_mine: gives a state that is not that of its tokens",
    ),
    "leaves": (
        sampling,
        "sample",
        lambda *a: sys.exit(3),
        {"sampler.name": "mine"},
        "sample_mine: SystemExit: 3 .*test_check.py",
    ),
    "huge ramp": (
        guidance,
        "ramp",
        lambda w, k, K: 1e300,
        {"sampler.cfg_scale": 2.0, "sampler.cfg_ramp": "mine"},
        "ramp_mine: ",
    ),
    "corruption of few": (
        corruption,
        "corrupt",
        lambda t, e, V, g: t.masked_fill(torch.rand(t.shape, generator=g) < e, V + 1),
        {"training.corruption": "mine", "training.eps": 0.001},
        "corrupt_mine: gives tokens 0 ... 17",
    ),
    "rule": (
        rules,
        "select",
        lambda d, u, c: u,
        {
            "sampler.name": "srdd",
            "sampler.refine_steps": 1,
            "sampler.select": "mine",
            "model.mask_prob": 0.5,
        },
        "select_mine: gives float64",
    ),
    "rule of a batch": (
        rules,
        "select",
        lambda d, u, c: (d.probability_Bl < d.probability_Bl.median()) & ~d.fixed_Bl,
        {
            "sampler.name": "srdd",
            "sampler.refine_steps": 1,
            "sampler.select": "mine",
            "model.mask_prob": 0.5,
        },
        "select_mine: an image depends on the others of its batch",
    ),
    "sampler of a batch": (
        sampling,
        "sample",
        counts_images,
        {"sampler.name": "mine"},
        "sample_mine: an image depends on the others of its batch",
    ),
    "confidence": (
        rules,
        "confidence",
        lambda d: d.tokens_Bl,
        {
            "sampler.name": "srdd",
            "sampler.refine_steps": 1,
            "sampler.select": {"name": "static", "confidence": "mine"},
            "model.mask_prob": 0.5,
        },
        "confidence_mine: gives int64",
    ),
    "confidence of a batch": (
        rules,
        "confidence",
        lambda d: d.peak_Bl * torch.arange(len(d.peak_Bl)).double()[:, None].sub(0.5).sign(),
        {
            "sampler.name": "srdd",
            "sampler.refine_steps": 1,
            "sampler.select": {"name": "static", "confidence": "mine"},
            "model.mask_prob": 0.5,
        },
        "confidence_mine: an image depends on its place in the batch",
    ),
    "ramp": (
        guidance,
        "ramp",
        lambda w, k, K: NAN,
        {"sampler.cfg_scale": 2.0, "sampler.cfg_ramp": "mine"},
        "ramp_mine: gives nan",
    ),
    "weight": (
        loss,
        "weigh",
        lambda own, s, V, q: torch.ones(own.shape),
        {"training.mask_weight": "mine", "model.mask_prob": 0.5},
        "weigh_mine: weighs a token that is revealed",
    ),
    "weight of nothing": (
        loss,
        "weigh",
        lambda own, s, V, q: torch.zeros(own.shape),
        {"training.mask_weight": "mine", "model.mask_prob": 0.5},
        "weigh_mine: gives 0 for every token",
    ),
    "weight of a scale": (
        balance,
        "balance",
        lambda s: -torch.ones(s.num_scales, dtype=torch.float64),
        {"training.loss_weight": "mine"},
        "balance_mine: gives a weight that is negative",
    ),
    "corruption": (
        corruption,
        "corrupt",
        lambda t, e, V, g: t.float(),
        {"training.corruption": "mine", "training.eps": 0.1},
        "corrupt_mine: gives float32",
    ),
}


@pytest.mark.parametrize("case", FIRST)
def test_a_study_is_refused_before_any_work(monkeypatch, tmp_path, case):
    """Catches a function whose fault shows after hours of training: a check of the study names it
    in one line."""
    module, prefix, function, delta, words = FIRST[case]
    path = study_with(tmp_path, **delta)
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, module, prefix, function)
    found = checked(monkeypatch, path)
    assert found.startswith(f"error: {PLACES[prefix]}: ") and "\n" not in found
    assert re.search(words, found), found


IMAGES = {
    "nan": (lambda x, seeds, *s: x * NAN, "gives values nan"),
    "another range": (lambda x, seeds, *s: 3 * x, "gives values -"),
    "another shape": (lambda x, seeds, *s: x[..., :4], "gives float32 of shape"),
    "bytes": (lambda x, seeds, *s: x.byte(), "gives uint8"),
    "in place": (lambda x, seeds, *s: x.mul_(0.5), "changes the images that it is given"),
    "chance": (
        lambda x, seeds, *s: (x + 0.1 * torch.randn(x.shape)).clamp(-1, 1),
        "gives something else each time",
    ),
    "place in the batch": (
        lambda x, seeds, *s: x * torch.linspace(1, 0, len(x))[:, None, None, None],
        "an image depends on its place in the batch",
    ),
    "raises": (lambda x, seeds, *s: [][0], "IndexError: .*test_check.py"),
    "nothing": (lambda x, seeds, *s: 0.5 * x, None),
}


@pytest.mark.parametrize("prefix", ["shift", "degrade"])
@pytest.mark.parametrize("case", IMAGES)
def test_a_change_of_images_is_tried_first(monkeypatch, tmp_path, case, prefix):
    """Catches a shift or degradation whose NaN become black, that draws other images in each job,
    or that changes the clean images: found after the trainings or never."""
    function, words = IMAGES[case]
    add(monkeypatch, degradation, prefix, function)
    for place in ("held_out_checks", "restore_settings"):
        monkeypatch.setattr(
            f"bench.study.{place}.names_in", lambda file, kind: [*names_in(file, kind), "mine"]
        )
    path = study_with(tmp_path, "classify" if prefix == "shift" else "restoration_baselines")
    study = yaml.safe_load(path.read_text())
    told = {"classify": {"shifts": ["none", "mine"]}}
    if prefix == "degrade":
        told = {"restoration_baselines": {"degradations": ["noise", "mine"]}}
    study["suites"]["main"] |= told
    path.write_text(yaml.safe_dump(study))
    assert names_own(load_study(path).study, "main")
    said = checked(monkeypatch, path)
    if words is None:
        assert said is None
    else:
        assert re.search(f"^error: srdd/degradation.py: {prefix}_mine: {words}", said), said


def test_networks_of_ones_own_are_tried_first(monkeypatch, tmp_path):
    """Catches a codec or head whose fault shows in its training: docs/extending.md says that each
    is tried once before the first job."""
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, heads, "head", lambda config: torch.nn.Linear(config.width, 3))
    path = study_with(tmp_path, **{"model.head": "mine"})
    assert names_own(load_study(path).study, "main")
    assert "srdd/heads.py: head_mine: weight" in checked(monkeypatch, path)
    nothing = torch.nn.Identity()
    add(monkeypatch, tokenizer, "codec", lambda config: tokenizer.Codec(*[nothing] * 4))
    path = study_with(tmp_path, **{"tokenizer.config.codec": "mine"})
    assert names_own(load_study(path).study, "main")
    assert "srdd/tokenizer.py: codec_mine: gives latents" in checked(monkeypatch, path)


class Shifted(torch.nn.Module):
    """A head whose bias is moved by what it draws when it is made."""

    def __init__(self, config, persistent):
        super().__init__()
        self.own = torch.nn.Linear(config.width, config.codebook_size)
        self.register_buffer("shift_V", torch.randn(config.codebook_size), persistent=persistent)

    @property
    def weight(self):
        return self.own.weight

    @property
    def bias(self):
        return self.own.bias + self.shift_V

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


@pytest.mark.parametrize("kept", [True, False])
def test_a_head_that_forgets_what_it_drew_is_refused(monkeypatch, tmp_path, kept):
    """Catches a network that is scored with other constants than it was trained with."""
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, heads, "head", lambda config: Shifted(config, kept))
    said = checked(monkeypatch, study_with(tmp_path, **{"model.head": "mine"}))
    assert said is None if kept else "head_mine: computes something else once it is saved" in said


class Changed(torch.nn.Linear):
    """A head that does something beside its affine map."""

    def __init__(self, config, change):
        super().__init__(config.width, config.codebook_size)
        self.change = change

    def forward(self, x):
        return self.change(self, super().forward, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda head, linear, x: linear(10 * torch.nn.functional.normalize(x, dim=-1)),
        lambda head, linear, x: 30 * torch.tanh(linear(x) / 30),
        lambda head, linear, x: linear(torch.nn.functional.dropout(x, 0.5, head.training)),
        lambda head, linear, x: linear(x).sum(-1),
    ],
)
def test_a_head_that_is_not_affine_is_refused(monkeypatch, tmp_path, change):
    """Catches a head that is trained by its weight and bias, and sampled and scored by what else it
    does: every number would be of two models."""
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, heads, "head", lambda config: Changed(config, change))
    said = checked(monkeypatch, study_with(tmp_path, **{"model.head": "mine"}))
    assert said.startswith(
        "error: srdd/heads.py: head_mine: computes something else than x W^T + b"
    )


def test_a_head_that_is_one_for_all_models_is_refused(monkeypatch, tmp_path):
    """Catches a teacher and a student, or two variants of a job, that train one head."""
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    made = []

    def shared(config):
        made.append(torch.nn.Linear(config.width, config.codebook_size))
        return made[0]

    add(monkeypatch, heads, "head", shared)
    said = checked(monkeypatch, study_with(tmp_path, **{"model.head": "mine"}))
    assert "srdd/heads.py: head_mine: gives the same weights at each call" in said


def test_a_codec_that_forgets_what_it_drew_is_refused(monkeypatch, tmp_path):
    """Catches images that are decoded with other constants than the tokenizer learnt."""

    def forgets(config):
        codec = tokenizer.codec_conv(config)
        drawn = torch.rand(())
        after = codec.encoder.register_forward_hook(lambda module, given, made: made * drawn)
        assert after is not None
        return codec

    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, tokenizer, "codec", forgets)
    said = checked(monkeypatch, study_with(tmp_path, **{"tokenizer.config.codec": "mine"}))
    assert "codec_mine: computes something else once it is saved" in said


class _Keeps(torch.nn.Identity):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_a_codec_whose_state_no_file_holds_is_refused(monkeypatch, tmp_path):
    """Catches a codec that is trained before it turns out that its state is more than tensors."""
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, tokenizer, "codec",
        lambda config: tokenizer.codec_conv(config)._replace(post_quant=_Keeps()))  # fmt: skip
    said = checked(monkeypatch, study_with(tmp_path, **{"tokenizer.config.codec": "mine"}))
    assert "codec_mine: " in said and "_extra_state" in said, said


def test_a_codec_that_mixes_the_images_of_a_batch_is_refused(monkeypatch, tmp_path):
    """Catches tokens, and all numbers behind them, that depend on how many images are read at
    once; batch statistics that were kept in training are no such fault."""

    def mixes(config, kept):
        codec = tokenizer.codec_conv(config)
        norm = torch.nn.BatchNorm2d(config.codebook_dim, track_running_stats=kept)
        return codec._replace(pre_quant=torch.nn.Sequential(codec.pre_quant, norm))

    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    path = study_with(tmp_path, **{"tokenizer.config.codec": "mine"})
    for kept in (True, False):
        add(monkeypatch, tokenizer, "codec", partial(mixes, kept=kept))
        said = checked(monkeypatch, path)
        assert said is None if kept else "codec_mine: gives an image another result" in said


def test_known_tokens_are_tried_where_a_measure_has_some(monkeypatch, tmp_path):
    """Catches a sampler that loses known tokens, found only after the model of a zero-shot suite is
    trained."""

    def ignores(denoise, ladder, labels_B, noise, config, known=None):
        return (
            sampling.sample_var(denoise, ladder, labels_B, noise, config)
            if known is None
            else _other(ladder, known)
        )

    def _other(ladder, known):
        tokens_BL = (known.tokens_BL + 1) % len(ladder.quantizer.codebook_VC)
        return tokens_BL, ladder.decode(tokens_BL)

    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    add(monkeypatch, sampling, "sample", ignores)
    assert checked(monkeypatch, study_with(tmp_path, **{"sampler.name": "mine"})) is None
    said = checked(monkeypatch, study_with(tmp_path, "zero_shot", **{"sampler.name": "mine"}))
    assert "sample_mine: does not keep the known tokens" in said


def test_torch_is_loaded_only_for_functions_of_ones_own(monkeypatch, tmp_path):
    """Catches a plan that waits for torch without need, and one that starts jobs although the check
    said no."""
    asked = []

    def run(words, **rest):
        asked.append(words)
        return type(
            "Done",
            (),
            {"returncode": 1, "stderr": "noise\nerror: srdd/masks.py: mask_mine: leaks\n"},
        )

    monkeypatch.setattr("bench.study.before.subprocess.run", run)
    plan = load_study(SMOKE)
    assert refused_function(SMOKE, plan, plan.jobs) is None and not asked
    monkeypatch.setattr(
        "bench.study.resolve.names_in", lambda file, prefix: [*names_in(file, prefix), "mine"]
    )
    path = study_with(tmp_path, **{"model.mask": "mine"})
    plan = load_study(path)
    assert refused_function(path, plan, []) is None and not asked, "no job will run"
    assert refused_function(path, plan, plan.jobs) == "srdd/masks.py: mask_mine: leaks"
    assert asked[0][1:] == ["-m", "bench", "check", str(path), "main"]
    # sent to a cluster, snakemake's own Python is quoted for a shell
    refused_function(path, plan, plan.jobs, "/a b/python")
    assert asked[-1][0] == "/a b/python"


def test_the_check_runs_where_snakemake_starts_it(monkeypatch, tmp_path):
    """Catches a check that starts from the folder of the project alone, and one that never says no:
    the process itself, started elsewhere, first with a sound study, then with one that is gone."""
    plan = load_study(SMOKE)
    monkeypatch.setattr("bench.study.before.names_own", lambda study, suite: True)
    monkeypatch.chdir(tmp_path)
    assert refused_function(SMOKE, plan, plan.jobs) is None
    assert refused_function("gone.yaml", plan, plan.jobs) == "gone.yaml: no such file"
