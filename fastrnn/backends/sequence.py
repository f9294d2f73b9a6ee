"""The time loops of one pass, knowing no cell: NumPy runs them as they are, Numba compiles them.

They work on *packed* rows: the active rows of step 0, then those of step 1, and so on, N in all.
The rows of step t are starts[t] .. starts[t+1]; rows are ordered by falling length, so the first n
of one step are the same sequences as the first n of any other. Ragged batches thus cost no step
that is not there, and a product over all steps is one product over N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.cellmath.ops import add, add_product, add_row, add_sum, copy, product, restart, settle

if TYPE_CHECKING:
    from fastrnn.cellmath.weights import CellGradients, CellWeights
    from fastrnn.typing import Array

CHUNK_ROWS = 512
"""Rows of the input projection computed at once: enough for a BLAS to run at full speed, and what
they give, not that of all steps, is the memory that a long sequence needs. In a chain, so many are
also summed before they are settled."""

SUM_ROWS = 8192
"""Rows that a BLAS sums, by blocks of its own, before they are settled."""


def make_forward(cell_forward: Callable[..., None]) -> Callable[..., Any]:
    """Return the forward pass of the cell whose step is `cell_forward`."""

    def forward(
        w: CellWeights,
        x: Array,
        h: Array,
        c: Array,
        starts: Array,
        resets: Array,
        blocks: int,
        reverse: bool,
        keep: bool,
        chain: bool,
    ) -> tuple[Array, Array, Array]:
        """Run x (N, I) from h (B, P), c (B, H or 0), in place; resets (N,) or (0,).

        Returns y (N, P), c (N, H or 0), saved (N, S, H), where S = `blocks`; the last two are
        scratch unless `keep`.
        """
        T, N, B = starts.size - 1, x.shape[0], h.shape[0]
        y = np.empty((N, h.shape[1]), x.dtype)
        all_c = np.empty((N if keep else 0, c.shape[1]), x.dtype)
        G, H = w.b_hh.shape
        saved = np.empty((N if keep else B, blocks, H), x.dtype)
        span = max(1, CHUNK_ROWS // max(1, B))
        for first in range(0, T, span):
            steps = min(span, T - first)
            begin = T - first - steps if reverse else first
            base = starts[begin]
            rows = starts[begin + steps] - base
            if rows == 0:
                continue
            flat = product(x[base : base + rows], w.ih.T, chain)
            add_row(flat, w.b_ih)
            pre = flat.reshape(rows, G, H)
            for s in range(steps):
                t = begin + steps - 1 - s if reverse else begin + s
                lo, hi = starts[t], starts[t + 1]
                n = hi - lo
                if n == 0:
                    continue
                h_t, c_t = h[:n], c[:n]
                if resets.size:
                    restart(h_t, resets[lo:hi])
                    restart(c_t, resets[lo:hi])
                at = lo if keep else 0
                cell_forward(w, pre[lo - base : hi - base], h_t, c_t, saved[at : at + n], chain)
                copy(y[lo:hi], h_t)
                if keep:
                    copy(all_c[lo:hi], c_t)
        return y, all_c, saved

    return forward


def before(after: Array, initial: Array, starts: Array, resets: Array, reverse: bool) -> Array:
    """Return the state before every step, given `after` (N, W) and the `initial` one (B, W)."""
    out = np.empty_like(after)
    T = starts.size - 1
    for t in range(T):
        lo, hi = starts[t], starts[t + 1]
        previous = t + 1 if reverse else t - 1
        ran = 0  # rows that ran at the previous step; the others begin here
        if 0 <= previous < T:
            ran = min(starts[previous + 1] - starts[previous], hi - lo)
            copy(out[lo : lo + ran], after[starts[previous] : starts[previous] + ran])
        copy(out[lo + ran : hi], initial[ran : hi - lo])
    if resets.size:
        restart(out, resets)
    return out


def make_backward(
    cell_backward: Callable[..., None], cell_gradients: Callable[..., None]
) -> Callable[..., Array]:
    """Return the backward pass of the cell with these functions."""

    def backward(
        w: CellWeights,
        grads: CellGradients,
        sums: Array,
        done: int,
        x: Array,
        h0: Array,
        c0: Array,
        y: Array,
        c: Array,
        saved: Array,
        starts: Array,
        resets: Array,
        dy: Array,
        dh: Array,
        dc: Array,
        reverse: bool,
        chain: bool,
    ) -> Array:
        """Take dh (B, P), dc (B, H or 0) back to the start, in place, and add to `grads`.

        These are views of the first row of sums (3, .), which is settled now and then: else the
        sum over many rows would lose what a float cannot hold beside it. It has `done` rows.
        x (N, I), y (N, P), c (N, H or 0), saved (N, S, H) as in forward; dy (N, P) or (N, 0).
        Returns dx (N, I).
        """
        T, N = starts.size - 1, x.shape[0]
        if N == 0:
            return np.empty_like(x)
        h_before = before(y, h0, starts, resets, reverse)
        c_before = before(c, c0, starts, resets, reverse)
        G, H = w.b_hh.shape
        dpre = np.empty((N, G, H), x.dtype)
        all_dh = np.empty_like(y)
        for s in range(T):
            t = s if reverse else T - 1 - s
            lo, hi = starts[t], starts[t + 1]
            n = hi - lo
            if n == 0:
                continue
            dh_t, dc_t = dh[:n], dc[:n]
            if dy.size:
                add(dh_t, dy[lo:hi])
            copy(all_dh[lo:hi], dh_t)
            cell_backward(
                w,
                saved[lo:hi],
                h_before[lo:hi],
                y[lo:hi],
                c_before[lo:hi],
                c[lo:hi],
                dh_t,
                dc_t,
                dpre[lo:hi],
                chain,
            )
            if resets.size:
                restart(dh_t, resets[lo:hi])
                restart(dc_t, resets[lo:hi])
        # Rows are summed in the order of backpropagation: then, in a chain, a sequence cut into
        # spans, last span first, gives the same bits as the whole.
        last_first = not reverse
        da = dpre.reshape(N, G * H)
        most = CHUNK_ROWS if chain else SUM_ROWS
        k = 0
        while k < N:
            end = min(N, k + most - (done + k) % most)
            lo, hi = (N - end, N - k) if last_first else (k, end)
            cell_gradients(
                w,
                grads,
                saved[lo:hi],
                h_before[lo:hi],
                c_before[lo:hi],
                c[lo:hi],
                all_dh[lo:hi],
                dpre[lo:hi],
                chain,
                last_first,
            )
            add_product(grads.ih, da[lo:hi], x[lo:hi], chain, last_first)
            if grads.b_ih.size:
                add_sum(grads.b_ih, da[lo:hi], chain, last_first)
            k = end
            if (done + k) % most == 0:
                settle(sums)
        return product(da, w.ih, chain)

    return backward
