"""Which rows of a batch run at which step: ``lengths`` and ``resets`` as the backends want them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .typing import Array


class Rows(NamedTuple):
    """One direction's rows; every field is None when nothing is special.

    Rows are ordered by falling length, so that the rows active at a step are the first few of
    that order: no row is copied, and work is proportional to the valid steps.
    """

    order: Array | None = None  # (B,) int64: rows by falling length, equal ones in their order
    counts: Array | None = None  # (T,) int64: rows order[:counts[t]] are active at step t
    cut: Array | None = None  # (T, B) bool: True where a row starts step t from a zero state

    def span(self, start: int, stop: int) -> Rows:
        """The same rows for steps start..stop of the sequence."""
        if self is ALL:
            return self
        return Rows(
            self.order,
            None if self.counts is None else self.counts[start:stop],
            None if self.cut is None else self.cut[start:stop],
        )

    def active(self, steps: int, batch: int) -> Array:
        """(T, B) bool: True where a row has a step to run."""
        if self.order is None or self.counts is None:
            return np.ones((steps, batch), bool)
        rank = np.empty(batch, np.int64)
        rank[self.order] = np.arange(batch)
        active: Array = rank < self.counts[:, None]
        return active


ALL = Rows()


def plan(lengths: Array | None, resets: Array | None, steps: int, batch: int) -> tuple[Rows, Rows]:
    """Rows of the forward and of the reverse direction.

    Parameters
    ----------
    lengths : (B,) int64 in 0..T, or None
    resets : (T, B) bool, or None
        True where a new sequence begins: the forward direction starts from zeros at that step,
        the reverse direction at the step before it.
    """
    order = counts = None
    if lengths is not None and np.any(lengths < steps):
        order = np.argsort(-lengths, kind="stable")
        # Rows longer than t: all rows minus those that end at or before t.
        counts = batch - np.cumsum(np.bincount(lengths, minlength=steps + 1))[:steps]
        order, counts = order.astype(np.int64, copy=False), counts.astype(np.int64, copy=False)
    ahead = behind = None
    if resets is not None and np.any(resets):
        ahead = np.array(resets, bool, order="C")
        behind = np.zeros_like(ahead)
        behind[:-1] = ahead[1:]
        if lengths is not None:
            # A reset past a row's end is none: the row's reverse direction begins with its state.
            behind &= np.arange(1, steps + 1)[:, None] < lengths
    if order is None and ahead is None:
        return ALL, ALL
    return Rows(order, counts, ahead), Rows(order, counts, behind)
