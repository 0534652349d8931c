"""Windows of attention inside a scale."""

import sys

import pytest
import torch
from pydantic import ValidationError

from srdd.compiling import kernels_know
from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import least_flops, sampling_cost
from srdd.diffusion import markov_view
from srdd.fused import FusedStep
from srdd.masks import scale_mask, window_mask, windowed_mask
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule

SIDES = (1, 2, 3, 5)
SCHEDULE = ScaleSchedule(SIDES)
OFFICIAL = ScaleSchedule((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))


def inputs(batch=2):
    rng = generator("inputs")
    return torch.randn(batch, SCHEDULE.seq_len, 4, generator=rng), torch.arange(batch)


@pytest.mark.parametrize("window", [1, 3, 5, 7])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 6])
def test_every_token_sees_a_whole_square_about_it(side, window):
    """Catches a window that is cut off at a border, or moves past it: counted token by token."""
    mask_ll, w = window_mask(side, window), min(window, side)
    assert (mask_ll.sum(1) == w * w).all()
    for y in range(side):
        for x in range(side):
            top, left = (min(max(i - w // 2, 0), side - w) for i in (y, x))
            seen = {(i, j) for i in range(top, top + w) for j in range(left, left + w)}
            row = mask_ll[y * side + x].view(side, side).nonzero().tolist()
            assert {tuple(place) for place in row} == seen and (y, x) in seen


@pytest.mark.parametrize("history", [0, 1, None])
@pytest.mark.parametrize("window, first", [(1, 0), (3, 0), (3, 3), (1, 2), (5, 0), (None, 0)])
def test_the_fast_path_is_the_dense_mask(make_model, history, window, first):
    """Catches a window that touches earlier scales, the wrong scale, or nothing: all at once and
    scale by scale against one dense mask, and no leak from scales not seen."""
    sizes = {"patch_nums": SIDES, "history": history}
    model = make_model(window=window, window_from=first, **sizes)
    mask_LL = windowed_mask(SCHEDULE, history, window, first)
    dense = make_model(mask_LL, **sizes)
    inputs_BLC, labels_B = inputs()
    wanted_BLV, found_BLV = dense(inputs_BLC, labels_B), model(inputs_BLC, labels_B)
    torch.testing.assert_close(found_BLV, wanted_BLV, rtol=1e-5, atol=1e-6)
    denoise = model.denoiser()
    for k, piece in enumerate(SCHEDULE.slices):
        logits_BlV = denoise(inputs_BLC[:, piece], k, labels_B)
        torch.testing.assert_close(logits_BlV, wanted_BLV[:, piece], rtol=1e-4, atol=2e-5)
    assert SCHEDULE.attended_pairs(history, window, first) == int(mask_LL.sum())
    assert not (mask_LL & ~scale_mask(SCHEDULE, history)).any()


def test_a_token_reads_its_window_alone(make_model):
    """Catches rows and columns that are swapped: which inputs one block's token touches."""
    model = make_model(patch_nums=SIDES, history=0, window=3, depth=1)
    inputs_BLC, labels_B = inputs(1)
    inputs_BLC.requires_grad_()
    last = SCHEDULE.slices[3]
    for place, (rows, columns) in {
        0: ((0, 3), (0, 3)),
        12: ((1, 4), (1, 4)),
        9: ((0, 3), (2, 5)),
    }.items():
        logits_V = model(inputs_BLC, labels_B)[0, last.start + place]
        (grad_BLC,) = torch.autograd.grad(logits_V.sum(), inputs_BLC)
        touched_ss = grad_BLC[0, last].any(-1).view(5, 5)
        wanted_ss = torch.zeros(5, 5, dtype=torch.bool)
        wanted_ss[slice(*rows), slice(*columns)] = True
        assert torch.equal(touched_ss, wanted_ss) and not grad_BLC[0, : last.start].any()


def test_a_window_of_a_side_or_more_is_none(make_model, make_ladder):
    """Catches another path where nothing is hidden: weights, logits and samples bit by bit."""
    plain = make_model(patch_nums=SIDES, history=0)
    wide = make_model(patch_nums=SIDES, history=0, window=5)
    assert wide.rows(3) is None
    assert torch.equal(plain(*inputs()), wide(*inputs()))
    ladder, labels_B = make_ladder(SCHEDULE), torch.tensor([0, 1])
    drawn = [generate(one, ladder, labels_B, [1, 2], SamplerConfig()) for one in (plain, wide)]
    assert all(torch.equal(a, b) for a, b in zip(*drawn))


def test_weights_know_no_window(model_config):
    """Catches a mask that is saved as a weight, or moves one that is drawn."""
    drawn = []
    for window in (None, 3):
        model = ScaleTransformer(model_config(patch_nums=SIDES, history=0, window=window))
        model.init_weights(generator("start"))
        drawn.append(model.state_dict())
    assert drawn[0].keys() == drawn[1].keys()
    assert all(torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())


def test_pairs_at_the_official_schedule():
    """Catches a window that is counted where none is, or for the wrong scales."""
    pairs = OFFICIAL.attended_pairs(0, 7, 8)
    assert pairs == 37_196
    assert round(pairs / OFFICIAL.attended_pairs(0), 2) == 0.34
    assert round(pairs / OFFICIAL.attended_pairs(None), 2) == 0.13
    assert ScaleSchedule((1, 2, 3, 4)).attended_pairs(0) == 354
    assert ScaleSchedule((1, 2, 3, 4)).attended_pairs(0, 3, 3) == 242


def test_what_a_window_hides_is_no_part_of_the_least_operations(model_config):
    """Catches a floor of a window that is that of all pairs, or below what is seen: 2 D operations
    for q.k and as many for the values, in every block."""
    config = model_config(patch_nums=SIDES, history=0, window=3, depth=2, width=16)
    cost = sampling_cost(config, SamplerConfig())
    least = least_flops(config, cost)
    seen = [int(window_mask(side, 3).sum()) for side in SIDES]
    for k, side in enumerate(SIDES):
        hidden = side**4 - seen[k]
        assert cost.by_scale[k][2] - least[k] == 2 * (2 * 16 * hidden + 2 * 16 * hidden)
    assert seen[3] < SIDES[3] ** 4


def test_it_stays_markov_and_costs_what_it_computes(make_model, model_config):
    """Catches a view that forgets the window, and operations that are counted but not saved: a
    mask hides pairs, it skips none."""
    model = make_model(patch_nums=SIDES, history=0, window=3)
    assert torch.equal(model(*inputs()), markov_view(model)(*inputs()))
    plain, windowed = (
        sampling_cost(model_config(patch_nums=SIDES, history=0, window=w), SamplerConfig())
        for w in (None, 3)
    )
    assert plain == windowed


BAD = {
    "even": (
        {"window": 4},
        "window 4: has no middle for the token itself; give an odd number, 3 or 5",
    ),
    "beyond": ({"window": 3, "window_from": 4}, "window_from 4: the schedule has scales 0 to 3"),
    "a mask": ({"window": 3, "history": None, "mask": "mine"}, "mask 'mine' says who sees whom"),
    "zero": ({"window": 0}, "greater than or equal to 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_windows_that_cannot_be_laid_are_refused(case):
    """Catches an error of shapes in the first step instead of one line."""
    changes, words = BAD[case]
    with pytest.raises(ValidationError, match=words):
        ModelConfig(**{"patch_nums": SIDES, "history": 0, **changes})


def test_an_explicit_mask_beside_a_window_is_refused(model_config):
    """Catches a window that is silently not there."""
    config = model_config(patch_nums=SIDES, history=0, window=3)
    with pytest.raises(ValueError, match="^mask_LL beside window 3"):
        ScaleTransformer(config, scale_mask(SCHEDULE, 0))


@pytest.mark.parametrize("dial", [{"window": 3}, {"history_vector": 2}])
def test_kernels_of_a_gpu_that_do_not_know_a_dial_are_not_asked(make_model, monkeypatch, dial):
    """Catches a fast path that leaves the dial out: with kernels that would take any tensor, and
    fail here, the plain step runs."""
    model = make_model(patch_nums=SIDES, history=0, **dial)
    plain = make_model(patch_nums=SIDES, history=0)
    assert kernels_know(plain.config) and not kernels_know(model.config)
    inputs_BLC, labels_B = inputs()
    wanted_BLV = model(inputs_BLC, labels_B)
    monkeypatch.setattr("srdd.fused.can_fuse", lambda *tensors: True)
    monkeypatch.setitem(sys.modules, "srdd.kernels", None)
    for one, works in ((model, True), (plain, False)):
        one.step = FusedStep(one)
        denoise = one.denoiser()
        for k, piece in enumerate(SCHEDULE.slices):
            if works:
                logits_BlV = denoise(inputs_BLC[:, piece], k, labels_B)
                assert torch.allclose(logits_BlV, wanted_BLV[:, piece], atol=2e-5)
            else:
                with pytest.raises(ImportError):
                    denoise(inputs_BLC[:, piece], k, labels_B)
