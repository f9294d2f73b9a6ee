"""What a layer's backward returns: gradients that know their layer."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from .params import Parameters
from .typing import Array

Self = TypeVar("Self", bound="LayerGradients")


@dataclass(eq=False)
class LayerGradients:
    """Gradients of a loss, each of the form and dtype of what it is the gradient of.

    A copy belongs to the same layer. A pickle holds no layer: set `layer` where it is read.
    """

    x: Array | None
    """Like x; None if x holds indices."""
    params: Parameters
    """The names and shapes of the layer's ``params``."""
    layer: Any = field(repr=False)
    """The layer whose `backward` returned them, by which an optimiser tells them apart."""

    @property
    def flat(self) -> Array:
        """All of ``params`` as one vector, like the layer's ``flat_params``."""
        return self.params.flat

    @flat.setter
    def flat(self, value: Array) -> None:
        self.params.put_flat(value)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"layer": None}

    def __copy__(self: Self) -> Self:
        return replace(self)

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        own = {name: value for name, value in self.__dict__.items() if name != "layer"}
        return replace(self, **copy.deepcopy(own, memo))
