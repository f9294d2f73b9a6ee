"""The applications' own parts: the same network in torch, measures, baselines."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

FOLDER = Path(__file__).parents[1] / "examples" / "applications"
B, T, LENGTHS = 3, 5, np.array([5, 1, 3])


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def in_torch(programs: None) -> Any:
    pytest.importorskip("torch")
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


def test_a_step_in_torch_is_one_here(in_torch: Any) -> None:
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


def test_measures_of_known_values() -> None:
    measures = importlib.import_module("measures")
    text = ["one", "two", "three", "four", "five"]
    assert measures.bleu([text], [text]) == pytest.approx(100)
    short = measures.bleu([text[:4]], [text])  # all n-grams are right, but it is too short
    assert short == pytest.approx(100 * math.exp(1 - 5 / 4))
    assert measures.bleu([[*text[:4], "six"]], [text]) == pytest.approx(
        100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    )
    assert measures.chrf([text], [text]) == pytest.approx(100)
    assert measures.chrf([["abc"]], [["xyz"]]) == 0
    assert measures.f1([["a", "b", "b"], ["c"]], [["b", "a"], ["d"]]) == pytest.approx(0.4)
    assert measures.distance([1, 2, 3, 4], [2, 3, 5, 4, 6]) == 3
    assert measures.label_error([[1, 2, 3], []], [[1, 3], [4, 4]]) == pytest.approx(3 / 4)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_n_gram_model_is_a_distribution(order: int) -> None:
    baselines = importlib.import_module("baselines")
    rng = np.random.default_rng(0)
    text = rng.integers(0, 5, 200)  # of 6 symbols: one is never seen
    p = [2 ** -baselines.n_gram(text, np.array([symbol]), order, 6) for symbol in range(6)]
    assert sum(p) == pytest.approx(1)
    assert 0 < p[5] < min(p[:5])


def test_naive_bayes_by_hand() -> None:
    baselines = importlib.import_module("baselines")
    found = baselines.naive_bayes([{"a", "b"}, {"b"}, {"c"}], np.array([0, 0, 1]), [{"a", "x"}], 1)
    # 2 and 1 texts; 3 and 1 features, of 3 kinds: a occurs once and never, x is unknown
    assert np.exp(found)[0] == pytest.approx([2 * (1 + 1) / (3 + 3), 1 * (0 + 1) / (1 + 3)])


def test_a_weight_that_helps_is_found() -> None:
    baselines = importlib.import_module("baselines")
    right, wrong = np.eye(3), np.roll(np.eye(3), 1, axis=1)
    assert baselines.weighed(right, wrong, np.arange(3)) < 1
    assert baselines.weighed(0.1 * wrong, right, np.arange(3)) > 0.1
    assert baselines.weighed(right, right, np.arange(3)) == 0


def test_a_linear_forecast_of_a_line() -> None:
    baselines = importlib.import_module("baselines")
    series = 3.0 * np.arange(80) + np.sin(np.pi * np.arange(80))
    found = baselines.linear(series, np.arange(10, 60), np.array([70]), 4, 2, 6)
    np.testing.assert_allclose(found[0], series[70:74], rtol=1e-6)


def test_a_translation_memory_gives_the_closest_text() -> None:
    baselines = importlib.import_module("baselines")
    pairs = [(["open", "the", "door"], ["abre"]), (["door"], ["puerta"])]
    tests = [(["the", "door"], []), (["door"], []), (["window"], [])]
    assert baselines.translation_memory(pairs, tests) == [["abre"], ["puerta"], ["window"]]
