"""Accuracy of the kernels' sigmoid and tanh, in units in the last place, per instruction set.

The instruction set is that of the process; CI runs this file once for each (FASTRNN_ISA).
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

_core = pytest.importorskip("fastrnn._core", reason="the C++ extension is not built")

pytestmark = pytest.mark.skipif(
    _core.linear_activations, reason="a test build with linear activations"
)

# function, dtype, range, largest error in ULP that the kernels' documentation allows
TABLE = [
    ("sigmoid", np.float32, (-87.0, 20.0), 3),
    ("sigmoid", np.float64, (-708.0, 40.0), 3),
    ("tanh", np.float32, (-12.0, 12.0), 3),
    ("tanh", np.float64, (-22.0, 22.0), 3),
]

EXACT = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
}


def kernel(name: str, dtype: type[np.floating]):
    return getattr(_core, name + ("32" if dtype is np.float32 else "64"))


def samples(dtype: type[np.floating], low: float, high: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    near_zero = 10.0 ** rng.uniform(-30, 0, 1500) * rng.choice([-1, 1], 1500)
    return np.concatenate([rng.uniform(low, high, 2500), near_zero]).astype(dtype)


@pytest.mark.parametrize(("name", "dtype", "limits", "ulps"), TABLE)
def test_error_in_ulp(name, dtype, limits, ulps):
    x = samples(dtype, *limits)
    y = kernel(name, dtype)(x)
    assert y.dtype == dtype
    with mpmath.workdps(40):
        exact = [EXACT[name](mpmath.mpf(float(v))) for v in x]
        spacing = np.spacing(np.abs(np.array([float(e) for e in exact], dtype)))
        errors = [
            abs(mpmath.mpf(float(a)) - e) / mpmath.mpf(float(s))
            for a, e, s in zip(y, exact, spacing, strict=True)
        ]
    worst = int(np.argmax([float(e) for e in errors]))
    assert errors[worst] <= ulps, (x[worst], y[worst], float(errors[worst]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, tiny, -tiny, 1e30, -1e30], dtype)
    sigmoid, tanh = kernel("sigmoid", dtype)(x), kernel("tanh", dtype)(x)
    np.testing.assert_array_equal(
        sigmoid, np.array([1, 0, np.nan, 0.5, 0.5, 0.5, 0.5, 1, 0], dtype)
    )
    np.testing.assert_array_equal(tanh, np.array([1, -1, np.nan, 0, 0, tiny, -tiny, 1, -1], dtype))
    assert not np.signbit(tanh[3])
    assert np.signbit(tanh[4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_every_lane_and_tail_is_alike(name, dtype):
    """A value's result does not depend on where in a vector it stands."""
    x = samples(dtype, -9, 9)[:67]
    whole = kernel(name, dtype)(x)
    alone = np.concatenate([kernel(name, dtype)(x[i : i + 1]) for i in range(x.size)])
    np.testing.assert_array_equal(whole, alone)
