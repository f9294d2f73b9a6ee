"""JAX: a compiled scan, with the product of all inputs made before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ....typing import Array
from ..candidate import Candidate
from ..problem import Answer, Problem
from ..shapes import Case


def prepare(threads: int) -> None:
    """Size the thread pool, which is read when JAX is first used and cannot be changed after."""
    os.environ["NPROC"] = str(threads)


def why_not(case: Case) -> str | None:
    """Lengths, which only a mask could give, and memory, most of which is the compiler's."""
    if case.mode == "memory":
        return "its compiler's memory cannot be told from the program's"
    return "no lengths" if case.shape.ragged else None


def candidate(problem: Problem, threads: int) -> Candidate:
    """Make the candidate."""
    prepare(threads)
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    dtype = jax.numpy.dtype(problem.case.dtype)
    cpu = jax.devices("cpu")[0]

    def load(value: Array) -> Any:
        return jax.device_put(value.astype(dtype), cpu)

    params = [{name: load(a) for name, a in part.params.items()} for part in problem.parts]
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
        return Candidate(
            "jax",
            "peer",
            problem,
            lambda: infer(params, x).block_until_ready(),
            lambda: {"y": _array(infer(params, x), problem)},
        )
    train = jax.jit(both)

    def answer() -> Answer:
        y, ((named,), dx) = train(params, x, dy)
        grads = {name: _array(value, problem) for name, value in named.items()}
        return {"y": _array(y, problem), "dx": _array(dx, problem), **grads}

    return Candidate(
        "jax", "peer", problem, lambda: jax.block_until_ready(train(params, x, dy)), answer
    )


def _layer(jax: Any, problem: Problem) -> Callable[..., Any]:
    """A function of weights of all parts, x (T, B, I * copies), states or None, and keep (T, B, 1)
    or None."""
    jnp, s = jax.numpy, problem.case.shape
    sigmoid, tanh = jax.nn.sigmoid, jnp.tanh

    def lstm(g: Any, state: Any, weight: Any, bias: Any) -> Any:
        h, c = state
        i, f, u, o = jnp.split(g + h @ weight.T + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(u)
        return sigmoid(o) * tanh(c), c

    def gru(g: Any, state: Any, weight: Any, bias: Any) -> Any:
        (h,) = state
        g_r, g_z, g_n = jnp.split(g, 3, axis=1)
        h_r, h_z, h_n = jnp.split(h @ weight.T + bias, 3, axis=1)
        z = sigmoid(g_z + h_z)
        n = tanh(g_n + sigmoid(g_r + h_r) * h_n)
        return ((1 - z) * n + z * h,)

    def rnn(g: Any, state: Any, weight: Any, bias: Any) -> Any:
        return (tanh(g + state[0] @ weight.T + bias),)

    cell = {"lstm": lstm, "gru": gru, "rnn": rnn}[s.cell]

    def one(p: Any, k: int, x: Any, state: Any, keep: Any) -> Any:
        projected = x @ p[f"weight_ih_l{k}"].T + p[f"bias_ih_l{k}"]

        def step(state: Any, inputs: Any) -> Any:
            g, going_on = inputs
            if going_on is not None:
                state = tuple(part * going_on for part in state)
            state = cell(g, state, p[f"weight_hh_l{k}"], p[f"bias_hh_l{k}"])
            return state, state[0]

        state, y = jax.lax.scan(step, state, (projected, keep))
        return y, state

    def layer(params: Any, x: Any, states: Any, keep: Any) -> Any:
        states = iter(_zeros(jax, problem, x.dtype) if states is None else states)
        outputs, after = [], []
        for p, y in zip(params, jnp.split(x, s.copies, axis=2), strict=True):
            for k in range(s.layers):
                y, state = one(p, k, y, next(states), keep)
                after.append(state)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=2), after

    return layer


def _zeros(jax: Any, problem: Problem, dtype: Any) -> list[Any]:
    """The states of all layers of all parts."""
    s = problem.case.shape
    zeros = jax.numpy.zeros((s.B, s.H), dtype)
    return [(zeros,) * (1 + (s.cell == "lstm"))] * (s.copies * s.layers)


def _step(jax: Any, problem: Problem, layer: Any, params: Any, x: Any) -> Candidate:
    compiled = jax.jit(lambda params, x, states: layer(params, x, states, None))
    fresh = _zeros(jax, problem, x.dtype)
    states = fresh

    def step(x_t: Any) -> Any:
        nonlocal states
        y, states = compiled(params, x_t, states)
        return y.block_until_ready()

    def answer() -> Answer:
        nonlocal states
        states = fresh
        return {"y": np.concatenate([_array(step(x_t), problem) for x_t in inputs])}

    inputs = [x[t : t + 1] for t in range(len(x))]
    return Candidate("jax", "peer", problem, lambda: step(inputs[0]), answer)


def _array(value: Any, problem: Problem) -> Array:
    array: Array = np.asarray(value).astype(problem.dtype)
    return array
