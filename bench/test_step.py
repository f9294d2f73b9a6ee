"""One step of a stream."""

from __future__ import annotations

from typing import Any

from fastrnn.cli.bench.candidate import Candidate


def test_step(benchmark: Any, candidate: Candidate) -> None:
    benchmark(candidate.run)
