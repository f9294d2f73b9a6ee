"""The numbers of a case, and its answer by the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ... import GRU, LSTM, RNN
from ...typing import Array
from .shapes import Case

Answer = Mapping[str, Array]

LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}

# Largest difference from the reference in float64, relative to the largest value of an array. The
# worst in the default groups is 8e-6 in float32, 1e-14 in float64 (where the reference is no
# better) and, in gradients over 1500 steps, 0.09 in bfloat16.
TOLERANCES = {"float32": 5e-5, "float64": 1e-12, "bfloat16": 0.1}

STEPS = 8  # that are checked where one is timed


class WrongAnswer(Exception):
    """A candidate's answer is not the reference's."""


@dataclass(frozen=True)
class Problem:
    """What every candidate of a case is given."""

    case: Case
    part: int = 0
    """Which of several side by side, as `parts` makes them."""

    @cached_property
    def parts(self) -> tuple[Problem, ...]:
        """The problems of layers side by side; this one alone where there are no copies."""
        copies = self.case.shape.copies
        if copies == 1:
            return (self,)
        case = replace(self.case, shape=replace(self.case.shape, copies=1))
        return tuple(Problem(case, part) for part in range(copies))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the arrays; NumPy has no bfloat16, so those who compute in it round."""
        return np.dtype("float64" if self.case.dtype == "float64" else "float32")

    @cached_property
    def params(self) -> dict[str, Array]:
        """Weights by torch's names."""
        return dict(self.layer("numpy").params)

    @cached_property
    def x(self) -> Array:
        """(T, B, I), or of single steps (STEPS, B, I); of all parts (.., I * copies)."""
        s = self.case.shape
        if s.copies > 1:
            return np.concatenate([part.x for part in self.parts], axis=2)
        steps = STEPS if self.case.mode == "step" else s.T
        rng = np.random.default_rng([2, self.part])
        return rng.standard_normal((steps, s.B, s.I)).astype(self.dtype)

    @cached_property
    def dy(self) -> Array:
        """(T, B, H), zero past the rows' ends."""
        s = self.case.shape
        dy = np.random.default_rng(3).standard_normal((len(self.x), s.B, s.H)).astype(self.dtype)
        if self.lengths is not None:
            dy[np.arange(len(dy))[:, None] >= self.lengths] = 0
        return dy

    @cached_property
    def lengths(self) -> Array | None:
        """(B,), or None."""
        return self.case.shape.lengths()

    @cached_property
    def resets(self) -> Array | None:
        """(T, B), or None."""
        s = self.case.shape
        return np.random.default_rng(4).random((s.T, s.B)) < s.resets if s.resets else None

    def dense(self) -> Problem:
        """About as many steps of as many rows, none of them past a row's end."""
        shape = self.case.shape
        steps = round(shape.rows / shape.B)
        return Problem(replace(self.case, shape=replace(shape, T=steps, ragged=False)))

    def layer(self, backend: str, dtype: np.dtype[Any] | None = None) -> Any:
        """A layer with the case's weights, or with those of this part."""
        s = self.case.shape
        rng = np.random.default_rng([1, self.part])
        dtype = self.dtype if dtype is None else dtype
        medium = self.case.dtype == "bfloat16" and dtype == np.float32
        precision = "medium" if medium else "highest"
        return LAYERS[s.cell](
            s.I, s.H, s.layers, rng=rng, backend=backend, dtype=dtype, precision=precision
        )

    @cached_property
    def reference(self) -> Answer:
        """The answer of the readable backend, in float64."""
        if len(self.parts) > 1:
            return {"y": np.concatenate([part.reference["y"] for part in self.parts], axis=2)}
        layer = self.layer("numpy", np.dtype("float64"))
        layer.load_params({name: value.astype("float64") for name, value in self.params.items()})
        return solve(layer, self, self.x.astype("float64"), self.dy.astype("float64"))

    def check(self, name: str, answer: Answer) -> None:
        """Raise WrongAnswer unless it is the reference's."""
        allowed = TOLERANCES[self.case.dtype]
        for key, expected in self.reference.items():
            if answer[key].shape != expected.shape:
                raise WrongAnswer(f"{name} is wrong: {key} has the shape {answer[key].shape}")
            # Gradients of R are zero where there is but one step.
            worst = np.abs(answer[key] - expected).max() / (np.abs(expected).max() or 1)
            if not worst <= allowed:
                raise WrongAnswer(
                    f"{name} is wrong at {self.case}: {key} differs by {worst:.1e} of its largest "
                    f"value, {allowed:g} allowed"
                )


def solve(layer: Any, problem: Problem, x: Array, dy: Array) -> Answer:
    """The answer of one of our layers."""
    more = {"lengths": problem.lengths, "resets": problem.resets}
    if problem.case.mode in ("inference", "step"):
        return {"y": layer(x, **more)[0]}
    y, _, tape = layer.forward(x, **more)
    grads = layer.backward(tape, dy)
    return {"y": y, "dx": grads.x, **grads.params}
