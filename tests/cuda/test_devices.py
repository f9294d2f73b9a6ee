"""Several GPUs: what is called runs where its arrays are, whatever the current device is."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cases import same_bits
from device import DeviceCase, down, up
from emulator import EmulatedDevice

import fastrnn
import fastrnn.backends
from fastrnn.backends.cuda import CudaBackend, graphs, persistent

pytestmark = pytest.mark.usefixtures("device")

X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((5, 2, 4)).astype(np.float32)
MASK = np.array([True, False])


def current() -> int:
    return fake_cupy.Device().id


def same(got: Any, want: Any) -> None:
    """The same bits in all arrays."""
    found = ([a if isinstance(a, np.ndarray) else down(a) for a in leaves(w)] for w in (got, want))
    same_bits(*(dict(enumerate(arrays)) for arrays in found))


def leaves(value: Any) -> list[Any]:
    """All arrays in what calls have returned."""
    if isinstance(value, (np.ndarray, fake_cupy.ndarray)):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif hasattr(value, "flat"):
        value = [value.flat, *value.params.values(), value.x, getattr(value, "state", None)]
    elif not isinstance(value, (list, tuple)):
        return []
    return [leaf for each in value for leaf in leaves(each)]


# What each makes is made on the current device, and what it returns may be called from anywhere.
Work = Callable[[], Any]


def a_layer() -> list[Work]:
    kind = {"peephole": True, "proj_size": 2, "bidirectional": True, "dropout": 0.3}
    layer = fastrnn.LSTM(3, 4, 2, rng=0, backend="cuda", **kind)
    x, dy, values = up(X), up(Y), dict(layer.params)
    how: dict[str, Any] = {"lengths": [5, 3], "resets": np.eye(5, 2, dtype=bool), "rng": 1}
    _, state, tape = layer.forward(x, **how)
    checkpoints = layer.forward(x, state, checkpoint_every=2, **how)[2]

    def change() -> Any:
        layer.params["bias_hh_l0"] = layer.params["bias_ih_l0"]
        layer.load_params(values)
        layer.flat_params = layer.backward(tape, dy).flat
        return layer.flat_params

    def freeze() -> Any:
        layer.freeze()
        return layer(x), layer.params.host()

    return [
        lambda: layer(x),
        lambda: layer(x[:0], state),
        lambda: layer.forward(x, state, **how)[:2],
        lambda: layer.backward(tape, dy),
        lambda: layer.backward(checkpoints, None, state),
        lambda: (tape.states(), checkpoints.states()),
        lambda: layer.explain(x)["time loop"],
        change,
        freeze,
    ]


def a_cell() -> list[Work]:
    cell = fastrnn.GRUCell(3, 4, rng=0, backend="cuda")
    x_t, dh = up(X[0]), up(Y[0])
    _, tape = cell.forward(x_t)
    return [lambda: cell(x_t, dh), lambda: cell.forward(x_t)[0], lambda: cell.backward(tape, dh)]


def a_stepper() -> list[Work]:
    layer = fastrnn.LSTM(3, 4, 2, rng=0, backend="cuda")
    x_t = up(X[0])
    step = layer.stepper(2)

    def run() -> Any:
        first = down(step(x_t))
        step.reset(MASK)
        state = step.state
        step.reset()
        step.state = state
        return [first, state, layer.stepper(2)(x_t)]

    return [run]


def around() -> list[Work]:
    linear = fastrnn.Linear(3, 4, rng=0, device="cuda")
    table = fastrnn.Embedding(6, 4, rng=0, device="cuda")
    x, dy, index = up(X), up(Y), up(np.array([[1, 5], [1, 9]], np.int32))
    _, tape = linear.forward(x)
    _, looked_up = table.forward(index)
    optimizers = [
        fastrnn.Adam([linear, table], weight_decay=0.1),
        fastrnn.SGD(table, 0.1, momentum=0.9, nesterov=True),
    ]

    def train() -> Any:
        grads = [linear.backward(tape, dy), table.backward(looked_up, dy[:2])]
        norm = fastrnn.clip_grad_norm(grads, 0.5)
        adam, sgd = optimizers
        adam.step(grads)
        sgd.step(grads[1])
        adam.load_state_dict(adam.state_dict())
        fresh = fastrnn.Adam(linear)
        fresh.step(grads[0])
        return [norm, grads, linear.flat_params, table.flat_params, fresh.state_dict()]

    return [lambda: (linear(x), table(index)), train]


def losses() -> list[Work]:
    logits, targets, mask = up(Y), up(np.eye(5, 2, dtype=int) * 3), up(np.eye(5, 2) < 1)
    target = up(2 * Y)
    return [
        lambda: fastrnn.softmax_cross_entropy(logits, targets),
        lambda: fastrnn.softmax_cross_entropy(logits, targets, mask),
        lambda: fastrnn.mse(logits, target, mask),
    ]


def a_gradcheck() -> list[Work]:
    layer = fastrnn.GRU(3, 4, rng=0, dtype=np.float64, backend="cuda")
    x = up(X.astype(float))
    return [lambda: fastrnn.gradcheck(layer, x, rng=1)]


@pytest.mark.parametrize("make", [a_layer, a_cell, a_stepper, around, losses, a_gradcheck])
def test_all_runs_where_its_arrays_are(make: Callable[[], list[Work]]) -> None:
    wants = [work() for work in make()]
    with fake_cupy.Device(1):
        works = make()
    for work, want in zip(works, wants, strict=True):
        got = work()
        assert current() == 0
        found = [a for a in leaves(got) if isinstance(a, fake_cupy.ndarray)]
        assert all(a.device.id == 1 for a in found)
        same(got, want)


def test_the_current_device_is_restored_after_an_error(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_cupy.Device(1):
        layer = fastrnn.LSTM(3, 4, rng=0, backend="cuda")
        x = up(X)
        _, _, tape = layer.forward(x)
        step = layer.stepper(2)
    with pytest.raises(ValueError, match="x must be"):
        layer(x[:, :, :1])

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(device, "gemm", fail)
    for work in (
        lambda: layer(x),
        lambda: layer.forward(x),
        lambda: layer.backward(tape, None),
        lambda: layer.stepper(),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            work()
        assert current() == 0
    with pytest.raises(TypeError, match=r"^x_t must be a cupy\.ndarray"):
        step(X[0])
    assert current() == 0


def test_arrays_of_two_devices_do_not_mix() -> None:
    here = fastrnn.LSTM(3, 4, rng=0, backend="cuda")
    there = here.to("cuda:1")
    x, state = up(X), here(up(X))[1]
    with fake_cupy.Device(1):
        x_there = up(X)
    tape = there.forward(x_there)[2]
    expected = "is on <CUDA Device 0>, the layer's parameters on <CUDA Device 1>$"
    for name, work in {
        "x": lambda: there(x),
        r"state\[0\]": lambda: there(x_there, state),
        "dy": lambda: there.backward(tape, up(Y)),
        "x_t": lambda: there.stepper(2)(x[0]),
        "flat_params": lambda: setattr(there, "flat_params", here.flat_params),
        "weight_ih_l0": lambda: there.load_params(dict(here.params)),
    }.items():
        with pytest.raises(TypeError, match=f"^{name} {expected}"):
            work()


@pytest.mark.parametrize(
    "host",
    [fastrnn.GRU(3, 4, rng=0), fastrnn.LSTMCell(3, 4, rng=0), fastrnn.Linear(3, 4, rng=0)],
    ids=lambda layer: type(layer).__name__,
)
def test_moves_and_copies(host: Any) -> None:
    first, second = host.to("cuda"), host.to("cuda:1")
    second.freeze()
    places = {
        (first, 0): [first.to("cuda:0"), second.to("cuda:0"), second.to("cuda")],
        (second, 1): [first.to("cuda:1"), second.to("cuda:1"), copy.deepcopy(second)],
    }
    with fake_cupy.Device(1):
        places[second, 1] += [first.to("cuda"), pickle.loads(pickle.dumps(first))]
        places[first, 0].append(copy.deepcopy(first))
    for (_, number), layers in places.items():
        for layer in layers:
            assert layer.flat_params.device.id == number
            assert np.array_equal(down(layer.flat_params), host.flat_params)
    assert copy.deepcopy(second.params).flat.device.id == 1
    assert second.to("cpu").frozen
    assert np.array_equal(second.to("cpu").flat_params, host.flat_params)
    assert current() == 0


def test_names_of_devices() -> None:
    layer = fastrnn.GRU(3, 4, rng=0, backend="numpy")
    for wrong in ("cuda:2", "cuda:-1", "cuda:01", "cuda1"):
        expected = "^device must be one of 'cpu', 'cuda', 'cuda:0', 'cuda:1', got"
        with pytest.raises(ValueError, match=f"{expected} '{wrong}'$"):
            layer.to(wrong)
    with pytest.raises(TypeError, match=r"^device must be one of 'cpu', 'cuda', got int$"):
        layer.to(1)


def test_copies_share_what_the_original_shares() -> None:
    layer = fastrnn.Linear(3, 4, rng=0)
    one, other = copy.deepcopy([layer, layer])
    assert one is other
    assert one is not layer


class OfTwoKinds(EmulatedDevice):
    """The first device is of Hopper's, the second of Turing's."""

    built: list[tuple[int, str]]

    @property
    def capability(self) -> int:
        return (90, 75)[current()]

    def cooperative(self, program: Any, name: str, *room: int) -> Any:
        self.built.append((current(), dict(program.defines)["FASTRNN_PATH"]))
        return super().cooperative(program, name, *room)


@pytest.fixture
def two_kinds(device: Any, monkeypatch: pytest.MonkeyPatch) -> OfTwoKinds:
    """Two different devices, whose passes are one launch each."""
    found = OfTwoKinds()
    found.built = []
    backend = CudaBackend(found)
    real = fastrnn.backends._get
    monkeypatch.setattr(
        fastrnn.backends, "_get", lambda name: backend if name == "cuda" else real(name)
    )
    monkeypatch.setattr(persistent, "THREADS", 64)
    monkeypatch.setattr(graphs, "SIZES", ())
    return found


def test_each_runs_the_programs_of_its_device(two_kinds: OfTwoKinds) -> None:
    case = DeviceCase("lstm", (5, 2, 3, 4), dtype="float32")
    layers = [case.layer().layer.to(f"cuda:{n}") for n in (0, 1)]
    for n, (layer, path, says) in enumerate(
        zip(
            layers,
            ("ThreeTf32", "Chains"),
            ("three products of TF32", "fused multiply-adds"),
            strict=True,
        )
    ):
        two_kinds.built.clear()
        with fake_cupy.Device(n):
            x = up(case.call().x)
        _, _, tape = layer.forward(x)
        layer.backward(tape, None)
        assert two_kinds.built == [(n, path)] * 2
        assert layer.explain(x)["recurrent products"] == says
    two_kinds.built.clear()
    cuda: Any = fastrnn.backends.get("cuda")
    assert cuda.algorithms(layers[1], 2)
    assert set(two_kinds.built) == {(1, "Chains")}


def test_what_is_measured_is_of_the_layers_device(
    two_kinds: OfTwoKinds, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path))
    cuda: Any = fastrnn.backends.get("cuda")
    layer = fastrnn.LSTM(3, 4, rng=0, backend="cuda").to("cuda:1")
    for _ in cuda.find_fastest(layer, 5, 2):
        assert current() == 0
    kept = next(tmp_path.glob("*.json")).read_text()
    assert kept.count("emulated | 75 |") == 2
    assert "emulated | 90 |" not in kept


def test_threads_have_current_devices_of_their_own(device: Any) -> None:
    """Each runs a layer here and one there, all at the same time."""
    case = DeviceCase("lstm", (5, 3, 4, 3), layers=2, bidirectional=True, lengths="zeros")
    call = case.call()
    layers = [case.layer().layer.to(f"cuda:{n}") for n in (0, 1)]
    inputs = []
    for n in (0, 1):
        with fake_cupy.Device(n):
            inputs.append((up(call.x), up(call.state), up(call.dy)))
    want = layers[0](*inputs[0][:2], **call.how)
    meet, wrong = threading.Barrier(4), []

    def run(own: int) -> None:
        try:
            with fake_cupy.Device(own):
                meet.wait(60)
                for n in (0, 1, 1, 0):
                    x, state, dy = inputs[n]
                    y, final, tape = layers[n].forward(x, state, **call.how)
                    layers[n].backward(tape, dy)
                    assert current() == own
                    same((y, final), want)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
