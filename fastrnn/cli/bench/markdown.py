"""The report as Markdown, which a terminal shows as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from . import figures
from .report import Report, summary


def write(report: Report) -> str:
    """The whole report."""
    machine = report.machine | {"versions": ", ".join(" ".join(v) for v in report.versions.items())}
    parts = [
        "# fastrnn bench",
        f"```sh\n{report.command}\n```",
        fill(figures.EXPLANATION, 100),
        "\n".join(f"- {name}: {value}" for name, value in machine.items()),
        "\n".join(f"- {name}: {value}" for name, value in report.peers.items()),
        f"Where the time went is not known: {report.profile}." if report.profile else "",
        _peaks(report),
        *tables(report),
    ]
    if report.left_out:
        left_out = (f"- {case}: {reason}" for case, reason in report.left_out.items())
        parts += ["## Left out", "\n".join(left_out)]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(report: Report) -> Iterator[str]:
    """The tables and what is to be said below them."""
    for heading, results in report.tables():
        head, lines = figures.table(results, report.peaks)
        below = [f"- {note}" for note in figures.notes(results)]
        for name, (mean, least) in summary(results).items():
            below.append(f"- peer / {name}: geometric mean {mean:.2f}, least {least:.2f}")
        parts = [f"## {heading}", markdown_table(head, lines), "\n".join(below)]
        head, lines = figures.profile(results)
        parts += ["Where the time went:", markdown_table(head, lines)] if lines else []
        yield "\n\n".join(filter(None, parts))


def _peaks(report: Report) -> str:
    peaks = [f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in report.peaks.gflops.items()]
    reading = [
        f"{figures.amount(size, 'bytes')} {rate:.0f}" for size, rate in report.peaks.bandwidth
    ]
    return (
        f"Peaks ({report.peaks.source}): {', '.join(peaks)}; "
        f"GB/s of reading by size: {', '.join(reading)}."
    )


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose columns are as wide as they must be, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, lines)])
