"""CTC beside torch's, and what a Graph costs: user CPU of one thread, minima of repeats by turns.

python bench/sequences.py [repeats]
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fastrnn
from fastrnn.cli.bench import machine

T, B, C, S = 500, 32, 80, 60


def ctc() -> dict[str, Callable[[], Any]]:
    """Forward and backward at T=500, B=32, C=80, S=60 in float32."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((T, B, C)).astype(np.float32)
    targets = rng.integers(1, C, (B, S))
    leaf = torch.tensor(logits, requires_grad=True)
    steps, labels = torch.full((B,), T), torch.full((B,), S)
    classes = torch.tensor(targets)

    def torchs() -> None:
        leaf.grad = None
        log_p = torch.log_softmax(leaf, -1)
        loss = torch.nn.functional.ctc_loss(log_p, classes, steps, labels, reduction="sum")
        loss.backward()

    ways: dict[str, Callable[[], Any]] = {"torch": torchs}
    for backend in ("cpu", "numpy"):
        ways[backend] = lambda backend=backend: fastrnn.ctc_loss(logits, targets, backend=backend)
    return ways


def translator() -> dict[str, Callable[[], Any]]:
    """A training step with attention, by hand and on a Graph: T=12, B=32, H=256, 3000 words."""
    words, width, steps, rows = 3000, 256, 12, 32
    rng = np.random.default_rng(0)
    emb, out = fastrnn.Embedding(words, 128, rng=0), fastrnn.Linear(2 * width, words, rng=1)
    enc, dec = fastrnn.LSTM(128, width, rng=2), fastrnn.LSTM(128, width, rng=3)
    att = fastrnn.Attention(width, width, score="general", rng=4)
    layers = [emb, enc, dec, att, out]
    source, before, after = (rng.integers(0, words, (steps, rows)) for _ in range(3))
    n, m = rng.integers(5, steps + 1, (2, rows))
    mask = np.arange(steps)[:, None] < m

    def by_hand() -> list[Any]:
        x, x_tape = emb.forward(source)
        memory, state, enc_tape = enc.forward(x, lengths=n)
        z, z_tape = emb.forward(before)
        y, _, dec_tape = dec.forward(z, state, lengths=m)
        context, att_tape = att.forward(y, memory, lengths=n)
        logits, out_tape = out.forward(np.concatenate([y, context], -1))
        _, dlogits = fastrnn.softmax_cross_entropy(logits, after, mask)
        last = out.backward(out_tape, dlogits)
        mixed = att.backward(att_tape, last.x[..., width:])
        ahead = dec.backward(dec_tape, last.x[..., :width] + mixed.x)
        first = enc.backward(enc_tape, mixed.memory, ahead.state)
        below = [emb.backward(z_tape, ahead.x), emb.backward(x_tape, first.x)]
        return [last, mixed, ahead, first, *below]

    def graph() -> Any:
        g = fastrnn.Graph()
        memory, state = g(enc, g(emb, source), lengths=n)
        y, _ = g(dec, g(emb, before), state, lengths=m)
        context = g(att, y, memory, lengths=n)
        return g.backward(g.cross_entropy(g(out, g.concat([y, context])), after, lengths=m))

    def step(gradients: Callable[[], Any]) -> Callable[[], None]:
        adam = fastrnn.Adam(layers)

        def run() -> None:
            grads = gradients()
            fastrnn.clip_grad_norm(grads, 1.0)
            adam.step(grads)

        return run

    return {"by hand": step(by_hand), "Graph": step(graph)}


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    print(machine.line(machine.facts(1)))
    for make in (ctc, translator):
        ways = make()
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(repeats):
            for name, run in ways.items():
                start = time.process_time()
                run()
                best[name] = min(best[name], time.process_time() - start)
        print(make.__doc__)
        first = next(iter(best.values()))
        for name, seconds in best.items():
            print(f"  {name:8} {1e3 * seconds:8.1f} ms   {first / seconds:5.2f}x")


if __name__ == "__main__":
    main()
