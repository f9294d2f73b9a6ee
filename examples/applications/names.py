"""Names by nationality
====================

Which country is a family name from? Many to one, letter by letter. ::

    python examples/applications/names.py

Family names of 17 locales of the package faker (MIT). A fifth of the names is held out. The
baseline is a naive Bayes model of character 1- to 4-grams; its scores are then added to the
network's, with a weight that is chosen on the validation part. new_names.py writes new ones.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from typing import Any

import baselines
import numpy as np
import packages
import training

import fastrnn

LOCALES = [
    *("cs_CZ", "de_DE", "en_GB", "es_ES", "et_EE", "fi_FI", "fr_FR", "hr_HR", "it_IT"),
    *("nl_NL", "sk_SK", "sl_SI", "sv_SE", "id_ID", "en_IN", "ga_IE", "zu_ZA"),
]


def load() -> list[tuple[str, int]]:
    """Return family names and the numbers of their locales."""
    sys.path.insert(0, str(packages.archive("faker", "40.54.0")))
    pairs = []
    for label, locale in enumerate(LOCALES):
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        found: set[str] = set()
        for key in ("last_names", "last_names_male", "last_names_female"):
            found.update(getattr(provider, key, ()))
        pairs += [(name, label) for name in sorted(found)]
    return pairs


def grams(name: str) -> set[str]:
    """Return the character 1- to 4-grams of a name and its ends."""
    text = f"^{name}$"
    return {text[i : i + n] for n in range(1, 5) for i in range(len(text) - n + 1)}


class Namer(fastrnn.Model):
    """A bidirectional LSTM over letters; the mean and maximum of its outputs decide."""

    def __init__(self, symbols: int, rng: np.random.Generator, hidden: int = 96) -> None:
        self.letters = fastrnn.Embedding(symbols, 48, rng=rng)
        self.lstm = fastrnn.LSTM(48, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(4 * hidden, len(LOCALES), rng=rng)

    def scores(self, g: Any, x: Any, lengths: Any) -> Any:
        """Scores (B, classes) of names x (T, B)."""
        y, _ = g(self.lstm, g.dropout(g(self.letters, x), 0.3), lengths=lengths)
        both = g.concat([g.mean(y, lengths), g.max(y, lengths)])
        return g(self.out, g.dropout(both, 0.5))


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=30)
    pairs = load()
    if args.quick:
        pairs = pairs[::8]
    names, labels = [name for name, _ in pairs], np.array([label for _, label in pairs])
    symbols = {s: n for n, (s, _) in enumerate(Counter("".join(names)).most_common())}
    coded = [[symbols[s] for s in name] for name in names]
    train, validation, held = training.split(len(names), np.random.default_rng(0), 0.2, 0.1)

    model = Namer(len(symbols), np.random.default_rng(args.seed))

    def loss(g: Any, rows: Any) -> Any:
        x, lengths = fastrnn.pad([coded[n] for n in train[rows]])
        scores = model.scores(g, x, lengths)
        return g.cross_entropy(scores, labels[train[rows]], label_smoothing=0.1)

    def scores(part: Any) -> Any:
        x, lengths = fastrnn.pad([coded[n] for n in part])
        return model.scores(fastrnn.inference, x, lengths).value

    def right(found: Any, part: Any) -> float:
        return float((found.argmax(axis=1) == labels[part]).mean())

    lengths = [len(coded[n]) for n in train]
    training.fit(
        model, loss, lengths, lambda: right(scores(validation), validation), args,
        lr=4e-3, batch_size=64,
    )  # fmt: skip
    found = [grams(name) for name in names]

    def counted(known: Any, part: Any) -> Any:
        parts = ([found[n] for n in rows] for rows in (known, part))
        return baselines.naive_bayes(next(parts), labels[known], next(parts), alpha=0.1)

    weight = baselines.weighed(scores(validation), counted(train, validation), labels[validation])
    rest = np.concatenate([train, validation])
    counts = counted(rest, held)
    figures = {
        "most frequent class": float((labels[held] == np.bincount(labels[rest]).argmax()).mean()),
        "naive Bayes, 1- to 4-grams": right(counts, held),
        "bidirectional LSTM": right(scores(held), held),
        "both, weighed on the validation part": right(scores(held) + weight * counts, held),
    }
    training.finish(args, model, figures, "accuracy on held-out names")
    return figures


# sphinx_gallery_thumbnail_path = "pictures/names.png"
if __name__ == "__main__":
    training.run(main)
