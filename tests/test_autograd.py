"""fastrnn.autograd beside the layer's own backward, whose oracle is torch."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.test_util import check_grads
from cases import Case, run, same_bits, unpack

import fastrnn
import fastrnn.autograd

CASES = [
    Case("lstm", layers=2, bidirectional=True, proj=True, lengths="zeros", resets="some"),
    Case("lstm_peephole", batch_first=True),
    Case("gru", layers=2, state=False, bias=False),
    Case("gru_reset_before", dtype="float32"),
    Case("rnn_relu", bidirectional=True, resets="often"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_the_layers_to_the_bit(case: Case, backend: str) -> None:
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)

    def loss(params: Any, x: Any, state: Any) -> Any:
        y, final = fastrnn.autograd.apply(layer, params, x, state, **call.how)
        total = anp.sum(y * call.dy)
        parts = (final,) if case.kind[:4] != "lstm" else (final[0], final[1])
        for part, d in zip(parts, unpack(call.dstate), strict=True):
            total = total + anp.sum(part * d)
        return total

    y, final = fastrnn.autograd.apply(layer, layer.params, call.x, call.state, **call.how)
    got = {"y": y, **dict(zip(("hn", "cn"), unpack(final), strict=False))}
    arguments = (dict(layer.params), call.x, call.state)
    params, dx = autograd.grad(loss, 0)(*arguments), autograd.grad(loss, 1)(*arguments)
    states = {name: want[name] for name in ("dh0", "dc0") if name in want}
    if call.state is not None:
        found = autograd.grad(loss, 2)(*arguments)
        states = dict(zip(("dh0", "dc0"), unpack(found), strict=False))
    got |= {"dx": dx, **states, **{"d" + n: params[n] for n in layer.params}}
    same_bits(got, want)


def test_one_backward_serves_all_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)
    calls = []
    plain = fastrnn.GRU.backward
    monkeypatch.setattr(
        fastrnn.GRU, "backward", lambda *a, **k: (calls.append(1), plain(*a, **k))[1]
    )

    def loss(arguments: Any) -> Any:
        params, x, h = arguments
        y, h = fastrnn.autograd.apply(layer, params, x, h)
        return anp.sum(y) + anp.sum(h**2)

    grads = autograd.grad(loss)((dict(layer.params), np.ones((5, 2, 3)), np.ones((1, 2, 4))))
    assert len(calls) == 1
    assert grads[1].shape == (5, 2, 3)


def test_autograds_own_check() -> None:
    layer = fastrnn.LSTM(3, 4, dtype=np.float64, rng=0)
    draw = np.random.default_rng(0)

    def loss(x: Any, h: Any, w: Any) -> Any:
        params = {**layer.params, "weight_hh_l0": anp.tanh(w)}
        y, (h, c) = fastrnn.autograd.apply(layer, params, x, (h, h * 2))
        z, _ = fastrnn.autograd.apply(layer, params, y[:, :, :3] + x)  # twice, one on the other
        return anp.sum(anp.sin(z)) + anp.sum(c)

    arguments = [draw.standard_normal(s) for s in ((5, 2, 3), (1, 2, 4), (16, 4))]
    check_grads(loss, modes=["rev"], order=1)(*arguments)


def test_a_gradient_of_a_gradient_is_refused() -> None:
    layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)

    def loss(x: Any) -> Any:
        return anp.sum(fastrnn.autograd.apply(layer, layer.params, x)[0])

    def slope(x: Any) -> Any:
        return anp.sum(autograd.grad(loss)(x) ** 2)

    with pytest.raises(RuntimeError, match="first derivatives only"):
        autograd.grad(slope)(np.ones((5, 2, 3)))


@pytest.mark.parametrize(
    ("layer", "changes", "error", "words"),
    [
        (fastrnn.Linear(3, 4), {}, TypeError, "layer must be an RNN, GRU or LSTM, got fastrnn"),
        (None, {"params": []}, TypeError, "parameters must be a mapping"),
        (None, {"params": {}}, ValueError, "parameters are missing: weight_ih_l0"),
        (None, {"x": np.ones((5, 2, 4))}, ValueError, r"x must be \(T, B, I=3\)"),
        (None, {"x": np.ones((5, 2, 3), "f4")}, TypeError, "x must be float64, got float32"),
        (None, {"state": (np.ones((1, 2, 4)),) * 2}, TypeError, "state must be one array h"),
        (None, {"lengths": [6, 1]}, ValueError, "lengths must be in 0..T=5"),
        (None, {"shape": np.ones((12, 5))}, ValueError, r"weight_hh_l0 must be \(12, 4\), got"),
        (None, {"shape": np.ones((12, 4), "f4")}, TypeError, "weight_hh_l0 must be float64"),
    ],
)
def test_bad_calls(layer: Any, changes: Any, error: type[Exception], words: str) -> None:
    layer = layer or fastrnn.GRU(3, 4, dtype=np.float64)
    arguments = {"params": dict(layer.params), "x": np.ones((5, 2, 3)), **changes}
    if "shape" in changes:
        arguments["params"]["weight_hh_l0"] = arguments.pop("shape")
    with pytest.raises(error, match=words):
        fastrnn.autograd.apply(layer, **arguments)


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(sys.modules["fastrnn.autograd"])
    assert result.attempted > 0
    assert result.failed == 0


def test_without_autograd_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['autograd'] = None; import fastrnn.autograd"
    root = str(Path(fastrnn.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert "fastrnn.autograd needs autograd: pip install 'fastrnn[autograd]'" in done.stderr
