"""What a backend is: the interface between `fastrnn.stack` and the kernels.

Everything above it (layers, directions, dropout, checkpoints) knows no cell; everything below it
knows no layers. Letters: as in `fastrnn.spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from fastrnn import checks, forks, typing
from fastrnn.spec import CellSpec, Numerics, OutputGradients, PassArgs, Saved, Weights
from fastrnn.typing import Array


class Backend(Protocol):
    """One engine. Callers have checked every shape and dtype before."""

    name: typing.Backend
    xp: Any
    """The namespace of the arrays it takes and returns: numpy, or cupy."""
    new_gradients: Callable[[int, np.dtype[Any]], Array] | None
    """Makes a vector for all gradients, unset where `backward` sets it; None: the
    namespace's zeros do."""

    def mask(
        self,
        seed: int,
        layer: int,
        start: int,
        shape: tuple[int, ...],
        p: float,
        dtype: np.dtype[Any],
    ) -> Array:
        """Return a dropout mask; see `fastrnn.dropout.mask`, whose bits it has."""

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass over x (T, B, I) would be run, and why, in words of its own."""

    def pack(
        self,
        cell: CellSpec,
        w: Weights,
        *,
        backward: bool,
        threads: int,
        weight_dtype: str | None = None,
        single_use: bool = False,
    ) -> Any:
        """Return the weights as the kernels want them: a snapshot that shares no memory with w.

        Parameters
        ----------
        backward : it is to serve `backward` too, not `forward` alone
        weight_dtype : the type, "bfloat16" or "int8", to which the matrices have been rounded
            (`fastrnn.quantize`), in which a backend may keep them
        single_use : `forward` is called once, before w changes, so that it may share w's memory
            then
        """

    def forward(
        self, weights: Any, args: PassArgs, *, save: bool, threads: int
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass.

        Parameters
        ----------
        weights : from `pack`
        save : also return what `backward` needs

        Returns
        -------
        y : (T, B, P), 0 where a row does not run
        hn, cn : (B, P), (B, H) or None; new arrays
        saved : Saved or None
        """

    def sums(self, grads: Weights, calls: int) -> Any:
        """Return what takes the place of `grads` in so many calls of `backward`.

        The calls are the spans of one sequence, in the order of backpropagation. After the last,
        `grads` are the sums over all rows: with reproducible=True, the bits of one call.
        """

    def backward(
        self,
        weights: Any,
        args: PassArgs,
        saved: Saved,
        douts: OutputGradients,
        grads: Any,
        *,
        threads: int,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass.

        Parameters
        ----------
        weights, args, saved : of `forward`
        douts : gradients by what it returned; left as they are
        grads : Weights in a vector as `new_gradients` made it, in which the parameters' gradients
            are set; or what `sums` made of them

        Returns
        -------
        dx : (T, B, I), 0 where a row does not run
        dh0, dc0 : (B, P), (B, H) or None; new arrays
        """

    def bind(self, weights: Any, args: PassArgs, y: Array, *, threads: int) -> object:
        """Return one pass over one step, for `join`.

        It reads ``args.x`` (1, B, I), updates ``args.h0`` and ``args.c0`` in place and writes
        y (1, B, P); all C-contiguous.
        """

    def join(self, passes: Sequence[Any], x: Array, state: Sequence[Array]) -> Steps:
        """Return what runs, one after the other, what `bind` returned for the passes of one step.

        It may have been run once when this returns.

        Parameters
        ----------
        x : what the first of them reads
        state : what they update: h and, for cells that have it, c
        """


class Steps(Protocol):
    """A stepper's engine. Its buffers are for one thread at a time."""

    def __call__(self, x_t: Array) -> None:
        """Copy x_t (B, I), or (I,) for one row, to where the first pass reads it; run all.

        Raises
        ------
        RuntimeError
            Another thread has the buffers.
        """

    def exclusive(self) -> AbstractContextManager[object]:
        """Return a context that has the buffers; raise as a call does."""


class Sequential:
    """`Steps` in Python."""

    def __init__(
        self, passes: Sequence[Callable[[], None]], x: Array, state: Sequence[Array]
    ) -> None:
        self._passes, self._x, self._state = passes, x, state
        self._lock = forks.Lock()

    def __call__(self, x_t: Array) -> None:
        """See `Steps.__call__`. An exception between the passes, as Ctrl-C makes one, leaves the
        state before the step."""
        with self.exclusive():
            before = [a.copy() for a in self._state]
            try:
                self._x[...] = x_t
                for run in self._passes:
                    run()
            except BaseException:
                for a, value in zip(self._state, before, strict=True):
                    a[...] = value
                raise

    def exclusive(self) -> AbstractContextManager[object]:
        """See `Steps.exclusive`. Of threads that come at the same moment, one waits."""
        return self._lock.claim(checks.stepper_in_use)
