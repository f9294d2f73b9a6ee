"""Files: round trips, the safetensors package as the other side, and broken input."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
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
from fastrnn.io.replace import replacing

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


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link, chain = tmp_path / "far" / "target", tmp_path / "link", tmp_path / "chain"
    link.symlink_to(Path("far", "target"))  # nothing is there yet
    chain.symlink_to("link")
    for value, path in enumerate((link, chain, link)):
        ours.write(path, {"x": np.full(3, value)})
        assert link.is_symlink()
        assert chain.is_symlink()
        assert not target.is_symlink()
        equal(ours.read(target)[0], {"x": np.full(3, value)})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["chain", "far", "link", "target"]
    link.unlink()
    link.symlink_to("chain")  # a circle
    with pytest.raises(OSError, match=r"chain|link"):
        ours.write(chain, {})
    assert chain.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="makes a FIFO and a socket")
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path: Path) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("fifo")
    listening = socket.socket(socket.AF_UNIX)
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)  # a socket's path must be short
        listening.bind("socket")
    finally:
        os.chdir(here)
        os.close(here)
    with listening:
        for path, kind in (
            (fifo, "a FIFO"),
            (link, "a FIFO"),
            (tmp_path / "socket", "a socket"),
            (Path(os.devnull), "a character device"),
        ):
            mode = path.lstat().st_mode
            for use in (ours.read, ours.read_metadata, lambda path: ours.write(path, {})):
                with pytest.raises(OSError, match=f"path must be a regular file, got {kind}: '"):
                    use(path)
            assert path.lstat().st_mode == mode
    for use in (ours.read, lambda path: ours.write(path, {})):
        with pytest.raises(IsADirectoryError):
            use(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444, 0o755])
def test_a_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    os.utime(path, (1, 1))
    ours.write(path, {"x": np.zeros(3)})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_mtime > 1


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_honours_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        ours.write(tmp_path / "file", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o640)
    os.chown(path, 1234, 2345)
    ours.write(path, {})
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o640)


@pytest.mark.parametrize("name", ["n" * 246, "n" * 255, "ä" * 127 + "n", ".", "-", " ", "a\nb"])
def test_any_name_that_the_system_allows(name: str, tmp_path: Path) -> None:
    name = name if name != "." else ".hidden"
    for value in range(2):
        ours.write(tmp_path / name, {"x": np.array(value)})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    equal(ours.read(tmp_path / name)[0], {"x": np.array(1)})
    with pytest.raises(OSError, match="n" * 256):
        ours.write(tmp_path / ("n" * 256), {})


def test_an_error_names_the_path_and_no_draft(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "file", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=str(path)) as caught:
            ours.write(path, {})
        assert isinstance(caught.value, (FileNotFoundError, NotADirectoryError))
        assert caught.value.filename == str(path)


KILLED = """
import os, signal, sys
import numpy as np
from fastrnn.io import safetensors
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
safetensors.write(sys.argv[1], {"x": np.ones(3)})
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_what_a_killed_save_leaves_the_next_one_removes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ours.write(path, {"x": np.zeros(3)})
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path)], cwd=Path(fastrnn.__path__[0]).parent
        )
        assert done.returncode == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 2  # the second has removed what the first left
        equal(ours.read(path)[0], {"x": np.zeros(3)})
    # one that is being written is left alone, whatever its name
    with replacing(str(tmp_path / "other")) as file:
        ours.write(path, {"x": np.full(3, 2.0)})
        file.write(b"whole")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "other"]
    assert (tmp_path / "other").read_bytes() == b"whole"


def test_saves_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    errors = []

    def save(value: int) -> None:
        try:
            for _ in range(20):
                ours.write(path, {"x": np.full(5000, value)})
                x = ours.read(path)[0]["x"]
                assert (x == x[0]).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(tmp_path.iterdir()) == [path]


REFUSED: list[tuple[dict[Any, Any], type[Exception], str]] = [
    ({"__metadata__": np.zeros(2)}, ValueError, "no array can be named __metadata__"),
    ({None: np.zeros(2)}, TypeError, "names of arrays must be str, got NoneType"),
    ({None: np.zeros(2), "null": np.zeros(2)}, TypeError, "must be str, got NoneType"),
    ({1: np.zeros(2), "1": np.zeros(2)}, TypeError, "must be str, got int"),
    ({True: np.zeros(2)}, TypeError, "must be str, got bool"),
    ({b"x": np.zeros(2)}, TypeError, "must be str, got bytes"),
    ({("a", "b"): np.zeros(2)}, TypeError, "must be str, got tuple"),
    ({"x": np.ma.masked_array([1.0, 2.0], [True, False])}, TypeError, "x must have no mask"),
    ({"\ud800": np.zeros(2)}, ValueError, "must be Unicode"),
    ({"n" * 100_000_000: np.zeros(2)}, ValueError, "must need at most 100000000 bytes"),
]


@pytest.mark.parametrize(("arrays", "error", "text"), REFUSED, ids=[text for *_, text in REFUSED])
def test_what_could_not_be_read_is_not_written(
    arrays: dict[Any, Any], error: type[Exception], text: str, tmp_path: Path
) -> None:
    ours.write(tmp_path / "file", {"x": np.zeros(3)})
    with pytest.raises(error, match=text):
        ours.write(tmp_path / "file", arrays)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    equal(ours.read(tmp_path / "file")[0], {"x": np.zeros(3)})


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="has no 33 axes")
@pytest.mark.parametrize("axes", [33, 40, 64])
def test_more_axes_than_can_be_read_are_not_written(axes: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"x must have at most 32 axes, got {axes}"):
        ours.write(tmp_path / "file", {"x": np.zeros((1,) * axes)})
    value = np.zeros((1,) * 32)
    ours.write(tmp_path / "file", {"x": value})
    equal(ours.read(tmp_path / "file")[0], {"x": value})


@given(
    st.dictionaries(
        st.text(st.characters(), max_size=4) | st.just("__metadata__") | st.none() | st.integers(),
        st.builds(np.zeros, st.lists(st.integers(0, 2), max_size=4), st.sampled_from("fd?")),
        max_size=3,
    ),
    st.dictionaries(st.text(st.characters(), max_size=4), st.text(st.characters(), max_size=4)),
)
def test_what_is_written_can_be_read(arrays: dict[Any, Any], metadata: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        try:
            ours.write(path, arrays, metadata)
        except (TypeError, ValueError):
            assert not path.exists()
            return
        found, text = ours.read(path)
        equal(found, arrays)
        assert text == metadata


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
        (b'{"\\ud800": 1}', "is not JSON"),
        (b'{"__metadata__": {"a": "\\udc00"}}', "is not JSON"),
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
    with pytest.raises(ValueError, match=f"^{path} is not a safetensors file: .*{text}"):
        ours.read(path)


@pytest.mark.parametrize("shape", [[0, 2**63], [2**70, 0], [2**40, 0, 2**40], [0, 2**61]])
def test_an_empty_shape_that_no_array_can_have_is_refused(shape: list[int], tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    path = put(tmp_path / "bad", {"x": entry}, b"")
    for use in (ours.read, ours.read_metadata, fastrnn.load):
        with pytest.raises(ValueError, match=f"^{path} is not .*: x has the shape .*, larger than"):
            use(path)
    entry["shape"] = [0, 2**60]  # which NumPy has
    put(tmp_path / "good", {"x": entry}, b"")
    assert ours.read(tmp_path / "good")[0]["x"].shape == (0, 2**60)


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
