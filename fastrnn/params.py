"""Named parameters that are views into one contiguous vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from . import backends, checks
from .typing import Array


class Parameters(Mapping[str, Array]):
    """Ordered mapping name -> array; every array is a view into ``flat``.

    One vector for all parameters makes an optimiser step, a norm or an all-reduce one array
    operation, and lets gradients have exactly the same layout.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Names and shapes, in order.
    dtype : numpy.dtype
        float32 or float64. The values are zeros.
    xp : namespace of the arrays: numpy, or cupy
        With cupy they are on the current device, and stay there.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: np.dtype[Any],
        xp: Any = np,
    ) -> None:
        self.shapes = dict(shapes)
        self._places: dict[str, tuple[slice, tuple[int, ...]]] = {}
        size = 0
        for name, shape in self.shapes.items():
            start, size = size, size + math.prod(shape)
            self._places[name] = slice(start, size), shape
        self._xp = xp
        self.zeros: Callable[..., Array] = _bound(xp, xp.zeros)
        """As that of the namespace, on the parameters' device."""
        self.copied: Callable[[Array], Array] = _bound(xp, xp.ndarray.copy)
        """Return a C-contiguous copy of an array on the parameters' device."""
        self._look_into(self.zeros(size, dtype))

    def _look_into(self, flat: Array) -> None:
        self.writeable = True
        """Whether values can be copied in by name, or as one vector."""
        self.flat = flat
        self._views = {name: flat[at].reshape(shape) for name, (at, shape) in self._places.items()}

    def move(self, flat: Array) -> None:
        """Have the values in another vector of the same size and device from now on."""
        writeable = self.writeable
        with backends.device_of(flat):
            flat[...] = self.flat
        self._look_into(flat)
        self.set_writeable(writeable)

    def gradients(self, vector: Callable[..., Array] | None = None) -> Parameters:
        """Return a place for gradients, with the same names, shapes and dtype: zeros, or what
        ``vector`` makes of a size and a dtype."""
        new = Parameters.__new__(Parameters)
        new.shapes, new._places, new._xp = self.shapes, self._places, self._xp
        new.zeros, new.copied = self.zeros, self.copied
        new._look_into((vector or self.zeros)(self.flat.size, self.flat.dtype))
        return new

    def pick(self, names: Sequence[str | None]) -> list[Array | None]:
        """Return the arrays with these names, None where there is none."""
        get = self._views.get
        return [None if name is None else get(name) for name in names]

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or a pickle holds the vector; its views are made anew, to be views again."""
        return _restore, (self._xp.__name__, self.shapes, self.flat, self.writeable)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: Array) -> None:
        """Copy values in, which makes ``params[name] -= step`` work too."""
        self._put(name, self._views[name], value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        rows = (f"{name}: {shape}" for name, shape in self.shapes.items())
        return f"Parameters({', '.join(rows)}, dtype={self.flat.dtype})"

    def set_writeable(self, writeable: bool) -> None:
        """Accept, or refuse, what is written; NumPy's arrays do so by themselves as well."""
        try:
            self._set_writeable(writeable)
        except BaseException:  # an interrupt in the middle: there is no half of it
            self._set_writeable(writeable)
            raise

    def _set_writeable(self, writeable: bool) -> None:
        self.writeable = writeable
        if self._xp is not np:  # CuPy's arrays know no such thing
            return
        self.flat.flags.writeable = writeable  # before its views, which need its consent
        for view in self._views.values():
            view.flags.writeable = writeable

    def put_flat(self, value: Array) -> None:
        """Copy all values in from one vector; what ``layer.flat_params -= step`` comes down to."""
        self._put("flat_params", self.flat, value)

    def _put(self, name: str, view: Array, value: Array) -> None:
        if value is view:  # an operation in place has been done already
            return
        checked = checks.array(name, value, view.dtype, view)
        checks.same_shape(name, checked.shape, view.shape)
        checks.writeable(self.writeable)
        with backends.device_of(view):
            view[...] = checked

    def load(self, mapping: Mapping[str, Any]) -> None:
        """Copy values in by name.

        Raises
        ------
        ValueError
            A name is missing or unknown, or a shape differs. Nothing has been changed then.
        TypeError
            A value is not an array of this dtype.
        """
        checked = checks.named_arrays(mapping, self.shapes, self.flat)
        checks.writeable(self.writeable)
        with backends.device_of(self.flat):
            for name, value in checked.items():
                # They may be our own under other names, to be read before any is written.
                if self._xp is not np or np.may_share_memory(value, self.flat):
                    checked[name] = value.copy()
            for name, value in checked.items():
                self._views[name][...] = self._xp.asarray(value)

    def host(self) -> dict[str, Array]:
        """Return the parameters as NumPy arrays: the views themselves, or copies from the GPU."""
        return {name: self.on_host(view) for name, view in self._views.items()}

    def on_host(self, a: Array) -> Array:
        """Return an array of these as NumPy's: itself, or a copy from the GPU."""
        if self._xp is np:
            return a
        with backends.device_of(a):  # after what is queued there, not here
            copied: Array = self._xp.asnumpy(a)
        return copied


def _bound(xp: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of NumPy's; one of CuPy's so that it runs on what is the current device
    now."""
    if xp is np:
        return function
    device = xp.cuda.Device().id

    def run(*args: Any) -> Any:
        with xp.cuda.Device(device):
            return function(*args)

    return run


def _restore(
    namespace: str, shapes: Mapping[str, tuple[int, ...]], flat: Array, writeable: bool
) -> Parameters:
    """Return what `Parameters.__reduce__` described."""
    # NumPy lets only a vector that owns its memory be made writeable again; a pickle's may not.
    with backends.device_of(flat):
        params = Parameters(shapes, flat.dtype, xp=import_module(namespace))
        params.flat[:] = flat
    params.set_writeable(writeable)
    return params
