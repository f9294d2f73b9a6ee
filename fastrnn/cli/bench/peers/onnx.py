"""The model that ONNX Runtime and OpenVINO run: nodes RNN, GRU and LSTM."""

from __future__ import annotations

from importlib import import_module
from itertools import product
from typing import Any

import numpy as np

from ....typing import Array
from ..problem import Problem
from ..shapes import Case

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
    """Values of the model's inputs: X, the rows' lengths if any, and of a step the states."""
    s = problem.case.shape
    values = {"X": problem.x}
    if problem.lengths is not None:
        values["lengths"] = problem.lengths.astype(np.int32)
    if problem.case.mode == "step":
        values["X"] = problem.x[:1].copy()
        for name in _states(problem):
            values[name] = np.zeros((1, s.B, s.H), problem.dtype)
    return values


def outputs(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's outputs: Y, and of a step the states after it."""
    s = problem.case.shape
    steps = 1 if problem.case.mode == "step" else s.T
    states = _states(problem) if problem.case.mode == "step" else []
    Y = (steps, 1, s.B, s.H * s.copies)
    return {"Y": Y} | {f"{name}_next": (1, s.B, s.H) for name in states}


def _states(problem: Problem) -> list[str]:
    s = problem.case.shape
    places = product(range(s.copies), range(s.layers), ("h", "c")[: 1 + (s.cell == "lstm")])
    return [f"{name}{part}_{layer}" for part, layer, name in places]


def model(problem: Problem) -> bytes:
    """The serialized model: a node for each layer, all in one graph."""
    onnx: Any = import_module("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    s = problem.case.shape
    given, made = inputs(problem), outputs(problem)
    weights: dict[str, Array] = {"axis": np.array([1])}
    nodes, ends = [], []
    if s.copies > 1:
        nodes.append(helper.make_node("Split", ["X"], [f"X{k}" for k in range(s.copies)], axis=2))
    for k, part in enumerate(problem.parts):
        x = f"X{k}" if s.copies > 1 else "X"
        for layer in range(s.layers):
            y, place = f"Y{k}_{layer}", f"{k}_{layer}"
            weights |= {f"{name}{place}": a for name, a in _weights(part, layer).items()}
            # state in and out, whose names stay empty where there is none
            states = [f"{name}{place}" for name in ("h", "c")[: 1 + (s.cell == "lstm")]]
            states = [name if name in given else "" for name in states]
            lengths = "lengths" if "lengths" in given else ""
            names = [x, *(f"{name}{place}" for name in "WRB"), lengths, *states]
            while not names[-1]:
                names.pop()
            after = [f"{name}_next" for name in states if name]
            more = {"linear_before_reset": 1} if s.cell == "gru" else {}
            node = helper.make_node(s.cell.upper(), names, [y, *after], hidden_size=s.H, **more)
            nodes.append(node)
            if layer + 1 < s.layers:
                x = f"X{place}"
                nodes.append(helper.make_node("Squeeze", [y, "axis"], [x]))
        ends.append(y)
    if s.copies > 1:
        nodes.append(helper.make_node("Concat", ends, ["Y"], axis=3))
    else:
        nodes[-1].output[0] = "Y"
    graph = helper.make_graph(
        nodes,
        "layer",
        [
            helper.make_tensor_value_info(
                name, kinds.INT32 if name == "lengths" else kinds.FLOAT, value.shape
            )
            for name, value in given.items()
        ],
        [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in made.items()],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in weights.items()
            if name != "axis" or s.layers > 1
        ],
    )
    # An older version than the newest: a runtime refuses what came after it.
    made_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    serialized: bytes = made_model.SerializeToString()
    return serialized


def _weights(problem: Problem, layer: int) -> dict[str, Array]:
    """W, R and B of a layer, with an axis for the direction."""
    p, cell = problem.params, problem.case.shape.cell
    bias = [_blocks(p[f"bias_{side}_l{layer}"], cell) for side in ("ih", "hh")]
    return {
        "W": _blocks(p[f"weight_ih_l{layer}"], cell)[None],
        "R": _blocks(p[f"weight_hh_l{layer}"], cell)[None],
        "B": np.concatenate(bias)[None],
    }


def _blocks(a: Array, cell: str) -> Array:
    order = _ORDER[cell]
    parts = np.split(a, len(order))
    return np.concatenate([parts[index] for index in order])
