"""CTC against torch in float64 and against all paths one by one, on every backend."""

from __future__ import annotations

import doctest
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from grid import BACKENDS

import fastrnn
from fastrnn.sequences import ctc as ctc_module

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=BACKENDS)
def on(request: Any) -> Any:
    return request.param


def torchs(
    z: Any, targets: Any, steps: Any, labels: Any, blank: int, **how: Any
) -> tuple[Any, Any]:
    tz = torch.tensor(z, requires_grad=True)
    losses = torch.nn.functional.ctc_loss(
        torch.log_softmax(tz, -1),
        torch.tensor(targets),
        torch.tensor(steps),
        torch.tensor(labels),
        blank=blank,
        reduction="none",
        **how,
    )
    (losses.sum() / max(z.shape[1], 1)).backward()
    assert tz.grad is not None
    return losses.sum().item() / z.shape[1], tz.grad.numpy()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize(("T", "B", "C", "S"), [(7, 5, 4, 3), (1, 2, 2, 1), (40, 3, 9, 12)])
def test_it_is_torchs(on: str, T: int, B: int, C: int, S: int, scale: float) -> None:
    rng = np.random.default_rng([T, B])
    blank = C - 1 if scale == 1.0 else 0
    classes = np.delete(np.arange(C), blank)
    z = rng.standard_normal((T, B, C)) * scale
    targets = rng.choice(classes, (B, S))
    labels, steps = rng.integers(0, S + 1, B), rng.integers(0, T + 1, B)
    labels[0], steps[0] = 0, T
    expected, gradient = torchs(z, targets, steps, labels, blank, zero_infinity=True)
    loss, dz = fastrnn.ctc_loss(z, targets, steps, labels, blank, zero_infinity=True, backend=on)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(dz, gradient, rtol=1e-9, atol=1e-9)
    # past the lengths nothing is looked at
    z[steps.max() :], targets[labels.argmax(), labels.max() :] = np.nan, blank
    again, _ = fastrnn.ctc_loss(z, targets, steps, labels, blank, zero_infinity=True, backend=on)
    assert again == loss


def paths_of(target: tuple[int, ...], T: int, C: int) -> Any:
    for path in itertools.product(range(C), repeat=T):
        if tuple(k for k, _ in itertools.groupby(path) if k) == target:
            yield path


@pytest.mark.parametrize("target", [(), (1,), (1, 1), (1, 2), (2, 1, 2), (2, 2, 2)])
def test_it_is_the_sum_over_all_paths(on: str, target: tuple[int, ...]) -> None:
    T, C = 5, 3
    z = RNG.standard_normal((T, 1, C))
    p = np.exp(z[:, 0]) / np.exp(z[:, 0]).sum(-1, keepdims=True)
    total, on_path = 0.0, np.zeros((T, C))
    for path in paths_of(target, T, C):
        weight = p[np.arange(T), path].prod()
        total += weight
        on_path[np.arange(T), path] += weight
    loss, dz = fastrnn.ctc_loss(z, np.array([target], int).reshape(1, -1), backend=on)
    np.testing.assert_allclose(loss, -np.log(total), rtol=1e-9)
    np.testing.assert_allclose(dz[:, 0], p - on_path / total, rtol=1e-9, atol=1e-12)


def test_too_few_steps(on: str) -> None:
    # two like labels need a blank between them: three steps
    z, targets = RNG.standard_normal((2, 3, 4)), [[1, 1], [1, 2], [3, 3]]
    loss, dz = fastrnn.ctc_loss(z, targets, target_lengths=[2, 2, 1], backend=on)
    assert loss == np.inf
    assert np.isnan(dz[:, 0]).all()
    assert np.isfinite(dz[:, 1:]).all()
    expected, gradient = torchs(z, np.array(targets), [2] * 3, [2, 2, 1], 0, zero_infinity=True)
    loss, dz = fastrnn.ctc_loss(
        z, targets, target_lengths=[2, 2, 1], zero_infinity=True, backend=on
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(dz, gradient, atol=1e-12)
    assert not dz[:, 0].any()
    # no step at all: only the empty target
    loss, dz = fastrnn.ctc_loss(z, targets, [0, 0, 0], [0, 0, 0], backend=on)
    assert loss == 0
    assert not dz.any()
    assert fastrnn.ctc_loss(z, targets, [0, 2, 2], [1, 1, 1], backend=on)[0] == np.inf


def test_what_is_not_finite_and_empty(on: str) -> None:
    z, targets = RNG.standard_normal((4, 2, 3)), [[1, 2], [2, 1]]
    z[1, 0, 0] = np.nan
    loss, dz = fastrnn.ctc_loss(z, targets, backend=on)
    assert np.isnan(loss)
    assert np.isnan(dz[:, 0]).all()
    assert np.isfinite(dz[:, 1]).all()
    z[1, 0, 0] = -np.inf  # a probability of 0
    loss, dz = fastrnn.ctc_loss(z, targets, backend=on)
    z[1, 0, 0] = -1e4
    expected, gradient = torchs(z, np.array(targets), [4, 4], [2, 2], 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(dz, gradient, atol=1e-12)
    for shape in ((0, 2, 3), (4, 0, 3)):
        loss, dz = fastrnn.ctc_loss(np.zeros(shape), np.zeros((shape[1], 0), int), backend=on)
        if shape[0]:
            assert loss == 0
        assert dz.shape == shape


def test_float32_in_a_graph(on: str) -> None:
    z = RNG.standard_normal((30, 4, 6)).astype(np.float32)
    targets = RNG.integers(1, 6, (4, 5))
    double, gradient = fastrnn.ctc_loss(z.astype(np.float64), targets, backend=on)
    single, dz = fastrnn.ctc_loss(z, targets, backend=on)
    assert dz.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=1e-12)
    np.testing.assert_allclose(dz, gradient, atol=1e-7)
    g = fastrnn.Graph()
    node = g.input(z)
    loss = g.multiply(g.ctc(node, targets, [30, 20, 10, 12], [5, 3, 0, 1]), 2.0)
    g.backward(loss)
    by_hand, dz = fastrnn.ctc_loss(z, targets, [30, 20, 10, 12], [5, 3, 0, 1])
    assert float(loss) == 2 * by_hand
    assert np.array_equal(node.grad, 2 * dz)


def test_threads_change_no_bit(on: str) -> None:
    z = RNG.standard_normal((60, 16, 40))
    targets = RNG.integers(1, 40, (16, 20))
    found = []
    for threads in (1, 2, 3):
        with fastrnn.num_threads(threads):
            found.append(fastrnn.ctc_loss(z, targets, backend=on))
    assert len({loss for loss, _ in found}) == 1
    assert all(np.array_equal(found[0][1], dz) for _, dz in found)


# ---- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_search_finds_the_best_labels(seed: int) -> None:
    T, C = 5, 3
    z = np.random.default_rng(seed).standard_normal((T, 2, C)) * 1.5
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    lengths = [5, 3]
    labels, scores = fastrnn.ctc_decode(z, lengths, width=1000)
    for b, n in enumerate(lengths):
        weights: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(C), repeat=n):
            target = tuple(k for k, _ in itertools.groupby(path) if k)
            weights[target] = weights.get(target, 0.0) + p[np.arange(n), b, path].prod()
        best = max(weights, key=lambda target: weights[target])
        assert tuple(labels[b]) == best
        np.testing.assert_allclose(scores[b], np.log(weights[best]), rtol=1e-10)


def test_greedy() -> None:
    paths = np.array([[1, 1, 0, 1, 2, 2], [0, 3, 3, 3, 0, 0]]).T
    z = np.full((6, 2, 4), -3.0)
    np.put_along_axis(z, paths[..., None], 3.0, -1)
    assert fastrnn.ctc_decode(z)[0] == [[1, 1, 2], [3]]
    assert fastrnn.ctc_decode(z, [2, 1])[0] == [[1], []]
    assert fastrnn.ctc_decode(z, [2, 0], width=3)[0] == [[1], []]
    assert fastrnn.ctc_decode(z, blank=3)[0] == [[1, 0, 1, 2], [0, 0]]
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    np.testing.assert_allclose(fastrnn.ctc_decode(z)[1], log_p.max(-1).sum(0))
    assert fastrnn.ctc_decode(z[:0])[0] == [[], []]


def test_what_is_refused() -> None:
    z = np.zeros((4, 2, 3))
    for arguments, how, error, match in (
        ((z[0], [[1]]), {}, ValueError, r"logits must be \(T, B, C\), got \(2, 3\)"),
        (([[0.0]], [[1]]), {}, TypeError, "logits must be a numpy.ndarray"),
        ((z, [[1]]), {}, ValueError, r"targets must be \(B=2, S\), got \(1, 1\)"),
        ((z, [[1.5], [1]]), {}, TypeError, "targets must be ints, got float64"),
        ((z, [[1], [3]]), {}, ValueError, r"targets must be in 0\.\.2, got 3"),
        ((z, [[1], [0]]), {}, ValueError, "targets must not hold the blank, 0"),
        ((z, [[1], [2]], [4]), {}, ValueError, r"input_lengths must be \(B=2,\), got \(1,\)"),
        (
            (z, [[1], [2]], [4, 5]),
            {},
            ValueError,
            r"input_lengths must be in 0\.\.T=4, got 5 in row 1",
        ),
        (
            (z, [[1], [2]], None, [2, 1]),
            {},
            ValueError,
            r"target_lengths must be in 0\.\.S=1, got 2",
        ),
        ((z, [[1], [2]], [0.5, 1]), {}, TypeError, "input_lengths must be ints, got float64"),
        ((z, [[1], [2]]), {"blank": 3}, ValueError, r"blank must be in 0\.\.2, got 3"),
        ((z, [[1], [2]]), {"zero_infinity": 1}, TypeError, "zero_infinity must be a bool"),
        ((z, [[1], [2]]), {"backend": "cuda"}, ValueError, "backend must be one of"),
    ):
        given: Any = how
        with pytest.raises(error, match=match):
            fastrnn.ctc_loss(*arguments, **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        fastrnn.ctc_decode(z, width=0)
    with pytest.raises(ValueError, match=r"g\.ctc: targets must be in 0\.\.2, got 3"):
        fastrnn.Graph().ctc(z, [[1], [3]])


def test_examples() -> None:
    assert doctest.testmod(ctc_module).failed == 0
