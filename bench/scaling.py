"""What a step of data-parallel training costs on n ranks, and a model of it.

    mpiexec -n 1 python bench/scaling.py rows   # a step by its rows, and the model's constants
    mpiexec -n 2 python bench/scaling.py        # a step on n ranks, by its parts, beside the model
    python bench/scaling.py predict             # what the model says of more nodes

The model: a step of `rows` rows on n ranks takes

    t(n) = g(rows / n) + optimiser + 2 ceil(log2 n) latency + 2 (n - 1) / n * bytes / bandwidth

    g(rows) = steps + rows * flops / rate

Rows go over the ranks. `steps` is what T steps cost whatever the rows are: reading the weights
forward and backward, and writing their gradients. The gradients of P parameters go through one
all-reduce of 8 (P + 6) bytes, whose cost is that of a reduce-scatter and an all-gather (Thakur,
Rabenseifner and Gropp 2005, "Optimization of collective communication operations in MPICH"). Each
rank does the optimiser's whole step. Ranks that share a core take turns: computing counts n / cores
times.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import fastrnn
from fastrnn.cli.bench import machine

I, H, T, B = 64, 256, 50, 64
REPEATS = 25


@dataclass(frozen=True)
class Model:
    """Constants of the machine and the network; the defaults are those of docs/scaling.md."""

    steps: float
    """Seconds of a step of training without a row."""
    rate: float
    """Operations a second."""
    optimiser: float
    """Seconds of Adam, and of all that a step does beside gradients and the all-reduce."""
    latency: float = 2e-6
    """Seconds a message."""
    bandwidth: float = 3e9
    """Bytes a second."""
    cores: int = 2**31
    """On which the ranks run."""

    def gradients(self, rows: float) -> float:
        """Seconds of forward and backward."""
        return self.steps + rows * flops() / self.rate

    def all_reduce(self, ranks: int) -> float:
        """Seconds of one all-reduce of the gradients."""
        sent = 2 * (ranks - 1) / ranks * vector_bytes() / self.bandwidth
        return 2 * self.latency * math.ceil(math.log2(ranks)) + sent

    def step(self, ranks: int, rows: int) -> float:
        """Seconds of a step of so many rows in all; the rank with the most rows counts."""
        turns = max(1.0, ranks / self.cores)
        own = math.ceil(rows / ranks)
        return turns * (self.gradients(own) + self.optimiser) + self.all_reduce(ranks)


def flops() -> float:
    """Operations of a row's forward and backward."""
    return 3 * 2.0 * T * 4 * H * (I + H)


def vector_bytes() -> int:
    """Bytes of one all-reduce: the gradients, the loss and what comes with it, in float64."""
    return 8 * (4 * H * (I + H + 2) + 6)


class Counted:
    """A communicator of mpi4py that counts calls, bytes and seconds."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._comm, self._in_place = comm, MPI.IN_PLACE
        self.rank, self.size = comm.rank, comm.size
        self.calls, self.bytes, self.seconds = 0, 0, 0.0

    def allreduce_(self, flat: Any) -> None:
        begin = time.perf_counter()
        self._comm.Allreduce(self._in_place, flat)
        self.seconds += time.perf_counter() - begin
        self.calls += 1
        self.bytes += flat.nbytes

    def broadcast_(self, flat: Any) -> None:
        self._comm.Bcast(flat, root=0)


def timed(run: Callable[[], object], wait: Callable[[], object] = lambda: None) -> list[float]:
    """Seconds of each of some calls, before each of which the ranks wait for each other."""
    run()
    times = []
    for _ in range(REPEATS):
        wait()
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def network(rows: int, seed: int) -> tuple[Any, Callable[[], tuple[Any, float]]]:
    """A layer, and what computes its gradients on random rows."""
    layer = fastrnn.LSTM(I, H, rng=0)
    x = np.random.default_rng(seed).standard_normal((T, rows, I)).astype(np.float32)
    target = np.zeros((T, rows, H), np.float32)

    def gradients() -> tuple[Any, float]:
        y, _, tape = layer.forward(x)
        loss, dy = fastrnn.mse(y, target)
        return layer.backward(tape, dy), loss

    return layer, gradients


def by_rows(threads: int) -> None:
    """Print a step's time by its rows, one process, and a straight line through it."""
    fastrnn.set_num_threads(threads)
    counts = [1, 2, 4, 8, 16, 32, 64]
    least = []
    for rows in counts:
        times = timed(network(rows, 0)[1])
        least.append(min(times))
        print(f"rows {rows:3}  gradients {ms(min(times))} least, {ms(np.median(times))} median")
    # each point counts as much as the next one, whatever its size
    weights = 1 / np.array(least)
    slope, steps = np.polyfit(counts, least, 1, w=weights)
    print(f"line: --steps {steps:.3g} --rate {flops() / slope:.3g}")


def measure(threads: int) -> None:
    """Print, on rank 0, a step of B rows on all ranks, and its parts."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    fastrnn.set_num_threads(threads)
    comm = Counted(world)
    layer, gradients = network(len(range(comm.rank, B, comm.size)), comm.rank)
    adam = fastrnn.Adam(layer)
    own: list[float] = []
    waited: list[float] = []
    with fastrnn.distributed(adam, comm) as both:

        def step() -> None:
            begin, before = time.perf_counter(), comm.seconds
            grads, loss = gradients()
            own.append(time.perf_counter() - begin)
            both.step(grads, loss=loss, weight=len(range(comm.rank, B, comm.size)) * T)
            waited.append(comm.seconds - before)

        calls, size = comm.calls, comm.bytes
        times = timed(step, world.Barrier)
        calls, size = comm.calls - calls, comm.bytes - size
    vector = np.zeros(vector_bytes() // 8)
    alone = timed(lambda: world.Allreduce(MPI.IN_PLACE, vector), world.Barrier)
    small = np.zeros(8)
    latency = min(timed(lambda: world.Allreduce(MPI.IN_PLACE, small), world.Barrier))
    if comm.rank == 0:
        rest = np.array(times) - own[1:] - np.array(waited[1:])
        print(
            f"ranks {comm.size}, threads {threads}: step {ms(np.median(times))} median, "
            f"{ms(min(times))} least; medians of its parts: gradients {ms(np.median(own[1:]))}, "
            f"all-reduce and waiting for it {ms(np.median(waited[1:]))}, the rest "
            f"{ms(np.median(rest))}; the all-reduce alone {ms(min(alone))}, of 64 bytes "
            f"{1e6 * latency:.1f} us; {calls / (REPEATS + 1):g} calls and "
            f"{size / (REPEATS + 1):.0f} bytes a step"
        )


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{1e3 * seconds:.2f} ms"


def predict(model: Model) -> None:
    """Print what the model says of n nodes: B rows in all, and B rows each."""
    for name, rows_of in ((f"{B} rows in all", lambda n: B), (f"{B} rows each", lambda n: B * n)):
        print(f"{name}:\n{'nodes':>6} {'step':>10} {'all-reduce':>10} {'speed-up':>9} {'of n':>6}")
        for nodes in (1, 2, 4, 8, 64, 512):
            rows = rows_of(nodes)
            step = model.step(nodes, rows)
            faster = model.step(1, rows) / step if rows == B else nodes * model.step(1, B) / step
            print(
                f"{nodes:6} {ms(step):>10} {ms(model.all_reduce(nodes)):>10} "
                f"{faster:9.2f} {faster / nodes:6.0%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", nargs="?", choices=["measure", "rows", "predict"], default="measure"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=float, default=2e-3, help="seconds a step without a row")
    parser.add_argument("--rate", type=float, default=5e10, help="operations a second")
    parser.add_argument("--optimiser", type=float, default=2e-3, help="seconds a step")
    parser.add_argument("--latency", type=float, default=2e-6, help="seconds a message")
    parser.add_argument("--bandwidth", type=float, default=3e9, help="bytes a second")
    parser.add_argument("--cores", type=int, default=2**31, help="that the ranks share")
    args = parser.parse_args()
    if args.what == "predict":
        constants = args.steps, args.rate, args.optimiser, args.latency, args.bandwidth, args.cores
        predict(Model(*constants))
        return
    if os.environ.get("PMI_RANK", "0") == "0":
        print(machine.line(machine.facts(args.threads)))
    if args.what == "rows":
        by_rows(args.threads)
    else:
        measure(args.threads)


if __name__ == "__main__":
    main()
