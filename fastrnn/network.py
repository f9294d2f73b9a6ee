"""Layers, directions, dropout between layers, and checkpoints, made of a backend's passes.

A *pass* is one layer in one direction over a span of time; a *chain* is the passes that feed each
other in one direction; a *level* is the chains side by side, whose outputs are joined. A network
of one direction is a single level with one chain of L passes. A network of two directions is L
levels of two chains with one pass each, since every layer needs the whole output of both
directions below it. No cell is known here.

Letters: T time, B batch, I input, H hidden, P projection (or H), D directions, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import config
from .backends import there
from .backends.base import Array, Backend, Numerics, Saved, Weights
from .cellmath import CellSpec
from .rows import Rows

State = tuple[Array, Array | None]  # h (B, P), c (B, H) or None


class Call(NamedTuple):
    """What one call brings to every pass."""

    packed: Sequence[object]  # one a pass, in the order of the states: layer * D + direction
    x: Array  # (T, B, I)
    h0: Array  # (L*D, B, P), C-contiguous
    c0: Array | None  # (L*D, B, H), C-contiguous
    rows: tuple[Rows, Rows]  # of the forward and of the reverse direction
    seed: int | None = None  # of the dropout masks; None: no dropout


class Chain(NamedTuple):
    """Passes that feed each other in one direction of time."""

    passes: tuple[int, ...]
    reverse: bool


class Kept(NamedTuple):
    """What the backward of one pass over one span needs."""

    x: Array  # (steps, B, I or D*P)
    state: State  # before the span's first step
    saved: Saved


class Span(NamedTuple):
    """One chain over the steps start..stop."""

    start: int
    stop: int
    states: list[State]  # of each pass, before the span's first step
    kept: list[Kept] | None  # of each pass; None: to be computed again from the states


class Level(NamedTuple):
    """What a forward keeps of one level."""

    x: Array  # (T, B, I or D*P)
    chains: list[list[Span]]  # of each chain, in the order its direction runs


class Network:
    """The passes of one layer object and how they are joined. Immutable.

    Parameters
    ----------
    cell : CellSpec
    backend : Backend
    num_layers, bidirectional : L and D
    reverse : whether the only direction runs from the last step to the first
    widths : (P, H), sizes of h and of c
    dropout : float in [0, 1), after every layer but the last, in training
    numerics : Numerics
    """

    def __init__(
        self,
        cell: CellSpec,
        backend: Backend,
        *,
        num_layers: int,
        bidirectional: bool,
        reverse: bool,
        widths: tuple[int, int],
        dropout: float,
        numerics: Numerics,
    ) -> None:
        self.cell = cell
        self.backend = backend
        self._xp = backend.xp
        self.directions = 2 if bidirectional else 1
        self.num_passes = num_layers * self.directions
        self.widths = widths
        # One layer has nothing between layers.
        self.dropout = dropout if num_layers > 1 else 0.0
        self.numerics = numerics
        self.levels: list[tuple[Chain, ...]] = (
            [(Chain((2 * n,), False), Chain((2 * n + 1,), True)) for n in range(num_layers)]
            if bidirectional
            else [(Chain(tuple(range(num_layers)), reverse),)]
        )

    def pack(
        self,
        weights: Sequence[Weights],
        *,
        backward: bool,
        narrow: str | None = None,
        once: bool = False,
    ) -> list[object]:
        """Return the passes' weights as the backend wants them; see `Backend.pack`."""
        cell, pack, threads = self.cell, self.backend.pack, config.get_num_threads()
        return [
            pack(cell, w, backward=backward, threads=threads, narrow=narrow, once=once)
            for w in weights
        ]

    # ---------------------------------------------------------------------------- forward

    def forward(
        self, call: Call, *, keep: bool = False, every: int | None = None
    ) -> tuple[Array, Array, Array | None, list[Level]]:
        """Run all passes.

        Parameters
        ----------
        call : Call
        keep : also return what `backward` needs
        every : keep states each so many steps only, and let `backward` compute the rest again

        Returns
        -------
        y : (T, B, D*P)
        hn, cn : (L*D, B, P), (L*D, B, H) or None
        levels : list of Level, empty without `keep`, or if there is no step or no row to run
        """
        x = call.x
        if self.num_passes == 1 and every is None and x.size:
            return self._forward_one(call, keep)
        if x.size == 0:
            y = self._xp.zeros((*x.shape[:2], self.directions * self.widths[0]), x.dtype)
            return y, call.h0.copy(), None if call.c0 is None else call.c0.copy(), []
        hn = self._xp.empty_like(call.h0)
        cn = None if call.c0 is None else self._xp.empty_like(call.c0)
        levels: list[Level] = []
        for number, chains in enumerate(self.levels):
            if number:
                x = self._drop(x, call.seed, number - 1, 0)
            outputs, spans = [], []
            for chain in chains:
                y, ends, kept = self._run_chain(call, chain, x, keep, every)
                for index, (h, c) in zip(chain.passes, ends, strict=True):
                    hn[index] = h
                    if cn is not None:
                        cn[index] = c
                outputs.append(y)
                spans.append(kept)
            if keep:
                levels.append(Level(x, spans))
            x = outputs[0] if len(outputs) == 1 else self._xp.concatenate(outputs, axis=2)
        return x, hn, cn, levels

    def _forward_one(
        self, call: Call, keep: bool
    ) -> tuple[Array, Array, Array | None, list[Level]]:
        """Run the only pass. It needs no joining, which would cost as much as a small call."""
        h0, c0 = call.h0[0], None if call.c0 is None else call.c0[0]
        reverse = self.levels[0][0].reverse
        y, h, c, saved = self.backend.forward(
            self.cell,
            call.packed[0],
            call.x,
            h0,
            c0,
            call.rows[reverse],
            reverse=reverse,
            keep=keep,
            threads=config.get_num_threads(),
            numerics=self.numerics,
        )
        levels = []
        if saved is not None:
            state = h0, c0
            kept = [Kept(call.x, state, saved)]
            levels = [Level(call.x, [[Span(0, len(call.x), [state], kept)]])]
        return y, h[None], None if c is None else c[None], levels

    def _run_chain(
        self, call: Call, chain: Chain, x: Array, keep: bool, every: int | None
    ) -> tuple[Array, list[State], list[Span]]:
        """Return y (T, B, P), the states of the passes at the end, and what to keep."""
        steps = len(x)
        h0, c0 = call.h0, call.c0
        states: list[State] = [(h0[i], None if c0 is None else c0[i]) for i in chain.passes]
        if every is None:
            y, ends, kept = self._run_span(call, chain, x, states, 0, keep)
            return y, ends, [Span(0, steps, states, kept)]
        whole = self._xp.empty((*x.shape[:2], self.widths[0]), x.dtype)
        spans = []
        for start, stop in _cut(steps, every, chain.reverse):
            spans.append(Span(start, stop, states, None))
            y, states, _ = self._run_span(call, chain, x[start:stop], states, start, False)
            whole[start:stop] = y
        return whole, states, spans

    def _run_span(
        self, call: Call, chain: Chain, x: Array, states: list[State], start: int, keep: bool
    ) -> tuple[Array, list[State], list[Kept]]:
        """Run a chain over x (steps, B, I), which is the sequence from step ``start``."""
        rows = call.rows[chain.reverse].span(start, start + len(x))
        threads = config.get_num_threads()
        ends: list[State] = []
        kept: list[Kept] = []
        above = x
        for index, (h, c) in zip(chain.passes, states, strict=True):
            x = self._drop(above, call.seed, index - 1, start) if ends else above
            y, hn, cn, saved = self.backend.forward(
                self.cell,
                call.packed[index],
                x,
                h,
                c,
                rows,
                reverse=chain.reverse,
                keep=keep,
                threads=threads,
                numerics=self.numerics,
            )
            ends.append((hn, cn))
            if saved is not None:
                kept.append(Kept(x, (h, c), saved))
            # What is kept anyway feeds the next layer too, so that y itself can be let go.
            above = y if saved is None else saved.y
        return y, ends, kept

    def _drop(self, y: Array, seed: int | None, layer: int, start: int) -> Array:
        """Apply a layer's dropout to its output, or to the gradient of what came out of it."""
        if seed is None:
            return y
        first = start * y.shape[1] * y.shape[2]
        mask = self.backend.mask(seed, layer, first, y.shape, self.dropout, y.dtype)
        with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN flow through
            return y * mask

    # --------------------------------------------------------------------------- backward

    def backward(
        self,
        call: Call,
        levels: list[Level],
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Sequence[Weights],
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through all passes.

        Parameters
        ----------
        call, levels : as given to and returned by `forward`
        dy : (T, B, D*P) or None
        dh, dc : (L*D, B, P), (L*D, B, H) or None; C-contiguous; overwritten
        grads : one a pass, in a vector as `Backend.new_gradients` makes it; they are set

        Returns
        -------
        dx : (T, B, I)
        dh0, dc0 : (L*D, B, P), (L*D, B, H) or None
        """
        if not levels:
            for array in (array for each in grads for array in each if array is not None):
                array[...] = 0
            return self._xp.zeros(call.x.shape, call.x.dtype), dh, dc
        if self.num_passes == 1:
            (only, *more), *_ = levels[0].chains
            if not more and only.kept is not None:
                return self._backward_one(call, only.kept[0], dy, dh, dc, grads[0])
        dx = dy
        for number in reversed(range(len(levels))):
            dys = self._by_direction(dx)
            x, chains = levels[number]
            parts = [
                self._chain_backward(call, chain, x, spans, part, dh, dc, grads)
                for chain, spans, part in zip(self.levels[number], chains, dys, strict=True)
            ]
            with np.errstate(invalid="ignore", over="ignore"):
                dx = parts[0] if len(parts) == 1 else parts[0] + parts[1]
            if number:
                dx = self._drop(dx, call.seed, number - 1, 0)
        assert dx is not None
        return dx, dh, dc

    def _backward_one(
        self,
        call: Call,
        kept: Kept,
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Weights,
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through the only pass; see `_forward_one`."""
        x, (h0, c0), saved = kept
        reverse = self.levels[0][0].reverse
        dx, dh, dc = self.backend.backward(
            self.cell,
            call.packed[0],
            x,
            h0,
            c0,
            call.rows[reverse],
            saved,
            dy,
            dh[0],
            None if dc is None else dc[0],
            grads,
            reverse=reverse,
            threads=config.get_num_threads(),
            numerics=self.numerics,
        )
        return dx, dh[None], None if dc is None else dc[None]

    def _by_direction(self, dy: Array | None) -> list[Array | None]:
        """Return the parts of dy (T, B, D*P) that belong to the directions."""
        if dy is None or self.directions == 1:
            return [dy] * self.directions
        width = self.widths[0]
        return [dy[:, :, :width], dy[:, :, width:]]

    def _chain_backward(
        self,
        call: Call,
        chain: Chain,
        x: Array,
        spans: list[Span],
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Sequence[Weights],
    ) -> Array:
        """Return dx; what dh and dc hold for the chain's passes goes from the end to the start."""
        whole = None if len(spans) == 1 else self._xp.empty(x.shape, x.dtype)
        dx = dy
        calls = len(spans)
        sums = {
            i: grads[i] if calls == 1 else self.backend.sums(grads[i], calls) for i in chain.passes
        }
        for start, stop, states, kept in reversed(spans):
            if kept is None:
                kept = self._run_span(call, chain, x[start:stop], states, start, True)[2]
            rows = call.rows[chain.reverse].span(start, stop)
            threads = config.get_num_threads()
            dx = None if dy is None else dy[start:stop]
            for index, (x_pass, (h, c), saved) in zip(chain.passes[::-1], kept[::-1], strict=True):
                if dx is not None and index != chain.passes[-1]:
                    dx = self._drop(dx, call.seed, index, start)
                dx, dh[index], dc0 = self.backend.backward(
                    self.cell,
                    call.packed[index],
                    x_pass,
                    h,
                    c,
                    rows,
                    saved,
                    dx,
                    dh[index],
                    None if dc is None else dc[index],
                    sums[index],
                    reverse=chain.reverse,
                    threads=threads,
                    numerics=self.numerics,
                )
                if dc is not None:
                    dc[index] = dc0
            if whole is not None:
                whole[start:stop] = dx
        dx = dx if whole is None else whole
        assert dx is not None
        return dx

    # --------------------------------------------------------------------------- the tape

    def states(self, call: Call, levels: list[Level]) -> tuple[Array, Array | None]:
        """Return h (T, L*D, B, P) and c (T, L*D, B, H) or None after every step."""
        steps, batch = call.x.shape[:2]
        h = self._xp.zeros((steps, *call.h0.shape), call.x.dtype)
        c = None if call.c0 is None else self._xp.zeros((steps, *call.c0.shape), call.x.dtype)
        for chain, x, (start, stop, states, kept) in self._spans(levels):
            if kept is None:
                kept = self._run_span(call, chain, x[start:stop], states, start, True)[2]
            for index, (_, _, saved) in zip(chain.passes, kept, strict=True):
                h[start:stop, index] = saved.y
                if c is not None:
                    c[start:stop, index] = saved.c
        if call.rows[0].counts is not None:
            active = call.rows[0].active(steps, batch)
            idle = [self._xp.asarray(np.flatnonzero(~rows)) for rows in active]
            for chain in (chain for chains in self.levels for chain in chains):
                for index in chain.passes:
                    _hold(h[:, index], call.h0[index], idle, chain.reverse)
                    if c is not None and call.c0 is not None:
                        _hold(c[:, index], call.c0[index], idle, chain.reverse)
        return h, c

    def _spans(self, levels: list[Level]) -> Iterator[tuple[Chain, Array, Span]]:
        for chains, level in zip(self.levels, levels, strict=False):
            for chain, spans in zip(chains, level.chains, strict=True):
                for span in spans:
                    yield chain, level.x, span

    def nbytes(self, call: Call, levels: list[Level]) -> int:
        """Return the bytes of the arrays that were kept, not counting the caller's x."""
        arrays: list[Array | None] = [call.h0, call.c0, *call.rows[0], *call.rows[1]]
        arrays += [level.x for level in levels[1:]]
        for _, _, (start, _, states, kept) in self._spans(levels):
            if start:
                arrays += [part for state in states for part in state]
            for number, (x, _, saved) in enumerate(kept or ()):
                arrays += saved
                if number:
                    arrays.append(x)
        # An output that feeds the next layer is kept in two places and is one array.
        return sum({id(a): a.nbytes for a in arrays if a is not None}.values())


class PlacedNetwork(Network):
    """A network that runs on the GPU of its arrays, whatever the current one is."""

    def pack(self, weights: Sequence[Weights], **how: Any) -> list[object]:
        """See `Network.pack`."""
        with there(weights[0].ih):
            return super().pack(weights, **how)

    def forward(self, call: Call, **how: Any) -> tuple[Array, Array, Array | None, list[Level]]:
        """See `Network.forward`."""
        with there(call.x):
            return super().forward(call, **how)

    def backward(self, call: Call, *args: Any) -> tuple[Array, Array, Array | None]:
        """See `Network.backward`."""
        with there(call.x):
            return super().backward(call, *args)

    def states(self, call: Call, levels: list[Level]) -> tuple[Array, Array | None]:
        """See `Network.states`."""
        with there(call.x):
            return super().states(call, levels)


def _cut(steps: int, every: int, reverse: bool) -> Iterator[tuple[int, int]]:
    """Spans of ``every`` steps, in the order a direction runs them; the last may be shorter."""
    for done in range(0, steps, every):
        more = min(done + every, steps)
        yield (steps - more, steps - done) if reverse else (done, more)


def _hold(states: Array, first: Array, idle: Sequence[Array], reverse: bool) -> None:
    """Fill in the state that the rows idle[t] have at step t; states (T, B, .)."""
    previous = first
    for t, state in enumerate(states):
        state[idle[t]] = (first if reverse else previous)[idle[t]]
        previous = state
