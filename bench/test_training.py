"""Forward and backward."""

from __future__ import annotations

from typing import Any

from fastrnn.cli.bench.contender import Contender


def test_training(benchmark: Any, contender: Contender) -> None:
    benchmark(contender.run)
