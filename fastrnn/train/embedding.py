"""The table of vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .. import backends, checks
from ..checks import RNG
from ..docstrings import documented
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..typing import Array, Device, FloatDType
from .feedforward import FeedForward, Tape
from .sums import sum_runs


@documented
class Embedding(FeedForward):
    """A table of vectors looked up by index, as `torch.nn.Embedding`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table.
    <dtype>
    rng : None, int or numpy.random.Generator
        Source of the initial values: a standard normal distribution.
    <device>

    Attributes
    ----------
    <attributes>

    Raises
    ------
    <raises>

    See Also
    --------
    Linear

    Notes
    -----
    The parameter is ``weight (num_embeddings, embedding_dim)``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> table = fastrnn.Embedding(10, 4, rng=0)
    >>> np.array_equal(table([[3, 1]])[0, 1], table.params["weight"][1])
    True
    """

    num_embeddings = Setting[int]()
    embedding_dim = Setting[int]()

    _anchor: ClassVar[str] = "weight"
    _known: ClassVar[re.Pattern[str]] = re.compile("weight")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        device: Device = "cpu",
    ) -> None:
        config = {
            "num_embeddings": checks.size("num_embeddings", num_embeddings),
            "embedding_dim": checks.size("embedding_dim", embedding_dim),
            "dtype": checks.float_dtype(dtype).name,
            "device": checks.choice("device", device, backends.DEVICES),
        }
        generator = checks.generator("rng", rng)
        self._build(config)
        drawn = generator.standard_normal(self.num_params)
        self.flat_params[:] = self._xp.asarray(drawn, self._dtype)

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return ``weight (num_embeddings, embedding_dim)``."""
        return {"weight": (config["num_embeddings"], config["embedding_dim"])}

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        shape = shapes["weight"]
        if len(shape) != 2:
            form = (("num_embeddings", None), ("embedding_dim", None))
            raise checks.wrong_shape("weight", shape, form)
        return {"num_embeddings": shape[0], "embedding_dim": shape[1]}

    def __call__(self, x: ArrayLike) -> Array:
        """Return y (..., embedding_dim) for ints x (...).

        Raises
        ------
        TypeError
            x does not hold ints.
        IndexError
            An index is outside 0..num_embeddings-1; negative ones do not count from the end. On a
            GPU, whose answer a check would wait for, its row of y is NaN instead.
        """
        return self._look_up(self._checked(x))

    def forward(self, x: ArrayLike) -> tuple[Array, Tape]:
        """Return y as a call of the layer does, and a tape for `backward`.

        The tape references x, so x must not be changed before `backward`.
        """
        index = self._checked(x)
        return self._look_up(index), Tape(self, index)

    def backward(self, tape: Tape, dy: Array) -> LayerGradients:
        """Backpropagate.

        Parameters
        ----------
        tape : Tape
            From this layer's `forward`; it can be used any number of times.
        dy : ndarray like y
            Gradient of the loss by y.

        Returns
        -------
        LayerGradients
            `x` is None: an index has no gradient. One that is out of range, on a GPU, adds nothing.

        Raises
        ------
        TypeError, ValueError
            An argument has another type, dtype or shape, or the tape is another layer's.
        """
        dy = self._check_backward(tape, dy, self.embedding_dim)
        params = self.params.gradients()
        if tape.x.size:
            with backends.ignore_fp_errors(dy):
                rows = dy.reshape(-1, self.embedding_dim)
                sum_rows(tape.x.reshape(-1), rows, params["weight"])
        return LayerGradients(None, params, self)

    def _look_up(self, index: Array) -> Array:
        weight: Array = self.params["weight"]
        if self._xp is np:
            return weight[index]
        with backends.device_of(weight):
            flat = index.reshape(-1)
            rows = weight[flat]
            rows[(flat < 0) | (flat >= self.num_embeddings)] = np.nan  # CuPy took those modulo
        return rows.reshape(*index.shape, self.embedding_dim)

    def _checked(self, x: Any) -> Array:
        checked = checks.indices("x", x, self.flat_params)
        if self._xp is np:
            checks.index_range("x", checked, self.num_embeddings, IndexError)
            return checked
        with backends.device_of(checked):
            return checked.astype(np.int64, copy=False)  # in which every limit can be said


def sum_rows(index: Array, rows: Array, out: Array) -> None:
    """Write to rows of out, which is zeros, the sums of the rows (N, .) that have each index (N,).

    Not for N = 0.
    """
    # Rows of one index stand together after the sort and are summed as one run, which
    # np.add.at would do element by element, many times slower. A product with one-hot rows
    # would be as fast, and let a NaN in one row into all.
    xp = backends.namespace(out)
    order = xp.argsort(index, kind="stable")
    ordered = index[order]
    if xp is np:
        starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] ^ 1))
        out[ordered[starts]] = sum_runs(rows[order], starts)
    else:
        cuda: Any = backends.get("cuda")
        cuda.sum_runs(ordered, order, rows, out)
