"""What runs: the backends under test, and small sets of cases that still meet every mixture."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from typing import Any

import pytest

#: Every backend must be there; FASTRNN_TEST_BACKENDS="numpy,cpu" narrows the list where one is not.
BACKENDS = tuple(os.environ.get("FASTRNN_TEST_BACKENDS", "numpy,numba,cpu").split(","))


def covering(strength: int, **options: Sequence[Any]) -> list[dict[str, Any]]:
    """Cases in which every mixture of `strength` options' values occurs at least once.

    Greedy: each case starts from a mixture not met yet, and is the best of a few random
    completions. The full grid of test_oracle.py has 13 440 cases; its triples need about 130.
    """
    names = list(options)
    draw = random.Random(1990)
    groups = list(itertools.combinations(names, strength))
    missing = dict.fromkeys(
        (group, values)
        for group in groups
        for values in itertools.product(*(options[name] for name in group))
    )
    cases = []
    while missing:
        start = dict(zip(*next(iter(missing)), strict=True))
        best: dict[str, Any] = {}
        gained: list[Any] = []
        for _ in range(12):
            case = {name: start.get(name, draw.choice(options[name])) for name in names}
            met = [(group, tuple(case[name] for name in group)) for group in groups]
            met = [mixture for mixture in met if mixture in missing]
            if len(met) > len(gained):
                best, gained = case, met
        for mixture in gained:
            del missing[mixture]
        cases.append(best)
    return cases


def per_backend(
    many: Sequence[Any], few: Sequence[Any], slow: tuple[str, ...] = ("numba",)
) -> list[Any]:
    """(backend, case) pairs; the slow ones run `few`. Numba compiles for seconds per signature."""
    return [
        pytest.param(backend, case, id="-".join((backend, *words(case))))
        for backend in BACKENDS
        for case in (few if backend in slow else many)
    ]


def words(case: Any) -> tuple[str, ...]:
    """What a case is called in a test's name."""
    return case if isinstance(case, tuple) else (str(case),)
