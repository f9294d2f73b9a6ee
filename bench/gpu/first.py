"""What to look at first on a GPU: whether a plain installation works, whether blocks exchange
what they should, and what the last changes of the kernels gave.

Each check is a process of its own, for an error on a GPU spoils the process it happens in.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import setting

ROOT = Path(__file__).resolve().parents[2]

Records = Iterator[dict[str, Any]]

# What kernels were like before, as changes of their text: they keep no code for it.
BEFORE = {
    "W x and the bias are added before the exchange": (
        (
            "u.a[g] = load(input + (row * G + g) * H + unit);",
            "u.a[g] = load(input + (row * G + g) * H + unit) + load(bias + g * H + unit);",
        ),
        ("u.a[g] = u.a[g] + load(bias + g * H + unit);", ""),
    ),
    "dy and dh are loaded when they are needed": (
        ("is_first && have_dh ? my_dh : dh[m * H + unit]", "dh[m * H + unit]"),
        ("is_first ? my_dy : dy[(start + m) * H + unit]", "dy[(start + m) * H + unit]"),
        ("(is_first ? my_dh_direct : dh[m * H + unit])", "dh[m * H + unit]"),
        ("if (i != i0 || !stays) dh[m * H + unit]", "dh[m * H + unit]"),
    ),
    "all chunks go to one sum": (("!Path::kInRegisters || kAtOnce > 2 ? 1 : 4 / kAtOnce", "1"),),
}


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Records:
    script = ROOT / "bench" / "gpu_check.py"
    for name, (_, limit) in CHECKS.items():
        limit *= 10 if emulated else 1
        if not in_time():
            yield {"check": name, "not run": "the time is over"}
            continue
        command = [sys.executable, str(script), "--out", str(out), "--phases", "first"]
        command += ["--here", str(limit - 3), "--check", name, *["--emulated"] * emulated]
        begin = time.monotonic()
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit)
            status, said = f"ended with {done.returncode}", done.stdout
        except subprocess.TimeoutExpired as late:
            status, said = f"stopped after {limit} s", (late.stdout or b"").decode()
        for line in said.splitlines():
            yield {"check": name, **json.loads(line)}
        seconds = round(time.monotonic() - begin, 1)
        yield {"check": name, "status": status, "s": seconds, "ok": status == "ended with 0"}


def example(emulated: bool, in_time: Callable[[], bool]) -> Records:
    """The ten lines of docs/gpu.md, without torch, whose libraries CuPy would find; and the same on
    the CPU."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    import fastrnn

    usable = None if emulated else fastrnn.backends.why_not("cuda")
    yield {"what": "why_not", "said": usable, "ok": usable is None}
    backend = setting.backend(emulated)
    xp = backend.xp
    (code,) = re.findall(
        r"```python\n(import cupy as cp\n.*?)```", (ROOT / "docs" / "gpu.md").read_text(), re.DOTALL
    )
    if emulated:
        draw = np.random.default_rng(0).standard_normal
        xp.random = SimpleNamespace(
            standard_normal=lambda shape, dtype: xp.asarray(draw(shape), dtype)
        )
        xp.float32, sys.modules["cupy"] = np.float32, xp
        code = code.replace("(40, 256, ", "(40, 8, ").replace("(100, 32, 40)", "(5, 3, 40)")
    names: dict[str, Any] = {}
    exec(code, names)
    x = xp.asnumpy(names["x"])
    sizes = (x.shape[2], names["layer"].hidden_size, 2)
    layer = fastrnn.LSTM(*sizes, bidirectional=True, rng=0)
    adam = fastrnn.Adam(layer)
    y, _, tape = layer.forward(x)
    adam.step(layer.backward(tape, y - 1))
    error = float(np.max(np.abs(xp.asnumpy(names["y"]) - y)))
    # Adam's first step has the sign of each gradient and a thousandth of a length
    steps = np.abs(names["host"].flat_params - layer.flat_params)
    apart = float(np.mean(steps > 1e-4))
    yield {
        "what": "ten lines",
        "device": backend._device.name,
        "error": error,
        "parameters apart": apart,
        "ok": error < 1e-4 and apart < 1e-3,
    }


def blocks(emulated: bool, in_time: Callable[[], bool]) -> Records:
    """What the persistent kernels rest on, alone."""
    from . import primitives

    device = setting.backend(emulated)._device
    threads, rounds = (64, 3) if emulated else (primitives.THREADS, 2000)
    yield primitives.fragments(device)
    yield primitives.round_trip(device, rounds)
    for many in (2, 5) if emulated else (2, 32, device.multiprocessors):
        yield primitives.meetings(device, many, threads, rounds)
    for many in (2,) if emulated else (2, 4, 8):
        yield primitives.cluster(device, many, threads, rounds)


SIZES, EMULATED = ((60, 16, 64, 768), (60, 16, 64, 128)), (4, 3, 2, 12)


def exchanges(emulated: bool, in_time: Callable[[], bool]) -> Records:
    """Each precision with each exchange, ragged rows and resets: right, and the same bits in twenty
    runs while cuBLAS is busy on another stream."""
    from cases import run
    from device import DeviceCase, reference, up

    from fastrnn.backends.cuda import persistent, tune

    from .correctness import LOWER, PRECISIONS, poison, worst

    backend = setting.backend(emulated)
    for sizes in (EMULATED,) if emulated else SIZES:
        case = DeviceCase("lstm", sizes, dtype="float32", lengths="zeros", resets="some")
        call = case.call()
        want = run(*reference(case, call))
        ways = itertools.product(PRECISIONS[: 1 if emulated else 3], persistent.EXCHANGES)
        for precision, way in ways:
            layer = case.layer(precision=precision)
            results = []
            with tune.forced(way), busy(backend.xp, emulated):
                if layer.layer.explain(up(call.x)).get("exchange") != way:
                    continue  # it is not to be had for this size
                for _ in range(2 if emulated else 20):
                    poison(backend.xp, emulated)
                    results.append(run(layer, call))
            error = worst(results[0], want)
            steady = all(np.array_equal(each[k], results[0][k]) for each in results for k in want)
            yield {
                "what": "exchange",
                "H": sizes[3],
                "precision": precision,
                "way": way,
                "error": error,
                "same bits": steady,
                "ok": steady and error <= LOWER.get(precision, 2e-4),
            }
            if not in_time():
                return


@contextmanager
def busy(xp: Any, emulated: bool) -> Iterator[None]:
    """cuBLAS at work on a stream of its own, from a thread of its own."""
    if emulated:
        yield
        return
    ended = threading.Event()

    def work() -> None:
        with xp.cuda.Stream(non_blocking=True) as stream:
            a = xp.ones((1024, 1024), np.float32)
            while not ended.is_set():
                for _ in range(20):
                    a @ a
                stream.synchronize()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def streams(emulated: bool, in_time: Callable[[], bool]) -> Records:
    """Two threads, each with launches on its own stream that want nearly all multiprocessors, and
    whose blocks wait for each other: the results of one thread alone, and about twice its time."""
    import fastrnn
    from fastrnn.backends.cuda import tune

    backend = setting.backend(emulated)
    xp = backend.xp
    T, B, H, calls = (6, 3, 12, 2) if emulated else (200, 16, 1024, 20)
    layer = fastrnn.LSTM(H, H, rng=0, precision="medium", backend="cuda")
    x = xp.asarray(np.random.default_rng(0).standard_normal((T, B, H)), np.float32)

    def work(way: str, found: list[Any]) -> None:
        with nullcontext() if emulated else xp.cuda.Stream(non_blocking=True), tune.forced(way):
            for _ in range(calls):
                y, _, tape = layer.forward(x)
                found.append((xp.asnumpy(y), xp.asnumpy(layer.backward(tape, y).flat)))

    for way in ("counter", "flags"):
        with tune.forced(way):
            taken = layer.explain(x).get("exchange")
        alone: list[Any] = []
        work(way, alone)  # which compiles
        begin = time.monotonic()
        work(way, alone)
        one = time.monotonic() - begin
        found: list[list[Any]] = [[], []]
        threads = [threading.Thread(target=work, args=(way, each)) for each in found]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        two = time.monotonic() - begin
        right = all(
            len(each) == calls
            and all(
                np.array_equal(a, b) for pair in each for a, b in zip(pair, alone[0], strict=True)
            )
            for each in found
        )
        yield {
            "what": "two streams",
            "way": taken,
            "s of one": round(one, 3),
            "s of two": round(two, 3),
            "ok": right and bool(np.isfinite(alone[0][1]).all()),
        }


def changes(emulated: bool, in_time: Callable[[], bool]) -> Records:
    """Microseconds a step of an LSTM as it is, and without each of the last changes."""
    import fastrnn
    from fastrnn.backends.cuda import tune

    from .speed import measure

    T, B, H = (6, 3, 12) if emulated else (512, 16, 768)
    ways = [("medium", "flags"), ("medium", "counter"), ("highest", "flags"), ("high", "flags")]
    for precision, way in ways[: 1 if emulated else None]:
        first = None
        for without in (None, *BEFORE):
            backend = setting.backend(emulated, () if without is None else BEFORE[without])
            x = backend.xp.asarray(np.random.default_rng(0).standard_normal((T, B, H)), np.float32)
            layer = fastrnn.LSTM(H, H, rng=0, precision=precision, backend="cuda")
            y, _, tape = layer.forward(x)
            runs = {
                "forward": lambda layer=layer, x=x: layer(x),
                "backward": lambda layer=layer, tape=tape, y=y: layer.backward(tape, y),
            }
            with tune.forced(way):
                got = backend.xp.asnumpy(layer(x)[0])
                first = got if first is None else first
                times = {
                    f"us {name}": measure(run, backend._device.time, emulated) / T
                    for name, run in runs.items()
                }
            yield {
                "what": "a step",
                "device": backend._device.name,
                "precision": precision,
                "way": way,
                "as before": without,
                **times,
                "ok": float(np.max(np.abs(got - first))) < 1e-3,
            }
            if not in_time():
                return


# By name, with seconds; together less than the phase has.
CHECKS = {
    "example": (example, 25),
    "blocks": (blocks, 25),
    "exchanges": (exchanges, 45),
    "streams": (streams, 25),
    "changes": (changes, 40),
}
