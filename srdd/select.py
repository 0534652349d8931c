"""Which tokens a further pass masks and redraws: `select_<name>`, and `confidence_<name>` that some
of them rank by.

B batch, l tokens of one scale
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import torch

from .config import SamplerConfig
from .contracts import check_confidence, check_select
from .draw import TokenDistribution
from .lookup import find, function_name, is_own
from .rules import Chance, ChanceConfidence, Confidence, Nats, SomeShare
from .untouched import Untouched

# -------------------------------------------------------------- which tokens a further pass redraws


@dataclass(frozen=True)
class Pass:
    """What one pass over a scale drew (VAR, arXiv 2404.02905): tokens_Bl, the probability of each,
    and the distribution that they were drawn from."""

    source: TokenDistribution
    tokens_Bl: torch.Tensor
    probability_Bl: torch.Tensor


@dataclass(frozen=True)
class Drawn:
    """The tokens of one scale as they stand, and what was known of each when it was drawn.

    probability_Bl: of the token itself; peak_Bl: of the likeliest code; entropy_Bl: nats; open_Bl:
    positions not committed yet, all but the known ones at first; fixed_Bl: known tokens, never
    redrawn; passes_left: passes of the scale that can still commit positions, the one just made
    included: T after the first of T.
    """

    tokens_Bl: torch.Tensor
    probability_Bl: torch.Tensor
    peak_Bl: torch.Tensor
    entropy_Bl: torch.Tensor
    open_Bl: torch.Tensor
    fixed_Bl: torch.Tensor
    passes_left: int

    def quota(self) -> torch.Tensor:
        """How many open positions must be committed now so that all are after the last pass (SDAR,
        arXiv 2510.06303): open over passes_left, rounded up. Returns int64 (B, 1)."""
        return (self.open_Bl.sum(-1, keepdim=True) + self.passes_left - 1) // self.passes_left

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that a rule (SRDD, arXiv 2509.22636) must leave as it is, by name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }

    def passed(self, redraw_Bl: torch.Tensor) -> Drawn:
        """The same tokens one pass later (SDAR, arXiv 2510.06303), with other open positions."""
        return replace(self, open_Bl=redraw_Bl, passes_left=self.passes_left - 1)

    @classmethod
    def after(cls, one: Pass, fixed_Bl: torch.Tensor, passes: int) -> Drawn:
        """What a pass drew of a scale whose tokens are all open, with so many passes left (SDAR,
        arXiv 2510.06303)."""
        peak_Bl, entropy_Bl = one.source.peak(), one.source.entropy()
        return cls(
            one.tokens_Bl, one.probability_Bl, peak_Bl, entropy_Bl, ~fixed_Bl, fixed_Bl, passes
        )

    def where(self, redraw_Bl: torch.Tensor, later: Drawn) -> Drawn:
        """A later pass where redrawn; the redrawn positions are the open ones now."""
        return replace(
            self.passed(redraw_Bl),
            tokens_Bl=torch.where(redraw_Bl, later.tokens_Bl, self.tokens_Bl),
            probability_Bl=torch.where(redraw_Bl, later.probability_Bl, self.probability_Bl),
            peak_Bl=torch.where(redraw_Bl, later.peak_Bl, self.peak_Bl),
            entropy_Bl=torch.where(redraw_Bl, later.entropy_Bl, self.entropy_Bl),
        )


# ---------------------------------------------------------------- how sure a pass is of a position


def confidence_peak(drawn: Drawn) -> torch.Tensor:
    """Probability of the likeliest code (arXiv 2505.22618): says nothing of the token that was
    drawn, so that a rule that ranks by it favours no value. Returns float64 (B, l)."""
    return drawn.peak_Bl


def confidence_drawn(drawn: Drawn) -> torch.Tensor:
    """Probability of the token that was drawn (MaskGIT, arXiv 2202.04200, section 3.2; SDAR,
    2510.06303): a rule that ranks by it keeps likely values, which truncates the distribution.
    Returns float64 (B, l)."""
    return drawn.probability_Bl


def confidence_entropy(drawn: Drawn) -> torch.Tensor:
    """Negative entropy in nats (arXiv 2505.24857, section 3): blind to the token that was drawn, as
    `confidence_peak`. Returns float64 (B, l)."""
    return -drawn.entropy_Bl


def asked_confidence(drawn: Drawn, name: str) -> torch.Tensor:
    """What a rule ranks positions by (SDAR, arXiv 2510.06303): `confidence_<name>`, float64 (B, l);
    one of one's own is checked. Raises ValueError."""
    confidence = find(sys.modules[__name__], "confidence", name)
    if not is_own("confidence", name):
        built_in_Bl: torch.Tensor = confidence(drawn)
        return built_in_Bl
    who, given = function_name("confidence", name), Untouched(**drawn.tensors())
    confidence_Bl = confidence(drawn)
    given.check(who)
    return check_confidence(confidence_Bl, drawn.open_Bl.shape, who)


# ---------------------------------------------------------------- rules
#
# What can be set of a rule are its keyword-only parameters, `knob: Kind = default`: the kinds are
# those of `rules.KINDS`, and a study sets them in `sampler.select`.


def redraws(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """What the rule that `config` names redraws (mask resampling of SRDD, arXiv 2509.22636), bool
    (B, l); one of one's own is checked.

    Raises ValueError for an unknown rule, or one that returns anything else or changes what it is
    given."""
    select = find(sys.modules[__name__], "select", config.select.name)
    knobs = config.select.knobs()
    if not is_own("select", config.select.name):
        built_in_Bl: torch.Tensor = select(drawn, uniform_Bl, config, **knobs)
        return built_in_Bl
    who, given = function_name("select", config.select.name), Untouched(**drawn.tensors())
    redraw_Bl = select(drawn, uniform_Bl, config, **knobs)
    given.check(who)
    return check_select(redraw_Bl, drawn.fixed_Bl, who)


def _rank(score_Bl: torch.Tensor, among_Bl: torch.Tensor) -> torch.Tensor:
    """Place of each position among some of its row, the lowest score first and of equal ones the
    first; all others come behind."""
    score_Bl = score_Bl.masked_fill(~among_Bl, torch.inf)
    # argsort twice: the rank of each; stable: of equal scores the first
    return score_Bl.argsort(dim=-1, stable=True).argsort(dim=-1)


def _lowest(score_Bl: torch.Tensor, fraction: float, fixed_Bl: torch.Tensor) -> torch.Tensor:
    """The ceil(fraction x free) free positions of each row with the lowest score; of equal ones the
    first."""
    # float64: in float32, 0.15 of 100 is a little more than 15
    count_B1 = torch.ceil((~fixed_Bl).sum(-1, keepdim=True).double() * fraction - 1e-9)
    return _rank(score_Bl, ~fixed_Bl) < count_B1


def _behind_quota(score_Bl: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """The open positions that are left when each row commits its quota, the lowest scores first."""
    # committed: rank < quota; whatever is not open was committed before and stays
    return drawn.open_Bl & (_rank(score_Bl, drawn.open_Bl) >= drawn.quota())


def select_threshold(
    drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig, *, p_resample: Chance = 0.1
) -> torch.Tensor:
    """Redraw tokens whose probability is below p_resample (mask resampling of SRDD, arXiv
    2509.22636). Returns bool (B, l).

    It keeps what came out likely, so it truncates the distribution, even where tokens are
    independent and however exact the network: more passes do not mend that.
    """
    # looks at the drawn token itself: the kept ones are no sample of p any more
    return (drawn.probability_Bl < p_resample) & ~drawn.fixed_Bl


def select_lowest(
    drawn: Drawn,
    uniform_Bl: torch.Tensor,
    config: SamplerConfig,
    *,
    resample_fraction: SomeShare = 0.5,
    confidence: Confidence = "drawn",
) -> torch.Tensor:
    """Redraw the least confident share resample_fraction, rounded up (MaskGIT, arXiv 2202.04200,
    section 3.2). Returns bool (B, l)."""
    return _lowest(asked_confidence(drawn, confidence), resample_fraction, drawn.fixed_Bl)


def select_random(
    drawn: Drawn,
    uniform_Bl: torch.Tensor,
    config: SamplerConfig,
    *,
    resample_fraction: SomeShare = 0.5,
) -> torch.Tensor:
    """Redraw a random share resample_fraction, rounded up: blocked Gibbs sampling when one token is
    redrawn (remasking as in ReMDM, arXiv 2503.00307). Returns bool (B, l)."""
    return _lowest(uniform_Bl, resample_fraction, drawn.fixed_Bl)


def select_static(
    drawn: Drawn,
    uniform_Bl: torch.Tensor,
    config: SamplerConfig,
    *,
    confidence: Confidence = "peak",
) -> torch.Tensor:
    """Commit the quota of most confident open positions and redraw the other open ones
    (low-confidence static decoding of SDAR, arXiv 2510.06303). Returns bool (B, l)."""
    return _behind_quota(-asked_confidence(drawn, confidence), drawn)


def select_sequential(
    drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig
) -> torch.Tensor:
    """Commit the quota of first open positions in raster order and redraw the other open ones
    (sequential decoding of SDAR, arXiv 2510.06303). Exact where each pass commits one token.
    Returns bool (B, l)."""
    # exact where one token is committed a pass: p(a_1) p(a_2 | a_1) ... p(a_l | a_<l)
    place_l = torch.arange(drawn.open_Bl.shape[1], device=drawn.open_Bl.device, dtype=torch.float64)
    return _behind_quota(place_l.expand(drawn.open_Bl.shape), drawn)


def select_shuffled(drawn: Drawn, uniform_Bl: torch.Tensor, config: SamplerConfig) -> torch.Tensor:
    """Commit a quota of open positions by chance and redraw the other open ones: any-order
    ancestral sampling (ARDM, arXiv 2110.02037, algorithm 1). Exact where each pass commits one
    token. Returns bool (B, l)."""
    # a uniform order says nothing of what was drawn: exact as above, in a random order
    return _behind_quota(uniform_Bl, drawn)


def select_dynamic(
    drawn: Drawn,
    uniform_Bl: torch.Tensor,
    config: SamplerConfig,
    *,
    commit_above: Chance = 0.9,
    confidence: ChanceConfidence = "peak",
) -> torch.Tensor:
    """Commit open positions of confidence commit_above or more, and at least the quota of surest
    ones; redraw the other open ones (Fast-dLLM, arXiv 2505.22618; with a quota SDAR, 2510.06303).
    Returns bool (B, l)."""
    confidence_Bl = asked_confidence(drawn, confidence)
    # committed: in the quota, or confident enough
    return _behind_quota(-confidence_Bl, drawn) & (confidence_Bl < commit_above)


def select_entropy(
    drawn: Drawn,
    uniform_Bl: torch.Tensor,
    config: SamplerConfig,
    *,
    entropy_bound: Nats = 1.0,
    confidence: Confidence = "peak",
) -> torch.Tensor:
    """Commit the longest run of open positions, surest first, whose entropies sum to entropy_bound
    or less, and at least the quota; redraw the other open ones (entropy-bounded unmasking, arXiv
    2505.24857). Returns bool (B, l)."""
    rank_Bl = _rank(-asked_confidence(drawn, confidence), drawn.open_Bl)
    order_Bl = rank_Bl.argsort(dim=-1)
    # the sum of entropies bounds the joint entropy, and so what they could tell of one another
    spent_Bl = drawn.entropy_Bl.masked_fill(~drawn.open_Bl, 0.0).gather(-1, order_Bl).cumsum(-1)
    beyond_Bl = (spent_Bl > entropy_bound).gather(-1, rank_Bl)
    return drawn.open_Bl & beyond_Bl & (rank_Bl >= drawn.quota())
