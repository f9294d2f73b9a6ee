"""A model of all kinds of layers, for tests: a small translator with attention."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastrnn

T, S, B = 6, 4, 3
_RNG = np.random.default_rng(0)
SOURCE = _RNG.integers(0, 11, (T, B))
TARGET = _RNG.integers(0, 11, (S, B))
NEXT = _RNG.integers(0, 7, (S, B))
LENGTHS, STEPS = [6, 3, 1], [2, 4, 3]


class Translator(fastrnn.Model):
    def __init__(self, backend: str = "auto", dtype: Any = np.float64, score: str = "general"):
        how: Any = {"dtype": dtype}
        self.emb = fastrnn.Embedding(11, 5, rng=0, **how)
        self.enc = fastrnn.LSTM(
            5, 6, 2, bidirectional=True, dropout=0.3, rng=1, backend=backend, **how
        )
        self.dec = fastrnn.GRU(5, 12, rng=2, backend=backend, **how)
        self.att = fastrnn.Attention(12, 12, score=score, rng=3, **how)
        self.norm = fastrnn.LayerNorm(24, **how)
        self.heads = [fastrnn.Linear(24, 7, rng=4, **how)]
        self.start = fastrnn.Parameter(shape=(1, 1, 12), **how)

    def loss(self, g: Any, source: Any = SOURCE, target: Any = TARGET, then: Any = NEXT) -> Any:
        x = g.dropout(g(self.emb, source), 0.2, variational=True)
        memory, state = g(self.enc, x, lengths=LENGTHS)
        first = g.add(g.reshape(g.last(state), (1, B, 12)), g(self.start))
        y, _ = g(self.dec, g(self.emb, target), first, lengths=STEPS)
        context = g(self.att, y, memory, lengths=LENGTHS)
        z = g(self.norm, g.tanh(g.concat([y, context])))
        return g.cross_entropy(g(self.heads[0], z), then, lengths=STEPS)
