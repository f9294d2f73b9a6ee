"""What launches come to: grids that CUDA takes, whatever the sizes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator import MOST_BLOCKS

from fastrnn.backends.cuda.launch import THREADS, Launcher

F4 = np.dtype(np.float32)


class Sized:
    """An array that is nothing but its shape."""

    itemsize = F4.itemsize
    data = SimpleNamespace(ptr=0)

    def __init__(self, *shape: int) -> None:
        self.shape, self.size = shape, math.prod(shape)
        self.strides = tuple(4 * math.prod(shape[k + 1 :]) for k in range(len(shape)))

    def __len__(self) -> int:
        return self.shape[0]


class Noting:
    """A device that notes the threads of each launch."""

    xp = SimpleNamespace(empty=lambda shape, dtype: Sized(*shape))

    def __init__(self) -> None:
        self.threads: list[int] = []

    def kernel(self, program: Any, name: str) -> Any:
        def launch(grid: tuple[int, ...], block: tuple[int], args: Any, shared: int = 0) -> None:
            assert all(0 < n <= most for n, most in zip(grid, MOST_BLOCKS, strict=False)), grid
            self.threads.append(math.prod(grid) * block[0])

        return launch


@pytest.fixture
def device() -> Any:
    return Noting()


def test_more_units_than_32_bits_can_count(device: Any) -> None:
    launch: Any = Launcher(device, F4)
    launch.units("restart", 2**20, 2**14, None, Sized(2**20, 2**14))
    assert device.threads == [2**34]


@pytest.mark.parametrize("rows", [1, 70_000, 2**33])
def test_sums_of_many_rows(device: Any, rows: int) -> None:
    launch: Any = Launcher(device, F4)
    launch.add_sum(Sized(2**22), Sized(rows, 2**22), False)
    assert len(device.threads) == 2
    assert device.threads[1] == 2**22


@pytest.mark.parametrize("sizes", [(2**30, 8, 40), (40, 8, 2**30), (2**17, 8, 2**17)])
def test_chains_of_large_matrices(device: Any, sizes: tuple[int, int, int]) -> None:
    M, K, N = sizes
    launch: Any = Launcher(device, F4, chain=True)
    launch.product(Sized(M, K), Sized(K, N), Sized(M, N))
    assert device.threads[0] >= M * N


def test_large_masks(device: Any) -> None:
    launch: Any = Launcher(device, F4)
    launch.mask(7, 0, 2**40 + 3, (2**20, 2**14), 0.5)
    assert 2**31 < device.threads[0] <= 2**31 + THREADS + 1
