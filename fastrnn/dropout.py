"""Dropout masks that can be made again, for any span of time, on any device.

A counter-based generator has no state to advance: element ``e`` of a layer's mask is a function of
(seed, layer, e) alone. So masks are never stored; backward, and a checkpoint's second forward, make
them again. The generator is Philox-4x64 with 10 rounds (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import checks
from .typing import Array

# 32-bit draws per counter value: four 64-bit words, the low half of each first.
_DRAWS = 8


def seed(rng: int | np.random.Generator | None) -> int:
    """Return the 64-bit seed that ``rng`` stands for; a Generator moves on by one draw."""
    return int(checks.generator("rng", rng).integers(2**64, dtype=np.uint64))


def mask(
    seed: int, layer: int, start: int, shape: tuple[int, ...], p: float, dtype: np.dtype[Any]
) -> Array:
    """Return factors for a span of one layer's output: 0 with probability p, else 1 / (1 - p).

    Parameters
    ----------
    seed : 64-bit int of one forward call
    layer : index of the layer whose output is masked
    start : index of the span's first element, (t * B + b) * width + u
    shape : shape of the span, (steps, B, width)
    p : in [0, 1)

    Notes
    -----
    The key is (seed, layer). Element e takes 32-bit draw e % 8 of the block of counter e // 8 + 1
    (NumPy raises the counter before it makes a block), and is kept where draw >= p * 2**32.
    """
    size = int(np.prod(shape))
    block, offset = divmod(start, _DRAWS)
    philox = np.random.Philox(key=np.array([seed, layer], np.uint64), counter=block)
    words = philox.random_raw(-(-(offset + size) // 2))
    draws = words.astype("<u8", copy=False).view("<u4")[offset : offset + size]
    factors = np.zeros(size, dtype)
    factors[draws >= int(p * 2**32)] = 1 / (1 - p)
    return factors.reshape(shape)
