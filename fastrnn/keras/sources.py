"""Where Keras keeps recurrent layers: files of Keras 2 and 3, and models in memory.

A `.keras` file is a zip of config.json, metadata.json and model.weights.h5. In the latter, as in a
`.weights.h5` of Keras 3, a layer is a group that is called after its class and number among its
siblings; newer versions note the layer's own name there. A `.h5` of Keras 2, or of Keras 3 for the
sake of it, has the weights by names such as ``lstm_1/lstm_cell/kernel:0`` and the model's
configuration as an attribute.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import h5py
import numpy as np

from fastrnn import checks

from ..typing import Array

Config = Mapping[str, Any]
Directions: TypeAlias = list[list[list[Array]]]

RECURRENT = ("SimpleRNN", "GRU", "LSTM", "CuDNNGRU", "CuDNNLSTM", "RNN", "Bidirectional")


class Source(NamedTuple):
    """One recurrent layer as it was found."""

    name: str
    config: Config | None
    """Class and configuration, {"class_name": ..., "config": {...}}; None if the file has none."""
    directions: Directions
    """Of each direction, of each cell: kernel, recurrent kernel and, if there is one, bias."""
    version: str
    """Of Keras; "" if unknown."""


def find(path_or_model: Any) -> list[Source]:
    """Return the recurrent layers of a file or of a model in memory.

    Raises
    ------
    TypeError
        It is neither a path nor a model or layer of Keras.
    ValueError
        It is no file of Keras.
    """
    if hasattr(path_or_model, "get_config") and hasattr(path_or_model, "get_weights"):
        return list(_live(path_or_model, _version_of(path_or_model)))
    if not isinstance(path_or_model, (str, os.PathLike)):
        raise TypeError(
            "path_or_model must be a path or a model of Keras, "
            f"got {checks.type_name(path_or_model)}"
        )
    path = checks.path(path_or_model)
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        return _from_zip(path)
    if start != b"\x89HDF\r\n\x1a\n":
        raise ValueError(f"{path}: neither a .keras nor an HDF5 file")
    with h5py.File(path, "r") as file:
        return _from_hdf5(file, path, None, "")


def _from_zip(path: str) -> list[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            version = json.loads(archive.read("metadata.json")).get("keras_version", "3")
            weights = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(weights, "r") as file:
            return _from_hdf5(file, path, config, version)
    except (KeyError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a .keras file ({error})") from None


def _from_hdf5(file: Any, path: str, config: Any, version: str) -> list[Source]:
    legacy = file.get("model_weights", file)
    if "layer_names" in legacy.attrs:
        text = file.attrs.get("model_config")
        config = None if text is None else json.loads(text)
        return _legacy(legacy, config, _text(file.attrs.get("keras_version", "")))
    if "layers" not in file and "vars" not in file and "_layer_checkpoint_dependencies" not in file:
        raise ValueError(f"{path}: an HDF5 file, but not one of Keras")
    return _modern(file, config, version or "3")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---------------------------------------------------------------------------- configurations


def _recurrent(config: Any) -> Iterator[Config]:
    """Yield the configurations of recurrent layers in a model's, at any depth."""
    if isinstance(config, list):
        for each in config:
            yield from _recurrent(each)
    elif isinstance(config, dict):
        if config.get("class_name") in RECURRENT and isinstance(config.get("config"), dict):
            yield config
        else:
            for each in config.values():
                yield from _recurrent(each)


def _named(config: Any) -> dict[str, Config]:
    """Return the recurrent layers of a model's configuration by name."""
    return {str(each["config"].get("name")): each for each in _recurrent(config)}


def _places(config: Any, where: str = "") -> Iterator[tuple[str, Config]]:
    """Yield recurrent layers with the group that Keras 3 keeps each in."""
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        return
    if config.get("class_name") in RECURRENT:
        yield where, config
        return
    if isinstance(inner.get("layer"), dict):  # a wrapper
        yield from _places(inner["layer"], f"{where}/layer")
    counts: dict[str, int] = {}
    for layer in inner.get("layers") or ():
        kind = _snake_case(str(layer.get("class_name")))
        number = counts[kind] = counts.get(kind, -1) + 1
        name = f"{kind}_{number}" if number else kind
        yield from _places(layer, f"{where}/layers/{name}")


def _snake_case(name: str) -> str:
    """Return a class's name as Keras 3 writes it: simple_rnn, gru, lstm."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# ----------------------------------------------------------------------------------- Keras 3


def _modern(file: Any, config: Any, version: str) -> list[Source]:
    by_place = dict(_places(config)) if config else {}
    by_name = _named(config) if config else {}
    found = []
    order = list(by_place)
    for group in sorted(_layers(file), key=lambda each: _rank(each.name, order)):
        name = _own_name(group) or group.name.rsplit("/", 1)[-1]
        its = by_place.get(group.name)
        if its is None or (_own_name(group) and its["config"].get("name") != name):
            its = by_name.get(name)
        if its is not None:
            name = str(its["config"].get("name", name))
        both = [group[each] for each in ("forward_layer", "backward_layer") if each in group]
        cells = [_cells(each["cell"]) for each in both or [group]]
        found.append(Source(name, its, cells, version))
    return found


def _rank(name: str, order: list[str]) -> int:
    """Return a group's place in the model; HDF5 has groups by name."""
    return order.index(name) if name in order else len(order)


def _layers(group: Any) -> Iterator[Any]:
    """Yield the groups of recurrent layers."""
    if "forward_layer" in group or (_is_group(group, "cell") and _cells(group["cell"])):
        yield group
        return
    for name in group:
        if _is_group(group, name):
            yield from _layers(group[name])


def _is_group(group: Any, name: str) -> bool:
    return isinstance(group.get(name), h5py.Group)


def _own_name(group: Any) -> str:
    """Return the name that newer versions note; "" if there is none."""
    return _text(group["vars"].attrs.get("name", "")) if "vars" in group else ""


def _cells(group: Any) -> list[list[Array]]:
    """Return the weights of a cell, or of stacked ones."""
    if "cells" in group:
        names = sorted(group["cells"], key=lambda name: [len(name), name])
        return [weights for name in names for weights in _cells(group["cells"][name])]
    variables = group.get("vars", {})
    weights = [_floats(np.asarray(variables[name])) for name in sorted(variables, key=int)]
    return [weights] if len(weights) >= 2 else []


def _floats(value: Array) -> Array:
    """Return bfloat16, of which HDF5 knows two bytes, as float32."""
    if value.dtype.kind != "V" or value.dtype.itemsize != 2:
        return value
    return (value.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


# ------------------------------------------------------------------------- Keras 2, and .h5 of 3


def _legacy(file: Any, config: Any, version: str) -> list[Source]:
    known = _named(config) if config else {}
    found: dict[str, list[list[list[Array]]]] = {}
    for layer in map(_text, file.attrs["layer_names"]):
        names = [_text(each) for each in file[layer].attrs.get("weight_names", ())]
        cells: dict[str, list[str]] = {}
        for name in names:
            cells.setdefault(name.rpartition("/")[0], []).append(name)
        for parent, its in cells.items():
            leaves = {name.rpartition("/")[2].partition(":")[0]: name for name in its}
            if not {"kernel", "recurrent_kernel"} <= leaves.keys():
                continue
            name, backward = _layer_of(parent.split("/"), layer, known)
            directions = found.setdefault(name, [[]])
            if backward and len(directions) == 1:
                directions.append([])
            directions[backward].append(
                [
                    np.asarray(file[layer][leaves[leaf]])
                    for leaf in ("kernel", "recurrent_kernel", "bias")
                    if leaf in leaves
                ]
            )
    return [Source(name, known.get(name), cells, version) for name, cells in found.items()]


def _layer_of(parts: list[str], group: str, known: Mapping[str, Config]) -> tuple[str, bool]:
    """Return the name of the layer whose weights have such a path, and whether they are of the
    second direction."""
    backward = any(part.startswith("backward_") for part in parts)
    for part in (*reversed(parts), group):
        if part in known:
            second = known[part]["config"].get("backward_layer")
            own = second["config"].get("name") if second else None  # as the caller called it
            return part, backward or own in parts
    while len(parts) > 1 and re.search(r"_cells?(_\d+)?$", parts[-1]):
        parts = parts[:-1]
    if len(parts) > 1 and parts[-1].startswith(("forward_", "backward_")):
        parts = parts[:-1]
    return parts[-1] or group, backward


# --------------------------------------------------------------------------------- in memory


def _version_of(model: Any) -> str:
    """Return the version of the Keras that a model belongs to."""
    for base in type(model).__mro__:
        root = base.__module__.partition(".")[0]
        if root in ("keras", "tf_keras", "tensorflow"):
            return str(getattr(sys.modules.get(root), "__version__", ""))
    return ""


def _live(layer: Any, version: str) -> Iterator[Source]:
    if type(layer).__name__ in RECURRENT:
        config = {"class_name": type(layer).__name__, "config": layer.get_config()}
        parts = [layer]
        if hasattr(layer, "forward_layer"):
            parts = [layer.forward_layer, layer.backward_layer]
        yield Source(layer.name, config, [_live_cells(each) for each in parts], version)
        return
    inner = [layer.layer] if hasattr(layer, "layer") else getattr(layer, "layers", ())
    for each in inner:
        yield from _live(each, version)


def _live_cells(layer: Any) -> list[list[Array]]:
    cell = getattr(layer, "cell", layer)
    cells = getattr(cell, "cells", [cell])
    found = []
    for each in cells:
        names = ("kernel", "recurrent_kernel", "bias")
        weights = [getattr(each, name, None) for name in names]
        if weights[0] is None or weights[1] is None:
            weights = list(layer.get_weights()) if len(cells) == 1 else []
        found.append([_host(value) for value in weights if value is not None])
    return found


def _host(value: Any) -> Array:
    """Return a variable's value."""
    array: Array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return array
