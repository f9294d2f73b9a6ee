"""Sums over many rows, whose error grows with the logarithm of their number."""

from __future__ import annotations

import numpy as np

from ..typing import Array

_CHAIN = 256
"""Rows that are added one after the other."""


def sum_runs(rows: Array, starts: Array) -> Array:
    """Return the sums of the rows (n, W) from each start, ascending from 0, to the next: NumPy's.

    First of pieces, then of their sums, and so on: `np.add.reduceat` alone, and `np.sum` across
    rows, are one chain of additions.
    """
    while True:
        lengths = np.diff(starts, append=len(rows))
        if lengths.max() <= _CHAIN:
            return np.add.reduceat(rows, starts, axis=0)
        pieces = -(-lengths // _CHAIN)
        first = np.cumsum(pieces) - pieces
        within = np.arange(pieces.sum()) - np.repeat(first, pieces)
        rows = np.add.reduceat(rows, np.repeat(starts, pieces) + within * _CHAIN, axis=0)
        starts = first


def sum_rows(rows: Array, out: Array) -> None:
    """Write the sum of the rows (n, W) to out (W,); on a GPU, whose sums are trees, CuPy's."""
    if len(rows) > _CHAIN and isinstance(rows, np.ndarray):
        out[...] = sum_runs(rows, np.zeros(1, np.intp))[0]
    else:
        rows.sum(axis=0, out=out)
