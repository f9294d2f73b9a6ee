"""The loops of CTC and CRF, a time step after the other, all rows of a batch at once: the readable
reference. Everything is in float64 and in logarithms.
"""

from __future__ import annotations

import numpy as np

from ..typing import Array


def ctc(
    logits: Array, targets: Array, steps: Array, labels: Array, blank: int, threads: int
) -> tuple[Array, Array]:
    """Negative log-likelihood of each row, and its gradient by the logits.

    Parameters
    ----------
    logits : (T, B, C)
    targets : (B, S) int64
    steps, labels : (B,) int64
        How many of T and of S are valid in each row.

    Returns
    -------
    losses : (B,) float64
    dlogits : (T, B, C), of the logits' dtype; NaN in a row whose loss is not finite, 0 past its end
    """
    T, B, _ = logits.shape
    S = targets.shape[1]
    rows = np.arange(B)
    with np.errstate(all="ignore"):
        log_p = log_softmax(logits.astype(np.float64))
        # The labels with a blank before and behind each: states 0 .. 2 S.
        states = np.full((B, 2 * S + 1), blank)
        states[:, 1::2] = targets
        leap = np.zeros(states.shape, bool)  # from two states before: no blank between like labels
        leap[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
        inside = np.arange(2 * S + 1) < 2 * labels[:, None] + 1
        emit = log_p[:, rows[:, None], states]

        alphas = np.full((T, B, 2 * S + 1), -np.inf)
        alpha = np.full((B, 2 * S + 1), -np.inf)
        alpha[:, 0] = 0  # before the first step: as if a blank had been
        for t in range(T):
            moved = _three(alpha, leap) if t else _first(alpha)
            moved = np.where(inside, moved + emit[t], -np.inf)
            alpha = np.where(steps[:, None] > t, moved, alpha)
            alphas[t] = alpha
        ends = np.zeros(inside.shape, bool)
        ends[rows, 2 * labels] = True
        ends[rows, np.maximum(2 * labels - 1, 0)] = True
        # without any step there is only the empty sequence
        losses = -np.logaddexp.reduce(np.where(ends, alpha, -np.inf), axis=1)

        dlogits = np.zeros(logits.shape)
        beta = np.full((B, 2 * S + 1), -np.inf)
        for t in reversed(range(T)):
            if t + 1 < T:
                back = _three((beta + emit[t + 1])[:, ::-1], np.roll(leap, -2, 1)[:, ::-1])[:, ::-1]
                beta = np.where(steps[:, None] > t + 1, back, beta)
            last = steps[:, None] == t + 1
            beta = np.where(last, np.where(ends, 0.0, -np.inf), beta)
            share = np.exp(alphas[t] + beta + losses[:, None])
            valid = steps > t
            grad = np.exp(log_p[t])
            np.subtract.at(grad, (rows[:, None], states), share)
            dlogits[t] = np.where(valid[:, None], grad, 0)
            dlogits[t, valid & ~np.isfinite(losses)] = np.nan
    return losses, dlogits.astype(logits.dtype)


def _first(alpha: Array) -> Array:
    """What reaches each state at the first step: the first blank, and the first label."""
    moved = alpha.copy()
    moved[:, 1:2] = alpha[:, :1]
    return moved


def _three(alpha: Array, leap: Array) -> Array:
    """What reaches each state: from itself, the one before, and the one before that if it may."""
    moved = alpha.copy()
    moved[:, 1:] = np.logaddexp(moved[:, 1:], alpha[:, :-1])
    two = np.where(leap[:, 2:], alpha[:, :-2], -np.inf)
    moved[:, 2:] = np.logaddexp(moved[:, 2:], two)
    return moved


def log_softmax(z: Array) -> Array:
    """Over the last axis."""
    shifted = z - z.max(axis=-1, keepdims=True)
    total: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return total


def crf(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array, threads: int
) -> tuple[Array, Array, Array]:
    """Logarithm of the sum over all taggings, and what their mixture has on average.

    Parameters
    ----------
    scores : (T, B, C) float64
    transitions : (C, C) float64, [i, j] from i to j
    start, end : (C,) float64
    lengths : (B,) int64

    Returns
    -------
    log_z : (B,); 0 for a row of no steps
    marginals : (T, B, C); 0 past a row's end
    pairs : (C, C)
        How often j follows i, summed over rows and steps.
    """
    T, B, C = scores.shape
    alphas = np.zeros((T, B, C))
    log_z = np.zeros(B)
    marginals, pairs = np.zeros((T, B, C)), np.zeros((C, C))
    with np.errstate(all="ignore"):
        alpha = np.zeros((B, C))
        for t in range(T):
            if t == 0:
                moved = scores[0] + start
            else:
                moved = _log_sum(alpha[:, :, None] + transitions, 1) + scores[t]
            alpha = np.where(lengths[:, None] > t, moved, alpha)
            alphas[t] = alpha
        some = lengths > 0
        log_z[some] = _log_sum(alpha + end, 1)[some]
        beta = np.zeros((B, C))
        for t in reversed(range(T)):
            valid, inner = lengths > t, lengths > t + 1
            if t + 1 < T:
                ahead = transitions + (scores[t + 1] + beta)[:, None, :]
                both = np.exp(alphas[t][:, :, None] + ahead - log_z[:, None, None])
                pairs += both[inner].sum(axis=0)
                beta = np.where(inner[:, None], _log_sum(ahead, 2), beta)
            beta = np.where(lengths[:, None] == t + 1, end, beta)
            share = np.exp(alphas[t] + beta - log_z[:, None])
            marginals[t] = np.where(valid[:, None], share, 0)
    return log_z, marginals, pairs


def viterbi(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array, threads: int
) -> Array:
    """The best tagging of each row, (T, B) int64, -1 past its end; see `crf`."""
    T, B, C = scores.shape
    tags = np.full((T, B), -1)
    origin = np.zeros((T, B, C), np.int64)
    best = np.zeros((B, C))
    with np.errstate(invalid="ignore"):
        for t in range(T):
            if t == 0:
                moved = scores[0] + start
            else:
                both = best[:, :, None] + transitions
                origin[t] = both.argmax(axis=1)
                moved = both.max(axis=1) + scores[t]
            best = np.where(lengths[:, None] > t, moved, best)
        tag = (best + end).argmax(axis=1)
    for t in reversed(range(T)):
        valid = lengths > t
        tags[t] = np.where(valid, tag, -1)
        tag = np.where(valid, origin[t, np.arange(B), tag], tag)
    return tags


def _log_sum(a: Array, axis: int) -> Array:
    """log(sum(exp(a))) over an axis; of nothing but -inf it is -inf."""
    top = a.max(axis=axis, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    total: Array = np.log(np.exp(a - top).sum(axis=axis)) + np.squeeze(top, axis)
    return total
