"""The token ladder as a diffusion: matrices, posterior and ELBO against brute force,
SNR in closed form, and both verbs."""

import csv
import importlib
import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_study import build
from test_verbs import ROOT, Bench

from bench.experiments.equivalence.show import figure_equivalence, judge_equal
from bench.pipeline.artefacts import open_split
from bench.pipeline.datasets import to_float
from bench.pipeline.labels import in_shares
from bench.report.results import Results
from bench.report.view import View
from bench.runtime.verb import main
from bench.runtime.verbs import verbs
from oracle import FALSE_ALARM, Oracle, chi_square
from srdd import corruption, diffusion
from srdd.lookup import find, names_in
from srdd.noise import generator
from srdd.schedule import ScaleSchedule
from srdd.tokenizer_checkpoint import load_tokenizer

NOISY = ("uniform", "absorb")
ALL = ("none", *NOISY)


@st.composite
def asked(draw):
    """Logits (2, 3, V) of very different sizes, tokens (2, 3), and a noise."""
    V, seed = draw(st.integers(2, 9)), draw(st.integers(0, 10**6))
    rng = generator("asked", seed)
    logits = torch.randn(2, 3, V, generator=rng, dtype=torch.float64) * draw(
        st.sampled_from([0.1, 1.0, 8.0])
    )
    eps = draw(st.one_of(st.sampled_from([0.0, 1e-12, 0.5, 1.0]), st.floats(0.0, 1.0)))
    return logits, torch.randint(V, (2, 3), generator=rng), eps


def cross_entropy(logits, tokens):
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


# ---------------------------------------------------------------- the forward process


def test_every_corruption_has_its_matrix_and_its_terms():
    """Catches a corruption that can be trained with and not be measured,
    or one measured under another name."""
    names = names_in(ROOT / "srdd" / "corruption.py", "corrupt")
    for prefix in ("matrix", "terms"):
        assert names_in(ROOT / "srdd" / "diffusion.py", prefix) == names
    with pytest.raises(ValueError, match="unifrom.*did you mean 'uniform'"):
        diffusion.transition_matrix(3, 0.1, "unifrom")
    with pytest.raises(ValueError, match="eps 1.5"):
        diffusion.elbo_terms(
            torch.zeros(1, 1, 3), torch.zeros(1, 1, dtype=torch.int64), 1.5, "uniform"
        )


@pytest.mark.parametrize("name", ALL)
@given(V=st.integers(2, 12), eps=st.floats(0.0, 1.0))
def test_rows_are_distributions(name, V, eps):
    """Catches a matrix whose rows lose or gain mass, or hold a negative probability."""
    Q_VS = diffusion.transition_matrix(V, eps, name)
    assert Q_VS.dtype == torch.float64 and Q_VS.shape == (V, V + (name == "absorb"))
    assert (Q_VS >= 0).all()
    torch.testing.assert_close(Q_VS.sum(1), torch.ones(V, dtype=torch.float64), rtol=0, atol=1e-14)


@given(V=st.integers(2, 8), first=st.floats(0.0, 1.0), second=st.floats(0.0, 1.0))
def test_two_noises_are_one_larger_noise(V, first, second):
    """Catches an eps that does not mean "with this probability drawn anew":
    only then do two noises compose."""
    both = 1 - (1 - first) * (1 - second)
    uniform = [diffusion.transition_matrix(V, eps, "uniform") for eps in (first, second, both)]
    torch.testing.assert_close(uniform[0] @ uniform[1], uniform[2], rtol=0, atol=1e-14)
    lost = torch.eye(V + 1, dtype=torch.float64)[-1:]  # what is lost stays lost
    absorb = [
        torch.cat((diffusion.transition_matrix(V, eps, "absorb"), lost))
        for eps in (first, second, both)
    ]
    torch.testing.assert_close(absorb[0] @ absorb[1], absorb[2], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_corruption_follows_its_matrix(name):
    """Catches training noise that is not the noise of the ELBO,
    such as one that never draws the token itself again."""
    V, eps, count = 5, 0.3, 20_000
    for a in range(V):
        tokens = torch.full((1, count), a)
        drawn = find(corruption, "corrupt", name)(tokens, eps, V, generator("frequencies", name, a))
        row_S = diffusion.transition_matrix(V, eps, name)[a]
        assert chi_square(torch.bincount(drawn[0], minlength=len(row_S)), row_S) > FALSE_ALARM


def test_lost_tokens_add_no_code_to_the_state(make_ladder):
    """Catches a lost token that leaves a trace of what it was in f_hat,
    or that is read as a code."""
    ladder, V = make_ladder(ScaleSchedule((1, 2, 4))), 7
    rng = generator("lost")
    tokens = torch.randint(V, (4, 21), generator=rng)
    lost = torch.rand(tokens.shape, generator=rng) < 0.5
    other = torch.randint(V, (4, 21), generator=rng)
    seen = ladder.decode(tokens.masked_fill(lost, V))
    torch.testing.assert_close(
        seen, ladder.decode(torch.where(lost, other, tokens).masked_fill(lost, V)), rtol=0, atol=0
    )
    with torch.no_grad():
        for phi in ladder.quantizer.phi:
            phi.bias.zero_()  # the bias of phi is added at every scale, whatever its tokens
    assert ladder.decode(torch.full_like(tokens, V)).abs().max() == 0
    kept, gone = (ladder.decode(tokens.masked_fill(mask, V)) for mask in (lost, ~lost))
    torch.testing.assert_close(kept + gone, ladder.decode(tokens), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- the posterior


def test_one_impossible_token_is_enough_to_refuse():
    """Catches 0 over 0 that is handed on, because another token is possible."""
    stays = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="probability 0 given its x_0"):
        diffusion.posterior(stays, stays, torch.tensor([0, 1]), torch.tensor([0, 2]))


def test_posterior_is_bayes_by_enumeration():
    """Catches a transposed matrix or a missing normaliser in D3PM's equation 3: every path of three
    random steps is counted."""
    rng = generator("bayes")
    S = 4
    steps = [torch.rand(S, S, generator=rng, dtype=torch.float64) for _ in range(3)]
    steps = [Q / Q.sum(1, keepdim=True) for Q in steps]
    joint = torch.zeros(S, S, S, dtype=torch.float64)  # x0, x2, x3
    for x0, x1, x2, x3 in itertools.product(range(S), repeat=4):
        joint[x0, x2, x3] += steps[0][x0, x1] * steps[1][x1, x2] * steps[2][x2, x3]
    x0, x3 = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
    found = diffusion.posterior(steps[0] @ steps[1], steps[2], x0, x3)
    expected = (joint / joint.sum(1, keepdim=True)).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        found.sum(-1), torch.ones(S, S, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("name", ALL)
def test_posterior_of_a_removed_scale_is_the_row_of_its_token(name):
    """Catches a removal that would leave information: given x, the removed token is as it was
    drawn; a kept one is known."""
    V, eps = 4, 0.3
    Q_VS = diffusion.transition_matrix(V, eps, name)
    S, tokens = Q_VS.shape[1], torch.arange(V)
    found = diffusion.posterior(
        Q_VS, diffusion.removal_matrix(S), tokens, torch.full_like(tokens, S)
    )
    torch.testing.assert_close(found, Q_VS, rtol=0, atol=1e-15)
    kept = diffusion.posterior(Q_VS, torch.eye(S, dtype=torch.float64), tokens, tokens)
    torch.testing.assert_close(kept, torch.eye(S, dtype=torch.float64)[:V], rtol=0, atol=0)
    with pytest.raises(ValueError, match="probability 0"):
        # a removed scale is never seen
        diffusion.posterior(Q_VS, diffusion.removal_matrix(S), tokens, tokens)


# ---------------------------------------------------------------- the terms of the ELBO


@pytest.mark.parametrize("name", ALL)
@given(case=asked())
def test_terms_sum_to_the_cross_entropy_and_are_not_negative(name, case):
    """Catches a wrong term at any noise: both are expectations of something not negative,
    and their sum does not know eps."""
    logits, tokens, eps = case
    transition, readout = diffusion.elbo_terms(logits, tokens, eps, name)
    assert transition.dtype == readout.dtype == torch.float64 and transition.shape == tokens.shape
    assert transition.min() >= -1e-11 and readout.min() >= -1e-11
    torch.testing.assert_close(
        transition + readout, cross_entropy(logits, tokens), rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize("name", ALL)
@given(case=asked())
def test_without_noise_the_transition_is_the_cross_entropy(name, case):
    """Catches a 0 log 0 that is no number, and a limit that is only nearly reached."""
    logits, tokens, _ = case
    transition, readout = diffusion.elbo_terms(logits, tokens, 0.0, name)
    torch.testing.assert_close(transition, cross_entropy(logits, tokens), rtol=1e-12, atol=1e-14)
    assert readout.abs().max() == 0
    if name in NOISY:
        transition, readout = diffusion.elbo_terms(logits, tokens, 1.0, name)
        assert transition.abs().max() < 1e-12
        torch.testing.assert_close(readout, cross_entropy(logits, tokens), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", NOISY)
@given(case=asked(), other=st.floats(0.0, 1.0))
def test_more_noise_moves_the_loss_from_transition_to_readout(name, case, other):
    """Catches a transition that grows with the noise: by the data-processing inequality it
    cannot."""
    logits, tokens, eps = case
    low, high = (
        diffusion.elbo_terms(logits, tokens, value, name) for value in sorted((eps, other))
    )
    assert (high[0] <= low[0] + 1e-11).all() and (high[1] >= low[1] - 1e-11).all()


@pytest.mark.parametrize("name", ALL)
@given(case=asked())
def test_terms_equal_brute_force_with_dense_matrices(name, case):
    """Catches a slip in the sums that replace the V x V matrix: the definition,
    one token at a time."""
    logits, tokens, eps = case
    V = logits.shape[-1]
    transition, readout = diffusion.elbo_terms(logits, tokens, eps, name)
    Q_VS = diffusion.transition_matrix(V, eps, name)
    removal_SR, S = diffusion.removal_matrix(Q_VS.shape[1]), Q_VS.shape[1]
    for place in itertools.product(range(2), range(3)):
        p_V, a = logits[place].softmax(-1), tokens[place]
        q_S = diffusion.posterior(Q_VS, removal_SR, a, torch.tensor(S))
        p_S = p_V @ Q_VS
        expected_transition = expected_readout = 0.0
        for z in range(S):
            if q_S[z] > 0:
                expected_transition += float(q_S[z] * (q_S[z].log() - p_S[z].log()))
                expected_readout -= float(q_S[z] * (p_V[a] * Q_VS[a, z] / p_S[z]).log())
        assert transition[place] == pytest.approx(expected_transition, rel=1e-8, abs=1e-10)
        assert readout[place] == pytest.approx(expected_readout, rel=1e-8, abs=1e-10)


def test_closed_form_for_two_codes():
    """Catches an error that brute force shares with the code: p(a) = 0.8 and eps = 0.2,
    worked out by hand."""
    logits = torch.tensor([[[math.log(0.8), math.log(0.2)]]], dtype=torch.float64)
    token = torch.zeros(1, 1, dtype=torch.int64)
    # uniform: Q = [[0.9, 0.1], [0.1, 0.9]], p(z) = (0.74, 0.26)
    transition, readout = diffusion.elbo_terms(logits, token, 0.2, "uniform")
    assert transition.item() == pytest.approx(
        0.9 * math.log(0.9 / 0.74) + 0.1 * math.log(0.1 / 0.26), rel=1e-12
    )
    assert readout.item() == pytest.approx(
        -0.9 * math.log(0.72 / 0.74) - 0.1 * math.log(0.08 / 0.26), rel=1e-12
    )
    transition, readout = diffusion.elbo_terms(logits, token, 0.2, "absorb")
    assert transition.item() == pytest.approx(-0.8 * math.log(0.8), rel=1e-12)
    assert readout.item() == pytest.approx(-0.2 * math.log(0.8), rel=1e-12)


@pytest.mark.parametrize("name", NOISY)
def test_elbo_bounds_the_likelihood_of_an_enumerable_ladder(name):
    """Catches a sum of terms that is no bound on -log p(x): every corrupted first token of a
    two-scale ladder is counted."""
    oracle, labels = Oracle(), torch.zeros(1, dtype=torch.int64)
    sequences = torch.tensor(oracle.sequences())
    for eps in (0.0, 0.3, 1.0):
        Q_VS = diffusion.transition_matrix(oracle.V, eps, name)
        for tokens_L in sequences[:: len(sequences) // 12]:
            weights = Q_VS[tokens_L[0]]
            elbo, likelihood = 0.0, 0.0
            for z, weight in enumerate(weights.tolist()):
                noisy_BL = tokens_L.clone()[None]
                noisy_BL[0, 0] = z  # of the second scale no state is read
                logits_BLV = diffusion.markov_logits(
                    oracle.denoise, oracle.ladder, noisy_BL, labels
                )
                terms = (
                    sum(diffusion.elbo_terms(logits_BLV, tokens_L[None], eps, name)).sum().item()
                )
                log_p = logits_BLV.log_softmax(-1)[0, torch.arange(5), tokens_L].sum().item()
                elbo += weight * terms
                likelihood += weight * math.exp(log_p)
            assert elbo >= -math.log(likelihood) - 1e-12
            if eps == 0.0:
                assert elbo == pytest.approx(
                    -math.log(oracle.joint(0)[oracle.index(tokens_L[None])[0]]), rel=1e-12
                )


# ---------------------------------------------------------------- a model as the reverse process


def test_markov_view_is_the_model_only_without_history(make_model, make_ladder):
    """Catches a cache that carries the past into a "Markov" path, and a view that changes a model
    that is Markov already."""
    ladder = make_ladder(ScaleSchedule((1, 2, 3)))
    ladder.quantizer.double()
    tokens, labels = torch.randint(7, (3, 14), generator=generator("view")), torch.tensor([0, 1, 2])
    for history, equal in ((0, True), (1, False), (None, False)):
        model = make_model(history=history).double()
        with torch.no_grad():
            logits = model(ladder.teacher_forced_inputs(tokens), labels)
            view = diffusion.markov_view(model)
            found = diffusion.markov_logits(view.denoiser(), ladder, tokens, labels)
        assert found.dtype == torch.float64
        gap = (found - logits).abs().max() / logits.abs().max()
        assert gap < 1e-13 if equal else gap > 1e-3


def test_second_path_takes_the_second_nearest_code_and_repairs(make_ladder):
    """Catches a second path that is the first one, or one that does not aim at the same latent."""
    schedule = ScaleSchedule((1, 2, 4))
    ladder = make_ladder(schedule)
    latent = torch.randn(5, 4, 4, 4, generator=generator("latent"))
    with torch.no_grad():
        tokens, _ = ladder.encode(latent)
        for at in range(3):
            other = diffusion.second_path(ladder, latent, tokens, at)
            where = schedule.slices[at]
            assert torch.equal(other[:, : where.start], tokens[:, : where.start])
            before = [ladder.empty_state(5), *ladder.states(tokens)][at]
            rest = ladder.read_scale(latent - before, at)
            distance = (rest[:, :, None] - ladder.quantizer.codebook_VC).square().sum(-1)
            assert torch.equal(other[:, where], distance.argsort(-1)[..., 1])
            if at < 2:  # what follows is the nearest code of the rest that this path leaves
                after = list(ladder.states(other))[at]
                rest = ladder.read_scale(latent - after, at + 1)
                assert torch.equal(
                    other[:, schedule.slices[at + 1]], ladder.quantizer.nearest_code(rest)
                )


def test_kl_of_logits_against_its_definition():
    """Catches swapped arguments, and a KL that is not 0 for equal logits."""
    first, second = torch.tensor([[[0.0, 1.0, 3.0]]]), torch.tensor([[[1.0, 1.0, 0.5]]])
    p, q = first.double().softmax(-1), second.double().softmax(-1)
    assert diffusion.kl_of_logits(first, second).item() == pytest.approx(
        float((p * (p / q).log()).sum()), rel=1e-12
    )
    assert diffusion.kl_of_logits(first, first).item() == 0.0


# ---------------------------------------------------------------- signal-to-noise ratio


def test_snr_in_closed_form():
    """Catches an amplitude ratio taken for a power ratio, a batch mixed up,
    and a schedule that runs the wrong way."""
    x = torch.randn(3, 2, 4, 4, generator=generator("snr"))
    shares = torch.tensor([0.1, 0.5, 1.0])[:, None, None, None]
    np.testing.assert_allclose(
        diffusion.snr_db(x, x * (1 - shares)), [20.0, 20 * math.log10(2), 0.0], atol=1e-5
    )
    assert torch.isinf(diffusion.snr_db(x, x)).all()
    half = math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert diffusion.snr_cosine(1).item() == pytest.approx(
        10 * math.log10(half / (1 - half)), rel=1e-12
    )
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    steps = [750, 500, 250]  # three times inside (0, 1), noisy to clean
    expected = [10 * math.log10(alpha_bar[n - 1] / (1 - alpha_bar[n - 1])) for n in steps]
    np.testing.assert_allclose(diffusion.snr_linear(3), expected, rtol=1e-10)
    for K in (1, 4, 10, 1200):
        for schedule in (diffusion.snr_cosine, diffusion.snr_linear):
            values = schedule(K)
            assert (
                values.shape == (K,) and torch.isfinite(values).all() and (values.diff() >= 0).all()
            )


# ---------------------------------------------------------------- the verbs


class Quick(Bench):
    """Jobs of the smoke study in this process, its trainings long enough to use what they see."""

    def make(self, stage, mark=""):
        """Run the first job of a stage whose name begins with a mark, and what it reads; returns
        its rows by (metric, scale)."""
        return self.run(self.plan_id(f"{stage}/{mark}"))

    def plan_id(self, beginning):
        return next(run_id for run_id in self.plan.jobs if run_id.startswith(beginning))

    def run(self, run_id):
        out, job = self.root / run_id, self.plan.jobs[run_id]
        if not (out / "row.json").exists():
            for needed in job.inputs.values():
                self.run(needed)
            config = json.loads(json.dumps(job.config))
            if run_id.startswith("tokenizer/"):
                config["tokenizer"]["training"]["steps"] = 30
            if run_id.startswith("train/"):
                config["training"] |= {"steps": 60, "lr": 2e-2, "eval_every": 60}
            verb = {"tokenizer": "train_tokenizer"}.get(run_id.split("/")[0], run_id.split("/")[0])
            words = [
                w
                for role, needed in job.inputs.items()
                for w in (f"--{role}", str(self.root / needed))
            ]
            argv = [
                str(self.write(run_id, config)),
                str(out),
                *words,
                "--device",
                "cpu",
                "--threads",
                "1",
            ]
            with pytest.raises(SystemExit) as end:
                main(
                    verb,
                    importlib.import_module(verbs()[verb].module).work,
                    tuple(job.inputs),
                    argv,
                )
            assert end.value.code == 0
        rows = csv.DictReader((out / "metrics.csv").read_text().splitlines())
        return {(row["metric"], int(row["scale"]) if row["scale"] else None): row for row in rows}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return Quick(tmp_path_factory.mktemp("diffusion"))


def value(rows, metric, scale=None):
    return float(rows[metric, scale]["value"])


def test_equivalence_holds_for_sdd_and_fails_for_var(quick):
    """Catches the claim itself: a "Markov" path that sees more than the state, or a VAR that would
    pass as a chain in f_hat."""
    sdd, var = quick.make("equivalence", "h0"), quick.make("equivalence", "hNone")
    for rows in (sdd, var):
        assert {row["num_images"] for row in rows.values()} == {"8"} and {
            row["train_seed"] for row in rows.values()
        } == {"0"}
        for name, eps, scale in itertools.product(NOISY, ("0", "0.2", "0.7"), (None, 0, 1, 2)):
            parts = [
                value(rows, f"{prefix}_{name}_eps{eps}", scale)
                for prefix in ("elbo_transition", "elbo_readout", "elbo")
            ]
            assert parts[0] + parts[1] == pytest.approx(parts[2], rel=1e-8) and min(parts) >= 0
        assert value(rows, "elbo_relative_gap") == max(
            value(rows, "elbo_relative_gap", k) for k in range(3)
        )
    for k in (None, 0, 1, 2):
        for name in NOISY:
            assert value(sdd, f"elbo_{name}_eps0", k) == pytest.approx(
                value(sdd, "elbo_cross_entropy", k), rel=1e-9
            )
        assert value(sdd, "elbo_relative_gap", k) < 1e-10
    assert value(sdd, "elbo_token_gap") < 1e-10
    assert value(var, "elbo_relative_gap", 0) < 1e-10  # the first scale has no past
    assert value(var, "elbo_relative_gap") > 1e-3
    assert value(sdd, "path_kl_equal_state") == 0.0 and value(var, "path_kl_equal_state") > 1e-6
    assert (
        value(sdd, "path_kl") > 0 and value(sdd, "path_distance") == value(var, "path_distance") > 0
    )
    assert not any(scale in (0, 1) for metric, scale in sdd if metric.startswith("path_"))


def test_equivalence_agrees_with_the_training_report(quick):
    """Catches a cross-entropy of other tokens, labels or weights than those that training reports
    on the same images."""
    job = quick.plan.jobs[quick.plan_id("equivalence/h0")]
    every = {"eps": [0.0], "corruptions": ["none"], "num_images": 10**6}
    whole = replace(job, config=job.config | {"equivalence": every}, slug="whole")
    quick.plan.jobs[whole.run_id] = whole
    rows, trained = quick.run(whole.run_id), quick.make("train", "h0")
    assert value(rows, "elbo_cross_entropy") == pytest.approx(
        value(trained, "kept_loss_test"), rel=1e-5
    )


def test_snr_of_a_schedule(quick):
    """Catches quantiles in the wrong order, a scale too few,
    and a diffusion schedule of another length."""
    rows = quick.make("snr", "1.2.4")
    for k in range(3):
        for name in ("latent", "pixel"):
            low, mean, high = (
                value(rows, f"snr_{name}_db{end}", k) for end in ("_q10", "", "_q90")
            )
            assert low <= mean <= high and rows[f"snr_{name}_db", k]["num_images"] == "40"
        assert value(rows, "snr_cosine_db", k) == pytest.approx(
            diffusion.snr_cosine(3)[k].item(), rel=1e-8
        )
    assert ("snr_latent_db", 3) not in rows
    assert rows["snr_latent_db", 0]["model"] == "1.2.4" and rows["snr_latent_db", 0]["unit"] == "dB"
    # the last value, again from the tokenizer itself
    jobs = {
        run_id.split("/")[0]: run_id
        for run_id in quick.plan.jobs[quick.plan_id("snr/1.2.4")].inputs.values()
    }
    tokenizer = load_tokenizer(quick.root / jobs["tokenizer"] / "tokenizer.safetensors")
    test = open_split(quick.root / jobs["prepare"], "test")
    images = to_float(test.read(in_shares(test.labels_N, 40)))
    with torch.no_grad():
        again = tokenizer.decode(tokenizer.encode(images))
    ratio = images.square().sum((1, 2, 3)) / (images - again).square().sum((1, 2, 3))
    assert value(rows, "snr_pixel_db", 2) == pytest.approx(
        (10 * ratio.log10()).mean().item(), rel=1e-4
    )


@pytest.mark.parametrize(
    "gaps, missing, word",
    [
        ({"SDD": [1e-16, 0.0, 0.0], "VAR": [0.1, 0.2, 0.2]}, {}, "yes"),
        ({"SDD": [1e-16, 0.0, 1e-9], "VAR": [0.1, 0.2, 0.2]}, {}, "no"),
        ({"SDD": [1e-16, 0.0, 0.0], "VAR": [0.1, 1e-4, 0.2]}, {}, "no"),
        ({"SDD": [1e-16, 0.0], "VAR": [0.1, 0.2]}, {}, "not decided"),
        ({"SDD": [1e-16], "VAR": [0.1, 0.2]}, {"SDD": {1: "oom"}}, "not decided"),
        ({"SDD": [1e-16, 0.0], "VAR": []}, {"VAR": {0: "not run", 1: "not run"}}, "not decided"),
    ],
)
def test_rule_of_equality(gaps, missing, word):
    """Catches a claim that is confirmed by a mean, by one good seed,
    or by seeds that are not there."""
    results = SimpleNamespace(
        of=lambda variant, suite, metric, seeds: pd.Series(gaps[variant], dtype=float),
        missing=lambda variant, suite, metric, along: missing.get(variant, {}),
    )
    found, reason = judge_equal(
        View(results, "equivalence"),
        {"variant": "SDD", "against": "VAR", "metric": "elbo_relative_gap"},
    )
    assert found == word and "SDD" in reason and "VAR" in reason
    assert all(why in reason for seeds in missing.values() for why in seeds.values())


@pytest.mark.filterwarnings("error")
def test_no_noise_alone_has_a_figure(tmp_path):
    """Catches an axis from 0 to 0 where `eps: [0.0]`, the smallest list of noises, is asked."""
    head = {"study": "x", "model": "m-0", "train_seed": 0, "run_id": "sample/v0-0", "value": 2.0}
    names = ("elbo", "elbo_transition", "elbo_readout")
    results = Results.load(build(tmp_path, ["SDD"]))
    names_of = results.variants("s")["SDD"]
    head |= {"model": names_of["model"], "tokenizer": names_of["tokenizer"]}
    rows = [{**head, "metric": f"{name}_uniform_eps0"} for name in names]
    results.metrics = pd.concat([results.metrics, pd.DataFrame(rows)], ignore_index=True)
    results.about["suites"]["s"]["equivalence"] = {
        "eps": [0.0], "corruptions": ["uniform"], "draws": 1,
    }  # fmt: skip
    figure, _ = figure_equivalence(View(results, "s"))
    assert figure.axes[0].get_xlim() == (-0.04, 1.32) and len(figure.axes[0].lines) == 3
    assert figure.axes[1].get_xlim() == (-0.04, 1.32)
    assert figure.axes[3].texts[0].get_text().split() == "no trained model was asked".split()
    names_of["patch_nums"] = [1, 4]
    figure, _ = figure_equivalence(View(results, "s"))
    assert "no schedule has one" in " ".join(figure.axes[3].texts[0].get_text().split())
    plt.close("all")
