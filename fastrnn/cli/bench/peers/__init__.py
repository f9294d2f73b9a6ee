"""Other libraries as contenders, each imported when first asked for.

To add one: a module here with `why_not(case)` and `contender(problem, threads)`, and its line in
`NEEDS`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ..contender import Contender
from ..problem import Problem
from ..shapes import Case

# what must be installed for each
NEEDS = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "jax": ("jax", "jaxlib"),
}

NAMES = tuple(NEEDS)


def missing(name: str) -> str | None:
    """Return why a peer cannot take part at all, or None if it can."""
    absent = [need for need in NEEDS[name] if find_spec(need) is None]
    if absent:
        return f"{' and '.join(absent)} not installed: pip install 'fastrnn[bench]' brings it"
    try:
        for need in NEEDS[name]:
            import_module(need)
    except Exception as error:  # a broken installation is a finding, whatever it raises
        return f"installed, but does not load: {error}"
    return None


def why_not(name: str, case: Case) -> str | None:
    """Return why a peer cannot solve a case, or None if it can."""
    reason: str | None = import_module(f".{name}", __name__).why_not(case)
    return reason


def contender(name: str, problem: Problem, threads: int) -> Contender:
    """Make a peer's contender."""
    made: Contender = import_module(f".{name}", __name__).contender(problem, threads)
    return made
