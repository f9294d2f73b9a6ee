"""What stands in two languages must agree: the cells' traits in C++ and in Python."""

from __future__ import annotations

import os

import pytest

from fastrnn.cellmath import CELLS, GENERAL

_core = pytest.importorskip("fastrnn._core", reason="the C++ extension is not built")


def test_cells_of_the_extension_are_those_of_cellmath():
    described = [
        (kind, len(spec.gates), len(spec.saved), spec.has_c)
        for kind, spec in (CELLS | GENERAL).items()
    ]
    assert _core.cells() == described


def test_forced_instruction_set_is_the_one_that_runs():
    forced = os.environ.get("FASTRNN_ISA")
    assert _core.isa() == (forced or _core.usable_isas()[0])
    assert _core.usable_isas()[-1] == "scalar"
