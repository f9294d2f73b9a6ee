"""OpenVINO, on the model that ONNX Runtime runs."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

import numpy as np

from ..candidate import Candidate
from ..problem import Answer, Problem
from ..shapes import Case
from . import onnx


def why_not(case: Case) -> str | None:
    """What ONNX cannot say."""
    return onnx.why_not(case)


def candidate(problem: Problem, threads: int) -> Candidate:
    """Make the candidate."""
    ov: Any = import_module("openvino")
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(io.BytesIO(onnx.model(problem))),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if problem.case.dtype == "bfloat16" else "f32",
        },
    )
    request = compiled.create_infer_request()
    values = {name: request.get_tensor(name).data for name in onnx.inputs(problem)}
    for name, value in onnx.inputs(problem).items():
        values[name][...] = value
    results = {name: request.get_tensor(name) for name in onnx.outputs(problem)}
    if problem.case.mode == "step":
        return _step(request, problem, values, results)

    def answer() -> Answer:
        request.infer()
        return {"y": results["Y"].data[:, 0].copy()}

    return Candidate("openvino", "peer", problem, request.infer, answer)


def _step(
    request: Any, problem: Problem, values: dict[str, Any], results: dict[str, Any]
) -> Candidate:
    states = [(values[name], results[f"{name}_next"].data) for name in values if name != "X"]
    x, y = values["X"], results["Y"].data

    def step(x_t: Any) -> None:
        x[0] = x_t
        request.infer()
        for before, after in states:
            before[...] = after

    def answer() -> Answer:
        for before, _ in states:
            before[...] = 0
        outputs = []
        for x_t in problem.x:
            step(x_t)
            outputs.append(y[0, 0].copy())
        return {"y": np.stack(outputs)}

    first = problem.x[0].copy()
    return Candidate("openvino", "peer", problem, lambda: step(first), answer)
