"""Conv1d beside torch's, in blocks, backwards and step by step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn


def theirs(conv: Any) -> Any:
    """torch's layer with the same parameters, in float64."""
    other = torch.nn.Conv1d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
        dilation=conv.dilation, groups=conv.groups, bias=conv.bias, dtype=torch.float64,
    )  # fmt: skip
    other.load_state_dict({k: torch.tensor(np.float64(v)) for k, v in conv.params.items()})
    return other


@settings(max_examples=60)
@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    steps=st.integers(0, 6),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_beside_torch(
    channels: tuple[int, int, int], kernel: int, stride: int, dilation: int, steps: int,
    batch: int, bias: bool, dtype: str,
) -> None:  # fmt: skip
    groups, c, o = channels
    conv = fastrnn.Conv1d(
        groups * c, groups * o, kernel, stride, dilation, groups, bias, dtype=dtype, rng=0
    )
    draw = np.random.default_rng(1)
    x = draw.standard_normal((conv.receptive_field + steps, batch, groups * c)).astype(dtype)
    other = theirs(conv)
    tx = torch.tensor(np.float64(x), requires_grad=True)
    ty = other(tx.permute(1, 2, 0)).permute(2, 0, 1)
    y, tape = conv.forward(x)
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    )
    np.testing.assert_allclose(y, ty.detach().numpy(), **tolerance)
    np.testing.assert_array_equal(conv(x), y)
    dy = draw.standard_normal(y.shape).astype(dtype)
    (ty * torch.tensor(np.float64(dy))).sum().backward()
    grads = conv.backward(tape, dy)
    np.testing.assert_allclose(grads.x, tx.grad.numpy(), **tolerance)
    for name, parameter in other.named_parameters():
        np.testing.assert_allclose(grads.params[name], parameter.grad.numpy(), **tolerance)
    # unbatched is the first row
    np.testing.assert_allclose(conv(np.ascontiguousarray(x[:, 0])), y[:, 0], **tolerance)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (4, 2, 1), (3, 2, 2), (1, 1, 1)]
)
def test_a_stepper_is_a_block_behind_zeros(kernel: int, stride: int, dilation: int) -> None:
    conv = fastrnn.Conv1d(3, 4, kernel, stride, dilation, rng=0)
    x = np.random.default_rng(0).standard_normal((12, 2, 3)).astype(np.float32)
    zeros = np.zeros((conv.receptive_field - stride, 2, 3), np.float32)
    want = conv(np.concatenate([zeros, x]))
    step = conv.stepper(2)
    for again in range(2):
        for t, y in enumerate(want):
            part = x[t * stride : (t + 1) * stride]
            got = step(part[0] if stride == 1 and again else part)
            np.testing.assert_allclose(got, y, rtol=1e-5, atol=1e-6)
        step.reset()
    step(x[:stride])
    step.reset(np.array([True, False]))
    other = conv.stepper(2)
    other(np.where([[[False], [True]]], x[:stride], 0).astype(np.float32))
    np.testing.assert_array_equal(step(x[:stride]), other(x[:stride]))


def test_one_stream() -> None:
    conv = fastrnn.Conv1d(3, 4, 2, rng=0)
    step = conv.stepper()
    x = np.ones((2, 3), np.float32)
    step(x[0])
    y = step(x[1])
    assert y.shape == (4,)
    np.testing.assert_allclose(y, conv(x)[0], rtol=1e-6)


def test_a_stepper_in_use_refuses_another_thread() -> None:
    step = fastrnn.Conv1d(3, 4, 2, rng=0).stepper()
    x = np.ones(3, np.float32)
    step(x)
    want = copy.deepcopy(step)(x)
    with step._lock.held:  # as in the midst of a step
        for use in (lambda: step(x), step.reset):
            with pytest.raises(RuntimeError, match="for one thread at a time"):
                use()
    np.testing.assert_array_equal(step(x), want)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))]
)
def test_copies_of_a_stepper_share_no_state(copied: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    step, undisturbed = (fastrnn.Conv1d(3, 4, 2, rng=0).stepper() for _ in range(2))
    step(x[0]), undisturbed(x[0])
    other = copied(step)
    other(x[1])
    np.testing.assert_array_equal(step(x[2]), undisturbed(x[2]))


def test_short_input_gives_no_step() -> None:
    conv = fastrnn.Conv1d(3, 4, 5, rng=0)
    for steps in (0, 4):
        y, tape = conv.forward(np.ones((steps, 2, 3), np.float32))
        assert y.shape == (0, 2, 4)
        grads = conv.backward(tape, y)
        assert grads.x.shape == (steps, 2, 3)
        assert not grads.flat.any()


def test_saved_copied_and_from_params(tmp_path: Any) -> None:
    conv = fastrnn.Conv1d(4, 6, 3, 2, groups=2, rng=0)
    x = np.random.default_rng(0).standard_normal((9, 1, 4)).astype(np.float32)
    fastrnn.save(tmp_path / "c.safetensors", conv)
    for other in (
        fastrnn.load(tmp_path / "c.safetensors"),
        pickle.loads(pickle.dumps(conv)),
        copy.deepcopy(conv),
    ):
        np.testing.assert_array_equal(other(x), conv(x))
    module = torch.nn.Conv1d(4, 6, 3)
    loaded = fastrnn.Conv1d.from_params(module.state_dict())
    assert (loaded.in_channels, loaded.out_channels, loaded.kernel_size) == (4, 6, 3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fastrnn.Conv1d(3, 4, 0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: fastrnn.Conv1d(3, 4, 2, 1.5), TypeError, "stride must be an int, got float"),
        (lambda: fastrnn.Conv1d(3, 4, 2, groups=2), ValueError, "in_channels must be a multiple"),
        (lambda: fastrnn.Conv1d(4, 3, 2, groups=2), ValueError, "out_channels must be a multiple"),
        (lambda: fastrnn.Conv1d(3, 4, 2)(np.ones((5, 4), "f4")), ValueError, r"\(T, C=3\)"),
        (lambda: fastrnn.Conv1d(3, 4, 2)(np.ones((5, 3))), TypeError, "x must be float32"),
        (lambda: fastrnn.Conv1d(3, 4, 2, 3).stepper(), ValueError, "stride of at most receptive"),
        (lambda: fastrnn.Conv1d(3, 4, 2).stepper(2)(np.ones(3, "f4")), ValueError, "x_t must be"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_bad_gradients() -> None:
    conv = fastrnn.Conv1d(3, 4, 2, rng=0)
    y, tape = conv.forward(np.ones((5, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"dy must be \(4, 2, 4\), got \(4, 2, 3\)"):
        conv.backward(tape, y[..., :3])
    with pytest.raises(ValueError, match="another's"):
        fastrnn.Conv1d(3, 4, 2, rng=0).backward(tape, y)
    with pytest.raises(TypeError, match="tape must be"):
        conv.backward(None, y)  # type: ignore[arg-type]
