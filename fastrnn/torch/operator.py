"""What a module is to torch.compile and torch.export: two operators, forward and backward.

An operator is a function of tensors and returns new ones: there is no place for a tape in it. So
backward runs forward again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from .. import functional
from ..layers import Layer
from . import bridge
from .function import Request, gradients
from .function import run as run_request

Optional: TypeAlias = "torch.Tensor | None"

_ARGUMENTS = (
    "Tensor x, Tensor? h0, Tensor? c0, Tensor[] params, Tensor? lengths, Tensor? resets, "
    "Tensor? seed, str text"
)


def _request(
    x: torch.Tensor,
    params: Sequence[torch.Tensor],
    lengths: Optional,
    resets: Optional,
    seed: Optional,
    text: str,
) -> Request:
    layer = _engine(text)
    way = bridge.of(x)
    with way.device_of(x):
        weights = functional.weights(layer, [way.array(each) for each in params])
    rows, starts = (None if each is None else each.cpu().numpy()[()] for each in (lengths, resets))
    draw = None if seed is None else int(seed)
    return Request(layer, weights, rows, starts, draw)


def _engine(text: str) -> Layer:
    return functional.engine(text, "input", "hx")


def _given(*parts: Optional) -> list[torch.Tensor]:
    return [part for part in parts if part is not None]


@torch.library.custom_op(
    "fastrnn::run", mutates_args=(), schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)"
)
def run(
    x: torch.Tensor,
    h0: Optional,
    c0: Optional,
    params: Sequence[torch.Tensor],
    lengths: Optional,
    resets: Optional,
    seed: Optional,
    text: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return y, h and c, which is empty but for an LSTM."""
    request = _request(x, params, lengths, resets, seed, text)
    (y, h, *c), _ = run_request(request, x, _given(h0, c0))
    # contiguous, as those of the fake are, whatever the order of x's axes
    return y.contiguous(), h, c[0] if c else x.new_empty(0)


@run.register_fake
def _(
    x: torch.Tensor,
    h0: Optional,
    c0: Optional,
    params: Sequence[torch.Tensor],
    lengths: Optional,
    resets: Optional,
    seed: Optional,
    text: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    layer = _engine(text)
    (_, width), (_, hidden) = layer._widths
    stack = layer._stack
    batch = () if x.dim() == 2 else (x.shape[0 if layer.batch_first else 1],)
    y = x.new_empty((*x.shape[:-1], stack.directions * width))
    h = x.new_empty((stack.num_passes, *batch, width))
    has_c = layer._cell.has_c
    return y, h, x.new_empty((stack.num_passes, *batch, hidden) if has_c else (0,))


@torch.library.custom_op(
    "fastrnn::run_backward",
    mutates_args=(),
    schema=f"(Tensor? dy, Tensor? dh, Tensor? dc, {_ARGUMENTS}) -> Tensor[]",
)
def run_backward(
    dy: Optional,
    dh: Optional,
    dc: Optional,
    x: torch.Tensor,
    h0: Optional,
    c0: Optional,
    params: Sequence[torch.Tensor],
    lengths: Optional,
    resets: Optional,
    seed: Optional,
    text: str,
) -> list[torch.Tensor]:
    """Return the gradients of x, of the given parts of the state and of the parameters."""
    request = _request(x, params, lengths, resets, seed, text)
    state = _given(h0, c0)
    (_, *final), tape = run_request(request, x, state, save=True)
    assert tape is not None
    dx, *rest = gradients(request, tape, dy, (dh, dc)[: len(final)], x)
    if not state:
        rest = rest[len(final) :]
    return [dx.contiguous(), *rest]


@run_backward.register_fake
def _(
    dy: Optional,
    dh: Optional,
    dc: Optional,
    x: torch.Tensor,
    h0: Optional,
    c0: Optional,
    params: Sequence[torch.Tensor],
    lengths: Optional,
    resets: Optional,
    seed: Optional,
    text: str,
) -> list[torch.Tensor]:
    return [x.new_empty(each.shape) for each in (x, *_given(h0, c0), *params)]


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, c0, params, lengths, resets, seed, text = inputs
    ctx.text, ctx.count = text, len(params)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, h0, c0, lengths, resets, seed, *params)


def _backward(ctx: Any, dy: Optional, dh: Optional, dc: Optional) -> Any:
    x, h0, c0, lengths, resets, seed, *params = ctx.saved_tensors
    dx, *rest = run_backward(dy, dh, dc, x, h0, c0, params, lengths, resets, seed, ctx.text)
    states = [None if part is None else rest.pop(0) for part in (h0, c0)]
    return dx, *states, rest, None, None, None, None


run.register_autograd(_backward, setup_context=_setup)
