"""PyTorch: its modules for whole sequences, its cells for single steps."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

from ....typing import Array
from ..candidate import Candidate, one_by_one
from ..problem import Answer, Problem
from ..shapes import Case


def why_not(case: Case) -> str | None:
    """It can do everything, one way or another."""
    return None


def candidate(problem: Problem, threads: int) -> Candidate:
    """Make the candidate."""
    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    return one_by_one(problem, lambda part: _Torch(torch, part).candidate())


class _Torch:
    def __init__(self, torch: Any, problem: Problem) -> None:
        self.torch = torch
        self.problem = problem
        self.dtype = getattr(torch, problem.case.dtype)
        self.x, self.dy = self.tensor(problem.x), self.tensor(problem.dy)

    def candidate(self) -> Candidate:
        if self.problem.case.mode == "step":
            return self.step()
        note = ""
        if self.problem.resets is not None:
            note = "one call for each piece between two steps at which any row is reset"
        elif self.problem.lengths is not None:
            note = "pack_padded_sequence, pad_packed_sequence"
        if self.problem.case.mode == "inference":
            return self.inference(note)
        return self.training(note)

    def tensor(self, array: Array) -> Any:
        # a copy: what comes from a layer may be read-only
        return self.torch.tensor(array, dtype=self.dtype)

    def array(self, tensor: Any) -> Array:
        wide = self.torch.float64 if self.dtype == self.torch.float64 else self.torch.float32
        array: Array = tensor.detach().to(wide).numpy().copy()
        return array

    def module(self) -> Any:
        s = self.problem.case.shape
        module = getattr(self.torch.nn, s.cell.upper())(s.I, s.H, s.layers, dtype=self.dtype)
        module.load_state_dict({n: self.tensor(value) for n, value in self.problem.params.items()})
        return module

    def forward(self, module: Any, x: Any) -> Any:
        """Return y (T, B, H), the shortest way that torch offers for the problem."""
        if self.problem.resets is not None:
            return self.in_pieces(module, x)
        if self.problem.lengths is None:
            return module(x)[0]
        rnn = self.torch.nn.utils.rnn
        lengths = self.torch.tensor(self.problem.lengths)
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return rnn.pad_packed_sequence(module(packed)[0], total_length=len(x))[0]

    def in_pieces(self, module: Any, x: Any) -> Any:
        state, outputs = None, []
        for start, stop, keep in self.pieces:
            if state is not None:
                parts = state if isinstance(state, tuple) else (state,)
                parts = tuple(part * keep for part in parts)
                state = parts if isinstance(state, tuple) else parts[0]
            y, state = module(x[start:stop], state)
            outputs.append(y)
        return self.torch.cat(outputs)

    @property
    def pieces(self) -> Iterator[tuple[int, int, Any]]:
        """Steps start..stop without a reset inside, and the rows (B, 1) that go on at start."""
        resets = self.problem.resets
        assert resets is not None
        starts = sorted({0, *np.flatnonzero(resets.any(axis=1)).tolist()})
        for start, stop in zip(starts, [*starts[1:], len(resets)], strict=True):
            yield start, stop, self.tensor(~resets[start][:, None])

    def inference(self, note: str) -> Candidate:
        module, x = self.module(), self.x

        def run() -> Any:
            with self.torch.inference_mode():
                return self.forward(module, x)

        return Candidate("torch", "peer", self.problem, run, lambda: {"y": self.array(run())}, note)

    def training(self, note: str) -> Candidate:
        module, dy = self.module(), self.dy
        x = self.x.requires_grad_()

        def run() -> Any:
            module.zero_grad(set_to_none=True)
            x.grad = None
            y = self.forward(module, x)
            y.backward(dy)
            return y

        def answer() -> Answer:
            y = self.array(run())
            named = {name: self.array(p.grad) for name, p in module.named_parameters()}
            return {"y": y, "dx": self.array(x.grad), **named}

        return Candidate("torch", "peer", self.problem, run, answer, note)

    def step(self) -> Candidate:
        cells = [self.cell(layer) for layer in range(self.problem.case.shape.layers)]
        states: list[Any] = [None] * len(cells)
        first = self.x[0]

        def step(h: Any) -> Any:
            with self.torch.inference_mode():
                for layer, cell in enumerate(cells):
                    state = states[layer] = cell(h, states[layer])
                    h = state[0] if isinstance(state, tuple) else state
            return h

        def answer() -> Answer:
            states[:] = [None] * len(cells)
            return {"y": self.array(self.torch.stack([step(x_t) for x_t in self.x]))}

        note = type(cells[0]).__name__
        return Candidate("torch", "peer", self.problem, lambda: step(first), answer, note)

    def cell(self, layer: int) -> Any:
        s, end = self.problem.case.shape, f"_l{layer}"
        kind = getattr(self.torch.nn, f"{s.cell.upper()}Cell")
        cell = kind(s.H if layer else s.I, s.H, dtype=self.dtype)
        params = self.problem.params.items()
        cell.load_state_dict({n[: -len(end)]: self.tensor(v) for n, v in params if n.endswith(end)})
        return cell
