"""The way between arrays (T, B, W) and their active rows (N, W), which `sequence` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastrnn.rows import Rows
    from fastrnn.typing import Array


class Packing:
    """Active rows of step 0, then those of step 1, and so on; N in all.

    Parameters
    ----------
    T, B : int
    rows : Rows
    xp : namespace of the arrays that are packed; the plan itself is made by NumPy
    """

    def __init__(self, T: int, B: int, rows: Rows, xp: Any = np) -> None:
        self.shape = (T, B)
        self.xp = xp
        self.order = None if rows.order is None else xp.asarray(rows.order)
        self.index: tuple[Array, Array] | None = None
        self.starts = np.arange(T + 1, dtype=np.int64) * B
        cut = None if rows.cut is None else rows.cut.reshape(-1)
        if rows.order is not None and rows.counts is not None:
            np.cumsum(rows.counts, out=self.starts[1:])
            t = np.repeat(np.arange(T), rows.counts)
            b = rows.order[np.arange(t.size) - self.starts[t]]
            self.index = (xp.asarray(t), xp.asarray(b))
            cut = None if rows.cut is None else rows.cut[t, b]
        self.rows = int(self.starts[-1])
        self.cut = np.zeros(0, bool) if cut is None else cut.astype(bool)
        """(N,) or (0,), NumPy's: rows that begin anew."""

    def pack(self, a: Array) -> Array:
        """(T, B, W) -> (N, W), C-contiguous."""
        if self.index is not None:
            return a[self.index]
        return self.contiguous(a.reshape(self.rows, a.shape[2]))

    def contiguous(self, a: Array) -> Array:
        """Return a as the kernels want it; writeable, for a compiled loop has one type of array."""
        return np.require(a, requirements=["C", "A", "W"])

    def unpack(self, rows: Array) -> Array:
        """(N, W) -> (T, B, W), 0 where nothing runs."""
        shape = (*self.shape, rows.shape[1])
        if self.index is None:
            return rows.reshape(shape)
        out: Array = self.xp.zeros(shape, rows.dtype)
        out[self.index] = rows
        return out

    def sort(self, state: Array) -> Array:
        """Return a copy of a state (B, W) with its rows in packed order."""
        return state.copy() if self.order is None else state[self.order]

    def unsort(self, state: Array) -> Array:
        """Undo `sort`."""
        if self.order is None:
            return state
        out: Array = self.xp.empty_like(state)
        out[self.order] = state
        return out
