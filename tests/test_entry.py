"""What `generate` is asked for and draws from: one ValueError for each thing that cannot be, and
the calls that were made."""

import json
import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.experiments.latency import verb as latency
from bench.pipeline import floors
from bench.pipeline.floors import Rates
from bench.runtime.rows import METRIC_COLUMNS, read_rows
from bench.runtime.verb import main
from srdd import sampling
from srdd.config import SamplerConfig
from srdd.cost import dry_run, sampling_bytes, sampling_cost
from srdd.draw import distribution, draw_tokens
from srdd.loss import usage_entropy
from srdd.noise import generator
from srdd.sampling import Known, generate
from srdd.schedule import ScaleSchedule
from srdd.watch import Calls, Watched
from srdd.zero_shot import replace_tokens

SCHEDULE = ScaleSchedule((1, 2, 3))
ONE = torch.tensor([0])
VAR = SamplerConfig()

# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    "labels, words",
    [
        ([3], r"label 3: must be 0 ... 2 \(3 classes, counted from 0; `no class` is no label\)"),
        ([0, 4], "label 4"),
        ([-1, 0], "label -1"),
        ([], "none given; ask for at least one image"),
        ([[0]], r"int64 of shape \(1, 1\): must be int64 of shape \(B,\)"),
        ([0.0], "float32"),
        ([True], "bool"),
    ],
)
def test_labels_that_are_none(make_model, make_ladder, labels, words):
    """Catches classes counted from 1, of which the last silently means no class, and an index error
    or a stack of nothing."""
    labels_B = torch.tensor(labels, dtype=torch.long) if not labels else torch.tensor(labels)
    with pytest.raises(ValueError, match=words):
        generate(make_model(), make_ladder(SCHEDULE), labels_B, range(len(labels)), VAR)
    with pytest.raises(ValueError, match="labels: list"):
        generate(make_model(), make_ladder(SCHEDULE), labels, range(len(labels)), VAR)


def test_a_model_without_classes_has_one_label(make_model, make_ladder):
    """Catches a label that an unconditional model has no row for, and a check that refuses the one
    it has."""
    model, ladder = make_model(num_classes=0), make_ladder(SCHEDULE)
    assert generate(model, ladder, ONE, [0], VAR)[0].shape == (1, 14)
    with pytest.raises(ValueError, match="label 1: must be 0 ... 0 .the model knows no classes"):
        generate(model, ladder, ONE + 1, [0], VAR)


@pytest.mark.parametrize(
    "seeds, words",
    [([0, 1], "2 seeds for 1 labels"), ([0.5], r"seeds \[0.5\]: must be whole"), (["0"], "seeds")],
)
def test_seeds_are_whole_numbers(make_model, make_ladder, seeds, words):
    """Catches a fraction that is cut off: two seeds that draw one image."""
    with pytest.raises(ValueError, match=words):
        generate(make_model(), make_ladder(SCHEDULE), ONE, seeds, VAR)


@pytest.mark.parametrize("sides", [(1, 2), (1, 3), (1, 2, 3, 4), (3,)])
def test_a_ladder_of_another_schedule(make_model, make_ladder, sides):
    """Catches five tokens of a model of fourteen, without a word."""
    with pytest.raises(ValueError, match=r"ladder of patch_nums .*the model's are \[1, 2, 3\]"):
        generate(make_model(), make_ladder(ScaleSchedule(sides)), ONE, [0], VAR)


@pytest.mark.parametrize("sizes", [(9, 4), (6, 4), (7, 5)])
def test_a_ladder_of_another_codebook(make_model, make_ladder, sizes):
    """Catches images of codes that the model never meant."""
    with pytest.raises(
        ValueError,
        match=f"ladder of {sizes[0]} codes of {sizes[1]} channels: the model's have 7 of 4",
    ):
        generate(make_model(), make_ladder(SCHEDULE, *sizes), ONE, [0], VAR)


def test_labels_on_another_device(make_model, make_ladder):
    """Catches a RuntimeError of torch from deep inside."""
    with pytest.raises(ValueError, match="several devices .cpu, meta.; use one"):
        generate(make_model().to("meta"), make_ladder(SCHEDULE), ONE, [0], VAR)


@pytest.mark.parametrize(
    "tokens, mask, words",
    [
        (torch.full((1, 14), 7), torch.ones(1, 14, dtype=torch.bool), "must be codes, 0 ... 6"),
        (torch.full((1, 14), -1), torch.ones(1, 14, dtype=torch.bool), "must be codes"),
        (torch.zeros(1, 14), torch.ones(1, 14, dtype=torch.bool), "torch.float32"),
        (torch.zeros(1, 14, dtype=torch.long), torch.ones(1, 14), "torch.float32"),
        ([[0] * 14], torch.ones(1, 14, dtype=torch.bool), "known tokens list"),
    ],
)
def test_known_tokens_that_are_none(make_model, make_ladder, tokens, mask, words):
    """Catches known tokens outside of the codebook (an IndexError) or of another kind; where the
    mask is False they are not read."""
    with pytest.raises(ValueError, match=words):
        generate(make_model(), make_ladder(SCHEDULE), ONE, [0], VAR, Known(tokens, mask))
    nothing = Known(torch.full((1, 14), -1), torch.zeros(1, 14, dtype=torch.bool))
    plain = generate(make_model(), make_ladder(SCHEDULE), ONE, [0], VAR)
    assert torch.equal(
        generate(make_model(), make_ladder(SCHEDULE), ONE, [0], VAR, nothing)[0], plain[0]
    )


# ---------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("settings", [{}, {"cfg_scale": 2.0}, {"name": "srdd", "refine_steps": 1}])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name", ["head.weight", "position", "blocks.1.mlp_out.bias", "class_embedding.weight"]
)
def test_weights_that_are_no_numbers(make_model, make_ladder, settings, value, name):
    """Catches the last code at every place, drawn from logits that are NaN."""
    model = make_model(mask_prob=0.5)
    with torch.no_grad():
        model.get_parameter(name).flatten()[0] = value
    with pytest.raises(
        ValueError, match="logits of scale 0 are not finite numbers: .*load or train them again"
    ):
        generate(model, make_ladder(SCHEDULE), ONE, [0], SamplerConfig(**settings))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_codes_that_are_no_numbers(make_model, make_ladder, value):
    """Catches an image of NaN: where the last scale alone draws the broken code, no logit shows
    it."""
    ladder = make_ladder(SCHEDULE)
    with torch.no_grad():
        ladder.quantizer.codebook_VC[3, 0] = value
    known = Known(torch.full((1, 14), 3), torch.arange(14)[None] == 13)
    with pytest.raises(
        ValueError, match="sample_var: gives a state f_hat with NaN or inf|logits of scale"
    ):
        generate(make_model(), ladder, ONE, [0], VAR, known)


@pytest.mark.parametrize("temperature", [1e-40, 2e-39, 1e-300])
def test_a_temperature_that_makes_logits_infinite(make_model, make_ladder, temperature):
    """Catches a legal temperature at which every token is the last code; a small one that fits
    draws the likeliest."""
    model, ladder = make_model(), make_ladder(SCHEDULE)
    with pytest.raises(ValueError, match="temperature"):
        SamplerConfig(temperature=temperature)
    unchecked = SamplerConfig().model_copy(update={"temperature": temperature})
    with pytest.raises(ValueError, match="temperature .* infinite; raise it"):
        generate(model, ladder, ONE, [0], unchecked)
    with pytest.raises(
        ValueError, match="temperature 0.001: makes logits of scale 0 infinite; raise"
    ):
        large = make_model()
        large.head.weight.data *= 1e36
        generate(large, ladder, ONE, [0], SamplerConfig(temperature=0.001))
    cold = generate(model, ladder, ONE, [0], SamplerConfig(temperature=0.001))[0]
    assert torch.equal(cold, generate(model, ladder, ONE, [0], SamplerConfig(top_k=1))[0])


@given(st.floats(-310, 3), st.floats(-3, 25))
def test_what_is_let_through_is_a_distribution(log_temperature, log_peak):
    """Catches a bound on logits over temperature that lets a NaN through: `Watched` and
    `distribution` must agree."""
    temperature, peak = 10.0**log_temperature, 10.0**log_peak
    logits_BlV = torch.linspace(-peak, peak, 7).expand(1, 1, 7)
    denoise = Watched(lambda *asked: logits_BlV, SCHEDULE, 4, "x", temperature)
    try:
        denoise(torch.zeros(1, 1, 4), 0, ONE)
        denoise.check()
    except ValueError:
        return
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    assert distribution(logits_BlV, temperature).draw(half)[1].isfinite().all()


HALF = torch.full((1, 3), 0.5, dtype=torch.float64)
LOGITS = torch.randn(1, 3, 7, generator=generator("logits"))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_k": -1}, "top_k -1: must be 1 or more"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"top_p": 1.5}, "top_p 1.5: must be above 0 and at most 1"),
        ({"top_p": math.nan}, "top_p nan"),
    ],
)
def test_a_draw_with_settings_that_are_not_legal(settings, words):
    """Catches a draw that answers where there is no answer."""
    for call in (
        lambda: draw_tokens(LOGITS, HALF, **settings),
        lambda: distribution(LOGITS, **settings),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x, u: (torch.full_like(x, -math.inf), u), "-inf at every code"),
        (lambda x, u: (x.index_fill(-1, torch.tensor(2), math.nan), u), "NaN"),
        (lambda x, u: (x.index_fill(-1, torch.tensor(2), math.inf), u), "inf"),
        (lambda x, u: (x, u + 0.5), "below 1"),
        (lambda x, u: (x, u - 1), "at least 0"),
        (lambda x, u: (x, u * math.nan), "uniform"),
        (lambda x, u: (x, u[:, :2]), r"\(1, 2\): must be \(1, 3\)"),
    ],
)
def test_a_draw_from_what_is_no_distribution(change, words):
    """Catches the last code drawn from nothing, and numbers outside [0, 1) that pick the first or
    last code."""
    with pytest.raises(ValueError, match=words):
        draw_tokens(*change(LOGITS, HALF))
    lost = LOGITS.index_fill(-1, torch.tensor(2), -math.inf)  # a code that is ruled out is legal
    assert (draw_tokens(lost, HALF) != 2).all()


# ---------------------------------------------------------------- calls are counted


def sample_thrice(denoise, ladder, labels_B, noise, config, known=None):
    """Three calls a scale, the last of which counts."""
    f_hat_BChw, tokens = ladder.empty_state(len(labels_B)), []
    for k, where in enumerate(ladder.schedule.slices):
        for _ in range(3):
            logits_BlV = denoise(ladder.read_scale(f_hat_BChw, k), k, labels_B)
        tokens.append(draw_tokens(logits_BlV, noise.uniform(where.stop - where.start)))
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(tokens[-1]), k)
    return torch.cat(tokens, 1), f_hat_BChw


def sample_until(denoise, ladder, labels_B, noise, config, known=None):
    """Asks again for the images of class 0 alone: what is drawn decides how many calls there
    are."""
    f_hat_BChw, tokens, again = ladder.empty_state(len(labels_B)), [], labels_B == 0
    for k in range(ladder.schedule.num_scales):
        logits_BlV = denoise(ladder.read_scale(f_hat_BChw, k), k, labels_B)
        if again.any() and k:
            logits_BlV[again] = denoise(ladder.read_scale(f_hat_BChw[again], k), k, labels_B[again])
        tokens.append(logits_BlV.argmax(-1))
        f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(tokens[-1]), k)
    return torch.cat(tokens, 1), f_hat_BChw


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(sampling, "sample_thrice", sample_thrice, raising=False)
    monkeypatch.setattr(sampling, "sample_until", sample_until, raising=False)


def test_nine_calls_are_nine(own, make_model, make_ladder, model_config):
    """Catches calls of a sampler of one's own that are taken for one a scale: in the dry run, and
    where images are drawn."""
    plain, cost = (
        sampling_cost(model_config(), VAR),
        sampling_cost(model_config(), SamplerConfig(name="thrice")),
    )
    assert (plain.nfe, cost.nfe, cost.token_evals) == (3, 9, 3 * plain.token_evals)
    refined = sampling_cost(model_config(mask_prob=0.5), SamplerConfig(name="srdd", refine_steps=2))
    assert cost.by_scale == refined.by_scale, "two more passes a scale, however they came about"
    guided = sampling_cost(model_config(), SamplerConfig(name="thrice", cfg_scale=2.0))
    assert guided.nfe == 18
    config = SamplerConfig(name="thrice", refine_steps=5, cfg_scale=2.0)
    calls = Calls()
    generate(
        make_model(), make_ladder(SCHEDULE), torch.tensor([0, 1, 2]), range(3), config, calls=calls
    )
    assert (calls.batches, calls.images, calls.calls, calls.rows) == (
        1,
        3,
        dict.fromkeys(range(3), 3),
        dict.fromkeys(range(3), 9),
    )
    assert sampling_cost(model_config(), config, calls).nfe == 18
    thrice, once = (
        sampling_bytes(model_config(), SamplerConfig(name="thrice"), 2),
        sampling_bytes(model_config(), VAR, 2),
    )
    assert all(a > b for a, b in zip(thrice, once))


def test_calls_that_depend_on_what_is_drawn_are_a_mean(own, make_model, make_ladder, model_config):
    """Catches the dry run's calls reported of images that took others: one image of four is asked
    for again at two scales of three."""
    calls, config = Calls(), SamplerConfig(name="until")
    model = make_model(history=0)
    for labels in ([0, 1], [1, 2]):
        generate(model, make_ladder(SCHEDULE), torch.tensor(labels), [5, 6], config, calls=calls)
    assert (calls.batches, calls.images, calls.rows) == (2, 4, {0: 4, 1: 5, 2: 5})
    cost = sampling_cost(model.config, config, calls)
    assert [row[0] for row in cost.by_scale] == [1, 1.25, 1.25]
    once = sampling_cost(model.config, VAR)
    assert cost.by_scale[1] == (1.25, 5.0, 1.25 * once.by_scale[1][2])
    assert isinstance(cost.by_scale[0][2], int) and cost.nfe == 3.5
    assert Calls.of_table(calls.table(3) + calls.table(3)).images == 8


@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([None, (), (0, 2)]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([None, 0]),
)
def test_counted_calls_of_the_samplers_here_are_those_of_their_settings(
    make_model, make_ladder, batch, passes, scales, w, history
):
    """Catches a count that differs with the batch where no call may be left out, and a dry run that
    is not the most: calls are refine_steps + 1 at refined scales."""
    config = SamplerConfig(name="srdd", refine_steps=passes, refine_scales=scales, cfg_scale=w)
    model, calls = make_model(mask_prob=0.5, history=history), Calls()
    for first in (0, batch):
        generate(
            model,
            make_ladder(SCHEDULE),
            torch.zeros(batch, dtype=torch.long),
            range(first, first + batch),
            config,
            calls=calls,
        )
    most = dry_run(model.config, config)
    assert list(most.per_image(3)) == [config.passes(k, n) for k, n in enumerate((1, 4, 9))]
    if history == 0:  # an early exit makes fewer
        assert all(a <= b for a, b in zip(calls.per_image(3), most.per_image(3)))
        return
    assert most.per_image(3) == calls.per_image(3)
    assert sampling_bytes(model.config, config, batch, 4, calls) == sampling_bytes(
        model.config, config, batch
    )


def test_latency_counts_the_calls_of_its_own_draws(
    own, tmp_path, monkeypatch, tokenizer_config, model_config
):
    """Catches floors and costs of one call a scale beside times of three."""
    monkeypatch.setattr(floors, "COPIED_BYTES", {"cpu": 2**16})
    monkeypatch.setattr(latency, "measure_rates", lambda device, dtype, repeats: Rates(1e9, 1e10))
    entries = {
        name: {
            "identity": {"model": "m", "sampler": name},
            "tokenizer": tokenizer_config(patch_nums=(1, 2, 3), image_size=6).model_dump(),
            "model": model_config().model_dump(),
            "sampler": SamplerConfig(name=name).model_dump(),
        }
        for name in ("var", "thrice")
    }
    about = {
        "run_id": "latency/t-1",
        "study": "t",
        "config": {"latency": {"batch_sizes": [2], "rounds": 2}, "variants": entries},
    }
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(SystemExit) as left:
        main(
            "latency",
            latency.work,
            argv=[str(tmp_path / "config.json"), str(tmp_path / "out"), "--device", "cpu"],
        )
    assert left.value.code == 0
    rows = pd.DataFrame(read_rows(tmp_path / "out" / "metrics.csv", METRIC_COLUMNS))
    found = {
        key: float(value)
        for key, value in rows.set_index(["metric", "sampler"])["value"].items()
        if key[0] in ("nfe", "floor_memory_s")
    }
    assert (found["nfe", "var"], found["nfe", "thrice"]) == (3, 9)
    moved = sum(sampling_bytes(model_config(), SamplerConfig(name="thrice"), 2))
    assert found["floor_memory_s", "thrice"] == pytest.approx(moved / 1e9)


def test_probabilities_of_draws_are_those_of_samplers_that_draw_once(own):
    """Catches drawn probabilities of a sampler of one's own, which may draw from any distribution,
    in a sweep."""
    assert VAR.draws_once and SamplerConfig(name="srdd").draws_once
    assert (
        not SamplerConfig(name="srdd", sr_steps=1).draws_once
        and not SamplerConfig(name="srdd", refine_steps=1).draws_once
    )
    assert not SamplerConfig(name="thrice").draws_once


def test_one_code_has_no_other():
    """Catches a NaN or a RuntimeError of torch where a codebook of one code cannot do what is
    asked."""
    with pytest.raises(ValueError, match="usage needs 2 or more"):
        usage_entropy(torch.randn(2, 3, 4), torch.randn(1, 4))
    with pytest.raises(ValueError, match="no other code"):
        replace_tokens(torch.zeros(1, 5, dtype=torch.long), ScaleSchedule((1, 2)), 1, 0.5, [0], 1)
