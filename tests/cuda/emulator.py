"""A device without a GPU: the kernels' own text, compiled by g++ over emulator.h."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np

from fastrnn.backends.cuda import compile

HEADER = Path(__file__).with_name("emulator.h")
FOLDER = HEADER.parents[2] / "build" / "emulator"

# -O1 compiles in half the time of -O2, and the kernels' own arithmetic is not what takes time.
FLAGS = ("-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-attributes")

MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_SHARED = 227 * 1024

KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?'
    r"(?:FASTRNN_CLUSTERED\s+)?(\w+)\("
)
"""Where a kernel's name stands."""

NO_CLUSTER, STOPPED = 2**32 - 1, 2**32 - 2  # as in emulator.h


class EmulatedDevice:
    """As `fastrnn.backends.cuda.device.CupyDevice`, with fake_cupy's arrays.

    `seed` chooses the order in which threads run. `launches` names every kernel that ran, and
    graphs. `stream` is the current one.
    """

    xp = fake_cupy
    capability = 90
    multiprocessors = 132
    shared_memory = MOST_SHARED
    stream = 0
    name = "emulated"
    nvrtc = (13, 0)

    def __init__(self, *flags: str) -> None:
        self.seed = 0
        self.launches: list[str] = []
        self._flags = flags
        self._libraries: dict[compile.Program, ctypes.CDLL] = {}

    def kernel(self, program: compile.Program, name: str) -> Callable[..., None]:
        if program not in self._libraries:
            self._libraries[program] = build(self.text(program), self._flags)
        return self.wrap(self._libraries[program], name)

    def text(self, program: compile.Program) -> str:
        """Return what is compiled."""
        return compile.source(program, HEADER)

    def cooperative(
        self,
        program: compile.Program,
        name: str,
        threads: int,
        shared: int,
        clustered: bool = False,
    ) -> tuple[Callable[..., None], int]:
        """Kernels need their registers too, but 256 threads of 255 each fit everywhere."""
        self.kernel(program, name)
        each = min(2048 // threads, self.shared_memory // shared)
        kernel = self.wrap(self._libraries[program], name, cooperative=not clustered)
        return kernel, each * self.multiprocessors

    def wrap(self, library: ctypes.CDLL, name: str, cooperative: bool = False) -> Any:
        """Return a kernel of a library that `build` returned."""

        def run(grid: Any, block: Any, args: Any, shared: int = 0) -> None:
            def work() -> None:
                self.launches.append(name)
                _launch(library, name, grid, block, args, shared, cooperative, self.seed)

            fake_cupy.queue(work)

        return run

    def gemm(self, a: Any, b: Any, out: Any, accumulate: bool, precision: str) -> None:
        assert out.flags.c_contiguous
        if any(m.strides[0] != m.itemsize != m.strides[1] for m in (a, b)):
            raise ValueError("neither rows nor columns are contiguous")

        operands, result = [fake_cupy.lent(m._host) for m in (a, b)], fake_cupy.lent(out._host)

        def work() -> None:
            left, right = (operand() for operand in operands)
            if left.itemsize == 4:
                left, right = rounded(left, precision), rounded(right, precision)
            with np.errstate(all="ignore"):
                product = np.matmul(left, right)
                result()[...] = result() + product if accumulate else product

        fake_cupy.queue(work)

    def place(self) -> tuple[int, int]:
        return fake_cupy.Device().id, self.stream

    @property
    def recording(self) -> bool:
        return fake_cupy._queue is not None

    def time(self, work: Callable[[], object]) -> float:
        """The number of launches, which is the same in every run."""
        before = len(self.launches)
        work()
        return float(len(self.launches) - before)

    def record(self, work: Callable[[], None]) -> Callable[[], None] | None:
        try:
            with fake_cupy.recording() as queued:
                work()
        except fake_cupy.ReservesMemory:
            return None

        def launch() -> None:
            assert not self.recording, "a graph in a recording"
            self.launches.append("graph")
            for each in queued:
                each()

        return launch


def rounded(a: fake_cupy.Host, precision: str) -> fake_cupy.Host:
    """Return float32 numbers as products of a precision take them: of TF32 halves are rounded away
    from zero, of bfloat16 to even."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    if precision == "high":
        bits = bits + np.uint32(0x1000) & np.uint32(0xFFFFE000)
    elif precision == "medium":
        bits = bits + np.uint32(0x7FFF) + (bits >> 16 & 1) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(a), a, bits.view(np.float32))


class Planted(EmulatedDevice):
    """A device whose kernels have a piece of their text changed.

    `planted` says whether it occurred in a program that was compiled.
    """

    def __init__(self, old: str, new: str, *flags: str) -> None:
        super().__init__(*flags)
        self.planted = False
        self._change = old, new

    def text(self, program: compile.Program) -> str:
        old, new = self._change
        text = super().text(program)
        self.planted |= old in text
        return text.replace(old, new)


@cache
def build(text: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile a program's text and load it."""
    text += "".join(f"\nEMULATE({name})" for name in KERNEL.findall(text)) + "\n"
    headers = _compiled(".h.gch", _included(), *flags, "-x", "c++-header")
    command = *flags, "-include", str(headers.with_suffix("")), "-x", "c++"
    return ctypes.CDLL(str(_compiled(".so", text, *command)))


@cache
def _included() -> str:
    """What emulator.h includes: half of the time that most programs take to compile."""
    return "".join(re.findall(r"^#(?:undef|include) .*\n", HEADER.read_text(), re.MULTILINE))


def _compiled(suffix: str, text: str, *flags: str) -> Path:
    """Compile a text to a file in build/emulator, which is kept."""
    command = [os.environ.get("CXX", "g++"), *FLAGS, *flags]
    key = hashlib.sha256("\0".join((text, *command)).encode()).hexdigest()[:32]
    path = FOLDER / f"{key}{suffix}"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        source, unfinished = (FOLDER / f"{key}.{os.getpid()}.{end}" for end in ("txt", "made"))
        source.write_text(text)  # g++ precompiles no header that comes through a pipe
        done = subprocess.run(
            [*command, str(source), "-o", str(unfinished)], capture_output=True, text=True
        )
        source.unlink()
        if done.returncode:
            raise RuntimeError(done.stderr)
        os.replace(unfinished, path)
    return path


_one_at_a_time = threading.Lock()  # the scheduler of a library is one


def _launch(
    library: ctypes.CDLL,
    name: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared: int,
    cooperative: bool,
    seed: int,
) -> None:
    """Launch as CUDA would, or raise where it would fail or run into memory."""
    grid, block = ((*grid, 1, 1)[:3], (*block, 1, 1)[:3])
    if not all(0 < n <= most for n, most in zip(grid, MOST_BLOCKS, strict=True)):
        raise ValueError(f"invalid grid {grid} of {name}")
    if not 0 < int(np.prod(block)) <= MOST_THREADS or block[1:] != (1, 1):
        raise ValueError(f"invalid block {block} of {name}")
    if shared > MOST_SHARED:
        raise ValueError(f"{shared} bytes of shared memory in {name}")
    describe = getattr(library, f"kinds_{name}")
    describe.restype = ctypes.c_char_p
    kinds = describe().decode()
    if len(kinds) != len(args):
        raise TypeError(f"{name} takes {len(kinds)} arguments, got {len(args)}")
    values = [_argument(name, *pair) for pair in zip(kinds, args, strict=True)]
    pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    sizes = ((ctypes.c_uint * 3)(*each) for each in (grid, block))
    launch = getattr(library, f"launch_{name}")
    launch.restype = ctypes.c_uint
    with _one_at_a_time:
        waiting = launch(
            *sizes,
            ctypes.c_size_t(shared),
            ctypes.c_bool(cooperative),
            ctypes.c_uint64(seed),
            pointers,
        )
    if waiting == STOPPED:
        raise RuntimeError(f"{name} was stopped by one of its threads")
    if waiting == NO_CLUSTER:
        raise RuntimeError(f"{name} has no whole clusters, or writes to a block that does not run")
    if waiting:
        raise RuntimeError(f"deadlock in {name}: {waiting} threads wait for ever")


def _argument(name: str, kind: str, value: Any) -> Any:
    """Return one argument as ctypes has it; an address where a number belongs is a slip."""
    is_address = isinstance(value, fake_cupy.Address)
    if kind == "f":
        if not isinstance(value, float):
            raise TypeError(f"{name} takes a float, got {value!r}")
        return ctypes.c_double(value)
    if is_address != (kind == "p") and not (kind == "p" and value == 0):
        raise TypeError(f"{name} takes {'an address' if kind == 'p' else 'an int'}, got {value!r}")
    if is_address:
        value.check()
    return ctypes.c_uint64(int(value) & (2**64 - 1))
