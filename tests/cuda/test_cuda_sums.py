"""Sums over very many rows: their error does not grow with the rows."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest

from fastrnn.backends.cuda import launch
from fastrnn.backends.cuda.launch import Launcher

F4 = np.dtype(np.float32)
ROUNDING = 2.0**-24


def numbers(rows: int, columns: int, sign: str) -> Any:
    """Of one sign, all alike; or of both, whose sum is far below that of their magnitudes."""
    if sign == "one":
        return np.full((rows, columns), 0.1, np.float32)
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)


@pytest.mark.parametrize("rows", [1_000, 100_000, 1_000_000])
@pytest.mark.parametrize("sign", ["one", "both"])
@pytest.mark.parametrize("factor", [False, True])
def test_column_sums(
    device: Any, monkeypatch: pytest.MonkeyPatch, rows: int, sign: str, factor: bool
) -> None:
    monkeypatch.setattr(launch, "THREADS", 2)  # as many as there are columns
    a, by, out = numbers(rows, 2, sign), numbers(rows, 2, "one"), np.ones(2, np.float32)
    got = fake_cupy.asarray(out)
    arrays = map(fake_cupy.asarray, (a, by) if factor else (a,))
    Launcher(device, F4).add_sum(got, next(arrays), False, *arrays)
    terms = a.astype(np.float64) * (by if factor else 1)
    error = np.abs(got.get() - (1 + terms.sum(0))) / (1 + np.abs(terms).sum(0))
    assert error.max() < 1.5 * ROUNDING


class Chained:
    """A device whose products are one float32 sum each, as bad as cuBLAS's may be."""

    xp = fake_cupy
    parts = 0

    def gemm(self, a: Any, b: Any, out: Any, accumulate: bool, precision: str) -> None:
        self.parts += 1
        left, right = a._host, b._host
        for m, n in np.ndindex(out.shape):
            terms = left[m] * right[:, n]
            if accumulate:
                terms = np.concatenate((out._host[m, n : n + 1], terms))
            out._host[m, n] = np.add.accumulate(terms)[-1]


@pytest.mark.parametrize(
    ("sign", "rows"),
    [
        *(("one", rows) for rows in (launch.LONGEST, 100_000, 1_000_000, 10_000_000)),
        *(("both", rows) for rows in (100_000, 1_000_000)),
    ],
)
def test_products_over_many_rows(rows: int, sign: str) -> None:
    device = Chained()
    kernels: Any = Launcher(device, F4)  # type: ignore[arg-type]
    a, b = numbers(rows, 1, sign), numbers(rows, 1, "one")
    out = fake_cupy.asarray(np.ones((1, 1), np.float32))
    kernels.add_product(out, fake_cupy.asarray(a), fake_cupy.asarray(b), False)
    terms = a.astype(np.float64) * b
    error = np.abs(out.get()[0] - (1 + terms.sum(0))) / (1 + np.abs(terms).sum(0))
    assert error.max() < 4e-5
    assert device.parts == -(-rows // launch.LONGEST)


def test_long_inner_sums() -> None:
    """Inputs of a million elements; what was there is overwritten."""
    device, I = Chained(), 1_000_000
    kernels: Any = Launcher(device, F4)  # type: ignore[arg-type]
    x, w = np.full((1, I), 0.1, np.float32), np.full((1, I), 0.3, np.float32)
    out = fake_cupy.empty((1, 1), np.float32)
    kernels.product(fake_cupy.asarray(x), fake_cupy.asarray(w).T, out)
    want = (x[0].astype(np.float64) * w[0]).sum()
    assert abs(float(out.get()[0, 0]) / want - 1) < 4e-5


def test_double_is_added_by_cublas_alone() -> None:
    device = Chained()
    kernels: Any = Launcher(device, np.dtype(np.float64))  # type: ignore[arg-type]
    ones = fake_cupy.asarray(np.ones((launch.LONGEST + 1, 1)))
    out = fake_cupy.asarray(np.zeros((1, 1)))
    kernels.add_product(out, ones, ones, False)
    assert (device.parts, out.get()[0, 0]) == (1, launch.LONGEST + 1)
