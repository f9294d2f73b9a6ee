"""Our layers as candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import checks, show_config
from .candidate import Candidate, one_by_one
from .problem import Answer, Problem, solve
from .shapes import Case


def variants(case: Case) -> list[str]:
    """How a caller can use a layer for a case; "dense" is the baseline of lengths."""
    narrow = checks.NARROW if case.dtype == "bfloat16" and not case.shape.ragged else ()
    if case.mode == "step":
        return ["stepper", *(f"stepper {dtype}" for dtype in narrow)]
    if case.mode == "inference":
        dense = ["frozen dense"] * case.shape.ragged
        return ["", "frozen", *dense, *(f"frozen {dtype}" for dtype in narrow)]
    return ["", *["dense"] * case.shape.ragged]


def candidate(problem: Problem, backend: str, variant: str) -> Candidate:
    """Make one of ours."""
    return one_by_one(problem, lambda part: _candidate(part, backend, variant))


def _candidate(problem: Problem, backend: str, variant: str) -> Candidate:
    name = f"{backend} {variant}".strip()
    what, _, more = variant.partition(" ")
    weights = more if more in checks.NARROW else None
    if what == "stepper":
        return _stepper(name, problem, backend, weights)
    if variant.endswith("dense"):
        return _layer(name, "baseline", problem.dense(), backend, what == "frozen", None)
    return _layer(name, "ours", problem, backend, what == "frozen", weights)


def _layer(
    name: str, role: str, problem: Problem, backend: str, frozen: bool, weights: str | None
) -> Candidate:
    layer = problem.layer(backend)
    if frozen:
        layer.freeze(weights)

    x, dy, lengths, resets = problem.x, problem.dy, problem.lengths, problem.resets

    def infer() -> Any:
        return layer(x, lengths=lengths, resets=resets)

    def train() -> Any:
        y, _, tape = layer.forward(x, lengths=lengths, resets=resets)
        return y, layer.backward(tape, dy)

    def answer() -> Answer:
        return solve(layer, problem, x, dy)

    run = infer if problem.case.mode == "inference" else train
    return Candidate(name, role, problem, run, answer, _note(problem))


def _stepper(name: str, problem: Problem, backend: str, weights: str | None) -> Candidate:
    layer = problem.layer(backend)
    layer.freeze(weights)
    step = layer.stepper(problem.case.shape.B)
    x_t = problem.x[0]

    def answer() -> Answer:
        step.reset()
        return {"y": np.stack([step(x).copy() for x in problem.x])}

    return Candidate(name, "ours", problem, lambda: step(x_t), answer, _note(problem))


def _note(problem: Problem) -> str:
    """What a precision means in this version."""
    if problem.case.dtype != "bfloat16":
        return ""
    return f'precision="medium": {show_config("dicts")["precision"]["medium"]}'
