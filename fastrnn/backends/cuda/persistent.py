"""All steps of a pass in one launch: whether that can be done and pays, and how it is tiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import compile, tune
from .device import CLUSTERS
from .launch import address

if TYPE_CHECKING:
    from .device import Array, Kernel
    from .launch import Launcher
    from .packed_sequence import DeviceSequence

THREADS = 256
"""Threads of a block."""

LEAST_STEPS = 4
"""Fewer do not pay for the weights' way into registers and shared memory. An estimate."""

MOST_ROWS = 1024
"""A larger batch gives cuBLAS enough to do in each step, whatever the estimates below say."""

MOST_PUBLISHED = 64 << 20
"""Bytes of what blocks publish with flags, of which each step has its own; more steps take several
launches."""

COUNTER, FLAGS, CLUSTER = EXCHANGES = "counter", "flags", "cluster"
"""How blocks exchange what they publish; see kernels/cuda/exchange.h: a barrier after each step,
flags in the data as of NCCL's LL protocol, or the shared memory of a cluster of blocks."""

_EXCHANGE_TYPES = {COUNTER: "BarrierExchange", FLAGS: "FlagExchange", CLUSTER: "ClusterExchange"}

MOST_CLUSTERED = 8
"""Blocks of a cluster that every GPU with clusters can run."""

# As in kernels/cuda/tile.h.
_ROWS = 16
_COLUMNS = 8
_CHUNK = 16

_MOST_COLUMNS = 2

_BUDGETED = 4
_OF_TILE = 8
"""Registers that each further tile takes besides its weights."""


class MatmulPath(NamedTuple):
    """One way to compute products; see kernels/cuda/tile.h."""

    name: str
    says: str
    bytes: int
    """Of 16 x 16 weights in shared memory."""
    words: int
    """Registers of a lane for as many; 0 if they cannot be there."""
    budget: int
    """Registers for weights, and for values on their way to them, of up to _BUDGETED tiles without
    spills. As found by compiling; tests/cuda/test_nvrtc.py does so for all of GPUs, cells and
    tilings."""
    values: int
    """Registers for 8 x 16 values on their way, counted in the budget."""
    most: int
    """Tiles of sums that fit into registers."""
    word: int
    """Bytes of a value that blocks publish."""
    rate: float
    """Multiply-adds of a multiprocessor in a nanosecond. An estimate."""


CHAINS = MatmulPath("Chains", "fused multiply-adds", 1024, 0, 0, 0, 4, 4, 150)
CHAINS_DOUBLE = MatmulPath("Chains", "fused multiply-adds", 2048, 0, 0, 0, 2, 8, 60)
THREE_TF32 = MatmulPath("ThreeTf32", "three products of TF32", 1024, 8, 96, 8, 4, 4, 350)
TF32 = MatmulPath("Tf32", "TF32", 1024, 8, 132, 4, 8, 4, 1150)
BF16 = MatmulPath("Bf16", "bfloat16", 512, 4, 96, 2, 8, 2, 2270)

# What the estimates of time rest on: published figures of an H100. Microseconds, and bytes in one.
_GRID_BARRIER = 0.9
_FLAGS = 0.6
_IN_CLUSTER = 0.4
_LATENCY = 0.3
_BLOCK_BARRIER = 0.05
_CELLS = 0.1
_FROM_L2 = 41e3
_FROM_SHARED = 200e3
_TO_SHARED = 20e3
_STEP_LAUNCHES = 6.0
_ALL_FROM_L2 = 5.5e6
_FILLED = 1.2e6


def path(itemsize: int, precision: str, capability: int) -> MatmulPath:
    """Return how products of a precision are computed on a GPU of a compute capability."""
    if itemsize == 8:
        return CHAINS_DOUBLE
    if capability < 80:
        return CHAINS
    return {"highest": THREE_TF32, "high": TF32, "medium": BF16}[precision]


class Tiling(NamedTuple):
    """How a pass is tiled. The grid is blocks of `units` hidden units x groups of `rows` rows of
    the batch."""

    path: MatmulPath
    units: int
    rows: int
    grid: tuple[int, int]
    tiles: int
    columns: int
    register_chunks: int
    exchange: str
    padded: int
    """Values of a row that blocks publish."""
    shared: int
    """Bytes of shared memory."""
    time: float
    """Microseconds a step, estimated."""

    @property
    def label(self) -> str:
        """What tells it from other tilings of the same work, and is that of a batch of about as
        many rows too."""
        at_once = self.columns * _COLUMNS
        work = f"blocks of {self.units} units and {self.rows} rows, {at_once} at once"
        return f"{work}, {self.exchange}"

    @property
    def options(self) -> dict[str, str | int]:
        """The options of the program."""
        options: dict[str, str | int] = {
            "path": self.path.name,
            "tiles": self.tiles,
            "columns": self.columns,
            "register_chunks": self.register_chunks,
            "exchange": _EXCHANGE_TYPES[self.exchange],
        }
        return options | {"cluster": self.grid[0]} if self.exchange == CLUSTER else options

    def span(self, B: int) -> int | None:
        """Return how many steps of B rows one launch may run, None for any number."""
        if self.exchange != FLAGS:
            return None
        return max(1, MOST_PUBLISHED // (B * self.padded * self.path.word))


class Work(NamedTuple):
    """The products of one step: B rows of K values with `gates` rows of weights for each of H."""

    B: int
    H: int
    gates: int
    K: int
    itemsize: int
    slots: int
    """Steps of which there are values at once; what a forward begins with counts as one."""


def work_of(name: str, B: int, G: int, H: int, itemsize: int) -> Work:
    """Return what the kernel `name` does at each step of a cell of G gates."""
    if name == "persistent_forward":
        return Work(B, H, G, H, itemsize, 3)
    return Work(B, H, 1, G * H, itemsize, 2)


class DeviceLimits(NamedTuple):
    """What of a GPU limits how work can be tiled."""

    threads: int
    """Of a block."""
    multiprocessors: int
    shared: int
    """Bytes of shared memory that a block can have."""
    clustered: int
    """Blocks that can be a cluster; 1 if there are none."""

    def holds(self, tiling: Tiling) -> bool:
        """Whether a tiling fits, a block to a multiprocessor."""
        across, down = tiling.grid
        if tiling.exchange == CLUSTER:
            # Multiprocessors come in groups of about so many, and a cluster is in one of these.
            together = 16
            fitting = self.multiprocessors // together * (together // across)
            return 1 < across <= self.clustered and down <= fitting and tiling.shared <= self.shared
        return across * down <= self.multiprocessors and tiling.shared <= self.shared


def make_tiling(
    work: Work,
    path: MatmulPath,
    threads: int,
    units: int,
    rows: int,
    columns: int,
    register_chunks: int | None = None,
    exchange: str = COUNTER,
) -> Tiling:
    """Return the tiling into blocks of so many units and groups of so many rows, of which `columns`
    tiles are multiplied at once; `register_chunks` as many chunks as the path has registers for."""
    warps = threads // 32
    steps = -(-work.K // (_CHUNK * warps))
    padded = steps * warps * _CHUNK
    tiles = -(-units * work.gates // _ROWS)
    if register_chunks is None:
        each = tiles * path.words + columns * path.values
        budget = path.budget - _OF_TILE * max(0, tiles - _BUDGETED)
        register_chunks = min(steps, budget // each) if each else 0
    at_once = columns * _COLUMNS
    sums = warps * at_once * (tiles * _ROWS + 4) * work.itemsize
    weights = (steps - register_chunks) * warps * tiles * path.bytes
    shared = sums + weights
    grid = -(-work.H // units), -(-work.B // rows)
    values = min(at_once, work.B) * work.K * path.word
    if exchange == CLUSTER:
        shared += (1 + work.slots * rows) * (padded + _CHUNK) * path.word
        reading = values / _TO_SHARED + values / _FROM_SHARED
    else:
        reading = values / _FROM_L2
    time = (
        reading
        + (weights + 2 * sums) / _FROM_SHARED
        + tiles * _ROWS * at_once * padded / path.rate / 1e3
        + 2 * _BLOCK_BARRIER
        + _CELLS * -(-at_once * units // threads)
    )
    time *= -(-rows // at_once)
    tiling = Tiling(
        path, units, rows, grid, tiles, columns, register_chunks, exchange, padded, shared, time
    )
    return tiling._replace(time=time + _exchange_time(work, tiling))


def _exchange_time(work: Work, tiling: Tiling) -> float:
    """Return an estimate of what a step's exchange costs besides the loads, in microseconds."""
    if tiling.exchange == CLUSTER:
        return _IN_CLUSTER
    span = tiling.span(work.B)
    if span is None:
        return _LATENCY + (_GRID_BARRIER if tiling.grid[0] > 1 else _BLOCK_BARRIER)
    filling = work.B * tiling.padded * tiling.path.word / _FILLED
    weights = work.gates * work.H * work.K * work.itemsize
    return _LATENCY + _FLAGS + filling + (_STEP_LAUNCHES + weights / _ALL_FROM_L2) / span


@lru_cache(maxsize=1024)
def tilings(work: Work, path: MatmulPath, limits: DeviceLimits) -> tuple[Tiling, ...]:
    """Return the tilings that fit, the one estimated the fastest first; those that differ in their
    exchange alone follow each other.

    Blocks have whole tiles of weights, or all units that there are. One that has all units has
    nobody to exchange with.
    """
    found: list[list[Tiling]] = []
    for tiles in range(1, path.most + 1):
        units = min(work.H, tiles * _ROWS // work.gates)
        for row_tiles in range(1, -(-work.B // _COLUMNS) + 1):
            for columns in range(1, min(_MOST_COLUMNS, path.most // tiles, row_tiles) + 1):
                rows = row_tiles * _COLUMNS
                alike = [
                    make_tiling(work, path, limits.threads, units, rows, columns, exchange=exchange)
                    for exchange in (EXCHANGES if units < work.H else (COUNTER,))
                ]
                fitting = [tiling for tiling in alike if limits.holds(tiling)]
                if fitting:
                    found.append(sorted(fitting, key=lambda tiling: tiling.time))
    found.sort(key=lambda alike: alike[0].time)
    return tuple(chain.from_iterable(found))


def best_tiling(work: Work, path: MatmulPath, limits: DeviceLimits) -> Tiling | None:
    """Return the first tiling, or None if none fits or launches at every step are estimated to be
    faster."""
    found = tilings(work, path, limits)
    if not found or found[0].time >= steps_time(work, path, limits.multiprocessors):
        return None
    return found[0]


def steps_time(work: Work, path: MatmulPath, multiprocessors: int) -> float:
    """Return an estimate of what a step costs that is two launches, in microseconds."""
    weights = work.gates * work.H * work.K
    return (
        _STEP_LAUNCHES
        + weights * work.itemsize / _ALL_FROM_L2
        + weights * work.B / (path.rate * 1e3 * multiprocessors)
    )


class Plan(NamedTuple):
    """A launch that was found to fit."""

    kernel: Kernel
    tiling: Tiling

    def launch(
        self, rows: DeviceSequence, B: int, H: int, K: int, steps: range, *args: Array | int | None
    ) -> None:
        """Run steps, which count in the order of a forward, of rows that publish K values each;
        `args` are what follows the geometry: ints, and arrays or None."""
        tiling = self.tiling
        rest = tuple(a if isinstance(a, int) else address(a) for a in args)
        span = tiling.span(B) or len(steps)
        for first in range(0, len(steps), span):
            here = steps[first : first + span]
            begin, end = min(here), max(here) + 1
            shared = self._published(rows.xp, B, K, len(here))
            geometry = (
                len(rows.steps),
                B,
                H,
                tiling.units,
                tiling.rows,
                int(rows.reverse),
                begin,
                end,
            )
            self.kernel(tiling.grid, (THREADS,), (*geometry, *rest, address(shared)), tiling.shared)

    def _published(self, xp: Any, B: int, K: int, steps: int) -> Array | None:
        """Return what the blocks of a launch share; see kernels/cuda/exchange.h.

        Before the slots of steps there is one for what a forward begins with.
        """
        tiling = self.tiling
        if tiling.exchange == CLUSTER:  # in their own memory
            return None
        counters = 128 * tiling.grid[1]
        slots = 1 + (2 if tiling.exchange == COUNTER else steps)
        size = (1 + slots * B) * tiling.padded * tiling.path.word
        shared = xp.zeros(counters + size, np.uint8)
        if tiling.exchange == FLAGS:
            words = shared[counters:].view(f"i{tiling.path.word}").reshape(-1, tiling.padded)
            words[1:, :K] = -1
        return shared


def plan(launch: Launcher, name: str, steps: int, B: int, G: int, H: int) -> Plan | None:
    """Return how a pass of B rows can run in one launch, or None if it cannot or should not.

    Blocks wait for each other, so that all must run at once: the device is asked how many it holds.
    Sums are split in a way that depends on B, which a product of chains must not be.
    """
    if launch.chain or launch.cell is None or steps < LEAST_STEPS or B == 0:
        return None
    algorithm = tune.choice(launch, name, B, H)
    if algorithm is None:
        return estimated(launch, name, B, G, H)
    if algorithm == tune.STEPS:
        return None
    fitting = tilings(*_question(launch, name, B, G, H))
    tiling = next((each for each in fitting if algorithm in (each.label, each.exchange)), None)
    if tiling is None:  # of another size of batch, or no other block to exchange with
        return estimated(launch, name, B, G, H)
    return _launch_of(launch, name, B, tiling)


def estimated(launch: Launcher, name: str, B: int, G: int, H: int) -> Plan | None:
    """Return the launch that is estimated to be the fastest, or None if steps are."""
    if B > MOST_ROWS:
        return None
    tiling = best_tiling(*_question(launch, name, B, G, H))
    return None if tiling is None else _launch_of(launch, name, B, tiling)


def candidates(launch: Launcher, name: str, B: int, G: int, H: int) -> Iterator[Plan]:
    """Yield the launches that fit, the best first by estimate; each is compiled when its turn
    comes."""
    # of few units several tilings are the same one
    for tiling in dict.fromkeys(tilings(*_question(launch, name, B, G, H))):
        found = _launch_of(launch, name, B, tiling)
        if found is not None:
            yield found


def _question(
    launch: Launcher, name: str, B: int, G: int, H: int
) -> tuple[Work, MatmulPath, DeviceLimits]:
    """Return what decides how a pass can be tiled."""
    device, itemsize = launch.device, launch.dtype.itemsize
    clustered = MOST_CLUSTERED if device.capability >= CLUSTERS else 1
    return (
        work_of(name, B, G, H, itemsize),
        path(itemsize, launch.precision, device.capability),
        DeviceLimits(THREADS, device.multiprocessors, device.shared_memory, clustered),
    )


def _launch_of(launch: Launcher, name: str, B: int, tiling: Tiling) -> Plan | None:
    """Return the launch of a tiling, or None if not all blocks that wait run at once."""
    assert launch.cell is not None
    text = compile.persistent(launch.dtype, launch.cell, name, launch.options, **tiling.options)
    clustered = tiling.exchange == CLUSTER
    kernel, room = launch.device.cooperative(text, name, THREADS, tiling.shared, clustered)
    across, down = tiling.grid
    if across * (1 if clustered else down) > room:
        return None
    return Plan(kernel, tiling)
