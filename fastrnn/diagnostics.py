"""`show_config`: what this installation is and can do."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, overload

import numpy as np

from . import backends, checks, config
from .backends import cpu
from .backends.matmul_algo import SPLIT_BF16


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
    from . import __version__

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
        "threads": _or_why_not(config.get_num_threads),
        "precision": _precisions(reasons["cpu"] is None),
        "environment": {
            name: os.environ[name]
            for name in (
                "FASTRNN_BACKEND",
                "FASTRNN_CACHE_DIR",
                "FASTRNN_CACHE_LIMIT",
                "FASTRNN_ISA",
                "FASTRNN_NUM_THREADS",
                "OMP_NUM_THREADS",
            )
            if name in os.environ
        },
    }


def _precisions(compiled: bool) -> dict[str, str]:
    """What each precision of float32 products runs as on the default backend."""
    found = _or_why_not(cpu.units) if compiled else None
    here = found if isinstance(found, set) else set()
    said = {}
    for name, rules in SPLIT_BF16.items():
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
