"""Calls whose steps multiply otherwise than the products of all their rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from cases import Case, infer, run, same_bits
from oracles import by_hand
from test_oracle import EVERY, cases

from fastrnn.backends import cpu

if TYPE_CHECKING:
    from fastrnn.backends.cpu import Halves

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
def tiles_for_many_rows(tiles_always: None, monkeypatch: pytest.MonkeyPatch) -> list[Halves]:
    """A step has too few rows for the tile unit, all steps together have enough."""
    (tiles,) = cpu.HALVES["high"]
    rules = [tiles._replace(rows=20)]
    monkeypatch.setitem(cpu.HALVES, "high", rules)
    return rules


# A unit of relu near zero may be on or off by a rounding, and its gradient with it.
@pytest.mark.parametrize("steps", ["dot products", "fused multiply-adds"])
@pytest.mark.parametrize("case", [each for each in CASES if each.kind != "rnn_relu"], ids=str)
def test_every_option_is_right(
    case: Case, steps: str, tiles_for_many_rows: list[Halves], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what rounding of 2^-17 or, by dot products, 2^-9 a factor adds up to."""
    precision, tolerance = "high", 2e-4
    if steps == "dot products":
        dots = cpu.Halves(steps, parts=1, rows=1, TB=1, H=1, area=1)
        monkeypatch.setitem(cpu.HALVES, "medium", [*tiles_for_many_rows, dots])
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
