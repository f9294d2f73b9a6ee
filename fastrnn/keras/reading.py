"""`load`: a layer of fastrnn from what was found in a model of Keras."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.typing import Array, FloatDType, LayerOptions

from .sources import Config, Directions, Source, find

if TYPE_CHECKING:
    from typing_extensions import Unpack


_CLASSES: dict[str, Any] = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}
_KINDS = {
    "SimpleRNN": "RNN", "SimpleRNNCell": "RNN", "GRU": "GRU", "GRUCell": "GRU", "CuDNNGRU": "GRU",
    "LSTM": "LSTM", "LSTMCell": "LSTM", "CuDNNLSTM": "LSTM",
}  # fmt: skip
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

# Row blocks in fastrnn's order: an LSTM's i f c o are i f g o, a GRU's z r h become r z n.
_ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 1, 2, 3)}

_ACTIVATIONS = ("tanh", "sigmoid", "relu", "hard_sigmoid")


class _Cell(NamedTuple):
    """What the configuration of a layer or cell says."""

    kind: str
    config: Config
    cudnn: bool


def load(
    path_or_model: Any,
    layer: str | None = None,
    *,
    dtype: FloatDType | None = None,
    **arguments: Unpack[LayerOptions],
) -> RNN | GRU | LSTM:
    """Make a layer of a recurrent layer of a Keras model.

    SimpleRNN, GRU, LSTM, CuDNNGRU, CuDNNLSTM, RNN of SimpleRNNCell, GRUCell, LSTMCell or of a list
    of one of them, and Bidirectional of these. The layer takes x (B, T, I) and gives y (B, T, D*H),
    whatever return_sequences and merge_mode say; with go_backwards it runs from the last step to
    the first and gives y in the order of x, where Keras gives it in the order of running. So of a
    Bidirectional whose layer has go_backwards the two directions change places, and y's halves
    with them. Keras's dropout is not taken over.

    Parameters
    ----------
    path_or_model : str, os.PathLike, or a model or layer of Keras
        A ``.keras`` or ``.weights.h5`` of Keras 3, or an ``.h5`` or ``.hdf5`` of Keras 2 (or of
        Keras 3), with or without the model's configuration.
    layer : str, optional
        Name of the layer. May be left out where there is one only.
    dtype : float32 or float64, optional
        Of the layer, to which the weights are cast; by default float64 for weights of float64,
        else float32.
    **arguments
        Further arguments of the constructor. Where a file holds weights alone, also what it cannot
        say: ``gate_activation="hard_sigmoid"``, ``reverse=True``.

    Returns
    -------
    RNN, GRU or LSTM

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        It is no file of Keras, there is no such layer or more than one, or the layer cannot run
        here: the text names the layer and the setting.
    FileNotFoundError
        There is no such file.

    Warns
    -----
    UserWarning
        A file of Keras 2 has no configuration, so that the gates may be hard sigmoids; or
        Bidirectional does not put its directions side by side.

    Examples
    --------
    >>> import h5py, numpy as np, fastrnn.keras
    >>> with h5py.File("gru.weights.h5", "w") as file:  # what Keras 3 writes of a GRU(4) over 3
    ...     values = file.create_group("layers/gru/cell/vars")
    ...     for name, shape in enumerate([(3, 12), (4, 12), (2, 12)]):
    ...         values[str(name)] = np.zeros(shape, np.float32)
    >>> fastrnn.keras.load("gru.weights.h5").params["weight_hh_l0"].shape
    (12, 4)
    """
    if layer is not None and not isinstance(layer, str):
        raise TypeError(f"layer must be a str, got {checks.type_name(layer)}")
    source = _chosen(find(path_or_model), layer)
    cells, directions, chosen = _described(source)
    kind = cells[0].kind
    params: dict[str, Array] = {}
    said: dict[str, Any] = {}
    for d, direction in enumerate(directions):
        for n, (weights, cell) in enumerate(zip(direction, cells, strict=True)):
            ending = f"_l{n}" + "_reverse" * d
            own, told = _parameters(source, cell, weights)
            params |= {name + ending: value for name, value in own.items()}
            if said not in ({}, told):
                raise _error(source, f"cells of one kind and size, got {said} and {told}")
            said = told
    chosen |= said | arguments
    kernel = params["weight_ih_l0"]
    if dtype is None:
        dtype = np.float64 if kernel.dtype == np.float64 else np.float32
    checked = checks.float_dtype(dtype)
    made: RNN | GRU | LSTM = _CLASSES[kind](
        kernel.shape[1],
        params["weight_hh_l0"].shape[1],
        len(cells),
        bidirectional=len(directions) == 2,
        dtype=checked,
        **chosen,
    )
    for name, view in made.params.items():
        checks.same_shape(f"{name} of layer {source.name!r}", params[name].shape, view.shape)
    made.load_params({name: made._xp.asarray(params[name].astype(checked)) for name in made.params})
    return made


def _error(source: Source, text: str) -> ValueError:
    return ValueError(f"layer {source.name!r} of Keras: {text}")


def _chosen(sources: Sequence[Source], name: str | None) -> Source:
    matching = [source for source in sources if name in (None, source.name)]
    if len(matching) == 1:
        return matching[0]
    there = ", ".join(f"{source.name!r} ({_class(source)})" for source in sources)
    if not sources:
        raise ValueError("the model has no recurrent layer of Keras")
    if name is None or matching:
        raise ValueError(f"{len(matching)} recurrent layers: layer must be one of {there}")
    raise ValueError(f"layer must be one of {there}; got {name!r}")


def _class(source: Source) -> str:
    if source.config is not None:
        return str(source.config["class_name"])
    return _kind_of(source.directions[0][0]) or "of an unknown class"


def _kind_of(weights: Sequence[Array]) -> str | None:
    """Return the kind of cell that the shapes of kernel and recurrent kernel tell."""
    if len(weights) < 2 or any(each.ndim != 2 for each in weights[:2]):
        return None
    H, columns = weights[1].shape
    for kind, gates in _GATES.items():
        if columns == gates * H == weights[0].shape[1]:
            return kind
    return None


# ----------------------------------------------------------------------------- configurations


def _described(source: Source) -> tuple[list[_Cell], Directions, dict[str, Any]]:
    """Return the cells of a direction, the weights of the directions, forward first, and the
    constructor's arguments that are not the cells'."""
    directions = source.directions
    count = len(directions[0])
    if any(len(each) != count for each in directions) or not count:
        raise _error(source, "directions must have the same cells, at least one")
    arguments: dict[str, Any] = {"batch_first": True}
    if source.config is None:
        kind = _kind_of(source.directions[0][0])
        if kind is None:
            raise _error(source, "its weights have shapes of no SimpleRNN, GRU or LSTM")
        if source.version.startswith(("0", "1", "2")) or not source.version:
            warnings.warn(
                f"layer {source.name!r}: the file has weights alone, written by Keras "
                f"{source.version or 'of an unknown version'}, whose gates may be hard sigmoids "
                '(Keras before 2.3): if so, pass gate_activation="hard_sigmoid"',
                UserWarning,
                stacklevel=3,
            )
        return [_Cell(kind, {}, False)] * count, directions, arguments
    inner = source.config
    if inner["class_name"] == "Bidirectional":
        inner = _forward_layer(source)
    elif len(directions) != 1:
        raise _error(source, f"{inner['class_name']} has one direction, found {len(directions)}")
    config = inner["config"]
    if config.get("time_major"):
        arguments["batch_first"] = False
    if config.get("go_backwards"):
        directions = directions[::-1]
        if len(directions) == 1:
            arguments["reverse"] = True
    cells = _cells(source, inner)
    if len(cells) != count:
        raise _error(source, f"{len(cells)} cells in the configuration, {count} in the weights")
    settings = [_settings(source, cell) for cell in cells]
    if any(each != settings[0] or cell.kind != cells[0].kind for each, cell in
           zip(settings, cells, strict=True)):  # fmt: skip
        raise _error(source, "the stacked cells differ in class or activations")
    return cells, directions, arguments | settings[0]


def _forward_layer(source: Source) -> Config:
    """Return the configuration of a Bidirectional's first direction."""
    assert source.config is not None
    config = source.config["config"]
    forward: Config = config["layer"]
    backward = config.get("backward_layer")
    if backward:
        kinds = [_cells(source, each) for each in (forward, backward)]
        mine, its = ([(c.kind, _settings(source, c)) for c in cells] for cells in kinds)
        if mine != its:
            raise _error(source, "Bidirectional with a backward_layer of another kind")
    mode = config.get("merge_mode", "concat")
    if mode not in ("concat", None):
        warnings.warn(
            f"layer {source.name!r}: y holds both directions side by side; "
            f"merge_mode={mode!r} is left to the caller",
            UserWarning,
            stacklevel=4,
        )
    return forward


def _cells(source: Source, layer: Config) -> list[_Cell]:
    """Return the cells of a layer that is not Bidirectional."""
    name, config = layer["class_name"], layer["config"]
    if name == "RNN":
        cell = config.get("cell")
        if isinstance(cell, list):
            cells = cell
        else:
            cells = [cell] if cell["class_name"] != "StackedRNNCells" else cell["config"]["cells"]
        return [each for cell in cells for each in _cells(source, cell)]
    if name not in _KINDS:
        raise _error(source, f"cells must be {', '.join(_KINDS)}, got {name}")
    return [_Cell(_KINDS[name], config, name.startswith("CuDNN"))]


def _settings(source: Source, cell: _Cell) -> dict[str, Any]:
    """Return the activations as arguments of the constructor."""
    if cell.cudnn:
        return {}
    inner = _activation(source, cell.config, "activation", "tanh")
    if cell.kind == "RNN":
        found = {"nonlinearity": inner}
    else:
        gate = _activation(source, cell.config, "recurrent_activation", "sigmoid")
        found = {"gate_activation": gate, "activation": inner}
    if "hard_sigmoid" in found.values():
        # Keras 2: max(0, min(1, 0.2 x + 0.5)); Keras 3: relu6(x + 3) / 6
        modern = source.version and not source.version.startswith(("0", "1", "2"))
        return {**found, "gate_slope": 1 / 6 if modern else 0.2}
    return dict(found)


def _activation(source: Source, config: Config, setting: str, default: str) -> str:
    value = config.get(setting, default)
    name = value
    if isinstance(value, Mapping):  # of Keras 3, for what is registered
        name = value.get("config") if isinstance(value.get("config"), str) else value["class_name"]
    if name not in _ACTIVATIONS:
        raise _error(source, f"{setting}={name!r}: fastrnn has {', '.join(_ACTIVATIONS)}")
    return str(name)


# --------------------------------------------------------------------------------- parameters


def _parameters(
    source: Source, cell: _Cell, weights: Sequence[Array]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return a cell's parameters, and what they tell of the constructor's arguments."""
    kind, G = cell.kind, _GATES[cell.kind]
    if _kind_of(weights) != kind or len(weights) > 3:
        shapes = [each.shape for each in weights]
        raise _error(source, f"weights must be those of a {kind}, got shapes {shapes}")
    kernel, recurrent = (each.astype(_wide(each)) for each in weights[:2])
    H = len(recurrent)
    bias = weights[2].astype(_wide(weights[2])) if len(weights) == 3 else None
    cudnn = cell.cudnn or (bias is not None and bias.shape == (2 * G * H,))
    ih, hh = np.split(kernel, G, axis=1), np.split(recurrent, G, axis=1)
    if cudnn:  # the matrices are cuDNN's, written one after the other
        ih, hh = [part.reshape(H, -1) for part in ih], hh
    else:
        ih, hh = [part.T for part in ih], [part.T for part in hh]
    found = {"weight_ih": _rows(ih, kind), "weight_hh": _rows(hh, kind)}
    told: dict[str, Any] = {"bias": bias is not None}
    after = cudnn
    if bias is not None:
        if bias.size not in (G * H, 2 * G * H):
            raise _error(source, f"bias must be ({G * H},) or (2, {G * H}), got {bias.shape}")
        after = bias.size == 2 * G * H
        first = bias.reshape(-1, G * H)[0]
        second = bias.reshape(-1, G * H)[1] if after else np.zeros_like(first)
        found["bias_ih"] = _rows(np.split(first, G), kind)
        found["bias_hh"] = _rows(np.split(second, G), kind)
    elif kind == "GRU" and not cudnn:
        modern = source.version and not source.version.startswith(("0", "1", "2"))
        after = bool(cell.config.get("reset_after", bool(modern)))
    if kind == "GRU":
        told["reset_after"] = after
    return found, told


def _wide(a: Array) -> Any:
    return np.float64 if a.dtype == np.float64 else np.float32


def _rows(parts: Sequence[Array], kind: str) -> Array:
    return np.ascontiguousarray(np.concatenate([parts[k] for k in _ORDER[kind]]))
