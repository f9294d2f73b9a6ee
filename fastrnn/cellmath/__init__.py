"""The cells: what they are made of (`CellSpec`) and their maths, written once.

`lstm`, `gru` and `rnn` are written in the part of NumPy that Numba compiles too, so one text is
both the readable reference and the compiled fallback. A cell is three functions (`CellMath`):

`forward`
    one step of B rows: updates h (B, P) and c (B, H) in place and writes saved (B, S, H)
`backward`
    the same step backwards: turns dh, dc after the step into those before it, in place, and writes
    dpre (B, G, H), the gradient of the input projection W x + b_ih
`gradients`
    adds the gradients of all parameters but W and b_ih, from all N rows of all steps at once

For cells without c, every array of c has width 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import general, gru, lstm, ops, rnn

if TYPE_CHECKING:
    from fastrnn.backends.base import Array


@dataclass(frozen=True)
class CellSpec:
    """What a driver must know of a cell; gate order and counts stand here and nowhere else."""

    kind: str
    gates: tuple[str, ...]
    """Row blocks of the weights, in torch's order."""
    has_c: bool
    """Whether there is a second state c."""
    saved: tuple[str, ...]
    """Values kept per unit and step for backward, in order."""
    split_last: bool = False
    """Whether the last gate's recurrent part stays apart from its input part."""
    reset_before: bool = False
    """Whether the recurrent product of the last gate is over r * h."""
    options: Options | None = None
    """Of the cells in `GENERAL`, set by the layer."""


class Options(NamedTuple):
    """What the cells in `GENERAL` compute otherwise; names as in `ops.ACTIVATIONS`."""

    gate: str = "sigmoid"  # of an LSTM's i, f and o, and of a GRU's r and z
    candidate: str = "tanh"  # of an LSTM's g, a GRU's n and an RNN's h
    output: str = "tanh"  # of an LSTM's c
    slope: float = 0.2  # of "hard_sigmoid"
    clip: float = math.inf
    coupled: bool = False

    def codes(self, dtype: np.dtype[Any]) -> Codes:
        """Return them for compiled code."""
        real = dtype.type
        code = ops.ACTIVATIONS.index
        return Codes(
            code(self.gate),
            code(self.candidate),
            code(self.output),
            real(self.slope),
            real(self.clip),
            self.coupled,
        )


class Codes(NamedTuple):
    """`Options` as numbers."""

    gate: int
    candidate: int
    output: int
    slope: Any
    clip: Any
    coupled: bool


CELLS = {
    spec.kind: spec
    for spec in (
        CellSpec("rnn_tanh", gates=("h",), has_c=False, saved=()),
        CellSpec("rnn_relu", gates=("h",), has_c=False, saved=()),
        CellSpec("lstm", gates=("i", "f", "g", "o"), has_c=True, saved=("i", "f", "g", "o")),
        CellSpec(
            "lstm_peephole", gates=("i", "f", "g", "o"), has_c=True, saved=("i", "f", "g", "o")
        ),
        CellSpec(
            "gru",
            gates=("r", "z", "n"),
            has_c=False,
            saved=("r", "z", "n", "hn"),
            split_last=True,
        ),
        CellSpec(
            "gru_reset_before",
            gates=("r", "z", "n"),
            has_c=False,
            saved=("r", "z", "n"),
            reset_before=True,
        ),
    )
}


GENERAL = {
    spec.kind: spec
    for spec in (
        CellSpec("rnn_general", gates=("h",), has_c=False, saved=("h",), options=Options()),
        CellSpec(
            "lstm_general",
            gates=("i", "f", "g", "o"),
            has_c=True,
            saved=("i", "f", "g", "o"),
            options=Options(),
        ),
        CellSpec(
            "gru_general",
            gates=("r", "z", "n"),
            has_c=False,
            saved=("r", "z", "n", "hn"),
            split_last=True,
            options=Options(),
        ),
        CellSpec(
            "gru_general_reset_before",
            gates=("r", "z", "n"),
            has_c=False,
            saved=("r", "z", "n"),
            reset_before=True,
            options=Options(),
        ),
    )
}
"""The same cells with options; they save the arguments of the activations."""


class Packed(NamedTuple):
    """`Weights` without None, for compiled code: what is absent has size 0."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, P)
    b_ih: Array  # (G*H,), zeros if absent
    b_hh: Array  # (G, H), zeros if absent
    hr: Array  # (P, H)
    peephole: Array  # (3, H)
    options: Codes


class Gradients(NamedTuple):
    """Gradients of `Weights` without None: what is absent has size 0."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, P)
    b_ih: Array  # (G*H,)
    b_hh: Array  # (G*H,)
    hr: Array  # (P, H)
    peephole: Array  # (3*H,)


class CellMath(NamedTuple):
    """The three functions of a cell."""

    forward: Callable[..., None]
    backward: Callable[..., None]
    gradients: Callable[..., None]


_LSTM = CellMath(lstm.forward, lstm.backward, lstm.gradients)

MATHS = {
    "rnn_tanh": CellMath(rnn.forward_tanh, rnn.backward_tanh, rnn.gradients),
    "rnn_relu": CellMath(rnn.forward_relu, rnn.backward_relu, rnn.gradients),
    "lstm": _LSTM,
    "lstm_peephole": _LSTM,
    "gru": CellMath(gru.forward_reset_after, gru.backward_reset_after, gru.gradients_reset_after),
    "gru_reset_before": CellMath(
        gru.forward_reset_before, gru.backward_reset_before, gru.gradients_reset_before
    ),
    "rnn_general": CellMath(general.rnn_forward, general.rnn_backward, rnn.gradients),
    "lstm_general": CellMath(general.lstm_forward, general.lstm_backward, general.lstm_gradients),
    "gru_general": CellMath(
        general.gru_forward_reset_after,
        general.gru_backward_reset_after,
        general.gru_gradients_reset_after,
    ),
    "gru_general_reset_before": CellMath(
        general.gru_forward_reset_before,
        general.gru_backward_reset_before,
        general.gru_gradients_reset_before,
    ),
}
