"""What stands around the recurrent layers in training."""

from . import schedules
from .conv1d import Conv1d, Conv1dStepper
from .distributed import distributed
from .embedding import Embedding
from .layer_norm import LayerNorm
from .linear import Linear
from .losses import clip_grad_norm, mse, softmax_cross_entropy
from .optim import SGD, Adam

__all__ = [
    "SGD",
    "Adam",
    "Conv1d",
    "Conv1dStepper",
    "Embedding",
    "LayerNorm",
    "Linear",
    "clip_grad_norm",
    "distributed",
    "mse",
    "schedules",
    "softmax_cross_entropy",
]
