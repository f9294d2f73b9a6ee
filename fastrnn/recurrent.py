"""What recurrent layers and cells have in common: construction, calls, states, gradients."""

from __future__ import annotations

import math
import sys
import warnings
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from . import backends, checks, foreign
from .cellmath import CELLS, GENERAL
from .checks import RNG
from .constructor import checked_arguments
from .freezing import Freezable
from .parametrized import Setting
from .params import Parameters
from .schedule import ALL_ROWS, RowSchedule, row_schedules
from .spec import CellSpec, Numerics, Options, OutputGradients, Weights
from .stack import DeviceStack, Stack, StackArgs
from .stepper import DeviceStepper, Stepper
from .tape import Gradients, StateIndex, Tape, pair
from .typing import Array, D, Precision, S

Self = TypeVar("Self", bound="Recurrent")

# What `_build` makes, and so what copies and pickles make anew.
_BUILT = {"_dtype", "_cell", "_xp", "_stack", "_widths", "_state_outer", "_most_steps"}
_BUILT |= {"_no_state"}
_BUILT |= {"_input_size", "_batch_first", "_params", "_names", "_weights", "_frozen", "_lock"}

# The parameters' names, in the order of the fields of `Weights`, without a pass's suffix.
_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole"

# What the cells without options compute.
_PLAIN = {kind: (Options(),) for kind in CELLS} | {"rnn_relu": (Options(candidate="relu"),)}

_EVERY_ROW = ALL_ROWS, ALL_ROWS


class Recurrent(Freezable, Generic[S, D]):
    """Base of all layers and cells. Not for direct use."""

    input_size = Setting[int]()
    hidden_size = Setting[int]()
    bias = Setting[bool]()
    precision = Setting[Precision]()
    reproducible = Setting[bool]()

    _x_name: str
    _state_name: str = "state"
    """What a caller knows x and the state as."""
    _x_rank: ClassVar[int]
    """Number of axes of a batched x."""
    _has_passes: ClassVar[bool]
    """Whether a state has an axis L*D before (B, H)."""
    _state_index: ClassVar[dict[bool, StateIndex]]
    """How a state's axes (..., L*D, B, H) become the caller's, for unbatched and batched input."""

    @staticmethod
    @abstractmethod
    def _kind(config: Mapping[str, Any]) -> str:
        """Return the cell's kind without options, a key of `fastrnn.cellmath.CELLS`."""

    @staticmethod
    @abstractmethod
    def _options(config: Mapping[str, Any]) -> tuple[str, Options]:
        """Return the kind that has options, a key of `GENERAL`, and the options."""

    @classmethod
    def _cell_of(cls, config: Mapping[str, Any]) -> CellSpec:
        kind, options = cls._options(config)
        plain = cls._kind(config)
        # the slope is of no account then
        if plain in CELLS and options._replace(slope=0.2) in _PLAIN[plain]:
            return CELLS[plain]
        return replace(GENERAL[kind], options=options)

    @staticmethod
    @abstractmethod
    def _suffixes(config: Mapping[str, Any]) -> list[str]:
        """Return what stands behind the parameters' names, one a pass."""

    @abstractmethod
    def _form(self, batched: bool, steps: int | None, batch: int | None) -> checks.Form:
        """Return the axes of x, or of what has its form, but the last."""

    @abstractmethod
    def _time_major(self, value: Array, batched: bool) -> Array:
        """Return x, or what has its form, as a view (T, B, ...)."""

    @abstractmethod
    def _like_x(self, value: Array, batched: bool) -> Array:
        """Return (T, B, ...) as a view in the form of the caller's x."""

    # ------------------------------------------------------------------- construction

    @classmethod
    def _unset(cls: type[Self], config: dict[str, Any]) -> Self:
        """Return a layer of checked arguments for calls that bring their weights; its own are
        zeros, which take no memory until they are touched."""
        layer = cls.__new__(cls)
        layer._build(config)
        return layer

    def _construct(self, arguments: dict[str, Any], rng: RNG) -> None:
        config = checked_arguments(arguments)
        if config.get("dropout") and config["num_layers"] == 1:
            warnings.warn(checks.idle_dropout(config["dropout"]), UserWarning, stacklevel=3)
        generator = checks.generator("rng", rng)
        self._build(config)
        bound = 1 / math.sqrt(config["hidden_size"])
        for value in self._params.values():
            drawn = generator.uniform(-bound, bound, value.shape)
            value[...] = self._xp.asarray(drawn, self._dtype)

    def _build(self, config: dict[str, Any]) -> None:
        """Make what follows from the constructor's arguments; the parameters are zeros."""
        self._config = config
        # read at every call, where a `Setting` takes as long as a small step
        self._input_size = config["input_size"]
        self._batch_first = config.get("batch_first", False)
        self._dtype = np.dtype(config["dtype"])
        hidden = config["hidden_size"]
        proj = config.get("proj_size", 0)
        self._cell = self._cell_of(config)
        backend = backends.get(backends.resolve(config["backend"]))
        backends.warn_of_fallback(config["backend"], backend.name)
        self._xp = backend.xp
        self._stack = (Stack if self._xp is np else DeviceStack)(
            self._cell,
            backend,
            num_layers=config.get("num_layers", 1),
            bidirectional=config.get("bidirectional", False),
            reverse=config.get("reverse", False),
            widths=(proj or hidden, hidden),
            dropout=config.get("dropout", 0.0),
            numerics=Numerics(config["precision"], config["reproducible"]),
        )
        # (letter, size) of the last axis of h and of c
        self._widths = (("P", proj) if proj else ("H", hidden), ("H", hidden))
        passes = self._stack.num_passes
        self._no_state = passes, proj or hidden, hidden if self._cell.has_c else 0
        outer = ("L*D", passes)
        self._state_outer = (outer,) if self._has_passes else ()
        # No array of a call may need more bytes than a pointer can tell apart.
        widest = max(config["input_size"], 4 * hidden * self._stack.num_passes)
        self._most_steps = sys.maxsize // (widest * self._dtype.itemsize)
        self._params = self._zeros()
        suffixes = self._suffixes(config)
        self._names = [[name + suffix for name in _WEIGHTS] for suffix in suffixes]
        self._weights = self._by_pass(self._params)
        self._build_unfrozen()

    @classmethod
    def param_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes, in torch's order, of the parameters of a layer with these
        constructor's arguments, as `config` returns them."""
        hidden = config["hidden_size"]
        width = config.get("proj_size", 0) or hidden
        gates = len(cls._cell_of(config).gates) * hidden
        directions = 2 if config.get("bidirectional") else 1
        shapes: dict[str, tuple[int, ...]] = {}
        for index, suffix in enumerate(cls._suffixes(config)):
            below = config["input_size"] if index < directions else directions * width
            shapes["weight_ih" + suffix] = (gates, below)
            shapes["weight_hh" + suffix] = (gates, width)
            if config["bias"]:
                shapes["bias_ih" + suffix] = (gates,)
                shapes["bias_hh" + suffix] = (gates,)
            if config.get("proj_size"):
                shapes["weight_hr" + suffix] = (width, hidden)
            if config.get("peephole"):
                shapes["weight_peephole" + suffix] = (3 * hidden,)
        return shapes

    @classmethod
    def _sizes(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        kind, recurrent = cls.__name__, cls._anchor
        first = recurrent.replace("hh", "ih", 1)
        if first not in shapes:
            raise foreign.missing(kind, [first], shapes)
        projection = shapes.get(recurrent.replace("weight_hh", "weight_hr", 1), ())
        peephole = recurrent.replace("weight_hh", "weight_peephole", 1) in shapes
        gates = len(cls._cell_of({**cls.defaults(), "peephole": peephole}).gates)
        hidden, left = divmod(shapes[recurrent][0] if shapes[recurrent] else 0, gates)
        width = projection[0] if len(projection) == 2 else hidden
        if left or not hidden or shapes[recurrent] != (gates * hidden, width):
            raise foreign.wrong_gates(kind, recurrent, gates, shapes[recurrent])
        if len(shapes[first]) != 2:
            raise checks.wrong_shape(first, shapes[first], (("G*H", gates * hidden), ("I", None)))
        config = {
            **cls._extent(shapes),
            "input_size": shapes[first][1],
            "hidden_size": hidden,
            "bias": any(name.startswith("bias") for name in shapes),
        }
        if projection:
            config["proj_size"] = width
        if peephole:
            config["peephole"] = peephole
        return config

    @classmethod
    @abstractmethod
    def _extent(cls, names: Collection[str]) -> dict[str, Any]:
        """Return the arguments that say how many layers and directions have these names."""

    def _by_pass(self, params: Parameters) -> list[Weights]:
        """Return parameters, or their gradients, as the backends take them, one a pass."""
        return [Weights._make(params.pick(names)) for names in self._names]

    # --------------------------------------------------------------------- parameters

    def _move_params(self, flat: Array) -> None:
        with self._lock:
            super()._move_params(flat)
            self._weights = self._by_pass(self._params)

    @property
    def proj_size(self) -> int:
        """P; 0 without projection."""
        proj: int = self._config.get("proj_size", 0)
        return proj

    # ------------------------------------------------------------- copying and moving

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in self.__dict__.items() if name not in _BUILT}
        flat = self._params.on_host(self._params.flat)
        frozen = None if self._frozen is None else self._frozen.dtype
        return own | {"flat_params": flat, "frozen": frozen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        flat, frozen = state.pop("flat_params"), state.pop("frozen")
        self.__dict__.update(state)
        self._build(self._config)
        self._params.flat[:] = self._xp.asarray(flat)
        if frozen is not None:
            self.freeze(frozen)

    def to(self: Self, device: str) -> Self:
        """Return a copy with its parameters on a device, frozen if this one is.

        Parameters
        ----------
        device : "cpu", "cuda" for the current GPU, or "cuda:1" for the one of this number

        Raises
        ------
        TypeError, ValueError
            ``device`` is none of these.
        RuntimeError
            There is no such device here; the text names what is missing.
        """
        kind, current = backends.parse_device(device)
        backend = self._config["backend"]
        if kind == "cuda":
            backend = "cuda"
        elif self.backend == "cuda":
            # FASTRNN_BACKEND may say that "auto" is the GPU.
            backend = "auto" if backends.resolve("auto") != "cuda" else backends.best_on_cpu()
        with current:
            return self._copied({}, backend=backend)

    # ------------------------------------------------------------------------ running

    def _bind(
        self,
        x: Array,
        state: S | None,
        lengths: Any = None,
        resets: Any = None,
        *,
        training: bool = False,
        single_use: bool = True,
        weights: Sequence[Weights] | None = None,
    ) -> tuple[StackArgs, bool]:
        """Check the arguments of a call; return them as the stack's, and whether batched.

        ``weights``, one a pass: to run with instead of the layer's own.
        """
        x = checks.array(self._x_name, x, self._dtype, self._params.flat)
        rank, batched = x.ndim, x.ndim == self._x_rank
        if not (batched or rank == self._x_rank - 1) or x.shape[-1] != self._input_size:
            width = "I", self._input_size
            forms = [(*self._form(kind, None, None), width) for kind in (True, False)]
            raise checks.wrong_shape(self._x_name, x.shape, *forms)
        if rank != 3 or self._batch_first:
            x = self._time_major(x, batched)
        steps, batch, _ = x.shape
        if steps * batch > self._most_steps:
            raise checks.too_large(f"what belongs to {self._x_name} of T={steps} and B={batch}")
        h0, c0 = self._state(self._state_name, state, batch if batched else None)
        rows = _EVERY_ROW
        if lengths is not None or resets is not None:
            rows = _schedules(lengths, resets, steps, batch if batched else None)
        frozen = self._frozen if weights is None else None
        if frozen is None:
            packed = self._stack.pack(
                weights or self._weights, backward=training, single_use=single_use
            )
        elif training and frozen.dtype in checks.NARROW:
            raise checks.frozen_narrow(frozen.dtype)
        else:
            packed = frozen.packed
        return StackArgs(packed, x, h0, c0, rows), batched

    def _state(
        self, name: str, state: Any, batch: int | None, *, parts: bool = False
    ) -> tuple[Array, Array | None]:
        """Return new arrays h (L*D, B, P) and c (L*D, B, H), zeros if there is no state, or, with
        ``parts``, where there is none of one of the two."""
        if state is None:
            rows = 1 if batch is None else batch
            passes, h_width, c_width = self._no_state
            zeros = self._params.zeros
            h = zeros((passes, rows, h_width), self._dtype)
            return h, zeros((passes, rows, c_width), self._dtype) if c_width else None
        h_width, c_width = self._widths
        if not self._cell.has_c:
            if isinstance(state, (tuple, list)):
                raise checks.not_a_pair(name, state, self._state_form(batch, h_width))
            return self._part(name, state, batch, h_width), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            forms = (self._state_form(batch, width) for width in self._widths)
            raise checks.a_pair(name, state, *forms)
        h, c = state
        if parts and (h is None or c is None):
            h0, c0 = self._state(name, None, batch)
            h = h0 if h is None else self._part(f"{name}[0]", h, batch, h_width)
            return h, c0 if c is None else self._part(f"{name}[1]", c, batch, c_width)
        h = self._part(f"{name}[0]", h, batch, h_width)
        return h, self._part(f"{name}[1]", c, batch, c_width)

    def _part(self, name: str, value: Any, batch: int | None, width: tuple[str, int]) -> Array:
        """Check one array of a state and return a copy (L*D, B, width)."""
        given = checks.array(name, value, self._dtype, self._params.flat)
        if batch is None:  # a state of one sequence may also have an axis for it, as a stepper's
            forms = self._state_form(None, width), self._state_form(1, width)
            checks.one_of_forms(name, given.shape, *forms)
        else:
            checks.same_form(name, given.shape, self._state_form(batch, width))
        rows = 1 if batch is None else batch
        return self._params.copied(given).reshape(self._stack.num_passes, rows, width[1])

    def _state_form(self, batch: int | None, width: tuple[str, int]) -> checks.Form:
        """Return the letters and sizes of a state's axes."""
        if batch is None:
            return (*self._state_outer, width)
        return (*self._state_outer, ("B", batch), width)

    def stepper(self, batch_size: int = 1) -> Stepper[S]:
        """Return an object that runs the layer, or the cell, one step a call, for streams.

        It holds the parameters as they are now; later changes do not reach it. What a step returns
        is the stepper's own buffer, which the next one overwrites: collect
        ``step(x_t, copy=True)``. See `Stepper`.

        Raises
        ------
        TypeError, ValueError
            ``batch_size`` is not an int of at least 1, or the layer is bidirectional or reverse.
        MemoryError
            ``batch_size`` is too large for any memory.
        """
        return (Stepper if self._xp is np else DeviceStepper)(self, batch_size)

    def _backward(self, tape: Tape[S], dy: Array | None, dstate: D | None) -> Gradients[S]:
        """Check what came with a backward and run it."""
        if not isinstance(tape, Tape):
            raise checks.no_tape(tape)
        if tape.stack is not self._stack:
            raise checks.another_tape(self)
        args, batched = tape.args, tape.batched
        steps, batch, _ = args.x.shape
        if dy is not None:
            dy = checks.array("dy", dy, self._dtype, self._params.flat)
            width = "D*P", self._stack.directions * self._widths[0][1]
            form = (*self._form(batched, steps, batch), width)
            checks.same_form("dy", dy.shape, form)
            dy = self._time_major(dy, batched)
        dh, dc = self._state("dstate", dstate, batch if batched else None, parts=True)
        params = self._params.gradients(self._stack.backend.new_gradients)
        douts = OutputGradients(dy, dh, dc)
        dx, dh, dc = self._stack.backward(args, tape.saved, douts, self._by_pass(params))
        state: S = pair(dh, dc, tape.state_index)
        return Gradients(self._like_x(dx, batched), params, self, state)


def _schedules(
    lengths: Any, resets: Any, steps: int, batch: int | None
) -> tuple[RowSchedule, RowSchedule]:
    """Check lengths and resets; ``batch`` None: of one unbatched sequence."""
    return row_schedules(
        None if lengths is None else checks.lengths(lengths, steps, batch),
        None if resets is None else checks.resets(resets, steps, batch),
        steps,
        1 if batch is None else batch,
    )
