"""Every check of what a caller passes, and every error text.

Wrong type, dtype or device is a TypeError; wrong shape or value a ValueError. A text names the
argument, what was expected (in the letters T, B, I, H, P, D, L with their values) and what came.
Nothing here computes: a call that raises has done no work and changed nothing.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

import numpy as np

from .typing import Array, WeightDType

# Text, because naming the class would import numpy.random, which `import numpy` does not.
RNG: TypeAlias = "int | np.random.Generator | None"

# Each layer has names and arrays of its own: a runaway number must not fill the memory with these.
MAX_LAYERS = 10_000

# Types of weights that are rounded, narrower than the layer's own.
NARROW: tuple[str, ...] = get_args(WeightDType)

# An expected shape: the letter of each axis, and its size where that is known.
Form = Sequence[tuple[str, int | None]]


# What an array is compared with that must be NumPy's.
_HOST = np.empty(0)

_PLANNED = "the host, where the steps are planned"


class FormError(TypeError, ValueError):
    """A single array came where a pair belongs, or the reverse: wrong in type and in shape."""


# ---------------------------------------------------------------------------------- arrays


def needs(what: str, library: str, extra: str) -> ImportError:
    """Return the error for a module whose library is not installed."""
    return ImportError(f"{what} needs {library}: pip install 'fastrnn[{extra}]'")


def type_name(value: object) -> str:
    """``list``, ``torch.Tensor``: the type of a value as a caller would write it."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def on_gpu(value: object) -> bool:
    """Whether a value is an array on a GPU."""
    return hasattr(value, "__cuda_array_interface__")


def array(
    name: str,
    value: Any,
    dtype: np.dtype[Any],
    like: Any = _HOST,
    of: str = "the layer's parameters",
) -> Array:
    """Return ``value`` if it is an array of exactly this dtype (a plain view of a subclass).

    It must be on the device of ``like``: a NumPy array, or one of CuPy on the same GPU. ``of`` says
    what that is.
    """
    if type(value) is np.ndarray and type(like) is np.ndarray:
        if value.dtype is dtype or value.dtype == dtype:
            return value
    elif not isinstance(like, np.ndarray):
        _on_device(name, value, str(dtype), like, of)
        if value.dtype == dtype:
            # mypy: CuPy, if it is there at all, has no types
            return value  # type: ignore[no-any-return]
    elif not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        if on_gpu(value):
            raise TypeError(
                f"{name} must be a numpy.ndarray of {dtype}, got {type_name(value)}: "
                f'copy it from the GPU, or take the layer there with layer.to("cuda")'
            )
        raise TypeError(
            f"{name} must be a numpy.ndarray of {dtype}, got {type_name(value)}: "
            f"make one with np.asarray({name}, dtype='{dtype}')"
        )
    if value.dtype != dtype:
        raise TypeError(
            f"{name} must be {dtype}, got {_dtype_name(value.dtype)}: "
            f"cast it with {name}.astype('{dtype}')"
        )
    return np.asarray(value)


def _on_device(name: str, value: Any, what: str, like: Any, of: str) -> None:
    """Raise unless ``value`` is an array of the kind of ``like``, on its device."""
    if not isinstance(value, type(like)):
        kind = type(like).__module__
        how = "share its memory with" if on_gpu(value) else "copy it to the GPU with"
        raise TypeError(
            f"{name} must be a {kind}.ndarray of {what}, got {type_name(value)}: "
            f"{how} {kind}.asarray({name})"
        )
    if value.device != like.device:
        raise TypeError(f"{name} is on {value.device}, {of} on {like.device}")


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return str(dtype) if dtype.isnative else f"{dtype.newbyteorder('=')} in another byte order"


def wrong_shape(name: str, got: tuple[int, ...], *forms: Form) -> ValueError:
    """Return the error that says which forms were expected."""
    # The forms of the rank that came say best what is wrong; all of them if none has that rank.
    near = [form for form in forms if len(form) == len(got)] or forms
    return ValueError(f"{name} must be {' or '.join(map(form_text, near))}, got {got}")


def same_form(name: str, got: tuple[int, ...], form: Form) -> None:
    """Raise unless a shape is exactly the form."""
    if got != tuple([size for _, size in form]):
        raise wrong_shape(name, got, form)


def one_of_forms(name: str, got: tuple[int, ...], *forms: Form) -> None:
    """Raise unless a shape is exactly one of the forms."""
    if all(got != tuple([size for _, size in form]) for form in forms):
        raise wrong_shape(name, got, *forms)


def a_pair(name: str, value: Any, h: Form, c: Form) -> FormError:
    """Return the error for a state that must be (h, c)."""
    return FormError(
        f"{name} must be a tuple (h {form_text(h)}, c {form_text(c)}), got {_came(value)}"
    )


def not_a_pair(name: str, value: Any, h: Form) -> FormError:
    """Return the error for a state that must be h alone."""
    return FormError(f"{name} must be one array h {form_text(h)}, got {_came(value)}")


def _came(value: Any) -> str:
    many = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"{type_name(value)}{many}"


def form_text(form: Form) -> str:
    """``(T, B, I=40)``."""
    axes = [letter if size is None else f"{letter}={size}" for letter, size in form]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def no_tape(value: Any) -> TypeError:
    """Return the error for what is no tape."""
    return TypeError(f"tape must be what forward() returned, got {type_name(value)}")


def another_tape(layer: object) -> ValueError:
    """Return the error for a tape from elsewhere."""
    return ValueError(f"tape must come from this {type(layer).__name__}'s forward(), got another's")


def foreign_gradients(name: str, grads: Any) -> ValueError | TypeError:
    """Return the error for gradients of no layer of an optimiser."""
    if not hasattr(grads, "layer"):
        return TypeError(f"{name} must be what backward() returned, got {type_name(grads)}")
    if grads.layer is None:
        return ValueError(f"{name} must know its layer, which a pickle does not: set {name}.layer")
    return ValueError(
        f"{name} must be of a layer of this optimiser, got those of another "
        f"{type(grads.layer).__name__}"
    )


def no_gradients(index: int, of: int, layer: object) -> ValueError:
    """Return the error for a layer of an optimiser that got no gradients."""
    which = f"layer {index}, a {type(layer).__name__}"
    return ValueError(f"grads must be those of {of} layers, got none of {which}")


def uncopied_tape() -> TypeError:
    """Return the error for a tape that is to be copied or pickled."""
    return TypeError(
        "a tape belongs to the layer object that made it, and cannot be copied or pickled"
    )


def stepper_in_use() -> RuntimeError:
    """Return the error for a stepper that two threads use at once."""
    return RuntimeError(
        "a stepper is for one thread at a time, and another one is using this; give each thread a "
        "stepper of its own"
    )


def too_large(what: str) -> MemoryError:
    """Return the error for what no memory can hold."""
    return MemoryError(f"{what} needs more bytes than can be addressed")


def writeable(allowed: bool) -> None:
    """Raise if parameters have been made read-only."""
    if not allowed:
        raise ValueError("the parameters are frozen: call unfreeze() before changing them")


def weight_dtype(name: str, value: Any, dtype: np.dtype[Any], backend: str) -> str:
    """Return the type in which a layer of this dtype is to hold its weights; None: its own."""
    if value is None or value == dtype.name:
        return dtype.name
    narrow = choice(name, value, (dtype.name, *NARROW))
    if dtype != np.float32:
        raise ValueError(f'{name}="{narrow}" is for layers of float32, this one is of {dtype}')
    if backend == "cuda":
        raise ValueError(f'{name}="{narrow}" is for layers on the CPU, this one is on the GPU')
    return narrow


def frozen_narrow(dtype: str) -> ValueError:
    """Return the error for training on rounded weights."""
    return ValueError(
        f'the layer is frozen with weight_dtype="{dtype}", for inference: '
        "call unfreeze() to train it"
    )


def same_names(mapping: Any, known: Collection[str]) -> None:
    """Raise unless parameters come as a mapping of exactly the known names."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"parameters must be a mapping name -> array, got {type_name(mapping)}")
    missing = [name for name in known if name not in mapping]
    if missing:
        given = _some(f"{name}" for name in mapping)
        raise ValueError(
            f"parameters are missing: {_some(missing)}; got {given}{_prefixed(mapping, known)}"
        )
    extra = [str(name) for name in mapping if name not in known]
    if extra:
        raise ValueError(f"unknown parameters: {_some(extra)}; known: {_some(known)}")


def _some(names: Iterable[str], most: int = 12) -> str:
    """Return names to read; of many the first, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more if every else "none"


def _prefixed(mapping: Mapping[Any, Any], known: Collection[str]) -> str:
    """Return what to do where known names stand behind a prefix, as in the state of a model."""
    found: dict[str, int] = {}
    for name in mapping:
        for each in known:
            if isinstance(name, str) and name.endswith(f".{each}"):
                prefix = name.removesuffix(each)
                found[prefix] = found.get(prefix, 0) + 1
    if not found:
        return ""
    prefix = max(found, key=lambda each: found[each])
    return (
        f"; {found[prefix]} of {len(known)} are there behind {prefix!r}: take the names without "
        f"it, or make the layer with from_params(mapping, {prefix!r})"
    )


def named_arrays(
    mapping: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], like: Array
) -> dict[str, Array]:
    """Return the arrays of ``mapping`` in the order of ``shapes``, each of its shape and of the
    dtype of ``like``; NumPy's, or on its device."""
    same_names(mapping, shapes)
    checked = {}
    for name, expected in shapes.items():
        given = mapping[name]
        if callable(getattr(given, "detach", None)):
            raise TypeError(
                f"{name} must be a numpy.ndarray of {like.dtype}, got {type_name(given)}: "
                "from_params and fastrnn.from_torch take tensors as they are, "
                f"or make one with {name}.detach().cpu().numpy()"
            )
        value = array(name, given, like.dtype, _HOST if isinstance(given, np.ndarray) else like)
        if value.shape != expected:
            raise ValueError(f"{name} must be {expected}, got {value.shape}")
        checked[name] = value
    return checked


def lengths(value: Any, steps: int, batch: int | None) -> Array:
    """Return lengths as (B,) int64; ``batch`` None: an int, the length of one sequence."""
    if batch is None:
        values = np.array([integer("lengths", value)])
    else:
        values = like_array("lengths", value, _PLANNED)
        same_form("lengths", values.shape, [("B", batch)])
        # An empty list has no ints to show, and becomes an array of floats.
        if values.dtype.kind not in "iu" and (batch or isinstance(value, np.ndarray)):
            raise TypeError(f"lengths must be ints, got {values.dtype}")
    wrong = np.flatnonzero((values < 0) | (values > steps))
    if wrong.size:
        row = wrong[0]
        raise ValueError(f"lengths must be in 0..T={steps}, got {values[row]} in row {row}")
    return values.astype(np.int64)


def resets(value: Any, steps: int, batch: int | None) -> Array:
    """Return resets as (T, B) bool; ``batch`` None: (T,), of one sequence."""
    form: Form = [("T", steps)] if batch is None else [("T", steps), ("B", batch)]
    values = like_array("resets", value, _PLANNED)
    same_form("resets", values.shape, form)
    if values.dtype != np.bool_:
        raise TypeError(f"resets must be bool, got {values.dtype}")
    return values[:, None] if batch is None else values


def mask(name: str, value: Any, batch: int) -> Array:
    """Return a mask of rows as (B,) bool."""
    values = like_array(name, value)
    same_form(name, values.shape, [("B", batch)])
    if values.dtype != np.bool_:
        raise TypeError(f"{name} must be bool, got {values.dtype}")
    return values


def rows(name: str, value: Any, batch: int) -> Array:
    """Return indices of rows as (B,) ints."""
    values = like_array(name, value)
    same_form(name, values.shape, [("B", batch)])
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be ints, got {_dtype_name(values.dtype)}")
    index_range(name, values, batch, ValueError)
    return values


def like_array(name: str, value: Any, host: str = "the host") -> Array:
    """Return what NumPy makes of an array on the host or of nested lists."""
    if on_gpu(value):
        raise TypeError(
            f"{name} must be on {host}, got {type_name(value)}: copy it with cupy.asnumpy({name})"
        )
    if isinstance(value, np.ma.MaskedArray):  # whose mask np.asarray would let go
        raise TypeError(f"{name} must have no mask of NumPy's, got {type_name(value)}")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must be an array, got {type_name(value)} of unequal parts"
        ) from None


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


def layers(name: str, value: Any) -> int:
    """Return a number of layers."""
    number = size(name, value)
    if number > MAX_LAYERS:
        raise MemoryError(f"{name} must be at most {MAX_LAYERS}, got {number}")
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


def positive(name: str, value: Any) -> float:
    """Return a float greater than 0 and finite."""
    found = number(name, value)
    if not 0 < found < math.inf:
        raise ValueError(f"{name} must be greater than 0 and finite, got {value}")
    return found


def fraction(name: str, value: Any) -> float:
    """Return a float in [0, 1)."""
    return number(name, value, below=1.0)


def path(value: Any) -> str:
    """Return a path of a file as text; a number, which `open` takes for an open file, is none."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"path must be a str or os.PathLike, got {type_name(value)}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"path must be of text, got {type_name(text)}")
    return text


def texts(name: str, value: Any) -> dict[str, str]:
    """Return a mapping of text to text as a dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, got {type_name(value)}")
    for pair in value.items():
        for part in pair:
            if not isinstance(part, str):
                raise TypeError(f"{name} must map str to str, got {type_name(part)} in {pair}")
    return dict(value)


def together(config: Mapping[str, Any]) -> None:
    """Raise for constructor's arguments that are right each but not together."""
    hidden, proj = config["hidden_size"], config.get("proj_size", 0)
    if proj >= hidden:
        raise ValueError(f"proj_size must be in 0..H-1={hidden - 1}, got {proj}")
    if config.get("bidirectional") and config.get("reverse"):
        raise ValueError("reverse=True is for one direction, got bidirectional=True with it")
    if config["dtype"] == "float64" and config["precision"] != "highest":
        raise ValueError(
            f"precision must be 'highest' for float64, got {config['precision']!r}: "
            "lower ones are for float32"
        )


def idle_dropout(value: float) -> str:
    """Return what to say of a dropout between layers where there is only one."""
    return (
        "dropout is applied between layers, so it does nothing with num_layers=1, "
        f"got dropout={value:g}"
    )


def float_dtype(value: Any) -> np.dtype[Any]:
    """Return float32 or float64, in this machine's byte order."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
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


# -------------------------------------------------------------------------------- training


def floats(name: str, value: Any) -> Array:
    """Return ``value`` if it is an array of float32 or float64, NumPy's or CuPy's."""
    is_array = isinstance(value, np.ndarray) or _is_cupys(value)
    if is_array and value.dtype in (np.dtype("f4"), np.dtype("f8")):
        return array(name, value, value.dtype, value if _is_cupys(value) else _HOST, name)
    got = _dtype_name(value.dtype) if is_array else type_name(value)
    raise TypeError(f"{name} must be a numpy.ndarray of float32 or float64, got {got}")


def _is_cupys(value: Any) -> bool:
    return on_gpu(value) and type(value).__module__.partition(".")[0] == "cupy"


def indices(name: str, value: Any, like: Any = _HOST, of: str = "the layer's parameters") -> Array:
    """Return ints of any width as an array on the device of ``like``; ``of`` says what that is."""
    values = _beside(name, value, "ints", like, of)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be ints, got {_dtype_name(values.dtype)}")
    return values


def places(name: str, value: Any, like: Any, of: str) -> Array:
    """Return bools as an array on the device of ``like``; ``of`` says what that is."""
    values = _beside(name, value, "bools", like, of)
    if values.dtype != np.bool_:
        raise TypeError(f"{name} must be bool, got {_dtype_name(values.dtype)}")
    return values


def _beside(name: str, value: Any, what: str, like: Any, of: str) -> Array:
    """Return what NumPy makes of a value, or an array on the GPU where ``like`` is."""
    if on_gpu(like):
        _on_device(name, value, what, like, of)
        # mypy: CuPy, if it is there at all, has no types
        return value  # type: ignore[no-any-return]
    if on_gpu(value):
        raise TypeError(
            f"{name} must be on the host, where {of} are, got {type_name(value)}: "
            f"copy it with cupy.asnumpy({name})"
        )
    return like_array(name, value)


def index_range(name: str, value: Array, below: int, error: type[Exception]) -> None:
    """Raise ``error`` unless every index is in ``0 <= index < below``."""
    if value.size and (value.min() < 0 or value.max() >= below):
        worst = value.min() if value.min() < 0 else value.max()
        raise error(f"{name} must be in 0..{below - 1}, got {worst}")


def same_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise unless two shapes are equal."""
    if got != expected:
        raise ValueError(f"{name} must be {expected}, got {got}")


def last_axis(name: str, got: tuple[int, ...], letter: str, size: int | None = None) -> None:
    """Raise unless the last axis exists and has this size, or, without a size, is not empty."""
    if not got or (got[-1] == 0 if size is None else got[-1] != size):
        axis = letter if size is None else f"{letter}={size}"
        raise ValueError(f"{name} must be (..., {axis}), got {got}")


def number(name: str, value: Any, at_least: float = 0.0, below: float = math.inf) -> float:
    """Return a float in ``at_least <= value < below``; inf itself is in the range up to inf."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name} must be a number, got {type_name(value)}")
    if not (at_least <= value < below or value == below == math.inf):  # also refuses NaN
        limit = f"at least {at_least:g}" if below == math.inf else f"in [{at_least:g}, {below:g})"
        raise ValueError(f"{name} must be {limit}, got {value}")
    try:
        return float(value)
    except OverflowError:  # an int of Python, which has no largest
        raise ValueError(f"{name} must be a number that a float can hold, got {value}") from None
