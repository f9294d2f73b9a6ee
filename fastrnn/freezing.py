"""Frozen parameters, and the packed copies that calls and steppers then use."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeVar

from . import checks, forks, quantize
from .parametrized import Parametrized
from .spec import Weights
from .stack import Stack
from .typing import Array, Backend, WeightDType

Self = TypeVar("Self", bound="Freezable")


@dataclass(eq=False)
class Snapshot:
    """Weights as calls use them: what a frozen layer holds, and every stepper."""

    packed: list[object]  # one a pass
    dtype: str  # of the weights
    flat: Array | None = None  # the parameters, if they may no longer be the layer's
    shared: bool = False  # a stepper holds it too


class Freezable(Parametrized):
    """Base of what packs its parameters for a `Stack`. Not for direct use."""

    _stack: Stack
    _weights: list[Weights]

    def _build_unfrozen(self) -> None:
        """Make what freezing needs."""
        self._frozen: Snapshot | None = None
        self._lock = threading.Lock()
        forks.watch(self)

    @property
    def backend(self) -> Backend:
        """Name of the backend in use, never "auto"."""
        return self._stack.backend.name

    def freeze(self, weight_dtype: WeightDType | None = None) -> None:
        """Make the parameters read-only and keep the packed copies that the kernels use.

        Calls then pay no packing, and NumPy refuses a write to `params` or `flat_params` with its
        own ValueError. Slices of them that were taken before stay writeable; what is written
        through such a slice takes effect with `unfreeze` only. Freezing twice is freezing once.

        Parameters
        ----------
        weight_dtype : {None, "bfloat16", "int8"}
            None: the copies are the parameters. Else, for layers of float32 on the CPU, the
            matrices are rounded: to bfloat16, or to a multiple, -127 to 127, of a scale that each
            row of a matrix has of its own. Biases, peepholes, states and sums stay float32. The
            "cpu" backend reads the narrow numbers from memory, which is what a step of a few rows
            waits for; the other backends compute the same from float32. For inference: `forward`
            then raises. The parameters themselves keep all their bits.

        Raises
        ------
        ValueError
            ``weight_dtype`` is none of these, or the layer is not of float32 or is on a GPU.
        """
        dtype = checks.weight_dtype("weight_dtype", weight_dtype, self._dtype, self.backend)
        with self._lock:
            try:
                if self._frozen is None:
                    self._params.set_writeable(False)
                if self._frozen is None or self._frozen.dtype != dtype:
                    made = Snapshot(self._packed_as(dtype), dtype)
                    self._leave_frozen()
                    self._frozen = made
            except BaseException:
                if self._frozen is None:
                    self._params.set_writeable(True)
                raise

    def _leave_frozen(self) -> None:
        """Let steppers of a frozen layer have its parameters, which may change now."""
        if self._frozen is not None and self._frozen.shared:
            self._frozen.flat = self._params.flat.copy()

    def after_fork(self) -> None:
        """Undo, in the child of a fork, what another thread was in the midst of."""
        in_midst = self._lock.locked()
        # whoever waited may have got it without saying so yet: `locked` is told under the GIL
        self._lock = threading.Lock()
        if in_midst:
            self._params.set_writeable(self._frozen is None)

    def _snapshot(self) -> Snapshot:
        """Return the weights of now, which later changes of the parameters do not reach."""
        with self._lock:
            if self._frozen is not None:
                self._frozen.shared = True
                return self._frozen
        flat = self._params.flat.copy()
        return Snapshot(self._stack.pack(self._weights, backward=False), self._dtype.name, flat)

    def _as_of(self: Self, weights: Snapshot) -> Self:
        """Return this layer, or one as it was when it had these weights."""
        if weights.flat is None:
            return self
        made = type(self).__new__(type(self))
        flat = self._params.on_host(weights.flat)
        frozen = weights.dtype if weights.dtype in checks.NARROW else None
        made.__setstate__(self.__getstate__() | {"flat_params": flat, "frozen": frozen})
        return made

    def _packed_as(self, dtype: str) -> list[object]:
        if dtype == self._dtype.name:
            return self._stack.pack(self._weights, backward=True)
        weights = [quantize.rounded(w, dtype) for w in self._weights]
        return self._stack.pack(weights, backward=False, weight_dtype=dtype)

    def unfreeze(self) -> None:
        """Make the parameters writeable again and drop the packed copies."""
        with self._lock:
            self._leave_frozen()
            try:
                self._thaw()
            except BaseException:  # an interrupt in the middle: there is no half of it
                self._thaw()
                raise

    def _thaw(self) -> None:
        self._frozen = None
        self._params.set_writeable(True)

    @property
    def frozen(self) -> bool:
        """Whether the layer is frozen."""
        return self._frozen is not None

    @property
    def weight_dtype(self) -> str:
        """Type of the weights that calls use: the layer's dtype, or that of `freeze`."""
        frozen = self._frozen
        return self._dtype.name if frozen is None else frozen.dtype
