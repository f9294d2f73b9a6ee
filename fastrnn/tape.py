"""What a training forward keeps, and what backward returns."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Generic, NoReturn

from . import checks
from .gradients import LayerGradients
from .stack import SavedGroup, Stack, StackArgs
from .typing import Array, S

# The index that takes a state's axes (..., L*D, B, H) to its caller's form; None for no change.
StateIndex = tuple[EllipsisType | int | slice, ...] | None


@dataclass(frozen=True, eq=False, repr=False)
class Tape(Generic[S]):
    """What one `forward` call keeps for `backward`.

    Made by a layer's or a cell's ``forward``. It belongs to that layer, can be used any number of
    times and from several threads at once, and shares no memory with what the call returned; the
    caller's x is referenced, not copied, and must not be changed while the tape is in use. A tape
    cannot be copied or pickled.
    """

    stack: Stack
    args: StackArgs
    saved: list[SavedGroup]
    batched: bool
    state_index: StateIndex

    def states(self) -> S:
        """Return the state of every layer and direction after every step.

        Returns
        -------
        h : (T, L*D, B, P), or (h, c) with c (T, L*D, B, H) for an LSTM
            Entry [t] has the form of the layer's ``state``. Past a row's length the forward
            direction holds its last state, the reverse direction, which has not begun yet, its
            initial one. With ``checkpoint_every`` they are computed again.
        """
        states: S = pair(*self.stack.states(self.args, self.saved), self.state_index)
        return states

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays it keeps for backward, not counting the caller's x and weights."""
        return self.stack.nbytes(self.args, self.saved)

    def __reduce__(self) -> NoReturn:
        raise checks.uncopied_tape()

    def __repr__(self) -> str:
        steps, batch, _ = self.args.x.shape
        return f"Tape(T={steps}, B={batch}, nbytes={self.nbytes})"


@dataclass(eq=False)
class Gradients(LayerGradients, Generic[S]):
    """Gradients by the parameters of a recurrent layer or cell, by x and by the initial state."""

    x: Array
    """Like x."""
    state: S
    """Of the initial state, in its form, also if the call was given none."""


def pair(h: Array, c: Array | None, index: StateIndex) -> Any:
    """Return a state in its caller's form."""
    if index is not None:
        h = h[index]
        c = None if c is None else c[index]
    return h if c is None else (h, c)
