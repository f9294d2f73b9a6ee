"""The ratios alone, as one drawing for a page of one's own."""

from __future__ import annotations

from . import svg
from .html import ratio_bar
from .report import Report


def write(report: Report) -> str:
    """The drawing, with its colours inside."""
    results = (result for _, results in report.tables() for result in results)
    drawing = svg.bars([bar for result in results if (bar := ratio_bar(result)) is not None])
    head, rest = drawing.split(">", 1)
    page = '<rect width="100%" height="100%" style="fill: var(--page)"/>'
    return f"{head}><style>{svg.STYLE}</style>{page}{rest}\n"
