"""Launches: geometry and arguments of the kernels, products and sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .compile import program
from .device import Array, Device
from .graphs import Graphs

if TYPE_CHECKING:
    from fastrnn.spec import Options

THREADS = 256
"""Threads of a block where a thread has one result."""

_GROUP = 128
"""Rows that one thread adds up in the first pass over many rows."""

_MOST_GROUPS = 1 << 15
"""Of such groups: a grid has at most 65535 blocks in its second direction."""

LONGEST = 1 << 13
"""Terms that cuBLAS adds up in one float32 sum; of longer sums, parts are added in float64. A sum's
error grows with its length, for numbers of one sign as fast."""

_TILE = 16
"""Rows and columns of a block's tile in chain_product."""


class Launcher:
    """The kernels of one cell, or without a cell those that all share, for one dtype.

    Parameters
    ----------
    device : Device
    dtype : float32 or float64
    cell : kind of the cell
    chain : whether every result of a product is one chain of operations over rising k, which no
        size around it changes; else cuBLAS computes products
    precision : of float32 products that are no chains: "highest", "high" or "medium"
    graphs : Graphs, optional
        Those of the device; new ones by default.
    options : of a cell that has some
    """

    def __init__(
        self,
        device: Device,
        dtype: np.dtype[Any],
        cell: str | None = None,
        chain: bool = False,
        precision: str = "highest",
        graphs: Graphs | None = None,
        options: Options | None = None,
    ) -> None:
        self.graphs = Graphs(device) if graphs is None else graphs
        chosen = "" if options is None else f"{tuple(options)} "
        self.key = f"{cell} {chosen}{dtype} {'chain' if chain else precision}"
        """What tells its kernels from others'."""
        self.xp = device.xp
        self.dtype = dtype
        self.chain = chain
        self.precision = precision
        self.device = device
        self.cell = cell
        self.options = options
        self._shared = program(dtype)
        self._steps = program(dtype, cell, options) if cell else self._shared

    # --------------------------------------------------------------------------- a thread a unit

    def units(self, name: str, n: int, width: int, *args: Array | None) -> None:
        """Run a kernel of the cell with a thread for each of n * width results."""
        blocks = -(-n * width // THREADS)
        kernel = self.device.kernel(self._steps, name)
        kernel((blocks,), (THREADS,), (n, width, *map(address, args)))

    # --------------------------------------------------------------------------------- products

    def product(self, a: Array, b: Array, out: Array, *, accumulate: bool = False) -> None:
        """Write a (M, K) times b (K, N) to out (M, N), or add it to what is there."""
        if self.chain or a.shape[1] <= LONGEST or self.dtype.itemsize == 8:
            self.step_product(a, b, out, accumulate=accumulate)
        else:
            self._long_product(a, b, out, accumulate)

    def step_product(self, a: Array, b: Array, out: Array, *, accumulate: bool = False) -> None:
        """Do the same in one product, which reserves no memory: what a recorded step needs, whose
        sums are over hidden units."""
        if self.chain:
            self._chain_product(a, b, out, accumulate)
        else:
            self.device.gemm(a, b, out, accumulate, self.precision)

    def _long_product(self, a: Array, b: Array, out: Array, accumulate: bool) -> None:
        part = self.xp.empty(out.shape, self.dtype)
        total = out.astype(np.float64) if accumulate else self.xp.zeros(out.shape, np.float64)
        for first in range(0, a.shape[1], LONGEST):
            ks = slice(first, first + LONGEST)
            self.device.gemm(a[:, ks], b[ks], part, False, self.precision)
            total += part
        out[...] = total

    def _chain_product(self, a: Array, b: Array, out: Array, accumulate: bool) -> None:
        (M, K), N = a.shape, b.shape[1]
        shared = 2 * _TILE * (_TILE + 1) * self.dtype.itemsize
        kernel = self.device.kernel(self._shared, "chain_product")
        kernel(
            (-(-M // _TILE) * -(-N // _TILE),),
            (_TILE * _TILE,),
            (M, N, K, *matrix(a), *matrix(b), *matrix(out)[:2], int(accumulate)),
            shared,
        )

    def add_product(self, out: Array, a: Array, b: Array, last_first: bool) -> None:
        """Add a (N, M) transposed times b (N, K) to out (M, K).

        In a chain the rows are summed in their order, or last first.
        """
        if self.chain and last_first:
            a, b = a[::-1], b[::-1]
        self.product(a.T, b, out, accumulate=True)

    def add_sum(self, out: Array, a: Array, last_first: bool, factor: Array | None = None) -> None:
        """Add the sum of the rows of a (N, M), times those of `factor`, to out (M,)."""
        if self.chain:
            if last_first:
                a, factor = a[::-1], None if factor is None else factor[::-1]
            self._sum("column_chains", a, factor, len(a), out, out)
            return
        group = max(_GROUP, -(-len(a) // _MOST_GROUPS))
        partial = self.xp.empty((-(-len(a) // group), a.shape[1]), self.dtype)
        self._sum("column_sums", a, factor, group, None, partial)
        self._sum("column_sums", partial, None, len(partial), out, out)

    def _sum(
        self,
        name: str,
        a: Array,
        factor: Array | None,
        group: int,
        seed: Array | None,
        out: Array,
    ) -> None:
        rows, columns = a.shape
        kernel = self.device.kernel(self._shared, name)
        kernel(
            (-(-columns // THREADS), -(-rows // group)),
            (THREADS,),
            (
                *(rows, columns, group),
                *matrix(a)[:2],
                *matrix(factor)[:2],
                *(address(seed), address(out)),
            ),
        )

    # ---------------------------------------------------------------------------------- dropout

    def mask(self, seed: int, layer: int, start: int, shape: tuple[int, ...], p: float) -> Array:
        """Return a dropout mask; see `fastrnn.dropout.mask`."""
        out = self.xp.empty(shape, self.dtype)
        first, last = start // 8, -(-(start + out.size) // 8)
        kernel = self.device.kernel(self._shared, "dropout_mask")
        kernel(
            (-(-(last - first) // THREADS),),
            (THREADS,),
            (
                *(start, out.size, first),
                *(np.uint64(seed), layer, int(p * 2**32), 1 / (1 - p)),
                address(out),
            ),
        )
        return out


def matrix(a: Array | None) -> tuple[int, int, int]:
    """Return where a matrix begins, and its strides in elements."""
    if a is None:
        return 0, 0, 0
    return address(a), a.strides[0] // a.itemsize, a.strides[1] // a.itemsize


def address(a: Array | None) -> int:
    """Return where an array's elements begin, 0 for none."""
    pointer: int = 0 if a is None else a.data.ptr
    return pointer
