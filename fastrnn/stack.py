"""Layers, directions, dropout between layers, and checkpoints, made of a backend's passes.

A *direction stack* is the passes that feed each other in one direction; a *layer group* is the
direction stacks side by side, whose outputs are concatenated. Layers of one direction are a single
group with one such stack of L passes; those of two directions are L groups of two with one pass
each, since every layer needs the whole output of both directions below it. No cell is known here.
Letters: as in `spec`, and D directions, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import config
from .backends import device_of
from .backends.base import Backend
from .schedule import RowSchedule
from .spec import CellSpec, Numerics, OutputGradients, PassArgs, Saved, Weights
from .typing import Array

State = tuple[Array, Array | None]  # h (B, P), c (B, H) or None


class StackArgs(NamedTuple):
    """The arguments of one call."""

    weights: Sequence[object]  # packed, one a pass, in the order of the states: layer * D + dir.
    x: Array  # (T, B, I)
    h0: Array  # (L*D, B, P), C-contiguous
    c0: Array | None  # (L*D, B, H), C-contiguous
    rows: tuple[RowSchedule, RowSchedule]  # of the forward and of the reverse direction
    seed: int | None = None  # of the dropout masks; None: no dropout


class DirectionStack(NamedTuple):
    """Passes that feed each other in one direction of time."""

    passes: range
    reverse: bool


class SavedPass(NamedTuple):
    """What the backward of one pass over one span needs."""

    args: PassArgs
    saved: Saved


class SavedSpan(NamedTuple):
    """What is saved of one direction stack over the steps start..stop."""

    start: int
    stop: int
    states: list[State]  # of each pass, before the span's first step
    passes: list[SavedPass] | None  # None: to be computed again from the states


class SavedGroup(NamedTuple):
    """What a forward saves of one layer group."""

    x: Array  # (T, B, I or D*P)
    stacks: list[list[SavedSpan]]  # of each stack, in the order its direction runs


class Stack:
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
        self._reverse = reverse
        all_passes = range(self.num_passes)
        self.groups: list[tuple[DirectionStack, ...]] = [(DirectionStack(all_passes, reverse),)]
        if bidirectional:
            pairs = [(all_passes[n : n + 1], all_passes[n + 1 : n + 2]) for n in all_passes[::2]]
            self.groups = [
                (DirectionStack(ahead, False), DirectionStack(behind, True))
                for ahead, behind in pairs
            ]

    def pack(
        self,
        weights: Sequence[Weights],
        *,
        backward: bool,
        weight_dtype: str | None = None,
        single_use: bool = False,
    ) -> list[object]:
        """Return the passes' weights as the backend wants them; see `Backend.pack`."""
        cell, pack, threads = self.cell, self.backend.pack, config.get_num_threads()
        return [
            pack(
                cell,
                w,
                backward=backward,
                threads=threads,
                weight_dtype=weight_dtype,
                single_use=single_use,
            )
            for w in weights
        ]

    # ---------------------------------------------------------------------------- forward

    def forward(
        self, args: StackArgs, *, save: bool = False, every: int | None = None
    ) -> tuple[Array, Array, Array | None, list[SavedGroup]]:
        """Run all passes.

        Parameters
        ----------
        args : StackArgs
        save : also return what `backward` needs
        every : save states each so many steps only, and let `backward` compute the rest again

        Returns
        -------
        y : (T, B, D*P)
        hn, cn : (L*D, B, P), (L*D, B, H) or None
        saved : list of SavedGroup, empty without `save`, or if there is no step or no row to run
        """
        x = args.x
        if x.size == 0:
            y = self._xp.zeros((*x.shape[:2], self.directions * self.widths[0]), x.dtype)
            return y, args.h0.copy(), None if args.c0 is None else args.c0.copy(), []
        saved: list[SavedGroup] = []
        h0, c0 = args.h0, args.c0
        if self.num_passes == 1 and every is None:  # to join it would take as long as a small call
            h, c, reverse = h0[0], None if c0 is None else c0[0], self._reverse
            of_pass = PassArgs(self.cell, self.numerics, x, h, c, args.rows[reverse], reverse)
            y, hn, cn, kept = self.backend.forward(
                args.weights[0], of_pass, save=save, threads=config.get_num_threads()
            )
            if kept is not None:
                span = SavedSpan(0, len(x), [(h, c)], [SavedPass(of_pass, kept)])
                saved = [SavedGroup(x, [[span]])]
            return y, hn[None], None if cn is None else cn[None], saved
        hn = self._xp.empty_like(h0)
        cn = None if c0 is None else self._xp.empty_like(c0)
        for number, stacks in enumerate(self.groups):
            if number:
                x = self._drop(x, args.seed, number - 1, 0)
            outputs, spans = [], []
            for stack in stacks:
                y, ends, of_stack = self._run_stack(args, stack, x, save, every)
                for index, (h, c) in zip(stack.passes, ends, strict=True):
                    hn[index] = h
                    if cn is not None:
                        cn[index] = c
                outputs.append(y)
                spans.append(of_stack)
            if save:
                saved.append(SavedGroup(x, spans))
            x = outputs[0] if len(outputs) == 1 else self._xp.concatenate(outputs, axis=2)
        return x, hn, cn, saved

    def _run_stack(
        self,
        args: StackArgs,
        stack: DirectionStack,
        x: Array,
        save: bool,
        every: int | None,
    ) -> tuple[Array, list[State], list[SavedSpan]]:
        """Return y (T, B, P), the states of the stack's passes at the end, and what to save."""
        h0, c0 = args.h0, args.c0
        states: list[State] = [(h0[i], None if c0 is None else c0[i]) for i in stack.passes]
        if every is None:
            y, ends, passes = self._run_span(args, stack, x, states, 0, save)
            return y, ends, [SavedSpan(0, len(x), states, passes)] if save else []
        whole = self._xp.empty((*x.shape[:2], self.widths[0]), x.dtype)
        spans = []
        for start, stop in _spans_of(len(x), every, stack.reverse):
            spans.append(SavedSpan(start, stop, states, None))
            y, states, _ = self._run_span(args, stack, x[start:stop], states, start, False)
            whole[start:stop] = y
        return whole, states, spans

    def _run_span(
        self,
        args: StackArgs,
        stack: DirectionStack,
        x: Array,
        states: list[State],
        start: int,
        save: bool,
    ) -> tuple[Array, list[State], list[SavedPass]]:
        """Run a direction stack over x (steps, B, I), which is the sequence from step ``start``."""
        passes, reverse = stack
        rows = args.rows[reverse]
        if len(x) != len(args.x):
            rows = rows.span(start, start + len(x))
        threads = config.get_num_threads()
        ends: list[State] = []
        saved: list[SavedPass] = []
        y = x
        for index, (h, c) in enumerate(states, passes.start):
            if ends:
                # What is saved anyway feeds the next layer too, so that y itself can be let go.
                below = saved[-1].saved.y if save else y
                x = self._drop(below, args.seed, index - 1, start)
            of_pass = PassArgs(self.cell, self.numerics, x, h, c, rows, reverse)
            y, hn, cn, kept = self.backend.forward(
                args.weights[index], of_pass, save=save, threads=threads
            )
            ends.append((hn, cn))
            if kept is not None:
                saved.append(SavedPass(of_pass, kept))
        return y, ends, saved

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
        args: StackArgs,
        saved: list[SavedGroup],
        douts: OutputGradients,
        grads: Sequence[Weights],
    ) -> tuple[Array, Array, Array | None]:
        """Backpropagate through all passes.

        Parameters
        ----------
        args, saved : as given to and returned by `forward`
        douts : dy (T, B, D*P) or None; dh, dc (L*D, B, P), (L*D, B, H) or None, C-contiguous and
            overwritten
        grads : one a pass, in a vector as `Backend.new_gradients` makes it; they are set

        Returns
        -------
        dx : (T, B, I)
        dh0, dc0 : (L*D, B, P), (L*D, B, H) or None
        """
        dx, dh, dc = douts
        if not saved:
            for array in (array for each in grads for array in each if array is not None):
                array[...] = 0
            return self._xp.zeros(args.x.shape, args.x.dtype), dh, dc
        if self.num_passes == 1:
            (only, *more), *_ = saved[0].stacks
            if not more and only.passes is not None:  # as in `forward`
                dstate = dh[0], None if dc is None else dc[0]
                dx, dh, dc = self._pass_backward(args, 0, only.passes[0], dx, dstate, grads[0])
                return dx, dh[None], None if dc is None else dc[None]
        for number in reversed(range(len(saved))):
            dys = self._by_direction(dx)
            x, spans = saved[number]
            parts = [
                self._stack_backward(args, stack, x, of_stack, dy, dh, dc, grads)
                for stack, of_stack, dy in zip(self.groups[number], spans, dys, strict=True)
            ]
            if len(parts) == 1:
                dx = parts[0]
            else:
                with np.errstate(invalid="ignore", over="ignore"):
                    dx = parts[0] + parts[1]
            if number:
                dx = self._drop(dx, args.seed, number - 1, 0)
        assert dx is not None
        return dx, dh, dc

    def _pass_backward(
        self,
        args: StackArgs,
        index: int,
        saved: SavedPass,
        dy: Array | None,
        dstate: State,
        grads: Any,
    ) -> tuple[Array, Array, Array | None]:
        """Return dx and the gradient of the state before the first step."""
        dh, dc = dstate
        of_pass, kept = saved
        return self.backend.backward(
            args.weights[index],
            of_pass,
            kept,
            OutputGradients(dy, dh, dc),
            grads,
            threads=config.get_num_threads(),
        )

    def _by_direction(self, dy: Array | None) -> list[Array | None]:
        """Return the parts of dy (T, B, D*P) that belong to the directions."""
        if dy is None or self.directions == 1:
            return [dy] * self.directions
        width = self.widths[0]
        return [dy[:, :, :width], dy[:, :, width:]]

    def _stack_backward(
        self,
        args: StackArgs,
        stack: DirectionStack,
        x: Array,
        spans: list[SavedSpan],
        dy: Array | None,
        dh: Array,
        dc: Array | None,
        grads: Sequence[Weights],
    ) -> Array:
        """Return dx; what dh and dc hold for the stack's passes goes from the end to the start."""
        passes = stack.passes
        calls = len(spans)
        whole = None if calls == 1 else self._xp.empty(x.shape, x.dtype)
        sums: Any = grads
        if calls > 1:
            sums = {index: self.backend.sums(grads[index], calls) for index in passes}
        dx = dy
        for start, stop, states, saved in reversed(spans):
            if saved is None:
                saved = self._run_span(args, stack, x[start:stop], states, start, True)[2]
            dx = dy if whole is None or dy is None else dy[start:stop]
            for index in reversed(passes):
                if dx is not None and index + 1 != passes.stop:
                    dx = self._drop(dx, args.seed, index, start)
                dstate = dh[index], None if dc is None else dc[index]
                of_pass = saved[index - passes.start]
                dx, dh[index], dc0 = self._pass_backward(
                    args, index, of_pass, dx, dstate, sums[index]
                )
                if dc is not None:
                    dc[index] = dc0
            if whole is not None:
                whole[start:stop] = dx
        dx = dx if whole is None else whole
        assert dx is not None
        return dx

    # --------------------------------------------------------------------------- the tape

    def states(self, args: StackArgs, saved: list[SavedGroup]) -> tuple[Array, Array | None]:
        """Return h (T, L*D, B, P) and c (T, L*D, B, H) or None after every step."""
        steps, batch = args.x.shape[:2]
        h = self._xp.zeros((steps, *args.h0.shape), args.x.dtype)
        c = None if args.c0 is None else self._xp.zeros((steps, *args.c0.shape), args.x.dtype)
        for stack, x, (start, stop, states, passes) in self._spans(saved):
            if passes is None:
                passes = self._run_span(args, stack, x[start:stop], states, start, True)[2]
            for index, (_, of_pass) in zip(stack.passes, passes, strict=True):
                h[start:stop, index] = of_pass.y
                if c is not None:
                    c[start:stop, index] = of_pass.c
        if args.rows[0].batch_sizes is not None:
            active = args.rows[0].active(steps, batch)
            idle = [self._xp.asarray(np.flatnonzero(~rows)) for rows in active]
            for stack in (stack for stacks in self.groups for stack in stacks):
                for index in stack.passes:
                    _hold(h[:, index], args.h0[index], idle, stack.reverse)
                    if c is not None and args.c0 is not None:
                        _hold(c[:, index], args.c0[index], idle, stack.reverse)
        return h, c

    def _spans(self, saved: list[SavedGroup]) -> Iterator[tuple[DirectionStack, Array, SavedSpan]]:
        for stacks, group in zip(self.groups, saved, strict=False):
            for stack, spans in zip(stacks, group.stacks, strict=True):
                for span in spans:
                    yield stack, group.x, span

    def nbytes(self, args: StackArgs, saved: list[SavedGroup]) -> int:
        """Return the bytes of the arrays that were saved, not counting the caller's x."""
        arrays: list[Array | None] = [args.h0, args.c0, *args.rows[0], *args.rows[1]]
        arrays += [group.x for group in saved[1:]]
        for _, _, (start, _, states, passes) in self._spans(saved):
            if start:
                arrays += [part for state in states for part in state]
            for number, (of_pass, of_saved) in enumerate(passes or ()):
                arrays += of_saved
                if number:
                    arrays.append(of_pass.x)
        # An output that feeds the next layer is kept in two places and is one array.
        return sum({id(a): a.nbytes for a in arrays if a is not None}.values())


class DeviceStack(Stack):
    """A stack that runs on the GPU of its arrays, whatever the current one is."""

    def pack(self, weights: Sequence[Weights], **how: Any) -> list[object]:
        """See `Stack.pack`."""
        with device_of(weights[0].ih):
            return super().pack(weights, **how)

    def forward(
        self, args: StackArgs, **how: Any
    ) -> tuple[Array, Array, Array | None, list[SavedGroup]]:
        """See `Stack.forward`."""
        with device_of(args.x):
            return super().forward(args, **how)

    def backward(self, args: StackArgs, *more: Any) -> tuple[Array, Array, Array | None]:
        """See `Stack.backward`."""
        with device_of(args.x):
            return super().backward(args, *more)

    def states(self, args: StackArgs, saved: list[SavedGroup]) -> tuple[Array, Array | None]:
        """See `Stack.states`."""
        with device_of(args.x):
            return super().states(args, saved)


def _spans_of(steps: int, every: int, reverse: bool) -> Iterator[tuple[int, int]]:
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
