"""Which codes of a tokenizer are in use while it trains, and the restart of those that are not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.pipeline.code_use import CodeUse
from srdd.noise import generator
from srdd.quantizer import Quantizer
from srdd.schedule import ScaleSchedule

CPU = torch.device("cpu")


def quantizer(V):
    found = Quantizer(V, 4)
    found.init_weights(generator("codes"))
    return found


def tokens_of(schedule, codes, step, images=512):
    rng = generator("tokens", step)
    return {
        k: torch.randint(0, codes, (images, length), generator=rng)
        for k, length in enumerate(schedule.lengths)
    }


@given(
    st.integers(2, 40),
    st.integers(1, 40),
    st.lists(st.sampled_from(["all", "last", "restart", "all"]), max_size=30),
    st.floats(0.0, 1.0),
)
def test_shares_are_shares(V, codes, events, threshold):
    """Catches rows that do not sum to 1 after a restart, so that more codes are in use than there
    are; whatever happens in any order."""
    whole = ScaleSchedule((1, 3, 3))
    use, codebook = CodeUse(whole, V, CPU), quantizer(V)
    residuals = {k: torch.randn(20, 4, generator=generator("residuals", k)) for k in range(3)}
    for step, event in enumerate(events):
        if event == "restart":
            use.restart(codebook, residuals, threshold, generator("restart", step))
        else:
            tokens = tokens_of(whole, min(codes, V), step, images=5)
            use.count(tokens if event == "all" else {2: tokens[2]})
        torch.testing.assert_close(use.share_KV.sum(1), torch.ones(3), rtol=1e-5, atol=0)
        assert (use.share_KV >= 0).all() and all(1 <= found <= V for found in use.perplexity())


@pytest.mark.parametrize("before", [1, 5, 300])
@pytest.mark.parametrize("after", [0, 1, 10, 24])
def test_eight_codes_in_use_are_eight(before, after):
    """Catches a perplexity of hundreds where 8 codes serve, after a restart or at the start: codes
    that nobody used yet count nowhere."""
    schedule, V = ScaleSchedule((1, 4)), 1024
    use = CodeUse(schedule, V, CPU)
    for step in range(before):
        use.count(tokens_of(schedule, 8, step))
    residuals = {k: torch.randn(64, 4, generator=generator("r", k)) for k in range(2)}
    if before == 300:
        assert len(use.restart(quantizer(V), residuals, 0.1, generator("x"))) == V - 8
    for step in range(after):
        use.count(tokens_of(schedule, 8, before + step))
    assert use.perplexity() == pytest.approx([8, 8], rel=0.1)


def test_a_restarted_code_has_time_and_no_more():
    """Catches a code that is restarted again before anything could use it, and one that is never
    restarted again."""
    schedule, V = ScaleSchedule((1,)), 64
    use, codebook = CodeUse(schedule, V, CPU), quantizer(V)
    residuals = {0: torch.randn(64, 4, generator=generator("r"))}

    def count(steps):
        for step in range(steps):
            use.count(tokens_of(schedule, 8, step))

    def restart():
        return use.restart(codebook, residuals, 0.1, generator("x"))

    assert not len(restart()), "at the start no code is dead"
    count(60)
    assert restart().tolist() == list(range(8, V))
    count(
        math.floor(math.log(0.1) / math.log(0.95))
    )  # until the lent share has fallen to a tenth of the mean
    assert not len(restart())
    count(2)
    assert restart().tolist() == list(range(8, V))


def test_codes_go_to_the_scales_that_use_the_fewest():
    """Catches a need that a wrong perplexity made negative: both scales had the least need there
    is, and shared the codes."""
    schedule, V = ScaleSchedule((1, 4)), 256
    use, codebook = CodeUse(schedule, V, CPU), quantizer(V)
    for step in range(200):
        tokens = {0: torch.zeros(64, 1, dtype=torch.long), 1: tokens_of(schedule, 200, step)[1]}
        use.count(tokens)
    residuals = {0: torch.full((9, 4), 1.0), 1: torch.full((9, 4), 4.0)}
    dead = use.restart(codebook, residuals, 0.1, generator("x"))
    again = use.restart(
        codebook, residuals, 2.0, generator("y")
    )  # right after: all codes at a threshold above the mean
    assert len(dead) and len(again) > 200
    at_first = (codebook.codebook_VC[again, 0] == 1.0).double().mean().item()
    perplexity = use.perplexity()
    assert (
        at_first == pytest.approx((V - perplexity[0]) / (2 * V - sum(perplexity)), abs=0.08)
        and at_first > 0.75
    )


def test_what_is_resumed_is_what_was_left():
    """Catches a clock or a count that a checkpoint does not hold."""
    schedule, V = ScaleSchedule((1, 2)), 16
    use, other = CodeUse(schedule, V, CPU), CodeUse(schedule, V, CPU)
    for step in range(7):
        use.count(tokens_of(schedule, 3, step))
    use.restart(quantizer(V), {0: torch.ones(2, 4), 1: torch.ones(2, 4)}, 0.9, generator("x"))
    other.restore({name: value.clone() for name, value in use.state().items()})
    for step in range(7, 30):
        for one in (use, other):
            one.count(tokens_of(schedule, 3, step))
    assert all(torch.equal(a, b) for a, b in zip(use.state().values(), other.state().values()))
    assert use.perplexity() == other.perplexity()
    found = [
        one.restart(quantizer(V), {0: torch.ones(2, 4)}, 0.9, generator("y"))
        for one in (use, other)
    ]
    assert torch.equal(*found)


def test_equal_sides_are_scales_of_their_own():
    """Catches sides that repeat and are counted in one row: the others stay as they were before the
    first token, look healthy, and no code is ever restarted."""
    use = CodeUse(ScaleSchedule((4, 4, 4)), 64, CPU)
    for step in range(200):
        use.count(tokens_of(ScaleSchedule((4, 4, 4)), 8, step, images=32))
    assert use.perplexity() == pytest.approx([8, 8, 8], rel=0.1)
    residuals = {k: torch.randn(64, 4, generator=generator("r", k)) for k in range(3)}
    assert len(use.restart(quantizer(64), residuals, 0.1, generator("x"))) == 64 - 8
