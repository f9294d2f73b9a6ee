"""Sequences out of a model: by beam search, or drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks
from ..checks import RNG
from ..typing import Array


def beam_search(
    step: Callable[[Array], Array],
    start: int,
    end: int,
    *,
    width: int,
    max_steps: int,
    reorder: Callable[[Array], Any] | None = None,
    length_penalty: float = 0.0,
) -> tuple[list[list[int]], Array]:
    """Find the most probable sequences, keeping ``width`` beginnings of them a step.

    Parameters
    ----------
    step : function
        Takes the last token of each beam, ints (width,), and returns log-probabilities (width, V)
        of the next one. What it keeps between calls, such as a stepper with ``batch_size=width``,
        holds one row a beam.
    start : int
        The first token that ``step`` gets.
    end : int
        The token that ends a sequence.
    width : int
        Beams; with 1 the search is greedy.
    max_steps : int
        The greatest length of a sequence, its end included.
    reorder : function, optional
        Called with ints (width,) before a step: row b is to go on from what was row rows[b], as
        ``stepper.reorder`` does.
    length_penalty : float
        a in score = log-probability / length**a, the length with its end.

    Returns
    -------
    sequences : list of lists of int
        At most ``width``, best first, without ``start``, with ``end`` where it was reached.
    scores : ndarray of float64
        Of each.

    Raises
    ------
    TypeError, ValueError
        An argument has another type or value, or ``step`` returns another shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> next_token = np.log([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]])
    >>> sequences, scores = fastrnn.beam_search(
    ...     lambda tokens: next_token[tokens], start=0, end=2, width=2, max_steps=5
    ... )
    >>> sequences[0], sequences[1], np.exp(scores).round(2)
    ([2], [1, 2], array([0.3 , 0.24]))
    """
    width, max_steps = checks.size("width", width), checks.size("max_steps", max_steps)
    start, end = checks.integer("start", start), checks.integer("end", end)
    penalty = checks.number("length_penalty", length_penalty)
    live = [[] for _ in range(width)]  # type: list[list[int]]
    scores = np.full(width, -np.inf)
    scores[0] = 0.0  # all beams are the same at first
    tokens = np.full(width, start)
    done: list[tuple[float, list[int]]] = []
    for length in range(1, max_steps + 1):
        found = np.asarray(step(tokens))
        if found.ndim != 2 or len(found) != width or not 0 <= end < found.shape[1]:
            raise ValueError(
                f"step must return (width={width}, V) with end={end} below V, got {found.shape}"
            )
        total = scores[:, None] + found.astype(np.float64)
        total[np.isneginf(scores)] = -np.inf  # a row that is no beam may hold anything
        done += [
            (total[b, end] / length**penalty, [*live[b], end])
            for b in np.flatnonzero(total[:, end] > -np.inf)
        ]
        total[:, end] = -np.inf
        flat = total.reshape(-1)
        best = np.argpartition(-flat, width - 1)[:width]
        best = best[np.argsort(-flat[best], kind="stable")]
        scores = flat[best]
        rows, tokens = np.divmod(best, total.shape[1])
        live = [[*live[b], int(token)] for b, token in zip(rows, tokens, strict=True)]
        done = sorted(done, key=lambda each: -each[0])[:width]
        # a beam's score is at best what it has now, over the greatest length
        hope = scores.max() / max_steps**penalty
        if np.isneginf(scores).all() or (len(done) == width and done[-1][0] >= hope):
            break
        if reorder is not None and length < max_steps:
            reorder(rows)
    else:
        done += [
            (score / max_steps**penalty, beam)
            for score, beam in zip(scores, live, strict=True)
            if score > -np.inf
        ]
    done = sorted(done, key=lambda each: -each[0])[:width]
    return [sequence for _, sequence in done], np.array([score for score, _ in done])


def sample(
    logits: Array,
    rng: RNG = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    """Draw an index for each row from softmax(logits / temperature).

    Parameters
    ----------
    logits : ndarray (..., V)
    rng : None, int or numpy.random.Generator
    temperature : float
        0 takes the largest.
    top_k : int, optional
        Draw from the k largest only.
    top_p : float in (0, 1], optional
        Draw from the fewest that have probability p together (Holtzman et al. 2020, "The curious
        case of neural text degeneration"); after ``top_k``.

    Returns
    -------
    ndarray of int64, (...)

    Raises
    ------
    TypeError, ValueError
        An argument has another type or value, or a row has no finite logit or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> logits = np.log(np.array([[0.6, 0.3, 0.1]] * 5))
    >>> fastrnn.sample(logits, rng=0, top_p=0.8)
    array([0, 0, 0, 0, 1])
    """
    values = checks.floats("logits", logits)
    if checks.on_gpu(values):
        raise TypeError("logits must be on the host: copy them with cupy.asnumpy(logits)")
    checks.last_axis("logits", values.shape, "V")
    heat = checks.number("temperature", temperature)
    generator = checks.generator("rng", rng)
    size = values.shape[-1]
    rows = values.reshape(-1, size).astype(np.float64)
    if not (np.isfinite(rows.max(axis=-1)).all()):
        raise ValueError("logits must have a finite largest value in each row")
    if heat == 0:
        largest: Array = rows.argmax(axis=-1).reshape(values.shape[:-1])
        return largest
    order = np.argsort(-rows, axis=-1, kind="stable")
    ordered = np.take_along_axis(rows, order, -1)
    with np.errstate(under="ignore"):
        p = np.exp((ordered - ordered[:, :1]) / heat)
    if top_k is not None:
        p[:, checks.size("top_k", top_k) :] = 0
    if top_p is not None:
        share = checks.number("top_p", top_p)
        if not 0 < share <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {share}")
        p /= p.sum(axis=-1, keepdims=True)
        before = p.cumsum(axis=-1) - p
        p[before >= share] = 0
    total = p.cumsum(axis=-1)
    drawn = generator.random(len(rows))[:, None] * total[:, -1:]
    index = (total <= drawn).sum(axis=-1)
    # rounding may take a draw to the very end, behind the last of any probability
    index = np.minimum(index, (p > 0).sum(axis=-1) - 1)
    drawn_at: Array = np.take_along_axis(order, index[:, None], -1)
    return drawn_at.reshape(values.shape[:-1])
