"""How the time of a call grows with T, B, H, layers and threads, beside a model of it.

    python bench/growth.py growth.svg

The model is the roofline's: the longer of multiplying and moving. Operations and bytes of a call
are counted in fastrnn/cli/bench/shapes.py; peaks.py beside it measures the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib
import numpy as np

import fastrnn
from fastrnn import backends
from fastrnn.cli.bench import machine, peaks
from fastrnn.cli.bench.shapes import Case, Shape

MODES = ("inference", "training")
ROUNDS = 7


class Point(NamedTuple):
    """One call of an LSTM with I = H."""

    T: int = 100
    B: int = 16
    H: int = 128
    layers: int = 1
    threads: int = 1


def axes(quick: bool) -> dict[str, list[int]]:
    """What varies, one at a time from `Point`'s defaults."""
    if quick:
        return {"T": [1, 4], "B": [1, 3], "H": [8, 20], "layers": [1, 2], "threads": [1, 2]}
    most = fastrnn.get_num_threads()
    return {
        "T": [1, 3, 10, 30, 100, 300, 1000],
        "B": [1, 2, 4, 8, 16, 32, 64, 128, 256],
        "H": [16, 32, 64, 128, 256, 512],
        "layers": [1, 2, 3, 4, 6, 8],
        "threads": list(range(1, most + 1)) if most < 9 else [1, 2, 4, 8, most],
    }


def seconds(point: Point, mode: str) -> float:
    """Median seconds of a call."""
    layer = fastrnn.LSTM(point.H, point.H, point.layers, rng=0)
    shape = point.T, point.B, point.H
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    dy = np.ones_like(x)
    if mode == "inference":
        layer.freeze()

    def run() -> None:
        if mode == "inference":
            layer(x)
        else:
            layer.backward(layer.forward(x)[2], dy)

    with fastrnn.num_threads(point.threads):
        run()
        start = time.perf_counter()
        run()
        count = max(1, int(2e-3 / (time.perf_counter() - start)))
        samples = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for _ in range(count):
                run()
            samples.append((time.perf_counter() - start) / count)
    return statistics.median(samples)


def model(point: Point, mode: str, best: peaks.Peaks) -> float:
    """Seconds by the roofline."""
    case = Case("", Shape("lstm", point.T, point.B, point.H, point.H), mode, "float32")
    roof = best.roof("float32", case.flops, case.bytes, case.working_set)
    assert roof is not None
    return point.layers * case.flops / roof / 1e9


def measure(quick: bool) -> Iterator[tuple[str, str, list[int], list[float], list[float]]]:
    """Axis, mode, values, milliseconds as measured and by the model."""
    best = {n: peaks.measure(n, ("float32",)) for n in {1, *axes(quick)["threads"]}}
    for axis, values in axes(quick).items():
        points = [Point()._replace(**{axis: value}) for value in values]
        for mode in MODES:
            found = [1e3 * seconds(point, mode) for point in points]
            wanted = [1e3 * model(point, mode, best[point.threads]) for point in points]
            pairs = zip(values, found, strict=True)
            print(f"{axis} {mode}:", *(f"{value}: {ms:.3g} ms" for value, ms in pairs))
            yield axis, mode, values, found, wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", help="file to write, .svg or .png")
    parser.add_argument("--quick", action="store_true", help="few small points")
    options = parser.parse_args()
    reason = backends.fallback()
    if reason is not None:
        parser.error(reason)
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters as letters, a tenth of the size
    from matplotlib import pyplot as plt

    names = list(axes(options.quick))
    figure, panels = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.4), squeeze=False)
    for axis, mode, values, found, wanted in measure(options.quick):
        panel = panels[0][names.index(axis)]
        (line,) = panel.loglog(values, found, "o-", label=mode)
        panel.loglog(values, wanted, "--", color=line.get_color(), label=f"{mode}, model")
        others = Point()._asdict().items()
        panel.set_title(", ".join(f"{n}={v}" for n, v in others if n != axis), fontsize=7)
        panel.set_xlabel(axis)
        panel.minorticks_off()
        panel.set_xticks(values, [str(value) for value in values], fontsize=7)
    figure.suptitle(machine.line(machine.facts(fastrnn.get_num_threads())), fontsize=8)
    panels[0][0].set_ylabel("milliseconds")
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(options.picture)


if __name__ == "__main__":
    main()
