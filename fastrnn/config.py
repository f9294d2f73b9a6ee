"""Threads, and what this installation can do."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import checks, cpus, forks

# More is never faster, and a runaway number must not bring the process down.
MAX_THREADS = 1024

_everywhere: int | None = None  # set_num_threads; None until first asked; written under the lock
_lock = forks.Lock()
_here: ContextVar[int | None] = ContextVar("fastrnn_num_threads", default=None)


def get_num_threads() -> int:
    """Return the number of threads that a call made here and now would use.

    It is the first of these that there is:

    1. that of the innermost `num_threads` block around it,
    2. that of `set_num_threads`,
    3. FASTRNN_NUM_THREADS from the environment,
    4. OMP_NUM_THREADS, by which loky, Dask, Ray and containers share CPUs out; of a list for nested
       regions, such as ``4,2``, the first. If it is no such number, a RuntimeWarning says so,
       and it is ignored, as OpenMP itself does,
    5. the number of CPUs that this process may run on, or the CPU quota of its control group
       (``docker run --cpus=2``), rounded up, where that is less.

    What the environment says is looked up once.

    Raises
    ------
    ValueError
        FASTRNN_NUM_THREADS is not an int in 1..1024.
    """
    global _everywhere
    here = _here.get()
    if here is not None:
        return here
    if _everywhere is not None:
        return _everywhere
    default = _default_threads()
    with _lock.held:
        _everywhere = _everywhere or default  # set_num_threads may have come first
        return _everywhere


def set_num_threads(n: int) -> None:
    """Set the number of threads for the whole process, outside of `num_threads` blocks.

    Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        ``n`` is not an int, or not in 1..1024.
    """
    global _everywhere
    size = checks.size("n", n, below=MAX_THREADS + 1)
    with _lock.held:
        _everywhere = size


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use ``n`` threads within a ``with`` block, in this thread (and this asyncio task) only.

    Raises
    ------
    TypeError, ValueError
        ``n`` is not an int, or not in 1..1024.
    """
    token = _here.set(checks.size("n", n, below=MAX_THREADS + 1))
    try:
        yield
    finally:
        _here.reset(token)


def set_flush_denormals(on: bool) -> None:
    """Take denormal numbers for zeros in calls of the "cpu" backend, or not; off by default.

    Products with numbers below 1.2e-38 (float32; 2.2e-308 in float64) take many times as long on
    some processors. They come up where a state or a gradient decays towards zero. The mode is that
    of the processor (FTZ and DAZ on x86-64, FZ on AArch64): it is set in all threads of each call
    of a layer, a cell or a stepper, for as long as the call takes, and the caller's own is left as
    it is. A caller's own mode, as `torch.set_flush_denormal` sets it, reaches all threads of its
    calls without this.

    Raises
    ------
    TypeError
        ``on`` is not a bool.
    RuntimeError
        It is to be on, and the "cpu" backend cannot be used here.
    """
    on = checks.flag("on", on)
    if on:
        from . import backends  # which needs this module itself

        backends.get("cpu")
    extension = sys.modules.get("fastrnn._core")
    if extension is not None:
        extension.set_flush_denormals(on)


def release_memory() -> int:
    """Give back to the system the memory that the extension keeps for calls to come.

    Outputs, gradients and workspaces lie in blocks that are kept when they are free, for some two
    seconds, so that the next step of a training need not have its pages made anew. Blocks in use
    and free ones are together at most a tenth (or 2 MiB) more than what the last steps needed at a
    time, and the free ones no more than FASTRNN_CACHE_LIMIT.

    Returns
    -------
    int
        Number of bytes given back.

    Examples
    --------
    >>> import fastrnn
    >>> freed = fastrnn.release_memory()
    >>> fastrnn.release_memory()
    0
    """
    core: Any = sys.modules.get("fastrnn._core")  # else nothing has been kept
    return 0 if core is None else int(core.release_memory())


def cache_limit() -> int | None:
    """Return the bytes that FASTRNN_CACHE_LIMIT says; None without it."""
    text = os.environ.get("FASTRNN_CACHE_LIMIT", "").strip()
    if not text:
        return None
    digits, unit = (text[:-1], text[-1].upper()) if text[-1].upper() in _UNITS else (text, "")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        expected = "a number of bytes, or one with K, M, G or T behind it"
        raise ValueError(f"FASTRNN_CACHE_LIMIT must be {expected}, got {text!r}")
    return min(int(digits) * _UNITS[unit], sys.maxsize)


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _default_threads() -> int:
    text = os.environ.get("FASTRNN_NUM_THREADS", "").strip()
    if text:
        try:
            return checks.size("FASTRNN_NUM_THREADS", int(text), below=MAX_THREADS + 1)
        except ValueError:
            expected = f"an int in 1..{MAX_THREADS}"
            raise ValueError(f"FASTRNN_NUM_THREADS must be {expected}, got {text!r}") from None
    return min(_openmp_threads() or cpus.available(), MAX_THREADS)


def _openmp_threads() -> int | None:
    """Return what OMP_NUM_THREADS asks for, or None."""
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text:
        return None
    try:
        return checks.size("OMP_NUM_THREADS", int(text.split(",")[0]))
    except ValueError:
        warnings.warn(
            f"OMP_NUM_THREADS must be ints of at least 1 and commas, got {text!r}: ignored",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
