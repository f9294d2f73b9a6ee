"""The linear layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks
from ..checks import RNG
from ..docstrings import documented
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..typing import Array, Device, FloatDType
from .feedforward import FeedForward, Tape
from .products import affine, back, sum_products


@documented
class Linear(FeedForward):
    """An affine map of the last axis, ``y = x W^T + b``, as `torch.nn.Linear`.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and of y.
    bias : bool
        Whether there is a b.
    <dtype>
    rng : None, int or numpy.random.Generator
        Source of the initial values: uniform(-1/sqrt(in_features), 1/sqrt(in_features)).
    <device>

    Attributes
    ----------
    <attributes>

    Raises
    ------
    <raises>

    See Also
    --------
    Embedding, Conv1d

    Notes
    -----
    The parameters are ``weight (out_features, in_features)``, W, and ``bias (out_features,)``, b.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> linear = fastrnn.Linear(3, 2, rng=0)
    >>> y, tape = linear.forward(np.ones((5, 4, 3), np.float32))
    >>> y.shape, linear.backward(tape, y).params["weight"].shape
    ((5, 4, 2), (2, 3))
    """

    in_features = Setting[int]()
    out_features = Setting[int]()
    bias = Setting[bool]()

    _anchor: ClassVar[str] = "weight"
    _known: ClassVar[re.Pattern[str]] = re.compile("weight|bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        device: Device = "cpu",
    ) -> None:
        config = {
            "in_features": checks.size("in_features", in_features),
            "out_features": checks.size("out_features", out_features),
            "bias": checks.flag("bias", bias),
            "dtype": checks.float_dtype(dtype).name,
            "device": checks.choice("device", device, backends.DEVICES),
        }
        generator = checks.generator("rng", rng)
        self._build(config)
        bound = 1 / math.sqrt(self.in_features)
        drawn = generator.uniform(-bound, bound, self.num_params)
        self.flat_params[:] = self._xp.asarray(drawn, self._dtype)

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return ``weight (out_features, in_features)``; with bias, ``bias (out_features,)``."""
        rows, columns = config["out_features"], config["in_features"]
        return {"weight": (rows, columns)} | ({"bias": (rows,)} if config["bias"] else {})

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        shape = shapes["weight"]
        if len(shape) != 2:
            form = (("out_features", None), ("in_features", None))
            raise checks.wrong_shape("weight", shape, form)
        return {"in_features": shape[1], "out_features": shape[0], "bias": "bias" in shapes}

    def __call__(self, x: Array) -> Array:
        """Return y (..., out_features) for x (..., in_features) of the layer's dtype.

        Raises
        ------
        TypeError, ValueError
            x has another type or dtype, or another last axis.
        """
        return self._map(self._checked(x))

    def forward(self, x: Array) -> tuple[Array, Tape]:
        """Return y as a call of the layer does, and a tape for `backward`.

        The tape references x, so x must not be changed before `backward`.
        """
        x = self._checked(x)
        return self._map(x), Tape(self, x, self.params.copied(self.params["weight"]))

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
        dy = self._check_backward(tape, dy, self.out_features)
        params = self.params.gradients()
        with backends.ignore_fp_errors(dy):
            rows = dy.reshape(-1, self.out_features)
            x = tape.x.reshape(-1, self.in_features)
            bias = params["bias"] if self.bias else None
            sum_products(self._xp, rows, x, params["weight"], bias)
            dx = back(rows, tape.weight)
        return LayerGradients(dx.reshape(tape.x.shape), params, self)

    def _matrices(self) -> Iterable[Array]:
        yield self.params["weight"]

    def _checked(self, x: Any) -> Array:
        checked = checks.array("x", x, self.dtype, self.flat_params)
        checks.last_axis("x", checked.shape, "in_features", self.in_features)
        return checked

    def _map(self, x: Array) -> Array:
        with backends.ignore_fp_errors(x):
            # One product of two matrices: NumPy would run a stack of T small ones.
            rows = x.reshape(-1, self.in_features)
            bias = self.params["bias"] if self.bias else None
            (packed,) = self._packed or (None,)
            y = affine(rows, self.params["weight"], bias, packed)
        return y.reshape(*x.shape[:-1], self.out_features)
