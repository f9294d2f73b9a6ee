"""Modules form floors: none imports one that imports it, not even for its types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(fastrnn.__file__).parent


def modules(root: Path) -> dict[str, Path]:
    """Every module of a package by its name."""
    found = {}
    for path in (*root.rglob("*.py"), *root.rglob("*.pyi")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Names that are imported outside of functions, those of submodules in full."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, package)


def graph(root: Path) -> dict[str, set[str]]:
    """Which modules each module imports."""
    known = modules(root)
    found = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = set()
        for target in imports(ast.parse(path.read_text("utf-8")), package):
            module = target if target in known else target.rpartition(".")[0]
            if module in known and module != name:
                targets.add(module)
        found[name] = targets
    return found


def test_no_circle() -> None:
    found = graph(ROOT)
    assert "fastrnn.spec" in found["fastrnn.backends.cpu"]
    assert "fastrnn.backends.base" in found["fastrnn.backends"]
    list(TopologicalSorter(found).static_order())


def test_the_ground_floor() -> None:
    """What describes a pass depends on no layer and no backend."""
    assert graph(ROOT)["fastrnn.spec"] == {"fastrnn.schedule", "fastrnn.typing"}


@pytest.mark.parametrize("line", ["from .b import B", "from pkg.b import B", "import pkg.b"])
def test_a_circle_is_found(tmp_path: Path, line: str) -> None:
    root = tmp_path / "pkg"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "a.py").write_text(f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line}\n")
    (root / "b.py").write_text("from . import a\n")
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph(root)).static_order())
    (root / "b.py").write_text("def later():\n    from . import a\n")
    list(TopologicalSorter(graph(root)).static_order())
