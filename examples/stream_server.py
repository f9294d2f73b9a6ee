"""Many streams, one model: a server that runs the steps of all waiting streams in one call.

    python examples/stream_server.py serve --port 8765
    python examples/stream_server.py measure --streams 1 100 2000

A client sends a frame of I float32 and receives one of H float32, again and again; each connection
is a stream with a state of its own. A frame waits a few milliseconds at most for others, then all
of them go through the layer together: their states are gathered, advanced and scattered back.
`measure` shows what that is worth: latency beside a stepper for each stream, and beside an ONNX
Runtime session where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn

I, H = 40, 128


def model() -> fastrnn.GRU:
    """Return what would be loaded from a file: `fastrnn.load`, `fastrnn.onnx.load`."""
    layer = fastrnn.GRU(I, H, rng=0)
    layer.freeze()
    return layer


class Batcher:
    """Runs one step of every stream that waits, in one call each `wait` seconds at most."""

    def __init__(self, layer: Any, streams: int, wait: float = 0.002) -> None:
        self.layer = layer
        self.wait = wait
        self.h = np.zeros((layer.num_layers, streams, layer.hidden_size), np.float32)
        self.free = list(range(streams))
        self._waiting: dict[int, tuple[Any, asyncio.Future[Any]]] = {}

    def open(self) -> int:
        """Begin a stream; return its number."""
        stream = self.free.pop()
        self.h[:, stream] = 0
        return stream

    def close(self, stream: int) -> None:
        """End a stream; its place is another's from now on."""
        self.free.append(stream)

    async def step(self, stream: int, x_t: Any) -> Any:
        """Return y_t of a stream's next frame."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(self.wait, self._run)
        answer = loop.create_future()
        self._waiting[stream] = x_t, answer
        return await answer

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, {}
        rows = list(waiting)
        x = np.stack([x_t for x_t, _ in waiting.values()])
        y, h = self.layer(x[None], self.h[:, rows])
        self.h[:, rows] = h
        for y_t, (_, answer) in zip(y[0], waiting.values(), strict=True):
            if not answer.cancelled():
                answer.set_result(y_t)


async def serve(port: int, streams: int) -> None:
    """Answer connections on this machine until the program is stopped."""
    batcher = Batcher(model(), streams)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = batcher.open()
        try:
            while True:
                frame = await reader.readexactly(4 * I)
                y_t = await batcher.step(stream, np.frombuffer(frame, np.float32))
                writer.write(y_t.tobytes())
        except asyncio.IncompleteReadError:
            writer.close()  # the client has gone
        finally:
            batcher.close(stream)

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def steppers(streams: int) -> Callable[[int, Any], Any]:
    """A stepper for each stream."""
    layer = model()
    each = [layer.stepper() for _ in range(streams)]
    return lambda stream, x_t: each[stream](x_t)


def sessions(streams: int) -> Callable[[int, Any], Any]:
    """One session of ONNX Runtime, a state for each stream."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        fastrnn.onnx.save(path, model())
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (x_name, h_name), (y_name, hn_name) = (
        [each.name for each in side] for side in (session.get_inputs(), session.get_outputs())
    )
    states = [np.zeros((1, 1, H), np.float32) for _ in range(streams)]

    def step(stream: int, x_t: Any) -> Any:
        feeds = {x_name: x_t[None, None], h_name: states[stream]}
        y, states[stream] = session.run([y_name, hn_name], feeds)
        return y[0, 0]

    return step


async def latencies(step: Any, streams: int, period: float, seconds: float) -> Any:
    """Milliseconds from a frame to its answer; each stream sends one each `period` seconds."""
    found: list[float] = []
    frame = np.ones(I, np.float32)
    start = time.perf_counter()

    async def one(stream: int) -> None:
        due = start + period * stream / streams
        while due < start + seconds:
            await asyncio.sleep(due - time.perf_counter())
            answer = step(stream, frame)
            if asyncio.iscoroutine(answer):
                await answer
            found.append(1e3 * (time.perf_counter() - due))
            due += period

    await asyncio.gather(*map(one, range(streams)))
    return np.array(found)


def measure(streams: list[int], period: float, seconds: float) -> None:
    """Print a table of latencies."""
    print(f"GRU {I} -> {H}, a frame each {1e3 * period:g} ms a stream; milliseconds")
    print(f"{'streams':>8} {'':24} {'p50':>8} {'p99':>8} {'frames/s':>9} {'CPU a frame':>12}")
    for n in streams:
        ways: dict[str, Any] = {"one call for all": Batcher(model(), n).step}
        ways["a stepper each"] = steppers(n)
        if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
            ways["ONNX Runtime, one by one"] = sessions(n)
        for name, step in ways.items():
            begin = time.process_time()
            found = asyncio.run(latencies(step, n, period, seconds))
            cpu = 1e6 * (time.process_time() - begin) / len(found)
            p50, p99 = np.percentile(found, [50, 99])
            rate = len(found) / seconds
            print(f"{n:8} {name:24} {p50:8.2f} {p99:8.2f} {rate:9.0f} {cpu:9.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    served = commands.add_parser("serve")
    served.add_argument("--port", type=int, default=8765)
    served.add_argument("--streams", type=int, default=4096, help="the most at a time")
    measured = commands.add_parser("measure")
    measured.add_argument("--streams", type=int, nargs="+", default=[1, 100, 2000])
    measured.add_argument("--period", type=float, default=0.1, help="seconds between frames")
    measured.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    fastrnn.set_num_threads(1)
    if arguments.command == "serve":
        asyncio.run(serve(arguments.port, arguments.streams))
    else:
        measure(arguments.streams, arguments.period, arguments.seconds)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
