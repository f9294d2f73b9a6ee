"""The model that ONNX Runtime and OpenVINO run: one RNN, GRU or LSTM node."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ..problem import Problem
from ..shapes import Array, Case

# ONNX's order of the gates, in ours: LSTM i o f c from i f g o, GRU z r h from r z n.
_ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}


def why_not(case: Case) -> str | None:
    """What no ONNX runtime can do."""
    if case.mode in ("training", "memory"):
        return "no training"
    if case.shape.resets:
        return "no resets"
    return "no float64 for these operators" if case.dtype == "float64" else None


def inputs(problem: Problem) -> dict[str, Array]:
    """Values of the model's inputs: X, the rows' lengths if any, and of a step the state."""
    s = problem.case.shape
    values = {"X": problem.x}
    if problem.lengths is not None:
        values["lengths"] = problem.lengths.astype(np.int32)
    if problem.case.mode == "step":
        values["X"] = problem.x[:1].copy()
        for name in ("h", "c")[: 1 + (s.cell == "lstm")]:
            values[name] = np.zeros((1, s.B, s.H), problem.dtype)
    return values


def outputs(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's outputs: Y, and of a step the state after it."""
    s = problem.case.shape
    if problem.case.mode != "step":
        return {"Y": (s.T, 1, s.B, s.H)}
    states = ("h", "c")[: 1 + (s.cell == "lstm")]
    return {"Y": (1, 1, s.B, s.H)} | {f"{name}_next": (1, s.B, s.H) for name in states}


def model(problem: Problem) -> bytes:
    """The serialized model."""
    onnx: Any = import_module("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    s = problem.case.shape
    p = problem.params
    bias = np.concatenate([_blocks(p[f"bias_{side}_l0"], s.cell) for side in ("ih", "hh")])
    weights = {
        "W": _blocks(p["weight_ih_l0"], s.cell)[None],
        "R": _blocks(p["weight_hh_l0"], s.cell)[None],
        "B": bias[None],
    }
    given, made = inputs(problem), outputs(problem)
    optional = [name if name in given else "" for name in ("lengths", "h", "c")]
    while optional and not optional[-1]:
        optional.pop()
    node = helper.make_node(
        s.cell.upper(),
        ["X", "W", "R", "B", *optional],
        list(made),
        hidden_size=s.H,
        **({"linear_before_reset": 1} if s.cell == "gru" else {}),
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info(
                name, kinds.INT32 if name == "lengths" else kinds.FLOAT, value.shape
            )
            for name, value in given.items()
        ],
        [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in made.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    # An older version than the newest: a runtime refuses what came after it.
    made_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    serialized: bytes = made_model.SerializeToString()
    return serialized


def _blocks(a: Array, cell: str) -> Array:
    order = _ORDER[cell]
    parts = np.split(a, len(order))
    return np.concatenate([parts[index] for index in order])
