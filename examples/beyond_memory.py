"""Train on more data than there is memory: windows of one large file, or an iterator of files.

    python examples/beyond_memory.py --gib 4 --limit-gib 1
    mpiexec -n 2 python -m mpi4py examples/beyond_memory.py --mpi

The data are made: a sparse file of `--gib`, and small files of marks. Sequences (T, I) are read a
window of rows at a time, by a thread that is one window ahead; each rank reads windows of its own.
`--limit-gib` bounds the address space of the process, so that what would hold all data fails.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import resource
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn

T, I, H, WINDOW = 32, 1024, 8, 64  # a window is 8 MiB


def windows(path: Path, rank: int, size: int) -> Iterator[Any]:
    """Yield this rank's windows (rows, T, I) of a file; one is mapped at a time."""
    row_bytes = 4 * T * I
    rows = path.stat().st_size // row_bytes
    for first in range(WINDOW * rank, rows, WINDOW * size):
        shape = (min(WINDOW, rows - first), T, I)
        mapped = np.memmap(path, np.float32, "r", offset=first * row_bytes, shape=shape)
        yield np.array(mapped)  # read here, in the thread that is ahead


def files(paths: Iterable[Path], rank: int, size: int) -> Iterator[Any]:
    """Yield this rank's files, (rows, T, I) each."""
    for number, path in enumerate(paths):
        if number % size == rank:
            yield np.load(path)


def prefetched(items: Iterator[Any], ahead: int = 1) -> Iterator[Any]:
    """Yield what an iterator does; a thread makes the next ones meanwhile. Errors come through."""
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(ahead)
    stop, end = threading.Event(), object()

    def work() -> None:
        try:
            for item in items:
                ready.put((item, None))
                if stop.is_set():
                    return
            ready.put((end, None))
        except BaseException as error:
            ready.put((end, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.1)


class Alone:
    """The group of a single process."""

    rank, size = 0, 1

    def allreduce_(self, flat: Any) -> None:
        """The sum over one process is there already."""

    def broadcast_(self, flat: Any) -> None:
        """Rank 0's vector is there already."""


def train(comm: Any, batches: Iterator[Any], steps: int) -> tuple[float, int]:
    """Make the same number of steps on every rank; return the last loss and the rows seen."""
    layer = fastrnn.LSTM(I, H, rng=0)
    loss, rows = float("nan"), 0
    with fastrnn.distributed(fastrnn.Adam(layer, lr=1e-3), comm, max_norm=1.0) as adam:
        for _ in range(steps):
            batch = next(batches, None)
            if batch is None:  # the other ranks have rows left
                loss = adam.step()
                continue
            x = np.ascontiguousarray(batch.swapaxes(0, 1))
            y, _, tape = layer.forward(x)
            own, dy = fastrnn.mse(y, np.tanh(x[..., :H]))
            loss = adam.step(layer.backward(tape, dy), loss=own, weight=len(batch))
            rows += len(batch)
    return loss, rows


def main(gib: float, limit_gib: float, mpi: bool) -> None:
    comm: Any = Alone()
    if mpi:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = folder / "large.f32"
        with large.open("wb") as file:
            file.truncate(int(gib * 2**30))
        rng = np.random.default_rng(0)
        small = [folder / f"{n}.npy" for n in range(8)]
        for path in small:
            np.save(path, rng.standard_normal((WINDOW, T, I)).astype(np.float32))
        if limit_gib:
            limit = int(limit_gib * 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        count = -(-(large.stat().st_size // (4 * T * I)) // WINDOW)
        for what, items, n in [
            ("one file", windows(large, comm.rank, comm.size), count),
            ("files", files(small, comm.rank, comm.size), len(small)),
        ]:
            loss, rows = train(comm, prefetched(items), -(-n // comm.size))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"rank {comm.rank}: {what}: {rows} rows, loss {loss:.4f}, peak {peak:.2f} GiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.0, help="of the large file")
    parser.add_argument("--limit-gib", type=float, default=0.0, help="of address space; 0: none")
    parser.add_argument("--mpi", action="store_true", help="the ranks are those of mpiexec")
    arguments = parser.parse_args()
    main(arguments.gib, arguments.limit_gib, arguments.mpi)
