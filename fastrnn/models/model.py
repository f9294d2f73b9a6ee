"""Layers under one name: what a program of several layers trains, saves and moves as one."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from .. import backends, checks
from ..checks import RNG
from ..parametrized import Parametrized
from ..recurrent import Recurrent
from ..typing import Array, WeightDType
from .parameter import Parameter

Self = TypeVar("Self", bound="Model")


class Model:
    """Base of a user's models: finds the layers in its attributes.

    A subclass makes its layers in ``__init__`` and says in methods of its own how they hang
    together. Layers, models and `Parameter` are found as attributes and in lists, tuples and dicts
    of them, in the order in which they were assigned. A layer that stands in two places is one
    layer, under the name of the first. Names are those of torch: ``enc.weight_ih_l0``,
    ``heads.0.bias``; a `Parameter` has its attribute's own name.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> class Tagger(fastrnn.Model):
    ...     def __init__(self, words, tags):
    ...         self.emb = fastrnn.Embedding(words, 8, rng=0)
    ...         self.rnn = fastrnn.LSTM(8, 16, bidirectional=True, rng=1)
    ...         self.out = fastrnn.Linear(32, tags, rng=2)
    ...
    ...     def scores(self, g, words, lengths):
    ...         y, _ = g(self.rnn, g(self.emb, words), lengths=lengths)
    ...         return g(self.out, y)
    >>> model = Tagger(100, 5)
    >>> list(model.params)[:3]
    ['emb.weight', 'rnn.weight_ih_l0', 'rnn.weight_hh_l0']
    >>> words, lengths = np.zeros((7, 2), int), [7, 4]
    >>> model.scores(fastrnn.inference, words, lengths).value.shape
    (7, 2, 5)
    """

    _joined: tuple[Array, list[Array]] | None = None
    """The vector of all parameters, and each layer's part of it; see `flat_params`."""

    # ------------------------------------------------------------------------- layers

    def named_layers(self) -> dict[str, Any]:
        """Return the layers and Parameters by name, each once."""
        found: dict[str, Any] = {}
        _find(self, "", found, set())
        return found

    @property
    def params(self) -> ModelParameters:
        """Ordered mapping name -> array; the arrays are those of the layers, not copies."""
        return ModelParameters(self.named_layers())

    def load_params(self, mapping: Mapping[str, Any]) -> None:
        """Copy parameters in by name.

        Parameters
        ----------
        mapping : mapping of str to ndarray
            All names of `params` and no other, with their shapes and dtypes.

        Raises
        ------
        ValueError
            A name is missing or unknown, a shape differs, or a layer is frozen. Nothing has been
            changed then.
        TypeError
            A value is not an ndarray of its layer's dtype.
        """
        self.params.load(mapping)

    @property
    def num_params(self) -> int:
        """Number of parameters; those of a layer that stands in two places count once."""
        return sum(layer.num_params for layer in self.named_layers().values())

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that all layers have.

        Raises
        ------
        TypeError
            There is no layer, or not all have the same.
        """
        return _one_dtype(self.named_layers())

    @property
    def flat_params(self) -> Array:
        """All parameters as one contiguous vector, in the order of `params`.

        The first look moves the parameters of all layers into it, so that nothing is copied from
        then on: the layers' own `params` and `flat_params` are views of it. (What was taken from
        them before keeps the old memory.) Setting it copies values in. It is read-only while a
        layer is frozen.

        Raises
        ------
        TypeError
            The layers are not of one dtype, or not on one device.
        """
        layers = self.named_layers()
        if self._joined is None or not _are_parts(layers, self._joined[1]):
            self._joined = _join(layers)
        flat = self._joined[0]
        if isinstance(flat, np.ndarray) and any(layer.frozen for layer in layers.values()):
            flat = flat.view()
            flat.flags.writeable = False
        return flat

    @flat_params.setter
    def flat_params(self, value: Array) -> None:
        flat = self.flat_params
        if value is flat:  # an operation in place has been done already
            return
        checked = checks.array("flat_params", value, flat.dtype, flat)
        checks.same_shape("flat_params", checked.shape, flat.shape)
        checks.writeable(not any(layer.frozen for layer in self.named_layers().values()))
        with backends.device_of(flat):
            flat[...] = checked

    @property
    def flat(self) -> Array:
        """The same as `flat_params`."""
        return self.flat_params

    # --------------------------------------------------------------- freezing, moving

    def freeze(self, weight_dtype: WeightDType | None = None) -> None:
        """Freeze all layers: parameters become read-only, and recurrent layers keep their packed
        copies, in ``weight_dtype`` if that is given; see `LSTM.freeze`."""
        for layer in self.named_layers().values():
            if isinstance(layer, Recurrent):
                layer.freeze(weight_dtype)
            else:
                layer.freeze()

    def unfreeze(self) -> None:
        """Make the parameters of all layers writeable again."""
        for layer in self.named_layers().values():
            layer.unfreeze()

    @property
    def frozen(self) -> bool:
        """Whether all layers are frozen."""
        return all(layer.frozen for layer in self.named_layers().values())

    def to(self: Self, device: str) -> Self:
        """Return a copy with the parameters of all layers on a device; see `LSTM.to`.

        Raises
        ------
        TypeError, ValueError
            ``device`` is none.
        RuntimeError
            There is no such device here; the text names what is missing.
        """
        memo = {id(layer): layer.to(device) for layer in self.named_layers().values()}
        return copy.deepcopy(self, memo)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_joined"}

    # -------------------------------------------------------------------------- files

    def save(self, path: str | os.PathLike[str], **kept: Any) -> None:
        """The same as ``fastrnn.save(path, model, ...)``."""
        from ..io import save  # which knows all layers, and so imports this

        save(path, self, **kept)

    def load(self, path: str | os.PathLike[str], **kept: Any) -> int | None:
        """The same as ``fastrnn.load(path, into=model, ...)``."""
        from ..io import load

        step: int | None = load(path, into=self, **kept)
        return step

    def gradcheck(self, loss: Callable[[Any], Any], *, rng: RNG = None, **how: Any) -> bool:
        """The same as ``fastrnn.gradcheck(model, loss, ...)``."""
        from ..gradcheck import gradcheck

        return gradcheck(self, loss, rng=rng, **how)

    def __repr__(self) -> str:
        rows = [f"  {name}: {layer!r}" for name, layer in self.named_layers().items()]
        return "\n".join([f"{type(self).__name__}(", *rows, ")"])


class ModelParameters(Mapping[str, Array]):
    """Ordered mapping name -> array of all layers of a model, made by `Model.params`."""

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self._places: dict[str, tuple[Any, str]] = {}
        for prefix, layer in layers.items():
            for key in layer.params:
                name = param_name(prefix, type(layer), key)
                if name in self._places:
                    raise ValueError(f"two parameters of the model are called {name}")
                self._places[name] = layer, key

    def __getitem__(self, name: str) -> Array:
        layer, key = self._places[name]
        value: Array = layer.params[key]
        return value

    def __setitem__(self, name: str, value: Array) -> None:
        """Copy values in, which makes ``params[name] -= step`` work too."""
        layer, key = self._places[name]
        layer.params[key] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        rows = (f"{name}: {value.shape}" for name, value in self.items())
        return f"ModelParameters({', '.join(rows)})"

    def host(self) -> dict[str, Array]:
        """Return the parameters as NumPy arrays: the views themselves, or copies from the GPU."""
        found = {}
        for name, (layer, key) in self._places.items():
            found[name] = layer.params.on_host(layer.params[key])
        return found

    def load(self, mapping: Mapping[str, Any]) -> None:
        """Copy values in by name; see `Model.load_params`."""
        checked: dict[str, Array] = {}
        checks.same_names(mapping, self._places)
        for name, (layer, _) in self._places.items():
            shape = {name: self[name].shape}
            checked |= checks.named_arrays({name: mapping[name]}, shape, layer.params.flat)
            checks.writeable(not layer.frozen)
        by_layer: dict[int, tuple[Any, dict[str, Array]]] = {}
        for name, (layer, key) in self._places.items():
            by_layer.setdefault(id(layer), (layer, {}))[1][key] = checked[name]
        if any(isinstance(value, np.ndarray) for value in checked.values()):
            # they may be our own under other names, to be read before any is written
            for _, values in by_layer.values():
                values.update({key: value.copy() for key, value in values.items()})
        for layer, values in by_layer.values():
            layer.load_params(values)


def param_name(prefix: str, kind: type, key: str) -> str:
    """Return the name in a model of a parameter of a layer of some kind."""
    return prefix if issubclass(kind, Parameter) else f"{prefix}.{key}"


def _find(value: Any, name: str, found: dict[str, Any], seen: set[int]) -> None:
    """Add the layers in a value to those found, under names that begin with ``name``."""
    if not isinstance(value, (Parametrized, Model, list, tuple, dict)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Parametrized):
        if name in found:
            raise ValueError(f"two layers of the model are called {name}")
        found[name] = value
        return
    if isinstance(value, Model):
        parts = vars(value).items()
    elif isinstance(value, dict):
        parts = value.items()
    else:
        parts = {str(index): part for index, part in enumerate(value)}.items()
    for key, part in parts:
        _find(part, f"{name}.{key}" if name else str(key), found, seen)


def _one_dtype(layers: Mapping[str, Any]) -> np.dtype[Any]:
    dtypes = {name: layer.dtype for name, layer in layers.items()}
    if len(set(dtypes.values())) != 1:
        which = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"the layers of the model must be of one dtype, got {which or 'no layer'}")
    return next(iter(dtypes.values()))


def _are_parts(layers: Mapping[str, Any], parts: list[Array]) -> bool:
    """Whether these are the layers' vectors."""
    return len(parts) == len(layers) and all(
        layer.flat_params is part for layer, part in zip(layers.values(), parts, strict=True)
    )


def _join(layers: Mapping[str, Any]) -> tuple[Array, list[Array]]:
    """Move the parameters of the layers into one vector; return it, and each layer's part."""
    dtype = _one_dtype(layers)
    vectors = {name: layer.flat_params for name, layer in layers.items()}
    places = {name: getattr(vector, "device", "cpu") for name, vector in vectors.items()}
    if len({str(place) for place in places.values()}) > 1:
        which = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise TypeError(f"the layers of the model must be on one device, got {which}")
    first = next(iter(vectors.values()))
    with backends.device_of(first):
        xp = backends.namespace(first)
        flat = xp.empty(sum(vector.size for vector in vectors.values()), dtype)
        stop, parts = 0, []
        for layer in layers.values():
            start, stop = stop, stop + layer.num_params
            layer._move_params(flat[start:stop])
            parts.append(layer.flat_params)
    return flat, parts
