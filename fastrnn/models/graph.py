"""A tape of layers: it records what was called, and walks it back once.

Not an autograd of NumPy: the nodes are whole layers, whose own ``backward`` does the work, and a
dozen joints between them with known gradients. What `Graph` computes, layer by layer, are the bits
that the same calls of ``forward`` and ``backward`` give by hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import backends, checks
from .. import dropout as masks
from ..cells import Cell
from ..checks import RNG
from ..layers import Layer
from ..sequences import CRF, ctc_loss
from ..train import mse, softmax_cross_entropy
from ..typing import Array
from . import joints
from .attention import Attention

_ERRORS = (TypeError, ValueError, IndexError, checks.FormError)


class Node:
    """A value in a `Graph`, or from `inference`. Made by these only.

    It is no array: what NumPy does with one would be lost to ``backward``. Take ``node.value``, or
    a joint of the graph.
    """

    __slots__ = ("_directions", "_gradient", "_keeps", "_owner", "_turn", "_what", "value")
    __array_ufunc__ = None

    value: Any
    """The array; of a loss a float, or an array () on a GPU."""

    def __init__(self, value: Any, what: str, owner: Joints) -> None:
        self.value = value
        self._what = what
        self._owner = owner
        self._turn = owner._turn
        self._gradient: Any = None
        self._keeps = False
        self._directions: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return joints.shape_of(self.value)

    @property
    def grad(self) -> Any:
        """Gradient of the loss by a node that `Graph.input` made, after ``backward``.

        Raises
        ------
        ValueError
            The node is another's, or no gradient has reached it.
        """
        if not self._keeps:
            raise ValueError(f"{self!r} keeps no gradient: only nodes from g.input(array) do")
        if self._gradient is None:
            raise ValueError(
                f"no gradient has reached {self!r}: there was no backward() yet, or the loss does "
                "not depend on it"
            )
        return self._gradient

    def __float__(self) -> float:
        return float(self.value)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a node is no array: take node.value, or a joint of the graph, whose gradient is known"
        )

    def __repr__(self) -> str:
        return f"<node {self._what}, {self.shape or 'a number'}>"


class Call(NamedTuple):
    """What is to be undone."""

    outputs: Sequence[Node]
    inputs: Sequence[Any]
    """Nodes, and constants, which take no gradient."""
    backward: Callable[..., Sequence[Any]]
    """Takes a gradient for each output, None for zeros; returns one for each input."""


class Joints(ABC):
    """What `Graph` and `inference` have in common: joints, layers and losses by the same names.

    Inputs are nodes or arrays; an array is a constant. Arrays are of the layers' dtype, NumPy's or
    CuPy's. Errors name the joint or the layer and the shapes that came.
    """

    _turn = 0

    # ------------------------------------------------------------------------- layers

    @abstractmethod
    def __call__(self, layer: Any, *inputs: Any, **options: Any) -> Any:
        """Run a layer.

        ==========================================  ============================================
        ``g(linear, x)``, Embedding, LayerNorm       y
        ``g(lstm, x, state=None, lengths=,           y, state; the state is one node, for an LSTM
        resets=, checkpoint_every=)``, GRU, RNN      (h, c), and goes into the next call as it is
        ``g(cell, x_t, state=None)``                 state
        ``g(attention, query, memory, lengths=)``    context
        ``g(parameter)``                             its value
        ==========================================  ============================================

        Any other object with ``forward(x) -> (y, tape)`` and ``backward(tape, dy) -> grads``, where
        grads has ``x`` and ``flat``, is a layer too.
        """

    # ------------------------------------------------------------------------- joints

    def tanh(self, x: Any) -> Node:
        """y = tanh(x)."""
        return self._unary("tanh", joints.tanh, x)

    def relu(self, x: Any) -> Node:
        """y = max(x, 0)."""
        return self._unary("relu", joints.relu, x)

    def sigmoid(self, x: Any) -> Node:
        """y = 1 / (1 + exp(-x))."""
        return self._unary("sigmoid", joints.sigmoid, x)

    @abstractmethod
    def dropout(
        self, x: Any, p: float, *, variational: bool = False, batch_first: bool = False
    ) -> Any:
        """Set values to 0 with probability p, and scale the others by 1 / (1 - p).

        With ``variational`` one mask (B, F) serves all steps of x (T, B, F), or (B, T, F) with
        ``batch_first`` (Gal and Ghahramani 2016, "A theoretically grounded application of dropout
        in recurrent neural networks"). `inference` returns x as it is.
        """

    def concat(self, xs: Sequence[Any], axis: int = -1) -> Node:
        """Arrays one after the other along an axis."""
        if not isinstance(xs, (tuple, list)) or not xs:
            raise TypeError(f"g.concat: xs must be a list of nodes, got {checks.type_name(xs)}")
        return self._joint("concat", lambda *values: joints.concat(values, axis), *xs)

    def add(self, *xs: Any) -> Node:
        """The sum of two or more, which broadcast; of losses too."""
        if len(xs) < 2:
            raise TypeError(f"g.add: two nodes or more must be given, got {len(xs)}")
        return self._joint("add", lambda *values: joints.add(values), *xs, numbers=True)

    def multiply(self, a: Any, b: Any) -> Node:
        """The product, element by element, of two that broadcast; ``g.multiply(loss, 0.1)`` too."""
        return self._joint("multiply", joints.multiply, a, b, numbers=True)

    def reshape(self, x: Any, shape: int | Sequence[int]) -> Node:
        """The same values in another shape."""
        return self._joint("reshape", lambda value: joints.reshape(value, shape), x)

    def swapaxes(self, x: Any, first: int, second: int) -> Node:
        """Two axes in each other's place."""
        return self._joint("swapaxes", lambda value: joints.swapaxes(value, first, second), x)

    def index(self, x: Any, key: Any) -> Node:
        """``x[key]``, as NumPy means it: ints, slices, None, Ellipsis, arrays of ints or bools."""
        return self._joint("index", lambda value: joints.index(value, key), x)

    def last(self, state: Any, *, directions: int | None = None) -> Node:
        """The last layer's h (B, D*P), both directions side by side, of a recurrent layer's state.

        Parameters
        ----------
        state : what ``g(layer, x)`` returned beside y: h, or (h, c)
        directions : 1 or 2, only if the state is not as a layer returned it
        """
        h = state[0] if isinstance(state, (tuple, list)) and state else state
        known = directions if directions is not None else getattr(h, "_directions", None)
        if known is None:
            raise TypeError(
                "g.last: state must be what g(layer, x) returned beside y, got "
                f"{checks.type_name(state)}; say directions= for another (L*D, B, H)"
            )
        if checks.integer("directions", known) not in (1, 2):
            raise ValueError(f"g.last: directions must be 1 or 2, got {known}")
        return self._joint("last", lambda value: joints.last(value, known), h)

    def mean(self, y: Any, lengths: Any = None, *, batch_first: bool = False) -> Node:
        """The mean (B, F) over the valid steps of y (T, B, F), or (B, T, F) with batch_first; 0 for
        a row of length 0."""
        return self._joint("mean", lambda value: joints.mean(value, lengths, batch_first), y)

    def max(self, y: Any, lengths: Any = None, *, batch_first: bool = False) -> Node:
        """The largest values (B, F) over the valid steps of y (T, B, F), or (B, T, F) with
        batch_first; 0 for a row of length 0. The gradient goes to the first step that has it."""
        return self._joint("max", lambda value: joints.maximum(value, lengths, batch_first), y)

    def apply(self, value: Any, backward: Callable[[Any], Any], *inputs: Any) -> Node:
        """A joint of one's own.

        Parameters
        ----------
        value : ndarray
            What has been computed from the inputs' values.
        backward : function
            Takes the gradient of the loss by ``value``; returns that by the input, or a tuple of
            those by the inputs, each of its input's shape. None is for constants only.
        *inputs : nodes or arrays

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> g = fastrnn.Graph()
        >>> x = g.input(np.array([1.0, 2.0]))
        >>> y = g.apply(x.value**2, lambda d: 2 * x.value * d, x)
        >>> _ = g.backward(y, np.ones(2))
        >>> x.grad
        array([2., 4.])
        """
        if not callable(backward):
            raise TypeError(
                f"g.apply: backward must be a function, got {checks.type_name(backward)}"
            )
        forms = [joints.shape_of(self._value("g.apply", value)) for value in inputs]

        def checked(d: Any) -> Sequence[Any]:
            found = backward(d)
            several = found if isinstance(found, (tuple, list)) else (found,)
            if len(several) != len(inputs):
                raise ValueError(
                    f"g.apply: backward must return {len(inputs)} gradients, got {len(several)}"
                )
            for number, (each, form) in enumerate(zip(several, forms, strict=True)):
                if each is None and isinstance(inputs[number], Node):
                    raise ValueError(
                        f"g.apply: backward gave no gradient for input {number}, {form}"
                    )
                if each is not None and joints.shape_of(each) != form:
                    raise ValueError(
                        f"g.apply: backward's gradient for input {number} must be {form}, "
                        f"got {joints.shape_of(each)}"
                    )
            return several

        return self._put("apply", (value,), inputs, checked)[0]

    # ------------------------------------------------------------------------- losses

    def cross_entropy(
        self,
        logits: Any,
        targets: Any,
        *,
        mask: Any = None,
        lengths: Any = None,
        label_smoothing: float = 0.0,
    ) -> Node:
        """Mean cross entropy over the places that count; see `softmax_cross_entropy`.

        Parameters
        ----------
        logits : (..., C)
        targets : ints (...)
        mask : bools (...), optional
            True where a place counts.
        lengths : ints (B,), optional
            Of logits (T, B, C): steps past a row's length do not count.
        label_smoothing : float in [0, 1)
            Share of each target that is spread evenly over all classes.
        """
        value, places = self._loss_of("cross_entropy", "logits", logits, targets, mask, lengths)
        try:
            loss, dlogits = softmax_cross_entropy(
                value, targets, places, label_smoothing=label_smoothing
            )
        except _ERRORS as error:
            raise _named("g.cross_entropy", error) from None
        return self._loss("cross_entropy", loss, logits, dlogits)

    def mse(self, pred: Any, target: Any, *, mask: Any = None, lengths: Any = None) -> Node:
        """Mean squared error over the values that count; see `fastrnn.mse`.

        ``lengths`` (B,), of pred (T, B, F): steps past a row's length do not count.
        """
        value, places = self._loss_of("mse", "pred", pred, target, mask, lengths)
        try:
            loss, dpred = mse(value, target, places)
        except _ERRORS as error:
            raise _named("g.mse", error) from None
        return self._loss("mse", loss, pred, dpred)

    def ctc(
        self,
        logits: Any,
        targets: Any,
        input_lengths: Any = None,
        target_lengths: Any = None,
        blank: int = 0,
        *,
        zero_infinity: bool = False,
    ) -> Node:
        """Loss of connectionist temporal classification of logits (T, B, C); see `ctc_loss`."""
        value, _ = self._loss_of("ctc", "logits", logits, targets, None, None)
        try:
            loss, dlogits = ctc_loss(
                value, targets, input_lengths, target_lengths, blank, zero_infinity=zero_infinity
            )
        except _ERRORS as error:
            raise _named("g.ctc", error) from None
        return self._loss("ctc", loss, logits, dlogits)

    def crf(self, crf: CRF, scores: Any, tags: Any, lengths: Any = None) -> Node:
        """Negative log-likelihood of tags (T, B) under scores (T, B, C); see `CRF.loss`."""
        if not isinstance(crf, CRF):
            raise TypeError(f"g.crf: crf must be a CRF, got {checks.type_name(crf)}")
        value, _ = self._loss_of("crf", "scores", scores, tags, None, None)
        try:
            loss, grads = crf.loss(value, tags, lengths)
        except _ERRORS as error:
            raise _named("g.crf", error) from None
        return self._crf(crf, loss, scores, grads)

    @abstractmethod
    def _crf(self, crf: CRF, loss: float, scores: Any, grads: Any) -> Node:
        """Record a CRF's loss."""

    def _loss_of(
        self, joint: str, name: str, value: Any, target: Any, mask: Any, lengths: Any
    ) -> tuple[Any, Any]:
        """Return what a loss is of, and where it counts, of ``mask`` and ``lengths``."""
        if isinstance(target, Node):
            raise TypeError(
                f"g.{joint}: no gradient flows into what {name} is compared with, so that it must "
                "be an array: take node.value"
            )
        array = self._value(f"g.{joint}", value)
        if lengths is None:
            return array, mask
        if len(joints.shape_of(array)) < 2:
            raise ValueError(f"g.{joint}: {name} must be (T, B, ...) with lengths, got "
                             f"{joints.shape_of(array)}")  # fmt: skip
        batch = None if array.ndim == 2 else array.shape[1]
        try:
            valid = joints.valid_steps(lengths, array.shape[0], batch)
        except _ERRORS as error:
            raise _named(f"g.{joint}", error) from None
        places: Any = valid
        if checks.on_gpu(array):
            with backends.device_of(array):
                places = backends.namespace(array).asarray(valid)
        return array, places if mask is None else places & mask

    def _loss(self, joint: str, loss: Any, of: Any, gradient: Any) -> Node:
        """Record a loss, whose gradient is known already."""
        return self._put(joint, (loss,), (of,), lambda d: (_times(gradient, d),))[0]

    # ----------------------------------------------------------------------- plumbing

    @abstractmethod
    def _put(
        self,
        what: str,
        values: Sequence[Any],
        inputs: Sequence[Any],
        backward: Callable[..., Sequence[Any]],
    ) -> list[Node]:
        """Return values as nodes; record how their gradients go back, if that is done here."""

    def _value(self, place: str, x: Any, name: str = "input") -> Any:
        """Return a node's value, or a constant itself."""
        if type(x) is not Node:
            return x
        if x._owner is not self:
            raise ValueError(
                f"{place}: {name} {x!r} is of another graph: take node.value as a constant"
            )
        if x._turn != self._turn:
            raise ValueError(
                f"{place}: {name} {x!r} is from before this graph's backward(), which has let go "
                "of what was recorded: run forward again, or take node.value as a constant"
            )
        return x.value

    def _x_and_state(self, given: Sequence[Any]) -> Sequence[Any]:
        """Return the values of what `_with_state` returned, as a layer takes them."""
        x, *state = [self._value("input", part) for part in given]
        return (x,) if not state else (x, state[0] if len(state) == 1 else tuple(state))

    def _unary(self, name: str, joint: Callable[[Any], joints.Joint], x: Any) -> Node:
        value, backward = joint(self._array(name, x))
        return self._put(name, (value,), (x,), backward)[0]

    def _joint(
        self, name: str, joint: Callable[..., joints.Joint], *inputs: Any, numbers: bool = False
    ) -> Node:
        values = [self._array(name, x, numbers=numbers) for x in inputs]
        try:
            value, backward = joint(*values)
        except _ERRORS as error:
            raise _named(f"g.{name}", error) from None
        return self._put(name, (value,), inputs, backward)[0]

    def _array(self, joint: str, x: Any, *, numbers: bool = False) -> Any:
        """Return the value of an input, which must be an array of floats."""
        value = self._value(f"g.{joint}", x)
        if isinstance(value, np.ndarray) or checks.on_gpu(value):
            if value.dtype not in (np.float32, np.float64):
                raise TypeError(
                    f"g.{joint}: an input must be float32 or float64, got {value.dtype} "
                    f"{value.shape}"
                )
            return value
        if numbers and isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            return float(value)
        raise TypeError(f"g.{joint}: an input must be a node or an array, got "
                        f"{checks.type_name(value)}")  # fmt: skip


class Graph(Joints):
    """Records calls of layers and joints, and computes all gradients of a loss.

    After `backward` it is empty and can be used again; its nodes cannot.

    Parameters
    ----------
    rng : None, int or numpy.random.Generator
        Source of dropout masks, also of those between a layer's own layers.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> rnn, out = fastrnn.GRU(3, 8, rng=0), fastrnn.Linear(8, 2, rng=1)
    >>> adam = fastrnn.Adam([rnn, out], lr=0.05)
    >>> x = np.random.default_rng(2).standard_normal((10, 4, 3)).astype(np.float32)
    >>> for _ in range(100):
    ...     g = fastrnn.Graph()
    ...     y, state = g(rnn, x, lengths=[10, 7, 2, 5])
    ...     loss = g.cross_entropy(g(out, g.last(state)), [0, 1, 1, 0])
    ...     adam.step(g.backward(loss))
    >>> float(loss) < 0.01
    True
    """

    def __init__(self, rng: RNG = None) -> None:
        self._rng = None if rng is None else checks.generator("rng", rng)
        self._calls: list[Call] = []
        self._layers: dict[Any, None] = {}  # in the order of their first calls
        self._found: dict[Any, Any] = {}

    def input(self, x: Array) -> Node:
        """An array as a node whose gradient can be read, as ``node.grad``, after `backward`."""
        node = self._put("input", (self._array("input", x),), (), lambda _: ())[0]
        node._keeps = True
        return node

    def __call__(self, layer: Any, *inputs: Any, **options: Any) -> Any:
        """Run a layer; see the table in `Joints.__call__`."""
        try:
            if isinstance(layer, (Layer, Cell)):
                run = self._recurrent if isinstance(layer, Layer) else self._cell
                return run(layer, _with_state(inputs, options), options)
            _, forward = _plain(layer)
            y, tape = forward(*[self._value("input", x) for x in inputs], **options)
        except _ERRORS as error:
            raise _named(layer_name(layer), error) from None
        self._layers[layer] = None

        def backward(dy: Any) -> Sequence[Any]:
            grads = layer.backward(tape, dy)
            self._add(layer, grads)
            if isinstance(layer, Attention):
                return grads.x, grads.memory
            return (grads.x,) if inputs else ()

        return self._put(layer_name(layer), (y,), inputs, backward)[0]

    def _recurrent(self, layer: Any, given: Sequence[Any], options: dict[str, Any]) -> Any:
        if layer.dropout:
            options = {"rng": self._generator(), **options}
        y, state, tape = layer.forward(*self._x_and_state(given), **options)
        self._layers[layer] = None
        pair = isinstance(state, tuple)
        ends = state if pair else (state,)

        def backward(dy: Any, *dends: Any) -> Sequence[Any]:
            dstate = None
            if any(d is not None for d in dends):
                dstate = _filled(ends, dends)
            grads = layer.backward(tape, dy, dstate)
            self._add(layer, grads)
            before = grads.state if pair else (grads.state,)
            return grads.x, *(before if len(given) > 1 else ())

        name = layer_name(layer)
        node, *nodes = self._put(name, (y, *ends), given, backward)
        nodes[0]._directions = 2 if layer.bidirectional else 1
        return node, tuple(nodes) if pair else nodes[0]

    def _cell(self, cell: Any, given: Sequence[Any], options: dict[str, Any]) -> Any:
        state, tape = cell.forward(*self._x_and_state(given), **options)
        self._layers[cell] = None
        pair = isinstance(state, tuple)
        ends = state if pair else (state,)

        def backward(*dends: Any) -> Sequence[Any]:
            grads = cell.backward(tape, _filled(ends, dends))
            self._add(cell, grads)
            before = grads.state if pair else (grads.state,)
            return grads.x, *(before if len(given) > 1 else ())

        nodes = self._put(layer_name(cell), ends, given, backward)
        return tuple(nodes) if pair else nodes[0]

    def dropout(
        self, x: Any, p: float, *, variational: bool = False, batch_first: bool = False
    ) -> Node:
        """See `Joints.dropout`."""
        value = self._array("dropout", x)
        try:
            shape = _mask_shape(value, p, variational, batch_first)
        except _ERRORS as error:
            raise _named("g.dropout", error) from None
        seed = masks.seed(self._generator())
        if checks.on_gpu(value):
            with backends.device_of(value):
                factors = backends.get("cuda").mask(seed, 0, 0, shape, p, value.dtype)
        else:
            factors = masks.mask(seed, 0, 0, shape, p, value.dtype)
        y, backward = joints.scale(value, factors)
        return self._put("dropout", (y,), (x,), backward)[0]

    def backward(self, loss: Node, gradient: Array | None = None) -> GraphGradients:
        """Compute the gradients of a loss by the parameters of all layers that were called.

        What was recorded is let go on the way, so that a graph is walked back once.

        Parameters
        ----------
        loss : Node
            A number, of this graph.
        gradient : ndarray like the node's value, optional
            Needed if ``loss`` is no number: the gradient by it of what is to be minimised.

        Returns
        -------
        GraphGradients
            A mapping layer -> Gradients, summed where a layer was called several times, in the
            order of the first calls; for `clip_grad_norm` and an optimiser's ``step``. Layers on
            which the loss does not depend, frozen ones and those without parameters are not in it.

        Raises
        ------
        TypeError
            ``loss`` is no node.
        ValueError
            It is of another graph or from before an earlier `backward`, or no number.
        """
        if not isinstance(loss, Node):
            raise TypeError(f"loss must be a node of this graph, got {checks.type_name(loss)}")
        value = self._value("g.backward", loss, "loss")
        if gradient is None:
            if joints.shape_of(value):
                raise ValueError(
                    f"g.backward: loss must be a number, got {loss!r}; for another node give the "
                    "gradient by it as well"
                )
            loss._gradient = 1.0
        else:
            checked = checks.array("gradient", gradient, value.dtype, value, "the node's value")
            checks.same_shape("gradient", checked.shape, value.shape)
            loss._gradient = checked
        calls, self._calls = self._calls, []
        layers, self._layers = self._layers, {}
        found: dict[Any, Any] = {}
        self._found = found
        self._turn += 1
        while calls:
            call = calls.pop()
            ds = [node._gradient for node in call.outputs]
            if all(d is None for d in ds):
                continue
            for node in call.outputs:
                if not node._keeps:
                    node._gradient = None
            for node, d in zip(call.inputs, call.backward(*ds), strict=True):
                if type(node) is Node:
                    node._gradient = d if node._gradient is None else node._gradient + d
        self._found = {}
        return GraphGradients({layer: found[layer] for layer in layers if layer in found})

    # ----------------------------------------------------------------------- plumbing

    def _put(
        self,
        what: str,
        values: Sequence[Any],
        inputs: Sequence[Any],
        backward: Callable[..., Sequence[Any]],
    ) -> list[Node]:
        nodes = [Node(value, what, self) for value in values]
        self._calls.append(Call(nodes, inputs, backward))
        return nodes

    def _crf(self, crf: CRF, loss: float, scores: Any, grads: Any) -> Node:
        self._layers[crf] = None

        def backward(d: Any) -> Sequence[Any]:
            if not (isinstance(d, float) and d == 1.0):
                grads.flat = _times(grads.flat, d)
            self._add(crf, grads)
            return (_times(grads.x, d),)

        return self._put("crf", (loss,), (scores,), backward)[0]

    def _add(self, layer: Any, grads: Any) -> None:
        """Add up the parameters' gradients of a layer."""
        if getattr(layer, "frozen", False) or not grads.flat.size:
            return
        first = self._found.setdefault(layer, grads)
        if first is not grads:
            with backends.ignore_fp_errors(first.flat):
                first.flat += grads.flat

    def _generator(self) -> np.random.Generator:
        if self._rng is None:
            self._rng = checks.generator("rng", None)
        return self._rng


class Inference(Joints):
    """The methods of `Graph` without its record: no dropout, and nothing is kept for backward.

    `fastrnn.inference` is the one that there is; a method of a model that takes a graph takes it as
    well.
    """

    def __call__(self, layer: Any, *inputs: Any, **options: Any) -> Any:
        """Run a layer; see the table in `Joints.__call__`."""
        try:
            if isinstance(layer, (Layer, Cell)):
                options.pop("checkpoint_every", None)
                found: Any = layer(*self._x_and_state(_with_state(inputs, options)), **options)
            else:
                run, _ = _plain(layer)
                found = run(*[self._value("input", x) for x in inputs], **options)
        except _ERRORS as error:
            raise _named(layer_name(layer), error) from None
        name = layer_name(layer)
        if isinstance(layer, Layer):
            y, state = found
            ends = state if isinstance(state, tuple) else (state,)
            nodes = [Node(value, name, self) for value in ends]
            nodes[0]._directions = 2 if layer.bidirectional else 1
            return Node(y, name, self), tuple(nodes) if isinstance(state, tuple) else nodes[0]
        if isinstance(found, tuple):
            return tuple(Node(value, name, self) for value in found)
        return Node(found, name, self)

    def input(self, x: Array) -> Node:
        """An array as a node."""
        return Node(self._array("input", x), "input", self)

    def dropout(
        self, x: Any, p: float, *, variational: bool = False, batch_first: bool = False
    ) -> Node:
        """Return x."""
        value = self._array("dropout", x)
        try:
            _mask_shape(value, p, variational, batch_first)
        except _ERRORS as error:
            raise _named("g.dropout", error) from None
        return x if isinstance(x, Node) else Node(value, "dropout", self)

    def _put(
        self,
        what: str,
        values: Sequence[Any],
        inputs: Sequence[Any],
        backward: Callable[..., Sequence[Any]],
    ) -> list[Node]:
        return [Node(value, what, self) for value in values]

    def _crf(self, crf: CRF, loss: float, scores: Any, grads: Any) -> Node:
        return Node(loss, "crf", self)

    def __reduce__(self) -> str:
        return "inference"


inference = Inference()


class GraphGradients(Mapping[Any, Any]):
    """A mapping layer -> Gradients, as `Graph.backward` returns it."""

    def __init__(self, found: dict[Any, Any]) -> None:
        self._found = found

    def __getitem__(self, layer: Any) -> Any:
        if layer not in self._found:
            raise KeyError(
                f"no gradient has reached {layer_name(layer)}: it was not called in this graph, "
                "the loss does not depend on it, or it is frozen"
            )
        return self._found[layer]

    def __contains__(self, layer: object) -> bool:
        return layer in self._found

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"GraphGradients({', '.join(map(layer_name, self._found))})"


def layer_name(layer: Any) -> str:
    """``LSTM(input_size=3, hidden_size=4)``: a layer by its kind and sizes."""
    config = getattr(layer, "_config", {})
    sizes = [f"{k}={v}" for k, v in config.items() if type(v) is int and v > 1]
    return f"{type(layer).__name__}({', '.join(sizes)})"


def _plain(layer: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the functions of a layer that is not recurrent: for inference, and for training."""
    forward = getattr(layer, "forward", None)
    if not callable(layer) or not callable(forward) or not hasattr(layer, "backward"):
        raise TypeError(
            f"layer must have forward and backward, got {checks.type_name(layer)}"
            + (
                ": call a method of its own with this graph"
                if hasattr(layer, "named_layers")
                else ""
            )
        )
    return layer, forward


def _with_state(inputs: Sequence[Any], options: dict[str, Any]) -> Sequence[Any]:
    """Return a recurrent layer's inputs one by one: x, and the parts of the state if one is given,
    as the second input or among the options, from which it is taken."""
    x, *rest = inputs if inputs else (None,)
    states = [*rest, options.pop("state")] if "state" in options else rest
    if len(states) > 1:
        raise TypeError(f"x and a state must be given, got {len(states) + 1} inputs")
    state = states[0] if states else None
    if state is None:
        return (x,)
    return (x, *state) if isinstance(state, (tuple, list)) else (x, state)


def _filled(values: Sequence[Any], gradients: Sequence[Any]) -> Any:
    """Return a state's gradient, zeros where there is none."""
    with backends.device_of(values[0]):
        parts = [
            np.zeros_like(value) if d is None else d
            for value, d in zip(values, gradients, strict=True)
        ]
    return tuple(parts) if len(parts) > 1 else parts[0]


def _mask_shape(x: Any, p: float, variational: bool, batch_first: bool) -> tuple[int, ...]:
    """Return the shape of a dropout mask."""
    checks.fraction("p", p)
    whole: tuple[int, ...] = x.shape
    if not checks.flag("variational", variational):
        return whole
    if x.ndim < 2:
        raise ValueError(f"x must be (T, B, F) or (T, F) with variational=True, got {x.shape}")
    axis = int(checks.flag("batch_first", batch_first) and x.ndim > 2)
    return (*whole[:axis], 1, *whole[axis + 1 :])


def _times(gradient: Any, d: Any) -> Any:
    """Return a loss's gradient times that by the loss, a number."""
    if isinstance(d, float) and d == 1.0:
        return gradient
    with backends.ignore_fp_errors(gradient):
        return (gradient * d).astype(gradient.dtype, copy=False)


def _named(place: str, error: Exception) -> Exception:
    """Return an error that says where it comes from."""
    kind = type(error)
    return (kind if kind in _ERRORS else ValueError)(f"{place}: {error}")
