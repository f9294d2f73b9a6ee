"""The example of docs/gpu.md runs as it stands there, but for sizes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cupy
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"


def standard_normal(shape: tuple[int, ...], dtype: Any) -> Any:
    return fake_cupy.asarray(np.random.default_rng(0).standard_normal(shape), dtype)


def test_ten_lines(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    random = SimpleNamespace(standard_normal=standard_normal)
    monkeypatch.setattr(fake_cupy, "random", random, raising=False)
    monkeypatch.setattr(fake_cupy, "float32", np.float32, raising=False)
    text = PAGE.read_text()
    (code,) = re.findall(r"```python\n(import cupy as cp\n.*?)```", text, re.DOTALL)
    assert code.count("\n") <= 11
    smaller = code.replace("(40, 256, ", "(40, 8, ").replace("(100, 32, 40)", "(5, 3, 40)")
    names: dict[str, Any] = {}
    exec(smaller, names)
    y = names["y"]
    assert isinstance(y, fake_cupy.ndarray)
    assert y.shape[:2] == (5, 3)
