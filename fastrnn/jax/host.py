"""What JAX calls on the host: a layer's forward and backward, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import functional
from ..layers import Layer
from ..spec import Weights
from ..typing import Array, State


class Form(NamedTuple):
    """What is known of a call before it runs; the same for all calls of one compiled function."""

    text: str  # of the layer; see `functional.engine`
    states: int  # parts of the state that are given: 0, 1 or 2
    lengths: bool
    resets: bool

    @property
    def outputs(self) -> int:
        """How many arrays forward returns: y and h, or y, h and c."""
        return 3 if self.layer._cell.has_c else 2

    @property
    def layer(self) -> Layer:
        """The engine."""
        return functional.engine(self.text)


class Call(NamedTuple):
    """The arrays of a call by what they are."""

    x: Array
    state: State | None
    lengths: Any
    resets: Any
    weights: list[Weights]


def _call(form: Form, arrays: Sequence[Any]) -> Call:
    """Sort (x, parts of the state, lengths, resets, parameters)."""
    x, *rest = map(np.asarray, arrays)
    parts, rest = rest[: form.states], rest[form.states :]
    lengths = rest.pop(0)[()] if form.lengths else None
    resets = rest.pop(0) if form.resets else None
    state = None if not parts else parts[0] if len(parts) == 1 else (parts[0], parts[1])
    return Call(x, state, lengths, resets, functional.weights(form.layer, rest))


def _flat(state: State) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def forward(form: Form, *arrays: Any) -> tuple[Array, ...]:
    """Return (y, h) or (y, h, c)."""
    x, state, lengths, resets, weights = _call(form, arrays)
    y, final, _ = functional.forward(form.layer, weights, x, state, lengths=lengths, resets=resets)
    return (y, *_flat(final))


def backward(form: Form, *arrays: Any) -> tuple[Array, ...]:
    """Return the gradients of x, of the given parts of the state and of the parameters.

    Those of the outputs come first, then what `forward` has had: a function of JAX keeps no tape,
    so forward is run again.
    """
    layer = form.layer
    dy, *dstate = map(np.asarray, arrays[: form.outputs])
    x, state, lengths, resets, weights = _call(form, arrays[form.outputs :])
    tape = functional.forward(
        layer, weights, x, state, lengths=lengths, resets=resets, save=True
    ).tape
    assert tape is not None
    grads = functional.backward(layer, tape, dy, dstate)
    return (grads.x, *_flat(grads.state)[: form.states], *grads.params.values())
