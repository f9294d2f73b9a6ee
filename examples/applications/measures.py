"""Measures of texts and sequences: BLEU, chrF, F1 of words, label error."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np


def bleu(found: list[list[str]], right: list[list[str]]) -> float:
    """BLEU of a corpus: geometric mean of the precisions of 1- to 4-grams, brevity penalty."""
    logs = 0.0
    for n in range(1, 5):
        pairs = [(grams(a, n), grams(b, n)) for a, b in zip(found, right, strict=True)]
        hits = sum((a & b).total() for a, b in pairs)
        logs += math.log(max(hits, 1e-9) / max(1, sum(a.total() for a, _ in pairs))) / 4
    sizes = sum(map(len, found)), sum(map(len, right))
    return 100 * math.exp(logs + min(0.0, 1 - sizes[1] / max(1, sizes[0])))


def chrf(found: list[list[str]], right: list[list[str]]) -> float:
    """chrF of a corpus: F2 of the mean precision and recall of 1- to 6-grams of characters."""
    precision, recall = [], []
    for n in range(1, 7):
        pairs = [
            (grams("".join(a), n), grams("".join(b), n)) for a, b in zip(found, right, strict=True)
        ]
        hits = sum((a & b).total() for a, b in pairs)
        precision.append(hits / max(1, sum(a.total() for a, _ in pairs)))
        recall.append(hits / max(1, sum(b.total() for _, b in pairs)))
    p, r = float(np.mean(precision)), float(np.mean(recall))
    return 100 * 5 * p * r / max(4 * p + r, 1e-9)


def grams(text: Any, n: int) -> Counter[Any]:
    """Count the runs of n words, or characters."""
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def f1(found: list[list[str]], right: list[list[str]]) -> float:
    """Return the mean F1 of words, in any order."""
    hits = [2 * (Counter(a) & Counter(b)).total() for a, b in zip(found, right, strict=True)]
    return float(
        np.mean([h / (len(a) + len(b)) for h, a, b in zip(hits, found, right, strict=True)])
    )


def distance(a: list[int], b: list[int]) -> int:
    """Return the fewest insertions, deletions and changes from a to b (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(before + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def label_error(found: list[list[int]], right: list[list[int]]) -> float:
    """Return the distances' sum over the number of labels."""
    return sum(map(distance, found, right)) / sum(map(len, right))
