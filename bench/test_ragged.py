"""Rows of different lengths, forward, and forward and backward."""

from __future__ import annotations

from typing import Any

from fastrnn.cli.bench.contender import Contender


def test_ragged(benchmark: Any, contender: Contender) -> None:
    benchmark(contender.run)
