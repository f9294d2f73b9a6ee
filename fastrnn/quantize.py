"""Weights rounded to bfloat16 or int8: what a frozen layer may hold instead of its floats."""

from __future__ import annotations

import numpy as np

from .spec import Weights
from .typing import Array


def rounded(w: Weights, dtype: str) -> Weights:
    """Return the matrices rounded to a narrow type, as floats again; the rest as it is."""
    round_to = _to_bfloat16 if dtype == "bfloat16" else _to_int8
    hr = None if w.hr is None else round_to(w.hr)
    return w._replace(ih=round_to(w.ih), hh=round_to(w.hh), hr=hr)


def _to_bfloat16(w: Array) -> Array:
    """To the nearest of 8 bits of mantissa, ties to even."""
    bits = w.view(np.uint32)
    up = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(w), w, up.view(np.float32))


def _to_int8(w: Array) -> Array:
    """To multiples -127 .. 127 of each row's largest magnitude / 127.

    A row with an infinity or NaN becomes NaN.
    """
    with np.errstate(all="ignore"):  # also what underflows is a number
        scale = np.max(np.abs(w), axis=1, keepdims=True, initial=0) / np.float32(127)
        scale = np.where(np.isfinite(scale), scale, np.float32(np.nan))
        # 127 times what the largest numbers were divided to may be beyond them
        scale = np.where(np.isinf(scale * np.float32(127)), np.nextafter(scale, 0), scale)
        # a scale that is no normal number is a coarse one: more than 127 steps of it may be wanted
        steps = np.clip(np.rint(w / np.where(scale == 0, np.float32(1), scale)), -127, 127)
        return (steps * scale).astype(np.float32)
