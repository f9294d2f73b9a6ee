"""checkpoint_every: what is kept, what is run again, and that nobody can tell the difference.

That gradients are the plain ones for every kind, mixed with every option, is in test_options.py;
here is the memory, the work, and the forms of input.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from cases import Case, close, run, same_bits, unpack

import fastrnn
from fastrnn import stack


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("steps", "every"), [(1, 1), (6, 3), (7, 3), (2, 5), (5, 1), (0, 4)])
def test_spans_cover_every_step_once(steps: int, every: int, reverse: bool) -> None:
    spans = list(stack._spans_of(steps, every, reverse))
    assert all(0 < stop - start <= every for start, stop in spans)
    seen = [t for start, stop in spans for t in range(start, stop)]
    assert sorted(seen) == list(range(steps))
    # In the order of the direction, and only the last one short.
    assert spans == sorted(spans, reverse=reverse)
    assert all(stop - start == every for start, stop in spans[:-1])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_kept_are_states_alone(backend: str, kind: str) -> None:
    """Between the initial state and the end: one state for each further span and layer."""
    case = Case(kind, (50, 3, 5, 8), layers=2)
    layer, call = case.layer(backend), case.call()
    state = 2 * 3 * 8 * 8 * (2 if kind == "lstm" else 1)
    for every, spans in ((50, 1), (25, 2), (7, 8), (1, 50), (1000, 1)):
        tape = layer.forward(call.x, call.state, checkpoint_every=every)[2]
        assert tape.nbytes == spans * state


def test_two_directions_keep_what_the_next_layer_reads(backend: str) -> None:
    case = Case("gru", (50, 3, 5, 8), layers=3, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    tape = layer.forward(call.x, call.state, checkpoint_every=10)[2]
    states, inputs = 5 * 6 * 3 * 8 * 8, 2 * 50 * 3 * 16 * 8
    assert tape.nbytes == states + inputs


def test_peak_of_memory(backend: str) -> None:
    """Forward and backward together: NumPy's memory, and what the C++ engine keeps of its own."""
    case = Case("lstm", (4096, 4, 8, 32), layers=2, dtype="float32")
    layer, call = case.layer(backend), case.call()
    run(layer, call)  # compiles, where there is something to compile

    def step(**how: Any) -> None:
        tape = layer.forward(call.x, call.state, **how)[2]
        layer.backward(tape, call.dy, call.dstate)

    def peak(**how: Any) -> int:
        fastrnn.release_memory()
        for _ in range(5 if backend == "cpu" else 0):
            step(**how)  # until it keeps what this step needs and no other
        tracemalloc.start()
        step(**how)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if backend == "cpu":
            from fastrnn import _core

            size += _core.memory_kept()
        return size

    assert peak(checkpoint_every=16) < peak() / 3


@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_step_runs_twice(monkeypatch: pytest.MonkeyPatch, bidirectional: bool) -> None:
    case = Case("rnn_tanh", (10, 2, 3, 4), layers=2, bidirectional=bidirectional)
    layer, call = case.layer("numpy"), case.call()
    ran: list[tuple[int, bool]] = []
    forward = layer._stack.backend.forward

    def spy(weights: Any, args: Any, *, save: bool, threads: int) -> Any:
        ran.append((len(args.x), save))
        return forward(weights, args, save=save, threads=threads)

    monkeypatch.setattr(layer._stack.backend, "forward", spy)
    tape = layer.forward(call.x, call.state, checkpoint_every=4)[2]
    assert all(not save for _, save in ran)
    layer.backward(tape, call.dy, call.dstate)
    passes = 2 * case.directions
    for wanted in (False, True):
        assert sum(steps for steps, save in ran if save == wanted) == 10 * passes


@pytest.mark.parametrize(
    "changes", [{}, {"batch_first": True}, {"bidirectional": True}, {"proj": True}]
)
def test_states_are_the_plain_ones(backend: str, changes: dict[str, Any]) -> None:
    case = Case("lstm", (9, 3, 5, 6), layers=2, lengths="zeros", resets="some").but(**changes)
    layer, call = case.layer(backend), case.call()
    tapes = [
        layer.forward(call.x, call.state, **call.how, checkpoint_every=every)[2]
        for every in (None, 1, 4)
    ]
    want = dict(zip("hc", tapes[0].states(), strict=True))
    for tape in tapes[1:]:
        got = dict(zip("hc", tape.states(), strict=True))
        if backend == "cpu":
            same_bits(got, want)
        close(got, want, case.dtype)


def test_unbatched(backend: str) -> None:
    case = Case("lstm", (9, 1, 5, 6), layers=2, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    x, dy = call.x[:, 0], call.dy[:, 0]
    how: dict[str, Any] = {"lengths": 7, "resets": np.arange(9) % 4 == 0}
    grads = [
        layer.backward(layer.forward(x, **how, checkpoint_every=every)[2], dy)
        for every in (None, 2)
    ]
    np.testing.assert_allclose(grads[1].flat, grads[0].flat, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(grads[1].x, grads[0].x, rtol=1e-9, atol=1e-11)
    for a, b in zip(unpack(grads[0].state), unpack(grads[1].state), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11)


def test_parameters_may_change_before_backward(backend: str) -> None:
    """What is run again is run with the weights of the forward, not with those of now."""
    case = Case("gru", (9, 3, 5, 6), layers=2)
    layer, call = case.layer(backend), case.call()
    want = run(layer, call, checkpoint_every=4)
    y, _, tape = layer.forward(call.x, call.state, checkpoint_every=4)
    layer.flat_params[:] = np.nan
    grads = layer.backward(tape, call.dy, call.dstate)
    assert np.array_equal(grads.x, want["dx"])
    assert np.array_equal(y, want["y"])


def test_default_is_to_keep_everything() -> None:
    layer = fastrnn.LSTM(3, 4, rng=0, backend="numpy")
    x = np.zeros((20, 2, 3), np.float32)
    plain, explicit = (layer.forward(x, **how)[2] for how in ({}, {"checkpoint_every": None}))
    assert plain.nbytes == explicit.nbytes > layer.forward(x, checkpoint_every=20)[2].nbytes
