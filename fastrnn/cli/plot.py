"""What a training looked like, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..typing import Array

Series = tuple[Sequence[float] | Array, Sequence[float] | Array]  # x, y


def plot(path: Path, curves: dict[str, Series], norms: dict[str, Array]) -> None:
    """Draw curves of bits by update, and the gradient's norm by time step."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (x, y) in curves.items():
        left.plot(x, y, label=name)
    left.set(title="bits per character by update", xlabel="update", ylabel="bits per character")
    left.set_ylim(top=min(left.get_ylim()[1], 4.0))
    steps = np.arange(1 - len(norms["h"]), 1)
    for name, norm in norms.items():
        right.semilogy(steps, norm, label=f"dL/d{name}")
    right.set(title="gradient of the last step's loss, by step")
    right.set(xlabel="step, counted from the last", ylabel="norm, mean of rows")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)
