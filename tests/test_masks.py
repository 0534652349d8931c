"""Dense masks, the reference of attention by scale."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srdd import masks
from srdd.masks import scale_mask, scale_of_token
from srdd.model import ScaleTransformer
from srdd.schedule import ScaleSchedule

schedules = st.sets(st.integers(1, 5), min_size=1, max_size=4).map(
    lambda sides: ScaleSchedule(tuple(sorted(sides)))
)


@given(schedules, st.none() | st.integers(0, 4))
def test_scale_mask_by_definition(schedule, history):
    """Catches a transposed mask, a wrong bound, or a scale that does not see its own tokens:
    loops over the definition."""
    owner = [k for k, p in enumerate(schedule.patch_nums) for _ in range(p * p)]
    reach = schedule.num_scales if history is None else history
    expected = [[q - reach <= key <= q for key in owner] for q in owner]
    assert scale_mask(schedule, history).tolist() == expected
    assert scale_of_token(schedule).tolist() == owner
    assert scale_mask(schedule, history).dtype == torch.bool


def test_published_masks():
    """Catches a change of the two named masks: VAR's lower block triangle and SDD's block diagonal,
    written out."""
    schedule = ScaleSchedule((1, 2))
    assert scale_mask(schedule, None).int().tolist() == [[1, 0, 0, 0, 0]] + [[1, 1, 1, 1, 1]] * 4
    assert scale_mask(schedule, 0).int().tolist() == [[1, 0, 0, 0, 0]] + [[0, 1, 1, 1, 1]] * 4


def test_a_mask_function_is_found_by_its_name(monkeypatch, model_config, make_model):
    """Catches `mask: <name>` not reaching the attention:
    a mask equal to history 1 must give the logits of history 1."""
    monkeypatch.setattr(
        masks, "mask_previous", lambda schedule: scale_mask(schedule, 1), raising=False
    )
    named, dial = make_model(mask="previous"), make_model(history=1)
    inputs_BLC = torch.randn(2, 14, 4, generator=torch.Generator().manual_seed(0))
    labels_B = torch.tensor([0, 2])
    torch.testing.assert_close(named(inputs_BLC, labels_B), dial(inputs_BLC, labels_B))
    assert not torch.allclose(
        named(inputs_BLC, labels_B), make_model()(inputs_BLC, labels_B), atol=1e-3
    )


def test_an_unknown_mask_is_named(model_config):
    """Catches a misspelt mask that is silently ignored."""
    with pytest.raises(ValueError, match="unknown mask 'diagnal'"):
        ScaleTransformer(model_config(mask="diagnal"))
