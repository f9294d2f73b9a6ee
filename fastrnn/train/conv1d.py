"""A convolution over time, in blocks and step by step."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks, forks
from ..checks import RNG
from ..docstrings import documented
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..typing import Array, Device, FloatDType
from .feedforward import FeedForward, Tape
from .products import affine, back, sum_products
from .sums import sum_rows


@documented
class Conv1d(FeedForward):
    """A convolution over time without padding, as `torch.nn.Conv1d` on another order of axes.

    ::

        y[t, b, o] = bias[o] + sum over k and c of weight[o, c, k] x[t stride + k dilation, b, c]

    x is (T, B, C) as for recurrent layers, where torch's is (B, C, T). Output channels of a group
    see the input channels of the same group only. `stepper` runs it on a stream, with zeros before
    the first step. `from_params` is for one group: shapes do not tell how many there are.

    Parameters
    ----------
    in_channels, out_channels : int
        C and O, multiples of ``groups``.
    kernel_size, stride, dilation, groups : int
        K and the rest, each at least 1.
    bias : bool
        Whether there is a bias.
    <dtype>
    rng : None, int or numpy.random.Generator
        Source of the initial values: uniform(-b, b) with b = 1/sqrt(C / groups * K), as torch.
    <device>

    Attributes
    ----------
    <attributes>

    Raises
    ------
    TypeError, ValueError
        An argument has another type, a size is not positive, or channels are no multiple of
        ``groups``.
    RuntimeError
        There is no such device here; the text names what is missing.

    See Also
    --------
    Linear, Embedding

    Notes
    -----
    The parameters are ``weight (O, C / groups, K)`` and ``bias (O,)``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> conv = fastrnn.Conv1d(3, 8, kernel_size=3, stride=2, rng=0)
    >>> conv(np.zeros((9, 2, 3), np.float32)).shape
    (4, 2, 8)
    """

    in_channels = Setting[int]()
    out_channels = Setting[int]()
    kernel_size = Setting[int]()
    stride = Setting[int]()
    dilation = Setting[int]()
    groups = Setting[int]()
    bias = Setting[bool]()

    _anchor: ClassVar[str] = "weight"
    _known: ClassVar[re.Pattern[str]] = re.compile("weight|bias")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        device: Device = "cpu",
    ) -> None:
        sizes = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "stride": stride,
            "dilation": dilation,
            "groups": groups,
        }
        config: dict[str, Any] = {name: checks.size(name, size) for name, size in sizes.items()}
        for name in ("in_channels", "out_channels"):
            if config[name] % config["groups"]:
                raise ValueError(
                    f"{name} must be a multiple of groups={config['groups']}, got {config[name]}"
                )
        config |= {
            "bias": checks.flag("bias", bias),
            "dtype": checks.float_dtype(dtype).name,
            "device": checks.choice("device", device, backends.DEVICES),
        }
        generator = checks.generator("rng", rng)
        self._build(config)
        bound = 1 / math.sqrt(self.in_channels // self.groups * self.kernel_size)
        drawn = generator.uniform(-bound, bound, self.num_params)
        self.flat_params[:] = self._xp.asarray(drawn, self._dtype)

    def _build(self, config: dict[str, Any]) -> None:
        super()._build(config)
        # read at every call, where a `Setting` takes as long as a small product
        self._seen: int = (config["kernel_size"] - 1) * config["dilation"] + 1
        self._pace: int = config["stride"]

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return ``weight (O, C / groups, K)``; with bias, ``bias (O,)``."""
        rows = config["out_channels"]
        columns = config["in_channels"] // config.get("groups", 1)
        weight = {"weight": (rows, columns, config["kernel_size"])}
        return weight | ({"bias": (rows,)} if config["bias"] else {})

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        shape = shapes["weight"]
        if len(shape) != 3:
            form = (("O", None), ("C / groups", None), ("K", None))
            raise checks.wrong_shape("weight", shape, form)
        sizes = {"in_channels": shape[1], "out_channels": shape[0], "kernel_size": shape[2]}
        return {**sizes, "bias": "bias" in shapes}

    @property
    def receptive_field(self) -> int:
        """Steps of x that a step of y sees: (K - 1) dilation + 1."""
        return self._seen

    def __call__(self, x: Array) -> Array:
        """Return y (T', B, O) for x (T, B, C), or (T', O) for (T, C), with T' =
        (T - receptive_field) // stride + 1, or 0 where x is shorter than the receptive field.

        Raises
        ------
        TypeError, ValueError
            x has another type or dtype, or another shape.
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
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.layer is not self or tape.weight is None:
            raise checks.another_tape(self)
        x = tape.x
        dy = checks.array("dy", dy, self.dtype, self.flat_params)
        checks.same_shape("dy", dy.shape, (self._steps(len(x)), *x.shape[1:-1], self.out_channels))
        params = self.params.gradients()
        dx = self._xp.zeros((len(x), math.prod(x.shape[1:-1]), self.in_channels), self.dtype)
        with backends.ignore_fp_errors(dy):
            if self.bias:
                sum_rows(dy.reshape(-1, self.out_channels), params["bias"])
            for g, columns in enumerate(self._columns(x) if len(dy) else ()):
                rows, channels = self._group(g)
                part = self._xp.ascontiguousarray(dy[..., rows]).reshape(len(columns), -1)
                dw = params["weight"][rows].reshape(part.shape[1], -1)
                sum_products(self._xp, part, columns, dw)
                d = back(part, tape.weight[rows].reshape(part.shape[1], -1))
                d = d.reshape(len(dy), dx.shape[1], -1, self.kernel_size)
                for k in range(self.kernel_size):
                    first = k * self.dilation
                    last = first + self.stride * (len(dy) - 1) + 1
                    dx[first : last : self.stride, :, channels] += d[..., k]
        return LayerGradients(dx.reshape(x.shape), params, self)

    def stepper(self, batch_size: int = 1) -> Conv1dStepper:
        """Return an object that takes ``stride`` steps of a stream a call. See `Conv1dStepper`.

        Raises
        ------
        TypeError, ValueError
            ``batch_size`` is not an int of at least 1, or the stride is larger than the receptive
            field.
        """
        return Conv1dStepper(self, batch_size)

    def _checked(self, x: Any) -> Array:
        checked = checks.array("x", x, self._dtype, self._params.flat)
        if checked.ndim not in (2, 3) or checked.shape[-1] != self.in_channels:
            C = "C", self.in_channels
            forms: tuple[checks.Form, ...] = (("T", None), ("B", None), C), (("T", None), C)
            raise checks.wrong_shape("x", checked.shape, *forms)
        return checked

    def _steps(self, steps: int) -> int:
        """Return T' for T."""
        return max(0, (steps - self._seen) // self._pace + 1)

    def _group(self, g: int) -> tuple[slice, slice]:
        """Return the output and the input channels of a group."""
        o, c = self.out_channels // self.groups, self.in_channels // self.groups
        return slice(g * o, (g + 1) * o), slice(g * c, (g + 1) * c)

    def _matrices(self) -> Iterable[Array]:
        weight = self._params["weight"]
        for g in range(self.groups):
            rows, _ = self._group(g)
            yield weight[rows].reshape(self.out_channels // self.groups, -1)

    def _columns(self, x: Array) -> list[Array]:
        """Return, of each group, what its output channels see: (T'*B, C / groups * K)."""
        T, B = self._steps(len(x)), math.prod(x.shape[1:-1])
        x = self._xp.ascontiguousarray(x).reshape(len(x), B, self.in_channels)
        step, row, channel = x.strides
        strides = self.stride * step, row, channel, self.dilation * step
        shape = T, B, self.in_channels, self.kernel_size
        if self._xp is np:  # whose as_strided takes as long as a small product
            seen: Array = np.ndarray(shape, x.dtype, x, 0, strides)
        else:
            seen = self._xp.lib.stride_tricks.as_strided(x, shape, strides)
        return [seen[:, :, self._group(g)[1]].reshape(T * B, -1) for g in range(self.groups)]

    def _map(self, x: Array) -> Array:
        T, O, outer = self._steps(len(x)), self.out_channels, x.shape[1:-1]
        if not T:
            return self._xp.zeros((0, *outer, O), self._dtype)  # type: ignore[no-any-return]
        packed = self._packed or [None] * self.groups
        parts = []
        bias = self._params["bias"] if self.bias else None
        with backends.ignore_fp_errors(x):
            for g, (columns, weight) in enumerate(
                zip(self._columns(x), self._matrices(), strict=True)
            ):
                of_group = None if bias is None else bias[self._group(g)[0]]
                parts.append(affine(columns, weight, of_group, packed[g]))
            y: Array = parts[0] if len(parts) == 1 else self._xp.concatenate(parts, axis=1)
        return y.reshape(T, *outer, O)


class Conv1dStepper:
    """Runs a `Conv1d` on a stream: made by ``conv.stepper(B)``.

    Each call takes the next ``stride`` steps and gives one step of y, as the layer would of the
    whole stream behind receptive_field - stride steps of zeros. The parameters are those of the
    moment it was made. A stepper is for one thread at a time; `copy.copy`, `copy.deepcopy` and
    pickle give another one with the same weights and state.
    """

    def __init__(self, layer: Conv1d, batch_size: int = 1) -> None:
        batch = checks.size("batch_size", batch_size)
        if layer.stride > layer.receptive_field:
            raise ValueError(
                f"a stepper needs a stride of at most receptive_field={layer.receptive_field}, "
                f"got {layer.stride}"
            )
        self._layer = layer._copied({})
        self._layer.freeze()
        xp = layer._xp
        with backends.device_of(layer.flat_params):
            self._seen = xp.zeros((layer.receptive_field, batch, layer.in_channels), layer.dtype)
        self._lock = forks.Lock()

    def __copy__(self) -> Conv1dStepper:
        return copy.deepcopy(self)

    def __call__(self, x_t: Array) -> Array:
        """Run one step.

        Parameters
        ----------
        x_t : ndarray of the layer's dtype, (stride, B, C); with stride 1 also (B, C); without B if
            B is 1

        Returns
        -------
        y_t : ndarray, (B, O), or (O,) if x_t came without B

        Raises
        ------
        TypeError, ValueError
            ``x_t`` has another type or dtype, or another shape. The state is untouched then.
        RuntimeError
            Another thread is using the stepper. The state is untouched then.
        """
        layer, (_, batch, channels) = self._layer, self._seen.shape
        x_t = checks.array("x_t", x_t, layer.dtype, layer.flat_params)
        whole = layer.stride, batch, channels
        forms: list[tuple[int, ...]] = [whole]
        forms += [(batch, channels)] if layer.stride == 1 else []
        alone: list[tuple[int, ...]] = [(layer.stride, channels)] if batch == 1 else []
        alone += [(channels,)] if batch == layer.stride == 1 else []
        if x_t.shape not in (*forms, *alone):
            expected = " or ".join(map(str, dict.fromkeys((*forms, *alone))))
            raise ValueError(f"x_t must be {expected}, got {x_t.shape}")
        with backends.device_of(self._seen), self._exclusive():
            kept = layer.receptive_field - layer.stride
            self._seen[:kept] = self._seen[layer.stride :].copy()
            self._seen[kept:] = x_t.reshape(whole)
            y: Array = layer._map(self._seen)[0]
        without = x_t.shape in alone and x_t.shape not in forms
        return y.reshape(-1) if without else y

    def reset(self, mask: Array | None = None) -> None:
        """Set what has been seen to zeros, of all rows or of those where a mask (B,) is True.

        Raises
        ------
        TypeError, ValueError
            ``mask`` is not of bools, or not (B,). The state is untouched then.
        """
        rows: Any = slice(None)
        if mask is not None:
            rows = np.flatnonzero(checks.mask("mask", mask, self._seen.shape[1]))
        with backends.device_of(self._seen), self._exclusive():
            self._seen[:, rows if mask is None else self._layer._xp.asarray(rows)] = 0

    def _exclusive(self) -> AbstractContextManager[object]:
        return self._lock.claim(checks.stepper_in_use)
