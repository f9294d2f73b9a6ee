"""The tape of layers: the same bits as by hand, gradients of joints, and what is refused."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from grid import per_backend
from hypothesis import given
from hypothesis import strategies as st
from translator import LENGTHS, NEXT, SOURCE, STEPS, TARGET, Translator

import fastrnn
from fastrnn import dropout as masks

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape)


# ---- by hand -------------------------------------------------------------------------------------


def by_hand(m: Any, rng: np.random.Generator) -> tuple[float, dict[Any, Any]]:
    """Loss and gradients of the translator, without a graph."""
    emb, emb_tape = m.emb.forward(SOURCE)
    mask = masks.mask(masks.seed(rng), 0, 0, (1, *emb.shape[1:]), 0.2, emb.dtype)
    memory, (h, c), enc_tape = m.enc.forward(emb * mask, lengths=LENGTHS, rng=rng)
    first = np.concatenate([h[-2], h[-1]], -1)[None] + m.start.value
    words, words_tape = m.emb.forward(TARGET)
    y, _, dec_tape = m.dec.forward(words, first, lengths=STEPS)
    context, att_tape = m.att.forward(y, memory, lengths=LENGTHS)
    z = np.tanh(np.concatenate([y, context], -1))
    normal, norm_tape = m.norm.forward(z)
    logits, out_tape = m.heads[0].forward(normal)
    counts = np.arange(len(NEXT))[:, None] < np.array(STEPS)
    loss, dlogits = fastrnn.softmax_cross_entropy(logits, NEXT, counts)

    out = m.heads[0].backward(out_tape, dlogits)
    norm = m.norm.backward(norm_tape, out.x)
    dz = norm.x * (1 - z * z)
    att = m.att.backward(att_tape, dz[..., 12:])
    dec = m.dec.backward(dec_tape, dz[..., :12] + att.x)
    words = m.emb.backward(words_tape, dec.x)
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    dh[-2], dh[-1] = dec.state[0][:, :6], dec.state[0][:, 6:]
    enc = m.enc.backward(enc_tape, att.memory, (dh, dc))
    emb = m.emb.backward(emb_tape, enc.x * mask)
    start = dec.state.sum(axis=1).reshape(-1)
    return loss, {
        m.emb: words.flat + emb.flat,
        m.enc: enc.flat,
        m.dec: dec.flat,
        m.att: att.flat,
        m.norm: norm.flat,
        m.heads[0]: out.flat,
        m.start: start,
    }


SCORES = "dot", "general", "additive"
BITS = [(score, dtype) for score in SCORES for dtype in ("float32", "float64")]


@pytest.mark.parametrize(("backend", "case"), per_backend(BITS, BITS[-1:]))
def test_the_same_bits_as_by_hand(backend: str, case: tuple[str, str]) -> None:
    score, dtype = case
    model = Translator(backend, dtype, score)
    expected, gradients = by_hand(model, np.random.default_rng(5))
    g = fastrnn.Graph(np.random.default_rng(5))
    loss = model.loss(g)
    grads = g.backward(loss)
    assert loss.value == expected
    called = [model.emb, model.enc, model.start, model.dec, model.att, model.norm, *model.heads]
    assert list(grads) == [layer for layer in called if layer.num_params]
    for layer in grads:
        flat = gradients[layer]
        assert np.array_equal(grads[layer].flat, flat), layer


def test_inference_gives_what_a_graph_gives_without_dropout() -> None:
    model, plain = Translator(), Translator()
    plain.enc = fastrnn.LSTM(5, 6, 2, bidirectional=True, dtype=np.float64)
    plain.enc.flat_params = model.enc.flat_params
    g = fastrnn.Graph()
    g.dropout = lambda x, *_, **__: x  # type: ignore[method-assign]
    assert float(model.loss(fastrnn.inference)) == float(plain.loss(g))
    assert float(model.loss(fastrnn.inference)) != float(model.loss(fastrnn.Graph(0)))


@pytest.mark.parametrize("score", SCORES)
def test_gradients_of_a_model(score: str) -> None:
    model = Translator(score=score)
    assert fastrnn.gradcheck(model, model.loss, rng=0)
    model.freeze()
    assert model.gradcheck(lambda g: model.loss(g), rng=1)
    assert model.frozen


def test_a_wrong_gradient_is_named() -> None:
    model = Translator()

    def loss(g: Any) -> Any:
        x = g(model.start)
        y = g.apply(x.value * 2, lambda d: 3 * d, x)
        return g.mse(y, np.ones((1, 1, 12)))

    with pytest.raises(AssertionError, match=r"^gradients differ[^\n]*\nstart: "):
        fastrnn.gradcheck(model, loss)
    with pytest.raises(TypeError, match="x must be a function of a Graph"):
        fastrnn.gradcheck(model, SOURCE)
    with pytest.raises(TypeError, match="no more inputs"):
        fastrnn.gradcheck(model, loss, lengths=LENGTHS)


def test_cells_step_by_step_are_a_layer() -> None:
    layer = fastrnn.LSTM(3, 4, dtype=np.float64, rng=0)
    cell = fastrnn.LSTMCell(3, 4, dtype=np.float64)
    cell.flat_params = layer.flat_params
    x, dy = normal(5, 2, 3), normal(5, 2, 4)
    g = fastrnn.Graph()
    y, _ = g(layer, x)
    expected = g.backward(y, dy)[layer]
    state, losses = None, []
    for t in range(5):
        state = g(cell, x[t], state)
        losses.append(g.multiply(state[0], dy[t]))
    total = g.add(*losses)
    grads = g.backward(total, np.ones((2, 4)))
    np.testing.assert_allclose(grads[cell].flat, expected.flat, rtol=1e-12)
    # and of a GRU, whose state is one node
    cell = fastrnn.GRUCell(3, 4, dtype=np.float64, rng=1)
    for g in (fastrnn.Graph(), fastrnn.inference):
        state = g(cell, x[1], g(cell, x[0]))
        np.testing.assert_array_equal(state.value, cell(x[1], cell(x[0])))


def test_what_was_recorded_is_let_go_on_the_way_back() -> None:
    linear = fastrnn.Linear(3, 3, rng=0)
    g = fastrnn.Graph()
    y = g(linear, np.ones((2, 3), np.float32))
    kept = weakref.ref(y.value)
    loss = g.mse(y, np.zeros((2, 3), np.float32))
    del y
    g.backward(loss)
    gc.collect()
    assert kept() is None


def test_frozen_layers_let_gradients_through_and_have_none() -> None:
    model = Translator()
    expected = fastrnn.Graph(0)
    flat = expected.backward(model.loss(expected))[model.enc].flat
    model.dec.freeze()
    g = fastrnn.Graph(0)
    grads = g.backward(model.loss(g))
    assert model.dec not in grads
    assert np.array_equal(grads[model.enc].flat, flat)
    before = model.dec.flat_params.copy(), model.enc.flat_params.copy()
    fastrnn.Adam(model).step(grads)
    assert np.array_equal(model.dec.flat_params, before[0])
    assert not np.array_equal(model.enc.flat_params, before[1])


# ---- joints --------------------------------------------------------------------------------------

JOINTS: dict[str, tuple[Any, Any, list[tuple[int, ...]]]] = {
    "tanh": (lambda g, x: g.tanh(x), np.tanh, [(3, 4)]),
    "sigmoid": (lambda g, x: g.sigmoid(x), lambda x: 1 / (1 + np.exp(-x)), [(3, 4)]),
    "relu": (lambda g, x: g.relu(x), lambda x: np.maximum(x, 0), [(3, 4)]),
    "concat": (
        lambda g, *xs: g.concat(list(xs), axis=1),
        lambda *xs: np.concatenate(xs, 1),
        [(2, 3, 4), (2, 1, 4), (2, 2, 4)],
    ),
    "add": (lambda g, *xs: g.add(*xs), lambda a, b, c: a + b + c, [(3, 4), (1, 4), ()]),
    "multiply": (lambda g, a, b: g.multiply(a, b), lambda a, b: a * b, [(2, 1, 4), (3, 1)]),
    "reshape": (lambda g, x: g.reshape(x, (4, 3)), lambda x: x.reshape(4, 3), [(2, 6)]),
    "swapaxes": (lambda g, x: g.swapaxes(x, 0, 2), lambda x: x.swapaxes(0, 2), [(2, 3, 4)]),
    "index of a step": (lambda g, x: g.index(x, -1), lambda x: x[-1], [(3, 4)]),
    "index of slices": (
        lambda g, x: g.index(x, (slice(1, None), ..., None)),
        lambda x: x[1:, ..., None],
        [(3, 4)],
    ),
    "index of rows": (
        lambda g, x: g.index(x, [[0, 2], [-1, 0]]),
        lambda x: x[[[0, 2], [-1, 0]]],
        [(3, 4)],
    ),
    "index of places": (
        lambda g, x: g.index(x, ([2, 1, 2], [0, 3, 0])),
        lambda x: x[[2, 1, 2], [0, 3, 0]],
        [(3, 4, 2)],
    ),
    "index of some of an axis": (
        lambda g, x: g.index(x, (slice(None), [1, 1])),
        lambda x: x[:, [1, 1]],
        [(3, 4, 2)],
    ),
    "index apart": (
        lambda g, x: g.index(x, ([1, 1], ..., [0, 1])),
        lambda x: x[[1, 1], ..., [0, 1]],
        [(3, 4, 2)],
    ),
    "index of a mask": (
        lambda g, x: g.index(x, np.eye(3, 4) > 0),
        lambda x: x[np.eye(3, 4) > 0],
        [(3, 4, 2)],
    ),
    "mean": (
        lambda g, y: g.mean(y, [3, 0, 2]),
        lambda y: np.stack([y[:3, 0].mean(0), 0 * y[0, 1], y[:2, 2].mean(0)]),
        [(4, 3, 2)],
    ),
    "mean of all": (lambda g, y: g.mean(y), lambda y: y.mean(0), [(4, 3, 2)]),
    "mean of one": (lambda g, y: g.mean(y, 3), lambda y: y[:3].mean(0), [(4, 2)]),
    "mean batch first": (
        lambda g, y: g.mean(y, [1, 2], batch_first=True),
        lambda y: np.stack([y[0, :1].mean(0), y[1, :2].mean(0)]),
        [(2, 3, 4)],
    ),
    "max": (
        lambda g, y: g.max(y, [3, 0, 2]),
        lambda y: np.stack([y[:3, 0].max(0), 0 * y[0, 1], y[:2, 2].max(0)]),
        [(4, 3, 2)],
    ),
    "max of one": (lambda g, y: g.max(y), lambda y: y.max(0), [(4, 2)]),
    "max batch first": (
        lambda g, y: g.max(y, [1, 2], batch_first=True),
        lambda y: np.stack([y[0, :1].max(0), y[1, :2].max(0)]),
        [(2, 3, 4)],
    ),
    "last": (lambda g, h: g.last(h, directions=1), lambda h: h[-1], [(3, 2, 4)]),
    "last of two directions": (
        lambda g, h: g.last((h, None), directions=2),
        lambda h: np.concatenate([h[2], h[3]], -1),
        [(4, 2, 4)],
    ),
}


@pytest.mark.parametrize("name", JOINTS)
def test_joint(name: str) -> None:
    joint, numpys, shapes = JOINTS[name]
    inputs = [np.asarray(normal(*shape)) for shape in shapes]
    g = fastrnn.Graph()
    nodes = [g.input(x) for x in inputs]
    y = joint(g, *nodes)
    expected = numpys(*inputs)
    np.testing.assert_allclose(y.value, expected, rtol=1e-14)
    np.testing.assert_array_equal(joint(fastrnn.inference, *inputs).value, y.value)
    dy = normal(*expected.shape)
    g.backward(y, dy)
    for number, (node, x) in enumerate(zip(nodes, inputs, strict=True)):
        v = np.asarray(normal(*x.shape))
        eps = 1e-6
        moved = [
            [x + s * eps * v if k == number else other for k, other in enumerate(inputs)]
            for s in (1, -1)
        ]
        slope = (np.vdot(dy, numpys(*moved[0])) - np.vdot(dy, numpys(*moved[1]))) / (2 * eps)
        assert node.grad.shape == x.shape
        np.testing.assert_allclose(np.vdot(node.grad, v), slope, rtol=1e-7, atol=1e-8)


@given(data=st.data())
def test_any_index(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    key = data.draw(
        st.one_of(
            st.integers(-shape[0], shape[0] - 1),
            st.slices(shape[0]),
            st.lists(st.integers(-shape[0], shape[0] - 1), max_size=6),
            st.lists(st.booleans(), min_size=shape[0], max_size=shape[0]).map(np.array),
        )
    )
    if isinstance(key, list) and not key:
        key = np.zeros(0, int)
    g = fastrnn.Graph()
    x = g.input(normal(*shape))
    y = g.index(x, key)
    np.testing.assert_array_equal(y.value, x.value[key])
    d = np.asarray(normal(*y.shape))
    g.backward(y, d)
    expected = np.zeros(shape)
    np.add.at(expected, key, d)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-12, atol=1e-15)


def test_zeros_steps_and_rows() -> None:
    g = fastrnn.Graph()
    for shape, empty in (((0, 2, 3), (2, 3)), ((4, 0, 3), (0, 3))):
        for joint in (g.mean, g.max):
            x = g.input(np.ones(shape))
            y = joint(x, np.zeros(shape[1], int))
            assert y.shape == empty
            assert not y.value.any()
            g.backward(y, np.ones(empty))
            assert x.grad.shape == shape


def test_infinities_and_nan_flow_through() -> None:
    g = fastrnn.Graph()
    x = g.input(np.array([-np.inf, -800.0, 800.0, np.inf, np.nan]))
    np.testing.assert_array_equal(g.sigmoid(x).value, [0, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(g.tanh(x).value, [-1, -1, 1, 1, np.nan])
    np.testing.assert_array_equal(g.max(np.array([[1.0], [np.nan]])).value, [np.nan])
    # past a row's length nothing counts
    y = np.array([[[1.0]], [[np.nan]]])
    assert g.mean(y, [1]).value == 1
    assert g.max(y, [1]).value == 1


def test_dropout() -> None:
    x = np.ones((50, 20, 10), np.float32)
    g = fastrnn.Graph(0)
    node = g.input(x)
    y = g.dropout(node, 0.25)
    assert set(np.unique(y.value)) == {0, np.float32(1 / 0.75)}
    assert abs((y.value == 0).mean() - 0.25) < 0.02
    g.backward(y, np.ones_like(x))
    assert np.array_equal(node.grad, y.value)
    assert np.array_equal(fastrnn.Graph(0).dropout(x, 0.25).value, y.value)
    assert not np.array_equal(g.dropout(x, 0.25).value, y.value)
    assert np.array_equal(g.dropout(x, 0.0).value, x)
    assert fastrnn.inference.dropout(x, 0.9).value is x

    y = g.dropout(x, 0.5, variational=True).value
    assert (y == y[0]).all()
    assert 0 < (y[0] == 0).mean() < 1
    y = g.dropout(x, 0.5, variational=True, batch_first=True).value
    assert (y == y[:, :1]).all()
    assert not (y == y[0]).all()


def test_dropout_between_layers_is_the_graphs() -> None:
    layer = fastrnn.GRU(3, 4, 2, dropout=0.5, rng=0)
    x = normal(5, 2, 3).astype(np.float32)
    y, _ = fastrnn.Graph(7)(layer, x)
    assert np.array_equal(y.value, layer.forward(x, rng=np.random.default_rng(7))[0])


# ---- losses --------------------------------------------------------------------------------------


def test_losses_over_lengths_and_masks() -> None:
    logits, pred = normal(4, 3, 5), normal(4, 3, 2)
    targets, wanted = RNG.integers(0, 5, (4, 3)), normal(4, 3, 2)
    lengths, mask = [4, 0, 2], RNG.random((4, 3)) < 0.7
    valid = np.arange(4)[:, None] < np.array(lengths)
    g = fastrnn.Graph()
    for how, where in (
        ({}, None),
        ({"lengths": lengths}, valid),
        ({"mask": mask}, mask),
        ({"mask": mask, "lengths": lengths}, mask & valid),
    ):
        for make, by_hand, of, to in (
            (g.cross_entropy, fastrnn.softmax_cross_entropy, logits, targets),
            (g.mse, fastrnn.mse, pred, wanted),
        ):
            node = g.input(of)
            loss = make(node, to, **how)
            expected, gradient = by_hand(of, to, where)
            assert loss.value == expected
            g.backward(loss)
            assert np.array_equal(node.grad, gradient)


def test_sums_of_losses() -> None:
    a, b = fastrnn.Linear(3, 2, rng=0), fastrnn.Linear(3, 1, rng=1)
    x = normal(4, 3).astype(np.float32)
    zeros = np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32)
    g = fastrnn.Graph()
    first, second = g.mse(g(a, x), zeros[0]), g.mse(g(b, x), zeros[1])
    loss = g.add(first, g.multiply(second, 0.25))
    assert float(loss) == float(first) + 0.25 * float(second)
    grads = g.backward(loss)
    for layer, to, factor in ((a, zeros[0], 1.0), (b, zeros[1], 0.25)):
        y, tape = layer.forward(x)
        expected = layer.backward(tape, fastrnn.mse(y, to)[1])
        assert grads[layer].flat.dtype == np.float32
        np.testing.assert_allclose(grads[layer].flat, factor * expected.flat, rtol=1e-6)


# ---- what is refused -----------------------------------------------------------------------------


def test_nodes_of_another_time_or_graph() -> None:
    linear = fastrnn.Linear(3, 3, rng=0)
    x = np.ones((2, 3), np.float32)
    g, other = fastrnn.Graph(), fastrnn.Graph()
    y = g(linear, x)
    for joint in (lambda: other.tanh(y), lambda: other(linear, y), lambda: other.backward(y)):
        with pytest.raises(ValueError, match=r"node Linear\(.*\), \(2, 3\)> is of another graph"):
            joint()
    with pytest.raises(ValueError, match=r"g\.add: input <node .* is of another graph"):
        fastrnn.inference.add(y, 1)
    loss = g.mse(y, x)
    g.backward(loss)
    for joint in (lambda: g.tanh(y), lambda: g(linear, y), lambda: g.backward(loss)):
        with pytest.raises(ValueError, match=r"from before this graph's backward\(\)"):
            joint()
    g.tanh(y.value)  # a constant


def test_a_gradient_that_is_missing() -> None:
    used, idle = fastrnn.Linear(3, 3, rng=0), fastrnn.Linear(3, 2, rng=0)
    x = np.ones((2, 3), np.float32)
    g = fastrnn.Graph()
    y = g(used, x)
    left = g.input(x)
    g(idle, x)
    grads = g.backward(g.mse(y, x))
    assert list(grads) == [used]
    with pytest.raises(KeyError, match=r"no gradient has reached Linear\(.*out_features=2"):
        grads[idle]
    with pytest.raises(ValueError, match="got none of layer 1, a Linear"):
        fastrnn.SGD([used, idle], 0.1).step(grads)
    both = g.add(g.mse(g(used, x), x), g.mse(g(idle, x), x[:, :2]))
    with pytest.raises(ValueError, match="must be of a layer of this optimiser"):
        fastrnn.SGD([idle], 0.1).step(g.backward(both))
    with pytest.raises(ValueError, match="no gradient has reached <node input"):
        left.grad  # noqa: B018
    with pytest.raises(ValueError, match=r"keeps no gradient: only nodes from g\.input"):
        y.grad  # noqa: B018
    y = g.apply(x, lambda d: None, g.input(x))
    with pytest.raises(
        ValueError, match=r"g\.apply: backward gave no gradient for input 0, \(2, 3\)"
    ):
        g.backward(y, x)
    y = g.apply(x, lambda d: (d, d), g.input(x))
    with pytest.raises(ValueError, match=r"g\.apply: backward must return 1 gradients, got 2"):
        g.backward(y, x)
    y = g.apply(x, lambda d: d[0], g.input(x))
    with pytest.raises(ValueError, match=r"for input 0 must be \(2, 3\), got \(3,\)"):
        g.backward(y, x)


X3 = np.ones((5, 2, 3), np.float32)
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "shapes of concat": (
        lambda g: g.concat([X3, X3[:4]]),
        ValueError,
        r"g\.concat: xs must have one shape but for axis -1, got \(5, 2, 3\) and \(4, 2, 3\)",
    ),
    "axis of concat": (
        lambda g: g.concat([X3], axis=3),
        ValueError,
        r"g\.concat: axis must be in -3\.\.2 for xs of \(5, 2, 3\), got 3",
    ),
    "dtypes of concat": (
        lambda g: g.concat([X3, X3.astype(np.float64)]),
        TypeError,
        r"g\.concat: xs must be of one dtype, got float32 and float64",
    ),
    "no list to concat": (lambda g: g.concat(X3), TypeError, "xs must be a list of nodes"),
    "shapes of add": (
        lambda g: g.add(X3, X3[:4]),
        ValueError,
        r"g\.add: shapes \(5, 2, 3\) and \(4, 2, 3\) do not broadcast",
    ),
    "dtypes of multiply": (
        lambda g: g.multiply(X3, X3.astype(np.float64)),
        TypeError,
        r"g\.multiply: operands must be of one dtype, got float32 and float64",
    ),
    "one to add": (lambda g: g.add(X3), TypeError, r"g\.add: two nodes or more"),
    "a list": (lambda g: g.tanh([1.0]), TypeError, r"g\.tanh: .* a node or an array, got list"),
    "ints": (
        lambda g: g.relu(np.ones((2, 3), int)),
        TypeError,
        r"g\.relu: an input must be float32 or float64, got int64 \(2, 3\)",
    ),
    "a number for a function": (lambda g: g.tanh(1.0), TypeError, "a node or an array, got float"),
    "shape": (
        lambda g: g.reshape(X3, (4, 2)),
        ValueError,
        r"g\.reshape: shape must hold the 30 values of \(5, 2, 3\), got \(4, 2\)",
    ),
    "axes": (
        lambda g: g.swapaxes(X3, 0, 3),
        ValueError,
        r"g\.swapaxes: second must be an axis of \(5, 2, 3\), got 3",
    ),
    "key outside": (
        lambda g: g.index(X3, 5),
        IndexError,
        r"g\.index: key does not fit x of \(5, 2, 3\)",
    ),
    "key of floats": (lambda g: g.index(X3, 0.5), TypeError, r"g\.index: key must be of ints"),
    "lengths of mean": (
        lambda g: g.mean(X3, [6, 1]),
        ValueError,
        r"g\.mean: lengths must be in 0\.\.T=5, got 6 in row 0",
    ),
    "rank of max": (
        lambda g: g.max(X3[0, 0]),
        ValueError,
        r"g\.max: y must be \(T, B, F\) or \(T, F\), got \(3,\)",
    ),
    "p": (lambda g: g.dropout(X3, 1.0), ValueError, r"g\.dropout: p must be in \[0, 1\), got 1"),
    "rank of dropout": (
        lambda g: g.dropout(X3[0, 0], 0.5, variational=True),
        ValueError,
        r"g\.dropout: x must be \(T, B, F\)",
    ),
    "state of last": (
        lambda g: g.last(X3),
        TypeError,
        r"g\.last: state must be what g\(layer, x\) returned beside y",
    ),
    "directions": (lambda g: g.last(X3, directions=3), ValueError, "must be 1 or 2, got 3"),
    "size of a layer's input": (
        lambda g: g(fastrnn.LSTM(4, 5), X3),
        ValueError,
        r"LSTM\(input_size=4, hidden_size=5\): x must be \(T, B, I=4\).*, got \(5, 2, 3\)",
    ),
    "size of a linear": (
        lambda g: g(fastrnn.Linear(4, 5), X3),
        ValueError,
        r"Linear\(in_features=4, out_features=5\): x must be \(\.\.\., in_features=4\), got",
    ),
    "index of an embedding": (
        lambda g: g(fastrnn.Embedding(4, 5), [4]),
        IndexError,
        r"Embedding\(.*\): x must be in 0\.\.3, got 4",
    ),
    "two states": (lambda g: g(fastrnn.GRU(3, 4), X3, X3, state=X3), TypeError, "got 3 inputs"),
    "no layer": (lambda g: g(np.tanh, X3), TypeError, "layer must have forward and backward"),
    "a model": (
        lambda g: g(Translator(), X3),
        TypeError,
        "call a method of its own with this graph",
    ),
    "attention's batch": (
        lambda g: g(fastrnn.Attention(3, 3), X3, X3[:, :1]),
        ValueError,
        r"Attention\(.*\): query and memory must have one B, got \(5, 2, 3\) and \(5, 1, 3\)",
    ),
    "targets of cross entropy": (
        lambda g: g.cross_entropy(X3, np.zeros((5, 3), int)),
        ValueError,
        r"g\.cross_entropy: targets must be \(5, 2\), got \(5, 3\)",
    ),
    "lengths of cross entropy": (
        lambda g: g.cross_entropy(X3, np.zeros((5, 2), int), lengths=[1]),
        ValueError,
        r"g\.cross_entropy: lengths must be \(B=2,\), got \(1,\)",
    ),
    "lengths of one number": (
        lambda g: g.mse(X3[0, 0], X3[0, 0], lengths=[1]),
        ValueError,
        r"g\.mse: pred must be \(T, B, \.\.\.\) with lengths, got \(3,\)",
    ),
    "target of mse": (
        lambda g: g.mse(X3, X3.astype(np.float64)),
        TypeError,
        r"g\.mse: target must be float32",
    ),
    "a node to compare with": (
        lambda g: g.mse(X3, g.tanh(X3)),
        TypeError,
        r"g\.mse: no gradient flows into what pred is compared with",
    ),
    "apply's function": (lambda g: g.apply(X3, X3, X3), TypeError, "backward must be a function"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["graph", "inference"])
def test_errors_name_the_joint_and_the_shapes(name: str, kind: str) -> None:
    call, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        call(fastrnn.Graph() if kind == "graph" else fastrnn.inference)


def test_what_backward_refuses() -> None:
    g = fastrnn.Graph()
    y = g.tanh(X3)
    with pytest.raises(TypeError, match="loss must be a node of this graph, got float"):
        g.backward(0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"loss must be a number, got <node tanh, \(5, 2, 3\)>"):
        g.backward(y)
    with pytest.raises(ValueError, match=r"gradient must be \(5, 2, 3\), got \(5, 2\)"):
        g.backward(y, X3[..., 0])
    g.backward(y, X3)  # nothing has been let go


def test_a_node_is_no_array() -> None:
    y = fastrnn.Graph().tanh(X3)
    with pytest.raises(TypeError, match=r"take node\.value"):
        np.asarray(y)
    for use in (lambda: np.tanh(y), lambda: X3 + y, lambda: y * X3):
        with pytest.raises(TypeError):
            use()
    assert repr(y) == "<node tanh, (5, 2, 3)>"
    with pytest.raises(TypeError, match="rng must be None, an int or"):
        fastrnn.Graph("seed")  # type: ignore[arg-type]


def test_a_layer_of_ones_own() -> None:
    class Grads:
        def __init__(self, x: Any) -> None:
            self.x, self.flat = x, np.zeros(0)

    class Twice:
        def __call__(self, x: Any) -> Any:
            return 2 * x

        def forward(self, x: Any) -> Any:
            return 2 * x, None

        def backward(self, tape: Any, dy: Any) -> Grads:
            return Grads(2 * dy)

    g = fastrnn.Graph()
    x = g.input(X3)
    y = g(Twice(), x)
    g.backward(y, X3)
    assert np.array_equal(x.grad, 2 * X3)
    assert np.array_equal(fastrnn.inference(Twice(), X3).value, 2 * X3)
