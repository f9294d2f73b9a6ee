"""tanh for Numba in operations that LLVM turns into vector instructions.

Numba would call the C library's for each number, which takes most of a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _make(
    real: Any,
    integer: Any,
    *,
    fraction_bits: int,
    exponent_bias: int,
    limit: float,
    ln2: tuple[str, str],
    coefficients: tuple[str, ...],
) -> Callable[[Any], Any]:
    """Return tanh for one type.

    With e = exp(2x) - 1, tanh(x) = e / (e + 2), good near 0 as well. Cody and Waite's reduction:
    exp(a) = 2^n (1 + p), r = a - n ln 2 in two parts of ln 2 of which n times the first is exact,
    p = r + r^2 q(r). The coefficients of q are those of fastrnn/kernels/activations.h. Within 3 ULP
    where x * log2(e) is a normal number.
    """
    one, two, low, high, log2_e = map(real, (1, 2, -limit, limit, 1.4426950408889634))
    ln2_high, ln2_low = (real(float.fromhex(part)) for part in ln2)
    # Adding it leaves no bits for a fraction: the sum's last bits are the nearest integer.
    rounding = real(1.5 * 2**fraction_bits)
    offset = integer(exponent_bias - int(rounding.view(integer)))
    # All ten terms for both types: a loop over fewer would not become vector code.
    q = [real(float.fromhex(c)) for c in coefficients] + [real(0)] * (10 - len(coefficients))
    q0, q1, q2, q3, q4, q5, q6, q7, q8, q9 = q

    def tanh(x: Any) -> Any:
        x = high if x > high else x  # NaN goes through both
        x = low if x < low else x
        shifted = (x + x) * log2_e + rounding
        n = shifted - rounding
        r = ((x + x) - n * ln2_high) - n * ln2_low
        q = q6 + r * (q7 + r * (q8 + r * q9))
        p = r + r * r * (q0 + r * (q1 + r * (q2 + r * (q3 + r * (q4 + r * (q5 + r * q))))))
        power = integer((real(shifted).view(integer) + offset) << fraction_bits).view(real)
        e = power * p + (power - one)
        return e / (e + two)

    return tanh


float32 = _make(
    np.float32,
    np.int32,
    fraction_bits=23,
    exponent_bias=127,
    limit=10.0,  # where the result rounds to 1
    ln2=("0x1.62e4p-1", "0x1.7f7d1cp-20"),
    coefficients=("0x1p-1", "0x1.5554dcp-3", "0x1.5554b8p-5", "0x1.120be6p-7", "0x1.6d75f6p-10"),
)

float64 = _make(
    np.float64,
    np.int64,
    fraction_bits=52,
    exponent_bias=1023,
    limit=20.0,
    ln2=("0x1.62e42feep-1", "0x1.a39ef35793c76p-33"),
    coefficients=(
        "0x1.0000000000001p-1",
        "0x1.5555555555558p-3",
        "0x1.5555555553d36p-5",
        "0x1.111111110f7dcp-7",
        "0x1.6c16c1789d223p-10",
        "0x1.a01a01b01e42bp-13",
        "0x1.a019b8ca2373cp-16",
        "0x1.71ddf68294359p-19",
        "0x1.2891d4fc6a533p-22",
        "0x1.af63856447e1cp-26",
    ),
)
