"""Multi-scale residual quantisation against the recursion written out with other operations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from srdd.quantizer import Quantizer
from srdd.schedule import ScaleSchedule

schedules = st.sets(st.integers(1, 6), min_size=1, max_size=4).map(
    lambda sides: ScaleSchedule(tuple(sorted(sides)))
)
seeds = st.integers(0, 10_000)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def area(f_BChw, side):
    """Area-resize by explicit means over the cells that each coarse cell touches."""
    n = f_BChw.shape[-1]
    spans = [(i * n // side, math.ceil((i + 1) * n / side)) for i in range(side)]
    rows = [
        torch.stack([f_BChw[:, :, a:b, c:d].mean((2, 3)) for c, d in spans], 1) for a, b in spans
    ]
    return torch.cat(rows, 1)  # (B, side * side, C)


def phi_index(k, num_scales):
    """method.md: nearest tick of k/(K-1) in linspace(1/12, 11/12, 4)."""
    # the public code's own expression: ties are decided by its rounding
    ticks = np.linspace(1 / 3 / 4, 1 - 1 / 3 / 4, 4)
    return int(np.argmin(np.abs(ticks - (k / (num_scales - 1) if num_scales > 1 else 1.0))))


def upsampled(quantizer, codes_BlC, k, schedule):
    B, _, C = codes_BlC.shape
    side, size = schedule.patch_nums[k], schedule.latent_size
    grid = codes_BlC.permute(0, 2, 1).reshape(B, C, side, side)
    if side < size:
        grid = F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)
    conv = quantizer.phi[phi_index(k, schedule.num_scales)]
    return 0.5 * grid + 0.5 * F.conv2d(grid, conv.weight, conv.bias, padding=1)


@given(schedules, seeds)
def test_encode_is_the_greedy_residual_recursion(make_ladder, schedule, seed):
    """Catches any drift of `encode` from method.md section 2: resize, nearest code, bicubic, phi,
    subtract, again."""
    ladder = make_ladder(schedule)
    latent = noise(seed, 2, 4, schedule.latent_size, schedule.latent_size)
    tokens_BL, f_hat = ladder.encode(latent)
    rest = latent.clone()
    codes_VC = ladder.quantizer.codebook_VC.detach()
    with torch.no_grad():
        for k, piece in enumerate(schedule.slices):
            distance = (area(rest, schedule.patch_nums[k])[:, :, None] - codes_VC).square().sum(-1)
            chosen = distance.gather(2, tokens_BL[:, piece, None]).squeeze(2)
            # a tie may go either way
            torch.testing.assert_close(chosen, distance.amin(2), rtol=1e-4, atol=1e-4)
            rest = rest - upsampled(ladder.quantizer, codes_VC[tokens_BL[:, piece]], k, schedule)
    torch.testing.assert_close(f_hat, latent - rest, rtol=1e-4, atol=1e-4)


@given(schedules, seeds)
def test_decode_repeats_the_state_of_encode(make_ladder, schedule, seed):
    """Catches encoder and decoder walking different recursions: the same bits are required."""
    ladder = make_ladder(schedule)
    tokens_BL, f_hat = ladder.encode(noise(seed, 2, 4, schedule.latent_size, schedule.latent_size))
    assert torch.equal(ladder.decode(tokens_BL), f_hat)


@given(schedules, seeds)
def test_teacher_forcing_reads_the_state_before_each_scale(make_ladder, schedule, seed):
    """Catches training inputs off by one scale, or other than what a sampler reads on the same
    tokens."""
    ladder = make_ladder(schedule)
    tokens_BL = torch.randint(
        7, (2, schedule.seq_len), generator=torch.Generator().manual_seed(seed)
    )
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    before = [
        torch.zeros(2, 4, schedule.latent_size, schedule.latent_size),
        *ladder.states(tokens_BL),
    ][:-1]
    assert inputs_BLC.shape == (2, schedule.seq_len, 4)
    for k, piece in enumerate(schedule.slices):
        torch.testing.assert_close(
            inputs_BLC[:, piece], area(before[k], schedule.patch_nums[k]), rtol=1e-4, atol=1e-5
        )


def test_one_quantizer_serves_a_reduced_schedule(make_ladder):
    """Catches state kept in the quantizer from one schedule to the next,
    which scale distillation would trip over."""
    full, reduced = ScaleSchedule((1, 2, 3, 4)), ScaleSchedule((1, 4))
    ladder = make_ladder(full)
    latent = noise(0, 2, 4, 4, 4)
    alone = make_ladder(reduced).encode(latent)[0]
    ladder.encode(latent)
    other = ladder.quantizer.at(reduced)
    assert torch.equal(other.encode(latent)[0], alone)
    assert other.encode(latent)[0].shape == (2, 17) and other.decode(alone).shape == latent.shape


@given(seeds)
def test_nearest_code_is_brute_force(seed):
    """Catches an error in the expanded squares, for example a factor or a missing norm:
    float64 against all distances."""
    quantizer = Quantizer(11, 3).double()
    with torch.no_grad():
        quantizer.codebook_VC.copy_(3 * noise(seed, 11, 3))
    x_BlC = noise(seed + 1, 2, 5, 3).double()
    expected = (x_BlC[:, :, None] - quantizer.codebook_VC).norm(dim=-1).argmin(-1)
    assert torch.equal(quantizer.nearest_code(x_BlC), expected)


def test_phi_of_each_published_scale():
    """Catches another assignment of the four phi to ten scales than linspace(1/12, 11/12,
    4) gives, written out by hand."""
    quantizer = Quantizer(2, 1, num_phi=4, phi_ratio=0.5)
    with torch.no_grad():
        for i, conv in enumerate(quantizer.phi):
            conv.weight.zero_()
            conv.bias.fill_(i)
    x = torch.full((1, 1, 2, 2), 8.0)
    used = [quantizer.apply_phi(x, k, 10) for k in range(10)]
    assert [int(2 * (y - 4).mean()) for y in used] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert torch.equal(Quantizer(2, 1, phi_ratio=0.0).apply_phi(x, 1, 10), x)


def test_quantize_takes_no_gradient_to_the_latent_but_gives_one_to_the_codes(make_ladder):
    """Catches a gradient leaking into the encoder through the recursion,
    or a codebook and phi that cannot learn."""
    ladder = make_ladder(ScaleSchedule((1, 2)))
    ladder.quantizer.zero_grad(set_to_none=True)
    latent = noise(3, 1, 4, 2, 2).requires_grad_()
    *_, f_hat = (state for _, _, state in ladder.quantize(latent))
    f_hat.square().sum().backward()
    assert latent.grad is None
    assert ladder.quantizer.codebook_VC.grad.abs().sum() > 0
    assert ladder.quantizer.phi[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_perfect_code_leaves_nothing(make_ladder, side):
    """Catches a scale that does not take away what it encodes:
    codes equal to the latent and phi = 1 give rest zero."""
    schedule = ScaleSchedule((side,))
    ladder = make_ladder(schedule, phi_ratio=0.0)
    tokens_BL = torch.randint(7, (1, side * side), generator=torch.Generator().manual_seed(1))
    latent = ladder.decode(tokens_BL).detach()
    again, f_hat = ladder.encode(latent)
    assert torch.equal(again, tokens_BL) and torch.equal(f_hat, latent)


@pytest.mark.parametrize("combine", ["sum", "replace"])
def test_states_and_tokens_do_not_depend_on_the_precision_of_the_network(make_ladder, combine):
    """Catches a training under autocast that reads other states than a sampler, or whose tokens are
    those of codes rounded to three digits."""
    ladder = make_ladder(ScaleSchedule((1, 2, 3, 4)), codebook_size=64)
    ladder.quantizer.combine = combine
    latent_BChw = noise(5, 3, 4, 4, 4)
    tokens_BL, f_hat_BChw = ladder.encode(latent_BChw)
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        low_BL, low_BChw = ladder.encode(latent_BChw)
        read_BLC = ladder.teacher_forced_inputs(tokens_BL)
    assert torch.equal(low_BL, tokens_BL) and torch.equal(low_BChw, f_hat_BChw)
    assert torch.equal(read_BLC, inputs_BLC)


def test_an_absent_token_adds_nothing():
    """Catches a code, or no number, for what is not there: V stands for an absent token."""
    quantizer = Quantizer(3, 2, num_phi=1)
    torch.nn.init.normal_(quantizer.codebook_VC, generator=torch.Generator().manual_seed(0))
    codes_BlC = quantizer.embed_present(torch.tensor([[2, 3, 0]]))
    wanted = [quantizer.codebook_VC[2], torch.zeros(2), quantizer.codebook_VC[0]]
    assert torch.equal(codes_BlC[0], torch.stack(wanted))
