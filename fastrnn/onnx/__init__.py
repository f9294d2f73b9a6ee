"""Recurrent layers from ONNX models, and to them. Needs the onnx package alone.

`nodes` lists the recurrent layers of a model, `load` makes one of them a layer of fastrnn, `save`
writes a layer as a model that any ONNX runtime runs.
"""

from __future__ import annotations

try:
    import onnx as _onnx  # noqa: F401  (whether it is there is the question)
except ImportError as _error:
    raise ImportError(
        f'fastrnn.onnx needs the onnx package ({_error}): pip install "fastrnn[onnx]"'
    ) from None

from .reading import Node, load, nodes
from .writing import save

__all__ = ["Node", "load", "nodes", "save"]
