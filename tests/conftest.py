"""Fixtures of the whole suite."""

from __future__ import annotations

import importlib
import os
from typing import Any

# BLAS's threads wait for each other by spinning: on cores that other programs use too, a product
# of microseconds takes seconds. Read when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from grid import BACKENDS

# Without the extension "auto" would end at a fallback, and warn of it, unless it is asked for; and
# it is, where it alone is under test.
if "cpu" not in BACKENDS:
    os.environ.setdefault("FASTRNN_BACKEND", max(BACKENDS, key=["numpy", "numba"].index))

import hypothesis
import numpy as np
import pytest

import fastrnn
import fastrnn.backends
from fastrnn.backends.matmul_algo import SPLIT_BF16

# The same examples on every run and machine: a suite that fails must fail for everybody.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
# pytest --hypothesis-profile=explore: new examples each time, many of them.
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("fixed")


def pytest_report_header() -> str:
    isa = importlib.import_module("fastrnn._core").isa() if "cpu" in BACKENDS else "not used"
    return (
        f"fastrnn {fastrnn.__version__} in {fastrnn.__path__[0]}, backends under test: "
        f"{', '.join(BACKENDS)}, instruction set: {isa}, NumPy {np.__version__}"
    )


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    """Name of each backend under test. One that is missing is an error, never a skip."""
    fastrnn.backends.get(request.param)
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    """Both dtypes of a layer."""
    return np.dtype(request.param)


@pytest.fixture
def dots_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of precision="medium" take dot products, whatever their sizes."""
    if "cpu" not in BACKENDS or not importlib.import_module("fastrnn._core").dots():
        pytest.skip("no dot products of bfloat16, or FASTRNN_ISA leaves them out")
    dots = [each._replace(beside=None) for each in SPLIT_BF16["medium"] if each.dots]
    monkeypatch.setitem(SPLIT_BF16, "medium", dots)


@pytest.fixture
def tiles_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small calls take the tile unit too."""
    if "cpu" not in BACKENDS or not importlib.import_module("fastrnn._core").tile_unit():
        pytest.skip("no tile unit, or FASTRNN_ISA leaves it out")
    for name, (tiles, *_) in SPLIT_BF16.items():
        monkeypatch.setitem(SPLIT_BF16, name, [tiles._replace(rows=1, TB=1, H=1, area=1)])
