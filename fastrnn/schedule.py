"""Which rows of a batch run at which step: ``lengths`` and ``resets`` as the backends want them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .typing import Array


class RowSchedule(NamedTuple):
    """One direction's rows; every field is None when nothing is special.

    Rows are ordered by falling length, so that the rows active at a step are the first few of
    ``sorted_indices``: no row is copied, and work is proportional to the valid steps.
    """

    sorted_indices: Array | None = None
    """(B,) int64: rows by falling length, equal ones in their order."""
    batch_sizes: Array | None = None
    """(T,) int64: rows ``sorted_indices[: batch_sizes[t]]`` are active at step t."""
    resets: Array | None = None
    """(T, B) bool: True where a row starts step t from a zero state."""

    def span(self, start: int, stop: int) -> RowSchedule:
        """The same rows for steps start..stop of the sequence."""
        if self is ALL_ROWS:
            return self
        return RowSchedule(
            self.sorted_indices,
            None if self.batch_sizes is None else self.batch_sizes[start:stop],
            None if self.resets is None else self.resets[start:stop],
        )

    def active(self, steps: int, batch: int) -> Array:
        """(T, B) bool: True where a row has a step to run."""
        if self.sorted_indices is None or self.batch_sizes is None:
            return np.ones((steps, batch), bool)
        rank = np.empty(batch, np.int64)
        rank[self.sorted_indices] = np.arange(batch)
        active: Array = rank < self.batch_sizes[:, None]
        return active


ALL_ROWS = RowSchedule()


def row_schedules(
    lengths: Array | None, resets: Array | None, steps: int, batch: int
) -> tuple[RowSchedule, RowSchedule]:
    """Rows of the forward and of the reverse direction.

    Parameters
    ----------
    lengths : (B,) int64 in 0..T, or None
    resets : (T, B) bool, or None
        True where a new sequence begins: the forward direction starts from zeros at that step,
        the reverse direction at the step before it.
    """
    sorted_indices = batch_sizes = None
    if lengths is not None and np.any(lengths < steps):
        sorted_indices = np.argsort(-lengths, kind="stable")
        # Rows longer than t: all rows minus those that end at or before t.
        batch_sizes = batch - np.cumsum(np.bincount(lengths, minlength=steps + 1))[:steps]
        sorted_indices = sorted_indices.astype(np.int64, copy=False)
        batch_sizes = batch_sizes.astype(np.int64, copy=False)
    ahead = behind = None
    if resets is not None and np.any(resets):
        ahead = np.array(resets, bool, order="C")
        behind = np.zeros_like(ahead)
        behind[:-1] = ahead[1:]
        if lengths is not None:
            # A reset past a row's end is none: the row's reverse direction begins with its state.
            behind &= np.arange(1, steps + 1)[:, None] < lengths
    if sorted_indices is None and ahead is None:
        return ALL_ROWS, ALL_ROWS
    return (
        RowSchedule(sorted_indices, batch_sizes, ahead),
        RowSchedule(sorted_indices, batch_sizes, behind),
    )
