"""Attention: a mean of a memory's steps, weighed by how well each fits a query."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from .. import backends, checks
from ..checks import RNG
from ..gradients import LayerGradients
from ..parametrized import Setting
from ..train.feedforward import FeedForward
from ..typing import Array, Device, FloatDType, Score
from .joints import valid_steps


@dataclass(frozen=True, eq=False, repr=False)
class Tape:
    """What one `Attention.forward` keeps for ``backward``; all by rows, (B, ., .)."""

    layer: Attention
    query: Array
    memory: Array
    weights: Array
    params: dict[str, Array]
    hidden: Array | None
    """(B, Tq, Tk, H), of the additive score."""


@dataclass(eq=False)
class AttentionGradients(LayerGradients):
    """Gradients of a loss by what `Attention.forward` was given; ``x`` is that by the query."""

    memory: Array
    """Like the memory."""


class Attention(FeedForward):
    """Attention of queries over a memory.

    ::

        score(q, k) = q . k                                       "dot"
        score(q, k) = q . (W k)                                   "general"
        score(q, k) = v . tanh(W_query q + W_key k + b)           "additive"
        a_j = exp(score(q, k_j)) / sum_i exp(score(q, k_i))
        context = sum_j a_j k_j

    "dot" and "general" are those of Luong et al. 2015, "Effective approaches to attention-based
    neural machine translation"; "additive" is that of Bahdanau et al. 2015, "Neural machine
    translation by jointly learning to align and translate".

    The parameters are ``weight_query (K, Q)``, which is W transposed, for "general"; and
    ``weight_query (H, Q)``, ``weight_key (H, K)``, ``bias (H,)`` and ``weight_score (H,)``, which
    is v, for "additive"; "dot" has none.

    Parameters
    ----------
    query_size, key_size : int
        Q and K; equal for "dot".
    score : {"dot", "general", "additive"}
    hidden_size : int, optional
        H, for "additive" only; K by default.
    dtype : float32 or float64
    rng : None, int or numpy.random.Generator
        Source of the initial values: uniform(-1/sqrt(n), 1/sqrt(n)), n the number of columns.
    device : {"cpu", "cuda"}
        Where the parameters are, and all arrays of a call: NumPy's, or CuPy's.

    Raises
    ------
    TypeError, ValueError
        An argument has another type or value, or the sizes do not fit the score.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> attention = fastrnn.Attention(4, 6, score="general", rng=0)
    >>> query, memory = np.ones((3, 2, 4), np.float32), np.ones((5, 2, 6), np.float32)
    >>> attention(query, memory, lengths=[5, 2]).shape  # (Tq, B, K)
    (3, 2, 6)
    >>> attention.weights(query, memory, lengths=[5, 2])[0, 1].round(3)
    array([0.5, 0.5, 0. , 0. , 0. ], dtype=float32)
    """

    query_size = Setting[int]()
    key_size = Setting[int]()
    score = Setting[Score]()
    hidden_size = Setting[int]()

    _anchor: ClassVar[str] = "weight_query"
    _known: ClassVar[re.Pattern[str]] = re.compile("weight_(query|key|score)|bias")

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: Score = "dot",
        hidden_size: int | None = None,
        dtype: FloatDType = np.float32,
        rng: RNG = None,
        device: Device = "cpu",
    ) -> None:
        config = {
            "query_size": checks.size("query_size", query_size),
            "key_size": checks.size("key_size", key_size),
            "score": checks.choice("score", score, get_args(Score)),
            "hidden_size": None,
            "dtype": checks.float_dtype(dtype).name,
            "device": checks.choice("device", device, backends.DEVICES),
        }
        if score == "dot" and query_size != key_size:
            raise ValueError(
                f'query_size and key_size must be equal with score="dot", got {query_size} and '
                f"{key_size}"
            )
        if score == "additive":
            hidden_size = key_size if hidden_size is None else hidden_size
            config["hidden_size"] = checks.size("hidden_size", hidden_size)
        elif hidden_size is not None:
            raise ValueError(f'hidden_size is for score="additive", got it with {score!r}')
        generator = checks.generator("rng", rng)
        self._build(config)
        for value in self.params.values():
            bound = 1 / math.sqrt(value.shape[-1])
            value[...] = self._xp.asarray(
                generator.uniform(-bound, bound, value.shape), self._dtype
            )

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the parameters' names and shapes, which depend on the score."""
        query, key, hidden = (config[f"{name}_size"] for name in ("query", "key", "hidden"))
        if config["score"] == "general":
            return {"weight_query": (key, query)}
        if config["score"] == "additive":
            return {
                "weight_query": (hidden, query),
                "weight_key": (hidden, key),
                "bias": (hidden,),
                "weight_score": (hidden,),
            }
        return {}

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        shape = shapes["weight_query"]
        key = shapes.get("weight_key", shape)
        if len(shape) != 2 or len(key) != 2:
            raise checks.wrong_shape("weight_query", shape, (("H", None), ("Q", None)))
        if "weight_key" in shapes:
            sizes = {"key_size": key[1], "score": "additive", "hidden_size": shape[0]}
        else:
            sizes = {"key_size": shape[0], "score": "general"}
        return {"query_size": shape[1], **sizes}

    def __call__(self, query: Array, memory: Array, *, lengths: ArrayLike | None = None) -> Array:
        """Return the context (Tq, B, K).

        Parameters
        ----------
        query : ndarray (Tq, B, Q)
        memory : ndarray (Tk, B, K)
        lengths : ints in 0..Tk, (B,), optional
            Steps of the memory past a row's length have weight 0; a row of length 0 has a context
            of zeros.

        Raises
        ------
        TypeError, ValueError
            An argument has another type, dtype or shape.
        """
        return self._run(query, memory, lengths)[0]

    def weights(self, query: Array, memory: Array, *, lengths: ArrayLike | None = None) -> Array:
        """Return a (Tq, B, Tk): how much of each step of the memory is in each context."""
        return self._run(query, memory, lengths)[1].weights.swapaxes(0, 1)

    def forward(
        self, query: Array, memory: Array, *, lengths: ArrayLike | None = None
    ) -> tuple[Array, Tape]:
        """Return the context as a call of the layer does, and a tape for `backward`.

        The tape references query and memory, so they must not be changed before `backward`.
        """
        context, tape = self._run(query, memory, lengths)
        copies = {name: self.params.copied(value) for name, value in tape.params.items()}
        return context, Tape(**{**vars(tape), "params": copies})

    def backward(self, tape: Tape, dy: Array) -> AttentionGradients:
        """Backpropagate.

        Parameters
        ----------
        tape : Tape
            From this layer's `forward`; it can be used any number of times.
        dy : ndarray (Tq, B, K)
            Gradient of the loss by the context.

        Returns
        -------
        AttentionGradients
            ``x`` by the query, ``memory``, ``params`` and ``flat``.

        Raises
        ------
        TypeError, ValueError
            An argument has another type, dtype or shape, or the tape is another layer's.
        """
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.layer is not self:
            raise checks.another_tape(self)
        rows, Tq, _ = tape.query.shape
        dy = checks.array("dy", dy, self.dtype, self.flat_params)
        checks.same_form("dy", dy.shape, [("Tq", Tq), ("B", rows), ("K", self.key_size)])
        params = self.params.gradients()
        a, query, memory = tape.weights, tape.query, tape.memory
        with backends.ignore_fp_errors(dy):
            d = dy.swapaxes(0, 1)
            da = d @ memory.swapaxes(1, 2)
            ds = a * (da - (da * a).sum(axis=-1)[..., None])
            dmemory = a.swapaxes(1, 2) @ d
            if self.score == "dot":
                dquery = ds @ memory
                dmemory += ds.swapaxes(1, 2) @ query
            elif self.score == "general":
                weight = tape.params["weight_query"]
                dmapped = ds @ memory
                dquery = dmapped @ weight
                dmemory += ds.swapaxes(1, 2) @ (query @ weight.T)
                params["weight_query"] = _flat(dmapped).T @ _flat(query)
            else:
                assert tape.hidden is not None
                hidden = tape.hidden
                params["weight_score"] = ds.reshape(-1) @ hidden.reshape(ds.size, -1)
                dhidden = ds[..., None] * tape.params["weight_score"] * (1 - hidden * hidden)
                by_query, by_key = dhidden.sum(axis=2), dhidden.sum(axis=1)
                dquery = by_query @ tape.params["weight_query"]
                dmemory += by_key @ tape.params["weight_key"]
                params["weight_query"] = _flat(by_query).T @ _flat(query)
                params["weight_key"] = _flat(by_key).T @ _flat(memory)
                params["bias"] = _flat(by_query).sum(axis=0)
        return AttentionGradients(dquery.swapaxes(0, 1), params, self, dmemory.swapaxes(0, 1))

    def stepper(self, memory: Array, *, lengths: ArrayLike | None = None) -> AttentionStepper:
        """Return an object that attends to one memory, a step a call: for decoding.

        It holds the memory and the parameters as they are now. See `AttentionStepper`.

        Raises
        ------
        TypeError, ValueError
            An argument has another type, dtype or shape.
        """
        return AttentionStepper(self, memory, lengths)

    def _checked(self, name: str, value: Any, steps: str, size: tuple[str, int]) -> Array:
        """Return a query or a memory, by rows (B, T, .)."""
        array = checks.array(name, value, self.dtype, self.flat_params)
        if array.ndim != 3 or array.shape[-1] != size[1]:
            raise checks.wrong_shape(name, array.shape, [(steps, None), ("B", None), size])
        return array.swapaxes(0, 1)

    def _memory(self, memory: Any, lengths: Any) -> tuple[Array, Array | None]:
        """Return the memory by rows, and where it is valid, (B, 1, Tk)."""
        keys = self._checked("memory", memory, "Tk", ("K", self.key_size))
        if lengths is None:
            return keys, None
        valid = valid_steps(lengths, keys.shape[1], keys.shape[0]).T[:, None]
        with backends.device_of(keys):
            return keys, self._xp.asarray(valid)

    def _run(self, query: Any, memory: Any, lengths: Any) -> tuple[Array, Tape]:
        queries = self._checked("query", query, "Tq", ("Q", self.query_size))
        keys, valid = self._memory(memory, lengths)
        if len(queries) != len(keys):
            raise ValueError(
                f"query and memory must have one B, got {query.shape} and {memory.shape}"
            )
        params = dict(self.params)
        hidden = None
        with backends.ignore_fp_errors(keys):
            if self.score == "dot":
                scores = queries @ keys.swapaxes(1, 2)
            elif self.score == "general":
                scores = (queries @ params["weight_query"].T) @ keys.swapaxes(1, 2)
            else:
                by_key = keys @ params["weight_key"].T + params["bias"]
                by_query = queries @ params["weight_query"].T
                hidden = np.tanh(by_query[:, :, None] + by_key[:, None])
                scores = hidden @ params["weight_score"]
            weights = _softmax(self._xp, scores, valid)
            context = weights @ keys
        tape = Tape(self, queries, keys, weights, params, hidden)
        return context.swapaxes(0, 1), tape


class AttentionStepper:
    """Attends to one memory, a step a call. Made by ``attention.stepper(memory)``.

    What depends on the memory alone is computed once.
    """

    def __init__(self, layer: Attention, memory: Array, lengths: ArrayLike | None) -> None:
        self._layer = layer
        keys, self._valid = layer._memory(memory, lengths)
        self._params = {name: layer.params.copied(value) for name, value in layer.params.items()}
        with backends.ignore_fp_errors(keys):
            self._keys = layer.params.copied(keys)
            self._mapped = self._keys
            if layer.score == "general":
                self._mapped = self._keys @ self._params["weight_query"]
            elif layer.score == "additive":
                self._mapped = self._keys @ self._params["weight_key"].T + self._params["bias"]
        self.weights: Array | None = None
        """(B, Tk), those of the last call."""

    def __call__(self, query: Array) -> Array:
        """Return the context (B, K) of a query (B, Q), or (K,) of (Q,) if B is 1.

        Raises
        ------
        TypeError, ValueError
            ``query`` has another type, dtype or shape.
        """
        layer = self._layer
        query = checks.array("query", query, layer.dtype, self._keys)
        form = [("B", len(self._keys)), ("Q", layer.query_size)]
        alone = query.ndim == 1 and len(self._keys) == 1
        checks.same_form("query", query.shape, form[1:] if alone else form)
        with backends.ignore_fp_errors(query):
            queries = query.reshape(len(self._keys), 1, -1)
            if layer.score == "additive":
                by_query = queries @ self._params["weight_query"].T
                scores = np.tanh(by_query + self._mapped) @ self._params["weight_score"]
                scores = scores[:, None]
            else:
                scores = queries @ self._mapped.swapaxes(1, 2)
            weights = _softmax(layer._xp, scores, self._valid)
            context = weights @ self._keys
        self.weights = weights[:, 0]
        return context[0, 0] if alone else context[:, 0]

    def reorder(self, rows: ArrayLike) -> None:
        """Let row b attend to what row rows[b] attended to, as a beam search asks for.

        Raises
        ------
        TypeError, ValueError, IndexError
            ``rows`` is not B ints in 0..B-1.
        """
        batch = len(self._keys)
        index = checks.indices("rows", rows)
        checks.same_form("rows", index.shape, [("B", batch)])
        checks.index_range("rows", index, batch, IndexError)
        with backends.device_of(self._keys):
            at = self._layer._xp.asarray(index)
            self._keys, self._mapped = self._keys[at], self._mapped[at]
            if self._valid is not None:
                self._valid = self._valid[at]


def _softmax(xp: Any, scores: Array, valid: Array | None) -> Array:
    """Return weights (B, Tq, Tk) that sum to 1 over the valid steps; zeros if there is none."""
    if scores.shape[-1] == 0:
        return scores
    if valid is not None:
        scores = xp.where(valid, scores, -np.inf).astype(scores.dtype, copy=False)
    top = scores.max(axis=-1)[..., None]
    if valid is not None:
        top = xp.where(np.equal(top, -np.inf), 0, top).astype(scores.dtype, copy=False)
    weights: Array = np.exp(scores - top)
    total = weights.sum(axis=-1)[..., None]
    if valid is not None:
        total = xp.where(np.equal(total, 0), 1, total).astype(scores.dtype, copy=False)
    weights /= total
    return weights


def _flat(rows: Array) -> Array:
    flat: Array = rows.reshape(-1, rows.shape[-1])
    return flat
