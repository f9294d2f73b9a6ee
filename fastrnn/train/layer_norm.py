"""Layer normalisation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks
from ..docstrings import documented
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..typing import Array, Device, FloatDType
from .feedforward import FeedForward


@dataclass(frozen=True, eq=False, repr=False)
class Tape:
    """What one `LayerNorm.forward` keeps for ``backward``."""

    layer: LayerNorm
    normal: Array
    """The values before weight and bias."""
    scale: Array
    """1 / sqrt(var + eps)."""
    weight: Array


@documented
class LayerNorm(FeedForward):
    """Normalisation of the last axis, as `torch.nn.LayerNorm` (Ba et al. 2016, "Layer
    normalization").

    ::

        y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

    Parameters
    ----------
    size : int
        Of the last axis of x and y. ``weight (size,)`` begins as ones, ``bias (size,)`` as zeros.
    eps : float
        Added to the variance.
    <dtype>
    <device>

    Attributes
    ----------
    <attributes>

    Raises
    ------
    TypeError, ValueError
        An argument has another type or value.

    See Also
    --------
    Linear

    Notes
    -----
    The parameters are ``weight (size,)`` and ``bias (size,)``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> norm = fastrnn.LayerNorm(4, dtype=np.float64)
    >>> norm(np.array([1.0, 2.0, 3.0, 4.0])).round(3)
    array([-1.342, -0.447,  0.447,  1.342])
    """

    size = Setting[int]()
    eps = Setting[float]()

    _anchor: ClassVar[str] = "weight"
    _known: ClassVar[re.Pattern[str]] = re.compile("weight|bias")

    def __init__(
        self,
        size: int,
        *,
        eps: float = 1e-5,
        dtype: FloatDType = np.float32,
        device: Device = "cpu",
    ) -> None:
        self._build(
            {
                "size": checks.size("size", size),
                "eps": checks.number("eps", eps),
                "dtype": checks.float_dtype(dtype).name,
                "device": checks.choice("device", device, backends.DEVICES),
            }
        )
        self.params["weight"][...] = 1

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return ``weight (size,)`` and ``bias (size,)``."""
        return {"weight": (config["size"],), "bias": (config["size"],)}

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        shape = shapes["weight"]
        if len(shape) != 1:
            raise checks.wrong_shape("weight", shape, (("size", None),))
        return {"size": shape[0]}

    def __call__(self, x: Array) -> Array:
        """Return y (..., size) for x (..., size) of the layer's dtype.

        Raises
        ------
        TypeError, ValueError
            x has another type or dtype, or another last axis.
        """
        return self.forward(x)[0]

    def forward(self, x: Array) -> tuple[Array, Tape]:
        """Return y as a call of the layer does, and a tape for `backward`."""
        x = checks.array("x", x, self.dtype, self.flat_params)
        checks.last_axis("x", x.shape, "size", self.size)
        weight = self.params.copied(self.params["weight"])
        with backends.ignore_fp_errors(x):
            centred = x - _mean(x)
            scale = 1 / np.sqrt(_mean(centred * centred) + self.eps)
            normal = centred * scale
            y = normal * weight + self.params["bias"]
        return y, Tape(self, normal, scale, weight)

    def backward(self, tape: Tape, dy: Array) -> LayerGradients:
        """Backpropagate.

        Parameters
        ----------
        tape : Tape
            From this layer's `forward`; it can be used any number of times.
        dy : ndarray like y
            Gradient of the loss by y.

        Raises
        ------
        TypeError, ValueError
            An argument has another type, dtype or shape, or the tape is another layer's.
        """
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.layer is not self:
            raise checks.another_tape(self)
        dy = checks.array("dy", dy, self.dtype, self.flat_params)
        normal = tape.normal
        checks.same_shape("dy", dy.shape, normal.shape)
        params = self.params.gradients()
        with backends.ignore_fp_errors(dy):
            params["weight"] = (dy * normal).reshape(-1, self.size).sum(axis=0)
            params["bias"] = dy.reshape(-1, self.size).sum(axis=0)
            d = dy * tape.weight
            dx = (d - _mean(d) - normal * _mean(d * normal)) * tape.scale
        return LayerGradients(dx, params, self)


def _mean(x: Array) -> Array:
    """The mean over the last axis, which stays, of size 1."""
    mean: Array = x.sum(axis=-1, keepdims=True) * x.dtype.type(1 / x.shape[-1])
    return mean
