"""One rank of a training run: ``program.py FOLDER KIND [HOW RANK STEP]``.

KIND is "mpi" or "gloo"; HOW that rank ends before that step: "raise" or "kill".

Trains on rows shared among the ranks, writes a checkpoint after each step on rank 0, goes on from
one that is there, and prints what `test_processes.py` looks at.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn.io import safetensors

STEPS, ROWS, T, I, H = 6, 10, 6, 3, 5


def group(kind: str, folder: Path) -> Any:
    if kind == "mpi":
        from mpi4py import MPI

        return MPI.COMM_WORLD
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    return dist.group.WORLD


def main(folder: Path, kind: str, how: str = "", fail_rank: str = "", fail_step: str = "") -> None:
    layer = fastrnn.LSTM(I, H, dtype=np.float64, rng=0)
    adam = fastrnn.Adam(layer, lr=0.01)
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        arrays, _ = safetensors.read(checkpoint)
        adam.load_state_dict({name: arrays.pop(name) for name in adam.state_dict()})
        layer.load_params(arrays)
    with fastrnn.distributed(adam, group(kind, folder)) as both:
        sys.stdout.write(f"rank {both.rank} of {both.size}\n")
        for step in range(adam.steps, STEPS):
            if how and (both.rank, step) == (int(fail_rank), int(fail_step)):
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError("the disk is full")
            rng = np.random.default_rng(step)
            x, target = rng.standard_normal((T, ROWS, I)), rng.standard_normal((T, ROWS, H))
            own = slice(both.rank, None, both.size)
            y, _, tape = layer.forward(np.ascontiguousarray(x[:, own]))
            loss, dy = fastrnn.mse(y, target[:, own])
            both.step(layer.backward(tape, dy), loss=loss, weight=dy.size)
            if both.rank == 0:
                safetensors.write(checkpoint, dict(layer.params) | adam.state_dict())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    finally:
        if "gloo" in sys.argv:  # torch's threads must end before the interpreter
            import torch.distributed as dist

            dist.destroy_process_group()
