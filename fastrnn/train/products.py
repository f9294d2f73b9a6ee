"""Products of matrices: by the compiled engine and its threads, else by NumPy's BLAS or CuPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import get_num_threads
from ..typing import Array
from . import engine
from .sums import sum_rows

_PRODUCT = 8192
"""Rows that one product sums over, by blocks of its own."""


def pack(weight: Array) -> Any | None:
    """Return a matrix (M, K) packed for `affine`, or None where nothing is compiled for it."""
    run = engine.function("pack_dense", weight)
    return None if run is None else run(engine.contiguous(weight))


def affine(x: Array, weight: Array, bias: Array | None, packed: Any | None = None) -> Array:
    """Return x (n, K) weight (M, K)^T + bias (M,), without a bias if it is None.

    packed: what `pack` returned of the weight.
    """
    run = engine.function("dense", x)
    if run is not None:
        b = engine.contiguous(weight) if packed is None else packed
        y: Array = run(_rows(x), False, b, True, bias, None, None, get_num_threads())
        return y
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


def back(dy: Array, weight: Array) -> Array:
    """Return dy (n, M) weight (M, K)."""
    run = engine.function("dense", dy)
    if run is None:
        return dy @ weight
    weight = engine.contiguous(weight)
    dx: Array = run(_rows(dy), False, weight, False, None, None, None, get_num_threads())
    return dx


def sum_products(xp: Any, a: Array, b: Array, out: Array, row_sum: Array | None = None) -> None:
    """Write a (n, M) transposed times b (n, K) to out (M, K), and the sum of a's rows to row_sum
    (M,) if it is there."""
    run = engine.function("dense", a)
    if row_sum is not None and run is None:
        sum_rows(a, row_sum)
        row_sum = None
    if len(a) <= _PRODUCT:
        _sum_products(xp, run, a, b, out, row_sum)
        return
    parts = [out] if row_sum is None else [out, row_sum]
    totals = [xp.zeros(each.shape, np.float64) for each in parts]
    for start in range(0, len(a), _PRODUCT):
        rows = slice(start, start + _PRODUCT)
        _sum_products(xp, run, a[rows], b[rows], out, row_sum)
        for total, part in zip(totals, parts, strict=True):
            total += part
    for total, part in zip(totals, parts, strict=True):
        part[...] = total


def _sum_products(
    xp: Any, run: Any | None, a: Array, b: Array, out: Array, row_sum: Array | None
) -> None:
    if run is None:
        xp.matmul(a.T, b, out=out)
    else:
        run(_rows(a), True, engine.contiguous(b), False, None, out, row_sum, get_num_threads())


def _rows(a: Array) -> Array:
    """Return a matrix whose rows are in one piece, the same if it is."""
    item = a.itemsize
    if a.strides[1] == item and a.strides[0] % item == 0 and a.flags.aligned:
        return a
    return engine.contiguous(a)
