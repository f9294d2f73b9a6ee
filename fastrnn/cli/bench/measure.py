"""Times of candidates that take turns in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .candidate import Candidate
from .problem import WrongAnswer

SAMPLE = 2e-3  # seconds that one sample lasts at least, so that the clock does not matter
_LOOK = 5e-3  # seconds of one look at whether other threads are at work
_LOOKS = 60
_LONG = 0.1  # seconds of a run that needs no warming up
_STEPS = 200  # single calls in one sample of a step
_MIN_ROUNDS = 3

Item = TypeVar("Item")


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float
    """Fewer rounds, but not fewer than three, where a case would take longer."""


QUICK = Effort(5, 1.0)
FULL = Effort(25, 12.0)


def turns(items: Sequence[Item], rounds: int) -> Iterator[list[Item]]:
    """The order of each round: everyone is first equally often, neighbours go both ways."""
    for number in range(rounds):
        start = number % len(items)
        order = [*items[start:], *items[:start]]
        yield order[::-1] if number // len(items) % 2 else order


def check(candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """Return those whose answer is the reference's, and why peers failed to give one.

    Raises
    ------
    WrongAnswer
        An answer is another one, and not a peer's in bfloat16: nothing is to be timed.
    """
    reasons = {candidate.name: _failure(candidate) for candidate in candidates}
    able = [candidate for candidate in candidates if reasons[candidate.name] is None]
    return able, {name: reason for name, reason in reasons.items() if reason is not None}


def _failure(candidate: Candidate) -> str | None:
    """Why a peer gives no answer that counts, or None; what is ours must not fail."""
    try:
        candidate.check()
    except WrongAnswer as error:
        # Over thousands of steps a sum in bfloat16 stops growing: coarse, but no mistake of ours.
        if candidate.role != "peer" or candidate.problem.case.dtype != "bfloat16":
            raise
        return str(error)
    except Exception as error:  # of any library, in any of its ways; the report tells it
        if candidate.role != "peer":
            raise
        return f"failed: {error}"
    return None


def measure(
    candidates: Sequence[Candidate], effort: Effort, threads: int = 1
) -> dict[str, list[float]]:
    """Return a sample of seconds a run for each candidate and round; answers were checked."""
    counts, warm = {}, {}
    each = 0.0
    for candidate in candidates:
        seconds = _seconds(candidate.run, 1)
        if seconds < SAMPLE:
            seconds = _seconds(candidate.run, 5)
        counts[candidate.name] = math.ceil(SAMPLE / seconds)
        warm[candidate.name] = 0 if seconds > _LONG else counts[candidate.name] // 4 + 1
        each += 1.25 * max(seconds, SAMPLE) + (_LOOK if threads > 1 else 0)
    rounds = min(effort.rounds, max(_MIN_ROUNDS, int(effort.seconds / each)))
    samples: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for order in turns(candidates, rounds):
        for candidate in order:
            count = counts[candidate.name]
            _settle(candidate.run, threads, warm[candidate.name])
            samples[candidate.name].append(_seconds(candidate.run, count))
    return samples


def measure_steps(
    candidates: Sequence[Candidate], effort: Effort, threads: int = 1
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Time every call by itself; return each round's median, and the 99th percentile of all."""
    medians: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    calls: dict[str, list[int]] = {candidate.name: [] for candidate in candidates}
    clock = time.perf_counter_ns
    for order in turns(candidates, effort.rounds):
        for candidate in order:
            _settle(candidate.run, threads, _STEPS)
            run, taken = candidate.run, []
            for _ in range(_STEPS):
                start = clock()
                run()
                taken.append(clock() - start)
            medians[candidate.name].append(sorted(taken)[_STEPS // 2] * 1e-9)
            calls[candidate.name] += taken
    worst = {name: sorted(all_)[len(all_) * 99 // 100] * 1e-9 for name, all_ in calls.items()}
    return medians, worst


def _settle(run: Callable[[], Any], threads: int, count: int) -> None:
    """Wait until others' threads sleep, then fill the caches again.

    After a call, threads go on spinning, on the cores of the one whose turn is next: on two cores
    torch's took 7 ms of processor time, ONNX Runtime's 25 ms.
    """
    for _ in range(_LOOKS if threads > 1 else 0):
        before = time.process_time()
        time.sleep(_LOOK)
        if time.process_time() - before < _LOOK / 5:
            break
    for _ in range(count):
        run()


def _seconds(run: Callable[[], Any], count: int) -> float:
    """Seconds of one run, as a mean of so many."""
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count
