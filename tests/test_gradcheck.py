"""gradcheck passes right gradients and names wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn

RNG = np.random.default_rng(8)
X = RNG.standard_normal((5, 3, 4))

LAYERS = {
    "RNN": lambda: fastrnn.RNN(4, 3, dtype=np.float64, rng=0),
    "GRU": lambda: fastrnn.GRU(4, 3, 2, dropout=0.4, dtype=np.float64, rng=0),
    "LSTM": lambda: fastrnn.LSTM(
        4, 3, 2, proj_size=2, peephole=True, bidirectional=True, dtype=np.float64, rng=0
    ),
    "batch_first": lambda: fastrnn.GRU(4, 3, batch_first=True, dtype=np.float64, rng=0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_pass(name: str) -> None:
    assert fastrnn.gradcheck(LAYERS[name](), X, rng=1) is True


def test_lengths_resets_and_states_pass() -> None:
    layer = LAYERS["LSTM"]()
    state = RNG.standard_normal((4, 3, 2)), RNG.standard_normal((4, 3, 3))
    resets = RNG.random((5, 3)) < 0.3
    for form in (state, list(state)):
        assert fastrnn.gradcheck(layer, X, form, lengths=[5, 0, 3], resets=resets, rng=1)


def test_cells_linear_and_embedding_pass() -> None:
    x = X[0]
    assert fastrnn.gradcheck(fastrnn.LSTMCell(4, 3, dtype=np.float64, rng=0), x, rng=1)
    assert fastrnn.gradcheck(fastrnn.GRUCell(4, 3, dtype=np.float64, rng=0), x, np.ones((3, 3)))
    assert fastrnn.gradcheck(fastrnn.Linear(4, 3, dtype=np.float64, rng=0), X, rng=1)
    table = fastrnn.Embedding(4, 3, dtype=np.float64, rng=0)
    assert fastrnn.gradcheck(table, np.array([[0, 2, 2], [3, 0, 2]]), rng=1)


def test_an_unbatched_and_an_empty_sequence_pass() -> None:
    for x in (X[:, 0], X[:0], X[:, :0]):
        assert fastrnn.gradcheck(LAYERS["RNN"](), x, rng=1)


def test_the_layer_and_the_arguments_stay_as_they_are() -> None:
    layer = LAYERS["RNN"]()
    layer.freeze()
    flat, x, state = layer.flat_params.copy(), X.copy(), np.ones((1, 3, 3))
    x.flags.writeable = state.flags.writeable = False
    fastrnn.gradcheck(layer, x, state, rng=1)
    np.testing.assert_array_equal(layer.flat_params, flat)
    assert layer.frozen


class Wrong(fastrnn.LSTM):
    """A layer whose backward errs in one element, or in all of one gradient."""

    def backward(self, *args: Any) -> Any:
        grads = super().backward(*args)
        if self.where in grads.params:
            grads.params[self.where].flat[0] += 1e-3
        elif self.where == "x":
            grads.x[2] *= 1.001
        else:
            grads.state[self.where == "state[1]"][...] = np.nan
        return grads


@pytest.mark.parametrize("where", ["weight_hh_l0", "bias_ih_l0", "x", "state[0]", "state[1]"])
def test_a_wrong_gradient_is_named(where: str) -> None:
    layer = Wrong(4, 3, dtype=np.float64, rng=0)
    layer.where = where
    with pytest.raises(AssertionError) as caught:
        fastrnn.gradcheck(layer, X, rng=1)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == [where]
    assert "apart" in str(caught.value)


def test_float32_is_refused() -> None:
    with pytest.raises(TypeError, match=r"needs a layer of float64.*got float32"):
        fastrnn.gradcheck(fastrnn.GRU(4, 3), X)
    with pytest.raises(TypeError, match=r"needs a layer of float64.*got None"):
        fastrnn.gradcheck(None, X)


def test_wrong_arguments_are_refused() -> None:
    layer = LAYERS["RNN"]()
    with pytest.raises(ValueError, match="x must be"):
        fastrnn.gradcheck(layer, X[..., :2])
    for name, value, error in [
        ("eps", 0.0, ValueError),
        ("eps", np.inf, ValueError),
        ("atol", "1", TypeError),
        ("atol", -1.0, ValueError),
        ("rtol", np.nan, ValueError),
    ]:
        with pytest.raises(error, match=f"{name} must be"):
            fastrnn.gradcheck(layer, X, **{name: value})
