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

from .ops import add_product, add_sum, product, sigmoid

if TYPE_CHECKING:
    from fastrnn.backends.base import Array, Weights


def forward_reset_after(
    w: Weights, pre: Array, h: Array, c: Array, saved: Array, chain: bool
) -> None:
    """Advance h (n, H) one step; pre (n, 3H) is W x + b_ih."""
    H = h.shape[1]
    one = h.dtype.type(1)
    r, z, n, hn = saved[:, :H], saved[:, H : 2 * H], saved[:, 2 * H : 3 * H], saved[:, 3 * H :]
    recurrent = product(h, w.hh.T, chain) + w.b_hh
    r[:] = sigmoid(pre[:, :H] + recurrent[:, :H])
    z[:] = sigmoid(pre[:, H : 2 * H] + recurrent[:, H : 2 * H])
    hn[:] = recurrent[:, 2 * H :]
    n[:] = np.tanh(pre[:, 2 * H :] + r * hn)
    h[:] = (one - z) * n + z * h


def forward_reset_before(
    w: Weights, pre: Array, h: Array, c: Array, saved: Array, chain: bool
) -> None:
    """Advance h (n, H) one step; pre (n, 3H) is W x + b_ih."""
    H = h.shape[1]
    one = h.dtype.type(1)
    r, z, n = saved[:, :H], saved[:, H : 2 * H], saved[:, 2 * H :]
    recurrent = product(h, w.hh[: 2 * H].T, chain) + w.b_hh[: 2 * H]
    r[:] = sigmoid(pre[:, :H] + recurrent[:, :H])
    z[:] = sigmoid(pre[:, H : 2 * H] + recurrent[:, H:])
    n[:] = np.tanh(pre[:, 2 * H :] + product(r * h, w.hh[2 * H :].T, chain) + w.b_hh[2 * H :])
    h[:] = (one - z) * n + z * h


def after_reset(dpre: Array, r: Array) -> Array:
    """Return the gradient of R h + b_hh: dpre (n, 3H) with its n block times r (n, H)."""
    H = r.shape[1]
    out = dpre.copy()
    out[:, 2 * H :] *= r
    return out


def backward_reset_after(
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
    """Take dh (n, H) from h to h_before, in place, and write dpre (n, 3H)."""
    H = h.shape[1]
    one = h.dtype.type(1)
    r, z, n, hn = saved[:, :H], saved[:, H : 2 * H], saved[:, 2 * H : 3 * H], saved[:, 3 * H :]
    dn = dh * (one - z) * (one - n * n)
    dpre[:, :H] = dn * hn * r * (one - r)
    dpre[:, H : 2 * H] = dh * (h_before - n) * z * (one - z)
    dpre[:, 2 * H :] = dn
    dh[:] = dh * z + product(after_reset(dpre, r), w.hh, chain)


def backward_reset_before(
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
    """Take dh (n, H) from h to h_before, in place, and write dpre (n, 3H)."""
    H = h.shape[1]
    one = h.dtype.type(1)
    r, z, n = saved[:, :H], saved[:, H : 2 * H], saved[:, 2 * H :]
    dn = dh * (one - z) * (one - n * n)
    dq = product(dn, w.hh[2 * H :], chain)  # of r * h
    dpre[:, :H] = dq * h_before * r * (one - r)
    dpre[:, H : 2 * H] = dh * (h_before - n) * z * (one - z)
    dpre[:, 2 * H :] = dn
    drz = np.ascontiguousarray(dpre[:, : 2 * H])
    dh[:] = dh * z + dq * r + product(drz, w.hh[: 2 * H], chain)


def gradients_reset_after(
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
    H = h_before.shape[1]
    drecurrent = after_reset(dpre, saved[:, :H])
    add_product(grads.hh, drecurrent, h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, drecurrent, chain, last_first)


def gradients_reset_before(
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
    H = h_before.shape[1]
    drz = np.ascontiguousarray(dpre[:, : 2 * H])
    dn = np.ascontiguousarray(dpre[:, 2 * H :])
    add_product(grads.hh[: 2 * H], drz, h_before, chain, last_first)
    add_product(grads.hh[2 * H :], dn, saved[:, :H] * h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, dpre, chain, last_first)
