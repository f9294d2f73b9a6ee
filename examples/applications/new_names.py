"""New names
=========

A name for a country: one to many, letter by letter, with a GRU. ::

    python examples/applications/new_names.py

Family names of 17 locales of the package faker (MIT; see names.py). A tenth of the different names
is held out. The country's embedding is the GRU's first state; each letter is told the ones before.
Baseline: an interpolated n-gram model of all names, which knows of no country. At the end the model
writes names that it has not read.
"""

from __future__ import annotations

from typing import Any

import baselines
import names
import numpy as np
import training

import fastrnn

END = 0


class Namer(fastrnn.Model):
    """A GRU over letters, whose first state is the country's."""

    def __init__(self, letters: int, rng: Any, hidden: int = 160) -> None:
        self.countries = fastrnn.Embedding(len(names.LOCALES), hidden, rng=rng)
        self.letters = fastrnn.Embedding(letters, 48, rng=rng)
        self.gru = fastrnn.GRU(48, hidden, rng=rng)
        self.out = fastrnn.Linear(hidden, letters, rng=rng)

    def scores(self, g: Any, countries: Any, before: Any) -> Any:
        """Scores (T, B, letters) after each of the letters before (T, B)."""
        state = g.tanh(g(self.countries, countries[None]))
        y, _ = g(self.gru, g.dropout(g(self.letters, before), 0.1), state)
        return g(self.out, g.dropout(y, 0.3))

    def write(self, country: int, rng: Any) -> list[int]:
        """Return the letters of a new name, drawn one after the other."""
        step, written = self.gru.stepper(), [END]
        step.state = np.tanh(self.countries(np.array([[country]])))[0]
        while len(written) < 20 and (len(written) == 1 or written[-1] != END):
            scores = self.out(step(self.letters(np.array(written[-1:]))[0])[None])[0]
            written.append(int(fastrnn.sample(scores, rng, temperature=0.7)))
        return [letter for letter in written if letter != END]


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=10)
    pairs = names.load()
    if args.quick:
        pairs = pairs[::20]
    texts = sorted({name for name, _ in pairs})
    _, validation, held = training.split(len(texts), np.random.default_rng(0), 0.1, 0.05)
    place = {texts[n]: k for k, rows in enumerate((validation, held), 1) for n in rows}
    letters = ["<end>", *sorted(set("".join(texts)))]
    numbers = {letter: n for n, letter in enumerate(letters)}
    coded = [([numbers[letter] for letter in name], country) for name, country in pairs]
    parts: Any = [], [], []
    for row, (name, _) in zip(coded, pairs, strict=True):
        parts[place.get(name, 0)].append(row)
    train, validation, held = parts
    model = Namer(len(letters), np.random.default_rng(args.seed))

    def nats(g: Any, rows: list[Any]) -> Any:
        before, _ = fastrnn.pad([[END, *name] for name, _ in rows])
        after, lengths = fastrnn.pad([[*name, END] for name, _ in rows])
        scores = model.scores(g, np.array([country for _, country in rows]), before)
        return g.cross_entropy(scores, after, lengths=lengths)

    def loss(g: Any, rows: Any) -> Any:
        return nats(g, [train[n] for n in rows])

    lengths = [len(name) for name, _ in train]

    def score() -> float:
        return -float(nats(fastrnn.inference, validation))

    training.fit(model, loss, lengths, score, args, lr=4e-3, batch_size=64)
    known, tests = (
        np.array([letter for name, _ in rows for letter in (*name, END)])
        for rows in (train + validation, held)
    )
    figures = {
        "4-gram": baselines.n_gram(known, tests, 4, len(letters)),
        "GRU": float(nats(fastrnn.inference, held)) / float(np.log(2)),
    }
    training.finish(args, model, figures, "bits a letter on held-out names")
    rng, seen = np.random.default_rng(args.seed), {tuple(name) for name, _ in coded}
    for country, locale in enumerate(names.LOCALES):
        new = [model.write(country, rng) for _ in range(8)]
        told = ["".join(letters[n] for n in name) for name in new if tuple(name) not in seen]
        print(f"  {locale}: {', '.join(told[:5])}")
    return figures


# sphinx_gallery_thumbnail_path = "pictures/new_names.png"
if __name__ == "__main__":
    training.run(main)
