"""RNNCell, GRUCell and LSTMCell: one step, with a tape of its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from . import checks
from .checks import RNG
from .docstrings import documented
from .kinds import GRUKind, LSTMKind, RNNKind
from .recurrent import Recurrent
from .tape import Gradients, StateIndex, Tape, pair
from .typing import Activation, Array, Backend, D, FloatDType, Pair, PairGradient, Precision, S


class Cell(Recurrent[S, D]):
    """Base of RNNCell, GRUCell and LSTMCell. Not for direct use."""

    _x_name = "x_t"
    _x_rank: ClassVar[int] = 2
    _has_passes: ClassVar[bool] = False
    _state_index: ClassVar[dict[bool, StateIndex]] = {
        True: (..., 0, slice(None), slice(None)),
        False: (..., 0, 0, slice(None)),
    }
    _anchor: ClassVar[str] = "weight_hh"
    _known: ClassVar[re.Pattern[str]] = re.compile("weight_ih|weight_hh|bias_ih|bias_hh")

    @staticmethod
    def _suffixes(config: Mapping[str, Any]) -> list[str]:
        return [""]

    @classmethod
    def _extent(cls, names: Collection[str]) -> dict[str, Any]:
        return {}

    def _form(self, batched: bool, steps: int | None, batch: int | None) -> checks.Form:
        return (("B", batch),) if batched else ()

    def _time_major(self, value: Array, batched: bool) -> Array:
        return value[None] if batched else value[None, None]

    def _like_x(self, value: Array, batched: bool) -> Array:
        like_x: Array = value[0] if batched else value[0, 0]
        return like_x

    def __call__(self, x_t: Array, state: S | None = None) -> S:
        """Run one step for inference.

        Parameters
        ----------
        x_t : ndarray of the cell's dtype, (B, I) or (I,)
        state : ndarray h (B, H), or for an LSTM tuple (h (B, P), c (B, H))
            Zeros by default. Unbatched: without the axis B, or with a B of 1.

        Returns
        -------
        state : like ``state``

        Raises
        ------
        TypeError, ValueError
            An argument has another type or dtype, or another shape.
        """
        args, batched = self._bind(x_t, state)
        _, h, c, _ = self._stack.forward(args)
        new: S = pair(h, c, self._state_index[batched])
        return new

    def forward(self, x_t: Array, state: S | None = None) -> tuple[S, Tape[S]]:
        """Run one step for training: as a call of the cell, and a tape for `backward`.

        The tape references x_t, so x_t must not be changed before `backward`.
        """
        args, batched = self._bind(x_t, state, training=True)
        _, h, c, saved = self._stack.forward(args, save=True)
        index = self._state_index[batched]
        return pair(h, c, index), Tape(self._stack, args, saved, batched, index)

    def backward(self, tape: Tape[S], dstate: D | None) -> Gradients[S]:
        """Backpropagate through one step.

        Parameters
        ----------
        tape : Tape
            From this cell's `forward`.
        dstate : like ``state``
            Gradient of the loss by the state that `forward` returned; None is zeros, also in place
            of one of the two of an LSTM's.

        Returns
        -------
        Gradients
            ``x``, ``state`` (what the step before takes as its ``dstate``), ``params``, ``flat``.

        Raises
        ------
        TypeError, ValueError
            An argument has another type or dtype, or another shape, or the tape is another cell's.
        """
        return self._backward(tape, None, dstate)


@documented
class RNNCell(RNNKind, Cell[Array, Array]):
    """One step of an `RNN` of one layer.

    <rnn_equations>

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, each at least 1. The state is h (B, H).
    <rnn_options>
    <bias>
    <recurrent_options>

    Attributes
    ----------
    <recurrent_attributes>

    Raises
    ------
    <recurrent_raises>

    See Also
    --------
    RNN

    Notes
    -----
    <rnn_cell_parameters>

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> cell = fastrnn.RNNCell(3, 4, rng=0)
    >>> x_t = np.ones((2, 3), np.float32)  # (B, I)
    >>> h = cell(x_t)
    >>> h = cell(x_t, h)
    >>> h.shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: Activation = "tanh",
        gate_slope: float = 0.2,
        clip: float | None = None,
        bias: bool = True,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        precision: Precision = "highest",
        reproducible: bool = False,
        backend: Backend = "auto",
    ) -> None:
        self._construct(
            {
                "input_size": input_size,
                "hidden_size": hidden_size,
                "nonlinearity": nonlinearity,
                "gate_slope": gate_slope,
                "clip": clip,
                "bias": bias,
                "dtype": dtype,
                "precision": precision,
                "reproducible": reproducible,
                "backend": backend,
            },
            rng,
        )


@documented
class GRUCell(GRUKind, Cell[Array, Array]):
    """One step of a `GRU` of one layer.

    <gru_equations>

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, each at least 1. The state is h (B, H).
    <gru_options>
    <bias>
    <recurrent_options>

    Attributes
    ----------
    <recurrent_attributes>

    Raises
    ------
    <recurrent_raises>

    See Also
    --------
    GRU

    Notes
    -----
    <gru_cell_parameters>

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> cell = fastrnn.GRUCell(3, 4, rng=0)
    >>> x_t = np.ones((2, 3), np.float32)  # (B, I)
    >>> h = cell(x_t)
    >>> h = cell(x_t, h)
    >>> h.shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        reset_after: bool = True,
        gate_activation: Activation = "sigmoid",
        gate_slope: float = 0.2,
        activation: Activation = "tanh",
        clip: float | None = None,
        bias: bool = True,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        precision: Precision = "highest",
        reproducible: bool = False,
        backend: Backend = "auto",
    ) -> None:
        self._construct(
            {
                "input_size": input_size,
                "hidden_size": hidden_size,
                "reset_after": reset_after,
                "gate_activation": gate_activation,
                "gate_slope": gate_slope,
                "activation": activation,
                "clip": clip,
                "bias": bias,
                "dtype": dtype,
                "precision": precision,
                "reproducible": reproducible,
                "backend": backend,
            },
            rng,
        )


@documented
class LSTMCell(LSTMKind, Cell[Pair, PairGradient]):
    """One step of an `LSTM` of one layer.

    <lstm_equations>

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, each at least 1. The state is (h (B, P), c (B, H)).
    <lstm_options>
    <bias>
    <recurrent_options>

    Attributes
    ----------
    <recurrent_attributes>

    Raises
    ------
    <recurrent_raises>

    See Also
    --------
    LSTM

    Notes
    -----
    <lstm_cell_parameters>

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> cell = fastrnn.LSTMCell(3, 4, rng=0)
    >>> x_t = np.ones((2, 3), np.float32)  # (B, I)
    >>> h, c = cell(x_t)
    >>> h, c = cell(x_t, (h, c))
    >>> h.shape
    (2, 4)
    """

    _known: ClassVar[re.Pattern[str]] = re.compile(
        "weight_ih|weight_hh|bias_ih|bias_hh|weight_hr|weight_peephole"
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        gate_activation: Activation = "sigmoid",
        gate_slope: float = 0.2,
        activation: Activation = "tanh",
        output_activation: Activation | None = None,
        clip: float | None = None,
        coupled: bool = False,
        bias: bool = True,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        precision: Precision = "highest",
        reproducible: bool = False,
        backend: Backend = "auto",
    ) -> None:
        self._construct(
            {
                "input_size": input_size,
                "hidden_size": hidden_size,
                "proj_size": proj_size,
                "peephole": peephole,
                "gate_activation": gate_activation,
                "gate_slope": gate_slope,
                "activation": activation,
                "output_activation": output_activation,
                "clip": clip,
                "coupled": coupled,
                "bias": bias,
                "dtype": dtype,
                "precision": precision,
                "reproducible": reproducible,
                "backend": backend,
            },
            rng,
        )
