"""Calls of a layer with parameters that come with the call.

What stands between a layer and libraries that keep parameters themselves and differentiate: torch,
JAX, HIPS autograd. An *engine* is a layer without parameters of its own, found by what it is.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from . import checks
from .constructor import checked_arguments
from .layers import GRU, LSTM, RNN, Layer
from .spec import Weights
from .tape import Gradients, Tape, pair
from .typing import Array, State

CLASSES: dict[str, type[Layer]] = {kind.__name__: kind for kind in (RNN, GRU, LSTM)}


class Result(NamedTuple):
    """What a forward returns."""

    y: Array
    state: State
    tape: Tape | None  # None unless it was asked for


@cache
def engine(text: str, x: str = "x", state: str = "state") -> Layer:
    """Return a layer without parameters of its own; the same one for the same text.

    Parameters
    ----------
    text : what `repr` of such a layer is, ``LSTM(input_size=4, ...)``; defaults may be left out
    x, state : names of these arguments in errors

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As the constructor.
    """
    parsed = ast.parse(text, mode="eval").body
    assert isinstance(parsed, ast.Call)
    assert isinstance(parsed.func, ast.Name)
    kind = CLASSES[parsed.func.id]
    given = {str(each.arg): ast.literal_eval(each.value) for each in parsed.keywords}
    known = [name for name in inspect.signature(kind).parameters if name != "rng"]
    for name in given:
        if name not in known:
            raise TypeError(f"{kind.__name__} has no argument {name!r}; it has {', '.join(known)}")
    defaults = kind.defaults()
    arguments = {name: given[name] if name in given else defaults[name] for name in known}
    layer = kind._unset(checked_arguments(arguments))
    layer._x_name, layer._state_name = x, state
    return layer


def weights(layer: Layer, arrays: Sequence[Array]) -> list[Weights]:
    """Return parameters as the backends take them, one a pass.

    Parameters
    ----------
    arrays : in the order of ``layer.params``, of its shapes and dtype
    """
    named = dict(zip(layer.params, map(_contiguous, arrays), strict=True))
    return [Weights._make(map(named.get, names)) for names in layer._names]


def _contiguous(array: Array) -> Array:
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return array.copy()


def forward(
    layer: Layer,
    weights: Sequence[Weights],
    x: Array,
    state: State | None = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    seed: int | None = None,
    save: bool = False,
) -> Result:
    """Run a layer on weights that are given, as `Layer.__call__` and `Layer.forward` do on its own.

    Parameters
    ----------
    weights : from `weights`
    x, state, lengths, resets : as for a call of the layer
    seed : of the dropout masks; None for no dropout
    save : whether there is to be a tape
    """
    args, batched = layer._bind(x, state, lengths, resets, training=save, weights=weights)
    if seed is not None:
        args = args._replace(seed=seed)
    y, h, c, saved = layer._stack.forward(args, save=save)
    index = layer._state_index[batched]
    tape = Tape(layer._stack, args, saved, batched, index) if save else None
    return Result(layer._like_x(y, batched), pair(h, c, index), tape)


def backward(
    layer: Layer, tape: Tape, dy: Array | None, dstate: Sequence[Array | None]
) -> Gradients:
    """Backpropagate as `Layer.backward`; a part of ``dstate`` that is None is zeros."""
    return layer.backward(tape, dy, _filled(layer, tape, dstate))


def _filled(layer: Layer, tape: Tape, dstate: Sequence[Array | None]) -> State | None:
    if all(part is None for part in dstate):
        return None
    whole = pair(tape.args.h0, tape.args.c0, tape.state_index)
    like = whole if isinstance(whole, tuple) else (whole,)
    zeros = layer._params.zeros
    parts = [
        zeros(each.shape, each.dtype) if part is None else part
        for part, each in zip(dstate, like, strict=True)
    ]
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def host(layer: Any) -> Layer:
    """Return a layer if it is one that runs on NumPy's arrays."""
    if not isinstance(layer, Layer):
        raise TypeError(f"layer must be an RNN, GRU or LSTM, got {checks.type_name(layer)}")
    if layer.backend == "cuda":
        raise TypeError('layer must be on the CPU, got one on the GPU: layer.to("cpu")')
    return layer


TWICE = "fastrnn computes first derivatives only: a gradient of a gradient was asked for"
