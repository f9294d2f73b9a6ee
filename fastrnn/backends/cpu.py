"""The compiled engine: what the kernels in `csrc` want to know of a pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import config, dropout
from fastrnn.cellmath.weights import option_codes
from fastrnn.schedule import RowSchedule
from fastrnn.spec import CellSpec, Numerics, OutputGradients, PassArgs, Saved, Weights
from fastrnn.typing import Array

from .base import Steps
from .matmul_algo import SPLIT_BF16, MatmulAlgorithms, SplitBf16, code

if TYPE_CHECKING:
    from fastrnn import _core


def why_not() -> str | None:
    """Return why this backend cannot be used: the extension is missing or does not load."""
    try:
        from fastrnn import _core  # noqa: F401  (whether it loads is the question)
    except ImportError as error:
        return f"the compiled extension does not load ({error}); {_what_to_do()}"
    return None


def _what_to_do() -> str:
    """Return what brings the extension."""
    root = Path(__file__).parents[2]
    if (root / "csrc").is_dir() and (root / "setup.py").is_file():
        return f"this is the source folder, and pip install -e '{root}' builds it there"
    return "reinstall with a C++17 compiler"


def isa() -> str:
    """Return the instruction set in use.

    Raises
    ------
    RuntimeError
        FASTRNN_ISA is none of this machine's. The extension says so too, but of a name that is no
        text it cannot speak.
    """
    from fastrnn import _core

    forced, usable = os.environ.get("FASTRNN_ISA", ""), _core.usable_isas()
    if forced and forced not in usable:
        expected = f"one of {', '.join(usable)} on this machine"
        raise RuntimeError(f"FASTRNN_ISA must be {expected}, got {forced!a}")
    return _core.isa()


def units() -> set[str]:
    """Return what multiplies bfloat16 on this processor."""
    from fastrnn import _core

    isa()
    found = {"tile unit": _core.tile_unit(), "dot products": _core.dots()}
    return {unit for unit, usable in found.items() if usable}


class PackedWeights:
    """Weights of one pass as the kernels want them.

    Where bfloat16 is multiplied also the terms of the panels, made at first need.
    """

    def __init__(
        self,
        kernels: _core.Pass,
        w: Weights,
        *,
        backward: bool,
        threads: int,
        dtype: str | None,
        single_use: bool,
    ) -> None:
        self.kernels = kernels
        self.quantized = dtype is not None
        self._single_use = w if single_use else None
        self._panels = {
            phase: kernels.pack(w, phase, threads)
            for phase, wanted in ((False, not single_use), (True, backward))
            if wanted
        }
        if dtype is not None:
            self._panels = {False: kernels.quantize(self._panels[False], dtype)}
        self._split: dict[tuple[bool, _core.Algorithm, _core.Algorithm], _core.SplitWeights] = {}

    def forward(
        self, steps: int, algorithms: MatmulAlgorithms | None, threads: int
    ) -> tuple[_core.PackedWeights | Weights, _core.SplitWeights | None]:
        """Return the weights for a forward pass over so many steps, and their terms.

        One step reads each weight once: packing it for other steps would take longer.
        """
        if self._single_use is None:
            panels = self._panels[False]
            return panels, None if algorithms is None else self._terms(False, algorithms, threads)
        if steps == 1 and algorithms is None:
            return self._single_use, None
        panels = self.kernels.pack(self._single_use, False, threads)
        if algorithms is None:
            return panels, None
        return panels, self.kernels.split(panels, False, *algorithms.codes(), threads)

    def backward(
        self, algorithms: MatmulAlgorithms | None, threads: int
    ) -> tuple[_core.PackedWeights, _core.SplitWeights | None]:
        """Return the panels for a backward pass, and their terms."""
        panels = self._panels[True]
        return panels, None if algorithms is None else self._terms(True, algorithms, threads)

    def _terms(
        self, backward: bool, algorithms: MatmulAlgorithms, threads: int
    ) -> _core.SplitWeights:
        """Return the terms of the panels."""
        key = backward, *algorithms.codes()
        terms = self._split.get(key)
        if terms is None:
            made = self.kernels.split(self._panels[backward], *key, threads)
            # of threads that come here at once, all get what one of them made
            terms = self._split.setdefault(key, made)
        return terms


class CpuBackend:
    """C++ kernels, chosen for the processor at first use."""

    name = "cpu"
    xp = np
    mask = staticmethod(dropout.mask)

    def __init__(self) -> None:
        from fastrnn import _core

        # A wrong setting in the environment is an error here, not a reason for another backend.
        self._isa = isa()
        limit = config.cache_limit()
        if limit is not None:
            _core.set_memory_limit(limit)
        self._units = units()
        self._make = {4: _core.Pass32, 8: _core.Pass64}  # by bytes of a number
        self._cells = {name: index for index, (name, *_) in enumerate(_core.cells())}
        self._sums = {4: _core.GradientSums32, 8: _core.GradientSums64}
        self._steps = {4: _core.Steps32, 8: _core.Steps64}
        self._empty = {4: _core.empty32, 8: _core.empty64}
        self._kernels: dict[tuple[Any, ...], _core.Pass] = {}

    def new_gradients(self, size: int, dtype: np.dtype[Any]) -> Array:
        """Return an unset vector in memory that comes back; see `Backend.new_gradients`."""
        return self._empty[dtype.itemsize](size)

    def sums(self, grads: Weights, calls: int) -> _core.GradientSums:
        """Return what sums up over calls; see `Backend.sums`."""
        return self._sums[grads.ih.itemsize](grads, calls)

    def _kernels_for(self, cell: CellSpec, w: Weights) -> _core.Pass:
        gates, I = w.ih.shape
        P = w.hh.shape[1]
        key = cell.kind, cell.options, w.ih.itemsize, gates, I, P, w.hr is None
        kernels = self._kernels.get(key)
        if kernels is None:
            H = gates // len(cell.gates)
            make = self._make[w.ih.itemsize]
            # of threads that come here at once, all get what one of them made
            codes = None if cell.options is None else option_codes(cell.options, w.ih.dtype)
            made = make(self._cells[cell.kind], I, H, P, w.hr is not None, codes)
            kernels = self._kernels.setdefault(key, made)
        return kernels

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
        """Return the panels of the forward kernels, and of the backward ones if they are wanted."""
        return PackedWeights(
            self._kernels_for(cell, w),
            w,
            backward=backward,
            threads=threads,
            dtype=weight_dtype,
            single_use=single_use,
        )

    def _algorithms(
        self, x: Array, weights: PackedWeights, rows: RowSchedule, numerics: Numerics
    ) -> MatmulAlgorithms | None:
        """Return how float32 is multiplied as sums of bfloat16; None: as it is.

        It depends on the whole call and not on the share of a thread, so that the number of threads
        cannot change a bit.
        """
        if weights.quantized:
            return None
        T, B = x.shape[:2]
        TB = T * B if rows.batch_sizes is None else int(rows.batch_sizes.sum())
        return self._algorithms_of(x.dtype, numerics, TB, B, weights.kernels.hidden_size)

    def _algorithms_of(
        self, dtype: np.dtype[Any], numerics: Numerics, TB: int, B: int, H: int
    ) -> MatmulAlgorithms | None:
        """Return the same for a call whose steps have TB rows in all."""
        recurrent = batched = self._first(numerics, B, TB, H)
        # "highest": a few rows get the same bits from one call as step by step
        if numerics.precision != "highest":
            batched = self._first(numerics, TB, TB, H)
        if batched is None or numerics.reproducible or dtype != np.float32:
            return None
        return MatmulAlgorithms(recurrent, batched)

    def _first(self, numerics: Numerics, rows: int, TB: int, H: int) -> SplitBf16 | None:
        for each in SPLIT_BF16[numerics.precision]:
            if each.reached(rows, TB, H) and each.usable(self._units):
                return each
        return None

    def _why_floats(self, dtype: np.dtype[Any], numerics: Numerics) -> str:
        """Return why a call multiplies floats as they are."""
        if not self._units:
            return "no products of bfloat16"
        if numerics.reproducible:
            return "reproducible=True"
        if dtype != np.float32:
            return "dtype is not float32"
        here = [each for each in SPLIT_BF16[numerics.precision] if each.usable(self._units)]
        if not here:
            return f"no tile unit, which precision={numerics.precision!r} wants"
        return f"the call is below one of {here[-1].least()}"

    def explain(
        self, cell: CellSpec, w: Weights, T: int, B: int, *, threads: int, numerics: Numerics
    ) -> dict[str, Any]:
        """Return how a pass would be run; see `Backend.explain`."""
        kernels = self._kernels_for(cell, w)
        H = kernels.hidden_size
        algorithms = self._algorithms_of(w.ih.dtype, numerics, T * B, B, H) or MatmulAlgorithms(
            None, None
        )
        recurrent, batched = algorithms
        used, by_rows, lanes, rows, vectors = kernels.how_run(T, B, threads, code(recurrent))
        return {
            "instruction set": self._isa,
            "products": (
                f"{algorithms}: the call reaches {batched.least()}"
                if batched
                else f"fused multiply-adds: {self._why_floats(w.ih.dtype, numerics)}"
            ),
            "tile": (
                "32 rows x 1 or 2 vectors of 16"
                if recurrent and not recurrent.dots
                else f"{rows} rows x {vectors} vectors of {lanes}"
            ),
            "threads": used,
            "threads share": "nothing: one thread" if used == 1 else "rows" if by_rows else "units",
        }

    def forward(
        self, weights: PackedWeights, args: PassArgs, *, save: bool, threads: int
    ) -> tuple[Array, Array, Array | None, Saved | None]:
        """Run one pass; see `Backend.forward`. Reproducible by one chain of operations a sum."""
        _, numerics, x, h0, c0, rows, reverse = args
        algorithms = self._algorithms(x, weights, rows, numerics) if self._units else None
        panels, terms = weights.forward(len(x), algorithms, threads)
        y, hn, cn, saved_y, gates, c = weights.kernels.forward(
            panels, terms, _rows(x), h0, c0, rows, reverse, threads, save,
        )  # fmt: skip
        if saved_y is None or gates is None:
            return y, hn, cn, None
        return y, hn, cn, Saved(saved_y, gates, c)

    def backward(
        self,
        weights: PackedWeights,
        args: PassArgs,
        saved: Saved,
        douts: OutputGradients,
        grads: Weights | _core.GradientSums,
        *,
        threads: int,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through one pass; see `Backend.backward`."""
        _, numerics, x, h0, c0, rows, reverse = args
        dy, dh, dc = douts
        saved_y, gates, c = saved
        algorithms = self._algorithms(x, weights, rows, numerics) if self._units else None
        panels, terms = weights.backward(algorithms, threads)
        return weights.kernels.backward(
            panels, terms, _rows(x), h0, c0, rows, reverse, threads, saved_y, gates, c,
            None if dy is None else _rows(dy), dh, dc, grads,
        )  # fmt: skip

    def bind(
        self, weights: PackedWeights, args: PassArgs, y: Array, *, threads: int
    ) -> _core.Bound:
        """Return one pass over one step; see `Backend.bind`."""
        _, numerics, x, h, c, rows, _ = args
        algorithms = self._algorithms(x, weights, rows, numerics) if self._units else None
        panels, terms = weights.forward(1, algorithms, threads)
        return weights.kernels.bind(panels, terms, x, h, c, rows, threads, y)

    def join(self, passes: Sequence[_core.Bound], x: Array, state: Sequence[Array]) -> Steps:
        """Return what runs them without a way back to Python between; see `Backend.join`."""
        return self._steps[x.itemsize](x, list(passes))


def _rows(a: Array) -> Array:
    """Return a with its last axis contiguous and every stride a multiple of an element."""
    flags = a.flags
    if flags.c_contiguous and flags.aligned:
        return a
    size = a.itemsize
    if a.strides[2] == size and flags.aligned and a.strides[0] % size == a.strides[1] % size == 0:
        return a
    return a.copy()  # ascontiguousarray would hand back what is contiguous but unaligned
