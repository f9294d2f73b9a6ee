"""Peak extra memory of forward and backward: in extra_info, as "bytes"."""

from __future__ import annotations

from typing import Any

import pytest

from fastrnn import backends
from fastrnn.cli.bench import memory
from fastrnn.cli.bench.candidate import Candidate

# Peaks are read where Linux keeps them; the report of the run names what was skipped.
pytestmark = pytest.mark.skipif(memory.why_not() is not None, reason=str(memory.why_not()))


def test_memory(benchmark: Any, candidate: Candidate, threads: int) -> None:
    ours = (backends.resolve("auto"),)
    case = candidate.problem.case
    benchmark.extra_info["bytes"] = memory.measure(case, candidate, ours, threads, 1)[0]
    benchmark.pedantic(candidate.run)
