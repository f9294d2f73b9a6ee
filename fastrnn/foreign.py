"""Parameters that come from elsewhere: found by prefix in a mapping, and made NumPy's.

No other library is imported: its arrays and tensors say what they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import checks
from .typing import Array

# What torch's wrappers put before the names of what they wrap: DataParallel and
# DistributedDataParallel, and torch.compile.
_WRAPPERS = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")

_SHOWN = 12  # names in an error; the rest is counted


def under(
    mapping: Any, prefix: Any, known: re.Pattern[str], anchor: str, kind: str
) -> dict[str, Any]:
    """Return what a mapping has under a prefix, by its name behind the prefix.

    Parameters
    ----------
    mapping : mapping of str to arrays or tensors
    prefix : str
        What stands before the names, with or without the dot at its end. What a wrapper of torch
        puts before it or behind it is passed over.
    known : names that such a layer may have
    anchor : the name that each such layer has
    kind : the layer's class, for errors

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        Nothing there is such a layer's, or something there is not.
    """
    if not isinstance(mapping, Mapping):
        hint = ""
        if callable(getattr(mapping, "state_dict", None)):
            hint = ": pass its state_dict(), or use fastrnn.from_torch"
        got = checks.type_name(mapping)
        raise TypeError(f"mapping must be a mapping name -> array, got {got}{hint}")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, got {checks.type_name(prefix)}")
    keys = [key for key in mapping if isinstance(key, str)]
    start = _start(keys, prefix, known)
    if start is None:
        raise ValueError(_nothing(mapping, keys, prefix, anchor, kind))
    # without its dot, a prefix is also the beginning of other names
    literal = prefix if not prefix or prefix.endswith(".") else start
    inside = {
        key[len(start) :] if key.startswith(start) else key: mapping[key]
        for key in keys
        if key.startswith((start, literal))
    }
    unknown = [name for name in inside if not known.fullmatch(name)]
    unknown += [str(key) for key in mapping if not isinstance(key, str) and not prefix]
    if unknown:
        where = f" under prefix {start!r}" if start else ""
        raise ValueError(
            f"unknown parameters of {kind}{where}: {_listed(unknown)}; "
            f"only what is outside the prefix is ignored{_elsewhere(keys, prefix, start, anchor)}"
        )
    return inside


def _start(keys: list[str], prefix: str, known: re.Pattern[str]) -> str | None:
    """Return the prefix as it really is: with a dot, or a wrapper's name; None if there is none."""
    dotted = (prefix, f"{prefix}.") if prefix and not prefix.endswith(".") else (prefix,)
    inner = _WRAPPERS if prefix else ("",)
    for outer, middle, last in itertools.product(_WRAPPERS, dotted, inner):
        start = outer + middle + last
        if any(key.startswith(start) and known.fullmatch(key, len(start)) for key in keys):
            return start
    return None


def _nothing(
    mapping: Mapping[Any, Any], keys: list[str], prefix: str, anchor: str, kind: str
) -> str:
    """Return what to say when nothing is found under a prefix: what was, and what is nearest."""
    where = f"under prefix {prefix!r}" if prefix else "without a prefix"
    nested = [key for key in keys if isinstance(mapping[key], Mapping)]
    hint = _elsewhere(keys, prefix, prefix, anchor) or f"; no name ends in {anchor}"
    if nested:
        hint = f"; {nested[0]!r} holds a mapping itself: pass that"
    found = [_described(key, mapping[key]) for key in mapping] or ["nothing"]
    return f"no parameters of {kind} {where}{hint}; found: {_listed(found)}"


def _elsewhere(keys: list[str], prefix: str, start: str, anchor: str) -> str:
    """Return which prefixes would fit, the one nearest to what was asked for first."""
    import difflib  # only for errors

    others = {key[: -len(anchor)] for key in keys if key.endswith(anchor)} - {start}
    if not others:
        return ""

    def unlike(other: str) -> tuple[bool, float]:
        part = prefix.rstrip(".") in other
        return not part, -difflib.SequenceMatcher(None, prefix, other).ratio()

    nearest, *more = sorted(others, key=unlike)
    also = f" (also: {_listed(map(repr, more))})" if more else ""
    return f"; the nearest prefix is {nearest!r}{also}"


def _described(key: Any, value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{key} {checks.type_name(value) if shape is None else tuple(shape)}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    rest = len(every) - _SHOWN
    more = [f"and {rest} more"] if rest > 0 else []
    return ", ".join([*every[:_SHOWN], *more])


def missing(kind: str, wanted: Iterable[str], found: Mapping[str, tuple[int, ...]]) -> ValueError:
    """Return the error for names that a layer of the found shapes has and the mapping has not."""
    came = _listed(f"{name} {shape}" for name, shape in found.items())
    return ValueError(f"parameters of {kind} are missing: {_listed(wanted)}; found: {came}")


def wrong_gates(kind: str, name: str, gates: int, got: tuple[int, ...]) -> ValueError:
    """Return the error for a recurrent matrix that is not of this kind of cell."""
    rows = "H" if gates == 1 else f"{gates}*H"
    columns = "P" if gates == 4 else "H"
    text = f"{name} of {kind} must be ({rows}, {columns}), got {got}"
    if len(got) == 2 and got[1]:
        whose = {1: "an RNN", 3: "a GRU", 4: "an LSTM"}.get(got[0] // got[1])
        if whose and got[0] % got[1] == 0 and got[0] // got[1] != gates:
            text += f", which is {whose}'s"
    return ValueError(text)


def agree(sizes: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor; what shapes say may be said again, not otherwise."""
    for name in sizes.keys() & arguments.keys():
        if arguments[name] != sizes[name]:
            raise ValueError(
                f"{name} is {sizes[name]} by the parameters' names and shapes, "
                f"got {arguments[name]!r}"
            )
    return {**sizes, **arguments}


def as_array(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return an array or a tensor of floats, of any library, as a NumPy array of a dtype.

    Raises
    ------
    TypeError
        It is neither, or does not hold real floats.
    ValueError
        It is a tensor without values.
    """
    if callable(getattr(value, "detach", None)) and callable(getattr(value, "cpu", None)):
        return _from_tensor(name, value, dtype)
    if callable(getattr(value, "get", None)) and checks.on_gpu(value):  # CuPy's
        value = value.get()
    if not any(hasattr(value, way) for way in ("__array__", "__array_interface__", "__dlpack__")):
        raise TypeError(f"{name} must be an array or a tensor, got {checks.type_name(value)}")
    array = np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    # bfloat16 and other small floats of the package ml_dtypes are of NumPy's kind "V"
    if array.dtype.kind != "f" and "float" not in array.dtype.name:
        raise TypeError(f"{name} must hold floats, got {array.dtype}")
    return array.astype(dtype, copy=False)


def _from_tensor(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return torch's tensor as an array; NumPy knows no bfloat16, so torch casts it."""
    if not value.is_floating_point():
        raise TypeError(f"{name} must hold floats, got {value.dtype}")
    if getattr(value, "is_meta", False):
        raise ValueError(f"{name} is on the meta device, where tensors have no values")
    tensor = value.detach().cpu()
    wide = tensor.double() if dtype == np.float64 else tensor.float()
    array: Array = np.asarray(wide.numpy(), dtype)
    return array
