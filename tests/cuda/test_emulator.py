"""The emulator itself: it runs kernels right, and finds what is wrong with them."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from emulator import HEADER, EmulatedDevice, build

pytestmark = pytest.mark.usefixtures("compiler")

PRELUDE = HEADER.read_text()

# Each block turns its part of `a` around, through shared memory.
TURN = """
extern "C" __global__ void turn(const double* a, double* out) {
  double* shared = shared_memory<double>();
  const int i = threadIdx.x, n = blockDim.x;
  shared[i] = a[blockIdx.x * n + i];
  BARRIER
  out[blockIdx.x * n + i] = shared[n - 1 - i];
}
"""


def run(text: str, name: str, grid: int, block: int, *args: Any, seed: int = 0, **how: Any) -> None:
    device = EmulatedDevice()
    device.seed = seed
    cooperative = how.pop("cooperative", False)
    pointers = tuple(a.data.ptr if isinstance(a, fake_cupy.ndarray) else a for a in args)
    kernel = device.wrap(build(PRELUDE + text), name, cooperative)
    kernel((grid,), (block,), pointers, how.get("shared", 0))


def turned(barrier: str, seed: int) -> bool:
    a, out = fake_cupy.asarray(np.arange(128.0)), fake_cupy.empty(128)
    run(TURN.replace("BARRIER", barrier), "turn", 2, 64, a, out, seed=seed, shared=512)
    return np.array_equal(out.get(), np.arange(128.0).reshape(2, 64)[:, ::-1].ravel())


@pytest.mark.parametrize("seed", range(5))
def test_threads_of_a_block_meet(seed: int) -> None:
    assert turned("__syncthreads();", seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_missing_barrier_shows(seed: int) -> None:
    """Shared memory starts as NaN, so what is read too early is wrong in any order."""
    assert not turned("", seed)


def test_a_barrier_that_not_all_reach_is_reported() -> None:
    with pytest.raises(RuntimeError, match="deadlock in turn: 63 threads wait for ever"):
        turned("if (i > 0) __syncthreads();", 0)


def test_arguments_are_checked() -> None:
    a, out = fake_cupy.empty(64), fake_cupy.empty(64)
    text = TURN.replace("BARRIER", "__syncthreads();")
    with pytest.raises(TypeError, match="turn takes 2 arguments, got 1"):
        run(text, "turn", 1, 64, a)
    with pytest.raises(TypeError, match="turn takes an address, got 5"):
        run(text, "turn", 1, 64, a, 5)
    with pytest.raises(ValueError, match="invalid grid"):
        run(text, "turn", 0, 64, a, out)
    with pytest.raises(ValueError, match="invalid block"):
        run(text, "turn", 1, 2048, a, out)
    with pytest.raises(ValueError, match="bytes of shared memory"):
        run(text, "turn", 1, 64, a, out, shared=1 << 20)


def test_what_does_not_compile_says_where() -> None:
    with pytest.raises(RuntimeError, match=r"wrong\.cu:7:"):
        build(PRELUDE + '#line 7 "wrong.cu"\nint broken( { }')
