"""Packed rows on the GPU: planned on the host, so that no launch waits for an answer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from fastrnn.backends.packed_sequence import PackedSequence
from fastrnn.schedule import RowSchedule

from .device import Array


class DeviceSequence(PackedSequence):
    """The rows of one pass in one direction, of arrays of the namespace `xp`."""

    def __init__(self, xp: Any, T: int, B: int, rows: RowSchedule, reverse: bool) -> None:
        super().__init__(T, B, rows, xp)
        self.reverse = reverse
        self._ends = self.starts.tolist()
        self.steps = range(T)[::-1] if reverse else range(T)
        self.full = T if rows.batch_sizes is None else int(np.count_nonzero(rows.batch_sizes == B))
        """How many steps all rows run: the first ones of the sequence, in either direction."""
        reset_rows = np.flatnonzero(self.resets)
        self.reset_rows = xp.asarray(self.resets.view(np.uint8)) if reset_rows.size else None
        """(N,) bytes, 1 where a row begins anew; None if none does."""
        self._reset_steps = set((np.searchsorted(self.starts, reset_rows, "right") - 1).tolist())

    @property
    def uniform(self) -> bool:
        """Whether all rows run at every step and none begins anew."""
        return self.index is None and self.reset_rows is None

    def like(self, T: int) -> DeviceSequence:
        """Return as many rows, which all run for T steps in the same direction, and which may begin
        anew at each of them if these rows ever do."""
        B = self.shape[1]
        resets = None if self.reset_rows is None else np.ones((T, B), bool)
        return DeviceSequence(self.xp, T, B, RowSchedule(resets=resets), self.reverse)

    def parts(self, steps: range) -> tuple[range, range]:
        """Return steps in their order: those before and after rows end, or begin."""
        edge = self.full - steps.start if steps.step > 0 else steps.start - self.full + 1
        edge = max(edge, 0)
        return steps[:edge], steps[edge:]

    @cached_property
    def device_starts(self) -> Array:
        """`starts` on the GPU."""
        return self.xp.asarray(self.starts)

    def of(self, t: int) -> slice:
        """Return the packed rows of step t."""
        return slice(self._ends[t], self._ends[t + 1])

    def has_reset(self, t: int) -> bool:
        """Return whether a row of step t begins anew."""
        return t in self._reset_steps

    def contiguous(self, a: Array) -> Array:
        """Return a as the kernels want it."""
        return self.xp.ascontiguousarray(a)

    def before(self, after: Array, initial: Array) -> Array:
        """Return the state before every step, given that `after` (N, W) and the initial (B, W)."""
        xp, B = self.xp, len(initial)
        if self.uniform:
            both = (after[B:], initial) if self.reverse else (initial, after[:-B])
            return xp.concatenate(both)
        zero = xp.zeros((1, after.shape[1]), after.dtype)
        return xp.concatenate((after, initial, zero))[xp.asarray(self._source(B))]

    def _source(self, B: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the row of (after, initial, zero) that each packed row's state comes from."""
        source = np.empty(self.rows, np.int64)
        previous = slice(0, 0)
        for t in self.steps:
            here = self.of(t)
            n = here.stop - here.start
            # rows that ran at the previous step; the others begin here
            ran = min(previous.stop - previous.start, n)
            source[here.start : here.start + ran] = np.arange(ran) + previous.start
            source[here.start + ran : here.stop] = np.arange(ran, n) + self.rows
            previous = here
        if self.resets.size:
            source[self.resets] = self.rows + B
        return source
