"""Weights of scales in the loss of a training."""

import pytest
import torch
from test_refinement import trainer_of

from bench.pipeline.held_out import HeldOut
from bench.runtime.ranks import Ranks
from srdd import balance, loss
from srdd.balance import balanced, scale_weights
from srdd.lookup import BUILT_IN
from srdd.loss import linear_cross_entropy, mask_shares, token_losses
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

SCHEDULE = ScaleSchedule((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
SMALL = ScaleSchedule((1, 2, 3, 4))


def lengths(schedule):
    return torch.tensor(schedule.lengths, dtype=torch.float64)


@pytest.mark.parametrize("name", BUILT_IN["balance"])
@pytest.mark.parametrize("sides", [SCHEDULE.patch_nums, (1, 2, 3, 4), (1,), (4, 4, 4)])
def test_the_tokens_of_an_image_weigh_1_on_average(name, sides):
    """Catches weights that change what learning rate and clip mean, and a schedule of one side."""
    schedule = ScaleSchedule(sides)
    weight_K = scale_weights(name, schedule)
    assert ((lengths(schedule) * weight_K).sum() - schedule.seq_len).abs() < 1e-9
    if len(set(sides)) == 1:
        assert torch.allclose(weight_K, torch.ones_like(weight_K))


def test_mass_by_scale_is_what_the_names_promise():
    """Catches a weight by side where tokens, or sides, were meant."""
    n_K, sides_K = lengths(SCHEDULE), torch.tensor(SCHEDULE.patch_nums, dtype=torch.float64)

    def mass(name):
        return n_K * scale_weights(name, SCHEDULE) / SCHEDULE.seq_len

    assert torch.allclose(mass("token"), n_K / 680)
    assert torch.allclose(mass("side"), sides_K / sides_K.sum())
    assert torch.allclose(mass("scale"), torch.full_like(n_K, 0.1))
    bell = [0.024, 0.079, 0.117, 0.136, 0.141, 0.139, 0.123, 0.104, 0.079, 0.059]
    assert torch.allclose(mass("bell"), torch.tensor(bell, dtype=torch.float64), atol=6e-4)


def test_weights_of_tokens_leave_a_batch_as_it_is():
    """Catches a share of ones where none was, which is another way of summing."""
    assert balanced("token", SMALL, None, 60.0, 2) == (None, 60.0)
    share_BL = torch.rand(2, 30)
    assert balanced("token", SMALL, share_BL, 7.0, 2)[0] is share_BL


def _twice(own_BL, schedule, codebook_size, mask_prob):
    """Weights of one's own that sum to the number of tokens where half of these are masked."""
    return 2.0 * (own_BL == codebook_size)


@pytest.mark.parametrize("rule", ["count", "elbo", "mine"])
def test_weights_of_scales_and_of_masked_tokens_multiply(rule, monkeypatch):
    """Catches one that replaces the other, and a sum that is no weighted mean any more."""
    monkeypatch.setattr(loss, "weigh_mine", _twice, raising=False)
    own_BL = torch.tensor([9, 2]).repeat(3, 15)
    share_BL, counted = mask_shares(rule, own_BL, SMALL, 9, 1.0)
    both_BL, total = balanced("scale", SMALL, share_BL, counted, 3, rule)
    weight_L = scale_weights("scale", SMALL).repeat_interleave(torch.tensor(SMALL.lengths))
    assert torch.allclose(both_BL, share_BL * weight_L.float())
    assert total == pytest.approx(90.0 if rule == "elbo" else both_BL.double().sum().item())


def test_the_loss_is_the_sum_over_scales_of_their_weights(library):
    """Catches weights that never reach the loss: by hand from the losses of tokens."""
    head, hidden_BLD = torch.nn.Linear(8, 9), torch.randn(2, 30, 8)
    tokens_BL = torch.randint(9, (2, 30))
    share_BL, counted = balanced("bell", SMALL, None, 60.0, 2)
    loss = linear_cross_entropy(hidden_BLD, head, tokens_BL, share_BL, counted)
    losses_BL = token_losses(head(hidden_BLD), tokens_BL)
    weight_K = scale_weights("bell", SMALL)
    wanted = sum(
        (w * losses_BL[:, piece].double()).sum() for w, piece in zip(weight_K, SMALL.slices)
    )
    assert loss.item() == pytest.approx(wanted.item() / 60, rel=1e-5)


GIVES = {
    "negative": (lambda s: -torch.ones(4, dtype=torch.float64), "negative or not a finite"),
    "NaN": (lambda s: torch.full((4,), torch.nan, dtype=torch.float64), "not a finite number"),
    "nothing": (lambda s: torch.zeros(4, dtype=torch.float64), "0 for every scale"),
    "of another shape": (lambda s: torch.ones(3, dtype=torch.float64), "a weight for each scale"),
    "single precision": (lambda s: torch.ones(4), "must be float64"),
}


@pytest.mark.parametrize("case", GIVES)
def test_weights_of_ones_own_are_checked(monkeypatch, case):
    """Catches a fault that a training would meet as a loss that is no number."""
    function, words = GIVES[case]
    monkeypatch.setattr(balance, "balance_mine", function, raising=False)
    with pytest.raises(ValueError, match=f"^srdd/balance.py: balance_mine: .*{words}"):
        scale_weights("mine", SMALL)


def test_a_training_minimises_weighed_losses_and_measures_unweighed_ones(make_model, make_ladder):
    """Catches a dial that nothing reads, and held-out losses of two trainings by two yardsticks."""
    schedule = ScaleSchedule((1, 2, 3))
    model, ladder = make_model(), make_ladder(schedule)
    tokens_BL, labels_B = torch.randint(7, (4, 14)), torch.arange(4) % 3
    held_out = HeldOut(
        "val", tokens_BL.numpy(), labels_B.numpy(), ladder, torch.device("cpu"), Ranks()
    )
    minimised, selected = {}, {}
    for name in BUILT_IN["balance"]:
        trainer = trainer_of(model, ladder, 0.0)
        trainer.config = trainer.config.model_copy(update={"loss_weight": name})
        trainer.split = lambda _: held_out
        batch = trainer.draw(tokens_BL, labels_B, generator("step"))
        minimised[name] = trainer.loss(batch)[0].item()
        one_pass = trainer.one_pass(model, held_out)
        selected[name] = one_pass, trainer.selection_loss(model, one_pass.mean)
    losses_BL = token_losses(model(ladder.teacher_forced_inputs(tokens_BL), labels_B), tokens_BL)
    for name, value in minimised.items():
        weight_K = scale_weights(name, schedule)
        scales_K = torch.stack([losses_BL[:, s].mean() for s in schedule.slices]).double()
        wanted = (lengths(schedule) * weight_K * scales_K).sum().item() / 14
        assert value == pytest.approx(wanted, rel=1e-5)
    assert len(set(minimised.values())) == 4
    assert all(one == selected["token"] for one in selected.values())
