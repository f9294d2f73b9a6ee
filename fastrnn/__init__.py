"""Recurrent layers for NumPy code: RNN, GRU and LSTM, forward and backward through time.

Names, shapes, gate orders and biases are those of ``torch.nn.RNN/LSTM/GRU``; no PyTorch is needed.
Letters: T time, B batch, I input, H hidden, P projection (or H), D directions, L layers, G gates.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .cells import GRUCell, LSTMCell, RNNCell
from .config import (
    get_num_threads,
    num_threads,
    release_memory,
    set_flush_denormals,
    set_num_threads,
)
from .diagnostics import show_config
from .gradcheck import gradcheck
from .io import load, save
from .layers import GRU, LSTM, RNN
from .models import (
    Attention,
    Graph,
    Model,
    Parameter,
    batches,
    beam_search,
    inference,
    pad,
    sample,
)
from .modules import from_torch
from .sequences import CRF, bio_transitions, ctc_decode, ctc_loss
from .stepper import Stepper
from .tape import Gradients, Tape
from .train import (
    SGD,
    Adam,
    Conv1d,
    Embedding,
    LayerNorm,
    Linear,
    clip_grad_norm,
    distributed,
    mse,
    softmax_cross_entropy,
)

__version__ = "0.1.0"

# Modules that need another library: imported when first used, by `import fastrnn.torch` or as an
# attribute.
_OPTIONAL = ("autograd", "jax", "keras", "onnx", "torch")

# Checkers know them by their import, so that they read those libraries only where one is used.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name in _OPTIONAL:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")


__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adam",
    "Attention",
    "Conv1d",
    "Embedding",
    "GRUCell",
    "Gradients",
    "Graph",
    "LSTMCell",
    "LayerNorm",
    "Linear",
    "Model",
    "Parameter",
    "RNNCell",
    "Stepper",
    "Tape",
    "__version__",
    "batches",
    "beam_search",
    "bio_transitions",
    "clip_grad_norm",
    "ctc_decode",
    "ctc_loss",
    "distributed",
    "from_torch",
    "get_num_threads",
    "gradcheck",
    "inference",
    "load",
    "mse",
    "num_threads",
    "pad",
    "release_memory",
    "sample",
    "save",
    "set_flush_denormals",
    "set_num_threads",
    "show_config",
    "softmax_cross_entropy",
]
