"""CUDA through CuPy: one pass from kernels of our own and cuBLAS's products.

Every launch goes to the caller's current stream and none waits for another's answer. No kernel is
compiled and CuPy is not imported before the backend is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.backends import device_of
from fastrnn.backends.base import Sequential, Steps
from fastrnn.spec import CellSpec, Numerics, OutputGradients, PassArgs, Saved, Weights

from . import passes, persistent, tune
from .device import Array, CupyDevice, Device
from .graphs import SIZES, Graphs
from .launch import Launcher
from .packed_sequence import DeviceSequence
from .passes import PackedSaved, PackedWeights, Step, traits

MOST_CANDIDATES = 8
"""Launches that `find_fastest` times, the best ones by estimate."""


def why_not() -> str | None:
    """Return what is missing, the first thing first, or None."""
    try:
        CupyDevice()
    except RuntimeError as error:
        return str(error)
    return None


class CudaBackend:
    """The kernels of any device, compiled when they are first needed; what is called must find the
    device of its arrays the current one.

    Parameters
    ----------
    device : Device, optional
        CuPy's by default.
    """

    name = "cuda"
    new_gradients = None

    def __init__(self, device: Device | None = None) -> None:
        self._device = CupyDevice() if device is None else device
        self.xp = self._device.xp
        self._graphs = Graphs(self._device)
        self._launcher = lru_cache(maxsize=None)(self._new_launcher)

    def _new_launcher(
        self,
        dtype: np.dtype[Any],
        cell: CellSpec | None = None,
        numerics: Numerics = Numerics(),  # noqa: B008 (a constant)
    ) -> Launcher:
        chain, precision = numerics.reproducible, numerics.precision
        kind, options = (None, None) if cell is None else (cell.kind, cell.options)
        return Launcher(self._device, dtype, kind, chain, precision, self._graphs, options)

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

    def sum_runs(self, ordered: Array, order: Array, a: Array, out: Array) -> None:
        """Write to out (n, W) the sums of the rows of a (N, W) that have each index.

        Parameters
        ----------
        ordered : (N,) ints
            The rows' indices, rising; those outside 0..n-1 belong to none.
        order : (N,) int64
            The rows in this order.
        """
        xp = self.xp
        starts = xp.searchsorted(ordered, xp.arange(len(out) + 1, dtype=ordered.dtype))
        rows, starts = xp.ascontiguousarray(a), starts.astype(np.int64)
        self._launcher(out.dtype).units("sum_runs", *out.shape, starts, order, rows, out)

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass would be run; see `Backend.explain`."""
        launch = self._launcher(w.ih.dtype, cell, numerics)
        with device_of(w.ih):
            plan = passes.in_one_launch(launch, traits(cell), w, T, B)
        if plan:
            return {
                "products": "cuBLAS",
                "time loop": "persistent kernel",
                "recurrent products": plan.tiling.path.says,
                "exchange": plan.tiling.exchange,
            }
        return {
            "products": "one chain a sum" if numerics.reproducible else "cuBLAS",
            "time loop": _time_loop(T),
        }

    def find_fastest(self, layer: Any, T: int, B: int) -> Iterator[tune.Found]:
        """Time the algorithms for a layer's pass and keep what is found; see `tune.measure`."""
        cell, numerics = layer._stack.cell, layer._stack.numerics
        launch = self._launcher(layer.dtype, cell, numerics)

        def candidates(kernel: str) -> tuple[str, list[str]]:
            labels = self._labels(layer, launch, kernel, B)
            plan = None
            if labels:
                G, H = len(cell.gates), layer.hidden_size
                plan = persistent.estimated(launch, kernel, B, G, H)
            return tune.STEPS if plan is None else plan.tiling.label, labels

        return tune.measure(self._device, layer, launch, candidates, T, B)

    def algorithms(self, layer: Any, B: int) -> set[str]:
        """Return the labels of the launches among which `find_fastest` chooses for a layer."""
        stack = layer._stack
        launch = self._launcher(layer.dtype, stack.cell, stack.numerics)
        kernels = ("persistent_forward", "persistent_backward")
        with device_of(layer.flat_params):
            return {label for name in kernels for label in self._labels(layer, launch, name, B)}

    @staticmethod
    def _labels(layer: Any, launch: Launcher, kernel: str, B: int) -> list[str]:
        cell = layer._stack.cell
        if not passes.can_persist(traits(cell), layer._weights[0]):
            return []
        found = persistent.candidates(launch, kernel, B, len(cell.gates), layer.hidden_size)
        return [plan.tiling.label for plan in islice(found, MOST_CANDIDATES)]

    @staticmethod
    def choices_path() -> Path:
        """Return where `find_fastest` keeps what it finds."""
        return tune.path()

    def pack(
        self,
        cell: CellSpec,
        w: Weights,
        *,
        backward: bool,
        threads: int,
        weight_dtype: str | None = None,
        single_use: bool = False,
    ) -> PackedWeights:
        """Return a copy of the weights, or for one call themselves, and their biases summed."""
        if backward or not single_use:
            w = w.copied()
        rows = w.hh.shape[0]
        H = rows // len(cell.gates)
        summed = rows - H if traits(cell).linear_before_reset else rows
        if w.b_ih is None or w.b_hh is None:
            zeros = self.xp.zeros(rows, w.hh.dtype)
            return PackedWeights(w, zeros, zeros[summed:] if summed < rows else None)
        bias = w.b_ih.copy()
        bias[:summed] += w.b_hh[:summed]
        return PackedWeights(w, bias, w.b_hh[summed:].copy() if summed < rows else None)

    def forward(
        self, weights: PackedWeights, args: PassArgs, *, save: bool, threads: int
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass; see `Backend.forward`."""
        cell, numerics, x, h0, c0, rows, reverse = args
        launch = self._launcher(x.dtype, cell, numerics)
        run = DeviceSequence(self.xp, x.shape[0], x.shape[1], rows, reverse)
        h, c = run.sort(h0), None if c0 is None else run.sort(c0)
        packed_y, all_c, gates = passes.forward(
            launch, traits(cell), weights, run, run.pack(x), h, c, save
        )
        y = run.unpack(packed_y)
        hn, cn = run.unsort(h), None if c is None else run.unsort(c)
        if gates is None:
            return y, hn, cn, None
        saved_c = None if all_c is None else run.unpack(all_c)
        return y, hn, cn, Saved(y.copy(), run.unpack(gates), saved_c)

    def backward(
        self,
        weights: PackedWeights,
        args: PassArgs,
        saved: Saved,
        douts: OutputGradients,
        grads: Weights | passes.Sums,
        *,
        threads: int,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass; see `Backend.backward`."""
        cell, numerics, x, h0, c0, rows, reverse = args
        dy, dh, dc = douts
        launch = self._launcher(x.dtype, cell, numerics)
        run = DeviceSequence(self.xp, x.shape[0], x.shape[1], rows, reverse)
        dh, dc = run.sort(dh), None if dc is None else run.sort(dc)
        packed = PackedSaved(
            x=run.pack(x),
            y=run.pack(saved.y),
            gates=run.pack(saved.gates),
            c=None if saved.c is None else run.pack(saved.c),
            h0=run.sort(h0),
            c0=None if c0 is None else run.sort(c0),
        )
        dx = passes.backward(
            launch,
            traits(cell),
            weights,
            run,
            packed,
            None if dy is None else run.pack(dy),
            dh,
            dc,
            grads if isinstance(grads, passes.Sums) else passes.Sums(grads, 1),
        )
        return run.unpack(dx), run.unsort(dh), None if dc is None else run.unsort(dc)

    @staticmethod
    def sums(grads: Weights, calls: int) -> passes.Sums:
        """Return what sums up over calls; see `Backend.sums`."""
        return passes.Sums(grads, calls)  # of zeros, to which each call adds

    def bind(
        self, weights: PackedWeights, args: PassArgs, y: Array, *, threads: int
    ) -> Callable[[], None]:
        """Return a function that advances one step; see `Backend.bind`."""
        x, y, h, c = args.x[0], y[0], args.h0, args.c0
        launch = self._launcher(x.dtype, args.cell, args.numerics)
        step = Step(launch, traits(args.cell), weights, len(x))
        w = weights.parameters
        gates = self.xp.empty((len(x), w.ih.shape[0]), x.dtype)

        def advance() -> None:
            launch.product(x, w.ih.T, gates)
            step(gates, h, c, y, None, None)

        return advance

    def join(self, passes: Sequence[Callable[[], None]], x: Array, state: Sequence[Array]) -> Steps:
        """Return what runs them as one graph; see `Backend.join`."""
        device = self._device

        def run() -> None:
            for one in passes:
                one()

        if device.recording:
            return Sequential([run], x, ())
        run()  # which loads kernels and makes handles, as no recording can
        graph = device.record(run)
        if graph is None:
            return Sequential([run], x, ())

        def advance() -> None:
            # In a recording of the caller's, the steps become a part of that.
            (run if device.recording else graph)()

        return Sequential([advance], x, ())


def _time_loop(T: int) -> str:
    """Return how the steps run that do not run in one launch."""
    words = "launches at every step"
    return f"{words}, in graphs of some steps" if min(SIZES) <= T else words
