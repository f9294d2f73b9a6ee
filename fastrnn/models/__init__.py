"""Models of several layers: a base class, a tape over layers, and what stands between them."""

from .attention import Attention
from .generate import beam_search, sample
from .graph import Graph, inference
from .model import Model
from .parameter import Parameter
from .ragged import batches, pad

__all__ = [
    "Attention",
    "Graph",
    "Model",
    "Parameter",
    "batches",
    "beam_search",
    "inference",
    "pad",
    "sample",
]
