"""The plain path that benchmarks are held against computes the same thing,
or its ratios would mean nothing."""

import pytest
import torch

from bench.speed.plain import PlainDenoiser, plain_logits, plain_probabilities, plain_sample
from srdd.config import SamplerConfig
from srdd.draw import distribution
from srdd.guidance import guide
from srdd.masks import scale_mask
from srdd.noise import generator
from srdd.schedule import ScaleSchedule


@pytest.mark.parametrize("w", [1.0, 2.5])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("history", [None, 0, 1])
@torch.no_grad()
def test_plain_logits_are_ours(make_model, history, qk_norm, w):
    """Catches a plain path that is slow for another function: other weights, guidance,
    cache or mask than ours."""
    model = make_model(history=history, qk_norm=qk_norm)
    labels_B, denoiser = torch.tensor([0, 2]), model.denoiser()
    ours = guide(denoiser, model.schedule, w, "linear", model.config.null_label, denoiser.history)
    plain = PlainDenoiser(model, labels_B, w)
    for k, length in enumerate(model.schedule.lengths):
        inputs_BlC = torch.randn(2, length, 4, generator=generator("plain", k))
        torch.testing.assert_close(
            plain(inputs_BlC, k), ours(inputs_BlC, k, labels_B), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("history", [None, 0, 1])
def test_plain_training_is_ours(make_model, history):
    """Catches a plain training path that computes another loss or other gradients than ours."""
    found = []
    inputs_BLC, labels_B = (
        torch.randn(2, 14, 4, generator=generator("plain step")),
        torch.tensor([0, 2]),
    )
    for forward in (
        lambda m: m(inputs_BLC, labels_B),
        lambda m: plain_logits(m, inputs_BLC, labels_B, scale_mask(m.schedule, history)),
    ):
        model = make_model(history=history)
        logits_BLV = forward(model)
        logits_BLV.logsumexp(-1).sum().backward()
        found.append([logits_BLV, *(weight.grad for weight in model.parameters())])
    for ours, plain in zip(*found):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("top_k, top_p", [(None, 1.0), (5, 1.0), (None, 0.6), (5, 0.6)])
def test_plain_probabilities_are_ours(top_k, top_p):
    """Catches a full sort that cuts other codes than our draw does."""
    logits_BlV = 3 * torch.randn(2, 3, 9, generator=generator("plain draw"))
    config = SamplerConfig(top_k=top_k, top_p=top_p, temperature=0.8)
    found, ours = (
        plain_probabilities(logits_BlV, config),
        distribution(logits_BlV, 0.8, top_k, top_p),
    )
    every = torch.stack([ours.probability(torch.full((2, 3), code)) for code in range(9)], -1)
    torch.testing.assert_close(found.double(), every, rtol=1e-5, atol=1e-6)
    assert (found == 0).any() == (top_k is not None or top_p < 1)


def test_plain_sample_is_whole(make_model, make_ladder):
    """Catches a plain sampler that leaves out a scale or a state:
    its state must be that of its tokens."""
    model, ladder = make_model(), make_ladder(ScaleSchedule((1, 2, 3)))
    tokens_BL, f_hat_BChw = plain_sample(
        model, ladder, torch.tensor([0, 1]), SamplerConfig(cfg_scale=2.0), generator("plain")
    )
    assert tokens_BL.shape == (2, 14)
    torch.testing.assert_close(f_hat_BChw, ladder.decode(tokens_BL))


@pytest.mark.parametrize("changes", [{"shared_adaln": True}, {"mask_prob": 0.5}])
def test_plain_path_refuses_what_it_does_not_know(make_model, changes):
    """Catches a comparison with a path that silently leaves a part of the model out."""
    with pytest.raises(ValueError, match="knows no"):
        PlainDenoiser(make_model(**changes), torch.tensor([0]), 1.0)
