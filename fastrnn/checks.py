"""Every check of what a caller passes, and every error text.

Wrong type, dtype or device is a TypeError; wrong shape or value a ValueError. A text names the
argument, what was expected (in the letters T, B, I, H, P, D, L with their values) and what came.
Nothing here computes: a call that raises has done no work and changed nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# One axis of an expected shape: its letter, and its size where the size is known.
Axis = tuple[str, int | None]


class FormError(TypeError, ValueError):
    """A single array came where a pair belongs, or the reverse: wrong in type and in shape."""


# ---------------------------------------------------------------------------------- arrays


def type_name(value: object) -> str:
    """``list``, ``torch.Tensor``: the type of a value as a caller would write it."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def array(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return ``value`` if it is an array of exactly this dtype (a plain view of a subclass)."""
    if type(value) is np.ndarray:
        if value.dtype == dtype:
            return value
    elif not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be a numpy.ndarray of {dtype}, got {type_name(value)}: "
            f"make one with np.asarray({name}, dtype=np.{dtype})"
        )
    if value.dtype != dtype:
        raise TypeError(
            f"{name} must be {dtype}, got {_dtype_name(value.dtype)}: "
            f"cast it with {name}.astype(np.{dtype})"
        )
    return np.asarray(value)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return str(dtype) if dtype.isnative else f"{dtype.newbyteorder('=')} in another byte order"


def shape(name: str, got: tuple[int, ...], *forms: tuple[Axis, ...]) -> None:
    """Raise unless ``got`` fits one of the expected forms."""
    for form in forms:
        if len(form) == len(got) and all(
            size is None or size == n for (_, size), n in zip(form, got, strict=True)
        ):
            return
    # The forms of the rank that came say best what is wrong; all of them if none has that rank.
    near = [form for form in forms if len(form) == len(got)] or list(forms)
    raise ValueError(f"{name} must be {' or '.join(map(_form_text, near))}, got {got}")


def _form_text(form: tuple[Axis, ...]) -> str:
    axes = [letter if size is None or letter == str(size) else f"{letter}={size}"
            for letter, size in form]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def writeable(value: Array) -> None:
    """Raise if an array of parameters has been made read-only."""
    if not value.flags.writeable:
        raise ValueError("the parameters are frozen: call unfreeze() before changing them")


def named_arrays(
    mapping: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> dict[str, Array]:
    """Return the arrays of ``mapping`` in the order of ``shapes``, each of its shape and dtype."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"parameters must be a mapping name -> array, got {type_name(mapping)}")
    missing = [name for name in shapes if name not in mapping]
    if missing:
        raise ValueError(f"parameters must hold {', '.join(shapes)}; missing: {', '.join(missing)}")
    extra = [str(name) for name in mapping if name not in shapes]
    if extra:
        raise ValueError(f"parameters must hold {', '.join(shapes)}; unknown: {', '.join(extra)}")
    checked = {}
    for name, expected in shapes.items():
        value = array(name, mapping[name], dtype)
        if value.shape != expected:
            raise ValueError(f"{name} must be {expected}, got {value.shape}")
        checked[name] = value
    return checked


# --------------------------------------------------------------------------------- scalars


def integer(name: str, value: Any) -> int:
    """Return an int (Python's or NumPy's, not a bool) as Python's."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an int, got bool")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type_name(value)}") from None


def size(name: str, value: Any, at_least: int = 1, below: int | None = None) -> int:
    """Return an int in ``at_least <= value < below``."""
    number = integer(name, value)
    if number < at_least or (below is not None and number >= below):
        limit = f"at least {at_least}" if below is None else f"in {at_least}..{below - 1}"
        raise ValueError(f"{name} must be {limit}, got {number}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return a bool; 0, 1 and strings are refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {type_name(value)}")
    return bool(value)


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return one of the allowed strings."""
    expected = ", ".join(map(repr, choices))
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {expected}, got {type_name(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {expected}, got {value!r}")
    return value


def fraction(name: str, value: Any) -> float:
    """Return a float in [0, 1)."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name} must be a number in [0, 1), got {type_name(value)}")
    if not 0 <= value < 1:  # also false for NaN
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return float(value)


def float_dtype(value: Any) -> np.dtype[Any]:
    """Return float32 or float64, in this machine's byte order."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {value!r}") from None
    if value is None or dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {value!r}")
    return dtype


def generator(name: str, value: Any) -> np.random.Generator:
    """Return the generator that ``None``, an int or a Generator stands for (SPEC 7)."""
    if isinstance(value, np.random.Generator):
        return value
    if value is None:
        return np.random.default_rng()
    try:
        seed = integer(name, value)
    except TypeError:
        raise TypeError(
            f"{name} must be None, an int or a numpy.random.Generator, got {type_name(value)}"
        ) from None
    if seed < 0:
        raise ValueError(f"{name} must be at least 0, got {seed}")
    return np.random.default_rng(seed)
