"""The loops of CTC and CRF in C++; see `loops_numpy`."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..typing import Array

crf = _core.crf
viterbi = _core.viterbi


def ctc(
    logits: Array, targets: Array, steps: Array, labels: Array, blank: int, threads: int
) -> tuple[Array, Array]:
    """See `loops_numpy.ctc`."""
    run = _core.ctc32 if logits.dtype == np.float32 else _core.ctc64
    return run(logits, targets, steps, labels, blank, threads)
