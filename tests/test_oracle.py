"""Every backend against torch in float64: outputs, final states and every gradient."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from cases import KINDS, Call, Case, Results, close, infer, run, unpack
from grid import BACKENDS, covering, per_backend
from oracles import TORCH_KINDS, by_hand, torch_nn, torch_packed

import fastrnn

# T, B, I, H: odd, I != H, T = 1, B = 1, wider than two AVX-512 vectors, H of 2, 16 and 130.
SIZES = (
    (7, 3, 5, 4),
    (1, 5, 3, 2),
    (9, 1, 1, 17),
    (12, 6, 33, 31),
    (4, 19, 8, 16),
    (3, 2, 7, 130),
    (25, 4, 2, 9),
)
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
COMMON: dict[str, Any] = {
    "layers": (1, 2, 3),
    "bidirectional": (False, True),
    "bias": (True, False),
    "batch_first": (False, True),
    "dtype": ("float32", "float64"),
    "state": (True, False),
    "lengths": ("", "positive", "zeros"),
    "sizes": SIZES,
}


def cases(strength: int, cells: tuple[tuple[str, bool], ...], **options: Any) -> list[Case]:
    """`cells` are pairs (kind, projection), so that no other kind meets a projection."""
    drawn = covering(strength, cell=cells, **{**COMMON, **options})
    return [
        Case(kind=cell[0], proj=cell[1], **rest, seed=n)
        for n, (cell, rest) in enumerate((case.pop("cell"), case) for case in drawn)
    ]


TORCH = (*((kind, False) for kind in TORCH_KINDS), ("lstm", True))
EVERY = (*((kind, False) for kind in KINDS), ("lstm", True), ("lstm_peephole", True))
SMALL = {"layers": (1, 2), "sizes": SIZES[:2], "batch_first": (False,), "state": (True,)}


def right(layer: Any, call: Call, want: Results) -> None:
    """Training's outputs and gradients, and inference's outputs."""
    close(run(layer, call), want, layer.dtype)
    outputs = infer(layer, call)
    close(outputs, {name: want[name] for name in outputs}, layer.dtype)


@pytest.mark.parametrize(
    ("backend", "case"),
    per_backend(cases(3, TORCH), cases(1, TORCH, dtype=("float64",), **SMALL)),
    indirect=["backend"],
)
def test_torch_nn(backend: str, case: Case) -> None:
    layer, call = case.layer(backend), case.call()
    right(layer, call, torch_nn(case, layer.params, call))


@pytest.mark.parametrize(
    ("backend", "case"),
    per_backend(
        cases(2, EVERY, resets=("", "some", "often")),
        cases(1, EVERY, resets=("some", ""), **SMALL),
    ),
    indirect=["backend"],
)
def test_step_by_step(backend: str, case: Case) -> None:
    """Also what torch.nn cannot do: peepholes, Cho's first GRU, resets."""
    layer, call = case.layer(backend), case.call()
    right(layer, call, by_hand(case, layer.params, call))


# Beyond the engines' thresholds: chunks of 192 and 512 rows, shared rows (B >= 8) and shared units
# (B < 8, much work a step), recurrent weights larger than a cache. The last ones: with rows enough
# to fetch weights ahead, and weight gradients in blocks of columns.
LARGE = cases(
    2,
    EVERY,
    sizes=(
        (61, 21, 37, 70),
        (30, 9, 13, 65),
        (210, 1, 8, 33),
        (9, 3, 130, 300),
        (2, 523, 9, 20),
        (4, 2, 20, 620),
    ),
    resets=("", "some"),
    layers=(1,),
    batch_first=(False,),
    state=(True,),
    bias=(True,),
) + [
    Case(kind, sizes, dtype=dtype)
    for kind in ("lstm", "gru")
    for sizes, dtype in (((16, 33, 300, 200), "float64"), ((16, 33, 100, 400), "float32"))
]


@pytest.mark.parametrize(("backend", "case"), per_backend(LARGE, LARGE[::12]), indirect=["backend"])
@pytest.mark.parametrize("threads", [1, 2])
def test_large(backend: str, case: Case, threads: int) -> None:
    layer, call = case.layer(backend), large_call(case)
    with fastrnn.num_threads(threads):
        right(layer, call, large_answer(case))


def large_call(case: Case) -> Call:
    """With a loss that does not grow with T and B, so that gradients are of order one here too."""
    call = case.call()
    for gradient in (call.dy, *unpack(call.dstate)):
        gradient /= math.sqrt(case.sizes[0] * case.sizes[1])
    return call


@functools.cache
def large_answer(case: Case) -> Results:
    return by_hand(case, case.layer(BACKENDS[0]).params, large_call(case))


@pytest.mark.parametrize("kind", TORCH_KINDS)
def test_packed_sequence(backend: str, kind: str) -> None:
    """lengths mean what torch's PackedSequence means."""
    case = Case(kind=kind, layers=2, bidirectional=True, lengths="positive")
    layer, call = case.layer(backend), case.call()
    right(layer, call, torch_packed(case, layer.params, call))


@pytest.mark.parametrize("kind", KINDS)
def test_size_one(backend: str, kind: str) -> None:
    """T = B = I = H = 1."""
    case = Case(kind=kind, sizes=(1, 1, 1, 1))
    layer, call = case.layer(backend), case.call()
    right(layer, call, by_hand(case, layer.params, call))


@pytest.mark.parametrize("kind", KINDS)
def test_unbatched(backend: str, kind: str) -> None:
    """(T, I) is a batch of one without its axis, in y, states and gradients alike."""
    case = Case(kind=kind, sizes=(6, 1, 5, 4), layers=2, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    call.x, call.dy = call.x[:, 0], call.dy[:, 0]
    squeeze = (lambda s: tuple(a[:, 0] for a in s)) if case.is_lstm else (lambda s: s[:, 0])
    call.state, call.dstate = squeeze(call.state), squeeze(call.dstate)
    got = run(layer, call)
    for name in ("y", "dx", "hn", "cn", "dh0", "dc0"):
        if name in want:
            want[name] = want[name][:, 0]
    close(got, want, case.dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_not_finite_as_ieee_says(backend: str, kind: str, dtype: str) -> None:
    """NaN, inf and huge values give what torch gives, in their own rows and in no other."""
    case = Case(kind, (6, 9, 5, 7), dtype=dtype)
    layer, call = case.layer(backend), case.call()
    finite = run(layer, call)
    huge = np.finfo(dtype).max / 4
    bad = [np.nan, np.inf, -np.inf, huge, -huge, np.nan]
    for row, value in enumerate(bad):
        call.x[2, row, 1] = value
    for state in unpack(call.state):
        state[0, 6] = np.nan
    call.dy[:] = 0
    got = run(layer, call)
    want = by_hand(case, layer.params, call)
    for name in ("y", "hn", "cn"):
        if name in want:
            overflows = ~np.isfinite(want[name]) | (np.abs(want[name]) > np.finfo(dtype).max)
            with np.errstate(over="ignore"):
                expected = np.where(overflows, want[name].astype(dtype), want[name])
            close({name: got[name]}, {name: expected}, dtype)
            np.testing.assert_array_equal(got[name][:, 7:], finite[name][:, 7:])
    assert np.isnan(got["y"][2:, 0]).all()


@pytest.mark.parametrize("place", ["x", "h0", "weight_hh_l0", "bias_ih_l0"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_nan(backend: str, kind: str, place: str) -> None:
    """NaN in the forward reaches the gradients that it reaches in torch, and no others."""
    case = Case(kind, (5, 3, 4, 6))
    layer, call = case.layer(backend), case.call()
    spoilt = {"x": call.x, "h0": unpack(call.state)[0], **layer.params}[place]
    spoilt.reshape(-1)[1] = np.nan
    got = run(layer, call)
    close(got, by_hand(case, layer.params, call), case.dtype)
    assert np.isnan(got["y"]).any()


@pytest.mark.parametrize(
    ("kind", "gate"), [(kind, g) for kind in KINDS for g in range(GATES[kind.split("_")[0]])]
)
def test_nan_in_one_gate(backend: str, kind: str, gate: int) -> None:
    """Each gate's function lets NaN through, whatever the other gates of the unit say."""
    case = Case(kind, (3, 2, 5, 7), state=False)
    layer, call = case.layer(backend), case.call()
    layer.params["bias_ih_l0"][gate * 7] = np.nan
    for got in (run(layer, call), infer(layer, call)):
        assert np.isnan(got["y"][..., 0]).all()
        if kind != "gru_reset_before":  # there r of one unit is in every unit's product
            assert np.isfinite(got["y"][0, :, 1:]).all()


def test_the_oracles_agree() -> None:
    """The plain cells against torch.nn, with parameters that no fastrnn code has touched."""
    draw = np.random.default_rng(0)
    for case in cases(2, TORCH):
        call = case.call()
        params = {
            name: draw.uniform(-0.5, 0.5, value.shape)
            for name, value in case.layer(BACKENDS[0]).params.items()
        }
        close(by_hand(case, params, call), torch_nn(case, params, call), "float64")
