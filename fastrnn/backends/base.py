"""What a backend is: the narrow waist between `fastrnn.network` and the kernels.

One *pass* is one layer in one direction over a span of time. Everything above it (layers,
directions, dropout, checkpoints) knows no cell; everything below it knows no layers.

Letters: T time, B batch, I input, H hidden, P projection (or H), G gates, S saved values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from fastrnn import checks, forks, typing

if TYPE_CHECKING:
    from fastrnn.cellmath import CellSpec
    from fastrnn.rows import Rows

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Weights(NamedTuple):
    """Parameters of one layer in one direction, or their gradients. None where absent."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, P)
    b_ih: Array | None = None  # (G*H,)
    b_hh: Array | None = None  # (G*H,)
    hr: Array | None = None  # (P, H)
    peephole: Array | None = None  # (3*H,), rows i, f, o

    def copied(self) -> Weights:
        """Return a copy that shares no memory with this."""
        # mypy: a list of optional arrays for fields of which two are never None
        return Weights(*[None if a is None else a.copy() for a in self])  # type: ignore[arg-type]


class Saved(NamedTuple):
    """What backward needs of one pass. Never shares memory with what forward returned as y.

    Of gates and c, what belongs to a row that does not run may be anything.
    """

    y: Array  # (T, B, P), h after every step, 0 where the row does not run
    gates: Array  # (T, B, S*H), the values named in CellSpec.saved, in that order
    c: Array | None  # (T, B, H), c after every step; None for cells without c


class Numerics(NamedTuple):
    """How exact a layer wants its sums; see the layers' arguments of these names."""

    precision: str = "highest"
    reproducible: bool = False


class Backend(Protocol):
    """One engine. Callers have checked every shape and dtype before."""

    name: typing.Backend
    xp: Any
    """The namespace of the arrays it takes and returns: numpy, or cupy."""
    new_gradients: Callable[[int, np.dtype[Any]], Array] | None
    """Makes a vector for all gradients, unset where `backward` sets it; None: the
    namespace's zeros do."""

    def has(self, cell: CellSpec) -> bool:
        """Return whether it computes this cell."""

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
        narrow: str | None = None,
        once: bool = False,
    ) -> object:
        """Return the weights as the kernels want them: a snapshot that shares no memory with w.

        Parameters
        ----------
        backward : it is to serve `backward` too, not `forward` alone
        narrow : the type, "bfloat16" or "int8", to which the matrices have been rounded
            (`fastrnn.narrow`), in which an engine may keep them
        once : `forward` is called once, before w changes, so that it may share w's memory then
        """

    def forward(
        self,
        cell: CellSpec,
        packed: Any,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        *,
        reverse: bool,
        keep: bool,
        threads: int,
        numerics: Numerics,
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass.

        Parameters
        ----------
        x : (T, B, I), any strides
        h0 : (B, P), C-contiguous
        c0 : (B, H), C-contiguous, or None for cells without c
        rows : which rows run at which step, and where they start from zeros
        reverse : run t = T-1 .. 0
        keep : also return what `backward` needs

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
        cell: CellSpec,
        packed: Any,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        saved: Saved,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Any,
        *,
        reverse: bool,
        threads: int,
        numerics: Numerics,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass.

        Parameters
        ----------
        dy : (T, B, P), any strides, or None; ignored where a row does not run
        dh, dc : (B, P), (B, H) or None; gradients of hn and cn; left as they are
        grads : Weights in a vector as `new_gradients` made it, in which the parameters' gradients
            are set; or what `sums` made of them

        Returns
        -------
        dx : (T, B, I), 0 where a row does not run
        dh0, dc0 : (B, P), (B, H) or None; new arrays
        """

    def bind(
        self,
        cell: CellSpec,
        packed: Any,
        x: Array,
        h: Array,
        c: Array | None,
        y: Array,
        *,
        threads: int,
        numerics: Numerics,
    ) -> object:
        """Return one pass over one step, for `join`.

        It reads x (B, I), updates h (B, P) and c (B, H) in place and writes y (B, P); all
        C-contiguous.
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

    def mine(self) -> AbstractContextManager[object]:
        """Return a context that has the buffers; raise as a call does."""


class InTurn:
    """`Steps` in Python."""

    def __init__(
        self, passes: Sequence[Callable[[], None]], x: Array, state: Sequence[Array]
    ) -> None:
        self._passes, self._x, self._state = passes, x, state
        self._lock = forks.Lock()

    def __call__(self, x_t: Array) -> None:
        """See `Steps.__call__`. An exception between the passes, as Ctrl-C makes one, leaves the
        state before the step."""
        with self.mine():
            before = [a.copy() for a in self._state]
            try:
                self._x[...] = x_t
                for run in self._passes:
                    run()
            except BaseException:
                for a, value in zip(self._state, before, strict=True):
                    a[...] = value
                raise

    def mine(self) -> AbstractContextManager[object]:
        """See `Steps.mine`. Of threads that come at the same moment, one waits for the other."""
        held = self._lock.held
        if held.locked():
            raise checks.stepper_in_use()
        return held
