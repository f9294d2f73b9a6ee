"""The examples of all docstrings and pages run, and the reference names every public name."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(fastrnn.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in ("_build", "generated")
}
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
    text = PAGES["reference.md"]
    missing = [
        name for name in fastrnn.__all__ if not re.search(rf"^ +{name}$|`{name}`", text, re.M)
    ]
    assert missing == ["__version__"]


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if ">>> " in text])
def test_examples_of_pages_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in re.findall(r"^>>> (?:import|from) (\w+)", PAGES[name], re.MULTILINE):
        pytest.importorskip(package)  # the test extra brings all of them
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(DOCS / name), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_other_snippets_of_pages_have_tests_of_their_own() -> None:
    """Those of weights.md in test_weights_page.py, those of gpu.md in cuda/test_gpu_examples.py;
    the one of decision 4 is what another library does."""
    other = {name for name, text in PAGES.items() if re.search(r"^```python\n(?!>>> )", text, re.M)}
    assert other == {"adr/0004-own-thread-pool.md", "gpu.md", "weights.md"}
