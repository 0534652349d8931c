"""Classes by likelihood: scores scale by scale, noisy copies, the funnel, the masked bound,
shifts."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.experiments.classify.verb import report_cost
from oracle import Oracle
from srdd import degradation
from srdd.config import ModelConfig, SamplerConfig
from srdd.cost import sampling_cost
from srdd.degradation import shifted
from srdd.denoiser import Denoiser
from srdd.likelihood import (
    Stage,
    _hidden,
    averaged,
    evidence_map,
    funnel,
    masked_bound,
    scale_scores,
    smoothed_tokens,
    token_scores,
)
from srdd.lookup import names_in
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

CLASSES = torch.arange(3)
HISTORIES = (None, 1, 0)


@pytest.fixture
def network(make_model, make_ladder):
    """Factory of a model with its ladder and the tokens of five images."""

    def make(**changes):
        model = make_model(**changes)
        rng = generator("tokens")
        V, L = model.config.codebook_size, model.schedule.seq_len
        tokens_BL = torch.randint(V, (5, L), generator=rng)
        return model, make_ladder(model.schedule, V), tokens_BL

    return make


class Whole:
    """The exact conditionals of the oracle as a model that answers all scales at once."""

    def __init__(self, oracle):
        self.oracle, self.schedule, self.mask_LL = oracle, oracle.schedule, None
        V, null = oracle.V, oracle.null_label
        self.config = SimpleNamespace(
            history=0, null_label=null, codebook_size=V, state="sum", recalls=False
        )

    def __call__(self, inputs_NLC, labels_N, own_BL=None):
        pieces = enumerate(self.schedule.slices)
        parts = [self.oracle.hidden(inputs_NLC[:, piece], k, labels_N) for k, piece in pieces]
        return torch.cat(parts, 1)


# ---------------------------------------------------------------- scores


def test_bayes_rule_by_enumeration():
    """Catches a score that is no log p: a mean in place of a sum, a token of another place, a state
    of another scale. Every image of two codes is scored under both classes."""
    oracle = Oracle(V=2)
    tokens_BL = torch.tensor(oracle.sequences())
    scores = scale_scores(Whole(oracle), oracle.ladder, tokens_BL, torch.arange(2))
    probability_BY = scores.sum(-1).exp()
    joint_BY = torch.tensor([oracle.joint(label) for label in range(2)]).T
    assert torch.allclose(probability_BY.sum(0), torch.ones(2, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(probability_BY, joint_BY.double(), atol=1e-6)
    posterior_BY = scores.sum(-1).softmax(1)
    bayes_BY = joint_BY / joint_BY.sum(1, keepdim=True)
    assert torch.allclose(posterior_BY, bayes_BY.double(), atol=1e-6)


@pytest.mark.parametrize("history", HISTORIES)
def test_all_images_of_a_network_have_probability_one(make_model, make_ladder, history):
    """Catches scales that read their own tokens, which would make sure of everything."""
    model = make_model(patch_nums=(1, 2), codebook_size=2, history=history)
    ladder = make_ladder(model.schedule, 2)
    tokens_BL = torch.tensor(list(itertools.product(range(2), repeat=5)))
    total_Y = scale_scores(model, ladder, tokens_BL, CLASSES).sum(-1).exp().sum(0)
    assert torch.allclose(total_Y, torch.ones(3, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_truncated_pass_is_the_prefix_of_the_whole_one(network, history):
    """Catches curves over scales that a truncated classifier would not reach."""
    model, ladder, tokens_BL = network(history=history)
    whole = scale_scores(model, ladder, tokens_BL, CLASSES)
    for m in (1, 2, 3):
        first = scale_scores(model, ladder, tokens_BL, CLASSES, range(m))
        assert torch.allclose(first, whole[..., :m], atol=1e-5, rtol=0)


def test_without_history_a_scale_is_scored_alone(network):
    """Catches a scale that needs earlier ones though nothing is remembered, and others that are
    scored without theirs."""
    model, ladder, tokens_BL = network(history=0)
    whole = scale_scores(model, ladder, tokens_BL, CLASSES)
    for scales in ((0,), (1,), (2,), (0, 2)):
        alone = scale_scores(model, ladder, tokens_BL, CLASSES, scales)
        assert torch.allclose(alone, whole[..., list(scales)], atol=1e-5, rtol=0)
    for history in (None, 1):
        model, ladder, tokens_BL = network(history=history)
        with pytest.raises(ValueError, match="needs the keys of earlier scales"):
            scale_scores(model, ladder, tokens_BL, CLASSES, (1,))
    for scales in ((), (3,), (1, 0), (0, 0)):
        with pytest.raises(ValueError, match=r"give one or more of 0 \.\.\. 2"):
            scale_scores(model, ladder, tokens_BL, CLASSES, scales)


def test_an_untrained_head_tells_no_class(network):
    """Catches a score that depends on the class through anything but the network."""
    model, ladder, tokens_BL = network()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    scores = scale_scores(model, ladder, tokens_BL, CLASSES)
    assert torch.equal(scores, scores[:, :1].expand_as(scores))
    assert (scores.sum(-1).argmax(1) == 0).all(), "of equal scores the first class wins"


def test_permuted_classes_have_permuted_scores(network):
    """Catches rows that mix images and classes up; chunks of few rows would show it too."""
    model, ladder, tokens_BL = network()
    order_Y = torch.tensor([2, 0, 1])
    scores = scale_scores(model, ladder, tokens_BL, CLASSES)
    permuted = scale_scores(model, ladder, tokens_BL, order_Y)
    assert torch.allclose(permuted, scores[:, order_Y], atol=1e-5, rtol=0)
    own = scale_scores(model, ladder, tokens_BL, torch.arange(5)[:, None] % 3)
    expected = scores[torch.arange(5), torch.arange(5) % 3]
    assert torch.allclose(own[:, 0], expected, atol=1e-5, rtol=0)


def test_chunks_change_nothing(network, monkeypatch):
    """Catches a chunk that ends inside an image and goes on with another one's state."""
    model, ladder, tokens_BL = network()
    whole = scale_scores(model, ladder, tokens_BL, CLASSES, guidance=1.5)
    for tokens in (1, 2 * 14, 4 * 14):
        monkeypatch.setattr("srdd.likelihood.PASS_TOKENS", tokens)
        parts = scale_scores(model, ladder, tokens_BL, CLASSES, guidance=1.5)
        assert torch.allclose(parts, whole, atol=1e-5, rtol=0)


def test_information_of_tokens_sums_to_the_log_odds(network):
    """Catches a map of evidence that explains another number than the decision."""
    model, ladder, tokens_BL = network()
    log_p_BCL = token_scores(model, ladder, tokens_BL, torch.arange(4))  # 3: no class
    information_BYL = (log_p_BCL[:, :3] - log_p_BCL[:, 3:]).double()
    scores_BC = scale_scores(model, ladder, tokens_BL, torch.arange(4)).sum(-1)
    odds_BY = scores_BC[:, :3] - scores_BC[:, 3:]
    assert torch.allclose(information_BYL.sum(-1), odds_BY, atol=1e-4, rtol=0)
    assert torch.equal(odds_BY.argmax(1), scores_BC[:, :3].argmax(1))


def test_guidance_is_the_normalised_mix(network):
    """Catches log-probabilities that are mixed without being normalised again."""
    model, ladder, tokens_BL = network()
    inputs = ladder.teacher_forced_inputs(tokens_BL)
    cond, free = (model(inputs, torch.full((5,), label)) for label in (1, 3))
    log_p_BLV = (free + 2.0 * (cond - free)).log_softmax(-1)
    wanted_B = log_p_BLV.gather(-1, tokens_BL[..., None])[..., 0].double().sum(1)
    scores = scale_scores(model, ladder, tokens_BL, torch.tensor([1]), guidance=2.0)
    assert torch.allclose(scores[:, 0].sum(-1), wanted_B, atol=1e-4, rtol=0)


def test_a_map_weighs_scales_by_their_area():
    """Catches scales that count alike, or a map that is turned."""
    schedule = ScaleSchedule((1, 2))
    values_BL = torch.tensor([[4.0, 0.0, 1.0, 2.0, 3.0]])
    assert torch.equal(evidence_map(values_BL, schedule), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))


# ---------------------------------------------------------------- smoothing


def test_noise_has_the_spread_that_is_asked_for():
    """Catches a sigma that is squared, divided by, or of another noise at every size."""
    latent, seen = torch.randn(16, 4, 3, 3, generator=generator("latent")), []

    def encode(noisy_BChw):
        seen.append(noisy_BChw - latent)
        return torch.zeros(16, 14, dtype=torch.long), None

    ladder = SimpleNamespace(schedule=ScaleSchedule((1, 2, 3)), encode=encode)
    for sigma in (1.0, 0.2):
        smoothed_tokens(ladder, latent, sigma, range(16), 4)
    wide, narrow = torch.stack(seen[:4]), torch.stack(seen[4:])
    assert wide.std().item() == pytest.approx(1, abs=0.05) and abs(wide.mean()) < 0.08
    torch.testing.assert_close(narrow, 0.2 * wide, atol=1e-6, rtol=1e-5)


def test_no_noise_changes_no_token(make_ladder):
    """Catches noise that is added where none is asked for, and copies that are one copy."""
    ladder = make_ladder(ScaleSchedule((1, 2, 3)))
    latent = torch.randn(4, 4, 3, 3, generator=generator("latent"))
    tokens_BL, _ = ladder.encode(latent)
    still = smoothed_tokens(ladder, latent, 0.0, range(4), 3)
    assert still.shape == (3, 4, 14) and torch.equal(still, tokens_BL.expand(3, -1, -1))
    noisy = smoothed_tokens(ladder, latent, 5.0, range(4), 2)
    assert not torch.equal(noisy[0], noisy[1])
    assert smoothed_tokens(ladder, latent, 1.0, range(4), 0).shape == (0, 4, 14)
    with pytest.raises(ValueError, match="sigma -1"):
        smoothed_tokens(ladder, latent, -1.0, range(4), 1)
    with pytest.raises(ValueError, match="3 seeds for 4 images"):
        smoothed_tokens(ladder, latent, 1.0, range(3), 1)


def test_noise_depends_on_the_image_alone(make_ladder):
    """Catches results that change with batch size and order, as those of one global generator."""
    ladder = make_ladder(ScaleSchedule((1, 2, 3)))
    latent, seeds = torch.randn(4, 4, 3, 3, generator=generator("latent")), [3, 1, 4, 9]
    whole = smoothed_tokens(ladder, latent, 0.7, seeds, 2)
    rows = [2, 0]
    some = smoothed_tokens(ladder, latent[rows], 0.7, [seeds[i] for i in rows], 2)
    assert torch.equal(some, whole[:, rows])


def test_copies_average_logs_or_probabilities():
    """Catches a sum of logs called a mean of probabilities."""
    scores_SB = torch.tensor([[-1.0, -2.0], [-3.0, -2.0]], dtype=torch.float64)
    assert torch.allclose(averaged(scores_SB, "log"), torch.tensor([-2.0, -2.0]).double())
    mean_B = averaged(scores_SB, "probability")
    assert torch.allclose(mean_B, scores_SB.exp().mean(0).log())
    one_B = -100 * torch.rand(50, dtype=torch.float64, generator=generator("equal"))
    for count in (1, 2, 3, 5, 9):  # copies without noise change nothing but the last bit
        assert torch.allclose(averaged(one_B.expand(count, -1), "log"), one_B, rtol=5e-16, atol=0)
    with pytest.raises(ValueError, match="log or probability"):
        averaged(scores_SB, "max")


# ---------------------------------------------------------------- the funnel


class Counting:
    """Answers a funnel with a network, counting the tokens that it runs."""

    def __init__(self, monkeypatch, model, ladder, tokens_SBL):
        self.asked, self.tokens = (model, ladder), 0
        self.tokens_SBL = tokens_SBL
        inner = Denoiser.__call__

        def counted(denoise, inputs_BlC, *more):
            self.tokens += inputs_BlC.shape[0] * inputs_BlC.shape[1]
            return inner(denoise, inputs_BlC, *more)

        monkeypatch.setattr(Denoiser, "__call__", counted)

    def __call__(self, copy, classes_BC, scales):
        return scale_scores(*self.asked, self.tokens_SBL[copy], classes_BC, scales)


STAGES = (Stage(1, 2, 1), Stage(2, 2, 2), Stage(3, 1, 2))


@pytest.mark.parametrize("history", HISTORIES)
def test_a_funnel_that_keeps_all_decides_as_all_scores(network, monkeypatch, history):
    """Catches a pruned classifier that is another classifier, and ties that are broken another
    way."""
    model, ladder, tokens_BL = network(history=history)
    scores_BY = scale_scores(model, ladder, tokens_BL, CLASSES).sum(-1)
    ask = Counting(monkeypatch, model, ladder, tokens_BL[None])
    every_BC = CLASSES.expand(5, -1)
    found = funnel(ask, model.schedule, history, every_BC, [Stage(2, 3), Stage(3, 1)])
    assert torch.equal(found.labels_B, scores_BY.argmax(1))
    equal = funnel(
        lambda copy, classes_BC, scales: torch.zeros(*classes_BC.shape, len(scales)),
        model.schedule, history, every_BC, [Stage(1, 2), Stage(3, 1)],
    )  # fmt: skip
    assert equal.labels_B.tolist() == [0] * 5


@pytest.mark.parametrize("history", HISTORIES)
def test_tokens_of_a_funnel_are_those_that_the_network_saw(network, monkeypatch, history):
    """Catches a cost that is reckoned otherwise than it is spent: scales that run again for their
    keys, or that are not run again though nothing is remembered."""
    model, ladder, tokens_BL = network(history=history)
    ask = Counting(monkeypatch, model, ladder, torch.stack((tokens_BL, tokens_BL.flip(0))))
    found = funnel(ask, model.schedule, history, CLASSES.expand(5, -1), STAGES)
    assert found.token_evals(model.schedule) * 5 == ask.tokens
    # lengths 1, 4, 9: 3 x 1, then 2 classes and 2 copies
    own = 3 * 1 + (2 * 4 + 2 * 5) + 2 * 2 * 9
    again = 3 * 1 + (2 * 5 + 2 * 5) + 2 * 2 * 14
    assert ask.tokens == 5 * (own if history == 0 else again)
    assert [kept.shape for kept in found.kept] == [(5, 2), (5, 2), (5, 1)]


@pytest.mark.parametrize("history", HISTORIES)
def test_operations_of_a_funnel_are_those_that_the_network_made(network, monkeypatch, history):
    """Catches a stage that begins at a later scale and makes what follows from the class for
    nothing."""
    model, ladder, tokens_BL = network(history=history)
    made, inner = [], ScaleTransformer.modulate

    def counted(network, labels_B, *more):
        made.append(len(labels_B))
        return inner(network, labels_B, *more)

    monkeypatch.setattr(ScaleTransformer, "modulate", counted)
    ask = Counting(monkeypatch, model, ladder, torch.stack((tokens_BL, tokens_BL.flip(0))))
    outcome = funnel(ask, model.schedule, history, CLASSES.expand(5, -1), STAGES)
    assert sum(made) == 5 * (outcome.passes[0] + outcome.resumed)
    added = {}
    held = SimpleNamespace(
        model=model,
        schedule=model.schedule,
        add=lambda name, value, unit: added.update({name: value}),
    )
    report_cost(held, "funnel", outcome.passes, outcome.resumed)
    cost, D = sampling_cost(model.config, SamplerConfig()), model.config.width
    of_scales = sum(n * row[2] for n, row in zip(outcome.passes, cost.by_scale))
    # 6 modulations of each block and 2 of the head, D x D multiply-adds each
    of_a_class = 2 * (6 * model.config.depth + 2) * D * D
    assert added["funnel_flops"] == of_scales + outcome.resumed * of_a_class
    assert (outcome.resumed > 0) == (history == 0)


def test_a_funnel_averages_the_copies_of_its_last_stage(network, monkeypatch):
    """Catches copies that are asked for and not read."""
    model, ladder, tokens_BL = network()
    copies = torch.stack((tokens_BL, tokens_BL.flip(0)))
    ask = Counting(monkeypatch, model, ladder, copies)
    found = funnel(ask, model.schedule, None, CLASSES.expand(5, -1), [Stage(3, 1, 2)])
    both = [scale_scores(model, ladder, one, CLASSES).sum(-1) for one in copies]
    assert torch.equal(found.labels_B, torch.stack(both).mean(0).argmax(1))


@pytest.mark.parametrize(
    "stages, words",
    [
        ([Stage(4, 1)], "scales from 1 to 3"),
        ([Stage(1, 4), Stage(2, 1)], "keeps 1 to 3 classes"),
        ([Stage(1, 1), Stage(2, 2)], "keeps 1 to 1 classes"),
        ([Stage(1, 2)], "the last one keeps 1"),
        ([], "the last one keeps 1"),
        ([Stage(1, 1, 0)], "samples 1 or more"),
    ],
)
def test_stages_that_lead_nowhere_are_refused(stages, words):
    """Catches a funnel that ends with several classes, or widens."""
    with pytest.raises(ValueError, match=words):
        funnel(None, ScaleSchedule((1, 2, 3)), 0, CLASSES.expand(5, -1), stages)


# ---------------------------------------------------------------- the masked bound


def test_the_bound_is_exact_where_tokens_do_not_depend_on_one_another(make_model, make_ladder):
    """Catches weights l/m that are not: with no word of the own tokens every draw has the exact
    score as its mean."""
    model = make_model(mask_prob=1.0, history=0, patch_nums=(1, 2))
    ladder = make_ladder(model.schedule)
    with torch.no_grad():  # a revealed token says no more than a masked one
        model.own_embedding.weight.copy_(model.own_embedding.weight[-1:].expand(8, -1))
    tokens_BL = torch.randint(7, (2, 5), generator=generator("few"))
    exact_BY = scale_scores(model, ladder, tokens_BL, CLASSES).sum(-1)
    draws = masked_bound(model, ladder, tokens_BL, CLASSES, [0, 1], 400)
    error = draws.std(0) / 400**0.5
    assert ((draws.mean(0) - exact_BY).abs() < 4 * error + 1e-4).all()


def test_any_number_of_tokens_is_hidden_as_often():
    """Catches scales of which one token is never hidden alone, or never all of them."""
    schedule, source = ScaleSchedule((1, 2, 3)), generator("hidden")
    hidden_NL = torch.stack([_hidden(schedule, source) for _ in range(1800)])
    for piece, length in zip(schedule.slices, schedule.lengths):
        counts = torch.bincount(hidden_NL[:, piece].sum(1), minlength=length + 1)
        assert counts[0] == 0 and len(counts) == length + 1
        share = 1800 / length
        assert (counts[1:] - share).abs().max() <= 4.5 * share**0.5


def test_common_noise_hides_the_same_tokens_of_all_classes(make_model, make_ladder):
    """Catches noise that is called common and is not, and noise that depends on the batch."""
    model = make_model(mask_prob=1.0, history=0)
    ladder = make_ladder(model.schedule)
    with torch.no_grad():  # all classes are one: only the masks can tell them apart
        model.class_embedding.weight.copy_(model.class_embedding.weight[:1].expand(4, -1))
    tokens_BL = torch.randint(7, (3, 14), generator=generator("few"))
    asked = model, ladder, tokens_BL, CLASSES, [5, 6, 7]
    same = masked_bound(*asked, 2)
    assert torch.allclose(same, same[..., :1].expand_as(same), atol=1e-4)
    apart = masked_bound(*asked, 2, common=False)
    assert not torch.allclose(apart, apart[..., :1].expand_as(apart), atol=1e-2)
    alone = masked_bound(model, ladder, tokens_BL[1:2], CLASSES, [6], 2)
    assert torch.allclose(alone, same[:, 1:2], atol=1e-4)


def test_a_model_without_masks_has_no_bound(network):
    """Catches a bound of a model that has never seen a revealed token."""
    model, ladder, tokens_BL = network()
    with pytest.raises(ValueError, match="mask_prob above 0"):
        masked_bound(model, ladder, tokens_BL, CLASSES, range(5), 1)


# ---------------------------------------------------------------- shifts


@pytest.mark.parametrize("name", names_in(Path(degradation.__file__), "shift"))
def test_a_shift_keeps_shape_and_range_and_looks_at_one_image(name):
    """Catches an image that depends on its neighbours, on its place or on an earlier call."""
    images = torch.rand(4, 1, 8, 8, generator=generator("images")) * 2 - 1
    before = images.clone()
    whole = shifted(name, images, [3, 1, 4, 9])
    assert whole.shape == images.shape and -1 <= whole.min() and whole.max() <= 1
    assert torch.equal(images, before), "the image itself was changed"
    assert torch.equal(whole, images) == (name == "none")
    assert torch.equal(shifted(name, images[[2, 0]], [4, 3]), whole[[2, 0]])
    with pytest.raises(ValueError, match="3 seeds for 4 images"):
        shifted(name, images, range(3))


def test_shifts_are_what_their_names_say():
    """Catches a shift that does nothing, or more than it says."""
    images = torch.rand(200, 1, 8, 8, generator=generator("images")) - 0.5
    assert (shifted("noise", images, range(200)) - images).std() == pytest.approx(0.3, abs=0.01)
    assert (shifted("heavy_noise", images, range(200)) - images).std() > 0.45
    assert ((shifted("occlusion", images, range(200)) == -1).sum((1, 2, 3)) == 9).all()
    assert torch.equal(shifted("contrast", images, range(200)), 0.4 * images)
    flat = torch.full((1, 1, 8, 8), 0.25)
    assert torch.allclose(shifted("blur", flat, [0]), flat)
    moved = shifted("translation", images, range(200))
    ways = [
        torch.equal(moved[i, 0, 1:-1, 1:-1], images[i, 0, 1 + dy : 7 + dy, 1 + dx : 7 + dx])
        for i in range(200)
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    assert sum(ways) == 200
    with pytest.raises(ValueError, match="unknown shift 'fog'"):
        shifted("fog", images, range(200))


def test_scores_of_a_model_with_masks_are_those_of_its_first_pass(make_model, make_ladder):
    """Catches own tokens that are revealed where the exact likelihood of one pass is asked for."""
    plain = ModelConfig(
        patch_nums=(1, 2), codebook_size=5, codebook_dim=4, num_classes=3, depth=1, width=16,
        heads=2, mask_prob=1.0,
    )  # fmt: skip
    model = ScaleTransformer(plain).eval()
    model.init_weights(generator("masked"))
    ladder = make_ladder(model.schedule, 5)
    tokens_BL = torch.randint(5, (4, 5), generator=generator("few"))
    masked = torch.full_like(tokens_BL, 5)
    inputs = ladder.teacher_forced_inputs(tokens_BL)
    logits = model(inputs, torch.ones(4, dtype=torch.long), own_BL=masked).log_softmax(-1)
    wanted_B = logits.gather(-1, tokens_BL[..., None]).sum((1, 2)).double()
    scores = scale_scores(model, ladder, tokens_BL, torch.tensor([1]))
    assert torch.allclose(scores.sum((1, 2)), wanted_B, atol=1e-4)
