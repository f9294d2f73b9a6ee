"""Arrays that come from torch and go there through DLPack, without a copy: the ways of docs/gpu.md.

The emulated device's arrays are in the host's memory, as torch's tensors of the CPU are.
"""

from __future__ import annotations

from typing import Any

import pytest
from device import address

import fastrnn

torch = pytest.importorskip("torch")


def test_there_and_back(side: tuple[str, Any]) -> None:
    backend, xp = side
    module = torch.nn.LSTM(3, 4, 2)
    layer = fastrnn.LSTM(3, 4, 2, backend=backend)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            torch.from_dlpack(layer.params[name]).copy_(parameter)
        tensor = torch.randn(5, 2, 3)
        x = xp.from_dlpack(tensor)
        assert address(x) == tensor.data_ptr()
        y, (h, c) = layer(x)
        back = torch.from_dlpack(y)
        assert back.data_ptr() == address(y)
        want, (want_h, want_c) = module(tensor)
    for got, wanted in ((back, want), (h, want_h), (c, want_c)):
        torch.testing.assert_close(torch.from_dlpack(got), wanted, rtol=1e-5, atol=1e-6)


def test_a_part_of_a_tensor(side: tuple[str, Any]) -> None:
    """Strides of any kind, as in a batch that comes first."""
    backend, xp = side
    layer = fastrnn.GRU(3, 4, rng=0, backend=backend)
    whole = torch.randn(2, 6, 7)
    part = whole.transpose(0, 1)[1:, :, 2:5]
    y, _ = layer(xp.from_dlpack(part))
    want, _ = layer(xp.from_dlpack(part.contiguous()))
    assert torch.equal(torch.from_dlpack(y), torch.from_dlpack(want))


def test_gradients_go_on_in_torch(side: tuple[str, Any]) -> None:
    """A layer of ours within a model of torch's, as an autograd function."""
    backend, xp = side
    layer = fastrnn.GRU(3, 4, rng=0, backend=backend)
    module = torch.nn.GRU(3, 4)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_dlpack(layer.params[name]))

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y, _, ctx.tape = layer.forward(xp.from_dlpack(x.detach()))
            return torch.from_dlpack(y)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return torch.from_dlpack(layer.backward(ctx.tape, xp.from_dlpack(dy.contiguous())).x)

    x = torch.randn(5, 2, 3, requires_grad=True)
    Function.apply(x).square().sum().backward()
    found, x.grad = x.grad, None
    module(x)[0].square().sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-4, atol=1e-6)
