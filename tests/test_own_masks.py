"""Masks of one's own: what they return is checked once, by one line that names the function."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srdd import masks
from srdd.checkpoint import load_model, save_model
from srdd.masks import scale_mask, scale_of_token
from srdd.model import ScaleTransformer
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

SCHEDULE = ScaleSchedule((1, 2, 3))
V = 7


def add(monkeypatch, mask):
    monkeypatch.setattr(masks, "mask_mine", mask, raising=False)


BROKEN_MASKS = {
    "polarity": (
        lambda s: ~scale_mask(s, None),
        "token 0 of scale 0 look at token 1 of the later scale 1",
    ),
    "floats": (
        lambda s: scale_mask(s, None).float(),
        r"float32 of shape \(14, 14\); must be bool of shape \(14, 14\)",
    ),
    "integers": (lambda s: scale_mask(s, None).int(), "int32"),
    "all": (lambda s: torch.ones(14, 14, dtype=torch.bool), "later scale"),
    "one look ahead": (
        lambda s: scale_mask(s, None).index_put(
            (torch.tensor(4), torch.tensor(13)), torch.tensor(True)
        ),
        "token 4 of scale 1 look at token 13 of the later scale 2",
    ),
    "blind": (
        lambda s: scale_of_token(s)[None, :] < scale_of_token(s)[:, None],
        "token 0 of scale 0 look at nothing",
    ),
    "one blind": (
        lambda s: scale_mask(s, None) & (torch.arange(14) != 9)[:, None],
        "token 9 of scale 2 look at nothing",
    ),
    "by scale": (lambda s: torch.ones(3, 3, dtype=torch.bool), r"bool of shape \(3, 3\)"),
    "batched": (lambda s: scale_mask(s, None)[None], r"bool of shape \(1, 14, 14\)"),
    "list": (lambda s: scale_mask(s, None).tolist(), "gives list"),
    "nothing": (lambda s: None, "gives NoneType"),
    "random": (
        lambda s: scale_mask(s, 0) | (scale_mask(s, None) & (torch.rand(14, 14) < 0.5)),
        "another mask each time",
    ),
}


@pytest.mark.parametrize("case", BROKEN_MASKS)
def test_a_mask_that_leaks_or_is_none_is_refused(monkeypatch, model_config, case):
    """Catches a mask that shows the network what it must predict (a lower loss, status ok), or that
    is read as numbers to add."""
    mask, words = BROKEN_MASKS[case]
    add(monkeypatch, mask)
    with pytest.raises(ValueError, match=words) as error:
        ScaleTransformer(model_config(mask="mine"))
    assert str(error.value).startswith("srdd/masks.py: mask_mine: ") and "\n" not in str(
        error.value
    )
    with torch.device("meta"), pytest.raises(ValueError, match="mask_mine"):
        ScaleTransformer(model_config(mask="mine"))  # also where a network is only counted


@pytest.mark.parametrize("case", ["polarity", "floats", "all", "one blind", "by scale", "list"])
def test_an_explicit_mask_is_held_to_the_same(model_config, case):
    """Catches a leaking mask that reaches the network without a name."""
    mask, words = BROKEN_MASKS[case]
    with pytest.raises(ValueError, match=f"^mask_LL: .*{words}"):
        ScaleTransformer(model_config(), mask(SCHEDULE))


@given(st.integers(0, 2**14 - 1), st.integers(0, 2**14 - 1))
def test_whatever_mask_is_accepted_leaks_nothing_and_samples_as_it_trains(
    make_model, make_ladder, seed, moved
):
    """Catches an accepted mask under which a later scale moves the logits of an earlier one, or
    sampling sees other tokens than training: any subset of what VAR sees, the own token always."""
    rng = generator("masks", seed)
    mask_LL = (scale_mask(SCHEDULE, None) & (torch.rand(14, 14, generator=rng) < 0.5)) | torch.eye(
        14, dtype=torch.bool
    )
    model, ladder = make_model(mask_LL), make_ladder(SCHEDULE)
    labels_B, tokens_BL = torch.tensor([0, 2]), torch.randint(V, (2, 14), generator=rng)
    k = moved % 2
    other_BL = tokens_BL.clone()
    other_BL[:, SCHEDULE.slices[k]] = (other_BL[:, SCHEDULE.slices[k]] + 1 + moved % 5) % V
    inputs_BLC = ladder.teacher_forced_inputs(tokens_BL)
    with torch.no_grad():
        whole, changed = (
            model(ladder.teacher_forced_inputs(t), labels_B) for t in (tokens_BL, other_BL)
        )
        denoise = model.denoiser()
        steps = [
            denoise(inputs_BLC[:, piece], k, labels_B) for k, piece in enumerate(SCHEDULE.slices)
        ]
    assert torch.equal(whole[:, : SCHEDULE.slices[k].stop], changed[:, : SCHEDULE.slices[k].stop])
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_never_loses_a_mask(tmp_path, monkeypatch, make_model, model_config):
    """Catches an explicit mask that reading forgets, two masks of one model, and a named mask that
    is another one when it is read."""
    with pytest.raises(ValueError, match="explicit mask_LL is not saved.*mask_<name>"):
        save_model(tmp_path / "m.safetensors", make_model(scale_mask(SCHEDULE, 1)))
    assert not list(tmp_path.iterdir())
    add(monkeypatch, lambda s: scale_mask(s, 1))
    with pytest.raises(ValueError, match="mask_LL beside mask .mine.: "):
        ScaleTransformer(model_config(mask="mine"), scale_mask(SCHEDULE, 1))
    save_model(tmp_path / "m.safetensors", make_model(mask="mine"))
    assert torch.equal(load_model(tmp_path / "m.safetensors").mask_LL, scale_mask(SCHEDULE, 1))
    add(monkeypatch, lambda s: scale_mask(s, 0))
    with pytest.raises(ValueError, match="m.safetensors: saved with another mask_mine"):
        load_model(tmp_path / "m.safetensors")
