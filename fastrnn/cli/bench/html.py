"""The report as one HTML page that needs nothing else: no script, no file, no network."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import jinja2

from . import figures, machine, plots
from .report import Report, summary

_TEMPLATE = "report.html.jinja"


def write(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["amount"] = figures.amount
    tables = [
        {
            "heading": heading,
            "picture": _image(plots.ratios(results)) if any(r.best_peer for r in results) else None,
            "head": head,
            "lines": lines,
            "notes": figures.notes(results),
            "summary": summary(results),
            "profile": figures.profile(results),
            "count": len(results),
        }
        for heading, results in report.tables()
        for head, lines in [figures.table(results, report.peaks)]
    ]
    page: str = environment.get_template(_TEMPLATE).render(
        report=report,
        explanation=figures.EXPLANATION,
        machine=machine.line(report.machine),
        roofline=_image(plots.roofline(report)),
        tables=tables,
    )
    return page


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + b64encode(svg.encode("utf-8")).decode("ascii")
