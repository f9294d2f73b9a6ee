"""The few operations that the cells and the time loops are written in.

`chain=True` asks for one fixed chain of additions per output element, in rising k (or in the order
of backpropagation for sums over rows). A BLAS picks its order by shape, so batch size or padding
may change the last bit of its result; a chain's cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastrnn.backends.base import Array


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), in the form that cannot overflow."""
    half = x.dtype.type(0.5)  # a Python float would make this float64 under Numba
    return half + half * np.tanh(half * x)


def product(a: Array, b: Array, chain: bool) -> Array:
    """Return a (n, K) times b (K, M)."""
    if not chain:
        return np.dot(a, b)
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        out += a[:, k : k + 1] * b[k]
    return out


def add_product(out: Array, a: Array, b: Array, chain: bool, last_first: bool) -> None:
    """Add a (n, M) transposed times b (n, K) to out (M, K)."""
    if not chain:
        out += np.dot(a.T, b)
        return
    n = a.shape[0]
    for k in range(n):
        row = n - 1 - k if last_first else k
        out += a.T[:, row : row + 1] * b[row]


def add_sum(out: Array, a: Array, chain: bool, last_first: bool) -> None:
    """Add the sum of the rows of a (n, M) to out (M,)."""
    if not chain:
        out += np.dot(np.ones(a.shape[0], a.dtype), a)
        return
    n = a.shape[0]
    for k in range(n):
        out += a[n - 1 - k if last_first else k]


def restart(state: Array, cut: Array) -> None:
    """Set to zero the rows of state (n, W) where cut (n,) holds."""
    state[np.flatnonzero(cut)] = 0
