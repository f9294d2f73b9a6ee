"""Compare two reports that `fastrnn bench --report NAME.json` wrote.

Exits with 1 if anything of ours got worse by more than the threshold, with 2 if there is nothing
to compare, and with 0 otherwise. Where both reports have a peer's figure, what is compared is the
ratio to it, which a slower machine or moment does not move; else the figure itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastrnn.cli.bench import machine
from fastrnn.cli.bench.report import Report, Result, Row, read_json


class Change(NamedTuple):
    """One of ours in one case, then and now; a factor above 1 is a loss."""

    name: str
    by: str
    old: float
    new: float
    factor: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print the changes, the worst first; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--threshold", type=float, default=1.10, help="a loss beyond it fails (default: 1.10)"
    )
    options = parser.parse_args(argv)
    try:
        old, new = read_json(options.old), read_json(options.new)
        found = sorted(changes(old, new), key=lambda change: -change.factor)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"compare: {error}\n")
        return 2
    if not found:
        sys.stderr.write("compare: the reports have no case in common\n")
        return 2
    print(f"old: {machine.line(old.machine)}\nnew: {machine.line(new.machine)}")
    width = max(len(change.name) for change in found)
    print(f"{'':{width}}  {'old':>10} {'new':>10} {'loss':>6}")
    for name, by, old, new, factor in found:
        mark = " <- beyond the threshold" if factor > options.threshold else ""
        print(f"{name:{width}}  {old:10.4g} {new:10.4g} {factor:6.2f} {by}{mark}")
    worse = sum(change.factor > options.threshold for change in found)
    print(f"{worse} of {len(found)} are worse by more than {options.threshold:g} times")
    return 1 if worse else 0


def changes(old: Report, new: Report) -> Iterator[Change]:
    """Compare all rows of ours that both reports have."""
    before = {name: (result, row) for name, result, row in _rows(old)}
    for name, result, row in _rows(new):
        if name not in before:
            continue
        result_before, row_before = before[name]
        then, now = result_before.ratio(row_before), result.ratio(row)
        if then is not None and now is not None:
            factor = then.median / now.median
            yield Change(name, "peer / ours", then.median, now.median, factor)
        else:
            factor = row.median / row_before.median
            yield Change(name, result.unit, row_before.median, row.median, factor)


def _rows(report: Report) -> Iterator[tuple[str, Result, Row]]:
    for result in report.results:
        for row in result.of("ours"):
            yield f"{result.case.group}: {result.case}, {row.name}", result, row


if __name__ == "__main__":
    sys.exit(main())
