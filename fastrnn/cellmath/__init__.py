"""The cells: what they are made of (`CellSpec`) and their maths, written once.

`lstm`, `gru` and `rnn` hold array-level step functions in the part of NumPy that Numba compiles
too, so one text is both the readable reference and the compiled fallback.
"""

from __future__ import annotations

from dataclasses import dataclass


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


CELLS = {
    spec.kind: spec
    for spec in (
        CellSpec("rnn_tanh", gates=("h",), has_c=False, saved=()),
        CellSpec("rnn_relu", gates=("h",), has_c=False, saved=()),
        CellSpec("lstm", gates=("i", "f", "g", "o"), has_c=True, saved=("i", "f", "g", "o")),
        CellSpec(
            "lstm_peephole", gates=("i", "f", "g", "o"), has_c=True, saved=("i", "f", "g", "o")
        ),
        CellSpec("gru", gates=("r", "z", "n"), has_c=False, saved=("r", "z", "n", "hn")),
        CellSpec("gru_reset_before", gates=("r", "z", "n"), has_c=False, saved=("r", "z", "n")),
    )
}
