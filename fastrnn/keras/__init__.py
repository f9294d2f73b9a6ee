"""Recurrent layers from models of Keras, 2 and 3. Needs h5py alone; Keras only for models in
memory, which bring it."""

from __future__ import annotations

try:
    import h5py as _h5py  # noqa: F401  (whether it is there is the question)
except ImportError as _error:
    raise ImportError(
        f'fastrnn.keras needs h5py ({_error}): pip install "fastrnn[keras]"'
    ) from None

from .reading import load

__all__ = ["load"]
