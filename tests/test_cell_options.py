"""The cells' options and the reverse direction, beside plain torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import TOLERANCE, pack, unpack
from grid import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn

CLASSES = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}


def act(name: str, a: torch.Tensor, slope: float) -> torch.Tensor:
    if name == "hard_sigmoid":
        return torch.clamp(slope * a + 0.5, 0, 1)
    return getattr(torch, name)(a)


def step(
    kind: str, options: dict[str, Any], w: dict[str, torch.Tensor], x: Any, state: Any
) -> tuple[torch.Tensor, ...]:
    """One step of one pass, as ONNX writes it."""
    slope, limit = options.get("gate_slope", 0.2), options.get("clip") or float("inf")
    gate = options.get("gate_activation", "sigmoid")
    inner = options.get("activation", options.get("nonlinearity", "tanh"))
    outer = options.get("output_activation") or inner

    def clip(a: torch.Tensor) -> torch.Tensor:
        return torch.clamp(a, -limit, limit)

    h = state[0]
    a = x @ w["weight_ih"].T + w["bias_ih"]
    b = h @ w["weight_hh"].T + w["bias_hh"]
    if kind == "rnn":
        return (act(inner, clip(a + b), slope),)
    if kind == "gru":
        (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
        r, z = act(gate, clip(ar + br), slope), act(gate, clip(az + bz), slope)
        if options.get("reset_after", True):
            n = act(inner, clip(an + r * bn), slope)
        else:
            rows, bias = w["weight_hh"].chunk(3)[2], w["bias_hh"].chunk(3)[2]
            n = act(inner, clip(an + (r * h) @ rows.T + bias), slope)
        return ((1 - z) * n + z * h,)
    c = state[1]
    ai, af, ag, ao = (a + b).chunk(4, -1)
    pi, pf, po = w["weight_peephole"].chunk(3) if "weight_peephole" in w else (0, 0, 0)
    i = act(gate, clip(ai + pi * c), slope)
    f = 1 - i if options.get("coupled") else act(gate, clip(af + pf * c), slope)
    c = f * c + i * act(inner, clip(ag), slope)
    m = act(gate, clip(ao + po * c), slope) * act(outer, c, slope)
    return (m @ w["weight_hr"].T if "weight_hr" in w else m), c


def oracle(
    layer: Any, options: dict[str, Any], x: Any, state: Any, lengths: Any, dy: Any, dstate: Any
) -> dict[str, Any]:
    """y, the final state and all gradients, by autograd."""
    kind = type(layer).__name__.lower()
    leaves = {k: torch.tensor(np.float64(v), requires_grad=True) for k, v in layer.params.items()}
    tx = torch.tensor(np.float64(x), requires_grad=True)
    initial = [torch.tensor(np.float64(s), requires_grad=True) for s in unpack(state)]
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    inputs = [tx[:n, b] for b, n in enumerate(lengths)]
    finals: list[list[list[torch.Tensor]]] = []
    for number in range(layer.num_layers):
        outs = []
        for d, suffix in enumerate(directions):
            ending = f"_l{number}{suffix}"
            w = {k.removesuffix(ending): v for k, v in leaves.items() if k.endswith(ending)}
            rows, last = [], []
            for b, row in enumerate(inputs):
                s: Any = [s[number * len(directions) + d, b] for s in initial]
                ys: list[Any] = [None] * len(row)
                back = layer.reverse or suffix
                for t in reversed(range(len(row))) if back else range(len(row)):
                    s = step(kind, options, w, row[t], s)
                    ys[t] = s[0]
                rows.append(torch.stack(ys) if ys else row.new_zeros(0, s[0].shape[-1]))
                last.append(s)
            outs.append(rows)
            finals.append(last)
        inputs = [torch.cat(parts, -1) for parts in zip(*outs, strict=True)]
    y = torch.stack([torch.cat([r, r.new_zeros(len(x) - len(r), r.shape[-1])]) for r in inputs], 1)
    state = [torch.stack([torch.stack([s[k] for s in p]) for p in finals]) for k in
             range(len(initial))]  # fmt: skip
    loss = (y * torch.tensor(np.float64(dy))).sum()
    for value, gradient in zip(state, unpack(dstate), strict=True):
        loss = loss + (value * torch.tensor(np.float64(gradient))).sum()
    sources = {
        "x": tx,
        "h0": initial[0],
        **({"c0": initial[1]} if kind == "lstm" else {}),
        **leaves,
    }
    gradients = torch.autograd.grad(loss, list(sources.values()), materialize_grads=True,
                                    allow_unused=True)  # fmt: skip
    outputs = {"y": y, "hn": state[0], **({"cn": state[1]} if kind == "lstm" else {})}
    return {k: v.detach().numpy() for k, v in outputs.items()} | {
        "d" + k: g.numpy() for k, g in zip(sources, gradients, strict=True)
    }


def check(
    kind: str, options: dict[str, Any], *, sizes: tuple[int, ...] = (5, 3, 4, 3), seed: int = 3,
    lengths: Any = None, **arguments: Any,
) -> None:  # fmt: skip
    steps, batch, inputs, hidden = sizes
    dtype = np.dtype(arguments.setdefault("dtype", np.float64))
    layer = CLASSES[kind](inputs, hidden, rng=seed, **options, **arguments)
    draw = np.random.default_rng(seed)
    layer.flat_params[:] = draw.uniform(-1.2, 1.2, layer.num_params)

    def normal(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(dtype)

    directions = 2 if layer.bidirectional else 1
    width = layer.proj_size or hidden
    widths = (width, hidden) if kind == "lstm" else (hidden,)
    x, dy = normal(steps, batch, inputs) * 2, normal(steps, batch, directions * width)
    state, dstate = (
        pack([normal(layer.num_layers * directions, batch, n) for n in widths]) for _ in range(2)
    )
    every = [steps] * batch if lengths is None else lengths
    want = oracle(layer, options, x, state, every, dy, dstate)
    y, final, tape = layer.forward(x, state, lengths=lengths)
    grads = layer.backward(tape, dy, dstate)
    got = {"y": y, **dict(zip(("hn", "cn"), unpack(final), strict=False)), "dx": grads.x}
    got |= dict(zip(("dh0", "dc0"), unpack(grads.state), strict=False))
    got |= {"d" + name: value for name, value in grads.params.items()}
    assert got.keys() == want.keys()
    for name, value in want.items():
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        tolerance = {k: v * (scale if k == "atol" else 1) for k, v in TOLERANCE[dtype.name].items()}
        np.testing.assert_allclose(got[name], value, **tolerance, err_msg=f"{kind} {name}")
    inference, _ = layer(x, state, lengths=lengths)
    np.testing.assert_allclose(inference, y, **TOLERANCE[dtype.name])


CASES: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"nonlinearity": "sigmoid"}),
    ("rnn", {"nonlinearity": "hard_sigmoid", "gate_slope": 0.3}),
    ("rnn", {"nonlinearity": "relu", "clip": 0.7}),
    ("rnn", {"clip": 0.5}),
    ("gru", {"gate_activation": "hard_sigmoid"}),
    ("gru", {"gate_activation": "hard_sigmoid", "gate_slope": 1 / 6, "reset_after": False}),
    ("gru", {"activation": "relu", "clip": 1.1}),
    ("gru", {"clip": 0.6, "reset_after": False}),
    ("lstm", {"gate_activation": "hard_sigmoid"}),
    ("lstm", {"gate_activation": "hard_sigmoid", "gate_slope": 1 / 6, "peephole": True}),
    ("lstm", {"clip": 0.8, "peephole": True, "proj_size": 2}),
    ("lstm", {"coupled": True}),
    ("lstm", {"coupled": True, "clip": 0.9, "gate_activation": "hard_sigmoid", "peephole": True}),
    ("lstm", {"activation": "relu"}),
    ("lstm", {"activation": "sigmoid", "output_activation": "hard_sigmoid"}),
    ("lstm", {"gate_activation": "tanh", "output_activation": "relu", "activation": "tanh"}),
]


# Numba compiles for seconds a cell and dtype, so that a case of each must do.
FEW = [CASES[n] for n in (2, 4, 5, 12)]
EVERYWHERE = [
    pytest.param(engine, *case, id=f"{engine}-{case}")
    for engine in BACKENDS
    for case in (FEW if engine == "numba" else CASES)
]
FAST = [name for name in BACKENDS if name != "numba"]


@pytest.mark.parametrize(("backend", "kind", "options"), EVERYWHERE)
def test_beside_torch(backend: str, kind: str, options: dict[str, Any]) -> None:
    check(kind, options, backend=backend, num_layers=2, bidirectional=True, lengths=[3, 0, 5])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_float32(kind: str, options: dict[str, Any], backend: str) -> None:
    check(kind, options, backend=backend, dtype="float32")


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("precision", "error"), [("high", 2e-4), ("medium", 4e-2)])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_precisions(
    kind: str, options: dict[str, Any], precision: Any, error: float, backend: str
) -> None:
    """Factors of 16 and of 8 bits (docs/accuracy.md), beside float64, which equals torch."""
    layer = CLASSES[kind](24, 40, **options, precision=precision, backend=backend, rng=1)
    exact = CLASSES[kind](24, 40, **options, backend="numpy", dtype="float64", rng=1)
    exact.load_params({name: np.float64(value) for name, value in layer.params.items()})
    x = np.random.default_rng(0).standard_normal((7, 20, 24)).astype(np.float32)
    want, _ = exact(x.astype(np.float64))
    for frozen in (False, True):
        if frozen:
            layer.freeze()
        got, _ = layer(x)
        np.testing.assert_allclose(got, want, rtol=0, atol=error * np.abs(want).max())


@pytest.mark.parametrize("backend", FAST)
def test_one_row_of_several_is_the_row_alone(backend: str) -> None:
    """Forward and backward, with the same bits: 40 rows on three threads, in spans."""
    options: dict[str, Any] = {"clip": 0.7, "gate_activation": "hard_sigmoid", "coupled": True}
    layer = fastrnn.LSTM(5, 19, **options, backend=backend, reproducible=True, rng=2)
    draw = np.random.default_rng(0)
    x, dy = (draw.standard_normal((6, 40, n)).astype(np.float32) for n in (5, 19))
    with fastrnn.num_threads(3):
        y, _, tape = layer.forward(x, checkpoint_every=4)
        dx = layer.backward(tape, dy).x
    y1, _, tape = layer.forward(x[:, 7:8])
    np.testing.assert_array_equal(y1[:, 0], y[:, 7])
    np.testing.assert_array_equal(layer.backward(tape, dy[:, 7:8]).x[:, 0], dx[:, 7])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kind", CLASSES)
def test_nan_and_inf_flow_through(backend: str, kind: str) -> None:
    """A gradient that is infinite is 0, not NaN, where it does not pass; a NaN is not clipped."""
    how: dict[str, Any] = {"clip": 0.5, "dtype": "float64", "backend": backend, "rng": 1}
    layer = CLASSES[kind](3, 9, **how)
    x = np.full((2, 2, 3), 1e3)
    x[:, 1] = np.nan
    y, _, tape = layer.forward(x)
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 1]).all()
    dy = np.zeros_like(y)
    dy[:, 0] = np.inf
    if kind == "rnn":  # whose one argument is clipped wherever x is so large
        assert (np.abs(np.arctanh(y[:, 0])).min()) > 0.49
        np.testing.assert_array_equal(layer.backward(tape, dy).x[:, 0], 0)
    relu = CLASSES["rnn"](1, 1, nonlinearity="relu", clip=2.0, dtype="float64", backend=backend)
    relu.load_params({name: np.ones_like(value) for name, value in relu.params.items()})
    y, _, tape = relu.forward(np.array([[[-9.0]], [[0.0]], [[9.0]]]))
    np.testing.assert_array_equal(y.ravel(), [0, 2, 2])
    np.testing.assert_array_equal(relu.backward(tape, np.full((3, 1, 1), np.inf)).x.ravel(), 0)


@pytest.mark.parametrize("backend", FAST)
def test_an_infinite_argument_that_nothing_clips_has_its_gradient(backend: str) -> None:
    """As torch's clamp to -inf .. inf and its relu have it."""
    options: Any = {"activation": "relu", "gate_activation": "hard_sigmoid"}
    layer = fastrnn.LSTM(1, 1, **options, dtype="float64", backend=backend)
    layer.flat_params[:] = 0
    layer.params["bias_ih_l0"][2] = np.inf  # of g; the gates are 1/2
    y, _, tape = layer.forward(np.zeros((1, 1, 1)))
    assert y.item() == np.inf
    grads = layer.backward(tape, np.ones((1, 1, 1)))
    assert grads.params["bias_ih_l0"][2] == 0.25


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", [None, [2, 5, 0]])
@pytest.mark.parametrize("kind", CLASSES)
def test_reverse(backend: str, kind: str, lengths: Any, layers: int) -> None:
    check(kind, {}, backend=backend, num_layers=layers, reverse=True, lengths=lengths)


@pytest.mark.parametrize("kind", CLASSES)
def test_reverse_is_the_second_direction(backend: str, kind: str) -> None:
    """With resets, checkpoints and a tape's states too."""
    both = CLASSES[kind](3, 4, bidirectional=True, rng=1, backend=backend)
    alone = CLASSES[kind](3, 4, reverse=True, rng=2, backend=backend)
    alone.load_params({n: both.params[f"{n}_reverse"] for n in alone.params})
    draw = np.random.default_rng(0)
    x = draw.standard_normal((7, 2, 3)).astype(np.float32)
    how = {"lengths": [7, 4], "resets": draw.random((7, 2)) < 0.3}
    y, _, tape = both.forward(x, **how)
    y1, _, tape1 = alone.forward(x, **how, checkpoint_every=3)
    np.testing.assert_allclose(y1, y[..., 4:], rtol=1e-6, atol=1e-7)
    for a, b in zip(unpack(tape1.states()), unpack(tape.states()), strict=True):
        if a is not None:
            np.testing.assert_allclose(a, b[:, 1:], rtol=1e-6, atol=1e-7)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(list(CLASSES)),
    sizes=st.tuples(*[st.integers(1, 6)] * 4),
    clip=st.none() | st.floats(0.2, 3),
    slope=st.floats(0.05, 0.6),
    reverse=st.booleans(),
    data=st.data(),
)  # fmt: skip
def test_any_shape(
    kind: str, sizes: Any, clip: Any, slope: float, reverse: bool, data: Any
) -> None:
    names = st.sampled_from(["sigmoid", "hard_sigmoid", "tanh", "relu"])
    options: dict[str, Any] = {"clip": clip, "gate_slope": slope}
    if kind == "rnn":
        options["nonlinearity"] = data.draw(names)
    else:
        options |= {"gate_activation": data.draw(names), "activation": data.draw(names)}
    if kind == "gru":
        options["reset_after"] = data.draw(st.booleans())
    if kind == "lstm":
        options |= {"coupled": data.draw(st.booleans()), "peephole": data.draw(st.booleans())}
    check(kind, options, sizes=sizes, reverse=reverse, backend="numpy", seed=data.draw(
        st.integers(0, 1000)))  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES)
def test_stepper_and_cell(kind: str) -> None:
    """A stepper, a cell and a call give the same numbers."""
    options: dict[str, Any] = {"clip": 0.7}
    if kind != "rnn":
        options["gate_activation"] = "hard_sigmoid"
    layer = CLASSES[kind](3, 5, **options, rng=4)
    cell = getattr(fastrnn, f"{kind.upper()}Cell")(3, 5, **options)
    cell.load_params({name.removesuffix("_l0"): value for name, value in layer.params.items()})
    x = np.random.default_rng(1).standard_normal((6, 2, 3)).astype(np.float32)
    y, _ = layer(x)
    step, state = layer.stepper(2), None
    for t in range(6):
        np.testing.assert_allclose(step(x[t]), y[t], rtol=2e-6, atol=1e-7)
        state = cell(x[t], state)
        np.testing.assert_allclose(unpack(state)[0], y[t], rtol=2e-6, atol=1e-7)


def test_saved_and_pickled(tmp_path: Any) -> None:
    layer = fastrnn.LSTM(3, 4, gate_activation="hard_sigmoid", clip=2.5, coupled=True, rng=0)
    fastrnn.save(tmp_path / "a.safetensors", layer)
    again = fastrnn.load(tmp_path / "a.safetensors")
    assert again.config() == layer.config()
    assert (again.gate_activation, again.clip, again.coupled) == ("hard_sigmoid", 2.5, True)
    x = np.ones((2, 1, 3), np.float32)
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])


def test_the_slope_of_no_hard_sigmoid_is_no_option() -> None:
    """A layer whose options are the usual cell's is the usual cell, on any backend."""
    assert fastrnn.GRU(2, 3, gate_slope=1 / 6, backend="numpy").backend == "numpy"
    assert fastrnn.GRU(2, 3, gate_slope=1 / 6)._cell.options is None
    assert fastrnn.RNN(2, 3, nonlinearity="relu")._cell.options is None


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"clip": 0.0}, ValueError, "clip must be greater than 0 and finite, got 0.0"),
        ({"clip": float("nan")}, ValueError, "clip must be"),
        ({"clip": float("inf")}, ValueError, "clip must be greater than 0 and finite"),
        ({"clip": "1"}, TypeError, "clip must be a number, got str"),
        ({"gate_slope": -1}, ValueError, "gate_slope must be"),
        ({"gate_activation": "softsign"}, ValueError, "gate_activation must be one of"),
        ({"gate_activation": None}, TypeError, "gate_activation must be one of"),
        ({"activation": "elu"}, ValueError, "activation must be one of"),
        ({"output_activation": "elu"}, ValueError, "output_activation must be one of"),
        ({"coupled": 1}, TypeError, "coupled must be a bool, got int"),
        ({"reverse": 0}, TypeError, "reverse must be a bool, got int"),
        ({"reverse": True, "bidirectional": True}, ValueError, "reverse=True is for one direction"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        fastrnn.LSTM(2, 3, **arguments)


def test_no_stepper_backwards() -> None:
    with pytest.raises(ValueError, match="reverse=True"):
        fastrnn.GRU(2, 3, reverse=True).stepper()
