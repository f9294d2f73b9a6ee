"""What a layer, a stack and a backend tell each other of a pass: its cell, weights, arguments and
results.

One *pass* is one layer in one direction over a span of time.

Letters: T time, B batch, I input, H hidden, P projection (or H), G gates, S saved values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .schedule import RowSchedule
from .typing import Array


class Options(NamedTuple):
    """What a cell with options computes otherwise; names as in `cellmath.ops.ACTIVATIONS`."""

    gate: str = "sigmoid"  # of an LSTM's i, f and o, and of a GRU's r and z
    candidate: str = "tanh"  # of an LSTM's g, a GRU's n and an RNN's h
    output: str = "tanh"  # of an LSTM's c
    slope: float = 0.2  # of "hard_sigmoid"
    clip: float = math.inf
    coupled: bool = False


@dataclass(frozen=True)
class CellSpec:
    """What the time loops must know of a cell; gate order and counts stand here and nowhere
    else."""

    kind: str
    gates: tuple[str, ...]
    """Row blocks of the weights, in torch's order."""
    has_c: bool
    """Whether there is a second state c."""
    saved: tuple[str, ...]
    """Values saved per unit and step for backward, in order."""
    linear_before_reset: bool = False
    """Whether the last gate's recurrent part stays apart from its input part."""
    reset_before: bool = False
    """Whether the recurrent product of the last gate is over r * h."""
    options: Options | None = None
    """Of the cells with options, set by the layer."""


class Weights(NamedTuple):
    """Parameters of one layer in one direction, or their gradients. None where absent."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, P)
    b_ih: Array | None = None  # (G*H,)
    b_hh: Array | None = None  # (G*H,)
    hr: Array | None = None  # (P, H)
    peephole: Array | None = None  # (3*H,), rows i, f, o

    def copied(self) -> Weights:
        """Return a copy that shares no memory with this."""
        # mypy: a list of optional arrays for fields of which two are never None
        return Weights(*[None if a is None else a.copy() for a in self])  # type: ignore[arg-type]


class Numerics(NamedTuple):
    """How exact a layer wants its sums; see the layers' arguments of these names."""

    precision: str = "highest"
    reproducible: bool = False


class PassArgs(NamedTuple):
    """The arguments of one pass, but its weights."""

    cell: CellSpec
    numerics: Numerics
    x: Array  # (T, B, I), any strides
    h0: Array  # (B, P), C-contiguous
    c0: Array | None  # (B, H), C-contiguous, or None for cells without c
    rows: RowSchedule  # which rows run at which step, and where they start from zeros
    reverse: bool  # run t = T-1 .. 0


class Saved(NamedTuple):
    """What backward needs of one pass. Never shares memory with what forward returned as y.

    Of gates and c, what belongs to a row that does not run may be anything.
    """

    y: Array  # (T, B, P), h after every step, 0 where the row does not run
    gates: Array  # (T, B, S*H), the values named in CellSpec.saved, in that order
    c: Array | None  # (T, B, H), c after every step; None for cells without c


class OutputGradients(NamedTuple):
    """Gradients of the loss by what a pass returned."""

    dy: Array | None  # (T, B, P), any strides, or None for zeros; ignored where a row does not run
    dh: Array  # (B, P), of h after the last step
    dc: Array | None  # (B, H), or None for cells without c
