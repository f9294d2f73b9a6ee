"""Processes for tests of `fastrnn.distributed`: threads of one, or programs under MPI or gloo."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class ThreadGroup:
    """Threads that sum and broadcast as processes would; `ranks` has one communicator for each."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=1800)
        self._flats: list[Any] = [None] * size
        self.calls = 0
        self.bytes = 0
        self.ranks = [Rank(self, rank, size) for rank in range(size)]

    def meet(self, rank: int, flat: Any, combine: Callable[[list[Any]], Any]) -> None:
        self._flats[rank] = flat
        self._barrier.wait()
        sizes = {each.shape for each in self._flats}
        assert len(sizes) == 1, sizes
        result = combine(self._flats)
        self._barrier.wait()
        flat[:] = result
        if rank == 0:
            self.calls += 1
            self.bytes += flat.nbytes
        self._barrier.wait()

    def run(self, program: Callable[[Any], Any]) -> list[Any]:
        """Run a program on each rank; return what each returned or raised."""
        results: list[Any] = [None] * len(self.ranks)

        def one(rank: int) -> None:
            try:
                results[rank] = program(self.ranks[rank])
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(n,)) for n in range(len(self.ranks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


class Rank:
    """The communicator of one thread."""

    def __init__(self, group: ThreadGroup, rank: int, size: int) -> None:
        self._group = group
        self.rank = rank
        self.size = size

    def allreduce_(self, flat: Any) -> None:
        assert flat.dtype == np.float64
        assert flat.ndim == 1
        assert flat.flags.c_contiguous
        self._group.meet(self.rank, flat, lambda flats: np.sum(flats, axis=0))

    def broadcast_(self, flat: Any) -> None:
        assert flat.dtype == np.float64
        assert flat.flags.c_contiguous
        self._group.meet(self.rank, flat, lambda flats: flats[0].copy())
