"""A thousand steps, checked tightly: benchdnn's trick of linear activations in a test build.

Squashing functions forget: an error made early in a long chain is damped away before anyone sees
it, so only loose tolerances hold. With sigmoid(x) = x/4 + 1/2 and tanh(x) = x, and weights that
neither damp nor amplify, every step's error reaches the end. The build:

    FASTRNN_DEFINES=FASTRNN_LINEAR_ACTIVATIONS pip install --no-deps --target DIRECTORY .
    FASTRNN_LINEAR_BUILD=DIRECTORY pytest tests/test_long_chains.py
"""

from __future__ import annotations

import importlib
import math
import os
from typing import Any

import numpy as np
import pytest
from cases import Call, Case, Results, pack, run_elsewhere, unpack
from grid import BACKENDS
from oracles import Linear, by_hand

BUILD = os.environ.get("FASTRNN_LINEAR_BUILD", "")
pytestmark = [
    pytest.mark.skipif(not BUILD, reason="FASTRNN_LINEAR_BUILD names no build"),
    pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test"),
]

STEPS = 1000
# Every step adds roundings, none is damped: a random walk, of 2 to 187 eps here relative to the
# largest value of an array. One step gone wrong by 1e-4 (float32) or 1e-13 would be seen.
LIMIT = 12 * math.sqrt(STEPS)
# relu is left out: it has a kink.
CASES = [
    Case(kind, (STEPS, 5, 4, 17), dtype="float32", lengths="zeros")
    for kind in ("rnn_tanh", "gru", "gru_reset_before", "lstm", "lstm_peephole")
]


def remembering(case: Case) -> Any:
    """A layer whose state, with linear activations, still knows its first step after the last.

    Gates multiply, so recurrent weights into them are small, and all others turn the state without
    growing it: a rotation, or 0.998 plus what is close to one.
    """
    layer, draw = case.layer("cpu"), np.random.default_rng(case.seed)
    hidden, w = case.sizes[3], layer.params
    noise = draw.standard_normal((hidden, hidden))
    if case.kind == "rnn_tanh":
        w["weight_hh_l0"][:] = np.linalg.qr(noise)[0]
        return layer
    for name, value in w.items():
        value *= 0.001 if "hh" in name or "peephole" in name else 0.05
    turn = noise - noise.T
    # n of the GRU comes in by 1 - z = 0.002 and r = 1/2, g of the LSTM by i = 1/2 and o = 1/2.
    size = 20.0 if case.kind.startswith("gru") else 0.15
    w["weight_hh_l0"][2 * hidden : 3 * hidden] = size * turn / np.linalg.norm(turn, 2)
    # The gate that keeps the state is bias / 4 + 1/2: z of r, z, n and f of i, f, g, o.
    w["bias_ih_l0"][hidden : 2 * hidden] = draw.uniform(1.991, 1.993, hidden)
    return layer


def double(case: Case, layer: Any, call: Call) -> tuple[Any, Call]:
    """The same numbers in float64."""
    twin = case.but(dtype="float64").layer("cpu")
    twin.load_params({name: value.astype(np.float64) for name, value in layer.params.items()})
    wide = [pack(s.astype(np.float64) for s in unpack(p)) for p in (call.state, call.dstate)]
    x, dy = call.x.astype(np.float64), call.dy.astype(np.float64)
    return twin, Call(x, wide[0], call.how, dy, wide[1])


@pytest.fixture(scope="module")
def expected() -> list[tuple[Any, Call, Results]]:
    """Layer, call and the answer in float64, for each case."""
    jobs = []
    for case in CASES:
        layer, call = remembering(case), case.call()
        call.x *= np.float32(0.1)
        jobs.append((layer, call, by_hand(case, layer.params, call, functions=Linear)))
    return jobs


def test_the_chains_remember(expected: list[tuple[Any, Call, Results]]) -> None:
    """The first steps' gradients are as large as the last ones', and nothing explodes."""
    for case, (_, call, want) in zip(CASES, expected, strict=True):
        whole = np.argmax(call.how["lengths"])
        early, late = (
            np.abs(want["dx"][part, whole]).mean() for part in (slice(9), slice(-9, None))
        )
        assert early > 0.3 * late, str(case)
        assert np.abs(want["y"]).max() < 100, str(case)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "neon"])
def test_linear_chains(isa: str, dtype: str, expected: list[tuple[Any, Call, Results]]) -> None:
    if isa not in importlib.import_module("fastrnn._core").usable_isas():
        pytest.skip(f"this machine does not run {isa}")
    jobs = [(layer, call) for layer, call, _ in expected]
    if dtype == "float64":
        jobs = [double(case, *job) for case, job in zip(CASES, jobs, strict=True)]
    build, results = run_elsewhere(jobs, {"FASTRNN_ISA": isa}, tree=BUILD)
    assert build["linear"]
    assert build["isa"] == isa
    for case, (_, _, want), got in zip(CASES, expected, results, strict=True):
        for name, value in want.items():
            error = np.abs(got[name] - value).max() / np.abs(value).max()
            assert error < LIMIT * np.finfo(dtype).eps, f"{case} {name}"
            assert got[name].dtype == dtype
