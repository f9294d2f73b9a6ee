"""fastrnn.jax beside the layer's own forward and backward, whose oracle is torch."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, pack, run, same_bits, unpack

import fastrnn
import fastrnn.jax

CASES = [
    Case("lstm", layers=2, bidirectional=True, proj=True, lengths="zeros", resets="some"),
    Case("lstm_peephole", batch_first=True),
    Case("gru", layers=2, state=False, bias=False),
    Case("gru_reset_before", dtype="float32"),
    Case("gru", state=False, lengths="zeros", resets="some", batch_first=True),
    Case("rnn_relu", bidirectional=True, resets="often", lengths="positive"),
]


@pytest.fixture(autouse=True)
def wide() -> Any:
    """Let JAX keep float64."""
    with jax.enable_x64(True):
        yield


def loss_of(layer: Any, call: Any) -> Any:
    """<dy, y> + <dstate, state>, whose gradients are backward's."""

    def loss(params: Any, x: Any, state: Any) -> Any:
        y, final = fastrnn.jax.apply(layer, params, x, state, **call.how)
        pairs = [(y, call.dy), *zip(unpack(final), unpack(call.dstate), strict=True)]
        return sum(jnp.sum(a * b) for a, b in pairs)

    return loss


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_the_layers_to_the_bit(
    case: Case, jit: bool, backend: str
) -> None:
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    apply, gradients = fastrnn.jax.apply, jax.grad(loss_of(layer, call), (0, 1, 2))
    if jit:
        apply, gradients = jax.jit(apply, static_argnums=0), jax.jit(gradients)
    params = dict(layer.params)
    y, final = apply(layer, params, call.x, call.state, **call.how)
    got = {"y": y, **dict(zip(("hn", "cn"), unpack(final), strict=False))}
    dparams, dx, dstate = gradients(params, call.x, call.state)
    if call.state is None:
        dstate = pack(want[name] for name in ("dh0", "dc0") if name in want)
    got |= {"dx": dx, **dict(zip(("dh0", "dc0"), unpack(dstate), strict=False))}
    got |= {"d" + name: dparams[name] for name in layer.params}
    same_bits({name: np.asarray(value) for name, value in got.items()}, want)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_vmap_folds_into_the_batch(
    kind: str, batched: bool, batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(kind, bidirectional=True, batch_first=batch_first, layers=2)
    layer, call = case.layer("numpy"), case.call()
    n, (T, B, _, H) = 3, case.sizes
    draw = np.random.default_rng(1)
    x = draw.standard_normal((n, *call.x.shape))
    h = draw.standard_normal((n, 4, B, H))
    lengths, resets = draw.integers(0, T + 1, (n, B)), draw.random((T, B)) < 0.3
    if not batched:
        x = x[:, 0] if batch_first else x[:, :, 0]
        h, lengths, resets = h[:, :, 0], lengths[:, 0], resets[:, 0]
    runs = []
    plain = fastrnn.jax.host.forward
    monkeypatch.setattr(
        fastrnn.jax.host, "forward", lambda *args: runs.append(args[1].shape) or plain(*args)
    )
    sys.modules["fastrnn.jax.apply"]._differentiable.cache_clear()

    def one(x: Any, h: Any, lengths: Any) -> Any:
        state = (h, 2 * h) if kind == "lstm" else h
        return fastrnn.jax.apply(layer, layer.params, x, state, lengths=lengths, resets=resets)

    y, final = jax.vmap(one)(x, h, lengths)
    assert len(runs) == 1
    assert sorted(runs[0]) == sorted((T, n * B if batched else n, case.sizes[2]))
    for i in range(n):
        state = (h[i], 2 * h[i]) if kind == "lstm" else h[i]
        want, last = layer(x[i], state, lengths=lengths[i], resets=resets)
        np.testing.assert_allclose(y[i], want, rtol=1e-12, atol=1e-14)
        for got, expected in zip(unpack(final), unpack(last), strict=True):
            np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-14)
    # one of the arguments is the same for all, and the mapped axis is another one
    y, _ = jax.vmap(one, in_axes=(1, None, None), out_axes=1)(x.swapaxes(0, 1), h[0], lengths[0])
    state = (h[0], 2 * h[0]) if kind == "lstm" else h[0]
    want, _ = layer(x[1], state, lengths=lengths[0], resets=resets)
    np.testing.assert_allclose(np.asarray(y)[:, 1], want, rtol=1e-12, atol=1e-14)


def test_gradients_and_maps_mix() -> None:
    layer = fastrnn.LSTM(3, 4, dtype=np.float64, rng=0)
    params = dict(layer.params)
    xs = np.random.default_rng(0).standard_normal((3, 5, 2, 3))

    def loss(params: Any, x: Any) -> Any:
        return jnp.sin(fastrnn.jax.apply(layer, params, x)[0]).sum()

    each = [jax.grad(loss)(params, x) for x in xs]
    mapped = jax.vmap(jax.grad(loss), (None, 0))(params, xs)
    total = jax.grad(lambda p: jax.vmap(loss, (None, 0))(p, xs).sum())(params)
    many = {name: np.stack([value, 2 * value]) for name, value in params.items()}
    losses = jax.jit(jax.vmap(loss, (0, None)))(many, xs[0])
    for name in params:
        np.testing.assert_allclose(mapped[name], [g[name] for g in each], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(total[name], sum(g[name] for g in each), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(losses[0], loss(params, xs[0]))
    twice = {name: 2 * value for name, value in params.items()}
    np.testing.assert_allclose(losses[1], loss(twice, xs[0]))


def test_a_layer_trains_under_jit() -> None:
    layer = fastrnn.GRU(1, 8, dtype=np.float64, rng=0)
    x = np.random.default_rng(0).standard_normal((10, 16, 1))
    target = np.cumsum(x, axis=0) / 4

    @jax.jit
    def step(params: Any) -> Any:
        def loss(params: Any) -> Any:
            return jnp.mean((fastrnn.jax.apply(layer, params, x)[0][..., :1] - target) ** 2)

        value, gradients = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients)

    params, losses = dict(layer.params), []
    for _ in range(40):
        value, params = step(params)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layer": fastrnn.Linear(3, 4)}, TypeError, "layer must be an RNN, GRU or LSTM"),
        ({"params": []}, TypeError, "parameters must be a mapping"),
        ({"params": {}}, ValueError, "parameters are missing: weight_ih_l0"),
        ({"weight": np.ones((12, 5))}, ValueError, r"weight_hh_l0 must be \(12, 4\), got"),
        (
            {"weight": np.ones((12, 4), "f4")},
            TypeError,
            "weight_hh_l0 must be float64, got float32",
        ),
        ({"x": np.ones((5, 2, 4))}, ValueError, r"x must be \(T, B, I=3\), got \(5, 2, 4\)"),
        ({"x": np.ones((5, 2, 3), "f4")}, TypeError, "x must be float64, got float32"),
        ({"x": "text"}, TypeError, "x must be an array of JAX or NumPy, got str"),
        ({"state": (np.ones((1, 2, 4)),) * 2}, TypeError, "state must be one array h"),
        ({"state": np.ones((1, 3, 4))}, ValueError, r"state must be \(L\*D=1, B=2, H=4\)"),
        ({"lengths": [1]}, ValueError, r"lengths must be \(B=2,\), got \(1,\)"),
        ({"resets": np.ones((5, 2))}, TypeError, "resets must be bool"),
        ({"lengths": [6, 1]}, Exception, "lengths must be in 0..T=5, got 6 in row 0"),
    ],
)
def test_bad_calls(changes: Any, error: type[Exception], words: str) -> None:
    layer = fastrnn.GRU(3, 4, dtype=np.float64)
    arguments = {"layer": layer, "params": dict(layer.params), "x": np.ones((5, 2, 3)), **changes}
    if "weight" in changes:
        arguments["params"]["weight_hh_l0"] = arguments.pop("weight")
    with pytest.raises(error, match=words):
        jax.block_until_ready(fastrnn.jax.apply(**arguments))


def test_float64_that_jax_would_cut_is_refused() -> None:
    layer = fastrnn.GRU(3, 4, dtype=np.float64)
    with jax.enable_x64(False), pytest.raises(TypeError, match="jax_enable_x64"):
        fastrnn.jax.apply(layer, layer.params, np.ones((5, 2, 3)))


def test_a_gradient_of_a_gradient_is_refused() -> None:
    layer = fastrnn.GRU(3, 4, dtype=np.float64)

    def loss(x: Any) -> Any:
        return fastrnn.jax.apply(layer, layer.params, x)[0].sum()

    with pytest.raises(RuntimeError, match="first derivatives only"):
        jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())(np.ones((5, 2, 3)))


def test_the_example_in_the_docstring_runs() -> None:
    with jax.enable_x64(False):
        result = doctest.testmod(sys.modules["fastrnn.jax.apply"])
    assert result.attempted > 0
    assert result.failed == 0


def test_without_jax_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['jax'] = None; import fastrnn.jax"
    root = str(Path(fastrnn.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert "ImportError: fastrnn.jax needs jax: pip install 'fastrnn[jax]'" in done.stderr
