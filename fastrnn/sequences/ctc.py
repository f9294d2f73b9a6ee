"""Connectionist temporal classification: labels without their times."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import checks, config
from ..typing import Array, HostBackend
from . import loops, loops_numpy


def ctc_loss(
    logits: Array,
    targets: ArrayLike,
    input_lengths: ArrayLike | None = None,
    target_lengths: ArrayLike | None = None,
    blank: int = 0,
    *,
    zero_infinity: bool = False,
    backend: HostBackend = "auto",
) -> tuple[float, Array]:
    """Loss of connectionist temporal classification, and its gradient (Graves et al. 2006,
    "Connectionist temporal classification: labelling unsegmented sequence data with recurrent
    neural networks").

    ::

        loss = -sum_b log(sum over the paths of row b: prod_t softmax(logits[t, b])[path[t]]) / B

    A path has a class or the blank at each step; it is of row b if what is left of it is the row's
    target, once like neighbours are made one and blanks are dropped.

    Parameters
    ----------
    logits : ndarray of float32 or float64, (T, B, C)
        Scores before a softmax, the blank's among them. NumPy's, or CuPy's, which are computed on
        the host.
    targets : ints (B, S)
        Classes in 0..C-1 but the blank; past a row's length they are not looked at.
    input_lengths : ints in 0..T, (B,), optional
        Valid steps of each row; by default T.
    target_lengths : ints in 0..S, (B,), optional
        Valid labels of each row; by default S. A row may have none.
    blank : int
    zero_infinity : bool
        Count a row whose target no path can give (too few steps) as 0, with a gradient of zeros,
        where by default the loss is inf, and that row's gradient NaN, as in torch.
    backend : {"auto", "cpu", "numba", "numpy"}
        What runs the loops.

    Returns
    -------
    loss : float
        Summed over the rows, over B; 0.0 if B is 0.
    dlogits : ndarray (T, B, C)
        Gradient of ``loss``; 0 past a row's length.

    Raises
    ------
    TypeError
        An argument has another type or dtype.
    ValueError
        A shape differs, or a value is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> logits = np.zeros((3, 1, 2))  # (T, B, C): a blank and one class, all alike
    >>> loss, dlogits = fastrnn.ctc_loss(logits, [[1]])
    >>> round(float(np.exp(-loss)) * 8)  # of the 8 paths: those with one run of 1
    6
    """
    z = checks.floats("logits", logits)
    if z.ndim != 3 or z.shape[-1] == 0:
        raise checks.wrong_shape("logits", z.shape, [("T", None), ("B", None), ("C", None)])
    T, B, C = z.shape
    blank = checks.size("blank", blank, at_least=0, below=C)
    labels = checks.indices("targets", targets)
    if labels.ndim != 2 or labels.shape[0] != B:
        raise checks.wrong_shape("targets", labels.shape, [("B", B), ("S", None)])
    S = labels.shape[1]
    steps = _lengths("input_lengths", input_lengths, "T", T, B)
    many = _lengths("target_lengths", target_lengths, "S", S, B)
    labels = np.where(np.arange(S) < many[:, None], labels, blank).astype(np.int64)
    used = labels[np.arange(S) < many[:, None]]
    checks.index_range("targets", used, C, ValueError)
    if (used == blank).any():
        raise ValueError(f"targets must not hold the blank, {blank}")
    checks.flag("zero_infinity", zero_infinity)

    host = loops.on_host(z)
    run = loops.get("ctc", backend)
    losses, dlogits = run(host, labels, steps, many, blank, config.get_num_threads())
    if zero_infinity:
        none = np.isposinf(losses)
        losses[none] = 0
        dlogits[:, none] = 0
    with np.errstate(all="ignore"):
        dlogits /= max(B, 1)
        loss = float(losses.sum()) / max(B, 1)
    return loss, loops.beside(z, dlogits)


def ctc_decode(
    logits: Array,
    lengths: ArrayLike | None = None,
    *,
    blank: int = 0,
    width: int | None = None,
) -> tuple[list[list[int]], Array]:
    """Read labels out of logits: of the best path, or the best labels of a prefix beam search.

    Parameters
    ----------
    logits : ndarray of float32 or float64, (T, B, C)
    lengths : ints in 0..T, (B,), optional
    blank : int
    width : int, optional
        None: of the most probable path (greedy). Else search with so many beginnings a step, whose
        probability is summed over their paths (Graves 2012, "Supervised sequence labelling with
        recurrent neural networks", 7.5).

    Returns
    -------
    labels : list of lists of int
        One a row.
    scores : ndarray (B,) of float64
        Log-probability of the path, or of the labels as far as the search has kept their paths.

    Raises
    ------
    TypeError, ValueError
        An argument has another type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> p = np.array([[[0.6, 0.4]], [[0.6, 0.4]]])  # (T, B, C)
    >>> fastrnn.ctc_decode(np.log(p))[0]  # the path of two blanks has .36
    [[]]
    >>> fastrnn.ctc_decode(np.log(p), width=4)[0]  # "1" has three paths, .64 together
    [[1]]
    """
    z = checks.floats("logits", logits)
    if z.ndim != 3 or z.shape[-1] == 0:
        raise checks.wrong_shape("logits", z.shape, [("T", None), ("B", None), ("C", None)])
    T, B, C = z.shape
    blank = checks.size("blank", blank, at_least=0, below=C)
    steps = _lengths("lengths", lengths, "T", T, B)
    host = loops.on_host(z).astype(np.float64)
    with np.errstate(all="ignore"):
        log_p = loops_numpy.log_softmax(host) if T else host
    if width is not None:
        checks.size("width", width)
        found = [_search(log_p[: steps[b], b], blank, width) for b in range(B)]
        return [labels for labels, _ in found], np.array([score for _, score in found])
    paths = log_p.argmax(axis=-1)
    valid = np.arange(T)[:, None] < steps
    scores = np.where(valid, log_p.max(axis=-1), 0).sum(axis=0)
    kept = valid & (paths != blank)
    kept[1:] &= paths[1:] != paths[:-1]
    return [paths[kept[:, b], b].tolist() for b in range(B)], scores


def _search(log_p: Array, blank: int, width: int) -> tuple[list[int], float]:
    """The best labels of one row (T, C), and their log-probability."""
    none = -math.inf
    # log-probabilities of each beginning, by paths that end in a blank and by others
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, none)}
    for now in log_p.tolist():
        grown: dict[tuple[int, ...], tuple[float, float]] = {}

        def reach(labels: tuple[int, ...], by_blank: float, by_label: float) -> None:
            old = grown.get(labels, (none, none))  # noqa: B023
            grown[labels] = _add(old[0], by_blank), _add(old[1], by_label)  # noqa: B023

        for labels, (by_blank, by_label) in beams.items():
            total = _add(by_blank, by_label)
            reach(labels, total + now[blank], none)
            for k, score in enumerate(now):
                if k == blank:
                    continue
                if labels and k == labels[-1]:
                    reach(labels, none, by_label + score)
                    reach((*labels, k), none, by_blank + score)
                else:
                    reach((*labels, k), none, total + score)
        best = sorted(grown.items(), key=lambda each: -_add(*each[1]))
        beams = dict(best[:width])
    labels, (by_blank, by_label) = max(beams.items(), key=lambda each: _add(*each[1]))
    return list(labels), _add(by_blank, by_label)


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _lengths(name: str, value: Any, letter: str, most: int, batch: int) -> Array:
    if value is None:
        return np.full(batch, most, np.int64)
    counts = checks.like_array(name, value)
    checks.same_form(name, counts.shape, [("B", batch)])
    if counts.dtype.kind not in "iu" and batch:
        raise TypeError(f"{name} must be ints, got {counts.dtype}")
    wrong = np.flatnonzero((counts < 0) | (counts > most))
    if wrong.size:
        row = wrong[0]
        raise ValueError(f"{name} must be in 0..{letter}={most}, got {counts[row]} in row {row}")
    return counts.astype(np.int64)
