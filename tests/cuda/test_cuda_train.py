"""Optimisers and clipping over vectors on the emulated device."""

from __future__ import annotations

from typing import Any

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
        adam.step(gradients(host, X))
    grads = gradients(layer, up(X))
    with pytest.raises(TypeError, match=r"grads\.flat must be a numpy\.ndarray of float64"):
        fastrnn.Adam(host).step(grads)
    layer.freeze()
    with pytest.raises(ValueError, match="the parameters are frozen"):
        adam.step(grads)
