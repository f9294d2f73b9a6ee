"""mypy and pyright on users' code, tests/typing/: they refuse the marked lines and no other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import fastrnn
from fastrnn import typing
from fastrnn.cellmath import ops

SNIPPETS = sorted((Path(__file__).parent / "typing").glob("*.py"))
CHECKERS = {
    "mypy": ["mypy", "--strict", "--config-file=", "--cache-dir", os.devnull],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_types_in_code_of_users(checker: str, tmp_path: Path) -> None:
    root = Path(fastrnn.__file__).parents[1]
    path = {} if root.name == "site-packages" else {"MYPYPATH": str(root), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], *map(str, SNIPPETS)],
        cwd=tmp_path,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    for file in SNIPPETS:
        lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        wanted = {number for number, line in lines if line.endswith("# error")}
        name = re.escape(file.name)
        refused = {int(n) for n in re.findall(rf"{name}:(\d+)(?::\d+)?(?: -|:) error", printed)}
        assert wanted, file
        assert refused == wanted, printed


def test_literals_are_what_is_taken_at_run_time() -> None:
    for name, kind in (("precision", typing.Precision), ("backend", typing.Backend)):
        listed = ", ".join(map(repr, get_args(kind)))
        with pytest.raises(ValueError, match=f"{name} must be one of {listed}, got 'no'"):
            fastrnn.GRU(2, 3, **{name: "no"})  # type: ignore[arg-type]
    # their places are codes of the kernels
    assert ops.ACTIVATIONS == ("tanh", "sigmoid", "relu", "hard_sigmoid")
