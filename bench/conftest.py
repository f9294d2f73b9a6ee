"""One benchmark for each case and candidate; answers are checked before anything is timed."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import pytest

import fastrnn
from fastrnn import backends
from fastrnn.cli.bench import registry
from fastrnn.cli.bench.candidate import Candidate
from fastrnn.cli.bench.problem import Problem
from fastrnn.cli.bench.shapes import GROUPS, MAX_GFLOP, Case, cases


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the benchmarks."""
    group = parser.getgroup("fastrnn")
    group.addoption("--threads", type=int, default=0, help="of everybody (default: ours)")
    group.addoption("--dtype", action="append", help="float32 (default), float64, bfloat16")


def pytest_configure() -> None:
    """Refuse to time what nobody has asked for."""
    reason = backends.fallback()
    if reason is not None:
        raise pytest.UsageError(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the cases that its module is named for."""
    kind = metafunc.module.__name__.removeprefix("test_")
    dtypes = metafunc.config.getoption("--dtype") or ["float32"]
    metafunc.parametrize(
        ("case", "who"),
        [
            pytest.param(case, who, id=f"{case.group}-{case}-{' '.join(who)}".replace(" ", "-"))
            for case in cases(list(GROUPS), [kind], dtypes)
            if case.gflop <= MAX_GFLOP
            for who in _who(case)
        ],
    )


def _who(case: Case) -> list[tuple[str, ...]]:
    """Our backend in all ways, and the peers that are installed."""
    able = [name for name in _present() if registry.why_not(name, case) is None]
    backend = backends.resolve("auto")
    return [*((backend, way) if way else (backend,) for way in registry.variants(case)), *zip(able)]


@cache
def _present() -> list[str]:
    return [name for name in registry.LIBRARIES if registry.missing(name) is None]


@lru_cache(1)
def _problem(case: Case) -> Problem:
    return Problem(case)


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> int:
    """Threads of everybody."""
    n: int = request.config.getoption("--threads") or fastrnn.get_num_threads()
    fastrnn.set_num_threads(n)
    return n


@pytest.fixture
def candidate(
    case: Case, who: tuple[str, ...], threads: int, request: pytest.FixtureRequest
) -> Candidate:
    """Who is measured, with an answer that was found right."""
    name, *way = who
    problem = _problem(case)
    found = registry.candidate(name, " ".join(way), problem, threads)
    found.check()
    benchmark: Any = request.getfixturevalue("benchmark")
    benchmark.group = f"{case.group}: {case}"
    benchmark.extra_info["flops"] = case.flops
    return found
