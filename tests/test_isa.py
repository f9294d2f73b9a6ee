"""The same layer on every instruction set: the one asked for, right, and equal to the bit."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import KINDS, Case, Results, close, run, run_elsewhere, same_bits
from grid import BACKENDS
from oracles import by_hand

import fastrnn

ISAS = ("scalar", "avx2", "avx512", "avx512bf16", "amx", "neon")
WIDTHS = [
    Case(kind, sizes, dtype=dtype, layers=2, bidirectional=True, lengths="zeros", resets="some")
    for kind in KINDS
    for dtype in ("float32", "float64")
    for sizes in ((5, 13, 10, 19), (5, 1, 3, 70))
]
# The options of a case's cell; test_cell_options.py has what is right.
HARD = {"gate_activation": "hard_sigmoid", "clip": 0.7}
OPTIONS = [
    (case, {"clip": 0.7} if "rnn" in case.kind else HARD | more)
    for case in WIDTHS
    for more in ([{"coupled": True}, {"activation": "relu"}] if case.is_lstm else [{}])
]
# Sums that are settled: of inputs, and of the gates of units.
WIDTHS += [
    Case("gru", (2, 7, 4500, 19), dtype="float32"),
    Case("lstm", (2, 1, 4500, 19)),
    Case("lstm", (1, 7, 3, 1030), dtype="float32"),
]


@functools.cache
def answers(isa: str) -> tuple[dict[str, Any], list[list[Results]]]:
    """The build as it is in a process with this FASTRNN_ISA, and results: of WIDTHS, of the same
    with reproducible=True, and of OPTIONS."""
    layers = [
        [(case, {}) for case in WIDTHS],
        [(case, {"reproducible": True}) for case in WIDTHS],
        [(case, {"reproducible": True, **options}) for case, options in OPTIONS],
    ]
    jobs = [(case.layer("cpu", **how), case.call()) for each in layers for case, how in each]
    build, results = run_elsewhere(jobs, {"FASTRNN_ISA": isa})
    answered = iter(results)
    return build, [[next(answered) for _ in each] for each in layers]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Any:
    """Each instruction set of this machine."""
    if "cpu" not in BACKENDS:
        pytest.skip("cpu is not under test")
    if request.param not in importlib.import_module("fastrnn._core").usable_isas():
        pytest.skip(f"this machine does not run {request.param}")
    return request.param


def test_the_forced_isa_ran(isa: str) -> None:
    build, _ = answers(isa)
    assert build["isa"] == build["config"]["instruction set"] == isa


def test_every_isa_is_right(isa: str) -> None:
    for results in answers(isa)[1][:2]:
        for case, got in zip(WIDTHS, results, strict=True):
            close(got, oracle(case), case.dtype)


def test_bits_do_not_depend_on_the_isa(isa: str) -> None:
    for case, got in zip(WIDTHS, answers(isa)[1][True], strict=True):
        same_bits(got, run(case.layer("cpu", reproducible=True), case.call()))
    for (case, options), got in zip(OPTIONS, answers(isa)[1][2], strict=True):
        same_bits(got, run(case.layer("cpu", reproducible=True, **options), case.call()))


@functools.cache
def oracle(case: Case) -> Results:
    return by_hand(case, case.layer("cpu").params, case.call())


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.parametrize("name", ["sse9", "AVX2 ", ""])
def test_unknown_instruction_set(name: str) -> None:
    """A name that is none is an error that lists the usable ones; an empty one is not set."""
    done = subprocess.run(
        [sys.executable, "-c", "import fastrnn, numpy; fastrnn.GRU(2, 3)"],
        capture_output=True,
        text=True,
        timeout=1800,  # a hang
        env={**os.environ, "FASTRNN_ISA": name},
        cwd=Path(fastrnn.__path__[0]).parent,
    )
    assert (done.returncode != 0) == bool(name), done.stderr
    if name:
        assert "FASTRNN_ISA" in done.stderr
        assert all(
            isa in done.stderr for isa in importlib.import_module("fastrnn._core").usable_isas()
        )
