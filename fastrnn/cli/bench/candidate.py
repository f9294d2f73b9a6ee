"""A candidate: one way to compute what others compute too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .problem import Answer, Problem


@dataclass(frozen=True)
class Candidate:
    """One way to solve a problem."""

    name: str
    role: str
    """ours, peer, or baseline: ours at another problem, to compare with."""
    problem: Problem
    run: Callable[[], Any]
    """What is timed. Weights and input are loaded before, and nothing is converted after."""
    answer: Callable[[], Answer]
    """Runs, and returns what came out as arrays."""
    note: str = ""

    def check(self) -> None:
        """Raise WrongAnswer if it is; this also warms up."""
        self.problem.check(self.name, self.answer())


def one_by_one(problem: Problem, make: Callable[[Problem], Candidate]) -> Candidate:
    """A candidate that runs those of a problem's parts, one after the other."""
    each = [make(part) for part in problem.parts]
    if len(each) == 1:
        return each[0]
    runs = [candidate.run for candidate in each]

    def run() -> None:
        for one in runs:
            one()

    def answer() -> Answer:
        return {"y": np.concatenate([candidate.answer()["y"] for candidate in each], axis=2)}

    return replace(each[0], problem=problem, run=run, answer=answer)
