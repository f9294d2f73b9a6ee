"""The time loops of one pass, from kernels and products: a few launches a step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import persistent
from .device import Array
from .graphs import Loop, Play
from .launch import Launcher
from .packed_sequence import DeviceSequence

if TYPE_CHECKING:
    from fastrnn.spec import CellSpec, Weights

CHUNK_ROWS = 8192
"""Rows of the input projection computed at once: enough for cuBLAS to run at full speed, and what
they give, not that of all steps, is the memory that a long sequence needs."""

CHAIN_ROWS = 512
"""Rows that are summed in one float32 chain."""


class PackedWeights(NamedTuple):
    """Weights of one pass, copied, with the biases as the kernels want them."""

    parameters: Weights
    bias: Array  # (G*H,) of both sides, but that of a split last gate
    split_bias: Array | None  # (H,) b_hh of a split last gate


class CellTraits(NamedTuple):
    """A cell's traits as numbers: what the launches must know of its `CellSpec`."""

    gates: int
    saved: int
    linear_before_reset: bool
    reset_before: bool

    @property
    def has_dh_direct(self) -> bool:
        """Whether a part of dh does not pass the recurrent weights."""
        return self.linear_before_reset or self.reset_before


def traits(cell: CellSpec) -> CellTraits:
    """Return the traits of a cell."""
    return CellTraits(
        gates=len(cell.gates),
        saved=len(cell.saved),
        linear_before_reset=cell.linear_before_reset,
        reset_before=cell.reset_before,
    )


class Step:
    """One step forward of up to B rows, with the scratch memory it needs."""

    def __init__(self, launch: Launcher, cell: CellTraits, weights: PackedWeights, B: int) -> None:
        self._launch, self._cell, self._weights = launch, cell, weights
        w = self._w = weights.parameters
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
        launch.step_product(h, self._first, recurrent)
        if self._cell.reset_before:
            saved = self._saved[:n] if saved is None else saved
            reset_h = self._reset_h[:n]
            launch.units(
                "cell_reset", n, H, gates, recurrent, self._weights.bias, h, saved, reset_h
            )
            recurrent = self._n[:n]
            launch.step_product(reset_h, self._last, recurrent)
        launch.units(
            "cell_forward",
            n,
            H,
            gates,
            recurrent,
            self._weights.bias,
            self._weights.split_bias,
            self._w.peephole,
            h if self._m is None else self._m,
            c,
            y if self._m is None else None,
            all_c,
            saved,
        )
        if self._m is not None:
            launch.step_product(self._m[:n], self._projection, y)
            h[...] = y


def forward(
    launch: Launcher,
    cell: CellTraits,
    weights: PackedWeights,
    rows: DeviceSequence,
    x: Array,
    h: Array,
    c: Array | None,
    save: bool,
) -> tuple[Array, Array | None, Array | None]:
    """Run x (N, I) from h (B, P), c (B, H), in place; return y (N, P), and to save c, gates."""
    B, H, N = len(h), weights.parameters.hh.shape[0] // cell.gates, len(x)

    def empty(width: int, n: int = N) -> Array:
        return launch.xp.empty((n, width), launch.dtype)

    def part(a: Array | None, at: slice) -> Array | None:
        return None if a is None else a[at]

    y = empty(h.shape[1])
    all_c = empty(H) if save and c is not None else None
    saved = empty(cell.saved * H) if save else None
    plan = in_one_launch(launch, cell, weights.parameters, len(rows.steps), B)
    span = max(1, CHUNK_ROWS // B)
    gates = empty(cell.gates * H, min(N, span * B))
    for first in range(0, len(rows.steps), span):
        steps = rows.steps[first : first + span]
        base, stop = rows.of(min(steps)).start, rows.of(max(steps)).stop
        if base == stop:
            continue
        launch.product(x[base:stop], weights.parameters.ih.T, gates[: stop - base])
        if plan is not None:
            plan.launch(
                *(rows, B, H, H, range(first, first + len(steps))),
                *(rows.device_starts, rows.reset_rows),
                *(weights.parameters.hh, gates, base, weights.bias, weights.split_bias),
                *(weights.parameters.peephole, h, c, y, all_c, saved),
            )
            continue
        here, w = slice(base, stop), weights.parameters
        loop = Loop(
            f"forward {launch.key}",
            partial(_steps, launch, cell, weights),
            weights={
                "hh": w.hh,
                "hr": w.hr,
                "peephole": w.peephole,
                "bias": weights.bias,
                "split_bias": weights.split_bias,
            },
            states={"h": h, "c": c},
            read={"gates": gates[: stop - base], "resets": part(rows.reset_rows, here)},
            written={"y": y[here], "all_c": part(all_c, here), "saved": part(saved, here)},
        )
        launch.graphs.run(loop, rows, steps, base)
    return y, all_c, saved


def _steps(
    launch: Launcher,
    cell: CellTraits,
    weights: PackedWeights,
    *,
    hh: Array,
    hr: Array | None,
    peephole: Array | None,
    bias: Array,
    split_bias: Array | None,
    h: Array,
    c: Array | None,
    gates: Array,
    resets: Array | None,
    y: Array,
    all_c: Array | None,
    saved: Array | None,
) -> Play:
    """Return what runs steps forward, a few launches each; see `Loop.make`."""
    parameters = weights.parameters._replace(hh=hh, hr=hr, peephole=peephole)
    step = Step(launch, cell, PackedWeights(parameters, bias, split_bias), len(h))

    def play(rows: DeviceSequence, steps: range, base: int) -> None:
        for t in steps:
            at = rows.of(t)
            n = at.stop - at.start
            if n == 0:
                continue
            at = slice(at.start - base, at.stop - base)
            h_t, c_t = h[:n], None if c is None else c[:n]
            if resets is not None and rows.has_reset(t):
                _restart(launch, resets[at], h_t, c_t)
            step(
                gates[at],
                h_t,
                c_t,
                y[at],
                None if all_c is None else all_c[at],
                None if saved is None else saved[at],
            )

    return play


def in_one_launch(
    launch: Launcher, cell: CellTraits, w: Weights, steps: int, B: int
) -> persistent.Plan | None:
    """Return how a forward of all steps can run in one launch, or None."""
    if not can_persist(cell, w):
        return None
    H = w.hh.shape[0] // cell.gates
    return persistent.plan(launch, "persistent_forward", steps, B, cell.gates, H)


def can_persist(cell: CellTraits, w: Weights) -> bool:
    """Whether there are persistent kernels of a cell: those whose step is one product."""
    return w.hr is None and not cell.reset_before


class PackedSaved(NamedTuple):
    """`spec.Saved` in packed rows, with x and the states before the first step."""

    x: Array  # (N, I)
    y: Array  # (N, P)
    gates: Array  # (N, S*H)
    c: Array | None  # (N, H)
    h0: Array  # (B, P)
    c0: Array | None  # (B, H)


class GateGradients(NamedTuple):
    """What the time loop leaves for the gradients of the parameters, in packed rows."""

    input: Array  # (N, G*H) gradients of the pre-activations, input side
    hidden: Array  # (N, G*H) recurrent side; the same array where the two do not differ
    h_before: Array  # (N, P)
    c_before: Array | None  # (N, H)
    reset_h: Array | None  # (N, H) reset before: r * h
    dh: Array | None  # (N, P) projected: gradient of h
    m: Array | None  # (N, H) projected: what the projection took in


def backward(
    launch: Launcher,
    cell: CellTraits,
    weights: PackedWeights,
    rows: DeviceSequence,
    saved: PackedSaved,
    dy: Array | None,
    dh: Array,
    dc: Array | None,
    sums: Sums,
) -> Array:
    """Take dh (B, P), dc (B, H) back to the start, in place, and add to `sums`; return dx."""
    w, N, B = weights.parameters, len(saved.x), len(dh)
    GH, P = w.hh.shape

    def empty(width: int, needed: bool = True) -> Array:
        return launch.xp.empty((N, width), launch.dtype) if needed else None

    dx = empty(saved.x.shape[1])
    if N == 0:
        sums.end()
        return dx
    H = GH // cell.gates
    projected = w.hr is not None
    input_side = empty(GH)
    dgates = GateGradients(
        input=input_side,
        hidden=empty(GH) if cell.linear_before_reset else input_side,
        h_before=rows.before(saved.y, saved.h0),
        c_before=None if saved.c is None else rows.before(saved.c, saved.c0),
        reset_h=empty(H, cell.reset_before),
        dh=empty(P, projected),
        m=empty(H, projected),
    )
    plan = None
    if can_persist(cell, weights.parameters):
        steps = len(rows.steps)
        plan = persistent.plan(launch, "persistent_backward", steps, B, cell.gates, H)
    if plan is None:
        loop = Loop(
            f"backward {launch.key}",
            partial(_steps_back, launch, cell, w),
            weights={"hh": w.hh, "hr": w.hr, "peephole": w.peephole},
            states={"dh": dh, "dc": dc},
            read={
                "saved": saved.gates,
                "y": saved.y,
                "c": saved.c,
                "dy": dy,
                "h_before": dgates.h_before,
                "c_before": dgates.c_before,
                "resets": rows.reset_rows,
            },
            written={
                "input": dgates.input,
                "hidden": dgates.hidden,
                "reset_h": dgates.reset_h,
                "dh_all": dgates.dh,
                "m": dgates.m,
            },
        )
        launch.graphs.run(loop, rows, rows.steps[::-1])
    else:
        plan.launch(
            *(rows, B, H, GH, range(len(rows.steps))[::-1]),
            *(rows.device_starts, rows.reset_rows, w.hh, saved.gates, saved.y),
            *(dgates.h_before, dgates.c_before, saved.c, w.peephole, dy, dh, dc),
            *(dgates.input, dgates.hidden),
        )
    # In a chain, rows are summed in the order of backpropagation: then a sequence cut into spans,
    # last span first, gives the same bits as the whole.
    _add_gradients(launch, cell, saved, dgates, sums, last_first=not rows.reverse)
    launch.product(input_side, w.ih, dx)
    return dx


def _steps_back(
    launch: Launcher,
    cell: CellTraits,
    w: Weights,
    *,
    hh: Array,
    hr: Array | None,
    peephole: Array | None,
    dh: Array,
    dc: Array | None,
    saved: Array,
    y: Array,
    c: Array | None,
    dy: Array | None,
    h_before: Array,
    c_before: Array | None,
    resets: Array | None,
    input: Array,
    hidden: Array,
    reset_h: Array | None,
    dh_all: Array | None,
    m: Array | None,
) -> Play:
    """Return what runs steps backward, a few launches each; see `Loop.make` and `GateGradients`."""
    H = w.hh.shape[0] // cell.gates
    first = (cell.gates - cell.reset_before) * H
    scratch = launch.xp.empty((len(dh), H), launch.dtype)  # a product with R_n, or with W_hr

    def play(rows: DeviceSequence, steps: range, base: int) -> None:
        for t in steps:
            at = rows.of(t)
            n = at.stop - at.start
            if n == 0:
                continue
            at = slice(at.start - base, at.stop - base)

            def part(a: Array | None, at: slice = at) -> Array | None:
                return None if a is None else a[at]

            dh_t, dc_t = dh[:n], None if dc is None else dc[:n]
            d_out, dy_t = dh_t, part(dy)
            if dh_all is not None:
                if dy_t is None:
                    dh_all[at] = dh_t
                else:
                    np.add(dh_t, dy_t, out=dh_all[at])
                d_out, dy_t = scratch[:n], None
                launch.step_product(dh_all[at], hr, d_out)
            launch.units(
                "cell_backward",
                n,
                H,
                d_out,
                dy_t,
                saved[at],
                y[at],
                h_before[at],
                part(c_before),
                part(c),
                peephole,
                dc_t,
                dh_t if cell.has_dh_direct else None,
                input[at],
                hidden[at],
                part(m),
            )
            if reset_h is not None:
                launch.step_product(input[at, first:], hh[first:], scratch[:n])
                launch.units(
                    "cell_reset_backward",
                    n,
                    H,
                    scratch,
                    saved[at],
                    h_before[at],
                    dh_t,
                    input[at],
                    reset_h[at],
                )
            launch.step_product(hidden[at, :first], hh[:first], dh_t, accumulate=cell.has_dh_direct)
            if resets is not None and rows.has_reset(t):
                _restart(launch, resets[at], dh_t, dc_t)

    return play


class Sums:
    """Gradients of parameters that are summed up by so many calls; see `Backend.sums`.

    A sum's error grows with its length. So float32 chains are settled in float64 after every
    CHAIN_ROWS rows of all calls, wherever calls end; `Launcher.product` cuts those of cuBLAS.
    """

    def __init__(self, grads: Weights, calls: int) -> None:
        self.grads = grads
        self._calls = calls
        self._rows = 0
        self._settled: list[tuple[Array, Array]] = []

    def spans(self, rows: int, chain: bool) -> Iterator[slice]:
        """Yield the rows of a call, counted in the order of backpropagation, in the parts that are
        to be added to `grads`; then end the call."""
        first = 0
        while first < rows:
            left = CHAIN_ROWS - self._rows % CHAIN_ROWS if chain else rows
            last = min(rows, first + left)
            yield slice(first, last)
            self._rows += last - first
            first = last
            if chain and self._rows % CHAIN_ROWS == 0:
                self._settle()
        self.end()

    def end(self) -> None:
        """End a call; after the last one, set the gradients."""
        self._calls -= 1
        if not self._calls and self._settled:
            self._settle()
            for grad, total in self._settled:
                grad[...] = total

    def _settle(self) -> None:
        if not self._settled:
            arrays = [grad for grad in self.grads if grad is not None]
            self._settled = [(grad, grad.astype(np.float64) * 0) for grad in arrays]
        for grad, total in self._settled:
            total += grad
            grad[...] = 0


def _add_gradients(
    launch: Launcher,
    cell: CellTraits,
    saved: PackedSaved,
    dgates: GateGradients,
    sums: Sums,
    last_first: bool,
) -> None:
    """Add the gradients of all parameters, from the rows of all steps at once."""
    grads, N = sums.grads, len(saved.x)
    H = grads.hh.shape[0] // cell.gates
    first = (cell.gates - cell.reset_before) * H
    for span in sums.spans(N, launch.chain and launch.dtype.itemsize == 4):
        at = slice(N - span.stop, N - span.start) if last_first else span
        input_side, hidden = dgates.input[at], dgates.hidden[at]
        h_before = dgates.h_before[at]
        launch.add_product(grads.ih, input_side, saved.x[at], last_first)
        launch.add_product(grads.hh[:first], hidden[:, :first], h_before, last_first)
        if dgates.reset_h is not None:
            launch.add_product(
                grads.hh[first:], input_side[:, first:], dgates.reset_h[at], last_first
            )
        if grads.b_ih is not None and grads.b_hh is not None:
            launch.add_sum(grads.b_ih, input_side, last_first)
            launch.add_sum(grads.b_hh, hidden, last_first)
        if dgates.dh is not None and dgates.m is not None:
            launch.add_product(grads.hr, dgates.dh[at], dgates.m[at], last_first)
        if grads.peephole is not None and dgates.c_before is not None and saved.c is not None:
            before, after = dgates.c_before[at], saved.c[at]
            for k, (gate, c) in enumerate(((0, before), (1, before), (3, after))):  # i, f, o
                of_gate = input_side[:, gate * H : (gate + 1) * H]
                launch.add_sum(grads.peephole[k * H : (k + 1) * H], of_gate, last_first, c)


def _restart(launch: Launcher, resets: Array, *states: Array | None) -> None:
    """Set to zero the rows of states (n, W) that begin anew."""
    for state in states:
        if state is not None:
            launch.units("restart", *state.shape, resets, state)
