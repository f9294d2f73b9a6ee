"""Where the time of a call goes: functions that Linux's `perf` finds on the processor.

The kernels are not changed for it. Samples of the user's clock are counted by the name of the
function that ran; threads that slept, spun or had no CPU were waiting.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

PARTS = ("products", "cell", "packing", "waiting", "Python", "rest")
_RATE = 4999  # samples a second of each thread
_SECONDS = 0.3
_ATTEMPTS = 3
_BATCH = 2e-3  # seconds of runs between two looks at whether perf has ended
_EXTENSION = "_core."

# Names of functions in csrc/, as they stand in the extension's table of symbols; the first that
# matches counts.
_FUNCTIONS = (
    ("Python", r"pybind11|make_array|pointer<"),
    ("waiting", r"Barrier|Signal|Lease|_State_impl|Pool::"),
    ("packing", r"pack|share_out|Weights<|split|quantize"),
    ("cell", r"Epilogue|Backward<|tanh_of|sigmoid_of"),
    ("products", r"Tile|matmul|Walk<|column_sums|widen_panel|dot"),
)
_LINE = re.compile(r"\s*(?P<time>[\d.]+):\s+[0-9a-f]+ (?P<symbol>.*) \((?P<file>[^()]*)\)$")


@cache
def why_not() -> str | None:
    """Return why nothing can be sampled here, or None if it can."""
    perf = shutil.which("perf")
    if perf is None:
        return "Linux's perf is not installed"
    with tempfile.TemporaryDirectory() as folder:
        done = _perf("record", "-q", *_event(), "-o", str(Path(folder) / "data"), "--", "true")
    if done.returncode:
        return f"perf: {' '.join(done.stderr.split())[:200] or 'failed'}"
    return None


def measure(run: Callable[[], Any], threads: int) -> dict[str, float]:
    """Run again and again for a while; return the share of each part of the threads' time.

    Empty where perf cannot tell: it found no names, or three times no way into the process. A
    busy machine makes it give up now and then.
    """
    count = _runs_in(run, _BATCH)
    for _ in range(_ATTEMPTS):
        samples = _sample(run, count)
        if samples is not None:
            return shares(samples, threads)
    return {}


def _sample(run: Callable[[], Any], count: int) -> list[str] | None:
    """Return what `perf script` writes of a while of runs, or None if perf gave up."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "data")
        command = ["perf", "record", "-q", *_event(), "-p", str(os.getpid()), "-o", data]
        command += ["--", "sleep", str(_SECONDS)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
            while job.poll() is None:
                for _ in range(count):
                    run()
        if job.returncode:
            return None
        return _perf("script", "-i", data, "-F", "ip,time,sym,dso").stdout.splitlines()


def shares(lines: Iterable[str], threads: int) -> dict[str, float]:
    """Shares of `PARTS` in the lines that `perf script` writes; empty where names are missing."""
    times: list[float] = []
    found = dict.fromkeys(PARTS, 0.0)
    unnamed = 0
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        times.append(float(match["time"]))
        ours = Path(match["file"]).name.startswith(_EXTENSION)
        unnamed += ours and match["symbol"] == "[unknown]"
        found[part(match["symbol"], ours)] += 1
    if not times or 2 * unnamed > len(times):  # nobody ran, or the extension was stripped
        return {}
    possible = max(_RATE * threads * (max(times) - min(times)), len(times))
    found["waiting"] += possible - len(times)
    return {name: count / possible for name, count in found.items()}


def part(symbol: str, ours: bool) -> str:
    """Which of `PARTS` a function belongs to; `ours`: it is in the extension."""
    if not ours:
        return "rest" if symbol.startswith("__mem") else "Python"  # the C library's copies
    return next((name for name, words in _FUNCTIONS if re.search(words, symbol)), "rest")


def _event() -> list[str]:
    return ["-e", "cpu-clock:u", "-F", str(_RATE)]


def _perf(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["perf", *words], capture_output=True, text=True, check=False)


def _runs_in(run: Callable[[], Any], seconds: float) -> int:
    """Runs that take about so long."""
    start = time.perf_counter()
    run()
    return max(1, int(seconds / (time.perf_counter() - start)))
