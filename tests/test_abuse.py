"""What a caller passes gets its documented result or its own error, and changes nothing else."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import KINDS, Array, Call, Case, back, close, pack, run, same_bits, unpack
from hypothesis import given
from hypothesis import strategies as st

import fastrnn

CASE = Case("lstm", (4, 3, 5, 6), layers=2, bidirectional=True, dtype="float32")


@contextmanager
def untouched(*arrays: Any) -> Iterator[None]:
    """Assert that no bit of these arrays changes inside."""
    before = [array.tobytes() for array in arrays]
    yield
    assert [array.tobytes() for array in arrays] == before


def refused(name: str, error: Any, call: Callable[[], Any], *arrays: Any) -> None:
    """Assert the error, that its text names the argument, and that nothing has changed."""
    with untouched(*arrays), pytest.raises(error, match=rf"\b{name}\b"):
        call()


# ---- constructor arguments -----------------------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.floats(-1, 2),
    st.sampled_from([math.nan, math.inf, 1j, np.int8(2), np.float16(0.5), np.bool_(True)]),
    st.text(max_size=3),
    st.lists(st.integers(1, 2), max_size=2),
    st.just(np.ones(1)),
)


def is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_size(value: Any) -> bool:
    return is_int(value) and value >= 1


def is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def is_fraction(value: Any) -> bool:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not is_flag(value)
    return bool(real and 0 <= value < 1)


LEGAL_DTYPES = (np.float32, np.float64, "float32", "f8", "=f4", float, np.dtype("float64"))
WRONG_DTYPES = (np.float16, np.longdouble, int, complex, object, bool, ">f4", "what", None)


def is_dtype(value: Any) -> bool:
    return any(value is legal for legal in LEGAL_DTYPES)  # NumPy says dtype("f8") == None


# Class, argument, what may be drawn, and what of it is legal.
ARGUMENTS: list[tuple[Any, str, Any, Callable[[Any], bool]]] = [
    *((fastrnn.GRU, name, ODD, is_size) for name in ("input_size", "hidden_size", "num_layers")),
    *((fastrnn.RNN, name, ODD, is_flag) for name in ("bias", "batch_first", "bidirectional")),
    (fastrnn.LSTM, "reproducible", ODD, is_flag),
    (fastrnn.LSTM, "peephole", ODD, is_flag),
    (fastrnn.GRU, "reset_after", ODD, is_flag),
    (fastrnn.LSTM, "proj_size", ODD, lambda p: is_int(p) and 0 <= p < 4),
    (fastrnn.GRU, "dropout", ODD, is_fraction),
    (fastrnn.GRU, "rng", ODD, lambda r: r is None or (is_int(r) and r >= 0)),
    (
        fastrnn.LSTM,
        "dtype",
        st.sampled_from(LEGAL_DTYPES + WRONG_DTYPES),
        is_dtype,
    ),
    *(
        (cls, name, ODD | st.sampled_from(choices), lambda v, c=choices: type(v) is str and v in c)
        for cls, name, choices in (
            (fastrnn.RNN, "nonlinearity", ("tanh", "relu")),
            (fastrnn.GRU, "precision", ("highest", "high", "medium")),
            (fastrnn.GRU, "backend", ("auto", "numpy")),
        )
    ),
    *((fastrnn.LSTMCell, name, ODD, is_size) for name in ("input_size", "hidden_size")),
    (fastrnn.GRUCell, "bias", ODD, is_flag),
]


@pytest.mark.parametrize(
    ("cls", "name", "values", "legal"),
    ARGUMENTS,
    ids=[f"{cls.__name__}-{name}" for cls, name, _, _ in ARGUMENTS],
)
@given(data=st.data())
def test_constructor(cls: Any, name: str, values: Any, legal: Any, data: Any) -> None:
    value = data.draw(values)
    arguments = {"input_size": 3, "hidden_size": 4, name: value}
    if name == "dropout":  # which wants layers to be between
        arguments["num_layers"] = 2
    if not legal(value):
        refused(name, (TypeError, ValueError), lambda: cls(**arguments))
    elif name == "rng":
        cls(**arguments)
    else:
        kept = np.dtype(value).name if name == "dtype" else value
        assert cls(**arguments).config()[name] == kept


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("size", [2**40, 2**62, 2**80])
def test_a_layer_too_large(name: str, size: int) -> None:
    with pytest.raises(MemoryError):
        fastrnn.LSTM(**{"input_size": 3, "hidden_size": 4, name: size})


# ---- a call's arguments --------------------------------------------------------------------------

OTHER_DTYPES = ("float16", "int32", "int64", "bool", "complex64", "object", "<U3", "M8[s]")
SWAPPED = {"float32": ">f4", "float64": ">f8"} if sys.byteorder == "little" else {}


def shapes(right: tuple[int, ...]) -> Any:
    """The right shape, or one that is not far from it: an axis wrong, missing or too many."""
    size = st.integers(0, 5)
    near = [
        st.tuples(*(size if k == axis else st.just(n) for k, n in enumerate(right)))
        for axis in range(len(right))
    ]
    return st.one_of(
        st.just(right), *near, st.lists(size, max_size=4).map(tuple), st.just((*right, 1))
    )


def arrays(right: tuple[int, ...], dtype: str) -> Any:
    """Arrays of zeros that may be wrong in dtype, byte order or shape; many are in neither."""
    others = {"float32", "float64", SWAPPED.get(dtype, "float16"), *OTHER_DTYPES} - {dtype}
    wrong = st.sampled_from(sorted(others))
    return st.one_of(
        st.just(right).map(lambda shape: np.zeros(shape, dtype)),
        shapes(right).map(lambda shape: np.zeros(shape, dtype)),
        st.builds(np.zeros, shapes(right), wrong),
    )


def verdict(value: Array, dtype: str, *right: tuple[int | None, ...]) -> Any:
    """The error that an array must raise, or None."""
    if value.dtype != np.dtype(dtype):
        return TypeError
    fits = (
        len(form) == value.ndim
        and all(n in (None, m) for n, m in zip(form, value.shape, strict=True))
        for form in right
    )
    return None if any(fits) else ValueError


@given(data=st.data())
def test_x(backend: str, data: Any) -> None:
    """Of any T and B, with and without batch; nothing else."""
    steps, batch, inputs, hidden = CASE.sizes
    layer = CASE.layer(backend)
    x = data.draw(arrays((steps, batch, inputs), CASE.dtype))
    error = verdict(x, CASE.dtype, (None, None, inputs), (None, inputs))
    if error is not None:
        refused("x", error, lambda: layer(x), layer.flat_params)
        refused("x", error, lambda: layer.forward(x), layer.flat_params)
    else:
        y, (h, c) = layer(x)
        assert y.shape == (*x.shape[:-1], 2 * hidden)
        assert h.shape == c.shape == (4, *x.shape[1:-1], hidden)
        assert {y.dtype, h.dtype, c.dtype} == {np.dtype(CASE.dtype)}


class Convertible:
    """What tensors and data frames of other libraries are: NumPy could make an array of it."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.zeros((4, 3, 5), dtype or np.float32)


@pytest.mark.parametrize(
    "x",
    [
        None,
        "text",
        3.0,
        [[[0.0] * 5] * 3] * 4,
        np.float32(1),
        np.ma.zeros((4, 3, 5), np.float32),
        Convertible(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_x_that_is_no_array(backend: str, x: Any) -> None:
    layer = CASE.layer(backend)
    refused("x", TypeError, lambda: layer(x), layer.flat_params)


# How one array of a call, with the shape that is right, reaches the layer.
PLACES: dict[str, tuple[tuple[int, ...], Callable[[Any, Any, Array], Any]]] = {
    "state[0]": ((4, 3, 6), lambda layer, call, a: layer(call.x, (a, call.state[1]))),
    "state[1]": ((4, 3, 6), lambda layer, call, a: layer.forward(call.x, (call.state[0], a))),
    "dy": ((4, 3, 12), lambda layer, call, a: layer.backward(layer.forward(call.x)[2], a)),
    "dstate[0]": (
        (4, 3, 6),
        lambda layer, call, a: layer.backward(layer.forward(call.x)[2], None, (a, call.dstate[1])),
    ),
    "dstate[1]": (
        (4, 3, 6),
        lambda layer, call, a: layer.backward(
            layer.forward(call.x)[2], call.dy, (call.dstate[0], a)
        ),
    ),
}


@pytest.mark.parametrize("place", PLACES)
@given(data=st.data())
def test_states_and_gradients(backend: str, place: str, data: Any) -> None:
    layer, call = CASE.layer(backend), CASE.call()
    right, use = PLACES[place]
    value = data.draw(arrays(right, CASE.dtype))
    error = verdict(value, CASE.dtype, right)
    changeable = (layer.flat_params, call.x, *call.state, call.dy, *call.dstate, value)
    if error is None:
        with untouched(*changeable):
            use(layer, call, value)
    else:
        name = place.replace("[", r"\[").replace("]", r"\]")
        with untouched(*changeable), pytest.raises(error, match=name):
            use(layer, call, value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_form_of_a_state(backend: str, kind: str) -> None:
    """(h, c) where h belongs, h where (h, c) belongs, one or three arrays, and no arrays."""
    case = CASE.but(kind=kind)
    layer, call = case.layer(backend), case.call()
    tape = layer.forward(call.x)[2]
    h = np.zeros((4, 3, 6), np.float32)
    for state in ((h, h) if not case.is_lstm else h, (h,), (h, h, h), (), "hc", 0, [None, None]):
        refused("state", (TypeError, ValueError), lambda s=state: layer(call.x, s))
        if case.is_lstm and isinstance(state, list):
            continue  # of a gradient they are zeros
        refused("dstate", (TypeError, ValueError), lambda s=state: layer.backward(tape, call.dy, s))


@given(data=st.data())
def test_lengths(backend: str, data: Any) -> None:
    """Ints of any width in 0..T, one a row."""
    layer, call = CASE.layer(backend), CASE.call()
    steps, batch = CASE.sizes[:2]
    size = data.draw(st.sampled_from((batch, batch, batch, 0, 1, batch + 1)))
    dtype = data.draw(st.sampled_from(("int64", "int8", ">i4", "float64", "bool", "object")))
    values = data.draw(st.lists(st.integers(-2, steps + 2), min_size=size, max_size=size))
    lengths: Any = np.array(values, dtype)
    if data.draw(st.booleans()) and dtype == "int64":
        lengths = values
    fits = (
        size == batch and dtype in ("int64", "int8", ">i4") and all(0 <= n <= steps for n in values)
    )
    if fits:
        y, _ = layer(call.x, lengths=lengths)
        assert not y[np.arange(steps)[:, None] >= values].any()
    else:
        refused("lengths", (TypeError, ValueError), lambda: layer(call.x, lengths=lengths))


NO_LENGTHS = (
    *(2, "321", {1, 2, 3}, np.array(3), [[1, 2, 3]], [[1], [2, 3], 4]),
    *([1.0, 2.0, 3.0], [None] * 3, [2**63, 0, 0], [2**70, 0, 0]),
    np.array([2**64 - 1, 0, 0], np.uint64),
)


@pytest.mark.parametrize("lengths", NO_LENGTHS, ids=repr)
def test_lengths_that_are_none(backend: str, lengths: Any) -> None:
    layer, call = CASE.layer(backend), CASE.call()
    refused("lengths", (TypeError, ValueError), lambda: layer(call.x, lengths=lengths))


@given(data=st.data())
def test_resets(backend: str, data: Any) -> None:
    """Bools, one a step and row."""
    layer, call = CASE.layer(backend), CASE.call()
    resets = data.draw(arrays((4, 3), "bool"))
    error = verdict(resets, "bool", (4, 3))
    if error is None:
        layer(call.x, resets=resets)
    else:
        refused("resets", (TypeError, ValueError), lambda: layer(call.x, resets=resets))


@pytest.mark.parametrize("resets", [True, "no", [[True], [True, False]], [[1, 0, 0]] * 4, [None]])
def test_resets_that_are_none(backend: str, resets: Any) -> None:
    layer, call = CASE.layer(backend), CASE.call()
    refused("resets", (TypeError, ValueError), lambda: layer(call.x, resets=resets))


@given(value=ODD)
def test_forwards_other_arguments(backend: str, value: Any) -> None:
    layer, call = CASE.layer(backend, dropout=0.5), CASE.call()
    legal = {"checkpoint_every": is_size(value), "rng": is_int(value) and value >= 0}
    for name in legal:
        use = partial(layer.forward, call.x, **{name: value})
        if legal[name] or value is None:
            use()
        else:
            refused(name, (TypeError, ValueError), use)


@pytest.mark.parametrize("what", ["other layer", "copy", "None", "array"])
def test_a_tape_that_is_not_the_layers(backend: str, what: str) -> None:
    layer, call = CASE.layer(backend), CASE.call()
    tapes: dict[str, Any] = {
        "other layer": CASE.layer(backend).forward(call.x)[2],
        "copy": copy.deepcopy(layer).forward(call.x)[2],
        "None": None,
        "array": call.x,
    }
    error = ValueError if what in ("other layer", "copy") else TypeError
    refused("tape", error, lambda: layer.backward(tapes[what], call.dy), layer.flat_params)


# What a stepper takes: dtype, shape, and how.
STEPPER: dict[str, tuple[str, tuple[int, ...], Callable[[Any, Array], Any]]] = {
    "x_t": ("float32", (3, 5), lambda step, a: step(a)),
    "mask": ("bool", (3,), lambda step, a: step.reset(a)),
    "state": ("float32", (2, 3, 6), lambda step, a: setattr(step, "state", (step.state[0], a))),
}


@pytest.mark.parametrize("name", STEPPER)
@given(data=st.data())
def test_stepper(backend: str, name: str, data: Any) -> None:
    """What a stepper refuses leaves its state as it was."""
    case = CASE.but(bidirectional=False)
    step = case.layer(backend).stepper(batch_size=3)
    step(case.call().x[0])
    dtype, right, use = STEPPER[name]
    value = data.draw(arrays(right, dtype))
    error = verdict(value, dtype, right)
    if error is None:
        use(step, value)
    else:
        before = step.state
        refused(name, (TypeError, ValueError), lambda: use(step, value))
        assert [s.tobytes() for s in step.state] == [s.tobytes() for s in before]


# ---- memory orders -------------------------------------------------------------------------------


def gaps(a: Array) -> Array:
    wide = np.zeros(tuple(2 * n + 1 for n in a.shape), a.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def reversed_axes(a: Array) -> Array:
    turned = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[turned])[turned]


def unaligned(a: Array) -> Array:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


class Subclass(np.ndarray):
    """What np.memmap and friends are to the library."""


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "fortran": np.asfortranarray,
    "negative strides": reversed_axes,
    "gaps": gaps,
    "rotated axes": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 0)), 0, -1),
    "unaligned": unaligned,
    "read-only": read_only,
    "subclass": lambda a: a.view(Subclass),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time_first", "batch_first"])
def test_memory_order(backend: str, kind: str, layout: str, batch_first: bool) -> None:
    """Every argument in another order gives the numbers of the contiguous one, plain arrays all."""
    case = Case(
        kind, layers=2, bidirectional=True, lengths="zeros", resets="some", batch_first=batch_first
    )
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    turn = LAYOUTS[layout]
    turned = Call(
        turn(call.x),
        pack(map(turn, unpack(call.state))),
        {name: turn(value) for name, value in call.how.items()},
        turn(call.dy),
        pack(map(turn, unpack(call.dstate))),
    )
    with untouched(turned.x, *unpack(turned.state), *turned.how.values(), turned.dy):
        got = run(layer, turned)
    assert {type(value) for value in got.values()} == {np.ndarray}
    (same_bits if backend == "cpu" else lambda a, b: close(a, b, case.dtype))(got, want)


def test_overlapping_windows(backend: str) -> None:
    """x[t, b] and x[t + 1, b] share memory, as windows over a series do; so may dy's rows."""
    case = Case("gru", (6, 3, 5, 4))
    layer, call = case.layer(backend), case.call()
    series = np.random.default_rng(0).standard_normal(20)
    bytes_ = series.itemsize
    call.x = np.lib.stride_tricks.as_strided(series, (6, 3, 5), (bytes_, 2 * bytes_, bytes_))
    call.dy = np.broadcast_to(series[:4], (6, 3, 4))
    got = run(layer, call)
    call.x, call.dy = call.x.copy(), call.dy.copy()
    close(got, run(layer, call), case.dtype)


# ---- empty, not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(0, 3, 5, 4), (6, 0, 5, 4), (0, 0, 5, 4)])
@pytest.mark.parametrize("lengths", [False, True])
def test_empty(backend: str, kind: str, sizes: tuple[int, ...], lengths: bool) -> None:
    """No step or no row: y is empty, states and their gradients pass through, dW is zero."""
    case = Case(kind, sizes, layers=2, bidirectional=True)  # type: ignore[arg-type]
    layer, call = case.layer(backend), case.call()
    if lengths:
        call.how["lengths"] = np.full(sizes[1], 0)
        call.how["resets"] = np.ones(sizes[:2], bool)
    for how in ({}, {"checkpoint_every": 3}):
        got = run(layer, call, **how)
        assert got["y"].shape == call.dy.shape
        assert got["dx"].shape == call.x.shape
        for final, state in zip(("hn", "cn"), unpack(call.state), strict=False):
            np.testing.assert_array_equal(got[final], state)
        for first, dstate in zip(("dh0", "dc0"), unpack(call.dstate), strict=False):
            np.testing.assert_array_equal(got[first], dstate)
        assert not any(got["d" + name].any() for name in layer.params)
    np.testing.assert_array_equal(layer(call.x, call.state, **call.how)[0], got["y"])
    tape = layer.forward(call.x, call.state, **call.how)[2]
    assert unpack(tape.states())[0].shape == (sizes[0], 4, sizes[1], 4)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_weights(backend: str, kind: str) -> None:
    """They are no error: what depends on them is NaN, what does not is as ever."""
    case = Case(kind, layers=2)
    layer, call = case.layer(backend), case.call()
    clean = run(layer, call)
    layer.params["weight_ih_l1"][:] = np.nan
    got = run(layer, call)
    assert np.isnan(got["y"]).all()
    np.testing.assert_array_equal(got["hn"][0], clean["hn"][0])  # the layer below


# ---- copies --------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {n}": lambda layer, n=n: pickle.loads(pickle.dumps(layer, n))
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("frozen", [False, True], ids=["plain", "frozen"])
@pytest.mark.parametrize("kind", ["rnn_relu", "gru_reset_before", "lstm_peephole"])
def test_copies(backend: str, how: str, frozen: bool, kind: str) -> None:
    """The same bits and settings; parameters of its own, still views into one vector."""
    case = CASE.but(kind=kind, proj=kind.startswith("lstm"))
    layer, call = case.layer(backend, dropout=0.5), case.call()
    if frozen:
        layer.freeze()
    twin = COPIES[how](layer)
    assert type(twin) is type(layer)
    assert twin.config() == layer.config()
    same_bits(run(twin, call, rng=1), run(layer, call, rng=1))
    for name, value in twin.params.items():
        assert value.flags.writeable is not frozen, name
        assert np.shares_memory(value, twin.flat_params), name
    with untouched(layer.flat_params):
        twin.unfreeze()
        twin.flat_params[:] = 0
    assert not layer.flat_params.flags.writeable or not frozen


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2**44, 2**48, 2**56, 2**58])
@pytest.mark.parametrize("how", [{}, {"lengths": [1]}, {"checkpoint_every": 2**20}], ids=str)
def test_a_call_too_large(backend: str, steps: int, how: dict[str, Any]) -> None:
    """Beyond any address space, from an x of one element: MemoryError at once, and no harm done."""
    case = Case("lstm", (5, 1, 1, 8), layers=2, bidirectional=True, dtype="float32")
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    x = np.broadcast_to(np.float32(1), (steps, 1, 1))
    with pytest.raises(MemoryError):
        layer.forward(x, **how)
    how.pop("checkpoint_every", None)
    with pytest.raises(MemoryError):
        layer(x, **how)
    same_bits(run(layer, call), want)


@pytest.mark.parametrize("batch_size", [2**58, 2**62, 2**64])
def test_a_stepper_too_large(backend: str, batch_size: int) -> None:
    layer = Case("lstm", (5, 1, 1, 8), dtype="float32").layer(backend)
    with pytest.raises((MemoryError, ValueError), match="batch_size"):
        layer.stepper(batch_size)


STARVE = """
import resource, sys
import numpy as np
import fastrnn
layer = fastrnn.LSTM(16, 64, 2, bidirectional=True, rng=0, backend=sys.argv[1])
x = np.random.default_rng(0).standard_normal((120, 64, 16), dtype=np.float32)
small = x[:5]
def bits(x):
    y, state, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    return [a.tobytes() for a in (y, *state, grads.x, grads.flat)]
fastrnn.set_num_threads(2)
want = bits(small)  # starts the threads, compiles what is compiled
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
failed = 0
for megabytes in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64):
    limit = in_use + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        bits(x)
    except MemoryError:
        failed += 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert bits(small) == want
print("failed", failed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS works on Linux")
@pytest.mark.skipif(
    "san.so" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer ends when its own memory does"
)
def test_allocations_that_fail(backend: str) -> None:
    """Wherever memory ends, in NumPy or in the engine: a MemoryError, and the layer goes on."""
    done = subprocess.run(
        [sys.executable, "-c", STARVE, backend],
        capture_output=True,
        text=True,
        timeout=1800,
        cwd=Path(fastrnn.__path__[0]).parent,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 4, "the limits were too wide to test anything"


def test_gradients_after_a_failed_backward(backend: str) -> None:
    """A refused backward leaves the tape as it was."""
    layer, call = CASE.layer(backend), CASE.call()
    want = run(layer, call)
    tape = layer.forward(call.x, call.state)[2]
    refused("dy", ValueError, lambda: layer.backward(tape, call.dy[1:]))
    got = back(layer, tape, call)
    same_bits(got, {name: want[name] for name in got})
