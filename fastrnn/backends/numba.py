"""The fallback where there is no compiled extension: the text of the reference, through Numba.

Nothing is imported or compiled before the first pass. What has been compiled is kept on disk by
Numba, where it finds a place to write.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from typing import Any

import numpy as np

from fastrnn import forks
from fastrnn.cellmath import MATHS, CellMath, general, gru, lstm, ops, rnn
from fastrnn.cellmath.weights import CellWeights
from fastrnn.spec import CellSpec, Numerics, OutputGradients, PassArgs, Saved, Weights
from fastrnn.typing import Array

from . import numba_tanh, sequence
from . import numpy as reference

_JITTED = (
    ops.add,
    ops.add_parts,
    ops.add_row,
    ops.add_scaled,
    ops.add_sum,
    ops.sigmoid_block,
    ops.tanh_block,
    ops.copy,
    ops.restart,
    ops.settle,
    gru.gate_r_and_z,
    gru.mix,
    gru.recurrent_side,
    gru.gradients_reset_after,
    gru.gradients_reset_before,
    general.clip_block,
    general.activate_block,
    general.gru_gates,
    general.gru_mix,
    general.gru_activations,
    general.gru_backward_n_and_z,
    general.lstm_activations,
    general.lstm_output,
    lstm.output,
    sequence.before,
)


def _sigmoid(x: Any) -> Any:
    half = type(x)(0.5)  # 0.5 alone would make float32 a float64
    return half + half * ops.tanh(half * x)


def _activate(x: Any, how: int, slope: Any) -> Any:
    zero, half, one = type(x)(0), type(x)(0.5), type(x)(1)
    if how == ops.TANH:
        return ops.tanh(x)
    if how == ops.SIGMOID:
        return half + half * ops.tanh(half * x)
    if how == ops.RELU:
        return zero if x <= zero else x
    y = slope * x + half
    y = zero if y < zero else y  # NaN goes through both
    return one if y > one else y


def _clip(x: Any, limit: Any) -> Any:
    x = limit if x > limit else x
    return -limit if x < -limit else x


def _through(d: Any, x: Any, y: Any, how: int, slope: Any, limit: Any) -> Any:
    zero, one = type(x)(0), type(x)(1)
    if limit < np.inf and (x >= limit or x <= -limit):
        return zero
    if how == ops.TANH:
        return d * (one - y * y)
    if how == ops.SIGMOID:
        return d * (y * (one - y))
    if how == ops.RELU:
        return zero if y <= zero else d
    return zero if y <= zero or y >= one else slope * d


def _product(a: Array, b: Array, chain: bool) -> Array:
    if not chain:
        result: Array = np.dot(a, b)
        return result
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] += a[i, k] * b[k, j]
    return out


def _add_product(out: Array, a: Array, b: Array, chain: bool, last_first: bool) -> None:
    if not chain:
        ops.add(out, np.dot(a.T, b))
        return
    n = a.shape[0]
    for m in range(a.shape[1]):
        for k in range(n):
            row = n - 1 - k if last_first else k
            for j in range(b.shape[1]):
                out[m, j] += a[row, m] * b[row, j]


# Scalars in place of arrays, loops in place of temporaries. By the types of the arguments.
_OVERLOADS: dict[Callable[..., Any], Callable[..., Callable[..., Any]]] = {
    ops.every: lambda n: lambda n: range(n),
    ops.tanh: lambda x: numba_tanh.float32 if x.bitwidth == 32 else numba_tanh.float64,
    ops.sigmoid: lambda x: _sigmoid,
    ops.activate: lambda *_: _activate,
    ops.clip: lambda *_: _clip,
    ops.through: lambda *_: _through,
    ops.product: lambda *_: _product,
    ops.add_product: lambda *_: _add_product,
}

_lock = forks.Lock()

PIECE = 10**8
"""Floating-point operations of a piece."""


def why_not() -> str | None:
    """Return why this backend cannot be used, or None if it can."""
    try:
        import_module("numba")
        import_module("scipy")  # whose BLAS Numba calls
    except ImportError as error:
        return f'Numba or SciPy is not usable ({error}): pip install "fastrnn[numba]"'
    return None


def _settles(w: Weights | CellWeights) -> bool:
    """Return whether some product of a pass has more terms than a sum of one chain."""
    matrices = [w.ih, w.hh] if w.hr is None else [w.ih, w.hh, w.hr]
    longest: int = max(max(matrix.shape) for matrix in matrices)
    return longest > ops.CHAIN_TERMS


class NumbaBackend(reference.NumpyBackend):
    """The reference's loops, compiled. Ignores `threads`, as the reference does."""

    name = "numba"
    time_loop = "compiled by Numba"

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass would be run; see `Backend.explain`."""
        how = super().explain(cell, w, T, B, threads=threads, numerics=numerics)
        return how | {"time loop": super().time_loop} if _settles(w) else how

    def loops(self, cell: CellSpec, w: CellWeights) -> reference.Loops:
        """Return the loops of a cell, compiled when they are first called.

        Of sums that must be settled they are NumPy's own: to compile that too would make every
        layer's first call longer by half, and beside such products a step in NumPy costs little.
        """
        if _settles(w):
            return super().loops(cell, w)
        with _lock.held:
            return _compiled(MATHS[cell.kind])

    def forward(
        self, weights: CellWeights, args: PassArgs, *, save: bool, threads: int
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass, in pieces between which Python handles signals; see `Backend.forward`."""
        forward = super().forward
        pieces = _Pieces(args.x, weights, args.reverse)
        if pieces.count < 2:
            return forward(weights, args, save=save, threads=threads)
        x, h, c = args.x, args.h0, args.c0
        y = np.empty((*x.shape[:2], h.shape[1]), x.dtype)
        whole = None
        for at in map(pieces.at, range(pieces.count)):
            rows = args.rows.span(at.start, at.stop)
            piece = args._replace(x=x[at], h0=h, c0=c, rows=rows)
            y[at], h, c, saved = forward(weights, piece, save=save, threads=threads)
            if saved is not None:
                if whole is None:
                    whole = Saved._make(_longer(a, len(x)) for a in saved)
                for every, part in zip(whole, saved, strict=True):
                    if every is not None:
                        every[at] = part
        return y, h, c, whole

    def backward(
        self,
        weights: CellWeights,
        args: PassArgs,
        saved: Saved,
        douts: OutputGradients,
        grads: Weights | reference.Sums,
        *,
        threads: int,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass, in such pieces; see `Backend.backward`."""
        backward = super().backward
        x, reverse = args.x, args.reverse
        pieces = _Pieces(x, weights, reverse)
        if pieces.count < 2:
            return backward(weights, args, saved, douts, grads, threads=threads)
        sums = reference.Sums(grads, 1) if isinstance(grads, Weights) else grads
        sums.expect(pieces.count - 1)
        dx = np.empty_like(x)
        dy, dh, dc = douts
        for at in map(pieces.at, reversed(range(pieces.count))):
            last = at.stop if reverse else at.start - 1  # the step before the first one
            h, c = args.h0, args.c0
            if 0 <= last < len(x):
                ran = args.rows.span(last, last + 1).active(1, x.shape[1]).T
                h = np.where(ran, saved.y[last], h)
                c = None if c is None or saved.c is None else np.where(ran, saved.c[last], c)
            rows = args.rows.span(at.start, at.stop)
            dx[at], dh, dc = backward(
                weights,
                args._replace(x=x[at], h0=h, c0=c, rows=rows),
                Saved._make(None if a is None else a[at] for a in saved),
                OutputGradients(None if dy is None else dy[at], dh, dc),
                sums,
                threads=threads,
            )
        return dx, dh, dc


class _Pieces:
    """Steps that take some 50 ms together, in the order in which they run."""

    def __init__(self, x: Array, weights: CellWeights, reverse: bool) -> None:
        self._total, batch, size = x.shape
        operations = 2 * batch * weights.hh.shape[0] * (size + weights.hh.shape[1])
        whole = max(1, sequence.CHUNK_ROWS // max(1, batch))  # steps of a product over rows
        self._steps = max(1, PIECE // max(1, operations * whole)) * whole
        self._reverse = reverse
        self.count = -(-self._total // self._steps)

    def at(self, number: int) -> slice:
        """Return the steps of a piece."""
        start = number * self._steps
        stop = min(self._total, start + self._steps)
        return (
            slice(self._total - stop, self._total - start) if self._reverse else slice(start, stop)
        )


def _longer(a: Array | None, steps: int) -> Array | None:
    return None if a is None else np.empty((steps, *a.shape[1:]), a.dtype)


@cache
def _compiled(math: CellMath) -> reference.Loops:
    _register_overloads()
    register: Any = import_module("numba.extending").register_jitable
    plain = reference.loops(math)
    for function in (*math, *plain):
        register(function)
    forward = _jit(plain.forward, math.forward)
    backward = _jit(plain.backward, math.backward)
    return reference.Loops(_interruptible(forward), _interruptible(backward))


def _interruptible(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop that raises what a signal's handler raised, such as `KeyboardInterrupt`.

    Numba makes arrays of a loop's results with the help of a Python function. What is raised there
    ends as the cause of a `SystemError`, or of a chain of them.
    """

    @wraps(loop, updated=())
    def call(*args: Any) -> Any:
        try:
            return loop(*args)
        except SystemError as error:
            raised: BaseException | None = error
            while isinstance(raised, SystemError):
                raised = raised.__cause__
            if raised is None:
                raise
            raise raised from None

    return call


@cache
def _register_overloads() -> None:
    extending: Any = import_module("numba.extending")
    for function, overload in _OVERLOADS.items():
        # strict=False: the annotations of the two need not be the same. "numpy": a division by zero
        # is inf; the check for an error would keep loops from becoming vector code.
        extending.overload(function, strict=False, jit_options={"error_model": "numpy"})(overload)
    for function in _JITTED:
        extending.register_jitable(function)


def _jit(loop: Callable[..., Any], step: Callable[..., None]) -> Callable[..., Any]:
    """Return the compiled loop, named after the step in it.

    The names matter. Numba makes a symbol of a function's name, types and running number; loops of
    one name, compiled by two processes and kept on disk, may thus have one symbol, and a third
    process would run one cell's loop for another's. And Numba finds what it keeps by the name, text
    and closure of the function it was asked to compile, not of those called: without the digest of
    all the text, an upgrade could run the old cell maths.
    """
    njit: Any = import_module("numba").njit
    loop.__qualname__ = f"{step.__module__}.{step.__qualname__}.loop"

    def entry(*args):  # type: ignore[no-untyped-def]
        return loop(*args)

    try:
        entry.__qualname__ = f"{loop.__qualname__}.{_digest()}"
        return njit(entry, nogil=True, cache=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError):  # no source file, or no place to write
        entry.__qualname__ = f"{loop.__qualname__}.entry"
        return njit(entry, nogil=True)  # type: ignore[no-any-return]


@cache
def _digest() -> str:
    modules = (ops, general, gru, lstm, rnn, sequence, numba_tanh, sys.modules[__name__])
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:16]
