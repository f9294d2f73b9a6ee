"""The surface: names, shapes and forms, parameters, freezing, copies, cells, steppers, threads.

What the numbers are is in test_oracle.py and test_options.py, what is refused in test_checks.py.
"""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from cases import KINDS, LAYERS, Case, back, run, same_bits, unpack
from grid import BACKENDS

import fastrnn
import fastrnn.backends
from fastrnn.backends import numpy as numpy_backend
from fastrnn.params import Parameters

T, B, I, H, L, P = 5, 3, 4, 6, 2, 2


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


# ---- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "LSTM-proj"])
def test_names_and_shapes_are_torchs(name: str, bias: bool, bidirectional: bool) -> None:
    kind, _, proj = name.partition("-")
    options: dict[str, Any] = {"bias": bias, "bidirectional": bidirectional}
    options |= {"proj_size": P} if proj else {}
    ours = getattr(fastrnn, kind)(I, H, L, **options).params
    theirs = getattr(torch.nn, kind)(I, H, L, **options).named_parameters()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, tuple(v.shape)) for k, v in theirs]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_names_and_shapes_of_cells_are_torchs(kind: str) -> None:
    ours = getattr(fastrnn, kind + "Cell")(I, H).params
    theirs = getattr(torch.nn, kind + "Cell")(I, H).named_parameters()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, tuple(v.shape)) for k, v in theirs]


def test_peephole_weights_come_last() -> None:
    params = fastrnn.LSTM(I, H, L, peephole=True, proj_size=P).params
    names = [name for name in params if name.endswith("_l1")]
    assert names[-2:] == ["weight_hr_l1", "weight_peephole_l1"]
    assert params["weight_peephole_l1"].shape == (3 * H,)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_views_of_one_vector(kind: str) -> None:
    layer = Case(kind, (T, B, I, H), layers=L, bidirectional=True).layer("numpy")
    flat = layer.flat_params
    assert flat.ndim == 1
    assert flat.flags.c_contiguous
    assert flat.size == layer.num_params == sum(v.size for v in layer.params.values())
    flat[:] = np.arange(flat.size)
    start = 0
    for value in layer.params.values():
        assert value.base is flat
        assert value.flags.writeable
        assert np.array_equal(value.ravel(), np.arange(start, start + value.size))
        start += value.size
    layer.params["weight_hh_l0"][...] = -1
    assert (flat == -1).sum() == layer.params["weight_hh_l0"].size


def test_parameters_can_be_set() -> None:
    """Values are copied in; arrays that others hold stay views. In place is the common case."""
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")
    flat, bias = layer.flat_params, layer.params["bias_hh_l0"]
    layer.flat_params -= flat
    layer.flat_params += 1
    layer.params["bias_hh_l0"] *= 2
    assert layer.flat_params is flat
    assert layer.params["bias_hh_l0"] is bias
    assert flat.sum() == flat.size + bias.size
    layer.params["bias_hh_l0"] = -bias
    layer.flat_params = flat + 1
    assert np.all(bias == -1)
    assert layer.params["bias_hh_l0"] is bias
    before = flat.copy()
    with pytest.raises(ValueError, match=r"flat_params must be \(216,\), got \(1,\)"):
        layer.flat_params = flat[:1]
    with pytest.raises(TypeError, match=r"bias_hh_l0 must be float32, got float64"):
        layer.params["bias_hh_l0"] = bias.astype(np.float64)
    with pytest.raises(KeyError):
        layer.params["bias_hh_l1"] = bias
    layer.freeze()
    with pytest.raises(ValueError, match="frozen"):
        layer.flat_params = flat + 1
    assert np.array_equal(flat, before)


def test_writing_to_parameters_changes_the_next_call(backend: str) -> None:
    layer = fastrnn.GRU(I, H, rng=0, backend=backend)
    before = layer(ones(T, B, I))[0]
    layer.flat_params *= 2
    assert not np.array_equal(layer(ones(T, B, I))[0], before)
    layer.params["weight_ih_l0"][...] *= 0.5
    layer.flat_params[layer.params["weight_ih_l0"].size :] /= 2
    assert np.array_equal(layer(ones(T, B, I))[0], before)


def test_initial_parameters() -> None:
    """uniform(-1/sqrt(H), 1/sqrt(H)); the same rng gives the same, in float32 rounded."""
    layers = [fastrnn.LSTM(20, 25, rng=rng) for rng in (1, 1, np.random.default_rng(1), 2)]
    flat = layers[0].flat_params
    assert np.abs(flat).max() <= np.float32(0.2)
    np.testing.assert_allclose([flat.min(), flat.max()], [-0.2, 0.2], atol=1e-3)
    assert abs(flat.mean()) < 5 * 0.2 / np.sqrt(3 * flat.size)
    assert np.array_equal(flat, layers[1].flat_params)
    assert np.array_equal(flat, layers[2].flat_params)
    assert not np.array_equal(flat, layers[3].flat_params)
    assert not np.array_equal(fastrnn.RNN(3, 4).flat_params, fastrnn.RNN(3, 4).flat_params)
    double = fastrnn.LSTM(20, 25, rng=1, dtype=np.float64).flat_params
    assert np.array_equal(double.astype(np.float32), flat)


def test_load_params_copies() -> None:
    source, target = fastrnn.GRU(I, H, rng=0), fastrnn.GRU(I, H, rng=1)
    target.load_params(source.params)
    assert np.array_equal(target.flat_params, source.flat_params)
    assert not np.shares_memory(target.flat_params, source.flat_params)
    target.load_params(target.params)
    assert np.array_equal(target.flat_params, source.flat_params)


def test_load_params_takes_its_own_under_other_names() -> None:
    layer = fastrnn.GRU(I, I, rng=0)
    ih, hh = (layer.params[name].copy() for name in ("weight_ih_l0", "weight_hh_l0"))
    own = dict(layer.params)
    layer.load_params(
        own | {"weight_ih_l0": own["weight_hh_l0"], "weight_hh_l0": own["weight_ih_l0"]}
    )
    assert np.array_equal(layer.params["weight_ih_l0"], hh)
    assert np.array_equal(layer.params["weight_hh_l0"], ih)


def test_load_params_takes_a_state_dict() -> None:
    module = torch.nn.LSTM(I, H, L, bidirectional=True)
    layer = fastrnn.LSTM(I, H, L, bidirectional=True)
    layer.load_params({name: value.numpy() for name, value in module.state_dict().items()})
    with torch.no_grad():
        want = module(torch.ones(T, B, I))[0].numpy()
    np.testing.assert_allclose(layer(ones(T, B, I))[0], want, atol=2e-6)


def test_gradients_can_be_set_in_place() -> None:
    """Clipping and summing are assignments in place, of any part."""
    for layer in (fastrnn.LSTM(I, H, rng=0), fastrnn.Linear(I, H, rng=0)):
        out = layer.forward(ones(T, B, I))
        grads = layer.backward(out[-1], out[0])
        flat, x = grads.flat.copy(), grads.x.copy()
        grads.flat *= 2
        grads.x *= 2
        grads.params["weight" if isinstance(layer, fastrnn.Linear) else "weight_ih_l0"] += 0
        assert np.array_equal(grads.flat, 2 * flat)
        assert np.array_equal(grads.x, 2 * x)
        grads.flat = flat
        assert all(v.base is grads.flat for v in grads.params.values())


TWINS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", TWINS)
def test_copies_of_gradients_are_views_of_one_vector_again(how: str) -> None:
    """As they are sent between processes, and kept for later."""
    for layer in (fastrnn.LSTM(I, H, rng=0), fastrnn.Linear(I, H, rng=0)):
        out = layer.forward(ones(T, B, I))
        grads = layer.backward(out[-1], out[0])
        twin = TWINS[how](grads)
        same_bits(
            {"x": twin.x, "flat": twin.flat, **twin.params},
            {"x": grads.x, "flat": grads.flat, **grads.params},
        )
        before = grads.flat.copy()
        twin.flat *= 0
        assert not any(value.any() for value in twin.params.values())
        assert np.array_equal(grads.flat, before)


@pytest.mark.parametrize("how", TWINS)
def test_copies_of_parameters_stay_frozen(how: str) -> None:
    layer = fastrnn.GRU(I, H, rng=0)
    assert TWINS[how](layer.params)["bias_hh_l0"].flags.writeable
    layer.freeze()
    twin = TWINS[how](layer.params)
    assert not twin.flat.flags.writeable
    with pytest.raises(ValueError, match="frozen"):
        twin["bias_hh_l0"] = ones(3 * H)


@pytest.mark.parametrize("how", [*TWINS.values(), copy.copy], ids=[*TWINS, "copy"])
def test_tapes_are_not_copied(how: Callable[[Any], Any]) -> None:
    """A copy would belong to no layer."""
    tape = fastrnn.GRU(I, H).forward(ones(T, B, I))[2]
    with pytest.raises(TypeError, match="a tape belongs to the layer object that made it"):
        how(tape)


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_settings_can_be_read(name: str) -> None:
    """Each constructor's argument but rng is an attribute, and in config(), which JSON can hold."""
    cls = getattr(fastrnn, name)
    layer = cls(I, H, backend="numpy")
    arguments = [a for a in inspect.signature(cls).parameters if a != "rng"]
    config = layer.config()
    assert list(config) == arguments
    assert json.loads(json.dumps(config)) == config
    for argument in arguments:
        assert getattr(layer, argument) == config[argument]
    assert cls(**config).config() == config
    assert repr(layer) == f"{name}({', '.join(f'{k}={v!r}' for k, v in config.items())})"
    config["hidden_size"] = 0
    assert layer.hidden_size == layer.config()["hidden_size"] == H


def test_sizes_may_be_numpys() -> None:
    layer = fastrnn.LSTM(np.int32(I), np.uint8(H), np.int64(2), dropout=np.float32(0.5))
    assert type(layer.config()["hidden_size"]) is int
    assert type(layer.config()["dropout"]) is float


def test_proj_size_of_those_without() -> None:
    assert fastrnn.GRU(I, H).proj_size == fastrnn.RNNCell(I, H).proj_size == 0


def test_auto_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """config() keeps what was asked for, `backend` says what came of it."""
    monkeypatch.setenv("FASTRNN_BACKEND", "numpy")
    layer = fastrnn.GRU(I, H)
    assert layer.backend == "numpy"
    assert layer.config()["backend"] == "auto"


def test_to_the_cpu_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a layer that FASTRNN_BACKEND put on the GPU."""

    class Gpu(numpy_backend.NumpyBackend):
        name = "cuda"

    real = fastrnn.backends._get
    monkeypatch.setattr(
        fastrnn.backends, "_get", lambda name: Gpu() if name == "cuda" else real(name)
    )
    monkeypatch.setenv("FASTRNN_BACKEND", "cuda")
    for layer in (fastrnn.GRU(I, H, rng=0), fastrnn.GRU(I, H, rng=0, backend="cuda")):
        assert layer.backend == "cuda"
        host = layer.to("cpu")
        assert host.backend != "cuda"
        assert np.array_equal(host.flat_params, layer.flat_params)
    monkeypatch.delenv("FASTRNN_BACKEND")
    assert fastrnn.GRU(I, H, backend="cuda").to("cpu").config()["backend"] == "auto"


def test_bases_are_not_layers() -> None:
    for base in (fastrnn.LSTM.__mro__[2], fastrnn.LSTMCell.__mro__[2]):
        with pytest.raises(TypeError, match="abstract"):
            base()


# ---- forms of input and output -------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind: str, bidirectional: bool, batch_first: bool) -> None:
    for proj in (False, True) if kind.startswith("lstm") else (False,):
        case = Case(kind, (T, B, I, H), L, bidirectional, batch_first=batch_first, proj=proj)
        layer, width = case.layer("numpy"), case.directions * case.output
        entries = L * case.directions
        for batched in (True, False):
            lead = ((B, T) if batch_first else (T, B)) if batched else (T,)
            rows = (B,) if batched else ()
            shapes = [(entries, *rows, case.output), (entries, *rows, H)][: 1 + case.is_lstm]
            x = np.ones((*lead, I))
            y, state, tape = layer.forward(x)
            assert y.shape == (*lead, width)
            assert [s.shape for s in unpack(state)] == shapes
            assert [s.shape for s in unpack(tape.states())] == [(T, *s) for s in shapes]
            y_again, state_again = layer(x, state)
            assert y_again.shape == y.shape
            assert [s.shape for s in unpack(state_again)] == shapes
            grads = layer.backward(tape, y, state)
            assert grads.x.shape == x.shape
            assert [s.shape for s in unpack(grads.state)] == shapes
            assert {k: v.shape for k, v in grads.params.items()} == layer.params.shapes
            assert grads.flat.shape == layer.flat_params.shape
            assert all(v.base is grads.flat for v in grads.params.values())
            outputs = [y, grads.x, grads.flat, *unpack(state), *unpack(grads.state)]
            assert {a.dtype for a in outputs} == {layer.dtype}


@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_is_a_batch_of_one(backend: str, kind: str) -> None:
    case = Case(kind, (T, 1, I, H), L, bidirectional=True, lengths="positive", resets="some")
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    one = copy.deepcopy(call)
    one.x, one.dy = call.x[:, 0], call.dy[:, 0]
    one.state = tuple(s[:, 0] for s in unpack(call.state))
    one.dstate = tuple(s[:, 0] for s in unpack(call.dstate))
    if not case.is_lstm:
        one.state, one.dstate = one.state[0], one.dstate[0]
    one.how = {"lengths": int(call.how["lengths"][0]), "resets": call.how["resets"][:, 0]}
    got = run(layer, one)
    for name in ("y", "hn", "cn", "dx", "dh0", "dc0"):
        if name in got:
            got[name] = got[name][:, None]
    same_bits(got, want)


def test_resets_are_time_major_with_batch_first(backend: str) -> None:
    case = Case("gru", (T, B, I, H), resets="some", lengths="zeros", bidirectional=True)
    call, other = case.call(), case.but(batch_first=True)
    want = run(case.layer(backend), call)
    call.x, call.dy = call.x.swapaxes(0, 1), call.dy.swapaxes(0, 1)
    got = run(other.layer(backend), call)
    for name in ("y", "dx"):
        got[name] = got[name].swapaxes(0, 1)
    same_bits(got, want)


def test_special_rows_that_are_not_special(backend: str) -> None:
    """Full lengths and no reset change no bit; nor do resets past a row's end."""
    case = Case("lstm", (T, B, I, H), L, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    call.how = {"lengths": [T] * B, "resets": np.zeros((T, B), bool)}
    same_bits(run(layer, call), want)
    lengths = np.array([2, 0, 5])
    call.how = {"lengths": lengths}
    want = run(layer, call)
    call.how["resets"] = np.arange(T)[:, None] >= lengths
    same_bits(run(layer, call), want)


def test_arguments_are_left_alone(backend: str) -> None:
    case = Case("lstm", (T, B, I, H), L, bidirectional=True, lengths="zeros", resets="some")
    layer, call = case.layer(backend), case.call()
    before = copy.deepcopy(call)
    run(layer, call)
    layer(call.x, call.state, **call.how)
    for name in ("x", "dy"):
        assert np.array_equal(getattr(call, name), getattr(before, name))
    for name in ("state", "dstate"):
        for a, b in zip(getattr(call, name), getattr(before, name), strict=True):
            assert np.array_equal(a, b)
    for name, value in call.how.items():
        assert np.array_equal(value, before.how[name])


def test_tape_shares_only_x(backend: str) -> None:
    """State, lengths and resets may be overwritten after forward; parameters may move on."""
    case = Case("lstm", (T, B, I, H), L, bidirectional=True, lengths="zeros", resets="some")
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    tape = layer.forward(call.x, call.state, **call.how)[2]
    for value in (*call.state, layer.flat_params):
        value[...] = np.nan
    call.how["lengths"][...] = 0
    call.how["resets"][...] = True
    got = back(layer, tape, call)
    same_bits(got, {name: want[name] for name in got})


def test_tape_says_what_it_is() -> None:
    tape = fastrnn.GRU(I, H).forward(ones(T, B, I))[2]
    assert repr(tape) == f"Tape(T=5, B=3, nbytes={tape.nbytes})"


# ---- freezing ------------------------------------------------------------------------------------


def refused(write: Callable[[], Any]) -> bool:
    try:
        write()
    except ValueError as error:
        return "read-only" in str(error) or "frozen" in str(error)
    return False


def test_freeze(backend: str) -> None:
    case = Case("lstm", (T, B, I, H), L, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    flat, weight = layer.flat_params, layer.params["weight_hh_l1"]  # taken before
    want = run(layer, call)
    writes: list[Callable[[], Any]] = [
        lambda: flat.fill(0),
        lambda: weight.fill(0),
        lambda: layer.flat_params.__setitem__(0, 1.0),
        lambda: layer.params["bias_ih_l0"].__iadd__(1.0),
        lambda: layer.load_params({k: v.copy() for k, v in layer.params.items()}),
    ]
    layer.freeze()
    layer.freeze()
    assert layer.frozen
    assert all(refused(write) for write in writes)
    same_bits(run(layer, call), want)
    layer.unfreeze()
    layer.unfreeze()
    assert not layer.frozen
    assert not any(refused(write) for write in writes)
    assert not np.array_equal(run(layer, call)["y"], want["y"])


def test_freeze_packs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastrnn.GRU(I, H, L, rng=0, backend="numpy")
    packed: list[int] = []
    pack = layer._stack.pack
    monkeypatch.setattr(
        layer._stack, "pack", lambda w, **how: packed.append(len(w)) or pack(w, **how)
    )
    x = ones(T, B, I)
    layer(x)
    layer(x)
    assert packed == [L, L]
    layer.freeze()
    for _ in range(3):
        _, _, tape = layer.forward(x)
        layer.backward(tape, None)
        layer(x)
    assert packed == [L, L, L]
    layer.unfreeze()
    layer(x)
    assert packed == [L] * 4


def test_freeze_that_fails_leaves_the_layer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")

    def pack(weights: Any, *, backward: bool) -> Any:
        raise MemoryError

    monkeypatch.setattr(layer._stack, "pack", pack)
    with pytest.raises(MemoryError):
        layer.freeze()
    assert not layer.frozen
    layer.flat_params[:] = 0


# ---- copies --------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda a: pickle.loads(pickle.dumps(a)),
    "pickle with buffers apart": lambda a: apart(a),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "to": lambda a: a.to("cpu"),
}


def apart(layer: Any) -> Any:
    """Through a pickle whose arrays come back as memory that is read-only."""
    buffers: list[Any] = []
    data = pickle.dumps(layer, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind: str, frozen: bool, how: str) -> None:
    case = Case(kind, (T, B, I, H), L, bidirectional=True, dtype="float32")
    layer, call = case.layer("numpy", reproducible=True), case.call()
    if frozen:
        layer.freeze()
    other = COPIES[how](layer)
    assert type(other) is type(layer)
    assert other.config() == layer.config()
    assert other.frozen == frozen
    assert not np.shares_memory(other.flat_params, layer.flat_params)
    same_bits(run(other, call), run(layer, call))
    other.unfreeze()
    other.flat_params[:] = 0  # its params are views of its own vector
    assert not any(value.any() for value in other.params.values())
    assert layer.flat_params.all()
    with pytest.raises(ValueError, match="tape must come from this"):
        other.backward(layer.forward(call.x)[2], None)


class Named(fastrnn.LSTMCell):
    """A user's own layer, with an attribute of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(I, H, peephole=True, backend="numpy")
        self.labels = [name]


def test_copies_of_a_subclass() -> None:
    cell = Named("encoder")
    for how in ("pickle", "deepcopy", "to"):
        other = COPIES[how](cell)
        assert type(other) is Named
        assert other.labels == ["encoder"]
        assert other.labels is not cell.labels
        assert np.array_equal(other(ones(I))[1], cell(ones(I))[1])


# ---- cells and steppers --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_cell_forms(backend: str, kind: str) -> None:
    cls, options = LAYERS[kind]
    cell = getattr(fastrnn, cls.__name__ + "Cell")(I, H, **options, rng=0, backend=backend)
    x = np.random.default_rng(0).standard_normal((B, I)).astype(np.float32)
    state, tape = cell.forward(x)
    grads = cell.backward(tape, state)
    assert [s.shape for s in unpack(state)] == [(B, H)] * len(unpack(state))
    assert [s.shape for s in unpack(tape.states())] == [(1, B, H)] * len(unpack(state))
    assert [s.shape for s in unpack(grads.state)] == [(B, H)] * len(unpack(state))
    assert grads.x.shape == (B, I)
    assert list(grads.params) == list(cell.params)
    # One row, unbatched
    single, tape = cell.forward(x[1])
    for got, want in zip(unpack(single), unpack(state), strict=True):
        assert got.shape == (H,)
        np.testing.assert_allclose(got, want[1], atol=1e-6)
    grads_1 = cell.backward(tape, single)
    assert [s.shape for s in unpack(grads_1.state)] == [(H,)] * len(unpack(state))
    np.testing.assert_allclose(grads_1.x, grads.x[1], atol=1e-6)
    again = cell(x[1], single)
    np.testing.assert_allclose(unpack(again)[0], unpack(cell(x, state))[0][1], atol=1e-6)


def test_stepper_holds_buffers_and_a_snapshot(backend: str) -> None:
    layer = fastrnn.LSTM(I, H, L, rng=0, backend=backend)
    step = layer.stepper(B)
    assert step.batch_size == B
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    want = layer(x)[0]
    layer.flat_params[:] = 0
    y = step(x[0])
    assert y.shape == (B, H)
    first = y.copy()
    assert step(x[1]) is y
    np.testing.assert_allclose([first, y], want[:2], atol=2e-6)
    # What step.state gives is the layer's form, and of no effect on the stepper.
    state = step.state
    assert [s.shape for s in state] == [(L, B, H)] * 2
    for part in state:
        part[...] = np.nan
    np.testing.assert_allclose(step(x[2]), want[2], atol=2e-6)
    step.reset()
    assert not any(part.any() for part in step.state)
    np.testing.assert_allclose(step(x[0]), want[0], atol=2e-6)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
def test_a_step_allocates_no_array(kind: str) -> None:
    step = Case(kind, (1, 1, 16, 64), layers=2, dtype="float32").layer("cpu").stepper()
    x = ones(1, 16)
    step(x)
    tracemalloc.start()
    for _ in range(10):
        step(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 4 * 2  # two rows of h


def test_stepper_takes_its_own_output(backend: str) -> None:
    layer = fastrnn.GRU(H, H, rng=0, backend=backend)
    step = layer.stepper()
    x = ones(1, H)
    y, state = layer(x[None])
    got = step(x)
    for _ in range(4):
        y, state = layer(y, state)
        got = step(got)
    np.testing.assert_allclose(got, y[0], atol=2e-6)


def test_stepper_forms() -> None:
    layer = fastrnn.GRU(I, H, backend="numpy")
    step = layer.stepper()
    assert step(ones(I)).shape == (H,)
    assert step(ones(1, I)).shape == (1, H)
    # An array of ones has another form than a (I,) of one element: B and I are not mixed up.
    assert fastrnn.GRU(1, H, backend="numpy").stepper(1)(ones(1, 1)).shape == (1, H)
    assert fastrnn.GRU(1, H, backend="numpy").stepper(1)(ones(1)).shape == (H,)


@pytest.mark.parametrize("done", [0, 1, 2, 9])
@pytest.mark.parametrize("what", ["freeze", "unfreeze"])
@pytest.mark.parametrize("kind", [fastrnn.GRU, fastrnn.LSTMCell, fastrnn.Linear])
def test_an_interrupt_leaves_a_layer_frozen_or_not(
    kind: Any, what: str, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many of its arrays have been turned: nothing in between, and again does all."""
    layer = kind(2, 3, rng=0, **({} if kind is fastrnn.Linear else {"backend": "numpy"}))
    if what == "unfreeze":
        layer.freeze()
    turn, left = Parameters._set_writeable, [1]

    def interrupted(params: Parameters, writeable: bool) -> None:
        if params is not layer.params or not left:
            return turn(params, writeable)
        left.clear()
        if done:
            params.writeable = params.flat.flags.writeable = writeable
        for view in list(params.values())[: max(done - 1, 0)]:
            view.flags.writeable = writeable
        raise KeyboardInterrupt

    monkeypatch.setattr(Parameters, "_set_writeable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(layer, what)()
    assert not left
    flags = [a.flags.writeable for a in (layer.flat_params, *layer.params.values())]
    assert flags == [not layer.frozen] * len(flags)
    getattr(layer, what)()
    assert layer.frozen == (what == "freeze")
    flags = [a.flags.writeable for a in (layer.flat_params, *layer.params.values())]
    assert flags == [not layer.frozen] * len(flags)


# ---- threads -------------------------------------------------------------------------------------


def test_eight_threads_on_one_layer(backend: str) -> None:
    """Each gets the bits of a call alone, also while others freeze and unfreeze the layer."""
    case = Case("lstm", (T, B, I, H), L, bidirectional=True, dtype="float32", lengths="zeros")
    layer = case.layer(backend, dropout=0.5)
    calls = [case.but(seed=seed).call() for seed in range(4)]
    want = [run(layer, call, rng=1) for call in calls]
    shared = layer.forward(calls[0].x, calls[0].state, **calls[0].how, rng=1)[2]

    def work(n: int) -> Any:
        if n % 3 == 0:
            layer.freeze()
        if n % 3 == 1:
            layer.unfreeze()
        if n % 4 == 0:
            return back(layer, shared, calls[0])
        return run(layer, calls[n % 4], rng=1)

    with ThreadPoolExecutor(8) as pool:
        for n, got in enumerate(pool.map(work, range(64))):
            same_bits(got, {name: want[n % 4][name] for name in got})
    layer.unfreeze()
    layer.flat_params[:] = 0
