"""The tile unit against torch in float64, with every option."""

from __future__ import annotations

import pytest
from cases import Case, close, infer, run, same_bits
from oracles import by_hand
from test_oracle import EVERY, cases

pytestmark = pytest.mark.usefixtures("tiles_always")

CASES = cases(2, EVERY, resets=("", "some"), dtype=("float32",)) + cases(
    1,
    EVERY,
    dtype=("float32",),
    resets=("", "some"),
    sizes=((5, 33, 40, 65), (3, 16, 32, 64), (4, 49, 3, 100), (7, 40, 257, 48)),
    layers=(1, 2),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_option_is_right(case: Case) -> None:
    layer, call = case.layer("cpu"), case.call()
    want = by_hand(case, layer.params, call)
    got = run(layer, call)
    close(got, want, "float32")
    outputs = infer(layer, call)
    same_bits(outputs, {name: got[name] for name in outputs})
