"""Tensors as arrays and arrays as tensors, of the same memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from .. import backends
from ..typing import Array, State


class Host:
    """NumPy's arrays."""

    array = staticmethod(lambda tensor: tensor.detach().numpy())
    tensor = staticmethod(torch.from_numpy)

    @staticmethod
    def device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
        """Return a context in which arrays are where a tensor is."""
        return nullcontext()


class Placed:
    """CuPy's arrays, by DLPack, on the stream that is torch's current one."""

    @staticmethod
    def array(tensor: torch.Tensor) -> Array:
        """Return an array of a tensor's memory."""
        array: Array = backends.get("cuda").xp.from_dlpack(tensor.detach())
        return array

    @staticmethod
    def tensor(array: Array) -> torch.Tensor:
        """Return a tensor of an array's memory."""
        return torch.from_dlpack(array)

    @staticmethod
    def device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
        """Return a context in which arrays are where a tensor is, and work is queued as torch's."""
        cuda = backends.get("cuda").xp.cuda
        stream = torch.cuda.current_stream(tensor.device)
        context: AbstractContextManager[object] = cuda.ExternalStream(
            stream.cuda_stream, tensor.device.index
        )
        return context


def of(tensor: torch.Tensor) -> type[Host] | type[Placed]:
    """Return the way for a tensor's device."""
    return Placed if tensor.is_cuda else Host


def state_of(parts: Sequence[Any]) -> State | None:
    """Return h and c, of which some may be None, as layers take them."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    return given[0] if len(given) == 1 else (given[0], given[1])
