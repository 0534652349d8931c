"""Contrast between reconstructions (DCR): the losses by hand, conditions in place of classes, one
scale or all, and gradients that agree or do not."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from srdd import contrast
from srdd.contrast import (
    Projector,
    conditions,
    conflict,
    dcr_loss,
    info_nce,
    own_scores,
    pair_scores,
    reconstructions,
    row_contrast,
    scales_to_run,
    tokens_run,
)
from srdd.likelihood import scale_scores
from srdd.noise import generator

HISTORIES = (None, 1, 0)


@pytest.fixture
def network(make_model, make_ladder):
    """Factory of a model with its ladder and the tokens of five images."""

    def make(**changes):
        model = make_model(**changes)
        V, L = model.config.codebook_size, model.schedule.seq_len
        tokens_BL = torch.randint(V, (5, L), generator=generator("tokens"))
        return model, make_ladder(model.schedule, V), tokens_BL

    return make


def randn(*shape, name="x"):
    return torch.randn(*shape, generator=generator("contrast", name))


def z_of(model, count=5, name="z"):
    return randn(count, model.config.width, name=name)


# ---------------------------------------------------------------- losses by hand


def plain_dcr(pred_BBn, view_Bn, target_Bn, tau):
    """The loss image by image with plain exponentials, as the paper's code has it."""

    def e(x, y):
        return math.exp(float(torch.dot(x, y) / x.norm() / y.norm()) / tau)

    losses = []
    for i in range(len(pred_BBn)):
        a = pred_BBn[i, i]
        positives = e(a, view_Bn[i]), e(a, target_Bn[i])
        negatives = sum(e(a, pred_BBn[i, j]) for j in range(len(pred_BBn)) if j != i)
        Z = sum(positives) + negatives
        losses.append(-0.5 * sum(math.log(p / Z) for p in positives))
    return sum(losses) / len(losses)


def test_two_images_by_hand():
    """Catches an anchor among its own negatives, a positive that is forgotten, a wrong temperature.
    Unit vectors: view cosine 0.6, target 0.8, other 0."""
    pred = torch.tensor([[[1.0, 0], [0, 2]], [[0, 3.0], [1, 0]]])
    view = torch.tensor([[0.6, 0.8], [6.0, 8.0]])
    target = torch.tensor([[0.8, 0.6], [4.0, 3.0]])
    tau = 0.5
    Z = math.exp(1.2) + math.exp(1.6) + 1
    assert dcr_loss(pred, view, target, tau).item() == pytest.approx(math.log(Z) - 1.4, rel=1e-6)


@pytest.mark.parametrize("B, tau", [(2, 0.1), (2, 1.0), (5, 0.1), (5, 1.0)])
def test_the_stable_form_is_the_plain_one(B, tau):
    """Catches a log-sum-exp over other terms than the sum of the paper's code."""
    given = randn(B, B, 7), randn(B, 7, name="view"), randn(B, 7, name="target")
    assert dcr_loss(*given, tau).item() == pytest.approx(plain_dcr(*given, tau), rel=1e-5)


@pytest.mark.parametrize("tau", (0.01, 0.1, 3.0))
def test_equal_cosines_give_the_logarithm_of_all_terms(tau):
    """Catches a loss whose chance level is not log(B + 1)."""
    one_n = randn(6)
    loss = dcr_loss(one_n.expand(4, 4, 6), one_n.expand(4, 6), one_n.expand(4, 6), tau)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-5)


def test_the_loss_never_falls_below_log_two():
    """Catches two positives that do not share one sum: perfect ones and orthogonal negatives give
    log(2 + (B - 1) exp(-1 / tau))."""
    B, tau = 3, 0.25
    pred = torch.zeros(B, B, B)
    for i, j in itertools.product(range(B), repeat=2):
        pred[i, j, (j - i) % B] = 1.0
    best = torch.eye(B)[:1].expand(B, B)
    loss = dcr_loss(pred, best, best, tau).item()
    assert loss == pytest.approx(math.log(2 + (B - 1) * math.exp(-1 / tau)), rel=1e-6)
    assert loss > math.log(2)


def test_bfloat16_and_a_small_temperature_stay_finite():
    """Catches exponentials of cosines over 0.01 in half precision."""
    given = (randn(4, 4, 9), randn(4, 9, name="view"), randn(4, 9, name="target"))
    halves = [part.bfloat16().requires_grad_() for part in given]
    loss = dcr_loss(*halves, 0.01)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(part.grad.isfinite().all() for part in halves)


def test_the_order_of_a_batch_plays_no_part():
    """Catches a row that is taken for a column."""
    pred, view, target = randn(5, 5, 8), randn(5, 8, name="view"), randn(5, 8, name="target")
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = dcr_loss(pred[order][:, order], view[order], target[order], 0.1)
    torch.testing.assert_close(moved, dcr_loss(pred, view, target, 0.1))
    scores_BB = randn(5, 5)
    torch.testing.assert_close(row_contrast(scores_BB[order][:, order]), row_contrast(scores_BB))


def test_the_diagonal_is_no_negative():
    """Catches the anchor in its own sum: its length and direction stay, so nothing else moves."""
    pred, view, target = randn(3, 3, 8), randn(3, 8, name="view"), randn(3, 8, name="target")
    own = torch.eye(3, dtype=torch.bool)[..., None]
    longer = torch.where(own, 7 * pred, pred)
    assert dcr_loss(longer, view, target, 0.1) == pytest.approx(
        dcr_loss(pred, view, target, 0.1).item(), rel=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 3, 4)])
def test_a_batch_of_one_and_other_shapes_are_refused(shape):
    """Catches a contrast without a negative, which is a constant."""
    with pytest.raises(ValueError, match="B x B"):
        dcr_loss(randn(*shape), randn(shape[0], 4), randn(shape[0], 4), 0.1)


def test_info_nce_of_equal_views_and_of_orthogonal_ones():
    """Catches a temperature that multiplies, and a view that is compared with itself."""
    eye = torch.eye(4)
    assert info_nce(eye, eye, 0.1).item() == pytest.approx(
        math.log(1 + 3 * math.exp(-10)), abs=1e-6
    )
    one = torch.ones(4, 3)
    assert info_nce(one, 2 * one, 0.1).item() == pytest.approx(math.log(4), rel=1e-5)


# ---------------------------------------------------------------- gradients


def test_a_loss_agrees_with_itself_and_not_with_its_negative():
    """Catches a cosine of something else than gradients, and a sum that is not theirs."""
    w, free = torch.nn.Parameter(randn(3, 4)), torch.nn.Parameter(randn(2))
    loss = (w.sin() * randn(3, 4, name="y")).sum()
    same = conflict(loss, loss, [w, free])
    assert same.cosine == pytest.approx(1) and conflict(loss, -loss, [w]).cosine == pytest.approx(
        -1
    )
    loss.backward()
    torch.testing.assert_close(same.gradients[0], 2 * w.grad)
    assert not same.gradients[1].any()
    assert conflict(w.sum() * 0, w.sum(), [w]).cosine == 0


def test_equal_predictions_learn_from_the_truth_alone():
    """Catches a gradient of negatives or of the view where all predictions are one: there every
    cosine is at its maximum, and only the true codes pull."""
    base, target = randn(3, 1, 8), randn(3, 8, name="target")
    pred = base.expand(3, 3, 8).clone().requires_grad_()
    view = base[:, 0].clone().requires_grad_()
    dcr_loss(pred, view, target, 0.5).backward()
    alone = base[:, 0].clone().requires_grad_()
    cosine_B = F.cosine_similarity(alone, target) / 0.5
    others = torch.full((3, 3), 2.0)
    sums_B = torch.cat((others, cosine_B[:, None]), 1).logsumexp(1)
    (sums_B - cosine_B / 2).mean().backward()
    anchors = pred.grad.diagonal(dim1=0, dim2=1).T
    torch.testing.assert_close(anchors, alone.grad, atol=1e-6, rtol=1e-4)
    others_grad = pred.grad.clone()
    others_grad[torch.eye(3, dtype=torch.bool)] = 0
    assert others_grad.abs().max() < 1e-6 and view.grad.abs().max() < 1e-6


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize("history", HISTORIES)
def test_a_condition_of_a_class_is_the_class(network, history):
    """Catches a condition that enters at another place than the class embedding, bit by bit."""
    model, ladder, tokens_BL = network(history=history)
    labels_B = torch.tensor([0, 1, 2, 3, 1])
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    given = model.class_embedding(labels_B)
    conditioned = model.hidden(inputs_BLC, None, condition_BD=given)
    assert torch.equal(conditioned, model.hidden(inputs_BLC, labels_B))
    assert torch.equal(
        model.hidden(inputs_BLC, labels_B, scales=range(model.schedule.num_scales)),
        model.hidden(inputs_BLC, labels_B),
    )


@pytest.mark.parametrize("history", HISTORIES)
def test_scores_of_class_conditions_are_those_of_classification(network, history):
    """Catches a score of pairs that is no log p under the condition: with z the class, the row
    contrast is the posterior of likelihood classification over the labels of the batch."""
    model, ladder, tokens_BL = network(history=history)
    labels_B = torch.tensor([0, 1, 2, 3, 1])
    scores = pair_scores(model, ladder, tokens_BL, model.class_embedding(labels_B))
    wanted_BBK = scale_scores(model, ladder, tokens_BL, labels_B)
    torch.testing.assert_close(torch.stack(scores, -1).double(), wanted_BBK, atol=1e-4, rtol=1e-5)
    posterior_BB = wanted_BBK.sum(-1).log_softmax(1)
    torch.testing.assert_close(
        row_contrast(sum(scores)).double(), -posterior_BB.diagonal().mean(), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("history", HISTORIES)
def test_one_scale_is_a_scale_of_all(network, history):
    """Catches a scale that is run without the scales that it looks back at, through all blocks, and
    a loss of one scale that differs from that scale's among all."""
    model, ladder, tokens_BL = network(history=history)
    condition, view = z_of(model), z_of(model, name="view")
    whole = pair_scores(model, ladder, tokens_BL, condition)
    own = own_scores(model, ladder, tokens_BL, condition)
    images_of_scales = reconstructions(model, ladder, tokens_BL, condition, view)
    losses = [dcr_loss(*one, 0.1) for one in images_of_scales]
    for k, scores_BB in enumerate(whole):
        (alone_BB,) = pair_scores(model, ladder, tokens_BL, condition, k)
        torch.testing.assert_close(alone_BB, scores_BB, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own[k], scores_BB.diagonal(), atol=1e-4, rtol=1e-4)
        (one,) = reconstructions(model, ladder, tokens_BL, condition, view, k)
        torch.testing.assert_close(dcr_loss(*one, 0.1), losses[k], atol=1e-4, rtol=1e-4)


def test_the_loss_of_scales_together_would_be_another(network):
    """Catches scales whose codes are joined before the cosine, which weighs them by their size."""
    model, ladder, tokens_BL = network()
    images_of_scales = reconstructions(
        model, ladder, tokens_BL, z_of(model), z_of(model, name="view")
    )
    joined = [torch.cat(parts, -1) for parts in zip(*images_of_scales)]
    mean = sum(dcr_loss(*one, 0.1) for one in images_of_scales) / len(images_of_scales)
    assert abs(dcr_loss(*joined, 0.1) - mean) > 1e-3


def test_what_a_scale_needs(network):
    """Catches tokens that are counted and not run, or the other way round."""
    markov, near, var = (network(history=h, depth=1)[0] for h in (0, 1, None))
    last = markov.schedule.num_scales - 1
    assert [len(scales_to_run(model, last)) for model in (markov, near, var)] == [1, 2, last + 1]
    assert tokens_run(markov, last) == markov.schedule.lengths[last]
    assert tokens_run(var, last) == tokens_run(var, None) == var.schedule.seq_len


def test_parts_of_a_batch_change_nothing(network, monkeypatch):
    """Catches images that lose their conditions where a batch is too large for one pass, and a way
    back that forgets them."""
    model, ladder, tokens_BL = network()
    z = z_of(model).requires_grad_()
    grads = []
    for limit in (2**20, 2 * 5 * model.schedule.seq_len):
        monkeypatch.setattr(contrast, "PAIR_TOKENS", limit)
        loss = sum(row_contrast(scores) for scores in pair_scores(model, ladder, tokens_BL, z))
        grads.append(torch.autograd.grad(loss, z)[0])
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_a_projector_of_zero_says_no_class(network):
    """Catches a condition without the embedding of no class, and a projector that does not begin at
    zero: then all predictions of an image are equal, and the loss says nothing of the encoder."""
    model, ladder, tokens_BL = network()
    projector = Projector(6, model.config.width)
    projector.init_weights(generator("projector"))
    z = randn(5, 6).requires_grad_()
    condition_BD = conditions(model, projector, z)
    none_B = torch.full((5,), model.config.null_label)
    assert torch.equal(condition_BD, model.class_embedding(none_B))
    for pred_BBn, view_Bn, _ in reconstructions(
        model, ladder, tokens_BL, condition_BD, condition_BD
    ):
        torch.testing.assert_close(pred_BBn, view_Bn[:, None].expand_as(pred_BBn))
    assert torch.equal(
        torch.stack(pair_scores(model, ladder, tokens_BL, condition_BD)).std(-1) < 1e-4,
        torch.ones(model.schedule.num_scales, 5, dtype=torch.bool),
    )
    loss = sum(dcr_loss(*one, 0.1) for one in
               reconstructions(model, ladder, tokens_BL, condition_BD, condition_BD))  # fmt: skip
    assert not torch.autograd.grad(loss, z)[0].any()


def test_a_window_beside_earlier_scales_is_the_same_scale_by_scale(network):
    """Catches rows of a window that count keys of scales that are not run."""
    model, ladder, tokens_BL = network(history=1, depth=1, window=1)
    condition_BD = z_of(model)
    together = own_scores(model, ladder, tokens_BL, condition_BD)
    for k, of_scale in enumerate(together):
        torch.testing.assert_close(
            own_scores(model, ladder, tokens_BL, condition_BD, k)[0], of_scale
        )
