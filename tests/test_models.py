"""Model and Parameter: what is found under which name, moved, frozen, joined."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from translator import Translator

import fastrnn


class Inner(fastrnn.Model):
    def __init__(self, rng: int) -> None:
        self.out = fastrnn.Linear(4, 2, rng=rng)


class Outer(fastrnn.Model):
    def __init__(self) -> None:
        self.size = 3
        self.enc = fastrnn.LSTM(3, 4, rng=0)
        self.inner = Inner(1)
        self.heads = {
            "a": fastrnn.Linear(4, 1, rng=2),
            "b": [Inner(3), fastrnn.Linear(1, 1, rng=4)],
        }
        self.tied = self.enc
        self.also = (self.inner.out, self.heads["a"])
        self.scale = fastrnn.Parameter(np.ones(2, np.float32))
        self.parent = [self]


NAMES = [
    *(f"enc.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    *(f"inner.out.{name}" for name in ("weight", "bias")),
    *(f"heads.a.{name}" for name in ("weight", "bias")),
    *(f"heads.b.0.out.{name}" for name in ("weight", "bias")),
    *(f"heads.b.1.{name}" for name in ("weight", "bias")),
    "scale",
]


def test_names_are_torchs_and_a_layer_is_there_once() -> None:
    model = Outer()
    assert list(model.params) == NAMES
    assert model.num_params == sum(value.size for value in model.params.values())
    assert model.params["heads.b.0.out.bias"] is model.heads["b"][0].out.params["bias"]  # type: ignore[index]
    assert model.dtype == np.float32
    assert "heads.b.1: Linear(in_features=1" in repr(model)
    assert "scale: (2,)" in repr(model.params)


def test_one_vector_without_copies() -> None:
    model = Outer()
    before = {name: value.copy() for name, value in model.params.items()}
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    y = model.enc(x)[0]
    flat = model.flat_params
    assert model.flat is flat
    assert flat.flags.c_contiguous
    start = 0
    for name, value in model.params.items():
        assert np.array_equal(value, before[name])
        assert np.shares_memory(value, flat)
        assert np.array_equal(flat[start : start + value.size], value.reshape(-1))
        start += value.size
    assert start == flat.size == model.num_params
    assert np.array_equal(model.enc(x)[0], y)
    flat *= 2
    assert np.array_equal(model.enc.params["bias_ih_l0"], 2 * before["enc.bias_ih_l0"])
    assert not np.array_equal(model.enc(x)[0], y)
    model.flat_params -= flat / 2
    assert model.flat_params is flat
    assert np.array_equal(model.enc(x)[0], y)
    model.flat_params = np.zeros_like(flat)
    assert not model.enc.flat_params.any()
    with pytest.raises(ValueError, match="flat_params must be"):
        model.flat_params = flat[1:]
    # a layer more: another vector
    model.more = fastrnn.Linear(2, 2, rng=0)
    assert model.flat_params.size == flat.size + 6
    assert np.shares_memory(model.flat_params, model.enc.flat_params)


def test_training_on_the_vector_is_training_layer_by_layer() -> None:
    losses = []
    for joined in (False, True):
        model = Translator(dtype=np.float32)
        adam = fastrnn.Adam(model, 0.01)
        if joined:
            model.flat_params  # noqa: B018
        for seed in range(5):
            g = fastrnn.Graph(seed)
            loss = model.loss(g)
            grads = g.backward(loss)
            fastrnn.clip_grad_norm(grads, 0.5)
            adam.step(grads)
        losses.append(float(loss))
    assert losses[0] == losses[1]


def test_copies_stand_alone() -> None:
    model = Outer()
    model.flat_params  # noqa: B018
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(other.params) == NAMES
        assert other.tied is other.enc
        assert np.array_equal(other.flat_params, model.flat_params)
        assert not np.shares_memory(other.flat_params, model.flat_params)


def test_freezing() -> None:
    model = Outer()
    assert not model.frozen
    model.freeze()
    assert model.frozen
    for value in (*model.params.values(), model.flat_params):
        with pytest.raises(ValueError, match="read-only"):
            value[...] = 0
    with pytest.raises(ValueError, match="the parameters are frozen"):
        model.flat_params = np.zeros(model.num_params, np.float32)
    with pytest.raises(ValueError, match="the parameters are frozen"):
        model.load_params(dict(model.params))
    model.unfreeze()
    model.flat_params[...] = 1
    assert model.enc.params["bias_ih_l0"][0] == 1
    model.freeze("bfloat16")
    assert model.enc.weight_dtype == "bfloat16"
    assert model.to("cpu").frozen


def test_parameters_by_name() -> None:
    model, other = Outer(), Outer()
    other.flat_params = np.arange(other.num_params, dtype=np.float32)
    model.load_params(other.params)
    assert np.array_equal(model.flat_params, other.flat_params)
    model.load_params({name: value * 2 for name, value in model.params.items()})
    assert np.array_equal(model.flat_params, 2 * other.flat_params)
    model.params["scale"] -= 1
    assert np.array_equal(model.scale.value, 2 * other.scale.value - 1)
    given = dict(other.params)
    kept = model.flat_params.copy()
    for change, match in (
        ({"scale": np.zeros(3, np.float32)}, r"scale must be \(2,\), got \(3,\)"),
        ({"more": np.zeros(3, np.float32)}, "unknown parameters: more; known: enc.weight_ih_l0"),
    ):
        with pytest.raises(ValueError, match=match):
            model.load_params(given | change)
    with pytest.raises(ValueError, match=r"parameters are missing: heads\.a\.bias"):
        model.load_params({k: v for k, v in given.items() if k != "heads.a.bias"})
    with pytest.raises(TypeError, match="scale must be float32"):
        model.load_params(given | {"scale": np.zeros(2)})
    with pytest.raises(TypeError, match="parameters must be a mapping"):
        model.load_params(kept)  # type: ignore[arg-type]
    assert np.array_equal(model.flat_params, kept)


def test_what_does_not_go_together() -> None:
    model = Outer()
    model.other = fastrnn.Linear(2, 2, dtype=np.float64)
    for look in (lambda: model.dtype, lambda: model.flat_params):
        with pytest.raises(TypeError, match=r"one dtype, got enc float32, .*, other float64"):
            look()
    with pytest.raises(TypeError, match="one dtype, got no layer"):
        fastrnn.Model().flat_params  # noqa: B018
    model = Outer()
    model.heads = {"a.b": fastrnn.Linear(1, 1), "a": {"b": fastrnn.Linear(1, 1)}}
    with pytest.raises(ValueError, match=r"two layers of the model are called heads\.a\.b"):
        model.named_layers()


def test_parameter() -> None:
    value = np.arange(6.0).reshape(2, 3)
    parameter = fastrnn.Parameter(value)
    value[...] = 0
    assert parameter.value[1, 2] == 5
    assert parameter.dtype == np.float64
    y, tape = parameter.forward()
    parameter.value[...] = 7
    assert y[1, 2] == 5
    grads = parameter.backward(tape, np.ones((2, 3)))
    assert np.array_equal(grads.flat, np.ones(6))
    assert np.array_equal(fastrnn.Parameter.from_params({"value": y}).value, y.astype(np.float32))
    zeros = fastrnn.Parameter(shape=[2, 0], dtype="float64")
    assert zeros().shape == (2, 0)
    with pytest.raises(ValueError, match=r"dy must be \(2, 3\), got \(3,\)"):
        parameter.backward(tape, np.ones(3))
    with pytest.raises(ValueError, match="tape must come from this Parameter's"):
        fastrnn.Parameter(y).backward(tape, y)
    with pytest.raises(TypeError, match="tape must be what forward"):
        parameter.backward(y, y)
    for wrong, match in (
        ({}, "one of value and shape must be given"),
        ({"value": y, "shape": (2, 3)}, "one of value and shape must be given"),
        ({"value": [1.0]}, "value must be a numpy.ndarray of float32 or float64, got list"),
        ({"value": y, "dtype": np.float32}, "value must be float32, got float64"),
        ({"shape": 3}, "shape must be a tuple of ints, got int"),
    ):
        arguments: Any = wrong
        with pytest.raises(TypeError, match=match):
            fastrnn.Parameter(**arguments)
