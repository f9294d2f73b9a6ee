"""What a step of data-parallel training costs on n ranks, and a model of it.

    mpiexec -n 1 python bench/scaling.py        # and -n 2, -n 4: measures, prints lines of figures
    python bench/scaling.py predict             # what the model says of more nodes

The model: a step on n ranks takes

    t(n) = fixed + rows / n * t_row + 2 ceil(log2 n) latency + 2 (n - 1) / n * bytes / bandwidth

rows go over the ranks, the gradients of float64 go through one all-reduce, whose cost is that of a
reduce-scatter and an all-gather (Thakur, Rabenseifner and Gropp 2005, "Optimization of collective
communication operations in MPICH").
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import fastrnn

I, H, T, B = 64, 256, 50, 64
REPEATS = 15


def median(run: Callable[[], object]) -> float:
    """Seconds that a call takes, the median of some."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def measure(threads: int) -> None:
    """Print, on rank 0, the parts of a step and the whole of it."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    fastrnn.set_num_threads(threads)
    layer = fastrnn.LSTM(I, H, rng=0)
    adam = fastrnn.Adam(layer)
    rows = len(range(comm.rank, B, comm.size))
    x = np.random.default_rng(comm.rank).standard_normal((T, rows, I)).astype(np.float32)
    target = np.zeros((T, rows, H), np.float32)

    def gradients() -> tuple[object, float]:
        y, _, tape = layer.forward(x)
        loss, dy = fastrnn.mse(y, target)
        return layer.backward(tape, dy), loss

    with fastrnn.distributed(adam, comm) as both:

        def step() -> None:
            grads, loss = gradients()
            both.step(grads, loss=loss, weight=rows * T)

        whole, alone = median(step), median(gradients)
    if comm.rank == 0:
        print(
            f"ranks {comm.size}  threads {threads}  rows a rank {rows}  step {1e3 * whole:.2f} ms  "
            f"gradients {1e3 * alone:.2f} ms  bytes {8 * (layer.num_params + 6)}"
        )
    for size in (64, 8_192, 65_536, 524_288):
        vector = np.zeros(size)
        taken = median(lambda vector=vector: comm.Allreduce(MPI.IN_PLACE, vector))
        if comm.rank == 0:
            print(f"  all-reduce of {8 * size} bytes: {1e6 * taken:.0f} us")


def predicted(
    nodes: int, rows: int, t_row: float, fixed: float, size: int, latency: float, bandwidth: float
) -> float:
    """Seconds of a step, by the model."""
    sent = 2 * (nodes - 1) / nodes * size / bandwidth
    return fixed + rows / nodes * t_row + 2 * latency * math.ceil(math.log2(nodes)) + sent


def predict(args: argparse.Namespace) -> None:
    """Print a table for networks and numbers of nodes; the rows are those of all nodes together."""
    print(f"{'nodes':>6} {'rows':>7} {'step, ms':>10} {'speed-up':>9} {'efficiency':>11}")
    for rows_of in (lambda n: args.rows, lambda n: args.rows * n):
        for nodes in (1, 2, 4, 8, 64, 512):
            rows = rows_of(nodes)
            parts = (args.t_row, args.fixed, args.bytes, args.latency, args.bandwidth)
            one = predicted(1, rows, *parts)
            many = predicted(nodes, rows, *parts)
            print(
                f"{nodes:6} {rows:7} {1e3 * many:10.2f} {one / many:9.1f} "
                f"{one / many / nodes:11.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["measure", "predict"], default="measure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=B)
    parser.add_argument("--t-row", type=float, default=1e-3, help="seconds for a row")
    parser.add_argument(
        "--fixed", type=float, default=1e-3, help="seconds a step, for the optimiser"
    )
    parser.add_argument("--bytes", type=int, default=2_600_000)
    parser.add_argument("--latency", type=float, default=2e-6, help="seconds a message")
    parser.add_argument("--bandwidth", type=float, default=3e9, help="bytes a second")
    args = parser.parse_args()
    if args.what == "measure":
        measure(args.threads)
    else:
        predict(args)
