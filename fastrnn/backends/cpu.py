"""The compiled engine: what the kernels in `csrc` want to know of a pass, and the memory for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn import dropout

from .base import Array, Numerics, Saved, Weights
from .memory import Memory

if TYPE_CHECKING:
    from fastrnn import _core
    from fastrnn.cellmath import CellSpec
    from fastrnn.rows import Rows


def why_not() -> str | None:
    """Return why this backend cannot be used: the extension is missing or does not load."""
    try:
        from fastrnn import _core  # noqa: F401  (whether it loads is the question)
    except ImportError as error:
        return f"the compiled extension does not load ({error}); reinstall with a C++17 compiler"
    return None


class Tiles(NamedTuple):
    """Use of the tile unit: in how many parts of bfloat16, and the least sizes of a call."""

    parts: int
    B: int
    TB: int
    H: int
    BH: int


_FUNCTIONS = "Forward", "Backward", "packed_size", "pack", "split_size", "split", "how_run"

_BYTE = np.dtype(np.uint8)

# From these sizes on the tile unit is faster than fused multiply-adds
# (docs/adr/0007-floats-in-parts-on-the-tile-unit.md).
TILES = {
    "highest": Tiles(parts=3, B=16, TB=256, H=128, BH=4096),
    "high": Tiles(parts=2, B=16, TB=256, H=64, BH=1024),
    "medium": Tiles(parts=1, B=16, TB=256, H=64, BH=1024),
}


class Kernels(NamedTuple):
    """The extension's functions for one dtype."""

    forward: type[_core.Forward]
    backward: type[_core.Backward]
    packed_size: Callable[[_core.Pass, bool], int]
    pack: Callable[[_core.Pass, bool, int, Array], None]
    split_size: Callable[[_core.Pass, bool, int], int]
    split: Callable[[_core.Pass, bool, int, int, Array, Array], None]
    how_run: Callable[[_core.Pass, int, int], tuple[int, bool, int, int, int]]


class Packed:
    """Weights of one pass: the matrices in the kernels' panels, the rest as it is.

    On a processor with a tile unit also the panels in parts of bfloat16, made at first need.
    """

    def __init__(
        self,
        kernels: Kernels,
        memory: Memory,
        arrays: dict[str, Any],
        backward: bool,
        threads: int,
    ) -> None:
        self._kernels, self._memory = kernels, memory
        self._panels = []
        for phase in (False, True)[: 1 + backward]:
            panels = memory.aligned((kernels.packed_size(arrays, phase),), arrays["ih"].dtype)
            kernels.pack(arrays, phase, threads, panels)
            self._panels.append(panels)
        self._split: dict[tuple[int, bool], Array] = {}
        self._lock = threading.Lock()
        # the cell, I, H, P, and what is in no panels
        self.spec: dict[str, Any] = {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in arrays.items()
            if name not in ("ih", "hh")
        } | {"ih": None, "hh": None}

    def arguments(self, backward: bool, parts: int, threads: int) -> dict[str, Any]:
        """Return what a call of the kernels wants to know of the weights."""
        panels = self._panels[backward]
        split = self._in_parts(panels, backward, parts, threads) if parts else None
        return self.spec | {"packed": panels, "split": split, "parts": parts}

    def _in_parts(self, panels: Array, backward: bool, parts: int, threads: int) -> Array:
        key = parts, backward
        with self._lock:
            if key not in self._split:
                size = self._kernels.split_size(self.spec, backward, parts)
                split = self._memory.aligned((size,), np.dtype(np.uint16))
                self._kernels.split(self.spec, backward, parts, threads, panels, split)
                self._split[key] = split
            return self._split[key]


class CpuBackend:
    """C++ kernels, chosen for the processor at first use."""

    name = "cpu"
    xp = np
    mask = staticmethod(dropout.mask)

    def __init__(self) -> None:
        from fastrnn import _core

        # A wrong FASTRNN_ISA is an error here, not a reason for another backend.
        self._isa = _core.isa()
        self._kernels = {
            np.dtype(dtype): Kernels(*(getattr(_core, name + suffix) for name in _FUNCTIONS))
            for dtype, suffix in ((np.float32, "32"), (np.float64, "64"))
        }
        self._tile_unit = _core.tile_unit()
        self._memory = Memory()
        self._cells = {name: index for index, (name, *_) in enumerate(_core.cells())}

    def pack(self, cell: CellSpec, w: Weights, *, backward: bool, threads: int) -> Packed:
        """Return the panels of the forward kernels, and of the backward ones if they are wanted."""
        kernels = self._kernels[w.ih.dtype]
        return Packed(kernels, self._memory, self._sizes(cell, w) | w._asdict(), backward, threads)

    def _sizes(self, cell: CellSpec, w: Weights) -> dict[str, int]:
        return {
            "cell": self._cells[cell.kind],
            "T": 0,
            "B": 0,
            "I": w.ih.shape[1],
            "H": w.hh.shape[0] // len(cell.gates),
            "P": w.hh.shape[1],
        }

    def _parts(self, dtype: np.dtype[Any], numerics: Numerics, T: int, B: int, H: int) -> int:
        """Return of how many bfloat16 numbers the tile unit is to make a float; 0: it is not used.

        It depends on the whole call and not on the share of a thread, so that the number of threads
        cannot change a bit.
        """
        if self._no_tiles(dtype, numerics) is not None:
            return 0
        tiles = TILES[numerics.precision]
        if B < tiles.B or T * B < tiles.TB or H < tiles.H or B * H < tiles.BH:
            return 0
        return tiles.parts

    def _no_tiles(self, dtype: np.dtype[Any], numerics: Numerics) -> str | None:
        """Return why no call of such a layer takes the tile unit."""
        if not self._tile_unit:
            return "no tile unit"
        if numerics.reproducible:
            return "reproducible=True"
        return None if dtype == np.float32 else "dtype is not float32"

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass would be run; see `Backend.explain`."""
        sizes = self._sizes(cell, w) | {"T": T, "B": B}
        parts = self._parts(w.ih.dtype, numerics, T, B, sizes["H"])
        used, by_rows, lanes, rows, vectors = self._kernels[w.ih.dtype].how_run(
            sizes | {"hr": w.hr}, threads, parts
        )
        least = TILES[numerics.precision]
        from_ = f"B={least.B}, T*B={least.TB}, H={least.H}, B*H={least.BH}"
        why_not = self._no_tiles(w.ih.dtype, numerics) or f"the call is below one of {from_}"
        return {
            "instruction set": self._isa,
            "products": (
                f"tile unit, parts={parts} of bfloat16 a float: the call reaches {from_}"
                if parts
                else f"fused multiply-adds: {why_not}"
            ),
            "tile": (
                "32 rows x 1 or 2 vectors of 16"
                if parts
                else f"{rows} rows x {vectors} vectors of {lanes}"
            ),
            "threads": used,
            "threads share": "nothing: one thread" if used == 1 else "rows" if by_rows else "units",
        }

    def forward(
        self,
        cell: CellSpec,
        packed: Packed,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        *,
        reverse: bool,
        keep: bool,
        threads: int,
        numerics: Numerics,
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass; see `Backend.forward`. Reproducible by one chain of operations a sum."""
        T, B, _ = x.shape
        fill = rows.counts is not None  # with zeros, where rows do not run
        y_shape = T, B, h0.shape[1]
        hn = np.empty_like(h0)
        cn = None if c0 is None else np.empty_like(c0)
        gates = c = None
        if keep:
            make = self._memory.zeros if fill else self._memory.empty
            y = make(y_shape, x.dtype)
            gates = make((T, B, len(cell.saved) * packed.spec["H"]), x.dtype)
            c = None if c0 is None else make((T, B, c0.shape[1]), x.dtype)
        else:
            y = (np.zeros if fill else np.empty)(y_shape, x.dtype)
        call = self._kernels[x.dtype].forward(
            packed.arguments(False, self._parts(x.dtype, numerics, T, B, packed.spec["H"]), threads)
            | _arguments(x, h0, c0, rows, reverse, threads)
            | {"hn": hn, "cn": cn, "y": y, "gates": gates, "c": c}
        )
        call(self._memory.empty((call.work_size(),), _BYTE))
        if gates is None:
            return y, hn, cn, None
        return y.copy(), hn, cn, Saved(y, gates, c)

    def backward(
        self,
        cell: CellSpec,
        packed: Packed,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        saved: Saved,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Weights,
        *,
        reverse: bool,
        threads: int,
        numerics: Numerics,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass; see `Backend.backward`."""
        make = np.empty if rows.counts is None else np.zeros
        dx = make(x.shape, x.dtype)
        T, B, _ = x.shape
        parts = self._parts(x.dtype, numerics, T, B, packed.spec["H"])
        dh0 = dh.copy()
        dc0 = None if dc is None else dc.copy()
        call = self._kernels[x.dtype].backward(
            packed.arguments(True, parts, threads)
            | _arguments(x, h0, c0, rows, reverse, threads)
            | {
                "y": saved.y,
                "gates": saved.gates,
                "c": saved.c,
                "dy": None if dy is None else _rows(dy),
                "dh": dh0,
                "dc": dc0,
                "dx": dx,
                "grads": grads._asdict(),
            }
        )
        call(self._memory.empty((call.work_size(),), _BYTE))
        return dx, dh0, dc0

    def bind(
        self,
        cell: CellSpec,
        packed: Packed,
        x: Array,
        h: Array,
        c: Array | None,
        y: Array,
        *,
        threads: int,
        numerics: Numerics,
    ) -> Callable[[], None]:
        """Return a function that advances one step; see `Backend.bind`."""
        from fastrnn.rows import ALL

        call = self._kernels[x.dtype].forward(
            packed.arguments(
                False, self._parts(x.dtype, numerics, 1, len(x), packed.spec["H"]), threads
            )
            | _arguments(x[None], h, c, ALL, False, threads)
            | {"hn": h, "cn": c, "y": y[None], "gates": None, "c": None}
        )
        work = np.empty(call.work_size(), np.uint8)
        return lambda: call(work)


def _arguments(
    x: Array,
    h0: Array,
    c0: Array | None,
    rows: Rows,
    reverse: bool,
    threads: int,
) -> dict[str, Any]:
    x = _rows(x)
    return {
        "T": x.shape[0],
        "B": x.shape[1],
        "x": x,
        "h0": h0,
        "c0": c0,
        "order": rows.order,
        "counts": rows.counts,
        "cut": None if rows.cut is None else rows.cut.view(np.uint8),
        "reverse": reverse,
        "threads": threads,
    }


def _rows(a: Array) -> Array:
    """Return a with its last axis contiguous and every stride a multiple of an element."""
    size = a.itemsize
    if a.strides[2] == size and a.flags.aligned and a.strides[0] % size == a.strides[1] % size == 0:
        return a
    return a.copy()  # ascontiguousarray would hand back what is contiguous but unaligned
