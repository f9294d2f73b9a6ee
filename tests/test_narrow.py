"""Layers frozen with weights of bfloat16 or int8."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from grid import BACKENDS

import fastrnn
from fastrnn.quantize import rounded
from fastrnn.spec import Weights

Array = np.ndarray[Any, np.dtype[Any]]

NARROW = ("bfloat16", "int8")
RNG = np.random.default_rng(5)

LAYERS: dict[str, Any] = {
    "rnn": lambda **how: fastrnn.RNN(5, 37, rng=0, **how),
    "gru": lambda **how: fastrnn.GRU(5, 33, 2, rng=0, **how),
    "gru_reset_before": lambda **how: fastrnn.GRU(5, 19, reset_after=False, rng=0, **how),
    "lstm": lambda **how: fastrnn.LSTM(5, 40, bidirectional=True, rng=0, **how),
    "lstm_peephole": lambda **how: fastrnn.LSTM(5, 16, peephole=True, rng=0, **how),
    "lstm_projected": lambda **how: fastrnn.LSTM(5, 70, proj_size=21, rng=0, **how),
}


def noise(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def matrix(name: str) -> bool:
    return name.startswith("weight_") and "peephole" not in name


def round_int8(w: Array) -> Array:
    """Row by row, as the docstring of freeze says it."""
    out = np.empty_like(w)
    for row, into in zip(w, out, strict=True):
        scale = np.float32(np.abs(row).max()) / np.float32(127)
        into[:] = [np.float32(np.rint(v / scale)) * scale for v in row] if scale else row
    return out


def round_bfloat16(w: Array) -> Array:
    """Number by number, in Python's floats, whose round() takes ties to even."""

    def one(x: float) -> float:
        if not math.isfinite(x):
            return x
        quantum = math.ldexp(1, max(math.frexp(x)[1], -125) - 8)
        return math.copysign(round(x / quantum) * quantum, x)

    with np.errstate(over="ignore"):  # the largest float32 becomes an infinity
        return np.array([one(float(x)) for x in w.ravel()]).astype(np.float32).reshape(w.shape)


# Numba compiles for seconds a cell, and knows no narrow weights: it runs on what was rounded.
WITH_OPTIONS: dict[str, Any] = {
    "rnn": lambda **how: fastrnn.RNN(5, 37, nonlinearity="sigmoid", clip=0.9, rng=0, **how),
    "gru": lambda **how: fastrnn.GRU(5, 33, gate_activation="hard_sigmoid", rng=0, **how),
    "lstm": lambda **how: fastrnn.LSTM(5, 40, coupled=True, activation="relu", rng=0, **how),
}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kind", LAYERS)
def test_as_if_the_parameters_were_rounded(backend: str, kind: str, dtype: str) -> None:
    compare_with_rounded(LAYERS[kind], backend, dtype)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numba"])
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kind", WITH_OPTIONS)
def test_cells_with_options(backend: str, kind: str, dtype: str) -> None:
    compare_with_rounded(WITH_OPTIONS[kind], backend, dtype)


def compare_with_rounded(make: Any, backend: str, dtype: str) -> None:
    round_to = round_bfloat16 if dtype == "bfloat16" else round_int8
    layer, plain = make(backend=backend), make(backend="numpy", dtype="float64")
    plain.load_params(
        {
            name: (round_to(value) if matrix(name) else value).astype(np.float64)
            for name, value in layer.params.items()
        }
    )
    layer.freeze(dtype)
    assert (layer.frozen, layer.weight_dtype) == (True, dtype)
    for B in (1, 2, 3, 7, 8, 20):
        x = noise(6, B, 5)
        lengths = RNG.integers(0, 7, B)
        y, _ = layer(x, lengths=lengths)
        want, _ = plain(x.astype(np.float64), lengths=lengths)
        np.testing.assert_allclose(y, want, rtol=1e-4, atol=4e-6)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_same_bits_for_any_batch_and_threads(kind: str, dtype: str) -> None:
    layer = LAYERS[kind](backend="cpu")
    layer.freeze(dtype)
    x = noise(40, 21, 5)
    with fastrnn.num_threads(1):
        y, _ = layer(x)
    for rows in (slice(0, 1), slice(3, 5), slice(2, 9), slice(20, 21)):
        for threads in (1, 2):
            with fastrnn.num_threads(threads):
                np.testing.assert_array_equal(layer(x[:, rows])[0], y[:, rows])


@pytest.mark.parametrize("dtype", NARROW)
def test_steps_equal_the_block(backend: str, dtype: str) -> None:
    layer = fastrnn.GRU(5, 33, 2, rng=0, backend=backend)
    layer.freeze(dtype)
    x = noise(9, 1, 5)
    step = layer.stepper()
    y = np.stack([step(x_t).copy() for x_t in x])
    np.testing.assert_allclose(y, layer(x)[0], rtol=0, atol=1e-6)


def test_bfloat16_of_hard_numbers() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x7F7FFFFF, 1, 0x80000000], np.uint32)
    w = np.concatenate([bits.view(np.float32), np.array([np.inf, -np.inf, np.nan], np.float32)])
    got = rounded(Weights(w[None], w[None]), "bfloat16").ih[0]
    np.testing.assert_array_equal(got, round_bfloat16(w))
    np.testing.assert_array_equal(np.signbit(got[:-1]), np.signbit(w[:-1]))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", NARROW)
def test_numbers_that_are_not_finite_reach_the_output(backend: str, dtype: str, bad: float) -> None:
    layer = fastrnn.RNN(3, 4, rng=0, backend=backend)
    layer.params["weight_ih_l0"][2, 1] = bad
    layer.freeze(dtype)
    for B in (1, 9):
        with np.errstate(invalid="ignore"):
            y, _ = layer(np.ones((1, B, 3), np.float32))
        if dtype == "int8" or np.isnan(bad):
            assert np.isnan(y[0, :, 2]).all()
        else:
            assert (y[0, :, 2] == np.sign(bad)).all()
        assert np.isfinite(y[0, :, [0, 1, 3]]).all()


def test_a_row_of_zeros() -> None:
    layer = fastrnn.RNN(3, 4, rng=0)
    layer.params["weight_ih_l0"][2] = 0
    layer.freeze("int8")
    assert np.isfinite(layer(noise(2, 1, 3))[0]).all()


def test_rows_of_numbers_below_the_normal_ones(backend: str) -> None:
    layer = fastrnn.RNN(3, 4, rng=0, backend=backend)
    tiny = np.float32(1e-45) * np.array([190, -150, 7], np.float32)
    layer.params["weight_ih_l0"][2] = tiny
    assert np.abs(rounded(layer._weights[0], "int8").ih[2]).max() == np.float32(1e-45) * 127
    want = layer(noise(2, 1, 3) * 0)[0]
    layer.freeze("int8")
    np.testing.assert_allclose(layer(noise(2, 1, 3) * 0)[0], want, atol=0.01)


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-37, 1.0, 3.4e38, np.finfo("f4").max])
@pytest.mark.parametrize("dtype", NARROW)
def test_the_callers_floating_point_errors_do_not_matter(
    backend: str, dtype: str, size: float
) -> None:
    """Weights at both ends of float32, where a program makes every floating-point error raise."""
    layer = fastrnn.RNN(3, 4, nonlinearity="relu", rng=0, backend=backend)
    rows = np.array([[1, -0.5, 0.25], [-1, 1, 1], [0.01, 0.6, 1], [1, 0, 0]])
    layer.params["weight_ih_l0"][:] = rows * size
    x = np.eye(3, dtype=np.float32)[:, None] / np.float32(max(size, 1.0))  # products of ones
    with np.errstate(all="raise"):
        layer.freeze(dtype)
        narrow = rounded(layer._weights[0], dtype).ih
        if size < 1e38 or dtype == "int8":  # the largest float32 are not bfloat16's
            assert np.isfinite(narrow).all()
            y, _ = layer(x)
            layer.stepper()(x[0])
    if np.isfinite(narrow).all():
        least = 1e-45 if dtype == "int8" else 2.0**-133  # the smallest number there is
        np.testing.assert_allclose(narrow, rows * size, rtol=0, atol=max(size / 200, least))
        step = layer.stepper()
        assert np.isfinite(y).all()
        np.testing.assert_allclose([step(x_t, copy=True) for x_t in x], y, atol=1e-6)
        if size >= 1:
            plain = fastrnn.RNN(3, 4, nonlinearity="relu", dtype="f8", backend="numpy")
            plain.load_params({k: v.astype("f8") for k, v in layer.params.items()})
            np.testing.assert_allclose(y, plain(x.astype("f8"))[0], atol=0.02)


def test_freezing_again_takes_the_new_type(backend: str) -> None:
    layer = fastrnn.LSTM(5, 20, rng=0, backend=backend)
    x = noise(4, 1, 5)
    exact = layer(x)[0]
    layer.freeze("int8")
    assert not np.array_equal(layer(x)[0], exact)
    layer.freeze()
    np.testing.assert_array_equal(layer(x)[0], exact)
    layer.freeze("bfloat16")
    assert not np.array_equal(layer(x)[0], exact)
    layer.unfreeze()
    assert layer.weight_dtype == "float32"
    np.testing.assert_array_equal(layer(x)[0], exact)
    layer.forward(x)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies_keep_it(how: Any) -> None:
    layer = fastrnn.LSTM(5, 20, rng=0)
    layer.freeze("int8")
    other = how(layer)
    assert other.weight_dtype == "int8"
    x = noise(4, 1, 5)
    np.testing.assert_array_equal(other(x)[0], layer(x)[0])


def test_training_on_them_is_refused(backend: str) -> None:
    layer = fastrnn.LSTM(5, 20, backend=backend)
    layer.freeze("bfloat16")
    with pytest.raises(ValueError, match=r'weight_dtype="bfloat16".*unfreeze'):
        layer.forward(noise(4, 1, 5))
    layer.freeze()
    layer.forward(noise(4, 1, 5))


def test_what_is_no_type_for_weights() -> None:
    layer = fastrnn.LSTM(5, 20)
    for wrong in ("float16", "float64", "int4", ""):
        with pytest.raises(ValueError, match="weight_dtype must be"):
            layer.freeze(wrong)
    with pytest.raises(TypeError, match="weight_dtype"):
        layer.freeze(8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layers of float32"):
        fastrnn.LSTM(5, 20, dtype=np.float64).freeze("int8")
    assert not layer.frozen
    layer.freeze("float32")
    assert layer.weight_dtype == "float32"
