"""Arrays by name in one file: the safetensors format, read strictly.

A file is an 8-byte little-endian length, a JSON header of that many bytes, and the arrays' bytes
one after the other (https://github.com/huggingface/safetensors#format). The format is small enough
that reading it here spares every user a dependency; the tests read our files with the `safetensors`
package and its files with this module.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import checks

from ..typing import Array
from .replace import regular, replacing

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation
_MAX_DIMENSIONS = 32  # of a NumPy 1.x array
_METADATA = "__metadata__"


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays and text by name; what `read` would refuse is refused.

    The file appears under `path` only when it is complete, so an interrupted call leaves what was
    there before; what a symbolic link points to is replaced, and the mode of a file stays.

    Raises
    ------
    TypeError
        An array's dtype has no name in the format (complex, object, ...), an array is masked, or a
        name or the metadata is not text.
    ValueError
        An array is named ``__metadata__``, has more than 32 axes or a name that is not Unicode, or
        names and metadata need more than 100 MB.
    OSError
        The file cannot be written, or there is something other than a regular file.
    """
    place = checks.path(path)
    header: dict[str, Any] = {}
    if metadata:
        header[_METADATA] = checks.texts("metadata", metadata)
    parts = []
    start = 0
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise TypeError(f"names of arrays must be str, got {checks.type_name(name)}")
        if name == _METADATA:
            raise ValueError(f"no array can be named {_METADATA}, the name of the text")
        array = checks.like_array(name, value)
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise TypeError(f"{name} has dtype {array.dtype}, which safetensors cannot hold")
        if array.ndim > _MAX_DIMENSIONS:
            raise ValueError(f"{name} must have at most {_MAX_DIMENSIONS} axes, got {array.ndim}")
        stop = start + array.nbytes
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
        parts.append(np.ascontiguousarray(array, dtype))
        start = stop
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"names and metadata must be Unicode: {error}") from None
    text += b" " * (-len(text) % 8)  # arrays start at a multiple of 8 bytes
    if len(text) > _MAX_HEADER:
        raise ValueError(
            f"names and metadata must need at most {_MAX_HEADER} bytes, got {len(text)}"
        )
    with replacing(place) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in parts:
            file.write(array.data)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Read what `write`, or any other writer of the format, has written: arrays, metadata.

    Nothing is allocated for an array before the whole header has been checked against the size of
    the file.

    Raises
    ------
    ValueError
        The file is not in the format, or holds a dtype that NumPy lacks (bfloat16, float8).
    OSError
        There is no such file, or it is something other than a regular file.
    """
    place = checks.path(path)
    regular(place)
    with open(place, "rb") as file:
        entries, metadata = _read_header(file, f"{place} is not a safetensors file: ")
        arrays = {}
        for name, (dtype, shape) in entries.items():
            count = math.prod(shape)
            array = np.fromfile(file, dtype, count)
            if array.size < count:
                raise ValueError(f"{place} ended inside {name}")
            arrays[name] = array.reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    return arrays, metadata


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read only the text that stands beside the arrays."""
    place = checks.path(path)
    regular(place)
    with open(place, "rb") as file:
        return _read_header(file, f"{place} is not a safetensors file: ")[1]


_Entries = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]


def _read_header(file: Any, error: str) -> tuple[_Entries, dict[str, str]]:
    """Names, dtypes and shapes in the order of their bytes; leaves `file` at the first array."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER):
        raise ValueError(f"{error}its header of {length} bytes does not fit")
    try:
        text = file.read(length).decode()
        header = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:  # an escape can stand for half a character, which could not be written
            json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as reason:
        raise ValueError(f"{error}its header is not JSON ({reason})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{error}its header is not a JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"{error}__metadata__ must map names to text")

    spans = {name: _span(name, entry, error) for name, entry in header.items()}
    entries: _Entries = {}
    position = 0
    for name, (start, stop, dtype, shape) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if start != position:
            raise ValueError(f"{error}{name} starts at byte {start} instead of {position}")
        position = stop
        entries[name] = (dtype, shape)
    if position != size - 8 - length:
        raise ValueError(f"{error}arrays of {position} bytes in {size - 8 - length} bytes")
    return entries, metadata


def _span(name: str, entry: Any, error: str) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    """First and last byte, dtype and shape of one array, each checked."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{error}{name} must have dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"{error}{name} has the dtype {code!r}, which is none of {list(_DTYPES)}")
    if not _naturals(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{error}{name} has the shape {shape!r}")
    if not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"{error}{name} has the data_offsets {offsets!r}")
    dtype = np.dtype(_DTYPES[code])
    start, stop = offsets
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{error}{name} {code} {shape} does not fill bytes {start} to {stop}")
    # NumPy has no empty array whose other axes are too long either
    if math.prod(filter(None, shape)) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{error}{name} has the shape {shape!r}, larger than any array")
    return start, stop, dtype, tuple(shape)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found
