"""What the compiled engine does around recurrent layers in a training step: products of matrices,
cross entropy, Adam and norms, against float64 and against NumPy's loops.

tests/native/training_test.cpp has every instruction set's bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grid import BACKENDS
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn.train import engine, products

Array = np.ndarray[Any, np.dtype[Any]]

# the other backends have none of it, and tests/test_train.py has what they do
pytestmark = pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
DTYPES = ("float32", "float64")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRNN_BACKEND", "cpu")


def normal(dtype: str, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def close(got: Array, a: Array, b: Array, add: Any = 0) -> None:
    """A product is within a few roundings of a chain's sum."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    eps = np.finfo(got.dtype).eps
    within = 8 * eps * (abs(a) @ abs(b) + np.abs(add)) + np.finfo(got.dtype).tiny
    assert (abs(got - (a @ b + add)) <= within).all()


sizes = st.integers(1, 70)


@given(n=st.integers(0, 70), M=sizes, K=sizes, dtype=st.sampled_from(DTYPES), bias=st.booleans())
def test_products_of_any_sizes(n: int, M: int, K: int, dtype: str, bias: bool) -> None:
    x, weight, dy = normal(dtype, n, K), normal(dtype, M, K), normal(dtype, n, M)
    b = normal(dtype, M) if bias else None
    close(products.affine(x, weight, b), x, weight.T, 0 if b is None else b)
    close(products.back(dy, weight), dy, weight)
    out, row_sum = np.full((M, K), 7, dtype), np.full(M, 7, dtype)
    products.sum_products(np, dy, x, out, row_sum)
    close(out, dy.T, x)
    close(row_sum, dy.T, np.ones(n))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [191, 193, 700])  # steps of a sum over rows have 192
def test_bits_do_not_depend_on_threads_or_on_other_rows(dtype: str, n: int) -> None:
    x, weight, dy = normal(dtype, n, 300), normal(dtype, 130, 300), normal(dtype, n, 130)
    bias, results = normal(dtype, 130), []
    for threads in (1, 2, 5):
        with fastrnn.num_threads(threads):
            out = np.empty_like(weight)
            products.sum_products(np, dy, x, out)
            results.append((products.affine(x, weight, bias), products.back(dy, weight), out))
    for got in results[1:]:
        for a, b in zip(results[0], got, strict=True):
            assert a.tobytes() == b.tobytes()
    rows = products.affine(x[5:8], weight, bias), products.back(dy[5:8], weight)
    assert rows[0].tobytes() == results[0][0][5:8].tobytes()
    assert rows[1].tobytes() == results[0][1][5:8].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_memory_order(dtype: str) -> None:
    weight, x = normal(dtype, 20, 30), normal(dtype, 40, 60)
    unaligned = np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(dtype).reshape(x.shape)
    for odd in (
        x[::-1, :30],
        x[::2, 30:],
        x[:, ::2],
        np.asfortranarray(x)[:, 10:40],
        unaligned[:, :30],
    ):
        close(products.affine(odd, weight, None), odd, weight.T)
        close(products.back(odd[:, :20], weight), odd[:, :20], weight)
        out = np.empty((30, 30), dtype)
        products.sum_products(np, odd, odd, out)
        close(out, odd.T, odd)


def test_sums_over_many_rows() -> None:
    a, b = np.full((100_000, 3), 0.1, np.float32), np.ones((100_000, 5), np.float32)
    out, row_sum = np.empty((3, 5), np.float32), np.empty(3, np.float32)
    products.sum_products(np, a, b, out, row_sum)
    exact = 100_000 * float(np.float32(0.1))
    rtol = (192 + 8192 / 192) * 2.0**-24  # half an ULP a sum: of a chunk, then of chunks
    np.testing.assert_allclose(out, exact, rtol=rtol)
    np.testing.assert_allclose(row_sum, exact, rtol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 70, 5000])
def test_cross_entropy(
    dtype: str, smoothing: float, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 10 * normal(dtype, 3, 11, classes)
    logits[0, 0, :-1] = -np.inf
    logits[1, 1] += 1000
    rng = np.random.default_rng(0)
    targets, mask = rng.integers(0, classes, (3, 11)), rng.random((3, 11)) < 0.7
    targets[0, 0] = classes - 1
    if smoothing:
        logits[0, 0] = 0  # the mean of -inf is -inf
    found = []
    for threads in (1, 2):
        with fastrnn.num_threads(threads):
            found.append(
                fastrnn.softmax_cross_entropy(logits, targets, mask, label_smoothing=smoothing)
            )
    assert found[0][0] == found[1][0]
    assert found[0][1].tobytes() == found[1][1].tobytes()
    monkeypatch.setenv("FASTRNN_BACKEND", "numpy")
    loss, _ = fastrnn.softmax_cross_entropy(
        logits.astype(np.float64), targets, mask, label_smoothing=smoothing
    )
    eps = float(np.finfo(dtype).eps)
    assert found[0][0] == pytest.approx(loss, rel=50 * eps, abs=50 * eps)
    x = logits.max(axis=-1, keepdims=True) - logits.astype(np.longdouble)
    e = np.exp(-x)
    p = e / e.sum(axis=-1, keepdims=True)
    q = smoothing / classes + (1 - smoothing) * np.eye(classes)[targets]
    dlogits = (p - q) * mask[..., None] / mask.sum()
    # Of p: half an ULP of x, which e^-x has for its relative error; half an ULP a sum, in sixteen
    # lanes of chains of up to 128; four ULP for exp and the factors. One ULP of q and the result.
    ulps = np.where(np.isfinite(x), x, 0) / 2 + min(classes / 32, 64) + 4
    bound = eps * ((ulps * p + q) / mask.sum() + abs(dlogits)) + np.finfo(dtype).tiny
    assert (abs(found[0][1] - dlogits) <= bound).all()
    assert (found[0][1][~mask] == 0).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_not_finite_make_nan(wrong: float) -> None:
    logits = normal("float32", 4, 33)
    logits[2, 32] = wrong
    loss, dlogits = fastrnn.softmax_cross_entropy(logits, [0, 1, 2, 3])
    assert np.isnan(loss)
    assert np.isnan(dlogits[2]).all()
    assert np.isfinite(dlogits[[0, 1, 3]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_has_the_bits_of_numpy(
    dtype: str, weight_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = []
    for backend, threads in (("numpy", 1), ("cpu", 1), ("cpu", 2)):
        monkeypatch.setenv("FASTRNN_BACKEND", backend)
        layer = fastrnn.Linear(61, 700, dtype=dtype, rng=0)
        optimizer = fastrnn.Adam(layer, 0.01, weight_decay=weight_decay)
        x = normal(dtype, 2, 61)
        y, tape = layer.forward(x)
        grads = layer.backward(tape, np.ones_like(y))
        for step in range(3):
            grads.flat[:] = normal(dtype, grads.flat.size, seed=step)
            with fastrnn.num_threads(threads):
                optimizer.step(grads)
        layers.append((layer.flat_params, *optimizer.state_dict().values()))
    for other in layers[1:]:
        for a, b in zip(layers[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_norm_is_the_same_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastrnn.Linear(300, 301, rng=0)
    y, tape = layer.forward(normal("float32", 3, 300))
    grads = layer.backward(tape, y)
    norms = []
    for threads in (1, 2, 5):
        with fastrnn.num_threads(threads):
            norms.append(fastrnn.clip_grad_norm(grads, np.inf))
    assert len(set(norms)) == 1
    assert norms[0] == pytest.approx(np.linalg.norm(grads.flat.astype(np.float64)), rel=1e-12)


def test_another_backend_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((2, 3), np.float32)
    assert engine.function("dense", x) is not None
    monkeypatch.setenv("FASTRNN_BACKEND", "numpy")
    assert engine.function("dense", x) is None
    monkeypatch.setenv("FASTRNN_BACKEND", "cuda")  # what is on the CPU stays there
    assert engine.function("dense", x) is not None
