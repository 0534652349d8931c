"""Ladders so small that the law of every sampler can be written down,
and a chi-square test against it."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import torch
from scipy import stats

from srdd.noise import derive_seed, generator
from srdd.quantizer import Quantizer
from srdd.schedule import ScaleSchedule

# probability that a correct sampler fails one test; the seeds are fixed, so a passing test stays
# passing
FALSE_ALARM = 1e-4


class Oracle:
    """Exact conditionals p(tokens of scale k | state read for scale k, label) on the schedule (1,
    2).

    `denoise` is the contract of samplers. `joint` enumerates every sequence without the library's
    ladder: one code is spread over the 2 x 2 grid, and with phi_ratio 0 phi is the identity, so the
    state is that code itself.
    """

    schedule = ScaleSchedule((1, 2))

    def __init__(self, V: int = 3, C: int = 2, num_classes: int = 2) -> None:
        rng = generator("oracle")
        self.V = V
        self.weight_kCV = 1.5 * torch.randn(2, C, V, generator=rng, dtype=torch.float64)
        self.bias_klV = [torch.randn(n, V, generator=rng, dtype=torch.float64) for n in (1, 4)]
        self.label_yV = torch.randn(num_classes + 1, V, generator=rng, dtype=torch.float64)
        self.null_label = num_classes
        quantizer = Quantizer(V, C, num_phi=1, phi_ratio=0.0).double().requires_grad_(False)
        quantizer.codebook_VC.copy_(torch.randn(V, C, generator=rng, dtype=torch.float64))
        self.ladder = quantizer.at(self.schedule)
        self.calls = []

    def hidden(self, inputs_BlC, k, labels_B):
        """The half that guidance asks: the logits themselves, of the first labels."""
        labels_B = labels_B[: len(inputs_BlC)]
        self.calls.append((k, len(labels_B)))
        return inputs_BlC @ self.weight_kCV[k] + self.bias_klV[k] + self.label_yV[labels_B][:, None]

    def head(self, hidden_BlV):
        return hidden_BlV

    denoise = __call__ = hidden

    def conditional(self, state_C, k, label, weights):
        """Probabilities (l, V) under guidance weights of both scales,
        from the definition u + w (c - u)."""
        base = state_C @ self.weight_kCV[k] + self.bias_klV[k]
        cond, uncond = base + self.label_yV[label], base + self.label_yV[self.null_label]
        return (uncond + weights[k] * (cond - uncond)).softmax(-1)

    def sequences(self):
        return list(itertools.product(range(self.V), repeat=self.schedule.seq_len))

    def joint(self, label, weights=(1.0, 1.0)):
        """Probability of each of `sequences()`."""
        codes_VC = self.ladder.quantizer.codebook_VC
        first = self.conditional(torch.zeros_like(codes_VC[0]), 0, label, weights)[0]
        second = [self.conditional(codes_VC[a], 1, label, weights) for a in range(self.V)]
        out = []
        for a, *rest in self.sequences():
            p = first[a]
            for i, b in enumerate(rest):
                p = p * second[a][i, b]
            out.append(float(p))
        return out

    def index(self, tokens_BL):
        """Place of each row of tokens in `sequences()`."""
        powers = self.V ** torch.arange(tokens_BL.shape[1] - 1, -1, -1)
        return (tokens_BL * powers).sum(1)


def reference_distribution(logits, temperature, top_k, top_p):
    """Top-k, then nucleus, from their definitions, one code at a time."""
    p = (logits.double() / temperature).softmax(-1).tolist()
    order = sorted(range(len(p)), key=lambda v: -p[v])[: top_k or len(p)]
    total, kept, mass = sum(p[v] for v in order), [], 0.0
    for v in order:
        if kept and mass >= top_p:
            break
        kept.append(v)
        mass += p[v] / total
    out = [p[v] if v in kept else 0.0 for v in range(len(p))]
    return [x / sum(out) for x in out]


def chi_square(observed, probabilities):
    """p-value of counts under probabilities; cells expected under 5 are pooled. A correct sampler
    is under FALSE_ALARM with that probability. A count where the probability is 0 gives 0."""
    observed = torch.as_tensor(observed, dtype=torch.float64)
    expected = torch.as_tensor(probabilities, dtype=torch.float64) * observed.sum()
    if (observed[expected == 0] > 0).any():
        return 0.0
    small = expected < 5
    cells = [(o, e) for o, e in zip(observed[~small].tolist(), expected[~small].tolist())]
    if expected[small].sum() > 0:
        cells.append((float(observed[small].sum()), float(expected[small].sum())))
    if len(cells) == 1:  # all mass in one cell, and all counts are there
        return 1.0
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    return float(stats.chi2.sf(statistic, len(cells) - 1))


# ------------------------------------------------- tokens of one scale that depend on one another


class Record(NamedTuple):
    """One token as it stands, and what was known of it when it was drawn."""

    token: int
    probability: float
    peak: float
    entropy: float
    open: bool


State = tuple[Record, ...]


class JointOracle:
    """A joint distribution on the schedule (1, 2) whose four fine tokens depend on one another and
    on the coarse one.

    `denoise` is the contract of samplers of a model trained with masks: exact log p(token i |
    revealed tokens, state). Where a token is revealed it answers nonsense, which a correct sampler
    never reads. The tables and the laws below are plain Python. independent: the same marginals,
    and no token that says anything of another.
    """

    schedule, V, null_label = ScaleSchedule((1, 2)), 3, 1

    def __init__(self, independent: bool = False) -> None:
        rng = generator("joint oracle")
        ring = ((0, 1), (1, 3), (3, 2), (2, 0))  # neighbours on the grid: equal ones are likelier

        def table(length: int) -> dict[tuple[int, ...], float]:
            weights = {}
            for x in itertools.product(range(self.V), repeat=length):
                alike = sum(x[i] == x[j] for i, j in ring) if length == 4 else 0
                weights[x] = math.exp(
                    1.1 * alike + 0.6 * float(torch.randn((), generator=rng, dtype=torch.float64))
                )
            total = sum(weights.values())
            share = lambda i, v: sum(weight for x, weight in weights.items() if x[i] == v) / total  # noqa: E731
            if independent:
                return {x: math.prod(share(i, v) for i, v in enumerate(x)) for x in weights}
            return {x: weight / total for x, weight in weights.items()}

        self.tables = [[table(1)], [table(4) for _ in range(self.V)]]
        quantizer = Quantizer(self.V, 2, num_phi=1, phi_ratio=0.0).double().requires_grad_(False)
        quantizer.codebook_VC.copy_(torch.randn(self.V, 2, generator=rng, dtype=torch.float64))
        self.ladder = quantizer.at(self.schedule)
        self.conditional, self._law = cache(self.conditional), cache(self._law)
        self.logits = [self._logits(k) for k in range(2)]

    def conditional(self, k: int, before: int, own: tuple[int, ...]) -> list[list[float] | None]:
        """p(token i | revealed own tokens, coarse token) by summation, for each masked i (own V);
        None for a revealed one."""
        held = [
            (x, p)
            for x, p in self.tables[k][before].items()
            if all(o in (self.V, v) for o, v in zip(own, x))
        ]
        total = sum(p for _, p in held)
        return [
            [sum(p for x, p in held if x[i] == v) / total for v in range(self.V)]
            if own[i] == self.V
            else None
            for i in range(len(own))
        ]

    def _logits(self, k: int) -> torch.Tensor:
        """(coarse tokens, (V + 1)^l patterns of own tokens, l, V)."""
        length, nonsense = self.schedule.lengths[k], [0.0, -30.0, -30.0]
        patterns = list(itertools.product(range(self.V + 1), repeat=length))
        found = [
            [self.conditional(k, a, own) for own in patterns] for a in range(len(self.tables[k]))
        ]
        log = [
            [[[math.log(q) for q in p] if p else nonsense for p in one] for one in many]
            for many in found
        ]
        return torch.tensor(log, dtype=torch.float64)

    def denoise(self, inputs_BlC, k, labels_B, own_Bl=None):
        own_Bl = labels_B.new_full(inputs_BlC.shape[:2], self.V) if own_Bl is None else own_Bl
        place = (own_Bl * (self.V + 1) ** torch.arange(own_Bl.shape[1] - 1, -1, -1)).sum(1)
        # one code is spread over the grid, and phi is the identity: the state is the code of the
        # coarse token
        coarse = (
            self.ladder.quantizer.nearest_code(inputs_BlC)[:, 0]
            if k
            else torch.zeros_like(labels_B)
        )
        return self.logits[k][coarse, place]

    def sequences(self) -> list[tuple[int, ...]]:
        return list(itertools.product(range(self.V), repeat=5))

    def joint(self) -> list[float]:
        """Probability of each of `sequences()`."""
        return [self.tables[0][0][(a,)] * self.tables[1][a][tuple(x)] for a, *x in self.sequences()]

    def law(self, config, known: dict[int, int] | None = None) -> list[float]:
        """Probability of each of `sequences()` under the sampler srdd by its definition; known:
        place in the sequence -> token."""
        return self._law(config, tuple(sorted((known or {}).items())))

    def _law(self, config, known: tuple[tuple[int, int], ...]) -> list[float]:
        known = dict(known)
        coarse = self._scale_law(0, 0, config, {i: v for i, v in known.items() if i < 1})
        fine = {
            a: self._scale_law(1, a, config, {i - 1: v for i, v in known.items() if i >= 1})
            for (a,) in coarse
        }
        return [
            coarse[(a,)] * fine[a][tuple(x)] if (a,) in coarse else 0.0
            for a, *x in self.sequences()
        ]

    def _scale_law(
        self, k: int, before: int, config, fixed: dict[int, int]
    ) -> dict[tuple[int, ...], float]:
        """Law of one scale's tokens as a Markov chain over states: first pass, then select, mask,
        call, redraw."""
        length, rule = self.schedule.lengths[k], RULES[config.select.name]
        free = [i for i in range(length) if i not in fixed]
        refined = config.refine_scales is None or k in config.refine_scales
        sr_steps, refine_steps = (config.sr_steps, config.refine_steps) if refined else (0, 0)

        def passed(
            state: State | None, redraw: set[int], own: tuple[int, ...]
        ) -> Iterator[tuple[float, State]]:
            conditional = self.conditional(k, before, own)
            choices = []
            for i in range(length):
                if i in fixed:
                    choices.append([(1.0, Record(fixed[i], 0.0, 0.0, 0.0, False))])
                elif i in redraw:
                    choices.append(
                        [
                            (q, rule.keep(record, config.select))
                            for q, record in records(conditional[i], sr_steps, config.p_resample)
                        ]
                    )
                else:
                    choices.append([(1.0, state[i]._replace(open=False))])
            for picked in itertools.product(*choices):
                yield math.prod(q for q, _ in picked), tuple(record for _, record in picked)

        masked = (self.V,) * length
        # a sampler that refines shows the known tokens to the network from the first pass on; one
        # that does not cannot
        seen = tuple(fixed.get(i, self.V) for i in range(length)) if config.refine_steps else masked
        law: dict[State, float] = defaultdict(float)
        for q, state in passed(None, set(free), seen):
            law[state] += q
        for n in range(refine_steps):
            after: dict[State, float] = defaultdict(float)
            for state, mass in law.items():
                for share, redraw in rule.select(state, free, config.select, 1 + refine_steps - n):
                    own = tuple(self.V if i in redraw else state[i].token for i in range(length))
                    for q, found in passed(state, redraw, own):
                        after[found] += mass * share * q
            law = after
        out: dict[tuple[int, ...], float] = defaultdict(float)
        for state, mass in law.items():
            out[tuple(record.token for record in state)] += mass
        return out

    def index(self, tokens_BL):
        """Place of each row of tokens in `sequences()`."""
        return (tokens_BL * self.V ** torch.arange(4, -1, -1)).sum(1)


def records(p: list[float], sr_steps: int, p_resample: float) -> list[tuple[float, Record]]:
    """Law of one token drawn from p, and by SR again while its probability is below p_resample,
    with what is recorded of it."""
    law = dict(enumerate(p))
    for _ in range(sr_steps):
        low = sum(mass for v, mass in law.items() if p[v] < p_resample)
        law = {v: (0.0 if p[v] < p_resample else mass) + low * p[v] for v, mass in law.items()}
    entropy = -sum(q * math.log(q) for q in p)
    return [(mass, Record(v, p[v], max(p), entropy, True)) for v, mass in law.items()]


def _count(share: float, free: list[int]) -> int:
    return math.ceil(Fraction(str(share)) * len(free))


def surety(record: Record, rule) -> float:
    """What a rule ranks a position by."""
    values = {"peak": record.peak, "drawn": record.probability, "entropy": -record.entropy}
    return values[rule.confidence]


def undecided(state: State, free: list[int], passes_left: int) -> tuple[list[int], int]:
    """Open positions, and how many of them must be committed: SDAR's table for what is left, the
    remainder first."""
    left = [i for i in free if state[i].open]
    return left, quotas(len(left), passes_left)[0]


def quotas(length: int, passes: int) -> list[int]:
    """How many of a block's tokens each pass commits (SDAR, arXiv 2510.06303): length // passes,
    the remainder one each to the first."""
    return [length // passes + (i < length % passes) for i in range(passes)]


def by_threshold(state: State, free: list[int], rule, passes_left: int):
    yield 1.0, {i for i in free if state[i].probability < rule.p_resample}


def by_lowest(state: State, free: list[int], rule, passes_left: int):
    yield (
        1.0,
        set(
            sorted(free, key=lambda i: surety(state[i], rule))[
                : _count(rule.resample_fraction, free)
            ]
        ),
    )


def by_random(state: State, free: list[int], rule, passes_left: int):
    choices = list(itertools.combinations(free, _count(rule.resample_fraction, free)))
    yield from ((1 / len(choices), set(choice)) for choice in choices)


def by_static(state: State, free: list[int], rule, passes_left: int):
    left, quota = undecided(state, free, passes_left)
    yield 1.0, set(sorted(left, key=lambda i: -surety(state[i], rule))[quota:])


def by_sequential(state: State, free: list[int], rule, passes_left: int):
    left, quota = undecided(state, free, passes_left)
    yield 1.0, set(left[quota:])


def by_shuffled(state: State, free: list[int], rule, passes_left: int):
    left, quota = undecided(state, free, passes_left)
    choices = list(itertools.combinations(left, len(left) - quota))
    yield from ((1 / len(choices), set(choice)) for choice in choices)


def by_dynamic(state: State, free: list[int], rule, passes_left: int):
    left, quota = undecided(state, free, passes_left)
    behind = sorted(left, key=lambda i: -surety(state[i], rule))[quota:]
    yield 1.0, {i for i in behind if not surety(state[i], rule) >= rule.commit_above}


def by_entropy(state: State, free: list[int], rule, passes_left: int):
    left, quota = undecided(state, free, passes_left)
    left = sorted(left, key=lambda i: -surety(state[i], rule))
    sizes = [
        n
        for n in range(len(left) + 1)
        if sum(state[i].entropy for i in left[:n]) <= rule.entropy_bound
    ]
    yield 1.0, set(left[max(quota, max(sizes)) :])


class Rule(NamedTuple):
    """A selection rule by its definition: every set that it may redraw with its probability; and
    what of a record it reads, so that states which it cannot tell apart are one."""

    select: Callable
    keep: Callable[[Record, object], Record]


def ranked(reads_open: bool, reads_entropy: bool = False) -> Callable[[Record, object], Record]:
    """What a rule that ranks positions reads of a record, under the confidence of its settings."""

    def keep(record: Record, rule) -> Record:
        name = rule.confidence
        read = {"drawn": "probability"}.get(name, name)
        values = {
            key: getattr(record, key) if key == read else 0.0
            for key in ("probability", "peak", "entropy")
        }
        values |= {"entropy": record.entropy} if reads_entropy else {}
        return Record(record.token, **values, open=reads_open)

    return keep


def blind(reads_open: bool) -> Callable[[Record, object], Record]:
    """What a rule reads that ranks nothing: which positions are open, if that."""
    return lambda record, rule: Record(record.token, 0.0, 0.0, 0.0, reads_open)


RULES = {
    "threshold": Rule(
        by_threshold,
        lambda record, rule: Record(record.token, record.probability, 0.0, 0.0, False),
    ),
    "lowest": Rule(by_lowest, ranked(False)),
    "random": Rule(by_random, blind(False)),
    "static": Rule(by_static, ranked(True)),
    "sequential": Rule(by_sequential, blind(True)),
    "shuffled": Rule(by_shuffled, blind(True)),
    "dynamic": Rule(by_dynamic, ranked(True)),
    "entropy": Rule(by_entropy, ranked(True, reads_entropy=True)),
}


class PooledNoise:
    """Uniform numbers of a whole batch from one generator per use: what laws need is 20 000
    images, not a seed for each."""

    def __init__(self, name: str, batch: int) -> None:
        self.name, self.batch, self.generators = name, batch, {}

    def uniform(self, length: int, use: str = "") -> torch.Tensor:
        if use not in self.generators:
            self.generators[use] = torch.Generator().manual_seed(
                derive_seed("pooled", self.name, use)
            )
        return torch.rand(self.batch, length, generator=self.generators[use], dtype=torch.float64)


def total_variation(p, q) -> float:
    """Half the sum of |p - q|: the largest difference that any event can show."""
    return 0.5 * sum(abs(a - b) for a, b in zip(p, q))
