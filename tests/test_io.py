"""Files: round trips, the safetensors package as the other side, and broken input."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
import fastrnn.io
from fastrnn.io import safetensors as ours

LAYERS = {
    "RNN": fastrnn.RNN(3, 4, 2, nonlinearity="relu", rng=0),
    "GRU": fastrnn.GRU(3, 4, reset_after=False, bidirectional=True, dtype=np.float64, rng=0),
    "LSTM": fastrnn.LSTM(3, 4, 2, proj_size=2, peephole=True, dropout=0.5, bias=False, rng=0),
    "RNNCell": fastrnn.RNNCell(3, 4, rng=0),
    "GRUCell": fastrnn.GRUCell(3, 4, rng=0),
    "LSTMCell": fastrnn.LSTMCell(3, 4, rng=0),
    "Linear": fastrnn.Linear(3, 4, bias=False, rng=0),
    "Embedding": fastrnn.Embedding(3, 4, dtype=np.float64, rng=0),
}


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert one.config() == other.config()
    np.testing.assert_array_equal(one.flat_params, other.flat_params)


# ------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back(name: str, tmp_path: Path) -> None:
    fastrnn.save(tmp_path / "layer", LAYERS[name])
    found = fastrnn.load(str(tmp_path / "layer"))
    same(found, LAYERS[name])
    found.flat_params[:] = 0
    assert LAYERS[name].flat_params.any()


def test_a_model_comes_back(tmp_path: Path) -> None:
    model = {"embedding": LAYERS["Embedding"], "lstm": LAYERS["LSTM"], "out.head": LAYERS["Linear"]}
    fastrnn.save(tmp_path / "model", model, metadata={"note": "é"})
    found = fastrnn.load(tmp_path / "model")
    assert list(found) == list(model)
    for name, layer in model.items():
        same(found[name], layer)
    assert fastrnn.io.read_metadata(tmp_path / "model") == {"note": "é"}
    fastrnn.save(tmp_path / "model", {})
    assert fastrnn.load(tmp_path / "model") == {}


def test_a_frozen_layer_is_saved_and_comes_back_free(tmp_path: Path) -> None:
    layer = fastrnn.GRU(2, 3, rng=0)
    layer.freeze()
    fastrnn.save(tmp_path / "layer", layer)
    found = fastrnn.load(tmp_path / "layer")
    same(found, layer)
    assert not found.frozen


def test_a_backend_can_be_chosen_on_loading(tmp_path: Path) -> None:
    fastrnn.save(tmp_path / "m", {"a": fastrnn.RNN(2, 3, backend="numpy"), "b": LAYERS["Linear"]})
    assert fastrnn.load(tmp_path / "m")["a"].config()["backend"] == "numpy"
    assert fastrnn.load(tmp_path / "m", backend="auto")["a"].config()["backend"] == "auto"
    with pytest.raises(RuntimeError, match="cuda"):
        fastrnn.load(tmp_path / "m", backend="cuda")
    with pytest.raises(ValueError, match=r"^backend must be one of .*, got 'abacus'"):
        fastrnn.load(tmp_path / "m", backend="abacus")
    with pytest.raises(TypeError, match=r"^backend must be one of .*, got int"):
        fastrnn.load(tmp_path / "m", backend=1)


def test_names_are_torchs(tmp_path: Path) -> None:
    fastrnn.save(tmp_path / "m", {"lstm": fastrnn.LSTM(2, 3), "head": fastrnn.Linear(3, 1)})
    assert sorted(safetensors.numpy.load_file(tmp_path / "m")) == [
        "head.bias", "head.weight",
        "lstm.bias_hh_l0", "lstm.bias_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l0",
    ]  # fmt: skip


def test_what_cannot_be_saved_is_refused_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "layer"
    fastrnn.save(path, LAYERS["GRU"])

    class Own(fastrnn.GRU):
        pass

    for wrong, error, text in [
        (Own(2, 3), TypeError, "can save RNN, GRU.*Own"),
        (np.zeros(3), TypeError, "can save .* got numpy.ndarray"),
        ({"a": None}, TypeError, "can save .* got NoneType"),
        ({1: LAYERS["GRU"]}, TypeError, "names of layers must be str, got int"),
        ({"": LAYERS["GRU"]}, ValueError, "names of layers must not be empty"),
    ]:
        with pytest.raises(error, match=text):
            fastrnn.save(path, wrong)
    with pytest.raises(ValueError, match=r"must not begin with 'fastrnn\.'"):
        fastrnn.save(path, LAYERS["GRU"], metadata={"fastrnn.layers": "{}"})
    for metadata, text in [
        ({"epoch": 3}, r"metadata must map str to str, got int in \('epoch', 3\)"),
        ({3: "epoch"}, "metadata must map str to str, got int"),
        (["epoch"], "metadata must be a mapping of str to str, got list"),
    ]:
        for write in (fastrnn.save, lambda path, _, metadata: ours.write(path, {}, metadata)):
            with pytest.raises(TypeError, match=text):
                write(path, LAYERS["GRU"], metadata=metadata)
    same(fastrnn.load(path), LAYERS["GRU"])


def test_a_path_is_no_open_file(tmp_path: Path) -> None:
    """`open` would take a number for one, and close it."""
    with open(tmp_path / "other", "wb") as file:
        for wrong in (file.fileno(), None, b"model"):
            for use in (
                fastrnn.load,
                fastrnn.io.read_metadata,
                lambda path: fastrnn.save(path, LAYERS["GRU"]),
            ):
                with pytest.raises(TypeError, match="path must be"):
                    use(wrong)
        os.fstat(file.fileno())  # still open


def rewrite(path: Path, record: Any) -> None:
    """Another description beside the arrays of a Linear(3, 4)."""
    arrays = {"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(4, np.float32)}
    text = record if isinstance(record, str) else json.dumps({"": record})
    ours.write(path, arrays, {"fastrnn.layers": text})


GOOD = {"in_features": 3, "out_features": 4, "bias": True, "dtype": "float32"}


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "AttributeError"),
        ("[" * 100_000, "RecursionError"),
        ({"class": "Linear", "config": []}, "KeyError"),
        ({"class": "Linear"}, "KeyError: 'config'"),
        ({"class": "os.system", "config": {}}, "KeyError: 'os.system'"),
        ({"class": "Linear", "config": GOOD | {"in_features": 10**12}}, "weight is .4, 3.*10000"),
        ({"class": "Linear", "config": GOOD | {"in_features": 3.0}}, "in_features must be an int"),
        ({"class": "Linear", "config": GOOD | {"bias": False}}, r"bias is \(4,\), expected none"),
        (
            {"class": "Linear", "config": GOOD | {"dtype": "float64"}},
            "must be float64, got float32",
        ),
        ({"class": "Linear", "config": GOOD | {"evil": 1}}, "unexpected keyword"),
        (
            {"class": "LSTM", "config": fastrnn.LSTM(3, 4).config() | {"num_layers": 10**9}},
            "1000000000 layers in 2 arrays",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(record: Any, text: str, tmp_path: Path) -> None:
    rewrite(tmp_path / "bad", record)
    with pytest.raises(ValueError, match=f"does not hold layers of fastrnn: .*{text}"):
        fastrnn.load(tmp_path / "bad")


def test_a_file_from_elsewhere_says_how_to_read_it(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"weight": np.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"fastrnn\.io\.safetensors\.read gives its arrays"):
        fastrnn.load(tmp_path / "other")


# ------------------------------------------------------------------------------ format


def many() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    arrays = {
        code: rng.uniform(0, 100, (3, 2)).astype(code)
        for code in ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    }
    return arrays | {
        'é "quoted"': np.arange(3),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "strided": np.arange(20.0).reshape(4, 5)[::2, ::-1].T,
    }


def equal(found: dict[str, np.ndarray], arrays: dict[str, np.ndarray]) -> None:
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_the_package_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    arrays = many()
    ours.write(tmp_path / "ours", arrays, {"key": "välue"})
    equal(safetensors.numpy.load_file(tmp_path / "ours"), arrays)
    with safetensors.safe_open(tmp_path / "ours", "numpy") as file:
        assert file.metadata() == {"key": "välue"}

    contiguous = {name: np.array(value, order="C") for name, value in arrays.items()}
    safetensors.numpy.save_file(contiguous, tmp_path / "theirs", {"key": "välue"})
    found, metadata = ours.read(tmp_path / "theirs")
    equal(found, arrays)
    assert metadata == {"key": "välue"} == ours.read_metadata(tmp_path / "theirs")


def test_arrays_start_at_multiples_of_eight_bytes(tmp_path: Path) -> None:
    ours.write(tmp_path / "file", {"x": np.zeros(3)})
    assert int.from_bytes((tmp_path / "file").read_bytes()[:8], "little") % 8 == 0


def test_another_byte_order_is_turned(tmp_path: Path) -> None:
    value = np.arange(4.0)
    ours.write(tmp_path / "file", {"x": value.astype(">f8")})
    equal(ours.read(tmp_path / "file")[0], {"x": value})


def test_a_dtype_without_a_name_is_refused(tmp_path: Path) -> None:
    for value in (np.zeros(2, complex), np.array([None]), np.array(["text"])):
        with pytest.raises(TypeError, match=r"x has dtype .* which safetensors cannot hold"):
            ours.write(tmp_path / "file", {"x": value})
    assert not list(tmp_path.iterdir())


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    ours.write(path, {"x": np.zeros(3)})
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ours.write(path, {"x": np.ones(3)})
    assert list(tmp_path.iterdir()) == [path]
    equal(ours.read(path)[0], {"x": np.zeros(3)})


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def put(path: Path, header: Any, data: bytes = bytes(24), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "is not JSON"),
        (b"\xff{}", "is not JSON"),
        (b"{" * 100_000, "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"x": 1, "x": 2}', "a name stands twice"),
        ([], "not a JSON object"),
        ({}, "arrays of 0 bytes in 24 bytes"),
        ({"x": []}, "x must have dtype"),
        ({"x": ENTRY | {"more": 1}}, "x must have dtype"),
        ({"x": ENTRY | {"dtype": "BF16"}}, "x has the dtype 'BF16'"),
        ({"x": ENTRY | {"dtype": ["F32"]}}, "x has the dtype"),
        ({"x": ENTRY | {"shape": [2, 4]}}, "x F32 .2, 4. does not fill bytes 0 to 24"),
        ({"x": ENTRY | {"shape": [-2, -3]}}, "x has the shape"),
        ({"x": ENTRY | {"shape": [2.0, 3]}}, "x has the shape"),
        ({"x": ENTRY | {"shape": [True, 6]}}, "x has the shape"),
        ({"x": ENTRY | {"shape": [6] + [1] * 99}}, "x has the shape"),
        ({"x": ENTRY | {"shape": 6}}, "x has the shape"),
        ({"x": ENTRY | {"shape": [2**62, 2**62]}}, "does not fill"),
        ({"x": ENTRY | {"data_offsets": [0]}}, "x has the data_offsets"),
        ({"x": ENTRY | {"data_offsets": [24, 0]}}, "does not fill"),
        ({"x": ENTRY | {"data_offsets": [4, 28]}}, "x starts at byte 4 instead of 0"),
        ({"x": ENTRY, "y": ENTRY}, "y starts at byte 0 instead of 24"),
        (
            {"x": ENTRY, "y": ENTRY | {"data_offsets": [24, 48]}},
            "arrays of 48 bytes in 24 bytes",
        ),
        ({"__metadata__": {"a": 1}, "x": ENTRY}, "__metadata__ must map names to text"),
        ({"__metadata__": [], "x": ENTRY}, "__metadata__ must map names to text"),
    ],
)
def test_a_header_that_is_wrong_is_refused(header: Any, text: str, tmp_path: Path) -> None:
    path = put(tmp_path / "bad", header)
    with pytest.raises(ValueError, match=f"is not a safetensors file: .*{text}"):
        ours.read(path)


@pytest.mark.parametrize("content", [b"", b"abc", bytes(8), b"\xff" * 8, b"\xff" * 100])
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        fastrnn.load(tmp_path / "bad")


def test_a_size_in_a_header_claims_no_memory(tmp_path: Path) -> None:
    shape, size = [1 << 40], 1 << 42
    path = put(tmp_path / "big", {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
    tracemalloc.start()
    with pytest.raises(ValueError, match="in 24 bytes"):
        ours.read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@given(st.data())
def test_no_damage_to_a_file_does_more_than_raise_value_error(data: st.DataObject) -> None:
    header = json.dumps({"__metadata__": {"k": "v"}, "x": ENTRY}).encode()
    content = bytearray(len(header).to_bytes(8, "little") + header + bytes(24))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            arrays, _ = ours.read(path)
        except ValueError:
            return
    assert sum(array.nbytes for array in arrays.values()) <= len(content)
