"""What ``fastrnn bench`` does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ... import backends, get_num_threads, set_num_threads
from ..progress import Progress
from ..say import say
from . import ceilings, html, machine, markdown, measure, memory, peers, picture, shapes
from .contender import contenders
from .options import command, groups
from .problem import TOLERANCES, Problem, WrongAnswer
from .report import Report, Result, Row, write_json

WRITERS = {".html": html.write, ".md": markdown.write, ".svg": picture.write, ".json": None}

_STOPPED = "stopped before"


def run(options: argparse.Namespace, *, alone: bool = False) -> int:
    """Measure, print tables, and write what is asked for.

    Parameters
    ----------
    options : what the command line says
    alone : the process is the command's own: which CPUs it uses may be changed
    """
    try:
        paths = [_writable(name) for name in options.report]
        report = _measure(options, alone)
    except WrongAnswer as error:
        sys.stderr.write(f"fastrnn bench: {error}\n")
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"fastrnn bench: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    say("\n\n".join(markdown.tables(report)))
    for path in paths:
        writer = WRITERS[path.suffix]
        if writer is None:
            write_json(path, report)
        else:
            path.write_text(writer(report), encoding="utf-8")
        say(f"\nwritten: {path}")
    return 130 if _STOPPED in report.left_out.values() else 0


def _measure(options: argparse.Namespace, alone: bool) -> Report:
    threads = options.threads or get_num_threads()
    restricted = machine.restrict(threads) if alone else "each library set to this number"
    set_num_threads(threads)
    reason = None if options.backends else backends.fallback()
    if reason is not None:
        raise RuntimeError(f"{reason}, as --backends does")
    names = tuple(options.backends or [backends.resolve("auto")])
    for name in names:
        backends.get(name)
    missing = {name: peers.missing(name) for name in peers.NAMES} if options.peers else {}
    present = tuple(name for name, reason in missing.items() if reason is None)
    wanted = shapes.cases(groups(options), options.modes, options.dtype)
    if not wanted:
        raise ValueError("no shape of these --groups has these --modes")
    reasons = {case: _why_left_out(case, options.max_gflop) for case in wanted}
    left_out = {str(case): reason for case, reason in reasons.items() if reason is not None}
    found = [case for case in wanted if reasons[case] is None]
    effort = measure.QUICK if options.quick else measure.FULL

    progress = Progress()
    progress.show(0, "the machine's ceilings")
    before = ceilings.measure(threads, tuple(options.dtype))
    results = []
    try:
        for index, case in enumerate(found):
            progress.show(index / len(found), f"{index + 1} of {len(found)}: {case}")
            results.append(_result(case, names, present, threads, effort))
    except KeyboardInterrupt:  # what is there is worth a report
        left_out |= {str(case): _STOPPED for case in found[len(results) :]}
    progress.show(1, "the machine's ceilings again")
    after = ceilings.measure(threads, tuple(options.dtype))
    progress.clear()
    return Report(
        command=command(options, threads),
        machine=machine.facts(threads) | {"threads": f"{threads}: {restricted}"},
        versions=machine.versions(),
        peers=_standing(options.peers, missing),
        tolerances={dtype: TOLERANCES[dtype] for dtype in options.dtype},
        ceilings=before.best(after),
        results=results,
        left_out=left_out,
    )


def _result(
    case: shapes.Case,
    names: tuple[str, ...],
    present: tuple[str, ...],
    threads: int,
    effort: measure.Effort,
) -> Result:
    """Measure one case."""
    problem = Problem(case)
    everybody, absent = contenders(problem, names, present, threads)
    found, failed = measure.check(everybody)
    absent |= failed
    if case.mode == "memory":
        rounds = min(effort.rounds, 3)
        rows = [
            Row(
                row.name,
                row.role,
                memory.measure(case, row, names, threads, rounds),
                f"the tape keeps {memory.tape_bytes(problem, row.name) / 2**20:.2f} MB"
                if row.role == "ours"
                else row.note,
            )
            for row in found
        ]
        return Result(case, "bytes", rows, absent)
    if case.mode == "step":
        samples, worst = measure.measure_steps(found, effort, threads)
    else:
        samples, worst = measure.measure(found, effort, threads), {}
    rows = [
        Row(row.name, row.role, samples[row.name], row.note, worst.get(row.name)) for row in found
    ]
    return Result(case, "seconds", rows, absent)


def _why_left_out(case: shapes.Case, max_gflop: float) -> str | None:
    if case.gflop > max_gflop:
        return f"one run takes {case.gflop:.3g} GFLOP, over --max-gflop"
    return memory.why_not() if case.mode == "memory" else None


def _standing(wanted: bool, missing: dict[str, str | None]) -> dict[str, str]:
    """Of each peer, whether it took part."""
    if not wanted:
        return dict.fromkeys(peers.NAMES, "not asked for: --peers measures what is installed")
    return {
        name: f"takes part, {machine.version(name)}" if reason is None else reason
        for name, reason in missing.items()
    }


def _writable(name: str) -> Path:
    """Find out before minutes of measuring whether a report can be written."""
    path = Path(name)
    if path.suffix not in WRITERS:
        raise ValueError(f"--report {name} must end in one of {', '.join(WRITERS)}")
    with path.open("a", encoding="utf-8"):
        return path
