"""What a training looked like, as a picture, or as text where matplotlib is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..typing import Array

Series = tuple[Sequence[float] | Array, Sequence[float] | Array]  # x, y


def plot(folder: Path, curves: dict[str, Series], norms: dict[str, Array]) -> Path:
    """Draw curves of bits by update, and the gradient's norm by time step; return the file."""
    steps = np.arange(1 - len(norms["h"]), 1)
    reach: dict[str, Series] = {f"dL/d{name}": (steps, norm) for name, norm in norms.items()}
    titles = "bits per character by update", "gradient of the last step's loss, by step"
    try:
        from matplotlib.figure import Figure
    except ImportError:
        path = folder / "training.txt"
        both = text_plot(titles[0], curves), text_plot(titles[1], reach, log=True)
        path.write_text("\n\n".join(both) + "\n", encoding="utf-8")
        return path
    path = folder / "training.png"
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (x, y) in curves.items():
        left.plot(x, y, label=name)
    left.set(title=titles[0], xlabel="update", ylabel="bits per character")
    left.set_ylim(top=min(left.get_ylim()[1], 4.0))
    for name, (x, y) in reach.items():
        right.semilogy(x, y, label=name)
    right.set(title=titles[1], xlabel="step, counted from the last", ylabel="norm, mean of rows")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=120)
    return path


def text_plot(
    title: str, series: dict[str, Series], *, log: bool = False, width: int = 72, height: int = 16
) -> str:
    """Draw series of points in characters; points that are not finite are left out."""
    points = []
    for mark, (xs, ys) in zip("*o+x", series.values(), strict=False):
        for x, y in zip(xs, ys, strict=True):
            y = math.log10(y) if log and y > 0 else (math.nan if log else y)
            if math.isfinite(y):
                points.append((float(x), float(y), mark))
    legend = ", ".join(f"{mark} {name}" for mark, name in zip("*o+x", series, strict=False))
    if not points:
        return f"{title} ({legend}): nothing to show"
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    rows = [[" "] * width for _ in range(height)]
    for x, y, mark in points:
        column = round((x - x0) / ((x1 - x0) or 1) * (width - 1))
        row = round((y1 - y) / ((y1 - y0) or 1) * (height - 1))
        rows[row][column] = mark
    high, low = (10**y1, 10**y0) if log else (y1, y0)
    labels = [f"{high:9.3g}", *[" " * 9] * (height - 2), f"{low:9.3g}"]
    lines = [f"{label} |{''.join(row)}" for label, row in zip(labels, rows, strict=True)]
    foot = f"{x0:g}".ljust(width // 2) + f"{x1:g}".rjust(width - width // 2)
    return "\n".join([f"{title} ({legend})", *lines, " " * 10 + "+" + "-" * width, " " * 11 + foot])
