"""Layers on the device, emulated or real, that take and return NumPy arrays: so tests of the CPU's
layers run on them as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import Call, Case

import fastrnn.backends


def namespace() -> Any:
    """CuPy, or what stands in for it."""
    return fastrnn.backends.get("cuda").xp


def up(value: Any) -> Any:
    """To the device: an array, a state, or None."""
    if isinstance(value, tuple):
        return tuple(map(up, value))
    return namespace().asarray(value) if isinstance(value, np.ndarray) else value


def down(value: Any) -> Any:
    """From the device."""
    if isinstance(value, tuple):
        return tuple(map(down, value))
    assert isinstance(value, namespace().ndarray)
    with value.device:
        return namespace().asnumpy(value)


def address(a: Any) -> int:
    """Where an array begins, NumPy's or the device's."""
    return int(a.ctypes.data if isinstance(a, np.ndarray) else a.data.ptr)


class Gradients:
    """A layer's gradients, as NumPy arrays."""

    def __init__(self, grads: Any) -> None:
        self.x, self.state, self.flat = down(grads.x), down(grads.state), down(grads.flat)
        self.params = {name: down(value) for name, value in grads.params.items()}


class OnDevice:
    """A layer of the backend "cuda" for NumPy arrays."""

    def __init__(self, layer: Any) -> None:
        assert layer.backend == "cuda"
        self.layer = layer

    def __call__(self, x: Any, state: Any = None, **how: Any) -> Any:
        return down(self.layer(up(x), up(state), **how))

    def forward(self, x: Any, state: Any = None, **how: Any) -> Any:
        y, final, tape = self.layer.forward(up(x), up(state), **how)
        return down(y), down(final), tape

    def backward(self, tape: Any, dy: Any, dstate: Any = None) -> Gradients:
        return Gradients(self.layer.backward(tape, up(dy), up(dstate)))


@dataclass(frozen=True)
class DeviceCase(Case):
    """A case whose layers are on the device, whatever backend is asked for."""

    def layer(self, backend: str = "cuda", **arguments: Any) -> Any:
        return OnDevice(super().layer("cuda", **arguments))

    def host_layer(self, **arguments: Any) -> Any:
        return super().layer("numpy", **arguments)


def reference(case: DeviceCase, call: Call, **how: Any) -> tuple[Any, Call]:
    """The readable layer in float64 with a case's parameters, and the call for it."""

    def widened(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(widened, value))
        return None if value is None else value.astype(np.float64)

    layer = case.but(dtype="float64").host_layer(**how)
    layer.load_params({name: widened(a) for name, a in case.host_layer().params.items()})
    x, state, dy, dstate = map(widened, (call.x, call.state, call.dy, call.dstate))
    return layer, Call(x, state, call.how, dy, dstate)
