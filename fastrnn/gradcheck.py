"""Gradients against finite differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backends, checks
from .checks import RNG
from .typing import Array, State

_DIRECTIONS = 3  # random directions tried for each array


def gradcheck(
    layer: Any,
    x: Any,
    state: State | None = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    eps: float = 1e-5,
    atol: float = 1e-7,
    rtol: float = 1e-5,
    rng: RNG = None,
) -> bool:
    """Compare gradients with central finite differences: of a layer, or ``gradcheck(model, loss)``
    of a model.

    For the loss ``L = <w, outputs>`` with random w, and for x, the state and every parameter p in
    turn::

        |<dL/dp, v> - (L(p + eps v) - L(p - eps v)) / (2 eps)| <= atol + rtol * |the larger one|

    has to hold for random directions v of length 1. A wrong gradient passes only if its error
    happens to be orthogonal to every v. The kink of a relu within eps of a value makes a right one
    fail.

    Parameters
    ----------
    layer : a layer, a cell, or a `Model`, of float64
        Not changed; it may be frozen. Dropout is active, with masks that stay the same.
    x, state, lengths, resets
        As for `layer.forward`; the state's gradient is compared also if none is given.
        For a `Model`, in place of all these: a function that takes a `Graph` and returns the loss,
        ``lambda g: model.loss(g, x, targets)``. Every parameter of the model is compared.
    eps : float below 1
    atol, rtol : float
    rng : None, int or numpy.random.Generator
        Source of w and v.

    Returns
    -------
    bool
        True.

    Raises
    ------
    AssertionError
        Gradients differ; the text names each that does, and by how much.
    TypeError
        The layer is not of float64, in which alone differences say enough, or an argument has
        another type.
    ValueError
        An argument has another shape, or is out of its range.
    """
    if getattr(layer, "dtype", None) != np.float64:
        raise TypeError(
            "gradcheck needs a layer of float64: make one with dtype=np.float64, "
            f"got {getattr(layer, 'dtype', checks.type_name(layer))}"
        )
    checks.number("eps", eps, at_least=1e-12, below=1.0)
    checks.number("atol", atol)
    checks.number("rtol", rtol)
    generator = checks.generator("rng", rng)
    if hasattr(layer, "named_layers"):
        if state is not None or lengths is not None or resets is not None:
            raise TypeError("gradcheck of a model takes a function of a Graph, and no more inputs")
        wrong = _model_differences(layer, x, generator, eps, atol, rtol)
        if wrong:
            raise AssertionError("gradients differ along a random direction\n" + "\n".join(wrong))
        return True
    model = copy.deepcopy(layer)
    model.unfreeze()
    with backends.device_of(model.flat_params):
        wrong = _differences(model, x, state, lengths, resets, generator, eps, atol, rtol)
    if wrong:
        raise AssertionError("gradients differ along a random direction\n" + "\n".join(wrong))
    return True


def _differences(
    model: Any,
    x: Any,
    state: Any,
    lengths: Any,
    resets: Any,
    generator: np.random.Generator,
    eps: float,
    atol: float,
    rtol: float,
) -> list[str]:
    """Return a line for each gradient that differs from differences of the loss."""
    xp = backends.namespace(model.flat_params)

    def draw(like: Any) -> Any:
        return xp.asarray(generator.standard_normal(like.shape))

    def dot(a: Array, b: Array) -> float:
        return float(xp.vdot(a, b))

    options: dict[str, Any] = {"lengths": lengths, "resets": resets}
    options = {name: value for name, value in options.items() if value is not None}
    if getattr(model, "dropout", 0.0):
        options["rng"] = int(generator.integers(1 << 62))
    inputs: list[Any] = [_copy(x)] if state is None else [_copy(x), _copies(state)]

    # outputs are (y, state), (y) or (state), and so is what backward takes
    *outputs, tape = model.forward(*inputs, **options)
    weights = [_like(output, draw) for output in outputs]
    grads = model.backward(tape, *weights)
    if state is None and hasattr(grads, "state"):
        inputs.append(_copies(grads.state))
        for part in _leaves("state", inputs[1]).values():
            part[...] = 0

    def loss() -> float:
        *outputs, _ = model.forward(*inputs, **options)
        return sum(_dot(*pair, dot) for pair in zip(weights, outputs, strict=True))

    values = dict(model.params)
    found = dict(grads.params)
    if grads.x is not None:
        values["x"], found["x"] = inputs[0], grads.x
    if hasattr(grads, "state"):
        values |= _leaves("state", inputs[1])
        found |= _leaves("state", grads.state)

    return _compared(values, found, loss, generator, eps, atol, rtol)


def _model_differences(
    model: Any, loss: Any, generator: np.random.Generator, eps: float, atol: float, rtol: float
) -> list[str]:
    """Return a line for each parameter of a model whose gradient differs."""
    # which know the layers, and import what they do
    from .models.graph import Graph
    from .models.model import param_name

    if not callable(loss):
        raise TypeError(
            f"x must be a function of a Graph beside a model, got {checks.type_name(loss)}"
        )
    seed = int(generator.integers(1 << 62))
    frozen = {name: layer for name, layer in model.named_layers().items() if layer.frozen}
    kinds = {name: getattr(layer, "weight_dtype", None) for name, layer in frozen.items()}
    for layer in frozen.values():
        layer.unfreeze()
    try:
        graph = Graph(seed)
        grads = graph.backward(loss(graph))
        values = dict(model.params)
        found: dict[str, Any] = {}
        for prefix, layer in model.named_layers().items():
            own = grads[layer].params if layer in grads else layer.params.gradients()
            found |= {param_name(prefix, type(layer), key): own[key] for key in own}
        with backends.device_of(next(iter(values.values()))):
            return _compared(
                values, found, lambda: float(loss(Graph(seed))), generator, eps, atol, rtol
            )
    finally:
        for name, layer in frozen.items():
            layer.freeze(*([] if kinds[name] is None else [kinds[name]]))


def _compared(
    values: dict[str, Any],
    found: dict[str, Any],
    loss: Callable[[], float],
    generator: np.random.Generator,
    eps: float,
    atol: float,
    rtol: float,
) -> list[str]:
    """Return a line for each array whose gradient differs from differences of the loss."""
    wrong = []
    for name, value in values.items():
        xp = backends.namespace(value)
        for _ in range(_DIRECTIONS if value.size else 0):
            v = xp.asarray(generator.standard_normal(value.shape))
            v /= math.sqrt(float(xp.vdot(v, v)))
            expected = _slope(loss, value, v, eps)
            got = float(xp.vdot(found[name], v))
            allowed = atol + rtol * max(abs(got), abs(expected))
            if not abs(got - expected) <= allowed:
                wrong.append(
                    f"{name}: {got:.9g} from backward, {expected:.9g} from differences, "
                    f"{abs(got - expected):.1e} apart, {allowed:.1e} allowed"
                )
                break
    return wrong


def _copy(value: Any) -> Any:
    return value.copy() if checks.on_gpu(value) else np.array(value)


def _copies(state: Any) -> Any:
    return tuple(map(_copy, state)) if isinstance(state, (tuple, list)) else _copy(state)


def _slope(loss: Callable[[], float], value: Array, v: Array, eps: float) -> float:
    """Central difference of the loss by an array along v; the array is as it was afterwards."""
    kept = value.copy()
    value[...] = kept + eps * v
    above = loss()
    value[...] = kept - eps * v
    below = loss()
    value[...] = kept
    return (above - below) / (2 * eps)


def _like(output: Any, draw: Callable[[Any], Any]) -> Any:
    """Random weights in the form of an output."""
    return tuple(map(draw, output)) if isinstance(output, tuple) else draw(output)


def _dot(weight: Any, output: Any, dot: Callable[[Array, Array], float]) -> float:
    """<weight, output>, of all parts of an output."""
    pairs = zip(_leaves("", weight).values(), _leaves("", output).values(), strict=True)
    return sum(dot(w, value) for w, value in pairs)


def _leaves(name: str, value: Any) -> dict[str, Array]:
    """The arrays of an output or a state, by name."""
    if isinstance(value, tuple):
        return {f"{name}[{index}]": part for index, part in enumerate(value)}
    return {name: value}
