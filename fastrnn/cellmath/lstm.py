"""Long short-term memory.

Hochreiter and Schmidhuber, "Long short-term memory" (1997), with the forget gate of Gers,
Schmidhuber and Cummins, "Learning to forget" (2000), optionally the peepholes p of Gers and
Schmidhuber, "Recurrent nets that time and count" (2000), and the projection of Sak, Senior and
Beaufays (2014). Gates in torch's order; * is elementwise:

    i  = sigmoid(W_i x + b_i + R_i h + p_i * c)         m  = o * tanh(c')
    f  = sigmoid(W_f x + b_f + R_f h + p_f * c)         h' = m, or W_hr m with a projection
    g  =    tanh(W_g x + b_g + R_g h)
    c' = f * c + i * g
    o  = sigmoid(W_o x + b_o + R_o h + p_o * c')

Backward (Werbos, "Backpropagation through time", 1990), with di .. do the gradients of the gates'
arguments:

    dm  = dh' W_hr (or dh')                             dc = dc' * f + di * p_i + df * p_f
    do  = dm * tanh(c') * o (1 - o)                     dh = [di df dg do] R
    dc' += dm * o * (1 - tanh(c')^2) + do * p_o
    di  = dc' * g * i (1 - i)
    df  = dc' * c * f (1 - f)
    dg  = dc' * i * (1 - g^2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ops import (
    add_parts,
    add_product,
    add_scaled,
    add_sum,
    copy,
    every,
    product,
    sigmoid_block,
    tanh,
    tanh_block,
)

if TYPE_CHECKING:
    from fastrnn.typing import Array

    from .weights import CellGradients, CellWeights


def forward(w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (B, P) and c (B, H) one step; pre (B, 4, H) is W x + b_ih."""
    B, H = c.shape
    recurrent = product(h, w.hh.T, chain).reshape(B, 4, H)
    for k in range(4):
        add_parts(saved, pre, recurrent, w.b_hh, k)
    if w.peephole.size:
        add_scaled(saved[:, 0], w.peephole[0], c)
        add_scaled(saved[:, 1], w.peephole[1], c)
    sigmoid_block(saved, 0)
    sigmoid_block(saved, 1)
    tanh_block(saved, 2)
    for b in every(B):
        for j in every(H):
            i, f, g = saved[b, 0, j], saved[b, 1, j], saved[b, 2, j]
            c[b, j] = f * c[b, j] + i * g
    if w.peephole.size:
        add_scaled(saved[:, 3], w.peephole[2], c)
    sigmoid_block(saved, 3)
    if w.hr.size:
        copy(h, product(output(c, saved), w.hr.T, chain))
    else:
        copy(h, output(c, saved))


def output(c: Array, saved: Array) -> Array:
    """Return m = o * tanh(c), (B, H)."""
    B, H = c.shape
    m = np.empty_like(c)
    for b in every(B):
        for j in every(H):
            m[b, j] = saved[b, 3, j] * tanh(c[b, j])
    return m


def backward(
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
    """Take dh (B, P) and dc (B, H) one step back, in place, and write dpre (B, 4, H)."""
    B, H = c.shape
    one = c.dtype.type(1)
    dm = product(dh, w.hr, chain) if w.hr.size else dh
    for b in every(B):
        for j in every(H):
            o, tanh_c = saved[b, 3, j], tanh(c[b, j])
            dpre[b, 3, j] = dm[b, j] * tanh_c * o * (one - o)
            dc[b, j] += dm[b, j] * o * (one - tanh_c * tanh_c)
    if w.peephole.size:
        add_scaled(dc, w.peephole[2], dpre[:, 3])
    for b in every(B):
        for j in every(H):
            i, g = saved[b, 0, j], saved[b, 2, j]
            dpre[b, 0, j] = dc[b, j] * g * i * (one - i)
            dpre[b, 2, j] = dc[b, j] * i * (one - g * g)
    for b in every(B):
        for j in every(H):
            f = saved[b, 1, j]
            dpre[b, 1, j] = dc[b, j] * c_before[b, j] * f * (one - f)
            dc[b, j] *= f
    if w.peephole.size:
        add_scaled(dc, w.peephole[0], dpre[:, 0])
        add_scaled(dc, w.peephole[1], dpre[:, 1])
    copy(dh, product(dpre.reshape(B, 4 * H), w.hh, chain))


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
    N, H = c.shape
    da = dpre.reshape(N, 4 * H)
    add_product(grads.hh, da, h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, da, chain, last_first)
    if grads.hr.size:
        add_product(grads.hr, dh, output(c, saved), chain, last_first)
    if grads.peephole.size:
        dp = np.empty((N, 3, H), c.dtype)
        for b in every(N):
            for j in every(H):
                dp[b, 0, j] = dpre[b, 0, j] * c_before[b, j]
                dp[b, 1, j] = dpre[b, 1, j] * c_before[b, j]
                dp[b, 2, j] = dpre[b, 3, j] * c[b, j]
        add_sum(grads.peephole, dp.reshape(N, 3 * H), chain, last_first)
