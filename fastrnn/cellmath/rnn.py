"""The simple recurrent network of Elman, "Finding structure in time" (1990).

    h' = act(W x + b_ih + R h + b_hh)        act is tanh or relu

Backward (Werbos, "Backpropagation through time", 1990), with a the argument of act:

    da = dh' (1 - h'^2)  or  dh' [h' > 0],      dh = da R,      dR += da^T h
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ops import add_product, add_sum, copy, every, product, tanh

if TYPE_CHECKING:
    from fastrnn.typing import Array

    from .weights import CellGradients, CellWeights


def forward_tanh(w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (B, H) one step; pre (B, 1, H) is W x + b_ih."""
    B, H = h.shape
    recurrent = product(h, w.hh.T, chain)
    for b in every(B):
        for j in every(H):
            h[b, j] = tanh(pre[b, 0, j] + (recurrent[b, j] + w.b_hh[0, j]))


def forward_relu(w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (B, H) one step; pre (B, 1, H) is W x + b_ih."""
    B, H = h.shape
    zero = h.dtype.type(0)
    recurrent = product(h, w.hh.T, chain)
    for b in every(B):
        for j in every(H):
            h[b, j] = np.maximum(pre[b, 0, j] + (recurrent[b, j] + w.b_hh[0, j]), zero)


def backward_tanh(
    w: CellWeights,
    saved: Array,
    h_before: Array,
    h: Array,
    c_before: Array,
    c: Array,
    dh: Array,
    dc: Array,
    dpre: Array,
    chain: bool,
) -> None:
    """Take dh (B, H) from h to h_before, in place, and write dpre (B, 1, H)."""
    B, H = h.shape
    one = h.dtype.type(1)
    for b in every(B):
        for j in every(H):
            dpre[b, 0, j] = dh[b, j] * (one - h[b, j] * h[b, j])
    copy(dh, product(dpre.reshape(B, H), w.hh, chain))


def backward_relu(
    w: CellWeights,
    saved: Array,
    h_before: Array,
    h: Array,
    c_before: Array,
    c: Array,
    dh: Array,
    dc: Array,
    dpre: Array,
    chain: bool,
) -> None:
    """Take dh (B, H) from h to h_before, in place, and write dpre (B, 1, H)."""
    B, H = h.shape
    zero = h.dtype.type(0)
    for b in every(B):
        for j in every(H):
            # A choice, not a product with 0 or 1: infinite dh must not become NaN where h is 0.
            dpre[b, 0, j] = np.where(h[b, j] <= zero, zero, dh[b, j])
    copy(dh, product(dpre.reshape(B, H), w.hh, chain))


def gradients(
    w: CellWeights,
    grads: CellGradients,
    saved: Array,
    h_before: Array,
    c_before: Array,
    c: Array,
    dh: Array,
    dpre: Array,
    chain: bool,
    last_first: bool,
) -> None:
    """Add the gradients of the recurrent parameters, from all N rows of all steps at once."""
    N, H = h_before.shape
    da = dpre.reshape(N, H)
    add_product(grads.hh, da, h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, da, chain, last_first)
