"""Steps recorded as CUDA graphs: what would be some hundred launches is queued as one.

A graph holds addresses, so it works on arrays of its own, to and from which those of a call are
copied: a few copies for some tens of steps.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .packed_sequence import DeviceSequence

if TYPE_CHECKING:
    from .device import Array, Device

SIZES = (32, 16)
"""Steps of a graph, the most first. What is left over runs a launch at a time."""

MOST_GRAPHS = 16
MOST_BYTES = 256 << 20
"""Of the graphs' arrays, for each thread; what was used longest ago goes first."""

Play = Callable[[DeviceSequence, range, int], None]
Arrays = Mapping[str, Any]
"""By name; None where a cell or a call has no such array."""


class Loop(NamedTuple):
    """A time loop over packed rows, and what it works on.

    `make` takes all arrays by name, reserves scratch memory, and returns what runs steps of rows,
    given the packed row where the arrays begin.
    """

    name: str
    make: Callable[..., Play]
    weights: Arrays  # read
    states: Arrays  # (B, W), in place
    read: Arrays  # (N, W) or (N,), a row for each packed row
    written: Arrays  # the same; two names may be one array

    def arrays(self) -> Arrays:
        """Return all arrays by name."""
        return {**self.weights, **self.states, **self.read, **self.written}


class Graphs(threading.local):
    """The graphs of this thread: no two threads use one at the same time."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._known: OrderedDict[Any, _Entry] = OrderedDict()

    def run(self, loop: Loop, rows: DeviceSequence, steps: range, base: int = 0) -> None:
        """Run steps of a loop in this order, in graphs as far as that can be done; the loop's
        arrays begin at packed row `base`."""
        play = None
        filled: list[_Span] = []  # those that have the loop's weights and states
        for part in rows.parts(steps):
            while part:
                size, span = self._find(loop, rows, part)
                now, part = part[:size], part[size:]
                if span is not None:
                    at = slice(rows.of(min(now)).start - base, rows.of(max(now)).stop - base)
                    span.run(loop, at, weights=span not in filled)
                    filled.append(span)
                    continue
                if play is None:
                    play = loop.make(**loop.arrays())
                play(rows, now, base)

    def _find(self, loop: Loop, rows: DeviceSequence, steps: range) -> tuple[int, _Span | None]:
        """Return how many steps to run next, and their graph if there is one."""
        size = next((size for size in SIZES if size <= len(steps)), 0)
        if not size or steps[0] >= rows.full or self._device.recording:
            return len(steps), None
        backwards = steps[0] > steps[-1]
        key = (self._device.place(), loop.name, size, backwards, *_form(loop))
        entry = self._known.get(key)
        if entry is None:
            # The first time loads kernels and makes handles, which cannot be recorded.
            self._known[key] = _Entry()
            self._make_room(0)
            return size, None
        self._known.move_to_end(key)
        if not entry.tried:
            entry.tried = True
            own = rows.like(size)
            nbytes = _nbytes(loop, own.rows)
            if nbytes <= MOST_BYTES:
                self._make_room(nbytes)
                entry.span = _record(self._device, loop, own, backwards)
        return size, entry.span

    def _make_room(self, nbytes: int) -> None:
        """Forget graphs until there is room for these bytes more."""
        while len(self._known) > MOST_GRAPHS or self.nbytes + nbytes > MOST_BYTES:
            self._known.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that are kept."""
        return sum(entry.span.nbytes for entry in self._known.values() if entry.span)


class _Entry:
    """What is known of one kind of steps."""

    span: _Span | None = None
    tried = False


class _Span:
    """A graph of some steps, and its arrays by the loop's names."""

    def __init__(self, launch: Callable[[], None], play: Play, arrays: Arrays, nbytes: int) -> None:
        self._launch, self._arrays, self.nbytes = launch, arrays, nbytes
        self._play = play  # whose scratch memory the graph works in

    def run(self, loop: Loop, at: slice, *, weights: bool) -> None:
        """Run the graph on the rows `at` of a loop's arrays, after a copy of the weights or not."""
        own = self._arrays
        for name, a in {**(loop.weights if weights else {}), **loop.states}.items():
            if a is not None:
                own[name][...] = a
        for name, a in loop.read.items():
            if a is not None:
                own[name][...] = a[at]
        self._launch()
        for name, a in loop.states.items():
            if a is not None:
                a[...] = own[name]
        for name, a in _different(loop.written).items():
            a[at] = own[name]


def _record(device: Device, loop: Loop, own: DeviceSequence, backwards: bool) -> _Span | None:
    """Return a graph of all steps of `own`, or None where they cannot be recorded."""
    twins: dict[int, Array] = {}

    def twin(a: Array | None, rows: int | None) -> Array | None:
        """Return an array of the graph's own, the same for the same."""
        if a is None:
            return None
        if id(a) not in twins:
            many = len(a) if rows is None else rows
            twins[id(a)] = device.xp.empty((many, *a.shape[1:]), a.dtype)
        return twins[id(a)]

    arrays = {name: twin(a, None) for name, a in {**loop.weights, **loop.states}.items()}
    arrays |= {name: twin(a, own.rows) for name, a in {**loop.read, **loop.written}.items()}
    play = loop.make(**arrays)
    steps = range(len(own.steps))
    launch = device.record(lambda: play(own, steps[::-1] if backwards else steps, 0))
    nbytes = sum(a.nbytes for a in twins.values())
    return None if launch is None else _Span(launch, play, arrays, nbytes)


def _different(arrays: Arrays) -> dict[str, Array]:
    """Return each array once, by the first of its names."""
    first: dict[int, tuple[str, Array]] = {}
    for name, a in arrays.items():
        if a is not None:
            first.setdefault(id(a), (name, a))
    return dict(first.values())


def _nbytes(loop: Loop, rows: int) -> int:
    """Return the bytes of what a graph of so many rows would keep."""
    fixed = _different({**loop.weights, **loop.states}).values()
    by_row = _different({**loop.read, **loop.written}).values()
    nbytes: int = sum(a.nbytes for a in fixed) + sum(a[:1].nbytes * rows for a in by_row)
    return nbytes


def _form(loop: Loop) -> tuple[Any, ...]:
    """Return what a loop's graph depends on besides its steps."""
    fixed = (*loop.weights.values(), *loop.states.values())
    by_row = (*loop.read.values(), *loop.written.values())
    return (
        *(None if a is None else a.shape for a in fixed),
        *(None if a is None else a.shape[1:] for a in by_row),
    )
