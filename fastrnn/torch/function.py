"""What runs and differentiates a module in eager mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .. import functional
from ..layers import Layer
from ..spec import Weights
from ..tape import Tape
from . import bridge
from .packing import Packing

Tensors = tuple[torch.Tensor, ...]

TWICE = (
    "fastrnn computes first derivatives only: a gradient of a gradient through this module was "
    "asked for (create_graph=True); use torch.nn's module for that"
)

# Whether the running backward may come again; a torch that does not tell counts as if it may.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


class Request(NamedTuple):
    """What a call brings, but for tensors that have gradients."""

    layer: Layer
    weights: list[Weights]
    lengths: Any = None
    resets: Any = None
    seed: int | None = None
    packing: Packing | None = None


def run(
    request: Request, x: torch.Tensor, state: Sequence[torch.Tensor], *, save: bool = False
) -> tuple[Tensors, Tape | None]:
    """Return (y, h) or (y, h, c), and a tape if it is to be kept."""
    way = bridge.of(x)
    packing = request.packing
    with way.device_of(x):
        y, final, tape = functional.forward(
            request.layer,
            request.weights,
            way.array(x) if packing is None else packing.pad(way.array(x)),
            bridge.state_of([way.array(part) for part in state]),
            lengths=request.lengths if packing is None else packing.lengths,
            resets=request.resets,
            seed=request.seed,
            save=save,
        )
        parts = final if isinstance(final, tuple) else (final,)
        if packing is not None:
            y = packing.pack(y)
        return (way.tensor(y), *map(way.tensor, parts)), tape


def gradients(
    request: Request,
    tape: Tape,
    dy: torch.Tensor | None,
    dstate: Sequence[torch.Tensor | None],
    like: torch.Tensor,
) -> Tensors:
    """Return those of x, of each part of the state and of each parameter.

    ``like`` is any tensor on their device.
    """
    way = bridge.of(like)
    packing = request.packing
    with way.device_of(like):
        arrays = [None if each is None else way.array(each) for each in (dy, *dstate)]
        if packing is not None and arrays[0] is not None:
            arrays[0] = packing.pad(arrays[0])
        grads = functional.backward(request.layer, tape, arrays[0], arrays[1:])
        dx = grads.x if packing is None else packing.pack(grads.x)
        parts = grads.state if isinstance(grads.state, tuple) else (grads.state,)
        return tuple(map(way.tensor, (dx, *parts, *grads.params._views.values())))


class Run(torch.autograd.Function):
    """A call: (request, number of states, x, states, parameters) -> (y, h) or (y, h, c)."""

    @staticmethod
    def forward(
        ctx: Any, request: Request, count: int, x: torch.Tensor, *tensors: torch.Tensor
    ) -> Tensors:
        """Run, and keep what `backward` needs."""
        outputs, ctx.tape = run(request, x, tensors[:count], save=True)
        ctx.request, ctx.count, ctx.sources = request, count, tensors
        ctx.save_for_backward(x)  # refused later if it was changed, or if the graph was freed
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor | None, *dstate: torch.Tensor | None) -> Any:
        """Backpropagate."""
        (x,) = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        dx, *rest = gradients(ctx.request, ctx.tape, dy, dstate, x)
        if not ctx.count:  # the call was given no state
            rest = rest[len(dstate) :]
        if not _keeps_graph():
            ctx.tape = None
        found = [g if want else None for g, want in zip((dx, *rest), wanted, strict=True)]
        if torch.is_grad_enabled():  # create_graph=True: they depend on all that went in
            sources = [each for each in (x, *ctx.sources) if each.requires_grad]
            given = [g for g in found if g is not None]
            once = iter(Once.apply(len(given), *given, *sources))
            found = [None if g is None else next(once) for g in found]
        return None, None, *found


class Once(torch.autograd.Function):
    """The identity of some tensors, which cannot be differentiated by those that follow."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: torch.Tensor) -> Tensors:
        """Return the first tensors."""
        return tuple(each.view_as(each) for each in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Refuse."""
        raise RuntimeError(TWICE)
