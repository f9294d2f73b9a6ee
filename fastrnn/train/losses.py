"""Losses that return their gradient, and the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .. import backends, checks
from ..config import get_num_threads
from ..typing import Array
from . import engine


class Flat(Protocol):
    """What a layer's `backward` returned, of ours or of one's own."""

    @property
    def flat(self) -> Array:
        """All gradients by parameters, as one vector."""


AnyGradients = Flat | Iterable[Flat] | Mapping[Any, Flat]


def softmax_cross_entropy(
    logits: Array,
    targets: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """Mean cross entropy of softmax(logits) against class indices, and its gradient.

    ::

        loss = mean(log(sum_k exp(logits[..., k])) - logits[..., target])
        dlogits = (softmax(logits) - onehot(target)) / n

    Computed with the largest logit of each place subtracted, so that no finite logit overflows.

    Parameters
    ----------
    logits : ndarray of float32 or float64, (..., C)
        NumPy's or CuPy's, and so are the others.
    targets : ints, (...)
        Indices in 0..C-1. Where `mask` is False they are not looked at.
    mask : bools, (...), optional
        True where a place counts; all do by default.
    label_smoothing : float in [0, 1)
        Share of the target's weight that is spread evenly over all C classes, in place of onehot:
        (1 - s) onehot + s / C (Szegedy et al. 2016, "Rethinking the inception architecture for
        computer vision").

    Returns
    -------
    loss : float, or on a GPU an array () of float64, which nobody has waited for
        In nats, the mean over the n places that count; 0.0 if none does.
    dlogits : ndarray, (..., C)
        Gradient of `loss`, of the logits' dtype; 0 at places that do not count.

    Raises
    ------
    TypeError
        A dtype is not one of those above.
    ValueError
        A shape differs, C is 0, or a target that counts is outside 0..C-1. On a GPU, whose answer
        a check would wait for, such a target makes the loss and its place of dlogits NaN instead.

    See Also
    --------
    mse, ctc_loss

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> loss, dlogits = fastrnn.softmax_cross_entropy(np.zeros((2, 4)), [0, 3])
    >>> round(loss, 4), dlogits[0].tolist()
    (1.3863, [-0.375, 0.125, 0.125, 0.125])
    """
    logits = checks.floats("logits", logits)
    checks.last_axis("logits", logits.shape, "C")
    classes = logits.shape[-1]
    index = checks.indices("targets", targets, logits, "logits")
    checks.same_shape("targets", index.shape, logits.shape[:-1])
    smoothing = checks.fraction("label_smoothing", label_smoothing)
    xp = backends.namespace(logits)
    with backends.ignore_fp_errors(logits):
        chosen = None
        if mask is not None:
            chosen = checks.places("mask", mask, logits, "logits")
            checks.same_shape("mask", chosen.shape, index.shape)
            index = xp.where(chosen, index, 0)
        flat = index.reshape(-1)
        if xp is np:
            checks.index_range("targets", flat, classes, ValueError)
        else:
            flat = flat.astype(np.int64, copy=False)  # in which every limit can be said
            wrong = (flat < 0) | (flat >= classes)
        if chosen is not None:
            chosen = chosen.reshape(-1)
        count = flat.size if chosen is None else chosen.sum()
        run = engine.function("cross_entropy", logits)
        if run is not None:
            rows = engine.contiguous(logits).reshape(-1, classes)
            mask = None if chosen is None else engine.contiguous(chosen)
            count = max(int(count), 1)
            targets = flat.astype(np.int64)
            losses, dlogits = run(rows, targets, mask, smoothing, 1 / count, get_num_threads())
            return float(losses.sum()) / count, dlogits.reshape(logits.shape)
        losses, dlogits = _cross_entropy(xp, logits.reshape(-1, classes), flat, smoothing)
        if xp is not np:
            losses[wrong] = dlogits[wrong] = np.nan
        if chosen is not None:
            losses = xp.where(chosen, losses, 0)
            dlogits[~chosen] = 0
        loss, factor = _mean(xp, losses, count, 1)
        dlogits *= xp.asarray(factor, dlogits.dtype)
    return loss, dlogits.reshape(logits.shape)


def _cross_entropy(xp: Any, logits: Array, targets: Array, smoothing: float) -> tuple[Array, Array]:
    """Return the losses of the rows of logits (n, C), and the gradient of their sum."""
    place, classes = xp.arange(targets.size), logits.shape[1]
    # contiguous: NumPy sums pairwise along the last axis only if it is the densest
    logits = xp.ascontiguousarray(logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    dlogits = xp.exp(shifted)
    total = dlogits.sum(axis=-1)
    hit = shifted[place, targets]
    losses = xp.log(total) - hit
    dlogits /= total[:, None]
    if smoothing:
        losses += (hit - shifted.sum(axis=-1) / classes) * smoothing
        dlogits -= smoothing / classes
    dlogits[place, targets] -= 1 - smoothing
    return losses, dlogits


def _mean(xp: Any, values: Array, count: Any, slope: int) -> tuple[Any, Any]:
    """Return the sum of the values, in float64, over their number, and slope over that number."""
    count = max(count, 1) if isinstance(count, int) else xp.maximum(count, 1)
    loss = values.sum(dtype=np.float64) / count
    return float(loss) if xp is np else loss, slope / count


def mse(pred: Array, target: Array, mask: ArrayLike | None = None) -> tuple[float, Array]:
    """Mean squared error, and its gradient with respect to `pred`.

    ::

        loss = mean((pred - target)**2)
        dpred = 2 (pred - target) / n

    Parameters
    ----------
    pred : ndarray of float32 or float64, (...)
        NumPy's or CuPy's, and so are the others.
    target : ndarray, shape and dtype of `pred`
    mask : bools, optional
        The shape of `pred`, or of its first axes: (T, B) for a `pred` of (T, B, O). True where a
        place counts; all do by default.

    Returns
    -------
    loss : float, or on a GPU an array () of float64, which nobody has waited for
        Mean over the n values that count; 0.0 if none does.
    dpred : ndarray, shape and dtype of `pred`
        0 where a value does not count.

    Raises
    ------
    TypeError
        A dtype is not one of those above.
    ValueError
        A shape differs.

    See Also
    --------
    softmax_cross_entropy

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> loss, dpred = fastrnn.mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> loss, dpred.tolist()
    (2.0, [0.0, -2.0])
    """
    pred = checks.floats("pred", pred)
    target = checks.array("target", target, pred.dtype, pred, "pred")
    checks.same_shape("target", target.shape, pred.shape)
    xp = backends.namespace(pred)
    count: Any = pred.size
    with backends.ignore_fp_errors(pred):
        dpred: Array = xp.asarray(pred - target)
        if mask is not None:
            chosen = checks.places("mask", mask, pred, "pred")
            checks.same_shape("mask", chosen.shape, pred.shape[: chosen.ndim])
            dpred[~chosen] = 0
            count = chosen.sum() * math.prod(pred.shape[chosen.ndim :])
        loss, factor = _mean(xp, xp.square(dpred.astype(np.float64)), count, 2)
        dpred *= xp.asarray(factor, dpred.dtype)
    return loss, dpred


def clip_grad_norm(grads: AnyGradients, max_norm: float) -> float:
    """Scale gradients in place so that their common 2-norm is at most `max_norm`.

    The factor is min(1, max_norm / (norm + 1e-6)), as in `torch.nn.utils.clip_grad_norm_`; a norm
    that is not finite makes all gradients NaN, so that it is seen.

    Parameters
    ----------
    grads : what a layer's `backward` returned, an iterable of such, or a mapping to such
        `grads.flat`, and with it every view of `grads.params`, is scaled.
    max_norm : float
        At least 0.

    Returns
    -------
    float
        The norm before clipping, accumulated in float64; one from a GPU is waited for.

    Raises
    ------
    TypeError
        `grads` has no parameter gradients, or `max_norm` is not a number.
    ValueError
        `max_norm` is negative or NaN.

    See Also
    --------
    SGD, Adam

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> linear = fastrnn.Linear(3, 2, rng=0)
    >>> y, tape = linear.forward(np.ones((4, 3), np.float32))
    >>> grads = linear.backward(tape, np.ones_like(y))
    >>> norm = fastrnn.clip_grad_norm(grads, 1.0)
    >>> norm > 1, round(float(np.linalg.norm(grads.flat)), 3)
    (True, 1.0)
    """
    vectors = gradient_vectors(grads)
    limit = checks.number("max_norm", max_norm, at_least=0)
    with np.errstate(all="ignore"):  # NaN and inf flow through
        norm = _norm(vectors)
        factor = limit / (norm + 1e-6) if math.isfinite(norm) else math.nan
        if not factor >= 1:
            for vector in vectors:
                with backends.device_of(vector):
                    if limit > 0 and factor < np.finfo(vector.dtype).smallest_normal:
                        root = math.sqrt(limit) / math.sqrt(norm + 1e-6)
                        vector *= root  # in two steps, neither of which loses digits
                        vector *= root
                    else:
                        vector *= factor
    return norm


def gradient_list(grads: Any) -> list[Any]:
    """One or several layers' gradients, also those that a mapping holds."""
    if isinstance(grads, Mapping):
        return list(grads.values())
    return list(grads) if isinstance(grads, Iterable) else [grads]


def gradient_vectors(grads: Any) -> list[Array]:
    """The flat vectors of one or several layers' gradients."""
    vectors = []
    for each in gradient_list(grads):
        flat: Any = getattr(each, "flat", None)
        if not isinstance(flat, np.ndarray) and not checks.on_gpu(flat):
            raise TypeError(
                "grads must be what backward() returned, or a list of such, "
                f"got {checks.type_name(each)}"
            )
        vectors.append(flat)
    return vectors


def _norm(vectors: list[Array]) -> float:
    """The 2-norm of all vectors together, accumulated in float64.

    As BLAS's nrm2, it overflows or underflows only if the norm itself does: numbers whose squares
    would are scaled first.
    """
    total = _sum_of_squares(vectors)
    if _LEAST_SQUARES <= total < math.inf:
        return math.sqrt(total)
    largest = 0.0
    for vector in vectors:
        if vector.size:
            with backends.device_of(vector):
                largest = float(np.maximum(largest, float(abs(vector).max())))  # NaN is the larger
    if largest == 0 or not math.isfinite(largest):
        return largest
    exponent = math.frexp(largest)[1]
    return float(np.ldexp(math.sqrt(_sum_of_squares(vectors, -exponent)), exponent))


_LEAST_SQUARES = 1e-290
"""Below, squares may have underflowed that count."""


def _sum_of_squares(vectors: list[Array], exponent: int = 0) -> float:
    """In float64, of the numbers times 2**exponent, by blocks that stay in the cache and are too
    small for BLAS to wake threads."""
    sums = []
    for vector in vectors:
        run = None if exponent else engine.function("sum_of_squares", vector)
        if run is not None:
            sums.append(run(engine.contiguous(vector), get_num_threads()))
            continue
        block = max(vector.size, 1) if checks.on_gpu(vector) else 1 << 13
        xp = backends.namespace(vector)
        with backends.device_of(vector):
            for start in range(0, vector.size, block):
                part = vector[start : start + block].astype(np.float64)
                if exponent:
                    part = xp.ldexp(part, exponent)
                sums.append(float(part @ part))
    return float(np.sum(sums))
