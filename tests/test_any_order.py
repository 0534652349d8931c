"""Masked models trained, selected and judged by the any-order bound: weights of masked tokens, the
bound against exact joints, what a training keeps and writes."""

import csv
import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_ranks import Bench
from test_refinement import trainer_of

from bench.pipeline.held_out import AnyOrderLoss, HeldOut, any_order_loss, drawn_loss, one_pass_loss
from bench.runtime.ranks import Ranks
from srdd.contracts import ask_weigh
from srdd.corruption import hidden_within_scales, mask_within_scales
from srdd.loss import (
    any_order_masks,
    linear_cross_entropy,
    mask_shares,
    next_scale_cross_entropy,
    token_losses,
    weigh_count,
    weigh_elbo,
)
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

V, SCHEDULE = 3, ScaleSchedule((1, 2))
# own tokens of the second scale, V where hidden
STATES = list(itertools.product(range(V + 1), repeat=4))
CODES = list(itertools.product(range(V), repeat=4))
PLACE = {state: i for i, state in enumerate(STATES)}


# ---------------------------------------------------------------- weights of masked tokens


def test_count_is_the_mean_over_masked_tokens_bit_by_bit(make_model, make_ladder):
    """Catches a weight that changes the loss, or a gradient, of the studies that were trained
    before weights had names."""
    model, ladder = make_model(mask_prob=0.7), make_ladder(ScaleSchedule((1, 2, 3)))
    tokens_BL, labels_B = (
        torch.randint(7, (16, 14), generator=generator("tokens")),
        torch.arange(16) % 3,
    )
    trainer = trainer_of(model, ladder, 0.7)
    batch = trainer.draw(tokens_BL, labels_B, generator("step"))
    own_BL = mask_within_scales(tokens_BL, ladder.schedule, 0.7, 7, generator("step"))
    hidden_BLD = model.hidden(
        ladder.teacher_forced_inputs(tokens_BL), labels_B, batch.paths_E2B, own_BL
    )
    plain = linear_cross_entropy(
        hidden_BLD, model.head, tokens_BL, own_BL == 7, int((own_BL == 7).sum())
    )
    loss = trainer.loss(batch)[0]
    assert torch.equal(loss, plain) and 0 < batch.counted < tokens_BL.numel()
    for ours, theirs in zip(
        *(torch.autograd.grad(x, list(model.head.parameters())) for x in (loss, plain))
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("q", [1.0, 0.5, 0.01])
def test_elbo_weighs_each_number_of_hidden_tokens_as_the_bound_does(q):
    """Catches l/m for (l + 1)/m, and draws without masks that weigh more or less than their share 1
    - q: how often m is drawn times the weight must be q/m, for a scale's mean,
      and 1 - q more where all are hidden."""
    for k, length in enumerate(SCHEDULE.lengths):
        for m in range(1, length + 1):
            own_BL = torch.zeros(1, 5, dtype=torch.long)
            own_BL[:, SCHEDULE.slices[k]][:, :m] = V
            share_BL = weigh_elbo(own_BL, SCHEDULE, V, q)
            drawn, wanted = (
                q / (length + 1) + (1 - q) * (m == length),
                q / m + (1 - q) * (m == length),
            )
            assert drawn * share_BL[own_BL == V].double().numpy() == pytest.approx(wanted, rel=1e-6)
            assert not share_BL[own_BL != V].any()


@pytest.mark.parametrize("name, total", [("elbo", 10.0), ("count", 5.0)])
def test_what_a_weighted_sum_is_divided_by(name, total):
    """Catches a bound that is divided by the sum of its weights: a ratio of two random sums, which
    is no unbiased estimate and depends on what else is in the batch."""
    own_BL = torch.tensor([[V, 0, V, V, 1], [0, 0, V, V, 0]])
    share_BL, divisor = mask_shares(name, own_BL, SCHEDULE, V, 0.5)
    assert divisor == total and (name == "count") == (share_BL.sum() == total)


@pytest.mark.parametrize("q", [1.0, 0.5])
def test_a_model_that_ignores_own_tokens_has_its_one_pass_loss_on_average(
    make_model, make_ladder, q
):
    """Catches weights that are not 1 on average under the masks that a step draws."""
    model, ladder = make_model(mask_prob=q), make_ladder(ScaleSchedule((1, 2, 3)))
    torch.nn.init.zeros_(model.own_embedding.weight)
    tokens_BL, labels_B = (
        torch.randint(7, (4, 14), generator=generator("tokens")),
        torch.arange(4) % 3,
    )
    trainer = trainer_of(model, ladder, q)
    with torch.no_grad():
        whole = next_scale_cross_entropy(
            model(ladder.teacher_forced_inputs(tokens_BL), labels_B), tokens_BL
        ).item()
        trainer.config = trainer.config.model_copy(update={"mask_weight": "elbo"})
        many = tokens_BL.repeat(8, 1), labels_B.repeat(8)  # each image draws masks of its own
        draws = (trainer.draw(*many, generator("step", i)) for i in range(200))
        found = torch.tensor([trainer.loss(batch)[0].item() for batch in draws])
    error = found.std().item() / len(found) ** 0.5
    assert abs(found.mean().item() - whole) < 3 * error and whole > 1


BROKEN = {
    "float64": (lambda own, *_: (own == V).double(), "gives float64 of shape"),
    "shape": (lambda own, *_: own[:, :2].float(), "gives float32 of shape"),
    "negative": (lambda own, *_: -(own == V).float(), "gives a weight that is negative"),
    "no number": (
        lambda own, *_: torch.full(own.shape, math.nan),
        "gives a weight that is negative or not a finite number",
    ),
    "revealed": (lambda own, *_: torch.ones(own.shape), "weighs a token that is revealed"),
    "in place": (lambda own, *_: own.fill_(V).float(), "changes the own tokens"),
    "nothing": (lambda own, *_: None, "gives NoneType"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_weight_of_ones_own_is_held_to_its_contract(case):
    """Catches weights that would end a training hours later, or teach nothing, without a word."""
    weigh, words = BROKEN[case]
    own_BL = mask_within_scales(
        torch.zeros(8, 5, dtype=torch.long), SCHEDULE, 1.0, V, generator("masks")
    )
    with pytest.raises(ValueError, match=f"^mine: {words}"):
        ask_weigh(weigh, "mine", own_BL, SCHEDULE, V, 1.0)
    assert torch.equal(
        ask_weigh(weigh_count, "mine", own_BL, SCHEDULE, V, 1.0), (own_BL == V).float()
    )


def test_a_weight_of_ones_own_is_a_weighted_mean(monkeypatch):
    """Catches a loss whose size follows from the scale of its weights:
    twice the weights must be the same loss."""
    own_BL = mask_within_scales(
        torch.zeros(8, 5, dtype=torch.long), SCHEDULE, 1.0, V, generator("masks")
    )
    monkeypatch.setattr(
        "srdd.loss.weigh_mine", lambda own, *_: 0.01 * (own == V).float(), raising=False
    )
    share_BL, total = mask_shares("mine", own_BL, SCHEDULE, V, 1.0)
    hidden, head = torch.randn(8, 5, 4, generator=generator("x")), torch.nn.Linear(4, V)
    tokens = torch.zeros(8, 5, dtype=torch.long)
    plain = linear_cross_entropy(hidden, head, tokens, own_BL == V)
    torch.testing.assert_close(linear_cross_entropy(hidden, head, tokens, share_BL, total), plain)
    torch.testing.assert_close(linear_cross_entropy(hidden, head, tokens, share_BL), plain)
    assert total < 1


# ---------------------------------------------------------------- the bound


@pytest.mark.parametrize("count", [3, 64, 1000])
def test_numbers_of_hidden_tokens_are_stratified(count):
    """Catches an m of 0, a last m that is rarer, numbers bunched in a small split,
    and sets that are no random ones."""
    schedule = ScaleSchedule((1, 2, 4))
    hidden_NL = any_order_masks(schedule, count, generator("any order", "val", 0))
    for piece, length in zip(schedule.slices, schedule.lengths):
        m_N = hidden_NL[:, piece].sum(1)
        seen = torch.bincount(m_N, minlength=length + 1)
        assert seen[0] == 0 and (seen[1:] - count / length).abs().max() < 2
        assert m_N.max() - m_N.min() >= (length - 1) * (1 - 2 / count)
        if count == 1000 and length > 1:  # each place is hidden as often as the others
            share = hidden_NL[:, piece].float().mean(0)
            assert (share - (length + 1) / (2 * length)).abs().max() < 0.07
            assert len(set(map(tuple, hidden_NL[:, piece].tolist()))) > 10


class Enumerated:
    """A model of the schedule (1, 2) with a table of log-conditionals for each state of own tokens
    of the second scale: what the trainer asks of a network, and nothing random."""

    schedule, config = SCHEDULE, SimpleNamespace(codebook_size=V, mask_prob=1.0)

    def __init__(self, table_SlV):
        self.table_SlV = table_SlV.log_softmax(-1)

    def __call__(self, inputs, labels_B, own_BL=None):
        first_BlV = torch.zeros(len(labels_B), 1, V, dtype=torch.float64)
        states = (
            [STATES[-1]] * len(labels_B) if own_BL is None else map(tuple, own_BL[:, 1:].tolist())
        )
        return torch.cat((first_BlV, self.table_SlV[[PLACE[state] for state in states]]), 1)

    def log_p(self, codes, order):
        """log p of the second scale's tokens when they are drawn one by one in an order."""
        own, found = [V] * 4, 0.0
        for i in order:
            found += self.table_SlV[PLACE[tuple(own)], i, codes[i]].item()
            own[i] = codes[i]
        return found

    def mixture(self, codes):
        """-log p of tokens that are drawn in a random order: what any-order sampling gives."""
        found = [self.log_p(codes, order) for order in itertools.permutations(range(4))]
        return -torch.tensor(found, dtype=torch.float64).logsumexp(0).item() + math.log(24)

    def bound(self, codes):
        """The bound by its definition, with every set enumerated; nats of the scale."""
        found = 0.0
        for m in range(1, 5):
            sets = list(itertools.combinations(range(4), m))
            for hidden in sets:
                own = tuple(V if i in hidden else code for i, code in enumerate(codes))
                total = -sum(self.table_SlV[PLACE[own], i, codes[i]].item() for i in hidden)
                found += total * (4 / m) / len(sets) / 4
        return found


def of_joint(joint_C):
    """The exact conditionals of a joint of the four tokens."""
    table = torch.zeros(len(STATES), 4, V, dtype=torch.float64)
    for s, state in enumerate(STATES):
        for codes, p in zip(CODES, joint_C.tolist()):
            if all(own in (V, code) for own, code in zip(state, codes)):
                for i, code in enumerate(codes):
                    table[s, i, code] += p
    return Enumerated(table.clamp(min=1e-12).log())


def drawn_table(name, states):
    return 1.5 * torch.randn(states, 4, V, generator=generator(name), dtype=torch.float64)


JOINT = (1.5 * torch.randn(len(CODES), generator=generator("joint"), dtype=torch.float64)).softmax(
    0
)
MODELS = {
    "conditionals of a joint": lambda: of_joint(JOINT),
    "conditionals of no joint": lambda: Enumerated(drawn_table("conditionals", len(STATES))),
    "own tokens ignored": lambda: Enumerated(drawn_table("ignored", 1).expand(len(STATES), -1, -1)),
}
LADDER = SimpleNamespace(teacher_forced_inputs=lambda tokens_BL: None)


def split_of(count, p_C):
    """Tokens whose second scale has a law over CODES."""
    chosen = p_C.multinomial(count, replacement=True, generator=generator("tokens"))
    tokens = torch.cat((chosen[:, None] % V, torch.tensor(CODES)[chosen]), 1).int()
    return tokens.numpy(), torch.zeros(count, dtype=torch.long).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_the_bound_is_one_and_is_what_is_measured(name):
    """Catches a wrong weight of m, sets that are not uniform, own tokens of another scale or the
    hidden ones revealed: the measured mean is the enumerated bound, which is no less than -log p,
    and equals it where the conditionals are of one joint."""
    model, (tokens, labels) = MODELS[name](), split_of(300, JOINT)
    data = HeldOut("test", tokens, labels, LADDER, torch.device("cpu"), Ranks())
    found, (first, second) = any_order_loss(model, data, 80)
    seconds = [tuple(row) for row in tokens[:, 1:].tolist()]
    bounds, exact = ([f(codes) for codes in seconds] for f in (model.bound, model.mixture))
    assert first == pytest.approx(math.log(V), rel=1e-6) and found == pytest.approx(
        (first + 4 * second) / 5
    )
    assert second == pytest.approx(sum(bounds) / 300 / 4, abs=0.025)  # 4 standard deviations
    gaps = [bound - least for bound, least in zip(bounds, exact)]
    if name == "conditionals of no joint":
        assert min(gaps) > -1e-9 and max(gaps) > 0.1
    else:
        assert gaps == pytest.approx([0.0] * 300, abs=1e-6)
    one_pass, per_scale, _ = one_pass_loss(model, data)
    if name == "own tokens ignored":  # nothing to gain inside a scale
        assert second == pytest.approx(per_scale[1], abs=0.025)
    if name == "conditionals of a joint":  # the tokens depend on each other
        assert second < per_scale[1] - 0.1


def test_processes_and_variants_see_the_same_masks():
    """Catches masks that are drawn for each process or that follow from a model,
    and images that two processes count."""
    (tokens, labels), cpu = split_of(41, JOINT), torch.device("cpu")
    model = MODELS["conditionals of no joint"]()
    val = HeldOut("val", tokens, labels, LADDER, cpu, Ranks())
    whole = any_order_loss(model, val, 2)
    parts = []
    for rank in range(3):
        ranks = Ranks()
        ranks.rank, ranks.world = rank, 3
        parts.append(any_order_loss(model, replace(val, ranks=ranks), 2).mean)
    assert sum(parts) == pytest.approx(whole[0], rel=1e-12) and min(parts) > 0.2 * whole[0]
    assert whole == any_order_loss(model, val, 2)
    assert whole[0] != any_order_loss(model, replace(val, name="test"), 2).mean


def test_masks_are_the_same_however_many_are_drawn_at_once(monkeypatch):
    """Catches held-out losses that follow from the memory that their masks may take."""
    schedule = ScaleSchedule((1, 2, 3))

    def drawn():
        return (
            any_order_masks(schedule, 41, generator("any order")),
            hidden_within_scales(41, schedule, 0.6, generator("masks")),
        )

    at_once = drawn()
    monkeypatch.setattr("srdd.loss.RANKED", 20)
    monkeypatch.setattr("srdd.corruption.DRAWN", 20)
    for whole, parts in zip(at_once, drawn()):
        assert torch.equal(whole, parts) and 0 < whole.sum() < whole.numel()


def test_processes_share_the_drawn_loss(make_model, make_ladder):
    """Catches a process that divides its part by the weights of all images, or of a batch."""
    model, ladder = make_model(mask_prob=0.6), make_ladder(ScaleSchedule((1, 2, 3)))
    tokens, labels = torch.randint(7, (40, 14), generator=generator("tokens")), torch.arange(40) % 3
    val = HeldOut("val", tokens.int().numpy(), labels.numpy(), ladder, torch.device("cpu"), Ranks())
    hidden_NL = hidden_within_scales(
        40, ladder.schedule, 0.6, generator("held-out masks", "val", 0)
    )
    losses = 0.0
    for rank in range(3):
        ranks = Ranks()
        ranks.rank, ranks.world = rank, 3
        hidden = hidden_NL[ranks.rows(40)].sum().item()
        losses += drawn_loss(model, replace(val, ranks=ranks), "count", 1) * hidden
    assert losses / hidden_NL.sum().item() == pytest.approx(
        drawn_loss(model, val, "count", 1), rel=1e-9
    )


def test_the_drawn_loss_is_what_a_step_minimises(make_model, make_ladder, monkeypatch):
    """Catches masks or weights of the validation that are others than those of the training."""
    model, ladder = make_model(mask_prob=0.6), make_ladder(ScaleSchedule((1, 2, 3)))
    tokens, labels = torch.randint(7, (40, 14), generator=generator("tokens")), torch.arange(40) % 3
    val = HeldOut("val", tokens.int().numpy(), labels.numpy(), ladder, torch.device("cpu"), Ranks())
    found = drawn_loss(model, val, "count", 2)
    monkeypatch.setattr("bench.pipeline.held_out.EVAL_TOKENS", 3 * 14)
    assert drawn_loss(model, val, "count", 2) == pytest.approx(found, rel=1e-6)
    losses, hidden = 0.0, 0
    with torch.no_grad():
        for draw in range(2):
            own = mask_within_scales(
                tokens, ladder.schedule, 0.6, 7, generator("held-out masks", "val", draw)
            )
            each = token_losses(
                model(ladder.teacher_forced_inputs(tokens), labels, own_BL=own), tokens
            )
            losses, hidden = losses + each[own == 7].sum().item(), hidden + int((own == 7).sum())
    assert found == pytest.approx(losses / hidden, rel=1e-5)


# ---------------------------------------------------------------- what a training keeps and writes


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("any_order"))


def rows_of(bench, tmp_path, name, **training):
    run_id = bench.find("train", "h0")
    code, text = bench.call(
        run_id, bench.words(run_id, tmp_path / name, bench.config(run_id, name, **training))
    )
    assert code == 0, text
    with open(tmp_path / name / "metrics.csv") as file:
        return [
            (r["metric"], r["step"], r["scale"], float(r["value"])) for r in csv.DictReader(file)
        ]


def one(rows, metric):
    found = [value for name, _, scale, value in rows if name == metric]
    assert len(found) == 1, (metric, found)
    return found[0]


def along(rows, metric):
    return {int(float(step)): value for name, step, _, value in rows if name == metric}


def test_a_masked_model_is_selected_by_the_loss_that_it_is_trained_for(bench, tmp_path):
    """Catches a selection by the one-pass loss, a bound that is not that of the kept weights, and a
    row that nobody can trace."""
    rows = rows_of(
        bench, tmp_path, "elbo", mask_weight="elbo", lr=0.1, steps=16, eval_every=2, mask_draws=2
    )
    val, bound = along(rows, "loss_val"), along(rows, "loss_val_any_order")
    selecting = {step: 0.5 * val[step] + 0.5 * bound[step] for step in val}  # mask_prob 0.5
    kept = one(rows, "kept_step")
    assert len(val) == 8 and kept == min(selecting, key=selecting.get)
    assert one(rows, "kept_loss_val") == pytest.approx(selecting[kept]) and one(
        rows, "kept_at_end"
    ) == (kept == 16)
    test, bound = one(rows, "kept_loss_test"), one(rows, "loss_test_any_order")
    assert one(rows, "intra_scale_gain") == pytest.approx(test - bound, abs=1e-6) and bound != test
    assert test == along(rows, "loss_test")[kept]
    scales = [
        [v for name, _, _, v in rows if name == f"{metric}_scale"]
        for metric in ("loss_test_any_order", "intra_scale_gain")
    ]
    assert [len(x) for x in scales] == [3, 3] and sum(
        n * x for n, x in zip((1, 4, 16), scales[0])
    ) / 21 == pytest.approx(bound)
    assert scales[1][0] == pytest.approx(0, abs=1e-6) and any(abs(x) > 1e-4 for x in scales[1]), (
        "one token has no order"
    )
    counted = rows_of(bench, tmp_path, "count", lr=0.1, steps=16, eval_every=2, mask_draws=2)
    assert (
        not along(counted, "loss_val_any_order")
        and one(counted, "kept_loss_val") not in along(counted, "loss_val").values()
    )
    assert one(counted, "loss_test_any_order") != bound


def test_the_bound_decides_what_is_kept_and_when_to_stop(bench, tmp_path, monkeypatch):
    """Catches a bound that is measured and not used: it rises after the second evaluation while the
    one-pass loss still falls."""
    bounds = iter([9.0, 5.0, 7.0, 8.0])

    def rising(model, data, draws):
        return (
            AnyOrderLoss(next(bounds), [])
            if data.name == "val"
            else any_order_loss(model, data, draws)
        )

    monkeypatch.setattr("bench.pipeline.trainer.any_order_loss", rising)
    rows = rows_of(
        bench, tmp_path, "rises", mask_weight="elbo", lr=0.01, steps=40, eval_every=4, patience=2
    )
    val = along(rows, "loss_val")
    assert list(val) == [4, 8, 12, 16] and val[8] > val[12] > val[16]
    assert one(rows, "kept_step") == 8 and one(rows, "kept_at_end") == 0
    assert one(rows, "kept_loss_val") == pytest.approx((val[8] + 5.0) / 2)


def test_few_test_images_along_the_training_and_all_at_the_end(bench, tmp_path):
    """Catches a score of the kept weights on a part of the test split,
    and a part that changes what is trained or kept."""
    all_rows, few = (rows_of(bench, tmp_path, f"few{n}", eval_images=n) for n in (None, 7))
    names = (
        "kept_step",
        "kept_loss_val",
        "kept_loss_test",
        "loss_test_any_order",
        "intra_scale_gain",
        "kept_at_end",
    )
    assert {n: one(all_rows, n) for n in names} == pytest.approx(
        {n: one(few, n) for n in names}, rel=1e-6
    )
    assert along(all_rows, "loss_val") == along(few, "loss_val")
    assert all(
        abs(along(few, "loss_test")[step] - value) > 1e-4
        for step, value in along(all_rows, "loss_test").items()
    )
    file = json.loads((tmp_path / "few7" / "row.json").read_text())
    assert file["status"] == "ok"
