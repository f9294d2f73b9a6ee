"""Data-parallel training: steps of one optimiser from the gradients of many processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from .. import backends, checks
from ..typing import Array
from .communicators import Vector, communicator
from .losses import clip_grad_norm
from .optim import Optimizer

# What stands behind the gradients in a step's vector: each is summed over the ranks.
_TAIL = ("loss", "weight", "failed", "left", "steps", "squared steps")


class Sums:
    """The gradients of one layer, summed over all processes, in an optimiser's form."""

    def __init__(self, layer: Any, flat: Array) -> None:
        self.layer = layer
        self.flat = flat


class DistributedOptimizer:
    """An optimiser whose steps are made of all processes' gradients. See `fastrnn.distributed`.

    Used as a context manager, it tells the other processes when this one leaves, by an error or
    because its data are at an end; without one they would wait for it for ever.
    """

    def __init__(
        self,
        optimiser: Optimizer,
        comm: Any,
        *,
        rng: np.random.Generator | None = None,
        max_norm: float | None = None,
    ) -> None:
        if not isinstance(optimiser, Optimizer):
            raise TypeError(
                f"optimiser must be one of fastrnn's, got {checks.type_name(optimiser)}"
            )
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {checks.type_name(rng)}")
        self.optimiser = optimiser
        """The optimiser of this process; its `lr` may be changed, on all processes alike."""
        self.max_norm = None if max_norm is None else checks.number("max_norm", max_norm)
        """Bound of the norm of the summed gradients, or None."""
        self._comm = communicator(comm)
        self._closed = ""
        self._places: list[slice] = []
        size = 0
        for layer in optimiser.layers:
            size, start = size + layer.flat_params.size, size
            self._places.append(slice(start, size))
        self._sums: Vector = np.zeros(size + len(_TAIL))
        self._agree(_facts(optimiser, rng))
        self._start(rng)

    @property
    def rank(self) -> int:
        """This process among the others, 0 .. size-1. Rank 0 is the one to save and to print."""
        return self._comm.rank

    @property
    def size(self) -> int:
        """The number of processes."""
        return self._comm.size

    def accumulate(self, grads: Any, *, loss: float = 0.0, weight: float = 1.0) -> None:
        """Add gradients to those of this process's next step. Nothing is sent.

        Parameters
        ----------
        grads : what `backward` returned, or a list of such
            As the optimiser's own `step` takes them, of a loss that is a mean.
        loss : float
            The loss.
        weight : float
            What the mean is over: the number of valid steps, or of rows.

        Raises
        ------
        TypeError, ValueError
            As the optimiser's `step`; or `weight` is negative or not finite. Nothing has been
            added then.
        """
        weight = checks.number("weight", weight)
        loss = float(loss)
        vectors = self.optimiser.vectors_of(grads)
        if weight:
            for place, vector in zip(self._places, vectors, strict=True):
                host = _on_host(vector)
                self._sums[place] += np.multiply(host, weight, dtype=np.float64)
            self._tail("loss", weight * loss)
            self._tail("weight", weight)

    def step(self, grads: Any = None, *, loss: float = 0.0, weight: float = 1.0) -> float:
        """Change the parameters by one step, the same one in all processes.

        ::

            gradient = sum(weight * gradient of each process) / sum(weight)

        One all-reduce of the gradients, the weighted loss and the weight. The sums are of
        float64, so that any number of processes comes to the same parameters up to rounding.

        Parameters
        ----------
        grads : what `backward` returned, or a list of such, or None
            Of this process's rows. None where it has none at this step, or where all of them came
            by `accumulate`.
        loss, weight
            As for `accumulate`.

        Returns
        -------
        float
            The mean loss over all processes; 0.0 if no weight is above 0, and then nothing has
            changed.

        Raises
        ------
        TypeError, ValueError
            As the optimiser's `step`.
        RuntimeError
            Another process has failed, and the text says how; it has left; or it has made
            another number of steps.
        """
        self._open()
        try:
            if grads is not None:
                self.accumulate(grads, loss=loss, weight=weight)
        except Exception as error:
            self._leave("failed", error)
            raise
        steps = self.optimiser.steps
        self._tail("steps", steps)
        self._tail("squared steps", steps * steps)
        total = self._exchange()
        self._compare_steps(total, steps)
        weights = self._sums[-len(_TAIL) + _TAIL.index("weight")]
        mean = 0.0
        if weights > 0:
            self._sums /= weights
            mean = float(self._sums[-len(_TAIL)])
            self._apply()
        self._sums[:] = 0
        return mean

    def __enter__(self) -> DistributedOptimizer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._closed:
            return
        if error is not None:
            self._leave("failed", error)
        else:
            self._leave("left", None)

    # ------------------------------------------------------------------------- at the start

    def _agree(self, own: dict[str, str]) -> None:
        """Raise, on every rank, if one has another model or optimiser than rank 0."""
        first: dict[str, str] = json.loads(self._text_of_first(json.dumps(own)))
        differences = [
            f"{name} is {own.get(name, 'missing')}, on rank 0 {first.get(name, 'missing')}"
            for name in dict.fromkeys([*first, *own])
            if own.get(name) != first.get(name)
        ]
        self._raise_first("; ".join(differences[:3]), "rank {rank} differs from rank 0: {text}")

    def _start(self, rng: np.random.Generator | None) -> None:
        """Take over rank 0's parameters, optimiser state and random generator."""
        for layer in self.optimiser.layers:
            flat = np.array(_on_host(layer.flat_params), np.float64)
            self._comm.broadcast_(flat)
            if self._comm.rank:
                _copy_in(layer.flat_params, flat)
        state = {}
        for name, value in self.optimiser.state_dict().items():
            flat = np.array(_on_host(value), np.float64).reshape(-1)
            self._comm.broadcast_(flat)
            state[name] = _like(flat, value)
        self.optimiser.load_state_dict(state)
        if rng is not None:
            told = self._text_of_first(
                json.dumps(rng.bit_generator.state, default=np.ndarray.tolist)
            )
            rng.bit_generator.state = json.loads(told)

    def _text_of_first(self, text: str) -> str:
        """Return rank 0's text."""
        codes = np.frombuffer(text.encode(), np.uint8)
        length = np.array([codes.size], np.float64)
        self._comm.broadcast_(length)
        sent = np.zeros(int(length[0]))
        if self._comm.rank == 0:
            sent[:] = codes
        self._comm.broadcast_(sent)
        return sent.astype(np.uint8).tobytes().decode()

    # ------------------------------------------------------------------------------ a step

    def _tail(self, name: str, value: float) -> None:
        self._sums[-len(_TAIL) + _TAIL.index(name)] += value

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError(f"this process takes part no longer: {self._closed}")

    def _exchange(self) -> dict[str, float]:
        """Sum this step's vector over the ranks; raise if one of them has failed or left."""
        self._closed = "an exchange with the other processes failed"  # until it has come back
        self._comm.allreduce_(self._sums)
        self._closed = ""
        total = dict(zip(_TAIL, self._sums[-len(_TAIL) :].tolist(), strict=True))
        if total["failed"] or total["left"]:
            self._closed = "another process has failed or left"
            self._raise_first("", "rank {rank} has ended: {text}")
        return total

    def _leave(self, how: str, error: BaseException | None) -> None:
        """Tell the others, at their next step, that this process takes part no longer."""
        self._closed = f"it has {how}"
        self._sums[:] = 0
        self._tail(how, 1)
        self._comm.allreduce_(self._sums)
        total = dict(zip(_TAIL, self._sums[-len(_TAIL) :].tolist(), strict=True))
        if error is None and total["left"] == self._comm.size:
            return  # all are at their end
        if error is None:
            text = f"it has left after step {self.optimiser.steps}, while others go on"
        else:
            text = f"{type(error).__name__}: {error}"
        if error is None:
            self._raise_first(text, "rank {rank} has ended: {text}")
        else:
            self._texts(text)

    def _compare_steps(self, total: Mapping[str, float], steps: int) -> None:
        size = self._comm.size
        if size * total["squared steps"] != total["steps"] ** 2:
            self._closed = "the processes have made different numbers of steps"
            counts = np.zeros(size)
            counts[self._comm.rank] = steps
            self._comm.allreduce_(counts)
            told = ", ".join(f"{int(n)}" for n in counts)
            raise RuntimeError(f"ranks 0 .. {size - 1} have made {told} steps of the optimiser")

    def _apply(self) -> None:
        sums = [
            Sums(layer, _like(self._sums[place], layer.flat_params))
            for layer, place in zip(self.optimiser.layers, self._places, strict=True)
        ]
        if self.max_norm is not None:
            clip_grad_norm(sums, self.max_norm)
        self.optimiser.step(sums)

    # ------------------------------------------------------------------------------ errors

    def _texts(self, text: str) -> tuple[int, str]:
        """Return the first rank that has a text, and the text."""
        size = self._comm.size
        lengths = np.zeros(size)
        codes = np.frombuffer(text.encode(errors="replace"), np.uint8)
        lengths[self._comm.rank] = codes.size
        self._comm.allreduce_(lengths)
        told = np.flatnonzero(lengths)
        if not told.size:
            return -1, ""
        rank = int(told[0])
        sent = np.zeros(int(lengths[rank]))
        if rank == self._comm.rank:
            sent[:] = codes
        self._comm.allreduce_(sent)
        return rank, sent.astype(np.uint8).tobytes().decode()

    def _raise_first(self, text: str, form: str) -> None:
        """Raise, on every rank, what the first rank that has a text says."""
        rank, told = self._texts(text)
        if told:
            raise RuntimeError(form.format(rank=rank, text=told))


def distributed(
    optimiser: Optimizer,
    comm: Any,
    *,
    rng: np.random.Generator | None = None,
    max_norm: float | None = None,
) -> DistributedOptimizer:
    """Train with several processes, each of which has rows of its own.

    Every process builds the same model and the same optimiser, calls this, and then makes the same
    number of steps. Parameters, the optimiser's state and `rng` start as those of rank 0.

    Parameters
    ----------
    optimiser : SGD, Adam or another optimiser of fastrnn
        Of this process's layers, which keep equal to the other processes'.
    comm : communicator of mpi4py, group of torch.distributed, or object
        An object has ``rank``, ``size``, ``allreduce_(flat)`` and ``broadcast_(flat)``, which
        replace a vector of float64 by its sum over all processes and by that of rank 0.
    rng : numpy.random.Generator, optional
        Set to the state of rank 0's, so that all processes shuffle alike.
    max_norm : float, optional
        Clip the summed gradients as `clip_grad_norm` does.

    Returns
    -------
    DistributedOptimizer
        ``step(grads, loss=, weight=)`` in place of the optimiser's ``step(grads)``. As a context
        manager it ends all processes with the error of the one that failed.

    Raises
    ------
    TypeError
        An argument is of another kind.
    RuntimeError
        A process has another model, dtype or optimiser than rank 0; the text says what differs.

    Examples
    --------
    With ``mpiexec -n 2 python -m mpi4py train.py``, `comm` would be ``mpi4py.MPI.COMM_WORLD``. One
    process alone is a group too:

    >>> import numpy as np
    >>> import fastrnn
    >>> class Alone:
    ...     rank, size = 0, 1
    ...
    ...     def allreduce_(self, flat): ...
    ...
    ...     def broadcast_(self, flat): ...
    >>> layer = fastrnn.GRU(3, 4, rng=0)
    >>> x, target = np.ones((5, 2, 3), np.float32), np.zeros((5, 2, 4), np.float32)
    >>> with fastrnn.distributed(fastrnn.Adam(layer), Alone()) as adam:
    ...     y, state, tape = layer.forward(x)
    ...     loss, dy = fastrnn.mse(y, target)
    ...     mean = adam.step(layer.backward(tape, dy), loss=loss, weight=y.size)
    >>> mean == loss
    True
    """
    return DistributedOptimizer(optimiser, comm, rng=rng, max_norm=max_norm)


def _facts(optimiser: Optimizer, rng: object) -> dict[str, str]:
    """What must be the same on every rank, as text by name."""
    facts = {
        "optimiser": type(optimiser).__name__,
        "rng": "given" if rng is not None else "not given",
        "number of layers": str(len(optimiser.layers)),
    }
    for name, value in vars(optimiser).items():
        if not name.startswith("_") and name != "steps" and isinstance(value, (int, float, tuple)):
            facts[f"optimiser.{name}"] = repr(value)
    for index, layer in enumerate(optimiser.layers):
        facts[f"layers[{index}]"] = type(layer).__name__
        facts[f"layers[{index}].dtype"] = str(layer.flat_params.dtype)
        named = getattr(layer, "params", {"flat_params": layer.flat_params})
        for name, value in named.items():
            facts[f"layers[{index}].{name}"] = str(tuple(value.shape))
    return facts


def _on_host(value: Array) -> Array:
    """A NumPy array: itself, or a copy from the GPU."""
    if not checks.on_gpu(value):
        return value
    with backends.device_of(value):
        copied: Array = backends.namespace(value).asnumpy(value)
    return copied


def _like(flat: Vector, value: Array) -> Array:
    """Float64 numbers with the shape, dtype and device of an array."""
    if not checks.on_gpu(value):
        return flat.astype(value.dtype).reshape(value.shape)
    with backends.device_of(value):
        made: Array = backends.namespace(value).asarray(
            flat.astype(value.dtype).reshape(value.shape)
        )
    return made


def _copy_in(target: Array, flat: Vector) -> None:
    with backends.device_of(target):
        target[:] = _like(flat, target)
