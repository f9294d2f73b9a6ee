"""torch's packed sequences as padded ones with lengths, and back."""

from __future__ import annotations

import numpy as np

from .. import backends
from ..typing import Array


class Packing:
    """How the rows of a packed sequence lie.

    A packed sequence of torch holds its rows by falling length, and of these the steps one after
    the other: first step 0 of all rows, then step 1 of those that have one, and so on. That is the
    order of the valid places of a padded (T, B) too, so no row needs to be known by itself.

    Parameters
    ----------
    batch_sizes : ints (T,)
        How many rows have each step, the first of them B.
    """

    def __init__(self, batch_sizes: Array) -> None:
        batch = int(batch_sizes[0]) if batch_sizes.size else 0
        valid = np.arange(batch) < batch_sizes[:, None]
        self.shape = valid.shape
        self.lengths = None if valid.all() else valid.sum(axis=0)
        self._places = np.flatnonzero(valid)

    def pad(self, packed: Array) -> Array:
        """Return (T, B, n) of (valid places, n), with zeros elsewhere."""
        steps, batch = self.shape
        if self.lengths is None:
            return packed.reshape(steps, batch, -1)
        xp = backends.namespace(packed)
        padded: Array = xp.zeros((steps * batch, packed.shape[1]), packed.dtype)
        padded[xp.asarray(self._places)] = packed
        return padded.reshape(steps, batch, -1)

    def pack(self, padded: Array) -> Array:
        """Return (valid places, n) of (T, B, n)."""
        rows = padded.reshape(-1, padded.shape[2])
        if self.lengths is None:
            return rows
        picked: Array = rows.take(backends.namespace(padded).asarray(self._places), axis=0)
        return picked
