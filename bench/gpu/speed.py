"""Microseconds a step of ours and of torch's cuDNN: forward, and forward with backward.

Inputs are random numbers: a GPU takes less power for zeros, and runs faster. The most important
shapes come first; the phase ends when its time is over.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from . import setting

PRECISIONS = {"float32": "highest", "TF32": "high", "bfloat16": "medium"}
SECONDS = 0.4  # for one measurement


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    torch = setting.torch_if_any()
    backend = setting.backend(emulated)
    device = {"device": backend._device.name}
    for T, H, B, kind in shapes(emulated):
        shape = device | {"kind": kind, "T": T, "H": H, "B": B}
        measured = itertools.chain(
            ours(backend, kind, T, H, B, emulated), theirs(torch, kind, T, H, B, emulated)
        )
        for record in measured:
            yield shape | record
            if not in_time():
                yield shape | {"stopped": "the time is over"}
                return


def shapes(emulated: bool) -> list[tuple[int, int, int, str]]:
    """T, H, B and the cell, the most important ones first."""
    if emulated:
        return [(6, 12, 3, "LSTM"), (6, 12, 3, "GRU")]
    grid = [(256, H, B) for B in (16, 1, 64, 256) for H in (512, 1024, 256, 2048, 128)]
    found = [(1024, 768, 16, kind) for kind in ("LSTM", "GRU")]
    found += [(*shape, "LSTM") for shape in grid]
    return found + [(*shape, "GRU") for shape in grid]


def ours(
    backend: Any, kind: str, T: int, H: int, B: int, emulated: bool
) -> Iterator[dict[str, Any]]:
    import fastrnn
    from fastrnn.backends.cuda import persistent, tune

    x = backend.xp.asarray(np.random.default_rng(0).standard_normal((T, B, H)), np.float32)
    ways = [(name, "chosen") for name in PRECISIONS]
    ways += itertools.product(("float32", "bfloat16"), persistent.EXCHANGES)
    ways += [("float32", tune.STEPS)]
    for name, way in ways:
        layer = getattr(fastrnn, kind)(H, H, rng=0, precision=PRECISIONS[name], backend="cuda")
        layer.freeze()

        def forward(layer: Any = layer) -> None:
            layer(x)

        def both(layer: Any = layer) -> None:
            y, _, tape = layer.forward(x)
            layer.backward(tape, y)

        with nullcontext() if way == "chosen" else tune.forced(way):
            explained = layer.explain(x)
            how = explained["time loop"]
            if way in persistent.EXCHANGES and explained.get("exchange") != way:
                continue  # it is not to be had
            for what, run in {"forward": forward, "both": both}.items():
                us = measure(run, backend._device.time, emulated) / T
                record = {"who": "fastrnn", "precision": name, "way": how, "asked for": way}
                yield record | {"what": what, "us": us}


def theirs(
    torch: Any, kind: str, T: int, H: int, B: int, emulated: bool
) -> Iterator[dict[str, Any]]:
    """torch's module in each of its precisions; on the CPU, in a dry run, the first one alone."""
    if torch is None:
        return
    where = "cpu" if emulated else "cuda"
    ways = {
        "float32": (torch.float32, False),
        "TF32": (torch.float32, True),
        "bfloat16": (torch.bfloat16, True),
        "float16": (torch.float16, True),
    }
    for name, (dtype, tf32) in list(ways.items())[: 1 if emulated else None]:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        module = getattr(torch.nn, kind)(H, H, device=where, dtype=dtype)
        x = torch.randn(T, B, H, device=where, dtype=dtype, requires_grad=True)

        def forward(module: Any = module, x: Any = x) -> None:
            with torch.no_grad():
                module(x)

        def both(module: Any = module, x: Any = x) -> None:
            y, _ = module(x)
            y.backward(y.detach())

        for what, run in {"forward": forward, "both": both}.items():
            us = measure(run, host_time if emulated else lambda run: events(torch, run), emulated)
            yield {"who": "torch", "precision": name, "what": what, "us": us / T}


def measure(run: Callable[[], None], clock: Callable[..., float], emulated: bool) -> float:
    """Median of a call's microseconds, after calls that warm up: compile, record, find a plan."""
    for _ in range(1 if emulated else 4):
        run()
    times = []
    end = time.perf_counter() + SECONDS
    while len(times) < (2 if emulated else 20) or (len(times) < 50 and time.perf_counter() < end):
        times.append(clock(run))
        if len(times) >= 5 and time.perf_counter() > end + SECONDS:  # seconds a call
            break
    return statistics.median(times)


def host_time(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e6


def events(torch: Any, run: Callable[[], None]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e3
