"""Cases to run, fastrnn's answers to them, and how answers are compared. Needs NumPy only.

Every route, those of oracles.py included, ends in one flat dictionary name -> array: `y`, the final
states `hn` and `cn`, and gradients with a `d` before the name of what they belong to (`dx`, `dh0`,
`dc0`, `dweight_ih_l0`, ...). So a comparison can miss neither a key nor a swap of two of them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn

Array = np.ndarray[Any, np.dtype[Any]]
Results = dict[str, Array]

#: What the project promises against float64 arithmetic.
TOLERANCE = {
    "float32": {"atol": 2e-5, "rtol": 2e-4},
    "float64": {"atol": 1e-11, "rtol": 1e-9},
}
#: Cell kind -> fastrnn's class and the arguments that choose the kind.
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn_tanh": (fastrnn.RNN, {}),
    "rnn_relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "gru": (fastrnn.GRU, {}),
    "gru_reset_before": (fastrnn.GRU, {"reset_after": False}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm_peephole": (fastrnn.LSTM, {"peephole": True}),
}
KINDS = tuple(LAYERS)


@dataclass(frozen=True)
class Case:
    """One configuration of a layer and of a call, with all its numbers drawn from `seed`."""

    kind: str = "lstm"
    sizes: tuple[int, int, int, int] = (6, 3, 5, 4)  # T, B, I, H
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    proj: bool = False
    dtype: str = "float64"
    state: bool = True  # given (h0 != c0), or None
    lengths: str = ""  # "", "positive" or "zeros" (unsorted, one of them T and one 0)
    resets: str = ""  # "", "some" or "often" (also at step 0 and in the padding)
    seed: int = 7

    def __str__(self) -> str:
        flags = [f for f in ("bidirectional", "batch_first", "proj") if getattr(self, f)]
        flags += [f"no_{f}" for f in ("bias", "state") if not getattr(self, f)]
        flags += [f"lengths_{self.lengths}"] * bool(self.lengths)
        flags += [f"resets_{self.resets}"] * bool(self.resets)
        sizes = "x".join(map(str, self.sizes))
        return "-".join([self.kind, sizes, f"l{self.layers}", self.dtype, *flags])

    @property
    def is_lstm(self) -> bool:
        return self.kind.startswith("lstm")

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def proj_size(self) -> int:
        return max(1, self.sizes[3] // 3) if self.proj else 0

    @property
    def output(self) -> int:
        """Width P of h."""
        return self.proj_size or self.sizes[3]

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)

    def layer(self, backend: str, **arguments: Any) -> Any:
        """The fastrnn layer, with peepholes and biases that are not zero."""
        cls, chosen = LAYERS[self.kind]
        if self.is_lstm:
            chosen = {**chosen, "proj_size": self.proj_size}
        return cls(
            *self.sizes[2:],
            self.layers,
            **chosen,
            bias=self.bias,
            batch_first=self.batch_first,
            bidirectional=self.bidirectional,
            dtype=np.dtype(self.dtype),
            rng=self.seed,
            backend=backend,
            **arguments,
        )

    def call(self) -> Call:
        """x, the initial state, lengths, resets and the gradients that flow in."""
        draw = np.random.default_rng(self.seed)
        steps, batch, inputs, hidden = self.sizes
        entries = self.layers * self.directions

        def normal(*shape: int) -> Array:
            return draw.standard_normal(shape).astype(self.dtype)

        def state() -> Any:
            h = normal(entries, batch, self.output)
            return (h, normal(entries, batch, hidden)) if self.is_lstm else h

        x, dy = normal(steps, batch, inputs), normal(steps, batch, self.directions * self.output)
        if self.batch_first:
            x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, dy))
        how: dict[str, Any] = {}
        if self.lengths:
            how["lengths"] = draw.integers(1, steps + 1, batch)
            how["lengths"][-1] = steps
            if self.lengths == "zeros":
                how["lengths"][0] = 0
        if self.resets:
            how["resets"] = draw.random((steps, batch)) < (0.2 if self.resets == "some" else 0.6)
        return Call(x, state() if self.state else None, how, dy, state())


@dataclass
class Call:
    """What goes into one forward and backward."""

    x: Array
    state: Any  # None, h or (h, c)
    how: dict[str, Any]  # lengths, resets
    dy: Array | None
    dstate: Any


def close(got: Results, want: Results, dtype: Any) -> None:
    """The same names in the same order, the same shapes, and numbers within the promise."""
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        np.testing.assert_allclose(
            got[name], value, **TOLERANCE[np.dtype(dtype).name], err_msg=name
        )


def same_bits(got: Results, want: Results) -> None:
    """The same names and the same bits, signs of zeros and payloads of NaNs included."""
    assert list(got) == list(want)
    for name, value in want.items():
        assert (got[name].shape, got[name].dtype) == (value.shape, value.dtype), name
        assert got[name].tobytes() == value.tobytes(), f"{name}: bits differ"


def unpack(state: Any) -> tuple[Any, ...]:
    """(h,) or (h, c)."""
    return state if isinstance(state, tuple) else (state,)


def pack(arrays: Iterable[Any]) -> Any:
    """h or (h, c): the form in which layers take and give it."""
    state = tuple(arrays)
    return state if len(state) > 1 else state[0]


def parts(state: Any, h: str, c: str) -> Results:
    """h, or h and c, under these names."""
    return dict(zip((h, c), unpack(state), strict=False))


def run(layer: Any, call: Call, **how: Any) -> Results:
    """fastrnn's answer; `how` adds to the call's own keywords of forward()."""
    y, state, tape = layer.forward(call.x, call.state, **call.how, **how)
    return {"y": y, **parts(state, "hn", "cn"), **back(layer, tape, call)}


def infer(layer: Any, call: Call) -> Results:
    """fastrnn's answer without a tape, which engines compute by other ways through memory."""
    y, state = layer(call.x, call.state, **call.how)
    return {"y": y, **parts(state, "hn", "cn")}


def back(layer: Any, tape: Any, call: Call) -> Results:
    """The gradients alone."""
    grads = layer.backward(tape, call.dy, call.dstate)
    return {
        "dx": grads.x,
        **parts(grads.state, "dh0", "dc0"),
        **{"d" + name: gradient for name, gradient in grads.params.items()},
    }


# ---- fastrnn in another process ------------------------------------------------------------------

WORKER = """
import pickle, sys
import fastrnn, fastrnn._core
def run(layer, x, state, how, dy, dstate):
    y, final, tape = layer.forward(x, state, **how)
    grads = layer.backward(tape, dy, dstate)
    return y, final, grads.x, grads.state, dict(grads.params)
results = [run(*job) for job in pickle.load(sys.stdin.buffer)]
build = {
    "path": fastrnn.__path__[0],
    "isa": fastrnn._core.isa(),
    "linear": fastrnn._core.linear_activations,
    "config": fastrnn.show_config(mode="dicts"),
}
pickle.dump((build, results), sys.stdout.buffer)
"""


def run_elsewhere(
    jobs: list[tuple[Any, Call]], environment: dict[str, str], tree: str | None = None
) -> tuple[dict[str, Any], list[Results]]:
    """What `run` gives for each (layer, call) in a new process, and what build that process has.

    `tree` is the folder that fastrnn is imported from, this one's by default.
    """
    sent = [(layer, c.x, c.state, c.how, c.dy, c.dstate) for layer, c in jobs]
    tree = tree or str(Path(fastrnn.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=pickle.dumps(sent),
        stdout=subprocess.PIPE,
        env={**os.environ, **environment, "PYTHONPATH": tree},
        cwd=tree,
        check=True,
        timeout=1800,
    )
    build, raw = pickle.loads(done.stdout)
    return build, [
        {
            "y": y,
            **parts(final, "hn", "cn"),
            "dx": dx,
            **parts(dstate, "dh0", "dc0"),
            **{"d" + name: value for name, value in params.items()},
        }
        for y, final, dx, dstate, params in raw
    ]


# ---- finite differences --------------------------------------------------------------------------


def slopes(layer: Any, call: Call, **how: Any) -> tuple[Results, Results]:
    """Central differences of <dy, y> + <dstate, state>, and the same from backward's gradients.

    One random direction for each of x, the initial state and every parameter.
    """
    eps = 1e-6
    draw = np.random.default_rng(3)

    def loss() -> float:
        y, state, _ = layer.forward(call.x, call.state, **call.how, **how)
        values = parts(state, "hn", "cn")
        weights = parts(call.dstate, "hn", "cn") if call.dstate is not None else {}
        total = sum(float((values[name] * weights[name]).sum()) for name in weights)
        return total + (float((y * call.dy).sum()) if call.dy is not None else 0.0)

    gradients = run(layer, call, **how)
    sources = {"dx": call.x, **{"d" + name: value for name, value in layer.params.items()}}
    if call.state is not None:
        sources.update(parts(call.state, "dh0", "dc0"))
    differences, products = {}, {}
    for name, source in sources.items():
        direction = draw.standard_normal(source.shape)
        start = source.copy()
        source[...] = start + eps * direction
        above = loss()
        source[...] = start - eps * direction
        below = loss()
        source[...] = start
        differences[name] = np.array((above - below) / (2 * eps))
        products[name] = np.array((gradients[name] * direction).sum())
    return differences, products
