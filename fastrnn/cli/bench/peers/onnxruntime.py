"""ONNX Runtime: inputs and outputs bound to memory of its own, so that a run copies nothing."""

from __future__ import annotations

from importlib import import_module
from itertools import cycle
from typing import Any

import numpy as np

from ..candidate import Candidate
from ..problem import Answer, Problem
from ..shapes import Case
from . import onnx


def why_not(case: Case) -> str | None:
    """What ONNX cannot say, and bfloat16."""
    if case.dtype == "bfloat16":
        return "no bfloat16 on CPUs"
    return onnx.why_not(case)


def candidate(problem: Problem, threads: int) -> Candidate:
    """Make the candidate."""
    ort: Any = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(onnx.model(problem), options, providers=["CPUExecutionProvider"])
    values = {
        name: ort.OrtValue.ortvalue_from_numpy(value)
        for name, value in onnx.inputs(problem).items()
    }
    results = {
        name: ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, problem.dtype))
        for name, shape in onnx.outputs(problem).items()
    }
    if problem.case.mode == "step":
        return _step(session, problem, values, results)
    binding = _bound(session, values, results)

    def run() -> Any:
        session.run_with_iobinding(binding)

    def answer() -> Answer:
        run()
        return {"y": results["Y"].numpy()[:, 0]}

    return Candidate("onnxruntime", "peer", problem, run, answer)


def _bound(session: Any, values: dict[str, Any], results: dict[str, Any]) -> Any:
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in results.items():
        binding.bind_ortvalue_output(name, value)
    return binding


def _step(
    session: Any, problem: Problem, values: dict[str, Any], results: dict[str, Any]
) -> Candidate:
    """Two bindings in turns, the state of one step being written where the next one reads."""
    after = {name: results[f"{name}_next"] for name in values if name != "X"}
    back = {f"{name}_next": values[name] for name in after}
    pair = (
        _bound(session, values, results),
        _bound(session, {"X": values["X"], **after}, {"Y": results["Y"], **back}),
    )
    bindings = cycle(pair)

    def step(x_t: Any) -> None:
        values["X"].update_inplace(x_t)
        session.run_with_iobinding(next(bindings))

    def answer() -> Answer:
        nonlocal bindings
        bindings = cycle(pair)
        for name in after:
            values[name].update_inplace(np.zeros(values[name].shape(), problem.dtype))
        outputs = []
        for x_t in problem.x:
            step(x_t[None])
            outputs.append(results["Y"].numpy()[0, 0].copy())
        return {"y": np.stack(outputs)}

    first = problem.x[:1].copy()
    return Candidate("onnxruntime", "peer", problem, lambda: step(first), answer)
