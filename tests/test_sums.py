"""Sums over many rows: parameters' gradients, whose error must not grow with the rows.

Of a relu RNN of one unit without recurrent weight, gradients are sums of products of what the test
chooses. A product of two float32 is a float64, in which sums are as good as exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import Array, Case, run, same_bits, unpack

import fastrnn

# Of a sum of float32, relative to the sum of magnitudes: up to 512 rows are a chain, whose every
# addition may be wrong by half a last place.
LIMIT = 512 * 2.0**-24


def unit(backend: str, dtype: str = "float32", **options: Any) -> fastrnn.RNN:
    """A layer with h = relu(x)."""
    layer = fastrnn.RNN(
        1, 1, nonlinearity="relu", dtype=np.dtype(dtype), backend=backend, rng=0, **options
    )
    for name, value in layer.params.items():
        value[:] = 1 if "weight_ih" in name else 0
    return layer


def numbers(which: str, shape: tuple[int, ...], dtype: str) -> tuple[Array, Array]:
    """Draw x, which is positive, and dy."""
    draw = np.random.default_rng(len(shape))
    if which == "constant":
        return np.full(shape, 0.7, dtype), np.full(shape, 0.1, dtype)
    x = draw.uniform(0.5, 1.5, shape).astype(dtype)
    low = {"one sign": 0.0, "mixed": -1.0}[which]
    return x, draw.uniform(low, 1.0, shape).astype(dtype)


def exact(a: Array, b: Array | float = 1.0) -> tuple[float, float]:
    """The sum of products, and of their magnitudes."""
    terms = (a.astype(np.float64) * b).ravel()
    total = math.fsum(terms) if a.dtype == np.float64 else float(terms.sum())
    return total, float(np.abs(terms).sum())


def errors(layer: fastrnn.RNN, x: Array, dy: Array, **how: Any) -> dict[str, float]:
    """Errors of the gradients, relative to the sum of magnitudes."""
    _, _, tape = layer.forward(x, **how)
    got = layer.backward(tape, dy).params
    before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
    want = {
        "weight_ih_l0": exact(dy, x.astype(np.float64)),
        "weight_hh_l0": exact(dy, before.astype(np.float64)),
        "bias_ih_l0": exact(dy),
        "bias_hh_l0": exact(dy),
    }
    return {
        name: abs(float(got[name].item()) - total) / size for name, (total, size) in want.items()
    }


@pytest.mark.parametrize("which", ["constant", "one sign", "mixed"])
@pytest.mark.parametrize("rows", [10**5, 10**6, 10**7])
def test_the_error_does_not_grow_with_the_rows(backend: str, rows: int, which: str) -> None:
    batch = 100 if backend == "cpu" else rows // 10
    x, dy = numbers(which, (rows // batch, batch, 1), "float32")
    found = errors(unit(backend), x, dy)
    assert max(found.values()) < 5e-6, found


@pytest.mark.parametrize("batch", [1, 97, 191, 192, 300, 1000, 50_000])
@pytest.mark.parametrize("reproducible", [False, True])
def test_however_rows_come(backend: str, batch: int, reproducible: bool) -> None:
    if backend == "numpy" and batch < 300:
        pytest.skip("a hundred thousand steps of Python: test_spans has some")
    x, dy = numbers("constant", (10**5 // batch, batch, 1), "float32")
    found = errors(unit(backend, reproducible=reproducible), x, dy)
    assert max(found.values()) < LIMIT, found


def test_no_count_is_lost(backend: str) -> None:
    """Ones, of which a chain of float32 counts no more than 2**24."""
    ones = np.ones((200, 10**5, 1), np.float32)
    layer = unit(backend, bias=False)
    _, _, tape = layer.forward(ones)
    assert layer.backward(tape, ones).params["weight_ih_l0"].item() == 2e7


@pytest.mark.parametrize("every", [1, 7, 50, 1000])
def test_spans_lose_nothing(backend: str, every: int) -> None:
    x, dy = numbers("constant", (1000, 100, 1), "float32")
    found = errors(unit(backend), x, dy, checkpoint_every=every)
    assert max(found.values()) < LIMIT, found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["gru_reset_before", "lstm_peephole", "lstm"])
def test_spans_change_no_bit(backend: str, kind: str, dtype: str) -> None:
    """Of more rows than are settled at a time; chunks end where spans do not."""
    proj = {"proj": True} if kind == "lstm" else {}
    steps = 300 if backend == "cpu" else 20
    case = Case(
        kind, (steps, 67, 2, 3), dtype=dtype, layers=2, bidirectional=True, lengths="zeros", **proj
    )
    layer, call = case.layer(backend, reproducible=True), case.call()
    want = run(layer, call)
    for every in (3, steps // 5, steps - 1):
        same_bits(run(layer, call, checkpoint_every=every), want)


@pytest.mark.parametrize("kind", ["lstm", "lstm_peephole", "gru"])
def test_threads_change_no_bit(kind: str) -> None:
    fastrnn.backends.get("cpu")
    for batch in (67, 700):
        case = Case(kind, (40_000 // batch, batch, 5, 40), dtype="float32", lengths="zeros")
        layer, call = case.layer("cpu"), case.call()
        with fastrnn.num_threads(1):
            want = run(layer, call)
        for threads in (2, 3):
            with fastrnn.num_threads(threads):
                same_bits(run(layer, call), want)


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "gru_reset_before", "lstm_peephole", "lstm"])
def test_every_cell(backend: str, kind: str, precision: str) -> None:
    """Against the same layer in float64, with gradients of one sign flowing in."""
    proj = {"proj": True} if kind == "lstm" else {}
    case = Case(kind, (100, 1000, 16, 16), layers=2, bidirectional=True, dtype="float32", **proj)
    layer, exact = (
        case.layer(backend, precision=precision),
        case.but(dtype="float64").layer(backend),
    )
    exact.load_params({name: value.astype(np.float64) for name, value in layer.params.items()})
    x = np.random.default_rng(1).standard_normal((100, 1000, 16)).astype(np.float32)

    def gradients(layer: Any, x: Array) -> dict[str, Array]:
        y, _, tape = layer.forward(x)
        return dict(layer.backward(tape, np.full_like(y, 0.1)).params)

    want, limit = gradients(exact, x.astype(np.float64)), 1e-5 if precision == "highest" else 1e-2
    for name, value in gradients(layer, x).items():
        error = np.abs(value - want[name]).max() / np.abs(want[name]).max()
        assert error < limit, name


@pytest.mark.parametrize("bad", [np.inf, np.nan, 3e38])
def test_what_is_not_finite_flows_through(backend: str, bad: float) -> None:
    """As in any sum: not into NaN what is infinite, because of what its roundings left."""
    x, dy = numbers("one sign", (500, 100, 1), "float32")
    # an infinity alone last: on its way back it would meet a weight of 0
    dy[[0] if bad == np.inf else [30, 250, 470]] = bad
    layer = unit(backend)
    _, _, tape = layer.forward(x)
    got = layer.backward(tape, dy).params["bias_ih_l0"].item()
    with np.errstate(over="ignore"):
        np.testing.assert_equal(got, np.float32(np.float64(bad) * 300))


def test_float64_too(backend: str) -> None:
    x, dy = numbers("constant", (10, 10**6, 1), "float64")
    found = errors(unit(backend, "float64"), x, dy)
    assert max(found.values()) < 512 * 2.0**-53, found


def test_states_do_not_matter(backend: str) -> None:
    case = Case("lstm", (300, 70, 2, 3), dtype="float64")
    layer, call = case.layer(backend), case.call()
    assert len(unpack(call.state)) == 2
    want, got = run(layer, call), run(layer, call, checkpoint_every=11)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
