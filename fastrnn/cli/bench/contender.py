"""Who takes part: ways to compute the same thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .problem import Answer, Problem


@dataclass(frozen=True)
class Contender:
    """One way to solve a problem."""

    name: str
    role: str
    """ours, peer, or yardstick: ours at another problem, to compare with."""
    problem: Problem
    run: Callable[[], Any]
    """What is timed. Weights and input are loaded before, and nothing is converted after."""
    answer: Callable[[], Answer]
    """Runs, and returns what came out as arrays."""
    note: str = ""

    def check(self) -> None:
        """Raise WrongAnswer if it is; this also warms up."""
        self.problem.check(self.name, self.answer())


def contenders(
    problem: Problem, backends: tuple[str, ...], peers: tuple[str, ...], threads: int
) -> tuple[list[Contender], dict[str, str]]:
    """Return those who take part, ours first, and why the other peers do not."""
    from . import ours
    from . import peers as others

    case = problem.case
    found = [ours.contender(problem, name, way) for name in backends for way in ours.ways(case)]
    absent = {}
    for name in peers:
        reason = others.why_not(name, case)
        if reason is not None:
            absent[name] = reason
            continue
        try:
            found.append(others.contender(name, problem, threads))
        except Exception as error:  # theirs is to be known, and no reason to stop
            absent[name] = f"failed: {error}"
    return found, absent
