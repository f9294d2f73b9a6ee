"""What every layer is: the constructor's arguments, and parameters in one vector."""

from __future__ import annotations

import copy
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeVar, overload

import numpy as np

from . import backends, checks
from .params import Parameters

Array = np.ndarray[Any, np.dtype[Any]]
V = TypeVar("V")
Self = TypeVar("Self", bound="Parametrized")


class Setting(Generic[V]):
    """A constructor's argument as an attribute: it can be read, and does not change."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type) -> Setting[V]: ...
    @overload
    def __get__(self, layer: Parametrized, owner: type) -> V: ...
    def __get__(self, layer: Parametrized | None, owner: type) -> V | Setting[V]:
        if layer is None:
            return self
        value: V = layer._config[self.name]
        return value

    def __set__(self, layer: Parametrized, value: object) -> NoReturn:
        raise AttributeError(f"{self.name} is fixed when a {type(layer).__name__} is made")


class Parametrized(ABC):
    """Base of recurrent layers, cells, Linear and Embedding. Not for direct use."""

    _config: dict[str, Any]
    _dtype: np.dtype[Any]
    _xp: Any = np
    """The namespace of the parameters' arrays: numpy, or cupy."""
    _params: Parameters

    @classmethod
    @abstractmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the parameters of a layer with these constructor's
        arguments, as `config` returns them."""

    def _zeros(self) -> Parameters:
        """Return parameters of zeros."""
        shapes = self.param_shapes(self._config)
        size = sum(map(math.prod, shapes.values()))
        if size * self._dtype.itemsize > sys.maxsize:
            raise checks.too_large(f"a vector of {size} parameters")
        return Parameters(shapes, self._dtype, xp=self._xp)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments but ``rng``, as what JSON can hold."""
        return dict(self._config)

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        """A copy is on the same device."""
        with backends.there(self.flat_params):
            return self._copied(memo)

    def _copied(self: Self, memo: dict[int, Any], **config: Any) -> Self:
        """Return a copy with some of the constructor's arguments changed, on the current device."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        state = copy.deepcopy(self.__getstate__(), memo)
        copied.__setstate__(state | {"_config": self._config | config})
        return copied

    @abstractmethod
    def __getstate__(self) -> dict[str, Any]: ...

    @abstractmethod
    def __setstate__(self, state: dict[str, Any]) -> None: ...

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self._config.items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of parameters, input (unless that is indices) and output."""
        return self._dtype

    @property
    def params(self) -> Parameters:
        """Ordered mapping name -> array; the arrays can be written to and are views into one
        vector, `flat_params`."""
        return self._params

    @property
    def flat_params(self) -> Array:
        """All parameters as one contiguous vector. Setting it copies values in."""
        return self._params.flat

    @flat_params.setter
    def flat_params(self, value: Array) -> None:
        self._params.put_flat(value)

    @property
    def num_params(self) -> int:
        """Number of parameters."""
        return self._params.flat.size

    def load_params(self, mapping: Mapping[str, Any]) -> None:
        """Copy parameters in by name.

        Parameters
        ----------
        mapping : mapping of str to ndarray
            All names of `params` and no other, with their shapes and the layer's dtype.

        Raises
        ------
        ValueError
            A name is missing or unknown, a shape differs, or the layer is frozen. Nothing has
            been changed then.
        TypeError
            A value is not an ndarray of the layer's dtype.
        """
        self._params.load(mapping)
