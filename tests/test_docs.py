"""The examples of all docstrings run, and the reference names every public name."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(fastrnn.__file__).parent
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if re.search(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_reference_names_every_public_name() -> None:
    text = (Path(__file__).parents[1] / "docs" / "reference.md").read_text(encoding="utf-8")
    missing = [
        name for name in fastrnn.__all__ if not re.search(rf"^ +{name}$|`{name}`", text, re.M)
    ]
    assert missing == ["__version__"]
