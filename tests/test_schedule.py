"""The scale schedule: places of scales in the sequence, and what each scale sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srdd.masks import scale_mask
from srdd.schedule import ScaleSchedule

VAR_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
schedules = st.lists(st.integers(1, 7), min_size=1, max_size=5).map(
    lambda sides: ScaleSchedule(tuple(sorted(sides)))
)
histories = st.none() | st.integers(0, 6)


@given(schedules)
def test_slices_tile_the_sequence(schedule):
    """Catches a gap, an overlap or a wrong order between the scales' places in the sequence."""
    positions = [i for piece in schedule.slices for i in range(piece.start, piece.stop)]
    assert positions == list(range(schedule.seq_len))
    assert [piece.stop - piece.start for piece in schedule.slices] == [
        p * p for p in schedule.patch_nums
    ]
    assert schedule.num_scales == len(schedule.patch_nums) and schedule.latent_size == max(
        schedule.patch_nums
    )


@given(schedules, histories)
def test_key_slice_is_the_mask_row(schedule, history):
    """Catches attention by scale that reads other keys than the mask of the same history allows."""
    mask_LL = scale_mask(schedule, history)
    for k, piece in enumerate(schedule.slices):
        keys = schedule.key_slice(k, history)
        for row in mask_LL[piece].tolist():
            assert [i for i, seen in enumerate(row) if seen] == list(range(keys.start, keys.stop))


@given(schedules, histories)
def test_attended_pairs_count_the_mask(schedule, history):
    """Catches a cost figure that is not what the mask computes."""
    assert schedule.attended_pairs(history) == int(scale_mask(schedule, history).sum())


def test_published_share_of_pairs():
    """Catches a dial that no longer means what method.md says: 0.39,
    0.63 and 1.00 of VAR's pairs at 256 px."""
    schedule = ScaleSchedule(VAR_256)
    assert schedule.seq_len == 680
    shares = [schedule.attended_pairs(h) / schedule.attended_pairs(None) for h in (0, 1, None, 9)]
    assert [round(share, 2) for share in shares] == [0.39, 0.63, 1.0, 1.0]


@pytest.mark.parametrize(
    "sides", [(), (0, 1), (-1, 2), (2, 1), (1, 3, 2), (1, 2.0), (True, 2), ("1", 2)]
)
def test_impossible_sides_are_refused(sides):
    """Catches a schedule that shrinks, or is not of whole numbers, getting past the front
    door; the error names it."""
    with pytest.raises(ValueError, match="patch_nums") as error:
        ScaleSchedule(sides)
    assert str(list(sides)) in str(error.value)


def test_a_list_makes_the_same_schedule():
    """Catches a schedule from YAML (a list) that is unequal to, or hashes apart from,
    the same one written as a tuple."""
    assert ScaleSchedule([1, 2, 4]) == ScaleSchedule((1, 2, 4))
    assert hash(ScaleSchedule([1, 2, 4])) == hash(ScaleSchedule((1, 2, 4)))
