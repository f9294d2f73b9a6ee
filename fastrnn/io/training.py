"""The state of a training run beside its parameters: optimiser, random numbers, step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backends, checks
from ..train.optim import Optimizer
from ..typing import Array

OWN = "fastrnn."  # what our names begin with, of arrays and in the metadata
_OPTIMIZER = OWN + "optimizer"
_RNG = OWN + "rng"
_STEP = OWN + "step"


def checked(optimizer: Any, rng: Any, step: Any = None) -> None:
    """Raise unless these are an optimiser, a generator and a number of steps, or None."""
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be SGD or Adam, got {checks.type_name(optimizer)}")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {checks.type_name(rng)}")
    if step is not None:
        checks.size("step", step, at_least=0)


def describe(
    optimizer: Optimizer | None, rng: np.random.Generator | None, step: int | None
) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays and the text that hold the state."""
    arrays, text = {}, {}
    if optimizer is not None:
        text[_OPTIMIZER] = json.dumps({"class": type(optimizer).__name__, "lr": optimizer.lr})
        for name, value in optimizer.state_dict().items():
            with backends.device_of(value):
                host = backends.namespace(value).asnumpy(value) if checks.on_gpu(value) else value
            arrays[f"{_OPTIMIZER}.{name}"] = host
    if rng is not None:
        text[_RNG] = json.dumps(rng.bit_generator.state, default=_number_or_list)
    if step is not None:
        text[_STEP] = str(checks.size("step", step, at_least=0))
    return arrays, text


def restore(
    error: str,
    arrays: Mapping[str, Array],
    text: Mapping[str, str],
    optimizer: Optimizer | None,
    rng: np.random.Generator | None,
) -> int | None:
    """Go on from what `describe` returned; return the step.

    Raises
    ------
    ValueError
        Something that is asked for is not there, or is of another kind. Nothing has been changed
        then.
    """
    for name, wanted, key in (("optimizer", optimizer, _OPTIMIZER), ("rng", rng, _RNG)):
        if wanted is not None and key not in text:
            raise ValueError(f"{error}no {name} was saved in it")
    state: Any = None
    try:
        step = int(text[_STEP]) if _STEP in text else None
        if rng is not None:
            state = json.loads(text[_RNG])
            kind = state["bit_generator"]
    except (ValueError, TypeError, LookupError) as reason:
        raise ValueError(f"{error}{type(reason).__name__}: {reason}") from None
    if rng is not None and kind != rng.bit_generator.state["bit_generator"]:
        own = rng.bit_generator.state["bit_generator"]
        raise ValueError(f"{error}its random numbers are {kind}'s, those of rng {own}'s")
    if optimizer is not None:
        _restore_optimizer(error, arrays, text[_OPTIMIZER], optimizer)
    if rng is not None:
        rng.bit_generator.state = state
    return step


def _restore_optimizer(
    error: str, arrays: Mapping[str, Array], text: str, optimizer: Optimizer
) -> None:
    try:
        record = json.loads(text)
        kind, lr = record["class"], checks.number("lr", record["lr"])
    except (ValueError, TypeError, LookupError) as reason:
        raise ValueError(f"{error}{type(reason).__name__}: {reason}") from None
    if kind != type(optimizer).__name__:
        raise ValueError(f"{error}its optimizer is {kind}, got {type(optimizer).__name__}")
    own = optimizer.state_dict()
    state = {}
    for name, value in arrays.items():
        if name.startswith(f"{_OPTIMIZER}."):
            key = name[len(_OPTIMIZER) + 1 :]
            like = own.get(key, value)
            with backends.device_of(like):
                state[key] = backends.namespace(like).asarray(value)
    try:
        optimizer.load_state_dict(state)
    except (ValueError, TypeError) as reason:
        raise ValueError(f"{error}optimizer: {reason}") from None
    optimizer.lr = lr


def _number_or_list(value: Any) -> Any:
    """What JSON takes for a number or an array of NumPy's."""
    return value.tolist()
