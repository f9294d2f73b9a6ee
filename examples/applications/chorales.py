"""Chorales in four voices: read from MusicXML, written to MIDI and WAV files, and drawn."""

from __future__ import annotations

import io
import itertools
import re
import struct
import wave
import xml.etree.ElementTree as ET
import zipfile
from typing import Any

import numpy as np
import packages

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


def load(every: int) -> list[Any]:
    """Return each nth of the chorales, if it has exactly four parts, symbols (T, 4)."""
    pieces = []
    with zipfile.ZipFile(packages.archive("music21", "10.5.1")) as wheel:
        names = [n for n in wheel.namelist() if re.fullmatch(r"music21/corpus/bach/.*\.mxl", n)]
        for name in sorted(names)[::every]:
            with zipfile.ZipFile(io.BytesIO(wheel.read(name))) as score:
                inner = [n for n in score.namelist() if n.endswith("xml") and "META" not in n]
                parts = [voice(part) for part in ET.fromstring(score.read(inner[0])).iter("part")]
            if len(parts) == 4 and min(map(len, parts)) > 0:
                steps = min(map(len, parts))
                notes = np.stack([part[:steps] for part in parts], axis=1)
                pieces.append(np.where(notes > 0, notes - LOWEST + 2, REST))
    return pieces


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


def roll(path: Any, piece: Any) -> None:
    """Draw a piece: time to the right, pitch upwards, a colour for each voice."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    for start, end, v, note in held_notes(piece):
        axes.plot([start, end - 0.2], [note, note], color=f"C{v}", linewidth=3)
    axes.set(xlabel="quavers", ylabel="MIDI number")
    figure.savefig(path, dpi=120)
    plt.close(figure)
