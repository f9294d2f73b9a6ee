"""The way between arrays (T, B, W) and their active rows (N, W), which `sequence` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastrnn.schedule import RowSchedule
    from fastrnn.typing import Array


class PackedSequence:
    """Active rows of step 0, then those of step 1, and so on; N in all.

    Parameters
    ----------
    T, B : int
    rows : RowSchedule
    xp : namespace of the arrays that are packed; what is packed where is worked out by NumPy
    """

    def __init__(self, T: int, B: int, rows: RowSchedule, xp: Any = np) -> None:
        self.shape = (T, B)
        self.xp = xp
        self.sorted_indices = (
            None if rows.sorted_indices is None else xp.asarray(rows.sorted_indices)
        )
        self.index: tuple[Array, Array] | None = None
        self.starts = np.arange(T + 1, dtype=np.int64) * B
        resets = None if rows.resets is None else rows.resets.reshape(-1)
        if rows.sorted_indices is not None and rows.batch_sizes is not None:
            np.cumsum(rows.batch_sizes, out=self.starts[1:])
            t = np.repeat(np.arange(T), rows.batch_sizes)
            b = rows.sorted_indices[np.arange(t.size) - self.starts[t]]
            self.index = (xp.asarray(t), xp.asarray(b))
            resets = None if rows.resets is None else rows.resets[t, b]
        self.rows = int(self.starts[-1])
        self.resets = np.zeros(0, bool) if resets is None else resets.astype(bool)
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
        return state.copy() if self.sorted_indices is None else state[self.sorted_indices]

    def unsort(self, state: Array) -> Array:
        """Undo `sort`."""
        if self.sorted_indices is None:
            return state
        out: Array = self.xp.empty_like(state)
        out[self.sorted_indices] = state
        return out
