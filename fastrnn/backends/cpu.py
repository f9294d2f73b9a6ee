"""The compiled engine: what the kernels in `csrc` want to know of a pass, and the memory for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn import dropout

from .base import Array, Saved, Weights

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


class Kernels(NamedTuple):
    """The extension's functions for one dtype."""

    forward: type[_core.Forward]
    backward: type[_core.Backward]
    packed_size: Callable[[_core.Pass, bool], int]
    pack: Callable[[_core.Pass, bool, Array], None]


class Packed(NamedTuple):
    """Weights of one pass: a copy, and the same in the panels of the forward kernels."""

    weights: Weights
    forward: Array


class CpuBackend:
    """C++ kernels, chosen for the processor at first use."""

    name = "cpu"
    xp = np
    mask = staticmethod(dropout.mask)

    def __init__(self) -> None:
        from fastrnn import _core

        _core.isa()  # a wrong FASTRNN_ISA is an error here, not a reason for another backend
        self._kernels = {
            np.dtype(np.float32): Kernels(
                _core.Forward32, _core.Backward32, _core.packed_size32, _core.pack32
            ),
            np.dtype(np.float64): Kernels(
                _core.Forward64, _core.Backward64, _core.packed_size64, _core.pack64
            ),
        }
        self._cells = {name: index for index, (name, *_) in enumerate(_core.cells())}

    def pack(self, cell: CellSpec, w: Weights) -> Packed:
        """Return a copy of the weights and their panels."""
        # mypy: a list of optional arrays for fields of which two are never None
        copied = Weights(*[None if a is None else a.copy() for a in w])  # type: ignore[arg-type]
        return Packed(copied, self._panels(cell, copied, backward=False))

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
        reproducible: bool,
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass; see `Backend.forward`. One chain a sum makes every call reproducible."""
        T, B, _ = x.shape
        H = packed.weights.hh.shape[0] // len(cell.gates)
        make = np.empty if rows.counts is None else np.zeros
        y = make((T, B, h0.shape[1]), x.dtype)
        hn = np.empty_like(h0)
        cn = None if c0 is None else np.empty_like(c0)
        gates = c = None
        if keep:
            gates = make((T, B, len(cell.saved) * H), x.dtype)
            c = None if c0 is None else make((T, B, H), x.dtype)
        call = self._kernels[x.dtype].forward(
            self._arguments(cell, packed.weights, x, h0, c0, rows, reverse, threads)
            | {"packed": packed.forward, "hn": hn, "cn": cn, "y": y, "gates": gates, "c": c}
        )
        call(np.empty(call.work_size(), np.uint8))
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
        reproducible: bool,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass; see `Backend.backward`."""
        make = np.empty if rows.counts is None else np.zeros
        dx = make(x.shape, x.dtype)
        dh0 = dh.copy()
        dc0 = None if dc is None else dc.copy()
        call = self._kernels[x.dtype].backward(
            self._arguments(cell, packed.weights, x, h0, c0, rows, reverse, threads)
            | {
                "packed": self._panels(cell, packed.weights, backward=True),
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
        call(np.empty(call.work_size(), np.uint8))
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
        reproducible: bool,
    ) -> Callable[[], None]:
        """Return a function that advances one step; see `Backend.bind`."""
        from fastrnn.rows import ALL

        call = self._kernels[x.dtype].forward(
            self._arguments(cell, packed.weights, x[None], h, c, ALL, False, threads)
            | {"packed": packed.forward, "hn": h, "cn": c, "y": y[None], "gates": None, "c": None}
        )
        work = np.empty(call.work_size(), np.uint8)
        return lambda: call(work)

    def _panels(self, cell: CellSpec, w: Weights, *, backward: bool) -> Array:
        kernels = self._kernels[w.ih.dtype]
        spec = self._sizes(cell, w)
        panels = _aligned(kernels.packed_size(spec, backward), w.ih.dtype)
        kernels.pack(spec, backward, panels)
        return panels

    def _sizes(self, cell: CellSpec, w: Weights) -> dict[str, Any]:
        H = w.hh.shape[0] // len(cell.gates)
        return {
            "cell": self._cells[cell.kind],
            "T": 0,
            "B": 0,
            "I": w.ih.shape[1],
            "H": H,
            "P": w.hh.shape[1],
            **w._asdict(),
        }

    def _arguments(
        self,
        cell: CellSpec,
        w: Weights,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        reverse: bool,
        threads: int,
    ) -> dict[str, Any]:
        x = _rows(x)
        return self._sizes(cell, w) | {
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


def _aligned(n: int, dtype: np.dtype[Any]) -> Array:
    """Return an empty vector on a cache line, so that no vector load of a panel splits one."""
    raw = np.empty(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)
