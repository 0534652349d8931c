"""Scale distillation: where a student starts, what it learns from, what is refused,
and what its figure and table show."""

import copy
import importlib
import itertools
import json
import math
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_suite import collected
from test_config import edited
from test_verbs import kill_after, start

from bench.experiments.distillation.arms import full_schedule_of, training_tokens
from bench.pipeline.distill import (
    LogitStudent,
    SequenceStudent,
    Student,
    sample_seeds,
    teacher_tokens,
)
from bench.pipeline.labels import class_shares, labels_of
from bench.report.view import View
from bench.runtime.ranks import Ranks
from bench.runtime.verb import Run, main
from bench.runtime.verbs import stages, verbs
from bench.study import rooms
from bench.study.errors import ConfigError
from bench.study.names import unsharpened
from bench.study.plan import load_study
from srdd.checkpoint import load_model
from srdd.config import ModelConfig, SamplerConfig
from srdd.distillation import (
    continued,
    distillation_loss,
    nearest_scales,
    shared_logits,
    shared_scales,
    student_weights,
)
from srdd.model import ScaleTransformer
from srdd.noise import ImageNoise, generator
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule

TEACHER = {"base": "var", "delta": {"model.history": 0}}


# ---------------------------------------------------------------- where a student starts


def student_of(teacher, **changes):
    config = ModelConfig(**{**teacher.config.model_dump(), **changes})
    student = ScaleTransformer(config)
    student.load_state_dict(student_weights(teacher, config))
    return student.eval()


def states(ladder, batch=3):
    tokens = torch.randint(7, (batch, ladder.schedule.seq_len), generator=generator("tokens"))
    return tokens, ladder.teacher_forced_inputs(tokens).detach(), torch.arange(batch)


@pytest.mark.parametrize(
    "changes", [{}, {"mask_prob": 0.5}, {"shared_adaln": True}, {"history": None}], ids=str
)
def test_the_full_schedule_changes_nothing(make_model, make_ladder, changes):
    """Catches a mapping that moves, rescales or forgets a weight: on its own schedule a student is
    its teacher, bit by bit."""
    teacher = make_model(**{"history": 0, **changes})
    student = student_of(teacher)
    _, inputs, labels = states(make_ladder(teacher.schedule))
    assert student.config == teacher.config
    assert student.state_dict().keys() == teacher.state_dict().keys()
    assert torch.equal(student(inputs, labels), teacher(inputs, labels))


def test_a_student_with_masks_starts_as_its_teacher_without(make_model, make_ladder):
    """Catches own embeddings that are drawn: at step 0 the student is its teacher bit by bit,
    whatever own tokens it is shown."""
    teacher = make_model(history=0)
    student = student_of(teacher, mask_prob=1.0)
    tokens, inputs, labels = states(make_ladder(teacher.schedule))
    for own in (
        None,
        tokens,
        tokens.masked_fill(torch.rand(tokens.shape, generator=generator("own")) < 0.5, 7),
    ):
        assert torch.equal(student(inputs, labels, own_BL=own), teacher(inputs, labels))
    student.own_embedding.weight.data += 1.0  # the test of the test: the embedding is read
    assert not torch.equal(student(inputs, labels, own_BL=tokens), teacher(inputs, labels))
    with pytest.raises(
        ValueError, match="mask_prob 0.0: the teacher's is 1.0.*no place for its embedding"
    ):
        student_weights(student, teacher.config)


def test_nothing_to_learn_on_the_full_schedule(make_model, make_ladder):
    """Catches a KL between different things: classes, scales,
    own tokens or the class-free row of teacher and student."""
    teacher = make_model(history=0, mask_prob=0.5)
    student, ladder = student_of(teacher), make_ladder(teacher.schedule)
    tokens, inputs, labels = states(ladder)
    labels[0] = teacher.config.null_label
    logits = student(inputs, labels)
    kl = distillation_loss(logits, shared_logits(teacher.denoiser(), ladder, tokens, labels, 3))
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    sizes = []
    for loss in (kl, entropy):
        grads = torch.autograd.grad(
            loss, list(student.parameters()), retain_graph=True, allow_unused=True
        )
        sizes.append(sum(grad.square().sum().item() for grad in grads if grad is not None) ** 0.5)
    assert abs(kl.item()) < 1e-6 and sizes[0] < 1e-5 * sizes[1]


def coded(make_model, **changes):
    """A teacher whose positions, levels and start say which row they are."""
    teacher = make_model(history=0, **changes)
    with torch.no_grad():
        teacher.position.copy_(
            torch.arange(len(teacher.position))[:, None].expand_as(teacher.position)
        )
        teacher.level_embedding.weight.copy_(
            100.0 + torch.arange(teacher.schedule.num_scales)[:, None]
        )
    return teacher


def test_positions_go_by_side(make_model):
    """Catches rows taken by their place in the sequence instead of by their grid."""
    teacher = coded(make_model)  # 1-2-3: rows 0, 1 to 4, 5 to 13
    weights = student_weights(teacher, teacher.config.model_copy(update={"patch_nums": (1, 3)}))
    assert weights["position"][:, 0].tolist() == [0, *range(5, 14)]
    assert weights["level_embedding.weight"][:, 0].tolist() == [100, 102]
    assert torch.equal(weights["start_position"], teacher.start_position)
    later = student_weights(teacher, teacher.config.model_copy(update={"patch_nums": (2, 3)}))
    assert later["position"][:, 0].tolist() == list(range(1, 14))
    assert torch.equal(later["start_position"], teacher.input.bias.detach().expand(4, -1))
    changed = {"position", "level_embedding.weight", "start_position"}
    assert all(
        torch.equal(later[name], value)
        for name, value in teacher.state_dict().items()
        if name not in changed
    )


def test_a_missing_side_is_resized_from_the_nearest(make_model):
    """Catches a grid that is transposed, cropped or taken from the wrong scale: a plane stays a
    plane under bilinear resizing."""
    assert nearest_scales(ScaleSchedule((1, 2, 4)), ScaleSchedule((1, 3, 4))) == (0, 2, 2)
    assert nearest_scales(ScaleSchedule((1, 2, 4, 8)), ScaleSchedule((5, 8))) == (2, 3)
    teacher = coded(make_model, patch_nums=(1, 2, 4))
    row, column = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    with torch.no_grad():
        teacher.position[5:] = (row + 10 * column).flatten()[:, None]
    weights = student_weights(teacher, teacher.config.model_copy(update={"patch_nums": (1, 3, 4)}))
    centres = [(i + 0.5) * 4 / 3 - 0.5 for i in range(3)]
    expected = torch.tensor([r + 10 * c for r in centres for c in centres])
    torch.testing.assert_close(weights["position"][1:10, 0], expected)
    assert weights["level_embedding.weight"][:, 0].tolist() == [100, 102, 102]
    coarse = make_model(history=0, patch_nums=(2, 4))  # a student that begins before its teacher
    begun = student_weights(coarse, coarse.config.model_copy(update={"patch_nums": (1, 4)}))
    torch.testing.assert_close(begun["start_position"][0], coarse.start_position.mean(0))


def test_other_sizes_are_refused(make_model):
    """Catches weights of another network that are cut to fit."""
    teacher = make_model(history=0)
    for changes, words in (({"width": 32}, "width 32"), ({"depth": 3}, "depth 3")):
        with pytest.raises(ValueError, match=words):
            student_weights(teacher, teacher.config.model_copy(update=changes))


# ------------------------------------------------ what a teacher knows of a student's tokens


class Toy:
    """Images of 1-2-4 tokens that are enumerated, and their perfect teacher.

    Codes of three sizes, one for each scale; phi does nothing. In a scale some tokens are free, by
    a chance that depends on the first token; the others are fixed. So tokens of a scale are
    independent given the state, and the teacher's law is exact.
    """

    def __init__(self, make_ladder):
        self.teacher = make_ladder(
            ScaleSchedule((1, 2, 4)), codebook_size=6, codebook_dim=1, phi_ratio=0.0
        )
        with torch.no_grad():
            self.teacher.quantizer.codebook_VC.copy_(
                torch.tensor([8.0, -8, 2, -2, 0.25, -0.25])[:, None]
            )
        rows, weights = [], []
        for first, free in itertools.product(range(2), itertools.product(range(2), repeat=4)):
            tokens = torch.tensor([first, *[2] * 4, *[4] * 16])
            tokens[torch.tensor([1, 4, 5, 11])] += torch.tensor(free)
            chances = (0.3, 0.6, 0.2, 0.7) if first else (0.8, 0.4, 0.5, 0.1)
            rows.append(tokens)
            weights.append(
                (0.7, 0.3)[first] * math.prod(p if x else 1 - p for p, x in zip(chances, free))
            )
        self.tokens_NL, self.weight_N = (
            torch.stack(rows),
            torch.tensor(weights, dtype=torch.float64),
        )
        with torch.no_grad():
            self.f_NChw = self.teacher.decode(self.tokens_NL)
            assert torch.equal(self.teacher.encode(self.f_NChw)[0], self.tokens_NL), (
                "an image has one row of tokens"
            )
            self.inputs_NLC = self.teacher.teacher_forced_inputs(self.tokens_NL)

    def at(self, sides):
        return self.teacher.quantizer.at(ScaleSchedule(sides))

    def denoise(self, inputs_BlC, k, labels_B):
        """The true chances of the tokens of scale k among the images whose state is nearest to what
        is read."""
        where = self.teacher.schedule.slices[k]
        apart_BN = torch.cdist(inputs_BlC.flatten(1), self.inputs_NLC[:, where].flatten(1))
        same_BN = (apart_BN < apart_BN.amin(1, keepdim=True) + 1e-4).double() * self.weight_N
        hits_NlV = torch.nn.functional.one_hot(self.tokens_NL[:, where], 6).double()
        return torch.einsum("bn,nlv->blv", same_BN / same_BN.sum(1, keepdim=True), hits_NlV).log()


def laws(ladder, tokens_BL, weight_B, target_BLV):
    """What the least loss makes of a student: at each of its states the mean target, by (scale,
    tokens up to there)."""
    found = {}
    for where in ladder.schedule.slices:
        before = [tuple(row) for row in tokens_BL[:, : where.start].tolist()]
        for seen in set(before):
            here = torch.tensor([row == seen for row in before]).double() * weight_B
            found[where.start, seen] = torch.einsum(
                "b,blv->lv", here / here.sum(), target_BLV[:, where]
            )
    return found


def farthest(one, other):
    """The largest total variation of a token between two sets of laws."""
    assert one.keys() == other.keys()
    return max((one[key] - other[key]).abs().sum(-1).max().item() / 2 for key in one)


@pytest.mark.parametrize("sides", [(1, 2, 4), (1, 4), (2, 4), (4,)], ids=str)
@torch.no_grad()
def test_a_perfect_teacher_gives_a_perfect_student(make_ladder, sides):
    """Catches a target that is another variable than the student's token, as the teacher's own
    token after an omitted scale is, and a continuation that forgets the image, its class, or that
    one joint sample fills all later scales."""
    toy, N = Toy(make_ladder), 20_000
    ladder, V = toy.at(sides), 6
    one_hot = lambda tokens: torch.nn.functional.one_hot(tokens, V).double()  # noqa: E731
    real_NL = ladder.encode(toy.f_NChw)[0]
    truth = laws(ladder, real_NL, toy.weight_N, one_hot(real_NL))

    rows = torch.multinomial(toy.weight_N, N, replacement=True, generator=generator("toy"))
    tokens_BL, labels_B, noise = (
        real_NL[rows],
        torch.zeros(N, dtype=torch.int64),
        ImageNoise(range(N)),
    )
    drawn_BL = continued(toy.denoise, toy.teacher, ladder, tokens_BL, labels_B, noise)
    target_BLV, count = one_hot(drawn_BL), shared_scales(toy.teacher, ladder)
    length = sum(ladder.schedule.lengths[:count])
    assert torch.equal(drawn_BL[:, :length], tokens_BL[:, :length])
    if count:
        shared_BlV = shared_logits(toy.denoise, ladder, drawn_BL, labels_B, count)
        target_BLV[:, :length] = shared_BlV.softmax(-1)
    assert farthest(laws(ladder, drawn_BL, torch.ones(N).double(), target_BLV), truth) < 0.02

    # the teacher asked at the student's states, at its own scales of the same sides: exact only
    # where no scale is left out
    asked = zip(sides, ladder.schedule.slices)
    inputs_NLC, k_of = (
        ladder.teacher_forced_inputs(real_NL),
        {side: k for k, side in enumerate((1, 2, 4))},
    )
    zeros = torch.zeros(len(real_NL), dtype=torch.int64)
    own = [
        toy.denoise(inputs_NLC[:, piece], k_of[side], zeros).softmax(-1) for side, piece in asked
    ]
    wrong = farthest(laws(ladder, real_NL, toy.weight_N, torch.cat(own, 1)), truth)
    assert wrong < 1e-5 if sides == (1, 2, 4) else wrong > 0.5


def test_shared_scales_end_before_the_first_difference(make_ladder):
    """Catches scales that are matched by side after one that is omitted, and states that differ
    since another phi follows."""
    ladder = make_ladder(ScaleSchedule((1, 2, 3, 4, 5, 6, 8)))
    count = lambda *sides: shared_scales(ladder, ladder.quantizer.at(ScaleSchedule(sides)))  # noqa: E731
    assert [count(1, 2, 3, 4, 5, 6, 8), count(1, 3, 4, 5, 6, 8), count(2, 3, 8), count(8)] == [
        7,
        1,
        0,
        0,
    ]
    # 1/6 and 1/3 of the way are nearest to different phi: tokens of side 2 agree, the states after
    # them do not
    assert ladder.quantizer.phi_of(1, 7) != ladder.quantizer.phi_of(1, 4)
    assert count(1, 2, 3, 8) == 2


@pytest.mark.parametrize("history", [0, None])
@torch.no_grad()
def test_shared_logits_are_those_of_the_whole_sequence(make_model, make_ladder, history):
    """Catches a teacher that is asked at another scale or state,
    or that forgets what it has seen."""
    teacher = make_model(history=history)
    whole, ladder = make_ladder(teacher.schedule), make_ladder(ScaleSchedule((1, 2, 3)))
    tokens, inputs, labels = states(whole)
    labels[0] = teacher.config.null_label
    found = shared_logits(teacher.denoiser(), ladder, tokens, labels, 2)
    torch.testing.assert_close(found, teacher(inputs, labels)[:, :5])


def test_kl_in_closed_form():
    """Catches the reverse KL, a sum instead of a mean, a base-2 logarithm,
    and a gradient that reaches the teacher."""
    p = torch.tensor([0.5, 0.25, 0.25])
    teacher = torch.stack([p.log() + 3, torch.zeros(3)]).unsqueeze(0).requires_grad_()
    student = torch.zeros(1, 2, 3, requires_grad=True)
    loss = distillation_loss(student, teacher)
    expected = 0.5 * math.log(1.5) + 2 * 0.25 * math.log(0.75)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)
    loss.backward()
    torch.testing.assert_close(student.grad[0, 0], (1 / 3 - p) / 2)
    torch.testing.assert_close(student.grad[0, 1], torch.zeros(3))
    assert teacher.grad is None
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


# ---------------------------------------------------------------- studies


def control(plan):
    names = plan.identities["distillation"]["SDD scratch, patch_nums 1-4"]
    return next(
        job
        for job in plan.jobs.values()
        if job.stage == "train" and job.identity["model"] == names["model"]
    ), names


@pytest.mark.parametrize(
    "teacher", [{}, {"training.batch_size": 24, "training.steps": 40}], ids=["equal", "larger"]
)
def test_the_control_sees_as_many_tokens(tmp_path, teacher):
    """Catches a control that is given less or more than teacher and student together,
    or that reads a teacher after all."""
    entry = {"base": "var", "delta": {"model.history": 0, **teacher}}
    place = "suites/distillation/variants"
    changes = {
        f"{place}/SDD scratch/delta": {
            "model.history": 0,
            "training.steps": 8,
            "distill.arm": "scratch",
            "distill.teacher": entry,
        },
        f"{place}/SDD real/delta": {
            "model.history": 0,
            "training.steps": 8,
            "distill.arm": "real",
            "distill.teacher": entry,
        },
    }
    plan = load_study(edited(tmp_path, **changes))
    job, names = control(plan)
    assert "teacher" not in job.inputs and "distill" not in job.config
    batch, steps = teacher.get("training.batch_size", 16), teacher.get("training.steps", 12)
    wanted = steps * batch * 21 + 8 * 16 * 17  # 1-2-4 has 21 tokens, 1-4 has 17
    seen = job.config["training"]["steps"] * 16 * 17
    assert abs(seen - wanted) <= 16 * 17 / 2
    student = plan.identities["distillation"]["SDD real, patch_nums 1-4"]["settings"]
    assert training_tokens(student) == wanted and training_tokens(names["settings"]) == seen


def test_a_student_reads_the_teacher_of_its_own_seed(tmp_path):
    """Catches a teacher of another training seed, which would pair what is not paired, and a
    teacher that is trained twice."""
    plan = load_study(edited(tmp_path))
    jobs = [job for job in plan.jobs.values() if job.stage == "distill"]
    teachers = {run for run in plan.suites["main"] if run.startswith("train/")}
    assert {job.config["train_seed"] for job in jobs} == {0, 1}
    for job in jobs:
        teacher = plan.jobs[job.inputs["teacher"]]
        assert teacher.run_id in teachers
        assert teacher.config["train_seed"] == job.config["train_seed"]
        assert teacher.config["model"] == job.config["distill"]["teacher"]["model"]
        assert (
            plan.jobs[job.inputs["tokens"]].config["patch_nums"]
            == job.config["model"]["patch_nums"]
        )


PLACE = "suites/distillation/variants"
BAD = {
    "unknown arm": (
        "SDD real",
        {"distill.arm": "reel"},
        {},
        ["distill.arm", "'reel'", "'real'", "scratch"],
    ),
    "another tokenizer": (
        "SDD real",
        {"distill.teacher": {"base": "var", "delta": {"tokenizer.training.steps": 13}}},
        {},
        ["distill.teacher", "tokenizer.training.steps", "13", "12"],
    ),
    "another width": (
        "SDD real",
        {"distill.teacher": {"base": "var", "delta": {"model.width": 32}}},
        {},
        ["model.width 16", "32", "same sizes"],
    ),
    "masks on one side": (
        "SDD sequence",
        {"distill.teacher": {"base": "var", "delta": {"model.mask_prob": 0.5}}},
        {},
        ["mask_prob 0.0", "0.5"],
    ),
    "logits for a student with masks": (
        "SDD logit",
        {"model.mask_prob": 0.5},
        {},
        ["model.mask_prob 0.5", "all own tokens masked", "real"],
    ),
    "weights of no masks": (
        "SDD logit",
        {
            "distill.teacher": {
                "base": "var",
                "delta": {"model.history": 0, "model.mask_prob": 0.5},
            },
            "model.mask_prob": 0.5,
            "training.mask_weight": "elbo",
        },
        {},
        ["training.mask_weight", "'elbo'", "arm logit", "set mask_weight count"],
    ),
    "teacher without class dropout": (
        "SDD logit",
        {
            "distill.teacher": {
                "base": "var",
                "delta": {"model.history": 0, "model.class_dropout": 0.0, "sampler.cfg_scale": 1.0},
            }
        },
        {},
        ["class_dropout 0.1", "no class"],
    ),
    "teacher that is distilled": (
        "SDD real",
        {
            "distill.teacher": {
                "base": "var",
                "delta": {"distill.arm": "real", "distill.teacher": TEACHER},
            }
        },
        {},
        ["distill.teacher", "'real'", "without distill"],
    ),
    "teacher with a grid": (
        "SDD real",
        {"distill.teacher": {"base": "var", "grid": {"model.history": [0, 1]}}},
        {},
        ["distill", "teacher.grid", "model.history", "use delta"],
    ),
    "teacher of no base": (
        "SDD real",
        {"distill.teacher": {"base": "vra"}},
        {},
        ["distill.teacher", "'vra'", "'var'"],
    ),
    "guided twice": (
        "SDD sequence",
        {"distill.guided": True},
        {},
        ["sampler.cfg_scale: 1.5", "is scored with cfg_scale 1.0", "distill.guided"],
    ),
    "cut off twice": (
        "SDD sequence",
        {
            "distill.guided": True,
            "sampler.cfg_scale": 1.0,
            "sampler.top_p": 0.9,
            "distill.teacher": {"base": "var", "delta": {"model.history": 0, "sampler.top_p": 0.8}},
        },
        {},
        ["sampler.top_p: 0.9", "top_p 1.0", "drew them with 0.8"],
    ),
    "guided and real": (
        "SDD real",
        {"distill.guided": True},
        {},
        ["distill.guided: True", "'real'", "'sequence'"],
    ),
    "images that nobody draws": (
        "SDD logit",
        {"distill.num_samples": 64},
        {},
        ["distill.num_samples: 64", "'logit'", "leave it out", "'sequence'"],
    ),
    "images that the control does not draw": (
        "SDD scratch",
        {"distill.num_samples": 64},
        {},
        ["distill.num_samples: 64", "'scratch'", "leave it out"],
    ),
    "no images": ("SDD sequence", {"distill.num_samples": 0}, {}, ["distill.num_samples", "0"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_distillation_is_one_line(case, tmp_path):
    """Catches a distillation that cannot work and would be found out after the teacher is
    trained."""
    variant, delta, grid, words = BAD[case]
    arm = variant.split()[1]
    whole = {"model.history": 0, "distill.arm": arm, "distill.teacher": TEACHER, **delta}
    entry = {"base": "var", "delta": whole, "grid": grid or {"model.patch_nums": [[1, 4]]}}
    path = edited(tmp_path, **{f"{PLACE}/{variant}": entry})
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text and variant in text
    for word in words:
        assert word in text, text


def test_a_teacher_that_names_itself_is_refused(tmp_path):
    """Catches an endless recursion where a base with a distillation is its own teacher."""
    path = edited(tmp_path, **{"bases/var/distill": {"arm": "real", "teacher": {"base": "var"}}})
    with pytest.raises(ConfigError, match="without distill"):
        load_study(path)


# ---------------------------------------------------------------- the verb


class Made:
    """The suite `distillation` of the smoke study with one training seed, run job by job in this
    process; one student diverges."""

    def __init__(self, root: Path) -> None:
        self.root = root
        wild = {
            "training.lr": 1e30,
            "training.clip": 1e30,
            "training.warmup": 0,
            "training.steps": 8,
        }
        wild |= {"distill.arm": "real", "distill.teacher": {"base": "var"}}
        # without the suite that tunes on half of the images
        few = {"train_seeds": [0], "evaluation/num_images": 100, "suites/guidance": ...}
        self.plan = load_study(edited(root, **few, **{f"{PLACE}/VAR real/delta": wild}))
        for run_id in self.in_order():
            code = self.call(run_id)
            assert code == 0, run_id

    def in_order(self):
        todo, done = sorted(self.plan.suites["distillation"]), []
        while todo:
            ready = [
                run_id
                for run_id in todo
                if set(self.plan.jobs[run_id].inputs.values()) <= set(done)
            ]
            done += ready
            todo = [run_id for run_id in todo if run_id not in ready]
        return done

    def words(self, run_id, out=None, **training):
        job = self.plan.jobs[run_id]
        config = json.loads(json.dumps(job.config))
        config.get("training", {}).update(training)
        out = out or self.root / run_id
        path = self.root / "configs" / f"{out.name}.json"
        path.parent.mkdir(exist_ok=True)
        about = {
            "study": "smoke",
            "run_id": run_id,
            "identity": job.identity,
            "inputs": job.inputs,
            "config": config,
        }
        path.write_text(json.dumps(about))
        return [
            path,
            out,
            *(w for role, needed in job.inputs.items() for w in (f"--{role}", self.root / needed)),
        ]

    def call(self, run_id, words=None, *more):
        job = self.plan.jobs[run_id]
        verb = stages()[job.stage].name
        words = [
            *(words or self.words(run_id)),
            "--threads",
            "1",
            "--device",
            "cpu",
            "--record",
            *more,
        ]
        with pytest.raises(SystemExit) as left:
            main(
                verb,
                importlib.import_module(verbs()[verb].module).work,
                tuple(job.inputs),
                [*map(str, words)],
            )
        return left.value.code

    def student(self, arm, sides):
        prefix = f"distill/{arm}-h0-{sides}-s0-"
        return next(run_id for run_id in self.plan.jobs if run_id.startswith(prefix))

    def open(self, run_id, out, **inputs):
        """A Run of a student, whose inputs may be exchanged."""
        config, _, *_ = self.words(run_id, out)
        job = self.plan.jobs[run_id]
        folders = {
            role: inputs.get(role, self.root / needed) for role, needed in job.inputs.items()
        }
        return Run(
            "distill", Namespace(config=config, out=out, device="cpu", **folders), tuple(folders)
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("distill"))


def test_sequence_tokens_come_from_the_teacher(made, tmp_path):
    """Catches an arm that trains on real images, on another schedule's tokens, or on images
    that an evaluation draws."""
    run_id = made.student("sequence", "1.4")
    trainer = SequenceStudent(made.open(run_id, tmp_path / "out"))
    tokens, labels = trainer.tokens["train"], trainer.labels["train"]
    assert tokens.shape == (40, 17) and labels.dtype == np.int64
    data = made.root / made.plan.jobs[run_id].inputs["data"]
    shares = class_shares(np.load(data / "train_labels.npy"), 10)
    assert labels.tolist() == labels_of(range(40), shares, "training").tolist()
    teacher, ladder = trainer.teacher, trainer.ladder
    assert teacher.schedule.patch_nums == (1, 2, 4) and ladder.schedule.patch_nums == (1, 4)
    seeds = sample_seeds(0, 40)
    assert not set(seeds) & set(range(10**6)) and seeds != sample_seeds(1, 40)
    sampler = trainer.about.teacher.sampler
    assert sampler.cfg_scale == 1.0, (
        "the student is guided when it is scored, its teacher must not be too"
    )
    for i in (0, 17, 39):  # one by one: an image depends on its seed, not on its batch
        _, f_hat = generate(
            teacher,
            ladder.quantizer.at(teacher.schedule),
            torch.from_numpy(labels[[i]]),
            [seeds[i]],
            sampler,
        )
        assert ladder.encode(f_hat)[0][0].tolist() == tokens[i].tolist()


def test_the_teachers_images_have_the_shares_of_the_training_split(made, tmp_path):
    """Catches a student that learns every class equally often where its teacher did not."""
    run_id = made.student("sequence", "1.4")
    shutil.copytree(made.root / made.plan.jobs[run_id].inputs["data"], tmp_path / "data")
    real = np.load(tmp_path / "data" / "train_labels.npy")
    rare = np.where(np.arange(len(real)) % 20, 3, 7)
    np.save(tmp_path / "data" / "train_labels.npy", rare)
    labels = SequenceStudent(made.open(run_id, tmp_path / "out", data=tmp_path / "data")).labels[
        "train"
    ]
    assert labels.tolist() == labels_of(range(40), class_shares(rare, 10), "training").tolist()
    assert set(labels) == {3, 7} and 1 <= (labels == 7).sum() <= 3


def shuffled(folder: Path, out: Path, splits) -> Path:
    """A copy of encoded tokens in which some splits hold others."""
    out.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".npy":
            array = np.load(path)
            np.save(
                out / path.name, (array + 3) % 16 if path.name.split("_")[0] in splits else array
            )
    return out


@pytest.mark.parametrize(
    "arm, kind, unread",
    [
        ("real", Student, ("val", "test")),
        ("logit", LogitStudent, ("val", "test")),
        ("sequence", SequenceStudent, ("val", "test", "train")),
    ],
)
def test_no_held_out_image_is_trained_on(made, tmp_path, arm, kind, unread):
    """Catches a step that reads the validation or test split, or, in the arm sequence,
    any real image."""
    run_id = made.student(arm, "1.4")
    tokens = made.root / made.plan.jobs[run_id].inputs["tokens"]
    weights = []
    for name, splits in (
        ("as_they_are", ()),
        ("unread_changed", unread),
        ("read_changed", ("train",)),
    ):
        other = shuffled(tokens, tmp_path / name, splits)
        trainer = kind(made.open(run_id, tmp_path / f"{name}_out", tokens=other))
        for _ in range(3):
            trainer.step()
            trainer.state.step += 1
        weights.append(trainer.model.state_dict())
    same = [
        all(torch.equal(weights[0][name], other[name]) for name in other) for other in weights[1:]
    ]
    assert same == [True, arm == "sequence"]


def test_the_teacher_stays_as_it_is(made, tmp_path):
    """Catches a gradient or an optimizer step that reaches the teacher,
    and a student that does not move."""
    trainer = LogitStudent(made.open(made.student("logit", "2.4"), tmp_path / "out"))
    before = {name: value.clone() for name, value in trainer.teacher.state_dict().items()}
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for _ in range(2):
        trainer.step()
        trainer.state.step += 1
    assert all(
        torch.equal(value, before[name]) for name, value in trainer.teacher.state_dict().items()
    )
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in trainer.teacher.parameters()
    )
    assert not torch.equal(trainer.model.head.weight, start["head.weight"])


def test_parts_of_a_batch_add_up_to_its_losses(made, tmp_path):
    """Catches a student whose micro-batches, or processes, weigh otherwise than its whole batch."""
    trainer = LogitStudent(made.open(made.student("logit", "2.4"), tmp_path / "out"))
    batch = trainer.batch(0)
    parts = [trainer.loss(batch.part(slice(i, i + 4))) for i in range(0, 16, 4)]
    for whole, shares in zip(trainer.loss(batch), zip(*parts)):
        torch.testing.assert_close(sum(shares), whole)


def test_logit_batches_continue_real_images(made, tmp_path):
    """Catches tokens beyond the shared scale that are real, frozen, or others after a resume; a
    shared one that is not real; a process that asks the teacher for the images of another."""
    trainer = LogitStudent(made.open(made.student("logit", "1.4"), tmp_path / "out"))
    rows = torch.from_numpy(trainer.tokens["train"][:16].astype(np.int64))
    draw = lambda step: trainer.draw(rows, torch.arange(16) % 11, generator("test", step)).tokens_BL  # noqa: E731
    first, again, other = draw(0), draw(0), draw(1)
    assert (
        torch.equal(first, again)
        and (first[:, 0] == rows[:, 0]).all()
        and (other[:, 0] == rows[:, 0]).all()
    )
    assert not (first == rows).all(1).any() and not (first == other).all(1).any()
    trainer.ranks = Ranks()
    trainer.ranks.rank, trainer.ranks.world = 1, 2
    half = draw(0)
    assert torch.equal(half[8:], first[8:]) and torch.equal(half[:8], rows[:8])


def test_processes_share_the_teachers_images(made, tmp_path):
    """Catches a teacher's image that two processes draw, or none, or one that is another's."""
    trainer = SequenceStudent(made.open(made.student("sequence", "1.4"), tmp_path / "out"))
    tokens, labels = trainer.tokens["train"], trainer.labels["train"]
    found, asked = [], torch.from_numpy(labels)
    for rank in range(3):
        ranks = Ranks()
        ranks.rank, ranks.world = rank, 3
        sampler = trainer.about.teacher.sampler
        found.append(
            teacher_tokens(
                trainer.teacher,
                trainer.ladder,
                sampler,
                asked,
                sample_seeds(0, 40),
                "teacher",
                ranks,
            )
        )
    assert np.array_equal(sum(found), tokens) and all(part.any() for part in found)


def test_arm_real_starts_from_its_teacher(made, tmp_path):
    """Catches a student that starts from drawn weights,
    which would make distillation a plain training."""
    run_id = made.student("real", "1.4")
    trainer = Student(made.open(run_id, tmp_path / "out"))
    teacher = load_model(made.root / made.plan.jobs[run_id].inputs["teacher"] / "model.safetensors")
    wanted = student_weights(teacher, trainer.model_config)
    assert all(
        torch.equal(value, wanted[name]) for name, value in trainer.model.state_dict().items()
    )
    saved = load_model(made.root / run_id / "model.safetensors")
    assert saved.config.patch_nums == (1, 4) and not torch.equal(
        saved.head.weight, teacher.head.weight
    )


def test_killed_distillation_resumes_bit_by_bit(made, tmp_path):
    """Catches a resumed student that starts from its teacher again,
    or whose teacher's images are others than before."""
    run_id = made.student("sequence", "1.4")
    assert made.call(run_id, made.words(run_id, tmp_path / "whole", steps=48)) == 0
    words = made.words(run_id, tmp_path / "killed", steps=48)
    kill_after(start("distill", *words), words[1] / "resume.safetensors")
    assert not (words[1] / "row.json").exists(), "killed too late: the test proves nothing"
    assert made.call(run_id, words) == 0
    whole = tmp_path / "whole"
    assert (words[1] / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    rows = [
        [x for x in (f / "metrics.csv").read_text().splitlines() if "seconds" not in x]
        for f in (whole, words[1])
    ]
    assert rows[0] == rows[1]
    assert sorted(p.name for p in words[1].glob("snapshots/*")) == sorted(
        p.name for p in whole.glob("snapshots/*")
    )
    assert not (words[1] / "resume.safetensors").exists()


def test_another_teacher_is_not_taken_for_the_one(made, tmp_path):
    """Catches a teacher's file of other settings than the config names."""
    run_id = made.student("real", "1.4")
    words = made.words(run_id, tmp_path / "out")
    words[words.index("--teacher") + 1] = made.root / run_id  # a student of 1-4
    assert "patch_nums" in made.call(run_id, words)


# ---------------------------------------------------------------- figure and table


@pytest.fixture(scope="module")
def results(made):
    """What collect makes of the suite."""
    return collected(made.plan, "distillation", made.root, train_seeds=[0])


def test_a_student_is_held_against_the_same_model(results):
    """Catches a difference of two things: another window or state beside another schedule."""
    view = View(results, "distillation")
    assert full_schedule_of(view, "SDD logit, patch_nums 1-4") == "SDD"
    assert full_schedule_of(view, "VAR real, patch_nums 1-4") == "VAR"
    for key, value in (("window", 1), ("history_vector", 2), ("state", "last"), ("depth", 9)):
        names = copy.deepcopy(view.variants["SDD logit, patch_nums 1-4"])
        names["settings"]["model"][key] = value
        variants = {**view.variants, "student": names}
        assert full_schedule_of(Namespace(variants=variants), "student") is None, key
    longer = copy.deepcopy(view.variants["SDD"])
    longer["settings"]["training"]["steps"] *= 2
    twice = Namespace(variants={**view.variants, "SDD longer": longer})
    assert full_schedule_of(twice, "SDD logit, patch_nums 1-4") is None, "one of two"
    assert full_schedule_of(twice, "SDD longer") == "SDD longer"


def test_a_student_that_is_named_by_itself_is_no_full_schedule(results):
    """Catches a student of fewer scales that is called full, beside which no other student of its
    model has a difference."""
    view, alone = View(results, "distillation"), "SDD real, patch_nums 1-4"
    variants = copy.deepcopy(dict(view.variants))
    variants[alone]["grid"] = {}
    of = Namespace(variants=variants)
    assert full_schedule_of(of, alone) == "SDD"
    assert full_schedule_of(of, "SDD logit, patch_nums 1-4") == "SDD"


def test_missing_numbers_have_the_status_of_the_distillation(results):
    """Catches a distilled model whose run is not found by its settings,
    so that a failure reads as `not run`."""
    seen = set()
    for variant, names in results.variants("distillation").items():
        stages = set(results.jobs_of(names, 0)["stage"])
        assert (
            "distill" if "distill" in names["settings"] else "train"
        ) in stages and "sweep" in stages, variant
        missing = results.missing(variant, "distillation", "fid_digits16")
        seen |= {variant} if missing else set()
        assert all("diverged" in why and "distill" not in why for why in missing.values())
    assert seen == {"VAR real, patch_nums 1-4"}


def test_table_names_every_student(results):
    """Catches a student that is left out, a failed one that reads as 0,
    and cost or difference of another variant."""
    table, caption = rooms.function_of("tables", "distillation")(View(results, "distillation"))
    rows = {(row["Variant"], row["Schedule"]): row for row in table.to_dict("records")}
    # floor, reconstruction of 1-2-4, 1-4, 2-4
    assert len(rows) == len(results.variants("distillation")) + 1 + 3
    lost, kept, full = rows["VAR real", "1-4"], rows["SDD logit", "1-4"], rows["SDD", "1-2-4"]
    assert (
        lost["FID (digits16)"] == lost["NFE"] == "-"
        and "diverged" in lost["Status"]
        and kept["Status"] == "ok"
    )
    fid = "FID (digits16)"
    difference = kept["FID (digits16) minus full schedule, paired"].numbers["mean"]
    assert difference == pytest.approx(kept[fid].numbers["mean"] - full[fid].numbers["mean"])
    assert full["FID (digits16) minus full schedule, paired"] == "full"
    # 1-4 has scale 0 once and scale 1 with guidance: 1 + 2 calls, 1 + 2 x 16 tokens
    assert (kept["NFE"], kept["Token evals"]) == ("3", "33")
    times = {
        rows[arm, "1-4"]["Time per image (ms)"] for arm in ("SDD real", "SDD logit", "SDD scratch")
    }
    assert len(times) == 1 and "-" not in times, "the same sizes were timed once"
    assert "N = 100" in caption and "digits16" in caption


def test_figure_shows_every_arm_and_says_what_is_missing(results):
    """Catches an arm, teacher or floor that is not drawn,
    and a missing number that is drawn as 0."""
    figure, caption = rooms.function_of("figures", "distillation")(View(results, "distillation"))
    left, right = figure.axes
    labels = left.get_legend_handles_labels()[1]
    assert {
        "SDD real",
        "SDD sequence",
        "SDD logit",
        "SDD scratch",
        "SDD, 1-2-4",
        "VAR, 1-2-4",
    } <= set(labels)
    assert "VAR real" not in labels and any("floor" in label for label in labels)
    assert "VAR real" in figure.get_suptitle() and "diverged" in figure.get_suptitle()
    assert [tick.get_text().split("\n")[0] for tick in left.get_xticklabels()] == ["1-4", "2-4"]
    logit = next(c for c in left.containers if c.get_label() == "SDD logit").lines[0].get_ydata()
    wanted = [
        results.score(f"SDD logit, patch_nums {s}", "distillation", "fid").mean
        for s in ("1-4", "2-4")
    ]
    assert np.allclose(logit, wanted) and min(wanted) > 0
    sequence = (
        next(c for c in left.containers if c.get_label() == "SDD sequence").lines[0].get_ydata()
    )
    assert math.isfinite(sequence[0]) and math.isnan(sequence[1]), (
        "a schedule without a variant is a gap"
    )
    assert right.get_ylabel().startswith("IS (digits16)")
    assert "40 images of the teacher, drawn without guidance" in caption and "N = 100" in caption
    assert (
        "Students of 2-4 share no first scale" in caption
        and "KL to the teacher at the scales" in caption
    )


@pytest.mark.parametrize(
    "more", [{"sr_steps": 2}, {"refine_steps": 1}, {"refine_steps": 1, "select": "lowest"}]
)
def test_a_teacher_that_truncates_draws_what_it_learnt(more):
    """Catches a student taught from truncated samples where its study says unguided."""
    sampler = SamplerConfig(name="srdd", cfg_scale=2.0, **more)
    found = unsharpened(sampler)
    assert (found.cfg_scale, found.sr_steps, found.refine_steps) == (1.0, 0, 0)
    unbiased = SamplerConfig(name="srdd", refine_steps=3, select="shuffled")
    assert unsharpened(unbiased) == unbiased
