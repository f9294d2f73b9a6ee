"""What the demo is compared with: an interpolated n-gram model of characters."""

from __future__ import annotations

import numpy as np

from ..typing import Array


def witten_bell_bits(train: Array, held: Array, vocabulary_size: int, order: int = 4) -> float:
    """Bits per character that an n-gram model counted on `train` needs for `held`.

    With c(h, w) the count of character w after context h, and t(h) the number of different
    characters seen after h::

        P(w | h) = (c(h, w) + t(h) P(w | h')) / (c(h) + t(h))

    where h' is h without its oldest character, P of the empty context interpolates with the uniform
    distribution, and a context never seen hands over to the shorter one (Witten and Bell 1991,
    "The zero-frequency problem", method C, interpolated).

    Parameters
    ----------
    train, held : ndarray of int, (N,) and (M,)
        Indices in 0..vocabulary_size-1; `held` continues `train`, so its first characters see the
        last ones of `train` as context.
    order : int
        Characters of context.
    """
    if held.size == 0:
        return 0.0
    n = train.size
    text = np.concatenate([train, held]).astype(np.int64)
    # The vocabulary's size itself stands for "before the text".
    padded = np.concatenate([np.full(order, vocabulary_size), text])
    base = vocabulary_size + 1
    context = np.zeros(text.size, np.int64)  # a number for the context of every position
    p = np.full(held.size, 1.0 / vocabulary_size)
    for length in range(order + 1):
        if length:
            before = padded[order - length : padded.size - length]
            context = _renumber(context * base + before)
        gram = _renumber(context * base + text)
        seen = np.bincount(context[:n], minlength=context.max() + 1)
        count = np.bincount(gram[:n], minlength=gram.max() + 1)
        first = np.unique(gram[:n], return_index=True)[1]
        types = np.bincount(context[first], minlength=seen.size)
        here, total = context[n:], seen[context[n:]]
        mixed = (count[gram[n:]] + types[here] * p) / np.maximum(total + types[here], 1)
        p = np.where(total > 0, mixed, p)
    return float(-np.log2(p).mean())


def _renumber(codes: Array) -> Array:
    """Small numbers for large codes, so that the next product cannot overflow."""
    numbers: Array = np.unique(codes, return_inverse=True)[1]
    return numbers
