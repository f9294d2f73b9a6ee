"""Threads, and what this installation can do."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, overload

import numpy as np

from . import checks

# More is never faster, and a runaway number must not bring the process down.
MAX_THREADS = 1024

_everywhere: int | None = None  # set_num_threads; None until first asked
_here: ContextVar[int | None] = ContextVar("fastrnn_num_threads", default=None)


def get_num_threads() -> int:
    """Return the number of threads that a call made here and now would use.

    It is that of the innermost `num_threads` block around it, else that of `set_num_threads`, else
    FASTRNN_NUM_THREADS from the environment, else the number of CPUs this process may run on.

    Raises
    ------
    ValueError
        FASTRNN_NUM_THREADS is not an int in 1..1024.
    """
    global _everywhere
    here = _here.get()
    if here is not None:
        return here
    if _everywhere is None:
        _everywhere = _default_threads()
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
    _everywhere = checks.size("n", n, below=MAX_THREADS + 1)


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


def _default_threads() -> int:
    text = os.environ.get("FASTRNN_NUM_THREADS", "").strip()
    if text:
        try:
            return checks.size("FASTRNN_NUM_THREADS", int(text), below=MAX_THREADS + 1)
        except ValueError:
            expected = f"an int in 1..{MAX_THREADS}"
            raise ValueError(f"FASTRNN_NUM_THREADS must be {expected}, got {text!r}") from None
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show what this installation is and can do, as `numpy.show_config` does.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Write it to the standard output, or return it as nested dicts.

    Returns
    -------
    dict or None
        Version; for each backend whether it is usable, and why not; what "auto" means here; the
        instruction set chosen; threads; what each precision runs as; what is set in the
        environment.
    """
    checks.choice("mode", mode, ("stdout", "dicts"))
    facts = _facts()
    if mode == "dicts":
        return facts
    text = "\n".join(_lines(facts, 0)) + "\n"
    # paths and settings may hold what the terminal, or no text, can
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return None


def _facts() -> dict[str, Any]:
    from . import __version__, backends  # which need this module themselves
    from .backends import cpu

    reasons = {name: backends.why_not(name) for name in backends.NAMES}
    return {
        "fastrnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "backends": {
            name: "usable" if reason is None else f"not usable: {reason}"
            for name, reason in reasons.items()
        },
        "auto": _or_why_not(lambda: backends.get(backends.resolve("auto")).name),
        "instruction set": (
            _or_why_not(cpu.isa) if reasons["cpu"] is None else "none: no cpu backend"
        ),
        "threads": _or_why_not(get_num_threads),
        "precision": _precisions(reasons["cpu"] is None),
        "environment": {
            name: os.environ[name]
            for name in (
                "FASTRNN_BACKEND",
                "FASTRNN_CACHE_DIR",
                "FASTRNN_ISA",
                "FASTRNN_NUM_THREADS",
            )
            if name in os.environ
        },
    }


def _precisions(cpu: bool) -> dict[str, str]:
    """What each precision of float32 products runs as on the default backend."""
    from .backends.cpu import HALVES, units

    found = _or_why_not(units) if cpu else None
    here = found if isinstance(found, set) else set()
    said = {}
    for name, rules in HALVES.items():
        usable = [
            f"{each} for products of at least {each.least()}" for each in rules if each.usable(here)
        ]
        missing = dict.fromkeys(each.unit for each in rules)
        if usable:
            said[name] = ", else ".join([*usable, "fused multiply-adds"])
        else:
            said[name] = f"fused multiply-adds: no {' and no '.join(missing)}"
    return said


def _or_why_not(fact: Callable[[], object]) -> object:
    """A wrong setting in the environment is a finding here, not an error."""
    try:
        return fact()
    except (ValueError, RuntimeError) as error:
        return f"none: {error}"


def _lines(facts: dict[str, Any], depth: int) -> Iterator[str]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield f"{'  ' * depth}{name}:" + ("" if value else " nothing set")
            yield from _lines(value, depth + 1)
        else:
            yield f"{'  ' * depth}{name}: {value}"
