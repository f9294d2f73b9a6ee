"""Who takes part: our backends, and the libraries that are installed.

To add a library: a module in `peers/` with `why_not(case)` and `candidate(problem, threads)`, and
its line in `LIBRARIES`. Each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .candidate import Candidate
from .problem import Problem
from .shapes import Case

# what must be installed for each
LIBRARIES = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "jax": ("jax", "jaxlib"),
}


def missing(name: str) -> str | None:
    """Return why a library cannot take part at all, or None if it can."""
    absent = [need for need in LIBRARIES[name] if find_spec(need) is None]
    if absent:
        return f"{' and '.join(absent)} not installed: pip install 'fastrnn[peers]' brings it"
    try:
        for need in LIBRARIES[name]:
            import_module(need)
    except Exception as error:  # a broken installation is a finding, whatever it raises
        return f"installed, but does not load: {error}"
    return None


def why_not(name: str, case: Case) -> str | None:
    """Return why a library cannot solve a case, or None if it can."""
    reason: str | None = _module(f"peers.{name}").why_not(case)
    return reason


def variants(case: Case) -> list[str]:
    """How a caller can use our layer for a case."""
    found: list[str] = _module("ours").variants(case)
    return found


def candidate(name: str, variant: str, problem: Problem, threads: int) -> Candidate:
    """Make the candidate of a library, or of one of our backends in a variant."""
    made: Candidate = (
        _module(f"peers.{name}").candidate(problem, threads)
        if name in LIBRARIES
        else _module("ours").candidate(problem, name, variant)
    )
    return made


def candidates(
    problem: Problem, backends: tuple[str, ...], libraries: tuple[str, ...], threads: int
) -> tuple[list[Candidate], dict[str, str]]:
    """Return those who take part, ours first, and why the other libraries do not."""
    case = problem.case
    found = [
        candidate(name, variant, problem, threads)
        for name in backends
        for variant in variants(case)
    ]
    absent = {}
    for name in libraries:
        reason = why_not(name, case)
        if reason is not None:
            absent[name] = reason
            continue
        try:
            found.append(candidate(name, "", problem, threads))
        except Exception as error:  # theirs is to be known, and no reason to stop
            absent[name] = f"failed: {error}"
    return found, absent


def _module(name: str) -> Any:
    return import_module(f".{name}", __package__)
