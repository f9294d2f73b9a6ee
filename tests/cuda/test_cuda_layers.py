"""Layers on the emulated device: every cell and option against the reference."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from cases import KINDS, back, close, infer, parts, run, same_bits
from device import DeviceCase, OnDevice, down, reference, up
from grid import covering

import fastrnn
from fastrnn.backends.cuda.launch import Launcher

pytestmark = pytest.mark.usefixtures("device")

OPTIONS: dict[str, Any] = {
    "kind": KINDS,
    "sizes": [(6, 3, 5, 4), (1, 1, 1, 1), (4, 37, 3, 33), (9, 2, 70, 7)],
    "layers": [1, 2],
    "bidirectional": [False, True],
    "bias": [True, False],
    "batch_first": [False, True],
    "proj": [False, True],
    "dtype": ["float32", "float64"],
    "state": [True, False],
    "lengths": ["", "positive", "zeros"],
    "resets": ["", "some", "often"],
}
CASES = [
    DeviceCase(**case)
    for case in covering(2, **OPTIONS)
    if not (case["proj"] and (not case["kind"].startswith("lstm") or case["sizes"][3] == 1))
] + [DeviceCase(kind, proj=kind.startswith("lstm"), layers=2) for kind in KINDS]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_results_and_gradients(case: DeviceCase) -> None:
    layer, call = case.layer(), case.call()
    got = run(layer, call)
    close(got, run(*reference(case, call)), case.dtype)
    close(
        infer(layer, call),
        {name: got[name] for name in ("y", "hn", "cn") if name in got},
        case.dtype,
    )


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rnn_tanh", {"nonlinearity": "sigmoid", "clip": 0.7}),
        ("gru", {"gate_activation": "hard_sigmoid", "clip": 0.9}),
        ("gru_reset_before", {"gate_activation": "hard_sigmoid", "activation": "relu"}),
        ("lstm", {"gate_activation": "hard_sigmoid", "gate_slope": 1 / 6, "coupled": True}),
        ("lstm_peephole", {"clip": 0.5, "coupled": True, "output_activation": "relu"}),
    ],
)
def test_cells_with_options(kind: str, options: dict[str, Any], reproducible: bool) -> None:
    case = DeviceCase(kind, (5, 3, 4, 33), proj=kind == "lstm", lengths="zeros", resets="some")
    layer, call = case.layer(reproducible=reproducible, **options), case.call()
    close(run(layer, call), run(*reference(case, call, **options)), case.dtype)
    step, x = layer.layer.stepper(3), up(call.x)
    y, _ = layer.layer(x)
    for t in range(len(x)):
        np.testing.assert_allclose(down(step(x[t])), down(y[t]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
@pytest.mark.parametrize("reverse", [False, True])
def test_against_torch(kind: str, reverse: bool) -> None:
    pytest.importorskip("torch")
    import oracles

    case = DeviceCase(kind, (5, 4, 3, 6), layers=2, bidirectional=reverse, lengths="zeros")
    layer, call = case.layer(), case.call()
    params = {name: down(value) for name, value in layer.layer.params.items()}
    close(run(layer, call), oracles.torch_nn(case, params, call), "float64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order_of_threads_gives_the_same_bits(device: Any, kind: str, seed: int) -> None:
    case = DeviceCase(kind, (3, 9, 4, 33), resets="some", lengths="positive")
    call = case.call()
    for reproducible in (False, True):
        layer = case.layer(reproducible=reproducible)
        device.seed = 0
        want = run(layer, call)
        device.seed = seed
        same_bits(run(layer, call), want)


@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_are_projected_in_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrnn.backends.cuda import passes

    case = DeviceCase(kind, (7, 3, 4, 5), bidirectional=True, lengths="positive")
    layer, call = case.layer(reproducible=True), case.call()
    want = run(layer, call)
    monkeypatch.setattr(passes, "CHUNK_ROWS", 7)
    same_bits(run(layer, call), want)


def test_gradients_of_many_rows_are_summed_in_two_passes() -> None:
    case = DeviceCase("lstm_peephole", (50, 9, 2, 3), dtype="float32")
    layer, call = case.layer(), case.call()
    close(run(layer, call), run(*reference(case, call)), case.dtype)


def test_sums_of_products_are_fused(device: Any) -> None:
    """The square of 1 + 2^-12 has a last bit that float32 cannot hold."""
    launch = Launcher(device, np.dtype(np.float32), chain=True)
    a = up(np.full((1, 1), 1 + 2**-12, np.float32))
    out = up(np.full(1, -1 - 2**-11, np.float32))
    launch.add_sum(out, a, False, a)
    assert down(out)[0] == 2**-24


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 3, 100])
def test_checkpoints(kind: str, every: int) -> None:
    case = DeviceCase(kind, layers=2, lengths="zeros", resets="some", bidirectional=every == 3)
    layer, call = case.layer(), case.call()
    close(run(layer, call, checkpoint_every=every), run(layer, call), case.dtype)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_is_that_of_the_cpu(bidirectional: bool) -> None:
    case = DeviceCase("gru", (5, 3, 4, 6), layers=3, bidirectional=bidirectional)
    call = case.call()
    layer, host = case.layer(dropout=0.4), case.host_layer(dropout=0.4)
    for how in ({}, {"checkpoint_every": 2}):
        close(run(layer, call, rng=5, **how), run(host, call, rng=5), case.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("start", [0, 1, 21, 2**40 + 3])
def test_masks_are_those_of_the_cpu(device: Any, dtype: str, start: int) -> None:
    backend = fastrnn.backends.get("cuda")
    for size in (1, 7, 8, 300):
        how = (2**63 + 12345, 3, start, (size,), 0.3, np.dtype(dtype))
        assert np.array_equal(down(backend.mask(*how)), fastrnn.dropout.mask(*how))


def test_a_draw_at_the_threshold_is_kept(device: Any) -> None:
    words = np.random.Philox(key=np.array([7, 0], np.uint64)).random_raw(4)
    draws = words.astype("<u8").view("<u4")
    for at, draw in enumerate(draws):
        mask = fastrnn.backends.get("cuda").mask(7, 0, 0, (8,), int(draw) / 2**32, np.dtype("f8"))
        assert np.array_equal(down(mask) > 0, draws >= draw)
        assert down(mask)[at] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_the_tape(kind: str) -> None:
    for how in ({}, {"checkpoint_every": 2}):
        for lengths in ("", "zeros"):
            case = DeviceCase(kind, layers=2, bidirectional=True, lengths=lengths)
            call, found = case.call(), []
            for layer in (case.layer(), case.host_layer()):
                tape = layer.forward(call.x, call.state, **call.how, **how)[2]
                found.append(tape)
            got, want = (tape.states() for tape in found)
            close(parts(down(got), "h", "c"), parts(want, "h", "c"), case.dtype)
            assert found[0].nbytes == found[1].nbytes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reproducible", [False, True])
def test_stepper(kind: str, reproducible: bool) -> None:
    case = DeviceCase(kind, (5, 3, 4, 6), layers=2, proj=kind.startswith("lstm"))
    layer, call = case.layer(reproducible=reproducible).layer, case.call()
    y, final = down(layer(up(call.x), up(call.state)))
    step = layer.stepper(3)
    step.state = up(call.state)
    ys = np.array([down(step(up(x))) for x in call.x])
    compare = same_bits if reproducible else lambda a, b: close(a, b, case.dtype)
    compare({"y": ys, **parts(down(step.state), "h", "c")}, {"y": y, **parts(final, "h", "c")})
    step.reset(np.array([True, False, True]))
    for state in parts(down(step.state), "h", "c").values():
        assert not state[:, ::2].any()
        assert state[:, 1].any()
    step.reset()
    assert not any(a.any() for a in parts(down(step.state), "h", "c").values())


def test_stepper_of_one_row() -> None:
    layer = fastrnn.GRU(3, 4, rng=0, backend="cuda")
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    step = layer.stepper()
    step(up(x[0]))
    np.testing.assert_allclose(down(step(up(x[1]))), down(layer(up(x))[0])[1], atol=1e-6)


@pytest.mark.parametrize("cls", [fastrnn.RNNCell, fastrnn.GRUCell, fastrnn.LSTMCell])
def test_cells(cls: Any) -> None:
    host = cls(3, 4, dtype=np.float64, rng=1, backend="numpy")
    cell = host.to("cuda")
    draw = np.random.default_rng(2).standard_normal
    x, state = draw((5, 3)), (draw((5, 4)), draw((5, 4)))
    state = state if cls is fastrnn.LSTMCell else state[0]
    results = []
    for each, send, fetch in ((host, lambda a: a, lambda a: a), (cell, up, down)):
        final, tape = each.forward(send(x), send(state))
        grads = each.backward(tape, final)
        found = {**parts(fetch(final), "h", "c"), **parts(fetch(grads.state), "dh", "dc")}
        found |= {"dx": fetch(grads.x), "flat": fetch(grads.flat)}
        results.append(found)
    close(results[1], results[0], np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(0, 3, 5, 4), (6, 0, 5, 4)])
def test_empty(kind: str, sizes: tuple[int, int, int, int]) -> None:
    case = DeviceCase(kind, sizes, layers=2, bidirectional=True)
    layer, call = case.layer(), case.call()
    close(run(layer, call), run(case.host_layer(), call), case.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_has_a_step(kind: str) -> None:
    case = DeviceCase(kind, layers=2)
    layer, call = case.layer(), case.call()
    call.how["lengths"] = np.zeros(3, int)
    close(run(layer, call), run(case.host_layer(), call), case.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_inf_flow_through(kind: str) -> None:
    case = DeviceCase(kind, dtype="float32")
    layer, call = case.layer(), case.call()
    call.x[2, 0, 1], call.x[3, 1, 2], call.x[1, 2, 0] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        got, want = run(layer, call), run(case.host_layer(), call)
    for name in ("y", "hn", "dx"):
        assert np.array_equal(np.isnan(got[name]), np.isnan(want[name])), name


def test_only_dstate_flows_in() -> None:
    case = DeviceCase("lstm", proj=True)
    layer, call = case.layer(), case.call()
    call.dy = None
    close(run(layer, call), run(case.host_layer(), call), case.dtype)


def test_a_tape_is_used_twice() -> None:
    case = DeviceCase("gru", layers=2)
    layer, call = case.layer(), case.call()
    tape = layer.forward(call.x, call.state)[2]
    same_bits(back(layer, tape, call), back(layer, tape, call))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resets", ["", "some"])
def test_what_was_returned_may_be_written_to(kind: str, resets: str) -> None:
    """The tape has nothing of it, nor of the state that came, nor of the parameters."""
    case = DeviceCase(kind, layers=2, resets=resets, proj=kind.startswith("lstm"))
    call = case.call()
    want = run(case.layer(), call)
    layer, state = case.layer().layer, up(call.state)
    y, final, tape = layer.forward(up(call.x), state, **call.how)
    for a in (
        y,
        layer.flat_params,
        *parts(final, "h", "c").values(),
        *parts(state, "h", "c").values(),
    ):
        a[...] = np.nan
    grads = back(OnDevice(layer), tape, call)
    same_bits(grads, {name: want[name] for name in grads})


def test_unbatched() -> None:
    case = DeviceCase("lstm", (6, 1, 5, 4), bidirectional=True)
    layer, call = case.layer(), case.call()
    want = run(layer, call)
    call.x, call.dy = call.x[:, 0], call.dy[:, 0]
    call.state, call.dstate = (tuple(a[:, 0] for a in s) for s in (call.state, call.dstate))
    got = run(layer, call)
    for name in ("y", "dx"):
        assert np.array_equal(got[name], want[name][:, 0])


def test_the_parameters_of_one_seed_are_those_of_the_cpu() -> None:
    case = DeviceCase("lstm", dtype="float32", layers=2)
    assert np.array_equal(down(case.layer().layer.flat_params), case.host_layer().flat_params)


def test_work_is_proportional_to_valid_steps(device: Any) -> None:
    layer = OnDevice(fastrnn.GRU(3, 4, backend="cuda"))
    x = np.zeros((50, 2, 3), np.float32)
    layer(x, lengths=[2, 1])
    short = len(device.launches)
    layer(x)
    assert short * 20 < len(device.launches) - short


def test_no_call_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read back, and no array's truth is asked for (fake_cupy raises on that)."""
    case = DeviceCase("lstm", layers=2, bidirectional=True, lengths="zeros", resets="some")
    layer, call = case.layer(dropout=0.2).layer, case.call()
    x, state, dy, dstate = map(up, (call.x, call.state, call.dy, call.dstate))

    def get(self: Any) -> Any:
        raise AssertionError("an array was read back")

    monkeypatch.setattr(fake_cupy.ndarray, "get", get)
    _, _, tape = layer.forward(x, state, **call.how)
    layer.backward(tape, dy, dstate)
    layer(x, state)
    tape.states()
    step = fastrnn.LSTM(5, 4, backend="cuda").stepper()
    step.reset()
