"""What every layer is: the constructor's arguments, and parameters in one vector."""

from __future__ import annotations

import copy
import inspect
import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar, overload

import numpy as np

from . import backends, checks, foreign
from .params import Parameters
from .typing import Array, FloatDType, LayerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

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

    def __set__(self, layer: Parametrized, value: NoReturn) -> NoReturn:
        raise AttributeError(f"{self.name} is fixed when a {type(layer).__name__} is made")


class Parametrized(ABC):
    """Base of recurrent layers, cells, Linear and Embedding. Not for direct use."""

    _config: dict[str, Any]
    _dtype: np.dtype[Any]
    _xp: Any = np
    """The namespace of the parameters' arrays: numpy, or cupy."""
    _params: Parameters

    _known: ClassVar[re.Pattern[str]]
    """Names that parameters of the class can have."""
    _anchor: ClassVar[str]
    """The name of a parameter that every layer of the class has."""

    @classmethod
    def from_params(
        cls: type[Self],
        mapping: Mapping[str, Any],
        prefix: str = "",
        *,
        dtype: FloatDType = np.float32,
        **arguments: Unpack[LayerOptions],
    ) -> Self:
        """Make a layer of parameters from elsewhere: a state dict, an .npz file, any mapping.

        Sizes, layers, directions, bias, projection and peepholes are read from names and shapes.

        Parameters
        ----------
        mapping : mapping of str to array or tensor
            Of NumPy, torch, JAX or any library whose arrays NumPy can read; float16, bfloat16,
            float32 or float64. torch's names: `params` lists them. The values are copied.
        prefix : str
            What stands before the names, such as "encoder.rnn"; a dot at its end may be left out.
            What DataParallel and torch.compile put before it ("module.", "_orig_mod.") is passed
            over. What does not begin with the prefix is ignored; without a prefix, nothing is.
        dtype : float32 or float64
            Of the layer; the values are cast to it.
        **arguments
            The constructor's other arguments, such as ``batch_first`` or ``nonlinearity``, which
            no shape tells.

        Returns
        -------
        layer of this class

        Raises
        ------
        TypeError
            An argument or a value has another type; the values must be floats.
        ValueError
            There is no such layer under the prefix, a name is missing or unknown there, a shape
            does not fit the others, or an argument says otherwise than the shapes. The text lists
            what was found, and the nearest prefix.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> weights = {
        ...     "encoder.rnn.weight_ih_l0": np.ones((12, 2)),
        ...     "encoder.rnn.weight_hh_l0": np.ones((12, 4)),
        ...     "head.weight": np.ones((1, 4)),
        ... }
        >>> layer = fastrnn.GRU.from_params(weights, "encoder.rnn", batch_first=True)
        >>> layer.input_size, layer.hidden_size, layer.num_layers, layer.bias
        (2, 4, 1, False)
        """
        kind = cls.__name__
        checked = checks.float_dtype(dtype)
        found = {
            name: foreign.as_array(name, value, checked)
            for name, value in foreign.under(mapping, prefix, cls._known, cls._anchor, kind).items()
        }
        shapes = {name: value.shape for name, value in found.items()}
        if cls._anchor not in shapes:
            raise foreign.missing(kind, [cls._anchor], shapes)
        sizes = cls._sizes(shapes)
        expected = cls.param_shapes({**cls.defaults(), **sizes})
        absent = [name for name in expected if name not in shapes]
        if absent:
            raise foreign.missing(kind, absent, shapes)
        for name, shape in expected.items():
            checks.same_shape(name, shapes[name], shape)
        chosen = foreign.agree(sizes, arguments) | {"dtype": checked}
        layer = cls(**chosen)
        layer.load_params({name: found[name] for name in layer.params})
        return layer

    @classmethod
    @abstractmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Return the constructor's arguments that names and shapes tell; the anchor is among the
        names.

        Raises
        ------
        ValueError
            The shapes are not this kind of layer's.
        """

    @classmethod
    @abstractmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the parameters of a layer with these constructor's
        arguments, as `config` returns them."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the constructor's arguments that have a default, with it."""
        arguments = inspect.signature(cls).parameters.values()
        return {each.name: each.default for each in arguments if each.default is not each.empty}

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
        with backends.device_of(self.flat_params):
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

    def _move_params(self, flat: Array) -> None:
        """Have the parameters in another vector from now on."""
        self._params.move(flat)

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
