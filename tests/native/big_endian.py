"""Files of one byte order read on a machine of the other, and the NumPy backend there.

``write FOLDER`` is for this machine, ``read FOLDER`` for another one, on which tools/big_endian.sh
runs it; that has Python and NumPy alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.io import safetensors

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "float64": np.array([1.5, -2, np.inf]),
    "float16": np.array([0.1, 3], np.float16),
    "int64": np.arange(-2, 3),
    "uint16": np.array([1, 256], np.uint16),
    "bool": np.array([True, False]),
}
X = np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 2, 3)


def layer() -> fastrnn.LSTM:
    return fastrnn.LSTM(3, 4, proj_size=2, bidirectional=True, rng=0, backend="numpy")


def write(folder: Path) -> None:
    """Write what `read` expects."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.write(folder / "arrays", ARRAYS, {"made": "elsewhere"})
    fastrnn.save(folder / "layer", layer())
    safetensors.write(folder / "y", {"y": layer()(X)[0]})


def read(folder: Path) -> None:
    """Compare what was written elsewhere with what is made here."""
    assert sys.byteorder == "big"
    arrays, metadata = safetensors.read(folder / "arrays")
    assert metadata == {"made": "elsewhere"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype, name
        assert array.dtype.isnative, name
        np.testing.assert_array_equal(array, ARRAYS[name], name)
    safetensors.write(folder / "again", ARRAYS, {"made": "elsewhere"})
    assert (folder / "again").read_bytes() == (folder / "arrays").read_bytes()

    there = fastrnn.load(folder / "layer", backend="numpy")
    for name, value in layer().params.items():
        np.testing.assert_array_equal(there.params[name], value, name)
    (y,) = safetensors.read(folder / "y")[0].values()
    np.testing.assert_allclose(there(X)[0], y, rtol=0, atol=1e-6)
    exact = fastrnn.GRU(3, 4, dtype="float64", rng=0, backend="numpy")
    assert fastrnn.gradcheck(exact, X.astype(np.float64))


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
