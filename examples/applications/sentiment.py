"""Sentiment of sentences
======================

Is this sentence of a film review for or against? Words in, a class and a rating out. ::

    python examples/applications/sentiment.py

Sentences with the mean rating of people, from the source distribution of vaderSentiment (MIT; Hutto
and Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media
text"). A fifth is held out. The network learns the rating beside the class. Baseline: a naive Bayes
model of words and pairs of words; its scores are then added to the network's, with a weight that is
chosen on the validation part. Sentences of two thirds of the reviews of things sold, of the same
package, are trained on besides; the other reviews are tried as a whole.
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


def whole(rows: list[Any]) -> tuple[list[list[str]], Any]:
    """Return whole reviews, of sentences with marks review_sentence, and if they are for it."""
    parts: dict[str, Any] = defaultdict(list)
    for mark, rating, words in rows:
        parts[mark.split("_")[0]].append((rating, words))
    texts = [[word for _, words in part for word in words] for part in parts.values()]
    means = np.array([np.mean([rating for rating, _ in part]) for part in parts.values()])
    return texts, (means > 0).astype(int)


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
    args = training.arguments(__doc__, epochs=5)
    films, things = (load(kind) for kind in ("movieReview", "amazonReview"))
    kept = [row for row in things if int(row[0].split("_")[0]) % 3 == 0]
    films, others = ([row for row in rows if abs(row[1]) >= 0.5] for rows in (films, things))
    others = [row for row in others if int(row[0].split("_")[0]) % 3]
    if args.quick:
        films, others, kept = films[::20], others[::20], kept[:100]
    texts = [text for *_, text in films + others]
    ratings = np.array([rating for _, rating, _ in films + others])
    labels, targets = (ratings > 0).astype(int), (ratings[:, None] / 2).astype(np.float32)
    train, validation, held = training.split(len(films), np.random.default_rng(0), 0.2, 0.1)
    train = np.concatenate([train, np.arange(len(films), len(texts))])
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
    reviews, positive = whole(kept)
    figures = {}
    for what, part, own in ("", tests, labels[held]), (", whole reviews", reviews, positive):
        figures[f"most frequent class{what}"] = float(max(own.mean(), 1 - own.mean()))
        counts, found = counted(rest, part), scores(part)
        figures[f"naive Bayes{what}"] = right(counts, own)
        figures[f"bidirectional LSTM{what}"] = right(found, own)
        figures[f"both, weighed on the validation part{what}"] = right(found + weight * counts, own)
    training.finish(args, model, figures, "accuracy on held-out sentences")
    return figures


# sphinx_gallery_thumbnail_path = "pictures/sentiment.png"
if __name__ == "__main__":
    training.run(main)
