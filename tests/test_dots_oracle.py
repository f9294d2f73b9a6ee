"""Dot products of bfloat16 against torch in float64, with every option."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, infer, run, same_bits
from oracles import by_hand
from test_dots import medium
from test_oracle import EVERY, cases

pytestmark = pytest.mark.usefixtures("dots_alone")

CASES = cases(2, EVERY, resets=("", "some"), dtype=("float32",)) + cases(
    1,
    EVERY,
    dtype=("float32",),
    resets=("", "some"),
    sizes=((5, 33, 40, 65), (3, 1, 31, 64), (4, 7, 3, 100), (2, 40, 257, 48)),
    layers=(1, 2),
)


# A unit of relu near zero may be on or off by a rounding, and its gradient with it.
@pytest.mark.parametrize("case", [each for each in CASES if each.kind != "rnn_relu"], ids=str)
def test_every_option_is_right(case: Case) -> None:
    """Within what rounding of 2^-9 a factor adds up to: the largest seen is 0.015."""
    layer, call = medium(case), case.call()
    want = by_hand(case, layer.params, call)
    got = run(layer, call)
    for name, exact in want.items():
        scale = np.abs(exact).max(initial=0)
        np.testing.assert_allclose(got[name], exact, rtol=0, atol=0.02 * scale + 1e-6, err_msg=name)
    outputs = infer(layer, call)
    same_bits(outputs, {name: got[name] for name in outputs})
