"""Inference on Spark: a pandas UDF that gets the layer once a worker.

    pip install 'fastrnn[cluster]'
    python examples/cluster/with_spark.py

Needs Java. Spark sets OMP_NUM_THREADS to the cores of a task, one by default; fastrnn honours it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

import numpy as np
import pandas
import work
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf
from work import I, embed, frozen_layer, ragged_rows, report

import fastrnn


def main(n: int = 4000, workers: int = 2) -> None:
    layer, rows = frozen_layer(), ragged_rows(n)
    with fastrnn.num_threads(1):
        begin = time.perf_counter()
        expected = embed(layer, rows)
        alone = time.perf_counter() - begin
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master(f"local[{workers}]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.executorEnv.OMP_NUM_THREADS", "1")
        .getOrCreate()
    )
    spark.sparkContext.addPyFile(work.__file__)
    there = spark.sparkContext.broadcast(layer)

    @pandas_udf("array<float>")
    def states(batches: Iterator[pandas.Series]) -> Iterator[pandas.Series]:
        layer = there.value
        for batch in batches:
            sequences = [np.frombuffer(each, np.float32).reshape(-1, I) for each in batch]
            yield pandas.Series(list(embed(layer, sequences)))

    items = [(number, row.tobytes()) for number, row in enumerate(rows)]
    frame = spark.createDataFrame(items, "row int, x binary").repartition(4 * workers)
    begin = time.perf_counter()
    found = frame.select("row", states("x").alias("h")).collect()
    seconds = time.perf_counter() - begin
    spark.stop()
    got = np.empty_like(expected)
    for each in found:
        got[each["row"]] = each["h"]
    same = np.array_equal(got, expected)
    report("ragged, pandas UDF, start included", rows, seconds, alone, same)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.rows, arguments.workers)
