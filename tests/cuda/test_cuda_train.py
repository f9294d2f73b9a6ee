"""Linear, Embedding, losses, gradcheck, optimisers and clipping on the emulated device."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import fake_cupy
import numpy as np
import pytest
from device import down, up

import fastrnn

pytestmark = pytest.mark.usefixtures("device")

X = np.random.default_rng(0).standard_normal((5, 2, 3))


def layers() -> tuple[Any, Any]:
    host = fastrnn.GRU(3, 4, dtype=np.float64, rng=0, backend="numpy")
    return host, host.to("cuda")


def gradients(layer: Any, x: Any) -> Any:
    y, _, tape = layer.forward(x)
    return layer.backward(tape, y)


@pytest.fixture(autouse=True)
def numpy_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose products the emulated device has, too: results are equal to the bit."""
    monkeypatch.setenv("FASTRNN_BACKEND", "numpy")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits for the GPU is an error."""

    def get(self: Any) -> Any:
        raise AssertionError("an array was read back")

    monkeypatch.setattr(fake_cupy.ndarray, "get", get)
    monkeypatch.setattr(fake_cupy.ndarray, "__float__", get)


# ---- optimisers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: fastrnn.SGD(layer, 0.1, weight_decay=0.01),
        lambda layer: fastrnn.SGD(layer, 0.1, momentum=0.9, nesterov=True),
        lambda layer: fastrnn.Adam(layer, 0.1, weight_decay=0.01),
    ],
)
def test_steps_are_those_of_the_cpu(make: Any) -> None:
    host, layer = layers()
    optimizers = make(host), make(layer)
    for _ in range(3):
        optimizers[0].step(gradients(host, X))
        optimizers[1].step(gradients(layer, up(X)))
    np.testing.assert_allclose(down(layer.flat_params), host.flat_params, rtol=1e-9)
    saved = optimizers[1].state_dict()
    optimizers[1].load_state_dict(saved)
    assert optimizers[1].steps == 3


def test_clipping() -> None:
    host, layer = layers()
    found = gradients(host, X), gradients(layer, up(X))
    norms = [fastrnn.clip_grad_norm(grads, 0.5) for grads in found]
    assert norms[0] > 0.5
    np.testing.assert_allclose(norms[1], norms[0])
    np.testing.assert_allclose(down(found[1].flat), found[0].flat)


def test_what_is_refused() -> None:
    host, layer = layers()
    adam = fastrnn.Adam(layer)
    with pytest.raises(TypeError, match=r"grads\.flat must be a cupy\.ndarray of float64"):
        adam.step(replace(gradients(host, X), layer=layer))
    grads = gradients(layer, up(X))
    with pytest.raises(TypeError, match=r"grads\.flat must be a numpy\.ndarray of float64"):
        fastrnn.Adam(host).step(replace(grads, layer=host))
    with pytest.raises(ValueError, match="grads must be of a layer of this optimiser"):
        adam.step(gradients(host, X))
    layer.freeze()
    with pytest.raises(ValueError, match="the parameters are frozen"):
        adam.step(grads)


# ---- Linear and Embedding ------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (5,), (3, 4), (2, 0)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear(leading: tuple[int, ...], bias: bool, dtype: str) -> None:
    host = fastrnn.Linear(7, 5, bias, dtype=dtype, rng=0)
    layer = fastrnn.Linear(7, 5, bias, dtype=dtype, rng=0, device="cuda")
    draw = np.random.default_rng(1).standard_normal
    x, dy = draw((*leading, 7)).astype(dtype), draw((*leading, 5)).astype(dtype)
    y, tape = host.forward(x)
    want = host.backward(tape, dy)
    got_y, tape = layer.forward(up(x))
    got = layer.backward(tape, up(dy))
    # products of NumPy are what the fake has, too
    for a, b in ((got_y, y), (layer(up(x)), y), (got.x, want.x), (got.flat, want.flat)):
        assert np.array_equal(down(a), b)


@pytest.mark.parametrize("index_type", [np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(), (50,), (7, 9), (0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embedding(unread: None, index_type: type, shape: tuple[int, ...], dtype: str) -> None:
    host = fastrnn.Embedding(6, 4, dtype=dtype, rng=0)
    layer = host.to("cuda")
    draw = np.random.default_rng(1)
    x = np.asarray(draw.integers(0, 5, shape), index_type)  # nobody looks the last one up
    dy = draw.standard_normal((*shape, 4)).astype(dtype)
    y, tape = host.forward(x)
    want = host.backward(tape, dy)
    got_y, tape = layer.forward(up(x))
    got = layer.backward(tape, up(dy))
    assert got.x is None
    assert np.array_equal(got_y._host, y)
    # chains here, pairwise sums there
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(got.flat._host, want.flat, **near)


def test_an_index_out_of_range_shows_as_nan_in_its_row(unread: None) -> None:
    layer = fastrnn.Embedding(3, 2, rng=0, device="cuda")
    for index in (-1, 3, 2**40):
        y, tape = layer.forward(up(np.array([0, index, 2, 0])))
        assert np.isnan(y._host).all(axis=1).tolist() == [False, True, False, False]
        dy = np.ones((4, 2), np.float32)
        dy[2] = np.nan  # stays in its row of the gradient
        weight = layer.backward(tape, up(dy)).params["weight"]
        np.testing.assert_array_equal(weight._host, [[2, 2], [0, 0], [np.nan, np.nan]])


@pytest.mark.parametrize(
    "host",
    [fastrnn.Linear(3, 2, rng=5), fastrnn.Embedding(3, 2, rng=5)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_move_copy_freeze_and_save(host: Any, tmp_path: Any) -> None:
    layer = host.to("cuda")
    assert (host.device, layer.device) == ("cpu", "cuda")
    assert type(layer.flat_params) is fake_cupy.ndarray
    same = type(host)(**layer.config(), rng=5)
    layer.freeze()
    fastrnn.save(tmp_path / "m", layer)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.to("cuda")]
    for other in (*copies, same, fastrnn.load(tmp_path / "m")):
        assert other.device == "cuda"
        assert np.array_equal(down(other.flat_params), host.flat_params)
    assert all(other.frozen for other in (*copies, layer.to("cpu")))
    for there in (layer.to("cpu"), fastrnn.load(tmp_path / "m", backend="auto")):
        assert there.device == "cpu"
        assert np.array_equal(there.flat_params, host.flat_params)
    with pytest.raises(ValueError, match="the parameters are frozen"):
        layer.load_params(dict(layer.params))
    layer.unfreeze()
    layer.params["weight"] *= 2
    assert not np.array_equal(down(layer.flat_params), host.flat_params)
    with pytest.raises(ValueError, match=r"device must be one of 'cpu', 'cuda', got 'gpu'"):
        layer.to("gpu")


def test_saved_layers_are_loaded_where_it_is_said(tmp_path: Any) -> None:
    model = {"rnn": fastrnn.GRU(3, 4, rng=0), "out": fastrnn.Linear(4, 2, rng=0)}
    fastrnn.save(tmp_path / "m", model)
    found = fastrnn.load(tmp_path / "m", backend="cuda")
    assert (found["rnn"].backend, found["out"].device) == ("cuda", "cuda")
    assert np.array_equal(down(found["out"].flat_params), model["out"].flat_params)


def test_mixing_raises() -> None:
    linear, table = (fastrnn.Linear(3, 2, rng=0), fastrnn.Embedding(3, 2, rng=0))
    x, index, dy = np.ones((4, 3), np.float32), np.zeros(4, int), np.ones((4, 2), np.float32)
    with pytest.raises(TypeError, match=r"^x must be a numpy\.ndarray of float32, got cupy"):
        linear(up(x))
    with pytest.raises(TypeError, match=r"^x must be on the host, where the layer's parameters"):
        table(up(index))
    for layer, argument in ((linear.to("cuda"), x), (table.to("cuda"), index)):
        with pytest.raises(TypeError, match=r"^x must be a cupy\.ndarray of (float32|ints)"):
            layer(argument)
        _, tape = layer.forward(up(argument))
        with pytest.raises(TypeError, match=r"^dy must be a cupy\.ndarray of float32, got numpy"):
            layer.backward(tape, dy)
    with pytest.raises(TypeError, match="x must be ints, got float32"):
        table.to("cuda")(up(x))
    with fake_cupy.Device(1):
        there = up(x)
    with pytest.raises(TypeError, match="x is on <CUDA Device 1>, the layer's parameters on"):
        linear.to("cuda")(there)


# ---- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 5), (0, 2), ()])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy(unread: None, shape: tuple[int, ...], masked: bool, dtype: str) -> None:
    draw = np.random.default_rng(2)
    logits = (5 * draw.standard_normal((*shape, 7))).astype(dtype)
    targets = np.asarray(draw.integers(0, 7, shape), np.uint8)
    mask = np.asarray(draw.random(shape) < 0.6) if masked else None
    want = fastrnn.softmax_cross_entropy(logits, targets, mask)
    loss, dlogits = fastrnn.softmax_cross_entropy(up(logits), up(targets), up(mask))
    assert (type(loss), loss.shape, loss.dtype) == (fake_cupy.ndarray, (), np.float64)
    assert loss._host == want[0]
    assert np.array_equal(dlogits._host, want[1])
    assert dlogits.dtype == dtype


def test_a_target_out_of_range_shows_as_nan(unread: None) -> None:
    logits = up(np.zeros((4, 3), np.float32))
    mask = up(np.array([True, True, False, True]))
    for wrong in (-1, 3):
        targets = up(np.array([0, wrong, wrong, 2]))
        loss, dlogits = fastrnn.softmax_cross_entropy(logits, targets, mask)
        assert np.isnan(loss._host)
        assert np.isnan(dlogits._host).any(axis=1).tolist() == [False, True, False, False]
    loss, _ = fastrnn.softmax_cross_entropy(logits, up(np.array([0, 1, 9, 2])), mask)
    assert abs(loss._host - np.log(3)) < 1e-6


@pytest.mark.parametrize("rank", [None, 1, 2, 3])
def test_mse(unread: None, rank: int | None) -> None:
    draw = np.random.default_rng(3)
    pred, target = draw.standard_normal((2, 4, 3, 2)).astype(np.float32)
    mask = None if rank is None else draw.random((4, 3, 2)[:rank]) < 0.7
    want = fastrnn.mse(pred, target, mask)
    loss, dpred = fastrnn.mse(up(pred), up(target), up(mask))
    assert (type(loss), loss.shape, loss.dtype) == (fake_cupy.ndarray, (), np.float64)
    assert loss._host == want[0]
    assert np.array_equal(dpred._host, want[1])


def test_losses_refuse_to_mix() -> None:
    logits, targets, mask = np.zeros((4, 3)), np.zeros(4, int), np.ones(4, bool)
    loss = fastrnn.softmax_cross_entropy
    with pytest.raises(TypeError, match=r"^targets must be a cupy\.ndarray of ints, got numpy"):
        loss(up(logits), targets)
    with pytest.raises(TypeError, match=r"^mask must be a cupy\.ndarray of bools, got numpy"):
        loss(up(logits), up(targets), mask)
    expected = r"^targets must be on the host, where logits are, got cupy\.ndarray: copy it with cu"
    with pytest.raises(TypeError, match=expected):
        loss(logits, up(targets))
    with pytest.raises(TypeError, match=r"^target must be a cupy\.ndarray of float64, got numpy"):
        fastrnn.mse(up(logits), logits)
    with pytest.raises(TypeError, match=r"^target must be a numpy\.ndarray of float64, got cupy"):
        fastrnn.mse(logits, up(logits))
    with pytest.raises(TypeError, match=r"^logits must be .* float32 or float64, got int64"):
        loss(up(targets), up(targets))
    with pytest.raises(TypeError, match=r"^targets must be ints, got float64$"):
        loss(up(logits), up(np.zeros(4)))
    with fake_cupy.Device(1):
        there = up(targets)
    expected = "^targets is on <CUDA Device 1>, logits on <CUDA Device 0>$"
    with pytest.raises(TypeError, match=expected):
        loss(up(logits), there)


# ---- gradcheck -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (fastrnn.LSTM(3, 4, 2, peephole=True, dtype=np.float64, rng=0), X),
        (fastrnn.GRUCell(3, 4, dtype=np.float64, rng=0), X[0]),
        (fastrnn.Linear(3, 2, dtype=np.float64, rng=0), X),
        (fastrnn.Embedding(3, 2, dtype=np.float64, rng=0), np.array([[0, 2], [2, 2]])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradcheck(layer: Any, x: Any) -> None:
    assert fastrnn.gradcheck(layer.to("cuda"), up(x), rng=1)


def test_gradcheck_finds_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastrnn.Linear(3, 2, dtype=np.float64, rng=0, device="cuda")
    right = fastrnn.Linear.backward

    def wrong(self: Any, tape: Any, dy: Any) -> Any:
        grads = right(self, tape, dy)
        grads.params["bias"] *= 1.01
        return grads

    monkeypatch.setattr(fastrnn.Linear, "backward", wrong)
    with pytest.raises(AssertionError, match=r"^gradients differ along .*\nbias: "):
        fastrnn.gradcheck(layer, up(X), rng=1)


def test_gradcheck_with_a_state_on_the_device() -> None:
    layer = fastrnn.LSTM(3, 4, dtype=np.float64, rng=0, backend="cuda")
    h, c = np.random.default_rng(4).standard_normal((2, 1, 2, 4))
    assert fastrnn.gradcheck(layer, up(X), (up(h), up(c)), rng=1)
    with pytest.raises(TypeError, match=r"^x must be a cupy\.ndarray"):
        fastrnn.gradcheck(layer, X)
