"""Drawings in SVG: bars of ratios, and a roofline plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from .report import Spread

_WIDTH = 860
_LABEL = 250  # of a bar's name
_LINE = 22  # height of a bar and the gap after it


STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5c6b7a; --rule: #d9e0e6;
  --page: #ffffff; --panel: #f5f7f9; --win: #2f855a; --loss: #c05621; --peer: #805ad5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #9aa8b5; --rule: #34404c;
  --page: #14191f; --panel: #1c232b; --win: #48bb78; --loss: #ed8936; --peer: #b794f4; } }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .tick { fill: var(--soft); }
.grid { stroke: var(--rule); } .one { stroke: var(--ink); } .win { fill: var(--win); }
.loss { fill: var(--loss); } .spread { stroke: var(--ink); stroke-width: 1.5; }
.roof { stroke: var(--ink); stroke-width: 1.5; }
.slope { stroke: var(--soft); stroke-dasharray: 5 4; }
.ours { fill: var(--win); } .peer { fill: var(--peer); fill-opacity: .6; }
"""


class Bar(NamedTuple):
    """A ratio and what it is of."""

    label: str
    value: Spread
    tip: str


class Point(NamedTuple):
    """A measured figure in a roofline plot."""

    intensity: float  # operations for each byte
    gflops: float
    kind: str  # a class of the style sheet
    tip: str


class Roof(NamedTuple):
    """A ceiling: a peak, or a slope of so many GB/s."""

    label: str
    gflops: float | None = None
    gbytes: float | None = None


def bars(rows: Sequence[Bar]) -> str:
    """Bars from 1 to each ratio, on a logarithmic scale, with quartiles as a thin line."""
    edges = [edge for row in rows for edge in (row.value.low, row.value.high)]
    low, high = min([0.5, *edges]) / 1.1, max([2.0, *edges]) * 1.25
    right = _WIDTH - 60

    def x(value: float) -> float:
        return _LABEL + math.log(value / low) / math.log(high / low) * (right - _LABEL)

    height = _LINE * len(rows) + 34
    parts = []
    for tick in _ticks(low, high):
        kind = "one" if tick == 1 else "grid"
        parts.append(_line(x(tick), 6, x(tick), height - 26, kind))
        parts.append(_text(x(tick), height - 10, f"{tick:g}×", "tick", "middle"))
    for index, (label, value, tip) in enumerate(rows):
        y = 10 + _LINE * index
        left, end = sorted((x(1), x(value.median)))
        kind = "win" if value.median >= 1 else "loss"
        middle = y + 7
        parts.append(
            f"<g><title>{escape(tip)}</title>"
            f'<rect class="{kind}" x="{left:.1f}" y="{y}" width="{max(end - left, 1):.1f}" '
            f'height="14" rx="2"/>'
            + _line(x(value.low), middle, x(value.high), middle, "spread")
            + _text(_LABEL - 10, y + 11, label, "label", "end")
            + _text(x(max(value.high, 1)) + 6, y + 11, f"{value.median:.2f}", "label")
            + "</g>"
        )
    return _svg(height, "ratios", parts)


def roofline(roofs: Sequence[Roof], points: Sequence[Point]) -> str:
    """GFLOP/s by operations a byte, both logarithmic, under the machine's ceilings."""
    peak = max([roof.gflops or 0 for roof in roofs] + [point.gflops for point in points])
    x0 = 10 ** math.floor(math.log10(min([0.25, *(p.intensity for p in points)])))
    x1 = 10 ** math.ceil(math.log10(max([100, *(p.intensity for p in points)])))
    y0 = 10 ** math.floor(math.log10(min([1, *(p.gflops for p in points)])))
    y1 = peak * 1.6
    left, right, top, bottom = 60, _WIDTH - 20, 14, 380
    x = _scale(x0, x1, left, right)
    y = _scale(y0, y1, bottom, top)

    parts = []
    for tick in _decades(x0, x1):
        parts.append(_line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 18, f"{tick:g}", "tick", "middle"))
    for tick in _decades(y0, y1):
        parts.append(_line(left, y(tick), right, y(tick), "grid"))
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "tick", "end"))
    for label, gflops, gbytes in roofs:
        if gflops is not None:
            parts.append(_line(left, y(gflops), right, y(gflops), "roof"))
            parts.append(_text(right - 4, y(gflops) - 5, label, "label", "end"))
        elif gbytes is not None:  # from where it enters the picture to where it reaches the peak
            start, stop = max(x0, y0 / gbytes), min(x1, peak / gbytes)
            ends = x(start), y(start * gbytes), x(stop), y(stop * gbytes)
            parts += [_line(*ends, "slope"), _along(*ends, label)]
    for intensity, gflops, kind, tip in points:
        parts.append(
            f'<circle class="{kind}" cx="{x(intensity):.1f}" cy="{y(gflops):.1f}" r="4">'
            f"<title>{escape(tip)}</title></circle>"
        )
    parts.append(_text((left + right) / 2, bottom + 36, "operations a byte", "tick", "middle"))
    parts.append(_text(4, top + 6, "GFLOP/s", "tick"))
    return _svg(bottom + 44, "roofline", parts)


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """A logarithmic axis."""
    return lambda value: start + math.log(value / low) / math.log(high / low) * (stop - start)


def _ticks(low: float, high: float) -> Iterator[float]:
    """1, 2, 5 and their decades, or decades alone where the axis is long."""
    steps = (1, 2, 5) if high / low < 200 else (1,)
    for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (tick for step in steps if low <= (tick := step * 10.0**decade) <= high)


def _decades(low: float, high: float) -> Iterator[float]:
    for decade in range(round(math.log10(low)), math.floor(math.log10(high)) + 1):
        yield 10.0**decade


def _svg(height: float, kind: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" role="img" '
        f'viewBox="0 0 {_WIDTH} {height}">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _along(x1: float, y1: float, x2: float, y2: float, text: str) -> str:
    """Words above a line, near its beginning."""
    angle = math.degrees(math.atan2(y2 - y1, x2 - x1))
    turned = f"translate({x1:.1f} {y1:.1f}) rotate({angle:.1f})"
    return f'<g transform="{turned}">{_text(40, -5, text, "label")}</g>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
