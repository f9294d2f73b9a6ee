"""`nodes` and `load`: the layers of a model, and one of them as a layer of fastrnn."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.typing import FloatDType, RunOptions

from . import graph as graphs
from .folding import Group, groups
from .layers import Recurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack


_CLASSES: dict[str, Any] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}

# What the node says, and an argument cannot say otherwise.
_SAID = {
    "input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "reverse",
    "nonlinearity", "peephole", "gate_activation", "gate_slope", "activation",
    "output_activation", "clip", "coupled", "proj_size",
}  # fmt: skip


class Node(NamedTuple):
    """A recurrent layer of a model: one node RNN, GRU or LSTM, or several that are one layer."""

    name: str
    """Of its first node; where that has none, of the first tensor it puts out."""
    op: str
    """"RNN", "GRU" or "LSTM"."""
    input_size: int | None
    """I; None if the model does not say."""
    hidden_size: int | None
    """H; None if the model does not say."""
    layers: int
    """L."""
    directions: int
    """D."""
    where: str
    """The graph it is in: "graph", or such as "graph/If_3/then_branch"."""


def nodes(path_or_model: Any) -> list[Node]:
    """List the recurrent layers of an ONNX model, also those inside If, Loop and Scan.

    Nodes that exporters write for one layer, one a level or a direction, are listed as one if what
    lies between them only rearranges numbers.

    Parameters
    ----------
    path_or_model : str, os.PathLike, bytes or onnx.ModelProto

    Returns
    -------
    list of Node
        Named tuples (name, op, input_size, hidden_size, layers, directions, where), in the order
        of the model.

    Raises
    ------
    TypeError
        The argument is none of these.
    ValueError
        It is no ONNX model.

    Examples
    --------
    >>> import fastrnn, fastrnn.onnx
    >>> fastrnn.onnx.save("tagger.onnx", fastrnn.GRU(40, 64, 2, bidirectional=True))
    >>> fastrnn.onnx.nodes("tagger.onnx")[0][1:]
    ('GRU', 40, 64, 2, 2, 'graph')
    """
    return [_listed(group) for group in _groups(path_or_model)]


def load(
    path_or_model: Any,
    node: str | int | None = None,
    *,
    reset_after: bool | None = None,
    dtype: FloatDType | None = None,
    **arguments: Unpack[RunOptions],
) -> RNN | GRU | LSTM:
    """Make a layer of a recurrent layer of an ONNX model.

    The layer takes what the node takes: x (T, B, I), or with ``layout=1`` (B, T, I), and gives y
    (T, B, D*H), which is the node's Y (T, D, B, H) with its axes in another order. Initial states
    and sequence_lens are arguments of its calls, ``state`` and ``lengths``.

    Parameters
    ----------
    path_or_model : str, os.PathLike, bytes or onnx.ModelProto
    node : str or int, optional
        Which one: the name of one of its nodes, or an index into what `nodes` returns. May be left
        out where there is one only.
    reset_after : bool, optional
        Of a GRU, in place of what the node says: exporters of torch have left out
        ``linear_before_reset=1`` (microsoft/onnxscript#2852).
    dtype : float32 or float64, optional
        Of the layer, to which the weights are cast; by default float64 for weights of float64,
        else float32.
    **arguments
        Further arguments of the constructor: ``backend``, ``precision``, ``reproducible``,
        ``dropout``.

    Returns
    -------
    RNN, GRU or LSTM

    Raises
    ------
    TypeError
        An argument has another type, or says otherwise than the node.
    ValueError
        It is no ONNX model, there is no such node or more than one, or a node cannot run here: the
        text names the node and the attribute.

    Warns
    -----
    UserWarning
        A GRU of torch's exporters lacks ``linear_before_reset``; or the node starts from a state of
        its own that is not zeros.

    Examples
    --------
    >>> import fastrnn, fastrnn.onnx
    >>> fastrnn.onnx.save("lstm.onnx", fastrnn.LSTM(40, 64))
    >>> layer = fastrnn.onnx.load("lstm.onnx")
    >>> layer.input_size, layer.hidden_size, layer.num_layers
    (40, 64, 1)
    """
    if reset_after is not None:
        checks.flag("reset_after", reset_after)
    said = sorted(arguments.keys() & _SAID)
    if said:
        raise TypeError(f"{said[0]} is what the node says, and cannot be an argument of load")
    found = _groups(path_or_model)
    group = _chosen(found, node)
    first = group.first
    chosen = first.arguments()
    if reset_after is not None:
        if first.kind != "GRU":
            raise first.error("reset_after is for a GRU")
        chosen["reset_after"] = reset_after
    elif first.kind == "GRU" and "linear_before_reset" not in first.has:
        _warn_of_torch(first)
    for each in group.nodes:
        _warn_of_state(each)
    params: dict[str, Any] = {}
    for number, level in enumerate(group.levels):
        for each in level:
            own = each.parameters(number)
            end = "_reverse" if len(level) == 2 and each is level[1] else ""
            params |= {name + end: value for name, value in own.items()}
    peephole = chosen.pop("peephole", None)
    bias = any(each.bias for each in group.nodes)
    width = params["weight_ih_l0"]
    if dtype is None:
        dtype = np.float64 if width.dtype == np.float64 else np.float32
    checked = checks.float_dtype(dtype)
    if group.directions == 2:
        chosen["reverse"] = False
    layer: RNN | GRU | LSTM = _CLASSES[first.kind](
        width.shape[1],
        first.hidden_size,
        len(group.levels),
        bidirectional=group.directions == 2,
        bias=bias,
        dtype=checked,
        **({} if peephole is None else {"peephole": peephole}),
        **chosen,
        **arguments,
    )
    values = {}
    for name, view in layer.params.items():
        value = params.get(name)
        if value is None:  # a node without B beside one that has it
            values[name] = np.zeros(view.shape, checked)
        else:
            checks.same_shape(f"{name} of {first}", value.shape, view.shape)
            values[name] = np.ascontiguousarray(value.astype(checked))
    layer.load_params({name: layer._xp.asarray(value) for name, value in values.items()})
    return layer


def _groups(path_or_model: Any) -> list[Group]:
    model, folder = graphs.read(path_or_model)
    outer = graphs.Graph(model.graph, model, folder, "graph", None)
    return [group for graph in outer.inside() for group in groups(graph)]


def _listed(group: Group) -> Node:
    first = group.first
    return Node(
        first.name,
        first.kind,
        first.input_size,
        first.hidden_size,
        len(group.levels),
        group.directions,
        first.graph.where,
    )


def _chosen(found: list[Group], node: Any) -> Group:
    """Return the group that is meant."""
    if isinstance(node, (str, type(None))):
        matching = [
            group
            for group in found
            if node is None or any(each.name == node for each in group.nodes)
        ]
        if len(matching) == 1:
            return matching[0]
        there = "; ".join(f"{k}: {_listed(group)}" for k, group in enumerate(found))
        which = "without a node" if node is None else f"named {node!r}"
        if not found:
            raise ValueError("the model has no node RNN, GRU or LSTM")
        if not matching:
            raise ValueError(f"node must be one of {there}; got {node!r}")
        raise ValueError(f"{len(matching)} layers {which}: pass the number of one as node: {there}")
    index = checks.integer("node", node)
    if not 0 <= index < len(found):
        raise ValueError(f"node must be in 0..{len(found) - 1}, got {index}")
    return found[index]


def _warn_of_torch(node: Recurrence) -> None:
    if "pytorch" in node.graph.model.producer_name.lower():
        warnings.warn(
            f"{node} has no linear_before_reset, which torch.nn.GRU needs as 1 and exporters of "
            "torch have left out (microsoft/onnxscript#2852): if the model was exported from "
            "torch.nn.GRU, load it with reset_after=True",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_state(node: Recurrence) -> None:
    for role in ("initial_h", "initial_c"):
        value = node.graph.constant(node.given(role)) if node.given(role) else None
        if value is not None and np.any(value):
            warnings.warn(
                f"{node} starts from a constant {role} ({node.given(role)!r}) that is not zeros; "
                "the layer starts from zeros: pass it as state",
                UserWarning,
                stacklevel=3,
            )
