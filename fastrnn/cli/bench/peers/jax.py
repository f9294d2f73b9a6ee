"""JAX: a compiled scan, with the product of all inputs made before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ..contender import Contender
from ..problem import Answer, Problem
from ..shapes import Array, Case


def prepare(threads: int) -> None:
    """Size the thread pool, which is read when JAX is first used and cannot be changed after."""
    os.environ["NPROC"] = str(threads)


def why_not(case: Case) -> str | None:
    """Lengths, which only a mask could give, and memory, most of which is the compiler's."""
    if case.mode == "memory":
        return "its compiler's memory cannot be told from the program's"
    return "no lengths" if case.shape.ragged else None


def contender(problem: Problem, threads: int) -> Contender:
    """Make the contender."""
    prepare(threads)
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    dtype = jax.numpy.dtype(problem.case.dtype)
    cpu = jax.devices("cpu")[0]

    def load(value: Array) -> Any:
        return jax.device_put(value.astype(dtype), cpu)

    params = {name.removesuffix("_l0"): load(value) for name, value in problem.params.items()}
    x, dy = load(problem.x), load(problem.dy)
    keep = None if problem.resets is None else load(~problem.resets[..., None])
    layer = _layer(jax, problem)
    if problem.case.mode == "step":
        return _step(jax, problem, layer, params, x)

    def forward(params: Any, x: Any) -> Any:
        return layer(params, x, None, keep)[0]

    def both(params: Any, x: Any, dy: Any) -> Any:
        y, back = jax.vjp(forward, params, x)
        return y, back(dy)

    if problem.case.mode == "inference":
        infer = jax.jit(forward)
        return Contender(
            "jax",
            "peer",
            problem,
            lambda: infer(params, x).block_until_ready(),
            lambda: {"y": _array(infer(params, x), problem)},
        )
    train = jax.jit(both)

    def answer() -> Answer:
        y, (named, dx) = train(params, x, dy)
        grads = {f"{name}_l0": _array(value, problem) for name, value in named.items()}
        return {"y": _array(y, problem), "dx": _array(dx, problem), **grads}

    return Contender(
        "jax", "peer", problem, lambda: jax.block_until_ready(train(params, x, dy)), answer
    )


def _layer(jax: Any, problem: Problem) -> Callable[..., Any]:
    """A function of weights, x (T, B, I), state or None and keep (T, B, 1) or None."""
    jnp, s = jax.numpy, problem.case.shape
    sigmoid, tanh = jax.nn.sigmoid, jnp.tanh

    def lstm(g: Any, state: Any, p: Any) -> Any:
        h, c = state
        i, f, u, o = jnp.split(g + h @ p["weight_hh"].T + p["bias_hh"], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(u)
        return sigmoid(o) * tanh(c), c

    def gru(g: Any, state: Any, p: Any) -> Any:
        (h,) = state
        g_r, g_z, g_n = jnp.split(g, 3, axis=1)
        h_r, h_z, h_n = jnp.split(h @ p["weight_hh"].T + p["bias_hh"], 3, axis=1)
        z = sigmoid(g_z + h_z)
        n = tanh(g_n + sigmoid(g_r + h_r) * h_n)
        return ((1 - z) * n + z * h,)

    def rnn(g: Any, state: Any, p: Any) -> Any:
        return (tanh(g + state[0] @ p["weight_hh"].T + p["bias_hh"]),)

    cell = {"lstm": lstm, "gru": gru, "rnn": rnn}[s.cell]

    def layer(p: Any, x: Any, state: Any, keep: Any) -> Any:
        projected = x @ p["weight_ih"].T + p["bias_ih"]
        if state is None:
            zeros = jnp.zeros((s.B, s.H), x.dtype)
            state = (zeros,) * (1 + (s.cell == "lstm"))

        def step(state: Any, inputs: Any) -> Any:
            g, going_on = inputs
            if going_on is not None:
                state = tuple(part * going_on for part in state)
            state = cell(g, state, p)
            return state, state[0]

        state, y = jax.lax.scan(step, state, (projected, keep))
        return y, state

    return layer


def _step(jax: Any, problem: Problem, layer: Any, params: Any, x: Any) -> Contender:
    compiled = jax.jit(lambda params, x, state: layer(params, x, state, None))
    s = problem.case.shape
    zeros = jax.numpy.zeros((s.B, s.H), x.dtype)
    fresh = (zeros,) * (1 + (s.cell == "lstm"))
    state = fresh

    def step(x_t: Any) -> Any:
        nonlocal state
        y, state = compiled(params, x_t, state)
        return y.block_until_ready()

    def answer() -> Answer:
        nonlocal state
        state = fresh
        return {"y": np.concatenate([_array(step(x_t), problem) for x_t in inputs])}

    inputs = [x[t : t + 1] for t in range(len(x))]
    return Contender("jax", "peer", problem, lambda: step(inputs[0]), answer)


def _array(value: Any, problem: Problem) -> Array:
    array: Array = np.asarray(value).astype(problem.dtype)
    return array
