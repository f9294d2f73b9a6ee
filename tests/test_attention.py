"""Attention, its stepper, LayerNorm and label smoothing against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fastrnn

Q, K, TQ, TK, B = 3, 5, 2, 4, 3
RNG = np.random.default_rng(0)


def attention(score: str, **how: Any) -> tuple[Any, Any, Any]:
    size = K if score == "dot" else Q
    layer = fastrnn.Attention(size, K, score=score, rng=0, dtype=np.float64, **how)
    return layer, RNG.standard_normal((TQ, B, size)), RNG.standard_normal((TK, B, K))


def torchs(score: str, p: Any, query: Any, memory: Any, lengths: Any) -> tuple[Any, Any]:
    """Context and weights, step by step and row by row."""
    contexts, weights = torch.zeros(TQ, B, K, dtype=torch.float64), torch.zeros(TQ, B, TK)
    rows = []
    for b in range(B):
        keys = memory[: lengths[b], b]
        row = []
        for t in range(TQ):
            q = query[t, b]
            if score == "dot":
                s = keys @ q
            elif score == "general":
                s = keys @ (p["weight_query"] @ q)
            else:
                s = (
                    torch.tanh(keys @ p["weight_key"].T + p["weight_query"] @ q + p["bias"])
                    @ p["weight_score"]
                )
            a = torch.softmax(s, 0)
            weights[t, b, : lengths[b]] = a.detach()
            row.append(a @ keys if lengths[b] else contexts[t, b])
        rows.append(torch.stack(row))
    return torch.stack(rows, 1), weights


@pytest.mark.parametrize("lengths", [None, [4, 2, 0]])
@pytest.mark.parametrize(
    ("score", "how"),
    [("dot", {}), ("general", {}), ("additive", {}), ("additive", {"hidden_size": 7})],
)
def test_attention_is_torchs(score: str, how: Any, lengths: Any) -> None:
    layer, query, memory = attention(score, **how)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in layer.params.items()}
    q, m = (torch.tensor(a, requires_grad=True) for a in (query, memory))
    expected, weights = torchs(score, p, q, m, [TK] * B if lengths is None else lengths)
    context, tape = layer.forward(query, memory, lengths=lengths)
    np.testing.assert_allclose(context, expected.detach(), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(layer(query, memory, lengths=lengths), context)
    np.testing.assert_allclose(
        layer.weights(query, memory, lengths=lengths), weights, rtol=1e-6, atol=1e-7
    )
    dy = RNG.standard_normal(context.shape)
    expected.backward(torch.tensor(dy))
    layer.flat_params[...] = 0  # the tape has those of forward
    for _ in range(2):
        grads = layer.backward(tape, dy)
        np.testing.assert_allclose(grads.x, q.grad, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(grads.memory, m.grad, rtol=1e-10, atol=1e-13)
        for name, value in p.items():
            np.testing.assert_allclose(grads.params[name], value.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("score", ["dot", "general", "additive"])
def test_steps_are_the_block(score: str) -> None:
    layer, query, memory = attention(score)
    lengths = [4, 2, 0]
    expected = layer(query, memory, lengths=lengths)
    weights = layer.weights(query, memory, lengths=lengths)
    step = layer.stepper(memory, lengths=lengths)
    memory[...] = np.nan  # the stepper's own
    for t in range(TQ):
        np.testing.assert_allclose(step(query[t]), expected[t], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(step.weights, weights[t], rtol=1e-12, atol=1e-15)
    rows = [1, 1, 0]
    step.reorder(rows)
    np.testing.assert_allclose(step(query[0][rows]), expected[0][rows], rtol=1e-12, atol=1e-15)
    with pytest.raises(IndexError, match=r"rows must be in 0\.\.2, got 3"):
        step.reorder([0, 1, 3])
    with pytest.raises(ValueError, match=r"rows must be \(B=3,\), got \(2,\)"):
        step.reorder([0, 1])
    with pytest.raises(ValueError, match=r"query must be \(B=3, Q="):
        step(query[0][:2])


def test_one_row_and_a_memory_of_no_steps() -> None:
    layer = fastrnn.Attention(K, K, dtype=np.float64)
    memory, query = RNG.standard_normal((TK, 1, K)), RNG.standard_normal((1, 1, K))
    step = layer.stepper(memory)
    np.testing.assert_allclose(step(query[0, 0]), layer(query, memory)[0, 0], rtol=1e-12)
    empty = np.zeros((0, 1, K))
    context, tape = layer.forward(query, empty)
    assert not context.any()
    grads = layer.backward(tape, query)
    assert not grads.x.any()
    assert grads.memory.shape == empty.shape
    assert layer.num_params == 0
    fastrnn.Adam(layer).step(grads)  # nothing to do


def test_what_attention_refuses() -> None:
    with pytest.raises(ValueError, match='must be equal with score="dot", got 3 and 5'):
        fastrnn.Attention(3, 5)
    with pytest.raises(
        ValueError, match="hidden_size is for score=\"additive\", got it with 'dot'"
    ):
        fastrnn.Attention(3, 3, hidden_size=4)
    with pytest.raises(ValueError, match="score must be one of 'dot', 'general', 'additive'"):
        fastrnn.Attention(3, 3, score="cosine")
    layer, query, memory = attention("general")
    for arguments, match in (
        ((query[0], memory), r"query must be \(Tq, B, Q=3\), got \(3, 3\)"),
        ((query, memory[..., :2]), r"memory must be \(Tk, B, K=5\), got \(4, 3, 2\)"),
        ((query[:, :2], memory), r"one B, got \(2, 2, 3\) and \(4, 3, 5\)"),
    ):
        with pytest.raises(ValueError, match=match):
            layer(*arguments)
    with pytest.raises(ValueError, match=r"lengths must be in 0\.\.T=4, got 5 in row 1"):
        layer(query, memory, lengths=[1, 5, 1])
    _, tape = layer.forward(query, memory)
    with pytest.raises(ValueError, match=r"dy must be \(Tq=2, B=3, K=5\), got \(2, 3, 3\)"):
        layer.backward(tape, query)
    other, *_ = attention("general")
    with pytest.raises(ValueError, match="another"):
        other.backward(tape, query)
    with pytest.raises(TypeError, match="tape must be what forward"):
        layer.backward(None, query)


def test_attention_of_parameters_from_elsewhere() -> None:
    for score in ("general", "additive"):
        layer, *_ = attention(score)
        made = fastrnn.Attention.from_params(
            {f"att.{name}": value for name, value in layer.params.items()}, "att", dtype="float64"
        )
        assert made.config() == layer.config()
        assert np.array_equal(made.flat_params, layer.flat_params)


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (0, 7)])
def test_layer_norm_is_torchs(shape: tuple[int, ...]) -> None:
    theirs = torch.nn.LayerNorm(7, eps=1e-3, dtype=torch.float64)
    with torch.no_grad():
        for value in theirs.parameters():
            value.copy_(torch.tensor(RNG.standard_normal(7)))
    ours = fastrnn.LayerNorm(7, eps=1e-3, dtype=np.float64)
    ours.load_params({k: v.detach().numpy() for k, v in theirs.state_dict().items()})
    x, dy = RNG.standard_normal(shape) * 3 + 1, RNG.standard_normal(shape)
    tx = torch.tensor(x, requires_grad=True)
    expected = theirs(tx)
    expected.backward(torch.tensor(dy))
    y, tape = ours.forward(x)
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-12, atol=1e-13)
    assert np.array_equal(ours(x), y)
    grads = ours.backward(tape, dy)
    np.testing.assert_allclose(grads.x, tx.grad, rtol=1e-10, atol=1e-12)
    for name, value in theirs.named_parameters():
        np.testing.assert_allclose(grads.params[name], value.grad, rtol=1e-11, atol=1e-13)


def test_what_layer_norm_refuses() -> None:
    layer = fastrnn.LayerNorm(7)
    x = np.ones((2, 7), np.float32)
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., size=7\), got \(2, 6\)"):
        layer(x[:, :6])
    with pytest.raises(TypeError, match="x must be float32, got float64"):
        layer(x.astype(np.float64))
    _, tape = layer.forward(x)
    with pytest.raises(ValueError, match=r"dy must be \(2, 7\), got \(7,\)"):
        layer.backward(tape, x[0])
    with pytest.raises(ValueError, match="another"):
        fastrnn.LayerNorm(7).backward(tape, x)
    with pytest.raises(TypeError, match="tape must be what forward"):
        layer.backward(x, x)
    assert fastrnn.LayerNorm.from_params(layer.params).size == 7


@pytest.mark.parametrize("masked", [False, True])
def test_label_smoothing_is_torchs(masked: bool) -> None:
    logits, targets = RNG.standard_normal((4, 3, 5)), RNG.integers(0, 5, (4, 3))
    mask = RNG.random((4, 3)) < 0.6 if masked else np.ones((4, 3), bool)
    tl = torch.tensor(logits, requires_grad=True)
    tt = torch.where(torch.tensor(mask), torch.tensor(targets), -100)
    expected = torch.nn.functional.cross_entropy(
        tl.reshape(-1, 5), tt.reshape(-1), label_smoothing=0.2
    )
    expected.backward()
    g = fastrnn.Graph()
    node = g.input(logits)
    loss = g.cross_entropy(node, targets, mask=mask if masked else None, label_smoothing=0.2)
    g.backward(loss)
    np.testing.assert_allclose(float(loss), expected.item(), rtol=1e-13)
    np.testing.assert_allclose(node.grad, tl.grad, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match=r"g\.cross_entropy: label_smoothing must be in \[0, 1\)"):
        g.cross_entropy(logits, targets, label_smoothing=1.0)
