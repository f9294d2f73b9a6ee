"""Sums over very many rows: their error does not grow with the rows."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from cases import run
from device import DeviceCase, reference

import fastrnn
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


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_of_many_rows(device: Any, reproducible: bool, bidirectional: bool) -> None:
    """All kinds of parameters, against float64; rows end where they like, spans too."""
    options = {"lengths": "zeros", "proj": True, "bidirectional": bidirectional}
    case = DeviceCase("lstm_peephole", (12, 120, 2, 2), dtype="float32", **options)
    call = case.call()
    call.x[...], call.dy[...] = np.abs(call.x), 0.1
    layer = case.layer(reproducible=reproducible)
    got, want = run(layer, call), run(*reference(case, call))
    for name, value in want.items():
        error = np.abs(got[name] - value).max(initial=0) / (np.abs(value).max(initial=0) + 1e-9)
        assert error < 1e-5, name
    for every in (1, 5):
        spans = run(layer, call, checkpoint_every=every)
        for name, value in got.items():
            if reproducible:
                np.testing.assert_array_equal(spans[name], value, err_msg=name)
            else:
                np.testing.assert_allclose(spans[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_chain_is_settled(device: Any) -> None:
    """Gradients of h = relu(x), all of one sign: what a chain of all rows would lose is there."""
    layer = fastrnn.RNN(1, 1, nonlinearity="relu", reproducible=True, rng=0, backend="cuda")
    ones = {"weight_ih_l0": np.ones((1, 1), np.float32)}
    zeros = {name: a.get() * 0 for name, a in layer.params.items()}
    layer.load_params({name: fake_cupy.asarray(a) for name, a in {**zeros, **ones}.items()})
    x = np.full((10, 1000, 1), 0.7, np.float32)
    _, _, tape = layer.forward(fake_cupy.asarray(x))
    grads = layer.backward(tape, fake_cupy.asarray(np.full_like(x, 0.1))).params
    want = x.astype(np.float64).sum() * np.float32(0.1)
    assert abs(float(grads["weight_ih_l0"].get()[0, 0]) / want - 1) < 128 * ROUNDING
    chain = np.add.accumulate(x.ravel() * np.float32(0.1))[-1]
    assert abs(chain / want - 1) > 1024 * ROUNDING


def test_a_product_of_chains_is_settled(device: Any) -> None:
    """Of many inputs of one sign, with reproducible=True; infinite ones stay so."""
    terms = 100_000
    layer = fastrnn.RNN(terms, 1, nonlinearity="relu", reproducible=True, rng=0, backend="cuda")
    values = {name: np.zeros_like(a.get()) for name, a in layer.params.items()}
    values["weight_ih_l0"][:] = 0.1
    layer.load_params({name: fake_cupy.asarray(a) for name, a in values.items()})
    x = np.full((1, 2, terms), 0.7, np.float32)
    x[0, 1, ::9000] = np.inf
    y = layer(fake_cupy.asarray(x))[0].get()
    want = np.float64(np.float32(0.7)) * np.float64(np.float32(0.1)) * terms
    assert abs(y[0, 0, 0] / want - 1) < 4100 * ROUNDING / 2
    assert y[0, 1, 0] == np.inf


def test_double_is_added_by_cublas_alone() -> None:
    device = Chained()
    kernels: Any = Launcher(device, np.dtype(np.float64))  # type: ignore[arg-type]
    ones = fake_cupy.asarray(np.ones((launch.LONGEST + 1, 1)))
    out = fake_cupy.asarray(np.zeros((1, 1)))
    kernels.add_product(out, ones, ones, False)
    assert (device.parts, out.get()[0, 0]) == (1, launch.LONGEST + 1)
