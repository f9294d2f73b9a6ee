"""Peak extra memory of forward and backward, each measured in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .candidate import Candidate
from .problem import Problem, WrongAnswer
from .registry import candidates
from .shapes import Case, Shape

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def why_not() -> str | None:
    """Return why memory cannot be measured here, or None if it can."""
    able = os.access(_CLEAR, os.W_OK)
    return None if able else "the peak of a process can be set back on Linux only"


def measure(
    case: Case, row: Candidate, backends: tuple[str, ...], threads: int, rounds: int
) -> list[float]:
    """Return the bytes that one candidate needed at its peak, once for each process."""
    peer = (row.name,) if row.role == "peer" else ()
    job = json.dumps([asdict(case), row.name, backends, peer, threads])
    command = [sys.executable, "-c", "from fastrnn.cli.bench import memory; memory.child()", job]
    samples = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise WrongAnswer(f"memory of {row.name} at {case}: {last}")
        samples.append(float(done.stdout))
    return samples


def tape_bytes(problem: Problem, backend: str) -> int:
    """What a forward of ours keeps for backward."""
    nbytes: int = problem.layer(backend).forward(problem.x)[2].nbytes
    return nbytes


def child() -> None:
    """Measure one candidate once; print the bytes."""
    case, name, backends, peers, threads = json.loads(sys.argv[1])
    shape = Shape(**case.pop("shape"))
    from ... import set_num_threads

    set_num_threads(threads)

    def make(shape: Shape) -> Candidate:
        problem = Problem(Case(shape=shape, **case))
        # What is made lazily is there before: weights, input and dy, but not the reference.
        _ = problem.x, problem.dy
        found, _ = candidates(problem, tuple(backends), tuple(peers), threads)
        return next(candidate for candidate in found if candidate.name == name)

    make(replace(shape, T=min(shape.T, 2), B=1)).check()  # loads libraries, starts threads
    row = make(shape)
    _CLEAR.write_text("5", encoding="ascii")  # the peak is now what is in use
    before = _kilobytes("VmHWM")
    result: Any = row.run()
    peak = _kilobytes("VmHWM") - before
    del result
    row.check()
    print(max(peak, 4) * 1024)  # a page, the least that is seen


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise OSError(f"no {name} in {_STATUS}")
