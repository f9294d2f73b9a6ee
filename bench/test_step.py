"""One step of a stream."""

from __future__ import annotations

from typing import Any

from fastrnn.cli.bench.contender import Contender


def test_step(benchmark: Any, contender: Contender) -> None:
    benchmark(contender.run)
