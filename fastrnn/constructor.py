"""The constructors' arguments of recurrent layers and cells, and what each must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from . import backends, checks
from .cellmath.ops import ACTIVATIONS
from .typing import Precision

# The constructors' arguments, and what each must be. `rng` is none of them: it is used once.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "input_size": checks.size,
    "hidden_size": checks.size,
    "num_layers": checks.layers,
    "nonlinearity": lambda name, value: checks.choice(name, value, ACTIVATIONS),
    "reset_after": checks.flag,
    "proj_size": lambda name, value: checks.size(name, value, at_least=0),
    "peephole": checks.flag,
    "gate_activation": lambda name, value: checks.choice(name, value, ACTIVATIONS),
    "gate_slope": checks.positive,
    "activation": lambda name, value: checks.choice(name, value, ACTIVATIONS),
    "output_activation": lambda name, value: (
        None if value is None else checks.choice(name, value, ACTIVATIONS)
    ),
    "clip": lambda name, value: None if value is None else checks.positive(name, value),
    "coupled": checks.flag,
    "bias": checks.flag,
    "batch_first": checks.flag,
    "dropout": checks.fraction,
    "bidirectional": checks.flag,
    "reverse": checks.flag,
    "dtype": lambda _, value: checks.float_dtype(value).name,
    "precision": lambda name, value: checks.choice(name, value, get_args(Precision)),
    "reproducible": checks.flag,
    "backend": lambda name, value: checks.choice(name, value, ("auto", *backends.NAMES)),
}


def checked_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a constructor's arguments but ``rng`` in the form that `config` returns."""
    config = {name: _CHECKS[name](name, value) for name, value in arguments.items()}
    checks.together(config)
    return config
