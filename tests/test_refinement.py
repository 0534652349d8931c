"""Refinement inside a scale: exact laws of SR and of every MR rule, reductions, masks in model,
loss and cost."""

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.pipeline import trainer as training_of
from bench.report.words import sampler_parts
from bench.runtime.verb import Run
from bench.study.settings import TrainingConfig
from oracle import (
    FALSE_ALARM,
    RULES,
    JointOracle,
    PooledNoise,
    Record,
    chi_square,
    quotas,
    records,
    reference_distribution,
    total_variation,
)
from srdd import model as model_module
from srdd import select as rules
from srdd.config import ModelConfig, SamplerConfig
from srdd.corruption import mask_within_scales
from srdd.cost import sampling_cost
from srdd.draw import distribution
from srdd.guidance import guidance_weights, guide
from srdd.lookup import names_in
from srdd.loss import linear_cross_entropy, next_scale_cross_entropy
from srdd.misfits import COMMITTING, COUNTED
from srdd.model import ScaleTransformer
from srdd.noise import ImageNoise, generator
from srdd.sampling import Known, _Scale, generate, sample_srdd, sample_var
from srdd.schedule import ScaleSchedule
from srdd.select import Drawn
from srdd.watch import Calls

N = 20_000
SELECTS = names_in(Path(rules.__file__), "select")
HISTORIES = [None, 0, 1]


def rule(name, **offered):
    """A rule of that name with those of the offered settings that it takes."""
    knobs = SamplerConfig(select=name).select.knobs()
    return {"name": name, **{key: value for key, value in offered.items() if key in knobs}}


RANKING = [name for name in SELECTS if "confidence" in rule(name, confidence="peak")]
# settings of rules; SR and select threshold both have a p_resample
OFFERED = ("p_resample", "resample_fraction", "commit_above", "entropy_bound", "confidence")


def srdd(select="threshold", **settings):
    """SRDD; what its rule takes stands beside the other settings."""
    offered = {key: settings[key] for key in OFFERED if settings.get(key) is not None}
    others = {key: value for key, value in settings.items() if key not in OFFERED[1:]}
    return SamplerConfig(name="srdd", select=rule(select, **offered), **others)


def select(name):
    """A rule as the sampler calls it: with settings that are offered to all."""

    def called(drawn, uniform_Bl, **offered):
        knobs = rule(name, **offered)
        del knobs["name"]
        return getattr(rules, f"select_{name}")(drawn, uniform_Bl, SamplerConfig(), **knobs)

    return called


# ---------------------------------------------------------------- exact laws


@pytest.fixture(scope="module")
def oracle():
    return JointOracle()


# what samples must be distributed as, and how far that is from the truth: settings -> total
# variation to the joint.
# - One pass draws every token from its marginal, as VAR does: what tokens know of one another
# inside a scale is lost.
# - SR gives unlikely tokens less than their share, so it moves away from the truth even where
# tokens are independent.
# - Rules that look at the token that was drawn (threshold, and by confidence `drawn` all that rank)
#   keep what came out likely: they sharpen. Threshold ends further from the truth than one pass;
#   of static four passes are worse than three.
# - Rules that do not look at it err only by drawing several tokens of one pass independently. Those
#   with a quota are exact as soon as each pass commits one token.
LAWS = {
    "one pass": (srdd(), 0.396021),
    "sr": (srdd(sr_steps=2, p_resample=0.3), 0.510610),
    "sr, 8 steps": (srdd(sr_steps=8, p_resample=0.3), 0.531560),
    "threshold": (srdd(refine_steps=2, select="threshold", p_resample=0.4), 0.550277),
    "lowest": (srdd(refine_steps=2, select="lowest", resample_fraction=0.5), 0.298547),
    "lowest by peak": (
        srdd(refine_steps=2, select="lowest", resample_fraction=0.5, confidence="peak"),
        0.161087,
    ),
    "static": (srdd(refine_steps=1, select="static"), 0.204743),
    "static, 3 passes": (srdd(refine_steps=2, select="static"), 0.146414),
    "static by drawn": (srdd(refine_steps=2, select="static", confidence="drawn"), 0.378941),
    "static by drawn, 4 passes": (
        srdd(refine_steps=3, select="static", confidence="drawn"),
        0.411352,
    ),
    "sequential": (srdd(refine_steps=1, select="sequential"), 0.259198),
    "sequential, 3 passes": (srdd(refine_steps=2, select="sequential"), 0.204601),
    "sequential, 4 passes": (srdd(refine_steps=3, select="sequential"), 0.0),
    "shuffled": (srdd(refine_steps=1, select="shuffled"), 0.174064),
    "shuffled, 3 passes": (srdd(refine_steps=2, select="shuffled"), 0.094668),
    "shuffled, 4 passes": (srdd(refine_steps=3, select="shuffled"), 0.0),
    "shuffled, 6 passes": (srdd(refine_steps=5, select="shuffled"), 0.0),
    "random": (srdd(refine_steps=2, select="random", resample_fraction=0.5), 0.136653),
    "dynamic": (srdd(refine_steps=2, select="dynamic", commit_above=0.5), 0.185891),
    "dynamic by drawn": (
        srdd(refine_steps=2, select="dynamic", commit_above=0.5, confidence="drawn"),
        0.380878,
    ),
    "entropy": (srdd(refine_steps=2, select="entropy", entropy_bound=2.0), 0.196697),
    "entropy by drawn": (
        srdd(refine_steps=2, select="entropy", entropy_bound=2.0, confidence="drawn"),
        0.372259,
    ),
    "threshold and sr": (srdd(refine_steps=1, sr_steps=1, p_resample=0.4), 0.641567),
    "first scale alone": (srdd(refine_steps=2, select="lowest", refine_scales=(0,)), 0.396021),
}


def counts_of(oracle, name, config, known=None):
    """How often each sequence comes out of the sampler."""
    if known is not None:
        tokens_BL, mask_BL = (
            torch.zeros(N, 5, dtype=torch.long),
            torch.zeros(N, 5, dtype=torch.bool),
        )
        for place, token in known.items():
            tokens_BL[:, place], mask_BL[:, place] = token, True
        known = Known(tokens_BL, mask_BL)
    noise = PooledNoise(name, N)
    drawn_BL, _ = sample_srdd(
        oracle.denoise, oracle.ladder, torch.zeros(N, dtype=torch.long), noise, config, known
    )
    return torch.bincount(oracle.index(drawn_BL), minlength=3**5)


@pytest.mark.parametrize("name", LAWS)
def test_sampler_has_the_exact_law(oracle, name):
    """Catches any slip in which tokens are redrawn, what the network is shown, what is recorded or
    drawn, in SR and every MR rule: the sampler against the enumerated Markov chain; false alarm
    1e-4, seeds fixed. Pins how far each law is from the true joint."""
    config, distance = LAWS[name]
    law, counts = oracle.law(config), counts_of(oracle, name, config)
    assert sum(law) == pytest.approx(1.0, abs=1e-12)
    assert chi_square(counts, law) > FALSE_ALARM
    assert distance == 0 or chi_square(counts, oracle.joint()) < FALSE_ALARM, (
        "the test must be able to fail"
    )
    for other, (elsewhere, _) in LAWS.items():
        if total_variation(law, oracle.law(elsewhere)) > 0.05:
            assert chi_square(counts, oracle.law(elsewhere)) < FALSE_ALARM, (
                f"the law of {other!r} must not fit as well"
            )
    assert total_variation(law, oracle.joint()) == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize(
    "name", [name for name, (config, _) in LAWS.items() if config.refine_steps]
)
def test_exact_law_around_known_tokens(oracle, name):
    """Catches a known token that is redrawn, not shown to the network from the first pass on, or
    counted among those to redraw."""
    config, known = LAWS[name][0], {0: 2, 3: 1}
    counts, law = counts_of(oracle, f"known {name}", config, known), oracle.law(config, known)
    assert chi_square(counts, law) > FALSE_ALARM
    assert chi_square(counts, oracle.law(config)) == 0.0, "the test must be able to fail"
    assert all(x[0] == 2 and x[3] == 1 for x, n in zip(oracle.sequences(), counts.tolist()) if n)


def test_every_rule_has_a_law():
    """Catches a selection rule without a definition in the oracle: add its set of choices to RULES
    and a line to LAWS; and a rule that can rank by the drawn token and whose bias nobody has
    pinned."""
    refined = [config for config, _ in LAWS.values() if config.refine_steps]
    assert set(SELECTS) == set(RULES) == {config.select.name for config in refined}
    by_drawn = {
        config.select.name
        for config in refined
        if config.select.knobs().get("confidence") == "drawn"
    }
    assert by_drawn == set(RANKING)


@pytest.mark.parametrize("name", SELECTS)
def test_what_looks_at_the_drawn_token_is_biased_even_where_tokens_are_independent(name):
    """Catches a rule said to be blind to what was drawn that is not: where tokens say nothing of
    one another it leaves their product alone at every number of passes. Ranked by the drawn token,
    or cut at its probability, the product is bent."""
    oracle = JointOracle(independent=True)

    def distance(passes, **more):
        bounds = {"p_resample": 0.4, "commit_above": 0.5, "entropy_bound": 2.0}
        law = oracle.law(srdd(refine_steps=passes - 1, select=name, **bounds, **more))
        return total_variation(law, oracle.joint())

    # what the rule may rank by and stay blind to the drawn token
    legal = [{"confidence": "peak"}] if name in RANKING else [{}] if name != "threshold" else []
    legal += [{"confidence": "entropy"}] if name in ("static", "lowest", "entropy") else []
    for passes in (1, 2, 3, 4, 5):
        blind = [distance(passes, **more) for more in legal]
        assert all(value < 1e-12 for value in blind), (passes, blind)
        if name == "threshold" or name in RANKING:
            by = {"confidence": "drawn"} if name in RANKING else {}
            assert (distance(passes, **by) > 0.05) == (passes > 1), passes


@pytest.mark.parametrize(
    "select, confidence", [("shuffled", None), ("static", "peak"), ("static", "drawn")]
)
def test_the_sampler_has_the_law_of_independent_tokens(select, confidence):
    """Catches a sampler that ranks by the drawn token under another name: 20 000 samples of
    independent tokens, not the oracle alone."""
    oracle, config = (
        JointOracle(independent=True),
        srdd(refine_steps=2, select=select, confidence=confidence),
    )
    counts = counts_of(oracle, f"independent {select} {confidence}", config)
    assert chi_square(counts, oracle.law(config)) > FALSE_ALARM
    assert (chi_square(counts, oracle.joint()) > FALSE_ALARM) == (confidence != "drawn")


def test_sr_by_its_closed_form():
    """Catches an SR that is no truncation: p (1 + s + ... + s^n) from tau on, p s^n below it, s the
    mass below tau. The bias is s - s^(n+1) in total variation: it does not vanish with steps,
    however exact the network."""
    p, tau = [0.05, 0.1, 0.25, 0.6], 0.2
    logits = torch.tensor(p, dtype=torch.float64).log().expand(1, N, 4)
    for n in (0, 1, 2, 5, 40):
        s = 0.05 + 0.1
        closed = [q * sum(s**i for i in range(n + 1)) if q >= tau else q * s**n for q in p]
        assert [mass for mass, _ in records(p, n, tau)] == pytest.approx(closed, abs=1e-15)
        assert total_variation(closed, p) == pytest.approx(s - s ** (n + 1), abs=1e-15)
        noise = PooledNoise(f"sr {n}", 1)
        config, nobody = srdd(sr_steps=n, p_resample=tau), torch.zeros(1, dtype=torch.long)
        scale = _Scale(lambda *asked: logits, torch.zeros(1, N, 1), 0, nobody, noise, config)
        drawn = scale.pass_over("")
        tokens_Bl, probability_Bl = drawn.tokens_Bl, drawn.probability_Bl
        counts = torch.bincount(tokens_Bl[0], minlength=4)
        assert chi_square(counts, closed) > FALSE_ALARM
        assert n == 0 or chi_square(counts, p) < FALSE_ALARM, "the test must be able to fail"
        torch.testing.assert_close(probability_Bl, torch.tensor(p, dtype=torch.float64)[tokens_Bl])


def test_redrawing_one_random_token_is_gibbs_sampling(oracle):
    """Catches a random rule that is no Gibbs sampler: with exact conditionals its law comes ever
    nearer to the truth."""
    truth, steps = oracle.joint(), (0, 1, 4, 16)
    laws = [
        oracle.law(srdd(refine_steps=n, select="random", resample_fraction=0.25)) for n in steps
    ]
    distances = [total_variation(law, truth) for law in laws]
    assert distances == pytest.approx([0.396021, 0.221636, 0.073015, 0.004988], abs=1e-6)
    for n, law in zip(steps[:3], laws):
        counts = counts_of(
            oracle, f"gibbs {n}", srdd(refine_steps=n, select="random", resample_fraction=0.25)
        )
        assert chi_square(counts, law) > FALSE_ALARM > chi_square(counts, truth), n


def test_one_pass_is_the_product_of_marginals(oracle):
    """Catches an oracle, or a sampler, that keeps dependence inside a scale without any
    refinement."""
    truth, V = dict(zip(oracle.sequences(), oracle.joint())), oracle.V
    expected = []
    for a, *fine in oracle.sequences():
        first = sum(p for x, p in truth.items() if x[0] == a)
        share = lambda i, v: sum(p for x, p in truth.items() if x[0] == a and x[i] == v) / first  # noqa: B023, E731
        marginals = [[share(i, v) for v in range(V)] for i in range(1, 5)]
        expected.append(first * math.prod(m[v] for m, v in zip(marginals, fine)))
    assert oracle.law(srdd()) == pytest.approx(expected, abs=1e-12)
    assert total_variation(expected, oracle.joint()) > 0.3


@pytest.mark.parametrize("settings", [
    {"select": "dynamic", "commit_above": 0.999}, {"select": "entropy", "entropy_bound": 1e-9},
    {"select": "static"}, {"select": "static", "confidence": "entropy"}, {"select": "sequential"},
    {"select": "shuffled"},
])  # fmt: skip
def test_committing_one_token_a_pass_is_exact(oracle, settings):
    """Catches a committed token that moves again, or a commitment that depends on what was drawn:
    one token a pass, in an order that looks at confidences alone, is the chain rule,
    and gives the true joint."""
    config = srdd(refine_steps=3, **settings)
    assert total_variation(oracle.law(config), oracle.joint()) < 1e-12
    counts = counts_of(oracle, f"one by one {settings}", config)
    assert chi_square(counts, oracle.joint()) > FALSE_ALARM > chi_square(counts, oracle.law(srdd()))


# ---------------------------------------------------------------- reductions


@pytest.mark.parametrize(
    "cuts",
    [{}, {"cfg_scale": 2.5}, {"cfg_scale": 1.7, "top_k": 5, "top_p": 0.9, "temperature": 0.8}],
)
@pytest.mark.parametrize("mask_prob", [0.0, 0.5])
@pytest.mark.parametrize("history", HISTORIES)
def test_srdd_without_steps_is_var(make_model, make_ladder, history, mask_prob, cuts):
    """Catches a first pass of SRDD that draws other numbers, or calls the network otherwise, than
    VAR and SDD: the same bits."""
    model, ladder = (
        make_model(history=history, mask_prob=mask_prob),
        make_ladder(ScaleSchedule((1, 2, 3))),
    )
    labels = torch.arange(8) % 3
    plain = generate(model, ladder, labels, range(8), SamplerConfig(**cuts))
    never = {"refine_steps": 2, "sr_steps": 1, "refine_scales": ()}
    for more in (
        {},
        *({"select": name} for name in SELECTS),
        *({**never, "select": name} for name in SELECTS),
    ):
        if mask_prob or "refine_steps" not in more:
            ours = generate(model, ladder, labels, range(8), srdd(**cuts, **more))
            assert all(torch.equal(a, b) for a, b in zip(plain, ours)), more
    if mask_prob:
        moved = generate(
            model, ladder, labels, range(8), srdd(**cuts, refine_steps=1, select="lowest")
        )
        assert not torch.equal(plain[0], moved[0])


def twins(history=None, **changes):
    """A model without masks, and one with masks whose other weights are the same and whose [MASK]
    is zero."""
    tiny = dict(
        patch_nums=(1, 2, 3),
        codebook_size=7,
        codebook_dim=4,
        num_classes=3,
        depth=2,
        width=16,
        heads=2,
        init_gamma=1.0,
    )
    plain, masked = (
        ScaleTransformer(ModelConfig(**tiny, history=history, mask_prob=p, **changes))
        for p in (0.0, 0.5)
    )
    for model in (plain, masked):
        model.init_weights(generator("twins"))
    return plain, masked


@pytest.mark.parametrize("changes", [{}, {"shared_adaln": True}])
def test_masks_leave_the_other_initial_weights_alone(changes):
    """Catches an embedding of own tokens that takes random numbers from the weights drawn after it,
    so that a masked model would start elsewhere than the SDD it is compared with."""
    plain, masked = (model.state_dict() for model in twins(**changes))
    assert set(masked) - set(plain) == {"own_embedding.weight"}
    assert all(torch.equal(plain[name], masked[name]) for name in plain)
    own_VD = masked["own_embedding.weight"]
    assert own_VD.shape == (8, 16) and not own_VD[-1].any() and own_VD[:-1].all()


def trainer_of(model, ladder, mask_prob):
    """A trainer with what its loss reads, and without a run."""
    trainer = object.__new__(training_of.Trainer)
    trainer.model, trainer.ladder, trainer.config, trainer.hidden = (
        model,
        ladder,
        TrainingConfig(),
        model.hidden,
    )
    trainer.model_config = model.config.model_copy(update={"mask_prob": mask_prob})
    return trainer


def loss_of(trainer, tokens_BL, labels_B, name):
    """The loss of a batch whose random numbers have a name."""
    return trainer.loss(trainer.draw(tokens_BL, labels_B, generator(name)))[0]


@pytest.mark.parametrize("history", HISTORIES)
def test_all_masked_is_the_model_without_masks(make_ladder, monkeypatch, history):
    """Catches a [MASK] that is added in one path only,
    and a loss that counts otherwise when nothing is revealed."""
    plain, masked = twins(history)
    ladder = make_ladder(plain.schedule)
    tokens_BL = torch.randint(7, (3, 14), generator=generator("tokens"))
    inputs_BLC, labels_B = ladder.teacher_forced_inputs(tokens_BL), torch.tensor([0, 3, 2])
    hidden_BL = torch.full_like(tokens_BL, 7)
    with torch.no_grad():
        expected = plain(inputs_BLC, labels_B)
        assert torch.equal(masked(inputs_BLC, labels_B), expected)
        assert torch.equal(masked(inputs_BLC, labels_B, own_BL=hidden_BL), expected)
        assert not torch.equal(masked(inputs_BLC, labels_B, own_BL=tokens_BL), expected)
    monkeypatch.setattr(training_of, "mask_within_scales", lambda tokens_BL, *_: hidden_BL)
    losses = [
        loss_of(trainer_of(model, ladder, p), tokens_BL, labels_B, "step")
        for model, p in ((plain, 0.0), (masked, 0.5))
    ]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    grads = [
        torch.autograd.grad(loss, list(model.head.parameters()))
        for loss, model in zip(losses, (plain, masked))
    ]
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_own_tokens_need_a_model_with_masks(make_model):
    """Catches own tokens that a model without an embedding for them ignores."""
    model = make_model()
    with pytest.raises(ValueError, match="mask_prob > 0"):
        model.denoiser()(
            torch.zeros(1, 1, 4),
            0,
            torch.zeros(1, dtype=torch.long),
            torch.zeros(1, 1, dtype=torch.long),
        )


def test_nothing_selected_changes_nothing(make_model, make_ladder):
    """Catches a pass that redraws what its rule left alone. With history >= 1 this holds for the
    last scale only: the cache then holds earlier scales with their own tokens revealed,
    which later scales read."""
    labels, ladder = torch.arange(8) % 3, make_ladder(ScaleSchedule((1, 2, 3)))
    for history, scales in ((0, None), (1, (2,)), (None, (2,))):
        model = make_model(history=history, mask_prob=0.5)
        plain, _ = generate(model, ladder, labels, range(8), SamplerConfig())
        rare = srdd(refine_steps=3, sr_steps=2, p_resample=1e-12, refine_scales=scales)
        assert torch.equal(generate(model, ladder, labels, range(8), rare)[0], plain)
        often = srdd(refine_steps=3, sr_steps=2, p_resample=0.3, refine_scales=scales)
        assert not torch.equal(generate(model, ladder, labels, range(8), often)[0], plain)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", SELECTS)
def test_same_seed_same_refined_image_in_any_batch(make_model, make_ladder, name, known):
    """Catches a rule or a redraw that looks at the rest of its batch: size, order or neighbours;
    and a known token that is lost."""
    model, ladder = make_model(mask_prob=0.5), make_ladder(ScaleSchedule((1, 2, 3)))
    config = srdd(
        select=name,
        refine_steps=3,
        sr_steps=1,
        cfg_scale=1.7,
        top_k=6,
        top_p=0.95,
        p_resample=0.3,
        commit_above=0.5,
    )
    labels, source = torch.arange(6) % 3, generator("known")
    given = Known(
        torch.randint(7, (6, 14), generator=source), torch.rand(6, 14, generator=source) < 0.3
    )

    def draw(rows):
        some = Known(given.tokens_BL[rows], given.mask_BL[rows]) if known else None
        return generate(model, ladder, labels[rows], rows, config, some)[0]

    whole = draw([0, 1, 2, 3, 4, 5])
    assert len(set(map(tuple, whole.tolist()))) > 3
    assert torch.equal(draw([4])[0], whole[4])
    assert torch.equal(draw([5, 3, 1, 0]), whole[[5, 3, 1, 0]])
    if known:
        assert torch.equal(whole[given.mask_BL], given.tokens_BL[given.mask_BL])


@pytest.mark.parametrize(
    "settings",
    [
        {"sr_steps": 3, "p_resample": 0.4},
        *({"refine_steps": 2, "select": name} for name in SELECTS),
    ],
)
def test_refinement_leaves_later_first_draws_alone(make_ladder, settings):
    """Catches refinement that takes numbers from the stream of first draws: a comparison with and
    without it would be unpaired."""
    schedule = ScaleSchedule((1, 2, 3))
    ladder, labels = make_ladder(schedule), torch.zeros(64, dtype=torch.long)
    flat = [torch.randn(1, n, 7, generator=generator("flat", n)) for n in schedule.lengths]

    # blind to what was drawn: only the random numbers can differ
    def denoise(inputs_BlC, k, labels_B, own_Bl=None):
        return flat[k].expand(64, -1, -1)

    plain, _ = sample_var(denoise, ladder, labels, ImageNoise(range(64)), SamplerConfig())
    refined, _ = sample_srdd(
        denoise, ladder, labels, ImageNoise(range(64)), srdd(**settings, refine_scales=(0, 1))
    )
    assert torch.equal(refined[:, 5:], plain[:, 5:])
    assert not torch.equal(refined[:, :5], plain[:, :5])


# ---------------------------------------------------------------- selection rules


@st.composite
def scales_as_drawn(draw):
    """A few rows of drawn tokens with many equal numbers, some known, some committed."""
    B, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    levels = st.sampled_from([0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    rows = lambda values: draw(  # noqa: E731
        st.lists(st.lists(values, min_size=length, max_size=length), min_size=B, max_size=B)
    )
    floats = lambda values: torch.tensor(rows(values), dtype=torch.float64)  # noqa: E731
    fixed_Bl = torch.tensor(rows(st.booleans()))
    tokens_Bl, open_Bl = (
        torch.tensor(rows(st.integers(0, 6))),
        torch.tensor(rows(st.booleans())) & ~fixed_Bl,
    )
    entropy_Bl = floats(st.sampled_from([0.0, 0.2, 0.7, 1.9]))
    drawn = Drawn(
        tokens_Bl,
        floats(levels),
        floats(levels),
        entropy_Bl,
        open_Bl,
        fixed_Bl,
        draw(st.integers(1, 10)),
    )
    # numbers of a stream are never equal
    uniform_Bl = (
        torch.tensor([draw(st.permutations(range(length))) for _ in range(B)], dtype=torch.float64)
        / length
    )
    return drawn, uniform_Bl


# half of the time a number that confidences take too: bounds are met exactly
hundredths = st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]) | st.integers(1, 99).map(
    lambda i: i / 100
)


def row_of(drawn, i):
    return replace(drawn, **{name: tensor[i : i + 1] for name, tensor in drawn.tensors().items()})


def ranks(name):
    """Every legal confidence of a rule."""
    legal = [None, *(["peak", "drawn", "entropy"] if name in RANKING else [])]
    return st.sampled_from([kind for kind in legal if (name, kind) != ("dynamic", "entropy")])


@pytest.mark.parametrize("name", SELECTS)
@given(case=scales_as_drawn(), value=hundredths)
def test_rules_in_general(name, case, value):
    """Catches, for a new rule too: a known token that is redrawn, a wrong type or shape, a row that
    looks at its neighbours."""
    drawn, uniform_Bl = case
    bounds = {
        "p_resample": value,
        "resample_fraction": value,
        "commit_above": value,
        "entropy_bound": 3 * value,
    }
    redraw_Bl = select(name)(drawn, uniform_Bl, **bounds)
    assert redraw_Bl.dtype == torch.bool and redraw_Bl.shape == drawn.tokens_Bl.shape
    assert not (redraw_Bl & drawn.fixed_Bl).any()
    for i in range(len(redraw_Bl)):
        assert torch.equal(
            select(name)(row_of(drawn, i), uniform_Bl[i : i + 1], **bounds)[0], redraw_Bl[i]
        )


@pytest.mark.parametrize("name", SELECTS)
@given(case=scales_as_drawn(), value=hundredths, data=st.data())
def test_rules_by_their_definition(name, case, value, data):
    """Catches a wrong bound, a wrong order, a tie that goes astray:
    row by row against the plain rules of the oracle."""
    drawn, uniform_Bl = case
    confidence = data.draw(ranks(name))
    bounds = {"p_resample": value, "resample_fraction": value, "commit_above": value}
    by = {} if confidence is None else {"confidence": confidence}
    given = rule(name, **bounds, entropy_bound=3 * value, **by)
    config = SamplerConfig(select=given).select
    redraw_Bl = select(name)(drawn, uniform_Bl, **config.knobs())
    columns = (
        drawn.tokens_Bl,
        drawn.probability_Bl,
        drawn.peak_Bl,
        drawn.entropy_Bl,
        drawn.open_Bl,
    )
    for i, found in enumerate(redraw_Bl.tolist()):
        state = tuple(
            Record(*values) for values in zip(*(column[i].tolist() for column in columns))
        )
        free = (~drawn.fixed_Bl[i]).nonzero().flatten().tolist()
        legal = [chosen for _, chosen in RULES[name].select(state, free, config, drawn.passes_left)]
        assert {j for j, redraw in enumerate(found) if redraw} in legal


@pytest.mark.parametrize("name", ["lowest", "random"])
def test_redrawn_counts_are_exact(name):
    """Catches a share that rounds wrongly: ceil(fraction x free) for every number of free tokens up
    to 256 and every hundredth (float32 makes 16 of 0.15 x 100)."""
    fixed_Bl = torch.arange(256) >= torch.arange(257)[:, None]  # row n has n free tokens
    score_Bl = torch.rand(257, 256, generator=generator("score"), dtype=torch.float64)
    drawn = Drawn(score_Bl.long(), score_Bl, score_Bl, score_Bl, ~fixed_Bl, fixed_Bl, 1)
    for share in (*range(1, 100, 7), 15, 30, 54, 60, 100):
        redraw_Bl = select(name)(drawn, score_Bl, resample_fraction=share / 100)
        assert redraw_Bl.sum(1).tolist() == [
            math.ceil(Fraction(share, 100) * n) for n in range(257)
        ], share


@pytest.mark.parametrize("name, setting, more", [
    ("threshold", "p_resample", 1), ("lowest", "resample_fraction", 1),
    ("random", "resample_fraction", 1), ("dynamic", "commit_above", 1),
    ("entropy", "entropy_bound", -1),
])  # fmt: skip
@given(case=scales_as_drawn(), a=hundredths, b=hundredths)
def test_rules_are_monotone(name, setting, more, case, a, b):
    """Catches a comparison the wrong way round: what a weak setting redraws,
    a stronger one redraws too."""
    drawn, uniform_Bl = case
    weak, strong = sorted((a, b), key=lambda value: more * value)
    few_Bl, many_Bl = (
        select(name)(drawn, uniform_Bl, **{setting: value}) for value in (weak, strong)
    )
    assert not (few_Bl & ~many_Bl).any()


@pytest.mark.parametrize("name", COMMITTING)
@given(case=scales_as_drawn(), value=hundredths)
def test_committing_rules_always_end(name, case, value):
    """Catches a rule that never ends, or reopens what is committed: every call commits the quota or
    more of each row, so that T passes always commit all, however few."""
    drawn, uniform_Bl = case
    bounds = {"commit_above": value, "entropy_bound": value / 10}
    for passes_left in range(drawn.passes_left, 0, -1):
        assert drawn.passes_left == passes_left
        redraw_Bl, open_B = select(name)(drawn, uniform_Bl, **bounds), drawn.open_Bl.sum(1)
        assert not (redraw_Bl & ~drawn.open_Bl).any()
        committed_B = (drawn.open_Bl & ~redraw_Bl).sum(1)
        assert all(
            n >= quotas(int(free), passes_left)[0]
            for n, free in zip(committed_B.tolist(), open_B.tolist())
        )
        drawn = drawn.where(redraw_Bl, drawn)
    assert not drawn.open_Bl.any()


@pytest.mark.parametrize("name", ["static", "sequential", "shuffled"])
def test_quota_is_the_published_table(name):
    """Catches a quota that rounds otherwise, reopens, or leaves tokens over: SDAR's table for every
    l and T up to 20."""
    for length in range(1, 21):
        score_Bl = torch.rand(1, length, generator=generator("quota", length), dtype=torch.float64)
        for passes in range(1, 21):
            open_Bl = torch.ones(1, length, dtype=torch.bool)
            drawn = Drawn(open_Bl.long(), score_Bl, score_Bl, score_Bl, open_Bl, ~open_Bl, passes)
            committed = []
            for _ in range(passes):
                redraw_Bl = select(name)(drawn, score_Bl)
                assert not (redraw_Bl & ~drawn.open_Bl).any()
                committed.append(int(drawn.open_Bl.sum() - redraw_Bl.sum()))
                drawn = drawn.passed(redraw_Bl)
            assert committed == quotas(length, passes) and sum(committed) == length


def test_redrawn_tokens_bring_their_records():
    """Catches a refinement that judges new tokens by the probability, peak or entropy of the old
    ones, or touches what is kept."""
    old = Drawn(
        *(torch.full((1, 3), float(i)) for i in range(4)),
        torch.tensor([[True, True, False]]),
        torch.zeros(1, 3).bool(),
        3,
    )
    new = Drawn(
        *(torch.full((1, 3), 10.0 + i) for i in range(4)),
        torch.ones(1, 3).bool(),
        torch.zeros(1, 3).bool(),
        9,
    )
    redraw_Bl = torch.tensor([[True, False, False]])
    found = old.where(redraw_Bl, new)
    for i, name in enumerate(("tokens_Bl", "probability_Bl", "peak_Bl", "entropy_Bl")):
        assert getattr(found, name).tolist() == [[10.0 + i, float(i), float(i)]]
    assert torch.equal(found.open_Bl, redraw_Bl) and torch.equal(found.fixed_Bl, old.fixed_Bl)
    assert found.passes_left == 2


# ---------------------------------------------------------------- early exit


# each leaves out calls for some batches of the tiny model and makes them for others
EXITS = {
    "threshold": {"p_resample": 0.1},
    "dynamic": {"commit_above": 0.3},
    "entropy": {"entropy_bound": 5.0},
}


def calls_of(model, ladder, config, rows, known=None, **more):
    """Tokens of some images, and how often each scale was asked for."""
    calls, labels_B = Calls(), torch.tensor(rows) % 3
    tokens_BL, _ = generate(model, ladder, labels_B, rows, config, known, calls, **more)
    return tokens_BL, calls.calls


@pytest.mark.parametrize("sr_steps", [0, 1])
@pytest.mark.parametrize("name", SELECTS)
def test_an_exit_changes_no_image(make_model, make_ladder, name, sr_steps):
    """Catches random numbers of a call that was left out which later scales then draw, so that an
    image depends on its batch; and an exit that never happens."""
    model, ladder = make_model(history=0, mask_prob=0.5), make_ladder(ScaleSchedule((1, 2, 3)))
    config = srdd(select=name, refine_steps=4, sr_steps=sr_steps, **EXITS.get(name, {}))
    whole, _ = calls_of(model, ladder, config, [*range(64)])
    every, most = calls_of(model, ladder, config, [*range(64)], early_exit=False)
    assert torch.equal(whole, every) and most == {
        k: config.passes(k, n) for k, n in enumerate((1, 4, 9))
    }
    alone = [calls_of(model, ladder, config, [i]) for i in range(64)]
    assert torch.equal(torch.cat([tokens for tokens, _ in alone]), whole)
    assert all(n <= most[k] for _, calls in alone for k, n in calls.items())
    kinds = {tuple(calls.items()) for _, calls in alone}
    assert (len(kinds) > 1) == (name not in COUNTED), (
        "images must exit at other passes, or the test shows nothing"
    )


def test_a_rule_goes_on_after_a_call_that_was_left_out(make_model, make_ladder, monkeypatch):
    """Catches an exit that ends a scale for a rule that would redraw later, or that hides from it
    which pass it is."""
    model, ladder = make_model(history=0, mask_prob=0.5), make_ladder(ScaleSchedule((1, 2, 3)))
    late = lambda drawn, uniform_Bl, config: ~drawn.fixed_Bl & (drawn.passes_left == 2)  # noqa: E731
    monkeypatch.setattr(rules, "select_late", late, raising=False)
    config = srdd(select="late", refine_steps=3)
    found, calls = calls_of(model, ladder, config, [*range(8)])
    every, most = calls_of(model, ladder, config, [*range(8)], early_exit=False)
    assert torch.equal(found, every) and (calls, most) == ({0: 2, 1: 2, 2: 2}, {0: 4, 1: 4, 2: 4})
    plain, _ = generate(model, ladder, torch.arange(8) % 3, range(8), SamplerConfig())
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("history", [None, 1])
def test_no_exit_where_later_scales_read_this_one(make_model, make_ladder, history):
    """Catches a call that is left out although it would have changed the keys that later scales
    read: images would depend on their batch. A quota still needs no more passes than tokens,
    whatever is drawn."""
    model, ladder = (
        make_model(history=history, mask_prob=0.5),
        make_ladder(ScaleSchedule((1, 2, 3))),
    )
    for name in SELECTS:
        config = srdd(select=name, refine_steps=4, **EXITS.get(name, {}))
        whole, most = calls_of(model, ladder, config, [*range(16)])
        assert most == ({0: 1, 1: 4, 2: 5} if name in COMMITTING else dict.fromkeys(range(3), 5))
        alone = [calls_of(model, ladder, config, [i]) for i in range(16)]
        assert torch.equal(torch.cat([tokens for tokens, _ in alone]), whole) and all(
            calls == most for _, calls in alone
        )


@pytest.mark.parametrize("name", SELECTS)
def test_a_scale_that_is_known_is_asked_once(make_model, make_ladder, name):
    """Catches calls for scales of which every token is given, and known tokens among those that a
    quota counts."""
    model, ladder = make_model(history=0, mask_prob=0.5), make_ladder(ScaleSchedule((1, 2, 3)))
    known_BL = torch.arange(14).expand(2, 14) < 5  # scales 0 and 1
    known = Known(torch.zeros(2, 14, dtype=torch.long), known_BL)
    _, calls = calls_of(
        model, ladder, srdd(select=name, refine_steps=2, p_resample=0.9), [0, 1], known
    )
    assert calls == {0: 1, 1: 1, 2: 3}


def test_cost_shows_the_calls_that_were_made(make_model, make_ladder):
    """Catches the most calls reported of images that took fewer; tokens a forward pass counts those
    that were made."""
    model, ladder = make_model(history=0, mask_prob=0.5), make_ladder(ScaleSchedule((1, 2, 3)))
    config, calls = (
        srdd(select="dynamic", refine_steps=4, cfg_scale=2.0, **EXITS["dynamic"]),
        Calls(),
    )
    for i in range(16):
        generate(model, ladder, torch.tensor([i % 3]), [i], config, calls=calls)
    most, used = sampling_cost(model.config, config), sampling_cost(model.config, config, calls)
    assert most.passes == (1, 4, 5) and most.tokens_per_forward == 14 / 10 and most.nfe == 1 + 2 * 9
    assert (
        used.passes == pytest.approx([calls.calls[k] / 16 for k in range(3)])
        and used.passes[0] == 1
    )
    assert (
        used.nfe == pytest.approx(1 + 2 * sum(used.passes[1:]))
        and used.nfe < most.nfe
        and used.flops < most.flops
    )
    assert used.tokens_per_forward == pytest.approx(14 * 16 / sum(calls.calls.values()))
    rows = []
    run = SimpleNamespace(
        add=lambda name, value, unit, scale=None: rows.append((name, value, unit, scale))
    )
    Run.add_cost(run, used)
    assert ("tokens_per_forward", used.tokens_per_forward, "tokens/pass", None) in rows
    assert [row for row in rows if row[0] == "passes_used"] == [
        ("passes_used", passes, "passes/image", k) for k, passes in enumerate(used.passes)
    ]
    rows.clear()
    Run.add_cost(run, sampling_cost(model.config, SamplerConfig()))
    assert [name for name, *_ in rows] == ["nfe", "token_evals", "flops", "tokens_per_forward"]
    one_by_one = sampling_cost(model.config, srdd(select="sequential", refine_steps=8))
    assert (one_by_one.passes, one_by_one.tokens_per_forward) == ((1, 4, 9), 1.0)


# ---------------------------------------------------------------- the distribution of one draw


@pytest.mark.parametrize(
    "settings",
    [
        (1.0, None, 1.0),
        (0.7, None, 1.0),
        (1.0, 3, 1.0),
        (1.0, None, 0.8),
        (1.3, 5, 0.7),
        (1.0, 1, 1.0),
    ],
)
def test_probability_peak_entropy_by_definition(settings):
    """Catches confidences that ignore temperature or cuts, are not normalised, or belong to another
    code once codes are sorted."""
    logits_V = 2 * torch.randn(8, generator=generator("records"), dtype=torch.float64)
    p = reference_distribution(logits_V, *settings)
    found = distribution(logits_V.expand(1, 500, 8), *settings)
    every = distribution(logits_V.expand(1, 8, 8), *settings).probability(torch.arange(8)[None])
    assert every[0].tolist() == pytest.approx(p, abs=1e-12)
    assert found.peak()[0].tolist() == pytest.approx([max(p)] * 500, abs=1e-12)
    assert found.entropy()[0].tolist() == pytest.approx(
        [-sum(q * math.log(q) for q in p if q)] * 500, abs=1e-12
    )
    tokens_Bl, probability_Bl = found.draw(
        torch.rand(1, 500, generator=generator("u"), dtype=torch.float64)
    )
    assert probability_Bl[0].tolist() == pytest.approx(
        [p[v] for v in tokens_Bl[0].tolist()], abs=1e-12
    )
    torch.testing.assert_close(found.probability(tokens_Bl), probability_Bl)


# ---------------------------------------------------------------- masks in training


def test_share_of_revealed_tokens():
    """Catches ratios that are not uniform, one ratio for all scales, or mask_prob applied per image
    or per token. With a uniform ratio the number of revealed tokens of a scale is uniform on 0 ...
    l; with mask_prob p there are 1 - p more at 0."""
    schedule, B = ScaleSchedule((1, 2, 3)), 4000
    tokens_BL = torch.randint(7, (B, 14), generator=generator("tokens"))
    for mask_prob in (1.0, 0.3):
        own_BL = mask_within_scales(
            tokens_BL, schedule, mask_prob, 7, generator("masks", str(mask_prob))
        )
        counts = []
        for piece, length in zip(schedule.slices, schedule.lengths):
            revealed_B = (own_BL[:, piece] != 7).sum(1)
            law = [mask_prob / (length + 1) + (1 - mask_prob) * (n == 0) for n in range(length + 1)]
            assert chi_square(torch.bincount(revealed_B, minlength=length + 1), law) > FALSE_ALARM
            wrong = [math.comb(length, n) / 2**length for n in range(length + 1)]
            if length > 1:
                assert (
                    chi_square(torch.bincount(revealed_B, minlength=length + 1), wrong)
                    < FALSE_ALARM
                ), "it must be able to fail"
            counts.append(revealed_B.double())
        correlation = torch.corrcoef(torch.stack(counts))
        assert (correlation - torch.eye(3)).abs().max() < 4 / math.sqrt(B), (
            "scales are masked independently"
        )
    assert torch.equal(
        mask_within_scales(tokens_BL, schedule, 0.0, 7, generator("none")),
        torch.full_like(tokens_BL, 7),
    )


def test_masks_show_true_tokens_and_follow_their_generator():
    """Catches a revealed token that is not the true one, and masks that look at the tokens. Masks
    belong to the batch of a training step, drawn from the step's one generator: the same step has
    the same masks, an image alone has others."""
    schedule = ScaleSchedule((1, 2, 3))
    tokens_BL = torch.randint(7, (50, 14), generator=generator("tokens"))
    own_BL = mask_within_scales(tokens_BL, schedule, 0.8, 7, generator("masks"))
    shown_BL = own_BL != 7
    assert 0.1 < shown_BL.float().mean() < 0.7 and torch.equal(
        own_BL[shown_BL], tokens_BL[shown_BL]
    )
    assert torch.equal(mask_within_scales(tokens_BL, schedule, 0.8, 7, generator("masks")), own_BL)
    assert torch.equal(
        mask_within_scales((tokens_BL + 1) % 7, schedule, 0.8, 7, generator("masks")) != 7, shown_BL
    )
    assert not torch.equal(
        mask_within_scales(tokens_BL[-1:], schedule, 0.8, 7, generator("masks"))[0], own_BL[-1]
    )


@pytest.mark.parametrize("share", [0.0, 0.003, 0.4, 1.0])
def test_loss_over_counted_tokens_is_their_plain_mean(share):
    """Catches a weight, chunk boundary or gradient that is off when only masked tokens count;
    nothing counted must give 0, not nan."""
    source = generator("counted")
    hidden = torch.randn(3, 700, 16, generator=source, requires_grad=True)
    head, tokens = torch.nn.Linear(16, 50), torch.randint(50, (3, 700), generator=source)
    with torch.no_grad():  # large enough that other tokens have another mean
        for weight in head.parameters():
            weight.normal_(generator=source)
    counted = torch.rand(3, 700, generator=source) < share
    parameters = (hidden, head.weight, head.bias)
    loss = linear_cross_entropy(hidden, head, tokens, counted)
    grads = torch.autograd.grad(3 * loss, parameters)
    if share == 0.0:
        assert loss.item() == 0.0 and not any(grad.any() for grad in grads)
        return
    plain = next_scale_cross_entropy(head(hidden[counted])[None], tokens[counted][None])
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(grads, torch.autograd.grad(3 * plain, parameters)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    if share < 1.0:
        whole = next_scale_cross_entropy(head(hidden), tokens)
        assert abs(loss.item() - whole.item()) > 1e-3, "the test must be able to fail"


def test_training_loss_counts_the_masked_tokens(make_model, make_ladder):
    """Catches a training that is paid for tokens it was shown,
    or is shown tokens other than those it is not asked for."""
    model, ladder = make_model(mask_prob=0.7), make_ladder(ScaleSchedule((1, 2, 3)))
    tokens_BL = torch.randint(7, (16, 14), generator=generator("tokens"))
    labels_B = torch.arange(16) % 3
    loss = loss_of(trainer_of(model, ladder, 0.7), tokens_BL, labels_B, "step")
    own_BL = mask_within_scales(tokens_BL, ladder.schedule, 0.7, 7, generator("step"))
    logits_BLV = model(ladder.teacher_forced_inputs(tokens_BL), labels_B, own_BL=own_BL)
    hidden_BL = own_BL == 7
    expected = next_scale_cross_entropy(logits_BLV[hidden_BL][None], tokens_BL[hidden_BL][None])
    torch.testing.assert_close(loss, expected)
    assert abs(loss.item() - next_scale_cross_entropy(logits_BLV, tokens_BL).item()) > 1e-2


def test_training_learns_to_use_revealed_tokens(make_ladder):
    """Catches own tokens that reach the network but no gradient, or sit at the wrong place: of a
    scale whose tokens come in equal pairs, a token with its partner revealed becomes sure, one
    without stays at chance, log 4."""
    config = ModelConfig(
        patch_nums=(2,),
        codebook_size=4,
        codebook_dim=4,
        num_classes=0,
        depth=1,
        width=32,
        heads=2,
        init_gamma=1.0,
        mask_prob=1.0,
    )
    model, ladder = ScaleTransformer(config), make_ladder(ScaleSchedule((2,)), codebook_size=4)
    model.init_weights(generator("pairs"))
    trainer, optimizer = (
        trainer_of(model, ladder, 1.0),
        torch.optim.AdamW(model.parameters(), lr=1e-2),
    )
    labels_B = torch.zeros(64, dtype=torch.long)
    for step in range(80):
        source = generator("pairs", step)
        tokens_BL = torch.randint(4, (64, 2), generator=source).repeat_interleave(2, 1)
        loss = trainer.loss(trainer.draw(tokens_BL, labels_B, source))[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens_BL = torch.randint(4, (64, 2), generator=generator("pairs test")).repeat_interleave(2, 1)
    inputs_BLC, own_BL = ladder.teacher_forced_inputs(tokens_BL), tokens_BL.clone()
    own_BL[:, [0, 3]] = 4
    with torch.no_grad():
        shown, alone = (
            next_scale_cross_entropy(
                model(inputs_BLC, labels_B, own_BL=own)[:, [0, 3]], tokens_BL[:, [0, 3]]
            ).item()
            for own in (own_BL, torch.full_like(own_BL, 4))
        )
    assert shown < 0.2 and alone > 0.9 * math.log(4)


# ---------------------------------------------------------------- own tokens in the network


@pytest.mark.parametrize("history", [None, 0, 1, 2])
@torch.no_grad()
def test_own_tokens_reach_their_scale_and_later_ones_only(make_model, history):
    """Catches own tokens that leak to an earlier scale, further than history reaches, or not
    through their own scale."""
    model = make_model(patch_nums=(1, 2, 3, 4), history=history, depth=1, mask_prob=0.5)
    schedule, V = model.schedule, 7
    inputs_BLC = torch.randn(2, schedule.seq_len, 4, generator=generator("inputs"))
    labels_B, masked_BL = torch.tensor([0, 2]), torch.full((2, schedule.seq_len), V)
    before = model(inputs_BLC, labels_B, own_BL=masked_BL)
    reach = schedule.num_scales if history is None else history
    for j, piece in enumerate(schedule.slices):
        for token, start in (
            (3, masked_BL),
            (5, masked_BL.index_fill(1, torch.tensor([piece.start]), 3)),
        ):
            own_BL = start.clone()
            own_BL[:, piece.start] = token  # reveal one token, then alter a revealed one
            base, after = (model(inputs_BLC, labels_B, own_BL=own) for own in (start, own_BL))
            for k, rows in enumerate(schedule.slices):
                changed = (base[:, rows] != after[:, rows]).any(-1)
                assert changed.all() if 0 <= k - j <= reach else not changed.any(), (j, k)
    assert torch.equal(before, model(inputs_BLC, labels_B))


@pytest.mark.parametrize("history", [None, 0, 1, 2])
@torch.no_grad()
def test_cache_parity_with_own_tokens(make_model, history):
    """Catches a one-scale step that embeds own tokens elsewhere than training does, and a pass that
    leaves the keys of the pass before it in the cache:
    k is called twice with other own tokens first."""
    model = make_model(patch_nums=(1, 2, 3, 4), history=history, mask_prob=0.5)
    schedule, source = model.schedule, generator("own")
    inputs_BLC = torch.randn(3, schedule.seq_len, 4, generator=source)
    own_BL, other_BL = (torch.randint(8, (3, schedule.seq_len), generator=source) for _ in range(2))
    labels_B = torch.tensor([0, 3, 1])
    whole, denoise = model(inputs_BLC, labels_B, own_BL=own_BL), model.denoiser()
    for k, piece in enumerate(schedule.slices):
        first = denoise(inputs_BLC[:, piece], k, labels_B)
        second = denoise(inputs_BLC[:, piece], k, labels_B, other_BL[:, piece])
        third = denoise(inputs_BLC[:, piece], k, labels_B, own_BL[:, piece])
        torch.testing.assert_close(third, whole[:, piece], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(first, third, atol=1e-2) and not torch.allclose(
            second, third, atol=1e-2
        )


@pytest.mark.parametrize("history", HISTORIES)
@torch.no_grad()
def test_guided_refinement_equals_two_separate_models(make_model, history):
    """Catches own tokens that only one half of the doubled batch sees, or in another order."""
    model, schedule = (
        make_model(patch_nums=(1, 2, 3, 4), history=history, mask_prob=0.5),
        ScaleSchedule((1, 2, 3, 4)),
    )
    labels = torch.tensor([0, 2])
    denoiser = model.denoiser()
    guided = guide(denoiser, schedule, 2.5, "linear", 3, denoiser.history)
    cond, uncond, nobody = model.denoiser(), model.denoiser(), torch.full_like(labels, 3)
    for k, w in enumerate(guidance_weights(2.5, "linear", 4)):
        inputs = torch.randn(2, schedule.lengths[k], 4, generator=generator("x", k))
        for step in range(2):
            own = (
                [torch.randint(8, (2, schedule.lengths[k]), generator=generator("own", k))]
                if step
                else []
            )
            c, u = cond(inputs, k, labels, *own), uncond(inputs, k, nobody, *own)
            torch.testing.assert_close(
                guided(inputs, k, labels, *own), u + w * (c - u), rtol=1e-4, atol=1e-4
            )


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("scales, passes", [(None, (4, 4, 4)), ((0, 2), (4, 1, 4))])
def test_cost_of_refinement_is_what_a_hand_counts(model_config, scales, passes):
    """Catches a refinement that is free on paper: passes at each refined scale count whole, guided
    ones twice, SR not at all."""
    D, V, C, depth, lengths = 16, 7, 4, 2, (1, 4, 9)
    for history, doubled in ((0, (1, 2, 2)), (None, (2, 2, 2))):
        sampler = srdd(cfg_scale=2.0, refine_steps=3, sr_steps=5, refine_scales=scales)
        cost = sampling_cost(model_config(history=history, mask_prob=0.5), sampler)
        assert cost.nfe == sum(b * n for b, n in zip(doubled, passes))
        assert cost.token_evals == sum(
            b * n * length for b, n, length in zip(doubled, passes, lengths)
        )
        # modulations: of both halves, once per image and not per pass; the head: once a pass,
        # guidance comes before it
        expected, seen = 2 * 2 * (depth * 6 * D * D + 2 * D * D), 0
        for k, (b, n, length) in enumerate(zip(doubled, passes, lengths)):
            seen = length if history == 0 else seen + length
            token = depth * 12 * D * D + (C * D if k else 0) + depth * 2 * D * seen
            expected += 2 * n * length * (b * token + D * V)
        assert cost.flops == expected


@pytest.mark.parametrize("settings", [
    {}, {"cfg_scale": 2.0}, {"refine_steps": 2},
    {"refine_steps": 3, "cfg_scale": 2.0, "cfg_ramp": "constant", "refine_scales": (2,)},
    {"sr_steps": 4},
])  # fmt: skip
@pytest.mark.parametrize("history", [None, 0])
def test_cost_is_what_the_network_is_asked_for(
    make_model, make_ladder, monkeypatch, history, settings
):
    """Catches a cost that is counted of other calls than those that a sampler makes."""
    calls, plain = [], model_module.Denoiser.hidden

    def counted(self, inputs_BlC, *rest):
        calls.append(inputs_BlC.shape[:2])
        return plain(self, inputs_BlC, *rest)

    monkeypatch.setattr(model_module.Denoiser, "hidden", counted)
    model, sampler, seen = make_model(history=history, mask_prob=0.5), srdd(**settings), Calls()
    generate(
        model, make_ladder(ScaleSchedule((1, 2, 3))), torch.tensor([1]), [0], sampler, calls=seen
    )
    measured = sum(b for b, _ in calls), sum(b * length for b, length in calls)
    cost = sampling_cost(model.config, sampler, seen)
    assert (cost.nfe, cost.token_evals) == measured


# ---------------------------------------------------------------- what captions say


@pytest.mark.parametrize("name", SELECTS)
def test_captions_say_which_rules_bend_the_distribution(name):
    """Catches a figure of a rule that keeps likely values and does not say so, and the reverse:
    held against the rule's own law."""
    oracle = JointOracle(independent=True)
    for confidence in (None, *(["peak", "drawn"] if name in RANKING else [])):
        config = srdd(
            refine_steps=2, select=name, confidence=confidence, p_resample=0.4, commit_above=0.5
        )
        words, bent = (
            ", ".join(sampler_parts(config.model_dump(mode="json"))),
            total_variation(oracle.law(config), oracle.joint()) > 1e-9,
        )
        assert f"select {name} (" in words and ("truncates" in words) == bent
        assert ("ranked by" in words) == (name in RANKING)
        assert ("unbiased" in words) == (not bent and name not in RANKING)
    assert "truncates" in ", ".join(sampler_parts(srdd(sr_steps=1).model_dump(mode="json")))
    assert "truncates" not in ", ".join(sampler_parts(srdd().model_dump(mode="json")))


# ---------------------------------------------------------------- what is refused


def test_a_confidence_that_no_rule_reads_is_refused():
    """Catches a setting that is silently without effect: a grid of two confidences that is one
    sampler twice."""
    for name in SELECTS:
        for confidence in ("peak", "drawn"):
            given = {"name": name, "confidence": confidence}
            if name in RANKING:
                assert SamplerConfig(select=given).select.confidence == confidence
            else:
                with pytest.raises(ValueError, match=f"unknown setting of select {name} 'conf"):
                    SamplerConfig(select=given)
    # confidences are compared with a probability there, and an entropy is none
    with pytest.raises(ValueError, match="entropy is no probability; give peak or drawn"):
        SamplerConfig(select={"name": "dynamic", "confidence": "entropy"})
    assert SamplerConfig(select={"name": "static", "confidence": "entropy"})


def test_generate_refuses_refinement_that_does_not_fit(make_model, make_ladder):
    """Catches refinement of a model that never saw masks, a misspelt rule, scales that do not
    exist, known tokens of another shape."""
    ladder, labels = make_ladder(ScaleSchedule((1, 2, 3))), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"refine_steps 2: .* mask_prob > 0"):
        generate(make_model(), ladder, labels, [0, 1], srdd(refine_steps=2))
    model = make_model(mask_prob=0.5)
    with pytest.raises(ValueError, match=r"'treshold'; did you mean 'threshold'"):
        generate(model, ladder, labels, [0, 1], srdd(refine_steps=2, select="treshold"))
    with pytest.raises(ValueError, match=r"'peek'; did you mean 'peak'"):
        generate(
            model, ladder, labels, [0, 1], srdd(refine_steps=2, select="static", confidence="peek")
        )
    with pytest.raises(ValueError, match=r"refine_scales \[1, 3\].* 0 to 2"):
        generate(model, ladder, labels, [0, 1], srdd(refine_steps=2, refine_scales=(1, 3)))
    for shape in ((2, 15), (1, 14), (2, 9)):
        known = Known(torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"known tokens .* must be \(2, 14\)"):
            generate(model, ladder, labels, [0, 1], SamplerConfig(), known)
    known = Known(torch.zeros(2, 14, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask"):
        generate(model, ladder, labels, [0, 1], SamplerConfig(), known)
