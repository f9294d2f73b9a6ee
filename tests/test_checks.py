"""Bad input: each has its own error, raised before any work; everything else gives the right thing.

The exact texts are part of the contract, so they stand here in full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from cases import KINDS, LAYERS, Case, pack, run, same_bits, unpack
from grid import BACKENDS
from hypothesis import given

import fastrnn

Array = np.ndarray[Any, np.dtype[Any]]

T, B, I, H = 5, 3, 4, 6


def zeros(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


@pytest.fixture(scope="module")
def lstm() -> fastrnn.LSTM:
    return fastrnn.LSTM(I, H, proj_size=2, bidirectional=True, rng=0, backend="numpy")


@pytest.fixture(scope="module")
def gru() -> fastrnn.GRU:
    return fastrnn.GRU(I, H, batch_first=True, rng=0, backend="numpy")


def says(
    error: type[Exception], text: str, call: Callable[..., Any], *args: Any, **kw: Any
) -> None:
    """The call raises exactly this type, or a kind of it, with exactly this text."""
    with pytest.raises(error) as info:
        call(*args, **kw)
    assert str(info.value) == text


# ---- x -------------------------------------------------------------------------------------------

NOT_X = [
    (zeros(T, B, I + 1), ValueError, "x must be (T, B, I=4), got (5, 3, 5)"),
    (zeros(T, I + 1), ValueError, "x must be (T, I=4), got (5, 5)"),
    (zeros(I), ValueError, "x must be (T, B, I=4) or (T, I=4), got (4,)"),
    (zeros(2, T, B, I), ValueError, "x must be (T, B, I=4) or (T, I=4), got (2, 5, 3, 4)"),
    (zeros(), ValueError, "x must be (T, B, I=4) or (T, I=4), got ()"),
    (
        zeros(T, B, I, dtype=np.float64),
        TypeError,
        "x must be float32, got float64: cast it with x.astype('float32')",
    ),
    (
        zeros(T, B, I, dtype=np.dtype(np.float32).newbyteorder()),
        TypeError,
        "x must be float32, got float32 in another byte order: cast it with x.astype('float32')",
    ),
    (
        [[[0.0] * I] * B] * T,
        TypeError,
        "x must be a numpy.ndarray of float32, got list: "
        "make one with np.asarray(x, dtype='float32')",
    ),
    (
        np.ma.masked_array(zeros(T, B, I)),
        TypeError,
        f"x must be a numpy.ndarray of float32, got {np.ma.MaskedArray.__module__}.MaskedArray: "
        "make one with np.asarray(x, dtype='float32')",
    ),
]


@pytest.mark.parametrize(("x", "error", "text"), NOT_X)
def test_x(lstm: fastrnn.LSTM, x: Any, error: type[Exception], text: str) -> None:
    says(error, text, lstm, x)
    says(error, text, lstm.forward, x)


def test_x_batch_first(gru: fastrnn.GRU) -> None:
    says(ValueError, "x must be (B, T, I=4), got (5, 3, 5)", gru, zeros(T, B, I + 1))


@pytest.mark.parametrize("dtype", ["f2", "i4", "u1", "?", "c8", "O", "U3", "M8[s]", "V8", "g"])
def test_x_of_another_dtype(lstm: fastrnn.LSTM, dtype: str) -> None:
    with pytest.raises(TypeError, match="x must be float32, got "):
        lstm(np.zeros((T, B, I), dtype))


def test_subclasses_that_are_plain_arrays_are_taken(lstm: fastrnn.LSTM) -> None:
    class Mine(np.ndarray[Any, Any]):
        pass

    y, _ = lstm(zeros(T, B, I).view(Mine))
    assert type(y) is np.ndarray


# ---- state, dy, dstate ---------------------------------------------------------------------------

HC = "tuple (h (L*D=2, B=3, P=2), c (L*D=2, B=3, H=6))"
NOT_STATE = [
    (zeros(2, B, 2), TypeError, f"must be a {HC}, got numpy.ndarray"),
    (zeros(2, B, 2), ValueError, f"must be a {HC}, got numpy.ndarray"),
    ((zeros(2, B, 2),), TypeError, f"must be a {HC}, got tuple of 1"),
    (0.0, TypeError, f"must be a {HC}, got float"),
    (
        (zeros(2, B, 6), zeros(2, B, 6)),
        ValueError,
        "[0] must be (L*D=2, B=3, P=2), got (2, 3, 6)",
    ),
    ((zeros(2, B, 2), zeros(2, B, 2)), ValueError, "[1] must be (L*D=2, B=3, H=6), got (2, 3, 2)"),
    ((zeros(1, B, 2), zeros(1, B, 6)), ValueError, "[0] must be (L*D=2, B=3, P=2), got (1, 3, 2)"),
    ((zeros(2, 2), zeros(2, 6)), ValueError, "[0] must be (L*D=2, B=3, P=2), got (2, 2)"),
    (
        (zeros(2, B, 2), None),
        TypeError,
        "[1] must be a numpy.ndarray of float32, got NoneType: "
        "make one with np.asarray(NAME[1], dtype='float32')",
    ),
    (
        (zeros(2, B, 2), zeros(2, B, 6, dtype=np.float64)),
        TypeError,
        "[1] must be float32, got float64: cast it with NAME[1].astype('float32')",
    ),
]


def full(name: str, text: str) -> str:
    """The text with the argument's name in it."""
    return (f"{name}{text}" if text.startswith("[") else f"{name} {text}").replace("NAME", name)


@pytest.mark.parametrize(("state", "error", "text"), NOT_STATE)
def test_state(lstm: fastrnn.LSTM, state: Any, error: type[Exception], text: str) -> None:
    x = zeros(T, B, I)
    says(error, full("state", text), lstm, x, state)
    if isinstance(state, tuple) and state[-1] is None:
        return  # of a gradient it is zeros
    tape = lstm.forward(x)[2]
    says(error, full("dstate", text), lstm.backward, tape, None, state)


def test_state_of_one_array(gru: fastrnn.GRU) -> None:
    text = "state must be one array h (L*D=1, B=3, H=6), got tuple of 2"
    pair = (zeros(1, B, H), zeros(1, B, H))
    for error in (TypeError, ValueError):
        says(error, text, gru, zeros(B, T, I), pair)
    text = "state must be (L*D=1, H=6), got (2, 6)"
    says(ValueError, text, gru, zeros(T, I), zeros(2, H))
    text = "state must be (L*D=1, B=1, H=6), got (1, 3, 6)"
    says(ValueError, text, gru, zeros(T, I), zeros(1, B, H))


def test_dy(lstm: fastrnn.LSTM, gru: fastrnn.GRU) -> None:
    tape = lstm.forward(zeros(T, B, I))[2]
    says(
        ValueError,
        "dy must be (T=5, B=3, D*P=4), got (5, 3, 6)",
        lstm.backward,
        tape,
        zeros(T, B, H),
    )
    dy = zeros(T, B, 4, dtype=np.float64)
    text = "dy must be float32, got float64: cast it with dy.astype('float32')"
    says(TypeError, text, lstm.backward, tape, dy)
    tape = gru.forward(zeros(B, T, I))[2]
    says(
        ValueError,
        "dy must be (B=3, T=5, D*P=6), got (5, 3, 6)",
        gru.backward,
        tape,
        zeros(T, B, H),
    )
    tape = gru.forward(zeros(T, I))[2]
    says(ValueError, "dy must be (T=5, D*P=6), got (1, 5, 6)", gru.backward, tape, zeros(1, T, H))


def test_tape(lstm: fastrnn.LSTM, gru: fastrnn.GRU) -> None:
    tape = gru.forward(zeros(B, T, I))[2]
    text = "tape must come from this LSTM's forward(), got another's"
    says(ValueError, text, lstm.backward, tape, None)
    says(TypeError, "tape must be what forward() returned, got NoneType", lstm.backward, None, None)


# ---- lengths and resets --------------------------------------------------------------------------

NOT_LENGTHS = [
    ([1, 2], ValueError, "lengths must be (B=3,), got (2,)"),
    (2, ValueError, "lengths must be (B=3,), got ()"),
    ([[1, 2, 3]], ValueError, "lengths must be (B=3,), got (1, 3)"),
    ([1, 6, 2], ValueError, "lengths must be in 0..T=5, got 6 in row 1"),
    ([1, 2, -1], ValueError, "lengths must be in 0..T=5, got -1 in row 2"),
    (np.array([2**64 - 1, 1, 1], np.uint64), ValueError, f"got {2**64 - 1} in row 0"),
    ([1.0, 2.0, 3.0], TypeError, "lengths must be ints, got float64"),
    ([True, True, False], TypeError, "lengths must be ints, got bool"),
    (np.array([1, 2, 3], object), TypeError, "lengths must be ints, got object"),
    (np.ma.masked_array([1, 2, 3]), TypeError, "lengths must have no mask of NumPy's, got numpy"),
    ("abc", ValueError, "lengths must be (B=3,), got ()"),
]


@pytest.mark.parametrize(("lengths", "error", "text"), NOT_LENGTHS)
def test_lengths(lstm: fastrnn.LSTM, lengths: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as info:
        lstm(zeros(T, B, I), lengths=lengths)
    assert text in str(info.value)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", "i8", "u8", ">i4"])
def test_lengths_of_any_int(lstm: fastrnn.LSTM, dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    want = lstm(x, lengths=[5, 0, 3])[0]
    assert np.array_equal(lstm(x, lengths=np.array([5, 0, 3], dtype))[0], want)


def test_lengths_unbatched(lstm: fastrnn.LSTM) -> None:
    x = zeros(T, I)
    assert lstm(x, lengths=np.int32(2))[0].shape == (T, 4)
    says(TypeError, "lengths must be an int, got float", lstm, x, lengths=2.0)
    says(TypeError, "lengths must be an int, got bool", lstm, x, lengths=True)
    says(TypeError, "lengths must be an int, got list", lstm, x, lengths=[2])
    says(ValueError, "lengths must be in 0..T=5, got 6 in row 0", lstm, x, lengths=6)
    says(ValueError, f"lengths must be in 0..T=5, got {2**70} in row 0", lstm, x, lengths=2**70)


def test_resets(lstm: fastrnn.LSTM, gru: fastrnn.GRU) -> None:
    x = zeros(T, B, I)
    bools = np.zeros((T, B), bool)
    says(ValueError, "resets must be (T=5, B=3), got (3, 5)", lstm, x, resets=bools.T)
    says(ValueError, "resets must be (T=5, B=3), got (5,)", lstm, x, resets=bools[:, 0])
    says(ValueError, "resets must be (T=5,), got (5, 3)", lstm, x[:, 0], resets=bools)
    says(TypeError, "resets must be bool, got int64", lstm, x, resets=bools.astype(np.int64))
    says(TypeError, "resets must be bool, got float32", lstm, x, resets=bools.astype(np.float32))
    assert lstm(x, resets=bools.tolist())[0].shape == (T, B, 4)
    # (T, B) also where x is (B, T, I)
    says(ValueError, "resets must be (T=5, B=3), got (3, 5)", gru, zeros(B, T, I), resets=bools.T)


def test_forward_arguments(lstm: fastrnn.LSTM) -> None:
    x = zeros(T, B, I)
    forward = lstm.forward
    says(ValueError, "checkpoint_every must be at least 1, got 0", forward, x, checkpoint_every=0)
    says(TypeError, "checkpoint_every must be an int, got float", forward, x, checkpoint_every=2.0)
    says(ValueError, "rng must be at least 0, got -1", forward, x, rng=-1)
    text = "rng must be None, an int or a numpy.random.Generator, got str"
    says(TypeError, text, forward, x, rng="7")
    text = "rng must be None, an int or a numpy.random.Generator, got bool"
    says(TypeError, text, forward, x, rng=True)
    text = (
        "rng must be None, an int or a numpy.random.Generator, got numpy.random.mtrand.RandomState"
    )
    says(TypeError, text, forward, x, rng=np.random.RandomState(0))


# ---- the constructor -----------------------------------------------------------------------------

NOT_ARGUMENTS = [
    ({"input_size": 0}, ValueError, "input_size must be at least 1, got 0"),
    ({"hidden_size": -1}, ValueError, "hidden_size must be at least 1, got -1"),
    ({"num_layers": 0}, ValueError, "num_layers must be at least 1, got 0"),
    ({"num_layers": 10**9}, MemoryError, "num_layers must be at most 10000, got 1000000000"),
    ({"hidden_size": 4.0}, TypeError, "hidden_size must be an int, got float"),
    ({"hidden_size": True}, TypeError, "hidden_size must be an int, got bool"),
    ({"hidden_size": "4"}, TypeError, "hidden_size must be an int, got str"),
    ({"proj_size": 6}, ValueError, "proj_size must be in 0..H-1=5, got 6"),
    ({"proj_size": -1}, ValueError, "proj_size must be at least 0, got -1"),
    ({"dropout": 1.0}, ValueError, "dropout must be in [0, 1), got 1.0"),
    ({"dropout": -0.1}, ValueError, "dropout must be in [0, 1), got -0.1"),
    ({"dropout": float("nan")}, ValueError, "dropout must be in [0, 1), got nan"),
    ({"dropout": "0.5"}, TypeError, "dropout must be a number, got str"),
    ({"dropout": True}, TypeError, "dropout must be a number, got bool"),
    ({"bias": 1}, TypeError, "bias must be a bool, got int"),
    ({"batch_first": "no"}, TypeError, "batch_first must be a bool, got str"),
    ({"bidirectional": None}, TypeError, "bidirectional must be a bool, got NoneType"),
    ({"peephole": 0}, TypeError, "peephole must be a bool, got int"),
    ({"reproducible": 1}, TypeError, "reproducible must be a bool, got int"),
    (
        {"dtype": np.float16},
        TypeError,
        "dtype must be float32 or float64, got <class 'numpy.float16'>",
    ),
    ({"dtype": None}, TypeError, "dtype must be float32 or float64, got None"),
    ({"dtype": "single file"}, TypeError, "dtype must be float32 or float64, got 'single file'"),
    ({"rng": -3}, ValueError, "rng must be at least 0, got -3"),
    ({"rng": 1.5}, TypeError, "rng must be None, an int or a numpy.random.Generator, got float"),
    (
        {"precision": "low"},
        ValueError,
        "precision must be one of 'highest', 'high', 'medium', got 'low'",
    ),
    (
        {"precision": "high", "dtype": np.float64},
        ValueError,
        "precision must be 'highest' for float64, got 'high': lower ones are for float32",
    ),
    (
        {"backend": "tpu"},
        ValueError,
        "backend must be one of 'auto', 'cpu', 'numba', 'numpy', 'cuda', got 'tpu'",
    ),
    (
        {"backend": None},
        TypeError,
        "backend must be one of 'auto', 'cpu', 'numba', 'numpy', 'cuda', got NoneType",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "text"), NOT_ARGUMENTS)
def test_constructor(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"input_size": I, "hidden_size": H, "backend": "numpy"} | wrong
    says(error, text, fastrnn.LSTM, **arguments)


def test_constructor_of_the_others() -> None:
    text = "nonlinearity must be one of 'tanh', 'sigmoid', 'relu', 'hard_sigmoid', got 'gelu'"
    says(ValueError, text, fastrnn.RNN, I, H, nonlinearity="gelu")
    says(ValueError, text, fastrnn.RNNCell, I, H, nonlinearity="gelu")
    says(TypeError, "reset_after must be a bool, got int", fastrnn.GRU, I, H, reset_after=1)
    says(ValueError, "proj_size must be in 0..H-1=5, got 7", fastrnn.LSTMCell, I, H, proj_size=7)


def test_sizes_beyond_memory() -> None:
    """They raise MemoryError: none is rounded, wraps around, or takes the machine down."""
    for hidden in (2**31, 2**40, 2**62):
        with pytest.raises(MemoryError):
            fastrnn.LSTM(I, hidden, backend="numpy")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numba"])
def test_input_beyond_memory(backend: str) -> None:
    """An array that repeats one number may have more steps than there is memory for y."""
    layer = fastrnn.LSTM(I, H, rng=0, backend=backend)
    for steps, batch in ((2**45, 1), (1, 2**45), (2**58, 1), (2**30, 2**28)):
        x = np.lib.stride_tricks.as_strided(zeros(1), (steps, batch, I), (0, 0, 0))
        with pytest.raises(MemoryError):
            layer(x)
        with pytest.raises(MemoryError):
            layer.forward(x)
    assert layer(zeros(T, B, I))[0].shape == (T, B, H)


def test_device(gru: fastrnn.GRU) -> None:
    says(ValueError, "device must be one of 'cpu', 'cuda', got 'gpu'", gru.to, "gpu")
    with pytest.raises(RuntimeError, match=r'backend "cuda" cannot be used here: .+'):
        gru.to("cuda")
    with pytest.raises(RuntimeError, match=r'backend "cuda" cannot be used here: .+'):
        fastrnn.GRU(I, H, backend="cuda")


# ---- parameters ----------------------------------------------------------------------------------

NOT_PARAMS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"weight_hh_l0": None}, TypeError, "weight_hh_l0 must be a numpy.ndarray of float32"),
    ({"bias_hh_l0": zeros(17)}, ValueError, "bias_hh_l0 must be (18,), got (17,)"),
    ({"weight_ih_l0": zeros(I, 18)}, ValueError, "weight_ih_l0 must be (18, 4), got (4, 18)"),
    (
        {"bias_ih_l0": zeros(18, dtype=np.float64)},
        TypeError,
        "bias_ih_l0 must be float32, got float64: cast it with bias_ih_l0.astype('float32')",
    ),
    (
        {"weight_ih_l1": zeros(1)},
        ValueError,
        "unknown parameters: weight_ih_l1; known: weight_ih_l0",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "text"), NOT_PARAMS)
def test_load_params(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")
    before = layer.flat_params.copy()
    new = {name: np.ones_like(value) for name, value in layer.params.items()} | wrong
    with pytest.raises(error) as info:
        layer.load_params(new)
    assert str(info.value).startswith(text)
    assert np.array_equal(layer.flat_params, before)


def test_load_params_in_any_memory_order() -> None:
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")
    weight = np.arange(18 * I, dtype=np.float32).reshape(I, 18).T
    layer.load_params({**layer.params, "weight_ih_l0": weight})
    assert np.array_equal(layer.params["weight_ih_l0"], weight)


def test_load_params_misses_a_name() -> None:
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")
    before = layer.flat_params.copy()
    new = {name: np.ones_like(value) for name, value in layer.params.items()}
    del new["bias_hh_l0"], new["weight_hh_l0"]
    text = "parameters are missing: weight_hh_l0, bias_hh_l0; got weight_ih_l0, bias_ih_l0"
    says(ValueError, text, layer.load_params, new)
    text = "parameters must be a mapping name -> array, got list"
    says(TypeError, text, layer.load_params, list(new.items()))
    assert np.array_equal(layer.flat_params, before)


def test_load_params_of_prefixed_names() -> None:
    """It says what it was given, and what would do."""
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")
    prefixed = {f"encoder.rnn.{name}": value for name, value in layer.params.items()}
    missing = ", ".join(layer.params)
    text = (
        f"parameters are missing: {missing}; got {', '.join(prefixed)}, head.weight; 4 of 4 are "
        "there behind 'encoder.rnn.': take the names without it, or make the layer with "
        "from_params(mapping, 'encoder.rnn.')"
    )
    says(ValueError, text, layer.load_params, {**prefixed, "head.weight": zeros(1, H)})
    says(ValueError, f"parameters are missing: {missing}; got none", layer.load_params, {})
    many = {f"layer{n}": zeros(1) for n in range(40)}
    with pytest.raises(ValueError, match=r"; got layer0, .*, layer11 and 28 more$"):
        layer.load_params(many)
    linear = fastrnn.Linear(I, 2)
    with pytest.raises(ValueError, match=r"2 of 2 are there behind 'module\.head\.'"):
        linear.load_params({f"module.head.{name}": v for name, v in linear.params.items()})


class Tensor:
    """What load_params sees of another library's tensor."""

    def detach(self) -> Tensor:
        return self


def test_load_params_of_tensors() -> None:
    layer = fastrnn.GRU(I, H, rng=0, backend="numpy")
    before = layer.flat_params.copy()
    with pytest.raises(TypeError, match=r"from_params and .* take tensors as they are") as info:
        layer.load_params({**layer.params, "bias_hh_l0": Tensor()})
    assert "weight" not in str(info.value)
    assert "bias_hh_l0.detach().cpu().numpy()" in str(info.value)
    assert np.array_equal(layer.flat_params, before)


# ---- the stepper and cells -----------------------------------------------------------------------


def test_stepper(lstm: fastrnn.LSTM, gru: fastrnn.GRU) -> None:
    text = "a stepper needs a layer of one direction, got bidirectional=True"
    says(ValueError, text, lstm.stepper)
    says(ValueError, "batch_size must be at least 1, got 0", gru.stepper, 0)
    says(TypeError, "batch_size must be an int, got float", gru.stepper, 2.0)
    step = gru.stepper(2)
    step(np.ones((2, I), np.float32))
    before = step.state
    says(ValueError, "x_t must be (B=2, I=4), got (4,)", step, zeros(I))
    says(ValueError, "x_t must be (B=2, I=4), got (1, 4)", step, zeros(1, I))
    says(
        ValueError, "x_t must be (B=1, I=4) or (I=4,), got (1, 1, 4)", gru.stepper(), zeros(1, 1, I)
    )
    says(ValueError, "x_t must be (I=4,), got (3,)", gru.stepper(), zeros(3))
    text = "x_t must be float32, got float64: cast it with x_t.astype('float32')"
    says(TypeError, text, step, zeros(2, I, dtype=np.float64))
    says(ValueError, "mask must be (B=2,), got (3,)", step.reset, np.ones(3, bool))
    says(TypeError, "mask must be bool, got int64", step.reset, np.ones(2, np.int64))
    with pytest.raises(ValueError, match=r"state must be \(L\*D=1, B=2, H=6\), got \(1, 1, 6\)"):
        step.state = zeros(1, 1, H)
    assert np.array_equal(step.state, before)


def test_cell() -> None:
    cell = fastrnn.LSTMCell(I, H, rng=0, backend="numpy")
    says(ValueError, "x_t must be (B, I=4), got (2, 5)", cell, zeros(2, 5))
    says(ValueError, "x_t must be (B, I=4) or (I=4,), got (1, 2, 4)", cell, zeros(1, 2, I))
    text = "x_t must be float32, got float64: cast it with x_t.astype('float32')"
    says(TypeError, text, cell.forward, zeros(2, I, dtype=np.float64))
    state = (zeros(2, H), zeros(3, H))
    says(ValueError, "state[1] must be (B=2, H=6), got (3, 6)", cell, zeros(2, I), state)
    text = "state[0] must be (B=1, H=6), got (2, 6)"
    says(ValueError, text, cell, zeros(I), (zeros(2, H), zeros(H)))


def test_settings_are_fixed(gru: fastrnn.GRU) -> None:
    with pytest.raises(AttributeError, match="dropout is fixed when a GRU is made"):
        gru.dropout = 0.0
    with pytest.raises(AttributeError):
        gru.dtype = np.float64


# ---- anything at all -----------------------------------------------------------------------------

ORDERS: dict[str, Callable[[Array], Array]] = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "offset": lambda a: np.concatenate([a, a])[len(a) :],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: (
        np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_memory_order(backend: str, kind: str, order: str) -> None:
    """The same bits as from contiguous arrays, for all that goes in."""
    case = Case(kind, (T, B, I, H), bidirectional=True, dtype="float32", lengths="zeros")
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    call.x, call.dy = ORDERS[order](call.x), ORDERS[order](call.dy)
    call.state = pack(map(ORDERS[order], unpack(call.state)))
    call.dstate = pack(map(ORDERS[order], unpack(call.dstate)))
    same_bits(run(layer, call), want)


def test_overlapping_memory(backend: str) -> None:
    """Windows over one series, each step of x sharing memory with the next."""
    layer = fastrnn.GRU(I, H, rng=0, backend=backend)
    series = np.random.default_rng(0).standard_normal(T + I - 1).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, I)[:, None]
    for x in (windows, np.broadcast_to(windows, (T, B, I))):
        for got, want in zip(layer(x), layer(x.copy()), strict=True):
            assert np.array_equal(got, want)


@pytest.mark.parametrize(("steps", "batch"), [(0, B), (T, 0), (0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_empty(backend: str, kind: str, steps: int, batch: int) -> None:
    """Empty output; the state and its gradient go through, and no gradient comes from nothing."""
    for options in ({}, {"layers": 2, "bidirectional": True}):
        case = Case(kind, (steps, batch, I, H), **options)
        layer, call = case.layer(backend), case.call()
        call.how = {"lengths": [0] * batch, "resets": np.ones((steps, batch), bool)}
        y, state, tape = layer.forward(call.x, call.state, **call.how, checkpoint_every=2)
        assert y.shape == (steps, batch, case.directions * H)
        grads = layer.backward(tape, call.dy, call.dstate)
        assert grads.x.shape == call.x.shape
        assert not grads.flat.any()
        for got, want in zip(unpack(state), unpack(call.state), strict=True):
            assert np.array_equal(got, want)
            assert not np.shares_memory(got, want)
        for got, want in zip(unpack(grads.state), unpack(call.dstate), strict=True):
            assert np.array_equal(got, want)
        for states, initial in zip(unpack(tape.states()), unpack(call.state), strict=True):
            assert states.shape == (steps, *initial.shape)
        assert layer(call.x)[0].shape == y.shape


def test_empty_with_steps_beyond_counting(backend: str) -> None:
    """No row, and more steps than a loop could walk."""
    layer = fastrnn.GRU(I, H, rng=0, backend=backend)
    y, _, tape = layer.forward(np.zeros((2**40, 0, I), np.float32))
    assert y.shape == (2**40, 0, H)
    assert layer.backward(tape, y).x.shape == (2**40, 0, I)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("kind", KINDS)
def test_not_finite_numbers_flow_through(backend: str, kind: str, bad: float) -> None:
    """They reach their own row from their step on, nothing else, and without a warning."""
    case = Case(kind, (T, B, I, H), layers=2, dtype="float32")
    layer, call = case.layer(backend, dropout=0.5), case.call()
    clean = layer(call.x, call.state)[0]
    call.x[2, 1] = bad
    y = layer(call.x, call.state)[0]
    assert np.array_equal(y[:, [0, 2]], clean[:, [0, 2]])
    assert np.array_equal(y[:2], clean[:2])
    if np.isnan(bad):
        assert np.isnan(y[2:, 1]).all()
        layer.flat_params[:] = np.nan
        assert np.isnan(run(layer, call, rng=0)["dx"]).any()
    else:
        run(layer, call, rng=0)


DTYPES = ["f4", "f8", "f2", "i4", "?", "c8", "O", ">f4", "U1"]
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """An array of any small shape, mostly of the right dtype, in any memory order."""
    shape = draw(st.one_of(st.just((2, 3, 4)), SHAPES))
    dtype = draw(st.one_of(st.just("f4"), st.sampled_from(DTYPES)))
    value = np.zeros(shape, dtype) if dtype in ("O", "U1") else np.ones(shape).astype(dtype)
    if value.ndim and dtype != "O":
        return ORDERS[draw(st.sampled_from(sorted(ORDERS)))](value)
    return value


@st.composite
def anything(draw: st.DrawFn) -> Any:
    """What may come instead of a state, lengths or resets."""
    one = st.one_of(st.none(), st.integers(-2, 6), st.floats(), st.text(max_size=2), arrays())
    return draw(st.one_of(one, st.lists(one, max_size=3), st.tuples(one, one)))


def refusal(work: Callable[[], None]) -> str | None:
    """The text of the TypeError or ValueError that came, if one did."""
    try:
        work()
    except (TypeError, ValueError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "numba"])
@given(
    kind=st.sampled_from(KINDS),
    options=st.fixed_dictionaries(
        {}, optional={"num_layers": st.integers(1, 2), "bidirectional": st.booleans()}
    ),
    x=arrays(),
    state=anything(),
    lengths=st.one_of(st.none(), anything()),
    resets=st.one_of(st.none(), anything()),
    dy=anything(),
    dstate=anything(),
)
def test_anything(
    name: str,
    kind: str,
    options: dict[str, Any],
    x: Any,
    state: Any,
    lengths: Any,
    resets: Any,
    dy: Any,
    dstate: Any,
) -> None:
    """Whatever comes: a result of the promised shapes, or TypeError or ValueError; no change."""
    cls, chosen = LAYERS[kind]
    layer = cls(4, 3, **chosen, **options, rng=0, backend=name)
    before = layer.flat_params.tobytes()

    def work() -> None:
        y, new, tape = layer.forward(x, state, lengths=lengths, resets=resets)
        assert y.shape == (*x.shape[:-1], 3 * (1 + layer.bidirectional))
        grads = layer.backward(tape, dy, dstate)
        assert grads.x.shape == x.shape
        assert [a.shape for a in unpack(grads.state)] == [a.shape for a in unpack(new)]

    text = refusal(work)
    assert text is None or " must be " in text
    assert layer.flat_params.tobytes() == before


@given(
    sizes=st.tuples(*[st.one_of(st.integers(-1, 3), st.floats(), st.booleans())] * 3),
    wrong=st.fixed_dictionaries(
        {},
        optional={
            "dropout": st.one_of(st.floats(), st.integers(-1, 2), st.none()),
            "proj_size": st.integers(-1, 4),
            "dtype": st.sampled_from([np.float32, "f8", "f2", int, object, None, ">f8"]),
            "bias": st.one_of(st.booleans(), st.integers(0, 1)),
            "precision": st.sampled_from(["highest", "high", "", None]),
            "rng": st.one_of(st.none(), st.integers(-1, 2**70), st.floats(), st.text(max_size=1)),
        },
    ),
)
def test_any_constructor(sizes: tuple[Any, Any, Any], wrong: dict[str, Any]) -> None:
    """A layer that runs, or TypeError or ValueError."""

    def work() -> None:
        layer = fastrnn.LSTM(*sizes, **wrong, backend="numpy")
        y, _ = layer(np.ones((2, 1, layer.input_size), layer.dtype))
        assert np.isfinite(y).all()

    text = refusal(work)
    assert text is None or " must be " in text
