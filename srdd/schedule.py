"""The scale schedule: which grids an image is written in, coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ScaleSchedule:
    """The K token grids of next-scale prediction (VAR, arXiv 2404.02905, section 3.2), coarse to
    fine.

    patch_nums: side of each square grid in tokens; never shrinking, the last is the side of the
    latent. Sides that repeat refine one grid again: all equal, it is plain residual quantisation.
    Raises ValueError when a side shrinks or is no positive integer.
    """

    patch_nums: tuple[int, ...]

    def __post_init__(self) -> None:
        sides = tuple(self.patch_nums)
        object.__setattr__(self, "patch_nums", sides)
        if not sides or any(isinstance(p, bool) or not isinstance(p, int) or p < 1 for p in sides):
            raise ValueError(
                f"patch_nums {list(sides)}: give at least one side, each a whole number of 1 or "
                "more"
            )
        if any(b < a for a, b in zip(sides, sides[1:])):
            raise ValueError(
                f"patch_nums {list(sides)}: no side may be smaller than the one before"
            )
        # cached from the start: a compiled graph breaks where it meets the lock of a property that
        # is not
        assert self.seq_len == self.slices[-1].stop

    @property
    def num_scales(self) -> int:
        """K (VAR, arXiv 2404.02905, section 3.2)."""
        return len(self.patch_nums)

    @property
    def name(self) -> str:
        """The schedule in names of runs and in rows, such as 1.2.3.4."""
        return ".".join(map(str, self.patch_nums))

    @property
    def latent_size(self) -> int:
        """Side of the finest grid, which is the side of the latent."""
        return self.patch_nums[-1]

    @property
    def repeats(self) -> bool:
        """Whether two scales have one side, so that no scale is known by its side."""
        return len(set(self.patch_nums)) < self.num_scales

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(p * p for p in self.patch_nums)

    @cached_property
    def seq_len(self) -> int:
        """Tokens of all scales, L."""
        return sum(self.lengths)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each scale lies in the sequence of L tokens."""
        ends = [sum(self.lengths[: k + 1]) for k in range(self.num_scales)]
        return tuple(slice(end - length, end) for end, length in zip(ends, self.lengths))

    def first_visible(self, k: int, history: int | None) -> int:
        """Coarsest scale that the tokens of scale k attend to; history None means all (VAR), 0 its
        own only (SDD)."""
        return 0 if history is None else max(0, k - history)

    def key_slice(self, k: int, history: int | None) -> slice:
        """Positions that the tokens of scale k attend to: scales k - history ... k."""
        return slice(self.slices[self.first_visible(k, history)].start, self.slices[k].stop)

    def windowed(self, k: int, window: int | None, window_from: int = 0) -> bool:
        """Whether tokens of scale k see less than all of their own scale: a square of `window` x
        `window` tokens, from scale `window_from` on (MVAR, arXiv 2505.12742)."""
        return window is not None and k >= window_from and window < self.patch_nums[k]

    def attended_pairs(
        self, history: int | None, window: int | None = None, window_from: int = 0
    ) -> int:
        """Query-key pairs that the mask `history` keeps; 0.39 of VAR's at history 0 and the 256-px
        schedule. With a window each token keeps window^2 keys of its own scale (MVAR, arXiv
        2505.12742)."""
        scales = range(self.num_scales)
        return sum(self.attended_pairs_of(k, history, window, window_from) for k in scales)

    def attended_pairs_of(
        self, k: int, history: int | None, window: int | None = None, window_from: int = 0
    ) -> int:
        """`attended_pairs` of the tokens of scale k alone."""
        keys, length = self.key_slice(k, history), self.lengths[k]
        own = window * window if window and self.windowed(k, window, window_from) else length
        pairs: int = length * (keys.stop - keys.start - length + own)
        return pairs


MOST_SIDE = 1024  # tokens; 64 times the official 16


def checked_sides(patch_nums: tuple[int, ...]) -> tuple[int, ...]:
    """The sides of a schedule (VAR, arXiv 2404.02905, section 3.2) that settings may have. Raises
    ValueError for what is no schedule, a grid too large, or too many scales."""
    schedule = ScaleSchedule(patch_nums)
    if schedule.latent_size > MOST_SIDE:
        raise ValueError(
            f"side {schedule.latent_size}: a grid of more than {MOST_SIDE} x {MOST_SIDE} tokens "
            "is refused"
        )
    if len(schedule.name) > 160:
        raise ValueError(
            f"{schedule.num_scales} scales: too many for the name of a file; give fewer"
        )
    return patch_nums
