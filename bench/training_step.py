"""What stands around recurrent layers in a training step, beside torch and NumPy.

Linear forward and backward, softmax cross entropy, clipping and Adam.

    python bench/training_step.py --threads 1

Turns in one process, each call a while after the one before, so that nobody's threads
still spin and no cache is warm; medians. The ratio is torch's time by ours.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import fastrnn

LINEAR = ((432, 128, 2701), (2048, 512, 512), (64, 256, 256), (20, 64, 100), (1, 128, 128))
LOGITS = ((432, 2701), (2048, 512), (1024, 65), (128, 30000))
PARAMETERS = (500_000, 5_000_000)

Run = Callable[[], object]


def in_turns(pause: float, repeats: int, *runs: Run) -> list[float]:
    """Return the median time of each, in milliseconds."""
    times: list[list[float]] = [[] for _ in runs]
    for count in range(repeats + 1):
        for own, run in zip(times, runs, strict=True):
            time.sleep(pause)
            start = time.perf_counter()
            run()
            if count:  # the first warms up
                own.append(1e3 * (time.perf_counter() - start))
    return [median(own) for own in times]


def on_numpy(run: Run) -> Run:
    """The same by the fallback's own products and loops."""

    def with_fallback() -> None:
        os.environ["FASTRNN_BACKEND"] = "numpy"
        run()
        del os.environ["FASTRNN_BACKEND"]

    return with_fallback


def linear(rng: np.random.Generator, n: int, K: int, M: int) -> tuple[Run, Run]:
    """Linear forward and backward of n rows."""
    x, dy = rng.standard_normal((n, K), np.float32), rng.standard_normal((n, M), np.float32)
    layer, theirs = fastrnn.Linear(K, M, rng=0), torch.nn.Linear(K, M)
    theirs_x, theirs_dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    def ours() -> None:
        _, tape = layer.forward(x)
        layer.backward(tape, dy)

    def torchs() -> None:
        theirs(theirs_x).backward(theirs_dy)
        theirs_x.grad = None
        theirs.zero_grad()

    return ours, torchs


def cross_entropy(rng: np.random.Generator, n: int, C: int) -> tuple[Run, Run]:
    """The loss of n rows, and its gradient."""
    logits, targets = 3 * rng.standard_normal((n, C), np.float32), rng.integers(0, C, n)
    theirs, theirs_targets = torch.tensor(logits, requires_grad=True), torch.tensor(targets)

    def torchs() -> None:
        torch.nn.functional.cross_entropy(theirs, theirs_targets).backward()
        theirs.grad = None

    return lambda: fastrnn.softmax_cross_entropy(logits, targets), torchs


def update(rng: np.random.Generator, n: int) -> tuple[Run, Run]:
    """Clipping and Adam of n parameters, torch's fused."""
    flat = rng.standard_normal(n, np.float32)
    layer = SimpleNamespace(flat_params=flat)
    grads = SimpleNamespace(flat=rng.standard_normal(n, np.float32), layer=layer)
    optimizer = fastrnn.Adam(layer)
    theirs = torch.nn.Parameter(torch.tensor(flat))
    theirs.grad = torch.tensor(grads.flat)
    their_optimizer = torch.optim.Adam([theirs], fused=True)

    def ours() -> None:
        fastrnn.clip_grad_norm(grads, 1.0)
        optimizer.step(grads)

    def torchs() -> None:
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        their_optimizer.step()

    return ours, torchs


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.15, help="seconds before each call")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    fastrnn.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    rows = [
        *((f"Linear {n} x {K} -> {M}", linear(rng, n, K, M)) for n, K, M in LINEAR),
        *((f"cross entropy {n} x {C}", cross_entropy(rng, n, C)) for n, C in LOGITS),
        *((f"clip and Adam {n}", update(rng, n)) for n in PARAMETERS),
    ]
    print("| what | ms | torch's | NumPy's | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    with threadpool_limits(options.threads, user_api="blas"):
        for name, (ours, torchs) in rows:
            ms = in_turns(options.pause, options.repeats, ours, torchs, on_numpy(ours))
            print(f"| {name} | {ms[0]:.2f} | {ms[1]:.2f} | {ms[2]:.2f} | {ms[1] / ms[0]:.2f} |")


if __name__ == "__main__":
    main()
