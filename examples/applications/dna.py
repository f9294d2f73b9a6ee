"""Splice junctions in DNA
=======================

Where does a gene's message begin and end? Splice junctions in DNA, with a bidirectional GRU. ::

    python examples/applications/dna.py

3,186 windows of 60 bases of primates' genes, of which the middle is the end of an exon (EI), its
beginning (IE), or neither (N): the set of Noordewier, Towell and Shavlik (1991) as `DNA` of R's
package mlbench (GPL-2), in Debian's r-cran-mlbench. A quarter of the different windows is held out;
a window that occurs twice is on one side. Baselines: the base at each place by itself (weight
matrix, Staden 1984), and given the base before it (weight array, Zhang and Marr 1993), one model
for each class; and logistic regression on the bases at all places. With so few windows a network
alone does not reach the weight matrix, so that it is given its scores. Needs apt-get and dpkg-deb.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from typing import Any

import numpy as np
import packages
import training

import fastrnn

BASES, WIDTH, ROWS, CLASSES = 4, 60, 3186, 3


def load() -> tuple[Any, Any]:
    """Return bases (N, 60), A, C, G and T as 0 to 3, and classes, EI, IE and N as 0 to 2.

    The file is R's: integer vectors of the set's length, each behind its type and its size. Three
    of them say whether a place has A, C or G, the last one is the class.
    """
    with tarfile.open(
        fileobj=io.BytesIO(packages.unpacked(packages.debian_archive("r-cran-mlbench")))
    ) as archive:
        file = archive.extractfile("./usr/lib/R/site-library/mlbench/data/DNA.rda")
        assert file is not None
        data = lzma.decompress(file.read())
    mark, columns, at = b"\x0d" + ROWS.to_bytes(4, "big"), [], -1
    while (at := data.find(mark, at + 1)) >= 0:
        columns.append(np.frombuffer(data, ">i4", ROWS, at + len(mark)) - 1)
    flags = np.array(columns[:-1]).reshape(WIDTH, 3, ROWS)
    bases = np.where(flags.any(axis=1), flags.argmax(axis=1), BASES - 1)
    return bases.T, np.array(columns[-1], np.int64)


def matrix(bases: Any, labels: Any, tests: Any, pairs: bool = False) -> Any:
    """Return log-probabilities (N, classes) by the base at each place.

    With ``pairs`` each base is given the one before it, the first one the last.
    """
    before = np.roll(bases, 1, axis=1) if pairs else np.zeros_like(bases)
    tests_before = np.roll(tests, 1, axis=1) if pairs else np.zeros_like(tests)
    places, scores = np.arange(WIDTH), []
    for k in range(CLASSES):
        counts = np.ones((WIDTH, BASES, BASES))
        chosen = labels == k
        np.add.at(counts, (places, before[chosen], bases[chosen]), 1)
        logs = np.log(counts / counts.sum(axis=2, keepdims=True))
        scores.append(logs[places, tests_before, tests].sum(axis=1) + np.log(chosen.mean()))
    found = np.stack(scores, axis=1)
    return (found - found.max(axis=1, keepdims=True)).astype(np.float32)


def logistic(bases: Any, labels: Any, tests: Any, decay: float = 3e-3) -> Any:
    """Return the likeliest class by logistic regression on the bases at all places."""
    x, z = (np.eye(BASES, dtype=np.float32)[b].reshape(len(b), -1) for b in (bases, tests))
    linear = fastrnn.Linear(WIDTH * BASES, CLASSES, rng=0)
    adam = fastrnn.Adam(linear, lr=0.02, weight_decay=decay)
    for step in range(300):
        adam.lr = training.cosine(0.02, step / 300)
        y, tape = linear.forward(x)
        adam.step(linear.backward(tape, fastrnn.softmax_cross_entropy(y, labels)[1]))
    return linear(z).argmax(axis=1)


class Splicer(fastrnn.Model):
    """A bidirectional GRU, which corrects the weight matrix by its outputs about the middle."""

    def __init__(self, rng: Any, hidden: int = 64) -> None:
        self.bases = fastrnn.Embedding(BASES, 16, rng=rng)
        self.gru = fastrnn.GRU(16, hidden, bidirectional=True, rng=rng)
        self.out = fastrnn.Linear(6 * hidden, CLASSES, rng=rng)

    def scores(self, g: Any, x: Any, known: Any) -> Any:
        """Scores (B, classes) of windows x (60, B), of which the weight matrix's are known."""
        y, _ = g(self.gru, g.dropout(g(self.bases, x), 0.2))
        middle = [g.index(y, t) for t in (WIDTH // 2 - 1, WIDTH // 2)]
        found = g(self.out, g.dropout(g.concat([*middle, g.max(y)]), 0.5))
        return g.add(found, 0.5 * known)


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=8)
    bases, labels = load()
    _, group = np.unique(bases, axis=0, return_inverse=True)
    groups = training.split(group.max() + 1, np.random.default_rng(0), 0.25, 0.1)
    train, validation, held = (np.flatnonzero(np.isin(group, part)) for part in groups)
    if args.quick:
        train = train[::8]
    known = matrix(bases[train], labels[train], bases)
    rng = np.random.default_rng(args.seed)
    model = Splicer(rng)

    def loss(g: Any, rows: Any) -> Any:
        x = bases[train[rows]].T
        x = np.where(rng.random(x.shape) < 0.1, rng.integers(0, BASES, x.shape), x)  # mutations
        return g.cross_entropy(model.scores(g, x, known[train[rows]]), labels[train[rows]])

    def right(part: Any) -> float:
        scores = model.scores(fastrnn.inference, bases[part].T, known[part]).value
        return float((scores.argmax(axis=1) == labels[part]).mean())

    lengths = np.full(len(train), WIDTH)
    training.fit(model, loss, lengths, lambda: right(validation), args, lr=8e-3, batch_size=64)
    rest = np.concatenate([train, validation])
    given = bases[rest], labels[rest], bases[held]

    def share(found: Any) -> float:
        return float((found == labels[held]).mean())

    figures = {
        "most frequent": share(np.bincount(labels[rest]).argmax()),
        "weight matrix": share(matrix(*given).argmax(axis=1)),
        "weight array": share(matrix(*given, pairs=True).argmax(axis=1)),
        "logistic regression": share(logistic(*given)),
        "weight matrix and GRU": right(held),
    }
    training.finish(args, model, figures, "accuracy on held-out windows")
    return figures


# sphinx_gallery_thumbnail_path = "pictures/dna.png"
if __name__ == "__main__":
    training.run(main)
