"""docs/weights.md: every snippet of the page runs, and each ends in a comparison."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "weights.md"


def snippets() -> list[Any]:
    """The page's Python, named after the heading and the number below it."""
    found, heading = [], ""
    for match in re.finditer(
        r"^## ([^\n]*)$|^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S
    ):
        if match[1]:
            heading, number = match[1], 0
        else:
            number += 1
            found.append(pytest.param(heading, match[2], id=f"{heading}-{number}"))
    return found


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("heading", "text"), snippets())
def test_snippet(heading: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "keras", "onnx"):
        if re.search(rf"\b(import|from) .*\b{package}\b", text):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    assert "assert" in text, f"a snippet of {heading} that shows nothing"
    exec(compile(text, f"{PAGE.name}: {heading}", "exec"), {})


def test_the_page_has_all_of_its_table() -> None:
    rows = re.findall(r"^\| \[(.*?)\]\(#", PAGE.read_text(), re.M)
    headings = set(re.findall(r"^## (.*)$", PAGE.read_text(), re.M)) - {"Whole models"}
    assert len(rows) == 7
    assert {row.split(" 2, 3")[0] if row.startswith("Keras") else row for row in rows} == {
        heading[0].lower() + heading[1:] if heading == "Plain arrays" else heading
        for heading in headings
    }
