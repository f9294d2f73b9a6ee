"""`save`: a layer as an ONNX model with its states as inputs and outputs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fastrnn
from fastrnn import checks
from fastrnn.layers import GRU, LSTM, RNN

from ..typing import Array
from .layers import FUNCTIONS, PEEPHOLES, TO_ONNX, blocks

_OLDEST = 13  # of which Squeeze and Split take axes and sizes as inputs
_NAMES = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "hard_sigmoid": "HardSigmoid"}
_LARGEST = 2**31 - 2**20  # bytes that one protobuf message can hold, and some for the rest


def save(
    path: str | os.PathLike[str], layer: Any, *, opset: int = 17, lengths: bool = False
) -> None:
    """Write a layer as an ONNX model.

    Its inputs are ``x`` (T, B, I), or (B, T, I) with batch_first, ``h0`` (L*D, B, H), for an LSTM
    ``c0`` (L*D, B, H), and on request ``lengths`` (B,) of int32; its outputs ``y``, ``hn`` and
    ``cn``. T and B are free. Runtimes keep no state between calls: what comes out as ``hn`` goes in
    as ``h0``.

    Parameters
    ----------
    path : str or os.PathLike
        Weights of more than two gigabytes go to ``path`` + ".data", as ONNX demands.
    layer : RNN, GRU or LSTM
        Without ``proj_size``, which no operator of ONNX has. Dropout is for training and is not
        written. ONNX Runtime runs float32 alone; a float64 layer is written as float64.
    opset : int
        Version of ONNX's operators, from 13 to the newest that the onnx package knows.
    lengths : bool
        Whether the model is to have the input ``lengths``.

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        ``opset`` is out of range, or the layer has a projection.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import fastrnn, fastrnn.onnx
    >>> fastrnn.onnx.save("step.onnx", fastrnn.LSTM(40, 64))
    """
    target = checks.path(path)
    if not isinstance(layer, (RNN, GRU, LSTM)):
        raise TypeError(f"layer must be an RNN, GRU or LSTM, got {checks.type_name(layer)}")
    version = checks.integer("opset", opset)
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST <= version <= newest:
        raise ValueError(f"opset must be in {_OLDEST}..{newest}, got {version}")
    ragged = checks.flag("lengths", lengths)
    if layer.proj_size:
        raise ValueError(f"ONNX's LSTM has no projection, got a layer of P={layer.proj_size}")
    model = _model(layer, version, ragged)
    large = layer.num_params * layer.dtype.itemsize > _LARGEST
    if large:
        onnx.save_model(
            model,
            target,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=os.path.basename(target) + ".data",
        )
    else:
        onnx.save_model(model, target)


class _Builder:
    """The nodes and constants of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Array) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        """Add a node; return its first output."""
        name = outputs[0]
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=f"{name}:{kind}", **attributes)
        )
        return name


def _model(layer: Any, opset: int, ragged: bool) -> Any:
    kind = next(each.__name__ for each in (RNN, GRU, LSTM) if isinstance(layer, each))
    config = layer.config()
    L, D, H, I = layer.num_layers, 1 + layer.bidirectional, layer.hidden_size, layer.input_size
    build = _Builder()
    element = helper.np_dtype_to_tensor_dtype(layer.dtype)
    outer = ["B", "T"] if layer.batch_first else ["T", "B"]
    states = ("h", "c")[: 1 + (kind == "LSTM")]
    x = "x"
    if layer.batch_first:  # few runtimes have layout=1
        x = build.node("Transpose", ["x"], ["x:time"], perm=[1, 0, 2])
    initial = {s: [f"{s}0"] for s in states}
    if L > 1:
        sizes = build.constant("sizes", np.full(L, D, np.int64))
        for s in states:
            initial[s] = [f"{s}0_l{n}" for n in range(L)]
            build.node("Split", [f"{s}0", sizes], initial[s], axis=0)
    final: dict[str, list[str]] = {s: [] for s in states}
    attributes = _attributes(kind, config, D)
    if D == 1:
        axis = build.constant("direction", np.array([1], np.int64))
    else:
        shape = build.constant("joined", np.array([0, 0, D * H], np.int64))
    for n in range(L):
        inputs = [x, *_weights(build, layer, kind, n)]
        inputs += ["lengths" if ragged else "", *(initial[s][n] for s in states)]
        if config.get("peephole"):
            inputs.append(_stacked(build, layer, "weight_peephole", n, PEEPHOLES))
        outputs = [f"Y_l{n}", *(f"{s}n" if L == 1 else f"{s}n_l{n}" for s in states)]
        for s, name in zip(states, outputs[1:], strict=True):
            final[s].append(name)
        build.nodes.append(
            helper.make_node(kind, inputs, outputs, name=f"{kind.lower()}_l{n}", **attributes)
        )
        above = "y" if n == L - 1 and not layer.batch_first else f"y_l{n}"
        if D == 1:
            x = build.node("Squeeze", [f"Y_l{n}", axis], [above])
        else:
            turned = build.node("Transpose", [f"Y_l{n}"], [f"Y_l{n}:turned"], perm=[0, 2, 1, 3])
            x = build.node("Reshape", [turned, shape], [above])
    if layer.batch_first:
        build.node("Transpose", [x], ["y"], perm=[1, 0, 2])
    if L > 1:
        for s in states:
            build.node("Concat", final[s], [f"{s}n"], axis=0)

    def info(name: str, shape: list[Any], kind: int = element) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    given = [info("x", [*outer, I]), *(info(f"{s}0", [L * D, "B", H]) for s in states)]
    if ragged:
        given.append(info("lengths", ["B"], TensorProto.INT32))
    graph = helper.make_graph(
        build.nodes,
        "fastrnn",
        given,
        [info("y", [*outer, D * H]), *(info(f"{s}n", [L * D, "B", H]) for s in states)],
        build.constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="fastrnn",
        producer_version=fastrnn.__version__,
    )
    return model


def _attributes(kind: str, config: dict[str, Any], D: int) -> dict[str, Any]:
    """Return the node's attributes, those that have ONNX's default left out."""
    found: dict[str, Any] = {"hidden_size": config["hidden_size"]}
    if D == 2:
        found["direction"] = "bidirectional"
    elif config["reverse"]:
        found["direction"] = "reverse"
    if kind == "RNN":
        functions = [config["nonlinearity"]]
    else:
        functions = [config["gate_activation"], config["activation"]]
    if kind == "LSTM":
        functions.append(config["output_activation"] or config["activation"])
        if config["coupled"]:
            found["input_forget"] = 1
    if kind == "GRU":
        found["linear_before_reset"] = int(config["reset_after"])
    names = [_NAMES[each] for each in functions]
    if names != FUNCTIONS[kind]:
        found["activations"] = names * D
        hard = names.count("HardSigmoid") * D
        if hard:
            found["activation_alpha"] = [config["gate_slope"]] * hard
            found["activation_beta"] = [0.5] * hard
    if config["clip"] is not None:
        found["clip"] = config["clip"]
    return found


def _weights(build: _Builder, layer: Any, kind: str, n: int) -> list[str]:
    """Add W, R and B of a level; return their names, "" for none."""
    order = TO_ONNX[kind]
    names = [_stacked(build, layer, f"weight_{side}", n, order) for side in ("ih", "hh")]
    if not layer.bias:
        return [*names, ""]
    ih, hh = (_arrays(layer, f"bias_{side}", n, order) for side in ("ih", "hh"))
    both = np.stack([np.concatenate(pair) for pair in zip(ih, hh, strict=True)])
    return [*names, build.constant(f"bias_l{n}", both)]


def _stacked(build: _Builder, layer: Any, name: str, n: int, order: tuple[int, ...]) -> str:
    return build.constant(f"{name}_l{n}", np.stack(_arrays(layer, name, n, order)))


def _arrays(layer: Any, name: str, n: int, order: tuple[int, ...]) -> list[Array]:
    """Return a level's parameters of a name, one a direction, their blocks in ONNX's order."""
    params = layer.params.host()
    ends = ("", "_reverse")[: 1 + layer.bidirectional]
    return [blocks(params[f"{name}_l{n}{end}"], order) for end in ends]
