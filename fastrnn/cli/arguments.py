"""Kinds of values that a command takes."""

from __future__ import annotations

from collections.abc import Callable


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A number above zero, and finite."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"positive {kind.__name__}"  # argparse says: invalid positive int value: '0'
    return number


def seed(text: str) -> int:
    """What `numpy.random.default_rng` takes as one."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value
