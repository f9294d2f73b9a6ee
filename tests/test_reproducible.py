"""The bits: what `reproducible=True` keeps the same, and what holds without it.

That they do not depend on the instruction set is in test_isa.py.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cases import (
    KINDS,
    Call,
    Case,
    Results,
    infer,
    pack,
    parts,
    run,
    same_bits,
    unpack,
)
from grid import per_backend

import fastrnn

PER_ROW = ("y", "hn", "cn", "dx", "dh0", "dc0")

# Batch 13 is two tiles of six rows and one over; H and I are no multiple of any vector. The last
# is large enough for two threads, which share the rows of 40 and the units of fewer.
CASES = [
    Case(kind, dtype=dtype, **{"sizes": (7, 13, 10, 19), **options})
    for kind in KINDS
    for dtype in ("float32", "float64")
    for options in (
        {},
        {"layers": 2, "bidirectional": True, "lengths": "zeros", "resets": "some"},
        {"layers": 2, "proj": True, "bias": False},
        {"sizes": (12, 40, 70, 133), "lengths": "zeros"},
    )
    if kind.startswith("lstm") or "proj" not in options
    if dtype == "float32" or "sizes" not in options
]
FEW = CASES[::5]
each_case = pytest.mark.parametrize(
    ("backend", "case"), per_backend(CASES, FEW), indirect=["backend"]
)


def select(results: Results, *index: Any) -> Results:
    """What is per row, at [time or entry, rows]."""
    return {name: results[name][index] for name in PER_ROW if name in results}


def rows_of(call: Call, rows: Any) -> Call:
    how = dict(call.how)
    if "lengths" in how:
        how["lengths"] = how["lengths"][rows]
    if "resets" in how:
        how["resets"] = how["resets"][:, rows]
    return Call(
        call.x[:, rows],
        pack(s[:, rows] for s in unpack(call.state)),
        how,
        call.dy[:, rows],
        pack(s[:, rows] for s in unpack(call.dstate)),
    )


@each_case
def test_batch_and_position(backend: str, case: Case) -> None:
    """A row's outputs and gradients are its own: alone, among others, wherever it stands."""
    layer, call = case.layer(backend, reproducible=True), case.call()
    whole = run(layer, call)
    every = np.arange(case.sizes[1])
    for rows in (every[:1], every[-1:], every[::-1], every[3:9], np.roll(np.tile(every, 3), 2)):
        same_bits(
            select(run(layer, rows_of(call, rows)), slice(None)), select(whole, slice(None), rows)
        )


@each_case
def test_padding(backend: str, case: Case) -> None:
    """Steps past every row's length change nothing, parameters' gradients included."""
    layer, call = case.layer(backend, reproducible=True), case.call()
    steps, batch = case.sizes[:2]
    call.how.setdefault("lengths", np.full(batch, steps))
    want = run(layer, call)
    more = 5
    how = {"lengths": call.how["lengths"]}
    if "resets" in call.how:
        how["resets"] = np.concatenate([call.how["resets"], np.ones((more, batch), bool)])
    padded = Call(
        np.concatenate([call.x, np.ones_like(call.x[:more])]),
        call.state,
        how,
        np.concatenate([call.dy, np.ones_like(call.dy[:more])]),
        call.dstate,
    )
    got = run(layer, padded)
    for name in ("y", "dx"):
        assert not got[name][steps:].any()
        got[name] = got[name][:steps].copy()
    same_bits(got, want)


@each_case
def test_chunks(backend: str, case: Case) -> None:
    """A sequence run in pieces, states and their gradients handed on, is the sequence run whole."""
    case = case.but(bidirectional=False)  # the reverse direction has no state to hand on
    layer, call = case.layer(backend, reproducible=True), case.call()
    want = run(layer, call)
    cuts = [0, 1, 4, case.sizes[0]]
    state, ys, tapes = call.state, [], []
    spans = [slice(*ends) for ends in itertools.pairwise(cuts)]
    for span in spans:
        how = dict(call.how)
        if "resets" in how:
            how["resets"] = how["resets"][span]
        if "lengths" in how:
            how["lengths"] = np.clip(how["lengths"] - span.start, 0, span.stop - span.start)
        y, state, tape = layer.forward(call.x[span], state, **how)
        ys.append(y)
        tapes.append(tape)
    dstate, dxs = call.dstate, []
    for span, tape in zip(spans[::-1], tapes[::-1], strict=True):
        grads = layer.backward(tape, call.dy[span], dstate)
        dstate = grads.state
        dxs.insert(0, grads.x)
    got = {"y": np.concatenate(ys), **parts(state, "hn", "cn"), "dx": np.concatenate(dxs)}
    got |= parts(dstate, "dh0", "dc0")
    same_bits(got, {name: want[name] for name in got})


@each_case
def test_inference(backend: str, case: Case) -> None:
    """What keeps nothing for backward computes the same."""
    layer, call = case.layer(backend, reproducible=True), case.call()
    want = run(layer, call)
    got = infer(layer, call)
    same_bits(got, {name: want[name] for name in got})


@each_case
def test_inference_step_by_step(backend: str, case: Case) -> None:
    """A call of one step, which may take the weights as they are, is a step of a longer call."""
    case = case.but(bidirectional=False)
    layer, call = case.layer(backend, reproducible=True), case.call()
    want = infer(layer, call)
    state, ys = call.state, []
    for t, x_t in enumerate(call.x):
        how = dict(call.how)
        if "resets" in how:
            how["resets"] = how["resets"][t : t + 1]
        if "lengths" in how:
            how["lengths"] = np.clip(how["lengths"] - t, 0, 1)
        y, state = layer(x_t[None], state, **how)
        ys.append(y)
    same_bits({"y": np.concatenate(ys), **parts(state, "hn", "cn")}, want)


@each_case
def test_checkpoints(backend: str, case: Case) -> None:
    layer, call = case.layer(backend, reproducible=True), case.call()
    want = run(layer, call)
    for every in (1, 3, 10):
        same_bits(run(layer, call, checkpoint_every=every), want)


# Many rows, few rows, one row; two layers and two directions are further parallel work.
PARALLEL = [
    Case(kind, sizes, dtype=dtype, layers=2, bidirectional=True, lengths=lengths)
    for kind in KINDS
    for sizes, dtype, lengths in (
        ((7, 70, 40, 96), "float32", "zeros"),
        ((7, 2, 40, 200), "float32", ""),
        ((12, 1, 64, 90), "float64", ""),
    )
]


@pytest.mark.parametrize("reproducible", [False, True], ids=["plain", "reproducible"])
@pytest.mark.parametrize(
    ("backend", "case"),
    per_backend(PARALLEL, PARALLEL[2::9], slow=("numpy", "numba")),
    indirect=["backend"],
)
def test_threads(backend: str, case: Case, reproducible: bool) -> None:
    """Any number of threads, and any run, gives the same bits, without reproducible=True too."""
    layer, call = case.layer(backend, reproducible=reproducible), case.call()
    with fastrnn.num_threads(1):
        want = run(layer, call)
    for threads in (1, 2, 3, 2):
        with fastrnn.num_threads(threads):
            same_bits(run(layer, call), want)
