"""The applications' own parts: the same network in torch, measures, readers of data."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

torch = pytest.importorskip("torch")
FOLDER = Path(__file__).parents[1] / "examples" / "applications"
B, T, LENGTHS = 3, 5, np.array([5, 1, 3])


@pytest.fixture
def in_torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("in_torch")


class Network(fastrnn.Model):
    """Every layer and joint that the applications use, in float64, without dropout."""

    def __init__(self, rng: Any) -> None:
        kind: Any = {"dtype": np.float64, "rng": rng}
        self.symbols = fastrnn.Embedding(7, 4, **kind)
        self.lstm = fastrnn.LSTM(4, 3, bidirectional=True, **kind)
        self.gru = fastrnn.GRU(6, 5, **kind)
        self.rnn = fastrnn.RNN(11, 4, **kind)
        self.attention = fastrnn.Attention(5, 6, score="general", **kind)
        self.out = fastrnn.Linear(4, 3, **kind)
        self.crf = fastrnn.CRF(3, **kind)
        self.first = fastrnn.Linear(6, 5, **kind)

    def losses(self, g: Any, x: Any, tags: Any, lengths: Any) -> list[Any]:
        y, ends = g(self.lstm, g(self.symbols, x), lengths=lengths)
        state = g.index(g.tanh(g(self.first, g.last(ends))), None)
        memory = g.dropout(y, 0.0, variational=True)
        z, state = g(self.gru, y, state)
        both = g.concat([z, g(self.attention, z, memory, lengths=lengths)])
        steps, _ = g(self.rnn, g.dropout(both, 0.0), state=None, lengths=lengths)
        scores = g(self.out, steps)
        rows = g(self.out, g.add(g.mean(steps, lengths), g.max(steps, lengths), g.max(steps)))
        turned = g.swapaxes(g.reshape(g.index(scores, slice(1, None)), (-1, B, 3)), 0, 1)
        own = g.apply(float((turned.value**2).sum()), lambda d: d * 2 * turned.value, turned)
        return [
            g.cross_entropy(scores, tags, lengths=lengths, label_smoothing=0.1),
            g.cross_entropy(g.add(rows, g.mean(scores)), tags[0]),
            g.crf(self.crf, scores, tags, lengths),
            g.ctc(scores, np.array([[1, 2], [2, 0], [1, 0]]), lengths, np.array([2, 1, 1]), 0),
            g.multiply(own, 0.5),
            g.cross_entropy(g(self.out, g.index(steps, np.array([0, 4]))), tags[:2]),
            g.mse(scores, np.ones((T, B, 3))),
        ]


@pytest.mark.parametrize("which", range(7))
def test_the_same_network_in_torch(in_torch: Any, which: int) -> None:
    rng = np.random.default_rng(which)
    model = Network(rng)
    x, tags = rng.integers(0, 7, (T, B)), rng.integers(0, 3, (T, B))
    g = fastrnn.Graph()
    loss = model.losses(g, x, tags, LENGTHS)[which]
    grads = g.backward(loss)
    trainer = in_torch.Trainer(model, 0, 1e-3, 1.0, 0.0)
    twin = model.losses(trainer.graph(), x, tags, LENGTHS)[which]
    np.testing.assert_allclose(float(twin.value), float(loss), rtol=1e-9)
    twin.tensor.backward()
    for name, layer in model.named_layers().items():
        for key, p in trainer.twins[layer].named_parameters():
            if layer in grads:
                found = grads[layer].params[key]
                np.testing.assert_allclose(p.grad, found, atol=1e-11, err_msg=f"{name}.{key}")
            else:
                assert p.grad is None, name


def test_a_step_in_torch_is_one_here(in_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    training = importlib.import_module("training")
    models = [Network(np.random.default_rng(0)) for _ in range(2)]
    before = models[0].flat_params.copy()
    x, tags = np.arange(T * B).reshape(T, B) % 7, np.arange(T * B).reshape(T, B) % 3
    for model, kind in zip(models, (training.Trainer, in_torch.Trainer), strict=True):
        trainer = kind(model, 0, 1e-3, 0.1, 1e-2)
        for lr in (1e-2, 1e-3):
            g = trainer.graph()
            losses = model.losses(g, x, tags, LENGTHS)
            assert trainer.step(g, g.add(losses[0], losses[2]), lr) > 0.1
    used = models[0].flat_params != before
    assert used.mean() > 0.8
    np.testing.assert_allclose(models[1].flat_params, models[0].flat_params, atol=1e-9)
