"""The modules that take the place of torch.nn's LSTM, GRU and RNN."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from .. import checks, functional
from ..layers import Layer
from . import bridge, operator
from .function import Request, Run, run
from .packing import Packing

# Dtypes that are computed in float32, and the precision that is theirs there.
PRECISION = {torch.bfloat16: "medium", torch.float16: "high"}


# Attributes that say what a module computes, beside those that cannot change.
_ARGUMENTS = {"input_size", "hidden_size", "num_layers", "bias", "dropout", "bidirectional"}
_ARGUMENTS |= {"_options"}


class Recurrent(torch.nn.Module):
    """Base of LSTM, GRU and RNN. Not for direct use."""

    _kind: ClassVar[str]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: Any,
        dtype: torch.dtype | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self._engines: dict[tuple[Any, ...], Layer] = {}
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.precision = options.pop("precision", "highest")
        self.backend = options.pop("backend", "auto")
        self._options = options
        shapes = self._engine("float32", self.precision, self.backend, batch_first).params.shapes
        self._param_names = list(shapes)
        for name, shape in shapes.items():
            empty = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, torch.nn.Parameter(empty))
        self.reset_parameters()
        if dropout and num_layers == 1:
            warnings.warn(checks.idle_dropout(dropout), UserWarning, stacklevel=3)

    # ------------------------------------------------------------------------ as torch's

    @property
    def proj_size(self) -> int:
        """P; 0 without projection."""
        proj: int = self._options.get("proj_size", 0)
        return proj

    def reset_parameters(self) -> None:
        """Draw all parameters from uniform(-1/sqrt(H), 1/sqrt(H)), in the order of torch's."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            torch.nn.init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Do nothing: no engine here wants the parameters in one piece."""

    @property
    def all_weights(self) -> list[list[torch.nn.Parameter]]:
        """The parameters of each layer and direction."""
        passes = self.num_layers * (1 + self.bidirectional)
        each = len(self._param_names) // passes
        tensors = list(self._tensors())
        return [tensors[at : at + each] for at in range(0, len(tensors), each)]

    def extra_repr(self) -> str:
        """Return the sizes, and what is not as by default."""
        plain: dict[str, Any] = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
        }
        plain |= {"bidirectional": False, "precision": "highest", "backend": "auto"}
        now = {name: getattr(self, name) for name in plain}
        shown = {name: value for name, value in now.items() if value != plain[name]}
        more = "".join(f", {name}={value!r}" for name, value in (shown | self._options).items())
        return f"{self.input_size}, {self.hidden_size}{more}"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_seen"}
        return state | {"_engines": {}}

    def __setattr__(self, name: str, value: Any) -> None:
        # torch's modules obey to what is assigned after construction, and so do these
        super().__setattr__(name, value)
        if name in _ARGUMENTS:
            self._engines.clear()

    def config(self) -> dict[str, Any]:
        """Return the arguments of fastrnn's layer that computes the same."""
        precision = "highest" if self.weight_hh_l0.dtype == torch.float64 else self.precision
        return self._engine("float32", precision, self.backend, self.batch_first).config()

    def __prepare_scriptable__(self) -> Any:
        raise RuntimeError(
            f"{self._name} cannot be scripted or traced by torch.jit: use torch.compile or "
            "torch.export, or torch.nn's module with the same state dict"
        )

    @property
    def _name(self) -> str:
        return f"fastrnn.torch.{type(self).__name__}"

    # -------------------------------------------------------------------------- running

    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
    ) -> tuple[Any, Any]:
        """Run the module.

        Parameters
        ----------
        input : Tensor (T, B, I), (B, T, I) with batch_first, or (T, I); or PackedSequence
            Of the parameters' dtype, or bfloat16 or float16 for parameters of float32.
        hx : Tensor h (L*D, B, H), or for an LSTM tuple (h (L*D, B, P), c (L*D, B, H))
            State before the first step; zeros by default. Unbatched: without the axis B.
        lengths : ints in 0..T, (B,), or one int if unbatched; optional
            Steps past a row's length are not computed: the output is 0 there, and the state stays.
            Any order; a tensor, an array or a list. Not for packed sequences, which have theirs.
        resets : bools, (T, B), also with batch_first, or (T,) if unbatched; optional
            True where a new sequence begins: the forward direction starts from zeros at that step,
            the reverse direction at the step before it. No gradient flows across.

        Returns
        -------
        output : like ``input``, (T, B, D*P) with the axes in its order
        hx : like ``hx``

        Raises
        ------
        TypeError
            An argument has another type, dtype or device.
        ValueError
            An argument has another shape, or a value out of its range.
        RuntimeError
            It is called while torch.jit traces; or a gradient is differentiated once more.
        """
        if not torch.compiler.is_compiling():
            return self._eager(input, hx, lengths, resets)
        if not isinstance(input, PackedSequence):
            return self._compiled(input, hx, lengths, resets)
        # sizes that depend on values: the graph breaks here
        result: tuple[Any, Any] = self._uncompiled(input, hx, lengths, resets)
        return result

    @torch.compiler.disable
    def _uncompiled(self, *arguments: Any) -> tuple[Any, Any]:
        return self._eager(*arguments)

    def _eager(self, input: Any, hx: Any, lengths: Any, resets: Any) -> tuple[Any, Any]:
        if torch._C._get_tracing_state() is not None:
            self.__prepare_scriptable__()
        if not isinstance(input, PackedSequence):
            return self._run(input, hx, None, lengths, resets)
        if lengths is not None or resets is not None:
            raise ValueError("lengths and resets are for padded input, got a PackedSequence")
        data, sizes, order, back = input
        if hx is not None and order is not None:
            hx = _permuted(hx, order)
        y, final = self._run(data, hx, Packing(sizes.numpy()), None, None)
        if back is not None:
            final = _permuted(final, back)
        return PackedSequence(y, sizes, order, back), final

    def _run(
        self, x: Any, hx: Any, packing: Packing | None, lengths: Any, resets: Any
    ) -> tuple[torch.Tensor, Any]:
        tensors = list(self._tensors())
        state = self._state(hx)
        kind, precision, cast = self._dtypes(x, tensors[0], state)
        if cast is not None:
            x = x.float()
            state = [part.float() for part in state]
            tensors = [each.float() for each in tensors]
        backend = "cuda" if x.is_cuda else self.backend
        first = self.batch_first and packing is None
        layer = self._engine(kind, precision, backend, first)
        weights = self._weights(layer, tensors, x)
        if lengths is not None or resets is not None:
            lengths, resets = _host(lengths), _host(resets)
        request = Request(layer, weights, lengths, resets, self._seed(), packing)
        if _differentiates(x, state, tensors):
            y, *final = Run.apply(request, len(state), x, *state, *tensors)
        else:
            (y, *final), _ = run(request, x, state)
        if cast is not None:
            y, final = y.to(cast), [part.to(cast) for part in final]
        return y, final[0] if len(final) == 1 else tuple(final)

    def _compiled(self, x: Any, hx: Any, lengths: Any, resets: Any) -> tuple[torch.Tensor, Any]:
        """As `_run`, of what torch.compile can follow: the engine is one operator to it."""
        tensors = [getattr(self, name) for name in self._param_names]
        state = self._state(hx)
        kind, precision, cast = self._dtypes(x, tensors[0], state)
        if cast is not None:
            x = x.float()
            state = [part.float() for part in state]
            tensors = [each.float() for each in tensors]
        text = self._text(kind, precision, "cuda" if x.is_cuda else self.backend, self.batch_first)
        seed = None
        if self._drops():
            seed = torch.randint(2**63 - 1, (), dtype=torch.int64)
        y, h, c = operator.run(
            x,
            state[0] if state else None,
            state[1] if len(state) == 2 else None,
            tensors,
            None if lengths is None else torch.as_tensor(lengths),
            None if resets is None else torch.as_tensor(resets),
            seed,
            text,
        )
        if cast is not None:
            y, h, c = y.to(cast), h.to(cast), c.to(cast)
        return y, (h, c) if self._kind == "LSTM" else h

    def _tensors(self) -> Iterator[Any]:
        """The parameters; one that something computes (weight norm) is an attribute only."""
        own = self._parameters
        for name in self._param_names:
            there = own.get(name)
            yield getattr(self, name) if there is None else there

    def _text(self, dtype: str, precision: str, backend: str, batch_first: bool) -> str:
        """Say what the layer is, as its repr does; see `functional.engine`."""
        more = "".join([f", {name}={value!r}" for name, value in self._options.items()])
        return (
            f"{self._kind}(input_size={self.input_size!r}, hidden_size={self.hidden_size!r}, "
            f"num_layers={self.num_layers!r}, bias={self.bias!r}, batch_first={batch_first!r}, "
            f"dropout={self.dropout!r}, bidirectional={self.bidirectional!r}, dtype={dtype!r}, "
            f"precision={precision!r}, backend={backend!r}{more})"
        )

    def _engine(self, *how: Any) -> Layer:
        """Return the engine of a dtype, precision, backend and order of axes."""
        found = self._engines.get(how)
        if found is None:
            found = self._engines[how] = functional.engine(self._text(*how), "input", "hx")
        return found

    def _weights(self, layer: Layer, tensors: list[Any], x: torch.Tensor) -> Any:
        """Return the parameters as the engine takes them, where they lie.

        They are looked at anew if one has moved: by `to`, `load_state_dict(assign=True)`,
        `share_memory` or whatever. What was looked at stays alive until then, so that no other
        tensor can be at its address.
        """
        where = [each.data_ptr() for each in tensors]
        seen = self.__dict__.get("_seen")
        if seen is not None and seen[0] == where and seen[1] is layer:
            return seen[2]
        way = bridge.of(x)
        with way.device_of(x):
            weights = functional.weights(layer, [way.array(each) for each in tensors])
        self.__dict__["_seen"] = where, layer, weights
        return weights

    def _state(self, hx: Any) -> list[torch.Tensor]:
        """Return the parts of a state, none if there is none."""
        if hx is None:
            return []
        if self._kind == "LSTM":
            if not isinstance(hx, (tuple, list)) or len(hx) != 2:
                raise TypeError(f"hx must be a tuple (h, c) of tensors, got {_type(hx)}")
            return list(hx)
        return [hx]

    def _dtypes(
        self, x: Any, weight: torch.Tensor, state: list[torch.Tensor]
    ) -> tuple[str, str, torch.dtype | None]:
        """Return the engine's dtype and precision, and what to cast the results to, if that."""
        _on_device("input", x, weight)
        for part in state:
            _on_device("hx", part, weight)
        given, own = x.dtype, weight.dtype
        if own != torch.float64:
            device = "cuda" if x.is_cuda else "cpu"
            cast = None
            if torch.is_autocast_enabled(device) and given.is_floating_point:
                cast = torch.get_autocast_dtype(device)
            elif given in PRECISION:
                cast = given
            if cast in PRECISION:
                return "float32", PRECISION[cast], cast
        _of_dtype("input", x, own)
        for part in state:
            _of_dtype("hx", part, own)
        if own == torch.float64:
            return "float64", "highest", None
        return "float32", self.precision, None

    def _drops(self) -> bool:
        return self.training and self.dropout > 0 and self.num_layers > 1

    def _seed(self) -> int | None:
        """Draw the seed of the dropout masks from torch's generator."""
        return int(torch.randint(2**63 - 1, (), dtype=torch.int64)) if self._drops() else None


def _on_device(name: str, value: Any, weight: torch.Tensor) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_type(value)}")
    if not (value.is_cpu and weight.is_cpu) and value.device != weight.device:
        raise TypeError(f"{name} is on {value.device}, the parameters on {weight.device}")


def _of_dtype(name: str, value: torch.Tensor, dtype: torch.dtype) -> None:
    if value.dtype != dtype:
        raise TypeError(
            f"{name} must be {dtype}, as the parameters are, got {value.dtype}: "
            f"cast it with {name}.to({dtype})"
        )


def _differentiates(x: torch.Tensor, state: list[torch.Tensor], tensors: list[Any]) -> bool:
    if torch.autograd.forward_ad._current_level >= 0:  # the function says that it cannot
        return True
    if not torch.is_grad_enabled():
        return False
    return (
        x.requires_grad
        or any(each.requires_grad for each in tensors)
        or any(each.requires_grad for each in state)
    )


def _permuted(hx: Any, order: torch.Tensor) -> Any:
    """Return a state with its rows in another order."""
    if isinstance(hx, (tuple, list)):
        return tuple(_permuted(part, order) for part in hx)
    if not isinstance(hx, torch.Tensor) or hx.dim() != 3:
        return hx  # to be refused with the other states
    return hx.index_select(1, order)


def _host(value: Any) -> Any:
    """Return a tensor as an array on the host, anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    array: np.ndarray[Any, Any] = value.detach().cpu().numpy()
    return array if array.ndim else array[()]


def _type(value: Any) -> str:
    many = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"{type(value).__name__}{many}"


class LSTM(Recurrent):
    """Long short-term memory, in place of `torch.nn.LSTM`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, \
device, dtype
        As of `torch.nn.LSTM`; ``dropout`` is less than 1.
    **options
        Further arguments of `fastrnn.LSTM`: ``precision``, ``reproducible``, ``peephole``,
        ``backend``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `fastrnn.LSTM`.

    Examples
    --------
    >>> import torch
    >>> import fastrnn.torch
    >>> module = fastrnn.torch.LSTM(40, 64, num_layers=2, bidirectional=True)
    >>> module.load_state_dict(torch.nn.LSTM(40, 64, 2, bidirectional=True).state_dict())
    <All keys matched successfully>
    >>> y, (h, c) = module(torch.randn(100, 8, 40), lengths=[100, 7, 60, 1, 0, 99, 5, 30])
    >>> y.shape, h.shape
    (torch.Size([100, 8, 128]), torch.Size([4, 8, 64]))
    >>> y.sum().backward()
    """

    _kind = "LSTM"
    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        if proj_size:
            options = {"proj_size": proj_size, **options}
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, options,
        )  # fmt: skip


class GRU(Recurrent):
    """Gated recurrent units, in place of `torch.nn.GRU`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As of `torch.nn.GRU`; ``dropout`` is less than 1.
    **options
        Further arguments of `fastrnn.GRU`: ``precision``, ``reproducible``, ``reset_after``,
        ``backend``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `fastrnn.GRU`.

    Examples
    --------
    >>> import torch
    >>> import fastrnn.torch
    >>> module = fastrnn.torch.GRU(8, 16, batch_first=True)
    >>> y, h = module(torch.randn(4, 100, 8))
    >>> torch.equal(y[:, -1], h[0])
    True
    """

    _kind = "GRU"
    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, options,
        )  # fmt: skip


class RNN(Recurrent):
    """Elman layers, in place of `torch.nn.RNN`.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, \
device, dtype
        As of `torch.nn.RNN`; ``dropout`` is less than 1.
    **options
        Further arguments of `fastrnn.RNN`: ``precision``, ``reproducible``, ``backend``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `fastrnn.RNN`.

    Examples
    --------
    >>> import torch
    >>> import fastrnn.torch
    >>> module = fastrnn.torch.RNN(3, 5, nonlinearity="relu")
    >>> y, h = module(torch.randn(7, 3))  # one unbatched sequence
    >>> y.shape, h.shape
    (torch.Size([7, 5]), torch.Size([1, 5]))
    """

    _kind = "RNN"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, {"nonlinearity": nonlinearity, **options},
        )  # fmt: skip

    @property
    def nonlinearity(self) -> str:
        """What follows the products: "tanh" or "relu"."""
        name: str = self._options["nonlinearity"]
        return name

    @property
    def mode(self) -> str:
        """What torch calls the kind of cell."""
        return f"RNN_{self.nonlinearity.upper()}"
