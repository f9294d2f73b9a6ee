"""Steps recorded as graphs: the same bits as without, in bounded memory, and when it cannot be."""

from __future__ import annotations

import threading
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cases import KINDS, parts, run, same_bits
from device import DeviceCase, down, up

import fastrnn
import fastrnn.backends
from fastrnn.backends.cuda import CudaBackend, graphs


@pytest.fixture(autouse=True)
def fresh(device: Any, monkeypatch: pytest.MonkeyPatch) -> CudaBackend:
    """A backend that knows no graph yet, of three steps or two."""
    monkeypatch.setattr(graphs, "SIZES", (3, 2))
    backend = CudaBackend(device)
    real = fastrnn.backends._get
    monkeypatch.setattr(
        fastrnn.backends, "_get", lambda name: backend if name == "cuda" else real(name)
    )
    return backend


def played(device: Any, work: Any) -> int:
    """How many graphs some work launches."""
    before = device.launches.count("graph")
    work()
    count: int = device.launches.count("graph") - before
    return count


def without(monkeypatch: pytest.MonkeyPatch, layer: Any, call: Any, **how: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "SIZES", ())
        return run(layer, call, **how)


# ---- the time loops ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"bidirectional": True, "layers": 2},
        {"bias": False, "dtype": "float32", "proj": True},
        {"batch_first": True, "state": False},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_the_same_bits_as_without(
    device: Any, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, Any]
) -> None:
    if not kind.startswith("lstm"):
        options = options | {"proj": False}
    case = DeviceCase(kind, (17, 3, 5, 4), **options)
    layer, call = case.layer(), case.call()
    want = without(monkeypatch, layer, call)
    assert "graph" not in device.launches
    same_bits(run(layer, call), want)
    assert "graph" in device.launches  # but for the first three steps and the first two
    # five graphs of three steps and one of two, forward and backward
    passes = case.layers * case.directions
    assert played(device, lambda: same_bits(run(layer, call), want)) == 12 * passes


@pytest.mark.parametrize("kind", ["rnn_relu", "gru", "lstm"])
def test_chains_and_checkpoints(device: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    case = DeviceCase(kind, (13, 3, 5, 4), dtype="float32")
    layer, call = case.layer(reproducible=True), case.call()
    want = without(monkeypatch, layer, call)
    for how in ({}, {"checkpoint_every": 6}):
        assert played(device, lambda how=how: same_bits(run(layer, call, **how), want)) > 0


def test_other_weights_in_the_same_graph(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [DeviceCase("lstm_peephole", (9, 3, 5, 4), seed=seed) for seed in (1, 2)]
    layers = [case.layer() for case in cases]
    wants = [
        without(monkeypatch, layer, case.call()) for layer, case in zip(layers, cases, strict=True)
    ]
    for _ in range(2):
        for case, layer, want in zip(cases, layers, wants, strict=True):
            same_bits(run(layer, case.call()), want)
    assert "graph" in device.launches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [7, 12, 9], [0, 5, 12], [12, 12, 3]])
@pytest.mark.parametrize("resets", ["", "some", "often"])
def test_rows_that_end_or_begin_anew(
    device: Any, monkeypatch: pytest.MonkeyPatch, kind: str, lengths: Any, resets: str
) -> None:
    """Graphs of the steps that all rows run; the others run as they are."""
    proj = kind.startswith("lstm")
    case = DeviceCase(kind, (12, 3, 5, 4), bidirectional=True, proj=proj, resets=resets)
    layer, call = case.layer(), case.call()
    call.how["lengths"] = lengths
    full = 12 if lengths is None else min(lengths)
    for how in ({}, {"checkpoint_every": 9}):
        want = without(monkeypatch, layer, call, **how)
        for _ in range(2):
            same_bits(run(layer, call, **how), want)
    graphs_of_a_pass = full // 3 + (full % 3 == 2)
    assert played(device, lambda: run(layer, call)) == 4 * graphs_of_a_pass


def test_resets_of_another_call_in_the_same_graph(
    device: Any, monkeypatch: pytest.MonkeyPatch, fresh: CudaBackend
) -> None:
    case = DeviceCase("lstm", (9, 3, 5, 4), resets="some")
    layer, calls = case.layer(), [case.but(seed=seed).call() for seed in (1, 2, 3)]
    wants = [without(monkeypatch, layer, call) for call in calls]
    for _ in range(2):
        for call, want in zip(calls, wants, strict=True):
            same_bits(run(layer, call), want)
    assert len(fresh._graphs._known) == 2  # forward, backward


def test_short_sequences_run_as_they_are(device: Any) -> None:
    case = DeviceCase("gru", (1, 3, 5, 4))
    layer, call = case.layer(), case.call()
    assert played(device, lambda: [run(layer, call) for _ in range(3)]) == 0


def test_each_stream_device_and_thread_has_its_own(device: Any, fresh: CudaBackend) -> None:
    case = DeviceCase("rnn_tanh", (6, 3, 5, 4))
    layer, call = case.layer(), case.call()

    def infer() -> None:
        layer(call.x, call.state)

    assert played(device, infer) == 1
    assert played(device, infer) == 2
    device.stream = 7
    try:
        assert played(device, infer) == 1
    finally:
        device.stream = 0
    with fake_cupy.Device(1):
        there = case.layer()
        assert played(device, lambda: there(call.x, call.state)) == 1
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(played(device, infer)))
    thread.start()
    thread.join()
    assert counts == [1]
    assert played(device, infer) == 2


def test_a_change_of_shape_is_another_graph(device: Any, fresh: CudaBackend) -> None:
    layer = fastrnn.GRU(3, 4, backend="cuda")
    for B in (1, 2, 3):
        x = up(np.zeros((6, B, 3), np.float32))
        assert played(device, lambda x=x: layer(x)) == 1
    assert len(fresh._graphs._known) == 3


def test_memory_is_bounded(
    device: Any, fresh: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = fastrnn.GRU(3, 4, backend="cuda")

    def infer(B: int) -> int:
        x = up(np.zeros((6, B, 3), np.float32))
        return played(device, lambda: layer(x))

    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    assert [infer(B) for B in (1, 2, 1, 3, 1, 2)] == [1, 1, 2, 1, 2, 1]
    assert len(fresh._graphs._known) == 2
    one = fresh._graphs.nbytes // 3  # of B = 1 and 2, weights aside
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 100)
    monkeypatch.setattr(graphs, "MOST_BYTES", 4 * one)
    for B in (1, 2, 3):
        infer(B)
        assert fresh._graphs.nbytes <= 4 * one
    assert infer(40) == 0  # too large in itself


def test_nothing_is_launched_as_a_graph_in_the_callers_own_recording(device: Any) -> None:
    step = fastrnn.GRU(3, 4, rng=0, backend="cuda").stepper()
    x = up(np.ones(3, np.float32))
    want = down(step(x))
    step.reset()
    with fake_cupy.recording() as queued:
        step(x)
    for work in queued:
        work()
    assert np.array_equal(down(step._y)[0], want)


# ---- the stepper ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reproducible", [False, True])
def test_a_stepper_is_one_graph(device: Any, kind: str, reproducible: bool) -> None:
    case = DeviceCase(kind, (5, 3, 4, 6), layers=3, proj=kind.startswith("lstm"))
    layer, call = case.layer(reproducible=reproducible).layer, case.call()
    step = layer.stepper(3)
    assert not any(a.any() for a in parts(down(step.state), "h", "c").values())
    y, final = down(layer(up(call.x), up(call.state)))
    step.state = up(call.state)
    device.launches.clear()
    ys = [down(step(up(x))) for x in call.x]
    assert device.launches.count("graph") == 5
    got, want = parts(down(step.state), "h", "c"), parts(final, "h", "c")
    np.testing.assert_allclose(np.array(ys), y, rtol=1e-12, atol=1e-13)
    if reproducible:
        same_bits({"y": np.array(ys), **got}, {"y": y, **want})


def test_a_stepper_where_nothing_can_be_recorded(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = fastrnn.LSTM(3, 4, 2, rng=0, backend="cuda")
    x = up(np.ones((1, 3), np.float32))
    want = down(layer.stepper()(x))
    monkeypatch.setattr(type(device), "record", lambda self, work: None)
    step = layer.stepper()
    assert played(device, lambda: np.testing.assert_array_equal(down(step(x)), want)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(type(device), "recording", True)
        device.launches.clear()
        step = layer.stepper()
        assert not device.launches  # of the caller's recording they would be a part
    assert np.array_equal(down(step(x)), want)


def test_the_loops_where_nothing_can_be_recorded(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(type(device), "record", lambda self, work: tried.append(work))
    case = DeviceCase("lstm", (13, 3, 5, 4))
    layer, call = case.layer(), case.call()
    want = without(monkeypatch, layer, call)
    for _ in range(3):
        same_bits(run(layer, call), want)
    assert len(tried) == 2  # once forward, once backward


def test_a_recording_reserves_no_memory(device: Any) -> None:
    """What would be reserved would be another's when the graph runs."""
    a = up(np.zeros((2, 3)))
    for work in (lambda: fake_cupy.empty(3), lambda: a.copy(), lambda: fake_cupy.matmul(a, a.T)):
        assert device.record(work) is None
    launch = device.record(lambda: a.__setitem__(slice(1), 1.0))
    assert not down(a).any()
    launch()
    assert down(a)[0].all()
