"""``fastrnn bench sweep``: one layer over a grid of B and H, and where a larger shape is slower.

Throughput grows with B and H until the peak, and falls a little where weights leave a cache. Where
it drops by more than a fifth from one shape to the next larger one, sizes fall between the tiles.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ... import backends, get_num_threads, set_num_threads
from ...typing import Array
from ..console import echo
from . import machine, plots
from .figures import three
from .markdown import markdown_table
from .options import sweep_command
from .problem import LAYERS
from .shapes import Case, Shape

DIP = 0.2  # of a neighbour's throughput
STEPS = 16
_TURNS = 5  # in which a dip and its neighbour are measured again before it counts
_ROUNDS = 3
_SAMPLE = 1e-3  # seconds that a sample lasts at least

Axes = tuple[list[int], list[int]]  # B and H

FULL: Axes = (list(range(1, 41)), list(range(16, 521, 8)))
QUICK: Axes = (list(range(1, 14)), list(range(16, 73, 8)))
_SHOWN: Axes = (
    [1, 2, 3, 4, 6, 8, 12, 16, 17, 24, 32, 40],
    [16, 24, 32, 48, 64, 96, 128, 256, 384, 512, 520],
)


@dataclass(frozen=True)
class Dip:
    """A shape that is slower than its smaller neighbour."""

    cell: str
    B: int
    H: int
    gflops: float
    neighbour: str
    """``B=..`` or ``H=..``: what differs."""
    neighbours_gflops: float

    @property
    def loss(self) -> float:
        """Part of the neighbour's throughput that is missing."""
        return 1 - self.gflops / self.neighbours_gflops


@dataclass(frozen=True)
class Sweep:
    """What a run found."""

    command: str
    machine: dict[str, str]
    mode: str
    dtype: str
    T: int
    B: list[int]
    H: list[int]
    gflops: dict[str, list[list[float]]]
    """Of each cell, by H, then B."""
    dips: list[Dip]
    """The deepest first."""

    def grid(self, cell: str) -> Array:
        """GFLOP/s (H, B) of a cell."""
        return np.array(self.gflops[cell])


def suspects(cell: str, Bs: list[int], Hs: list[int], gflops: Array) -> Iterator[Dip]:
    """Shapes whose throughput is more than `DIP` below that of the next smaller B or H."""
    for h, H in enumerate(Hs):
        for b, B in enumerate(Bs):
            smaller = []
            if b:
                smaller.append((float(gflops[h, b - 1]), f"B={Bs[b - 1]}"))
            if h:
                smaller.append((float(gflops[h - 1, b]), f"H={Hs[h - 1]}"))
            rate, name = max(smaller, default=(0.0, ""))
            if gflops[h, b] < (1 - DIP) * rate:
                yield Dip(cell, B, H, float(gflops[h, b]), name, rate)


def run(options: argparse.Namespace, *, alone: bool = False) -> int:
    """Measure, print the dips and some of the grid, and write what is asked for."""
    threads = options.threads or get_num_threads()
    restricted = machine.restrict(threads) if alone else "set to this number"
    set_num_threads(threads)
    try:
        paths = [_writable(name) for name in options.report]
        reason = backends.fallback()
        if reason is not None:
            raise RuntimeError(reason)
    except (OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"fastrnn bench sweep: {error}\n")
        return 2
    Bs, Hs = QUICK if options.quick else FULL
    tqdm.monitor_interval = 0  # no thread of its own beside those that are measured
    gflops, dips = {}, []
    for cell in options.cell:
        grid = measure(cell, Bs, Hs, options.mode, options.dtype)
        gflops[cell] = grid.tolist()
        again = (confirmed(d, options.mode, options.dtype) for d in suspects(cell, Bs, Hs, grid))
        dips += [dip for dip in again if dip.loss > DIP]
    dips.sort(key=lambda dip: -dip.loss)
    facts = machine.facts(threads) | {"threads": f"{threads}: {restricted}"}
    command = sweep_command(options, threads)
    found = Sweep(command, facts, options.mode, options.dtype, STEPS, Bs, Hs, gflops, dips)
    echo(_tables(found))
    for path in paths:
        path.write_text(WRITERS[path.suffix](found), encoding="utf-8")
        echo(f"\nwritten: {path}")
    return 0


def measure(cell: str, Bs: list[int], Hs: list[int], mode: str, dtype: str) -> Array:
    """GFLOP/s by H, then B."""
    gflops = np.zeros((len(Hs), len(Bs)))
    for h in tqdm(range(len(Hs)), desc=cell, unit="H", leave=False, disable=None):
        layer = _layer(cell, Hs[h], mode, dtype)
        for b, B in enumerate(Bs):
            gflops[h, b] = _gflops(layer, _case(cell, B, Hs[h], mode, dtype))
    return gflops


def confirmed(dip: Dip, mode: str, dtype: str) -> Dip:
    """The dip with both throughputs measured again, in turns: other programs slow both."""
    name, _, value = dip.neighbour.partition("=")
    sizes = {"B": dip.B, "H": dip.H}
    shapes = [sizes, sizes | {name: int(value)}]
    layers = [_layer(dip.cell, each["H"], mode, dtype) for each in shapes]
    cases = [_case(dip.cell, each["B"], each["H"], mode, dtype) for each in shapes]
    rates = [
        [_gflops(layer, case) for layer, case in zip(layers, cases, strict=True)]
        for _ in range(_TURNS)
    ]
    own, neighbours = sorted(rates, key=lambda pair: pair[0] / pair[1])[_TURNS // 2]
    return replace(dip, gflops=own, neighbours_gflops=neighbours)


def _layer(cell: str, H: int, mode: str, dtype: str) -> Any:
    layer = LAYERS[cell](H, H, rng=0, dtype=np.dtype(dtype))
    if mode == "inference":
        layer.freeze()
    return layer


def _case(cell: str, B: int, H: int, mode: str, dtype: str) -> Case:
    return Case("", Shape(cell, STEPS, B, H, H), mode, dtype)


def _gflops(layer: Any, case: Case) -> float:
    return case.gflop / _seconds(_call(layer, case))


def _call(layer: Any, case: Case) -> Callable[[], Any]:
    s = case.shape
    x = np.random.default_rng(0).standard_normal((s.T, s.B, s.I)).astype(layer.dtype)
    if case.mode == "inference":
        return lambda: layer(x)
    dy = np.ones((s.T, s.B, s.H), layer.dtype)
    return lambda: layer.backward(layer.forward(x)[2], dy)


def _seconds(call: Callable[[], Any]) -> float:
    """The least of some rounds."""
    call()
    clock, count, best = time.perf_counter, 1, math.inf
    for number in range(_ROUNDS + 1):
        start = clock()
        for _ in range(count):
            call()
        each = (clock() - start) / count
        if number:
            best = min(best, each)
        else:  # the first says how many calls make a sample
            count = max(1, math.ceil(_SAMPLE / each))
    return best


def _tables(found: Sweep) -> str:
    """The dips, and part of the grid, as Markdown."""
    below = found.dips
    shapes = len(found.B) * len(found.H)
    parts = [
        machine.line(found.machine),
        f"{found.mode} in {found.dtype}, T = {found.T}, I = H: {shapes} shapes of each cell, of "
        f"which {len(below)} are more than {DIP:.0%} slower, in GFLOP/s, than the next smaller",
    ]
    if below:
        lines = [
            [
                f"{dip.cell} B={dip.B} H={dip.H}",
                three(dip.gflops),
                dip.neighbour,
                three(dip.neighbours_gflops),
                f"{dip.loss:.0%}",
            ]
            for dip in below
        ]
        parts.append(markdown_table(["shape", "GFLOP/s", "beside", "GFLOP/s", "less"], lines))
    Bs = [B for B in found.B if B in _SHOWN[0]]
    columns = [found.B.index(B) for B in Bs]
    for cell in found.gflops:
        grid = found.grid(cell)
        lines = [
            [f"{cell} H={H}", *map(three, grid[h, columns])]
            for h, H in enumerate(found.H)
            if H in _SHOWN[1]
        ]
        parts.append(markdown_table(["GFLOP/s", *(f"B={B}" for B in Bs)], lines))
    return "\n\n".join(parts)


def _markdown(found: Sweep) -> str:
    facts = "\n".join(f"- {name}: {value}" for name, value in found.machine.items())
    head = ["# fastrnn bench sweep", f"```sh\n{found.command}\n```", facts]
    return "\n\n".join([*head, _tables(found)]) + "\n"


def _json(found: Sweep) -> str:
    return json.dumps(asdict(found)) + "\n"


def _picture(found: Sweep) -> str:
    marked = {cell: [(d.B, d.H) for d in found.dips if d.cell == cell] for cell in found.gflops}
    grids = {cell: found.grid(cell) for cell in found.gflops}
    return plots.heat_maps(found.B, found.H, grids, marked, machine.line(found.machine))


WRITERS = {".md": _markdown, ".svg": _picture, ".json": _json}


def _writable(name: str) -> Path:
    path = Path(name)
    if path.suffix not in WRITERS:
        raise ValueError(f"--report {name} must end in one of {', '.join(WRITERS)}")
    with path.open("a", encoding="utf-8"):
        return path
