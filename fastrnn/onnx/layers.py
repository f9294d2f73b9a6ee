"""What a node RNN, GRU or LSTM of ONNX is as a layer: constructor's arguments and parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..typing import Array
from .graph import Graph, attributes

# Row blocks: ONNX's iofc and zrh as i f g o and r z n, and the other way; peepholes iof as i f o.
GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
TO_ONNX = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
PEEPHOLES = (0, 2, 1)

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

FUNCTIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}

# ONNX's names in lower case, as ONNX Runtime compares them.
_NAMES = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "hardsigmoid": "hard_sigmoid"}

# Functions with a parameter of the name, and its default for those that fastrnn has.
_ALPHA = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
_BETA = {"affine", "scaledtanh", "hardsigmoid"}

_KNOWN = {
    "activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size",
    "input_forget", "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip


class Function(NamedTuple):
    """One activation: max(0, min(1, alpha x + beta)) if it is a hard sigmoid."""

    name: str
    alpha: float | None = None
    beta: float | None = None


def blocks(a: Array, order: Sequence[int]) -> Array:
    """Return row blocks in another order."""
    parts = np.split(a, len(order))
    return np.concatenate([parts[k] for k in order])


class Recurrence:
    """One node: what it says of itself, checked.

    Raises
    ------
    ValueError
        fastrnn has no such layer; the text names the node and the attribute.
    """

    def __init__(self, node: Any, graph: Graph) -> None:
        self.node = node
        self.graph = graph
        self.kind = node.op_type
        self.name = node.name or next(filter(None, node.output), "")
        self.has = attributes(node)
        self.inputs = dict(zip(INPUTS, node.input, strict=False))
        self.direction = self.has.get("direction", "forward")
        self.directions = 2 if self.direction == "bidirectional" else 1
        self.layout = self.has.get("layout", 0)
        self.hidden_size = self._hidden_size()
        self.input_size = self._input_size()

    def __str__(self) -> str:
        return f"{self.kind} node {self.name!r} of {self.graph.where}"

    def given(self, role: str) -> str:
        """Return the name of the tensor that comes in as W, R and so on; "" for none."""
        name: str = self.inputs.get(role, "")
        return name

    def output(self, index: int) -> str:
        """Return the name of Y, Y_h or Y_c; "" for none."""
        name: str = self.node.output[index] if index < len(self.node.output) else ""
        return name

    def error(self, text: str) -> ValueError:
        """Return an error that names the node."""
        return ValueError(f"{self}: {text}")

    def _hidden_size(self) -> int | None:
        if "hidden_size" in self.has:
            size: int = self.has["hidden_size"]
            return size
        return self._last_axis("R")

    def _input_size(self) -> int | None:
        size = self._last_axis("W")
        if size is None:
            shape = self.graph.shape(self.given("X"))
            size = shape[-1] if len(shape) == 3 else None
        return size

    def _last_axis(self, role: str) -> int | None:
        """Return the last axis of a weight; of a shape that is known, if that will do."""
        name = self.given(role)
        shape = self.graph.shape(name)
        if len(shape) == 3 and shape[2] is not None:
            return shape[2]
        value = self.graph.constant(name)
        return None if value is None or value.ndim != 3 else value.shape[2]

    # ------------------------------------------------------------------ the layer's arguments

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments but sizes, layers, directions, bias and dtype."""
        unknown = sorted(self.has.keys() - _KNOWN)
        if unknown:
            raise self.error(f"attribute {unknown[0]}={self.has[unknown[0]]!r} is not known")
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise self.error(f"direction={self.direction!r} is none of ONNX's")
        if self.layout not in (0, 1):
            raise self.error(f"layout={self.layout!r} is none of ONNX's")
        found: dict[str, Any] = {"batch_first": bool(self.layout)}
        found["reverse"] = self.direction == "reverse"
        clip = self.has.get("clip")
        if clip is not None:
            if not 0 < clip < math.inf:
                raise self.error(f"clip={clip!r} must be greater than 0 and finite")
            found["clip"] = clip
        found |= self._activations()[0]
        if self.kind == "LSTM":
            found["coupled"] = bool(self.has.get("input_forget", 0))
            found["peephole"] = bool(self.given("P"))
        if self.kind == "GRU":
            found["reset_after"] = bool(self.has.get("linear_before_reset", 0))
        return found

    def functions(self) -> list[Function]:
        """Return the activations f, g, h of a direction, the same of both."""
        default = FUNCTIONS[self.kind]
        names = self.has.get("activations") or default * self.directions
        if len(names) != len(default) * self.directions:
            raise self.error(
                f"activations={names} must be {len(default)} a direction, of which there are "
                f"{self.directions}"
            )
        alphas = self._consumed("activation_alpha", names, _ALPHA)
        betas = self._consumed("activation_beta", names, _BETA)
        found = []
        for name, alpha, beta in zip(names, alphas, betas, strict=True):
            if name.lower() not in _NAMES:
                raise self.error(
                    f"activations={names}: fastrnn has Tanh, Relu, Sigmoid and HardSigmoid, "
                    f"not {name}"
                )
            function = Function(_NAMES[name.lower()])
            if function.name == "hard_sigmoid":
                function = Function(
                    function.name, 0.2 if alpha is None else alpha, 0.5 if beta is None else beta
                )
            found.append(function)
        if self.directions == 2 and found[: len(default)] != found[len(default) :]:
            raise self.error(
                f"activations={names} differ between the directions; activation_alpha, "
                "activation_beta too are to be the same"
            )
        return found[: len(default)]

    def _consumed(
        self, attribute: str, names: Sequence[str], takers: set[str]
    ) -> list[float | None]:
        """Return each function's parameter: values are consumed by those that have one, in order;
        some writers give one value a function."""
        values = list(self.has.get(attribute) or ())
        if len(values) == len(names):
            return values
        have = [name.lower() in takers for name in names]
        if len(values) > sum(have):
            raise self.error(
                f"{attribute}={values} are more than the functions that take one in {list(names)}"
            )
        rest = iter(values)
        return [next(rest, None) if taker else None for taker in have]

    def _activations(self) -> tuple[dict[str, Any], float]:
        """Return the layer's arguments, and what is to be added to the biases of the gates.

        max(0, min(1, alpha a + beta)) is what fastrnn has, with beta = 1/2, of a further bias
        (beta - 1/2) / alpha.
        """
        functions = self.functions()
        hard = [each for each in functions if each.name == "hard_sigmoid"]
        slopes = {each.alpha for each in hard}
        if any(not (slope and 0 < slope < math.inf) for slope in slopes):
            raise self.error(f"activation_alpha={self.has.get('activation_alpha')} of HardSigmoid")
        if len(slopes) > 1:
            raise self.error(
                f"activation_alpha={self.has.get('activation_alpha')}: "
                "the slopes of HardSigmoid must be one"
            )
        found: dict[str, Any] = {}
        for slope in slopes:
            found["gate_slope"] = slope
        if self.kind == "RNN":
            found["nonlinearity"] = functions[0].name
        else:
            found["gate_activation"] = functions[0].name
            found["activation"] = functions[1].name
        if self.kind == "LSTM" and functions[2].name != functions[1].name:
            found["output_activation"] = functions[2].name
        shift = 0.0
        beta = {each.beta for each in hard}
        if beta and beta != {0.5}:
            gate = functions[0]
            if "clip" in self.has or gate not in hard or len(hard) > 1:
                raise self.error(
                    f"activation_beta={self.has.get('activation_beta')}: HardSigmoid's must be "
                    "0.5, unless that of the gates alone is another and there is no clip"
                )
            assert gate.alpha is not None
            assert gate.beta is not None
            shift = (gate.beta - 0.5) / gate.alpha
        return found, shift

    # ------------------------------------------------------------------------------ parameters

    @property
    def bias(self) -> bool:
        """Whether there is a B, or what stands for one."""
        return bool(self.given("B")) or self._activations()[1] != 0

    def weight(self, role: str) -> Array:
        """Return W, R, B or P as an array of floats, which must be constant."""
        name = self.given(role)
        value = self.graph.constant(name)
        if value is None:
            raise self.error(
                f"{role} ({name!r}) is not constant: it must be an initializer, or follow from "
                "constants"
            )
        if value.dtype.kind in "iub":
            raise self.error(f"{role} ({name!r}) is of {value.dtype}, not of floats")
        return value

    def parameters(self, number: int) -> dict[str, Array]:
        """Return this node's parameters by the names of the layer's level of this number."""
        H = self.hidden_size
        order = GATES[self.kind]
        rows = len(order) * H if H is not None else None
        found = {}
        w, r = self.weight("W"), self.weight("R")
        b = self.weight("B") if self.given("B") else None
        p = self.weight("P") if self.given("P") else None
        D = self.directions
        forms: dict[str, tuple[Array, tuple[int | None, ...]]]
        forms = {"W": (w, (D, rows, None)), "R": (r, (D, rows, H))}
        if b is not None and rows is not None:
            forms["B"] = b, (D, 2 * rows)
        if p is not None and H is not None:
            forms["P"] = p, (D, 3 * H)
        for role, (value, form) in forms.items():
            fits = len(form) == value.ndim and all(
                want in (None, got) for want, got in zip(form, value.shape, strict=True)
            )
            if not fits:
                raise self.error(f"{role} is {value.shape}, expected {_form(form)}")
        for d in range(D):
            suffix = f"_l{number}" + "_reverse" * d
            found["weight_ih" + suffix] = blocks(w[d], order)
            found["weight_hh" + suffix] = blocks(r[d], order)
            if self.bias:
                zeros = np.zeros(len(found["weight_ih" + suffix]), w.dtype)
                halves = (zeros, zeros) if b is None else np.split(b[d], 2)
                found["bias_ih" + suffix], found["bias_hh" + suffix] = (
                    blocks(half, order) for half in halves
                )
                found["bias_ih" + suffix] = self._shifted(found["bias_ih" + suffix])
            if p is not None:
                found["weight_peephole" + suffix] = blocks(p[d], PEEPHOLES)
        return found

    def _shifted(self, bias: Array) -> Array:
        shift = self._activations()[1]
        if not shift:
            return bias
        parts = list(np.split(bias.astype(np.float64), len(GATES[self.kind])))
        inner = {"RNN": None, "GRU": 2, "LSTM": 2}[self.kind]
        return np.concatenate(
            [part if k == inner else part + shift for k, part in enumerate(parts)]
        )


def _form(form: Sequence[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in form)})"
