"""Models of several layers: a base class, a tape over layers, and what stands between them."""

from .attention import Attention
from .graph import Graph, inference
from .model import Model
from .parameter import Parameter

__all__ = ["Attention", "Graph", "Model", "Parameter", "inference"]
