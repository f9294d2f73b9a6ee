"""What a run of the benchmarks found, and how it is written to a file and read back."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .peaks import Peaks
from .shapes import Case, Shape

FORMAT = 2


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@dataclass(frozen=True)
class Row:
    """One candidate's samples, one a round."""

    name: str
    role: str
    samples: list[float]
    note: str = ""
    p99: float | None = None
    """Of single calls."""

    @property
    def median(self) -> float:
        """Of the samples."""
        return statistics.median(self.samples)


@dataclass(frozen=True)
class Result:
    """One case."""

    case: Case
    unit: str
    """seconds, or bytes of memory."""
    rows: list[Row]
    absent: dict[str, str] = field(default_factory=dict)
    """Peers that cannot do it, and why."""
    where: dict[str, float] = field(default_factory=dict)
    """Shares of the time of the best of ours, by `profile.PARTS`; empty where there is none."""

    def of(self, role: str) -> list[Row]:
        """Rows of ours, of peers, or baselines."""
        return [row for row in self.rows if row.role == role]

    @property
    def best(self) -> Row:
        """The fastest, or smallest, of ours."""
        return min(self.of("ours"), key=lambda row: row.median)

    @property
    def best_peer(self) -> Row | None:
        """The fastest, or smallest, of the peers."""
        return min(self.of("peer"), key=lambda row: row.median, default=None)

    def ratio(self, row: Row) -> Spread | None:
        """The fastest peer's figure over this row's, taken in each round; None without a peer."""
        best_peer = self.best_peer
        return None if best_peer is None else _quotient(best_peer.samples, row.samples)

    @property
    def over_dense(self) -> Spread | None:
        """Our time with lengths over that of as many steps of rows that are equally long."""
        for dense in self.of("baseline"):
            for row in self.of("ours"):
                if dense.name == f"{row.name} dense":
                    return _quotient(row.samples, dense.samples)
        return None

    @property
    def gflops(self) -> float | None:
        """GFLOP/s of the best of ours; a count of products, not of everything that is done."""
        return self.case.flops / self.best.median / 1e9 if self.unit == "seconds" else None

    @property
    def gbytes(self) -> float | None:
        """GB/s of the best of ours, by the model of `Case.bytes`."""
        return self.case.bytes / self.best.median / 1e9 if self.unit == "seconds" else None


@dataclass(frozen=True)
class Report:
    """Everything."""

    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    peers: dict[str, str]
    """Of each peer, whether it took part, or why not."""
    tolerances: dict[str, float]
    peaks: Peaks
    results: list[Result]
    left_out: dict[str, str]
    """Cases that were not measured, and why."""
    profile: str = ""
    """Why it is not known where the time went; empty where it is."""

    def tables(self) -> Iterator[tuple[str, list[Result]]]:
        """Results under the heading they share: group, kind of work, dtype."""
        headings: dict[str, list[Result]] = {}
        for result in self.results:
            case = result.case
            ragged = "ragged " if case.shape.ragged else ""
            heading = f"{case.group}: {ragged}{case.mode}, {case.dtype}"
            headings.setdefault(heading, []).append(result)
        yield from headings.items()


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """Of each row of ours: the geometric mean and the least of its ratios."""
    ratios: dict[str, list[float]] = {}
    for result in results:
        for row in result.of("ours"):
            ratio = result.ratio(row)
            if ratio is not None:
                ratios.setdefault(row.name, []).append(ratio.median)
    return {name: (geometric_mean(found), min(found)) for name, found in ratios.items()}


def write_json(path: Path, report: Report) -> None:
    """Write all samples."""
    text = json.dumps({"format": FORMAT, **asdict(report)}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Report:
    """Read what `write_json` wrote.

    Raises
    ------
    OSError, ValueError
        There is no such file, or it is no report of this format.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is no report of fastrnn bench (format {FORMAT})")
    peaks = found.pop("peaks")
    peaks["bandwidth"] = [(size, rate) for size, rate in peaks["bandwidth"]]
    results = [_result(result) for result in found.pop("results")]
    return Report(**found, peaks=Peaks(**peaks), results=results)


def _result(found: dict[str, Any]) -> Result:
    case = found.pop("case")
    shape = case.pop("shape")
    shape["modes"] = tuple(shape["modes"])
    rows = [Row(**row) for row in found.pop("rows")]
    return Result(case=Case(shape=Shape(**shape), **case), rows=rows, **found)


def _quotient(over: Sequence[float], under: Sequence[float]) -> Spread:
    return spread([a / b for a, b in zip(over, under, strict=True)])
