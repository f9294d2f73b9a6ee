"""What Linear and Embedding have in common: construction, freezing, tape, gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..parametrized import Parametrized
from ..params import Parameters

Array = np.ndarray[Any, np.dtype[Any]]


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


class FeedForward(Parametrized):
    """Base of Linear and Embedding. Not for direct use."""

    def _build(self, config: dict[str, Any]) -> None:
        """Make what follows from the constructor's arguments; the parameters are zeros."""
        self._config = config
        self._dtype = np.dtype(config["dtype"])
        self._params = self._zeros()

    @property
    def frozen(self) -> bool:
        """Whether the layer is frozen."""
        return not self._params.flat.flags.writeable

    def freeze(self) -> None:
        """Make the parameters read-only."""
        self._params.set_writeable(False)

    def unfreeze(self) -> None:
        """Make the parameters writeable again."""
        self._params.set_writeable(True)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in self.__dict__.items() if name != "_params"}
        return own | {"flat_params": self.flat_params, "frozen": self.frozen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        flat, frozen = state.pop("flat_params"), state.pop("frozen")
        self.__dict__.update(state)
        self._build(self._config)
        self.flat_params[:] = flat
        if frozen:
            self.freeze()

    def _check_backward(self, tape: Any, dy: Any, width: int) -> Array:
        """Check what came with a backward; return dy."""
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.layer is not self:
            raise checks.another_tape(self)
        checked = checks.array("dy", dy, self.dtype)
        leading = tape.x.shape if tape.weight is None else tape.x.shape[:-1]
        checks.same_shape("dy", checked.shape, (*leading, width))
        return checked
