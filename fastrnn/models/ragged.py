"""Sequences of several lengths: padded to one array, and gathered into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks
from ..checks import RNG
from ..typing import Array


def pad(
    sequences: Sequence[ArrayLike],
    *,
    value: float = 0,
    dtype: DTypeLike | None = None,
    batch_first: bool = False,
) -> tuple[Array, Array]:
    """Put sequences of several lengths into one array.

    Parameters
    ----------
    sequences : list of arrays (T_b, ...), or of lists
        All of one shape but for their lengths, which may be 0.
    value : number
        What stands past a sequence's end.
    dtype : optional
        Of the array; by default that which NumPy gives all sequences together, empty ones aside.
    batch_first : bool
        Return (B, T, ...).

    Returns
    -------
    array : ndarray (T, B, ...), T the longest length
    lengths : ndarray (B,) of int64

    Raises
    ------
    TypeError
        ``sequences`` is no list of sequences.
    ValueError
        It is empty, or the sequences' shapes differ in more than the length.

    Examples
    --------
    >>> import fastrnn
    >>> array, lengths = fastrnn.pad([[1, 2, 3], [4], []])
    >>> array
    array([[1, 4, 0],
           [2, 0, 0],
           [3, 0, 0]])
    >>> lengths
    array([3, 1, 0])
    """
    if isinstance(sequences, (str, bytes)) or not isinstance(sequences, (Sequence, np.ndarray)):
        raise TypeError(f"sequences must be a list, got {checks.type_name(sequences)}")
    if not len(sequences):
        raise ValueError("sequences must hold a sequence, got none")
    arrays = [checks.like_array(f"sequences[{b}]", each) for b, each in enumerate(sequences)]
    for b, each in enumerate(arrays):
        if not each.ndim:
            raise TypeError(
                f"sequences[{b}] must be a sequence, got {checks.type_name(sequences[b])}"
            )
    some = [each for each in arrays if each.size] or arrays
    rest = some[0].shape[1:]
    for b, each in enumerate(arrays):
        if each.shape[1:] != rest and (each.size or each.ndim > 1):
            raise ValueError(
                f"sequences must have one shape but for their lengths: {some[0].shape} in one, "
                f"{each.shape} in sequences[{b}]"
            )
    lengths = np.array([len(each) for each in arrays], np.int64)
    kind = np.result_type(*some) if dtype is None else np.dtype(dtype)
    out = np.full((lengths.max(), len(arrays), *rest), value, kind)
    for b, each in enumerate(arrays):
        if each.size:
            out[: len(each), b] = each
    checks.flag("batch_first", batch_first)
    return np.ascontiguousarray(out.swapaxes(0, 1)) if batch_first else out, lengths


def batches(lengths: ArrayLike, batch_size: int, rng: RNG = None) -> list[Array]:
    """Gather rows of similar lengths into batches, in a random order.

    Rows are shuffled, sorted by length (equal ones stay shuffled), cut into batches, and these
    shuffled: padding is little, and every row comes once.

    Parameters
    ----------
    lengths : ints (N,), or a list of sequences
    batch_size : int
        Rows of a batch; one batch, of the longest rows, may have fewer.
    rng : None, int or numpy.random.Generator

    Returns
    -------
    list of ndarray of int64
        The rows' numbers.

    Raises
    ------
    TypeError, ValueError
        An argument has another type, shape or value.

    Examples
    --------
    >>> import fastrnn
    >>> [batch.tolist() for batch in fastrnn.batches([9, 2, 8, 1, 5], 2, rng=0)]
    [[0], [3, 1], [4, 2]]
    """
    size = checks.size("batch_size", batch_size)
    generator = checks.generator("rng", rng)
    if isinstance(lengths, (list, tuple)) and any(hasattr(each, "__len__") for each in lengths):
        lengths = [len(each) for each in lengths]
    counts = checks.like_array("lengths", lengths)
    if counts.ndim != 1:
        raise checks.wrong_shape("lengths", counts.shape, [("N", None)])
    if counts.size and counts.dtype.kind not in "iu":
        raise TypeError(f"lengths must be ints, got {counts.dtype}")
    order = generator.permutation(len(counts))
    order = order[np.argsort(counts[order], kind="stable")]
    cut = [order[start : start + size] for start in range(0, len(order), size)]
    return [cut[n] for n in generator.permutation(len(cut))]
