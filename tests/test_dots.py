"""Products by dot products of bfloat16, what precision="medium" is where a processor has them."""

from __future__ import annotations

import numpy as np
import pytest
from cases import KINDS, Array, Case, infer, run, same_bits
from test_tiles import product

import fastrnn

pytestmark = pytest.mark.usefixtures("dots_alone")


def medium(case: Case, **arguments: object) -> fastrnn.layers.Recurrent:
    return case.layer("cpu", precision="medium", **arguments)


def rounded(a: Array) -> Array:
    """The bfloat16 nearest to each of a, ties to even, in float64."""
    bits = a.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("B", [1, 2, 5, 7, 40, 300])
@pytest.mark.parametrize(("K", "N"), [(1, 1), (2, 16), (33, 40), (64, 64), (257, 100), (2050, 30)])
def test_factors_are_rounded_once_and_sums_are_float32(B: int, K: int, N: int) -> None:
    draw = np.random.default_rng(B * K)
    x, w = draw.standard_normal((B, K)), draw.standard_normal((N, K))
    got = product(x, w, precision="medium")
    error = np.abs(got - rounded(x) @ rounded(w).T) / (np.abs(x) @ np.abs(w).T)
    assert error.max() < 3e-7


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38, 1e-40])
@pytest.mark.parametrize("where", ["x", "w"])
def test_numbers_that_are_not_ordinary(bad: float, where: str) -> None:
    """NaN and infinity pass, what is nearest to infinity becomes it, denormals are zero."""
    draw = np.random.default_rng(1)
    x, w = draw.standard_normal((40, 70)), draw.standard_normal((50, 70))
    (x if where == "x" else w)[3, 5] = bad
    with np.errstate(all="ignore"):
        got = product(x, w, precision="medium")
        (x if where == "x" else w)[3, 5] = 0 if abs(bad) < 1e-38 else np.float32(bad)
        want = rounded(x) @ rounded(w).T
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    # 70 terms of order one: 3e-7 of the sum of their magnitudes
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_changes_no_bit(kind: str) -> None:
    case = Case(kind, (6, 50, 33, 70), dtype="float32", lengths="zeros", resets="some")
    layer, call = medium(case), case.call()
    want = run(layer, call)
    for threads in (1, 2, 3):
        with fastrnn.num_threads(threads):
            same_bits(run(layer, call), want)
    layer.freeze()
    same_bits(infer(layer, call), {name: want[name] for name in infer(layer, call)})


def test_a_row_alone_has_the_same_bits() -> None:
    case = Case("gru", (9, 40, 33, 70), dtype="float32")
    layer, call = medium(case), case.call()
    whole, _ = layer(call.x)
    for b in (0, 17, 39):
        np.testing.assert_array_equal(layer(call.x[:, b : b + 1])[0][:, 0], whole[:, b])


def test_a_stepper_goes_the_same_way() -> None:
    layer = fastrnn.LSTM(20, 70, 2, rng=0, precision="medium")
    layer.freeze()
    x = np.random.default_rng(0).standard_normal((7, 3, 20)).astype(np.float32)
    y, _ = layer(x)
    step = layer.stepper(3)
    np.testing.assert_array_equal(np.stack([step(each).copy() for each in x]), y)


def test_it_is_what_explain_and_show_config_say() -> None:
    layer = fastrnn.LSTM(20, 70, rng=0, precision="medium")
    x = np.random.default_rng(0).standard_normal((7, 3, 20)).astype(np.float32)
    assert layer.explain(x)["products"].startswith("dot products, terms=1")
    assert "dot products" in fastrnn.show_config("dicts")["precision"]["medium"]
    reproducible = fastrnn.LSTM(20, 70, rng=0, precision="medium", reproducible=True)
    assert reproducible.explain(x)["products"] == "fused multiply-adds: reproducible=True"
    assert not np.array_equal(layer(x)[0], reproducible(x)[0])
