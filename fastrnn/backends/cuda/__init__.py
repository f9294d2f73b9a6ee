"""CUDA through CuPy: one pass from kernels of our own and cuBLAS's products.

Every launch goes to the caller's current stream and none waits for another's answer. No kernel is
compiled and CuPy is not imported before the backend is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.backends.base import Numerics, Saved, Weights

from . import passes
from .device import Array, CupyDevice, Device
from .launch import Launcher
from .passes import Memory, Packed, Step, shape
from .rows import DeviceRows

if TYPE_CHECKING:
    from fastrnn.cellmath import CellSpec
    from fastrnn.rows import Rows


def why_not() -> str | None:
    """Return what is missing, the first thing first, or None."""
    try:
        CupyDevice()
    except RuntimeError as error:
        return str(error)
    return None


class CudaBackend:
    """The current device's kernels, compiled when they are first needed.

    Parameters
    ----------
    device : Device, optional
        CuPy's by default.
    """

    name = "cuda"

    def __init__(self, device: Device | None = None) -> None:
        self._device = CupyDevice() if device is None else device
        self.xp = self._device.xp
        self._launcher = lru_cache(maxsize=None)(self._new_launcher)

    def _new_launcher(
        self,
        dtype: np.dtype[Any],
        cell: str | None = None,
        numerics: Numerics = Numerics(),  # noqa: B008 (a constant)
    ) -> Launcher:
        return Launcher(self._device, dtype, cell, numerics.reproducible, numerics.precision)

    def mask(
        self,
        seed: int,
        layer: int,
        start: int,
        shape: tuple[int, ...],
        p: float,
        dtype: np.dtype[Any],
    ) -> Array:
        """Return a dropout mask; see `fastrnn.dropout.mask`."""
        return self._launcher(dtype).mask(seed, layer, start, shape, p)

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass would be run; see `Backend.explain`."""
        launch = self._launcher(w.ih.dtype, cell.kind, numerics)
        once = passes.in_one_launch(launch, shape(cell), w, T, B)
        if once:
            return {
                "products": "cuBLAS",
                "time loop": "persistent kernel",
                "recurrent products": once.cut.path.says,
            }
        return {
            "products": "one chain a sum" if numerics.reproducible else "cuBLAS",
            "time loop": "launches at every step",
        }

    def pack(
        self,
        cell: CellSpec,
        w: Weights,
        *,
        backward: bool,
        threads: int,
        narrow: str | None = None,
    ) -> Packed:
        """Return a copy of the weights, and their biases summed."""
        # mypy: a list of optional arrays for fields of which two are never None
        copied = Weights(*[None if a is None else a.copy() for a in w])  # type: ignore[arg-type]
        rows = w.hh.shape[0]
        H = rows // len(cell.gates)
        summed = rows - H if shape(cell).split_last else rows
        if w.b_ih is None or w.b_hh is None:
            zeros = self.xp.zeros(rows, w.hh.dtype)
            return Packed(copied, zeros, zeros[summed:] if summed < rows else None)
        bias = w.b_ih.copy()
        bias[:summed] += w.b_hh[:summed]
        return Packed(copied, bias, w.b_hh[summed:].copy() if summed < rows else None)

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
        """Run one pass; see `Backend.forward`."""
        launch = self._launcher(x.dtype, cell.kind, numerics)
        run = DeviceRows(self.xp, x.shape[0], x.shape[1], rows, reverse)
        h, c = run.sort(h0), None if c0 is None else run.sort(c0)
        packed_y, all_c, saved = passes.forward(
            launch, shape(cell), packed, run, run.pack(x), h, c, keep
        )
        y = run.unpack(packed_y)
        hn, cn = run.unsort(h), None if c is None else run.unsort(c)
        if saved is None:
            return y, hn, cn, None
        kept_c = None if all_c is None else run.unpack(all_c)
        return y, hn, cn, Saved(y.copy(), run.unpack(saved), kept_c)

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
        launch = self._launcher(x.dtype, cell.kind, numerics)
        run = DeviceRows(self.xp, x.shape[0], x.shape[1], rows, reverse)
        dh, dc = run.sort(dh), None if dc is None else run.sort(dc)
        kept = Memory(
            x=run.pack(x),
            y=run.pack(saved.y),
            saved=run.pack(saved.gates),
            c=None if saved.c is None else run.pack(saved.c),
            h0=run.sort(h0),
            c0=None if c0 is None else run.sort(c0),
        )
        dx = passes.backward(
            launch,
            shape(cell),
            packed,
            run,
            kept,
            None if dy is None else run.pack(dy),
            dh,
            dc,
            grads,
        )
        return run.unpack(dx), run.unsort(dh), None if dc is None else run.unsort(dc)

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
        launch = self._launcher(x.dtype, cell.kind, numerics)
        step = Step(launch, shape(cell), packed, len(x))
        w = packed.weights
        gates = self.xp.empty((len(x), w.ih.shape[0]), x.dtype)

        def advance() -> None:
            launch.product(x, w.ih.T, gates)
            step(gates, h, c, y, None, None)

        return advance
