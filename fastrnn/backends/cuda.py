"""CUDA through CuPy: this version has no kernels for it yet and can only say what is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def why_not() -> str:
    """Return what is missing, the first thing first."""
    try:
        cupy: Any = import_module("cupy")
    except ImportError as error:
        return f'CuPy is not usable ({error}): pip install "fastrnn[cuda]"'
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"there is no CUDA driver or no NVIDIA GPU ({error})"
    from fastrnn import __version__

    return f"fastrnn {__version__} has no CUDA kernels"
