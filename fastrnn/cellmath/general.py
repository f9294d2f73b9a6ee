"""The cells with their options: other activations, clipped arguments, coupled gates.

The equations are those of `rnn`, `gru` and `lstm`, with every argument of an activation clipped
to -clip .. clip first, the gates' sigmoid replaced by `options.gate`, the tanh of the candidate (g
of an LSTM, n of a GRU, h of an RNN) by `options.candidate`, the tanh of an LSTM's c by
`options.output`, and f = 1 - i where an LSTM is `coupled` (Greff et al., "LSTM: a search space
odyssey", 2017). They are those of ONNX's operators RNN, GRU and LSTM. c is not clipped.

What is saved are the clipped arguments: whether one was clipped cannot be told from its activation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .gru import gradients_reset_after, gradients_reset_before, recurrent_side
from .ops import (
    activate,
    add,
    add_parts,
    add_product,
    add_scaled,
    add_sum,
    clip,
    copy,
    every,
    product,
    through,
)

if TYPE_CHECKING:
    from fastrnn.typing import Array

    from .weights import CellGradients, CellWeights


def clip_block(out: Array, k: int, limit: float) -> None:
    """Clip block k of out (B, S, H), in place."""
    for b in every(out.shape[0]):
        for j in every(out.shape[2]):
            out[b, k, j] = clip(out[b, k, j], limit)


def activate_block(out: Array, a: Array, k: int, how: int, slope: float) -> None:
    """Write the activations of block k of a (B, S, H) to that of out."""
    for b in every(out.shape[0]):
        for j in every(out.shape[2]):
            out[b, k, j] = activate(a[b, k, j], how, slope)


# ------------------------------------------------------------------------------------------ RNN


def rnn_forward(w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (B, H) one step; pre (B, 1, H) is W x + b_ih."""
    B, H = h.shape
    o = w.options
    add_parts(saved, pre, product(h, w.hh.T, chain).reshape(B, 1, H), w.b_hh, 0)
    clip_block(saved, 0, o.clip)
    for b in every(B):
        for j in every(H):
            h[b, j] = activate(saved[b, 0, j], o.candidate, o.slope)


def rnn_backward(
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
    o = w.options
    for b in every(B):
        for j in every(H):
            dpre[b, 0, j] = through(dh[b, j], saved[b, 0, j], h[b, j], o.candidate, o.slope, o.clip)
    copy(dh, product(dpre.reshape(B, H), w.hh, chain))


# ------------------------------------------------------------------------------------------ GRU


def gru_gates(w: CellWeights, pre: Array, recurrent: Array, saved: Array) -> Array:
    """Write the arguments of r and z into saved, and return r and z (B, 2, H)."""
    o = w.options
    rz = np.empty((pre.shape[0], 2, pre.shape[2]), pre.dtype)
    for k in range(2):
        add_parts(saved, pre, recurrent, w.b_hh, k)
        clip_block(saved, k, o.clip)
        activate_block(rz, saved, k, o.gate, o.slope)
    return rz


def gru_mix(w: CellWeights, h: Array, saved: Array, rz: Array) -> None:
    """Advance h (B, H) to (1 - z) * n + z * h."""
    B, H = h.shape
    one = h.dtype.type(1)
    o = w.options
    clip_block(saved, 2, o.clip)
    for b in every(B):
        for j in every(H):
            n = activate(saved[b, 2, j], o.candidate, o.slope)
            h[b, j] = (one - rz[b, 1, j]) * n + rz[b, 1, j] * h[b, j]


def gru_forward_reset_after(
    w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool
) -> None:
    """Advance h (B, H) one step; pre (B, 3, H) is W x + b_ih."""
    B, H = h.shape
    recurrent = product(h, w.hh.T, chain).reshape(B, 3, H)
    rz = gru_gates(w, pre, recurrent, saved)
    for b in every(B):
        for j in every(H):
            saved[b, 3, j] = recurrent[b, 2, j] + w.b_hh[2, j]
    for b in every(B):
        for j in every(H):
            saved[b, 2, j] = pre[b, 2, j] + rz[b, 0, j] * saved[b, 3, j]
    gru_mix(w, h, saved, rz)


def gru_forward_reset_before(
    w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool
) -> None:
    """Advance h (B, H) one step; pre (B, 3, H) is W x + b_ih."""
    B, H = h.shape
    rz = gru_gates(w, pre, product(h, w.hh[: 2 * H].T, chain).reshape(B, 2, H), saved)
    reset_h = np.empty_like(h)
    for b in every(B):
        for j in every(H):
            reset_h[b, j] = rz[b, 0, j] * h[b, j]
    recurrent = product(reset_h, w.hh[2 * H :].T, chain)
    for b in every(B):
        for j in every(H):
            saved[b, 2, j] = pre[b, 2, j] + (recurrent[b, j] + w.b_hh[2, j])
    gru_mix(w, h, saved, rz)


def gru_activations(w: CellWeights, saved: Array) -> Array:
    """Return r, z, n (B, 3, H)."""
    o = w.options
    out = np.empty((saved.shape[0], 3, saved.shape[2]), saved.dtype)
    activate_block(out, saved, 0, o.gate, o.slope)
    activate_block(out, saved, 1, o.gate, o.slope)
    activate_block(out, saved, 2, o.candidate, o.slope)
    return out


def gru_backward_n_and_z(
    w: CellWeights, saved: Array, rzn: Array, h_before: Array, dh: Array, dpre: Array
) -> None:
    """Write the gradients of the arguments of z and n, and leave dh * z in dh (B, H)."""
    B, H = dh.shape
    one = dh.dtype.type(1)
    o = w.options
    for b in every(B):
        for j in every(H):
            z, n = rzn[b, 1, j], rzn[b, 2, j]
            dn = dh[b, j] * (one - z)
            dpre[b, 2, j] = through(dn, saved[b, 2, j], n, o.candidate, o.slope, o.clip)
    for b in every(B):
        for j in every(H):
            z, n = rzn[b, 1, j], rzn[b, 2, j]
            dz = dh[b, j] * (h_before[b, j] - n)
            dpre[b, 1, j] = through(dz, saved[b, 1, j], z, o.gate, o.slope, o.clip)
            dh[b, j] *= z


def gru_backward_reset_after(
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
    """Take dh (B, H) from h to h_before, in place, and write dpre (B, 3, H)."""
    B, H = h.shape
    o = w.options
    rzn = gru_activations(w, saved)
    gru_backward_n_and_z(w, saved, rzn, h_before, dh, dpre)
    for b in every(B):
        for j in every(H):
            dr = dpre[b, 2, j] * saved[b, 3, j]
            dpre[b, 0, j] = through(dr, saved[b, 0, j], rzn[b, 0, j], o.gate, o.slope, o.clip)
    add(dh, product(recurrent_side(dpre, rzn), w.hh, chain))


def gru_backward_reset_before(
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
    """Take dh (B, H) from h to h_before, in place, and write dpre (B, 3, H)."""
    B, H = h.shape
    o = w.options
    rzn = gru_activations(w, saved)
    gru_backward_n_and_z(w, saved, rzn, h_before, dh, dpre)
    dn = np.empty_like(dh)
    for b in every(B):
        for j in every(H):
            dn[b, j] = dpre[b, 2, j]
    dq = product(dn, w.hh[2 * H :], chain)  # gradient of r * h
    drz = np.empty((B, 2, H), dh.dtype)
    for b in every(B):
        for j in every(H):
            dr = dq[b, j] * h_before[b, j]
            drz[b, 0, j] = through(dr, saved[b, 0, j], rzn[b, 0, j], o.gate, o.slope, o.clip)
    for b in every(B):
        for j in every(H):
            drz[b, 1, j] = dpre[b, 1, j]
            dpre[b, 0, j] = drz[b, 0, j]
            dh[b, j] += dq[b, j] * rzn[b, 0, j]
    add(dh, product(drz.reshape(B, 2 * H), w.hh[: 2 * H], chain))


def gru_gradients_reset_after(
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
    rzn = gru_activations(w, saved)
    gradients_reset_after(w, grads, rzn, h_before, c_before, c, dh, dpre, chain, last_first)


def gru_gradients_reset_before(
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
    rzn = gru_activations(w, saved)
    gradients_reset_before(w, grads, rzn, h_before, c_before, c, dh, dpre, chain, last_first)


# ----------------------------------------------------------------------------------------- LSTM


def lstm_forward(w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (B, P) and c (B, H) one step; pre (B, 4, H) is W x + b_ih."""
    B, H = c.shape
    o = w.options
    recurrent = product(h, w.hh.T, chain).reshape(B, 4, H)
    for k in range(4):
        add_parts(saved, pre, recurrent, w.b_hh, k)
    if w.peephole.size:
        add_scaled(saved[:, 0], w.peephole[0], c)
        add_scaled(saved[:, 1], w.peephole[1], c)
    gates = np.empty((B, 4, H), c.dtype)
    for k in range(3):
        clip_block(saved, k, o.clip)
    lstm_activations(w, saved, gates)
    for b in every(B):
        for j in every(H):
            i, f, g = gates[b, 0, j], gates[b, 1, j], gates[b, 2, j]
            c[b, j] = f * c[b, j] + i * g
    if w.peephole.size:
        add_scaled(saved[:, 3], w.peephole[2], c)
    clip_block(saved, 3, o.clip)
    m = lstm_output(w, saved, c)
    if w.hr.size:
        copy(h, product(m, w.hr.T, chain))
    else:
        copy(h, m)


def lstm_activations(w: CellWeights, saved: Array, out: Array) -> None:
    """Write i, f and g to the first blocks of out (B, 4, H)."""
    B, _, H = out.shape
    o = w.options
    one = out.dtype.type(1)
    activate_block(out, saved, 0, o.gate, o.slope)
    activate_block(out, saved, 2, o.candidate, o.slope)
    if o.coupled:
        for b in every(B):
            for j in every(H):
                out[b, 1, j] = one - out[b, 0, j]
    else:
        activate_block(out, saved, 1, o.gate, o.slope)


def lstm_output(w: CellWeights, saved: Array, c: Array) -> Array:
    """Return m = o * act(c), (B, H)."""
    B, H = c.shape
    o = w.options
    m = np.empty_like(c)
    for b in every(B):
        for j in every(H):
            m[b, j] = activate(saved[b, 3, j], o.gate, o.slope)
    for b in every(B):
        for j in every(H):
            m[b, j] *= activate(c[b, j], o.output, o.slope)
    return m


def lstm_backward(
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
    o = w.options
    no_clip = c.dtype.type(np.inf)
    dm = product(dh, w.hr, chain) if w.hr.size else dh
    gates = np.empty((B, 4, H), c.dtype)
    lstm_activations(w, saved, gates)
    activate_block(gates, saved, 3, o.gate, o.slope)
    act_c = np.empty_like(c)
    for b in every(B):
        for j in every(H):
            act_c[b, j] = activate(c[b, j], o.output, o.slope)
    for b in every(B):
        for j in every(H):
            out = gates[b, 3, j]
            dpre[b, 3, j] = through(
                dm[b, j] * act_c[b, j], saved[b, 3, j], out, o.gate, o.slope, o.clip
            )
            dc[b, j] += through(dm[b, j] * out, c[b, j], act_c[b, j], o.output, o.slope, no_clip)
    if w.peephole.size:
        add_scaled(dc, w.peephole[2], dpre[:, 3])
    for b in every(B):
        for j in every(H):
            i, g = gates[b, 0, j], gates[b, 2, j]
            di = dc[b, j] * (g - c_before[b, j]) if o.coupled else dc[b, j] * g
            dpre[b, 0, j] = through(di, saved[b, 0, j], i, o.gate, o.slope, o.clip)
            dpre[b, 2, j] = through(dc[b, j] * i, saved[b, 2, j], g, o.candidate, o.slope, o.clip)
    for b in every(B):
        for j in every(H):
            f = gates[b, 1, j]
            df = dc[b, j] * c_before[b, j]
            dpre[b, 1, j] = through(df, saved[b, 1, j], f, o.gate, o.slope, o.clip)
            dc[b, j] *= f
    if o.coupled:
        dpre[:, 1] = 0
    if w.peephole.size:
        add_scaled(dc, w.peephole[0], dpre[:, 0])
        add_scaled(dc, w.peephole[1], dpre[:, 1])
    copy(dh, product(dpre.reshape(B, 4 * H), w.hh, chain))


def lstm_gradients(
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
        add_product(grads.hr, dh, lstm_output(w, saved, c), chain, last_first)
    if grads.peephole.size:
        dp = np.empty((N, 3, H), c.dtype)
        for b in every(N):
            for j in every(H):
                dp[b, 0, j] = dpre[b, 0, j] * c_before[b, j]
                dp[b, 1, j] = dpre[b, 1, j] * c_before[b, j]
                dp[b, 2, j] = dpre[b, 3, j] * c[b, j]
        add_sum(grads.peephole, dp.reshape(N, 3 * H), chain, last_first)
