"""Who says this vowel?
====================

Who says this vowel? Sequences of 7 to 29 frames, many to one, with a GRU. ::

    python examples/applications/vowels.py

Nine speakers, 12 cepstral coefficients a frame: JapaneseVowels of the UCR/UEA archive, from the
package aeon (BSD-3), with the archive's own split. Baseline: the nearest of the training
utterances, resampled to 30 frames.
"""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
import packages
import training

import fastrnn


def load(name: str, split: str) -> tuple[list[Any], Any]:
    """Return sequences (T, channels) and labels of a set of the archive."""
    with zipfile.ZipFile(packages.archive("aeon", "1.6.0")) as wheel:
        text = wheel.read(f"aeon/datasets/data/{name}/{name}_{split}.ts").decode()
    rows = text[text.lower().index("@data") + 5 :].split("\n")
    parts = [row.split(":") for row in rows if row.strip()]
    x = [np.array([c.split(",") for c in row[:-1]], np.float32).T for row in parts]
    return x, np.array([row[-1].strip() for row in parts])


def nearest(x: list[Any], labels: Any, tests: list[Any]) -> Any:
    """Return the label of the nearest training sequence, each resampled to 30 frames."""

    def resampled(a: Any) -> Any:
        at = np.linspace(0, len(a) - 1, 30)
        return np.stack([np.interp(at, np.arange(len(a)), c) for c in a.T]).ravel()

    known = np.array([resampled(a) for a in x])
    places = [np.square(known - resampled(a)).sum(axis=1).argmin() for a in tests]
    return labels[np.array(places)]


class Speaker(fastrnn.Model):
    """A bidirectional GRU; mean and maximum of its outputs decide."""

    def __init__(self, channels: int, classes: int, rng: np.random.Generator) -> None:
        self.gru = fastrnn.GRU(channels, 64, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(256, classes, rng=rng)

    def scores(self, g: Any, x: Any, lengths: Any) -> Any:
        """Scores (B, classes) of utterances x (T, B, channels)."""
        y, _ = g(self.gru, g.dropout(x, 0.1), lengths=lengths)
        return g(self.out, g.dropout(g.concat([g.mean(y, lengths), g.max(y, lengths)]), 0.5))


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=60)
    x, names = load("JapaneseVowels", "TRAIN")
    x_held, names_held = load("JapaneseVowels", "TEST")
    speakers, labels = np.unique(names, return_inverse=True)
    labels_held = np.searchsorted(speakers, names_held)
    frames = np.concatenate(x)
    scale = frames.mean(axis=0), frames.std(axis=0)
    coded = [(a - scale[0]) / scale[1] for a in x]
    train, validation, _ = training.split(len(x), np.random.default_rng(0), 0.0, 0.2)
    model = Speaker(x[0].shape[1], len(speakers), np.random.default_rng(args.seed))

    def loss(g: Any, rows: Any) -> Any:
        batch, lengths = fastrnn.pad([coded[n] for n in train[rows]])
        scores = model.scores(g, batch, lengths)
        return g.cross_entropy(scores, labels[train[rows]], label_smoothing=0.1)

    def scores(sequences: list[Any]) -> Any:
        batch, lengths = fastrnn.pad(sequences)
        return model.scores(fastrnn.inference, batch, lengths).value

    def validated() -> float:
        found = scores([coded[n] for n in validation])
        right = found.argmax(axis=1) == labels[validation]
        own = fastrnn.softmax_cross_entropy(found, labels[validation])[0]
        return float(right.mean()) - 1e-3 * own  # equal accuracies: the surer one

    lengths = [len(coded[n]) for n in train]
    training.fit(model, loss, lengths, validated, args, lr=3e-3, batch_size=16)
    best = scores([(a - scale[0]) / scale[1] for a in x_held]).argmax(axis=1)
    figures = {
        "most frequent speaker": float(np.bincount(labels_held).max() / len(labels_held)),
        "nearest utterance, 30 frames": float((nearest(x, labels, x_held) == labels_held).mean()),
        "bidirectional GRU": float((best == labels_held).mean()),
    }
    training.finish(args, model, figures, "accuracy on the archive's test part")
    return figures


# sphinx_gallery_thumbnail_path = "pictures/vowels.png"
if __name__ == "__main__":
    training.run(main)
