"""Times of contenders that take turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .contenders import Contender

SAMPLE = 2e-3  # seconds that one sample lasts at least, so that the clock does not matter
_PAUSE = 2e-3  # before each sample: threads of the one before stop spinning
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
FULL = Effort(15, 15.0)


def turns(items: Sequence[Item], rounds: int) -> Iterator[list[Item]]:
    """The order of each round: everyone goes first, and follows each other, equally often."""
    for number in range(rounds):
        start = number % len(items)
        order = [*items[start:], *items[:start]]
        yield order[::-1] if number // len(items) % 2 else order


def check(contenders: Sequence[Contender]) -> None:
    """Raise WrongAnswer at the first whose answer is not the reference's."""
    for contender in contenders:
        contender.check()


def measure(contenders: Sequence[Contender], effort: Effort) -> dict[str, list[float]]:
    """Return a sample of seconds a run for each contender and round."""
    check(contenders)
    counts = {}
    each = 0.0
    for contender in contenders:
        seconds = _seconds(contender.run, 1)
        if seconds < SAMPLE:
            seconds = _seconds(contender.run, 5)
        counts[contender.name] = max(1, round(SAMPLE / seconds + 0.5))
        each += counts[contender.name] * seconds + SAMPLE + _PAUSE
    rounds = min(effort.rounds, max(_MIN_ROUNDS, int(effort.seconds / each)))
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for order in turns(contenders, rounds):
        for contender in order:
            _settle(contender.run, counts[contender.name])
            samples[contender.name].append(_seconds(contender.run, counts[contender.name]))
    return samples


def measure_steps(
    contenders: Sequence[Contender], effort: Effort
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Time every call by itself; return each round's median, and the 99th percentile of all."""
    check(contenders)
    medians: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    calls: dict[str, list[int]] = {contender.name: [] for contender in contenders}
    clock = time.perf_counter_ns
    for order in turns(contenders, effort.rounds):
        for contender in order:
            _settle(contender.run, _STEPS)
            run, taken = contender.run, []
            for _ in range(_STEPS):
                start = clock()
                run()
                taken.append(clock() - start)
            medians[contender.name].append(sorted(taken)[_STEPS // 2] * 1e-9)
            calls[contender.name] += taken
    worst = {name: sorted(all_)[len(all_) * 99 // 100] * 1e-9 for name, all_ in calls.items()}
    return medians, worst


def _settle(run: Callable[[], Any], count: int) -> None:
    """Let other threads go to sleep; then, where that is cheap, fill the caches again."""
    time.sleep(_PAUSE)
    if count > 1:
        for _ in range(max(count // 4, 1)):
            run()


def _seconds(run: Callable[[], Any], count: int) -> float:
    """Seconds of one run, as a mean of so many."""
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count
