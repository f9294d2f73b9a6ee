"""Whose voice is it?
==================

Whose voice is it, from half a second? Log-mel spectra of real prompts, many to one. ::

    python examples/applications/voices.py

Prompts of telephone systems in five languages, each by one voice (en and es by the same one), from
Debian's packages ``asterisk-core-sounds-*-gsm`` (CC BY-SA 3.0 for en, es, fr; CC BY 3.0 for it,
ru). A fifth of the prompts' names is held out, in all languages, and only the loudest half second
is heard, its level removed. The recordings differ in more than the voice, which a network may use.
Needs apt-get, dpkg-deb and soundfile. Baseline: the nearest half second by means and deviations.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

import numpy as np
import packages
import soundfile
import training

import fastrnn

LANGUAGES = ["en", "es", "fr", "it", "ru"]
RATE, HOP, FRAME, BANDS, HEARD = 8000, 160, 200, 20, 25


def mel_filters() -> Any:
    """Return triangular filters (129, BANDS), evenly spaced in mel up to 4 kHz."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, 129)[:, None]
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(up, down))


def log_mels(signal: Any, filters: Any) -> Any:
    """Return log-mel energies (T, BANDS): frames of 25 ms each 20 ms."""
    signal = np.pad(signal, (0, max(0, FRAME + HEARD * HOP - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[::HOP] * np.hanning(FRAME)
    power = np.square(np.abs(np.fft.rfft(frames, 256)))
    return np.log(power @ filters + 1e-6).astype(np.float32)


def load(every: int) -> tuple[list[Any], Any, list[str]]:
    """Return log-mels, the number of the language, and the name of each nth prompt."""
    clips, labels, names = [], [], []
    filters = mel_filters()
    for number, language in enumerate(LANGUAGES):
        path = packages.debian_archive(f"asterisk-core-sounds-{language}-gsm")
        with tarfile.open(fileobj=io.BytesIO(packages.unpacked(path))) as archive:
            members = [m for m in archive if m.name.endswith(".gsm") and "/silence/" not in m.name]
            for member in members[::every]:
                file = archive.extractfile(member)
                assert file is not None
                how = {"format": "RAW", "subtype": "GSM610", "samplerate": RATE, "channels": 1}
                clips.append(log_mels(soundfile.read(io.BytesIO(file.read()), **how)[0], filters))
                labels.append(number)
                names.append(member.name.split("/sounds/")[1].split("/", 1)[1])
    return clips, np.array(labels), names


def loudness(clip: Any) -> Any:
    """Return the energy of each half second that begins at a frame."""
    energy = np.exp(clip).sum(axis=1)
    return np.convolve(energy, np.ones(HEARD), "valid")


def heard(clip: Any, start: int) -> Any:
    """Return half a second (HEARD, BANDS), its level removed."""
    part = clip[start : start + HEARD]
    return (part - part.mean()) / 3


class Listener(fastrnn.Model):
    """A bidirectional GRU; mean and maximum of its outputs decide."""

    def __init__(self, rng: Any, hidden: int = 96) -> None:
        self.gru = fastrnn.GRU(BANDS, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(4 * hidden, len(LANGUAGES), rng=rng)

    def scores(self, g: Any, x: Any) -> Any:
        """Scores (B, languages) of x (HEARD, B, BANDS)."""
        y, _ = g(self.gru, g.dropout(x, 0.1))
        return g(self.out, g.dropout(g.concat([g.mean(y), g.max(y)]), 0.5))


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=30)
    clips, labels, names = load(20 if args.quick else 1)
    prompts = sorted(set(names))
    order = training.split(len(prompts), np.random.default_rng(0), 0.2, 0.1)
    place = {prompts[n]: part for part, rows in enumerate(order) for n in rows}
    parts = [np.array([n for n, name in enumerate(names) if place[name] == k]) for k in range(3)]
    train, validation, held = parts
    loud = [loudness(clip) for clip in clips]
    best = np.stack(
        [heard(clip, at.argmax()) for clip, at in zip(clips, loud, strict=True)], axis=1
    )
    starts = [np.flatnonzero(at > 0.2 * at.max()) for at in loud]
    rng = np.random.default_rng(args.seed)
    model = Listener(rng)

    def loss(g: Any, rows: Any) -> Any:
        x = [heard(clips[n], rng.choice(starts[n])) for n in train[rows]]  # any half second
        return g.cross_entropy(
            model.scores(g, np.stack(x, axis=1)), labels[train[rows]], label_smoothing=0.1
        )

    def accuracy(part: Any) -> float:
        scores = model.scores(fastrnn.inference, best[:, part]).value
        return float((scores.argmax(axis=1) == labels[part]).mean())

    training.fit(
        model, loss, np.full(len(train), HEARD), lambda: accuracy(validation), args,
        lr=4e-3, batch_size=32,
    )  # fmt: skip
    features = np.concatenate([best.mean(axis=0), best.std(axis=0)], axis=1)
    known = np.concatenate([train, validation])
    far = [np.square(features[known] - features[n]).sum(axis=1).argmin() for n in held]
    figures = {
        "most frequent": float(np.bincount(labels[held]).max() / len(held)),
        "nearest half second": float((labels[known[far]] == labels[held]).mean()),
        "bidirectional GRU": accuracy(held),
    }
    training.finish(args, model, figures, "accuracy on held-out prompts, loudest half second")
    return figures


if __name__ == "__main__":
    training.run(main)
