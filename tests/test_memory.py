"""Blocks of memory that come back."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from fastrnn.backends import memory

FLOAT = np.dtype(np.float32)
MANY = 1 << 18  # floats, a megabyte


def address(array: np.ndarray) -> int:  # type: ignore[type-arg]
    return array.ctypes.data


def test_a_block_comes_back_when_its_last_view_is_gone() -> None:
    pool = memory.Memory()
    first = pool.empty((MANY,), FLOAT)
    where, view = address(first), first[10:].reshape(2, -1)
    del first
    other = pool.empty((MANY,), FLOAT)
    assert address(other) != where
    del view
    assert address(pool.empty((MANY // 2, 2), FLOAT)) == where


def test_arrays_are_on_a_cache_line_and_can_be_written() -> None:
    pool = memory.Memory()
    for shape in ((3,), (0, 5), (MANY, 1), (7, 11, 1000)):
        array = pool.aligned(shape, FLOAT)
        assert address(array) % 64 == 0
        assert (array.shape, array.dtype) == (shape, FLOAT)
        array[...] = 1
        np.testing.assert_array_equal(pool.zeros(shape, FLOAT), np.zeros(shape))


def test_a_much_larger_block_is_not_wasted() -> None:
    pool = memory.Memory()
    where = address(pool.empty((4 * MANY,), FLOAT))
    assert address(pool.empty((MANY,), FLOAT)) != where


def test_what_no_one_asks_for_again_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = memory.Memory()
    array = pool.empty((MANY,), FLOAT)
    block = weakref.ref(array.base._block)
    del array
    for _ in range(memory._PATIENCE + 1):
        assert block() is not None
        kept = pool.empty((4 * MANY,), FLOAT)
    del kept
    gc.collect()
    assert block() is None


def test_threads_never_share_a_block() -> None:
    pool = memory.Memory()
    wrong = []

    def work(mark: int) -> None:
        for _ in range(300):
            array = pool.empty((MANY // 8,), FLOAT)
            array.fill(mark)
            if not (array == mark).all():
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
