"""RNN, GRU and LSTM layers: what a caller sees of a sequence's forward and backward."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from . import checks, config
from . import dropout as masks
from .checks import RNG
from .docstrings import documented
from .kinds import GRUKind, LSTMKind, RNNKind
from .parametrized import Setting
from .recurrent import Recurrent
from .tape import Gradients, StateIndex, Tape, pair
from .typing import Activation, Array, Backend, D, FloatDType, Pair, PairGradient, Precision, S


def _names(stems: str) -> re.Pattern[str]:
    """Return the names of parameters with these stems, of any layer and direction."""
    return re.compile(rf"({stems})_l(0|[1-9]\d*)(_reverse)?")


class Layer(Recurrent[S, D]):
    """Base of RNN, GRU and LSTM. Not for direct use."""

    num_layers = Setting[int]()
    batch_first = Setting[bool]()
    dropout = Setting[float]()
    bidirectional = Setting[bool]()
    reverse = Setting[bool]()

    _x_name = "x"
    _x_rank: ClassVar[int] = 3
    _has_passes: ClassVar[bool] = True
    _state_index: ClassVar[dict[bool, StateIndex]] = {True: None, False: (..., 0, slice(None))}
    _anchor: ClassVar[str] = "weight_hh_l0"
    _known: ClassVar[re.Pattern[str]] = _names("weight_ih|weight_hh|bias_ih|bias_hh")

    @staticmethod
    def _suffixes(config: Mapping[str, Any]) -> list[str]:
        directions = ("", "_reverse") if config["bidirectional"] else ("",)
        return [
            f"_l{n}{direction}" for n in range(config["num_layers"]) for direction in directions
        ]

    @classmethod
    def _extent(cls, names: Collection[str]) -> dict[str, Any]:
        places = [name.rpartition("_l")[2].partition("_") for name in names]
        highest = max(int(number) for number, _, _ in places)
        return {
            # more than there are names for need no listing to be incomplete
            "num_layers": 1 + min(highest, len(names)),
            "bidirectional": any(reverse for _, _, reverse in places),
        }

    def _form(self, batched: bool, steps: int | None, batch: int | None) -> checks.Form:
        if not batched:
            return (("T", steps),)
        return (("B", batch), ("T", steps)) if self._batch_first else (("T", steps), ("B", batch))

    def _time_major(self, value: Array, batched: bool) -> Array:
        if not batched:
            return value[:, None]
        return value.swapaxes(0, 1) if self._batch_first else value

    def _like_x(self, value: Array, batched: bool) -> Array:
        if not batched:
            return value[:, 0]
        return value.swapaxes(0, 1) if self._batch_first else value

    def __call__(
        self,
        x: Array,
        state: S | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[Array, S]:
        """Run the layer for inference: no dropout, and nothing is kept for backward.

        Parameters
        ----------
        x : ndarray, (T, B, I), (B, T, I) with batch_first, or (T, I) for one unbatched sequence
            Of the layer's dtype, in any memory order. T = 0 and B = 0 are legal.
        state : ndarray h (L*D, B, H), or for an LSTM tuple (h (L*D, B, P), c (L*D, B, H))
            State before the first step; zeros by default. Unbatched: without the axis B, or with
            a B of 1, as a stepper has it.
        lengths : ints in 0..T, (B,), or one int if unbatched; optional
            Steps past a row's length are not computed: y is 0 there, the state stays, and the
            reverse direction begins at the row's last valid step. Any order.
        resets : bools, (T, B), also with batch_first, or (T,) if unbatched; optional
            True where a new sequence begins: the forward direction starts from zeros at that step,
            the reverse direction at the step before it.

        Returns
        -------
        y : ndarray, (T, B, D*P), with its axes in the order of x's
            h of the last layer at every step, forward direction first.
        state : like ``state``
            State after each direction's last step.

        Raises
        ------
        TypeError
            An argument has another type or dtype.
        ValueError
            An argument has another shape, or a value out of its range.
        """
        args, batched = self._bind(x, state, lengths, resets)
        y, h, c, _ = self._stack.forward(args)
        return self._like_x(y, batched), pair(h, c, self._state_index[batched])

    def forward(
        self,
        x: Array,
        state: S | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        rng: RNG = None,
        checkpoint_every: int | None = None,
    ) -> tuple[Array, S, Tape[S]]:
        """Run the layer for training: with dropout, and with a tape for `backward`.

        Parameters
        ----------
        x, state, lengths, resets
            As for a call of the layer. The tape references x, so x must not be changed before
            `backward`; nothing else that goes in or comes out is shared with the tape.
        rng : None, int or numpy.random.Generator
            Source of the dropout masks. A Generator moves on; the same int gives the same masks.
        checkpoint_every : int, optional
            Keep only the states each so many steps, and run the steps between again in backward:
            the same gradients from less memory.

        Returns
        -------
        y, state
            As from a call of the layer.
        tape : Tape

        Raises
        ------
        TypeError, ValueError
            As a call of the layer.
        """
        if checkpoint_every is not None:
            checkpoint_every = checks.size("checkpoint_every", checkpoint_every)
        single_use = checkpoint_every is None
        args, batched = self._bind(x, state, lengths, resets, training=True, single_use=single_use)
        if self._stack.dropout or rng is not None:
            seed = masks.seed(rng)
            if self._stack.dropout:
                args = args._replace(seed=seed)
        y, h, c, saved = self._stack.forward(args, save=True, every=checkpoint_every)
        index = self._state_index[batched]
        tape: Tape[S] = Tape(self._stack, args, saved, batched, index)
        return self._like_x(y, batched), pair(h, c, index), tape

    def backward(self, tape: Tape[S], dy: Array | None, dstate: D | None = None) -> Gradients[S]:
        """Backpropagate through time (Werbos 1990, "Backpropagation through time: what it does
        and how to do it").

        Parameters
        ----------
        tape : Tape
            From this layer's `forward`. The weights are those of that forward, whatever has become
            of the parameters since.
        dy : ndarray like y, or None
            Gradient of the loss by y; None is zeros.
        dstate : like ``state``, optional
            Gradient of the loss by the state that `forward` returned; None is zeros, also in place
            of one of the two of an LSTM's.

        Returns
        -------
        Gradients
            ``x``, ``state``, ``params`` and ``flat``, in new arrays.

        Raises
        ------
        TypeError
            An argument has another type or dtype.
        ValueError
            An argument has another shape, or the tape is another layer's.
        """
        return self._backward(tape, dy, dstate)

    def explain(self, x: Array) -> dict[str, Any]:
        """Say how a call with this x would be run, and why. Nothing is run.

        Returns
        -------
        dict
            The backend, T, B, how many passes (layers times directions) there are, and what the
            backend says of each: on "cpu" the instruction set, whether products take fused
            multiply-adds, dot products or a tile unit and why, the tile of the recurrent product,
            the threads and what they share. For people to read: words may change.

        Raises
        ------
        TypeError, ValueError
            As a call of the layer.
        """
        args, _ = self._bind(x, None)
        T, B, _ = args.x.shape
        stack = self._stack
        return {
            "backend": self.backend,
            "T": T,
            "B": B,
            "passes": stack.num_passes,
            **stack.backend.explain(
                stack.cell,
                self._weights[0],
                T,
                B,
                threads=config.get_num_threads(),
                numerics=stack.numerics,
            ),
        }


@documented
class RNN(RNNKind, Layer[Array, Array]):
    """Elman layers (Elman 1990, "Finding structure in time").

    <rnn_equations>

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, each at least 1; L at most 10000. The state is h (L*D, B, H).
    <rnn_options>
    <layer_options>
    <recurrent_options>

    Attributes
    ----------
    <recurrent_attributes>

    Raises
    ------
    <recurrent_raises>

    See Also
    --------
    RNNCell, GRU, LSTM

    Notes
    -----
    <rnn_layer_parameters>

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> rnn = fastrnn.RNN(3, 4, nonlinearity="relu", rng=0)
    >>> y, h = rnn(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Activation = "tanh",
        gate_slope: float = 0.2,
        clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reverse: bool = False,
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
                "num_layers": num_layers,
                "nonlinearity": nonlinearity,
                "gate_slope": gate_slope,
                "clip": clip,
                "bias": bias,
                "batch_first": batch_first,
                "dropout": dropout,
                "bidirectional": bidirectional,
                "reverse": reverse,
                "dtype": dtype,
                "precision": precision,
                "reproducible": reproducible,
                "backend": backend,
            },
            rng,
        )


@documented
class GRU(GRUKind, Layer[Array, Array]):
    """Gated recurrent units (Cho et al. 2014, "Learning phrase representations using RNN
    encoder-decoder for statistical machine translation").

    <gru_equations>

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, each at least 1; L at most 10000. The state is h (L*D, B, H).
    <gru_options>
    <layer_options>
    <recurrent_options>

    Attributes
    ----------
    <recurrent_attributes>

    Raises
    ------
    <recurrent_raises>

    See Also
    --------
    GRUCell, LSTM, RNN

    Notes
    -----
    <gru_layer_parameters>

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> gru = fastrnn.GRU(3, 4, bidirectional=True, rng=0)
    >>> y, h = gru(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h.shape
    ((5, 2, 8), (2, 2, 4))
    >>> gru.params["weight_ih_l0_reverse"].shape
    (12, 3)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        gate_activation: Activation = "sigmoid",
        gate_slope: float = 0.2,
        activation: Activation = "tanh",
        clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reverse: bool = False,
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
                "num_layers": num_layers,
                "reset_after": reset_after,
                "gate_activation": gate_activation,
                "gate_slope": gate_slope,
                "activation": activation,
                "clip": clip,
                "bias": bias,
                "batch_first": batch_first,
                "dropout": dropout,
                "bidirectional": bidirectional,
                "reverse": reverse,
                "dtype": dtype,
                "precision": precision,
                "reproducible": reproducible,
                "backend": backend,
            },
            rng,
        )


@documented
class LSTM(LSTMKind, Layer[Pair, PairGradient]):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, "Long short-term memory") with a
    forget gate (Gers et al. 2000, "Learning to forget").

    <lstm_equations>

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        I, H and L, each at least 1; L at most 10000. The state is (h (L*D, B, P), c (L*D, B, H)).
    <lstm_options>
    <layer_options>
    <recurrent_options>

    Attributes
    ----------
    <recurrent_attributes>

    Raises
    ------
    <recurrent_raises>

    See Also
    --------
    LSTMCell, GRU, RNN

    Notes
    -----
    <lstm_layer_parameters>

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> lstm = fastrnn.LSTM(3, 4, num_layers=2, rng=0)
    >>> x = np.ones((5, 2, 3), np.float32)  # (T, B, I)
    >>> y, (h, c) = lstm(x, lengths=[5, 2])
    >>> y.shape, h.shape, c.shape
    ((5, 2, 4), (2, 2, 4), (2, 2, 4))
    >>> y, state, tape = lstm.forward(x)
    >>> grads = lstm.backward(tape, np.ones_like(y))
    >>> grads.params["weight_hh_l1"].shape
    (16, 4)
    """

    _known: ClassVar[re.Pattern[str]] = _names(
        "weight_ih|weight_hh|bias_ih|bias_hh|weight_hr|weight_peephole"
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
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
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reverse: bool = False,
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
                "num_layers": num_layers,
                "proj_size": proj_size,
                "peephole": peephole,
                "gate_activation": gate_activation,
                "gate_slope": gate_slope,
                "activation": activation,
                "output_activation": output_activation,
                "clip": clip,
                "coupled": coupled,
                "bias": bias,
                "batch_first": batch_first,
                "dropout": dropout,
                "bidirectional": bidirectional,
                "reverse": reverse,
                "dtype": dtype,
                "precision": precision,
                "reproducible": reproducible,
                "backend": backend,
            },
            rng,
        )
