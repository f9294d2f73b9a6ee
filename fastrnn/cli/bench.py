"""``fastrnn bench``: forward and backward on this machine, with checked answers."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, backends, get_num_threads
from .model import CELLS
from .progress import Progress

Array = np.ndarray[Any, np.dtype[Any]]
Answer = dict[str, Array]

# cell, T, B, I, H: few rows and many, small layers and large
SHAPES = [
    ("lstm", 100, 1, 64, 64),
    ("gru", 100, 1, 128, 128),
    ("lstm", 100, 32, 128, 128),
    ("gru", 100, 32, 256, 256),
    ("rnn", 100, 32, 256, 256),
    ("lstm", 50, 64, 512, 512),
]
QUICK = SHAPES[:3]

MODES = ("forward", "forward+backward")

# Largest difference from the numpy backend, relative to the largest value of an array: float32
# sums of a few thousand products, in another order.
_TOLERANCE = 1e-4


@dataclass
class Contender:
    """One way to compute; `run` takes a mode and returns the answer."""

    name: str
    run: Callable[[str], Answer]


def run(options: argparse.Namespace) -> int:
    """Measure, print a table, and write JSON if asked."""
    repeats = 3 if options.quick else 9
    results = []
    progress = Progress()
    for index, shape in enumerate(shapes := QUICK if options.quick else SHAPES):
        for mode in MODES:
            progress.show(index / len(shapes), f"{_words(shape)} {mode}")
            results.append(_measure(shape, mode, repeats))
    progress.clear()
    names = list(results[0]["seconds"])
    report = {
        "fastrnn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": get_num_threads(),
        "repeats": repeats,
        "tolerance": _TOLERANCE,
        "results": results,
    }
    print(
        f"{report['processor']}, {report['threads']} threads, float32; medians of {repeats}, in ms"
    )
    print(f"{'':32}" + "".join(f"{name:>10}" for name in names))
    for result in results:
        medians = (statistics.median(seconds) * 1e3 for seconds in result["seconds"].values())
        cells = "".join(f"{median:10.3f}" for median in medians)
        print(f"{_words(result['shape']):14} {result['mode']:17}{cells}")
    print(f"every answer is within {_TOLERANCE:g} of the numpy backend's")
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(shape: tuple[str, int, int, int, int], mode: str, repeats: int) -> dict[str, Any]:
    """Time all contenders in turns, so that a slow moment of the machine meets them alike."""
    contenders = _contenders(*shape)
    expected = contenders[-1].run(mode)
    for contender in contenders:
        _compare(contender, contender.run(mode), expected)  # and warms up
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            start = time.perf_counter()
            contender.run(mode)
            seconds[contender.name].append(time.perf_counter() - start)
    return {"shape": shape, "mode": mode, "seconds": seconds}


def _contenders(cell: str, steps: int, batch: int, inputs: int, hidden: int) -> list[Contender]:
    """The usable backends with the same weights, and torch if it is there; numpy comes last."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, inputs), np.float32)
    dy = rng.standard_normal((steps, batch, hidden), np.float32)
    names = [name for name in backends.NAMES if backends.why_not(name) is None]
    found = [
        _ours(name, CELLS[cell](inputs, hidden, rng=1, backend=name), x, dy)
        for name in sorted(names, key=lambda name: name == "numpy")
    ]
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(get_num_threads())
    module = getattr(torch.nn, cell.upper())(inputs, hidden)
    layer = CELLS[cell](inputs, hidden, rng=1, backend="numpy")
    module.load_state_dict({name: torch.tensor(value) for name, value in layer.params.items()})
    return [*found[:-1], _torch(torch, module, x, dy), found[-1]]


def _ours(name: str, layer: Any, x: Array, dy: Array) -> Contender:
    def run(mode: str) -> Answer:
        if mode == "forward":
            return {"y": layer(x)[0]}
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, dy)
        return {"y": y, "dx": grads.x, **grads.params}

    return Contender(name, run)


def _torch(torch: Any, module: Any, x: Array, dy: Array) -> Contender:
    tx, tdy = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    def run(mode: str) -> Answer:
        if mode == "forward":
            with torch.no_grad():
                return {"y": module(tx)[0].numpy()}
        module.zero_grad(set_to_none=True)
        tx.grad = None
        y, _ = module(tx)
        y.backward(tdy)
        named = {name: p.grad.numpy() for name, p in module.named_parameters()}
        return {"y": y.detach().numpy(), "dx": tx.grad.numpy(), **named}

    return Contender("torch", run)


def _compare(contender: Contender, answer: Answer, expected: Answer) -> None:
    for name, value in expected.items():
        worst = np.abs(answer[name] - value).max() / np.abs(value).max()
        if not worst <= _TOLERANCE:
            raise SystemExit(
                f"fastrnn bench: {contender.name} is wrong: {name} differs by {worst:.1e} "
                f"of its largest value, {_TOLERANCE:g} allowed"
            )


def _words(shape: tuple[str, int, int, int, int]) -> str:
    cell, steps, batch, inputs, hidden = shape
    return f"{cell} T{steps} B{batch} I{inputs} H{hidden}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
