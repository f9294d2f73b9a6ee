"""The simple recurrent network of Elman, "Finding structure in time" (1990).

    h' = act(W x + b_ih + R h + b_hh)        act is tanh or relu

Backward (Werbos, "Backpropagation through time", 1990), with a the argument of act:

    da = dh' (1 - h'^2)  or  dh' [h' > 0],      dh = da R,      dR += da^T h
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ops import add_product, add_sum, product

if TYPE_CHECKING:
    from fastrnn.backends.base import Array, Weights


def forward_tanh(w: Weights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (n, H) one step; pre (n, H) is W x + b_ih."""
    h[:] = np.tanh(pre + product(h, w.hh.T, chain) + w.b_hh)


def forward_relu(w: Weights, pre: Array, h: Array, c: Array, saved: Array, chain: bool) -> None:
    """Advance h (n, H) one step; pre (n, H) is W x + b_ih."""
    h[:] = np.maximum(pre + product(h, w.hh.T, chain) + w.b_hh, h.dtype.type(0))


def backward_tanh(
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
    """Take dh (n, H) from h to h_before, in place, and write dpre (n, H)."""
    one = h.dtype.type(1)
    dpre[:] = dh * (one - h * h)
    dh[:] = product(dpre, w.hh, chain)


def backward_relu(
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
    """Take dh (n, H) from h to h_before, in place, and write dpre (n, H)."""
    # A choice, not a product with 0 or 1: an infinite dh must not become NaN where h is 0.
    dpre[:] = np.where(h <= 0, np.zeros_like(dh), dh)
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
    add_product(grads.hh, dpre, h_before, chain, last_first)
    if grads.b_hh.size:
        add_sum(grads.b_hh, dpre, chain, last_first)
