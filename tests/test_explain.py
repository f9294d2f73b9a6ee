"""What `layer.explain` says is what happens."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from grid import BACKENDS

import fastrnn
from fastrnn.backends import cpu


def explain(T: int, B: int, H: int, threads: int = 1, **arguments: Any) -> dict[str, Any]:
    layer = fastrnn.LSTM(H, H, rng=0, **arguments)
    with fastrnn.num_threads(threads):
        return layer.explain(np.zeros((T, B, H), layer.dtype))


def test_every_backend_names_itself_and_the_call(backend: str) -> None:
    layer = fastrnn.GRU(3, 4, 2, bidirectional=True, batch_first=True, rng=0, backend=backend)
    said = layer.explain(np.zeros((5, 7, 3), np.float32))
    assert (said["backend"], said["T"], said["B"], said["passes"]) == (backend, 7, 5, 4)
    assert len(said) > 5
    with pytest.raises(ValueError, match="x must be"):
        layer.explain(np.zeros((5, 7, 2), np.float32))


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
class TestCpu:
    core: Any = importlib.import_module("fastrnn._core") if "cpu" in BACKENDS else None

    def test_products(self) -> None:
        assert explain(9, 2, 8)["instruction set"] == self.core.isa()
        units = cpu.units()
        why = {
            "reproducible": explain(100, 64, 256, reproducible=True)["products"],
            "float32": explain(100, 64, 256, dtype=np.float64)["products"],
            "below" if "tile unit" in units else "no tile": explain(100, 64, 32)["products"],
        }
        for word, products in why.items():
            assert products.startswith("fused multiply-adds")
            assert (word if units else "no products of bfloat16") in products
        if "tile unit" in units:
            assert explain(100, 64, 256)["products"].startswith("tile unit, terms=3")
            mixed = explain(100, 1, 64, precision="medium")["products"]
            assert mixed.startswith("fused multiply-adds; of all steps' rows at once: tile unit")
        kind = "dot products, terms=1" if units else "fused multiply-adds: no products"
        assert explain(9, 1, 128, precision="medium")["products"].startswith(kind)

    def test_threads(self) -> None:
        assert explain(1, 1, 8, threads=2)["threads"] == 1
        assert explain(100, 64, 256, threads=2)["threads share"] == "rows"
        assert explain(100, 1, 512, threads=2)["threads share"] == "units"
