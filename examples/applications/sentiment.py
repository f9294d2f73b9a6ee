"""Sentiment of sentences
======================

Is this sentence of a film review for or against? Words in, a class and a rating out. ::

    python examples/applications/sentiment.py

Sentences with the mean rating of people, from the source distribution of vaderSentiment (MIT; Hutto
and Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media
text"). A fifth is held out. The network learns the rating beside the class. Baseline: a naive Bayes
model of words and pairs of words; its scores are then added to the network's, with a weight that is
chosen on the validation part. At the end, longer texts of another kind, of which nothing was
trained on: whole reviews of things sold, of the same package.
"""

from __future__ import annotations

import itertools
import re
import tarfile
from collections import Counter, defaultdict
from typing import Any

import baselines
import numpy as np
import packages
import training

import fastrnn

UNKNOWN = 0


def load(kind: str) -> list[tuple[str, float, list[str]]]:
    """Return the mark of each text of a file, its mean rating, and its words."""
    inner = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    with (
        tarfile.open(packages.archive("vaderSentiment", "3.3.2", source=True)) as outer,
        tarfile.open(fileobj=outer.extractfile(inner)) as data,
    ):
        file = data.extractfile(f"hutto_ICWSM_2014/{kind}Snippets_GroundTruth.txt")
        assert file is not None
        rows = [line.split("\t") for line in file.read().decode("utf-8", "replace").splitlines()]
    return [(mark, float(r), re.findall(r"[a-z']+|[!?.,]", t.lower())) for mark, r, t in rows]


def whole_reviews() -> tuple[list[list[str]], Any]:
    """Return reviews of things sold, whose marks are review_sentence, and their mean ratings."""
    parts: dict[str, Any] = defaultdict(list)
    for mark, rating, words in load("amazonReview"):
        parts[mark.split("_")[0]].append((rating, words))
    texts = [[word for _, words in rows for word in words] for rows in parts.values()]
    return texts, np.array([np.mean([rating for rating, _ in rows]) for rows in parts.values()])


def features(text: list[str]) -> set[Any]:
    """Return the words of a text, and its pairs of words."""
    return {*text, *itertools.pairwise(text)}


class Reviewer(fastrnn.Model):
    """Embeddings, a bidirectional LSTM, and the mean and maximum of its outputs."""

    def __init__(self, words: int, rng: np.random.Generator, hidden: int = 64) -> None:
        self.words = fastrnn.Embedding(words, 64, rng=rng)
        self.words.flat_params *= 0.1  # rare words say little at first
        self.lstm = fastrnn.LSTM(64, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(4 * hidden, 2, rng=rng)
        self.rating = fastrnn.Linear(4 * hidden, 1, rng=rng)

    def scores(self, g: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        """Scores (B, 2) of texts x (T, B), and their ratings (B, 1)."""
        y, _ = g(self.lstm, g.dropout(g(self.words, x), 0.5), lengths=lengths)
        both = g.dropout(g.concat([g.mean(y, lengths), g.max(y, lengths)]), 0.5)
        return g(self.out, both), g(self.rating, both)


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=6)
    rows = [row for row in load("movieReview") if abs(row[1]) >= 0.5]
    if args.quick:
        rows = rows[::20]
    texts, ratings = [text for *_, text in rows], np.array([rating for _, rating, _ in rows])
    labels, targets = (ratings > 0).astype(int), (ratings[:, None] / 2).astype(np.float32)
    train, validation, held = training.split(len(texts), np.random.default_rng(0), 0.2, 0.1)
    common = Counter(word for n in train for word in texts[n])
    known = [word for word, n in common.most_common() if n >= 2]
    numbers = {word: n for n, word in enumerate(known, UNKNOWN + 1)}
    rng = np.random.default_rng(args.seed)
    model = Reviewer(len(numbers) + 1, rng)

    def coded(part: list[list[str]]) -> Any:
        return fastrnn.pad([[numbers.get(word, UNKNOWN) for word in text] for text in part])

    def loss(g: Any, batch: Any) -> Any:
        chosen = train[batch]
        x, lengths = coded([texts[n] for n in chosen])
        dropped = rng.random(x.shape) < 0.1  # words not known, as some of the test's are
        scores, rating = model.scores(g, np.where(dropped, UNKNOWN, x), lengths)
        error = g.mse(rating, targets[chosen])
        return g.add(g.cross_entropy(scores, labels[chosen], label_smoothing=0.1), error)

    def scores(part: list[list[str]]) -> Any:
        return model.scores(fastrnn.inference, *coded(part))[0].value

    def right(found: Any, own: Any) -> float:
        return float((found.argmax(axis=1) == own).mean())

    lengths = [len(texts[n]) for n in train]
    checks = [texts[n] for n in validation]
    training.fit(
        model, loss, lengths, lambda: right(scores(checks), labels[validation]), args,
        lr=2e-3, batch_size=32, weight_decay=1e-5,
    )  # fmt: skip

    def counted(rows: Any, part: list[list[str]]) -> Any:
        seen = [features(texts[n]) for n in rows]
        return baselines.naive_bayes(seen, labels[rows], [features(t) for t in part], alpha=1.0)

    weight = baselines.weighed(scores(checks), counted(train, checks), labels[validation])
    rest, tests = np.concatenate([train, validation]), [texts[n] for n in held]
    reviews, mean = whole_reviews()
    figures = {"most frequent class": float(np.bincount(labels[held]).max() / len(held))}
    for what, part, own in ("", tests, labels[held]), (", whole reviews", reviews, mean > 0):
        counts, found = counted(rest, part), scores(part)
        figures[f"naive Bayes{what}"] = right(counts, own)
        figures[f"bidirectional LSTM{what}"] = right(found, own)
        figures[f"both, weighed on the validation part{what}"] = right(found + weight * counts, own)
    training.finish(args, model, figures, "accuracy on held-out sentences")
    return figures


if __name__ == "__main__":
    training.run(main)
