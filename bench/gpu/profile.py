"""Which kernels torch runs, and whether NVIDIA's own checker finds a race in ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import setting

CASES = [("LSTM", "float16"), ("LSTM", "bfloat16"), ("LSTM", "float32"), ("GRU", "float16")]

TINY = """
import cupy, fastrnn
x = cupy.random.standard_normal((6, 3, 5)).astype("f4")
for kind in (fastrnn.LSTM, fastrnn.GRU):
    layer = kind(5, 40, rng=0, backend="cuda")
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
cupy.cuda.Device().synchronize()
"""


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    torch = setting.torch_if_any()
    device = setting.backend(emulated)._device.name
    if torch is None:
        yield {"device": device, "torch": None}
    else:
        for kind, dtype in CASES if not emulated else CASES[2:3]:
            if not in_time():
                return
            yield {"device": device, "kind": kind, "dtype": dtype} | kernels(
                torch, kind, dtype, emulated
            )
    checker = shutil.which("compute-sanitizer")
    if emulated or checker is None or not in_time():
        yield {"device": device, "racecheck": "not run: " + ("emulated" if emulated else "no tool")}
        return
    path = f"import sys; sys.path[:0] = {sys.path[:1]!r}\n"
    done = subprocess.run(
        [checker, "--tool", "racecheck", sys.executable, "-c", path + TINY],
        capture_output=True,
        text=True,
        timeout=25,
    )
    yield {"device": device, "racecheck": done.returncode, "said": done.stdout[-2000:]}


def kernels(torch: Any, kind: str, dtype: str, emulated: bool) -> dict[str, Any]:
    """The kernels of one forward and backward by the time they take, with counts."""
    T, B, H = (4, 2, 8) if emulated else (64, 16, 768)
    where = "cpu" if emulated else "cuda"
    module = getattr(torch.nn, kind)(H, H, device=where, dtype=getattr(torch, dtype))
    x = torch.randn(T, B, H, device=where, dtype=getattr(torch, dtype))

    def run() -> None:
        y, _ = module(x)
        y.backward(y.detach())

    run()
    kinds = [
        torch.profiler.ProfilerActivity.CPU if emulated else torch.profiler.ProfilerActivity.CUDA
    ]
    with torch.profiler.profile(activities=kinds) as profile:
        run()
        if not emulated:
            torch.cuda.synchronize()
    time_of = "self_cpu_time_total" if emulated else "self_device_time_total"
    rows = sorted(profile.key_averages(), key=lambda row: -getattr(row, time_of))[:8]
    return {
        "T": T,
        "B": B,
        "H": H,
        "kernels": [[row.key[:120], row.count, round(getattr(row, time_of), 1)] for row in rows],
    }
