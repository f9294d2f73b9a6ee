"""The loops of CTC and CRF, compiled by Numba a row of the batch at a time; see `loops_numpy`."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from ..typing import Array

_compiled: Any = numba.njit(nogil=True, error_model="numpy")


def ctc(
    logits: Array, targets: Array, steps: Array, labels: Array, blank: int, threads: int
) -> tuple[Array, Array]:
    """See `loops_numpy.ctc`."""
    losses, dlogits = np.zeros(logits.shape[1]), np.zeros_like(logits)
    for b in range(len(losses)):
        target = targets[b, : labels[b]]
        losses[b] = _ctc_row(logits[: steps[b], b], target, blank, dlogits[: steps[b], b])
    return losses, dlogits


@_compiled  # type: ignore[untyped-decorator]
def _add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


@_compiled  # type: ignore[untyped-decorator]
def _ctc_row(logits: Array, target: Array, blank: int, dlogits: Array) -> float:
    """The loss of one row (T, C); writes its gradient."""
    T, C = logits.shape
    count = 2 * len(target) + 1
    if T == 0:
        return 0.0 if count == 1 else math.inf
    state = np.full(count, blank)
    state[1::2] = target
    log_p = np.empty((T, C))
    for t in range(T):
        top, total = -math.inf, 0.0
        for k in range(C):
            value = float(logits[t, k])
            top = value if value > top or value != value else top
        for k in range(C):
            total += math.exp(logits[t, k] - top)
        for k in range(C):
            log_p[t, k] = logits[t, k] - top - math.log(total)
    alpha = np.full((T, count), -math.inf)
    for t in range(T):
        for s in range(count):
            if t == 0:
                reached = 0.0 if s < 2 else -math.inf
            else:
                reached = alpha[t - 1, s]
                if s > 0:
                    reached = _add(reached, alpha[t - 1, s - 1])
                if s > 1 and state[s] != blank and state[s] != state[s - 2]:
                    reached = _add(reached, alpha[t - 1, s - 2])
            alpha[t, s] = reached + log_p[t, state[s]]
    total = alpha[T - 1, count - 1]
    if count > 1:
        total = _add(total, alpha[T - 1, count - 2])
    if not math.isfinite(total):
        dlogits[:] = np.nan
        return float(-total)
    beta, ahead = np.full(count, -math.inf), np.full(count + 2, -math.inf)
    beta[max(count - 2, 0) :] = 0.0
    share = np.empty(C)
    for t in range(T - 1, -1, -1):
        if t < T - 1:
            for s in range(count):
                ahead[s] = beta[s] + log_p[t + 1, state[s]]
            for s in range(count):
                beta[s] = _add(ahead[s], ahead[s + 1])
                if s + 2 < count and state[s + 2] != blank and state[s + 2] != state[s]:
                    beta[s] = _add(beta[s], ahead[s + 2])
        for k in range(C):
            share[k] = math.exp(log_p[t, k])
        for s in range(count):
            share[state[s]] -= math.exp(alpha[t, s] + beta[s] - total)
        for k in range(C):
            dlogits[t, k] = share[k]
    return float(-total)


def crf(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array, threads: int
) -> tuple[Array, Array, Array]:
    """See `loops_numpy.crf`."""
    T, B, C = scores.shape
    log_z, marginals, pairs = np.zeros(B), np.zeros((T, B, C)), np.zeros((C, C))
    for b in range(B):
        n = lengths[b]
        if n:
            row = scores[:n, b], transitions, start, end, marginals[:n, b], pairs
            log_z[b] = _crf_row(*row)
    return log_z, marginals, pairs


@_compiled  # type: ignore[untyped-decorator]
def _log_sum(a: Array) -> float:
    top = float(a.max())
    if top == -math.inf:
        return top
    total = 0.0
    for value in a:
        total += math.exp(value - top)
    return math.log(total) + top


@_compiled  # type: ignore[untyped-decorator]
def _crf_row(
    scores: Array, transitions: Array, start: Array, end: Array, marginals: Array, pairs: Array
) -> float:
    """log Z of one row (T, C), T > 0; writes its marginals and adds to pairs."""
    T, C = scores.shape
    alpha = np.empty((T, C))
    alpha[0] = scores[0] + start
    for t in range(1, T):
        for j in range(C):
            alpha[t, j] = _log_sum(alpha[t - 1] + transitions[:, j]) + scores[t, j]
    log_z = float(_log_sum(alpha[T - 1] + end))
    beta, ahead = end.copy(), np.empty(C)
    for t in range(T - 1, -1, -1):
        if t < T - 1:
            ahead[:] = scores[t + 1] + beta
            for i in range(C):
                beta[i] = _log_sum(transitions[i] + ahead)
                for j in range(C):
                    pairs[i, j] += math.exp(alpha[t, i] + transitions[i, j] + ahead[j] - log_z)
        for j in range(C):
            marginals[t, j] = math.exp(alpha[t, j] + beta[j] - log_z)
    return log_z


def viterbi(
    scores: Array, transitions: Array, start: Array, end: Array, lengths: Array, threads: int
) -> Array:
    """See `loops_numpy.viterbi`."""
    T, B, _ = scores.shape
    tags = np.full((T, B), -1)
    for b in range(B):
        n = lengths[b]
        if n:
            _viterbi_row(scores[:n, b], transitions, start, end, tags[:n, b])
    return tags


@_compiled  # type: ignore[untyped-decorator]
def _viterbi_row(scores: Array, transitions: Array, start: Array, end: Array, tags: Array) -> None:
    """Write the best tagging of one row (T, C), T > 0."""
    T, C = scores.shape
    origin = np.zeros((T, C), np.int64)
    best, moved = scores[0] + start, np.empty(C)
    for t in range(1, T):
        for j in range(C):
            both = best + transitions[:, j]
            origin[t, j] = both.argmax()
            moved[j] = both[origin[t, j]] + scores[t, j]
        best[:] = moved
    tag = (best + end).argmax()
    for t in range(T - 1, -1, -1):
        tags[t] = tag
        tag = origin[t, tag]
