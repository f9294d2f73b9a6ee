"""Figures in words: what Markdown, HTML and the terminal show alike."""

from __future__ import annotations

from collections.abc import Sequence

from .peaks import Peaks
from .profile import PARTS
from .report import Result, Row, Spread


def amount(value: float, unit: str) -> str:
    """Seconds or bytes in a unit that suits them."""
    scales = (
        ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
        if unit == "seconds"
        else ((2.0**30, "GB"), (2.0**20, "MB"), (2.0**10, "KB"), (1.0, "B"))
    )
    scale, name = next((pair for pair in scales if value >= pair[0]), scales[-1])
    return f"{three(value / scale)} {name}"


def three(value: float) -> str:
    """Three digits, and no more than the whole part where that is longer."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def times(found: Spread | None) -> str:
    """A ratio with its quartiles."""
    if found is None:
        return ""
    return f"{found.median:.2f} [{found.low:.2f}, {found.high:.2f}]"


def cell(row: Row | None, unit: str) -> str:
    """One candidate's figure."""
    if row is None:
        return ""
    tail = "" if row.p99 is None else f" (p99 {amount(row.p99, unit)})"
    return amount(row.median, unit) + tail


def columns(results: Sequence[Result]) -> list[str]:
    """Names of all candidates of some results, in their order."""
    return list(dict.fromkeys(row.name for result in results for row in result.rows))


def table(results: Sequence[Result], peaks: Peaks) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table of results that share a heading."""
    names = columns(results)
    with_peers = any(result.best_peer for result in results)
    dense = any(result.of("baseline") for result in results)
    timed = results[0].unit == "seconds"
    head = ["shape", *names]
    head += ["peer / ours"] * with_peers + ["ragged / dense"] * dense
    head += ["GFLOP/s", "of peak", "GB/s", "of reading", "of roofline"] * timed
    lines = []
    for result in results:
        rows = {row.name: row for row in result.rows}
        line = [str(result.case.shape), *(cell(rows.get(name), result.unit) for name in names)]
        line += [times(result.ratio(result.best))] * with_peers
        line += [times(result.over_dense)] * dense
        line += shares(result, peaks) * timed
        lines.append(line)
    return head, lines


def profile(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table that says where the time of the best of ours went."""
    lines = []
    for result in results:
        if result.where:
            found = (f"{result.where[part]:.0%}" for part in PARTS)
            lines.append([str(result.case.shape), result.best.name, *found])
    return ["shape", "time of", *PARTS], lines


def shares(result: Result, peaks: Peaks) -> list[str]:
    """GFLOP/s and GB/s of the best of ours, as they are and beside the machine's peaks."""
    case, gflops, gbytes = result.case, result.gflops, result.gbytes
    if gflops is None or gbytes is None:
        return [""] * 5
    peak = peaks.gflops.get(case.dtype)
    reading = peaks.gbytes(case.working_set)
    roof = peaks.roof(case.dtype, case.flops, case.bytes, case.working_set)
    return [
        three(gflops),
        "" if peak is None else f"{gflops / peak:.0%}",
        three(gbytes),
        f"{gbytes / reading:.0%}",
        "" if roof is None else f"{gflops / roof:.0%}",
    ]


def notes(results: Sequence[Result]) -> list[str]:
    """What must be known of some candidates, and why some peers take no part."""
    found: dict[str, None] = {}
    for result in results:
        for row in result.rows:
            if row.note:
                found[f"{row.name}: {row.note}"] = None
        for name, reason in result.absent.items():
            found[f"{name} does not take part: {reason}"] = None
    return list(found)


EXPLANATION = (
    "Every answer was compared with the reference's (the numpy backend in float64) before anything "
    "was timed. Candidates took turns in one process, in another order each round; a figure is the "
    "median of the rounds. peer / ours is the fastest peer's time over the best of ours, as the "
    "median of the rounds' ratios and its quartiles: above 1, fastrnn is faster. GFLOP/s count the "
    "matrix products; GB/s follow a model of what must move; both are of the best of ours, and are "
    "shown beside the machine's peaks, measured before and after in the same run. The peak of "
    "reading is that of an array as large as what comes back at each step. A share above "
    "100% means that products ran otherwise than as multiply-adds, or that caches held more than "
    "the model says. Where the time went: samples by perf of the best of ours, running again and "
    "again; waiting is for another thread or a CPU, the rest is what a call sets up and copies."
)
