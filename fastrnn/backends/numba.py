"""The fallback where there is no compiled extension: the text of the reference, through Numba.

Nothing is imported or compiled before the first pass. What has been compiled is kept on disk by
Numba, where it finds a place to write.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from fastrnn.cellmath import MATHS, gru, lstm, ops, rnn

from . import sequence
from . import numpy as reference

_HELPERS = (
    ops.sigmoid,
    ops.product,
    ops.add_product,
    ops.add_sum,
    ops.restart,
    gru.after_reset,
    sequence.before,
)

_lock = threading.Lock()
_compiled: dict[str, reference.Loops] = {}


def why_not() -> str | None:
    """Return why this backend cannot be used, or None if it can."""
    for name in ("numba", "scipy"):  # Numba takes the BLAS from SciPy
        try:
            import_module(name)
        except ImportError as error:
            return f'{name} is not usable ({error}): pip install "fastrnn[numba]"'
    return None


class NumbaBackend(reference.NumpyBackend):
    """The reference's loops, compiled. Ignores `threads`, as the reference does."""

    name = "numba"

    def loops(self, kind: str) -> reference.Loops:
        """Return the loops of a cell kind, compiled when they are first called."""
        with _lock:
            if kind not in _compiled:
                _compiled[kind] = _compile(kind)
            return _compiled[kind]


def _compile(kind: str) -> reference.Loops:
    register: Any = import_module("numba.extending").register_jitable
    plain = reference.loops(kind)
    for function in (*_HELPERS, *MATHS[kind], *plain):
        register(function)
    return reference.Loops(*map(_jit, plain))


def _jit(loop: Callable[..., Any]) -> Callable[..., Any]:
    njit: Any = import_module("numba").njit
    try:
        compiled = njit(_entry(loop, _digest()), nogil=True, cache=True)
    except (OSError, RuntimeError):  # no source file, or no place to write
        compiled = njit(_entry(loop, ""), nogil=True)
    return compiled  # type: ignore[no-any-return]


def _entry(loop: Callable[..., Any], digest: str) -> Callable[..., Any]:
    """Return loop with a digest of all compiled text as one of its constants.

    Numba's cache is keyed by the text and the constants of the function it is asked to compile,
    not by those of the functions called: without this, an upgrade could run the old cell maths.
    """

    def entry(*args):  # type: ignore[no-untyped-def]
        _ = digest
        return loop(*args)

    return entry


def _digest() -> str:
    text = b"".join(Path(module.__file__).read_bytes() for module in (ops, gru, lstm, rnn, sequence))
    return hashlib.sha256(text).hexdigest()
