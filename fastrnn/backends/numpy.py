"""The readable reference: the time loops of `sequence` as NumPy runs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastrnn import dropout
from fastrnn.cellmath import MATHS, CellMath
from fastrnn.cellmath.ops import settle, settled
from fastrnn.cellmath.weights import CellGradients, CellWeights, option_codes
from fastrnn.spec import CellSpec, Numerics, Options, OutputGradients, PassArgs, Saved, Weights
from fastrnn.typing import Array

from . import sequence
from .base import Sequential
from .packed_sequence import PackedSequence

_NO_OPTIONS = Options()


class Loops(NamedTuple):
    """The two passes of a cell, from `sequence.make_forward` and `sequence.make_backward`."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


def why_not() -> str | None:
    """Return why this backend cannot be used: never."""
    return None


@cache
def loops(cell: CellMath) -> Loops:
    """Return the loops of a cell."""
    return Loops(
        sequence.make_forward(cell.forward),
        sequence.make_backward(cell.backward, cell.gradients),
    )


class Sums:
    """Gradients that are summed up by so many calls; see `Backend.sums` and `sequence`."""

    def __init__(self, grads: Weights, calls: int) -> None:
        self._grads = grads
        self._calls = calls
        shapes = [(0,) if a is None else a.shape for a in grads]
        if grads.hr is None:
            shapes[4] = 0, 0
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        self.rows = 0
        self.sums = np.zeros((3, ends[-1]), grads.ih.dtype)
        parts = np.split(self.sums[0], ends[:-1])
        self.parts = CellGradients(*map(np.reshape, parts, shapes))

    def expect(self, calls: int) -> None:
        """Wait for so many calls more."""
        self._calls += calls

    def add(self, rows: int) -> None:
        """Count the rows of a call; after the last one, set the gradients."""
        self.rows += rows
        self._calls -= 1
        if not self._calls:
            settle(self.sums)
            self.sums[0] = settled(self.sums)
            for grad, part in zip(self._grads, self.parts, strict=True):
                if grad is not None:
                    grad[...] = part


class NumpyBackend:
    """The reference. Ignores `threads`: a BLAS underneath may have its own."""

    name = "numpy"
    time_loop = "Python"
    xp = np
    new_gradients = None
    mask = staticmethod(dropout.mask)
    sums = Sums

    def loops(self, cell: CellSpec, w: CellWeights) -> Loops:
        """Return the loops of a cell, for weights of these sizes."""
        return loops(MATHS[cell.kind])

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass would be run; see `Backend.explain`."""
        products = "one chain a sum" if numerics.reproducible else "numpy.matmul"
        return {"products": products, "time loop": self.time_loop}

    def pack(
        self,
        cell: CellSpec,
        w: Weights,
        *,
        backward: bool,
        threads: int,
        weight_dtype: str | None = None,
        single_use: bool = False,
    ) -> CellWeights:
        """Return a copy, or views for one call; see `Backend.pack`."""
        if backward or not single_use:
            w = w.copied()
        H = w.hh.shape[0] // len(cell.gates)
        zeros = np.zeros(w.hh.shape[0], w.hh.dtype)
        none = np.zeros((0, H), w.hh.dtype)
        return CellWeights(
            ih=w.ih,
            hh=w.hh,
            b_ih=zeros if w.b_ih is None else w.b_ih,
            b_hh=(zeros if w.b_hh is None else w.b_hh).reshape(-1, H),
            hr=none if w.hr is None else w.hr,
            peephole=none if w.peephole is None else w.peephole.reshape(3, H),
            options=option_codes(cell.options or _NO_OPTIONS, w.hh.dtype),
        )

    def forward(
        self, weights: CellWeights, args: PassArgs, *, save: bool, threads: int
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass; see `Backend.forward`."""
        cell, numerics, x, h0, c0, rows, reverse = args
        T, B, _ = x.shape
        packed = PackedSequence(T, B, rows)
        h, c = packed.sort(h0), packed.sort(_or_empty(c0, h0))
        S = len(cell.saved)
        with np.errstate(all="ignore"):  # inf and NaN are results like any other
            packed_y, all_c, gates = self.loops(cell, weights).forward(
                weights,
                packed.pack(x),
                h,
                c,
                packed.starts,
                packed.resets,
                S,
                reverse,
                save,
                numerics.reproducible,
            )
        y = packed.unpack(packed_y)
        hn, cn = packed.unsort(h), packed.unsort(c) if cell.has_c else None
        if not save:
            return y, hn, cn, None
        saved = Saved(
            y=y.copy(),
            gates=packed.unpack(gates.reshape(packed.rows, S * gates.shape[2])),
            c=packed.unpack(all_c) if cell.has_c else None,
        )
        return y, hn, cn, saved

    def backward(
        self,
        weights: CellWeights,
        args: PassArgs,
        saved: Saved,
        douts: OutputGradients,
        grads: Weights | Sums,
        *,
        threads: int,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass; see `Backend.backward`."""
        cell, numerics, x, h0, c0, rows, reverse = args
        T, B, _ = x.shape
        packed = PackedSequence(T, B, rows)
        dh, dc = packed.sort(douts.dh), packed.sort(_or_empty(douts.dc, douts.dh))
        H = weights.b_hh.shape[1]
        sums = Sums(grads, 1) if isinstance(grads, Weights) else grads
        with np.errstate(all="ignore"):
            dx = self.loops(cell, weights).backward(
                weights,
                sums.parts,
                sums.sums,
                sums.rows,
                packed.pack(x),
                packed.sort(h0),
                packed.sort(_or_empty(c0, h0)),
                packed.pack(saved.y),
                packed.pack(_or_empty(saved.c, saved.y)),
                packed.pack(saved.gates).reshape(packed.rows, len(cell.saved), H),
                packed.starts,
                packed.resets,
                packed.pack(_or_empty(douts.dy, saved.y)),
                dh,
                dc,
                reverse,
                numerics.reproducible,
            )
            sums.add(packed.rows)
        return packed.unpack(dx), packed.unsort(dh), packed.unsort(dc) if cell.has_c else None

    def bind(
        self, weights: CellWeights, args: PassArgs, y: Array, *, threads: int
    ) -> Callable[[], None]:
        """Return a function that advances one step; see `Backend.bind`."""
        forward = self.loops(args.cell, weights).forward
        S = len(args.cell.saved)
        x, h, c = args.x[0], args.h0, _or_empty(args.c0, args.h0)
        starts = np.array([0, x.shape[0]], np.int64)
        resets = np.zeros(0, bool)
        chain = args.numerics.reproducible

        def advance() -> None:
            with np.errstate(all="ignore"):
                forward(weights, x, h, c, starts, resets, S, False, False, chain)
            y[0] = h

        return advance

    join = Sequential


def _or_empty(a: Array | None, like: Array) -> Array:
    """Return a, or for None an array like `like` but of width 0."""
    return np.empty((*like.shape[:-1], 0), like.dtype) if a is None else a
