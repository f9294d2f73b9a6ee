"""What stands between layers: functions that return their value, and how its gradient goes back.

Each returns ``(value, backward)``; ``backward(d)`` takes the gradient of the loss by the value and
returns a tuple of those by the inputs. All work on NumPy's and on CuPy's arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import backends, checks
from ..train.embedding import sum_rows
from ..typing import Array

Backward = Callable[[Any], tuple[Any, ...]]
Joint = tuple[Any, Backward]


def tanh(x: Array) -> Joint:
    """y = tanh(x)."""
    with backends.ignore_fp_errors(x):
        y = np.tanh(x)

    def backward(d: Array) -> tuple[Array]:
        with backends.ignore_fp_errors(d):
            return (d * (1 - y * y),)

    return y, backward


def sigmoid(x: Array) -> Joint:
    """y = 1 / (1 + exp(-x))."""
    with backends.ignore_fp_errors(x):
        y = 1 / (1 + np.exp(-x))

    def backward(d: Array) -> tuple[Array]:
        with backends.ignore_fp_errors(d):
            return (d * (y * (1 - y)),)

    return y, backward


def relu(x: Array) -> Joint:
    """y = max(x, 0), whose slope at 0 is 0."""
    with backends.ignore_fp_errors(x):
        y = np.maximum(x, 0)

    def backward(d: Array) -> tuple[Array]:
        with backends.ignore_fp_errors(d):
            return (d * (y > 0),)

    return y, backward


def scale(x: Array, factors: Array) -> Joint:
    """y = x * factors, which are constants, and broadcast to x."""

    def times(d: Array) -> Array:
        with backends.ignore_fp_errors(d):
            product: Array = d * factors
        return product

    return times(x), lambda d: (times(d),)


def concat(xs: Sequence[Array], axis: int) -> Joint:
    """The arrays one after the other along an axis."""
    shapes = [x.shape for x in xs]
    rank = len(shapes[0])
    axis = checks.integer("axis", axis)
    if not -rank <= axis < rank:
        raise ValueError(f"axis must be in {-rank}..{rank - 1} for xs of {shapes[0]}, got {axis}")
    at = axis % rank
    if len({(len(shape), *shape[:at], *shape[at + 1 :]) for shape in shapes}) > 1:
        raise ValueError(f"xs must have one shape but for axis {axis}, got {_words(shapes)}")
    _one_dtype("xs", xs)
    with backends.device_of(xs[0]):
        y = np.concatenate(xs, axis=at)

    def backward(d: Array) -> tuple[Array, ...]:
        stop, parts = 0, []
        for shape in shapes:
            start, stop = stop, stop + shape[at]
            parts.append(d[(slice(None),) * at + (slice(start, stop),)])
        return tuple(parts)

    return y, backward


def add(xs: Sequence[Any]) -> Joint:
    """The sum of arrays that broadcast."""
    shapes = _broadcast(xs)
    y = xs[0]
    with backends.ignore_fp_errors(y) if shapes[0] else np.errstate(all="ignore"):
        for x in xs[1:]:
            y = y + x

    return y, lambda d: tuple(_summed(d, shape) for shape in shapes)


def multiply(a: Any, b: Any) -> Joint:
    """The product, element by element, of two arrays that broadcast."""
    shapes = _broadcast((a, b))

    def times(c: Any, d: Any) -> Any:
        with backends.ignore_fp_errors(c) if shape_of(c) else np.errstate(all="ignore"):
            return c * d

    return times(a, b), lambda d: (
        _summed(times(d, b), shapes[0]),
        _summed(times(d, a), shapes[1]),
    )


def reshape(x: Array, shape: Any) -> Joint:
    """The same values in another shape."""
    old = x.shape
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ValueError(f"shape must hold the {x.size} values of {old}, got {shape}") from None
    return y, lambda d: (d.reshape(old),)


def swapaxes(x: Array, first: int, second: int) -> Joint:
    """Two axes in each other's place; a view."""
    for name, axis in (("first", first), ("second", second)):
        if not -x.ndim <= checks.integer(name, axis) < x.ndim:
            raise ValueError(f"{name} must be an axis of {x.shape}, got {axis}")
    return x.swapaxes(first, second), lambda d: (d.swapaxes(first, second),)


def index(x: Array, key: Any) -> Joint:
    """y = x[key]; what stands several times in y has the sum of its gradients."""
    xp = backends.namespace(x)
    key = tuple(_entry(part, x) for part in (key if isinstance(key, tuple) else (key,)))
    with backends.device_of(x):
        try:
            y = xp.asarray(x[key])  # one value is an array as well
        except IndexError as error:
            raise IndexError(f"key does not fit x of {x.shape}: {error}") from None
        arrays = [part for part in key if hasattr(part, "dtype")]
    repeats = any(part.dtype != np.bool_ for part in arrays)

    def backward(d: Array) -> tuple[Array]:
        with backends.ignore_fp_errors(d):
            dx = xp.zeros(x.shape, x.dtype)
            if not repeats:
                dx[key] = d
            elif d.size:
                # the rows of dx to which the rows of d belong
                known = all(part is not None and part is not Ellipsis for part in key)
                lead = len(key) if known and not _has_mask(key) else x.ndim
                count = int(np.prod(x.shape[:lead], dtype=np.int64))
                rows = xp.arange(count).reshape(x.shape[:lead])[key]
                width = dx.size // max(count, 1)
                sum_rows(rows.reshape(-1), d.reshape(-1, width), dx.reshape(count, width))
            return (dx,)

    return y, backward


def last(h: Array, directions: int) -> Joint:
    """The last layer's state, (B, D*P), of h (L*D, B, P)."""
    with backends.device_of(h):
        ends = [h[len(h) - directions + n] for n in range(directions)]
        y = ends[0] if directions == 1 else np.concatenate(ends, axis=-1)

    def backward(d: Array) -> tuple[Array]:
        with backends.device_of(d):
            dh = np.zeros_like(h)
            width = h.shape[-1]
            for n in range(directions):
                dh[len(h) - directions + n] = d[..., n * width : (n + 1) * width]
        return (dh,)

    return y, backward


def mean(y: Array, lengths: Any, batch_first: bool) -> Joint:
    """The mean over a row's valid steps, (B, F) of (T, B, F); 0 for a row of none."""
    axis, valid, counts = _steps(y, lengths, batch_first)
    xp = backends.namespace(y)
    with backends.ignore_fp_errors(y):
        factor = xp.asarray(1 / np.maximum(counts, 1), y.dtype)
        used = y if valid is None else xp.where(valid, y, 0)
        means = used.sum(axis=axis) * factor

    def backward(d: Array) -> tuple[Array]:
        with backends.ignore_fp_errors(d):
            each = _one_step(d * factor, axis)
            dy = xp.zeros(y.shape, y.dtype)
            dy[...] = each if valid is None else xp.where(valid, each, 0)
        return (dy,)

    return means, backward


def maximum(y: Array, lengths: Any, batch_first: bool) -> Joint:
    """The largest value over a row's valid steps, (B, F) of (T, B, F); 0 for a row of none.

    Its gradient goes to the first step that has it.
    """
    axis, valid, counts = _steps(y, lengths, batch_first)
    xp = backends.namespace(y)
    steps = y.shape[axis]
    shape = y.shape[:axis] + y.shape[axis + 1 :]
    if steps == 0:
        with backends.device_of(y):
            return xp.zeros(shape, y.dtype), lambda d: (xp.zeros(y.shape, y.dtype),)
    with backends.ignore_fp_errors(y):
        used = y if valid is None else xp.where(valid, y, -np.inf).astype(y.dtype, copy=False)
        where = used.argmax(axis=axis)
        largest = used.max(axis=axis)
        some = xp.asarray(counts > 0)
        largest = xp.where(some, largest, 0).astype(y.dtype, copy=False)

    def backward(d: Array) -> tuple[Array]:
        with backends.ignore_fp_errors(d):
            number = xp.arange(steps).reshape((steps,) + (1,) * (y.ndim - axis - 1))
            here = np.equal(number, _one_step(where, axis)) & _one_step(some, axis)
            dy = xp.where(here, _one_step(d, axis), 0)
        return (dy.astype(y.dtype, copy=False),)

    return largest, backward


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array, () of a number."""
    return tuple(getattr(x, "shape", ()))


def valid_steps(lengths: Any, steps: int, batch: int | None) -> Array:
    """Return where steps are valid, (T, B) or, of one sequence, (T,), on the host."""
    counts = checks.lengths(lengths, steps, batch)
    valid: Array = np.arange(steps)[:, None] < counts
    return valid[:, 0] if batch is None else valid


def _steps(y: Array, lengths: Any, batch_first: bool) -> tuple[int, Array | None, Any]:
    """Return the axis of steps, where y is valid (None: everywhere), and how many steps each row
    has, in a form that broadcasts to y without its steps, on the host."""
    if y.ndim not in (2, 3):
        forms = [("T", None), ("B", None), ("F", None)], [("T", None), ("F", None)]
        raise checks.wrong_shape("y", y.shape, *forms)
    axis = int(checks.flag("batch_first", batch_first) and y.ndim == 3)
    steps, batch = y.shape[axis], None if y.ndim == 2 else y.shape[1 - axis]
    if lengths is None:
        return axis, None, np.array(steps)
    valid = valid_steps(lengths, steps, batch)
    counts = valid.sum(axis=0)[..., None]
    valid = (valid.T if axis else valid)[..., None]
    with backends.device_of(y):
        return axis, backends.namespace(y).asarray(valid), counts


def _one_step(rows: Array, axis: int) -> Array:
    """Return what has no axis of steps with one of size 1."""
    return rows.reshape((*rows.shape[:axis], 1, *rows.shape[axis:]))


def _entry(part: Any, x: Array) -> Any:
    """Return one entry of an index: a number, a slice, None or Ellipsis, or an array beside x."""
    if isinstance(part, slice) or part is None or part is Ellipsis:
        return part
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return operator.index(part)
    array = part if checks.on_gpu(part) else np.asarray(part)
    if array.dtype.kind not in "iub":
        raise TypeError(f"key must be of ints, bools, slices, None or Ellipsis, got {array.dtype}")
    if checks.on_gpu(x) and not checks.on_gpu(array):
        with backends.device_of(x):
            return backends.namespace(x).asarray(array)
    return array


def _has_mask(key: tuple[Any, ...]) -> bool:
    return any(hasattr(part, "dtype") and part.dtype == np.bool_ for part in key)


def _broadcast(xs: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the shapes of operands; raise unless they broadcast and are of one dtype."""
    _one_dtype("operands", [x for x in xs if shape_of(x)])
    shapes = [shape_of(x) for x in xs]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"shapes {_words(shapes)} do not broadcast") from None
    return shapes


def _summed(d: Any, shape: tuple[int, ...]) -> Any:
    """Return the gradient of what was broadcast from a shape."""
    given = shape_of(d)
    if given == shape:
        return d
    extra = len(given) - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + n for n, size in enumerate(shape) if size == 1 and given[extra + n] != 1
    )
    with backends.ignore_fp_errors(d):
        return d.sum(axis=axes).reshape(shape)


def _one_dtype(name: str, xs: Sequence[Array]) -> None:
    dtypes = [str(x.dtype) for x in xs]
    if len(set(dtypes)) > 1:
        raise TypeError(f"{name} must be of one dtype, got {_words(dtypes)}")


def _words(values: Sequence[Any]) -> str:
    return " and ".join(map(str, values))
