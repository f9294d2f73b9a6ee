"""Models of Keras: files that Keras 3 writes, models in memory, and the layouts of Keras 2."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
from cases import Array

import fastrnn

h5py = pytest.importorskip("h5py")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")
import fastrnn.keras  # noqa: E402

# of Keras on torch, with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def randomise(model: Any, seed: int = 0) -> None:
    draw = np.random.default_rng(seed)
    model.set_weights([draw.uniform(-0.7, 0.7, w.shape) for w in model.get_weights()])


def predict(model: Any, x: Array) -> Array:
    y: Array = keras.ops.convert_to_numpy(model(x))
    return y


def batch(I: int = 3) -> Array:
    return np.random.default_rng(1).standard_normal((2, 6, I)).astype(np.float32)


L = keras.layers
HARD = {"recurrent_activation": "hard_sigmoid"}
LAYERS: dict[str, Any] = {
    "simple": lambda: L.SimpleRNN(4, return_sequences=True),
    "relu": lambda: L.SimpleRNN(4, activation="relu", use_bias=False, return_sequences=True),
    "lstm": lambda: L.LSTM(4, return_sequences=True),
    "lstm_no_bias": lambda: L.LSTM(4, use_bias=False, return_sequences=True),
    "lstm_hard": lambda: L.LSTM(4, activation="relu", return_sequences=True, **HARD),
    "gru": lambda: L.GRU(4, return_sequences=True),
    "gru_before": lambda: L.GRU(4, reset_after=False, return_sequences=True),
    "gru_hard": lambda: L.GRU(4, return_sequences=True, **HARD),
    "gru_no_bias": lambda: L.GRU(4, use_bias=False, return_sequences=True),
    "dropout": lambda: L.GRU(4, dropout=0.2, recurrent_dropout=0.1, return_sequences=True),
    "both": lambda: L.Bidirectional(L.LSTM(4, return_sequences=True)),
    "both_gru": lambda: L.Bidirectional(L.GRU(4, return_sequences=True, reset_after=False)),
    "cell": lambda: L.RNN(L.LSTMCell(4), return_sequences=True),
    "cell_gru": lambda: L.RNN(L.GRUCell(4, reset_after=False), return_sequences=True),
    "cell_simple": lambda: L.Bidirectional(L.RNN(L.SimpleRNNCell(4), return_sequences=True)),
    "stacked": lambda: L.RNN([L.GRUCell(4), L.GRUCell(4), L.GRUCell(4)], return_sequences=True),
}


def saved(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.name.endswith(".weights.h5"):
            model.save_weights(path)
        else:
            model.save(path)
    return path


@pytest.mark.parametrize("form", ["live", "m.keras", "m.h5", "m.hdf5"])
@pytest.mark.parametrize("name", LAYERS)
def test_what_keras_writes(name: str, form: str, tmp_path: Path) -> None:
    """The layer's y is Keras's, from every form in which a model comes."""
    model = keras.Sequential([keras.Input((None, 3)), LAYERS[name]()])
    randomise(model)
    x = batch()
    layer = fastrnn.keras.load(model if form == "live" else saved(model, tmp_path / form))
    assert (layer.input_size, layer.hidden_size, layer.batch_first) == (3, 4, True)
    assert layer.num_layers == (3 if name == "stacked" else 1)
    np.testing.assert_allclose(layer(x)[0], predict(model, x), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("form", ["live", "m.keras", "m.h5"])
@pytest.mark.parametrize("cell", [L.LSTM, L.GRU])
def test_bidirectional_of_a_layer_that_goes_backwards(cell: Any, form: str, tmp_path: Path) -> None:
    first, second = (cell(4, return_sequences=True, go_backwards=each) for each in (True, False))
    both = L.Bidirectional(first, backward_layer=second)
    model = keras.Sequential([keras.Input((None, 3)), both])
    randomise(model)
    x = batch()
    layer = fastrnn.keras.load(model if form == "live" else saved(model, tmp_path / form))
    forward, back = np.split(layer(x)[0], 2, axis=2)
    y = np.concatenate([back, forward], axis=2)[:, ::-1]  # Keras's is in the order of running
    np.testing.assert_allclose(y, predict(model, x), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", [n for n in LAYERS if n not in ("gru_no_bias", "dropout")])
def test_weights_alone(name: str, tmp_path: Path) -> None:
    """A .weights.h5 of Keras 3 says neither activations nor go_backwards: the caller does."""
    model = keras.Sequential([keras.Input((None, 3)), LAYERS[name]()])
    randomise(model)
    said: dict[str, Any] = {}
    if "hard" in name:
        said |= {"gate_activation": "hard_sigmoid", "gate_slope": 1 / 6}
    if name == "lstm_hard":
        said["activation"] = "relu"
    if name == "relu":
        said["nonlinearity"] = "relu"
    layer = fastrnn.keras.load(saved(model, tmp_path / "m.weights.h5"), **said)
    x = batch()
    np.testing.assert_allclose(layer(x)[0], predict(model, x), rtol=2e-4, atol=2e-6)


def nested() -> Any:
    """A functional model in which names do not follow from classes."""
    x = given = keras.Input((None, 3))
    x = L.LSTM(4, return_sequences=True, name="encoder")(x)
    x = L.Bidirectional(L.GRU(4, return_sequences=True), name="both")(x)
    inner = keras.Sequential(
        [keras.Input((None, 8)), L.SimpleRNN(5, return_sequences=True, name="deep")], name="inner"
    )
    x = L.LSTM(6, return_sequences=True, name="last", go_backwards=True)(inner(x))
    model = keras.Model(given, L.Dense(2)(x))
    randomise(model)
    return model


@pytest.mark.parametrize("form", ["live", "m.keras", "m.h5", "m.weights.h5"])
def test_layers_by_name(form: str, tmp_path: Path) -> None:
    model = nested()
    source = model if form == "live" else saved(model, tmp_path / form)
    for name, I, H in (("encoder", 3, 4), ("both", 4, 4), ("deep", 8, 5), ("last", 5, 6)):
        said = {"reverse": True} if (name, form) == ("last", "m.weights.h5") else {}
        layer = fastrnn.keras.load(source, name, **said)
        its = model.get_layer("inner").get_layer(name) if name == "deep" else model.get_layer(name)
        x = batch(I)
        y = layer(x)[0]
        assert layer.hidden_size == H
        if name == "last":  # Keras gives y in the order of running
            assert layer.reverse
            y = y[:, ::-1]
        np.testing.assert_allclose(y, predict(its, x), rtol=2e-4, atol=2e-6)
    with pytest.raises(
        ValueError, match=r"4 recurrent layers: layer must be one of .*'encoder' \(LSTM\)"
    ):
        fastrnn.keras.load(source)
    with pytest.raises(ValueError, match=r"layer must be one of .*; got 'decoder'"):
        fastrnn.keras.load(source, "decoder")
    with pytest.raises(TypeError, match="layer must be a str, got int"):
        fastrnn.keras.load(source, 0)


def test_older_files_of_keras_3(tmp_path: Path) -> None:
    """Before names were noted beside the weights, they follow from the configuration alone."""
    import zipfile

    model = nested()
    path = saved(model, tmp_path / "m.keras")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "w.h5").write_bytes(parts["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file.visititems(lambda _, each: each.attrs.pop("name", None) and None)
    parts["model.weights.h5"] = (tmp_path / "w.h5").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in parts.items():
            archive.writestr(name, value)
    for name in ("encoder", "both", "deep", "last"):
        layer, same = fastrnn.keras.load(path, name), fastrnn.keras.load(model, name)
        assert layer.config() == same.config()
        np.testing.assert_array_equal(layer.flat_params, same.flat_params)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(dtype: str, tmp_path: Path) -> None:
    # torch has no orthogonal initial weights of half precision
    cell = L.GRU(4, dtype=dtype, recurrent_initializer="glorot_uniform")
    model = keras.Sequential([keras.Input((None, 3)), cell])
    own = np.float64 if dtype == "float64" else np.float32
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(cell.cell.kernel, own))
    layer = fastrnn.keras.load(saved(model, tmp_path / "m.keras"))
    assert layer.dtype == own
    np.testing.assert_array_equal(layer.params["weight_ih_l0"][4:8], kernel[:, :4].T)
    assert fastrnn.keras.load(saved(model, tmp_path / "m.keras"), dtype=np.float64).dtype == "f8"


def test_one_layer_in_memory() -> None:
    layer = L.GRU(4, return_sequences=True)
    layer.build((None, None, 3))
    randomise(layer)
    x = batch()
    np.testing.assert_allclose(
        fastrnn.keras.load(layer)(x)[0], predict(layer, x), rtol=2e-4, atol=2e-6
    )


# ----------------------------------------------------------------------- Keras 2, by its layout


def write_legacy(
    path: Path,
    groups: dict[str, dict[str, Array]],
    layers: list[dict[str, Any]] | None,
    version: str = "2.2.4",
) -> Path:
    """What Keras 2 writes: weights by name in a group a layer, the configuration as an attribute.

    (keras/engine/saving.py of Keras 2.2: save_weights_to_hdf5_group.)
    """
    with h5py.File(path, "w") as file:
        root = file if layers is None else file.create_group("model_weights")
        file.attrs["keras_version"] = np.bytes_(version)
        root.attrs["layer_names"] = [np.bytes_(name) for name in groups]
        for name, weights in groups.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [np.bytes_(each) for each in weights]
            for each, value in weights.items():
                group[each] = value
        if layers is not None:
            config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
            file.attrs["model_config"] = np.bytes_(json.dumps(config))
    return path


def config(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, "units": 4, **settings}}


def drawn(kind: str, bias: tuple[int, ...], I: int = 3, seed: int = 0) -> list[Array]:
    G = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    draw = np.random.default_rng(seed)
    shapes = ((I, 4 * G), (4, 4 * G), bias)
    return [draw.uniform(-0.7, 0.7, shape).astype(np.float32) for shape in shapes]


NAMES = ("kernel:0", "recurrent_kernel:0", "bias:0")


def under(path: str, weights: list[Array]) -> dict[str, Array]:
    return {f"{path}/{name}": value for name, value in zip(NAMES, weights, strict=True)}


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def hard_sigmoid(a: Array) -> Array:
    """Keras 2's."""
    return np.clip(0.2 * a + 0.5, 0, 1)


def keras_lstm(w: list[Array], x: Array, gate: Any) -> Array:
    """The equations of keras/layers/recurrent.py of Keras 2, with x (B, T, I)."""
    h = c = np.zeros((len(x), 4))
    out = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w[0] + h @ w[1] + w[2], 4, axis=1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, 1)


def keras_gru(w: list[Array], x: Array, gate: Any) -> Array:
    """reset_after=False for a bias of one row."""
    h = np.zeros((len(x), 4))
    out = []
    b = w[2].reshape(-1, 12)
    after = len(b) == 2
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ w[0] + b[0], 3, axis=1)
        if after:
            hz, hr, hh = np.split(h @ w[1] + b[1], 3, axis=1)
            z, r = gate(xz + hz), gate(xr + hr)
            n = np.tanh(xh + r * hh)
        else:
            z, r = gate(xz + h @ w[1][:, :4]), gate(xr + h @ w[1][:, 4:8])
            n = np.tanh(xh + (r * h) @ w[1][:, 8:])
        h = z * h + (1 - z) * n
        out.append(h)
    return np.stack(out, 1)


@pytest.mark.parametrize("path", ["lstm_1", "lstm_1/lstm_cell", "model/lstm_1/lstm_cell_3"])
@pytest.mark.parametrize("gate", [sigmoid, hard_sigmoid])
def test_lstm_of_keras_2(path: str, gate: Any, tmp_path: Path) -> None:
    w = drawn("lstm", (16,))
    layers = [config("LSTM", "lstm_1", recurrent_activation=gate.__name__, activation="tanh")]
    file = write_legacy(tmp_path / "m.h5", {"lstm_1": under(path, w), "dense": {}}, layers)
    layer = fastrnn.keras.load(file, "lstm_1")
    x = batch()
    np.testing.assert_allclose(layer(x)[0], keras_lstm(w, x, gate), rtol=2e-4, atol=2e-6)
    if gate is hard_sigmoid:
        assert layer.gate_slope == 0.2


@pytest.mark.parametrize("bias", [(12,), (2, 12)])
def test_gru_of_keras_2(bias: tuple[int, ...], tmp_path: Path) -> None:
    w = drawn("gru", bias)
    layers = [config("GRU", "g", recurrent_activation="hard_sigmoid", activation="tanh")]
    file = write_legacy(tmp_path / "m.hdf5", {"g": under("g", w)}, layers)
    layer = fastrnn.keras.load(file)
    assert layer.reset_after is (len(bias) == 2)
    x = batch()
    np.testing.assert_allclose(layer(x)[0], keras_gru(w, x, hard_sigmoid), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("with_config", [True, False])
def test_bidirectional_of_keras_2(with_config: bool, tmp_path: Path) -> None:
    forward, backward = drawn("lstm", (16,)), drawn("lstm", (16,), seed=1)
    inner = config("LSTM", "lstm_2", recurrent_activation="sigmoid", go_backwards=False)
    layers = [{"class_name": "Bidirectional", "config": {"name": "bi", "layer": inner,
               "merge_mode": "concat"}}]  # fmt: skip
    weights = under("bi/forward_lstm_2", forward) | under("bi/backward_lstm_2", backward)
    file = write_legacy(
        tmp_path / "m.h5", {"bi": weights}, layers if with_config else None, "2.2.4"
    )
    if with_config:
        layer = fastrnn.keras.load(file)
    else:
        with pytest.warns(UserWarning, match="weights alone, written by Keras 2.2.4"):
            layer = fastrnn.keras.load(file, "bi")
    x = batch()
    y = layer(x)[0]
    np.testing.assert_allclose(y[..., :4], keras_lstm(forward, x, sigmoid), rtol=2e-4, atol=2e-6)
    back = keras_lstm(backward, x[:, ::-1], sigmoid)[:, ::-1]
    np.testing.assert_allclose(y[..., 4:], back, rtol=2e-4, atol=2e-6)


def from_cudnn(w: list[Array], gates: int) -> list[Array]:
    """keras/engine/saving.py of Keras 2.2: _convert_rnn_weights, from CuDNN to plain."""
    kernel = np.hstack([k.T.reshape(k.shape, order="F") for k in np.hsplit(w[0], gates)])
    recurrent = np.hstack([k.T for k in np.hsplit(w[1], gates)])
    bias = np.sum(np.split(w[2], 2), axis=0) if gates == 4 else w[2].reshape(2, -1)
    return [kernel, recurrent, bias]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_cudnn_layers(kind: str, tmp_path: Path) -> None:
    G = {"lstm": 4, "gru": 3}[kind]
    w = drawn(kind, (2 * G * 4,))
    layers = [config(f"CuDNN{kind.upper()}", "fast")]
    layer = fastrnn.keras.load(write_legacy(tmp_path / "m.h5", {"fast": under("fast", w)}, layers))
    x = batch()
    plain = {"lstm": keras_lstm, "gru": keras_gru}[kind](from_cudnn(w, G), x, sigmoid)
    np.testing.assert_allclose(layer(x)[0], plain, rtol=2e-4, atol=2e-6)


def test_go_backwards_and_time_major(tmp_path: Path) -> None:
    w = drawn("rnn", (4,))
    layers = [config("SimpleRNN", "r", go_backwards=True, time_major=True, activation="tanh")]
    layer = fastrnn.keras.load(write_legacy(tmp_path / "m.h5", {"r": under("r", w)}, layers))
    assert (layer.reverse, layer.batch_first) == (True, False)


# ------------------------------------------------------------------------------------- errors


def test_what_fastrnn_has_not_is_named(tmp_path: Path) -> None:
    w = under("r", drawn("rnn", (4,)))
    layers = [config("SimpleRNN", "r", activation="softsign")]
    with pytest.raises(ValueError, match="layer 'r' of Keras: activation='softsign': fastrnn has"):
        fastrnn.keras.load(write_legacy(tmp_path / "m.h5", {"r": w}, layers))
    layers = [config("GRU", "r")]
    with pytest.raises(ValueError, match="layer 'r' of Keras: weights must be those of a GRU"):
        fastrnn.keras.load(write_legacy(tmp_path / "m.h5", {"r": w}, layers))
    model = keras.Sequential(
        [keras.Input((None, 3)), L.Bidirectional(L.GRU(4), merge_mode="sum", name="b")]
    )
    with pytest.warns(UserWarning, match="layer 'b': y holds both .*merge_mode='sum'"):
        fastrnn.keras.load(model)
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    with pytest.raises(ValueError, match="no recurrent layer of Keras"):
        fastrnn.keras.load(model)


def test_no_file_of_keras(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match="path_or_model must be a path or a model of Keras, got int"
    ):
        fastrnn.keras.load(3)
    with pytest.raises(FileNotFoundError):
        fastrnn.keras.load(tmp_path / "none.keras")
    (tmp_path / "text.h5").write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"neither a \.keras nor an HDF5 file"):
        fastrnn.keras.load(tmp_path / "text.h5")
    (tmp_path / "zip.keras").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"not a \.keras file"):
        fastrnn.keras.load(tmp_path / "zip.keras")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match="an HDF5 file, but not one of Keras"):
        fastrnn.keras.load(tmp_path / "other.h5")
