"""Passes of each image, counted round a network: their laws by enumeration, and that counting
changes nothing."""

import math
from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest
import torch

from oracle import JointOracle, PooledNoise, chi_square
from srdd.config import SamplerConfig
from srdd.counting import Counting, count_passes
from srdd.guidance import guidance_weights, guided_scales
from srdd.sampling import generate, sample_srdd
from srdd.schedule import ScaleSchedule

N, FALSE_ALARM = 20_000, 1e-4
RULES = {
    "static": {"name": "static"},
    "static by drawn": {"name": "static", "confidence": "drawn"},
    "sequential": {"name": "sequential"},
    "shuffled": {"name": "shuffled"},
    "dynamic": {"name": "dynamic", "commit_above": 0.3},
    "entropy": {"name": "entropy", "entropy_bound": 2.0},
    "threshold": {"name": "threshold", "p_resample": 0.2},
    "lowest": {"name": "lowest"},
    "random": {"name": "random"},
}


def srdd(refine_steps, select, **more):
    return SamplerConfig(name="srdd", refine_steps=refine_steps, select=select, **more)


def counting_of(oracle, config, name, count=N):
    """The wrapper round an oracle after it has drawn so many images, and their tokens."""
    model = SimpleNamespace(
        config=SimpleNamespace(codebook_size=oracle.V, history=0),
        schedule=oracle.schedule,
        mask_LL=None,
    )
    counting = Counting(oracle.denoise, count, model, config)
    nobody = torch.zeros(count, dtype=torch.long)
    noise = PooledNoise(name, count)
    return counting, sample_srdd(counting, oracle.ladder, nobody, noise, config)[0]


# ---------------------------------------------------------------- laws


def dynamic_law(oracle, before, bound, passes):
    """Law of the number of passes of the second scale under rule dynamic, by its definition."""

    def law(own, left):
        taken = [i for i, token in enumerate(own) if token == oracle.V]
        if not taken:
            return {0: 1.0}
        if left == 1:
            return {1: 1.0}
        p = oracle.conditional(1, before, own)
        surest = sorted(taken, key=lambda i: -max(p[i]))
        quota = math.ceil(len(taken) / left)
        committed = set(surest[:quota]) | {i for i in taken if max(p[i]) >= bound}
        outcomes = [(1.0, own)]
        for i in committed:
            outcomes = [
                (q * share, (*one[:i], v, *one[i + 1 :]))
                for q, one in outcomes
                for v, share in enumerate(p[i])
            ]
        found = defaultdict(float)
        for q, one in outcomes:
            for count, share in law(one, left - 1).items():
                found[1 + count] += q * share
        return found

    return law((oracle.V,) * 4, passes)


@pytest.mark.parametrize("passes, bound", [(4, 0.6), (4, 0.5), (3, 0.55), (2, 0.7)])
def test_passes_of_dynamic_have_their_enumerated_law(passes, bound):
    """Catches passes of a batch told as those of an image, a last pass that is not counted, and one
    that is counted for an image that is done."""
    oracle = JointOracle()
    select = {"name": "dynamic", "commit_above": bound}
    counting, tokens_BL = counting_of(oracle, srdd(passes - 1, select), f"dynamic {passes} {bound}")
    assert (counting.passes_BK[:, 0] == 1).all(), "one token needs one pass"
    several = 0
    for before in range(oracle.V):
        law = dynamic_law(oracle, before, bound, passes)
        taken = counting.passes_BK[tokens_BL[:, 0] == before, 1]
        observed = torch.bincount(taken, minlength=passes + 1)
        wanted = [law.get(count, 0.0) for count in range(passes + 1)]
        assert sum(wanted) == pytest.approx(1.0, abs=1e-12)
        assert chi_square(observed, wanted) > FALSE_ALARM
        several += sum(share > 0.01 for share in wanted) > 1
    assert several or bound == 0.7, "the test must be able to fail"


def test_passes_of_threshold_in_closed_form():
    """Catches an image that is counted as open for a token that was kept: with independent tokens
    it is open after t passes with probability 1 - prod(1 - s_i^t), s_i the mass below the bound."""
    oracle, bound, passes = JointOracle(independent=True), 0.3, 5
    select = {"name": "threshold", "p_resample": bound}
    counting, tokens_BL = counting_of(oracle, srdd(passes - 1, select), "threshold passes")
    for before in range(oracle.V):
        p = oracle.conditional(1, before, (oracle.V,) * 4)
        low = [sum(q for q in of_place if q < bound) for of_place in p]
        open_after = [1 - math.prod(1 - s**t for s in low) for t in range(passes + 1)]
        law = [0.0] + [open_after[t - 1] - open_after[t] for t in range(1, passes)]
        law += [open_after[passes - 1]]
        taken = counting.passes_BK[tokens_BL[:, 0] == before, 1]
        assert chi_square(torch.bincount(taken, minlength=passes + 1), law) > FALSE_ALARM
        assert law[1] > 0.02 and law[2] > 0.02, "the test must be able to fail"


@pytest.mark.parametrize("name", ["static", "sequential", "shuffled"])
@pytest.mark.parametrize("passes", [1, 2, 3, 4, 9])
def test_rules_of_a_quota_take_their_passes(make_model, make_ladder, name, passes):
    """Catches tokens per forward that are not L/K in one pass, or not 1 when each pass draws one
    token."""
    schedule = ScaleSchedule((1, 2, 3))
    model = make_model(history=0, mask_prob=1.0)
    labels = torch.arange(6) % 3
    config = srdd(passes - 1, name)
    _, counted = count_passes(model, make_ladder(schedule), labels, range(6), config)
    wanted = [min(passes, length) for length in schedule.lengths]
    assert counted.passes_BK.tolist() == [wanted] * 6
    assert counted.tokens_per_forward(14).tolist() == [14 / sum(wanted)] * 6
    if passes in (1, 9):
        assert counted.tokens_per_forward(14)[0] == {1: 14 / 3, 9: 1.0}[passes]


# ---------------------------------------------------------------- nothing else changes


@pytest.mark.parametrize("history", [0, 1, None])
@pytest.mark.parametrize("name", RULES)
def test_counting_changes_no_token_and_no_batch_changes_a_count(
    make_model, make_ladder, name, history
):
    """Catches a wrapper that is not transparent, and an image whose passes follow from those it is
    drawn with."""
    model, ladder = (
        make_model(history=history, mask_prob=1.0),
        make_ladder(ScaleSchedule((1, 2, 3))),
    )
    labels, config = torch.arange(8) % 3, srdd(5, RULES[name], cfg_scale=1.4)
    tokens_BL, counted = count_passes(model, ladder, labels, range(8), config)
    assert torch.equal(tokens_BL, generate(model, ladder, labels, range(8), config)[0])
    alone = [
        count_passes(model, ladder, labels[i : i + 1], [i], config)[1].passes_BK for i in range(8)
    ]
    assert torch.equal(torch.cat(alone), counted.passes_BK)
    assert (counted.passes_BK[:, 1:] <= 6).all() and (counted.passes_BK >= 1).all()


@pytest.mark.parametrize("cfg_scale", [1.0, 2.0])
@pytest.mark.parametrize("history", [0, None])
def test_token_evals_are_those_of_one_image(make_model, make_ladder, history, cfg_scale):
    """Catches guided passes that count once, or scales that guidance leaves alone counted twice."""
    model, schedule = make_model(history=history, mask_prob=1.0), ScaleSchedule((1, 2, 3))
    config = srdd(1, "shuffled", cfg_scale=cfg_scale)
    labels = torch.arange(2)
    counted = count_passes(model, make_ladder(schedule), labels, range(2), config)[1]
    doubled = guided_scales(guidance_weights(cfg_scale, "linear", 3), history)
    wanted = sum(
        min(2, length) * length * (2 if twice else 1)
        for length, twice in zip(schedule.lengths, doubled)
    )
    assert counted.token_evals(model, config).tolist() == [wanted] * 2


@pytest.mark.parametrize("history", [0, 1, None])
@pytest.mark.parametrize("name", ["dynamic", "threshold", "entropy", "static"])
def test_token_evals_are_what_the_network_is_given(make_model, make_ladder, history, name):
    """Catches calls that are made though nothing is open, where later scales read their keys, and
    that nobody counts."""
    model = make_model(history=history, mask_prob=1.0)
    ladder, config = make_ladder(ScaleSchedule((1, 2, 3))), srdd(3, name)
    rows, step = [], model.step

    def noted(inputs_BlC, *rest):
        rows.append(inputs_BlC.shape[:2].numel())
        return step(inputs_BlC, *rest)

    for seed in range(4):
        _, counted = count_passes(model, ladder, torch.tensor([1]), [seed], config)
        rows.clear()
        model.step = noted
        generate(model, ladder, torch.tensor([1]), [seed], config)
        model.step = step
        assert counted.token_evals(model, config).tolist() == [sum(rows)]


def test_one_pass_of_every_rule_is_var(make_model, make_ladder):
    """Catches a rule that acts on a scale of one pass: T = 1 is the sampler var, bit for bit, and a
    network that reads own tokens with weight 0 is its teacher."""
    model, ladder = make_model(history=0, mask_prob=1.0), make_ladder(ScaleSchedule((1, 2, 3)))
    plain = generate(model, ladder, torch.arange(8) % 3, range(8), SamplerConfig())
    for select in RULES.values():
        drawn = generate(model, ladder, torch.arange(8) % 3, range(8), srdd(0, select))
        assert all(torch.equal(one, other) for one, other in zip(plain, drawn))


def test_own_tokens_of_other_scales_leak_nothing(make_model, make_ladder):
    """Catches history 0 that still shows a scale what another has revealed."""
    model, schedule = make_model(history=0, mask_prob=1.0), ScaleSchedule((1, 2, 3))
    ladder = make_ladder(schedule)
    tokens_BL = torch.randint(7, (3, 14), generator=torch.Generator().manual_seed(0))
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    plain_BLV = model(inputs_BLC, torch.arange(3), own_BL=torch.full((3, 14), 7))
    for k, piece in enumerate(schedule.slices):
        own_BL = torch.full((3, 14), 7)
        own_BL[:, piece] = tokens_BL[:, piece]
        shown_BLV = model(inputs_BLC, torch.arange(3), own_BL=own_BL)
        same = [torch.equal(plain_BLV[:, other], shown_BLV[:, other]) for other in schedule.slices]
        assert same == [j != k for j in range(3)]


def test_peaks_are_those_of_open_positions():
    """Catches the peak of a token that is committed already, which nobody draws."""
    oracle = JointOracle()
    counting, _ = counting_of(oracle, srdd(3, "sequential"), "peaks", count=50)
    assert [len(peaks) for peaks in counting.peaks] == [50, 200, 150, 100, 50]
    first = max(oracle.conditional(0, 0, (oracle.V,))[0])
    torch.testing.assert_close(counting.peaks[0], torch.full((50,), first, dtype=torch.float64))
    assert Counter(counting.passes_BK[:, 1].tolist()) == {4: 50}


def test_a_sampler_of_ones_own_is_refused(make_model, make_ladder):
    """Catches passes of a sampler that asks for some images alone, told as those of all."""
    model, ladder = make_model(history=0), make_ladder(ScaleSchedule((1, 2, 3)))
    config = SamplerConfig.model_construct(**{**SamplerConfig().__dict__, "name": "mine"})
    with pytest.raises(ValueError, match=r"sampler\.name 'mine': .* not counted .* var, srdd"):
        count_passes(model, ladder, torch.arange(2), range(2), config)
    tokens_BL, counted = count_passes(model, ladder, torch.arange(2), range(2), SamplerConfig())
    assert counted.passes_BK.tolist() == [[1, 1, 1]] * 2 and tokens_BL.shape == (2, 14)
