"""One step a call, for streams: weights packed, buffers bound, no allocation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import backends, checks, config
from .tape import State, pair

if TYPE_CHECKING:
    from .recurrent import Recurrent

Array = np.ndarray[Any, np.dtype[Any]]


class Stepper:
    """Runs a layer or a cell step by step and holds the state between. Made by
    ``layer.stepper(B)``.

    The parameters are those of the moment it was made, and so is the number of threads. A stepper
    is for one thread at a time; make one for each stream.
    """

    def __init__(self, layer: Recurrent, batch_size: int = 1) -> None:
        batch = checks.size("batch_size", batch_size)
        if batch > layer._most_steps:
            raise checks.too_large(f"a stepper of batch_size={batch}")
        if layer._network.directions == 2:
            raise ValueError("a stepper needs a layer of one direction, got bidirectional=True")
        if layer._network.levels[0][0].reverse:
            raise ValueError("a stepper runs from the first step on, got a layer with reverse=True")
        self._layer = layer
        with backends.there(layer.flat_params):
            self._bind(batch)

    def _bind(self, batch: int) -> None:
        """Make the buffers and the function that advances a step."""
        layer = self._layer
        network = layer._network
        passes, (width, hidden) = network.num_passes, network.widths
        self._dtype = layer.dtype
        xp = self._xp = network.backend.xp
        self._x = xp.zeros((batch, layer.input_size), self._dtype)
        self._h = xp.zeros((passes, batch, width), self._dtype)
        self._c = xp.zeros((passes, batch, hidden), self._dtype) if network.cell.has_c else None
        outputs = xp.zeros((passes, batch, width), self._dtype)
        self._y = outputs[-1]
        # The shapes of x_t that are taken, and what is returned for each.
        self._outputs: dict[tuple[int, ...], Array] = {self._x.shape: self._y}
        if batch == 1:
            self._outputs[self._x.shape[1:]] = self._y[0]
        steps = [
            network.backend.bind(
                network.cell,
                packed,
                outputs[n - 1] if n else self._x,
                self._h[n],
                None if self._c is None else self._c[n],
                outputs[n],
                threads=config.get_num_threads(),
                numerics=network.numerics,
            )
            for n, packed in enumerate(layer._pack())
        ]
        self._advance = network.backend.join(steps)
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
        self._x[...] = x_t
        self._advance()
        return y_t.copy() if copied else y_t

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self._x)

    @property
    def state(self) -> State:
        """The state after the last step, as a copy in the layer's form; it can be set.

        If B is 1 it can also be set to the state of an unbatched call, and an unbatched call takes
        it.
        """
        with backends.there(self._h):
            index = self._layer._state_index[True]
            return pair(self._h.copy(), None if self._c is None else self._c.copy(), index)

    @state.setter
    def state(self, state: State) -> None:
        batch = self.batch_size
        h, c = self._layer._state("state", state, None if batch == 1 else batch)
        with backends.there(self._h):
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
        with backends.there(self._h):
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
        with backends.there(self._h):
            if mask is not None:
                rows = self._xp.asarray(rows)
            self._h[:, rows] = 0
            if self._c is not None:
                self._c[:, rows] = 0


class PlacedStepper(Stepper):
    """A stepper that runs on the GPU of its arrays, whatever the current one is."""

    def __call__(self, x_t: Array, *, copy: bool = False) -> Array:
        """See `Stepper.__call__`."""
        with backends.there(self._x):
            return super().__call__(x_t, copy=copy)
