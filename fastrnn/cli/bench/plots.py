"""Pictures in SVG: bars of ratios, and a roofline plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ...typing import Array
from . import figures, machine
from .report import Report, Result

WIN, LOSS, PEER, LINE = "#2f855a", "#c05621", "#805ad5", "#5c6b7a"
_WIDTH = 9.0  # inches
_BAR = 0.22  # of height for each bar


def write(report: Report) -> str:
    """All ratios of a report, for a page of one's own."""
    everything = [result for _, results in report.tables() for result in results]
    return ratios(everything, machine.line(report.machine))


def ratios(results: Sequence[Result], caption: str = "") -> str:
    """Bars from 1 to the fastest peer's figure over ours, with quartiles as a thin line.

    Results without a peer have no bar.
    """
    found = [
        (str(result.case.shape), ratio)
        for result in results
        if (ratio := result.ratio(result.best)) is not None
    ]
    figure = Figure(figsize=(_WIDTH, _BAR * len(found) + 0.8), layout="constrained")
    axes = figure.subplots()
    for y, (_, ratio) in enumerate(found):
        colour = WIN if ratio.median >= 1 else LOSS
        axes.barh(y, ratio.median - 1, left=1, height=0.65, color=colour)
        axes.plot([ratio.low, ratio.high], [y, y], color="black", linewidth=1)
        end = (max(ratio.high, 1), y)
        axes.annotate(
            f"{ratio.median:.2f}", end, (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_xscale("log")
    edges = [edge for _, ratio in found for edge in (ratio.low, ratio.high)]
    axes.set_xlim(min([0.5, *edges]) / 1.1, max([2.0, *edges]) * 1.25)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(found)), [label for label, _ in found], fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.tick_params("y", length=0)
    axes.grid(axis="x", color="#d9e0e6")
    axes.set_axisbelow(True)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel(caption, fontsize=8)
    axes.spines[:].set_visible(False)
    return _svg(figure)


def roofline(report: Report) -> str:
    """Every timed case, under the peaks and three speeds of reading."""
    peaks, bandwidth = report.peaks, report.peaks.bandwidth
    figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for role, colour in (("peer", PEER), ("ours", WIN)):
        points = [
            (result.case.flops / result.case.bytes, result.case.flops / row.median / 1e9)
            for result in report.results
            for row in (result.best_peer, result.best)
            if result.unit == "seconds" and row is not None and row.role == role
        ]
        if points:
            label = "ours" if role == "ours" else "fastest peer"
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=14, color=colour, alpha=0.7, label=label)
    low, high = axes.get_xlim()
    for name, rate in peaks.gflops.items():
        axes.axhline(rate, color="black", linewidth=1.2)
        axes.annotate(
            f"{name} peak",
            (high, rate),
            (-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    peak = max(peaks.gflops.values())
    for size, rate in (bandwidth[0], bandwidth[len(bandwidth) // 2], bandwidth[-1]):
        label = f"reading {figures.amount(size, 'bytes')}"
        ends = low, min(high, peak / rate)
        axes.plot(ends, [end * rate for end in ends], "--", color=LINE, linewidth=1)
        place = (low, low * rate)
        axes.annotate(label, place, (4, 3), textcoords="offset points", fontsize=8, color=LINE)
    axes.set_xlim(low, high)
    axes.set(xlabel="operations a byte", ylabel="GFLOP/s")
    axes.grid(color="#d9e0e6")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return _svg(figure)


def heat_maps(
    Bs: Sequence[int],
    Hs: Sequence[int],
    gflops: Mapping[str, Array],
    marked: Mapping[str, Sequence[tuple[int, int]]],
    caption: str,
) -> str:
    """GFLOP/s by H and B, a picture for each cell; shapes (B, H) that are marked have a cross."""
    figure = Figure(figsize=(_WIDTH, 5.5), layout="constrained")
    panels = figure.subplots(1, len(gflops), squeeze=False)[0]
    top = max(float(grid.max()) for grid in gflops.values())
    for axes, (cell, grid) in zip(panels, gflops.items(), strict=True):
        image = axes.imshow(grid, origin="lower", aspect="auto", vmin=0, vmax=top)
        points = [(Bs.index(B), Hs.index(H)) for B, H in marked[cell]]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=9, marker="x", color="red", linewidths=0.8)
        axes.set(title=cell, xlabel="B", ylabel="H")
        for axis, values in ((axes.xaxis, Bs), (axes.yaxis, Hs)):
            ticks = range(0, len(values), -(-len(values) // 12))
            axis.set_ticks(list(ticks), [str(values[tick]) for tick in ticks])
    figure.colorbar(image, ax=list(panels), label="GFLOP/s")
    figure.suptitle(caption, fontsize=9)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """The same text each time, with letters as letters."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastrnn"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    written = text.getvalue()
    lines = written[written.index("<svg") :].splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
