"""One step a call, for streams: weights packed, buffers bound, no allocation."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Protocol

import numpy as np
from numpy.typing import ArrayLike

from . import backends, checks, config
from .freezing import Snapshot
from .schedule import ALL_ROWS
from .spec import PassArgs
from .stack import Stack
from .tape import StateIndex, pair
from .typing import Array, S


class SteppedLayer(Protocol[S]):
    """What a stepper asks of the layer or cell that it runs."""

    _stack: Stack
    _state_index: ClassVar[dict[bool, StateIndex]]
    _most_steps: int

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def input_size(self) -> int: ...
    @property
    def flat_params(self) -> Array: ...
    def _snapshot(self) -> Snapshot: ...
    def _as_of(self, weights: Snapshot) -> SteppedLayer[S]: ...
    def _state(self, name: str, state: Any, batch: int | None) -> tuple[Array, Array | None]: ...
    def stepper(self, batch_size: int = 1) -> Stepper[S]: ...


class Stepper(Generic[S]):
    """Runs a layer or a cell step by step and holds the state between. Made by
    ``layer.stepper(B)``.

    The parameters are those of the moment it was made, and so is the number of threads. A stepper
    is for one thread at a time; make one for each stream. `copy.copy`, `copy.deepcopy` and pickle
    give another one with the same weights and state. In the child of a fork, one that another
    thread was using has what that thread had come to: reset it.
    """

    def __init__(self, layer: SteppedLayer[S], batch_size: int = 1) -> None:
        batch = checks.size("batch_size", batch_size)
        if batch > layer._most_steps:
            raise checks.too_large(f"a stepper of batch_size={batch}")
        if layer._stack.directions == 2:
            raise ValueError("a stepper needs a layer of one direction, got bidirectional=True")
        if layer._stack.groups[0][0].reverse:
            raise ValueError("a stepper runs from the first step on, got a layer with reverse=True")
        with backends.device_of(layer.flat_params):
            self._bind(layer, layer._snapshot(), batch, config.get_num_threads())

    def _bind(self, layer: SteppedLayer[S], weights: Snapshot, batch: int, threads: int) -> None:
        """Make the buffers and what advances a step."""
        self._layer, self._weights, self._threads = layer, weights, threads
        stack = layer._stack
        passes, (width, hidden) = stack.num_passes, stack.widths
        self._dtype = layer.dtype
        xp = self._xp = stack.backend.xp
        self._x = xp.zeros((batch, layer.input_size), self._dtype)
        self._h = xp.zeros((passes, batch, width), self._dtype)
        self._c = xp.zeros((passes, batch, hidden), self._dtype) if stack.cell.has_c else None
        outputs = xp.zeros((passes, batch, width), self._dtype)
        self._y = outputs[-1]
        # The shapes of x_t that are taken, and what is returned for each.
        self._outputs: dict[tuple[int, ...], Array] = {self._x.shape: self._y}
        if batch == 1:
            self._outputs[self._x.shape[1:]] = self._y[0]
        steps = [
            stack.backend.bind(
                packed,
                PassArgs(
                    stack.cell,
                    stack.numerics,
                    (outputs[n - 1] if n else self._x)[None],
                    self._h[n],
                    None if self._c is None else self._c[n],
                    ALL_ROWS,
                    reverse=False,
                ),
                outputs[n : n + 1],
                threads=threads,
            )
            for n, packed in enumerate(weights.packed)
        ]
        self._state = [self._h] if self._c is None else [self._h, self._c]
        self._advance = stack.backend.join(steps, self._x, self._state)
        self.reset()

    def __call__(self, x_t: Array, *, copy: bool = False) -> Array:
        """Run one step.

        Parameters
        ----------
        x_t : ndarray of the layer's dtype, (B, I), or (I,) if B is 1
        copy : bool
            Return a new array, to be kept.

        Returns
        -------
        y_t : ndarray, (B, P) or (P,)
            Without ``copy`` the stepper's own buffer, which the next call overwrites: a list of
            such steps is a list of one array.

        Raises
        ------
        TypeError, ValueError
            ``x_t`` has another type or dtype, or another shape, or ``copy`` is no bool. The state
            is untouched then.
        RuntimeError
            Another thread is using the stepper. The state is untouched then.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.GRU(2, 3, rng=0)
        >>> x = np.ones((5, 1, 2), np.float32)
        >>> step = layer.stepper()
        >>> y = np.array([step(x_t, copy=True) for x_t in x])
        >>> np.allclose(y, layer(x)[0], atol=1e-6)
        True
        """
        x_t = checks.array("x_t", x_t, self._dtype, self._x)
        y_t = self._outputs.get(x_t.shape)
        if y_t is None:
            form = [*zip("BI", self._x.shape, strict=True)]
            raise checks.wrong_shape(
                "x_t", x_t.shape, *([form, form[1:]] if len(self._outputs) == 2 else [form])
            )
        copied = copy is not False and checks.flag("copy", copy)
        self._advance(x_t)
        return y_t.copy() if copied else y_t

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._x)

    @property
    def state(self) -> S:
        """The state after the last step, as a copy in the layer's form; it can be set.

        If B is 1 it can also be set to the state of an unbatched call, and an unbatched call takes
        it.
        """
        with backends.device_of(self._h), self._advance.exclusive():
            index = self._layer._state_index[True]
            state: S = pair(self._h.copy(), None if self._c is None else self._c.copy(), index)
            return state

    @state.setter
    def state(self, state: S) -> None:
        batch = self.batch_size
        h, c = self._layer._state("state", state, None if batch == 1 else batch)
        with backends.device_of(self._h), self._advance.exclusive():
            self._h[...] = h
            if self._c is not None:
                self._c[...] = c

    def reorder(self, rows: ArrayLike) -> None:
        """Give each row the state of another, as a beam search does with those that go on.

        Parameters
        ----------
        rows : ints in 0..B-1, (B,)
            Row b goes on from the state of row ``rows[b]``. One may go on in several, or in none.

        Raises
        ------
        TypeError, ValueError
            ``rows`` does not hold ints, is not (B,), or one is out of its range. The state is
            untouched then.
        """
        chosen: Any = checks.rows("rows", rows, self.batch_size)
        with backends.device_of(self._h), self._advance.exclusive():
            chosen = self._xp.asarray(chosen)
            self._h[...] = self._h[:, chosen]
            if self._c is not None:
                self._c[...] = self._c[:, chosen]

    def reset(self, mask: Array | None = None) -> None:
        """Set the state to zeros, of all rows or of those where a mask (B,) of bools is True.

        Raises
        ------
        TypeError, ValueError
            ``mask`` is not of bools, or not (B,). The state is untouched then.
        """
        rows: Any = slice(None)
        if mask is not None:
            rows = np.flatnonzero(checks.mask("mask", mask, self.batch_size))
        with backends.device_of(self._h), self._advance.exclusive():
            if mask is not None:
                rows = self._xp.asarray(rows)
            self._h[:, rows] = 0
            if self._c is not None:
                self._c[:, rows] = 0

    def __copy__(self) -> Stepper[S]:
        copied = type(self).__new__(type(self))
        with backends.device_of(self._h):
            copied._bind(self._layer, self._weights, self.batch_size, self._threads)
        copied.state = self.state
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Stepper:
        return self.__copy__()  # the weights do not change

    def __reduce__(self) -> tuple[Any, ...]:
        layer = self._layer._as_of(self._weights)
        return _restore, (layer, self.batch_size, self._threads, self.state)


class DeviceStepper(Stepper[S]):
    """A stepper that runs on the GPU of its arrays, whatever the current one is."""

    def __call__(self, x_t: Array, *, copy: bool = False) -> Array:
        """See `Stepper.__call__`."""
        with backends.device_of(self._x):
            return super().__call__(x_t, copy=copy)


def _restore(layer: SteppedLayer[S], batch_size: int, threads: int, state: S) -> Stepper[S]:
    """Return what `Stepper.__reduce__` described."""
    with config.num_threads(threads):
        step = layer.stepper(batch_size)
    step.state = state
    return step
