"""Step sizes over time, as plain functions: ``adam.lr = 0.01 * schedules.cosine(step, 1000)``.

Each returns a factor for the first step, which is step 0, and so on; nothing is kept between calls,
so that a run goes on from any step.
"""

from __future__ import annotations

import math

from .. import checks


def warmup(step: int, steps: int) -> float:
    """Rise in a straight line to 1 at the step of number ``steps``, and stay.

    ::

        min(1, (step + 1) / steps)

    Examples
    --------
    >>> from fastrnn.train import schedules
    >>> [schedules.warmup(step, 4) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    step, steps = checks.size("step", step, at_least=0), checks.size("steps", steps)
    return min(1.0, (step + 1) / steps)


def cosine(step: int, steps: int, *, warmup_steps: int = 0, end: float = 0.0) -> float:
    """Fall from 1 to ``end`` along half a cosine (Loshchilov and Hutter 2017, "SGDR: stochastic
    gradient descent with warm restarts"), after ``warmup_steps`` of rise; then stay.

    Examples
    --------
    >>> from fastrnn.train import schedules
    >>> [round(schedules.cosine(step, 4), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    fraction, rise = _fraction(step, steps, warmup_steps)
    end = checks.number("end", end)
    return rise * (end + (1 - end) * (1 + math.cos(math.pi * fraction)) / 2)


def linear(step: int, steps: int, *, warmup_steps: int = 0, end: float = 0.0) -> float:
    """Fall from 1 to ``end`` in a straight line, after ``warmup_steps`` of rise; then stay.

    Examples
    --------
    >>> from fastrnn.train import schedules
    >>> [schedules.linear(step, 4) for step in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    fraction, rise = _fraction(step, steps, warmup_steps)
    return rise * (1 + (checks.number("end", end) - 1) * fraction)


def staircase(step: int, every: int, factor: float = 0.1) -> float:
    """Multiply by ``factor`` each ``every`` steps.

    Examples
    --------
    >>> from fastrnn.train import schedules
    >>> [schedules.staircase(step, 2, 0.5) for step in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    step, every = checks.size("step", step, at_least=0), checks.size("every", every)
    return checks.number("factor", factor) ** (step // every)


def inverse_sqrt(step: int, warmup_steps: int) -> float:
    """Rise in a straight line to 1, then fall as 1 / sqrt(step) (Vaswani et al. 2017, "Attention is
    all you need").

    Examples
    --------
    >>> from fastrnn.train import schedules
    >>> [round(schedules.inverse_sqrt(step, 2), 3) for step in range(5)]
    [0.5, 1.0, 0.816, 0.707, 0.632]
    """
    warmup_steps = checks.size("warmup_steps", warmup_steps)
    number = checks.size("step", step, at_least=0) + 1
    return min(number / warmup_steps, math.sqrt(warmup_steps / number))


def _fraction(step: int, steps: int, warmup_steps: int) -> tuple[float, float]:
    """Return how far a fall has come, 0 to 1, and the factor of the rise before it."""
    step, steps = checks.size("step", step, at_least=0), checks.size("steps", steps)
    rising = checks.size("warmup_steps", warmup_steps, at_least=0, below=steps)
    if step < rising:
        return 0.0, warmup(step, rising)
    return min(1.0, (step - rising) / (steps - rising)), 1.0
