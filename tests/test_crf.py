"""CRF against all taggings one by one, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from grid import BACKENDS

import fastrnn
from fastrnn.sequences import crf as crf_module

RNG = np.random.default_rng(0)
T, B, C = 5, 4, 3
LENGTHS = [5, 1, 0, 3]
SCORES = RNG.standard_normal((T, B, C)) * 2
TAGS = RNG.integers(0, C, (T, B))


@pytest.fixture(scope="module", params=BACKENDS)
def on(request: Any) -> Any:
    return request.param


def chain(on: str, **how: Any) -> Any:
    layer = fastrnn.CRF(C, dtype=np.float64, rng=0, backend=on, **how)
    layer.flat_params[...] = np.random.default_rng(1).standard_normal(layer.num_params)
    return layer


def score(layer: Any, b: int, tags: Any, scores: Any = SCORES) -> float:
    """Of one tagging, from the equations."""
    p = layer.params
    for limit, ok in (
        (layer.config()["allowed"], lambda a: all(a[i][j] for i, j in itertools.pairwise(tags))),
        (layer.config()["allowed_start"], lambda a: a[tags[0]]),
        (layer.config()["allowed_end"], lambda a: a[tags[-1]]),
    ):
        if limit is not None and not ok(limit):
            return -np.inf
    total = p["start_transitions"][tags[0]] + p["end_transitions"][tags[-1]]
    total += sum(scores[t, b, k] for t, k in enumerate(tags))
    return float(total + sum(p["transitions"][i, j] for i, j in itertools.pairwise(tags)))


def everything(layer: Any, b: int, n: int, scores: Any = SCORES) -> tuple[Any, Any]:
    taggings = list(itertools.product(range(C), repeat=n))
    return taggings, np.array([score(layer, b, tags, scores) for tags in taggings])


LIMITS: list[dict[str, Any]] = [
    {},
    {"allowed": [[True, False, True], [True, True, False], [False, True, True]]},
    {"allowed_start": [True, False, True], "allowed_end": [False, True, True]},
]


@pytest.mark.parametrize("how", LIMITS)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_it_is_the_sum_over_all_taggings(on: str, how: Any, scale: float) -> None:
    layer, scores = chain(on, **how), SCORES * scale
    marginals, best = layer.marginals(scores, LENGTHS), layer.decode(scores, LENGTHS)
    for b, n in enumerate(LENGTHS):
        assert (best[n:, b] == -1).all()
        assert not marginals[n:, b].any()
        if not n:
            continue
        taggings, s = everything(layer, b, n, scores)
        assert tuple(best[:n, b]) == taggings[s.argmax()]
        p = np.exp(s - s.max())
        p /= p.sum()
        for t in range(n):
            expected = [sum(p[m] for m, y in enumerate(taggings) if y[t] == k) for k in range(C)]
            np.testing.assert_allclose(marginals[t, b], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("how", LIMITS)
def test_loss_and_gradients(on: str, how: Any) -> None:
    layer = chain(on, **how)
    tags = layer.decode(SCORES, LENGTHS)  # allowed, whatever that is
    expected = 0.0
    for b, n in enumerate(LENGTHS):
        if n:
            _, s = everything(layer, b, n)
            expected += np.logaddexp.reduce(s) - score(layer, b, tags[:n, b])
    loss, grads = layer.loss(SCORES, tags, LENGTHS)
    np.testing.assert_allclose(loss, expected / B, rtol=1e-12)
    assert grads.layer is layer

    def moved(name: str, v: Any, eps: float) -> float:
        if name == "x":
            return float(layer.loss(SCORES + eps * v, tags, LENGTHS)[0])
        other = chain(on, **how)
        other.params[name][...] += eps * v
        return float(other.loss(SCORES, tags, LENGTHS)[0])

    for name, gradient in {**grads.params, "x": grads.x}.items():
        v = RNG.standard_normal(gradient.shape)
        slope = (moved(name, v, 1e-6) - moved(name, v, -1e-6)) / 2e-6
        np.testing.assert_allclose(np.vdot(gradient, v), slope, rtol=1e-6, atol=1e-9)
    for name, limit in how.items():
        key = {"allowed": "transitions"}.get(name, name[8:] + "_transitions")
        assert not grads.params[key][~np.array(limit)].any()


def test_in_a_graph(on: str) -> None:
    class Tagger(fastrnn.Model):
        def __init__(self) -> None:
            self.rnn = fastrnn.GRU(2, C, dtype=np.float64, rng=0)
            self.crf = chain(on)

        def loss(self, g: Any) -> Any:
            y, _ = g(self.rnn, x, lengths=LENGTHS)
            loss = g.crf(self.crf, y, TAGS, LENGTHS)
            return g.add(loss, g.multiply(g.crf(self.crf, g.tanh(y), TAGS, LENGTHS), 0.5))

    x = RNG.standard_normal((T, B, 2))
    model = Tagger()
    assert fastrnn.gradcheck(model, model.loss, rng=0)
    assert list(model.params)[-3:] == [
        *("crf.transitions", "crf.start_transitions", "crf.end_transitions"),
    ]


def test_one_sequence_and_float32(on: str) -> None:
    layer = chain(on)
    scores, tags = SCORES[:, 0], TAGS[:, 0]
    loss, grads = layer.loss(scores, tags, 3)
    both, gradients = layer.loss(scores[:, None], tags[:, None], [3])
    assert loss == both
    assert np.array_equal(grads.x, gradients.x[:, 0])
    assert layer.decode(scores).shape == (T,)
    assert layer(scores).tolist() == layer.decode(SCORES)[:, 0].tolist()
    assert layer.marginals(scores).shape == (T, C)
    single = fastrnn.CRF(C, backend=on)
    single.flat_params[...] = layer.flat_params
    loss32, grads32 = single.loss(SCORES.astype(np.float32), TAGS, LENGTHS)
    np.testing.assert_allclose(loss32, layer.loss(SCORES, TAGS, LENGTHS)[0], rtol=1e-6)
    assert grads32.x.dtype == grads32.flat.dtype == np.float32


def test_empty(on: str) -> None:
    layer = chain(on)
    for shape in ((0, 2, C), (4, 0, C)):
        loss, grads = layer.loss(np.zeros(shape), np.zeros(shape[:2], int))
        assert loss == 0
        assert not grads.flat.any()
        assert layer.decode(np.zeros(shape)).shape == shape[:2]
        assert layer.marginals(np.zeros(shape)).shape == shape


def test_bio() -> None:
    tags = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    found = fastrnn.bio_transitions(tags)
    for a, before in enumerate(tags):
        for b, after in enumerate(tags):
            legal = after[0] != "I" or (before != "O" and before[2:] == after[2:])
            assert found["allowed"][a, b] == legal, (before, after)
    assert found["allowed_start"].tolist() == [True, True, False, True, False]
    assert found["allowed_end"].all()

    tags = ["O", "B-X", "I-X", "E-X", "S-X"]
    found = fastrnn.bio_transitions(tags)
    ok = {
        *("O O", "O B-X", "O S-X", "B-X I-X", "B-X E-X", "I-X I-X", "I-X E-X"),
        *("E-X O", "E-X B-X", "E-X S-X", "S-X O", "S-X B-X", "S-X S-X"),
    }
    pairs = {
        f"{a} {b}" for i, a in enumerate(tags) for j, b in enumerate(tags) if found["allowed"][i, j]
    }
    assert pairs == ok
    assert found["allowed_end"].tolist() == [True, False, False, True, True]
    with pytest.raises(ValueError, match=r"tags\[1\] must be O, B-X, I-X, E-X or S-X, got 'X-B'"):
        fastrnn.bio_transitions(["O", "X-B"])
    with pytest.raises(TypeError, match="tags must be a list of str, got str"):
        fastrnn.bio_transitions("BIO")


def test_what_is_refused() -> None:
    layer = chain("numpy", allowed=[[True, False, True]] * 3, allowed_start=[False, True, True])
    scores = SCORES[:, :1]
    for tags, match in (
        ([[1], [2], [1], [0], [0]], r"transitions, got 2 -> 1 at step 2 of row 0"),
        ([[0], [0], [0], [0], [0]], "must begin with an allowed one, got 0 in row 0"),
        ([[0], [0], [0], [0], [3]], r"tags must be in 0\.\.2, got 3"),
        ([[0, 1]], r"tags must be \(T=5, B=1\), got \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=match):
            layer.loss(scores, tags)
    for call, error, match in (
        (lambda: layer.decode(scores[..., :2]), ValueError, r"scores must be \(T, B, C=3\), got"),
        (lambda: layer.decode(scores.astype("f4")), TypeError, "scores must be float64"),
        (lambda: layer.decode(scores, [6]), ValueError, r"lengths must be in 0\.\.T=5, got 6"),
        (lambda: fastrnn.CRF(2, allowed=[[1, 0], [0, 1]]), TypeError, "allowed must be bool"),
        (lambda: fastrnn.CRF(2, allowed_end=[True]), ValueError, r"allowed_end must be \(C=2,\)"),
        (lambda: fastrnn.CRF(2, backend="cuda"), ValueError, "backend must be one of"),
        (
            lambda: fastrnn.Graph().crf(scores, scores, TAGS),
            TypeError,
            r"g\.crf: crf must be a CRF",
        ),
        (
            lambda: fastrnn.Graph().crf(layer, scores, TAGS),
            ValueError,
            r"g\.crf: tags must be \(T=5, B=1\), got \(5, 4\)",
        ),
    ):
        with pytest.raises(error, match=match):
            call()


def test_files_and_copies(tmp_path: Any) -> None:
    layer = fastrnn.CRF(3, **fastrnn.bio_transitions(["O", "B-X", "I-X"]), rng=0)  # type: ignore[arg-type]
    fastrnn.save(tmp_path / "crf", layer)
    again = fastrnn.load(tmp_path / "crf")
    scores = SCORES.astype(np.float32)
    assert np.array_equal(again.decode(scores), layer.decode(scores))
    assert again.config() == layer.config()
    made = fastrnn.CRF.from_params(layer.params)
    assert np.array_equal(made.flat_params, layer.flat_params)


def test_examples() -> None:
    import doctest

    assert doctest.testmod(crf_module).failed == 0
