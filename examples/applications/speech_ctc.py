"""Speakers in order, by CTC
=========================

Who speaks, in which order? Labels without times, by connectionist temporal classification (CTC). ::

    python examples/applications/speech_ctc.py

Utterances of the nine speakers of JapaneseVowels (see vowels.py) are joined, two to six at a time,
with nothing to tell where one ends. A bidirectional GRU gives each frame a score for each speaker
and for the blank; the CTC loss knows the order alone. Trained on utterances of the archive's
training part, tried on 300 joined ones of its test part. Baseline: frames cut evenly into pieces of
the mean length, each given to the speaker with the nearest means and standard deviations.
"""

from __future__ import annotations

from typing import Any

import measures
import numpy as np
import training
import vowels

import fastrnn

BLANK = 0


def in_pieces(x: list[Any], labels: Any, tests: list[Any]) -> list[list[int]]:
    """Return the speakers of even pieces, by the nearest centroid of (mean, standard deviation)."""

    def features(a: Any) -> Any:
        return np.concatenate([a.mean(axis=0), a.std(axis=0)])

    known = np.array([features(a) for a in x])
    centres = np.array([known[labels == k].mean(axis=0) for k in range(1, labels.max() + 1)])
    size = np.mean([len(a) for a in x])
    found = []
    for test in tests:
        pieces = np.array_split(test, max(1, round(len(test) / size)))
        far = [np.square(centres - features(piece)).sum(axis=1) for piece in pieces]
        found.append([int(d.argmin()) + 1 for d in far])
    return found


class Listener(fastrnn.Model):
    """A bidirectional GRU, and scores of each frame: the blank, and the speakers."""

    def __init__(self, channels: int, classes: int, rng: Any, hidden: int = 96) -> None:
        self.gru = fastrnn.GRU(channels, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(2 * hidden, classes, rng=rng)

    def scores(self, g: Any, x: Any, lengths: Any) -> Any:
        """Scores (T, B, classes) of frames x (T, B, channels)."""
        y, _ = g(self.gru, g.dropout(x, 0.1), lengths=lengths)
        return g(self.out, g.dropout(y, 0.4))


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=40)
    x, names = vowels.load("JapaneseVowels", "TRAIN")
    x_held, names_held = vowels.load("JapaneseVowels", "TEST")
    speakers, labels = np.unique(names, return_inverse=True)
    labels, labels_held = labels + 1, np.searchsorted(speakers, names_held) + 1  # 0 is the blank
    frames = np.concatenate(x)
    mean, scale = frames.mean(axis=0), frames.std(axis=0)
    x, x_held = ([(a - mean) / scale for a in part] for part in (x, x_held))
    train, validation, _ = training.split(len(x), np.random.default_rng(0), 0.0, 0.2)

    def joined(part: list[Any], own: Any, rows: Any, counts: Any, rng: Any) -> Any:
        """Return as many sequences as counts, each of so many utterances, and their labels."""
        chosen = [rng.choice(rows, n) for n in counts]
        return [np.concatenate([part[k] for k in c]) for c in chosen], [
            own[c].tolist() for c in chosen
        ]

    rng = np.random.default_rng(args.seed)
    model = Listener(x[0].shape[1], len(speakers) + 1, rng)
    counts = np.random.default_rng(1).integers(2, 7, 60 if args.quick else 600)
    checks = joined(x, labels, validation, counts[:200], np.random.default_rng(2))
    tests = joined(
        x_held, labels_held, np.arange(len(x_held)), counts[-300:], np.random.default_rng(3)
    )

    def loss(g: Any, rows: Any) -> Any:
        sequences, right = joined(x, labels, train, counts[rows], rng)  # new ones each time
        batch, lengths = fastrnn.pad(sequences)
        targets, sizes = fastrnn.pad(right)
        noise = rng.normal(0, 0.2, batch.shape).astype(np.float32)
        return g.ctc(model.scores(g, batch + noise, lengths), targets.T, lengths, sizes, BLANK)

    def scores(sequences: list[Any]) -> Any:
        batch, lengths = fastrnn.pad(sequences)
        return model.scores(fastrnn.inference, batch, lengths).value, lengths

    def validated() -> float:
        return -measures.label_error(fastrnn.ctc_decode(*scores(checks[0]))[0], checks[1])

    training.fit(model, loss, counts, validated, args, lr=4e-3, batch_size=16)
    found = scores(tests[0])
    figures = {
        "even pieces, nearest centroid": measures.label_error(
            in_pieces([x[n] for n in train], labels[train], tests[0]), tests[1]
        ),
        "GRU and CTC, best path": measures.label_error(fastrnn.ctc_decode(*found)[0], tests[1]),
        "GRU and CTC, beam of 8": measures.label_error(
            fastrnn.ctc_decode(*found, width=8)[0], tests[1]
        ),
    }
    training.finish(args, model, figures, "label error on joined utterances")
    row = max(range(len(tests[1])), key=lambda n: len(tests[1][n]))
    picture(args.out / "speech_ctc_frames.png", found[0][: found[1][row], row], tests[1][row])
    return figures


def picture(path: Any, scores: Any, right: list[int]) -> None:
    """Draw the probability of each speaker frame by frame: short peaks, blanks between them."""
    import matplotlib.pyplot as plt

    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    figure, axes = plt.subplots(figsize=(7, 2.5), layout="constrained")
    for k, column in enumerate((p / p.sum(axis=1, keepdims=True)).T):
        axes.plot(column, "--" if k == BLANK else "-", label="blank" if k == BLANK else f"{k}")
    axes.set(xlabel=f"frame; speakers in order: {right}", ylabel="probability")
    axes.legend(ncols=5, fontsize="x-small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    training.run(main)
