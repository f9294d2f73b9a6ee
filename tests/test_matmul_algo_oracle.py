"""Calls whose steps multiply otherwise than the products of all their rows at once."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, infer, run, same_bits
from oracles import by_hand
from test_oracle import EVERY, cases

import fastrnn
from fastrnn.backends.matmul_algo import SPLIT_BF16, SplitBf16

# fewer than 20 rows a step, more in all
CASES = cases(
    2,
    EVERY,
    dtype=("float32",),
    resets=("", "some"),
    sizes=((50, 1, 40, 65), (9, 15, 16, 32), (4, 7, 3, 100)),
    layers=(1, 2),
)


@pytest.fixture
def tiles_for_many_rows(tiles_always: None, monkeypatch: pytest.MonkeyPatch) -> list[SplitBf16]:
    """A step has too few rows for the tile unit, all steps together have enough."""
    (tiles,) = SPLIT_BF16["high"]
    rules = [tiles._replace(rows=20)]
    monkeypatch.setitem(SPLIT_BF16, "high", rules)
    return rules


# A unit of relu near zero may be on or off by a rounding, and its gradient with it.
@pytest.mark.parametrize("steps", ["dot products", "fused multiply-adds"])
@pytest.mark.parametrize("case", [each for each in CASES if each.kind != "rnn_relu"], ids=str)
def test_every_option_is_right(
    case: Case, steps: str, tiles_for_many_rows: list[SplitBf16], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what rounding of 2^-17 or, by dot products, 2^-9 a factor adds up to."""
    precision, tolerance = "high", 2e-4
    if steps == "dot products":
        dots = SplitBf16(steps, terms=1, rows=1, TB=1, H=1, area=1)
        monkeypatch.setitem(SPLIT_BF16, "medium", [*tiles_for_many_rows, dots])
        precision, tolerance = "medium", 0.02
    layer, call = case.layer("cpu", precision=precision), case.call()
    said = layer.explain(call.x)["products"]
    assert said.startswith(steps)
    assert "of all steps' rows at once: tile unit" in said
    want = by_hand(case, layer.params, call)
    got = run(layer, call)
    for name, exact in want.items():
        scale = np.abs(exact).max(initial=0)
        np.testing.assert_allclose(
            got[name], exact, rtol=0, atol=tolerance * scale + 1e-6, err_msg=name
        )
    outputs = infer(layer, call)
    same_bits(outputs, {name: got[name] for name in outputs})


@pytest.fixture
def few_below_20(tiles_always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of less than 20 rows are too few for the tile unit, in calls that take it."""
    for name, (tiles, *_) in SPLIT_BF16.items():
        monkeypatch.setitem(SPLIT_BF16, name, [tiles._replace(rows=20)])


def test_a_step_that_has_few_of_the_rows_left_multiplies_floats(few_below_20: None) -> None:
    layer = fastrnn.LSTM(3, 64, precision="medium", rng=0, backend="cpu")
    floats = fastrnn.LSTM(3, 64, reproducible=True, rng=0, backend="cpu")
    draw = np.random.default_rng(1)
    h0, c0 = draw.standard_normal((2, 1, 30, 64), np.float32)
    x = np.zeros((2, 30, 3), np.float32)  # whose product has no error in any way
    lengths = [1] * 30
    lengths[17] = 2
    y, _, tape = layer.forward(x, (h0, c0), lengths=lengths)
    h, c = tape.states()
    alone, _ = floats(x[1:, 17:18], (h[0, :, 17:18], c[0, :, 17:18]))
    np.testing.assert_array_equal(y[1, 17], alone[0, 0])
    first, _ = floats(x[:1], (h0, c0))
    assert not np.array_equal(y[0], first[0])


@pytest.mark.parametrize(("precision", "tolerance"), [("highest", 2e-6), ("medium", 0.02)])
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_reset_before"])
def test_threads_agree_on_what_few_rows_are(
    few_below_20: None, kind: str, precision: str, tolerance: float
) -> None:
    case = Case(kind, (6, 50, 33, 70), dtype="float32", lengths="zeros", resets="some")
    layer, call = case.layer("cpu", precision=precision), case.call()
    want = by_hand(case, layer.params, call)
    with fastrnn.num_threads(1):
        got = run(layer, call)
    for name, exact in want.items():
        scale = np.abs(exact).max(initial=0)
        np.testing.assert_allclose(got[name], exact, rtol=0, atol=tolerance * scale, err_msg=name)
    for threads in (2, 3):
        with fastrnn.num_threads(threads):
            same_bits(run(layer, call), got)


# At least 32 rows and few weights, in "medium": a step makes both products as one.
TOGETHER = cases(
    2,
    EVERY,
    dtype=("float32",),
    resets=("", "some"),
    sizes=((5, 33, 40, 65), (3, 50, 3, 100), (4, 70, 257, 48)),
    layers=(1, 2),
)


@pytest.mark.usefixtures("tiles_always")
@pytest.mark.parametrize("case", [each for each in TOGETHER if each.kind != "rnn_relu"], ids=str)
def test_both_products_as_one_are_right(case: Case) -> None:
    layer, call = case.layer("cpu", precision="medium"), case.call()
    want = by_hand(case, layer.params, call)
    got = run(layer, call)
    for name, exact in want.items():
        scale = np.abs(exact).max(initial=0)
        np.testing.assert_allclose(got[name], exact, rtol=0, atol=0.02 * scale + 1e-6, err_msg=name)
    outputs = infer(layer, call)
    same_bits(outputs, {name: got[name] for name in outputs})
    for threads in (2, 3, 5):
        with fastrnn.num_threads(threads):
            same_bits(run(layer, call), got)


@pytest.mark.usefixtures("tiles_always")
@pytest.mark.parametrize(
    ("H", "as_one"), [(64, True), (300, False)], ids=["weights in the cache", "beyond it"]
)
def test_which_calls_make_both_products_as_one(H: int, as_one: bool) -> None:
    """By its roundings: a sum that is stored in between is rounded once more."""
    layer = fastrnn.LSTM(H, H, precision="medium", rng=0, backend="cpu")
    x = np.random.default_rng(1).standard_normal((3, 32, H)).astype(np.float32)
    many, few = layer(x)[0], layer(x[:, :31])[0]
    assert np.array_equal(many[:, :31], few) != as_one
    ulps = 2 * np.finfo(np.float32).eps  # of numbers below 1
    np.testing.assert_allclose(many[:, :31], few, rtol=0, atol=ulps)
