"""The compiled engine's share of a training step: which of its functions, and for which arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backends
from ..typing import Array


def function(name: str, a: Array) -> Callable[..., Any] | None:
    """Return a function of the extension for an array's dtype.

    None where there is no extension, where FASTRNN_BACKEND asks for another backend on the CPU, and
    of an array on a GPU.
    """
    if not isinstance(a, np.ndarray) or backends.of_training() != "cpu":
        return None
    from .. import _core

    found: Callable[..., Any] = getattr(_core, name + ("32" if a.dtype == np.float32 else "64"))
    return found


def contiguous(a: Array) -> Array:
    """Return an array in C order and aligned, the same if it is."""
    return np.require(a, requirements=["C", "A"])
