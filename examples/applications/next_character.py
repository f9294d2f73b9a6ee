"""The next character, the next word
=================================

The next character, the next word, and what the state remembers: a language model of Shakespeare. ::

    python examples/applications/next_character.py             # characters
    python examples/applications/next_character.py --unit word  # words

The plays and poems in the package shakespeare (texts in the public domain): a million characters to
train on, of which the last twentieth is the validation part, and the next 100,000 are held out.
Baseline: an interpolated n-gram model (Witten and Bell 1991). At the end the model writes, spells
"neuron" letter by letter, and shows which letters of the past its state still tells.
"""

from __future__ import annotations

import copy
import math
import re
import time
from collections import Counter
from typing import Any

import baselines
import corpora
import numpy as np
import training
from tqdm import tqdm

import fastrnn

STEPS, ROWS = 64, 16


class Writer(fastrnn.Model):
    """An embedding, an LSTM, and the scores of the next symbol."""

    def __init__(self, symbols: int, hidden: int, rng: np.random.Generator) -> None:
        self.symbols = fastrnn.Embedding(symbols, 64, rng=rng)
        self.lstm = fastrnn.LSTM(64, hidden, rng=rng)
        self.out = fastrnn.Linear(hidden, symbols, rng=rng)

    def scores(self, g: Any, x: Any, state: Any) -> Any:
        """Scores (T, B, symbols) after each symbol of x (T, B), and the state."""
        y, state = g(self.lstm, g.dropout(g(self.symbols, x), 0.1), state=state)
        return g(self.out, g.dropout(y, 0.3)), state


def bits(model: Writer, text: Any) -> float:
    """Bits a symbol on a text, read in one stream."""
    state, total = None, 0.0
    for start in range(0, len(text) - 1, 2000):
        part = text[start : start + 2001]
        scores, state = model.scores(fastrnn.inference, part[:-1, None], state)
        state = tuple(each.value for each in state)
        loss, _ = fastrnn.softmax_cross_entropy(scores.value[:, 0], part[1:])
        total += loss * (len(part) - 1)
    return total / (len(text) - 1) / math.log(2)


def train(model: Writer, text: Any, check: Any, args: Any, lr: float = 3e-3) -> None:
    """Truncated backpropagation through time: the state goes on from one part to the next."""
    rng, trainer = (
        np.random.default_rng(args.seed),
        training.trainer(model, args.seed, lr, torch=args.torch),
    )
    length = (len(text) - 1) // ROWS
    parts = list(range(0, length - STEPS, STEPS))
    progress = tqdm(total=args.epochs * len(parts), unit="step", disable=None)
    best, kept = math.inf, copy.deepcopy(dict(model.params))
    for epoch in range(args.epochs):
        begin = time.process_time()
        shift = int(rng.integers(0, len(text) - ROWS * length))
        x = text[shift : shift + ROWS * length].reshape(ROWS, length).T
        y = text[shift + 1 : shift + 1 + ROWS * length].reshape(ROWS, length).T
        state = None
        for number, t in enumerate(parts):
            g = trainer.graph()
            scores, nodes = model.scores(g, x[t : t + STEPS], state)
            state = tuple(node.value for node in nodes)
            done = (epoch + number / len(parts)) / args.epochs
            loss = g.cross_entropy(scores, y[t : t + STEPS])
            trainer.step(g, loss, training.cosine(lr, done))
            progress.update()
        args.seconds += time.process_time() - begin
        found = bits(model, check)
        progress.set_postfix(validation=f"{found:.3f} bits")
        if found < best:
            best, kept = found, copy.deepcopy(dict(model.params))
    model.load_params(kept)


def write(model: Writer, start: list[int], count: int, rng: Any, temperature: float) -> list[int]:
    """Return symbols that the model writes after some, one step at a time."""
    step, out = model.lstm.stepper(), list(start)
    for n in range(len(start) + count - 1):
        y = step(model.symbols(np.array([out[n]]))[0])
        if n + 1 == len(out):
            p = np.exp((model.out(y[None])[0] / temperature).astype(np.float64))
            out.append(int(rng.choice(len(p), p=p / p.sum())))
    return out


def spell(model: Writer, numbers: dict[str, int], word: str, before: str) -> None:
    """Print how likely each letter of a word is, given those before it."""
    symbols = list(numbers)
    text = np.array([numbers[s] for s in before + word])
    scores, _ = model.scores(fastrnn.inference, text[:-1, None], None)
    print(f"{word!r} after {before!r}, letter by letter:")
    for letter, row in zip(word, scores.value[len(before) - 1 :, 0].astype(float), strict=True):
        p = np.exp(row - row.max())
        p /= p.sum()
        likely = " ".join(f"{symbols[n]!r} {p[n]:.2f}" for n in np.argsort(-p)[:4])
        print(f"  {letter!r} has probability {p[numbers[letter]]:.3f}; likeliest: {likely}")


def remembered(model: Writer, text: Any) -> list[float]:
    """How well a linear readout of the state (h, c) tells the letter of n steps before."""
    tape = model.lstm.forward(model.symbols(text[:, None]))[2]
    states = np.concatenate([each[:, 0, 0] for each in tape.states()], axis=1)
    half, found = len(text) // 2, []
    for back in (1, 2, 3, 5, 8, 12, 20):
        x, y = states[back:], np.eye(text.max() + 1)[text[:-back]]
        gram = x[:half].T @ x[:half] + np.eye(x.shape[1])
        guess = x[half:] @ np.linalg.solve(gram, x[:half].T @ y[:half])
        found.append(float((guess.argmax(axis=1) == text[half:-back]).mean()))
        print(f"  {back:2} steps before: {found[-1]:.2f}")
    return found


def main() -> dict[str, float]:
    args = training.arguments(__doc__, {"character": 6, "word": 6}, "unit")
    size = 30_000 if args.quick else 1_000_000
    text: Any = corpora.shakespeare()[: size + size // 10]
    words = args.unit == "word"
    if words:
        text = re.findall(r"[A-Za-z']+|[^\sA-Za-z']", text.lower())
        size = len(text) * 10 // 11
        common = {word for word, n in Counter(text[:size]).items() if n >= 3}
        text = [word if word in common else "<unknown>" for word in text]
    numbers = {symbol: n for n, symbol in enumerate(dict.fromkeys(text))}
    symbols, coded = list(numbers), np.array([numbers[symbol] for symbol in text])
    check = size - size // 20
    rng = np.random.default_rng(args.seed)
    model = Writer(len(numbers), 32 if args.quick else 384, rng)
    train(model, coded[:check], coded[check:size], args)
    order = 3 if words else 5
    n_gram = baselines.n_gram(coded[:size], coded[size:], order, len(numbers))
    figures = {f"{order}-gram": n_gram, "LSTM": bits(model, coded[size:])}
    args.name += "_words" if words else ""
    training.finish(args, model, figures, f"bits a {args.unit} on the held-out text")
    begin = [numbers[s] for s in (["the"] if words else "The ")]
    written = [symbols[n] for n in write(model, begin, 40 if words else 300, rng, 0.8)]
    print((" " if words else "").join(written))
    if not words:
        spell(model, numbers, "neuron", "the ")
        print("what the state remembers: right letters by a linear readout")
        remembered(model, coded[size : size + 4000])
    return figures


if __name__ == "__main__":
    training.run(main)
