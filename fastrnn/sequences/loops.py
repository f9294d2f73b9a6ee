"""Which module runs the loops over time, and arrays that go there and back."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args

import numpy as np

from .. import backends, checks
from ..typing import Array, HostBackend


def get(name: str, backend: str) -> Callable[..., Any]:
    """Return ``ctc``, ``crf`` or ``viterbi`` of a backend on the CPU; see `loops_numpy`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        There is no such backend, or it cannot be used here.
    """
    checks.choice("backend", backend, get_args(HostBackend))
    resolved = backends.resolve(backend)
    if resolved == "cuda":  # FASTRNN_BACKEND
        resolved = backends.best_on_cpu()
    function: Callable[..., Any] = getattr(import_module(f".loops_{resolved}", __package__), name)
    return function


def on_host(a: Array) -> Array:
    """Return a C-contiguous array of NumPy's."""
    if checks.on_gpu(a):
        with backends.device_of(a):
            a = backends.namespace(a).asnumpy(a)
    return np.ascontiguousarray(a)


def beside(like: Array, a: Array) -> Array:
    """Return what was computed on the host where another array is."""
    if not checks.on_gpu(like):
        return a
    with backends.device_of(like):
        moved: Array = backends.namespace(like).asarray(a)
    return moved
