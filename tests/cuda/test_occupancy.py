"""Blocks that wait for each other all run at once: every plan of every kernel, by NVIDIA's own
rules and the registers of its machine code, for four GPUs. No GPU; needs the extra [cuda-test].

An emulator lets all blocks run whatever they need. On a GPU, one that finds no room waits for
others to end, which wait for it.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from emulator import FOLDER, EmulatedDevice

from fastrnn.backends.cuda import compile, persistent
from fastrnn.backends.cuda.launch import Launcher
from fastrnn.cellmath import CELLS

pytest.importorskip("cupy", reason='NVRTC comes with the extra "cuda-test"')
pytestmark = pytest.mark.usefixtures("compiler")


class Gpu(NamedTuple):
    """Limits of a GPU, from the CUDA programming guide and the data sheets."""

    arch: str
    multiprocessors: int
    threads: int  # of a multiprocessor
    shared: int  # bytes of a multiprocessor
    most_shared: int  # bytes that a block can have
    reserved: int  # bytes of each block that are the driver's


GPUS = {
    "H100 SXM": Gpu("sm_90", 132, 2048, 228 * 1024, 227 * 1024, 1024),
    "A100": Gpu("sm_80", 108, 2048, 164 * 1024, 163 * 1024, 1024),
    "L4": Gpu("sm_89", 58, 1536, 100 * 1024, 99 * 1024, 1024),
    "T4": Gpu("sm_75", 40, 1024, 64 * 1024, 64 * 1024, 0),
}

KERNELS = ("persistent_forward", "persistent_backward")

# All of a GPU's limits are what cuda_occupancy.h wants to be told, and it needs no CUDA.
SOURCE = """
#include <climits>
#include "cuda_occupancy.h"
extern "C" int blocks(int major, int minor, int multiprocessors, int sm_threads, long sm_shared,
                      long most_shared, long reserved, int registers, int threads, long shared) {
  cudaOccDeviceProp gpu;
  gpu.computeMajor = major, gpu.computeMinor = minor, gpu.numSms = multiprocessors;
  gpu.maxThreadsPerBlock = 1024, gpu.maxThreadsPerMultiprocessor = sm_threads;
  gpu.regsPerBlock = gpu.regsPerMultiprocessor = 65536, gpu.warpSize = 32;
  gpu.sharedMemPerBlock = 48 << 10, gpu.sharedMemPerMultiprocessor = sm_shared;
  gpu.sharedMemPerBlockOptin = most_shared, gpu.reservedSharedMemPerBlock = reserved;
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = INT_MAX, kernel.numRegs = registers, kernel.sharedSizeBytes = 0;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, kernel.maxDynamicSharedSizeBytes = most_shared;
  kernel.numBlockBarriers = 1;
  cudaOccDeviceState state;
  state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
  cudaOccResult result;
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &gpu, &kernel, &state, threads, shared))
    return -1;
  return result.activeBlocksPerMultiprocessor;
}
"""


@cache
def library() -> ctypes.CDLL:
    """The calculator, from the wheel of the CUDA run time."""
    for folder in map(Path, sys.path):
        include = folder / "nvidia" / "cu13" / "include"
        if (include / "cuda_occupancy.h").is_file():
            break
    else:
        pytest.skip('cuda_occupancy.h comes with the extra "cuda-test"')
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "occupancy.so"
    command = ["g++", "-shared", "-fPIC", "-w", f"-I{include}", "-x", "c++", "-", "-o", str(path)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return ctypes.CDLL(str(path))


_USED = re.compile(r"entry function '(\w+)'.*?Used (\d+) registers", re.DOTALL)


@cache
def registers(program: compile.Program, arch: str) -> dict[str, int]:
    found = _USED.findall(compile.report(compile.source(program), arch))
    return {name: int(count) for name, count in found}


class Model(EmulatedDevice):
    """A GPU that is known by its numbers."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.capability = int(gpu.arch[3:])
        self.programs: list[compile.Program] = []
        self.multiprocessors, self.shared_memory = gpu.multiprocessors, gpu.most_shared

    def fit(self, registers: int, threads: int, shared: int) -> int:
        """How many blocks one multiprocessor runs at once."""
        gpu = self.gpu
        major, minor = divmod(int(gpu.arch[3:]), 10)
        long = ctypes.c_long
        found: int = library().blocks(
            *(major, minor, gpu.multiprocessors, gpu.threads),
            *map(long, (gpu.shared, gpu.most_shared, gpu.reserved)),
            *(registers, threads, long(shared)),
        )
        assert found >= 0
        return found

    def cooperative(
        self, program: Any, name: str, threads: int, shared: int, clustered: bool = False
    ) -> tuple[Any, int]:
        self.programs.append(program)
        used = registers(program, self.gpu.arch)[name]
        return None, self.fit(used, threads, shared) * self.multiprocessors


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "blocks"),
    [
        (32, 256, 0, 8),  # threads: 2048 of them
        (64, 256, 0, 4),  # registers: 65536 of them
        (72, 256, 110 * 1024, 2),
        (72, 256, 120 * 1024, 1),  # shared memory, each with a kilobyte of the driver's
        (255, 256, 0, 1),
        (255, 512, 0, 0),
    ],
)
def test_the_calculator(registers: int, threads: int, shared: int, blocks: int) -> None:
    assert Model(GPUS["H100 SXM"]).fit(registers, threads, shared) == blocks


# What differs in registers most: the gates, and the paths of a product; a pass each way.
WORK = [
    (kind, precision, H, B)
    for kind, precision in (("lstm", "highest"), ("gru", "medium"), ("rnn_tanh", "double"))
    for H in (100, 512, 1024)
    for B in (1, 64)
]


@pytest.mark.parametrize("gpu", GPUS)
def test_all_blocks_of_every_plan_run_at_once(gpu: str) -> None:
    model: Any = Model(GPUS[gpu])
    found = 0
    clustered = 0
    for (kind, precision, H, B), name in itertools.product(WORK, KERNELS):
        dtype = np.dtype("f8" if precision == "double" else "f4")
        launch = Launcher(model, dtype, kind, precision=precision)
        plan = persistent.plan(launch, name, 100, B, len(CELLS[kind].gates), H)
        if plan is None:
            continue
        found += 1
        tiling = plan.tiling
        used = registers(model.programs[-1], model.gpu.arch)[name]
        each = model.fit(used, persistent.THREADS, tiling.shared)
        blocks = tiling.grid[0] * tiling.grid[1]
        assert blocks <= each * model.multiprocessors, (kind, precision, H, B, name)
        clustered += tiling.exchange == persistent.CLUSTER
    assert bool(clustered) == (gpu == "H100 SXM")
    assert found >= {"T4": 4, "L4": 8}.get(gpu, 16), found


def test_what_has_no_room_is_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the registers not looked at, a block of too many threads would be launched."""
    model: Any = Model(GPUS["T4"])
    launch = Launcher(model, np.dtype("f4"), "lstm")
    assert persistent.plan(launch, "persistent_forward", 100, 16, 4, 128) is not None
    monkeypatch.setattr(sys.modules[__name__], "registers", lambda *_: {"persistent_forward": 255})
    monkeypatch.setattr(persistent, "THREADS", 512)
    assert persistent.plan(launch, "persistent_forward", 100, 16, 4, 128) is None
