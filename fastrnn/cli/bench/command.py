"""What ``fastrnn bench`` does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ... import backends, get_num_threads, set_num_threads
from ..console import echo
from . import html, machine, markdown, measure, memory, peaks, plots, profile, registry, shapes
from .candidate import Candidate
from .options import command, groups
from .problem import TOLERANCES, Problem, WrongAnswer
from .report import Report, Result, Row, write_json

WRITERS = {".html": html.write, ".md": markdown.write, ".svg": plots.write, ".json": None}

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
        threads = options.threads or get_num_threads()
        with threadpool_limits(threads, user_api="blas"):  # NumPy's, of the numpy backend
            report = _measure(options, threads, alone)
    except WrongAnswer as error:
        sys.stderr.write(f"fastrnn bench: {error}\n")
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"fastrnn bench: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    echo("\n\n".join([machine.line(report.machine), *markdown.tables(report)]))
    for path in paths:
        writer = WRITERS[path.suffix]
        if writer is None:
            write_json(path, report)
        else:
            path.write_text(writer(report), encoding="utf-8")
        echo(f"\nwritten: {path}")
    return 130 if _STOPPED in report.left_out.values() else 0


def _measure(options: argparse.Namespace, threads: int, alone: bool) -> Report:
    restricted = machine.restrict(threads) if alone else "each library set to this number"
    set_num_threads(threads)
    reason = None if options.backends else backends.fallback()
    if reason is not None:
        raise RuntimeError(f"{reason}, as --backends does")
    names = tuple(options.backends or [backends.resolve("auto")])
    for name in names:
        backends.get(name)
    missing = {name: registry.missing(name) for name in registry.LIBRARIES if options.peers}
    present = tuple(name for name, reason in missing.items() if reason is None)
    wanted = shapes.cases(groups(options), options.modes, options.dtype)
    if not wanted:
        raise ValueError("no shape of these --groups has these --modes")
    reasons = {case: _why_left_out(case, options.max_gflop) for case in wanted}
    left_out = {str(case): reason for case, reason in reasons.items() if reason is not None}
    found = [case for case in wanted if reasons[case] is None]
    effort = measure.QUICK if options.quick else measure.FULL
    unknown = profile.why_not() if options.profile else "not asked for"

    tqdm.monitor_interval = 0  # no thread of its own beside those that are measured
    before = peaks.measure(threads, tuple(options.dtype))
    results = []
    try:
        with tqdm(found, unit="shape", leave=False, disable=None) as bar:
            for case in bar:
                bar.set_postfix_str(str(case))
                problem = Problem(case)
                everyone, absent = registry.candidates(problem, names, present, threads)
                able, failed = measure.check(everyone)
                result = _result(problem, able, names, threads, effort, absent | failed)
                if not unknown:
                    result = _with_profile(result, able, threads)
                results.append(result)
    except KeyboardInterrupt:  # what is there is worth a report
        left_out |= {str(case): _STOPPED for case in found[len(results) :]}
    after = peaks.measure(threads, tuple(options.dtype))
    return Report(
        command=command(options, threads),
        machine=machine.facts(threads) | {"threads": f"{threads}: {restricted}"},
        versions=machine.versions(),
        peers=_participation(options.peers, missing),
        tolerances={dtype: TOLERANCES[dtype] for dtype in options.dtype},
        peaks=before.best(after),
        results=results,
        left_out=left_out,
        profile=unknown or "",
    )


def _with_profile(result: Result, able: Sequence[Candidate], threads: int) -> Result:
    """Add where the time of the best of ours went, if it is the extension's to tell."""
    best = next(candidate for candidate in able if candidate.name == result.best.name)
    if result.unit != "seconds" or not best.name.startswith("cpu"):
        return result
    return replace(result, where=profile.measure(best.run, threads))


def _result(
    problem: Problem,
    found: Sequence[Candidate],
    names: tuple[str, ...],
    threads: int,
    effort: measure.Effort,
    absent: dict[str, str],
) -> Result:
    """Measure those who take part in one case."""
    case = problem.case
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


def _participation(wanted: bool, missing: dict[str, str | None]) -> dict[str, str]:
    """Of each peer, whether it took part."""
    if not wanted:
        return dict.fromkeys(
            registry.LIBRARIES, "not asked for: --peers measures what is installed"
        )
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
