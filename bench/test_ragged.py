"""Rows of different lengths, forward, and forward and backward."""

from __future__ import annotations

from typing import Any

from fastrnn.cli.bench.candidate import Candidate


def test_ragged(benchmark: Any, candidate: Candidate) -> None:
    benchmark(candidate.run)
