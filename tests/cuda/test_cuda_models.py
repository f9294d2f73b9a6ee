"""Models of several layers on the emulated device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device import down, up

import fastrnn

pytestmark = pytest.mark.usefixtures("device")

RNG = np.random.default_rng(0)


class Tagger(fastrnn.Model):
    def __init__(self, score: str) -> None:
        how: Any = {"dtype": np.float64}
        self.emb = fastrnn.Embedding(7, 3, rng=0, **how)
        self.rnn = fastrnn.LSTM(3, 4, bidirectional=True, rng=1, backend="numpy", **how)
        self.att = fastrnn.Attention(8, 8, score=score, rng=2, **how)
        self.norm = fastrnn.LayerNorm(24, **how)
        self.out = fastrnn.Linear(24, 5, rng=3, **how)
        self.scale = fastrnn.Parameter(np.full(24, 0.5))

    def loss(self, g: Any, words: Any, tags: Any, lengths: Any) -> Any:
        x = g.dropout(g(self.emb, words), 0.25, variational=True)
        y, state = g(self.rnn, x, lengths=lengths)
        rows = g.add(g.mean(y, lengths), g.max(y, lengths), g.last(state))
        twice = g.index(g.reshape(rows, (1, 2, 8)), [0, 0, 0, 0, 0])
        context = g(self.att, g.relu(y), y, lengths=lengths)
        z = g.concat([g.tanh(y), context, g.sigmoid(twice)])
        z = g.multiply(g(self.norm, z), g(self.scale))
        loss = g.cross_entropy(g(self.out, z), tags, lengths=lengths)
        swapped = g.swapaxes(y, 0, 1)
        with fastrnn.backends.device_of(swapped.value):
            still = g.mse(swapped, np.zeros_like(swapped.value))
        return g.add(loss, g.multiply(still, 0.1))


WORDS, TAGS, LENGTHS = RNG.integers(0, 7, (5, 2)), RNG.integers(0, 5, (5, 2)), [5, 3]


@pytest.mark.parametrize("score", ["dot", "general", "additive"])
def test_a_model_is_that_of_the_cpu(score: str) -> None:
    host = Tagger(score)
    model = host.to("cuda")
    assert model.rnn.backend == "cuda"
    results = []
    for each, words, tags in ((host, WORDS, TAGS), (model, up(WORDS), up(TAGS))):
        adam = fastrnn.Adam(each, 0.05)
        for seed in range(2):
            g = fastrnn.Graph(seed)
            loss = each.loss(g, words, tags, LENGTHS)
            grads = g.backward(loss)
            fastrnn.clip_grad_norm(grads, 0.3)
            adam.step(grads)
        final = each.loss(fastrnn.inference, words, tags, LENGTHS)
        results.append((float(loss), float(final), each.params.host()))
    np.testing.assert_allclose(results[1][:2], results[0][:2], rtol=1e-9)
    for name, value in results[0][2].items():
        np.testing.assert_allclose(results[1][2][name], value, rtol=1e-6, atol=1e-9, err_msg=name)


def test_one_vector_and_a_file(tmp_path: Any) -> None:
    host = Tagger("dot")
    model = host.to("cuda")
    np.testing.assert_array_equal(down(model.flat_params), host.flat_params)
    flat = model.flat_params
    flat *= 2.0
    assert model.flat_params is flat
    back = model.to("cpu")
    np.testing.assert_array_equal(back.flat_params, 2 * host.flat_params)
    path = tmp_path / "model"
    adam, rng = fastrnn.Adam(model, 0.05), np.random.default_rng(0)

    def train(each: Any, adam: Any, rng: Any) -> float:
        g = fastrnn.Graph(rng)
        loss = each.loss(g, up(WORDS), up(TAGS), LENGTHS)
        adam.step(g.backward(loss))
        return float(loss)

    train(model, adam, rng)
    fastrnn.save(path, model, adam, rng, 1)
    other = Tagger("dot").to("cuda")
    again, draws = fastrnn.Adam(other), np.random.default_rng(1)
    assert fastrnn.load(path, into=other, optimizer=again, rng=draws) == 1
    assert [train(model, adam, rng) for _ in range(2)] == [
        train(other, again, draws) for _ in range(2)
    ]
    host.more = fastrnn.Linear(1, 1, dtype=np.float64)
    host.rnn = model.rnn
    with pytest.raises(TypeError, match="one device, got emb on cpu, rnn on <CUDA Device 0>"):
        host.flat_params  # noqa: B018


def test_gradients() -> None:
    model = Tagger("general").to("cuda")
    words, tags = up(WORDS), up(TAGS)
    assert fastrnn.gradcheck(model, lambda g: model.loss(g, words, tags, LENGTHS), rng=0)


def test_steps_of_attention() -> None:
    host = fastrnn.Attention(3, 4, score="general", rng=0)
    layer = host.to("cuda")
    memory = RNG.standard_normal((5, 2, 4)).astype(np.float32)
    query = RNG.standard_normal((2, 3)).astype(np.float32)
    steps = host.stepper(memory, lengths=[5, 2]), layer.stepper(up(memory), lengths=[5, 2])
    for _ in range(2):
        np.testing.assert_allclose(down(steps[1](up(query))), steps[0](query), rtol=1e-5)
        for step in steps:
            step.reorder([1, 0])


def test_arrays_of_two_places() -> None:
    g = fastrnn.Graph()
    x = np.ones((5, 2, 3), np.float32)
    layer = fastrnn.LayerNorm(3).to("cuda")
    with pytest.raises(
        TypeError, match=r"LayerNorm\(size=3\): x must be a cupy\.ndarray of float32"
    ):
        g(layer, x)


def test_losses_of_whole_sequences() -> None:
    z, tags = RNG.standard_normal((6, 3, 4)), RNG.integers(0, 4, (6, 3))
    lengths, labels = [6, 2, 4], RNG.integers(1, 4, (3, 2))
    host = fastrnn.CRF(4, rng=0, dtype=np.float64, backend="numpy")
    layer = host.to("cuda")
    expected, grads = host.loss(z, tags, lengths)
    g = fastrnn.Graph()
    node = g.input(up(z))
    loss = g.crf(layer, node, tags, lengths)
    found = g.backward(loss)[layer]
    assert float(loss) == expected
    np.testing.assert_array_equal(down(node.grad), grads.x)
    np.testing.assert_array_equal(down(found.flat), grads.flat)
    np.testing.assert_array_equal(layer.decode(up(z), lengths), host.decode(z, lengths))
    np.testing.assert_array_equal(down(layer.marginals(up(z), lengths)), host.marginals(z, lengths))
    expected, dz = fastrnn.ctc_loss(z, labels, lengths)
    node = g.input(up(z))
    loss = g.ctc(node, labels, lengths)
    g.backward(loss)
    assert float(loss) == expected
    np.testing.assert_array_equal(down(node.grad), dz)
    assert fastrnn.ctc_decode(up(z), lengths)[0] == fastrnn.ctc_decode(z, lengths)[0]
