"""The report as one HTML page that needs nothing else: no script, no file, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from . import figures, svg
from .report import Report, Result, summary

_STYLE = """
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; } h2 { margin: 2.5rem 0 .5rem; } p, li { max-width: 48rem; }
.soft, .notes { color: var(--soft); } .notes { font-size: .9em; }
pre { padding: .7rem 1rem; background: var(--panel); border-radius: 6px; overflow-x: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88em; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.facts td, .facts th { text-align: left; white-space: normal; vertical-align: top; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0 1rem; }
"""


def write(report: Report) -> str:
    """The page."""
    body = "\n".join(_body(report))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>fastrnn bench</title>\n<style>{svg.STYLE}{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    yield "<h1>fastrnn bench</h1>"
    yield f'<p class="soft">{escape(report.machine.get("processor", ""))}</p>'
    yield f"<pre>{escape(report.command)}</pre>"
    yield f"<p>{escape(figures.EXPLANATION)}</p>"
    yield from _summary(report)
    yield "<h2>Roofline</h2>"
    yield _roofline(report)
    for heading, results in report.tables():
        yield f"<h2>{escape(heading)}</h2>"
        bars = [bar for result in results if (bar := ratio_bar(result)) is not None]
        if bars:
            yield svg.bars(bars)
        head, lines = figures.table(results, report.ceilings)
        yield _table(head, lines)
        yield _list(figures.notes(results))
    yield "<h2>Machine and software</h2>"
    yield _facts(report.machine | report.versions)
    yield "<h2>Peers</h2>"
    yield _facts(report.peers)
    yield "<h2>Tolerances</h2>"
    yield "<p>Largest difference from the reference, of an array's largest value.</p>"
    yield _facts({dtype: f"{value:g}" for dtype, value in report.tolerances.items()})
    yield "<h2>Ceilings</h2>"
    yield f"<p>Measured with {escape(report.ceilings.source)}.</p>"
    yield _facts(
        {
            f"{dtype} multiply-adds": f"{v:.0f} GFLOP/s"
            for dtype, v in report.ceilings.gflops.items()
        }
        | {
            f"reading {figures.amount(size, 'bytes')}": f"{rate:.0f} GB/s"
            for size, rate in report.ceilings.bandwidth
        }
    )
    if report.left_out:
        yield "<h2>Left out</h2>"
        yield _list([f"{case}: {reason}" for case, reason in report.left_out.items()])


def _summary(report: Report) -> Iterator[str]:
    lines = [
        [f"{heading}, {name}", str(len(results)), f"{mean:.2f}", f"{least:.2f}"]
        for heading, results in report.tables()
        for name, (mean, least) in summary(results).items()
    ]
    if lines:
        yield "<h2>The fastest peer's figure over ours</h2>"
        yield _table(["", "shapes", "geometric mean", "least"], lines)


def ratio_bar(result: Result) -> svg.Bar | None:
    """The fastest peer's figure over ours; None where no peer took part."""
    ratio, rival = result.ratio(result.best), result.rival
    if ratio is None or rival is None:
        return None
    ours = figures.cell(result.best, result.unit)
    tip = f"{result.best.name} {ours}, {rival.name} {figures.cell(rival, result.unit)}"
    return svg.Bar(str(result.case.shape), ratio, tip)


def _roofline(report: Report) -> str:
    """Every timed case, under the peaks and three speeds of reading."""
    ceilings = report.ceilings
    roofs = [svg.Roof(f"{name} peak", gflops=rate) for name, rate in ceilings.gflops.items()]
    middle = ceilings.bandwidth[len(ceilings.bandwidth) // 2]
    for size, rate in (ceilings.bandwidth[0], middle, ceilings.bandwidth[-1]):
        roofs.append(svg.Roof(f"reading {figures.amount(size, 'bytes')}", gbytes=rate))
    points = []
    for result in report.results:
        rows = [result.rival, result.best] if result.unit == "seconds" else []
        for row in rows:
            if row is None:
                continue
            gflops = result.case.flops / row.median / 1e9
            tip = f"{result.case}: {row.name} {gflops:.1f} GFLOP/s"
            kind = "ours" if row.role == "ours" else "peer"
            points.append(svg.Point(result.case.flops / result.case.bytes, gflops, kind, tip))
    legend = '<p class="notes">Green: ours. Violet: the fastest peer.</p>'
    return svg.roofline(roofs, points) + legend


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    rest = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>\n" for line in lines
    )
    return f'<div class="scroll"><table>\n<tr>{first}</tr>\n{rest}</table></div>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n"
        for name, value in facts.items()
    )
    return f'<table class="facts">\n{rows}</table>'


def _list(items: Sequence[str]) -> str:
    if not items:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
