"""README's example runs as it stands there."""

from __future__ import annotations

import doctest
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_first_layer_runs_and_has_ten_lines() -> None:
    result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
    lines = [line for line in README.read_text().splitlines() if line.startswith((">>>", "..."))]
    assert len(lines) <= 10
