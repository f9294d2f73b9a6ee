"""What Linear and Embedding have in common: construction, freezing, tape, gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .. import backends, checks
from ..parametrized import Parametrized, Setting
from ..typing import Array, Device
from .products import pack

Self = TypeVar("Self", bound="FeedForward")


@dataclass(frozen=True, eq=False, repr=False)
class Tape:
    """What one `forward` keeps for `backward`: the caller's x, and the weight as it was then."""

    layer: FeedForward
    x: Array
    weight: Any = None  # an array; None where a layer needs none


class FeedForward(Parametrized):
    """Base of Linear and Embedding. Not for direct use."""

    device = Setting[Device]()

    def _build(self, config: dict[str, Any]) -> None:
        """Make what follows from the constructor's arguments; the parameters are zeros."""
        self._config = config
        self._dtype = np.dtype(config["dtype"])
        self._xp = backends.get("cuda").xp if config["device"] == "cuda" else np
        self._params = self._zeros()
        self._packed: list[Any] | None = None

    def to(self: Self, device: str) -> Self:
        """Return a copy with its parameters on a device, frozen if this one is.

        Parameters
        ----------
        device : "cpu", "cuda" for the current GPU, or "cuda:1" for the one of this number

        Raises
        ------
        TypeError, ValueError
            ``device`` is none of these.
        RuntimeError
            There is no such device here; the text names what is missing.
        """
        kind, current = backends.parse_device(device)
        with current:
            return self._copied({}, device=kind)

    @property
    def frozen(self) -> bool:
        """Whether the layer is frozen."""
        return not self._params.writeable

    def freeze(self) -> None:
        """Make the parameters read-only, and pack the weights of products for calls to come.

        CuPy's arrays cannot refuse what is written to them.
        """
        self._params.set_writeable(False)
        self._packed = [pack(matrix) for matrix in self._matrices()]

    def unfreeze(self) -> None:
        """Make the parameters writeable again."""
        self._packed = None
        self._params.set_writeable(True)

    def _matrices(self) -> Iterable[Array]:
        """The matrices that a call multiplies by, in the order of its products."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        built = ("_params", "_packed", "_xp")
        own = {name: value for name, value in self.__dict__.items() if name not in built}
        flat = self._params.on_host(self._params.flat)
        return own | {"flat_params": flat, "frozen": self.frozen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        flat, frozen = state.pop("flat_params"), state.pop("frozen")
        self.__dict__.update(state)
        self._build(self._config)
        self.flat_params[:] = self._xp.asarray(flat)
        if frozen:
            self.freeze()

    def _check_backward(self, tape: Any, dy: Any, width: int) -> Array:
        """Check what came with a backward; return dy."""
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.layer is not self:
            raise checks.another_tape(self)
        checked = checks.array("dy", dy, self.dtype, self.flat_params)
        leading = tape.x.shape if tape.weight is None else tape.x.shape[:-1]
        checks.same_shape("dy", checked.shape, (*leading, width))
        return checked
