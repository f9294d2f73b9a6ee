"""The cells: their specifications and their maths, written once.

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

from collections.abc import Callable
from typing import NamedTuple

from fastrnn.spec import CellSpec, Options

from . import general, gru, lstm, rnn

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
            linear_before_reset=True,
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
            "lstm_general_peephole",
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
            linear_before_reset=True,
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


class CellMath(NamedTuple):
    """The three functions of a cell."""

    forward: Callable[..., None]
    backward: Callable[..., None]
    gradients: Callable[..., None]


_LSTM = CellMath(lstm.forward, lstm.backward, lstm.gradients)
_LSTM_GENERAL = CellMath(general.lstm_forward, general.lstm_backward, general.lstm_gradients)

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
    "lstm_general": _LSTM_GENERAL,
    "lstm_general_peephole": _LSTM_GENERAL,
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
