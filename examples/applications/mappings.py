"""One and many to one and many
============================

One to one, one to many, many to one, many to many: the same ten lines four times. ::

    python examples/applications/mappings.py

Four small tasks, made here, with symbols x (T, B) in and symbols (T', B) out. Each network has the
same layers, and what differs is what its ten lines do with time. The two tasks with one symbol in
are learnt by heart; of the others new sequences are tried. Baseline: the most frequent answer.

>>> network = learn(ManyToOne, many_to_one, steps=150, seed=0)
>>> right(network, many_to_one(np.random.default_rng(99), 100)) > 0.9
True
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import training

import fastrnn

SYMBOLS = 27
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


class Network(fastrnn.Model):
    """An embedding, a GRU or, where there is no time, a Linear, and scores."""

    inner: Any = fastrnn.GRU

    def __init__(self, rng: Any) -> None:
        self.symbols = fastrnn.Embedding(SYMBOLS, 16, rng=rng)
        self.inner = type(self).inner(16, 64, rng=rng)
        self.out = fastrnn.Linear(64, SYMBOLS, rng=rng)


class OneToOne(Network):
    """One symbol in, one out: there is no time, and no recurrence."""

    inner = fastrnn.Linear

    def scores(self, g: Any, x: Any, lengths: Any, steps: int) -> Any:
        return g(self.out, g.tanh(g(self.inner, g(self.symbols, x))))


class OneToMany(Network):
    """One symbol in, at the first step; its state then writes for as many steps as asked."""

    def scores(self, g: Any, x: Any, lengths: Any, steps: int) -> Any:
        nothing = np.zeros((steps - 1, x.shape[1], 16), np.float32)
        y, _ = g(self.inner, g.concat([g(self.symbols, x), nothing], axis=0))
        return g(self.out, y)


class ManyToOne(Network):
    """Many symbols in, one out: the state after the last valid step has read them all."""

    def scores(self, g: Any, x: Any, lengths: Any, steps: int) -> Any:
        _, state = g(self.inner, g(self.symbols, x), lengths=lengths)
        return g(self.out, g.index(g.last(state), None))


class ManyToMany(Network):
    """Many symbols in, one out at each step."""

    def scores(self, g: Any, x: Any, lengths: Any, steps: int) -> Any:
        y, _ = g(self.inner, g(self.symbols, x), lengths=lengths)
        return g(self.out, y)


def one_to_one(rng: Any, count: int) -> Any:
    """Return pairs: n, and its square modulo 27."""
    return [([n], [n * n % SYMBOLS]) for n in rng.integers(0, SYMBOLS, count).tolist()]


def one_to_many(rng: Any, count: int) -> Any:
    """Return pairs: n, and the letters of its name, with an end."""
    chosen = rng.integers(0, len(NAMES), count).tolist()
    return [([n], [*(ord(letter) - ord("a") for letter in NAMES[n]), 26]) for n in chosen]


def many_to_one(rng: Any, count: int) -> Any:
    """Return pairs: 2 to 12 symbols, and the first of them."""
    texts = [rng.integers(0, SYMBOLS, rng.integers(2, 13)).tolist() for _ in range(count)]
    return [(text, text[:1]) for text in texts]


def many_to_many(rng: Any, count: int) -> Any:
    """Return pairs: 2 to 12 symbols, and at each step the larger of the last two."""
    texts = [rng.integers(0, SYMBOLS, rng.integers(2, 13)).tolist() for _ in range(count)]
    return [(t, [max(pair) for pair in zip([0, *t], t, strict=False)]) for t in texts]


def learn(network: Any, task: Any, steps: int, seed: int, torch: bool = False) -> Any:
    """Return a network of a class, trained on a task."""
    rng = np.random.default_rng(seed)
    model = network(rng)
    train = training.trainer(model, seed, lr=0.01, torch=torch)
    for step in range(steps):
        pairs = task(rng, 64)
        x, lengths = fastrnn.pad([x for x, _ in pairs])
        y, sizes = fastrnn.pad([y for _, y in pairs])
        g = train.graph()
        loss = g.cross_entropy(model.scores(g, x, lengths, len(y)), y, lengths=sizes)
        train.step(g, loss, lr=0.01 * (1 - step / steps))
    return model


def right(model: Any, pairs: Any) -> float:
    """Return the share of pairs that are right as a whole."""
    x, lengths = fastrnn.pad([x for x, _ in pairs])
    y, sizes = fastrnn.pad([y for _, y in pairs])
    best = model.scores(fastrnn.inference, x, lengths, len(y)).value.argmax(axis=-1)
    counts = np.arange(len(y))[:, None] < sizes
    return float(((best == y) | ~counts).all(axis=0).mean())


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=1)
    figures, models = {}, {}
    pairs_of = {
        OneToOne: one_to_one,
        OneToMany: one_to_many,
        ManyToOne: many_to_one,
        ManyToMany: many_to_many,
    }
    for network, task in pairs_of.items():
        pairs = task(np.random.default_rng(99), 500)
        answers = [tuple(y) for _, y in pairs]
        name = task.__name__.replace("_", " ")
        begin = time.process_time()
        steps = 20 if args.quick else 600 * args.epochs
        models[name] = learn(network, task, steps, args.seed, args.torch)
        args.seconds += time.process_time() - begin
        figures[f"{name}: most frequent"] = max(map(answers.count, answers)) / len(answers)
        figures[f"{name}: learnt"] = right(models[name], pairs)
    training.finish(args, All(models), figures, "share of whole answers that are right")
    return figures


class All(fastrnn.Model):
    """The four networks in one, to be saved."""

    def __init__(self, models: dict[str, Any]) -> None:
        self.networks = {name.replace(" ", "_"): model for name, model in models.items()}


# sphinx_gallery_thumbnail_path = "pictures/mappings.png"
if __name__ == "__main__":
    training.run(main)
