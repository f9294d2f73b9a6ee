"""Products on the processor's tile unit: right, as exact as fused multiply-adds, NaN and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array, Case, run, same_bits

import fastrnn

pytestmark = pytest.mark.usefixtures("tiles_always")


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh"])
def test_the_number_of_threads_changes_no_bit(kind: str) -> None:
    case = Case(kind, (6, 50, 33, 70), dtype="float32", lengths="zeros", resets="some")
    layer, call = case.layer("cpu"), case.call()
    call.x[:, 7:9] *= 1e-32  # which the tile unit leaves to the vector unit
    call.x[2, 40, 5] = np.inf
    want = run(layer, call)
    for threads in (1, 2, 3):
        with fastrnn.num_threads(threads):
            same_bits(run(layer, call), want)
    layer.freeze()
    same_bits(run(layer, call), want)


def test_it_ran_and_not_for_reproducible_layers() -> None:
    case = Case("lstm", (6, 32, 64, 64), dtype="float32")
    call = case.call()
    plain, other = (run(case.layer("cpu", reproducible=flag), call) for flag in (False, True))
    assert any(not np.array_equal(plain[name], other[name]) for name in plain)


def test_precisions_are_in_order() -> None:
    """Errors of one product of 512 terms of order one: some 2^-24, 2^-16 and 2^-8 of its size."""
    draw = np.random.default_rng(5)
    x, w = draw.standard_normal((32, 512)), draw.standard_normal((64, 512))
    worst = [error(product(x, w, precision=name), x, w) for name in ("highest", "high", "medium")]
    assert worst[0] < 3e-7
    assert 1e-6 < worst[1] < 1e-5
    assert 1e-4 < worst[2] < 1e-2


# ------------------------------------------------------------------------------- exactness


def product(x: Array, w: Array, **arguments: Any) -> Array:
    """x @ w.T as a layer's input product gives it, of float32 numbers."""
    layer = fastrnn.RNN(x.shape[1], len(w), bias=False, nonlinearity="relu", **arguments)
    layer.params["weight_ih_l0"][:] = w
    layer.params["weight_hh_l0"][:] = 0
    both = np.stack([x, -x]).astype(np.float32)
    state = np.zeros((1, len(x), len(w)), np.float32)
    plus, minus = (layer(part[None], state)[0][0] for part in both)
    return np.where(plus > 0, plus, np.where(np.isnan(plus), plus, -minus))


def error(got: Array, x: Array, w: Array) -> float:
    """Largest error of x @ w.T, in units of the sum of the terms' magnitudes."""
    x, w = (a.astype(np.float32).astype(np.float64) for a in (x, w))
    return float((np.abs(got - x @ w.T) / (np.abs(x) @ np.abs(w).T)).max())


def cancelling(draw: np.random.Generator, *shape: int) -> Array:
    """Rows whose second half takes away all but a little of what the first half brings."""
    half = draw.standard_normal((*shape[:-1], shape[-1] // 2))
    return np.concatenate([half, -half * (1 + 1e-6 * draw.standard_normal(half.shape))], axis=-1)


def scaled(low: float, high: float) -> Any:
    def numbers(draw: np.random.Generator, *shape: int) -> Array:
        return draw.standard_normal(shape) * 10 ** draw.uniform(low, high, shape)

    return numbers


NUMBERS = {
    "normal": lambda draw, *shape: draw.standard_normal(shape),
    "same sign": lambda draw, *shape: draw.random(shape),
    "cancelling": cancelling,
    "small": scaled(-20, -10),
    "wide": scaled(-8, 8),
    "tiny": scaled(-30, -25),
    "huge": scaled(14, 17),
    "wildest": scaled(-30, 8),
}


@pytest.mark.parametrize("left", NUMBERS)
@pytest.mark.parametrize("right", ["normal", "cancelling", "tiny", "wide"])
def test_no_less_exact_than_fused_multiply_adds(left: str, right: str) -> None:
    draw = np.random.default_rng(8)
    x, w = NUMBERS[left](draw, 48, 600), NUMBERS[right](draw, 40, 600)
    if right == "cancelling":
        w[:, 300:] = w[:, :300]  # so that the left side's halves meet equal weights
    fused = error(product(x, w, reproducible=True), x, w)
    assert error(product(x, w), x, w) <= max(fused, 2.0**-23)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e-40, 3e38, 0.0])
@pytest.mark.parametrize("where", ["x", "w"])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_numbers_outside_the_range_come_out_as_ever(bad: float, where: str, precision: str) -> None:
    draw = np.random.default_rng(1)
    x, w = draw.standard_normal((40, 70)), draw.standard_normal((50, 70))
    (x if where == "x" else w)[3] = bad
    with np.errstate(all="ignore"):
        got = product(x, w, precision=precision)
        want = product(x, w, reproducible=True)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    hit = (slice(None), 3) if where == "w" else 3
    np.testing.assert_array_equal(got[hit], want[hit])
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-4)
