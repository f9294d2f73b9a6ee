"""Arrays that come from JAX and go there through DLPack: the ways of docs/gpu.md.

The emulated device's arrays are in the host's memory, as JAX's of the CPU are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device import address

import fastrnn

jax = pytest.importorskip("jax")

ALIGNMENT = 64
"""JAX copies what does not begin at a multiple of it."""


def test_a_layer_within_a_model_of_jax(side: tuple[str, Any]) -> None:
    """Its input and the gradient of its output are JAX's; the results are as of NumPy's arrays."""
    backend, xp = side
    layer = fastrnn.LSTM(3, 4, 2, bidirectional=True, rng=0, backend=backend)

    def loss(y: Any) -> Any:
        return (jax.numpy.tanh(y) ** 2).sum()

    given = jax.random.normal(jax.random.key(0), (5, 2, 3))
    x = xp.from_dlpack(given)
    assert address(x) == given.unsafe_buffer_pointer()
    y, _, tape = layer.forward(x)
    there = jax.dlpack.from_dlpack(y)
    assert (there.unsafe_buffer_pointer() == address(y)) == (address(y) % ALIGNMENT == 0)
    grads = layer.backward(tape, xp.from_dlpack(jax.grad(loss)(there)))

    host = fastrnn.LSTM(3, 4, 2, bidirectional=True, rng=0, backend="numpy")
    y, _, tape = host.forward(np.array(given))
    want = host.backward(tape, 2 * np.tanh(y) / np.cosh(y) ** 2)
    np.testing.assert_allclose(np.asarray(there), y, atol=1e-6)
    for got, wanted in ((grads.x, want.x), (grads.flat, want.flat)):
        np.testing.assert_allclose(np.from_dlpack(got), wanted, rtol=1e-4, atol=1e-5)


def test_parameters_come_from_jax(side: tuple[str, Any]) -> None:
    backend, xp = side
    layer = fastrnn.GRU(3, 4, backend=backend)
    values = {
        name: jax.random.normal(jax.random.key(n), a.shape)
        for n, (name, a) in enumerate(layer.params.items())
    }
    layer.load_params({name: xp.from_dlpack(value) for name, value in values.items()})
    for name, value in values.items():
        assert np.array_equal(np.from_dlpack(layer.params[name]), np.asarray(value))
