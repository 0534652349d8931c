"""Alignment of a model with its classes (CCA, arXiv 2410.09347): the loss, what a step reads, what
is kept and reported, what is refused."""

import csv
import itertools
import json
import math
from importlib import import_module

import numpy as np
import pytest
import torch
import yaml
from test_config import edited
from test_distill import Made
from test_ranks import finish, several, torchrun
from test_verbs import kill_after, start

from bench.pipeline import collect
from bench.pipeline.artefacts import snapshot_path
from bench.pipeline.distill import CcaStudent, ControlStudent, log_likelihood
from bench.pipeline.held_out import one_pass_loss
from bench.report.results import Results
from bench.report.view import View
from bench.study import rooms
from bench.study.errors import ConfigError
from bench.study.plan import load_study
from bench.study.variants import variants_of
from srdd.checkpoint import load_model
from srdd.loss import cca_loss
from srdd.noise import generator

# ---------------------------------------------------------------- the loss


def rewards(B=6):
    draw = generator("cca")
    logp, ref = torch.randn(2, 2, B, generator=draw, dtype=torch.float64).unbind(0)
    positive = torch.ones(2, B, dtype=torch.bool)
    positive[1] = torch.tensor([0, 1, 0, 0, 1, 0]).bool()
    return logp, ref, positive


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0, 50.0])
def test_the_loss_at_the_start_is_known(lambda_):
    """Catches another normalisation: while the model is its reference, every sigmoid is a half."""
    logp, _, positive = rewards()
    weight = torch.where(positive[1], 1.0, lambda_).double()
    wanted = (1 + weight.mean().item()) * math.log(2) / max(lambda_, 1)
    found = cca_loss(logp, logp.clone(), positive, 0.45, lambda_).item()
    assert found == pytest.approx(wanted, rel=1e-12)


def test_the_loss_image_by_image():
    """Catches a wrong sign, a negative that weighs 1, a positive in the second row that weighs
    lambda, a mean over both rows."""
    logp, ref, positive = rewards()
    beta, lambda_, total = 0.7, 5.0, 0.0
    for i in range(6):
        first, second = (beta * (logp[row, i] - ref[row, i]).item() for row in (0, 1))
        total -= math.log(1 / (1 + math.exp(-first)))
        sign, weight = (1, 1.0) if positive[1, i] else (-1, lambda_)
        total -= weight * math.log(1 / (1 + math.exp(-sign * second)))
    found = cca_loss(logp, ref, positive, beta, lambda_).item()
    assert found == pytest.approx(total / 6 / lambda_, rel=1e-12)


def test_only_the_model_is_moved():
    """Catches a gradient that reaches the reference; with lambda 0 one of a wrong class, and with
    more none."""
    for lambda_ in (0.0, 5.0):
        logp, ref, positive = rewards()
        logp.requires_grad_(), ref.requires_grad_()
        cca_loss(logp, ref, positive, 0.45, lambda_).backward()
        assert ref.grad is None
        assert (logp.grad[positive] < 0).all()
        wrong = logp.grad[~positive]
        assert (wrong == 0).all() if lambda_ == 0 else (wrong > 0).all()


@pytest.mark.parametrize("history", [0, None])
def test_the_gradient_at_the_start(make_model, make_ladder, history):
    """Catches a loss that is not beta/2 times the likelihood of own classes minus that of wrong
    ones: what it is, to first order, in the weights of a network."""
    model = make_model(history=history)
    ladder = make_ladder(model.schedule)
    tokens = torch.randint(7, (4, 14), generator=generator("tokens"))
    given = ladder.teacher_forced_inputs(tokens).detach(), tokens
    labels = torch.tensor([[0, 1, 2, 1], [1, 0, 2, 3]])
    positive = labels == labels[0]
    positive[1, 3] = True
    beta, lambda_ = 0.45, 5.0
    log_p = log_likelihood(model.hidden, model.head, *given, labels)
    weights = [one for one in model.parameters() if one.requires_grad]
    loss = cca_loss(log_p, log_p.detach(), positive, beta, lambda_)
    share = torch.where(positive, 1.0, -lambda_).double()
    first_order = -(beta / 2) * (share * log_p).mean(1).sum() / max(lambda_, 1)
    found = torch.autograd.grad(loss, weights, retain_graph=True)
    wanted = torch.autograd.grad(first_order, weights)
    assert any(one.abs().max() > 1e-3 for one in wanted)
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("history", [0, None])
@torch.no_grad()
def test_likelihoods_of_all_images_sum_to_one(make_model, make_ladder, history):
    """Catches a likelihood that is a mean, of a masked or shifted token, or of another class, by
    enumeration of every image of two scales and two codes."""
    model = make_model(history=history, patch_nums=(1, 2), codebook_size=2)
    ladder = make_ladder(model.schedule, codebook_size=2)
    tokens = torch.tensor(list(itertools.product(range(2), repeat=5)))
    labels = torch.arange(4)[:, None].expand(4, len(tokens))  # the last is no class
    given = ladder.teacher_forced_inputs(tokens), tokens
    log_p = log_likelihood(model.hidden, model.head, *given, labels)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4).double(), rtol=1e-6, atol=0)
    assert (log_p[0] - log_p[1]).abs().max() > 0.1


# ---------------------------------------------------------------- what a step reads

SUITE = "suites/distillation"
TEACHER = {"base": "var", "delta": {"model.history": 0}}
TRAINED = {
    "model.history": 0,
    "training.steps": 48,
    "training.snapshot_every": 12,
    "training.lr": 0.01,
    "distill.teacher": TEACHER,
}


def study(root, name="CCA", changes=None, **more):
    """The smoke study with CCA and its control; `changes` are of the delta of one variant."""
    variants = {
        "SDD": TEACHER,
        "CCA": {"base": "var", "delta": {**TRAINED, "distill.arm": "cca"}},
        "control": {"base": "var", "delta": {**TRAINED, "distill.arm": "cross_entropy"}},
    }
    variants[name] = {"base": "var", "delta": {**variants[name]["delta"], **(changes or {})}}
    few = {"train_seeds": [0], "evaluation/num_images": 100, "suites/guidance": ...}
    quiet = {f"{SUITE}/figures": [], f"{SUITE}/tables": [], f"{SUITE}/measure": ["scores"]}
    return edited(root, **few, **quiet, **{f"{SUITE}/variants": variants}, **more)


class Aligned(Made):
    """A teacher, its alignment and the control, trained in this process."""

    def __init__(self, root):
        self.root, self.plan = root, load_study(study(root))
        wanted = ("prepare", "tokenizer", "encode", "train", "distill")
        for run_id in self.in_order():
            if run_id.split("/")[0] in wanted:
                assert self.call(run_id) == 0, run_id

    def of(self, arm):
        return self.student(arm, "1.2.4")

    def rows(self, arm, metric):
        path = self.root / self.of(arm) / "metrics.csv"
        rows = [row for row in csv.DictReader(open(path)) if row["metric"] == metric]
        return {int(row["step"] or -1): float(row["value"]) for row in rows}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Aligned(tmp_path_factory.mktemp("cca"))


@pytest.fixture
def trainer(made, tmp_path):
    return CcaStudent(made.open(made.of("cca"), tmp_path / "out"))


def test_classes_roll_over_the_whole_batch(trainer):
    """Catches a wrong class from within a part of the batch, and a class that is lost in one half
    alone: an image without a class has none in both."""
    batch, count = trainer.batch(0), 0
    null, share = trainer.model_config.null_label, []
    for step in range(40):
        batch = trainer.batch(step)
        lost = batch.labels_B == null
        assert torch.equal(lost, batch.rolled_B == null)
        before = batch.labels_B.roll(1)
        known = ~lost & (before != null)
        assert torch.equal(batch.rolled_B[known], before[known])
        halves = [batch.part(slice(i, i + 8)) for i in (0, 8)]
        assert torch.equal(torch.cat([half.rolled_B for half in halves]), batch.rolled_B)
        share.append(lost.float().mean().item())
        count += (batch.labels_B == batch.rolled_B)[~lost].sum().item()
    assert 0.05 < np.mean(share) < 0.16 and count > 0, "10 % lose their class; some roll onto it"
    assert batch.paths_E2B is None and batch.own_BL is None


def test_the_control_reads_what_cca_reads(made, trainer, tmp_path):
    """Catches a control of other images or other dropped classes."""
    control = ControlStudent(made.open(made.of("cross_entropy"), tmp_path / "control"))
    one, other = trainer.batch(3), control.batch(3)
    assert torch.equal(one.tokens_BL, other.tokens_BL)
    assert torch.equal(one.labels_B, other.labels_B)
    wanted = one_batch_loss(control, other)
    torch.testing.assert_close(control.loss(other)[0], wanted)


def one_batch_loss(trainer, batch):
    logits = trainer.model(trainer.ladder.teacher_forced_inputs(batch.tokens_BL), batch.labels_B)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.tokens_BL.flatten())


def test_a_step_begins_at_its_reference(trainer):
    """Catches a model that is not its reference at the start, in bits: then the loss is known. The
    cross-entropy beside it is that under the own classes."""
    batch = trainer.batch(0)
    same = (batch.labels_B == batch.rolled_B).double().mean().item()
    loss, cross_entropy = trainer.loss(batch)
    wanted = (1 + same + (1 - same) * 50) * math.log(2) / 50
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(cross_entropy, one_batch_loss(trainer, batch))
    assert trainer.beta == pytest.approx(13.6 / 21), "beta falls with the tokens of an image"


def test_parts_of_a_batch_add_up(trainer):
    """Catches micro-batches, or processes, that weigh otherwise than the whole batch."""
    trainer.step()
    batch = trainer.batch(1)
    parts = [trainer.loss(batch.part(slice(i, i + 4))) for i in range(0, 16, 4)]
    for whole, shares in zip(trainer.loss(batch), zip(*parts)):
        torch.testing.assert_close(sum(shares), whole)


def test_the_reference_stays_as_it_is(trainer):
    """Catches an optimizer that moves the reference with the model."""
    before = {name: value.clone() for name, value in trainer.teacher.state_dict().items()}
    trainer.step()
    after = trainer.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not torch.equal(trainer.model.head.weight, trainer.teacher.head.weight)


# ---------------------------------------------------------------- what is kept and reported


@pytest.mark.parametrize("arm", ["cca", "cross_entropy"])
def test_the_last_step_is_kept(made, arm):
    """Catches a training that hands back its teacher, since held-out losses only rose."""
    folder = made.root / made.of(arm)
    last = load_model(snapshot_path(folder, 48))
    weights = load_model(folder / "model.safetensors").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in last.state_dict().items())
    assert made.rows(arm, "kept_step") == {-1: 48.0}
    if arm == "cca":
        losses = made.rows(arm, "loss_val")
        assert losses[48] > min(losses.values()), "the last is no best: the test shows something"
        assert made.rows(arm, "kept_loss_val")[-1] == losses[48]


def test_margin_and_loss_without_a_class_along_the_training(made, tmp_path):
    """Catches a margin that is not against the start, one of the wrong sign, and a loss of another
    split or class."""
    margins, losses = made.rows("cca", "reward_margin"), made.rows("cca", "loss_test_uncond")
    assert list(margins) == list(losses) == [0, 12, 24, 36, 48]
    assert margins[0] == 0 and 0 < margins[12] < margins[48]
    assert made.rows("cross_entropy", "reward_margin")[0] == 0
    trainer = CcaStudent(made.open(made.of("cca"), tmp_path / "out"))
    model = load_model(snapshot_path(made.root / made.of("cca"), 48))
    own = torch.from_numpy(trainer.labels["test"])
    source = generator("wrong classes", "test")
    wrong = (own + torch.randint(1, 10, own.shape, generator=source)) % 10
    grown = [
        mean_log_p(trainer, model, x) - mean_log_p(trainer, trainer.teacher, x)
        for x in (own, wrong)
    ]
    assert margins[48] == pytest.approx(13.6 / 21 * (grown[0] - grown[1]), rel=1e-3)
    none = torch.full_like(own, trainer.model_config.null_label)
    for step, one in ((0, trainer.teacher), (48, model)):
        assert losses[step] == pytest.approx(-mean_log_p(trainer, one, none) / 21, rel=1e-5)


def mean_log_p(trainer, model, labels):
    """Mean over test images of log p under these classes, by another road."""
    trainer.labels["test"] = labels.numpy()
    return -21 * one_pass_loss(model, trainer.split("test")).mean


def test_the_margin_is_against_a_wrong_class(made, trainer, tmp_path):
    """Catches a wrong class that is the own one, or no class, and images that processes count twice
    or not at all."""
    seen = []

    def record(model, data, rows, labels_3B):
        seen.append((rows, labels_3B))
        return torch.zeros(2, dtype=torch.float64)

    trainer._progress_of = record
    for rank in range(2):
        trainer.ranks = several(2)
        trainer.ranks.rank = rank
        trainer.progress(0)
    rows = [i for part, _ in seen for i in range(part.start, part.stop)]
    assert rows == list(range(len(trainer.labels["test"])))
    own, wrong, none = torch.cat([labels for _, labels in seen], 1)
    assert own.tolist() == trainer.labels["test"].tolist()
    assert (own != wrong).all() and (wrong < 10).all() and (none == 10).all()
    assert len(set(((wrong - own) % 10).tolist())) == 9


def test_killed_alignment_resumes_bit_by_bit(made, tmp_path):
    """Catches a resumed model that starts from its teacher again, is held against what it was when
    it was killed, or keeps the best."""
    run_id = made.of("cca")
    assert made.call(run_id, made.words(run_id, tmp_path / "whole", steps=48)) == 0
    words = made.words(run_id, tmp_path / "killed", steps=48)
    kill_after(start("distill", *words), words[1] / "resume.safetensors")
    assert not (words[1] / "row.json").exists(), "killed too late: the test proves nothing"
    assert made.call(run_id, words) == 0
    whole = tmp_path / "whole"
    for step in (None, 12, 48):
        files = [
            snapshot_path(folder, step) if step else folder / "model.safetensors"
            for folder in (whole, words[1])
        ]
        assert files[0].read_bytes() == files[1].read_bytes(), step
    rows = [
        [x for x in (f / "metrics.csv").read_text().splitlines() if "seconds" not in x]
        for f in (whole, words[1])
    ]
    assert rows[0] == rows[1] and any("reward_margin" in row for row in rows[0])


def test_two_processes_take_the_same_steps(made, tmp_path):
    """Catches a class that rolls within one process, and rows that only one of them makes."""
    run_id = made.of("cca")
    words = ["-m", "bench", "distill", *made.words(run_id, tmp_path / "two")]
    code, text = finish(torchrun(*words, "--threads", 1, "--device", "cpu"))
    assert code == 0, text
    found, wanted = (
        load_model(folder / "model.safetensors").state_dict()
        for folder in (tmp_path / "two", made.root / run_id)
    )
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    rows = (tmp_path / "two" / "metrics.csv").read_text()
    assert rows.count("reward_margin") == 5


# ---------------------------------------------------------------- names, and what is refused


def test_other_arms_have_their_names(tmp_path):
    """Catches a setting of CCA in the name of a job that does not read it, and one that it reads
    and that renames nothing."""
    plain = load_study(edited(tmp_path))
    for job in plain.jobs.values():
        assert "cca" not in job.config.get("distill", {})
    names = []
    for changes in ({}, {"distill.cca.lambda_": 50.0}, {"distill.cca": {"beta_tokens": 1.0}}):
        plan = load_study(study(tmp_path, changes=changes))
        names.append([run_id for run_id in plan.jobs if run_id.startswith("distill/cca")])
    assert names[0] == names[1] != names[2]


BAD = {
    "other scales": ({"model.patch_nums": [1, 4]}, ["model.patch_nums [1, 4]", "[1, 2, 4]"]),
    "another mask": ({"model.history": None}, ["model.history None", "teacher's is 0"]),
    "one class": (
        {"model.num_classes": 0, "distill.teacher.delta": {"model.num_classes": 0}},
        ["model.num_classes 0", "2 or more"],
    ),
    "one image": ({"training.batch_size": 1}, ["training.batch_size", "1", "2 or more"]),
    "masks": (
        {"model.mask_prob": 0.5},
        ["model.mask_prob 0.5", "set it to 0"],
    ),
    "stochastic depth": ({"model.drop_path": 0.1}, ["model.drop_path 0.1", "set it to 0"]),
    "corruption": (
        {"training.corruption": "uniform", "training.eps": 0.1},
        ["training.corruption", "'uniform'", "none"],
    ),
    "early stopping": ({"training.patience": 4}, ["training.patience: 4", "null"]),
    "guided": ({"distill.guided": True}, ["distill.guided: True", "'cca'"]),
    "beta of nothing": ({"distill.cca": {"beta_tokens": 0}}, ["beta_tokens", "0", "greater"]),
    "negative lambda": ({"distill.cca": {"lambda_": -1.0}}, ["lambda_", "-1", "greater"]),
    "all lose their class": ({"distill.cca": {"uncond": 1.0}}, ["uncond", "1", "less than 1"]),
    "unknown key": ({"distill.cca": {"lambda": 5.0}}, ["distill.cca", "lambda"]),
    "a teacher without class dropout": (
        {
            "distill.teacher": {
                "base": "var",
                "delta": {"model.history": 0, "model.class_dropout": 0.0, "sampler.cfg_scale": 1.0},
            }
        },
        ["class_dropout 0.0", "uncond 0.1"],
    ),
    "of another arm": (
        {"distill.arm": "real", "distill.cca": {"lambda_": 5.0}},
        ["distill.cca", "'real'", "leave it out"],
    ),
    "of the control": (
        {"distill.arm": "scratch", "distill.cca": {"lambda_": 5.0}},
        ["distill.cca", "'scratch'", "leave it out"],
    ),
}


@pytest.mark.parametrize("key", ["beta_tokens", "lambda_"])
def test_the_control_is_told_what_it_reads_alone(key, tmp_path):
    """Catches a control that is trained once more under another name."""
    with pytest.raises(
        ConfigError, match=f"distill.cca.{key}: 5: arm 'cross_entropy' reads uncond"
    ):
        load_study(study(tmp_path, "control", {f"distill.cca.{key}": 5.0}))
    load_study(study(tmp_path, "control", {"distill.cca.uncond": 0.2}))


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["CCA", "control"])
def test_bad_alignment_is_one_line(case, name, tmp_path):
    """Catches an alignment that cannot work and would be found out after its teacher is trained."""
    changes, words = BAD[case]
    changes = dict(changes)
    below = changes.pop("distill.teacher.delta", None)
    if below:
        changes["distill.teacher"] = {
            "base": "var",
            "delta": {"model.history": 0, "sampler.cfg_scale": 1.0, **below},
        }
        changes["sampler.cfg_scale"] = 1.0
    path = study(tmp_path, name, changes)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value).replace("'cross_entropy'", "'cca'")
    assert "\n" not in text and str(path) in text and name in text
    for word in words:
        assert word in text, text


# ---------------------------------------------------------------- the figure


def test_the_figure_shows_the_trainings_that_go_on(made):
    """Catches a curve that is left out, one of a training that aligns nothing, or of another
    metric."""
    view = View(collected(made), "distillation")
    figure, caption = rooms.function_of("figures", "alignment")(view)
    assert [axes.get_ylabel().split(" (")[0] for axes in figure.axes] == [
        "reward margin",
        "held-out loss\nminus the control's",
        "the same\nwithout a class",
    ]
    for axes, metric in zip(figure.axes, ("reward_margin", "loss_test", "loss_test_uncond")):
        lines = {line.get_label(): line for line in axes.lines}
        assert list(lines) == ["CCA", "control"]
        for arm, label in (("cca", "CCA"), ("cross_entropy", "control")):
            rows = made.rows(arm, metric)
            assert lines[label].get_xdata().tolist() == list(rows)
            control = made.rows("cross_entropy", metric) if "loss" in metric else {}
            wanted = [value - control.get(step, 0.0) for step, value in rows.items()]
            assert lines[label].get_ydata().tolist() == pytest.approx(wanted)
    assert "minus those of its control" in str(caption)


def test_losses_find_their_control_in_another_block(made, monkeypatch):
    """Catches losses that vanish where the control stands in another block of the figure."""
    show = import_module("bench.experiments.alignment.show")
    view = View(collected(made), "distillation")

    def parts(aligned):
        return [aligned.only(["CCA"]), aligned.only(["control"])]

    monkeypatch.setattr(show, "by_variant", parts)
    figure, _ = show.figure_alignment(view)
    drawn = [{line.get_label() for line in axes.lines} for axes in figure.axes]
    assert drawn == [{"CCA"}] * 3 + [{"control"}] * 3


def test_losses_without_a_control_are_said(made):
    """Catches a training that ended well and is said not to have, and losses that are left out
    without a word."""
    view = View(collected(made), "distillation")
    lone = view.only([name for name in view.variants if name != "control"])
    figure, _ = rooms.function_of("figures", "alignment")(lone)
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert said == [[], ["no training has a\ncontrol"], ["no training has a\ncontrol"]]
    assert "losses of CCA: no control of the same teacher" in figure.get_suptitle()


def collected(made):
    """What collect makes of the trainings of the suite."""
    study = json.loads(made.plan.study.model_dump_json())
    listed = sorted(made.plan.suites["distillation"])
    runs = [run_id for run_id in listed if (made.root / run_id / "row.json").exists()]
    about = {**study["suites"]["distillation"], "train_seeds": [0], "runs": runs}
    about["variants"] = variants_of(made.plan, "distillation")
    for names in about["variants"].values():
        jobs = names["jobs"].items()
        names["jobs"] = {seed: [one for one in of_seed if one in runs] for seed, of_seed in jobs}
    keys = ("study", "reduced", "evaluation", "features", "dataset", "train_seeds")
    plan = {key: study[key] for key in (*keys, "tokenizer_seed", "latency")}
    plan |= {"scope": "distillation", "suites": {"distillation": about}}
    plan["folders"] = {run_id: str(made.root / run_id) for run_id in runs}
    (made.root / "plan.json").write_text(json.dumps(plan))
    collect.collect(made.root / "plan.json", made.root / "collected")
    return Results.load(made.root / "collected")


def test_a_figure_of_nothing_is_refused(tmp_path):
    """Catches an empty figure that is found out after all is trained."""
    path = study(tmp_path)
    data = yaml.safe_load(path.read_text())
    suite = data["suites"]["distillation"]
    suite["figures"] = ["alignment"]
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    load_study(path)
    control = next(
        one
        for one in suite["variants"].values()
        if one.get("delta", {}).get("distill.arm") == "cross_entropy"
    )
    whole = suite["variants"]
    again = {**control, "delta": {**control["delta"], "training.steps": 3}}
    suite["variants"] = {**whole, "shorter": again}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(ConfigError, match="and 'shorter' are two controls"):
        load_study(path)
    name = next(name for name, one in whole.items() if one is control)
    suite["variants"] = {**whole, name: again}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(ConfigError, match=f"and its control '{name}' for 3"):
        load_study(path)
    suite["variants"] = {"SDD": whole["SDD"]}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(ConfigError, match="'alignment' shows trainings of distill.arm cca"):
        load_study(path)
