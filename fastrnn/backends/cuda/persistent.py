"""All steps of a pass in one launch: whether that can be done, and how the work is cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import tune
from .compile import program
from .launch import address

if TYPE_CHECKING:
    from .device import Array, Kernel
    from .launch import Launcher
    from .rows import DeviceRows

THREADS = 256
"""Threads of a block."""

LEAST_STEPS = 4
"""Fewer do not pay for the weights' way into shared memory. An estimate, not yet measured."""

MOST_ROWS = 64
"""A larger batch gives cuBLAS enough to do in each step. An estimate, not yet measured."""

# As in kernels/cuda/persistent.cu.
_ROWS = 4
_TILE = 4096

_MOST_UNITS = 32
_MOST_GROUPS = 16


class Plan(NamedTuple):
    """A launch that was found to fit."""

    kernel: Kernel
    blocks: int
    shared: int  # bytes
    units: int  # hidden units of a block
    groups: int  # of _ROWS rows each; the threads left over cut the sums

    @property
    def label(self) -> str:
        """What tells it from other launches of the same work."""
        return f"{self.units} units to a block"

    def launch(self, rows: DeviceRows, B: int, H: int, *args: Array | int | None) -> None:
        """Launch; `args` are what follows the geometry: ints, and arrays or None."""
        meetings = rows.xp.zeros(2, np.uint32)
        geometry = (len(rows.steps), B, H, self.units, self.groups, int(rows.reverse))
        rest = (a if isinstance(a, int) else address(a) for a in args)
        self.kernel((self.blocks,), (THREADS,), (*geometry, *rest, address(meetings)), self.shared)


def plan(launch: Launcher, name: str, steps: int, B: int, G: int, H: int) -> Plan | None:
    """Return how a pass of B rows can run in one launch, or None if it cannot or should not.

    Blocks wait for each other, so that all must run at once: the fewer units a block has, the more
    blocks there are. The device is asked how many it holds. Sums are cut in a way that depends on
    B, which a product of chains must not be.
    """
    if launch.chain or steps < LEAST_STEPS:
        return None
    way = tune.choice(launch, name, B, H)
    if way is None:
        return next(candidates(launch, name, B, G, H), None) if B <= MOST_ROWS else None
    if way == tune.STEPS:
        return None
    return next((p for p in candidates(launch, name, B, G, H) if p.label == way), None)


def candidates(launch: Launcher, name: str, B: int, G: int, H: int) -> Iterator[Plan]:
    """Yield the launches that fit, the best first by estimate."""
    device = launch.device
    groups = min(_MOST_GROUPS, _power_of_two(-(-B // _ROWS)))
    units = 1
    while units <= min(_MOST_UNITS, THREADS // groups):
        blocks = -(-H // units)
        shared = (G * H * units + _TILE) * launch.dtype.itemsize
        if blocks <= device.multiprocessors and shared <= device.shared_memory:
            text = program(launch.dtype, launch.cell, persistent=True)
            kernel, room = device.cooperative(text, name, THREADS, shared)
            if blocks <= room:
                yield Plan(kernel, blocks, shared, units, groups)
        units *= 2


def _power_of_two(n: int) -> int:
    """Return the first power of two that is not less than n."""
    return 1 << (n - 1).bit_length()
