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

from .ops import add_product, add_sum, product, sigmoid

if TYPE_CHECKING:
    from fastrnn.backends.base import Array, Weights


def forward(w: Weights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (n, P) and c (n, H) one step; pre (n, 4H), W x + b_ih, is used up."""
    H = c.shape[1]
    pre += product(h, w.hh.T, chain) + w.b_hh
    i, f, g, o = saved[:, :H], saved[:, H : 2 * H], saved[:, 2 * H : 3 * H], saved[:, 3 * H :]
    if w.peephole.size:
        pre[:, :H] += w.peephole[0] * c
        pre[:, H : 2 * H] += w.peephole[1] * c
    i[:] = sigmoid(pre[:, :H])
    f[:] = sigmoid(pre[:, H : 2 * H])
    g[:] = np.tanh(pre[:, 2 * H : 3 * H])
    c[:] = f * c + i * g
    if w.peephole.size:
        pre[:, 3 * H :] += w.peephole[2] * c
    o[:] = sigmoid(pre[:, 3 * H :])
    m = o * np.tanh(c)
    h[:] = product(m, w.hr.T, chain) if w.hr.size else m


def backward(
    w: Weights,
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
    """Take dh (n, P) and dc (n, H) one step back, in place, and write dpre (n, 4H)."""
    H = c.shape[1]
    one = c.dtype.type(1)
    i, f, g, o = saved[:, :H], saved[:, H : 2 * H], saved[:, 2 * H : 3 * H], saved[:, 3 * H :]
    tanh_c = np.tanh(c)
    dm = product(dh, w.hr, chain) if w.hr.size else dh
    do = dm * tanh_c * o * (one - o)
    dc += dm * o * (one - tanh_c * tanh_c)
    if w.peephole.size:
        dc += do * w.peephole[2]
    di = dc * g * i * (one - i)
    df = dc * c_before * f * (one - f)
    dpre[:, :H] = di
    dpre[:, H : 2 * H] = df
    dpre[:, 2 * H : 3 * H] = dc * i * (one - g * g)
    dpre[:, 3 * H :] = do
    dc *= f
    if w.peephole.size:
        dc += di * w.peephole[0] + df * w.peephole[1]
    dh[:] = product(dpre, w.hh, chain)


def gradients(
    grads: Weights,
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
    H = c.shape[1]
    add_product(grads.hh, dpre, h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, dpre, chain, last_first)
    if grads.hr.size:
        add_product(grads.hr, dh, saved[:, 3 * H :] * np.tanh(c), chain, last_first)
    if grads.peephole.size:
        add_sum(grads.peephole[0], dpre[:, :H] * c_before, chain, last_first)
        add_sum(grads.peephole[1], dpre[:, H : 2 * H] * c_before, chain, last_first)
        add_sum(grads.peephole[2], dpre[:, 3 * H :] * c, chain, last_first)
