"""Recurrent modules for programs of torch: `LSTM`, `GRU`, `RNN`, and `accelerate`.

The modules take the place of those of `torch.nn`: the same constructors, parameters, state dicts,
packed sequences. What they compute, and its gradients, comes from fastrnn's engines.
"""

from .. import checks

try:
    import torch  # noqa: F401  (whether it is installed is the question)
except ImportError as error:
    raise checks.needs("fastrnn.torch", "torch", "torch") from error

from .accelerate import accelerate
from .modules import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "accelerate"]
