"""Types of the compiled extension (csrc/bindings.cpp)."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np

from .backends.base import Weights
from .rows import Rows

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

linear_activations: bool

def isa() -> str: ...
def dots() -> bool: ...
def tile_unit() -> bool: ...
def memory_kept() -> int: ...
def usable_isas() -> list[str]: ...
def cells() -> list[tuple[str, int, int, bool]]: ...

# parts of bfloat16 in a float, 0: none; whether dot products take them; the least rows of a step
Halves = tuple[int, bool, int]

class Panels:
    """Packed weights of one pass and phase."""

class Split:
    """The same in parts of bfloat16."""

class GradientSums:
    """Where so many calls of a pass's `backward` sum up gradients."""

    def __init__(self, grads: Weights, calls: int) -> None: ...

class GradientSums32(GradientSums): ...
class GradientSums64(GradientSums): ...

class Pass(Protocol):
    """The kernels for one cell, one dtype and its sizes."""

    def __init__(self, cell: int, I: int, H: int, P: int, projected: bool) -> None: ...
    @property
    def hidden_size(self) -> int: ...
    def pack(self, w: Weights, backward: bool, threads: int) -> Panels: ...
    def narrow(self, panels: Panels, dtype: str) -> Panels: ...
    def split(
        self, panels: Panels, backward: bool, step: Halves, chunk: Halves, threads: int
    ) -> Split: ...
    def how_run(
        self, T: int, B: int, threads: int, step: Halves
    ) -> tuple[int, bool, int, int, int]: ...
    def forward(
        self,
        packed: Panels | Weights,  # Weights: of a call of one step
        split: Split | None,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        reverse: bool,
        threads: int,
        keep: bool,
    ) -> tuple[Array, Array, Array | None, Array | None, Array | None, Array | None]: ...
    def backward(
        self,
        panels: Panels,
        split: Split | None,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: Rows,
        reverse: bool,
        threads: int,
        y: Array,
        gates: Array,
        c: Array | None,
        dy: Array | None,
        dhn: Array,
        dcn: Array | None,
        grads: Weights | GradientSums,
    ) -> tuple[Array, Array, Array | None]: ...
    def bind(
        self,
        packed: Panels | Weights,
        split: Split | None,
        x: Array,
        h: Array,
        c: Array | None,
        rows: Rows,
        threads: int,
        y: Array,
    ) -> Callable[[], None]: ...

class Pass32(Pass): ...
class Pass64(Pass): ...

def sigmoid32(x: Array) -> Array: ...
def sigmoid64(x: Array) -> Array: ...
def tanh32(x: Array) -> Array: ...
def tanh64(x: Array) -> Array: ...
def empty32(n: int) -> Array: ...
def empty64(n: int) -> Array: ...
def fma_loop32(rounds: int) -> float: ...
def fma_loop64(rounds: int) -> float: ...
def read_sum32(x: Array, repeats: int) -> float: ...
def read_sum64(x: Array, repeats: int) -> float: ...
def ctc32(
    logits: Array, targets: Array, steps: Array, labels: Array, blank: int, threads: int
) -> tuple[Array, Array]: ...
def ctc64(
    logits: Array, targets: Array, steps: Array, labels: Array, blank: int, threads: int
) -> tuple[Array, Array]: ...
def crf(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array, threads: int
) -> tuple[Array, Array, Array]: ...
def viterbi(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array, threads: int
) -> Array: ...
