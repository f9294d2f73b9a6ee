"""What the programs of this folder share: a frozen layer, ragged rows, what is done with them."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastrnn

I, H = 16, 64


def frozen_layer() -> Any:
    """Return what would be loaded from a file. It pickles, and unpickles frozen.

    `reproducible` makes a row's numbers independent of the rows beside it, so that any way to
    share the rows out gives the same bits.
    """
    layer = fastrnn.GRU(I, H, rng=0, reproducible=True)
    layer.freeze()
    return layer


def ragged_rows(n: int, longest: int = 60) -> list[Any]:
    """Return n sequences (T_b, I) of different lengths; some have no step at all."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, longest + 1, n)
    return [rng.standard_normal((length, I)).astype(np.float32) for length in lengths]


def embed(layer: Any, rows: list[Any]) -> Any:
    """Return the last state of each sequence, (rows, H)."""
    lengths = np.array([len(row) for row in rows])
    x = np.zeros((max(lengths, default=0), len(rows), I), np.float32)
    for b, row in enumerate(rows):
        x[: len(row), b] = row
    _, h = layer(x, lengths=lengths)
    return h[-1]


def report(name: str, rows: list[Any], seconds: float, alone: float, same: bool) -> None:
    """Print rows a second beside one process, and whether the bits are the same."""
    print(
        f"{name}: {len(rows) / seconds:.0f} rows a second, one process {len(rows) / alone:.0f}; "
        f"{'the same bits' if same else 'OTHER NUMBERS'}"
    )
    if not same:
        raise SystemExit(1)
