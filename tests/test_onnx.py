"""ONNX models in and out: onnx's own node tests, torch's exporters, graphs as other converters
write them, and what is saved beside ONNX Runtime and onnx's reference."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, pack, unpack

import fastrnn

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import fastrnn.onnx  # noqa: E402

OPERATORS = ("RNN", "GRU", "LSTM")
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")
CLASSES: dict[str, Any] = {"RNN": fastrnn.RNN, "GRU": fastrnn.GRU, "LSTM": fastrnn.LSTM}


def info(name: str, shape: Any = None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: dict[str, Array],
    opset: int = 17,
    **how: Any,
) -> Any:
    """A model; `constants` become initializers."""
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **how)


def weights(
    kind: str, directions: int = 1, I: int = 3, H: int = 4, seed: int = 0
) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    rows = GATES[kind] * H
    shapes = {"W": (rows, I), "R": (rows, H), "B": (2 * rows,)}
    return {
        name: draw.uniform(-0.8, 0.8, (directions, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def single(kind: str, constants: dict[str, Array], directions: int = 1, **attributes: Any) -> Any:
    """A model of one node."""
    H = constants["R"].shape[-1]
    names = [name if name in constants or name == "X" else "" for name in INPUTS]
    while not names[-1]:
        names.pop()
    node = helper.make_node(
        kind, names, list(OUTPUTS[: 2 + (kind == "LSTM")]), name="cell", hidden_size=H, **attributes
    )
    return model_of([node], [info("X", ["T", "B", 3])], [info("Y")], constants)


def run_model(model: Any, feeds: dict[str, Array], names: list[str] | None = None) -> list[Array]:
    results: list[Array] = ReferenceEvaluator(model).run(names, feeds)
    return results


def run_as_node(layer: Any, node: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    """What a node puts out, from a layer that was loaded of it."""
    given = {role: feeds[name] for role, name in zip(INPUTS, node.input, strict=False) if name in
             feeds}  # fmt: skip
    layout, H = layer.batch_first, layer.hidden_size
    names = ("initial_h", "initial_c")[: 1 + (node.op_type == "LSTM")]
    x = given["X"]
    batch = x.shape[0 if layout else 1]
    directions = 1 + layer.bidirectional
    states = [
        given.get(name, np.zeros((batch, directions, H) if layout else (directions, batch, H)))
        for name in names
    ]
    if layout:
        states = [state.swapaxes(0, 1) for state in states]
    state = pack([np.ascontiguousarray(state, x.dtype) for state in states])
    y, final = layer(x, state, lengths=given.get("sequence_lens"))
    y = y.reshape(*y.shape[:2], directions, H)
    results = {"Y": y if layout else y.transpose(0, 2, 1, 3)}
    for name, last in zip(OUTPUTS[1:], unpack(final), strict=False):
        results[name] = last.swapaxes(0, 1) if layout else last
    return {name: results[role] for role, name in zip(OUTPUTS, node.output, strict=False) if name}


def fixed(model: Any, values: dict[str, Array]) -> Any:
    """A model whose weights, inputs so far, are initializers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = made.graph.node[0]
    for name in [name for k, name in enumerate(node.input) if k in (1, 2, 3, 7) and name]:
        made.graph.initializer.append(numpy_helper.from_array(values[name], name))
    return made


# ------------------------------------------------------------------------- onnx's own node tests


def node_cases() -> list[Any]:
    """onnx's test cases of the three operators.

    They are what onnx.backend.test.loader.load_model_tests(kind="node") gives, without the four
    seconds (and the NumPy warnings) of generating the other 1800.
    """
    for operator in ("rnn", "gru", "lstm"):
        importlib.import_module(f"onnx.backend.test.case.node.{operator}")
    cases = importlib.import_module("onnx.backend.test.case.node")._NodeTestCases
    return [case for case in cases if case.model.graph.node[0].op_type in OPERATORS]


CASES = {case.name: case for case in node_cases()}


@pytest.mark.parametrize("name", CASES)
def test_onnxs_own_nodes(backend: str, name: str) -> None:
    case = CASES[name]
    graph = case.model.graph
    for inputs, outputs in case.data_sets:
        values = dict(zip((entry.name for entry in graph.input), inputs, strict=True))
        layer = fastrnn.onnx.load(fixed(case.model, values), backend=backend)
        got = run_as_node(layer, graph.node[0], values)
        for entry, want in zip(graph.output, outputs, strict=True):
            np.testing.assert_allclose(
                got[entry.name], want, rtol=case.rtol, atol=case.atol, err_msg=entry.name
            )


def test_all_of_onnx_is_there() -> None:
    """ONNX 1.16 has at least six of each: none is lost by the way they are found."""
    operators = [case.model.graph.node[0].op_type for case in CASES.values()]
    assert all(operators.count(operator) >= 6 for operator in OPERATORS)


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
    rows = GATES[kind] * hidden
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
    node = helper.make_node(kind, list(values), list(outputs), **attributes)
    reference = ReferenceEvaluator(node)

    def batch_first(names: tuple[str, ...], of: dict[str, Array]) -> dict[str, Array]:
        """With layout 1, B is the first axis of X and of the states."""
        swapped = {name: of[name].swapaxes(0, 1) for name in names if name in of and layout}
        return of | swapped

    swaps = ("X", "initial_h", "initial_c")
    model = model_of([node], [info(name) for name in values], [info("Y")], {})
    layer = fastrnn.onnx.load(fixed(model, values), backend=backend)
    assert layer.dtype == np.float64
    got = run_as_node(layer, node, batch_first(swaps, values))
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


# ------------------------------------------------------------------- save, and what runtimes make

SAVED: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "clip": 0.4}),
    ("RNN", {"nonlinearity": "hard_sigmoid", "gate_slope": 0.3}),
    ("GRU", {}),
    ("GRU", {"reset_after": False, "clip": 0.3}),
    ("GRU", {"clip": 0.3, "gate_activation": "hard_sigmoid"}),
    ("GRU", {"bias": False, "activation": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"peephole": True, "clip": 0.4}),
    ("LSTM", {"coupled": True, "gate_activation": "hard_sigmoid"}),
    ("LSTM", {"activation": "relu", "gate_activation": "hard_sigmoid", "gate_slope": 0.25}),
    ("LSTM", {"output_activation": "sigmoid", "bias": False}),
]
STACKS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True, "lengths": True},
    {"num_layers": 3, "batch_first": True, "reverse": True},
    {"num_layers": 2, "reverse": True, "lengths": True},
    {"bidirectional": True, "batch_first": True},
]


def made(kind: str, options: dict[str, Any], **more: Any) -> Any:
    layer = CLASSES[kind](5, 4, **options, backend="numpy", **more)
    draw = np.random.default_rng(2)
    layer.flat_params[:] = draw.uniform(-0.9, 0.9, layer.num_params)
    return layer


def feeds_of(layer: Any, T: int, B: int, lengths: Array | None = None) -> dict[str, Array]:
    draw = np.random.default_rng(4)
    passes = layer.num_layers * (1 + layer.bidirectional)
    outer = (B, T) if layer.batch_first else (T, B)
    feeds = {"x": draw.standard_normal((*outer, 5)), "h0": draw.standard_normal((passes, B, 4))}
    if isinstance(layer, fastrnn.LSTM):
        feeds["c0"] = draw.standard_normal((passes, B, 4))
    feeds = {name: value.astype(layer.dtype) for name, value in feeds.items()}
    return feeds if lengths is None else feeds | {"lengths": lengths}


def own(layer: Any, feeds: dict[str, Array]) -> list[Array]:
    state = pack([feeds[name] for name in ("h0", "c0") if name in feeds])
    y, final = layer(feeds["x"], state, lengths=feeds.get("lengths"))
    return [y, *unpack(final)]


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize(("kind", "options"), SAVED, ids=str)
def test_saved_beside_onnxruntime(
    kind: str, options: dict[str, Any], stack: dict[str, Any], tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    stack = dict(stack)
    ragged = stack.pop("lengths", False)
    layer = made(kind, options, **stack)
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(path, layer, lengths=ragged)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    how = runtime.SessionOptions()
    how.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(path), how, providers=["CPUExecutionProvider"])
    feeds = feeds_of(layer, 7, 3, np.array([7, 2, 5], np.int32) if ragged else None)
    for got, want in zip(session.run(None, feeds), own(layer, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=5e-6)
    # and back: one layer again, with the same bits
    (node,) = fastrnn.onnx.nodes(path)
    directions = 1 + layer.bidirectional
    assert node[1:] == (kind, 5, 4, layer.num_layers, directions, "graph")
    again = fastrnn.onnx.load(path)
    assert again.config() == layer.config() | {"batch_first": False, "backend": "auto"}
    for name, value in layer.params.items():
        np.testing.assert_array_equal(again.params[name], value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("kind", OPERATORS)
def test_saved_beside_onnxs_reference(kind: str, opset: int, dtype: str, tmp_path: Path) -> None:
    layer = made(kind, {}, num_layers=2, bidirectional=True, batch_first=True, dtype=dtype)
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(path, layer, opset=opset)
    model = onnx.load(path)
    assert model.opset_import[0].version == opset
    feeds = feeds_of(layer, 4, 2)
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    )
    for got, want in zip(run_model(model, feeds), own(layer, feeds), strict=True):
        np.testing.assert_allclose(got, want, **tolerance)


def test_states_go_from_call_to_call(tmp_path: Path) -> None:
    """Two calls with the state between them are one call."""
    layer = made("LSTM", {})
    fastrnn.onnx.save(tmp_path / "a.onnx", layer)
    model = onnx.load(tmp_path / "a.onnx")
    feeds = feeds_of(layer, 6, 2)
    whole = run_model(model, feeds)
    y, h, c = run_model(model, feeds | {"x": feeds["x"][:2]})
    y2, h, c = run_model(model, {"x": feeds["x"][2:], "h0": h, "c0": c})
    for got, want in zip((np.concatenate([y, y2]), h, c), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((None, fastrnn.RNN(2, 3)), TypeError, "path must be a str or os.PathLike"),
        (("a.onnx", fastrnn.RNNCell(2, 3)), TypeError, "layer must be an RNN, GRU or LSTM"),
        (("a.onnx", fastrnn.LSTM(2, 3, proj_size=1)), ValueError, "no projection, got .* P=1"),
    ],
)
def test_what_cannot_be_saved(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fastrnn.onnx.save(*arguments)


@pytest.mark.parametrize(
    ("opset", "error"), [(12, ValueError), (999, ValueError), ("17", TypeError)]
)
def test_bad_opset(opset: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match="opset must be"):
        fastrnn.onnx.save(tmp_path / "a.onnx", fastrnn.RNN(2, 3), opset=opset)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- torch's


EXPORTED: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("GRU", {"num_layers": 2, "dropout": 0.2}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "bias": False}),
    ("RNN", {"num_layers": 2, "nonlinearity": "relu", "bidirectional": True}),
]
# The newer exporter takes seconds a model, and writes an RNN out step by step.
EXPORTERS = [
    *((name, *case) for name in ("torchscript", "torchscript-free") for case in EXPORTED),
    ("dynamo", *EXPORTED[2]),
    ("dynamo-free", *EXPORTED[1]),
]


@pytest.mark.parametrize(("exporter", "kind", "options"), EXPORTERS, ids=str)
def test_exports_of_torch(
    exporter: str, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    dynamo, _, free = exporter.partition("-")
    how: dict[str, Any] = {"dynamo": dynamo == "dynamo"}
    batch_axis = 0 if options.get("batch_first") else 1
    if dynamo == "dynamo":
        pytest.importorskip("onnxscript")
        how |= {"verbose": False}
        if free:
            how["dynamic_shapes"] = {"x": {batch_axis: torch.export.Dim.DYNAMIC}}
    else:
        how |= {"opset_version": 17, "input_names": ["x"]}
        if free:
            how["dynamic_axes"] = {"x": {0: "a", 1: "b"}}

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before = torch.nn.Linear(5, 5)
            self.rnn = getattr(torch.nn, kind)(5, 4, **options)

        def forward(self, x: Any) -> Any:
            return self.rnn(torch.tanh(self.before(x)))[0]

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(6, 3, 5)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), path, **how)
    (node,) = fastrnn.onnx.nodes(path)
    layers, directions = options.get("num_layers", 1), 1 + bool(options.get("bidirectional"))
    assert node[1:6] == (kind, 5, 4, layers, directions)
    layer = fastrnn.onnx.load(path, node.name, **({"reset_after": True} if kind == "GRU" else {}))
    inner = torch.tanh(net.before(x))
    want = net.rnn(inner)[0].detach().numpy()
    given = inner.detach().numpy()
    if options.get("batch_first"):  # the exporters write Transpose around the node
        want, given = want.swapaxes(0, 1), given.swapaxes(0, 1)
    np.testing.assert_allclose(layer(given)[0], want, rtol=1e-5, atol=1e-6)


def test_torchs_missing_attribute() -> None:
    """microsoft/onnxscript#2852: the warning says what to do, and what it says works."""
    constants = weights("GRU")
    model = single("GRU", constants)
    model.producer_name = "pytorch"
    with pytest.warns(
        UserWarning, match=r"GRU node 'cell' .* linear_before_reset.*reset_after=True"
    ):
        assert fastrnn.onnx.load(model).reset_after is False
    layer = fastrnn.onnx.load(model, reset_after=True)
    assert layer.reset_after is True
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    right = single("GRU", constants, linear_before_reset=1)
    (want,) = run_model(right, {"X": x})
    np.testing.assert_allclose(layer(x)[0], want[:, 0], rtol=1e-5, atol=1e-6)
    assert fastrnn.onnx.load(right).reset_after is True  # and without a warning
    model.producer_name = "keras"
    assert fastrnn.onnx.load(model).reset_after is False


# ------------------------------------------------------------------ weights, wherever they stand


def check_weights(model: Any, kind: str, constants: dict[str, Array], folder: Any = None) -> Any:
    """The layer of a model has the weights of the plain one."""
    plain = fastrnn.onnx.load(single(kind, constants))
    layer = fastrnn.onnx.load(model)
    for name, value in plain.params.items():
        np.testing.assert_allclose(layer.params[name], value, rtol=1e-6, err_msg=name)
    return layer


def behind(kind: str, nodes: list[Any], raw: dict[str, Array], **how: Any) -> Any:
    cell = helper.make_node(kind, ["X", "W", "R", "B"], ["Y"], name="cell", hidden_size=4)
    return model_of([*nodes, cell], [info("X", ["T", "B", 3])], [info("Y")], raw, **how)


def test_weights_behind_other_nodes() -> None:
    w = weights("LSTM")
    nodes = [
        helper.make_node("Identity", ["W_raw"], ["W_same"]),
        helper.make_node("Transpose", ["W_same"], ["W"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["R_half"], ["R"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["B"], value=numpy_helper.from_array(w["B"])),
    ]
    raw = {"W_raw": w["W"].swapaxes(1, 2).copy(), "R_half": w["R"].astype(np.float16)}
    w["R"] = raw["R_half"].astype(np.float32)
    check_weights(behind("LSTM", nodes, raw), "LSTM", w)


def test_quantized_weights() -> None:
    """int8 behind DequantizeLinear, with a scale a row; B joined of two halves."""
    w = weights("GRU")
    scale = np.abs(w["W"]).max(axis=(0, 2)) / 127
    q = np.rint(w["W"] / scale[None, :, None]).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["W"], axis=1),
        helper.make_node("Concat", ["b1", "b2"], ["b"], axis=0),
        helper.make_node("Unsqueeze", ["b", "axes"], ["B"]),
    ]
    b1, b2 = np.split(w["B"][0], 2)
    raw = {"q": q, "scale": scale.astype(np.float32), "zero": np.zeros(12, np.int8), "R": w["R"],
           "b1": b1, "b2": b2, "axes": np.array([0])}  # fmt: skip
    w["W"] = q * scale[None, :, None].astype(np.float32)
    check_weights(behind("GRU", nodes, raw), "GRU", w)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_of_weights(kind: str, dtype: str) -> None:
    w = weights(kind)
    if dtype == "bfloat16":
        narrow: Any = pytest.importorskip("ml_dtypes").bfloat16
        w = {name: value.astype(narrow).astype(np.float32) for name, value in w.items()}
        model = single(kind, w)
        for tensor in model.graph.initializer:
            half = helper.make_tensor(
                tensor.name, TensorProto.BFLOAT16, tensor.dims, w[tensor.name].ravel()
            )
            tensor.CopyFrom(half)
    else:
        w = {name: value.astype(dtype) for name, value in w.items()}
        model = single(kind, w)
    layer = fastrnn.onnx.load(model)
    assert layer.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert fastrnn.onnx.load(model, dtype=np.float64).dtype == np.float64
    rows = slice(0, 4)  # i, h: the first block of both
    index = {"RNN": rows, "LSTM": rows, "GRU": slice(4, 8)}[kind]  # z is the second of r, z, n
    np.testing.assert_array_equal(
        layer.params["weight_ih_l0"][index], w["W"][0][:4].astype(layer.dtype)
    )


def test_external_data(tmp_path: Path) -> None:
    w = weights("LSTM")
    model = single("LSTM", w)
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="model.data", size_threshold=0
    )
    assert (tmp_path / "model.data").exists()
    check_weights(path, "LSTM", w)
    assert fastrnn.onnx.nodes(path)[0][:4] == ("cell", "LSTM", 3, 4)
    (tmp_path / "model.data").unlink()
    with pytest.raises(ValueError, match="data of 'W' cannot be read"):
        fastrnn.onnx.load(path)


def test_path_bytes_and_model_are_the_same(tmp_path: Path) -> None:
    w = weights("RNN")
    model = single("RNN", w)
    onnx.save_model(model, tmp_path / "m.onnx")
    for each in (str(tmp_path / "m.onnx"), tmp_path / "m.onnx", model.SerializeToString()):
        check_weights(each, "RNN", w)


def test_no_bias_and_no_names() -> None:
    w = weights("LSTM")
    del w["B"]
    model = single("LSTM", w)
    model.graph.node[0].name = ""
    del model.graph.node[0].attribute[:]  # hidden_size follows from R
    assert fastrnn.onnx.nodes(model) == [("Y", "LSTM", 3, 4, 1, 1, "graph")]
    layer = fastrnn.onnx.load(model, "Y")
    assert layer.bias is False
    assert list(layer.params) == ["weight_ih_l0", "weight_hh_l0"]


def test_inside_branches_and_loops() -> None:
    """Nodes in If inside Loop; the weights are the outer graph's."""
    w = weights("GRU")
    cell = helper.make_node(
        "GRU", ["X", "W", "R", "B"], ["y_in"], name="deep", hidden_size=4, linear_before_reset=1
    )
    then = helper.make_graph([cell], "then", [], [info("y_in")])
    other = helper.make_node("GRU", ["X", "W8", "R", "B"], ["y_else"], name="deep", hidden_size=4)
    doubled = helper.make_node("Add", ["W", "W"], ["W8"])
    otherwise = helper.make_graph([doubled, other], "else", [], [info("y_else")])
    choice = helper.make_node(
        "If", ["go"], ["y_if"], name="rate", then_branch=then, else_branch=otherwise
    )
    body = helper.make_graph(
        [choice, helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL)],
        [info("go_on", [], TensorProto.BOOL), info("y_if")],
    )
    loop = helper.make_node("Loop", ["n", ""], ["ys"], name="loop", body=body)
    inputs = [info("X", ["T", "B", 3]), info("n", [], TensorProto.INT64)]
    model = model_of([loop], inputs, [info("ys")], w)
    found = fastrnn.onnx.nodes(model)
    places = ["graph/loop/body/rate/then_branch", "graph/loop/body/rate/else_branch"]
    assert sorted(node.where for node in found) == sorted(places)
    assert all(node[:6] == ("deep", "GRU", 3, 4, 1, 1) for node in found)
    with pytest.raises(ValueError, match="2 layers named 'deep': pass the number of one"):
        fastrnn.onnx.load(model, "deep")
    for index, node in enumerate(found):
        layer = fastrnn.onnx.load(model, index)
        factor = 1 if node.where.endswith("then_branch") else 2
        assert layer.reset_after is (factor == 1)
        np.testing.assert_array_equal(layer.params["weight_ih_l0"][4:8], factor * w["W"][0, :4])


# ---------------------------------------------------------------------------------------- folding


def test_two_nodes_are_two_directions() -> None:
    """A forward and a reverse node side by side, twice over, as some converters write them."""
    w = [weights("LSTM", I=I, seed=n) for n, I in enumerate((3, 3, 8, 8))]
    nodes, constants = [], {"axis": np.array([1])}
    for n, each in enumerate(w):
        x = "X" if n < 2 else "mid"
        names = [x, *(f"{name}{n}" for name in each)]
        constants |= {f"{name}{n}": value for name, value in each.items()}
        direction = ("forward", "reverse")[n % 2]
        nodes += [
            helper.make_node(
                "LSTM", names, [f"Y{n}"], name=f"n{n}", hidden_size=4, direction=direction
            ),
            helper.make_node("Squeeze", [f"Y{n}", "axis"], [f"y{n}"]),
        ]
        if n % 2:
            out = "mid" if n == 1 else "out"
            nodes.append(helper.make_node("Concat", [f"y{n - 1}", f"y{n}"], [out], axis=2))
    model = model_of(nodes, [info("X", ["T", "B", 3])], [info("out")], constants)
    assert fastrnn.onnx.nodes(model) == [("n0", "LSTM", 3, 4, 2, 2, "graph")]
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    (want,) = run_model(model, {"X": x})
    for name in (None, "n0", "n3", 0):
        np.testing.assert_allclose(fastrnn.onnx.load(model, name)(x)[0], want, rtol=1e-5, atol=1e-6)
    # the other order is another layer's input, so that nothing may be folded
    for node in model.graph.node:
        if node.output[0] == "mid":
            node.input[:] = ["y1", "y0"]
    assert [node.layers for node in fastrnn.onnx.nodes(model)] == [1, 1]


def stack(between: list[Any], constants: dict[str, Array], **more: Any) -> Any:
    """Two GRUs with something between them, from "a" to "b"."""
    low, high = weights("GRU"), weights("GRU", I=4, seed=1)
    constants = constants | {k + "1": v for k, v in low.items()} | {
        k + "2": v for k, v in high.items()}  # fmt: skip
    nodes = [
        helper.make_node("GRU", ["X", "W1", "R1", "B1"], ["a"], name="low", hidden_size=4),
        *between,
        helper.make_node("GRU", ["b", "W2", "R2", "B2"], ["Y"], name="high", hidden_size=4, **more),
    ]
    return model_of(nodes, [info("X", ["T", "B", 3])], [info("Y")], constants)


def node_of(kind: str, *inputs: str, **attributes: Any) -> Any:
    *inputs_, output = inputs
    return helper.make_node(kind, list(inputs_), [output], **attributes)


@pytest.mark.parametrize(
    ("between", "layers"),
    [
        ([node_of("Squeeze", "a", "one", "b")], 2),
        ([node_of("Squeeze", "a", "one", "s"), node_of("Dropout", "s", "b")], 2),
        (
            [
                node_of("Transpose", "a", "t", perm=[2, 0, 1, 3]),
                node_of("Squeeze", "t", "two", "s"),
                node_of("Transpose", "s", "b", perm=[1, 0, 2]),
            ],
            2,
        ),
        (
            [
                node_of("Shape", "X", "shape"),
                node_of("Gather", "shape", "zero", "steps", axis=0),
                node_of("Gather", "shape", "ones", "rows", axis=0),
                node_of("Unsqueeze", "steps", "zero1", "s1"),
                node_of("Concat", "s1", "rows", "four", "form", axis=0),
                node_of("Reshape", "a", "form", "b"),
            ],
            2,
        ),
        ([node_of("Squeeze", "a", "one", "s"), node_of("Relu", "s", "b")], 1),
        ([node_of("Squeeze", "a", "one", "s"), node_of("Add", "s", "s", "b")], 1),
        ([node_of("Squeeze", "a", "one", "s"), node_of("Add", "s", "X", "b")], 1),
    ],
    ids=["squeeze", "dropout", "transposes", "shapes", "relu", "add", "residual"],
)
def test_what_lies_between_two_layers(between: list[Any], layers: int) -> None:
    constants = {"one": np.array([1]), "two": np.array([1]), "zero": np.array(0),
                 "ones": np.array([1]), "zero1": np.array([0]), "four": np.array([4])}  # fmt: skip
    constants["two"] = np.array([2])
    if len(between) == 3:
        constants["two"] = np.array([1])
        between = [node_of("Transpose", "a", "t", perm=[2, 1, 0, 3]), *between[1:]]
    model = stack(between, constants)
    assert [node.layers for node in fastrnn.onnx.nodes(model)] == [layers] * (3 - layers)


def test_a_layer_that_others_read_is_not_folded() -> None:
    between = [node_of("Squeeze", "a", "one", "b")]
    model = stack(between, {"one": np.array([1])})
    assert len(fastrnn.onnx.nodes(model)) == 1
    model.graph.output.append(info("b"))
    assert [node.name for node in fastrnn.onnx.nodes(model)] == ["low", "high"]
    other = stack(between, {"one": np.array([1])}, linear_before_reset=1)
    assert [node.name for node in fastrnn.onnx.nodes(other)] == ["low", "high"]
    lengths = stack(between, {"one": np.array([1])})
    lengths.graph.input.append(info("n", ["B"], TensorProto.INT32))
    lengths.graph.node[-1].input.append("n")
    assert len(fastrnn.onnx.nodes(lengths)) == 2


def test_as_tf2onnx_writes_it() -> None:
    """Batch first, zeros of the batch's size as initial states, Y squeezed and turned back."""
    w = [weights("LSTM", 2, I=I, seed=n) for n, I in enumerate((3, 8))]
    nodes = [
        node_of("Shape", "X", "shape"),
        node_of("Slice", "shape", "zero", "one", "batch"),
        node_of("Concat", "two", "batch", "four", "form", axis=0),
        node_of("ConstantOfShape", "form", "h"),
        node_of("Transpose", "X", "x0", perm=[1, 0, 2]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
                 "four": np.array([4])}  # fmt: skip
    for n, each in enumerate(w):
        constants |= {f"{name}{n}": value for name, value in each.items()}
        names = [f"x{n}", f"W{n}", f"R{n}", f"B{n}", "", "h", "h"]
        nodes.append(
            helper.make_node(
                "LSTM",
                names,
                [f"Y{n}"],
                name=f"StatefulPartitionedCall/lstm_{n}",
                hidden_size=4,
                direction="bidirectional",
            )
        )
        nodes += [
            helper.make_node("Split", [f"Y{n}"], [f"f{n}", f"b{n}"], axis=1, num_outputs=2),
            node_of("Squeeze", f"f{n}", "one", f"fs{n}"),
            node_of("Squeeze", f"b{n}", "one", f"bs{n}"),
            node_of("Concat", f"fs{n}", f"bs{n}", f"x{n + 1}", axis=2),
        ]
    nodes.append(node_of("Transpose", "x2", "out", perm=[1, 0, 2]))
    model = model_of(nodes, [info("X", ["B", "T", 3])], [info("out")], constants, 18)
    (node,) = fastrnn.onnx.nodes(model)
    assert node[:6] == ("StatefulPartitionedCall/lstm_0", "LSTM", 3, 4, 2, 2)
    x = np.random.default_rng(1).standard_normal((2, 5, 3)).astype(np.float32)
    (want,) = run_model(model, {"X": x})
    layer = fastrnn.onnx.load(model)
    np.testing.assert_allclose(
        layer(x.swapaxes(0, 1))[0].swapaxes(0, 1), want, rtol=1e-5, atol=1e-6
    )


def test_as_a_pipeline_of_scikit_learn_writes_it() -> None:
    """A Scaler of ai.onnx.ml and float64 before the layer, a regressor behind."""
    w = {name: value.astype(np.float64) for name, value in weights("GRU").items()}
    cell = helper.make_node(
        "GRU", ["x", "W", "R", "B"], ["y", "h"], name="Gr_Gru", hidden_size=4, linear_before_reset=1
    )
    nodes = [
        helper.make_node(
            "Scaler", ["X"], ["scaled"], domain="ai.onnx.ml", offset=[0.5] * 3, scale=[2.0] * 3
        ),
        node_of("Reshape", "scaled", "form", "x32"),
        helper.make_node("Cast", ["x32"], ["x"], to=TensorProto.DOUBLE),
        cell,
    ]
    model = model_of(
        nodes, [info("X", [None, 3])], [info("h", kind=TensorProto.DOUBLE)],
        w | {"form": np.array([-1, 1, 3])}, producer_name="skl2onnx",
    )  # fmt: skip
    layer = fastrnn.onnx.load(model, "Gr_Gru")
    assert layer.dtype == np.float64
    x = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    (want,) = run_model(model, {"X": x})
    _, h = layer(((x - 0.5) * 2).astype(np.float64)[:, None])
    np.testing.assert_allclose(h, want, rtol=1e-6)


# ------------------------------------------------------------------------- activations and errors


@pytest.mark.parametrize(
    ("kind", "attributes", "config"),
    [
        ("RNN", {"activations": ["Relu"]}, {"nonlinearity": "relu"}),
        ("RNN", {"activations": ["Sigmoid"]}, {"nonlinearity": "sigmoid"}),
        (
            "RNN",
            {"activations": ["HardSigmoid"], "activation_alpha": [0.3]},
            {"nonlinearity": "hard_sigmoid", "gate_slope": 0.3},
        ),
        (
            "GRU",
            {"activations": ["HardSigmoid", "tanh"]},
            {"gate_activation": "hard_sigmoid", "gate_slope": 0.2, "activation": "tanh"},
        ),
        (
            "LSTM",
            {"activations": ["HardSigmoid", "Relu", "Tanh"], "activation_alpha": [0.1]},
            {"gate_slope": 0.1, "activation": "relu", "output_activation": "tanh"},
        ),
        (
            "LSTM",
            {
                "activations": ["HardSigmoid", "Tanh", "Tanh"],
                "activation_alpha": [0.25, 0.0, 0.0],
                "activation_beta": [0.4, 0.0, 0.0],
            },
            {"gate_activation": "hard_sigmoid", "gate_slope": 0.25},
        ),
        ("LSTM", {"input_forget": 1, "clip": 0.5}, {"coupled": True, "clip": 0.5}),
    ],
)
def test_activations(kind: str, attributes: dict[str, Any], config: dict[str, Any]) -> None:
    """The layer says what the node said, and ONNX Runtime computes the same."""
    runtime = pytest.importorskip("onnxruntime")
    model = single(kind, weights(kind), **attributes)
    layer = fastrnn.onnx.load(model, backend="numpy")
    assert {name: layer.config()[name] for name in config} == config
    x = (3 * np.random.default_rng(0).standard_normal((5, 2, 3))).astype(np.float32)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = session.run(None, {"X": x})
    np.testing.assert_allclose(layer(x)[0], want[:, 0], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "attributes", "text"),
    [
        ("RNN", {"activations": ["Affine"]}, "has Tanh, Relu, Sigmoid and HardSigmoid, not Affine"),
        ("LSTM", {"activations": ["Sigmoid", "Softsign", "Tanh"]}, "activations=.* not Softsign"),
        ("LSTM", {"activations": ["Sigmoid"]}, "activations=.* must be 3 a direction"),
        ("GRU", {"activations": ["Elu", "Tanh"], "activation_alpha": [0.5]}, "not Elu"),
        ("GRU", {"activation_alpha": [0.5]}, "activation_alpha=.* are more than"),
        ("GRU", {"clip": -1.0}, "clip=-1.0 must be greater than 0"),
        ("GRU", {"direction": "sideways"}, "direction='sideways'"),
        ("GRU", {"layout": 2}, "layout=2"),
        ("GRU", {"projection": 2}, "attribute projection=2 is not known"),
        (
            "RNN",
            {"activations": ["HardSigmoid"], "activation_beta": [0.3], "clip": 1.0},
            "activation_beta=.* no clip",
        ),
        ("RNN", {"activations": ["HardSigmoid"], "activation_alpha": [-0.3]}, "activation_alpha"),
        (
            "GRU",
            {"activations": ["HardSigmoid", "HardSigmoid"], "activation_alpha": [0.2, 0.3]},
            "activation_alpha=.* the slopes of HardSigmoid must be one",
        ),
    ],
)
def test_what_cannot_run_names_node_and_attribute(
    kind: str, attributes: dict[str, Any], text: str
) -> None:
    model = single(kind, weights(kind), **attributes)
    with pytest.raises(ValueError, match=f"{kind} node 'cell' of graph: .*{text}"):
        fastrnn.onnx.load(model)
    assert fastrnn.onnx.nodes(model)[0].name == "cell"  # it is listed all the same


def test_directions_with_other_activations() -> None:
    model = single(
        "RNN", weights("RNN", 2), direction="bidirectional", activations=["Tanh", "Relu"]
    )
    with pytest.raises(ValueError, match=r"'cell' .* differ between the directions"):
        fastrnn.onnx.load(model)


def test_weights_that_are_no_constants() -> None:
    model = single("RNN", weights("RNN"))
    model.graph.input.append(info("R", [1, 4, 4]))
    del model.graph.initializer[1]
    with pytest.raises(ValueError, match=r"RNN node 'cell' .* R \('R'\) is not constant"):
        fastrnn.onnx.load(model)
    assert fastrnn.onnx.nodes(model)[0][2:4] == (3, 4)


def test_weights_of_another_shape() -> None:
    w = weights("LSTM")
    w["R"] = w["R"][:, :12]
    with pytest.raises(
        ValueError, match=r"LSTM node 'cell' .* R is \(1, 12, 4\), expected \(1, 16, 4"
    ):
        fastrnn.onnx.load(single("LSTM", w))


def test_a_state_of_its_own() -> None:
    w = weights("LSTM") | {"initial_h": np.ones((1, 1, 4), np.float32)}
    with pytest.warns(UserWarning, match=r"starts from a constant initial_h \('initial_h'\)"):
        fastrnn.onnx.load(single("LSTM", w))
    fastrnn.onnx.load(single("LSTM", w | {"initial_h": np.zeros((1, 1, 4), np.float32)}))


def test_which_node(tmp_path: Path) -> None:
    model = stack([node_of("Relu", "a", "r"), node_of("Squeeze", "r", "one", "b")],
                  {"one": np.array([1])})  # fmt: skip
    with pytest.raises(ValueError, match=r"2 layers without a node: .* 0: .*'low'.* 1: .*'high'"):
        fastrnn.onnx.load(model)
    with pytest.raises(ValueError, match=r"node must be one of 0: .*got 'mid'"):
        fastrnn.onnx.load(model, "mid")
    with pytest.raises(ValueError, match=r"node must be in 0\.\.1, got 2"):
        fastrnn.onnx.load(model, 2)
    with pytest.raises(TypeError, match="node must be an int"):
        fastrnn.onnx.load(model, 1.5)
    with pytest.raises(TypeError, match="hidden_size is what the node says"):
        fastrnn.onnx.load(model, "low", hidden_size=3)
    with pytest.raises(ValueError, match="reset_after is for a GRU"):
        fastrnn.onnx.load(single("RNN", weights("RNN")), reset_after=True)
    assert fastrnn.onnx.load(model, "high").input_size == 4


@pytest.mark.parametrize("function", [fastrnn.onnx.nodes, fastrnn.onnx.load])
def test_no_model(function: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="path_or_model must be a path"):
        function(3)
    with pytest.raises(FileNotFoundError):
        function(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello, this is no model at all")
    with pytest.raises(ValueError, match=r"text\.onnx: not an ONNX model|with a graph"):
        function(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match="with a graph, got one without"):
        function(b"")
    empty = model_of([node_of("Relu", "X", "Y")], [info("X")], [info("Y")], {})
    assert fastrnn.onnx.nodes(empty) == []
    with pytest.raises(ValueError, match="no node RNN, GRU or LSTM"):
        fastrnn.onnx.load(empty)


def test_weights_as_inputs_with_defaults() -> None:
    """Models of IR version 3 list initializers among the inputs too."""
    w = weights("RNN")
    model = single("RNN", w)
    model.graph.input.extend(info(name, value.shape) for name, value in w.items())
    check_weights(model, "RNN", w)


def test_first_versions_of_the_operators() -> None:
    """Opset 1 has output_sequence and no linear_before_reset."""
    node = helper.make_node(
        "GRU", ["X", "W", "R", "B"], ["Y"], name="old", hidden_size=4, output_sequence=1
    )
    model = model_of([node], [info("X", [5, 2, 3])], [info("Y")], weights("GRU"), opset=1)
    assert fastrnn.onnx.load(model).reset_after is False
