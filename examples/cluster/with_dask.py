"""Inference on a Dask cluster: ragged rows in a bag, and blocks of a dense array.

    pip install 'fastrnn[cluster]'
    python examples/cluster/with_dask.py

The layer goes to each worker once; Dask gives a worker one thread and says so in OMP_NUM_THREADS,
which fastrnn honours.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import dask.array
import dask.bag
import numpy as np
import work
from dask.distributed import Client, LocalCluster
from work import H, I, embed, frozen_layer, ragged_rows, report

import fastrnn


def last_states(x: Any, layer: Any) -> Any:
    """Last states of a block of rows, (rows, T, I) -> (rows, H)."""
    _, h = layer(np.ascontiguousarray(x.swapaxes(0, 1)))
    return h[-1]


def main(n: int = 4000, workers: int = 2) -> None:
    layer, rows = frozen_layer(), ragged_rows(n)
    with fastrnn.num_threads(1):
        begin = time.perf_counter()
        expected = embed(layer, rows)
        alone = time.perf_counter() - begin
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        print("threads of each worker:", set(client.run(fastrnn.get_num_threads).values()))
        client.upload_file(work.__file__)
        there = client.scatter(layer, broadcast=True)
        bag = dask.bag.from_sequence(rows, npartitions=4 * workers)
        states = bag.map_partitions(lambda part, layer: [embed(layer, list(part))], there)
        begin = time.perf_counter()
        got = np.concatenate(states.compute())
        report("ragged, bag.map_partitions", rows, time.perf_counter() - begin, alone,
               np.array_equal(got, expected))  # fmt: skip

        x = np.random.default_rng(2).standard_normal((n, 30, I)).astype(np.float32)
        blocks = dask.array.from_array(x, chunks=(max(1, n // (4 * workers)), -1, -1))
        mapped = blocks.map_blocks(
            last_states, there, drop_axis=[1, 2], new_axis=[1], chunks=(blocks.chunks[0], (H,)),
            dtype=np.float32, meta=np.empty((0, 0), np.float32),
        )  # fmt: skip
        begin = time.perf_counter()
        got = mapped.compute()
        seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        expected = last_states(x, layer)
        alone = time.perf_counter() - begin
        report("dense, array.map_blocks", list(x), seconds, alone, np.array_equal(got, expected))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.rows, arguments.workers)
