"""What the machine could do at best, measured in the same run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from threading import Barrier
from typing import Any

import numpy as np

from ... import backends
from ...typing import Array

_SIZES = [2**k for k in range(14, 29)]  # bytes read over and over: 16 KB .. 256 MB
_SECONDS = 0.03  # of one measurement
_TRIES = 3  # of which the best counts


@dataclass(frozen=True)
class Peaks:
    """Peaks of all threads together."""

    source: str
    gflops: dict[str, float]
    """By dtype."""
    bandwidth: list[tuple[int, float]]
    """Bytes that are read again and again, by all threads together, and GB/s."""

    def gbytes(self, working_set: float) -> float:
        """GB/s at which so many bytes can be read again and again, between what was measured."""
        sizes, rates = zip(*self.bandwidth, strict=True)
        return float(np.interp(math.log(working_set), np.log(sizes), rates))

    def best(self, other: Peaks) -> Peaks:
        """The higher of two measurements of each: a peak is what nothing disturbed."""
        gflops = {name: max(rate, other.gflops[name]) for name, rate in self.gflops.items()}
        pairs = zip(self.bandwidth, other.bandwidth, strict=True)
        return Peaks(self.source, gflops, [max(pair) for pair in pairs])

    def roof(self, dtype: str, flops: float, nbytes: float, working_set: float) -> float | None:
        """GFLOP/s that the roofline model allows."""
        if dtype not in self.gflops:
            return None
        return min(self.gflops[dtype], flops / nbytes * self.gbytes(working_set))


def measure(threads: int, dtypes: tuple[str, ...]) -> Peaks:
    """Measure with the extension's loops, or with NumPy's products where it is missing."""
    compiled = backends.why_not("cpu") is None
    core: Any = import_module("fastrnn._core") if compiled else None
    gflops: dict[str, float] = {
        dtype: _gflops(_multiplier(core, dtype), threads)
        for dtype in ("float32", "float64")
        if dtype in dtypes or dtype == "float32"
    }
    if "bfloat16" in dtypes:
        gflops |= _bfloat16(threads)
    bandwidth = [(size, _gbytes(core, size, threads)) for size in _SIZES]
    source = (
        f"the extension's own loops, {core.isa()}: multiply-adds in registers, and a sum"
        if compiled
        else "NumPy's products, since the extension is missing: matmul of 1024, and dot"
    )
    return Peaks(source, gflops, bandwidth)


def _multiplier(core: Any, dtype: str) -> Callable[[int], float]:
    """A function that does an amount of work and returns its operations."""
    if core is not None:
        loop: Callable[[int], float] = getattr(core, f"fma_loop{dtype.removeprefix('float')}")
        return lambda amount: loop(amount * 10_000)
    a = np.ones((1024, 1024), dtype)

    def multiply(amount: int) -> float:
        for _ in range(amount):
            a @ a
        return float(2 * 1024**3 * amount)

    return multiply


def _bfloat16(threads: int) -> dict[str, float]:
    """With torch's product, the best that is known here; nothing without torch."""
    try:
        torch: Any = import_module("torch")
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    a = torch.ones(1024, 1024, dtype=torch.bfloat16)

    def multiply(amount: int) -> float:
        with torch.inference_mode():
            for _ in range(amount):
                a @ a
        return float(2 * 1024**3 * amount)

    return {"bfloat16": _gflops(multiply, 1)}


def _gflops(work: Callable[[int], float], threads: int) -> float:
    return _rate([work] * threads) / 1e9


def _gbytes(core: Any, size: int, threads: int) -> float:
    own = max(size // threads // 4, 1) * 4  # bytes of one thread
    each = max(2**20 // own, 1)

    def reader(x: Array) -> Callable[[int], float]:

        def read(amount: int) -> float:
            if core is not None:
                core.read_sum32(x, each * amount)
            else:
                for _ in range(each * amount):
                    np.dot(x, x)
            return float(own * each * amount)

        return read

    return _rate([reader(np.ones(own // 4, np.float32)) for _ in range(threads)]) / 1e9


def _rate(work: list[Callable[[int], float]]) -> float:
    """Units of work a second, of all together; each runs in a thread of its own."""
    amount = 1
    while _seconds(work[0], amount)[1] < _SECONDS / 4:
        amount *= 2
    amount *= 4
    best = 0.0
    with ThreadPoolExecutor(len(work)) as pool:
        for _ in range(_TRIES):
            barrier = Barrier(len(work))

            def one(do: Callable[[int], float], barrier: Barrier = barrier) -> float:
                barrier.wait()
                done, seconds = _seconds(do, amount)
                return done / seconds

            best = max(best, sum(pool.map(one, work)))
    return best


def _seconds(work: Callable[[int], float], amount: int) -> tuple[float, float]:
    start = time.perf_counter()
    done = work(amount)
    return done, time.perf_counter() - start
