"""Offsets beyond 31 bits, at the cost of the pages that are touched; weights beyond the caches."""

from __future__ import annotations

import numpy as np
import pytest
from cases import KINDS, Case, close, run
from grid import BACKENDS

import fastrnn


def test_offsets_beyond_31_bits(backend: str) -> None:
    """Only the last of 32769 rows has a step, so that of 2^31 gradients few are ever written.

    x is one row seen many times; dx is zeros that the system has not yet made real.
    """
    B, I = 2**15 + 1, 2**16
    layer = fastrnn.LSTM(I, 1, rng=0, backend=backend)
    row = np.random.default_rng(1).standard_normal((1, 1, I)).astype(np.float32)
    x = np.broadcast_to(row, (1, B, I))
    assert x.size > 2**31
    lengths = np.zeros(B, int)
    lengths[-1] = 1

    y, _, tape = layer.forward(x, lengths=lengths)
    grads = layer.backward(tape, np.ones_like(y))

    y_row, _, tape_row = layer.forward(row)
    grads_row = layer.backward(tape_row, np.ones_like(y_row))
    np.testing.assert_array_equal(y[:, -1:], y_row)
    np.testing.assert_array_equal(grads.x[:, -1:], grads_row.x)
    assert not y[:, :-1].any()
    assert not grads.x[:, :: B // 8][:, :8].any()


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the extension's own way of packing")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_beyond_the_caches(kind: str, dtype: str) -> None:
    """From 4 MiB on, several threads pack weights by stores past the caches."""
    case = Case(kind, (3, 2, 301, 1030 if kind.startswith("rnn") else 590), dtype=dtype)
    with fastrnn.num_threads(2):
        got = run(case.layer("cpu"), case.call())
    close(got, run(case.layer("numpy"), case.call()), dtype)
