"""ONNX's own node tests of RNN, GRU and LSTM, run through fastrnn."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from cases import Array, pack, parts, unpack
from grid import BACKENDS

import fastrnn

onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402

# ONNX's row blocks in fastrnn's order: iofc -> ifgo, zrh -> rzn. Peepholes come as iof, i f o here.
GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
PEEPHOLES = (0, 2, 1)
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")


def blocks(a: Array, order: tuple[int, ...]) -> Array:
    """Row blocks in another order."""
    return np.concatenate([np.split(a, len(order))[k] for k in order])


def run_node(backend: str, node: Any, values: dict[str, Array]) -> dict[str, Array]:
    """Evaluate one RNN, GRU or LSTM node by a layer of one level.

    ONNX's "reverse" is the second direction of a bidirectional layer whose first is not looked at.
    """
    kind, has = node.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    hidden, direction = has.pop("hidden_size"), has.pop("direction", b"forward").decode()
    layout, after = has.pop("layout", 0), has.pop("linear_before_reset", 0)
    functions = [f.decode() for f in has.pop("activations", [])]
    count = 2 if direction == "bidirectional" else 1
    relu = kind == "RNN" and functions == ["Relu"] * count
    if functions not in ([], DEFAULTS[kind] * count) and not relu:
        pytest.skip(f"fastrnn has no {kind} with activations {functions}")
    if has:
        pytest.skip(f"fastrnn has no {kind} with {', '.join(has)}")

    given = dict(zip(INPUTS, (values.get(name) for name in node.input), strict=False))
    given = {name: value for name, value in given.items() if value is not None}
    x = given["X"]
    used = {"forward": (0,), "reverse": (1,), "bidirectional": (0, 1)}[direction]
    options: dict[str, Any] = {
        "RNN": {"nonlinearity": "relu" if relu else "tanh"},
        "GRU": {"reset_after": bool(after)},
        "LSTM": {"peephole": "P" in given},
    }[kind]
    layer = getattr(fastrnn, kind)(
        x.shape[2],
        hidden,
        bidirectional=1 in used,
        batch_first=bool(layout),
        dtype=x.dtype,
        bias="B" in given,
        backend=backend,
        **options,
    )
    params = {name: value.copy() for name, value in layer.params.items()}
    for k, which in enumerate(used):
        end = "_l0" + "_reverse" * which
        params["weight_ih" + end] = blocks(given["W"][k], GATES[kind])
        params["weight_hh" + end] = blocks(given["R"][k], GATES[kind])
        if "B" in given:
            ih, hh = np.split(given["B"][k], 2)
            params["bias_ih" + end], params["bias_hh" + end] = (
                blocks(b, GATES[kind]) for b in (ih, hh)
            )
        if "P" in given:
            params["weight_peephole" + end] = blocks(given["P"][k], PEEPHOLES)
    layer.load_params(params)

    batch = x.shape[0 if layout else 1]

    def state(name: str) -> Array:
        """(directions, B, H) of the layer, from ONNX's entries."""
        value = np.zeros((2 if 1 in used else 1, batch, hidden), x.dtype)
        if name in given:
            value[list(used)] = given[name].swapaxes(0, 1) if layout else given[name]
        return value

    names = ("initial_h", "initial_c") if kind == "LSTM" else ("initial_h",)
    y, final = layer(x, pack(map(state, names)), lengths=given.get("sequence_lens"))
    # y (.., .., D*H) -> Y (T, D, B, H), or (B, T, D, H) with layout 1
    y = y.reshape(*y.shape[:2], -1, hidden)[:, :, list(used)]
    results = {"Y": y if layout else y.transpose(0, 2, 1, 3)}
    for name, last in parts(pack(s[list(used)] for s in unpack(final)), "Y_h", "Y_c").items():
        results[name] = last.swapaxes(0, 1) if layout else last
    return {name: results[role] for role, name in zip(OUTPUTS, node.output, strict=False) if name}


def node_cases() -> list[Any]:
    """ONNX's test cases of the three operators.

    They are what onnx.backend.test.loader.load_model_tests(kind="node") gives, without the four
    seconds (and the NumPy warnings) of generating the other 1800.
    """
    for operator in ("rnn", "gru", "lstm"):
        importlib.import_module(f"onnx.backend.test.case.node.{operator}")
    cases = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    return [case for case in cases if case.model.graph.node[0].op_type in GATES]


CASES = {case.name: case for case in node_cases()}


@pytest.mark.parametrize("name", CASES)
def test_node(backend: str, name: str) -> None:
    case = CASES[name]
    graph = case.model.graph
    for inputs, outputs in case.data_sets:
        values = dict(zip((entry.name for entry in graph.input), inputs, strict=True))
        got = run_node(backend, graph.node[0], values)
        for entry, want in zip(graph.output, outputs, strict=True):
            np.testing.assert_allclose(
                got[entry.name], want, rtol=case.rtol, atol=case.atol, err_msg=entry.name
            )


def test_all_of_onnx_is_there() -> None:
    """ONNX 1.16 has at least six of each: none is lost by the way they are found."""
    operators = [case.model.graph.node[0].op_type for case in CASES.values()]
    assert all(operators.count(operator) >= 6 for operator in GATES)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "GRU-after", "LSTM"])
def test_reference_evaluator(backend: str, kind: str, direction: str, layout: int) -> None:
    """What ONNX's node tests leave out: initial states, sequence_lens, linear_before_reset = 1.

    ONNX's reference ignores sequence_lens, so each row goes through it alone, at its own length.
    """
    draw = np.random.default_rng(5)
    steps, batch, inputs, hidden = 6, 4, 3, 5
    count = 2 if direction == "bidirectional" else 1
    kind, _, after = kind.partition("-")
    rows = len(GATES[kind]) * hidden
    values = {
        "X": draw.standard_normal((steps, batch, inputs)),
        "W": draw.uniform(-0.5, 0.5, (count, rows, inputs)),
        "R": draw.uniform(-0.5, 0.5, (count, rows, hidden)),
        "B": draw.uniform(-0.5, 0.5, (count, 2 * rows)),
        "sequence_lens": np.array([6, 2, 5, 1], np.int32),
        "initial_h": draw.standard_normal((count, batch, hidden)),
    }
    if kind == "LSTM":
        values["initial_c"] = draw.standard_normal((count, batch, hidden))
        values["P"] = draw.uniform(-0.5, 0.5, (count, 3 * hidden))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction, "layout": layout}
    if kind == "GRU":
        attributes["linear_before_reset"] = int(bool(after))
    outputs = OUTPUTS[: 3 if kind == "LSTM" else 2]
    node = onnx.helper.make_node(kind, list(values), list(outputs), **attributes)
    reference = ReferenceEvaluator(node)

    def batch_first(names: tuple[str, ...], of: dict[str, Array]) -> dict[str, Array]:
        """With layout 1, B is the first axis of X and of the states."""
        swapped = {name: of[name].swapaxes(0, 1) for name in names if name in of and layout}
        return of | swapped

    swaps = ("X", "initial_h", "initial_c")
    got = run_node(backend, node, batch_first(swaps, values))
    for b, n in enumerate(values["sequence_lens"]):
        row = slice(b, b + 1)
        alone = values | {"X": values["X"][:n, row], "sequence_lens": np.array([n], np.int32)}
        alone |= {name: values[name][:, row] for name in swaps[1:] if name in values}
        want = reference.run(None, batch_first(swaps, alone))
        for name, value in zip(outputs, want, strict=True):
            mine = got[name][row] if layout else got[name][..., row, :]
            if name == "Y":
                padding = mine[:, n:] if layout else mine[n:]
                mine = mine[:, :n] if layout else mine[:n]
                assert not padding.any()
            np.testing.assert_allclose(mine, value, rtol=1e-9, atol=1e-11, err_msg=name)


def test_what_fastrnn_has_not_is_skipped() -> None:
    """The converter passes over no attribute silently."""
    for attributes in ({"clip": 1.0}, {"activations": ["Affine"]}, {"activation_alpha": [0.5]}):
        node = onnx.helper.make_node("RNN", ["X", "W", "R"], ["Y"], hidden_size=2, **attributes)
        with pytest.raises(pytest.skip.Exception, match="fastrnn has no RNN with"):
            run_node(BACKENDS[0], node, {})
