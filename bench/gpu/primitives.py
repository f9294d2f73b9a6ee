"""Launches, graphs, meetings of blocks, what blocks exchange, clusters: right, and how long."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.backends.cuda import compile
from fastrnn.backends.cuda.device import CLUSTERS

from . import setting

HERE = Path(__file__).parent
PROGRAM = compile.Program((compile.GPU, str(HERE / "primitives.cu")), ())
FRAGMENTS = compile.Program((compile.GPU, str(HERE / "fragments.cu")), ())
THREADS = 256


def clusters(blocks: int) -> compile.Program:
    """The program of clusters of so many blocks."""
    files = (compile.GPU, str(HERE / "cluster.cu"))
    return compile.Program(files, (("FASTRNN_CLUSTER", str(blocks)),))


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    device = setting.backend(emulated)._device
    threads = 64 if emulated else THREADS
    yield {"device": device.name, **launches(device, 3 if emulated else 1000)}
    for blocks in (1, 2, 5) if emulated else sorted({1, 2, 8, 32, 64, device.multiprocessors}):
        yield meetings(device, blocks, threads, 3 if emulated else 2000)
    for blocks, width in ((4, 6),) if emulated else ((32, 32), (64, 128), (128, 128), (128, 512)):
        if blocks <= device.multiprocessors:
            yield exchange(device, blocks, width, threads, 5 if emulated else 500)
    yield fragments(device)
    yield round_trip(device, 3 if emulated else 2000)
    yield cooperative_graph(device, threads)
    for blocks in (2,) if emulated else (2, 4, 8):
        if not in_time():
            return
        yield cluster(device, blocks, threads, 3 if emulated else 1000)


def address(a: Any) -> Any:
    return a.data.ptr


def launches(device: Any, count: int) -> dict[str, Any]:
    """A launch that does nothing: from Python, and as a part of a graph."""
    kernel = device.kernel(PROGRAM, "nothing")

    def queue() -> None:
        for _ in range(count):
            kernel((1,), (32,), (0,))

    queue()
    begin = time.perf_counter()
    queue()
    host = (time.perf_counter() - begin) / count * 1e6
    one_by_one = statistics.median(device.time(queue) for _ in range(5)) / count
    graph = device.record(queue)
    if graph is not None:
        graph()
        in_graph = statistics.median(device.time(graph) for _ in range(5)) / count
    return {
        "what": "launch",
        "us on the host": round(host, 3),
        "us": round(one_by_one, 3),
        "us in a graph": None if graph is None else round(in_graph, 3),
        "ok": True,
    }


def fresh(device: Any) -> tuple[Any, Any]:
    return device.xp.zeros(1, np.uint32), device.xp.zeros(1, np.uint32)


def on_host(device: Any, a: Any) -> Any:
    return device.xp.asnumpy(a)


def repeated(device: Any, run: Callable[[Any, Any], None]) -> tuple[float, bool]:
    """Median of five times; whether nobody was ever late."""
    times, late = [], 0
    for _ in range(6):
        counter, flag = fresh(device)
        times.append(device.time(lambda counter=counter, flag=flag: run(counter, flag)))
        late += int(on_host(device, flag)[0])
    return statistics.median(times[1:]), late == 0


def meetings(device: Any, blocks: int, threads: int, rounds: int) -> dict[str, Any]:
    kernel, room = device.cooperative(PROGRAM, "meetings", threads, 16)

    def run(counter: Any, flag: Any) -> None:
        kernel((blocks,), (threads,), (rounds, address(counter), address(flag)), 16)

    us, ok = repeated(device, run) if blocks <= room else (0.0, False)
    return {"what": "meeting", "blocks": blocks, "us": round(us / rounds, 3), "ok": ok}


def exchange(device: Any, blocks: int, width: int, threads: int, rounds: int) -> dict[str, Any]:
    xp = device.xp
    kernel, _ = device.cooperative(PROGRAM, "exchange", threads, 16)
    values = xp.empty((2, blocks * width), np.float32)
    sums = xp.empty(blocks * threads, np.float32)

    def run(counter: Any, flag: Any) -> None:
        arrays = (address(values), address(sums), address(counter), address(flag))
        kernel((blocks,), (threads,), (rounds, width, *arrays), 16)

    us, in_time = repeated(device, run)
    r, b, i = np.ogrid[:rounds, :blocks, :width]
    # each block adds up everything, each of its threads a part
    want = int(((r + b + i) % 8).sum()) * blocks
    ok = in_time and bool(on_host(device, sums).sum(dtype=np.float64) == want)
    size = blocks * width * 4
    us = round(us / rounds, 3)
    return {"what": "exchange", "blocks": blocks, "bytes": size, "us": us, "ok": ok}


def round_trip(device: Any, rounds: int) -> dict[str, Any]:
    """A word to another block and back: two ways through the L2 cache."""
    kernel, _ = device.cooperative(PROGRAM, "round_trip", 32, 16)
    found: list[Any] = []

    def run(_: Any, flag: Any) -> None:
        words = device.xp.zeros((2, 32), np.float32)
        kernel((2,), (32,), (rounds, address(words), address(flag)), 16)
        found.append(words)

    us, in_time = repeated(device, run)
    ok = in_time and all((on_host(device, words)[:, 0] == rounds).all() for words in found)
    return {"what": "round trip of a word", "us": round(us / rounds, 3), "ok": bool(ok)}


def fragments(device: Any) -> dict[str, Any]:
    """Small integers, whose products and sums are exact in all formats."""
    record = {"what": "tensor cores", "ok": True}
    if device.capability < 80:
        return record | {"not run": "compute capability below 8.0"}
    xp, draw = device.xp, np.random.default_rng(0)
    a8, b8, a16, b16 = (
        draw.integers(-8, 9, shape).astype(np.float32)
        for shape in ((16, 8), (8, 8), (16, 16), (16, 8))
    )
    tf32, bf16 = xp.empty((16, 8), np.float32), xp.empty((16, 8), np.float32)
    arrays = (*map(xp.asarray, (a8, b8)), tf32, *map(xp.asarray, (a16, b16)), bf16)
    device.kernel(FRAGMENTS, "fragments")((1,), (32,), tuple(map(address, arrays)))
    right = {
        "TF32": bool((on_host(device, tf32) == a8 @ b8).all()),
        "bfloat16": bool((on_host(device, bf16) == a16 @ b16).all()),
    }
    return record | right | {"ok": all(right.values())}


def cooperative_graph(device: Any, threads: int) -> dict[str, Any]:
    """Whether a cooperative launch can be part of a graph; no kernel of ours needs it."""
    kernel, _ = device.cooperative(PROGRAM, "meetings", threads, 16)
    counter, flag = fresh(device)
    arguments = ((2,), (threads,), (3, address(counter), address(flag)), 16)
    kernel(*arguments)
    graph = device.record(lambda: kernel(*arguments))
    if graph is None:
        return {"what": "cooperative launch in a graph", "possible": False, "ok": True}
    counter[...] = 0
    graph()
    ok = int(on_host(device, counter)[0]) == 6
    return {"what": "cooperative launch in a graph", "possible": True, "ok": ok}


def cluster(device: Any, blocks: int, threads: int, rounds: int) -> dict[str, Any]:
    """Clusters whose blocks write to each other's shared memory, on all of the device."""
    record = {"what": "cluster", "blocks": blocks, "ok": True}
    if device.capability < CLUSTERS:
        return record | {"not run": "compute capability below 9.0"}
    groups = max(1, device.multiprocessors // blocks)
    sums = device.xp.empty((groups, blocks), np.float32)
    kernel = device.kernel(clusters(blocks), "clusters")

    def run() -> None:
        kernel((blocks, groups), (threads,), (rounds, address(sums)), 2 * blocks * 4)

    run()
    us = statistics.median(device.time(run) for _ in range(5)) / rounds
    want = (np.add.outer(np.arange(rounds), np.arange(blocks)) % 8).sum()
    ok = bool((on_host(device, sums) == want).all())
    return record | {"us": round(us, 3), "ok": ok}
