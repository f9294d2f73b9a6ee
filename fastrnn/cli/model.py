"""The demo's network: a table of characters, recurrent layers, a linear head."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import GRU, LSTM, RNN, Embedding, Linear, softmax_cross_entropy
from ..typing import Array

CELLS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}

_EMBEDDING = 64  # numbers that stand for one character
_SPAN = 256  # steps of a text that are judged at once


class CharModel:
    """Predicts the next character from all before it.

    Parameters
    ----------
    layers : dict
        ``embedding``, ``recurrent`` and ``head``, as `fastrnn.save` takes them.
    """

    def __init__(self, layers: dict[str, Any]) -> None:
        self.layers = layers
        self.embedding: Embedding = layers["embedding"]
        self.recurrent: Any = layers["recurrent"]
        self.head: Linear = layers["head"]

    @classmethod
    def new(cls, vocabulary: int, cell: str, hidden: int, layers: int, seed: int) -> CharModel:
        """Make a model with fresh weights."""
        rng = np.random.default_rng(seed)
        return cls(
            {
                "embedding": Embedding(vocabulary, _EMBEDDING, rng=rng),
                "recurrent": CELLS[cell](_EMBEDDING, hidden, layers, rng=rng),
                "head": Linear(hidden, vocabulary, rng=rng),
            }
        )

    def gradients(self, x: Array, targets: Array, state: Any) -> tuple[float, Any, list[Any]]:
        """Run a window (T, B) forward and backward.

        Returns
        -------
        bits : float
            Per character.
        state
            After the window.
        grads : list
            Of the mean cross entropy in nats, in the order of `layers`.
        """
        embedded, embedding_tape = self.embedding.forward(x)
        h, state, tape = self.recurrent.forward(embedded, state)
        logits, head_tape = self.head.forward(h)
        loss, dlogits = softmax_cross_entropy(logits, targets)
        head = self.head.backward(head_tape, dlogits)
        recurrent = self.recurrent.backward(tape, head.x)
        embedding = self.embedding.backward(embedding_tape, recurrent.x)
        return loss / math.log(2), state, [embedding, recurrent, head]

    def bits(self, inputs: Array, targets: Array) -> float:
        """Bits per character over whole streams (N, B), each begun with a state of zeros."""
        state = None
        total = 0.0
        for start in range(0, len(inputs), _SPAN):
            span = slice(start, start + _SPAN)
            h, state = self.recurrent(self.embedding(inputs[span]), state)
            loss, _ = softmax_cross_entropy(self.head(h), targets[span])
            total += loss * targets[span].size
        return total / max(targets.size, 1) / math.log(2)

    def write(self, first: int, count: int, temperature: float, rng: np.random.Generator) -> Array:
        """Let it write: draw `count` characters one by one, each from the distribution after those
        before it, sharpened by a temperature below 1."""
        step = self.recurrent.stepper()
        vectors = self.embedding.params["weight"]
        written = np.empty(count, np.int64)
        character = first
        for index in range(count):
            logits = self.head(step(vectors[character])).astype(np.float64) / temperature
            p = np.exp(logits - logits.max())
            character = written[index] = rng.choice(p.size, p=p / p.sum())
        return written

    def gradient_by_step(self, x: Array, targets: Array) -> dict[str, Array]:
        """How far back the loss at the last step of a window (T, B) reaches.

        The window is run one step at a time, and the gradient of the last step's loss alone is
        carried back from tape to tape: what arrives at each step is dL/dstate there.

        Returns
        -------
        dict of str to ndarray, (T,)
            For h, and c of an LSTM: the norm of the gradient by the state before each step, as a
            mean over the rows.
        """
        embedded = self.embedding(x)
        state, tapes, h = None, [], embedded[:0]
        for t in range(len(x)):
            h, state, tape = self.recurrent.forward(embedded[t : t + 1], state)
            tapes.append(tape)
        logits, tape = self.head.forward(h)
        _, dlogits = softmax_cross_entropy(logits, targets[-1:])
        dh: Array | None = self.head.backward(tape, dlogits * x.shape[1]).x  # of each row's loss
        dstate = None
        norms = []
        for tape in reversed(tapes):
            dstate = self.recurrent.backward(tape, dh, dstate).state
            dh = None
            parts = dstate if isinstance(dstate, tuple) else (dstate,)
            norms.append([np.linalg.norm(part, axis=(0, 2)).mean() for part in parts])
        return dict(zip(("h", "c"), np.array(norms[::-1]).T, strict=False))
