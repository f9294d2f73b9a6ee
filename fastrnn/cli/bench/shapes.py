"""What is measured: groups of shapes, as data, and what each shape asks of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ...typing import Array

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
ITEMSIZE = {"float32": 4, "float64": 8, "bfloat16": 2}

KINDS = ("inference", "training", "step", "ragged", "memory")

# What one run of one candidate may take by default, so that a group ends within minutes: about two
# seconds on one core of 2026. The lists of others hold shapes of a hundred times as much.
MAX_GFLOP = 400.0

_FORWARD = ("inference",)
_BOTH = ("inference", "training")


@dataclass(frozen=True)
class Shape:
    """A layer in one direction: T steps of B rows of I numbers, H hidden units."""

    cell: str
    T: int
    B: int
    I: int
    H: int
    modes: tuple[str, ...] = _BOTH
    ragged: bool = False
    """Rows have lengths, uniform in 1..T."""
    resets: float = 0.0
    """Part of all steps at which a row begins a new sequence."""
    layers: int = 1
    """On top of each other, as `num_layers`."""
    copies: int = 1
    """So many of these side by side, each with weights and an input of its own."""

    def lengths(self) -> Array | None:
        """Lengths (B,) of the rows, the same each time; None where all have T steps."""
        if not self.ragged:
            return None
        return np.random.default_rng([self.T, self.B]).integers(1, self.T, self.B, endpoint=True)

    @property
    def rows(self) -> int:
        """Steps of all rows together that are computed."""
        lengths = self.lengths()
        return self.T * self.B if lengths is None else int(lengths.sum())

    @property
    def inputs(self) -> int:
        """Numbers that a row's step takes into all layers."""
        return self.copies * (self.I + (self.layers - 1) * self.H)

    @property
    def units(self) -> int:
        """Hidden units of all layers."""
        return self.copies * self.layers * self.H

    @property
    def recurrent(self) -> int:
        """Numbers in the recurrent matrices."""
        return GATES[self.cell] * self.H * self.units

    @property
    def weights(self) -> int:
        """Numbers in all matrices."""
        return GATES[self.cell] * self.H * self.inputs + self.recurrent

    def __str__(self) -> str:
        copies = f"{self.copies} x " * (self.copies > 1)
        more = f" L{self.layers}" * (self.layers > 1) + " ragged" * self.ragged
        more += f" resets {self.resets:.1%}" * (self.resets > 0)
        return f"{copies}{self.cell} T{self.T} B{self.B} I{self.I} H{self.H}{more}"


@dataclass(frozen=True)
class Case:
    """A shape, what is done with it, and in which dtype."""

    group: str
    shape: Shape
    mode: str
    """inference, training (forward and backward), step, or memory (of training)."""
    dtype: str

    @property
    def kind(self) -> str:
        """What `--modes` calls it: a ragged shape is that first."""
        return "ragged" if self.shape.ragged else self.mode

    @property
    def flops(self) -> float:
        """Operations of the matrix products; the pointwise part is left out, as everybody does.

        Backward makes two products of each one in forward: one for the gradient of what went in,
        one for that of the weights.
        """
        passes = 3 if self.mode in ("training", "memory") else 1
        return 2.0 * self.shape.rows * self.shape.weights * passes

    @property
    def gflop(self) -> float:
        """`flops` in thousand millions."""
        return self.flops / 1e9

    @property
    def bytes(self) -> float:
        """Bytes that must move, in a simple model: what a step needs is read at each step.

        W is read once, since the product of all inputs can be made at once; R once a step; x is
        read and y written. Training keeps G values a unit, and c of an LSTM, and reads them; W and
        R are read again, and their gradients written.
        """
        s = self.shape
        once = s.weights - s.recurrent
        forward = once + s.T * s.recurrent + s.rows * (s.inputs + s.units)
        if self.mode in ("training", "memory"):
            kept = s.rows * s.units * (GATES[s.cell] + (s.cell == "lstm"))
            backward = once + s.T * s.recurrent + s.weights + s.rows * 2 * (s.inputs + s.units)
            return float(forward + 2 * kept + backward) * ITEMSIZE[self.dtype]
        return float(forward) * ITEMSIZE[self.dtype]

    @property
    def working_set(self) -> int:
        """Bytes that come back at each step: R and the rows' states of a layer; of single steps all
        weights."""
        s = self.shape
        matrices = s.weights if self.mode == "step" else GATES[s.cell] * s.H * s.H
        return (matrices + s.B * s.H * (1 + GATES[s.cell])) * ITEMSIZE[self.dtype]

    def __str__(self) -> str:
        return f"{self.shape} {self.mode} {self.dtype}"


def _numbers() -> Iterator[Shape]:
    """A grid of few rows and many, small layers and large."""
    sizes = [
        (1, 32, 64, 64),
        (100, 1, 64, 64),
        (100, 1, 128, 128),
        (100, 1, 256, 256),
        (50, 1, 512, 512),
        (25, 1, 1024, 1024),
        (100, 16, 128, 128),
        (100, 32, 256, 256),
        (50, 64, 512, 512),
        (25, 64, 1024, 1024),
        (100, 64, 128, 128),
        (100, 256, 64, 64),
        (1500, 1, 32, 32),
    ]
    with_memory = {(100, 32, 256, 256), (100, 256, 64, 64), (1500, 1, 32, 32)}
    for cell, size in product(("lstm", "gru", "rnn"), sizes):
        yield Shape(cell, *size, (*_BOTH, "memory") if size in with_memory else _BOTH)


def _deepbench() -> Iterator[Shape]:
    """DeepBench's lists for training and for servers and devices, with I = H.

    Its GRU lists repeat each size for four T; the shortest stands for all.
    """
    for H, B in product((1760, 2048, 2560), (16, 32, 64, 128)):
        yield Shape("rnn", 50, B, H, H)
    for H, B in product((512, 1024, 2048, 4096), (16, 32, 64, 128)):
        yield Shape("lstm", 25, B, H, H)
    for B in (8, 16, 32):
        yield Shape("lstm", 50, B, 1536, 1536)
    for B in (16, 32, 64):
        yield Shape("lstm", 150, B, 256, 256)
    for H in (1536, 2048, 2560, 2816):
        yield Shape("gru", 187, 32, H, H)
    yield Shape("gru", 1, 32, 512, 512)
    for B in (32, 64):
        yield Shape("gru", 1500, B, 1024, 1024)
    for B in (1, 2, 4):
        for T, H in ((25, 512), (25, 1024), (25, 2048), (50, 1536), (150, 256)):
            yield Shape("lstm", T, B, H, H, _FORWARD)
        for T, H in ((187, 1536), (187, 2048), (187, 2560), (187, 2816), (1, 512), (1500, 1024)):
            yield Shape("gru", T, B, H, H, _FORWARD)
    for T, H in ((32, 672), (96, 64)):
        yield Shape("rnn", T, 1, H, H, _FORWARD)


def _benchdnn() -> Iterator[Shape]:
    """benchdnn's lists of one layer in one direction, where the sizes of x and h may differ."""
    for B, modes in ((1, _FORWARD), (64, _FORWARD), (128, _BOTH)):
        for T in (10, 30, 50):  # a translation encoder
            yield Shape("lstm", T, B, 512, 512, modes)
        for I in (768, 1024):  # its decoder, a step at a time
            yield Shape("lstm", 1, B, I, 512, modes)
        yield Shape("lstm", 1, B, 1024, 1024, modes)
        yield Shape("lstm", 10, B, 512, 128, modes)
    for cell, B in product(("rnn", "gru"), (1, 32)):  # speech
        yield Shape(cell, 50, B, 1760, 1760, _FORWARD if B == 1 else _BOTH)
    yield Shape("lstm", 50, 64, 500, 500)
    for T in (629, 952):
        yield Shape("lstm", T, 128, 128, 128)
    yield Shape("lstm", 629, 1, 128, 128, _FORWARD)
    for I in (240, 1024):
        yield Shape("lstm", 256, 1, I, 1024, _FORWARD)
    yield Shape("lstm", 1, 1, 320, 320, _FORWARD)
    for B, I, H in ((63, 64, 64), (34, 65, 65), (19, 128, 65), (12, 65, 130), (4, 130, 260)):
        yield Shape("lstm", 1, B, I, H)


def _streaming() -> Iterator[Shape]:
    for cell, H in product(("lstm", "gru", "rnn"), (8, 16, 32, 64, 128, 256, 512)):
        yield Shape(cell, 1, 1, H, H, ("step",))
    for cell in ("lstm", "gru"):
        yield Shape(cell, 1, 16, 64, 64, ("step",))


def _audio() -> Iterator[Shape]:
    """Long series of few numbers a step."""
    for cell in ("lstm", "gru"):
        for (T, B), H in product(((10_000, 1), (1000, 32)), (32, 64, 128)):
            memory = ("memory",) if (T, H) == (10_000, 64) else ()
            yield Shape(cell, T, B, 1, H, (*_BOTH, *memory))


def _rl() -> Iterator[Shape]:
    """Rollouts of many environments, whose episodes end at random steps."""
    for cell, B, H in product(("lstm", "gru"), (64, 256), (64, 256)):
        yield Shape(cell, 128, B, 64, H, resets=1 / 32)


def _rollouts() -> Iterator[Shape]:
    """The same in the sizes of TorchRL's users, with episodes of 1000, 100 and 33 steps."""
    for cell, T, resets in product(("lstm", "gru"), (64, 128), (0.001, 0.01, 0.03)):
        yield Shape(cell, T, 128, 64, 256, resets=resets)


def _amplifiers() -> Iterator[Shape]:
    """Models of guitar amplifiers: layers x units, by sample and in blocks of 64 samples."""
    for layers, H in ((1, 12), (1, 16), (2, 8), (1, 24), (1, 40)):
        yield Shape("lstm", 1, 1, 1, H, ("step",), layers=layers)
        yield Shape("lstm", 64, 1, 1, H, _FORWARD, layers=layers)


def _denoisers() -> Iterator[Shape]:
    """Noise out of speech, frame by frame.

    One has 28 GRUs of four units, 524 steps in all a frame, some along time and some along
    frequency: 19 steps each; the other, NSNet2's, two layers of 600, for a frame and for 500.
    """
    yield Shape("gru", 1, 1, 4, 4, ("step",), copies=28)
    yield Shape("gru", 19, 1, 4, 4, _FORWARD, copies=28)
    yield Shape("gru", 1, 1, 600, 600, ("step",), layers=2)
    yield Shape("gru", 500, 1, 600, 600, _FORWARD, layers=2)


def _speakers() -> Iterator[Shape]:
    """Who speaks: three layers over 160 frames of 40 mel bands, as Resemblyzer's."""
    for B in (1, 16):
        yield Shape("lstm", 160, B, 40, 256, layers=3)


def _odd() -> Iterator[Shape]:
    """Sizes that are a multiple of nothing."""
    for cell, H in product(("lstm", "gru", "rnn"), (65, 100, 257)):
        yield Shape(cell, 50, 1, H, H)
        yield Shape(cell, 50, 17, H, H)


def _ragged() -> Iterator[Shape]:
    for cell in ("lstm", "gru"):
        for T, B, H in ((10, 32, 128), (100, 32, 128), (100, 64, 256), (1000, 32, 64)):
            yield Shape(cell, T, B, H, H, ragged=True)


def _small() -> Iterator[Shape]:
    """Everything once, in seconds: what `--quick` measures and what checks that answers agree."""
    for cell in GATES:
        yield Shape(cell, 20, 4, 16, 24)
        yield Shape(cell, 1, 1, 16, 24, ("step",))
        yield Shape(cell, 20, 4, 16, 24, ragged=True)
        yield Shape(cell, 20, 4, 16, 24, resets=1 / 32)
        yield Shape(cell, 9, 3, 5, 8, layers=2)
        yield Shape(cell, 1, 1, 5, 8, ("step",), layers=2)
        yield Shape(cell, 6, 2, 3, 4, _FORWARD, copies=3)
        yield Shape(cell, 1, 1, 3, 4, ("step",), layers=2, copies=3)
    yield Shape("lstm", 100, 1, 64, 64)
    yield Shape("gru", 100, 32, 128, 128, (*_BOTH, "memory"))


GROUPS = {
    "small": _small,
    "numbers": _numbers,
    "odd": _odd,
    "streaming": _streaming,
    "audio": _audio,
    "rl": _rl,
    "rollouts": _rollouts,
    "amplifiers": _amplifiers,
    "denoisers": _denoisers,
    "speakers": _speakers,
    "ragged": _ragged,
    "deepbench": _deepbench,
    "benchdnn": _benchdnn,
}


def cases(groups: Sequence[str], kinds: Sequence[str], dtypes: Sequence[str]) -> list[Case]:
    """All cases of these groups, kinds and dtypes."""
    everything = [
        Case(group, shape, mode, dtype)
        for group in groups
        for dtype in dtypes
        for shape in GROUPS[group]()
        for mode in shape.modes
    ]
    return [case for case in everything if case.kind in kinds]
