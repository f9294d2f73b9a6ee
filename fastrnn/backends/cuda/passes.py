"""The time loops of one pass, from kernels and products: a few launches a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import persistent
from .device import Array
from .launch import Launcher
from .rows import DeviceRows

if TYPE_CHECKING:
    from fastrnn.backends.base import Weights
    from fastrnn.cellmath import CellSpec

CHUNK_ROWS = 8192
"""Rows of the input projection computed at once: enough for cuBLAS to run at full speed, and what
they give, not that of all steps, is the memory that a long sequence needs."""


class Packed(NamedTuple):
    """Weights of one pass, copied, with the biases as the kernels want them."""

    weights: Weights
    bias: Array  # (G*H,) of both sides, but that of a split last gate
    split_bias: Array | None  # (H,) b_hh of a split last gate


class Shape(NamedTuple):
    """What a driver must know of a cell besides its `CellSpec`: the traits of kernels/cells/*.h."""

    gates: int
    saved: int
    split_last: bool
    reset_before: bool

    @property
    def keeps_h(self) -> bool:
        """Whether a part of dh goes past the recurrent weights."""
        return self.split_last or self.reset_before


def shape(cell: CellSpec) -> Shape:
    """Return the shape of a cell."""
    return Shape(
        gates=len(cell.gates),
        saved=len(cell.saved),
        split_last="hn" in cell.saved,
        reset_before=cell.kind == "gru_reset_before",
    )


class Step:
    """One step forward of up to B rows, with the scratch memory it needs."""

    def __init__(self, launch: Launcher, cell: Shape, packed: Packed, B: int) -> None:
        self._launch, self._cell, self._packed = launch, cell, packed
        w = self._w = packed.weights
        self._H = H = w.hh.shape[0] // cell.gates
        first = (cell.gates - cell.reset_before) * H
        self._first, self._last = w.hh[:first].T, w.hh[first:].T

        def rows(width: int) -> Array:
            return launch.xp.empty((B, width), launch.dtype)

        self._projection = None if w.hr is None else w.hr.T
        self._recurrent = rows(first)
        self._m = None if w.hr is None else rows(H)
        if cell.reset_before:
            self._reset_h, self._n, self._saved = rows(H), rows(H), rows(cell.saved * H)

    def __call__(
        self,
        gates: Array,
        h: Array,
        c: Array | None,
        y: Array,
        all_c: Array | None,
        saved: Array | None,
    ) -> None:
        """Advance h (n, P) and c (n, H) in place; gates (n, G*H) is W x; the rest is written."""
        launch, H, n = self._launch, self._H, len(h)
        recurrent = self._recurrent[:n]
        launch.product(h, self._first, recurrent)
        if self._cell.reset_before:
            saved = self._saved[:n] if saved is None else saved
            reset_h = self._reset_h[:n]
            launch.units("cell_reset", n, H, gates, recurrent, self._packed.bias, h, saved, reset_h)
            recurrent = self._n[:n]
            launch.product(reset_h, self._last, recurrent)
        launch.units(
            "cell_forward",
            n,
            H,
            gates,
            recurrent,
            self._packed.bias,
            self._packed.split_bias,
            self._w.peephole,
            h if self._m is None else self._m,
            c,
            y if self._m is None else None,
            all_c,
            saved,
        )
        if self._m is not None:
            launch.product(self._m[:n], self._projection, y)
            h[...] = y


def forward(
    launch: Launcher,
    cell: Shape,
    packed: Packed,
    rows: DeviceRows,
    x: Array,
    h: Array,
    c: Array | None,
    keep: bool,
) -> tuple[Array, Array | None, Array | None]:
    """Run x (N, I) from h (B, P), c (B, H), in place; return y (N, P), and to keep c, saved."""
    B, H, N = len(h), packed.weights.hh.shape[0] // cell.gates, len(x)

    def empty(width: int, n: int = N) -> Array:
        return launch.xp.empty((n, width), launch.dtype)

    y = empty(h.shape[1])
    all_c = empty(H) if keep and c is not None else None
    saved = empty(cell.saved * H) if keep else None
    plan = None
    if can_persist(cell, packed):
        plan = persistent.plan(launch, "persistent_forward", len(rows.steps), B, cell.gates, H)
    step = Step(launch, cell, packed, B)
    h0 = h.copy() if plan else h
    span = max(1, CHUNK_ROWS // B)
    gates = empty(cell.gates * H, min(N, span * B))
    for first in range(0, len(rows.steps), span):
        steps = rows.steps[first : first + span]
        base, stop = rows.of(min(steps)).start, rows.of(max(steps)).stop
        if base == stop:
            continue
        launch.product(x[base:stop], packed.weights.ih.T, gates[: stop - base])
        if plan is not None:
            plan.launch(
                *(rows, B, H, first, first + len(steps), rows.device_starts, rows.cut_rows),
                *(packed.weights.hh, gates, base, packed.bias, packed.split_bias),
                *(packed.weights.peephole, h0, h, c, y, all_c, saved),
            )
            continue
        for t in steps:
            at = rows.of(t)
            n = at.stop - at.start
            if n == 0:
                continue
            h_t, c_t = h[:n], None if c is None else c[:n]
            _restart(launch, rows.cuts(t), h_t, c_t)
            step(
                gates[at.start - base : at.stop - base],
                h_t,
                c_t,
                y[at],
                None if all_c is None else all_c[at],
                None if saved is None else saved[at],
            )
    return y, all_c, saved


def can_persist(cell: Shape, packed: Packed) -> bool:
    """Whether there are persistent kernels of a cell: those whose step is one product."""
    return packed.weights.hr is None and not cell.reset_before


class Memory(NamedTuple):
    """What a forward kept, in packed rows, and the states before its first step."""

    x: Array  # (N, I)
    y: Array  # (N, P)
    saved: Array  # (N, S*H)
    c: Array | None  # (N, H)
    h0: Array  # (B, P)
    c0: Array | None  # (B, H)


def backward(
    launch: Launcher,
    cell: Shape,
    packed: Packed,
    rows: DeviceRows,
    kept: Memory,
    dy: Array | None,
    dh: Array,
    dc: Array | None,
    grads: Weights,
) -> Array:
    """Take dh (B, P), dc (B, H) back to the start, in place, and add to `grads`; return dx."""
    w = packed.weights
    G, H = cell.gates, w.hh.shape[0] // cell.gates
    N, B = len(kept.x), len(dh)
    first = (G - cell.reset_before) * H

    def empty(width: int, n: int = N) -> Array:
        return launch.xp.empty((n, width), launch.dtype)

    dx = empty(kept.x.shape[1])
    if N == 0:
        return dx
    h_before = rows.before(kept.y, kept.h0)
    c_before = None if kept.c is None else rows.before(kept.c, kept.c0)
    delta = empty(G * H)
    hidden = empty(G * H) if cell.split_last else delta
    reset_h = empty(H) if cell.reset_before else None
    d_reset_h = empty(H, B) if cell.reset_before else None
    projected = w.hr is not None
    all_dh = empty(dh.shape[1]) if projected else None
    m = empty(H) if projected else None
    dm = empty(H, B) if projected else None

    plan = None
    if can_persist(cell, packed):
        plan = persistent.plan(launch, "persistent_backward", len(rows.steps), B, G, H)
    if plan is not None:
        plan.launch(
            *(rows, B, H, rows.device_starts, rows.cut_rows, w.hh, kept.saved, kept.y),
            *(h_before, c_before, kept.c, w.peephole, dy, dh, dc, delta, hidden),
        )
    for t in () if plan else rows.steps[::-1]:
        at = rows.of(t)
        n = at.stop - at.start
        if n == 0:
            continue

        def part(a: Array | None, at: slice = at) -> Array | None:
            return None if a is None else a[at]

        dh_t, dc_t = dh[:n], None if dc is None else dc[:n]
        d_out, dy_t = dh_t, part(dy)
        if all_dh is not None and dm is not None:
            all_dh[at] = dh_t if dy_t is None else dh_t + dy_t
            d_out, dy_t = dm[:n], None
            launch.product(all_dh[at], w.hr, d_out)
        launch.units(
            "cell_backward",
            n,
            H,
            d_out,
            dy_t,
            kept.saved[at],
            kept.y[at],
            h_before[at],
            part(c_before),
            part(kept.c),
            w.peephole,
            dc_t,
            dh_t if cell.keeps_h else None,
            delta[at],
            hidden[at],
            part(m),
        )
        if d_reset_h is not None:
            launch.product(delta[at, first:], w.hh[first:], d_reset_h[:n])
            launch.units(
                "cell_reset_backward",
                n,
                H,
                d_reset_h,
                kept.saved[at],
                h_before[at],
                dh_t,
                delta[at],
                part(reset_h),
            )
        launch.product(hidden[at, :first], w.hh[:first], dh_t, accumulate=cell.keeps_h)
        _restart(launch, rows.cuts(t), dh_t, dc_t)

    # In a chain, rows are summed in the order of backpropagation: then a sequence cut into spans,
    # last span first, gives the same bits as the whole.
    last_first = rows.steps.step > 0
    launch.add_product(grads.ih, delta, kept.x, last_first)
    launch.add_product(grads.hh[:first], hidden[:, :first], h_before, last_first)
    if reset_h is not None:
        launch.add_product(grads.hh[first:], delta[:, first:], reset_h, last_first)
    if grads.b_ih is not None and grads.b_hh is not None:
        launch.add_sum(grads.b_ih, delta, last_first)
        launch.add_sum(grads.b_hh, hidden, last_first)
    if all_dh is not None:
        launch.add_product(grads.hr, all_dh, m, last_first)
    if grads.peephole is not None:
        for k, (gate, factor) in enumerate(((0, c_before), (1, c_before), (3, kept.c))):
            of_gate = delta[:, gate * H : (gate + 1) * H]
            launch.add_sum(grads.peephole[k * H : (k + 1) * H], of_gate, last_first, factor)
    launch.product(delta, w.ih, dx)
    return dx


def _restart(launch: Launcher, cut: Array | None, *states: Array | None) -> None:
    """Set to zero the rows of states (n, W) that begin anew."""
    if cut is not None:
        for state in states:
            if state is not None:
                launch.units("restart", *state.shape, cut, state)
