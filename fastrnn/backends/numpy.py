"""The readable reference: the time loops of `sequence` as NumPy runs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn.cellmath import MATHS, CellSpec

from . import sequence
from .base import Array, Saved, Weights

if TYPE_CHECKING:
    from fastrnn.rows import Rows


class Loops(NamedTuple):
    """The two passes of a cell, from `sequence.make_forward` and `sequence.make_backward`."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def why_not() -> str | None:
    """Return why this backend cannot be used: never."""
    return None


@cache
def loops(kind: str) -> Loops:
    """Return the loops of a cell kind."""
    math = MATHS[kind]
    return Loops(
        sequence.make_forward(math.forward),
        sequence.make_backward(math.backward, math.gradients),
    )


class Packing:
    """The way between arrays (T, B, W) and their active rows (N, W), see `sequence`."""

    def __init__(
        self, T: int, B: int, order: Array | None, counts: Array | None, cut: Array | None
    ) -> None:
        self.shape = (T, B)
        self.order = order
        self.index: tuple[Array, Array] | None = None
        if order is None or counts is None:
            self.starts = np.arange(T + 1, dtype=np.int64) * B
        else:
            self.starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
            t = np.repeat(np.arange(T), counts)
            self.index = (t, order[np.arange(t.size) - self.starts[t]])
        self.rows = int(self.starts[-1])
        # A mask without any True costs nothing from here on.
        has_cut = cut is not None and bool(cut.any())
        self.cut = self.pack(cut.astype(bool)) if cut is not None and has_cut else np.zeros(0, bool)

    def pack(self, a: Array) -> Array:
        """(T, B, ...) -> (N, ...), C-contiguous."""
        if self.index is not None:
            return a[self.index]
        return np.require(a.reshape(self.rows, *a.shape[2:]), requirements=["C", "A", "W"])

    def unpack(self, rows: Array) -> Array:
        """(N, W) -> (T, B, W), 0 where nothing runs."""
        if self.index is None:
            return rows.reshape(*self.shape, rows.shape[1])
        out = np.zeros((*self.shape, rows.shape[1]), rows.dtype)
        out[self.index] = rows
        return out

    def sort(self, state: Array) -> Array:
        """Return a copy of a state (B, W) with its rows in packed order."""
        return state.copy() if self.order is None else state[self.order]

    def unsort(self, state: Array) -> Array:
        """Undo `sort`."""
        if self.order is None:
            return state
        out = np.empty_like(state)
        out[self.order] = state
        return out


class NumpyBackend:
    """The reference. Ignores `threads`: a BLAS underneath may have its own."""

    name = "numpy"

    def loops(self, kind: str) -> Loops:
        """Return the loops of a cell kind."""
        return loops(kind)

    def pack(self, cell: CellSpec, w: Weights) -> Weights:
        """Return a copy, with zeros for absent biases and empty arrays for what else is absent."""
        zero_bias = np.zeros(w.ih.shape[0], w.ih.dtype)
        b_ih = zero_bias if w.b_ih is None else w.b_ih.copy()
        b_hh = zero_bias if w.b_hh is None else w.b_hh.copy()
        copied = [None if a is None else a.copy() for a in w]
        return _no_none(Weights(*copied)._replace(b_ih=b_ih, b_hh=b_hh))

    def forward(
        self,
        cell: CellSpec,
        packed: Weights,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        *,
        reverse: bool,
        keep: bool,
        threads: int,
        reproducible: bool,
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass; see `Backend.forward`."""
        T, B, _ = x.shape
        packing = Packing(T, B, rows.order, rows.counts, rows.cut)
        H = packed.hh.shape[0] // len(cell.gates)
        width = len(cell.saved) * H
        h = packing.sort(h0)
        c = packing.sort(c0) if c0 is not None else np.empty((B, 0), x.dtype)
        if packing.rows:
            with np.errstate(all="ignore"):  # inf and NaN are results like any other
                y, all_c, saved = self.loops(cell.kind).forward(
                    packed,
                    packing.pack(x),
                    h,
                    c,
                    packing.starts,
                    packing.cut,
                    width,
                    reverse,
                    keep,
                    reproducible,
                )
        else:
            y, all_c, saved = (np.empty((0, w), x.dtype) for w in (h0.shape[1], c.shape[1], width))
        y = packing.unpack(y)
        hn, cn = packing.unsort(h), packing.unsort(c)
        kept = None
        if keep:
            kept = Saved(
                y.copy(), packing.unpack(saved), packing.unpack(all_c) if cell.has_c else None
            )
        return y, hn, cn if cell.has_c else None, kept

    def backward(
        self,
        cell: CellSpec,
        packed: Weights,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        saved: Saved,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Weights,
        *,
        reverse: bool,
        threads: int,
        reproducible: bool,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass; see `Backend.backward`."""
        T, B, I = x.shape
        packing = Packing(T, B, rows.order, rows.counts, rows.cut)
        no_c = np.empty((B, 0), x.dtype)
        dh = packing.sort(dh)
        dc = packing.sort(dc) if dc is not None else no_c
        if packing.rows:
            with np.errstate(all="ignore"):
                dx = self.loops(cell.kind).backward(
                    packed,
                    _no_none(grads),
                    packing.pack(x),
                    packing.sort(h0),
                    packing.sort(c0) if c0 is not None else no_c,
                    packing.pack(saved.y),
                    packing.pack(saved.c) if saved.c is not None else no_c[:0],
                    packing.pack(saved.gates),
                    packing.starts,
                    packing.cut,
                    packing.pack(dy) if dy is not None else np.empty((0, dh.shape[1]), x.dtype),
                    dh,
                    dc,
                    reverse,
                    reproducible,
                )
        else:
            dx = np.empty((0, I), x.dtype)
        return packing.unpack(dx), packing.unsort(dh), packing.unsort(dc) if cell.has_c else None

    def bind(
        self,
        cell: CellSpec,
        packed: Weights,
        x: Array,
        h: Array,
        c: Array | None,
        y: Array,
        *,
        threads: int,
        reproducible: bool,
    ) -> Callable[[], None]:
        """Return a function that advances one step; see `Backend.bind`."""
        forward = self.loops(cell.kind).forward
        starts = np.array([0, x.shape[0]], np.int64)
        cut = np.zeros(0, bool)
        width = len(cell.saved) * packed.hh.shape[0] // len(cell.gates)
        state_c = c if c is not None else np.empty((x.shape[0], 0), x.dtype)

        def advance() -> None:
            with np.errstate(all="ignore"):
                forward(packed, x, h, state_c, starts, cut, width, False, False, reproducible)
            y[...] = h

        return advance


def _no_none(w: Weights) -> Weights:
    """Return w with empty arrays in place of None."""
    H_or_more = w.hh.shape[0]
    return w._replace(
        b_ih=np.empty(0, w.ih.dtype) if w.b_ih is None else w.b_ih,
        b_hh=np.empty(0, w.ih.dtype) if w.b_hh is None else w.b_hh,
        hr=np.empty((0, H_or_more), w.ih.dtype) if w.hr is None else w.hr,
        peephole=np.empty((0, H_or_more), w.ih.dtype)
        if w.peephole is None
        else w.peephole.reshape(3, -1),
    )
