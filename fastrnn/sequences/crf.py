"""Conditional random fields over a chain: scores of whole taggings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .. import backends, checks, config
from ..checks import RNG
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..train.feedforward import FeedForward
from ..typing import Array, Device, FloatDType, HostBackend
from . import loops

_NAMES = ("transitions", "start_transitions", "end_transitions")
_LIMITS = ("allowed", "allowed_start", "allowed_end")


class CRF(FeedForward):
    """A conditional random field over a chain of tags (Lafferty et al. 2001, "Conditional random
    fields: probabilistic models for segmenting and labeling sequence data").

    ::

        s(y) = start[y_1] + sum_t scores[t, y_t] + sum_t transitions[y_t, y_t+1] + end[y_T]
        p(y) = exp(s(y)) / sum over all y' of exp(s(y'))

    The parameters are ``transitions (C, C)``, [i, j] from i to j, ``start_transitions (C,)`` and
    ``end_transitions (C,)``.

    Parameters
    ----------
    num_tags : int
        C.
    allowed : bools (C, C), optional
        [i, j]: whether j may follow i. What is not allowed has probability 0 in all methods, and
        its parameter no gradient. `bio_transitions` makes these three.
    allowed_start, allowed_end : bools (C,), optional
        Whether a sequence may begin, or end, with a tag.
    dtype : float32 or float64
    rng : None, int or numpy.random.Generator
        Source of the initial values: uniform(-0.1, 0.1).
    device : {"cpu", "cuda"}
        Where the parameters and all arrays of a call are. The loops run on the host.
    backend : {"auto", "cpu", "numba", "numpy"}
        What runs them.

    Raises
    ------
    TypeError, ValueError
        An argument has another type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> tags = ["O", "B-CITY", "I-CITY"]
    >>> crf = fastrnn.CRF(3, **fastrnn.bio_transitions(tags), dtype=np.float64)
    >>> crf.flat_params[...] = 0
    >>> scores = np.log([[[0.6, 0.1, 0.3]], [[0.1, 0.1, 0.8]]])  # (T, B, C)
    >>> crf.decode(scores)[:, 0].tolist()  # "O I-CITY" would not do
    [1, 2]
    >>> crf.marginals(scores)[:, 0].round(2)
    array([[0.55, 0.45, 0.  ],
           [0.32, 0.32, 0.36]])
    >>> loss, grads = crf.loss(scores, np.array([[1], [2]]))
    >>> round(float(np.exp(-loss)), 2)
    0.36
    """

    num_tags = Setting[int]()
    backend = Setting[str]()

    _anchor: ClassVar[str] = "transitions"
    _known: ClassVar[re.Pattern[str]] = re.compile("((start|end)_)?transitions")

    def __init__(
        self,
        num_tags: int,
        *,
        allowed: ArrayLike | None = None,
        allowed_start: ArrayLike | None = None,
        allowed_end: ArrayLike | None = None,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        device: Device = "cpu",
        backend: HostBackend = "auto",
    ) -> None:
        size = checks.size("num_tags", num_tags)
        limits = allowed, allowed_start, allowed_end
        loops.get("crf", backend)
        settings = {
            "num_tags": size,
            **{
                name: None if value is None else _limit(name, value, size).tolist()
                for name, value in zip(_LIMITS, limits, strict=True)
            },
            "dtype": checks.float_dtype(dtype).name,
            "device": checks.choice("device", device, backends.DEVICES),
            "backend": backend,
        }
        generator = checks.generator("rng", rng)
        self._build(settings)
        drawn = generator.uniform(-0.1, 0.1, self.num_params)
        self.flat_params[:] = self._xp.asarray(drawn, self._dtype)

    def _build(self, config: dict[str, Any]) -> None:
        super()._build(config)
        self._limits = [
            None if config[name] is None else np.array(config[name]) for name in _LIMITS
        ]

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' names and shapes."""
        C = config["num_tags"]
        return dict(zip(_NAMES, ((C, C), (C,), (C,)), strict=True))

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        shape = shapes["transitions"]
        if len(shape) != 2:
            raise checks.wrong_shape("transitions", shape, (("C", None), ("C", None)))
        return {"num_tags": shape[0]}

    def loss(
        self, scores: Array, tags: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[float, LayerGradients]:
        """Return the negative log-likelihood, summed over the rows, over B, and its gradients.

        Parameters
        ----------
        scores : ndarray (T, B, C), or (T, C) of one sequence
        tags : ints in 0..C-1, (T, B), or (T,)
            Past a row's length they are not looked at.
        lengths : ints in 0..T, (B,), or one int; optional
            A row of length 0 adds nothing.

        Returns
        -------
        loss : float
        grads : LayerGradients
            ``x`` by the scores, ``params``.

        Raises
        ------
        TypeError
            An argument has another type or dtype.
        ValueError
            A shape differs, a value is out of its range, or the tags hold what is not allowed.
        """
        z, counts, alone = self._checked(scores, lengths)
        T, B, C = z.shape
        gold = checks.indices("tags", tags)
        checks.same_form("tags", gold.shape, [("T", T)] if alone else [("T", T), ("B", B)])
        gold = gold.reshape(T, B)
        valid = np.arange(T)[:, None] < counts
        checks.index_range("tags", gold[valid], C, ValueError)
        gold = np.where(valid, gold, 0).astype(np.int64)
        transitions, start, end = self._scores()
        inner = valid[1:]
        rows = np.flatnonzero(counts)
        last = gold[counts[rows] - 1, rows]
        self._check_allowed(gold, inner, rows, last)

        log_z, marginals, pairs = self._run("crf", z, counts)
        steps, at = np.nonzero(valid)
        hit = z[steps, at, gold[steps, at]].sum()
        moves = transitions[gold[:-1], gold[1:]]
        with np.errstate(all="ignore"):
            right = (
                hit + moves[inner].sum() + start[gold[0, rows]].sum() + end[last].sum()
                if T
                else 0.0
            )
            loss = float(log_z.sum() - right) / max(B, 1)

            first = marginals[0, rows].sum(axis=0) if T else np.zeros(C)
            final = marginals[counts[rows] - 1, rows].sum(axis=0)
            np.subtract.at(pairs, (gold[:-1][inner], gold[1:][inner]), 1.0)
            if T:
                np.subtract.at(first, gold[0, rows], 1.0)
            np.subtract.at(final, last, 1.0)
            marginals[steps, at, gold[steps, at]] -= 1.0
            marginals /= max(B, 1)
        params = self.params.gradients()
        for name, value in zip(_NAMES, (pairs, first, final), strict=True):
            value = value / max(B, 1)
            params[name] = loops.beside(self.flat_params, value.astype(self._dtype))
        dscores = loops.beside(self.flat_params, marginals.astype(self._dtype))
        return loss, LayerGradients(dscores[:, 0] if alone else dscores, params, self)

    def decode(self, scores: Array, lengths: ArrayLike | None = None) -> Array:
        """Return the best tagging of each row (Viterbi 1967), ints (T, B), or (T,) of one sequence;
        -1 past a row's length. On the host."""
        z, counts, alone = self._checked(scores, lengths)
        tags: Array = self._run("viterbi", z, counts)
        return tags[:, 0] if alone else tags

    def marginals(self, scores: Array, lengths: ArrayLike | None = None) -> Array:
        """Return the probability of each tag at each step, like the scores; 0 past a row's
        length."""
        z, counts, alone = self._checked(scores, lengths)
        shares = self._run("crf", z, counts)[1].astype(self._dtype)
        return loops.beside(self.flat_params, shares[:, 0] if alone else shares)

    def __call__(self, scores: Array, lengths: ArrayLike | None = None) -> Array:
        """The same as `decode`."""
        return self.decode(scores, lengths)

    def _scores(self) -> list[Array]:
        """The parameters on the host in float64, -inf where they are not allowed."""
        values = [self.params.on_host(self.params[name]).astype(np.float64) for name in _NAMES]
        return [
            value if limit is None else np.where(limit, value, -np.inf)
            for value, limit in zip(values, self._limits, strict=True)
        ]

    def _run(self, name: str, scores: Array, counts: Array) -> Any:
        run = loops.get(name, self.backend)
        return run(scores, *self._scores(), counts, config.get_num_threads())

    def _checked(self, scores: Any, lengths: Any) -> tuple[Array, Array, bool]:
        """Return scores (T, B, C) in float64 on the host, lengths, and if it is one sequence."""
        z = checks.array("scores", scores, self.dtype, self.flat_params)
        size = ("C", self.num_tags)
        if z.ndim not in (2, 3) or z.shape[-1] != self.num_tags:
            forms = [("T", None), ("B", None), size], [("T", None), size]
            raise checks.wrong_shape("scores", z.shape, *forms)
        alone = z.ndim == 2
        host = loops.on_host(z[:, None] if alone else z).astype(np.float64)
        steps, batch, _ = host.shape
        if lengths is None:
            return host, np.full(batch, steps, np.int64), alone
        return host, checks.lengths(lengths, steps, None if alone else batch), alone

    def _check_allowed(self, gold: Array, inner: Array, rows: Array, last: Array) -> None:
        """Raise if a row's tags hold what is not allowed."""
        allowed, start, end = self._limits
        if allowed is not None:
            wrong = np.argwhere(inner & ~allowed[gold[:-1], gold[1:]])
            if wrong.size:
                t, b = wrong[0]
                raise ValueError(
                    f"tags must hold allowed transitions, got {gold[t, b]} -> {gold[t + 1, b]} at "
                    f"step {t + 1} of row {b}"
                )
        for limit, tags, what in ((start, gold[:1, rows].reshape(-1), "begin"), (end, last, "end")):
            if limit is not None and not limit[tags].all():
                n = int(np.flatnonzero(~limit[tags])[0])
                raise ValueError(
                    f"tags must {what} with an allowed one, got {tags[n]} in row {rows[n]}"
                )


def bio_transitions(tags: Sequence[str]) -> dict[str, Array]:
    """Return what tags "O", "B-X", "I-X" (and "E-X", "S-X" of BIOES) allow to follow each other.

    I-X and E-X go on from B-X or I-X only. With E or S tags in the list a run of X must also be
    brought to its end: B-X and I-X are followed by I-X or E-X only.

    Parameters
    ----------
    tags : list of str

    Returns
    -------
    dict
        ``allowed``, ``allowed_start``, ``allowed_end``, arguments of `CRF`.

    Raises
    ------
    TypeError, ValueError
        ``tags`` is no list of such names.
    """
    if isinstance(tags, str) or not isinstance(tags, (list, tuple)):
        raise TypeError(f"tags must be a list of str, got {checks.type_name(tags)}")
    parts = []
    for n, tag in enumerate(tags):
        found = re.fullmatch(r"O|([BIES])-(.+)", tag) if isinstance(tag, str) else None
        if found is None:
            raise ValueError(f"tags[{n}] must be O, B-X, I-X, E-X or S-X, got {tag!r}")
        parts.append((found[1] or "O", found[2]))
    closed = any(kind in "ES" for kind, _ in parts)
    opens = {"B", "I"}

    def follows(before: tuple[str, str], after: tuple[str, str]) -> bool:
        goes_on = before[0] in opens and before[1] == after[1]
        if after[0] in ("I", "E"):
            return goes_on
        return not (closed and before[0] in opens)

    none = ("O", "")
    return {
        "allowed": np.array([[follows(a, b) for b in parts] for a in parts], bool),
        "allowed_start": np.array([follows(none, b) for b in parts], bool),
        "allowed_end": np.array([follows(a, none) for a in parts], bool),
    }


def _limit(name: str, value: Any, size: int) -> Array:
    limit = checks.like_array(name, value)
    form = [("C", size), ("C", size)] if name == "allowed" else [("C", size)]
    checks.same_form(name, limit.shape, form)
    if limit.dtype != np.bool_:
        raise TypeError(f"{name} must be bool, got {limit.dtype}")
    return limit
