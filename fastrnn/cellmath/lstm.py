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

from .ops import add_product, add_sum, copy, every, product, sigmoid, tanh

if TYPE_CHECKING:
    from fastrnn.backends.base import Array
    from fastrnn.cellmath import Gradients, Packed


def forward(w: Packed, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (B, P) and c (B, H) one step; pre (B, 4, H) is W x + b_ih."""
    B, H = c.shape
    recurrent = product(h, w.hh.T, chain).reshape(B, 4, H)
    m = np.empty_like(c) if w.hr.size else h
    for b in every(B):
        for j in every(H):
            i = pre[b, 0, j] + (recurrent[b, 0, j] + w.b_hh[0, j])
            f = pre[b, 1, j] + (recurrent[b, 1, j] + w.b_hh[1, j])
            g = pre[b, 2, j] + (recurrent[b, 2, j] + w.b_hh[2, j])
            o = pre[b, 3, j] + (recurrent[b, 3, j] + w.b_hh[3, j])
            if w.peephole.size:
                i += w.peephole[0, j] * c[b, j]
                f += w.peephole[1, j] * c[b, j]
            i, f, g = sigmoid(i), sigmoid(f), tanh(g)
            c[b, j] = f * c[b, j] + i * g
            if w.peephole.size:
                o += w.peephole[2, j] * c[b, j]
            o = sigmoid(o)
            m[b, j] = o * tanh(c[b, j])
            saved[b, 0, j], saved[b, 1, j], saved[b, 2, j], saved[b, 3, j] = i, f, g, o
    if w.hr.size:
        copy(h, product(m, w.hr.T, chain))


def backward(
    w: Packed,
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
            i, f, g, o = saved[b, 0, j], saved[b, 1, j], saved[b, 2, j], saved[b, 3, j]
            tanh_c = tanh(c[b, j])
            do = dm[b, j] * tanh_c * o * (one - o)
            dc_after = dc[b, j] + dm[b, j] * o * (one - tanh_c * tanh_c)
            if w.peephole.size:
                dc_after += do * w.peephole[2, j]
            di = dc_after * g * i * (one - i)
            df = dc_after * c_before[b, j] * f * (one - f)
            dg = dc_after * i * (one - g * g)
            dc[b, j] = dc_after * f
            if w.peephole.size:
                dc[b, j] += di * w.peephole[0, j] + df * w.peephole[1, j]
            dpre[b, 0, j], dpre[b, 1, j], dpre[b, 2, j], dpre[b, 3, j] = di, df, dg, do
    copy(dh, product(dpre.reshape(B, 4 * H), w.hh, chain))


def gradients(
    grads: Gradients,
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
        m = np.empty_like(c)
        for b in every(N):
            for j in every(H):
                m[b, j] = saved[b, 3, j] * tanh(c[b, j])
        add_product(grads.hr, dh, m, chain, last_first)
    if grads.peephole.size:
        dp = np.empty((N, 3, H), c.dtype)
        for b in every(N):
            for j in every(H):
                dp[b, 0, j] = dpre[b, 0, j] * c_before[b, j]
                dp[b, 1, j] = dpre[b, 1, j] * c_before[b, j]
                dp[b, 2, j] = dpre[b, 3, j] * c[b, j]
        add_sum(grads.peephole, dp.reshape(N, 3 * H), chain, last_first)
