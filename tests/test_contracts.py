"""Functions of one's own: what they return is checked once, where they are called, by one line that
names the function."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.study.names import canonical_sampler
from srdd import corruption, guidance, sampling
from srdd import select as rules
from srdd.config import SamplerConfig
from srdd.corruption import corrupted
from srdd.draw import draw_tokens
from srdd.guidance import guidance_weights
from srdd.lookup import BUILT_IN, PLACES, is_own, names_in
from srdd.noise import generator
from srdd.sampling import Known, generate
from srdd.schedule import ScaleSchedule

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "tests" / "studies" / "smoke.yaml"
SCHEDULE = ScaleSchedule((1, 2, 3))
V, NAN = 7, float("nan")


def add(monkeypatch, module, prefix, function):
    monkeypatch.setattr(module, f"{prefix}_mine", function, raising=False)


# ---------------------------------------------------------------- names


def test_what_is_built_in_exists():
    """Catches a name that is called built in, and so goes unchecked, but is none; and a function
    that is called one's own."""
    for prefix, names in BUILT_IN.items():
        assert set(names) <= set(names_in(ROOT / PLACES[prefix], prefix))
        assert (
            not any(is_own(prefix, name) for name in names)
            and is_own(prefix, "mine")
            and not is_own(prefix, None)
        )


def test_a_file_that_is_no_python_is_named(tmp_path):
    """Catches the traceback of a planner that reads a user's half-written file."""
    (tmp_path / "masks.py").write_text("def mask_a(schedule):\n    return (\n")
    with pytest.raises(ValueError, match=r"masks.py: line 2: .*"):
        names_in(tmp_path / "masks.py", "mask")


# ---------------------------------------------------------------- ramps


@pytest.mark.parametrize(
    "value", [NAN, float("inf"), -0.5, None, "two", torch.ones(2), torch.tensor(NAN)]
)
def test_a_ramp_gives_numbers(monkeypatch, value):
    """Catches a weight that makes every logit NaN, or that pushes away from the class."""
    add(
        monkeypatch,
        guidance,
        "ramp",
        lambda cfg_scale, k, num_scales: cfg_scale if k < 2 else value,
    )
    with pytest.raises(
        ValueError, match=r"^srdd/guidance.py: ramp_mine: gives .* at scale 2; .* 0 or more"
    ):
        guidance_weights(2.0, "mine", 3)


def test_no_ramp_is_asked_where_guidance_is_off(monkeypatch):
    """Catches a ramp that guides at cfg_scale 1, where a study calls the ramp idle and a model
    without class dropout is let through."""
    add(monkeypatch, guidance, "ramp", lambda cfg_scale, k, num_scales: 3.0)
    assert guidance_weights(1.0, "mine", 3) == [1.0] * 3
    assert guidance_weights(2.0, "mine", 3) == [3.0] * 3
    with pytest.raises(ValueError, match="cfg_scale nan"):
        guidance_weights(NAN, "linear", 3)


# ---------------------------------------------------------------- corruption

BROKEN_CORRUPTIONS = {
    "dtype": (lambda t, eps, V, g: t.int(), "gives int32"),
    "floats": (lambda t, eps, V, g: t.float(), "gives float32"),
    "shape": (
        lambda t, eps, V, g: t[:, :3],
        r"gives int64 of shape \(2, 3\); must be int64 of shape \(2, 14\)",
    ),
    "above": (
        lambda t, eps, V, g: torch.full_like(t, V + 1),
        r"gives tokens 8 ... 8; must be 0 ... 7",
    ),
    "below": (lambda t, eps, V, g: torch.full_like(t, -1), r"gives tokens -1"),
    "in place": (lambda t, eps, V, g: t.fill_(V), "changes the tokens that it is given"),
    "nothing": (lambda t, eps, V, g: None, "gives NoneType"),
}


@pytest.mark.parametrize("case", BROKEN_CORRUPTIONS)
def test_a_corruption_gives_tokens(monkeypatch, case):
    """Catches tokens that are silently nothing (above V) or an IndexError (below 0), and targets
    that are corrupted with the inputs."""
    function, words = BROKEN_CORRUPTIONS[case]
    add(monkeypatch, corruption, "corrupt", function)
    tokens_BL = torch.randint(V, (2, 14), generator=generator("tokens"))
    with pytest.raises(ValueError, match=f"^srdd/corruption.py: corrupt_mine: {words}"):
        corrupted("mine", tokens_BL, 0.5, V, generator("x"))


@pytest.mark.parametrize("name", BUILT_IN["corrupt"])
def test_a_corruption_by_name_is_the_function_itself(name):
    """Catches a contract that changes what a function returns."""
    tokens_BL = torch.randint(V, (2, 14), generator=generator("tokens"))
    found = corrupted(name, tokens_BL, 0.5, V, generator("x"))
    assert torch.equal(
        found, getattr(corruption, f"corrupt_{name}")(tokens_BL, 0.5, V, generator("x"))
    )


# ---------------------------------------------------------------- rules and samplers

BROKEN_RULES = {
    "floats": (lambda d, u, c: u, "gives float64"),
    "shape": (
        lambda d, u, c: d.fixed_Bl[:1],
        r"gives bool of shape \(1, 1\); must be bool of shape \(2, 1\)",
    ),
    "known": (lambda d, u, c: torch.ones_like(d.fixed_Bl), "redraws known tokens"),
    "nothing": (lambda d, u, c: None, "gives NoneType"),
}


@pytest.mark.parametrize("case", BROKEN_RULES)
def test_a_rule_says_which_tokens(monkeypatch, make_model, make_ladder, case):
    """Catches a rule that redraws what is known, or whose probabilities are taken for a mask."""
    function, words = BROKEN_RULES[case]
    add(monkeypatch, rules, "select", function)
    known = Known(torch.zeros(2, 14, dtype=torch.long), torch.arange(14).expand(2, 14) % 2 == 0)
    config = SamplerConfig(name="srdd", refine_steps=1, select="mine")
    with pytest.raises(ValueError, match=f"^srdd/select.py: select_mine: .*{words}"):
        generate(
            make_model(mask_prob=0.5),
            make_ladder(SCHEDULE),
            torch.tensor([0, 1]),
            [0, 1],
            config,
            known,
        )


BROKEN_CONFIDENCES = {
    "no tensor": (lambda drawn: 0.5, "gives float; must be floats of shape"),
    "whole numbers": (lambda drawn: drawn.tokens_Bl, "gives int64"),
    "one an image": (lambda drawn: drawn.peak_Bl.amax(-1), r"must be floats of shape \(2, 1\)"),
    "logarithm of 0": (lambda drawn: (drawn.peak_Bl - drawn.peak_Bl).log(), "gives NaN or inf"),
    "in place": (lambda drawn: drawn.peak_Bl.neg_(), "changes peak_Bl in place"),
}


@pytest.mark.parametrize("case", BROKEN_CONFIDENCES)
def test_a_confidence_ranks_every_position(monkeypatch, make_model, make_ladder, case):
    """Catches a confidence that ranks images, or has no value, and a rule that then commits by the
    order of NaN."""
    function, words = BROKEN_CONFIDENCES[case]
    add(monkeypatch, rules, "confidence", function)
    rule = {"name": "lowest", "confidence": "mine"}
    config = SamplerConfig(name="srdd", refine_steps=1, select=rule)
    asked = make_model(mask_prob=0.5), make_ladder(SCHEDULE), torch.tensor([0, 1]), [0, 1], config
    with pytest.raises(ValueError, match=f"^srdd/select.py: confidence_mine: .*{words}"):
        generate(*asked)


def test_a_confidence_of_ones_own_is_what_a_rule_ranks_by(monkeypatch, make_model, make_ladder):
    """Catches a name that is looked up and not used: the peak under another name, and its
    opposite."""
    model, ladder, labels = make_model(mask_prob=0.5), make_ladder(SCHEDULE), torch.tensor([0, 1])
    config = SamplerConfig(name="srdd", refine_steps=2, select="static")
    plain, _ = generate(model, ladder, labels, [0, 1], config)
    rule = {"name": "static", "confidence": "mine"}
    mine = SamplerConfig(name="srdd", refine_steps=2, select=rule)
    for sign in (1, -1):
        add(monkeypatch, rules, "confidence", lambda drawn, sign=sign: sign * drawn.peak_Bl)
        found, _ = generate(model, ladder, labels, [0, 1], mine)
        assert torch.equal(found, plain) == (sign == 1)


def sampler_of(change=lambda tokens, state: (tokens, state), calls=1):
    """A sampler of one's own: VAR's, which calls so many times a scale and may change what it
    returns."""

    def sample(denoise, ladder, labels_B, noise, config, known=None):
        f_hat_BChw, tokens = ladder.empty_state(len(labels_B)), []
        for k, where in enumerate(ladder.schedule.slices):
            for _ in range(calls):
                logits_BlV = denoise(ladder.read_scale(f_hat_BChw, k), k, labels_B)
            drawn_Bl = draw_tokens(
                logits_BlV, noise.uniform(where.stop - where.start), config.temperature
            )
            drawn_Bl = drawn_Bl if known is None else known.put_into(drawn_Bl, where)
            f_hat_BChw = ladder.add_scale(f_hat_BChw, ladder.quantizer.embed(drawn_Bl), k)
            tokens.append(drawn_Bl)
        return change(torch.cat(tokens, 1), f_hat_BChw)

    return sample


BROKEN_SAMPLERS = {
    "tokens alone": (lambda t, f: t, "must be the pair"),
    "int32": (lambda t, f: (t.int(), f), "gives tokens int32"),
    "a scale less": (lambda t, f: (t[:, :5], f), r"gives tokens int64 of shape \(2, 5\)"),
    "above": (lambda t, f: (t + V, f), "no codes; must be 0 ... 6"),
    "below": (lambda t, f: (t - 8, f), "no codes"),
    "state of another size": (
        lambda t, f: (t, f[..., :2]),
        r"gives a state float32 of shape \(2, 4, 3, 2\)",
    ),
    "state of integers": (lambda t, f: (t, f.long()), "gives a state int64"),
    "state of NaN": (lambda t, f: (t, f / 0.0 * 0.0), "state f_hat with NaN"),
    "known lost": (lambda t, f: ((t + 1) % V, f), "does not keep the known tokens"),
}


@pytest.mark.parametrize("case", BROKEN_SAMPLERS)
def test_a_sampler_gives_tokens_and_a_state(monkeypatch, make_model, make_ladder, case):
    """Catches tokens of another kind, range or length, a state that is not one, and known tokens
    that are lost."""
    change, words = BROKEN_SAMPLERS[case]
    add(monkeypatch, sampling, "sample", sampler_of(change))
    known = Known(torch.zeros(2, 14, dtype=torch.long), torch.arange(14).expand(2, 14) < 5)
    with pytest.raises(ValueError, match=f"^srdd/sampling.py: sample_mine: .*{words}"):
        generate(
            make_model(),
            make_ladder(SCHEDULE),
            torch.tensor([0, 1]),
            [0, 1],
            SamplerConfig(name="mine"),
            known,
        )


@pytest.mark.parametrize(
    "inputs, k, own",
    [
        ((2, 4, 4), 0, None),
        ((1, 1, 4), 0, None),
        ((2, 1, 3), 0, None),
        ((2, 1, 4), 3, None),
        ((2, 1, 4), -1, None),
        ((2, 1, 4), 0, (2, 4)),
    ],
)
def test_a_sampler_asks_for_what_there_is(monkeypatch, make_model, make_ladder, inputs, k, own):
    """Catches inputs of another scale, batch or ladder that broadcasting would let through, and
    tokens of another scale."""

    def sample(denoise, ladder, labels_B, noise, config, known=None):
        return denoise(
            torch.zeros(inputs),
            k,
            labels_B,
            *([] if own is None else [torch.zeros(own, dtype=torch.long)]),
        )

    add(monkeypatch, sampling, "sample", sample)
    with pytest.raises(ValueError, match="^srdd/sampling.py: sample_mine: (asks|reveals)"):
        generate(
            make_model(mask_prob=0.5),
            make_ladder(SCHEDULE),
            torch.tensor([0, 1]),
            [0, 1],
            SamplerConfig(name="mine"),
        )


# ---------------------------------------------------------------- settings that are called idle

OTHER = {
    "cfg_ramp": "constant",
    "p_resample": 0.5,
    "select": {"name": "lowest", "resample_fraction": 0.9},
    "refine_scales": (0,),
}


@pytest.mark.parametrize("key", OTHER)
def test_nothing_is_idle_for_functions_of_ones_own(key):
    """Catches a setting that a sampler or rule of one's own reads and never gets: a grid of three
    values that is one."""
    plain = SamplerConfig(name="mine", **{key: OTHER[key]})
    assert SamplerConfig(**canonical_sampler(plain)) == plain
    if key != "select":
        rule = SamplerConfig(name="srdd", refine_steps=1, **{"select": "mine", key: OTHER[key]})
        assert SamplerConfig(**canonical_sampler(rule)) == rule


@given(
    st.sampled_from(["var", "srdd"]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from(BUILT_IN["select"]),
    st.sampled_from([None, (), (1,), (0, 2)]),
    st.floats(0.05, 0.95),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from(BUILT_IN["ramp"]),
)
def test_what_is_called_idle_changes_no_bit(
    make_model, make_ladder, name, mr, sr, select, scales, p, w, ramp
):
    """Catches a setting that is called idle and is read: the images of the canonical settings are
    those of the settings."""
    knobs = SamplerConfig(select=select).select.knobs()
    config = SamplerConfig(
        name=name,
        refine_steps=mr if name == "srdd" else 0,
        sr_steps=sr if name == "srdd" else 0,
        select={"name": select, **({"p_resample": p} if "p_resample" in knobs else {})},
        refine_scales=scales,
        p_resample=p,
        cfg_scale=w,
        cfg_ramp=ramp,
    )
    model, ladder, labels = make_model(mask_prob=0.5), make_ladder(SCHEDULE), torch.tensor([0, 1])
    canonical = SamplerConfig(**canonical_sampler(config))
    images, again = (generate(model, ladder, labels, [3, 4], c)[0] for c in (config, canonical))
    assert torch.equal(images, again)


class Spied:
    """Settings that remember which of them were read."""

    def __init__(self, config):
        self.config, self.read = config, set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self.config, name)


@pytest.mark.parametrize("name", BUILT_IN["select"])
def test_a_rule_reads_its_own_settings_alone(name):
    """Catches a rule that reads a setting of the sampler which its jobs do not get where it is
    called idle."""
    config = SamplerConfig(select=name)
    spied, fixed = Spied(config), torch.zeros(2, 4, dtype=torch.bool)
    numbers = torch.rand(2, 4, generator=generator("rule"))
    drawn = rules.Drawn(
        torch.zeros(2, 4, dtype=torch.long), numbers, numbers, numbers, ~fixed, fixed, 2
    )
    getattr(rules, f"select_{name}")(drawn, numbers, spied, **config.select.knobs())
    assert not spied.read


# ---------------------------------------------------------------- what a function may do


def drawn_by(monkeypatch, make_model, make_ladder, sampler, history=None, known=None, **more):
    add(monkeypatch, sampling, "sample", sampler)
    model = make_model(history=history, **more)
    asked = model, make_ladder(SCHEDULE), torch.tensor([0, 1]), [0, 1], SamplerConfig(name="mine")
    return generate(*asked, known)


CHANGES = {
    "labels_B": lambda ladder, labels_B, known: labels_B.fill_(0),
    "codebook_VC": lambda ladder, labels_B, known: ladder.quantizer.codebook_VC.mul_(1.5),
    "tokens_BL": lambda ladder, labels_B, known: known.tokens_BL.zero_(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_sampler_leaves_what_it_is_given(monkeypatch, make_model, make_ladder, name):
    """Catches labels, codes or known tokens that are changed for all later images and scores."""

    def sample(denoise, ladder, labels_B, noise, config, known=None):
        CHANGES[name](ladder, labels_B, known)
        return sampling.sample_var(denoise, ladder, labels_B, noise, config, known)

    known = Known(torch.ones(2, 14, dtype=torch.long), torch.zeros(2, 14, dtype=torch.bool))
    with pytest.raises(ValueError, match=f"sample_mine: changes {name} in place"):
        drawn_by(monkeypatch, make_model, make_ladder, sample, known=known)


@pytest.mark.parametrize("name", ["tokens_Bl", "fixed_Bl"])
def test_a_rule_leaves_what_it_is_given(monkeypatch, make_model, make_ladder, name):
    """Catches a rule that frees known tokens before its result is held against them."""

    def rule(drawn, uniform_Bl, config):
        getattr(drawn, name).fill_(0)
        return torch.ones_like(drawn.open_Bl)

    add(monkeypatch, rules, "select", rule)
    config = SamplerConfig(name="srdd", refine_steps=1, select="mine")
    asked = make_model(mask_prob=0.5), make_ladder(SCHEDULE), torch.tensor([0, 1]), [0, 1], config
    with pytest.raises(ValueError, match=f"select_mine: changes {name} in place"):
        generate(*asked)


def test_keys_of_earlier_scales_are_not_mixed(monkeypatch, make_model, make_ladder):
    """Catches a sampler that guides by two calls, or asks image by image, of a network that keeps
    keys: the last call's keys would serve all. Where none are kept, both are legal."""

    def two_calls(denoise, labels_B, inputs_BlC, k):
        return denoise(inputs_BlC, k, labels_B) - denoise(inputs_BlC, k, torch.zeros_like(labels_B))

    def one_by_one(denoise, labels_B, inputs_BlC, k):
        rows = range(len(labels_B))
        return torch.cat([denoise(inputs_BlC[i : i + 1], k, labels_B[i : i + 1]) for i in rows])

    for ask, words in ((two_calls, "other labels than before"), (one_by_one, "for 1 of 2 images")):

        def sample(denoise, ladder, labels_B, noise, config, known=None, ask=ask):
            asked = lambda inputs_BlC, k, labels_B: ask(denoise, labels_B, inputs_BlC, k)  # noqa: E731
            return sampling.sample_var(asked, ladder, labels_B, noise, config, known)

        with pytest.raises(ValueError, match=f"sample_mine: asks scale 0 .*{words}"):
            drawn_by(monkeypatch, make_model, make_ladder, sample)
        drawn_by(monkeypatch, make_model, make_ladder, sample, history=0)


def _image_by_image(denoise, ladder, labels_B, noise, config, known=None):
    """VAR's sampler, which asks for one image at a time at every scale."""

    def asked(inputs_BlC, k, labels_B):
        pairs = zip(inputs_BlC.split(1), labels_B.split(1))
        return torch.cat([denoise(image_1lC, k, label_1) for image_1lC, label_1 in pairs])

    return sampling.sample_var(asked, ladder, labels_B, noise, config, known)


KEPT = {
    "detail guidance": ({}, {"detail_scale": 1.0}, "detail_scale 0"),
    "history vector": ({"history_vector": 2}, {}, "history_vector 0"),
    "degraded images": ({"condition": "state", "num_classes": 0}, {}, "condition none"),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_is_kept_of_all_images_serves_none_alone(monkeypatch, make_model, make_ladder, what):
    """Catches an image that is pushed from another's logits, or told another's degraded image, and
    a remedy that is in force already."""
    sizes, settings, remedy = KEPT[what]
    add(monkeypatch, sampling, "sample", _image_by_image)
    model, config = make_model(history=0, **sizes), SamplerConfig(name="mine", **settings)
    degraded_BChw = None if model.condition is None else torch.zeros(2, 4, 3, 3)
    asked = model, make_ladder(SCHEDULE), torch.tensor([0, 0]), [0, 1], config
    with pytest.raises(ValueError, match=f"for 1 of 2 images; .*{what}.* [(]{remedy} keeps none"):
        generate(*asked, degraded_BChw=degraded_BChw)


def test_a_call_may_be_written_otherwise(monkeypatch, make_model, make_ladder):
    """Catches a refusal of keywords, of no own tokens said in so many words, and of numpy's whole
    numbers."""

    def sample(denoise, ladder, labels_B, noise, config, known=None):
        asked = lambda x, k, y: denoise(inputs_BlC=x, k=np.int64(k), labels_B=y, own_Bl=None)  # noqa: E731
        return sampling.sample_var(asked, ladder, labels_B, noise, config, known)

    found = drawn_by(monkeypatch, make_model, make_ladder, sample)[0]
    assert torch.equal(
        found, drawn_by(monkeypatch, make_model, make_ladder, sampling.sample_var)[0]
    )


@pytest.mark.parametrize("value", [True, "2.0", np.bool_(True), torch.tensor(True)])
def test_a_yes_is_no_weight(monkeypatch, value):
    """Catches `k > 0` as a ramp, which would guide nowhere."""
    add(monkeypatch, guidance, "ramp", lambda cfg_scale, k, num_scales: value)
    with pytest.raises(ValueError, match="ramp_mine: gives .* at scale 0"):
        guidance_weights(2.0, "mine", 3)


def test_a_ramp_gives_the_same_weights_again(monkeypatch):
    """Catches a ramp by chance: every batch would have another guidance."""
    numbers = iter(range(1, 100))
    add(monkeypatch, guidance, "ramp", lambda cfg_scale, k, num_scales: float(next(numbers)))
    with pytest.raises(ValueError, match="ramp_mine: gives other weights each time"):
        guidance_weights(2.0, "mine", 3)


def test_what_is_assigned_is_a_function_too(tmp_path):
    """Catches the refusal of a lambda, of functools.partial and of another name;
    a number is none."""
    text = (
        "mask_a = lambda s: s\nmask_b = partial(f, 1)\nmask_c = mask_a\nmask_d = m.f\nmask_e = 3\n"
    )
    (tmp_path / "masks.py").write_text(text)
    assert names_in(tmp_path / "masks.py", "mask") == ["a", "b", "c", "d"]


HIDDEN = {
    "codebook_VC": lambda ladder, known: ladder.quantizer.codebook_VC.data.mul_(1.5),
    "tokens_BL": lambda ladder, known: known.tokens_BL.numpy().fill(0),
    "mask_BL": lambda ladder, known: np.logical_not(known.mask_BL.numpy(), known.mask_BL.numpy()),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_change_that_torch_does_not_count_shows_too(monkeypatch, make_model, make_ladder, name):
    """Catches codes or known tokens changed through numpy or `.data`, for all later images."""

    def sample(denoise, ladder, labels_B, noise, config, known=None):
        HIDDEN[name](ladder, known)
        return sampling.sample_var(denoise, ladder, labels_B, noise, config, known)

    known = Known(torch.ones(2, 14, dtype=torch.long), torch.zeros(2, 14, dtype=torch.bool))
    with pytest.raises(ValueError, match=f"sample_mine: changes {name} in place"):
        drawn_by(monkeypatch, make_model, make_ladder, sample, known=known)


def test_a_rule_changes_nothing_through_numpy(monkeypatch, make_model, make_ladder):
    """Catches a rule that moves what a later pass is held against, uncounted by torch."""

    def rule(drawn, uniform_Bl, config):
        drawn.peak_Bl.numpy()[...] = 0
        return torch.ones_like(drawn.open_Bl)

    add(monkeypatch, rules, "select", rule)
    config = SamplerConfig(name="srdd", refine_steps=1, select="mine")
    asked = make_model(mask_prob=0.5), make_ladder(SCHEDULE), torch.tensor([0, 1]), [0, 1], config
    with pytest.raises(ValueError, match="select_mine: changes peak_Bl in place"):
        generate(*asked)
