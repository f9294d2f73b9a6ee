"""Runs kernels that were built with a sanitizer, whose run time is preloaded: for test_sanitizers.

Arguments: thread or address; then, for a planted bug, the exchange of the cases that run, the text
of the kernels to be replaced and what replaces it.
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

SMALL: dict[str, Any] = {"dtype": "float32", "resets": "some"}
PEEPHOLE = DeviceCase("lstm_peephole", (2, 9, 2, 5), **SMALL)
GRU = DeviceCase("gru", (3, 3, 2, 8), lengths="zeros", **SMALL)
RNN = DeviceCase("rnn_tanh", (2, 3, 2, 5), lengths="positive", **SMALL)
RESET_BEFORE = DeviceCase("gru_reset_before", (3, 3, 2, 5), lengths="positive", dtype="float32")

# All steps in one launch: the case, the compute capability, the precision and the exchange.
ONCE = [
    (PEEPHOLE, 90, "highest", "counter"),
    (GRU, 75, "highest", "flags"),
    (RNN, 90, "high", "counter"),
    (RNN, 90, "medium", "flags"),
    (GRU, 90, "medium", "cluster"),
    (PEEPHOLE, 90, "highest", "cluster"),
]


def main(sanitizer: str, only: str = "", old: str = "", new: str = "") -> None:
    device: Any = Planted(old, new, f"-fsanitize={sanitizer}", "-fno-omit-frame-pointer")
    backend = CudaBackend(device)
    fastrnn.backends._get = lambda name: backend  # type: ignore[assignment, misc]
    launch.THREADS, persistent.THREADS, persistent.LEAST_STEPS = 32, 64, 1
    for case, device.capability, precision, exchange in ONCE:
        if only not in ("", exchange):
            continue

        def tiling(work: Any, path: Any, limits: Any, of: str = exchange) -> persistent.Tiling:
            """Several blocks and groups of rows; weights in registers, and in shared memory."""
            register_chunks = int(path.words > 0)
            return persistent.make_tiling(
                work, path, limits.threads, min(3, work.H), 8, 1, register_chunks, of
            )

        persistent.best_tiling = tiling
        for device.seed in (0, 3):  # two orders
            run(case.layer(precision=precision), case.call())
    device.multiprocessors = 0  # in steps, by cuBLAS and by chains
    for case in (PEEPHOLE, GRU, RESET_BEFORE):
        for reproducible in (False, True):
            for device.seed in (0, 3):
                run(case.layer(reproducible=reproducible), case.call())
    assert device.planted


main(*sys.argv[1:])
