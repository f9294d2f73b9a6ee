"""Runs kernels that were built with a sanitizer, whose run time is preloaded: for test_sanitizers.

Arguments: thread or address; then, for a planted bug, the text of the kernels to be replaced and
what replaces it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import run
from device import DeviceCase
from emulator import Planted

import fastrnn.backends
from fastrnn.backends.cuda import CudaBackend, launch, persistent

CASES = [
    DeviceCase("lstm_peephole", (2, 9, 2, 5), resets="some", dtype="float32"),
    DeviceCase("gru", (3, 3, 2, 8), lengths="zeros", resets="some", dtype="float32"),
    DeviceCase("gru_reset_before", (3, 3, 2, 5), lengths="positive", dtype="float32"),
]


def cut(work: Any, path: Any, threads: int, *_: Any) -> persistent.Cut:
    """Several blocks and groups of rows; weights in registers, and in shared memory."""
    return persistent.make_cut(work, path, threads, min(3, work.H), 8, 1, int(path.words > 0))


def main(sanitizer: str, old: str = "", new: str = "") -> None:
    device: Any = Planted(old, new, f"-fsanitize={sanitizer}", "-fno-omit-frame-pointer")
    backend = CudaBackend(device)
    fastrnn.backends._get = lambda name: backend  # type: ignore[assignment, misc]
    launch.THREADS, persistent.THREADS, persistent.LEAST_STEPS = 32, 64, 1
    persistent.best_cut = cut  # type: ignore[assignment]
    for case in CASES:
        device.capability = 75 if case.kind == "gru" else 90
        # steps, steps with chains, all in one launch; in two orders
        for device.multiprocessors, reproducible in ((0, False), (0, True), (4, False)):
            for device.seed in (0, 3):
                run(case.layer(reproducible=reproducible), case.call())
    assert device.planted


main(*sys.argv[1:])
