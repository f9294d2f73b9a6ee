"""An ONNX model as what recurrent layers are to be found in: its graphs, also those inside If, Loop
and Scan, the producers and consumers of their tensors, and the tensors that are constant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper

from fastrnn import checks

from ..typing import Array

RECURRENT = ("RNN", "GRU", "LSTM")

_ONNX = ("", "ai.onnx")  # the domain of ONNX's own operators


def read(path_or_model: Any) -> tuple[Any, str]:
    """Return a model, and the folder in which its external data are.

    Raises
    ------
    TypeError
        It is neither a path, nor a ModelProto, nor the bytes of one.
    ValueError
        The file, or the bytes, are no ONNX model.
    """
    folder = ""
    if isinstance(path_or_model, onnx.ModelProto):
        model = path_or_model
    elif isinstance(path_or_model, (bytes, str, os.PathLike)):
        try:
            if isinstance(path_or_model, bytes):
                what = "the bytes"
                model = onnx.load_model_from_string(path_or_model)
            else:
                what = checks.path(path_or_model)
                folder = os.path.dirname(os.path.abspath(what))
                model = onnx.load(what, load_external_data=False)
        except OSError:
            raise
        except Exception as error:  # protobuf's errors have no common class but this
            raise ValueError(f"{what}: not an ONNX model ({error})") from None
    else:
        raise TypeError(
            "path_or_model must be a path, an onnx.ModelProto or its bytes, "
            f"got {checks.type_name(path_or_model)}"
        )
    if not model.HasField("graph"):
        raise ValueError("path_or_model must be an ONNX model with a graph, got one without")
    if model.functions:  # exporters of torch put layers into functions of their own
        model = inliner.inline_local_functions(model)
    return model, folder


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes by name."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> Any:
    """Return text as str, and a float (which is a float32) as its shortest decimal."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, (list, tuple)):
        return [_text(each) for each in value]
    return value


def is_onnx(node: Any, *kinds: str) -> bool:
    """Return whether a node is one of these operators of ONNX's own."""
    return node.domain in _ONNX and node.op_type in kinds


class Graph:
    """One graph and its tensors; a name that is not found here is the surrounding graph's.

    Parameters
    ----------
    proto : GraphProto
    where : str
        What the graph is called, such as ``graph`` or ``graph/If_3/then_branch``.
    """

    def __init__(
        self, proto: Any, model: Any, folder: str, where: str, outer: Graph | None
    ) -> None:
        self.proto = proto
        self.model = model
        self.folder = folder
        self.where = where
        self.outer = outer
        self.producers = {name: node for node in proto.node for name in node.output if name}
        self.initializers = {each.name: each for each in proto.initializer}
        self.shapes = {
            each.name: [dim.dim_value or None for dim in each.type.tensor_type.shape.dim]
            for each in (*proto.input, *proto.value_info, *proto.output)
            if each.type.tensor_type.HasField("shape")
        }
        self._constants: dict[str, Array | None] = {}

    def inside(self) -> Iterator[Graph]:
        """Yield this graph and those inside its nodes."""
        yield self
        for number, node in enumerate(self.proto.node):
            for attribute in node.attribute:
                bodies = [attribute.g] if attribute.HasField("g") else []
                for body in (*bodies, *attribute.graphs):
                    name = node.name or f"{node.op_type}_{number}"
                    where = f"{self.where}/{name}/{attribute.name}"
                    yield from Graph(body, self.model, self.folder, where, self).inside()

    def owner(self, name: str) -> Graph | None:
        """Return the graph, this or a surrounding one, in which a name is defined."""
        here = name in self.producers or name in self.initializers
        if here or any(each.name == name for each in self.proto.input):
            return self
        return None if self.outer is None else self.outer.owner(name)

    def consumers(self, name: str) -> list[Any]:
        """Return the nodes that take a tensor, also from graphs inside."""
        found = [node for node in self.proto.node if name in node.input]
        for graph in self.inside():
            if graph is not self:
                outputs = [each.name for each in graph.proto.output]
                found += [node for node in graph.proto.node if name in node.input]
                found += [graph.proto] * outputs.count(name)
        return found

    def shape(self, name: str) -> list[int | None]:
        """Return what is known of a tensor's shape; an empty list if nothing."""
        graph = self.owner(name)
        if graph is None:
            return []
        if name in graph.initializers:
            return list(graph.initializers[name].dims)
        return graph.shapes.get(name, [])

    def constant(self, name: str) -> Array | None:
        """Return the value of a tensor, or None if it is not constant.

        A node whose inputs are constant is evaluated by ONNX's own reference, so that weights may
        stand behind Identity, Cast, Transpose, Concat, DequantizeLinear and whatever else.

        Raises
        ------
        ValueError
            Its external data cannot be read.
        """
        graph = self.owner(name)
        if graph is None:
            return None
        if name not in graph._constants:
            graph._constants[name] = None  # of a graph that is not acyclic
            graph._constants[name] = graph._find_constant(name)
        return graph._constants[name]

    def _find_constant(self, name: str) -> Array | None:
        if name in self.initializers:
            return self._array(name, self.initializers[name])
        node = self.producers.get(name)
        if node is None or any(a.HasField("g") or a.graphs for a in node.attribute):
            return None
        if is_onnx(node, "Constant") and any(a.name == "value" for a in node.attribute):
            return self._array(name, node.attribute[0].t)
        feeds: dict[str, Array] = {}
        for given in filter(None, node.input):
            value = self.constant(given)
            if value is None:
                return None
            feeds[given] = value
        if not feeds and not is_onnx(node, "Constant"):  # a random number
            return None
        value = evaluate(self.model, [node], [name], feeds)[0]
        return None if value is None else np.asarray(value)

    def _array(self, name: str, tensor: Any) -> Array:
        try:
            array: Array = numpy_helper.to_array(tensor, self.folder)
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ValueError(f"the data of {name!r} cannot be read: {error}") from None
        return array


def evaluate(
    model: Any, nodes: Sequence[Any], names: Sequence[str], feeds: Mapping[str, Array]
) -> list[Any]:
    """Return what nodes, in order, make of tensors; None for what ONNX's reference cannot make."""
    from onnx.reference import ReferenceEvaluator  # takes longer to import than all else here

    def unknown(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)

    graph = onnx.helper.make_graph(
        list(nodes), "part", [unknown(name) for name in feeds], [unknown(name) for name in names]
    )
    opsets = {each.domain: each.version for each in model.opset_import}
    if any(is_onnx(node, "DequantizeLinear") for node in nodes):
        # the reference has version 19 and later, of which 10 and 13 are the beginnings
        opsets = {name: max(n, 21) if name in _ONNX else n for name, n in opsets.items()}
    part = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid(*each) for each in opsets.items()]
    )
    try:
        return list(ReferenceEvaluator(part).run(list(names), dict(feeds)))
    except Exception:  # whatever an operator that the reference lacks, or refuses, raises
        return [None] * len(names)
