"""What a layer and a cell of one kind share: RNN, GRU, LSTM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .parametrized import Setting
from .recurrent import Recurrent
from .spec import Options
from .typing import Activation, Array, Pair, PairGradient


def _options_of(config: Mapping[str, Any]) -> Options:
    """Return what the constructor's arguments of all cells say of options."""
    clip = config.get("clip")
    return Options(
        gate=config.get("gate_activation", "sigmoid"),
        candidate=config.get("activation", "tanh"),
        slope=config.get("gate_slope", 0.2),
        clip=math.inf if clip is None else clip,
        coupled=config.get("coupled", False),
    )


class RNNKind(Recurrent[Array, Array]):
    """What RNN and RNNCell share."""

    nonlinearity = Setting[Activation]()
    gate_slope = Setting[float]()
    clip = Setting["float | None"]()

    @staticmethod
    def _kind(config: Mapping[str, Any]) -> str:
        return f"rnn_{config['nonlinearity']}"

    @staticmethod
    def _options(config: Mapping[str, Any]) -> tuple[str, Options]:
        return "rnn_general", _options_of(config)._replace(candidate=config["nonlinearity"])


class GRUKind(Recurrent[Array, Array]):
    """What GRU and GRUCell share."""

    reset_after = Setting[bool]()
    gate_activation = Setting[Activation]()
    gate_slope = Setting[float]()
    activation = Setting[Activation]()
    clip = Setting["float | None"]()

    @staticmethod
    def _kind(config: Mapping[str, Any]) -> str:
        return "gru" if config["reset_after"] else "gru_reset_before"

    @staticmethod
    def _options(config: Mapping[str, Any]) -> tuple[str, Options]:
        kind = "gru_general" if config["reset_after"] else "gru_general_reset_before"
        return kind, _options_of(config)


class LSTMKind(Recurrent[Pair, PairGradient]):
    """What LSTM and LSTMCell share."""

    peephole = Setting[bool]()
    gate_activation = Setting[Activation]()
    gate_slope = Setting[float]()
    activation = Setting[Activation]()
    output_activation = Setting["Activation | None"]()
    clip = Setting["float | None"]()
    coupled = Setting[bool]()

    @staticmethod
    def _kind(config: Mapping[str, Any]) -> str:
        return "lstm_peephole" if config["peephole"] else "lstm"

    @staticmethod
    def _options(config: Mapping[str, Any]) -> tuple[str, Options]:
        options = _options_of(config)
        output = config.get("output_activation") or options.candidate
        kind = "lstm_general_peephole" if config["peephole"] else "lstm_general"
        return kind, options._replace(output=output)
