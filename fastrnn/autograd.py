"""Layers in functions that HIPS autograd differentiates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import checks, functional
from .layers import Layer
from .tape import Gradients, Tape
from .typing import Array

try:
    from autograd.extend import defvjp_argnums, primitive
    from autograd.tracer import isbox
except ImportError as error:
    raise checks.needs("fastrnn.autograd", "autograd", "autograd") from error

__all__ = ["apply"]


def apply(
    layer: Layer,
    params: Mapping[str, Any],
    x: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
) -> tuple[Any, Any]:
    """Run a layer with given parameters, in a function that autograd differentiates.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        Says what is computed; its own parameters are not used, and there is no dropout.
    params : mapping of str to array
        With the names, shapes and dtype of ``layer.params``. That itself will do, but autograd
        differentiates by dicts: ``dict(layer.params)``.
    x, state, lengths, resets
        As for a call of the layer.

    Returns
    -------
    y, state
        As from a call of the layer. Gradients flow by ``params``, ``x`` and ``state``, from one
        backward for all.

    Raises
    ------
    TypeError, ValueError
        As a call of the layer, and as `load_params`.
    RuntimeError
        A gradient is differentiated once more.

    Examples
    --------
    >>> import autograd
    >>> import autograd.numpy as np
    >>> import fastrnn
    >>> import fastrnn.autograd
    >>> layer = fastrnn.GRU(3, 4, dtype=np.float64, rng=0)
    >>> x = np.ones((5, 2, 3))
    >>> def loss(params):
    ...     y, state = fastrnn.autograd.apply(layer, params, x)
    ...     return np.sum(y**2)
    >>> gradients = autograd.grad(loss)(dict(layer.params))
    >>> gradients["weight_hh_l0"].shape
    (12, 4)
    """
    functional.host(layer)
    boxed: Any = params
    checks.same_names(boxed._value if isbox(params) else params, layer.params)
    values = [params[name] for name in layer.params]
    parts = _parts(layer, state)
    # boxes are what autograd traces; without any there is nothing to keep
    tapes: list[Tape] | None = [] if any(map(isbox, [x, *parts, *values])) else None
    outputs = _run(layer, lengths, resets, len(parts), tapes, x, *parts, *values)
    return outputs[0], outputs[1] if len(outputs) == 2 else (outputs[1], outputs[2])


def _parts(layer: Layer, state: Any) -> list[Any]:
    """Return the parts of a state; a wrong number of them is for the layer to refuse."""
    if state is None:
        return []
    boxed = isbox(state) and isinstance(state._value, (tuple, list))
    if isinstance(state, (tuple, list)) or boxed:
        return [state[index] for index in range(len(state))]
    return [state]


def _together(layer: Layer, parts: tuple[Any, ...]) -> Any:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts


@primitive
def _run(
    layer: Layer,
    lengths: Any,
    resets: Any,
    count: int,
    tapes: list[Tape] | None,
    x: Array,
    *arrays: Array,
) -> tuple[Array, ...]:
    """Return (y, h) or (y, h, c); ``arrays``: the parts of the state, then the parameters."""
    shapes, flat = layer.params.shapes, layer.flat_params
    named = checks.named_arrays(dict(zip(shapes, arrays[count:], strict=True)), shapes, flat)
    y, state, tape = functional.forward(
        layer,
        functional.weights(layer, list(named.values())),
        x,
        _together(layer, arrays[:count]),
        lengths=lengths,
        resets=resets,
        save=tapes is not None,
    )
    if tapes is not None and tape is not None:
        tapes.append(tape)
    return (y, *state) if isinstance(state, tuple) else (y, state)


_FIRST = 5  # index of x among the arguments


def _vjps(
    argnums: tuple[int, ...], _: Any, args: tuple[Any, ...], kwargs: Any
) -> Callable[[Any], tuple[Any, ...]]:
    """Return what makes of the gradients of the outputs those of some arguments."""
    layer, _, _, count, tapes = args[:_FIRST]

    def vjp(given: Any) -> tuple[Any, ...]:
        dy, *dstate = given
        if any(map(isbox, [dy, *dstate, *args[_FIRST:]])):
            raise RuntimeError(functional.TWICE)
        grads: Gradients = functional.backward(layer, tapes[0], dy, dstate)
        state = grads.state if isinstance(grads.state, tuple) else (grads.state,)
        found = [grads.x, *state[:count], *grads.params.values()]
        return tuple(found[number - _FIRST] for number in argnums)

    return vjp


defvjp_argnums(_run, _vjps)
