"""A layer as a function that JAX compiles, differentiates and maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from .. import checks, functional
from ..layers import Layer
from . import host
from .host import Form


def apply(
    layer: Layer,
    params: Mapping[str, Any],
    x: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
) -> tuple[jax.Array, Any]:
    """Run a layer with given parameters, in a function of JAX.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        Says what is computed; its own parameters are not used, and there is no dropout.
    params : mapping of str to array
        With the names, shapes and dtype of ``layer.params``; that itself will do.
    x, state, lengths, resets
        As for a call of the layer; arrays of JAX or NumPy. For a layer of float64, JAX must have
        been told to keep it: ``jax.config.update("jax_enable_x64", True)``.

    Returns
    -------
    y, state : arrays of JAX
        As from a call of the layer.

    Raises
    ------
    TypeError, ValueError
        As a call of the layer, and as `load_params`. What depends on the values of ``lengths`` is
        an error of JAX's that contains the text.

    Notes
    -----
    ``jit``, ``grad`` and ``vmap`` work, and their mixtures; a gradient of a gradient does not. What
    ``vmap`` maps over becomes rows of the batch, unless it maps over parameters, or a gradient:
    then the layer runs once for each. Backward runs forward again, since a function of JAX has no
    place for a tape.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import fastrnn
    >>> import fastrnn.jax
    >>> layer = fastrnn.GRU(3, 4, rng=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> @jax.jit
    ... def loss(params):
    ...     y, state = fastrnn.jax.apply(layer, params, x)
    ...     return (y**2).sum()
    >>> gradients = jax.grad(loss)(dict(layer.params))
    >>> gradients["weight_hh_l0"].shape
    (12, 4)
    """
    functional.host(layer)
    checks.same_names(params, layer.params)
    parts = _parts(layer, state)
    form = Form(repr(layer), len(parts), lengths is not None, resets is not None)
    _check(form.layer, params, x, parts, lengths, resets)
    rows = [jnp.asarray(each) for each in (lengths, resets) if each is not None]
    y, *final = _differentiable(form)(
        jnp.asarray(x),
        tuple(map(jnp.asarray, parts)),
        tuple(rows),
        tuple(jnp.asarray(params[name]) for name in layer.params),
    )
    return y, tuple(final) if len(final) > 1 else final[0]


def _parts(layer: Layer, state: Any) -> list[Any]:
    if state is None:
        return []
    return list(state) if isinstance(state, (tuple, list)) else [state]


def _check(
    layer: Layer, params: Mapping[str, Any], x: Any, parts: list[Any], lengths: Any, resets: Any
) -> None:
    """Raise as the layer does, by arrays of the same shapes and dtypes: values come later."""
    if layer.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise TypeError(
            "the layer is of float64, which JAX keeps only after "
            'jax.config.update("jax_enable_x64", True)'
        )
    for name, expected in layer.params.shapes.items():
        value = _like(name, params[name])
        checks.array(name, value, layer.dtype)
        checks.same_shape(name, value.shape, expected)
    given = [_like(f"state[{number}]", part) for number, part in enumerate(parts)]
    state: Any = None if not parts else given[0] if len(parts) == 1 else tuple(given)
    layer._bind(
        _like("x", x),
        state,
        None if lengths is None else _like("lengths", lengths)[()],
        None if resets is None else _like("resets", resets),
        weights=(),
    )


def _like(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return zeros of the shape and dtype that JAX sees, without their memory."""
    try:
        seen = jax.eval_shape(jnp.asarray, value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array of JAX or NumPy, got {checks.type_name(value)}"
        ) from error
    return np.broadcast_to(np.zeros((), seen.dtype), seen.shape)


@cache
def _differentiable(form: Form) -> Callable[..., Any]:
    """Return the function of (x, parts of the state, lengths and resets, parameters)."""
    run, back = _mapped(form, host.forward), _once(_callback(form, host.backward))

    def plain(x: Any, state: Any, rows: Any, params: Any) -> Any:
        return run(x, *state, *rows, *params)

    call: Any = jax.custom_vjp(plain)

    def forward(x: Any, state: Any, rows: Any, params: Any) -> Any:
        return call(x, state, rows, params), (x, state, rows, params)

    def backward(kept: Any, given: Any) -> Any:
        x, state, rows, params = kept
        dx, *rest = back(*given, x, *state, *rows, *params)
        return dx, tuple(rest[: form.states]), None, tuple(rest[form.states :])

    call.defvjp(forward, backward)
    function: Callable[..., Any] = call
    return function


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that cannot be differentiated, and says so."""

    def refuse(*_: Any) -> Any:
        raise RuntimeError(functional.TWICE)

    once: Any = jax.custom_vjp(function)
    once.defvjp(lambda *arrays: (function(*arrays), None), refuse)
    refusing: Callable[..., Any] = once
    return refusing


def _outputs(form: Form, x: Any) -> list[jax.ShapeDtypeStruct]:
    """Return the shapes of y, h and c for an x."""
    layer = form.layer
    stack = layer._stack
    (_, width), (_, hidden) = layer._widths
    batch = () if x.ndim == 2 else (x.shape[0 if layer._batch_first else 1],)
    shapes = [(*x.shape[:-1], stack.directions * width), (stack.num_passes, *batch, width)]
    if layer._cell.has_c:
        shapes.append((stack.num_passes, *batch, hidden))
    return [jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes]


def _callback(form: Form, function: Any) -> Callable[..., Any]:
    """Return a function of JAX that calls the host; mapped over, it does so once for each."""

    def call(*arrays: Any) -> Any:
        if function is host.forward:
            results = _outputs(form, arrays[0])
        else:
            x, *rest = arrays[form.outputs :]
            params = rest[len(rest) - len(form.layer.params) :]
            like = [x, *rest[: form.states], *params]
            results = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in like]
        return jax.pure_callback(
            lambda *given: function(form, *given), results, *arrays, vmap_method="sequential"
        )

    return call


def _mapped(form: Form, function: Any) -> Callable[..., Any]:
    """Return the forward, which takes what it is mapped over as rows of one batch."""
    call = _callback(form, function)
    mapped: Callable[..., Any] = custom_vmap(call)
    defined: Any = mapped
    layer = form.layer
    parameters = len(layer.params)

    @defined.def_vmap
    def rule(size: int, batched: list[bool], *arrays: Any) -> Any:
        if any(batched[-parameters:]):
            axes = [0 if each else None for each in batched]
            y = jax.vmap(call, in_axes=axes, axis_size=size)(*arrays)
            return y, [True] * len(y)
        given = arrays[:-parameters]
        every = [
            each if there else jnp.broadcast_to(each, (size, *each.shape))
            for each, there in zip(given, batched, strict=False)
        ]
        single = every[0].ndim == 3  # of one sequence each
        first = 1 if layer._batch_first or single else 2  # axis of the rows, behind the mapped one
        x, parts, rows = every[0], every[1 : 1 + form.states], every[1 + form.states :]
        if single:
            x = x if layer._batch_first else jnp.moveaxis(x, 0, 1)
            parts = [jnp.moveaxis(part, 0, 1) for part in parts]
        else:
            x = _joined(x, first - 1)
            parts = [_joined(part, 1) for part in parts]
        if form.lengths:
            rows[0] = rows[0].reshape(-1)
        if form.resets:
            rows[-1] = jnp.moveaxis(rows[-1], 0, 1) if single else _joined(rows[-1], 1)
        y, *final = mapped(x, *parts, *rows, *arrays[-parameters:])
        if single:
            y = y if layer._batch_first else jnp.moveaxis(y, 1, 0)
            final = [jnp.moveaxis(part, 1, 0) for part in final]
        else:
            y = _split(y, first - 1, size)
            final = [_split(part, 1, size) for part in final]
        return [y, *final], [True] * (1 + len(final))

    return mapped


def _joined(array: Any, axis: int) -> Any:
    """Return (n, ..., B, ...) as (..., n * B, ...), where B is at ``axis`` of the result."""
    moved = jnp.moveaxis(array, 0, axis)
    return moved.reshape(*moved.shape[:axis], -1, *moved.shape[axis + 2 :])


def _split(array: Any, axis: int, size: int) -> Any:
    """Undo `_joined`."""
    shape = array.shape
    parts = (size, shape[axis] // size)
    return jnp.moveaxis(array.reshape(*shape[:axis], *parts, *shape[axis + 1 :]), axis, 0)
