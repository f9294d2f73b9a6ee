"""One layer, several by name, or a model, in a safetensors file, and a training run's state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

from .. import backends, checks
from ..cells import GRUCell, LSTMCell, RNNCell
from ..layers import GRU, LSTM, RNN
from ..models import Attention, Model, Parameter
from ..models.model import param_name
from ..sequences import CRF
from ..train import Conv1d, Embedding, LayerNorm, Linear
from ..train.optim import Optimizer
from ..typing import Array, Backend
from . import safetensors, training

Path = str | os.PathLike[str]

_RECURRENT = (RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell)
_OTHERS = (Linear, Embedding, Conv1d, LayerNorm, Attention, CRF, Parameter)
AnyLayer = (
    RNN | GRU | LSTM | RNNCell | GRUCell | LSTMCell
    | Linear | Embedding | Conv1d | LayerNorm | Attention | CRF | Parameter
)  # fmt: skip
CLASSES: dict[str, Any] = {kind.__name__: kind for kind in (*_RECURRENT, *_OTHERS)}

_LAYERS = training.OWN + "layers"

# Arguments that a layer which takes another's parameters may have of its own.
_FREE = {"backend", "batch_first", "device", "dropout", "precision", "reproducible"}


def save(
    path: Path,
    layers: Model | AnyLayer | Mapping[str, AnyLayer],
    optimizer: Optimizer | None = None,
    rng: np.random.Generator | None = None,
    step: int | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a layer, several by name, or a model, as a safetensors file.

    The parameters have their own names in it, behind ``NAME.`` if there are several layers, as in a
    state dict of torch; the classes and the constructors' arguments stand in the metadata. With
    ``optimizer``, ``rng`` and ``step`` the file holds all that a training run needs to go on to the
    bit. It is replaced only when the new one is complete, and keeps its mode; a symbolic link
    stays, and what it points to is replaced.

    Parameters
    ----------
    path : str or os.PathLike
    layers : a layer, a cell, a `Model`, or a mapping of str to layers
    optimizer : SGD or Adam, optional
        Its vectors, its number of steps and its ``lr`` are saved.
    rng : numpy.random.Generator, optional
        Its state is saved.
    step : int, optional
        A number to come back from `load`.
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
    named = _by_name(layers)
    arrays: dict[str, Array] = {}
    records = {}
    for name, layer in named.items():
        if not isinstance(name, str):
            raise TypeError(f"names of layers must be str, got {checks.type_name(name)}")
        if not name and named is layers:
            raise ValueError("names of layers must not be empty")
        if f"{name}.".startswith(training.OWN):
            raise ValueError(f"names of layers must not begin with {training.OWN!r}, got {name!r}")
        kind = type(layer).__name__
        if CLASSES.get(kind) is not type(layer):
            raise TypeError(
                f"can save {', '.join(CLASSES)}, mappings of these and models, "
                f"got {checks.type_name(layer)}"
            )
        records[name] = {"class": kind, "config": layer.config()}
        for key, value in layer.params.host().items():
            arrays[_array_name(name, kind, key)] = value
    text = checks.texts("metadata", metadata or {})
    for key in text:
        if key.startswith(training.OWN):
            raise ValueError(f"names in metadata must not begin with {training.OWN!r}, got {key!r}")
    training.checked(optimizer, rng, step)
    more, said = training.describe(optimizer, rng, step)
    safetensors.write(path, arrays | more, text | said | {_LAYERS: json.dumps(records)})


@overload
def load(
    path: Path,
    *,
    into: None = ...,
    optimizer: None = ...,
    rng: None = ...,
    backend: Backend | None = ...,
) -> AnyLayer | dict[str, AnyLayer]: ...
@overload
def load(
    path: Path,
    *,
    into: Model | AnyLayer | Mapping[str, AnyLayer],
    optimizer: Optimizer | None = ...,
    rng: np.random.Generator | None = ...,
) -> int | None: ...
def load(
    path: Path,
    *,
    into: Any = None,
    optimizer: Optimizer | None = None,
    rng: np.random.Generator | None = None,
    backend: Backend | None = None,
) -> Any:
    """Read what `save` wrote: a layer, or a dict of layers by name, of a model too.

    With ``into``, parameters go into what is there, and with ``optimizer`` and ``rng`` training
    goes on to the bit; the step that was saved is returned.

    Parameters
    ----------
    path : str or os.PathLike
    into : what `save` took, optional
        A model, layer or mapping with layers of the same names, kinds and sizes. Backends, devices,
        precision, ``dropout`` and ``batch_first`` may differ.
    optimizer : SGD or Adam, optional
        Of the same kind and layers as the one that was saved; gets its vectors, steps and ``lr``.
    rng : numpy.random.Generator, optional
        Of the same kind as the one that was saved; gets its state.
    backend : str, optional
        For recurrent layers, instead of the one that was saved; with "cuda", `Linear` and
        `Embedding` are on the GPU then, else on the CPU. Not beside ``into``.

    Returns
    -------
    a layer, a dict of layers, or, with ``into``, the step that was saved (None if none was)

    Raises
    ------
    TypeError
        `path` is none, `backend` is not a str, or another argument has another type.
    ValueError
        The file is not in the format, holds no layers of fastrnn, or its arrays are not those of
        its layers; it does not fit ``into``, ``optimizer`` or ``rng``; or there is no such backend.
        No layer has been made, and nothing changed, then.
    RuntimeError
        The backend cannot be used here.
    """
    if backend is not None:
        checks.choice("backend", backend, ("auto", *backends.NAMES))
    training.checked(optimizer, rng)
    if into is None and (optimizer is not None or rng is not None):
        raise TypeError("into must be given beside optimizer and rng: the model that they train")
    if into is not None and backend is not None:
        raise TypeError("backend is for new layers: those of into have theirs")
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
            _array_name(name, kind.__name__, key): shape
            for name, (kind, config) in made.items()
            for key, shape in kind.param_shapes(config).items()
        }
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as reason:
        raise ValueError(f"{error}{type(reason).__name__}: {reason}") from None
    # Before a layer is made: a size that no array bears out must not claim memory.
    found = {
        name: array.shape for name, array in arrays.items() if not name.startswith(training.OWN)
    }
    if found != shapes:
        name = next(name for name in {**shapes, **found} if shapes.get(name) != found.get(name))
        raise ValueError(
            f"{error}{name} is {found.get(name, 'missing')}, expected {shapes.get(name, 'none')}"
        )
    if into is not None:
        values = {name: arrays[name] for name in found}
        _check_fit(f"{checks.path(path)} does not fit into: ", made, values, into)
        step = training.restore(f"{checks.path(path)}: ", arrays, metadata, optimizer, rng)
        _put(values, into)
        return step
    layers = {}
    for name, (kind, config) in made.items():
        if backend is not None and "backend" in config and (kind is not CRF or backend != "cuda"):
            config["backend"] = backend
        if backend is not None and "device" in config:
            config["device"] = "cuda" if backend == "cuda" else "cpu"
        try:
            layer = kind(**config)
            names = {key: _array_name(name, kind.__name__, key) for key in layer.params}
            layer.load_params({key: arrays[names[key]] for key in names})
        except (ValueError, TypeError) as reason:
            raise ValueError(f"{error}{reason}") from None
        layers[name] = layer
    return layers[""] if layers.keys() == {""} else layers


def read_metadata(path: Path) -> dict[str, str]:
    """Read the `metadata` that was given to `save`."""
    found = safetensors.read_metadata(path)
    return {name: text for name, text in found.items() if not name.startswith(training.OWN)}


def _by_name(layers: Any) -> Mapping[str, Any]:
    """Return layers by name; one alone has the name ""."""
    if isinstance(layers, Model):
        return layers.named_layers()
    return layers if isinstance(layers, Mapping) else {"": layers}


def _array_name(name: str, kind: str, key: str) -> str:
    """Return what a parameter is called in a file: as in a model."""
    return param_name(name, CLASSES[kind], key) if name else key


def _check_fit(error: str, made: Mapping[str, Any], values: Mapping[str, Array], into: Any) -> None:
    """Raise unless layers from a file can go into those that are there."""
    layers = _by_name(into)
    if layers.keys() != made.keys():
        have, want = (", ".join(map(repr, names)) or "none" for names in (made, layers))
        raise ValueError(f"{error}it holds the layers {have}, into has {want}")
    for name, (kind, config) in made.items():
        layer = layers[name]
        where = f"{error}{name or 'the layer'} is "
        if not isinstance(layer, kind):
            raise ValueError(f"{where}{kind.__name__} in it, {type(layer).__name__} in into")
        own = json.loads(json.dumps(layer.config()))
        for key in config.keys() & own.keys() - _FREE:
            if config[key] != own[key]:
                raise ValueError(f"{where}of {key}={config[key]!r} in it, {own[key]!r} in into")
        checks.named_arrays(
            {key: values[_array_name(name, kind.__name__, key)] for key in layer.params},
            layer.params.shapes,
            layer.flat_params,
        )
        checks.writeable(not layer.frozen)


def _put(values: Mapping[str, Array], into: Any) -> None:
    for name, layer in _by_name(into).items():
        kind = type(layer).__name__
        layer.load_params({key: values[_array_name(name, kind, key)] for key in layer.params})


def _description(record: Any, arrays: int) -> tuple[Any, dict[str, Any]]:
    """Class and constructor's arguments of one layer."""
    kind, config = CLASSES[record["class"]], dict(record["config"])
    if config.get("num_layers", 1) > arrays:
        raise ValueError(f"{config['num_layers']} layers in {arrays} arrays")
    return kind, config
