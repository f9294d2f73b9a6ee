"""The next character, the next word, and what the state remembers: a language model of Shakespeare.

    python examples/applications/next_character.py             # characters
    python examples/applications/next_character.py --words     # words

The plays and poems in the package shakespeare (texts in the public domain): a million characters to
train on, of which the last twentieth is the validation part, and the next 100,000 are held out.
Baseline: an interpolated n-gram model (Witten and Bell 1991). At the end the model writes, spells
"neuron" letter by letter, and shows which letters of the past its state still tells.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import packages
from tqdm import tqdm

import fastrnn

STEPS, ROWS = 96, 32


def load() -> str:
    """Return the text of all plays and poems, in the order of their names."""
    with tarfile.open(packages.archive("shakespeare", "0.6", source=True)) as archive:
        names = sorted(n for n in archive.getnames() if "/texts/" in n and n.endswith("_gut.txt"))
        files = [archive.extractfile(name) for name in names]
        return "\n".join(f.read().decode("latin-1").replace("\r", "") for f in files if f)


def n_gram(train: Any, held: Any, order: int, symbols: int) -> float:
    """Bits a symbol of an interpolated n-gram model on the held-out symbols."""
    counts: list[dict[Any, Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
    text = train.tolist()
    for i, symbol in enumerate(text):
        for n in range(min(order, i + 1)):
            counts[n][tuple(text[i - n : i])][symbol] += 1
    sums = [{k: (c.total(), len(c)) for k, c in each.items()} for each in counts]
    bits, past = 0.0, text[-order:]
    for symbol in held.tolist():
        p = 1 / symbols
        for n in range(order):
            context = tuple(past[len(past) - n :])
            if context not in sums[n]:
                break
            total, kinds = sums[n][context]
            p = (counts[n][context][symbol] + kinds * p) / (total + kinds)
        bits -= math.log2(p)
        past = [*past[1:], symbol]
    return bits / len(held)


class Writer(fastrnn.Model):
    """An embedding, an LSTM, and the scores of the next symbol."""

    def __init__(self, symbols: int, hidden: int, rng: np.random.Generator) -> None:
        self.symbols = fastrnn.Embedding(symbols, 64, rng=rng)
        self.lstm = fastrnn.LSTM(64, hidden, rng=rng)
        self.out = fastrnn.Linear(hidden, symbols, rng=rng)

    def scores(self, g: Any, x: Any, state: Any) -> Any:
        """Scores (T, B, symbols) after each symbol of x (T, B), and the state."""
        y, state = g(self.lstm, g.dropout(g(self.symbols, x), 0.1), state=state)
        return g(self.out, g.dropout(y, 0.25)), state


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


def train(model: Writer, text: Any, check: Any, epochs: int, lr: float, rng: Any) -> None:
    """Truncated backpropagation through time: the state goes on from one part to the next."""
    adam = fastrnn.Adam(model, lr=lr)
    length = (len(text) - 1) // ROWS
    parts = list(range(0, length - STEPS, STEPS))
    progress = tqdm(total=epochs * len(parts), unit="step")
    best, kept = math.inf, {name: value.copy() for name, value in model.params.items()}
    for epoch in range(epochs):
        shift = int(rng.integers(0, max(1, len(text) - 1 - ROWS * length + 1)))
        x = text[shift : shift + ROWS * length].reshape(ROWS, length).T
        y = text[shift + 1 : shift + 1 + ROWS * length].reshape(ROWS, length).T
        state = None
        for number, t in enumerate(parts):
            adam.lr = lr * 0.5 * (1 + math.cos(math.pi * (epoch + number / len(parts)) / epochs))
            g = fastrnn.Graph(rng)
            scores, nodes = model.scores(g, x[t : t + STEPS], state)
            state = tuple(node.value for node in nodes)
            loss = g.cross_entropy(scores, y[t : t + STEPS])
            grads = g.backward(loss)
            fastrnn.clip_grad_norm(grads, 1.0)
            adam.step(grads)
            progress.update()
        found = bits(model, check)
        progress.set_postfix(validation=f"{found:.3f} bits")
        if found < best:
            best, kept = found, {name: value.copy() for name, value in model.params.items()}
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", action="store_true")
    parser.add_argument("--quick", action="store_true", help="little data: does it run?")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fastrnn-applications"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    size = 50_000 if args.quick else 1_000_000
    text: Any = load()[: size + size // 10]
    if args.words:
        text = re.findall(r"[A-Za-z']+|[^\sA-Za-z']", text.lower())
        size = len(text) * 10 // 11
        common = {word for word, n in Counter(text[:size]).items() if n >= 3}
        text = [word if word in common else "<unknown>" for word in text]
    numbers = {symbol: n for n, symbol in enumerate(dict.fromkeys(text))}
    coded = np.array([numbers[symbol] for symbol in text])
    end, check = size, size - size // 20
    rng = np.random.default_rng(args.seed)
    model = Writer(len(numbers), args.hidden, rng)
    epochs = 1 if args.quick else args.epochs
    train(model, coded[:check], coded[check:end], epochs, 4e-3, rng)
    order = 3 if args.words else 5
    unit = "word" if args.words else "character"
    figures = {
        f"{order}-gram": n_gram(coded[:end], coded[end:], order, len(numbers)),
        "LSTM": bits(model, coded[end:]),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f} bits a {unit} on the held-out text")
    begin = [numbers[s] for s in (["the"] if args.words else "The ")]
    symbols = list(numbers)
    written = [symbols[n] for n in write(model, begin, 40 if args.words else 300, rng, 0.8)]
    print((" " if args.words else "").join(written))
    if not args.words:
        spell(model, numbers, "neuron", "the ")
        print("what the state remembers: right letters by a linear readout")
        remembered(model, coded[end : end + 4000])
    fastrnn.save(args.out / f"next_{unit}.safetensors", model)
    return figures


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
