"""Layers made of parameters and modules from elsewhere: torch's, and any mapping's."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import fastrnn
from fastrnn import modules, parametrized

MODULES: list[tuple[str, Any]] = [
    ("RNN", lambda: nn.RNN(3, 5, 2, nonlinearity="relu", batch_first=True)),
    ("GRU", lambda: nn.GRU(3, 5, 3, bias=False, bidirectional=True)),
    ("LSTM", lambda: nn.LSTM(3, 5)),
    ("LSTM", lambda: nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True, batch_first=True)),
    ("RNNCell", lambda: nn.RNNCell(3, 5, nonlinearity="relu")),
    ("GRUCell", lambda: nn.GRUCell(3, 5, bias=False)),
    ("LSTMCell", lambda: nn.LSTMCell(3, 5)),
    ("Linear", lambda: nn.Linear(3, 5)),
    ("Linear", lambda: nn.Linear(3, 5, bias=False)),
    ("Embedding", lambda: nn.Embedding(7, 5, padding_idx=0)),
]


def outputs(module: Any, x: Any) -> list[np.ndarray[Any, Any]]:
    """What a module or a layer returns, in a list of arrays."""
    flat: list[Any] = []
    todo = [module(x)]
    while todo:
        value = todo.pop(0)
        if isinstance(value, tuple):
            todo = [*value, *todo]
        else:
            flat.append(value.detach().numpy() if isinstance(value, torch.Tensor) else value)
    return flat


def input_for(name: str) -> Any:
    if name == "Embedding":
        return torch.tensor([[0, 6], [3, 3]])
    return torch.from_numpy(np.random.default_rng(0).standard_normal((4, 6, 3)))


@pytest.mark.parametrize(("name", "make"), MODULES)
def test_from_torch_computes_what_the_module_does(name: str, make: Any) -> None:
    torch.manual_seed(1)
    module = make().double()
    layer = fastrnn.from_torch(module)
    assert type(layer) is getattr(fastrnn, name)
    assert layer.dtype == np.float64
    x = input_for(name)
    if name.endswith("Cell"):
        x = x[0]
    for got, want in zip(outputs(layer, x.numpy()), outputs(module, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
    assert not any(
        np.shares_memory(layer.flat_params, p.detach().numpy()) for p in module.parameters()
    )


@pytest.mark.parametrize(("name", "make"), MODULES)
def test_from_params_reads_sizes_from_names_and_shapes(name: str, make: Any) -> None:
    module = make()
    options = {n: getattr(module, n) for n in ("nonlinearity", "batch_first") if hasattr(module, n)}
    state = {f"a.b.{key}": value for key, value in module.state_dict().items()}
    state |= {"a.bc": torch.zeros(1), "a.head.weight": torch.zeros(2, 2)}
    for prefix in ("a.b.", "a.b"):
        layer = getattr(fastrnn, name).from_params(state, prefix, **options)
        assert layer.config() == fastrnn.from_torch(module).config()
        assert list(layer.params) == list(module.state_dict())
        for key, value in module.state_dict().items():
            np.testing.assert_array_equal(layer.params[key], value.numpy())


def test_peepholes_are_read_from_their_names() -> None:
    for kind in (fastrnn.LSTM, fastrnn.LSTMCell):
        layer = kind(3, 5, peephole=True, proj_size=2, rng=0)
        again = kind.from_params(dict(layer.params))
        assert again.config() == layer.config()
        np.testing.assert_array_equal(again.flat_params, layer.flat_params)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", ["float16", "bfloat16", "float32", "float64"])
def test_values_are_cast(given: str, dtype: Any) -> None:
    narrow = nn.GRU(3, 5).to(getattr(torch, given))
    tensors = dict(narrow.state_dict())
    wide = {name: value.double().numpy() for name, value in tensors.items()}
    kind = ml_dtypes.bfloat16 if given == "bfloat16" else np.dtype(given)
    arrays = {name: value.astype(kind) for name, value in wide.items()}
    parameters = dict(narrow.named_parameters())
    for values in (tensors, arrays, parameters):
        layer = fastrnn.GRU.from_params(values, dtype=dtype)
        assert layer.dtype == dtype
        for name, value in wide.items():
            np.testing.assert_array_equal(layer.params[name], value.astype(dtype))


def test_arguments_that_shapes_do_not_tell() -> None:
    state = nn.LSTM(3, 5, 2).state_dict()
    layer = fastrnn.LSTM.from_params(
        state, batch_first=True, dropout=0.25, precision="high", backend="numpy", hidden_size=5
    )
    assert (layer.batch_first, layer.dropout, layer.precision) == (True, 0.25, "high")
    assert layer.backend == "numpy"
    with pytest.raises(ValueError, match="hidden_size is 5 by the parameters' names and shapes, g"):
        fastrnn.LSTM.from_params(state, hidden_size=6)
    with pytest.raises(TypeError, match="colour"):
        fastrnn.LSTM.from_params(state, colour="red")
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        fastrnn.LSTM.from_params(state, dtype=np.float16)


def test_an_npz_file_is_a_mapping(tmp_path: Path) -> None:
    layer = fastrnn.LSTM(3, 5, 2, rng=0)
    np.savez(tmp_path / "weights.npz", step=3, **{f"net/{n}": v for n, v in layer.params.items()})
    with np.load(tmp_path / "weights.npz") as file:
        again = fastrnn.LSTM.from_params(file, "net/")
    np.testing.assert_array_equal(again.flat_params, layer.flat_params)


@pytest.mark.parametrize("prefix", ["", "rnn", "rnn."])
@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_of_torch_put_before_names_is_passed_over(prefix: str, wrapper: str) -> None:
    inner = "rnn." if prefix else ""
    state = {f"{wrapper}{inner}{n}": v for n, v in nn.GRU(3, 5).state_dict().items()}
    assert fastrnn.GRU.from_params(state, prefix).hidden_size == 5
    if prefix:
        assert fastrnn.GRU.from_params(state, wrapper + prefix).hidden_size == 5
        inside = {n.replace(wrapper + inner, inner + wrapper): v for n, v in state.items()}
        assert fastrnn.GRU.from_params(inside, prefix).hidden_size == 5
    else:
        with pytest.raises(ValueError, match=r"unknown parameters of GRU.*: epoch"):
            fastrnn.GRU.from_params({**state, "epoch": np.zeros(1)}, prefix)


# torch.compile imports parts of torch that are deprecated
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_module_in_a_wrapper() -> None:
    module = nn.LSTM(3, 5)
    for wrapped in (nn.DataParallel(module), torch.compile(module)):
        np.testing.assert_array_equal(
            fastrnn.from_torch(wrapped).params["weight_ih_l0"], module.weight_ih_l0.detach().numpy()
        )


def test_a_parametrized_module_gives_its_effective_weights() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.GRU(3, 5), "weight_hh_l0")
    layer = fastrnn.from_torch(module)
    np.testing.assert_array_equal(
        layer.params["weight_hh_l0"], module.weight_hh_l0.detach().numpy()
    )


def test_the_dtype_of_a_module_and_another() -> None:
    assert fastrnn.from_torch(nn.Linear(2, 3).bfloat16()).dtype == np.float32
    assert fastrnn.from_torch(nn.Linear(2, 3).double(), dtype=np.float32).dtype == np.float32
    assert fastrnn.from_torch(nn.RNN(2, 3), batch_first=True, precision="medium").batch_first


# ---- errors --------------------------------------------------------------------------------------

LSTM_STATE = {f"encoder.rnn.{n}": v for n, v in nn.LSTM(3, 5).state_dict().items()}
GRU_STATE = {f"decoder.{n}": v for n, v in nn.GRU(3, 5).state_dict().items()}
BOTH = {**LSTM_STATE, **GRU_STATE}


@pytest.mark.parametrize(
    ("mapping", "prefix", "error", "words"),
    [
        (
            BOTH,
            "encodr.rnn",
            ValueError,
            r"no parameters of LSTM under prefix 'encodr.rnn'; the nearest prefix is 'encoder.rnn.'"
            r" \(also: 'decoder.'\); found: encoder.rnn.weight_ih_l0 \(20, 3\), encoder",
        ),
        (BOTH, "", ValueError, "no parameters of LSTM without a prefix; the nearest prefix is '"),
        (BOTH, "encoder", ValueError, "nearest prefix is 'encoder.rnn.'"),
        ({}, "", ValueError, "no name ends in weight_hh_l0; found: nothing"),
        ({"epoch": 3, "model": BOTH}, "", ValueError, "'model' holds a mapping itself: pass that"),
        (GRU_STATE, "decoder.", ValueError, r"must be \(4\*H, P\), got \(15, 5\), which is a GRU"),
        ([], "", TypeError, "mapping must be a mapping name -> array, got list"),
        (nn.LSTM(3, 5), "", TypeError, r"pass its state_dict\(\), or use fastrnn.from_torch"),
        (BOTH, None, TypeError, "prefix must be a str, got NoneType"),
        (
            {**LSTM_STATE, "encoder.rnn.weight_g": 0},
            "encoder.rnn",
            ValueError,
            "unknown parameters of LSTM under prefix 'encoder.rnn.': weight_g; only what is",
        ),
        ({**nn.LSTM(3, 5).state_dict(), 3: 0}, "", ValueError, "unknown parameters of LSTM: 3"),
    ],
)
def test_what_cannot_be_found_says_what_is_there(
    mapping: Any, prefix: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fastrnn.LSTM.from_params(mapping, prefix)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"weight_ih_l1": None}, ValueError, "parameters of LSTM are missing: weight_ih_l1; found"),
        ({"weight_ih_l0": None}, ValueError, "are missing: weight_ih_l0; found: weight_hh_l0"),
        ({"weight_hh_l0": None}, ValueError, "are missing: weight_hh_l0; found: weight_ih_l0"),
        ({"bias_ih_l0": None}, ValueError, "are missing: bias_ih_l0"),
        ({"weight_ih_l999999999": np.ones((20, 5))}, ValueError, "are missing: weight_ih_l2"),
        ({"weight_hh_l0_reverse": np.ones((20, 5))}, ValueError, "missing: weight_ih_l0_reverse"),
        ({"weight_ih_l1": np.ones((20, 6))}, ValueError, r"weight_ih_l1 must be \(20, 5\), got"),
        ({"bias_hh_l0": np.ones((1, 20))}, ValueError, r"bias_hh_l0 must be \(20,\), got \(1, 20"),
        ({"weight_hh_l0": np.ones(20)}, ValueError, r"must be \(4\*H, P\), got \(20,\)$"),
        ({"weight_hh_l0": np.ones(())}, ValueError, r"must be \(4\*H, P\), got \(\)$"),
        ({"weight_hh_l0": np.ones((0, 0))}, ValueError, r"must be \(4\*H, P\), got \(0, 0\)$"),
        ({"weight_ih_l0": np.ones(20)}, ValueError, r"must be \(G\*H=20, I\), got \(20,\)"),
        ({"weight_ih_l0": np.ones((20, 0))}, ValueError, "input_size must be at least 1, got 0"),
        ({"weight_ih_l0": np.ones((20, 3), int)}, TypeError, "must hold floats, got int64"),
        ({"weight_ih_l0": np.ones((20, 3), complex)}, TypeError, "must hold floats, got complex"),
        ({"weight_ih_l0": torch.ones(20, 3, dtype=int)}, TypeError, "hold floats, got torch.int64"),
        ({"weight_ih_l0": [[0.0] * 3] * 20}, TypeError, "must be an array or a tensor, got list"),
        ({"weight_ih_l0": torch.ones(20, 3, device="meta")}, ValueError, "on the meta device"),
    ],
)
def test_what_does_not_fit_is_named(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    state = {**fastrnn.LSTM(3, 5, 2).params, **changes}
    with pytest.raises(error, match=words):
        fastrnn.LSTM.from_params({n: v for n, v in state.items() if v is not None})


def test_linear_and_embedding_want_matrices() -> None:
    with pytest.raises(ValueError, match=r"weight must be \(out_features, in_features\), got \(3,"):
        fastrnn.Linear.from_params({"weight": np.ones(3)})
    with pytest.raises(ValueError, match=r"weight must be \(num_embeddings, embedding_dim\), got"):
        fastrnn.Embedding.from_params({"weight": np.ones(3)})
    with pytest.raises(ValueError, match="unknown parameters of Embedding: bias"):
        fastrnn.Embedding.from_params({"weight": np.ones((2, 3)), "bias": np.ones(3)})


class Tuned(nn.LSTM):
    """Torch's, under another name."""


class Doubled(nn.LSTM):
    """Computes something else."""

    def forward(self, *args: Any) -> Any:
        y, state = super().forward(*args)
        return 2 * y, state


@pytest.mark.parametrize(
    ("module", "error", "words"),
    [
        (nn.Conv1d(2, 3, 1), TypeError, "module must be one of torch.nn's RNN, GRU, LSTM, RNNCell"),
        (nn.Sequential(nn.LSTM(2, 3)), TypeError, "take one of its submodules"),
        (nn.LSTM, TypeError, "got type"),
        (None, TypeError, "got NoneType"),
        (Doubled(2, 3), TypeError, r"with a forward\(\) of its own"),
        (nn.Embedding(2, 3, max_norm=1.0), ValueError, "with max_norm cannot be taken"),
        (nn.Embedding(2, 3, scale_grad_by_freq=True), ValueError, "with scale_grad_by_freq"),
    ],
)
def test_modules_that_cannot_be_taken(module: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fastrnn.from_torch(module)


def test_a_subclass_that_runs_as_its_base_does() -> None:
    assert type(fastrnn.from_torch(Tuned(2, 3))) is fastrnn.LSTM


@pytest.mark.parametrize("where", [modules, parametrized])
def test_the_examples_in_the_docstrings_run(where: Any) -> None:
    result = doctest.testmod(where)
    assert result.attempted > 0
    assert result.failed == 0
