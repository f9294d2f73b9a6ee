"""The few words that the cells and the time loops are written in; Numba has its own for some.

`chain=True` asks for one fixed chain of additions per output element, in rising k (or in the order
of backpropagation for sums over rows). A BLAS picks its order by shape, so batch size or padding
may change the last bit of its result; a chain's cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import numpy as np

from fastrnn.typing import Activation, Array

CHAIN_TERMS = 4096
"""Of a product's sum, before it is settled."""


def every(n: int) -> Iterable[Any]:
    """Return the indices of n rows or units: one slice for NumPy; 0 .. n-1 for Numba.

    `for b in every(B): for j in every(H): out[b, j] = x[b, j] + y[b, j]` is one array expression in
    NumPy, and in Numba one loop without temporaries. Loops with a tanh in them write one array, at
    most two: LLVM makes vector code of a loop only if a few comparisons of addresses can show that
    what it writes overlaps nothing (LSTM forward in one loop: 34 ns a unit; as it is: 12).
    """
    return (slice(0, n),)


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent."""
    return np.tanh(x)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), in the form that cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


TANH, SIGMOID, RELU, HARD_SIGMOID = range(4)
"""What `activate` and `through` know a function as; `ACTIVATIONS` has their names."""

ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def activate(x: Array, how: int, slope: float) -> Array:
    """Return tanh(x), sigmoid(x), max(0, x) or max(0, min(1, slope x + 1/2))."""
    if how == TANH:
        return tanh(x)
    if how == SIGMOID:
        return sigmoid(x)
    if how == RELU:
        above: Array = np.maximum(x, 0)
        return above
    y: Array = np.clip(slope * x + x.dtype.type(0.5), 0, 1)
    return y


def clip(x: Array, limit: float) -> Array:
    """Return x within -limit .. limit; NaN stays."""
    return np.clip(x, -limit, limit)


def through(d: Array, x: Array, y: Array, how: int, slope: float, limit: float) -> Array:
    """Return the gradient of x before it was clipped to -limit .. limit, given that, d, of the
    activation y = activate(x).

    A choice where it is 0, not a product with 0: an infinite d must not become NaN there.
    """
    one = x.dtype.type(1)
    if how == TANH:
        inside = d * (one - y * y)
    elif how == SIGMOID:
        inside = d * (y * (one - y))
    elif how == RELU:
        inside = np.where(y <= 0, 0, d)
    else:
        inside = np.where((y <= 0) | (y >= 1), 0, slope * d)
    return np.where((np.abs(x) >= limit) & (limit < np.inf), 0, inside)


def product(a: Array, b: Array, chain: bool) -> Array:
    """Return a (n, K) times b (K, M).

    More than CHAIN_TERMS terms of a sum are settled: else its error would grow with them.
    """
    n, K, M = a.shape[0], a.shape[1], b.shape[1]
    if K <= CHAIN_TERMS:
        return short_product(a, b, chain)
    sums = np.zeros((3, n * M), a.dtype)
    for k in range(0, K, CHAIN_TERMS):
        end = min(K, k + CHAIN_TERMS)
        left, right = np.ascontiguousarray(a[:, k:end]), np.ascontiguousarray(b[k:end])
        sums[0] = short_product(left, right, chain).ravel()
        settle(sums)
    return settled(sums).reshape(n, M)


def short_product(a: Array, b: Array, chain: bool) -> Array:
    """Return a (n, K) times b (K, M), each sum by itself."""
    if not chain:
        result: Array = np.dot(a, b)
        return result
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        out += a[:, k : k + 1] * b[k]
    return out


def add_product(out: Array, a: Array, b: Array, chain: bool, last_first: bool) -> None:
    """Add a (n, M) transposed times b (n, K) to out (M, K)."""
    if not chain:
        add(out, np.dot(a.T, b))
        return
    n = a.shape[0]
    for k in range(n):
        row = n - 1 - k if last_first else k
        out += a[row].reshape(-1, 1) * b[row]


def add_sum(out: Array, a: Array, chain: bool, last_first: bool) -> None:
    """Add the sum of the rows of a (n, M) to out (M,)."""
    ones = np.ones((a.shape[0], 1), a.dtype)
    add_product(out.reshape(1, -1), ones, a, chain, last_first)


def settle(sums: Array) -> None:
    """Add the rows of sums (3, n), a sum, to that of all before, and to what its roundings left.

    The sum begins anew then. Knuth's TwoSum: what is left is exact.
    """
    for j in every(sums.shape[1]):
        a, b = sums[0, j], sums[1, j]
        total = a + b
        of_a = total - b
        sums[2, j] += (a - of_a) + (b - (total - of_a))
        sums[1, j] = total
        sums[0, j] = 0


def settled(sums: Array) -> Array:
    """Return the sum of all that `settle` was given."""
    total: Array = sums[1]
    left = sums[2]
    left[~np.isfinite(total)] = 0  # beside what is not finite, nothing is left
    total += left
    return total


def add(out: Array, a: Array) -> None:
    """Add a (n, W) to out (n, W)."""
    for b in every(out.shape[0]):
        for j in every(out.shape[1]):
            out[b, j] += a[b, j]


def add_row(out: Array, row: Array) -> None:
    """Add row (W,) to every row of out (n, W)."""
    for b in every(out.shape[0]):
        for j in every(out.shape[1]):
            out[b, j] += row[j]


def add_scaled(out: Array, row: Array, a: Array) -> None:
    """Add row (W,) * a (n, W) to out (n, W)."""
    for b in every(out.shape[0]):
        for j in every(out.shape[1]):
            out[b, j] += row[j] * a[b, j]


def add_parts(out: Array, pre: Array, recurrent: Array, bias: Array, k: int) -> None:
    """Write block k of pre (B, G, H) + (recurrent (B, G, H) + bias (G, H)) to that of out."""
    for b in every(out.shape[0]):
        for j in every(out.shape[2]):
            out[b, k, j] = pre[b, k, j] + (recurrent[b, k, j] + bias[k, j])


def sigmoid_block(out: Array, k: int) -> None:
    """Apply `sigmoid` to block k of out (B, S, H), in place."""
    for b in every(out.shape[0]):
        for j in every(out.shape[2]):
            out[b, k, j] = sigmoid(out[b, k, j])


def tanh_block(out: Array, k: int) -> None:
    """Apply `tanh` to block k of out (B, S, H), in place."""
    for b in every(out.shape[0]):
        for j in every(out.shape[2]):
            out[b, k, j] = tanh(out[b, k, j])


def copy(out: Array, a: Array) -> None:
    """Copy a (n, W) to out (n, W)."""
    for b in every(out.shape[0]):
        for j in every(out.shape[1]):
            out[b, j] = a[b, j]


def restart(state: Array, cut: Array) -> None:
    """Set to zero the rows of state (n, W) where cut (n,) holds."""
    for b in np.flatnonzero(cut):
        state[b] = 0
