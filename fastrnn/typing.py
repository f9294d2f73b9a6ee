"""Types for annotations of one's own: arrays, states, and the values that options can have.

Type checkers read them; what is passed at run time is checked where it is passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import numpy as np

__all__ = [
    "Activation",
    "Array",
    "Backend",
    "Device",
    "FloatDType",
    "HostBackend",
    "LayerOptions",
    "Pair",
    "PairGradient",
    "Precision",
    "RunOptions",
    "Score",
    "State",
    "WeightDType",
]

Array = np.ndarray[Any, np.dtype[Any]]

Pair = tuple[Array, Array]
"""State of an LSTM, (h, c); that of a GRU or an RNN is an `Array`, h."""

PairGradient = tuple[Array | None, Array | None]
"""Gradient of a loss by a `Pair`; a part that is None is zeros."""

State = Array | Pair
"""State of any layer or cell."""

Activation = Literal["tanh", "sigmoid", "relu", "hard_sigmoid"]
Precision = Literal["highest", "high", "medium"]
Backend = Literal["auto", "cpu", "numba", "numpy", "cuda"]
HostBackend = Literal["auto", "cpu", "numba", "numpy"]
WeightDType = Literal["bfloat16", "int8"]
Device = Literal["cpu", "cuda"]
Score = Literal["dot", "general", "additive"]

FloatDType = (
    Literal["float32", "float64", "f4", "f8"]
    | type[np.float32]
    | type[float]
    | np.dtype[np.floating[Any]]
)
"""What says float32 or float64; NumPy's float64 is a Python float, too."""


class RunOptions(TypedDict, total=False):
    """Constructors' arguments by keyword that say how a recurrent layer runs, not what it is."""

    dropout: float
    rng: int | np.random.Generator | None
    precision: Precision
    reproducible: bool
    backend: Backend


class LayerOptions(RunOptions, total=False):
    """Constructors' arguments by keyword, as `from_params` and the like hand them on, but dtype;
    which of them a class has, its constructor says."""

    num_layers: int
    nonlinearity: Activation
    reset_after: bool
    proj_size: int
    peephole: bool
    gate_activation: Activation
    gate_slope: float
    activation: Activation
    output_activation: Activation | None
    clip: float | None
    coupled: bool
    bias: bool
    batch_first: bool
    bidirectional: bool
    reverse: bool
    device: Device
    eps: float
    stride: int
    dilation: int
    groups: int


# The form of a layer's state, and of a gradient of it. Defaults, which the standard library has
# from Python 3.13 on only, let `Tape`, `Gradients` and the like stand alone in annotations.
if TYPE_CHECKING:
    import typing_extensions

    S = typing_extensions.TypeVar("S", default=Any)
    D = typing_extensions.TypeVar("D", default=Any)
else:
    S = TypeVar("S")
    D = TypeVar("D")
