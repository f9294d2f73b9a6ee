"""What Linear and Embedding have in common: settings, parameters, tape, gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..params import Parameters

Array = np.ndarray[Any, np.dtype[Any]]
RNG = None | int | np.random.Generator


@dataclass(eq=False)
class Gradients:
    """Gradients of a loss, each of the form and dtype of what it is the gradient of."""

    x: Array | None
    """Like x; None if x holds indices."""
    params: Parameters
    """The names and shapes of the layer's ``params``."""

    @property
    def flat(self) -> Array:
        """All of ``params`` as one vector, like the layer's ``flat_params``."""
        return self.params.flat

    @flat.setter
    def flat(self, value: Array) -> None:
        self.params.put_flat(value)


@dataclass(frozen=True, eq=False, repr=False)
class Tape:
    """What one `forward` keeps for `backward`: the caller's x, and the weight as it was then."""

    layer: FeedForward
    x: Array
    weight: Array | None = None


class FeedForward(ABC):
    """Base of Linear and Embedding. Not for direct use."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._params = Parameters(self.param_shapes(config), np.dtype(config["dtype"]))

    @staticmethod
    @abstractmethod
    def param_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' names and shapes for constructor's arguments."""

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments but ``rng``, as what JSON can hold."""
        return dict(self._config)

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self._config.items())
        return f"{type(self).__name__}({', '.join(arguments)})"

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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of parameters and output."""
        return self._params.flat.dtype

    def load_params(self, mapping: Mapping[str, Any]) -> None:
        """Copy parameters in by name; all of `params` and no other, or ValueError/TypeError."""
        self._params.load(mapping)

    @property
    def frozen(self) -> bool:
        """Whether the layer is frozen."""
        return not self._params.flat.flags.writeable

    def freeze(self) -> None:
        """Make the parameters read-only."""
        self._set_writeable(False)

    def unfreeze(self) -> None:
        """Make the parameters writeable again."""
        self._set_writeable(True)

    def _set_writeable(self, writeable: bool) -> None:
        self._params.flat.flags.writeable = writeable  # before its views, which need its consent
        for view in self._params.values():
            view.flags.writeable = writeable

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self._config, "flat_params": self.flat_params, "frozen": self.frozen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FeedForward.__init__(self, dict(state["config"]))
        self.flat_params[:] = state["flat_params"]
        if state["frozen"]:
            self.freeze()

    def _check_backward(self, tape: Any, dy: Any, width: int) -> Array:
        """Check what came with a backward; return dy."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward() returned, got {checks.type_name(tape)}")
        if tape.layer is not self:
            raise ValueError(
                f"tape must come from this {type(self).__name__}'s forward(), got another's"
            )
        checked = checks.array("dy", dy, self.dtype)
        leading = tape.x.shape if tape.weight is None else tape.x.shape[:-1]
        checks.same_shape("dy", checked.shape, (*leading, width))
        return checked
