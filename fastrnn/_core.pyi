"""Types of the compiled extension (csrc/bindings/module.cpp)."""

from contextlib import AbstractContextManager
from typing import Protocol

from .cellmath.weights import OptionCodes
from .schedule import RowSchedule
from .spec import Weights
from .typing import Array

linear_activations: bool

def isa() -> str: ...
def dots() -> bool: ...
def tile_unit() -> bool: ...
def memory_kept() -> int: ...  # bytes
def memory_made() -> int: ...  # blocks
def release_memory() -> int: ...
def set_memory_limit(bytes: int) -> None: ...
def set_memory_patience(milliseconds: int) -> None: ...
def set_flush_denormals(on: bool) -> None: ...
def usable_isas() -> list[str]: ...
def cells() -> list[tuple[str, int, int, bool]]: ...

# terms of bfloat16 in a float, 0: none; whether dot products take them; the least rows of a step
Algorithm = tuple[int, bool, int]

class PackedWeights:
    """Packed weights of one pass and phase."""

class SplitWeights:
    """Their terms of bfloat16."""

class GradientSums:
    """Where so many calls of a pass's `backward` sum up gradients."""

    def __init__(self, grads: Weights, calls: int) -> None: ...

class GradientSums32(GradientSums): ...
class GradientSums64(GradientSums): ...

class Pass(Protocol):
    """The kernels for one cell, one dtype and its sizes."""

    def __init__(
        self, cell: int, I: int, H: int, P: int, projected: bool, options: OptionCodes | None
    ) -> None: ...
    @property
    def hidden_size(self) -> int: ...
    def pack(self, w: Weights, backward: bool, threads: int) -> PackedWeights: ...
    def quantize(self, panels: PackedWeights, dtype: str) -> PackedWeights: ...
    def split(
        self,
        panels: PackedWeights,
        backward: bool,
        recurrent: Algorithm,
        batched: Algorithm,
        threads: int,
    ) -> SplitWeights: ...
    def how_run(
        self, T: int, B: int, threads: int, recurrent: Algorithm
    ) -> tuple[int, bool, int, int, int]: ...
    def forward(
        self,
        packed: PackedWeights | Weights,  # Weights: of a call of one step
        split: SplitWeights | None,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: RowSchedule,
        reverse: bool,
        threads: int,
        save: bool,
    ) -> tuple[Array, Array, Array | None, Array | None, Array | None, Array | None]: ...
    def backward(
        self,
        panels: PackedWeights,
        split: SplitWeights | None,
        x: Array,
        h0: Array,
        c0: Array | None,
        rows: RowSchedule,
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
        packed: PackedWeights | Weights,
        split: SplitWeights | None,
        x: Array,
        h: Array,
        c: Array | None,
        rows: RowSchedule,
        threads: int,
        y: Array,
    ) -> Bound: ...

class Bound:
    """One pass over one step."""

class Steps32:
    def __init__(self, x: Array, passes: list[Bound]) -> None: ...
    def __call__(self, x_t: Array) -> None: ...
    def exclusive(self) -> AbstractContextManager[object]: ...

class Steps64(Steps32): ...
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

class PackedMatrix:
    """A matrix in panels."""

def pack_dense32(b: Array) -> PackedMatrix: ...

pack_dense64 = pack_dense32

def dense32(
    a: Array,
    a_transposed: bool,
    b: Array | PackedMatrix,
    b_transposed: bool,
    bias: Array | None,
    out: Array | None,
    row_sum: Array | None,
    threads: int,
) -> Array: ...

dense64 = dense32

def cross_entropy32(
    logits: Array,
    targets: Array,
    mask: Array | None,
    smoothing: float,
    factor: float,
    threads: int,
) -> tuple[Array, Array]: ...

cross_entropy64 = cross_entropy32

def adam32(
    param: Array,
    grad: Array,
    mean: Array,
    square: Array,
    beta1: float,
    beta2: float,
    correction: float,
    eps: float,
    rate: float,
    weight_decay: float,
    threads: int,
) -> None: ...

adam64 = adam32

def sum_of_squares32(vector: Array, threads: int) -> float: ...

sum_of_squares64 = sum_of_squares32

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
