"""The check that needs a GPU, in a dry run without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu_check.py"


@pytest.mark.usefixtures("compiler")
def test_dry_run(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--emulated"],
        capture_output=True,
        text=True,
    )
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stderr + logs
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert found["failed"] == []
    assert found["probe"][0]["cuda"] == "emulated"
    assert len(found["correctness"]) == 48
    assert all(record["ok"] for record in found["correctness"])
    ways = {(record["kind"], record["way"], record["what"]) for record in found["speed"]}
    assert len(ways) == 8
    assert "correctness: 48 cases, 0 wrong" in done.stdout
