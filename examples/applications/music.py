"""Chorales in four voices: learnt note by note, written, and played to a MIDI and a WAV file.

    python examples/applications/music.py

Bach's chorales in the package music21 (compositions in the public domain; encodings of the corpus
used with permission, so that they are read in place and not kept). A step is a quaver; a fifth of
the pieces is held out. An LSTM reads the steps; the voices of the next one are given one after the
other, each knowing those above it. Baseline: each voice's note given its last one (bigrams).
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import sys
import wave
import xml.etree.ElementTree as ET
import zipfile
from typing import Any

import numpy as np
import packages
import training

import fastrnn

REST, START, LOWEST, SYMBOLS = 0, 1, 30, 62  # symbol of a note: MIDI's number - LOWEST + 2
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def voice(part: Any) -> Any:
    """Return a part's MIDI numbers in quavers, 0 where it rests."""
    notes: dict[int, int] = {}
    divisions, end = 1.0, 0.0
    for measure in part.iter("measure"):
        now = end
        for item in measure:
            if item.tag == "attributes":
                divisions = float(item.findtext("divisions", str(divisions)))
            time = float(item.findtext("duration", "0")) / divisions * 2
            if item.tag == "backup":
                now -= time
            elif item.tag == "forward":
                now += time
            elif item.tag == "note" and item.find("chord") is None and item.find("grace") is None:
                if (pitch := item.find("pitch")) is not None:
                    octave = 12 * (int(pitch.findtext("octave", "4")) + 1)
                    sharp = int(float(pitch.findtext("alter", "0")))
                    number = octave + STEPS[pitch.findtext("step", "C")] + sharp
                    for step in range(int(np.ceil(now)), int(np.ceil(now + time))):
                        notes.setdefault(step, number)
                now += time
            end = max(end, now)
    return np.array([notes.get(step, 0) for step in range(int(end))])


def load() -> list[Any]:
    """Return the chorales that have exactly four parts, symbols (T, 4)."""
    pieces = []
    with zipfile.ZipFile(packages.archive("music21", "10.5.1")) as wheel:
        for name in sorted(wheel.namelist()):
            if not (name.startswith("music21/corpus/bach/") and name.endswith(".mxl")):
                continue
            with zipfile.ZipFile(io.BytesIO(wheel.read(name))) as score:
                inner = [n for n in score.namelist() if n.endswith("xml") and "META" not in n]
                parts = [voice(part) for part in ET.fromstring(score.read(inner[0])).iter("part")]
            if len(parts) == 4 and min(map(len, parts)) > 0:
                steps = min(map(len, parts))
                notes = np.stack([part[:steps] for part in parts], axis=1)
                pieces.append(np.where(notes > 0, notes - LOWEST + 2, REST))
    return pieces


def bigrams(pieces: list[Any], tests: list[Any]) -> float:
    """Nats a step of each voice's note given the one before."""
    counts = np.full((4, SYMBOLS, SYMBOLS), 0.1)
    for piece in pieces:
        before = np.concatenate([np.full((1, 4), START), piece[:-1]])
        np.add.at(counts, (np.arange(4), before, piece), 1)
    logs = np.log(counts / counts.sum(axis=2, keepdims=True))
    total = 0.0
    for piece in tests:
        before = np.concatenate([np.full((1, 4), START), piece[:-1]])
        total -= logs[np.arange(4), before, piece].sum()
    return total / sum(map(len, tests))


class Composer(fastrnn.Model):
    """An LSTM over steps; each voice's scores from its output and the voices above."""

    def __init__(self, rng: Any, hidden: int = 224) -> None:
        self.notes = fastrnn.Embedding(SYMBOLS, 24, rng=rng)
        self.beats = fastrnn.Embedding(8, 8, rng=rng)
        self.lstm = fastrnn.LSTM(4 * 24 + 8, hidden, rng=rng)
        self.inner = [fastrnn.Linear(hidden + 24 * v, 128, rng=rng) for v in range(4)]
        self.out = [fastrnn.Linear(128, SYMBOLS, rng=rng) for _ in range(4)]

    def inputs(self, g: Any, before: Any, start: int = 0) -> Any:
        """The LSTM's input after steps ``before`` (T, B, 4)."""
        T, B, _ = before.shape
        beats = np.repeat((start + np.arange(T))[:, None] % 8, B, axis=1)
        x = g.reshape(g(self.notes, before), (T, B, -1))
        return g.concat([g.dropout(x, 0.2, variational=True), g(self.beats, beats)])

    def voice(self, g: Any, v: int, y: Any, above: Any) -> Any:
        """Scores (T, B, SYMBOLS) of voice v, given those above it, symbols (T, B, v)."""
        known = g.reshape(g(self.notes, above), (*above.shape[:2], 24 * v))
        inner = g.tanh(g(self.inner[v], g.concat([y, known])))
        return g(self.out[v], g.dropout(inner, 0.3))

    def loss(self, g: Any, notes: Any, lengths: Any) -> Any:
        """Nats a step of notes (T, B, 4)."""
        before = np.concatenate([np.full_like(notes[:1], START), notes[:-1]])
        y, _ = g(self.lstm, self.inputs(g, before), lengths=lengths)
        y = g.dropout(y, 0.3)
        voices = [self.voice(g, v, y, notes[..., :v]) for v in range(4)]
        each = [g.cross_entropy(s, notes[..., v], lengths=lengths) for v, s in enumerate(voices)]
        return g.add(*each)

    def write(self, steps: int, rng: Any) -> Any:
        """Return symbols (T, 4), drawn step by step."""
        g, step = fastrnn.inference, self.lstm.stepper()
        written = np.full((steps + 1, 1, 4), START)
        for t in range(steps):
            y = step(self.inputs(g, written[t : t + 1], t).value[0])[None]
            for v in range(4):
                scores = self.voice(g, v, y, written[t + 1 : t + 2, :, :v]).value[0, 0]
                scores[START] = -np.inf
                written[t + 1, 0, v] = int(fastrnn.sample(scores, rng, temperature=0.8))
        return written[1:, 0]


def held_notes(piece: Any) -> list[tuple[int, int, int, int]]:
    """Return (start, end, voice, MIDI number); equal notes that follow each other are one."""
    found = []
    for v, column in enumerate(piece.T):
        edges = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
        for start, end in itertools.pairwise(edges):
            if column[start] > START:
                found.append((start, end, v, int(column[start]) + LOWEST - 2))
    return found


def midi(piece: Any) -> bytes:
    """Return a Standard MIDI File of one track: a channel for each voice, organ, 100 a minute."""
    events = [(end, 0x80 | v, note) for _, end, v, note in held_notes(piece)]
    events += [(start, 0x90 | v, note) for start, _, v, note in held_notes(piece)]
    body = b"\0\xff\x51\x03" + (600_000).to_bytes(3, "big")
    body += b"".join(bytes([0, 0xC0 | v, 19]) for v in range(4))
    now = 0
    for time, kind, note in sorted(events):  # 0x80, the end of a note, before 0x90
        ticks, now = 240 * (time - now), time
        size = bytes([ticks & 127])
        while ticks := ticks >> 7:
            size = bytes([128 | (ticks & 127)]) + size
        body += size + bytes([kind, note, 70])
    body += b"\0\xff\x2f\0"
    return struct.pack(">4sLHHH4sL", b"MThd", 6, 0, 1, 480, b"MTrk", len(body)) + body


def sound(path: str, piece: Any, rate: int = 16_000, step: float = 0.3) -> None:
    """Write a WAV file: each note a few harmonics with soft ends."""
    signal = np.zeros(int((len(piece) + 1) * step * rate))
    for start, end, _, note in held_notes(piece):
        at = slice(int(start * step * rate), int(end * step * rate))
        t = np.arange(at.stop - at.start) / rate
        tone = sum(
            np.sin(2 * np.pi * k * 440 * 2 ** ((note - 69) / 12) * t) / k**2 for k in (1, 2, 3, 4)
        )
        signal[at] += tone * np.minimum(1, np.minimum(t, t[::-1]) / 0.02)
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((signal / np.abs(signal).max() * 30_000).astype("<i2").tobytes())


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=30)
    pieces = load()
    if args.quick:
        pieces = pieces[::8]
    parts = training.split(len(pieces), np.random.default_rng(0), 0.2, 0.1)
    train, validation, held = ([pieces[n] for n in part] for part in parts)
    rng = np.random.default_rng(args.seed)
    model = Composer(rng)

    def loss(g: Any, rows: Any) -> Any:
        shifts = rng.integers(-5, 7, len(rows))  # all keys: the same music, higher or lower
        shifted = [
            np.where(train[n] > START, train[n] + k, train[n])
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
    (args.out / "music.mid").write_bytes(midi(piece))
    sound(str(args.out / "music.wav"), piece)
    roll(args.out / "music_roll.png", piece)
    print("written: music.mid, music.wav, music_roll.png")
    return figures


def roll(path: Any, piece: Any) -> None:
    """Draw a piece: time to the right, pitch upwards, a colour for each voice."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    for start, end, v, note in held_notes(piece):
        axes.plot([start, end - 0.2], [note, note], color=f"C{v}", linewidth=3)
    axes.set(xlabel="quavers", ylabel="MIDI number")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
