"""What carries numbers between processes: MPI, torch.distributed, or a caller's own object."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import numpy as np

from .. import checks

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Communicator(Protocol):
    """A fixed group of processes. Every one of them must make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process among the others, 0 .. size-1."""

    @property
    def size(self) -> int:
        """The number of processes."""

    def allreduce_(self, flat: Vector) -> None:
        """Replace a contiguous vector of float64 by its sum over all processes, in place."""

    def broadcast_(self, flat: Vector) -> None:
        """Replace a contiguous vector of float64 by rank 0's, in place."""


class MPICommunicator:
    """A communicator of mpi4py. Buffers go as they are; nothing is pickled."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._mpi = import_module("mpi4py.MPI")
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()

    def allreduce_(self, flat: Vector) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, flat, op=self._mpi.SUM)

    def broadcast_(self, flat: Vector) -> None:
        self._comm.Bcast(flat, root=0)


class TorchCommunicator:
    """A process group of torch.distributed whose tensors are on the host, as those of gloo."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._torch = import_module("torch")
        self._distributed = import_module("torch.distributed")
        self.rank: int = self._distributed.get_rank(group)
        self.size: int = self._distributed.get_world_size(group)

    def allreduce_(self, flat: Vector) -> None:
        self._distributed.all_reduce(self._torch.from_numpy(flat), group=self._group)

    def broadcast_(self, flat: Vector) -> None:
        first = self._distributed.get_global_rank(self._group, 0)
        self._distributed.broadcast(self._torch.from_numpy(flat), src=first, group=self._group)


def communicator(comm: Any) -> Communicator:
    """Return a `Communicator` for what a caller has.

    Raises
    ------
    TypeError
        It is none of those that `fastrnn.distributed` names.
    """
    library = type(comm).__module__.partition(".")[0]
    if library == "mpi4py" and hasattr(comm, "Allreduce"):
        return MPICommunicator(comm)
    if library == "torch" and hasattr(comm, "allreduce"):
        return TorchCommunicator(comm)
    missing = [
        name for name in ("rank", "size", "allreduce_", "broadcast_") if not hasattr(comm, name)
    ]
    if missing:
        raise TypeError(
            "comm must be a communicator of mpi4py, a group of torch.distributed, or an object "
            "with rank, size, allreduce_(flat) and broadcast_(flat); got "
            f"{checks.type_name(comm)}, which has no {', '.join(missing)}"
        )
    checked: Communicator = comm
    return checked
