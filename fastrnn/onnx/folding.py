"""Which nodes are one layer: the directions of a level, and the levels of a stack.

Exporters write a node for each layer, some for each direction, with Transpose, Squeeze, Reshape,
Concat and the like between them. Rather than to know every way of writing that, what lies between
two nodes is run by ONNX's reference on numbers: if it takes Y to what a stack's next layer reads,
it is nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..typing import Array
from .graph import RECURRENT, Graph, evaluate, is_onnx
from .layers import Recurrence

Level = list[Recurrence]  # one node; or that of the forward and that of the reverse direction

_MOST_NODES = 64  # between two layers


class Group(NamedTuple):
    """Nodes that are one layer of fastrnn."""

    levels: list[Level]

    @property
    def first(self) -> Recurrence:
        """The node that the whole is called after."""
        return self.levels[0][0]

    @property
    def directions(self) -> int:
        """D."""
        return len(self.levels[0]) * self.first.directions

    @property
    def nodes(self) -> list[Recurrence]:
        """All nodes."""
        return [node for level in self.levels for node in level]


def groups(graph: Graph) -> list[Group]:
    """Return the layers of a graph, without those of the graphs inside it."""
    nodes = [Recurrence(node, graph) for node in graph.proto.node if is_onnx(node, *RECURRENT)]
    found: list[Group] = []
    for level in _levels(nodes):
        below = [group for group in found if _stacked(graph, group.levels[-1], level)]
        if below:
            below[0].levels.append(level)
        else:
            found.append(Group([level]))
    return found


def _levels(nodes: Sequence[Recurrence]) -> list[Level]:
    """Join a forward and a reverse node that read the same and differ in nothing else."""
    levels: list[Level] = []
    taken: set[int] = set()
    for node in nodes:
        if id(node) in taken:
            continue
        partners = [each for each in nodes if each is not node and _partners(node, each)]
        rivals = [each for each in nodes if partners and _partners(each, partners[0])]
        if len(partners) == len(rivals) == 1:
            taken.add(id(partners[0]))
            pair = [node, *partners]
            levels.append(sorted(pair, key=lambda each: each.direction == "reverse"))
        else:
            levels.append([node])
    return levels


def _partners(a: Recurrence, b: Recurrence) -> bool:
    return (
        {a.direction, b.direction} == {"forward", "reverse"}
        and _source(a.graph, a.given("X")) == _source(b.graph, b.given("X"))
        and _alike(a, b)
    )


def _source(graph: Graph, name: str) -> str:
    """Return a tensor's name before Identity."""
    while name in graph.producers and is_onnx(graph.producers[name], "Identity"):
        name = graph.producers[name].input[0]
    return name


def _alike(a: Recurrence, b: Recurrence) -> bool:
    """Return whether two nodes may be of one layer."""
    if (a.kind, a.hidden_size) != (b.kind, b.hidden_size) or a.hidden_size is None:
        return False
    lengths = [_source(each.graph, each.given("sequence_lens")) for each in (a, b)]
    if lengths[0] != lengths[1]:
        return False
    try:
        mine, its = a.arguments(), b.arguments()
    except ValueError:  # `load` says of which node it is
        return False
    return {**mine, "reverse": None} == {**its, "reverse": None}


def _stacked(graph: Graph, below: Level, above: Level) -> bool:
    """Return whether a level reads what the one below puts out, and nothing else does."""
    if [node.direction for node in below] != [node.direction for node in above]:
        return False
    if not all(_alike(a, b) for a, b in zip(below, above, strict=True)):
        return False
    path = _path(graph, above[0].given("X"), {node.output(0) for node in below})
    if path is None:
        return False
    nodes, shaped = path
    if not _closed(graph, nodes, below, above):
        return False

    def joins(T: int, B: int) -> bool:
        return _joins(graph, nodes, shaped, below, above, T, B)

    fixed = _fixed_sizes(graph, nodes, below[0], above[0])
    return any(joins(T, B) for T, B in fixed) or all(joins(T, B) for T, B in ((3, 2), (2, 5)))


def _fixed_sizes(
    graph: Graph, path: Sequence[Any], below: Recurrence, above: Recurrence
) -> set[tuple[int, int]]:
    """Return the T and B, if any, that a model was exported for: exporters write them into the
    shape that a Reshape takes."""
    shapes: list[Sequence[Any]] = [graph.shape(above.given("X"))]
    y = graph.shape(below.output(0))
    if len(y) == 4:
        shapes.append([y[0], y[1 if below.layout else 2], y[3]])
    for node in path:
        if is_onnx(node, "Reshape"):
            value = graph.constant(node.input[1])
            shapes.append([] if value is None else value.tolist())
    found = {(n[0], n[1]) for n in shapes if len(n) == 3 and n[0] and n[1] and min(n[:2]) > 0}
    return {(b, t) if below.layout else (t, b) for t, b in found}


def _path(graph: Graph, x: str, ys: set[str]) -> tuple[list[Any], list[str]] | None:
    """Return the nodes, in order, between ys and x, and further tensors of which the shape is
    asked; None if x depends on anything else."""
    needed: list[Any] = []
    shaped: list[str] = []
    reached: set[str] = set()
    todo = [(x, False)]
    while todo:
        name, shape_only = todo.pop()
        if name in ys:
            reached.add(name)
            continue
        if not name or graph.constant(name) is not None:
            continue
        node = graph.producers.get(name)
        if node is None or is_onnx(node, *RECURRENT):
            if not shape_only:
                return None
            shaped.append(name)
            continue
        if node in needed:
            continue
        if len(needed) == _MOST_NODES or any(a.HasField("g") for a in node.attribute):
            return None
        needed.append(node)
        todo += [(each, is_onnx(node, "Shape")) for each in node.input]
    if reached != ys:
        return None
    return [node for node in graph.proto.node if node in needed], sorted(set(shaped))


def _closed(graph: Graph, path: Sequence[Any], below: Level, above: Level) -> bool:
    """Return whether nothing but the level above sees what the one below puts out."""
    outputs = {each.name for each in graph.proto.output}
    names = {node.output(0) for node in below}
    names |= {name for node in path if not is_onnx(node, "Shape") for name in node.output if name}
    takers = [*path, *(node.node for node in above)]
    return not outputs & names and all(
        node in takers or (hasattr(node, "op_type") and is_onnx(node, "Shape"))
        for name in names
        for node in graph.consumers(name)
    )


def _joins(
    graph: Graph,
    path: Sequence[Any],
    shaped: Sequence[str],
    below: Level,
    above: Level,
    T: int,
    B: int,
) -> bool:
    """Return whether the path makes X (T, B, D*H) of Y (T, D, B, H), or (B, T, D*H) of
    (B, T, D, H) with layout 1."""
    H, layout = below[0].hidden_size, below[0].layout
    assert H is not None
    D = sum(node.directions for node in below)
    # quarters, which float16 holds too, of both signs and some large: a relu or clip shows
    y = np.random.default_rng(0).integers(-2048, 2048, (T, D, B, H)).astype(np.float32) / 4
    want = y.transpose(0, 2, 1, 3).reshape(T, B, D * H)
    parts: list[Array] = np.split(y, len(below), axis=1)
    if layout:
        want = want.swapaxes(0, 1)
        parts = [part.transpose(2, 0, 1, 3) for part in parts]
    feeds = {node.output(0): part for node, part in zip(below, parts, strict=True)}
    x = above[0].given("X")
    if not path:
        return x in feeds and np.array_equal(feeds[x], want)
    constant = {name for node in path for name in node.input if name}
    for name in constant - feeds.keys():
        value = graph.constant(name)
        if value is not None:
            feeds[name] = value
    # the sizes of other tensors, such as the model's input, may be T or B, unknown which
    forms = [[(size,) if size else (T, B, 1) for size in graph.shape(name)] for name in shaped]
    if any(not form for form in forms) or sum(map(len, forms)) > 4:
        return not forms and _makes(graph, path, x, feeds, want)
    return any(
        _makes(graph, path, x, feeds | _zeros(shaped, shapes), want)
        for shapes in itertools.product(*(itertools.product(*form) for form in forms))
    )


def _zeros(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> dict[str, Array]:
    return {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}


def _makes(graph: Graph, path: Sequence[Any], x: str, feeds: dict[str, Array], want: Array) -> bool:
    (got,) = evaluate(graph.model, path, [x], feeds)
    return got is not None and np.array_equal(got, want)
