"""A free array that is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..train.feedforward import FeedForward, Tape
from ..typing import Array, Device, FloatDType


class Parameter(FeedForward):
    """A free array that is trained: an initial state, a scale, a table of scores.

    As an attribute of a `Model` it is one of its parameters, under the attribute's own name;
    ``g(parameter)`` is its node in a `Graph`.

    Parameters
    ----------
    value : ndarray of float32 or float64, any shape
        The initial value, which is copied; NumPy's, or CuPy's.
    shape : tuple of int
        In place of a value: zeros of this shape, of ``dtype`` and on ``device``.
    dtype : float32 or float64, optional
        That of ``value``, or float32.
    device : {"cpu", "cuda"}, optional

    Raises
    ------
    TypeError
        ``value`` is no such array, or not one of it and ``shape`` is given.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> start = fastrnn.Parameter(shape=(1, 1, 4))
    >>> start.value[...] = 0.5
    >>> start.num_params, start().dtype
    (4, dtype('float32'))
    """

    shape = Setting[tuple[int, ...]]()

    _anchor: ClassVar[str] = "value"
    _known: ClassVar[re.Pattern[str]] = re.compile("value")

    def __init__(
        self,
        value: Array | None = None,
        *,
        shape: Sequence[int] | None = None,
        dtype: FloatDType | None = None,
        device: Device = "cpu",
    ) -> None:
        if (value is None) == (shape is None):
            raise TypeError("one of value and shape must be given")
        if value is not None:
            value = checks.floats("value", value)
            shape = value.shape
            device = "cuda" if checks.on_gpu(value) else device
            dtype = value.dtype if dtype is None else dtype
        if not isinstance(shape, (tuple, list)):
            raise TypeError(f"shape must be a tuple of ints, got {checks.type_name(shape)}")
        config = {
            "shape": tuple(checks.size("shape", n, at_least=0) for n in shape),
            "dtype": checks.float_dtype(np.float32 if dtype is None else dtype).name,
            "device": checks.choice("device", device, backends.DEVICES),
        }
        with nullcontext() if value is None else backends.device_of(value):
            self._build(config)
        if value is not None:
            self.params["value"] = checks.array("value", value, self.dtype, self.flat_params)

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return ``value``, of the shape of the initial one."""
        return {"value": tuple(config["shape"])}

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        return {"shape": shapes["value"]}

    @property
    def value(self) -> Array:
        """The array itself, which can be written to."""
        return self.params["value"]

    def __call__(self) -> Array:
        """Return a copy of the value."""
        return self.params.copied(self.value)

    def forward(self) -> tuple[Array, Tape]:
        """Return a copy of the value, and a tape for `backward`."""
        value = self()
        return value, Tape(self, value)

    def backward(self, tape: Tape, dy: Array) -> LayerGradients:
        """Return dy, the gradient of the loss by the value, as the parameter's gradients.

        Raises
        ------
        TypeError, ValueError
            ``dy`` has another type, dtype or shape, or the tape is another parameter's.
        """
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.layer is not self:
            raise checks.another_tape(self)
        checked = checks.array("dy", dy, self.dtype, self.flat_params)
        checks.same_shape("dy", checked.shape, tape.x.shape)
        params = self.params.gradients()
        params["value"] = checked
        return LayerGradients(None, params, self)
