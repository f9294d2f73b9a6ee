"""Chorales in four voices
=======================

Chorales in four voices: learnt note by note, written, and played to a MIDI and a WAV file. ::

    python examples/applications/music.py

Bach's chorales in the package music21 (compositions in the public domain; encodings of the corpus
used with permission, so that they are read in place and not kept). A step is a quaver; a fifth of
the pieces is held out. An LSTM reads the steps; the voices of the next one are given one after the
other, each knowing those above it. Baseline: each voice's note given its last one (bigrams).
"""

from __future__ import annotations

from typing import Any

import chorales
import numpy as np
import training

import fastrnn


def bigrams(pieces: list[Any], tests: list[Any]) -> float:
    """Nats a step of each voice's note given the one before."""
    counts = np.full((4, chorales.SYMBOLS, chorales.SYMBOLS), 0.1)
    for piece in pieces:
        before = np.concatenate([np.full((1, 4), chorales.START), piece[:-1]])
        np.add.at(counts, (np.arange(4), before, piece), 1)
    logs = np.log(counts / counts.sum(axis=2, keepdims=True))
    total = 0.0
    for piece in tests:
        before = np.concatenate([np.full((1, 4), chorales.START), piece[:-1]])
        total -= logs[np.arange(4), before, piece].sum()
    return total / sum(map(len, tests))


class Composer(fastrnn.Model):
    """An LSTM over steps; each voice's scores from its output and the voices above."""

    def __init__(self, rng: Any, hidden: int = 224) -> None:
        self.notes = fastrnn.Embedding(chorales.SYMBOLS, 24, rng=rng)
        self.beats = fastrnn.Embedding(8, 8, rng=rng)
        self.lstm = fastrnn.LSTM(4 * 24 + 8, hidden, rng=rng)
        self.inner = [fastrnn.Linear(hidden + 24 * v, 128, rng=rng) for v in range(4)]
        self.out = [fastrnn.Linear(128, chorales.SYMBOLS, rng=rng) for _ in range(4)]

    def inputs(self, g: Any, before: Any, start: int = 0) -> Any:
        """The LSTM's input after steps ``before`` (T, B, 4)."""
        T, B, _ = before.shape
        beats = np.repeat((start + np.arange(T))[:, None] % 8, B, axis=1)
        x = g.reshape(g(self.notes, before), (T, B, -1))
        return g.concat([g.dropout(x, 0.2, variational=True), g(self.beats, beats)])

    def voice(self, g: Any, v: int, y: Any, above: Any) -> Any:
        """Scores (T, B, chorales.SYMBOLS) of voice v, given those above it, symbols (T, B, v)."""
        known = g.reshape(g(self.notes, above), (*above.shape[:2], 24 * v))
        inner = g.tanh(g(self.inner[v], g.concat([y, known])))
        return g(self.out[v], g.dropout(inner, 0.3))

    def loss(self, g: Any, notes: Any, lengths: Any) -> Any:
        """Nats a step of notes (T, B, 4)."""
        before = np.concatenate([np.full_like(notes[:1], chorales.START), notes[:-1]])
        y, _ = g(self.lstm, self.inputs(g, before), lengths=lengths)
        y = g.dropout(y, 0.3)
        voices = [self.voice(g, v, y, notes[..., :v]) for v in range(4)]
        each = [g.cross_entropy(s, notes[..., v], lengths=lengths) for v, s in enumerate(voices)]
        return g.add(*each)

    def write(self, steps: int, rng: Any) -> Any:
        """Return symbols (T, 4), drawn step by step."""
        g, step = fastrnn.inference, self.lstm.stepper()
        written = np.full((steps + 1, 1, 4), chorales.START)
        for t in range(steps):
            y = step(self.inputs(g, written[t : t + 1], t).value[0])[None]
            for v in range(4):
                scores = self.voice(g, v, y, written[t + 1 : t + 2, :, :v]).value[0, 0]
                scores[chorales.START] = -np.inf
                written[t + 1, 0, v] = int(fastrnn.sample(scores, rng, temperature=0.8))
        return written[1:, 0]


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=30)
    pieces = chorales.load(10 if args.quick else 1)
    parts = training.split(len(pieces), np.random.default_rng(0), 0.2, 0.1)
    train, validation, held = ([pieces[n] for n in part] for part in parts)
    rng = np.random.default_rng(args.seed)
    model = Composer(rng)

    def loss(g: Any, rows: Any) -> Any:
        shifts = rng.integers(-5, 7, len(rows))  # all keys: the same music, higher or lower
        shifted = [
            np.where(train[n] > chorales.START, train[n] + k, train[n])
            for n, k in zip(rows, shifts, strict=True)
        ]
        return model.loss(g, *fastrnn.pad(shifted))

    def nats(part: list[Any]) -> float:
        return float(model.loss(fastrnn.inference, *fastrnn.pad(part)))

    training.fit(
        model, loss, [len(p) for p in train], lambda: -nats(validation), args, lr=4e-3, batch_size=6
    )
    figures = {"bigrams of each voice": bigrams(train + validation, held), "LSTM": nats(held)}
    training.finish(args, model, figures, "nats a step on held-out chorales")
    piece = model.write(16 if args.quick else 128, rng)
    (args.out / "music.mid").write_bytes(chorales.midi(piece))
    chorales.sound(str(args.out / "music.wav"), piece)
    chorales.roll(args.out / "music_roll.png", piece)
    print("written: music.mid, music.wav, music_roll.png")
    return figures


if __name__ == "__main__":
    training.run(main)
