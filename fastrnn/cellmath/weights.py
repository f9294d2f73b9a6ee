"""What compiled code takes in place of `spec.Weights` and `spec.Options`: no None, no text."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastrnn.spec import Options
from fastrnn.typing import Array

from .ops import ACTIVATIONS


class OptionCodes(NamedTuple):
    """`Options` as numbers."""

    gate: int
    candidate: int
    output: int
    slope: Any
    clip: Any
    coupled: bool


def option_codes(options: Options, dtype: np.dtype[Any]) -> OptionCodes:
    """Return options for compiled code."""
    real, code = dtype.type, ACTIVATIONS.index
    return OptionCodes(
        code(options.gate),
        code(options.candidate),
        code(options.output),
        real(options.slope),
        real(options.clip),
        options.coupled,
    )


class CellWeights(NamedTuple):
    """`Weights` without None, for compiled code: what is absent has size 0."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, P)
    b_ih: Array  # (G*H,), zeros if absent
    b_hh: Array  # (G, H), zeros if absent
    hr: Array  # (P, H)
    peephole: Array  # (3, H)
    options: OptionCodes


class CellGradients(NamedTuple):
    """Gradients of `Weights` without None: what is absent has size 0."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, P)
    b_ih: Array  # (G*H,)
    b_hh: Array  # (G*H,)
    hr: Array  # (P, H)
    peephole: Array  # (3*H,)
