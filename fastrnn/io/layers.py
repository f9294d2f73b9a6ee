"""One layer, or several by name, in a safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backends, checks
from ..cells import GRUCell, LSTMCell, RNNCell
from ..layers import GRU, LSTM, RNN
from ..train import Embedding, Linear
from . import safetensors

Array = np.ndarray[Any, np.dtype[Any]]
Path = str | os.PathLike[str]

CLASSES = {
    kind.__name__: kind for kind in (RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Linear, Embedding)
}

_OWN = "fastrnn."  # what our names in the metadata begin with
_LAYERS = _OWN + "layers"


def save(
    path: Path, layers: Any | Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a layer, or several by name, as a safetensors file.

    The parameters have their own names in it, behind ``NAME.`` if there are several layers, as in a
    state dict of torch; the class and the constructor's arguments stand in the metadata. The file
    is replaced only when the new one is complete, and keeps its mode; a symbolic link stays, and
    what it points to is replaced.

    Parameters
    ----------
    path : str or os.PathLike
    layers : a layer, a cell, Linear or Embedding, or a mapping of str to such
    metadata : mapping of str to str, optional
        Text to keep beside it, for `fastrnn.io.read_metadata`.

    Raises
    ------
    TypeError
        There is something else to save than these, or `metadata` is not text.
    ValueError
        A name is empty, or one in `metadata` begins with ``fastrnn.``.
    OSError
        The file cannot be written, or there is something other than a regular file (a FIFO, a
        device, a folder), which is left as it is.
    """
    several = isinstance(layers, Mapping)
    named: Mapping[str, Any] = layers if several else {"": layers}
    arrays: dict[str, Array] = {}
    records = {}
    for name, layer in named.items():
        if not isinstance(name, str):
            raise TypeError(f"names of layers must be str, got {checks.type_name(name)}")
        if several and not name:
            raise ValueError("names of layers must not be empty")
        kind = type(layer).__name__
        if CLASSES.get(kind) is not type(layer):
            raise TypeError(
                f"can save {', '.join(CLASSES)} and mappings of these, "
                f"got {checks.type_name(layer)}"
            )
        records[name] = {"class": kind, "config": layer.config()}
        arrays |= {_prefix(name) + key: value for key, value in layer.params.host().items()}
    text = checks.texts("metadata", metadata or {})
    for key in text:
        if key.startswith(_OWN):
            raise ValueError(f"names in metadata must not begin with {_OWN!r}, got {key!r}")
    safetensors.write(path, arrays, text | {_LAYERS: json.dumps(records)})


def load(path: Path, *, backend: str | None = None) -> Any:
    """Read what `save` wrote: a layer, or a dict of layers by name.

    Parameters
    ----------
    path : str or os.PathLike
    backend : str, optional
        For recurrent layers, instead of the one that was saved; with "cuda", `Linear` and
        `Embedding` are on the GPU then, else on the CPU.

    Raises
    ------
    TypeError
        `path` is none, or `backend` is not a str.
    ValueError
        The file is not in the format, holds no layers of fastrnn, or its arrays are not those of
        its layers; or there is no such backend. No layer has been made then.
    RuntimeError
        The backend cannot be used here.
    """
    if backend is not None:
        checks.choice("backend", backend, ("auto", *backends.NAMES))
    arrays, metadata = safetensors.read(path)
    error = f"{checks.path(path)} does not hold layers of fastrnn: "
    if _LAYERS not in metadata:
        raise ValueError(
            f"{error}it was not written by fastrnn.save; "
            "fastrnn.io.safetensors.read gives its arrays, for a layer's load_params"
        )
    try:
        records = json.loads(metadata[_LAYERS])
        made = {name: _description(record, len(arrays)) for name, record in records.items()}
        shapes = {
            _prefix(name) + key: shape
            for name, (kind, config) in made.items()
            for key, shape in kind.param_shapes(config).items()
        }
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as reason:
        raise ValueError(f"{error}{type(reason).__name__}: {reason}") from None
    # Before a layer is made: a size that no array bears out must not claim memory.
    found = {name: array.shape for name, array in arrays.items()}
    if found != shapes:
        name = next(name for name in {**shapes, **found} if shapes.get(name) != found.get(name))
        raise ValueError(
            f"{error}{name} is {found.get(name, 'missing')}, expected {shapes.get(name, 'none')}"
        )
    layers = {}
    for name, (kind, config) in made.items():
        if backend is not None and "backend" in config:
            config["backend"] = backend
        if backend is not None and "device" in config:
            config["device"] = "cuda" if backend == "cuda" else "cpu"
        try:
            layer = kind(**config)
            layer.load_params({key: arrays[_prefix(name) + key] for key in layer.params})
        except (ValueError, TypeError) as reason:
            raise ValueError(f"{error}{reason}") from None
        layers[name] = layer
    return layers[""] if layers.keys() == {""} else layers


def read_metadata(path: Path) -> dict[str, str]:
    """Read the `metadata` that was given to `save`."""
    found = safetensors.read_metadata(path)
    return {name: text for name, text in found.items() if not name.startswith(_OWN)}


def _prefix(name: str) -> str:
    return f"{name}." if name else ""


def _description(record: Any, arrays: int) -> tuple[Any, dict[str, Any]]:
    """Class and constructor's arguments of one layer."""
    kind, config = CLASSES[record["class"]], dict(record["config"])
    if config.get("num_layers", 1) > arrays:
        raise ValueError(f"{config['num_layers']} layers in {arrays} arrays")
    return kind, config
