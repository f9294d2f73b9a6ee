"""Text as indices of characters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..typing import Array


@dataclass(frozen=True)
class Corpus:
    """A text in two parts: the first nine tenths to train on, the last tenth held out."""

    characters: str
    """The vocabulary; a character's index in it stands for it."""
    train: Array
    held: Array
    digest: str
    """Tells one text from another."""

    @classmethod
    def of(cls, text: str) -> Corpus:
        """Split a text and number its characters in the order of their code points."""
        points = np.frombuffer(text.encode("utf-32-le"), "<u4")
        vocabulary, indices = np.unique(points, return_inverse=True)
        split = indices.size * 9 // 10
        return cls(
            "".join(map(chr, vocabulary)),
            indices[:split],
            indices[split:],
            hashlib.sha256(points.tobytes()).hexdigest(),
        )


def reference_text() -> str:
    """Return Python's language reference as ``help()`` knows it, about 0.46 million characters.

    It comes with Python and differs a little from version to version.
    """
    from pydoc_data.topics import topics

    return "\n".join(topics.values())


def streams(indices: Array, batch: int) -> tuple[Array, Array]:
    """Cut a text into `batch` contiguous streams that are read side by side.

    Returns
    -------
    inputs, targets : (N, batch)
        N characters of every stream, and the character that follows each.
    """
    steps = max(indices.size - 1, 0) // batch
    inputs = indices[: steps * batch].reshape(batch, steps).T
    targets = indices[1 : steps * batch + 1].reshape(batch, steps).T
    return np.ascontiguousarray(inputs), np.ascontiguousarray(targets)
