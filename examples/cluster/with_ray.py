"""Inference with Ray Data: `map_batches` with a class, of which each worker makes one object.

    pip install 'fastrnn[cluster]'
    python examples/cluster/with_ray.py

Ray sets OMP_NUM_THREADS to the CPUs of an actor, one by default, which fastrnn honours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from work import I, embed, frozen_layer, ragged_rows, report

import fastrnn


class Embed:
    """Holds the layer of one worker."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = [np.frombuffer(each, np.float32).reshape(-1, I) for each in batch["x"]]
        threads = np.full(len(rows), fastrnn.get_num_threads())
        return {"row": batch["row"], "h": embed(self.layer, rows), "threads": threads}


def main(n: int = 4000, workers: int = 2) -> None:
    layer, rows = frozen_layer(), ragged_rows(n)
    with fastrnn.num_threads(1):
        begin = time.perf_counter()
        expected = embed(layer, rows)
        alone = time.perf_counter() - begin
    here = {"working_dir": str(Path(__file__).parent)}
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, runtime_env=here)
    items = [{"row": number, "x": row.tobytes()} for number, row in enumerate(rows)]
    mapped = ray.data.from_items(items).map_batches(
        Embed,
        fn_constructor_args=(layer,),
        batch_size=max(1, n // (4 * workers)),
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    begin = time.perf_counter()
    found = mapped.take_all()
    seconds = time.perf_counter() - begin
    ray.shutdown()
    print("threads of each worker:", {int(each["threads"]) for each in found})
    got = np.empty_like(expected)
    for each in found:
        got[each["row"]] = each["h"]
    same = np.array_equal(got, expected)
    report("ragged, map_batches, start included", rows, seconds, alone, same)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.rows, arguments.workers)
