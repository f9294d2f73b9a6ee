"""Sentiment of sentences
======================

Is this sentence of a film review for or against? Words in, one number out, with an LSTM. ::

    python examples/applications/sentiment.py

Sentences with the mean rating of people, from the source distribution of vaderSentiment (MIT; Hutto
and Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media
text"). A fifth is held out. Baseline: a naive Bayes model of words and pairs of words.
"""

from __future__ import annotations

import itertools
import re
import tarfile
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import packages
import training

import fastrnn

UNKNOWN = 0


def load() -> tuple[list[list[str]], Any]:
    """Return the words of each sentence, and whether its rating is above zero."""
    inner = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    with (
        tarfile.open(packages.archive("vaderSentiment", "3.3.2", source=True)) as outer,
        tarfile.open(fileobj=outer.extractfile(inner)) as data,
    ):
        file = data.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        assert file is not None
        lines = file.read().decode("utf-8", "replace").splitlines()
    rows = [(float(rating), text) for _, rating, text in (line.split("\t") for line in lines)]
    rows = [row for row in rows if abs(row[0]) >= 0.5]
    words = [re.findall(r"[a-z']+|[!?.,]", text.lower()) for _, text in rows]
    return words, np.array([int(rating > 0) for rating, _ in rows])


def naive_bayes(texts: list[list[str]], labels: Any, tests: list[list[str]]) -> Any:
    """Return the likelier class of each test text, by its words and pairs of words."""

    def features(text: list[str]) -> set[Any]:
        return {*text, *itertools.pairwise(text)}

    counts: dict[Any, Any] = defaultdict(lambda: np.ones(2))
    for text, label in zip(texts, labels, strict=True):
        for feature in features(text):
            counts[feature][label] += 1
    total = np.bincount(labels) + 2.0
    known = {feature: np.log(n / total) for feature, n in counts.items()}
    return np.array(
        [sum((known[f] for f in features(t) if f in known), np.zeros(2)).argmax() for t in tests]
    )


class Reviewer(fastrnn.Model):
    """Embeddings, a bidirectional LSTM, and the mean and maximum of its outputs."""

    def __init__(self, words: int, rng: np.random.Generator, hidden: int = 64) -> None:
        self.words = fastrnn.Embedding(words, 64, rng=rng)
        self.words.flat_params *= 0.1  # rare words say little at first
        self.lstm = fastrnn.LSTM(64, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(4 * hidden, 2, rng=rng)

    def scores(self, g: Any, x: Any, lengths: Any) -> Any:
        """Scores (B, 2) of sentences x (T, B)."""
        y, _ = g(self.lstm, g.dropout(g(self.words, x), 0.5), lengths=lengths)
        return g(self.out, g.dropout(g.concat([g.mean(y, lengths), g.max(y, lengths)]), 0.5))


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=6)
    texts, labels = load()
    if args.quick:
        texts, labels = texts[::10], labels[::10]
    train, validation, held = training.split(len(texts), np.random.default_rng(0), 0.2, 0.1)
    common = Counter(word for n in train for word in texts[n])
    known = [word for word, n in common.most_common() if n >= 2]
    numbers = {word: n for n, word in enumerate(known, UNKNOWN + 1)}
    coded = [[numbers.get(word, UNKNOWN) for word in text] for text in texts]
    model = Reviewer(len(numbers) + 1, np.random.default_rng(args.seed))

    def loss(g: Any, rows: Any) -> Any:
        x, lengths = fastrnn.pad([coded[n] for n in train[rows]])
        dropped = g_rng.random(x.shape) < 0.1  # words not known, as some of the test's are
        scores = model.scores(g, np.where(dropped, UNKNOWN, x), lengths)
        return g.cross_entropy(scores, labels[train[rows]], label_smoothing=0.1)

    def accuracy(part: Any) -> float:
        x, lengths = fastrnn.pad([coded[n] for n in part])
        best = model.scores(fastrnn.inference, x, lengths).value.argmax(axis=1)
        return float((best == labels[part]).mean())

    g_rng = np.random.default_rng(args.seed + 1)
    lengths = [len(coded[n]) for n in train]
    training.fit(
        model, loss, lengths, lambda: accuracy(validation), args, lr=2e-3, batch_size=32,
        weight_decay=1e-5,
    )  # fmt: skip
    rest = np.concatenate([train, validation])
    guessed = naive_bayes([texts[n] for n in rest], labels[rest], [texts[n] for n in held])
    figures = {
        "most frequent class": float(np.bincount(labels[held]).max() / len(held)),
        "naive Bayes, words and pairs": float((guessed == labels[held]).mean()),
        "bidirectional LSTM": accuracy(held),
    }
    training.finish(args, model, figures, "accuracy on held-out sentences")
    return figures


if __name__ == "__main__":
    training.run(main)
