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


# ---- products with weights: sums over inputs, and over units ----

# Chains of 4096 terms, settled.
CHAIN = 4096 * 2.0**-24


def weighted(backend: str, which: str, terms: int, units: int, **options: Any) -> fastrnn.RNN:
    """A layer with h = relu(w x), w as `numbers` draws dy."""
    layer = fastrnn.RNN(
        terms, units, nonlinearity="relu", backend=backend, rng=0, bias=False, **options
    )
    for name, value in layer.params.items():
        value[:] = numbers(which, value.shape, "float32")[1] if "weight_ih" in name else 0
    return layer


def product_error(y: Array, x: Array, weights: Array) -> float:
    """The largest error of relu(w x), relative to the sum of magnitudes."""
    rows, w = x.reshape(-1, x.shape[-1]).astype(np.float64), weights.astype(np.float64).T
    want = np.maximum(rows @ w, 0)
    return float((np.abs(y.reshape(want.shape) - want) / (np.abs(rows) @ np.abs(w))).max())


@pytest.mark.parametrize("which", ["constant", "one sign", "mixed"])
@pytest.mark.parametrize(
    ("rows", "terms"),
    [((1, 1), 10**5), ((1, 7), 10**5), ((2, 20), 10**5), ((1, 7), 10**6)],
)
def test_the_error_does_not_grow_with_the_inputs(
    backend: str, rows: tuple[int, int], terms: int, which: str
) -> None:
    """One step of one row, which takes weights as they lie; few rows; more than a block."""
    x = numbers(which, (*rows, terms), "float32")[0]
    layer = weighted(backend, which, terms, 3)
    limit = CHAIN if backend == "cpu" else 1e-4  # a BLAS has chains of its own
    assert product_error(layer(x)[0], x, layer.params["weight_ih_l0"]) < limit


@pytest.mark.parametrize(
    "how", ["training", "frozen", "bfloat16", "int8", "stepper", "reproducible"]
)
def test_long_sums_on_every_way(backend: str, how: str) -> None:
    """Constant weights, which int8 and bfloat16 can hold as they are."""
    terms = 50_000
    x = np.full((1, 3, terms), 0.7, np.float32)
    layer = weighted(backend, "constant", terms, 21, reproducible=how == "reproducible")
    layer.params["weight_ih_l0"][:] = 0.125
    if how in ("frozen", "bfloat16", "int8"):
        layer.freeze(None if how == "frozen" else how)
    if how == "stepper":
        y = layer.stepper(batch_size=3)(x[0])
    else:
        y = layer.forward(x)[0] if how == "training" else layer(x)[0]
    found = product_error(np.asarray(y), x, layer.params["weight_ih_l0"])
    assert found < CHAIN / 4  # int8: its scale is rounded


@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "gru_reset_before", "lstm", "lstm_peephole"])
def test_long_sums_of_every_cell(backend: str, kind: str) -> None:
    """All gates' sums, and the gradient of x through all of them, against float64."""
    case = Case(kind, (2, 3, 30_000, 5), dtype="float32")
    layer, exact = case.layer(backend), case.but(dtype="float64").layer(backend)
    for name, value in layer.params.items():
        value[:] = np.abs(value) * (1e-4 if "ih" in name else 1)
        exact.params[name][:] = value
    call = case.call()
    x = np.abs(call.x)
    got, want = layer(x, call.state)[0], exact(x.astype(np.float64), unpack64(call.state))[0]
    assert np.abs(got - want).max() < 3e-6


def unpack64(state: Any) -> Any:
    """A state in float64."""
    if isinstance(state, tuple):
        return tuple(s.astype(np.float64) for s in state)
    return state.astype(np.float64)


def test_long_sums_over_units(backend: str) -> None:
    """A projection, and the gradient of x: over 12,000 units and over four gates of each."""
    layer = fastrnn.LSTM(2, 12_000, proj_size=1, backend=backend, rng=0)
    exact = fastrnn.LSTM(2, 12_000, proj_size=1, backend=backend, rng=0, dtype=np.float64)
    for name, value in layer.params.items():
        value[:] = 0.1 if name == "weight_ih_l0" else np.abs(value)
        exact.params[name][:] = value
    x = np.full((2, 3, 2), 0.3, np.float32)
    (y, _, tape), (want, _, whole) = layer.forward(x), exact.forward(x.astype(np.float64))
    dx, d_want = layer.backward(tape, np.ones_like(y)).x, exact.backward(whole, want * 0 + 1).x
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=0)
    np.testing.assert_allclose(dx, d_want, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["rnn_relu", "gru", "gru_reset_before"])
def test_long_sums_that_end_in_the_cell(kind: str) -> None:
    """The recurrent products, of weights that are all the same."""
    units, w, h = 4100, np.float32(5e-4), np.float32(0.1)
    layer = Case(kind, (1, 3, 2, units), dtype="float32").layer("cpu")
    layer.flat_params[:] = 0
    layer.params["weight_hh_l0"][:] = w
    y, _ = layer(np.zeros((1, 3, 2), np.float32), np.full((1, 3, units), h))
    total = units * float(w) * float(h)
    gate = 1 / (1 + math.exp(-total))
    gru = (1 - gate) * math.tanh(gate * total) + gate * float(h)
    np.testing.assert_allclose(y, total if kind == "rnn_relu" else gru, rtol=1e-4, atol=0)


@pytest.mark.parametrize("bad", [np.inf, np.nan, 3e38])
def test_long_sums_of_what_is_not_finite(backend: str, bad: float) -> None:
    layer = weighted(backend, "constant", 20_000, 3)
    layer.params["weight_ih_l0"][:] = 1
    x = np.full((1, 2, 20_000), 0.5, np.float32)
    x[0, 0, [100, 9000, 19_000]] = bad
    with np.errstate(over="ignore"):
        want = np.float32(np.float64(bad) * 3)
    np.testing.assert_equal(layer(x)[0][0], [[want] * 3, [10_000] * 3])


@pytest.mark.parametrize(
    ("kind", "sizes", "dtype"),
    [
        ("gru", (3, 13, 5000, 19), "float64"),
        ("lstm", (2, 13, 9, 1100), "float32"),
        ("rnn_tanh", (3, 40, 4097, 9), "float32"),
    ],
)
def test_long_sums_know_no_batch(
    backend: str, kind: str, sizes: tuple[int, int, int, int], dtype: str
) -> None:
    """Bits of a row alone, of a thread, of a step at a time."""
    case = Case(kind, sizes, dtype=dtype, proj=kind == "lstm")
    layer, call = case.layer(backend, reproducible=True), case.call()
    want = run(layer, call)
    with fastrnn.num_threads(2):
        same_bits(run(layer, call), want)
    for row in (0, case.sizes[1] - 1):
        at = slice(row, row + 1)
        state = tuple(np.ascontiguousarray(s[:, at]) for s in unpack(call.state))
        given = state if case.is_lstm else state[0]
        d = tuple(np.ascontiguousarray(s[:, at]) for s in unpack(call.dstate))
        y, _, tape = layer.forward(call.x[:, at], given)
        dx = layer.backward(tape, call.dy[:, at], d if case.is_lstm else d[0]).x
        assert y.tobytes() == want["y"][:, at].tobytes()
        assert dx.tobytes() == want["dx"][:, at].tobytes()
        steps = []
        for x in call.x[:, at]:
            y, given = layer(x[None], given)
            steps.append(y)
        assert np.concatenate(steps).tobytes() == want["y"][:, at].tobytes()
    layer.freeze()
    assert layer(call.x, call.state)[0].tobytes() == want["y"].tobytes()
    step = layer.stepper(batch_size=case.sizes[1])
    step.state = call.state
    assert all(np.array_equal(step(x), y) for x, y in zip(call.x, want["y"], strict=True))
