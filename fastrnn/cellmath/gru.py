"""The gated recurrent unit of Cho et al., "Learning phrase representations" (2014), in both forms.

    r = sigmoid(W_r x + b_ir + R_r h + b_hr)
    z = sigmoid(W_z x + b_iz + R_z h + b_hz)
    n = tanh(W_n x + b_in + r * (R_n h + b_hn))     reset after the product: torch and cuDNN
    n = tanh(W_n x + b_in + R_n (r * h) + b_hn)     reset before the product: Cho et al.
    h' = (1 - z) * n + z * h

(Cho et al. write z for what is 1 - z here.) Backward (Werbos, "Backpropagation through time",
1990), with dr, dz, dn the gradients of the gates' arguments:

    dn = dh' * (1 - z) * (1 - n^2)
    dz = dh' * (h - n) * z (1 - z)
    after:   dr = dn * (R_n h + b_hn) * r (1 - r)    dh = dh' * z + [dr dz (dn * r)] R
    before:  dq = dn R_n                             dh = dh' * z + [dr dz] R_rz + dq * r
             dr = dq * h * r (1 - r)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ops import add, add_parts, add_product, add_sum, every, product, sigmoid_block, tanh

if TYPE_CHECKING:
    from fastrnn.typing import Array

    from .weights import CellGradients, CellWeights


def forward_reset_after(
    w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool
) -> None:
    """Advance h (B, H) one step; pre (B, 3, H) is W x + b_ih."""
    B, H = h.shape
    recurrent = product(h, w.hh.T, chain).reshape(B, 3, H)
    gate_r_and_z(w, pre, recurrent, saved)
    for b in every(B):
        for j in every(H):
            saved[b, 3, j] = recurrent[b, 2, j] + w.b_hh[2, j]
    for b in every(B):
        for j in every(H):
            saved[b, 2, j] = tanh(pre[b, 2, j] + saved[b, 0, j] * saved[b, 3, j])
    mix(h, saved)


def forward_reset_before(
    w: CellWeights, pre: Array, h: Array, c: Array, saved: Array, chain: bool
) -> None:
    """Advance h (B, H) one step; pre (B, 3, H) is W x + b_ih."""
    B, H = h.shape
    gate_r_and_z(w, pre, product(h, w.hh[: 2 * H].T, chain).reshape(B, 2, H), saved)
    reset_h = np.empty_like(h)
    for b in every(B):
        for j in every(H):
            reset_h[b, j] = saved[b, 0, j] * h[b, j]
    recurrent = product(reset_h, w.hh[2 * H :].T, chain)
    for b in every(B):
        for j in every(H):
            saved[b, 2, j] = tanh(pre[b, 2, j] + (recurrent[b, j] + w.b_hh[2, j]))
    mix(h, saved)


def gate_r_and_z(w: CellWeights, pre: Array, recurrent: Array, saved: Array) -> None:
    """Write r and z into saved; recurrent (B, 2 or more, H) is R h."""
    for k in range(2):
        add_parts(saved, pre, recurrent, w.b_hh, k)
        sigmoid_block(saved, k)


def mix(h: Array, saved: Array) -> None:
    """Advance h (B, H) to (1 - z) * n + z * h."""
    B, H = h.shape
    one = h.dtype.type(1)
    for b in every(B):
        for j in every(H):
            z, n = saved[b, 1, j], saved[b, 2, j]
            h[b, j] = (one - z) * n + z * h[b, j]


def backward_reset_after(
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
    one = h.dtype.type(1)
    for b in every(B):
        for j in every(H):
            z, n = saved[b, 1, j], saved[b, 2, j]
            dpre[b, 2, j] = dh[b, j] * (one - z) * (one - n * n)
    for b in every(B):
        for j in every(H):
            r, hn = saved[b, 0, j], saved[b, 3, j]
            dpre[b, 0, j] = dpre[b, 2, j] * hn * r * (one - r)
    for b in every(B):
        for j in every(H):
            z, n = saved[b, 1, j], saved[b, 2, j]
            dpre[b, 1, j] = dh[b, j] * (h_before[b, j] - n) * z * (one - z)
            dh[b, j] *= z
    add(dh, product(recurrent_side(dpre, saved), w.hh, chain))


def recurrent_side(dpre: Array, saved: Array) -> Array:
    """Return the gradient (B, 3*H) of R h + b_hh, which in n passes through r."""
    B, _, H = dpre.shape
    out = dpre.copy()
    for b in every(B):
        for j in every(H):
            out[b, 2, j] *= saved[b, 0, j]
    return out.reshape(B, 3 * H)


def backward_reset_before(
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
    one = h.dtype.type(1)
    dn = np.empty_like(dh)
    for b in every(B):
        for j in every(H):
            z, n = saved[b, 1, j], saved[b, 2, j]
            dn[b, j] = dh[b, j] * (one - z) * (one - n * n)
    dq = product(dn, w.hh[2 * H :], chain)  # gradient of r * h
    drz = np.empty((B, 2, H), dh.dtype)
    for b in every(B):
        for j in every(H):
            r, z, n = saved[b, 0, j], saved[b, 1, j], saved[b, 2, j]
            drz[b, 0, j] = dq[b, j] * h_before[b, j] * r * (one - r)
            drz[b, 1, j] = dh[b, j] * (h_before[b, j] - n) * z * (one - z)
            dh[b, j] = dh[b, j] * z + dq[b, j] * r
            dpre[b, 0, j], dpre[b, 1, j], dpre[b, 2, j] = drz[b, 0, j], drz[b, 1, j], dn[b, j]
    add(dh, product(drz.reshape(B, 2 * H), w.hh[: 2 * H], chain))


def gradients_reset_after(
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
    drecurrent = recurrent_side(dpre, saved)
    add_product(grads.hh, drecurrent, h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, drecurrent, chain, last_first)


def gradients_reset_before(
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
    drz = np.empty((N, 2, H), dpre.dtype)
    dn, reset_h = np.empty_like(h_before), np.empty_like(h_before)
    for b in every(N):
        for j in every(H):
            drz[b, 0, j], drz[b, 1, j], dn[b, j] = dpre[b, 0, j], dpre[b, 1, j], dpre[b, 2, j]
            reset_h[b, j] = saved[b, 0, j] * h_before[b, j]
    add_product(grads.hh[: 2 * H], drz.reshape(N, 2 * H), h_before, chain, last_first)
    add_product(grads.hh[2 * H :], dn, reset_h, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, dpre.reshape(N, 3 * H), chain, last_first)
