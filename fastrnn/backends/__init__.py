"""The engines, found by name and imported when first asked for.

To add one: a module or package here with `why_not()` and a class `<Name>Backend` with the methods
of `base.Backend`, and its name in the tuples below.
"""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any, get_args

import numpy as np

from fastrnn import checks, forks, typing
from fastrnn.spec import Saved, Weights
from fastrnn.typing import Array

from .base import Backend

__all__ = [
    "DEVICES",
    "NAMES",
    "Array",
    "Backend",
    "Saved",
    "Weights",
    "best_on_cpu",
    "device_of",
    "fallback",
    "get",
    "ignore_fp_errors",
    "namespace",
    "parse_device",
    "resolve",
    "warn_of_fallback",
    "why_not",
]

NAMES: tuple[str, ...] = get_args(typing.Backend)[1:]

DEVICES: tuple[str, ...] = get_args(typing.Device)

_AUTO = ("cpu", "numba", "numpy")
"""What "auto" tries, best first."""

_BEST = _AUTO[0]


def why_not(name: str) -> str | None:
    """Return why a backend cannot be used on this machine, or None if it can."""
    reason: str | None = import_module(f".{name}", __name__).why_not()
    return reason


def get(name: str) -> Backend:
    """Return the backend with this name ("auto" is for `resolve`).

    Raises
    ------
    ValueError
        There is no such backend.
    RuntimeError
        It cannot be used here; the text says what is missing and what brings it.
    """
    return _get(checks.choice("backend", name, NAMES))


@cache
def _get(name: str) -> Backend:
    reason = why_not(name)
    if reason is not None:
        raise RuntimeError(f'backend "{name}" cannot be used here: {reason}')
    backend: Backend = getattr(import_module(f".{name}", __name__), f"{name.title()}Backend")()
    return backend


def namespace(a: Array) -> Any:
    """Return where the functions for an array are: numpy, or cupy.

    Raises
    ------
    RuntimeError
        It is on a GPU, and the backend "cuda" cannot be used here.
    """
    return get("cuda").xp if checks.on_gpu(a) else np


def device_of(a: Array) -> AbstractContextManager[object]:
    """Return a context in which the GPU of an array is this thread's current one.

    CuPy runs functions, and makes arrays, on the current device, wherever their operands are.
    """
    # mypy: CuPy, if it is there at all, has no types
    return nullcontext() if isinstance(a, np.ndarray) else a.device


def parse_device(device: str) -> tuple[str, AbstractContextManager[object]]:
    """Return which of `DEVICES` is meant, and a context in which that is the current one.

    Parameters
    ----------
    device : "cpu", "cuda", or "cuda:0" and so on for the GPU of a number

    Raises
    ------
    TypeError, ValueError
        It is none of these.
    RuntimeError
        The backend "cuda" cannot be used here.
    """
    choices: tuple[str, ...] = DEVICES
    if not isinstance(device, str) or not device.startswith("cuda"):
        return checks.choice("device", device, choices), nullcontext()
    cuda = get("cuda").xp.cuda
    numbered = [f"cuda:{n}" for n in range(cuda.runtime.getDeviceCount())]
    checks.choice("device", device, (*choices, *numbered))
    return "cuda", cuda.Device(numbered.index(device)) if device in numbered else nullcontext()


def ignore_fp_errors(a: Array) -> AbstractContextManager[object]:
    """Return a context as `device_of`, in which NumPy does not warn of NaN and inf."""
    return np.errstate(all="ignore") if isinstance(a, np.ndarray) else device_of(a)


def resolve(name: str) -> str:
    """Return the name of the backend to use: "auto" becomes a real one.

    "auto" is what FASTRNN_BACKEND in the environment names, else the first usable of cpu, numba and
    numpy. Any other name must exist and be usable.

    Raises
    ------
    ValueError, RuntimeError
        As `get`.
    """
    checks.choice("backend", name, ("auto", *NAMES))
    if name == "auto":
        name = _asked_for()
        if not name:
            return best_on_cpu()
    get(name)
    return name


def _asked_for() -> str:
    """Return the backend that the environment asks for by name, or nothing."""
    wanted = os.environ.get("FASTRNN_BACKEND", "")
    if wanted in ("", "auto"):
        return ""
    return checks.choice("FASTRNN_BACKEND", wanted, ("auto", *NAMES))


def best_on_cpu() -> str:
    """Return the name of the first usable backend of cpu, numba and numpy."""
    return next(usable for usable in _AUTO if why_not(usable) is None)


def of_training() -> str:
    """Return the name of the backend on the CPU whose functions serve layers without one of their
    own, losses and optimisers: what FASTRNN_BACKEND names, if it runs there, else the best."""
    asked = _asked_for()
    return asked if asked not in ("", "cuda") else best_on_cpu()


def fallback() -> str | None:
    """Return what to say of "auto" if it is slower than the compiled backend and nobody has asked
    for that; None if FASTRNN_BACKEND asks for it, or if it is the compiled one."""
    chosen = _asked_for() or best_on_cpu()
    return _fallback_text(chosen, _asked_for())


_warned = False  # written under the lock
_lock = forks.Lock()


def warn_of_fallback(name: str, chosen: str) -> None:
    """Warn, once in a process, of the backend that was chosen for a layer, as `fallback` does."""
    global _warned
    if name != "auto" or chosen == _BEST or _warned:
        return
    text = _fallback_text(chosen, _asked_for())
    if text is None:
        return
    with _lock.held:
        first, _warned = not _warned, True
    if not first:
        return
    try:  # of the caller of the constructor of the layer
        warnings.warn(text, RuntimeWarning, stacklevel=5)
    except RuntimeWarning:  # an error, which comes each time
        with _lock.held:
            _warned = False
        raise


def _fallback_text(chosen: str, asked: str) -> str | None:
    """Return what to say of a backend, None if it is the best one there is or was asked for."""
    if chosen in (_BEST, asked):
        return None
    times = "many times slower" if chosen == "numpy" else "slower"
    return (
        f'backend "auto" ends at the fallback "{chosen}", {times} than "{_BEST}": '
        f'{why_not(_BEST)}. FASTRNN_BACKEND="{chosen}" asks for it, without these words'
    )
