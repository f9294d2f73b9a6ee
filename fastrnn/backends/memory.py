"""Memory that a training step leaves behind for the next one.

A system gives memory page by page at first touch, and C libraries give large blocks back as soon
as they are free: a training step that allocates anew what the last one freed spends up to a third
of its time in page faults.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

Array = np.ndarray[Any, np.dtype[Any]]

_LEAST = 1 << 16  # bytes; smaller blocks are kept by every C library
_WASTE = 1.25  # a block may be so much larger than what is asked for
_PATIENCE = 64  # requests that a block may wait for one that wants it
_LINE = 64  # bytes; blocks begin on a cache line, so that no vector load of a panel splits one


class _Loan:
    """What an array of a block refers to as its base; the block goes back when that is gone."""

    def __init__(self, block: Array, shape: tuple[int, ...], dtype: Any, back: deque[Array]):
        start = block.ctypes.data
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": np.dtype(dtype).str,
            "data": (start + -start % _LINE, False),
        }
        self._block, self._back = block, back

    def __del__(self) -> None:
        self._back.append(self._block)  # atomic: a collector may run this anywhere


class Memory:
    """Blocks of memory, lent out as arrays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._back: deque[Array] = deque()
        self._free: list[tuple[int, Array]] = []  # since which request, block
        self._requests = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array as `numpy.empty` does, on a cache line."""
        size = math.prod(shape) * np.dtype(dtype).itemsize + _LINE
        block = self._take(size) if size >= _LEAST else None
        if block is None:
            block = np.empty(size, np.uint8)
        if size < _LEAST:
            start = -block.ctypes.data % _LINE
            return block[start : start + size - _LINE].view(dtype).reshape(shape)
        return np.asarray(_Loan(block, shape, dtype, self._back))

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def _take(self, size: int) -> Array | None:
        """Return the free block that fits best, if one fits; let go of those that no one wants."""
        with self._lock:
            self._requests += 1
            while self._back:
                self._free.append((self._requests, self._back.popleft()))
            fits = [entry for entry in self._free if size <= entry[1].nbytes <= _WASTE * size]
            best = min(fits, key=lambda entry: entry[1].nbytes, default=None)
            self._free = [
                entry
                for entry in self._free
                if entry is not best and self._requests - entry[0] < _PATIENCE
            ]
        return None if best is None else best[1]
