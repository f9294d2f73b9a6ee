"""The kernels under ThreadSanitizer, each CUDA thread a thread, and under AddressSanitizer."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.usefixtures("compiler"),
    pytest.mark.skipif(
        sys.platform != "linux" or "clang" in os.environ.get("CXX", ""),
        reason="preloads the run times of g++ on Linux",
    ),
]

SCRIPT = Path(__file__).with_name("sanitized.py")
TREE = SCRIPT.parents[2]


def run(sanitizer: str, *planted: str) -> subprocess.CompletedProcess[str]:
    names = {"thread": "libtsan.so", "address": "libasan.so"}[sanitizer], "libstdc++.so"
    preload = [
        subprocess.run(
            [os.environ.get("CXX", "g++"), f"-print-file-name={name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in names
    ]
    environment = {
        "LD_PRELOAD": ":".join(preload),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONMALLOC": "malloc",
        "TSAN_OPTIONS": "halt_on_error=1:die_after_fork=0",
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    # ThreadSanitizer's shadow memory does not fit a randomised layout.
    command = ["setarch", platform.machine(), "-R", "env"]
    command += [f"{name}={value}" for name, value in environment.items()]
    return subprocess.run(
        [*command, sys.executable, str(SCRIPT), sanitizer, *planted],
        capture_output=True,
        text=True,
        timeout=3600,  # a hang; compilers take turns on a busy machine
    )


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_nothing_is_found(sanitizer: str) -> None:
    done = run(sanitizer)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize(
    ("sanitizer", "report", "exchange", "old", "new"),
    [
        # a block arrives before all of its threads have published
        (
            "thread",
            "data race",
            "counter",
            "    __syncthreads();\n    if (threadIdx.x == 0 &&",
            "    if (threadIdx.x == 0 &&",
        ),
        # the blocks do not meet
        ("thread", "data race", "counter", "exchange.wait();", ""),
        # they meet, but what one wrote need not be what another reads
        (
            "thread",
            "data race",
            "counter",
            "add_release(arrivals, 1);\n  }\n  FASTRNN_FN void wait",
            "add_relaxed(arrivals, 1);\n  }\n  FASTRNN_FN void wait",
        ),
        # a word is written as if nobody else looked at it
        ("thread", "data race", "flags", "store_relaxed(to, blank(x)", "*to = (blank(x)"),
        # sums are overwritten that others of the block have yet to read
        ("thread", "data race", "flags", "arrive() { __syncthreads(); }", "arrive() {}"),
        # the blocks of a cluster do not meet
        ("thread", "data race", "cluster", "wait() { cluster_wait(); }", "wait() {}"),
        # what others still read is overwritten
        (
            "thread",
            "data race",
            "cluster",
            "slot(Index n) { return n % 2; }",
            "slot(Index) { return 0; }",
        ),
        # one element too many
        (
            "address",
            "heap-buffer-overflow",
            "none",
            "if (i >= n * H) return;",
            "if (i > n * H) return;",
        ),
    ],
    ids=["barrier", "meeting", "relaxed", "plain", "sums", "cluster", "slot", "overrun"],
)
def test_a_planted_bug_is_found(
    sanitizer: str, report: str, exchange: str, old: str, new: str
) -> None:
    done = run(sanitizer, exchange, old, new)
    assert done.returncode != 0
    assert report in done.stderr
