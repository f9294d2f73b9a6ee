"""Optimisers: torch's update rules, in place on the parameters of one or several layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from .. import backends, checks
from ..config import get_num_threads
from ..docstrings import documented
from ..typing import Array
from . import engine
from .losses import AnyGradients, gradient_list, gradient_vectors

# Parameters go through an update in blocks of so many: what is read and written again and again
# stays in the L1 or L2 cache, and the scratch arrays are small.
_BLOCK = 1 << 13


class Trainable(Protocol):
    """What an optimiser wants of a layer."""

    @property
    def flat_params(self) -> Array:
        """All parameters as one vector."""


class Optimizer(ABC):
    """Base of SGD and Adam. Not for direct use.

    `lr` can be changed between steps; it is looked at when a step is made.
    """

    _moments: tuple[str, ...]
    """Names of the vectors kept for each layer, in its dtype."""

    def __init__(
        self, layers: Trainable | Iterable[Trainable], lr: float, weight_decay: float
    ) -> None:
        given = list(layers) if isinstance(layers, Iterable) else [layers]
        many = [layer for each in given for layer in _layers_of(each)]
        if not many:
            raise ValueError("layers must hold a layer, got none")
        for layer in many:
            flat = getattr(layer, "flat_params", None)
            if not isinstance(flat, np.ndarray) and not checks.on_gpu(flat):
                raise TypeError(f"layers must be layers, got {checks.type_name(layer)}")
        if len({id(layer) for layer in many}) < len(many):
            raise ValueError("layers must be different ones, got one twice: add its gradients up")
        self.lr = checks.number("lr", lr)
        self.weight_decay = checks.number("weight_decay", weight_decay)
        self.steps = 0
        """Number of steps done."""
        self._layers = many
        self._state = [self._begin(layer.flat_params) for layer in many]

    @property
    def layers(self) -> tuple[Trainable, ...]:
        """The layers whose parameters it changes, in the order of the constructor."""
        return tuple(self._layers)

    def _begin(self, flat: Array) -> dict[str, Array]:
        """Return the vectors of a layer before the first step."""
        with backends.device_of(flat):
            return {name: np.zeros_like(flat) for name in self._moments}

    def step(self, grads: AnyGradients) -> None:
        """Change the parameters by one step.

        Parameters
        ----------
        grads : what `backward` returned, an iterable of such, or a mapping to such
            Of every layer, in any order. Of a layer that was used several times, those of each
            time: they are summed. Not changed.

        Raises
        ------
        TypeError
            A gradient has another dtype than its layer, or is none; or `lr` is no number.
        ValueError
            A gradient is of a layer that the optimiser does not have, a layer has none, a layer is
            frozen, or `lr` is negative or NaN. Nothing has been changed then.
        """
        vectors = self.vectors_of(grads)
        for layer in self._layers:
            checks.writeable(_writeable(layer))
        checks.number("lr", self.lr)
        self.steps += 1
        scalars = self._scalars()
        for layer, vector, state in zip(self._layers, vectors, self._state, strict=True):
            if self._fused(layer.flat_params, vector, list(state.values()), scalars):
                continue
            with backends.ignore_fp_errors(vector):
                # A GPU has no such cache, and many small calls would keep it waiting.
                block = vector.size if checks.on_gpu(vector) else min(_BLOCK, vector.size)
                block = max(block, 1)  # of a layer without parameters
                scratch = np.empty_like(vector, shape=(2, block))
                for part in _blocks(vector.size, block):
                    param, grad = layer.flat_params[part], vector[part]
                    tmp, other = scratch[:, : grad.size]
                    if self.weight_decay:
                        grad = np.add(np.multiply(param, self.weight_decay, out=other), grad, other)
                    moments = [moment[part] for moment in state.values()]
                    self._update(param, grad, moments, tmp, scalars)

    def vectors_of(self, grads: Any) -> list[Array]:
        """Return the vector of gradients of each of `layers`, once checked, and summed where a
        layer was used several times.

        Raises
        ------
        TypeError, ValueError
            As `step`.
        """
        many = gradient_list(grads)
        places = {id(layer): index for index, layer in enumerate(self._layers)}
        found: list[list[Array]] = [[] for _ in self._layers]
        for index, (each, vector) in enumerate(zip(many, gradient_vectors(many), strict=True)):
            name = "grads" if len(many) == 1 else f"grads[{index}]"
            place = places.get(id(getattr(each, "layer", None)))
            if place is None:
                raise checks.foreign_gradients(name, each)
            flat = self._layers[place].flat_params
            checks.array(f"{name}.flat", vector, flat.dtype, flat)
            checks.same_shape(f"{name}.flat", vector.shape, flat.shape)
            found[place].append(vector)
        for index, (layer, vectors) in enumerate(zip(self._layers, found, strict=True)):
            if not vectors:
                raise checks.no_gradients(index, len(found), layer)
        return [_sum(vectors) for vectors in found]

    @abstractmethod
    def _scalars(self) -> tuple[float, ...]:
        """Return what one step's updates have in common."""

    def _fused(
        self, param: Array, grad: Array, moments: list[Array], scalars: tuple[float, ...]
    ) -> bool:
        """Update a whole vector by a compiled loop; return False where there is none."""
        return False

    @abstractmethod
    def _update(
        self,
        param: Array,
        grad: Array,
        moments: list[Array],
        tmp: Array,
        scalars: tuple[float, ...],
    ) -> None:
        """Update one block in place; `tmp` is free, `grad` must not be written to."""

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all that `load_state_dict` needs to go on, as arrays by name.

        The number of steps and the vectors kept for each layer; not the constructor's arguments,
        and not `lr`.
        """
        state = {"steps": np.array(self.steps, np.int64)}
        for index, moments in enumerate(self._state):
            for name, vector in moments.items():
                with backends.device_of(vector):
                    state[f"{name}.{index}"] = vector.copy()
        return state

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            A name is missing or unknown, or an array has another shape or dtype: it comes from
            another kind of optimiser or other layers. Nothing has been changed then.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a mapping, got {checks.type_name(state)}")
        if state.keys() != own.keys():
            raise ValueError(f"state must hold {', '.join(own)}, got {', '.join(map(str, state))}")
        for name, expected in own.items():
            checks.array(name, state[name], expected.dtype, expected)
            checks.same_shape(name, state[name].shape, expected.shape)
        steps = checks.size("steps", state["steps"], at_least=0)
        for index, moments in enumerate(self._state):
            for name, vector in moments.items():
                with backends.device_of(vector):
                    vector[:] = state[f"{name}.{index}"]
        self.steps = steps


@documented
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`.

    ::

        g = grad + weight_decay * param
        v = momentum * v + g          (v = g at the first step)
        param -= lr * (g + momentum * v if nesterov else v)

    Parameters
    ----------
    layers : a layer or several, or a `Model`: its layers but those that are frozen now
    lr : float
        Step size; the attribute of that name can be changed between steps.
    momentum : float
    nesterov : bool
        Needs momentum (Sutskever et al. 2013, "On the importance of initialization and momentum
        in deep learning").
    weight_decay : float

    Attributes
    ----------
    <optimizer_attributes>

    Raises
    ------
    TypeError, ValueError
        An argument has another type or is negative.

    See Also
    --------
    Adam, clip_grad_norm, distributed

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> linear = fastrnn.Linear(3, 1, rng=0)
    >>> optimizer = fastrnn.SGD(linear, lr=0.1, momentum=0.9)
    >>> x = np.eye(3, dtype=np.float32)
    >>> for _ in range(200):
    ...     y, tape = linear.forward(x)
    ...     loss, dy = fastrnn.mse(y, x[:, :1])
    ...     optimizer.step(linear.backward(tape, dy))
    >>> loss < 0.01
    True
    """

    def __init__(
        self,
        layers: Trainable | Iterable[Trainable],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = checks.number("momentum", momentum)
        self.nesterov = checks.flag("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("momentum must be above 0 with nesterov, got 0")
        self._moments = ("velocity",) if self.momentum else ()
        super().__init__(layers, lr, weight_decay)

    def _scalars(self) -> tuple[float, ...]:
        return (self.lr,)

    def _update(
        self,
        param: Array,
        grad: Array,
        moments: list[Array],
        tmp: Array,
        scalars: tuple[float, ...],
    ) -> None:
        (lr,) = scalars
        if moments:
            (velocity,) = moments
            velocity *= self.momentum
            velocity += grad
            if self.nesterov:
                np.multiply(velocity, self.momentum, out=tmp)
                tmp += grad
                grad = tmp
            else:
                grad = velocity
        param -= np.multiply(grad, lr, out=tmp)


@documented
class Adam(Optimizer):
    """Adam, as `torch.optim.Adam` (Kingma and Ba 2015, "Adam: a method for stochastic
    optimization").

    ::

        g = grad + weight_decay * param
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        param -= lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)

    Parameters
    ----------
    layers : a layer or several, or a `Model`: its layers but those that are frozen now
    lr : float
        Step size; the attribute of that name can be changed between steps.
    betas : pair of float
        Both in [0, 1).
    eps : float
    weight_decay : float

    Attributes
    ----------
    <optimizer_attributes>

    Raises
    ------
    TypeError, ValueError
        An argument has another type, is negative or out of its range.

    See Also
    --------
    SGD, clip_grad_norm, distributed

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> linear = fastrnn.Linear(3, 1, rng=0)
    >>> optimizer = fastrnn.Adam(linear, lr=0.1)
    >>> x = np.eye(3, dtype=np.float32)
    >>> for _ in range(200):
    ...     y, tape = linear.forward(x)
    ...     loss, dy = fastrnn.mse(y, x[:, :1])
    ...     optimizer.step(linear.backward(tape, dy))
    >>> loss < 0.01
    True
    """

    _moments = ("mean", "square")

    def __init__(
        self,
        layers: Trainable | Iterable[Trainable],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
        self.betas = (
            checks.number("betas[0]", betas[0], below=1.0),
            checks.number("betas[1]", betas[1], below=1.0),
        )
        self.eps = checks.number("eps", eps)
        super().__init__(layers, lr, weight_decay)

    def _scalars(self) -> tuple[float, ...]:
        beta1, beta2 = self.betas
        return self.lr / (1 - beta1**self.steps), math.sqrt(1 - beta2**self.steps)

    def _fused(
        self, param: Array, grad: Array, moments: list[Array], scalars: tuple[float, ...]
    ) -> bool:
        run = engine.function("adam", param)
        if run is None or not all(a.flags.carray for a in (param, *moments)):
            return False
        rate, correction = scalars
        mean, square = moments
        run(
            param,
            engine.contiguous(grad),
            mean,
            square,
            *self.betas,
            correction,
            self.eps,
            rate,
            self.weight_decay,
            get_num_threads(),
        )
        return True

    def _update(
        self,
        param: Array,
        grad: Array,
        moments: list[Array],
        tmp: Array,
        scalars: tuple[float, ...],
    ) -> None:
        mean, square = moments
        beta1, beta2 = self.betas
        rate, correction = scalars
        mean *= beta1
        mean += np.multiply(grad, 1 - beta1, out=tmp)
        square *= beta2
        np.multiply(grad, grad, out=tmp)
        tmp *= 1 - beta2
        square += tmp
        np.sqrt(square, out=tmp)
        tmp /= correction
        tmp += self.eps
        np.divide(mean, tmp, out=tmp)
        tmp *= rate
        param -= tmp


def _layers_of(layer: Any) -> Iterable[Any]:
    """Return the layers of a model that are to be trained, or a layer itself."""
    if not hasattr(layer, "named_layers"):
        return [layer]
    return [own for own in layer.named_layers().values() if own.num_params and not own.frozen]


def _blocks(size: int, block: int) -> Iterator[slice]:
    return (slice(start, start + block) for start in range(0, size, block))


def _sum(vectors: list[Array]) -> Array:
    """The vector itself if there is only one."""
    total, *others = vectors
    for number, vector in enumerate(others):
        with backends.ignore_fp_errors(vector):
            total = np.add(total, vector, out=total if number else None)
    return total


def _writeable(layer: Trainable) -> bool:
    """Whether a layer's parameters may be changed; CuPy's arrays cannot say so themselves."""
    flat = layer.flat_params
    return not getattr(layer, "frozen", False) if checks.on_gpu(flat) else flat.flags.writeable
