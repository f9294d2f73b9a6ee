"""Baselines of the applications: counted or solved for, without a network."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np


def naive_bayes(features: Sequence[Any], labels: Any, tests: Sequence[Any], alpha: float) -> Any:
    """Return log-probabilities (N, classes), but for a constant, of each test by its features.

    The model is multinomial, its counts begin at alpha.
    """
    classes = labels.max() + 1
    counts: dict[Any, Any] = defaultdict(lambda: np.zeros(classes))
    for each, label in zip(features, labels, strict=True):
        for feature in each:
            counts[feature][label] += 1
    prior = np.log(np.bincount(labels))
    total = sum(counts.values()) + alpha * len(counts)
    known = {feature: np.log((n + alpha) / total) for feature, n in counts.items()}
    return np.array([sum((known[f] for f in each if f in known), prior) for each in tests])


def weighed(first: Any, second: Any, labels: Any) -> float:
    """Return how much of the second model's scores to add to the first's, by their accuracy."""
    weights = [0.0, *np.geomspace(0.02, 2, 21).tolist()]
    return max(weights, key=lambda w: float(((first + w * second).argmax(axis=1) == labels).mean()))


def n_gram(train: Any, held: Any, order: int, symbols: int) -> float:
    """Bits a symbol of an interpolated n-gram model (Witten and Bell 1991) on held-out symbols."""
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


def translation_memory(pairs: list[Any], tests: list[Any]) -> list[list[str]]:
    """Return the translation of the text with the greatest share of words in common (Dice)."""
    where = defaultdict(list)
    for number, (source, _) in enumerate(pairs):
        for word in set(source):
            where[word].append(number)
    found = []
    for source, _ in tests:
        words = sorted(set(source))
        hits = Counter(number for word in words for number in where[word])
        share = {n: k / (len(words) + len(set(pairs[n][0]))) for n, k in hits.items()}
        found.append(pairs[max(share, key=share.__getitem__)][1] if share else source)
    return found


def dictionary(rows: list[Any], tests: list[Any]) -> list[list[str]]:
    """Return each test word's most frequent tag."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for word, tag in (pair for row in rows for pair in row):
        seen[word.lower()][tag] += 1
    best = {word: tags.most_common(1)[0][0] for word, tags in seen.items()}
    usual = Counter(tag for row in rows for _, tag in row).most_common(1)[0][0]
    return [[best.get(word.lower(), usual) for word, _ in row] for row in tests]


def linear(series: Any, starts: Any, tests: Any, ahead: int, season: int, week: int) -> Any:
    """Return forecasts by least squares, from the last two days and the same hours last week."""

    def inputs(s: int) -> Any:
        parts = series[s - 2 * season : s], series[s - week : s - week + ahead], [1.0]
        return np.concatenate(parts)

    x, y = np.array([inputs(s) for s in starts]), np.array([series[s : s + ahead] for s in starts])
    weights = np.linalg.lstsq(x, y, rcond=1e-8)[0]
    return np.array([inputs(s) for s in tests]) @ weights
