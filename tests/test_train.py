"""Linear, Embedding, losses and optimisers against torch's."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fastrnn
from fastrnn.gradients import LayerGradients
from fastrnn.params import Parameters

F = torch.nn.functional
TOLERANCE = {"float32": {"rtol": 2e-6, "atol": 1e-6}, "float64": {"rtol": 1e-12, "atol": 1e-13}}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def tensor(value: np.ndarray) -> torch.Tensor:
    return torch.tensor(value, requires_grad=value.dtype.kind == "f")


def normal(rng: np.random.Generator, dtype: np.dtype, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------------- Linear


@pytest.mark.parametrize("leading", [(), (5,), (3, 4), (2, 0), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(
    dtype: np.dtype, leading: tuple[int, ...], bias: bool, rng: np.random.Generator
) -> None:
    layer = fastrnn.Linear(7, 5, bias, dtype=dtype, rng=0)
    x, dy = normal(rng, dtype, *leading, 7), normal(rng, dtype, *leading, 5)
    y, tape = layer.forward(x)
    grads = layer.backward(tape, dy)

    tx, tw = tensor(x), tensor(layer.params["weight"])
    tb = tensor(layer.params["bias"]) if bias else None
    ty = F.linear(tx, tw, tb)
    ty.backward(torch.tensor(dy))
    near = TOLERANCE[dtype.name]
    np.testing.assert_allclose(y, ty.detach().numpy(), **near)
    np.testing.assert_array_equal(layer(x), y)
    np.testing.assert_allclose(grads.x, tx.grad.numpy(), **near)
    np.testing.assert_allclose(grads.params["weight"], tw.grad.numpy(), **near)
    if tb is not None:
        np.testing.assert_allclose(grads.params["bias"], tb.grad.numpy(), **near)
    assert y.dtype == grads.x.dtype == grads.flat.dtype == dtype
    assert grads.flat.size == layer.num_params


def test_linear_takes_torchs_weights_and_starts_as_torch_does() -> None:
    theirs = torch.nn.Linear(400, 300)
    layer = fastrnn.Linear(400, 300, rng=1)
    assert layer.params.shapes == {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    for name, value in layer.params.items():
        assert abs(value).max() <= 1 / 20
        assert value.std() == pytest.approx(theirs.state_dict()[name].std().item(), rel=0.1)
    layer.load_params({name: p.numpy() for name, p in theirs.state_dict().items()})
    x = np.ones((2, 400), np.float32)
    atol = 400**0.5 * np.finfo(np.float32).eps  # a chain of 400 terms, by its root
    with torch.no_grad():
        np.testing.assert_allclose(layer(x), theirs(torch.tensor(x)).numpy(), rtol=0, atol=atol)


def test_linear_takes_any_memory_order(rng: np.random.Generator) -> None:
    layer = fastrnn.Linear(4, 3, dtype=np.float64, rng=0)
    x = normal(rng, np.dtype(float), 5, 6, 4)
    odd = np.asfortranarray(x)[::-1, ::2]
    y, tape = layer.forward(odd)
    np.testing.assert_allclose(y, layer(x[::-1, ::2].copy()), rtol=1e-14)
    dy = normal(rng, np.dtype(float), 3, 3, 5).T
    np.testing.assert_allclose(
        layer.backward(tape, dy).flat, layer.backward(tape, dy.copy()).flat, rtol=1e-13
    )


def test_a_tape_keeps_the_weights_of_its_forward(rng: np.random.Generator) -> None:
    layer = fastrnn.Linear(4, 3, rng=0)
    x, dy = normal(rng, layer.dtype, 2, 4), normal(rng, layer.dtype, 2, 3)
    _, tape = layer.forward(x)
    before = layer.backward(tape, dy)
    layer.flat_params[:] = 9
    np.testing.assert_array_equal(layer.backward(tape, dy).x, before.x)


# ------------------------------------------------------------------------- Embedding


@pytest.mark.parametrize("index_type", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(), (50,), (7, 9), (0, 3)])
def test_embedding_equals_torch(
    dtype: np.dtype, shape: tuple[int, ...], index_type: type, rng: np.random.Generator
) -> None:
    layer = fastrnn.Embedding(6, 4, dtype=dtype, rng=0)
    x = np.asarray(rng.integers(0, 6, shape), index_type)
    dy = normal(rng, dtype, *shape, 4)
    y, tape = layer.forward(x)
    grads = layer.backward(tape, dy)

    weight = tensor(layer.params["weight"])
    ty = F.embedding(torch.tensor(x.astype(np.int64)), weight)
    ty.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, ty.detach().numpy())
    np.testing.assert_array_equal(layer(x), y)
    near = TOLERANCE[dtype.name]
    np.testing.assert_allclose(grads.params["weight"], weight.grad.numpy(), **near)
    assert grads.x is None


def test_embedding_keeps_a_nan_in_its_row(rng: np.random.Generator) -> None:
    layer = fastrnn.Embedding(3, 2, rng=0)
    _, tape = layer.forward(np.array([0, 1, 0, 2]))
    dy = np.ones((4, 2), np.float32)
    dy[2] = np.nan
    weight = layer.backward(tape, dy).params["weight"]
    np.testing.assert_array_equal(weight, [[np.nan, np.nan], [1, 1], [1, 1]])


@pytest.mark.parametrize("index", [-1, 6])
def test_an_index_out_of_range_is_an_index_error(index: int) -> None:
    layer = fastrnn.Embedding(6, 4)
    for run in (layer, layer.forward):
        with pytest.raises(IndexError, match=rf"x must be in 0\.\.5, got {index}"):
            run(np.array([0, index]))


def test_embedding_starts_as_torch_does() -> None:
    layer = fastrnn.Embedding(200, 100, rng=0)
    assert layer.params.shapes == {"weight": (200, 100)}
    assert layer.params["weight"].std() == pytest.approx(1, abs=0.02)


# ---------------------------------------------------------------------- both of them


LAYERS = [fastrnn.Linear(3, 2, rng=5), fastrnn.Embedding(3, 2, rng=5)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_have_the_surface_of_the_recurrent_ones(layer: Any) -> None:
    same = type(layer)(**layer.config(), rng=5)
    np.testing.assert_array_equal(same.flat_params, layer.flat_params)
    assert repr(same) == repr(layer)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(copied.flat_params, layer.flat_params)
        copied.params["weight"][:] = 7
        assert (copied.flat_params[:6] == 7).all()
        assert (layer.flat_params != 7).all()
    same.freeze()
    assert same.frozen
    assert pickle.loads(pickle.dumps(same)).frozen
    with pytest.raises(ValueError, match="read-only"):
        same.params["weight"][:] = 1
    same.unfreeze()
    same.params["weight"][:] = 1


def test_nan_and_inf_flow_through_layers() -> None:
    """Without a warning, which is an error here."""
    linear, x = fastrnn.Linear(2, 2, rng=5), np.zeros((3, 2), np.float32)
    linear.flat_params[:] = np.array([1, 1, 1, -1, 3e38, 0], np.float32)
    x[0], x[1], x[2, 1] = np.inf, 3e38, np.nan
    y, tape = linear.forward(x)
    np.testing.assert_array_equal(y, [[np.inf, np.nan], [np.inf, 0], [np.nan, np.nan]])
    grads = linear.backward(tape, np.array([[np.inf, np.inf], [3e38, 3e38], [0, 1]], np.float32))
    np.testing.assert_array_equal(grads.x, [[np.inf, np.nan], [np.inf, 0], [1, -1]])
    np.testing.assert_array_equal(grads.params["bias"], [np.inf, np.inf])
    assert np.isnan(grads.params["weight"]).any()

    table = fastrnn.Embedding(3, 1, rng=5)
    _, tape = table.forward([0, 0, 1, 1, 2])
    dy = np.array([np.inf, -np.inf, 3e38, 3e38, 1], np.float32)[:, None]
    np.testing.assert_array_equal(table.backward(tape, dy).flat, [np.nan, np.inf, 1])


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_refuse_what_does_not_fit(layer: Any) -> None:
    x = np.zeros((4, 3), layer.dtype) if isinstance(layer, fastrnn.Linear) else np.zeros(4, int)
    _, tape = layer.forward(x)
    with pytest.raises(TypeError, match="x must be"):
        layer("text")
    with pytest.raises(ValueError, match=r"dy must be \(4, 2\), got \(4, 3\)"):
        layer.backward(tape, np.zeros((4, 3), np.float32))
    with pytest.raises(TypeError, match="dy must be float32, got float64"):
        layer.backward(tape, np.zeros((4, 2)))
    with pytest.raises(TypeError, match="tape must be what forward"):
        layer.backward(None, np.zeros((4, 2), np.float32))
    other = copy.deepcopy(layer)
    with pytest.raises(ValueError, match="tape must come from this"):
        other.backward(tape, np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match="weight must be"):
        layer.load_params({name: np.zeros(1, np.float32) for name in layer.params})
    with pytest.raises(ValueError, match="at least 1, got 0"):
        type(layer)(0, 2)
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        type(layer)(2, 2, dtype=np.float16)


def test_linear_refuses_another_width_or_dtype() -> None:
    layer = fastrnn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., in_features=3\), got \(4, 2\)"):
        layer(np.zeros((4, 2), np.float32))
    with pytest.raises(TypeError, match="x must be float32, got float64"):
        layer(np.zeros((4, 3)))
    embedding = fastrnn.Embedding(3, 2)
    with pytest.raises(TypeError, match="x must be ints, got float64"):
        embedding(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="x must be an array, got list of unequal parts"):
        embedding([[1], [1, 2]])
    with pytest.raises(TypeError, match=r"x must have no mask of NumPy's, got numpy.*MaskedArray"):
        embedding(np.ma.masked_array([1, 2], [True, False]))


# ---------------------------------------------------------------------------- losses


@pytest.mark.parametrize("shape", [(4,), (3, 5), (0, 2), ()])
@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_equals_torch(
    dtype: np.dtype, shape: tuple[int, ...], masked: bool, rng: np.random.Generator
) -> None:
    logits = 5 * normal(rng, dtype, *shape, 7)
    targets = np.asarray(rng.integers(0, 7, shape))
    mask = np.asarray(rng.random(shape) < 0.6) if masked else np.ones(shape, bool)
    loss, dlogits = fastrnn.softmax_cross_entropy(logits, targets, mask if masked else None)

    tl = tensor(logits)
    theirs = torch.tensor(np.where(mask, targets, -100)).reshape(-1)
    if mask.any():
        expected = F.cross_entropy(tl.reshape(-1, 7), theirs)
        expected.backward()
        near = TOLERANCE[dtype.name]
        assert loss == pytest.approx(expected.item(), rel=near["rtol"])
        np.testing.assert_allclose(dlogits, tl.grad.numpy(), **near)
    else:
        assert loss == 0
        assert not dlogits.any()
    assert type(loss) is float
    assert dlogits.dtype == dtype
    assert dlogits.shape == logits.shape


def test_cross_entropy_without_a_place_that_counts_is_zero() -> None:
    logits = np.full((3, 4), np.nan)
    loss, dlogits = fastrnn.softmax_cross_entropy(logits, np.full(3, -1), np.zeros(3, bool))
    assert loss == 0.0
    np.testing.assert_array_equal(dlogits, np.zeros((3, 4)))


def test_cross_entropy_is_stable_and_lets_nan_and_inf_flow(dtype: np.dtype) -> None:
    big = 0.9 * np.finfo(dtype).max
    rows = [[big, 0], [-big, 0], [np.inf, 0], [-np.inf, 0], [-np.inf, -np.inf], [np.nan, 0]]
    for row in rows:
        for target in (0, 1):
            logits = np.array([row], dtype)
            loss, dlogits = fastrnn.softmax_cross_entropy(logits, np.array([target]))
            tl = tensor(logits)
            expected = F.cross_entropy(tl, torch.tensor([target]))
            expected.backward()
            np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
            np.testing.assert_allclose(dlogits, tl.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("rank", [None, 0, 1, 2, 3])
def test_mse_equals_torch(dtype: np.dtype, rank: int | None, rng: np.random.Generator) -> None:
    pred, target = normal(rng, dtype, 4, 3, 2), normal(rng, dtype, 4, 3, 2)
    mask = None if rank is None else np.asarray(rng.random((4, 3, 2)[:rank]) < 0.7)
    loss, dpred = fastrnn.mse(pred, target, mask)
    tp = tensor(pred)
    expected = ((tp - torch.tensor(target)) ** 2)[... if mask is None else torch.tensor(mask)]
    expected.mean().backward()
    near = TOLERANCE[dtype.name]
    assert loss == pytest.approx(expected.mean().item(), rel=near["rtol"])
    np.testing.assert_allclose(dpred, tp.grad.numpy(), **near)


def test_mse_of_nothing_is_zero_and_nan_flows() -> None:
    pred = np.array([[np.nan, 1.0]])
    assert fastrnn.mse(pred, pred, np.zeros((1, 2), bool))[0] == 0.0
    assert not fastrnn.mse(pred, pred, np.zeros((1, 2), bool))[1].any()
    loss, dpred = fastrnn.mse(pred, np.zeros((1, 2)))
    assert np.isnan(loss)
    np.testing.assert_array_equal(dpred, [[np.nan, 1]])
    assert fastrnn.mse(np.zeros((0, 3)), np.zeros((0, 3)))[0] == 0.0


def test_losses_leave_their_arguments_alone(rng: np.random.Generator) -> None:
    logits = normal(rng, np.dtype(float), 4, 3)
    targets, mask = np.array([0, 1, 2, 9]), np.array([True, True, True, False])
    for value in (logits, targets, mask):
        value.flags.writeable = False
    fastrnn.softmax_cross_entropy(logits, targets, mask)
    fastrnn.mse(logits, logits, mask)


def test_losses_refuse_what_does_not_fit() -> None:
    logits = np.zeros((4, 3))
    targets = np.zeros(4, int)
    loss = fastrnn.softmax_cross_entropy
    with pytest.raises(TypeError, match=r"logits must be .* of float32 or float64"):
        loss(np.zeros((4, 3), np.float16), targets)
    with pytest.raises(ValueError, match=r"logits must be \(\.\.\., C\), got \(4, 0\)"):
        loss(np.zeros((4, 0)), targets)
    with pytest.raises(TypeError, match="targets must be ints, got float64"):
        loss(logits, np.zeros(4))
    with pytest.raises(ValueError, match=r"targets must be \(4,\), got \(5,\)"):
        loss(logits, np.zeros(5, int))
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.2, got 3"):
        loss(logits, np.full(4, 3))
    with pytest.raises(TypeError, match="mask must be bool, got int64"):
        loss(logits, targets, np.ones(4, np.int64))
    with pytest.raises(ValueError, match=r"mask must be \(4,\), got \(4, 3\)"):
        loss(logits, targets, np.ones((4, 3), bool))
    with pytest.raises(ValueError, match="targets must be an array, got list of unequal parts"):
        loss(logits, [[1], [1, 2], 0, 0])
    with pytest.raises(ValueError, match="mask must be an array, got list of unequal parts"):
        loss(logits, targets, [[True], [True, False], True, True])
    with pytest.raises(TypeError, match="target must be float64, got float32"):
        fastrnn.mse(logits, logits.astype(np.float32))
    with pytest.raises(ValueError, match=r"target must be \(4, 3\), got \(3, 4\)"):
        fastrnn.mse(logits, logits.T)
    with pytest.raises(ValueError, match=r"mask must be \(4,\), got \(3,\)"):
        fastrnn.mse(logits, logits, np.ones(3, bool))


# -------------------------------------------------------------------------- clipping


def gradients(flat: np.ndarray, layer: Any = None) -> LayerGradients:
    params = Parameters({"weight": flat.shape}, flat.dtype)
    params.flat[:] = flat
    return LayerGradients(None, params, layer)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 30.0, 1e9, np.inf])
def test_clipping_equals_torch(dtype: np.dtype, max_norm: float, rng: np.random.Generator) -> None:
    parts = [normal(rng, dtype, 20_000), normal(rng, dtype, 7)]
    theirs = [torch.nn.Parameter(torch.tensor(part)) for part in parts]
    for p, part in zip(theirs, parts, strict=True):
        p.grad = torch.tensor(part)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm).item()
    ours = [gradients(part) for part in parts]
    assert fastrnn.clip_grad_norm(ours, max_norm) == pytest.approx(expected, rel=1e-6)
    for grads, p in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(grads.params["weight"], p.grad.numpy(), **TOLERANCE[dtype.name])


def test_the_norm_is_accumulated_in_float64() -> None:
    ones = np.full(1 << 20, 0.1, np.float32)
    exact = np.sqrt(2.0**20) * float(np.float32(0.1))
    assert fastrnn.clip_grad_norm(gradients(ones), np.inf) == pytest.approx(exact, rel=1e-14)


def test_a_norm_that_is_not_finite_shows(dtype: np.dtype) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        for limit in (0.0, 1.0, np.inf):
            grads = [gradients(np.array([1.0, bad, 2, 3], dtype)), gradients(np.ones(2, dtype))]
            norm = fastrnn.clip_grad_norm(grads, limit)
            assert not np.isfinite(norm)
            assert all(np.isnan(each.flat).all() for each in grads)


@pytest.mark.parametrize("size", [1e200, 1e308, 1e-200, 5e-324])
def test_a_norm_whose_squares_are_no_floats(size: float) -> None:
    """As BLAS's nrm2: scaled before it is squared."""
    many = np.array([3, 4, 0, 0]) * (size / 5 if size > 1 else size)
    grads = [gradients(many[:1]), gradients(many[1:])]
    expected = np.hypot(many[0], many[1])
    limit = min(1.0, expected / 4)
    assert fastrnn.clip_grad_norm(grads, limit) == pytest.approx(expected, rel=1e-15)
    got = np.concatenate([each.flat for each in grads])
    factor = min(1.0, limit / (expected + 1e-6))
    np.testing.assert_allclose(got, many / expected * factor * expected, rtol=1e-14)


@pytest.mark.parametrize("limit", [1e-6, 1e-30])
def test_a_factor_below_the_floats(limit: float) -> None:
    """It must not lose its digits, for what it makes has them."""
    grads = gradients(np.full(4, 1e38, np.float32))
    fastrnn.clip_grad_norm(grads, limit)
    np.testing.assert_allclose(grads.flat, np.full(4, limit / 2), rtol=1e-6)


@pytest.mark.parametrize("rows", [10**5, 10**6])
def test_sums_over_many_rows(dtype: np.dtype, rows: int) -> None:
    """Of one sign, and larger by far than their terms."""
    limit = {"float32": 3e-6, "float64": 3e-14}[dtype.name]
    x, dy = np.full((rows, 2), 0.7, dtype), np.full((rows, 3), 0.1, dtype)
    linear = fastrnn.Linear(2, 3, dtype=dtype, rng=0)
    grads = linear.backward(linear.forward(x)[1], dy).params
    one = float(dy[0, 0]) * rows
    np.testing.assert_allclose(grads["bias"], one, rtol=limit)
    np.testing.assert_allclose(grads["weight"], one * float(x[0, 0]), rtol=limit)
    table = fastrnn.Embedding(4, 3, dtype=dtype, rng=0)
    index = np.full(rows, 2)
    index[: rows // 3] = 1
    got = table.backward(table.forward(index)[1], dy).params["weight"]
    counts = np.bincount(index, minlength=4)[:, None]
    np.testing.assert_allclose(got, np.tile(counts * float(dy[0, 0]), 3), rtol=limit)


@pytest.mark.parametrize("order", ["C", "F"])
def test_losses_over_many_places(dtype: np.dtype, order: str) -> None:
    limit = {"float32": 1e-6, "float64": 1e-14}[dtype.name]
    for shape in ((10**6, 3), (3, 10**6)):
        logits = np.asarray(np.full(shape, 0.1, dtype), order=order)
        loss, dlogits = fastrnn.softmax_cross_entropy(logits, np.zeros(shape[0], int))
        assert loss == pytest.approx(np.log(shape[1]), rel=limit)
        np.testing.assert_allclose(dlogits[:, 1] * shape[0], 1 / shape[1], rtol=limit)
    pred = np.full(10**7, 0.1, dtype)
    loss, _ = fastrnn.mse(pred, np.zeros_like(pred))
    assert loss == pytest.approx(float(pred[0]) ** 2, rel=limit)


def test_squares_beyond_float32() -> None:
    loss, dpred = fastrnn.mse(np.full(3, 1e30, np.float32), np.zeros(3, np.float32))
    assert loss == pytest.approx(1e60, rel=1e-6)
    np.testing.assert_allclose(dpred, 2e30 / 3, rtol=1e-6)


def test_clipping_refuses_what_is_no_gradient() -> None:
    for wrong in (np.zeros(3), None, [1.0]):
        with pytest.raises(TypeError, match="grads must be what backward"):
            fastrnn.clip_grad_norm(wrong, 1.0)
    for limit, error in ((-1.0, ValueError), (np.nan, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="max_norm must be"):
            fastrnn.clip_grad_norm(gradients(np.zeros(3)), limit)


# ------------------------------------------------------------------------ optimisers


OPTIMISERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"betas": (0.0, 0.0)}),
]


@pytest.mark.parametrize(("name", "settings"), OPTIMISERS)
def test_optimisers_equal_torch(
    name: str, settings: dict[str, Any], dtype: np.dtype, rng: np.random.Generator
) -> None:
    # Two layers, of which one is longer than a block of the update.
    layers = [
        fastrnn.Linear(100, 101, dtype=dtype, rng=0),
        fastrnn.Embedding(3, 2, dtype=dtype, rng=0),
    ]
    theirs = [torch.nn.Parameter(torch.tensor(layer.flat_params)) for layer in layers]
    ours = getattr(fastrnn, name)(layers, **settings)
    reference = getattr(torch.optim, name)(theirs, **({"lr": 1e-3} | settings))
    for step in range(12):
        if step == 6:
            ours.lr /= 3
            reference.param_groups[0]["lr"] /= 3
        parts = [normal(rng, dtype, layer.num_params) for layer in layers]
        for p, part in zip(theirs, parts, strict=True):
            p.grad = torch.tensor(part)
        reference.step()
        found = [gradients(*pair) for pair in zip(parts, layers, strict=True)]
        ours.step(found[::-1] if step % 2 else found)
    near = {"float32": {"atol": 1e-6, "rtol": 1e-6}, "float64": {"atol": 1e-12, "rtol": 1e-12}}
    for layer, p in zip(layers, theirs, strict=True):
        np.testing.assert_allclose(layer.flat_params, p.detach().numpy(), **near[dtype.name])


@pytest.mark.parametrize(("name", "settings"), OPTIMISERS)
def test_optimisers_go_on_where_they_were(
    name: str, settings: dict[str, Any], dtype: np.dtype, rng: np.random.Generator
) -> None:
    settings = {"lr": 0.1} | settings
    one = fastrnn.Linear(4, 3, dtype=dtype, rng=0)
    optimiser = getattr(fastrnn, name)(one, **settings)
    parts = [gradients(normal(rng, dtype, 15), one) for _ in range(6)]
    for grads in parts[:3]:
        optimiser.step(grads)
    two = copy.deepcopy(one)
    resumed = getattr(fastrnn, name)(two, **settings)
    resumed.load_state_dict(optimiser.state_dict())
    for grads in parts[3:]:
        optimiser.step(grads)
        resumed.step(replace(grads, layer=two))
    np.testing.assert_array_equal(one.flat_params, two.flat_params)
    assert all(value.dtype in (dtype, np.int64) for value in resumed.state_dict().values())


def test_a_step_makes_no_array_of_the_parameters_size() -> None:
    layer = fastrnn.Linear(1000, 1000, rng=0)
    for optimiser in (fastrnn.Adam(layer, weight_decay=0.1), fastrnn.SGD(layer, 0.1, 0.9, True)):
        grads = gradients(np.ones(layer.num_params, np.float32), layer)
        tracemalloc.start()
        optimiser.step(grads)
        assert tracemalloc.get_traced_memory()[1] < layer.flat_params.nbytes / 20
        tracemalloc.stop()


def test_a_step_that_cannot_be_done_changes_nothing() -> None:
    layers = [fastrnn.Linear(3, 2, rng=0), fastrnn.Embedding(3, 2, rng=0)]
    optimiser = fastrnn.Adam(layers)
    before = [layer.flat_params.copy() for layer in layers]
    good = [gradients(np.ones(layer.num_params, np.float32), layer) for layer in layers]
    with pytest.raises(ValueError, match="grads must be those of 2 layers, got none of layer 1, a"):
        optimiser.step(good[0])
    with pytest.raises(ValueError, match="grads must be those of 2 layers, got none of layer 0, a"):
        optimiser.step([good[1], good[1]])
    with pytest.raises(ValueError, match="got none of layer 0"):
        optimiser.step([])
    with pytest.raises(ValueError, match=r"grads\[1\]\.flat must be \(6,\), got \(8,\)"):
        optimiser.step([good[0], replace(good[0], layer=layers[1])])
    with pytest.raises(TypeError, match=r"grads\[1\]\.flat must be float32, got float64"):
        optimiser.step([good[0], gradients(np.ones(6), layers[1])])
    foreign = gradients(np.ones(6, np.float32), fastrnn.Embedding(3, 2, rng=0))
    with pytest.raises(ValueError, match=r"grads\[2\] must be of a layer .* another Embedding"):
        optimiser.step([*good, foreign])
    with pytest.raises(ValueError, match=r"grads must be of a layer .* another Embedding"):
        optimiser.step(foreign)
    with pytest.raises(ValueError, match=r"grads\[1\] must know its layer.*set grads\[1\]\.layer"):
        optimiser.step([good[0], gradients(np.ones(6, np.float32))])
    with pytest.raises(TypeError, match=r"grads\[1\] must be what backward\(\) returned, got "):
        optimiser.step([good[0], SimpleNamespace(flat=np.ones(6, np.float32))])
    layers[1].freeze()
    with pytest.raises(ValueError, match="the parameters are frozen: call unfreeze"):
        optimiser.step(good)
    layers[1].unfreeze()
    for lr, error in ((-1.0, ValueError), (np.nan, ValueError), ("1", TypeError)):
        optimiser.lr = lr
        with pytest.raises(error, match="lr must be"):
            optimiser.step(good)
    for layer, flat in zip(layers, before, strict=True):
        np.testing.assert_array_equal(layer.flat_params, flat)
    assert optimiser.steps == 0
    optimiser.lr = 1e-3
    optimiser.step(good)
    state = optimiser.state_dict()
    with pytest.raises(ValueError, match="state must hold steps, got steps, mean"):
        fastrnn.SGD(layers, 0.1).load_state_dict(state)
    with pytest.raises(ValueError, match=r"mean\.0 must be \(6,\), got \(8,\)"):
        fastrnn.Adam(layers[::-1]).load_state_dict(state)


def test_gradients_find_their_layers_in_any_order(rng: np.random.Generator) -> None:
    """Layers of one size, which a position could not tell apart: what each takes is its own."""
    names = ("a", "b", "c")
    kinds: list[Any] = [fastrnn.LSTM, fastrnn.LSTM, fastrnn.LSTMCell]
    layers = [kind(2, 3, rng=n) for n, kind in enumerate(kinds)]
    steps = [fastrnn.SGD([layer], 0.1, 0.9) for layer in copy.deepcopy(layers)]
    optimiser = fastrnn.SGD(layers, 0.1, 0.9)
    for order in ([2, 0, 1], [1, 2, 0]):
        grads = []
        for layer, alone in zip(layers, steps, strict=True):
            x = normal(rng, np.float32, 1, 2)
            *_, tape = layer.forward(x)
            grads.append(layer.backward(tape, *[_ones(part) for part in _out(layer, x)]))
            assert grads[-1].layer is layer
            (other,) = alone._layers
            alone.step(replace(grads[-1], layer=other))
        optimiser.step(dict(zip(names, [grads[n] for n in order], strict=False)))
    for layer, alone in zip(layers, steps, strict=True):
        np.testing.assert_array_equal(layer.flat_params, alone._layers[0].flat_params)


def _out(layer: Any, x: np.ndarray) -> list[Any]:
    """What `backward` takes a gradient of: y, or a cell's state."""
    *outputs, _ = layer.forward(x)
    return outputs[:1]


def _ones(value: Any) -> Any:
    return tuple(map(_ones, value)) if isinstance(value, tuple) else np.ones_like(value)


@pytest.mark.parametrize("times", [2, 3])
def test_gradients_of_a_layer_used_several_times_are_summed(
    times: int, rng: np.random.Generator
) -> None:
    layers = [fastrnn.Linear(3, 2, rng=0), fastrnn.Embedding(3, 2, rng=0)]
    summed = copy.deepcopy(layers)
    parts = [[normal(rng, np.float32, layer.num_params) for _ in range(times)] for layer in layers]
    grads = [gradients(part, layers[n]) for n, many in enumerate(parts) for part in many]
    kept = [each.flat.copy() for each in grads]
    fastrnn.SGD(layers, 0.1).step([grads[n] for n in rng.permutation(len(grads))])
    for each, before in zip(grads, kept, strict=True):
        np.testing.assert_array_equal(each.flat, before)
    fastrnn.SGD(summed, 0.1).step(
        [gradients(np.sum(many, axis=0), layer) for many, layer in zip(parts, summed, strict=True)]
    )
    for layer, other in zip(layers, summed, strict=True):
        np.testing.assert_allclose(layer.flat_params, other.flat_params, rtol=1e-6)


def test_copies_of_gradients_know_their_layer_and_pickles_do_not() -> None:
    layer = fastrnn.GRU(2, 3, rng=0)
    y, _, tape = layer.forward(np.ones((2, 1, 2), np.float32))
    grads = layer.backward(tape, y)
    assert grads.layer is layer
    for copied in (copy.copy(grads), copy.deepcopy(grads)):
        assert copied.layer is layer
        np.testing.assert_array_equal(copied.flat, grads.flat)
        np.testing.assert_array_equal(copied.state, grads.state)
    assert copy.copy(grads).flat is grads.flat
    assert not np.shares_memory(copy.deepcopy(grads).flat, grads.flat)
    sent = pickle.loads(pickle.dumps(grads))
    assert sent.layer is None
    with pytest.raises(ValueError, match=r"set grads\.layer"):
        fastrnn.SGD(layer, 0.1).step(sent)
    sent.layer = layer
    fastrnn.SGD(layer, 0.1).step(sent)
    assert "layer" not in repr(grads)


def test_optimisers_refuse_wrong_arguments() -> None:
    layer = fastrnn.Linear(3, 2)
    for arguments, error, text in [
        ({"layers": []}, ValueError, "layers must hold a layer"),
        ({"layers": [np.zeros(3)]}, TypeError, "layers must be layers, got numpy.ndarray"),
        ({"layers": [layer, layer]}, ValueError, "got one twice"),
        ({"lr": -1}, ValueError, "lr must be at least 0, got -1"),
        ({"lr": "1"}, TypeError, "lr must be a number, got str"),
        ({"lr": 10**400}, ValueError, "lr must be a number that a float can hold, got 1000"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        ({"betas": 0.9}, TypeError, "betas must be a pair"),
    ]:
        with pytest.raises(error, match=text):
            fastrnn.Adam(**({"layers": layer} | arguments))
    with pytest.raises(ValueError, match="momentum must be above 0 with nesterov"):
        fastrnn.SGD(layer, 0.1, nesterov=True)
