"""fastrnn.torch's modules beside torch.nn's."""

from __future__ import annotations

import copy
import doctest
import io
import itertools
import pickle
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import TOLERANCE
from grid import covering
from oracles import by_hand, unpack
from torch import nn
from torch.nn.utils import rnn

import fastrnn
import fastrnn.torch
from fastrnn.torch import function, modules, operator

ROOT = Path(__file__).parents[1]
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}

# What torch says on its own account.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*lazily initialized:UserWarning"),
]


def pair(kind: str, *sizes: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """torch's module and ours, from one seed."""
    both = []
    for home in (nn, fastrnn.torch):
        torch.manual_seed(3)
        both.append(getattr(home, kind)(*sizes, **options))
    return both[0], both[1]


def normal(*shape: int, seed: int = 0, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, **options)


def state_for(module: Any, *batch: int, dtype: torch.dtype) -> Any:
    entries = module.num_layers * (2 if module.bidirectional else 1)
    h = normal(entries, *batch, module.proj_size or module.hidden_size, dtype=dtype, seed=1)
    if not isinstance(module, (nn.LSTM, fastrnn.torch.LSTM)):
        return h.requires_grad_()
    c = normal(entries, *batch, module.hidden_size, dtype=dtype, seed=2)
    return h.requires_grad_(), c.requires_grad_()


def everything(module: Any, x: Any, state: Any, **how: Any) -> dict[str, torch.Tensor]:
    """What comes out, and the gradients by all that goes in, of a loss of all that comes out."""
    leaf = x.data if isinstance(x, rnn.PackedSequence) else x
    leaf.grad = None
    y, final = module(x, state, **how)
    outputs = {"y": y.data if isinstance(y, rnn.PackedSequence) else y}
    outputs |= dict(zip(("h", "c"), unpack(final), strict=False))
    loss = sum((normal(*v.shape, dtype=v.dtype) * v).sum() for v in outputs.values())
    inputs = {"dx": leaf, **dict(module.named_parameters())}
    if state is not None:
        inputs |= dict(zip(("dh0", "dc0"), unpack(state), strict=False))
    grads = torch.autograd.grad(loss, list(inputs.values()))
    return {**outputs, **dict(zip(inputs, grads, strict=True))}


def same(got: Any, want: Any, dtype: torch.dtype) -> None:
    assert list(got) == list(want)
    limits = TOLERANCE[str(dtype).removeprefix("torch.")]
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, **limits, msg=lambda m, n=name: f"{n}: {m}")


CASES = covering(
    2,
    kind=["LSTM", "GRU", "tanh", "relu"],
    num_layers=[1, 2],
    bias=[True, False],
    batch_first=[False, True],
    bidirectional=[False, True],
    proj_size=[0, 3],
    dtype=[torch.float32, torch.float64],
    state=[True, False],
    form=["padded", "packed sorted", "packed unsorted", "packed equal", "unbatched", "one step"],
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_all_that_comes_out_and_all_gradients_are_torchs(case: dict[str, Any]) -> None:
    case = dict(case)
    kind, form, dtype, with_state = (case.pop(n) for n in ("kind", "form", "dtype", "state"))
    if kind != "LSTM":
        case.pop("proj_size")
    if kind in ("tanh", "relu"):
        kind, case["nonlinearity"] = "RNN", kind
    theirs, ours = pair(kind, 4, 7, dtype=dtype, **case)
    T, B = (1, 3) if form == "one step" else (6, 3)
    x = normal(T, B, 4, dtype=dtype, requires_grad=form in ("padded", "one step"))
    if form == "unbatched":
        x, batch = normal(T, 4, dtype=dtype, requires_grad=True), ()
    else:
        batch = (B,)
    if case["batch_first"] and form in ("padded", "one step"):
        x = x.detach().transpose(0, 1).requires_grad_()
    if form.startswith("packed"):
        lengths = {"packed sorted": [6, 3, 2], "packed unsorted": [2, 6, 3]}.get(form, [6, 6, 6])
        x = rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=form[7] == "s")
        x = x._replace(data=x.data.requires_grad_())
    state = state_for(theirs, *batch, dtype=dtype) if with_state else None
    want, got = everything(theirs, x, state), everything(ours, x, state)
    same(got, want, dtype)


def test_what_comes_out_of_a_packed_sequence_is_one() -> None:
    theirs, ours = pair("GRU", 3, 5)
    packed = rnn.pack_sequence([normal(n, 3) for n in (2, 5, 1, 5)], enforce_sorted=False)
    (y, h), (want, last) = ours(packed), theirs(packed)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(y, name), getattr(want, name))
    torch.testing.assert_close(rnn.pad_packed_sequence(y)[0], rnn.pad_packed_sequence(want)[0])
    torch.testing.assert_close(h, last)


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_what_packing_does(kind: str) -> None:
    theirs, ours = pair(kind, 3, 5, 2, bidirectional=True, batch_first=True, dtype=torch.float64)
    x = normal(4, 6, 3, dtype=torch.float64, requires_grad=True)
    lengths = [2, 6, 1, 4]
    packed = rnn.pack_padded_sequence(x, torch.tensor(lengths), True, enforce_sorted=False)
    y, final = theirs(packed)
    want = rnn.pad_packed_sequence(y, batch_first=True, total_length=6)[0]
    for given in (lengths, np.array(lengths), torch.tensor(lengths), torch.tensor(lengths).int()):
        got, state = ours(x, lengths=given)
        torch.testing.assert_close(got, want)
        for a, b in zip(unpack(state), unpack(final), strict=True):
            torch.testing.assert_close(a, b)
    one, _ = ours(x[0], lengths=torch.tensor(2))
    torch.testing.assert_close(one, want[0])
    nothing, state = ours(x, lengths=[0, 0, 0, 0])
    assert not nothing.any()
    assert not unpack(state)[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_resets_are_sequences_one_by_one(kind: str) -> None:
    """The pieces between resets, run by torch; so no gradient flows across either."""
    theirs, ours = pair(kind, 3, 5, dtype=torch.float64)
    x = normal(7, 2, 3, dtype=torch.float64, requires_grad=True)
    resets = torch.zeros(7, 2, dtype=torch.bool)
    resets[[3, 5]] = True
    state = state_for(theirs, 2, dtype=torch.float64)
    pieces = [theirs(x[:3], state), theirs(x[3:5]), theirs(x[5:])]
    want = torch.cat([y for y, _ in pieces])
    for given in (resets, resets.numpy(), resets.tolist()):
        got, _ = ours(x, state, resets=given)
        torch.testing.assert_close(got, want)
    dy = normal(7, 2, 5, dtype=torch.float64)
    inputs = [x, *unpack(state)]
    torch.testing.assert_close(
        torch.autograd.grad(got, [*inputs, *ours.parameters()], dy),
        torch.autograd.grad(want, [*inputs, *theirs.parameters()], dy),
    )


def test_peepholes_and_a_reset_gate_before_the_product() -> None:
    """What torch.nn has not, by the equations in plain torch."""
    from cases import Case

    for case in (Case("lstm_peephole"), Case("gru_reset_before", layers=2)):
        layer, call = case.layer("auto"), case.call()
        kind, option = (
            (fastrnn.torch.LSTM, {"peephole": True})
            if case.is_lstm
            else (fastrnn.torch.GRU, {"reset_after": False})
        )
        ours = kind(*case.sizes[2:], case.layers, dtype=torch.float64, **option)
        ours.load_state_dict({n: torch.tensor(v) for n, v in layer.params.items()})
        want = by_hand(case, layer.params, call)
        state = tuple(torch.tensor(part) for part in unpack(call.state))
        y, _ = ours(torch.tensor(call.x), state if case.is_lstm else state[0])
        np.testing.assert_allclose(y.detach().numpy(), want["y"], rtol=1e-11, atol=1e-12)
        np.testing.assert_array_equal(fastrnn.from_torch(ours).flat_params, layer.flat_params)
        assert fastrnn.from_torch(ours).config() == layer.config() | {"backend": "auto"}


# ---- as a module of torch ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_parameters(kind: str) -> None:
    theirs, ours = pair(kind, 4, 5, 2, bidirectional=True)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    for mine, its in zip(ours.all_weights, theirs.all_weights, strict=True):
        assert all(map(torch.equal, mine, its))
    assert not isinstance(ours, nn.RNNBase)
    assert ours.flatten_parameters() is None


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("LSTM", (4, 7, 2, False, True, 0.25, True, 3)),
        ("GRU", (4, 7, 2, False, True, 0.25, True)),
        ("RNN", (4, 7, 2, "relu", False, True, 0.25, True)),
    ],
)
def test_the_constructor_is_torchs(kind: str, arguments: tuple[Any, ...]) -> None:
    theirs, ours = pair(kind, *arguments, device="cpu", dtype=torch.float64)
    names = (
        "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size mode"
    )
    for name in [*names.split(), *(["nonlinearity"] if kind == "RNN" else [])]:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }
    assert all(p.dtype == torch.float64 for p in ours.parameters())


def test_state_dicts_go_both_ways_and_are_strict() -> None:
    theirs, ours = (
        nn.LSTM(3, 5, 2, bidirectional=True),
        fastrnn.torch.LSTM(3, 5, 2, bidirectional=True),
    )
    x = normal(4, 2, 3)
    for source, target in ((theirs, ours), (ours, theirs)):
        target.load_state_dict(source.state_dict())
        torch.testing.assert_close(target(x)[0], source(x)[0])
        source.reset_parameters()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*_reverse"):
        ours.load_state_dict(nn.LSTM(3, 5, 2).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        ours.load_state_dict({**ours.state_dict(), "extra": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="size mismatch"):
        ours.load_state_dict(nn.LSTM(3, 6, 2, bidirectional=True).state_dict())


def moved(module: Any, how: str) -> Any:
    """The module after its parameters have been replaced, moved or cast."""
    if how == "assign":
        module.load_state_dict({n: 2 * v for n, v in module.state_dict().items()}, assign=True)
    elif how == "load":
        module.load_state_dict({n: 2 * v for n, v in module.state_dict().items()})
    elif how == "to":
        module = module.to(torch.float64).to(torch.float32)
    elif how == "share_memory":
        module.share_memory()
    elif how == "data":
        for p in module.parameters():
            p.data = p.data * 2
    elif how == "in place":
        for p in module.parameters():
            p.data.mul_(2)
    elif how == "numpy":
        for p in module.parameters():
            p.detach().numpy()[...] *= 2
    elif how == "strided":
        for p in module.parameters():
            p.data = torch.stack([p.data, p.data], -1)[..., 0]
    elif how == "vector":
        vector = nn.utils.parameters_to_vector(module.parameters())
        nn.utils.vector_to_parameters(2 * vector, module.parameters())
    return module


@pytest.mark.parametrize(
    "how",
    ["assign", "load", "to", "share_memory", "data", "in place", "numpy", "strided", "vector"],
)
def test_parameters_are_used_where_they_are(how: str) -> None:
    theirs, ours = pair("GRU", 3, 5, 2)
    x = normal(4, 2, 3, requires_grad=True)
    ours(x)
    theirs, ours = moved(theirs, how), moved(ours, how)
    same(everything(ours, x, None), everything(theirs, x, None), torch.float32)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "Adam foreach": lambda p: torch.optim.Adam(p, 0.05, foreach=True),
    "Adam fused": lambda p: torch.optim.Adam(p, 0.05, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.05, foreach=False),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_train_it_as_torchs(name: str) -> None:
    losses = []
    for module in pair("LSTM", 3, 5, dtype=torch.float64):
        optimizer = OPTIMIZERS[name](module.parameters())
        x, target = normal(6, 4, 3, dtype=torch.float64), normal(6, 4, 5, dtype=torch.float64)

        def loss(
            module: Any = module, optimizer: Any = optimizer, x: Any = x, t: Any = target
        ) -> Any:
            optimizer.zero_grad()
            value = (module(x)[0] - t).square().mean()
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            return value

        losses.append([optimizer.step(loss).item() for _ in range(8)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
    assert losses[1][-1] < losses[1][0]


def test_gradients_accumulate_and_share_one_vector() -> None:
    ours = fastrnn.torch.LSTM(3, 5)
    x = normal(4, 2, 3)
    ours(x)[0].sum().backward()
    once = [p.grad.clone() for p in ours.parameters()]
    where = [p.grad.data_ptr() for p in ours.parameters()]
    ends = [p.grad.data_ptr() + p.grad.nbytes for p in ours.parameters()]
    assert where[1:] == ends[:-1]  # taken as they came, not copied
    ours(x)[0].sum().backward()
    for p, g in zip(ours.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


def test_nothing_is_copied_on_the_way() -> None:
    """An input of a gigabyte's stride would show: the output of an identity is its input."""
    seen = []

    def spy(layer: Any, weights: Any, x: Any, *args: Any, **how: Any) -> Any:
        seen.append((x, weights))
        return plain(layer, weights, x, *args, **how)

    ours = fastrnn.torch.GRU(3, 5)
    plain = function.functional.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function.functional, "forward", spy)
        x = normal(4, 2, 3)
        ours(x)
    ((array, weights),) = seen
    assert array.ctypes.data == x.data_ptr()
    assert weights[0].ih.ctypes.data == ours.weight_ih_l0.data_ptr()
    assert weights[0].hh.ctypes.data == ours.weight_hh_l0.data_ptr()


def test_copies_and_files() -> None:
    ours = fastrnn.torch.LSTM(3, 5, 2, batch_first=True, dropout=0.5, precision="high").eval()
    x = normal(2, 4, 3)
    want = ours(x)[0]
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(buffer, weights_only=False),
    ]
    with torch.no_grad():
        ours.weight_ih_l0.zero_()
    for each in copies:
        assert torch.equal(each(x)[0], want)
        assert (
            repr(each)
            == repr(ours)
            == ("LSTM(3, 5, num_layers=2, batch_first=True, dropout=0.5, precision='high')")
        )
    buffer = io.BytesIO()
    torch.save(copies[0].state_dict(), buffer)
    buffer.seek(0)
    ours.load_state_dict(torch.load(buffer))
    assert torch.equal(ours(x)[0], want)


def test_arguments_that_are_assigned_later_count() -> None:
    theirs, ours = pair("GRU", 3, 5, 2)
    x = normal(4, 4, 3)
    ours(x)
    ours.batch_first = theirs.batch_first = True
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    ours.dropout = 0.5
    assert not torch.equal(ours(x)[0], ours(x)[0])
    ours.dropout = 1.5
    with pytest.raises(ValueError, match="dropout"):
        ours(x)


def test_dropout_is_drawn_by_torchs_generator() -> None:
    ours = fastrnn.torch.LSTM(3, 50, 2, dropout=0.4)
    x = normal(6, 8, 3)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        y, _ = ours(x)
        grads = torch.autograd.grad(y.sum(), list(ours.parameters()))
        runs.append([y, *grads])
    assert all(map(torch.equal, runs[0], runs[1]))
    assert not torch.equal(runs[0][0], runs[2][0])
    with torch.no_grad():  # it is active in training mode, whether there are gradients or not
        torch.manual_seed(0)
        assert torch.equal(ours(x)[0], runs[0][0])
    ours.eval()
    assert torch.equal(ours(x)[0], ours(x)[0])
    theirs = nn.LSTM(3, 50, 2)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    ours.train()
    with torch.no_grad():
        mean = sum(ours(x)[1][0][1] for _ in range(300)) / 300
    torch.testing.assert_close(mean, theirs(x)[1][0][1], atol=0.1, rtol=0)
    with pytest.warns(UserWarning, match=r"dropout=0\.4"):
        fastrnn.torch.LSTM(3, 5, dropout=0.4)


def test_modes_without_gradients() -> None:
    ours = fastrnn.torch.LSTM(3, 5)
    x = normal(4, 2, 3)
    want = ours(x)[0]
    assert want.requires_grad
    with torch.no_grad():
        y = ours(x)[0]
        assert torch.equal(y, want)
        assert not y.requires_grad
    with torch.inference_mode():
        y, (h, _) = ours(x * 1)
        assert torch.equal(y, want)
        assert y.is_inference()
        assert torch.equal(ours(y[..., :3], (h, h))[0].shape and y, want)
    for p in ours.parameters():
        p.requires_grad_(False)
    assert not ours(x)[0].requires_grad
    ours.weight_hh_l0.requires_grad_(True)
    ours(x)[0].sum().backward()
    assert [n for n, p in ours.named_parameters() if p.grad is not None] == ["weight_hh_l0"]


def test_only_what_flows_in_flows_back() -> None:
    theirs, ours = pair("LSTM", 3, 5, dtype=torch.float64)
    x = normal(4, 2, 3, dtype=torch.float64, requires_grad=True)
    for pick in (lambda y, h, c: c, lambda y, h, c: h, lambda y, h, c: y[-1]):
        got, want = (
            torch.autograd.grad(pick(y, h, c).sum(), [x, *module.parameters()])
            for module in (ours, theirs)
            for y, (h, c) in [module(x)]
        )
        torch.testing.assert_close(got, want)


def test_a_gradient_of_a_gradient_is_refused_and_a_graph_of_one_is_not() -> None:
    ours = fastrnn.torch.GRU(3, 5, dtype=torch.float64)
    x = normal(4, 2, 3, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"first derivatives only.*create_graph=True"):
        dx.square().sum().backward()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.gradgradcheck(lambda x: ours(x)[0], x)
    loss = ours(x)[0].sum() + (x**3).sum()
    (dx,) = torch.autograd.grad(loss, x, create_graph=True)
    torch.testing.assert_close(dx, torch.autograd.grad(ours(x)[0].sum() + (x**3).sum(), x)[0])


def test_torchs_own_gradcheck() -> None:
    ours = fastrnn.torch.LSTM(3, 4, 2, bidirectional=True, proj_size=2, dtype=torch.float64)
    x = normal(4, 2, 3, dtype=torch.float64, requires_grad=True)
    state = state_for(ours, 2, dtype=torch.float64)
    parameters = list(ours.parameters())

    def run(x: Any, h: Any, c: Any, *_: Any) -> Any:
        y, (h, c) = ours(x, (h, c), lengths=[4, 2])
        return y, h, c

    assert torch.autograd.gradcheck(run, (x, *state, *parameters), fast_mode=True)


def test_what_torch_refuses_of_any_graph() -> None:
    ours = fastrnn.torch.LSTM(3, 5)
    x = normal(4, 2, 3, requires_grad=True)
    y = ours(x)[0]
    y.sum().backward(retain_graph=True)
    first = x.grad.clone()
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    z = x * 1
    y = ours(z)[0]
    z.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_freed_graph_keeps_no_tape() -> None:
    ours = fastrnn.torch.LSTM(3, 5)
    y = ours(normal(4, 2, 3))[0]
    assert y.grad_fn.tape is not None
    y.sum().backward()
    assert y.grad_fn.tape is None


def test_weights_that_change_between_forward_and_backward() -> None:
    """The gradient is that of the weights that ran; torch refuses it."""
    ours = fastrnn.torch.GRU(3, 5)
    x = normal(4, 2, 3, requires_grad=True)
    (want,) = torch.autograd.grad(ours(x)[0].sum(), x)
    loss = ours(x)[0].sum()
    with torch.no_grad():
        ours.weight_hh_l0.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], want)


def test_hooks_run() -> None:
    ours = fastrnn.torch.GRU(3, 5)
    seen: list[str] = []
    ours.register_forward_pre_hook(lambda m, args: seen.append("before"))
    ours.register_forward_hook(lambda m, args, out: (out[0] * 2, out[1]))
    ours.register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
    ours.weight_hh_l0.register_hook(lambda g: seen.append("weight") or 3 * g)
    ours.weight_hh_l0.register_post_accumulate_grad_hook(lambda p: seen.append("after"))
    x = normal(4, 2, 3, requires_grad=True)
    y = ours(x)[0]
    y.register_hook(lambda g: seen.append("y") or g)
    y.sum().backward()
    assert set(seen) == {"before", "y", "backward", "weight", "after"}
    plain = fastrnn.torch.GRU(3, 5)
    plain.load_state_dict(ours.state_dict())
    (2 * plain(x)[0]).sum().backward()
    torch.testing.assert_close(ours.weight_hh_l0.grad, 3 * plain.weight_hh_l0.grad)


def test_what_computes_weights() -> None:
    """Parametrized and functionally swapped parameters have their gradients too."""
    theirs, ours = pair("LSTM", 3, 5)
    x = normal(4, 2, 3)
    grads = []
    for module in (theirs, ours):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        module(x)[0].sum().backward()
        grads.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(grads[1], grads[0])
    theirs, ours = pair("LSTM", 3, 5)
    swapped = {n: (2 * p).detach().requires_grad_() for n, p in ours.named_parameters()}
    results = [torch.func.functional_call(module, swapped, x)[0] for module in (theirs, ours)]
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(
        torch.autograd.grad(results[1].sum(), list(swapped.values())),
        torch.autograd.grad(results[0].sum(), list(swapped.values())),
    )


def test_checkpoints_of_torch() -> None:
    ours = fastrnn.torch.LSTM(3, 5)
    x = normal(4, 2, 3, requires_grad=True)
    want = torch.autograd.grad(ours(x)[0].sum(), x)
    y = torch.utils.checkpoint.checkpoint(lambda x: ours(x)[0], x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x), want)


def test_threads_share_a_module() -> None:
    ours = fastrnn.torch.GRU(8, 16, 2)
    inputs = [normal(12, 3, 8, seed=i) for i in range(8)]

    def step(x: Any) -> list[torch.Tensor]:
        y, h = ours(x)
        return [y, h, *torch.autograd.grad(y.sum(), list(ours.parameters()))]

    want = [step(x) for x in inputs]
    got: list[Any] = [None] * len(inputs)

    def work(index: int) -> None:
        for _ in range(5):
            got[index] = step(inputs[index])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(got, want, strict=True):
        assert all(map(torch.equal, a, b))


# a process of its own: in this one, JAX may have threads, which no child has
LOADER = """
import torch, fastrnn
import fastrnn.torch

class Features(torch.utils.data.Dataset):
    def __init__(self, module):
        self.module = module
        self.x = torch.randn(6, 40, 3, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        with torch.no_grad():
            return self.module(self.x[index])[1]

items = Features(fastrnn.torch.GRU(3, 32))
want = torch.stack([items[i] for i in range(6)])  # threads are there before the fork
loader = torch.utils.data.DataLoader(
    items, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60
)
print(torch.equal(torch.cat(list(loader)), want))
"""


def test_workers_of_a_data_loader_run_it() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LOADER], capture_output=True, text=True, cwd=root, timeout=600
    )
    assert done.stdout == "True\n", done.stderr


def test_jit_is_refused_with_what_to_do() -> None:
    model = nn.Sequential(fastrnn.torch.GRU(3, 5))
    words = r"fastrnn.torch.GRU cannot be scripted or traced by torch.jit: use torch.compile"
    with pytest.raises(RuntimeError, match=words):
        torch.jit.script(model)
    with pytest.raises(RuntimeError, match=words):
        torch.jit.trace(model[0], normal(4, 2, 3))


def test_forward_mode_is_refused() -> None:
    import torch.autograd.forward_ad as forward

    ours = fastrnn.torch.GRU(3, 5)
    for p in ours.parameters():
        p.requires_grad_(False)
    with forward.dual_level(), pytest.raises(RuntimeError, match="forward mode"):
        ours(forward.make_dual(normal(4, 2, 3), normal(4, 2, 3)))


# ---- other dtypes --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["input", "autocast", "module"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(kind: str, how: str, dtype: torch.dtype) -> None:
    theirs, ours = pair(kind, 8, 16, 2, bidirectional=True)
    narrow = normal(10, 4, 8).to(dtype)
    x = narrow.float() if how == "autocast" else narrow
    x = x.requires_grad_()
    if how == "module":
        ours = ours.to(dtype)
        theirs = theirs.to(dtype).float()
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        y, final = ours(x)
    assert {y.dtype, *(part.dtype for part in unpack(final))} == {dtype}
    y.float().sum().backward()
    exact = narrow.detach().float().requires_grad_()
    want, _ = theirs(exact)
    want.sum().backward()
    torch.testing.assert_close(y.float(), want, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(x.grad.float(), exact.grad, atol=3e-2, rtol=3e-2)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert a.grad.dtype == a.dtype
        torch.testing.assert_close(a.grad.float(), b.grad, atol=0.3, rtol=3e-2)


def test_narrow_floats_take_the_precision_that_is_theirs() -> None:
    ours = fastrnn.torch.LSTM(3, 5)
    x = normal(4, 2, 3)
    ours(x), ours(x.bfloat16()), ours(x.half())
    assert {how[:2] for how in ours._engines} >= {
        ("float32", "highest"),
        ("float32", "medium"),
        ("float32", "high"),
    }
    state = (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))
    torch.testing.assert_close(ours(x.bfloat16(), state)[0], ours(x.bfloat16())[0])


def test_float64_is_not_cast_by_autocast() -> None:
    theirs, ours = pair("GRU", 3, 5, dtype=torch.float64)
    x = normal(4, 2, 3, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])


# ---- errors --------------------------------------------------------------------------------------

LAYER = fastrnn.torch.LSTM(3, 5, 2)
X = torch.zeros(4, 2, 3)
H, C = torch.zeros(2, 2, 5), torch.zeros(2, 2, 5)
PACKED = rnn.pack_padded_sequence(X, [4, 2])


@pytest.mark.parametrize(
    ("arguments", "how", "error", "words"),
    [
        ((X.numpy(),), {}, TypeError, "input must be a torch.Tensor, got ndarray"),
        ((None,), {}, TypeError, "input must be a torch.Tensor, got NoneType"),
        ((X.double(),), {}, TypeError, "input must be torch.float32, as the parameters are, got t"),
        ((X.long(),), {}, TypeError, "input must be torch.float32.*got torch.int64"),
        ((X.to("meta"),), {}, TypeError, "input is on meta, the parameters on cpu"),
        ((X[..., :2],), {}, ValueError, r"input must be \(T, B, I=3\), got \(4, 2, 2\)"),
        ((X[0, 0],), {}, ValueError, r"input must be \(T, B, I=3\) or \(T, I=3\), got \(3,\)"),
        ((X, H), {}, TypeError, r"hx must be a tuple \(h, c\) of tensors, got Tensor"),
        ((X, (H,)), {}, TypeError, r"hx must be a tuple \(h, c\) of tensors, got tuple of 1"),
        ((X, (H, None)), {}, TypeError, "hx must be a torch.Tensor, got NoneType"),
        ((X, (H, C.double())), {}, TypeError, "hx must be torch.float32"),
        ((X, (H[:1], C)), {}, ValueError, r"hx\[0\] must be \(L\*D=2, B=2, H=5\), got \(1, 2, 5\)"),
        ((X, (H, C[:, 0])), {}, ValueError, r"hx\[1\] must be"),
        ((X,), {"lengths": [1, 5]}, ValueError, r"lengths must be in 0..T=4, got 5 in row 1"),
        ((X,), {"lengths": [1.0, 2.0]}, TypeError, "lengths must be ints"),
        ((X,), {"lengths": [1]}, ValueError, r"lengths must be \(B=2,\), got \(1,\)"),
        ((X,), {"resets": torch.zeros(4, 2)}, TypeError, "resets must be bool, got float32"),
        ((X,), {"resets": torch.zeros(2, 4) > 0}, ValueError, r"resets must be \(T=4, B=2\), got"),
        ((PACKED,), {"lengths": [1, 2]}, ValueError, "for padded input, got a PackedSequence"),
        ((PACKED, (H[:, :1], C)), {}, ValueError, r"hx\[0\] must be"),
    ],
)
def test_bad_calls_say_what_was_expected(
    arguments: Any, how: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        LAYER(*arguments, **how)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((0, 5), {}, ValueError, "input_size must be at least 1, got 0"),
        ((3, 5.0), {}, TypeError, "hidden_size must be an int, got float"),
        ((3, 5), {"proj_size": 5}, ValueError, r"proj_size must be in 0..H-1=4, got 5"),
        ((3, 5, 2), {"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\), got 1.0"),
        ((3, 5), {"precision": "low"}, ValueError, "precision must be one of"),
        ((3, 5), {"colour": 1}, TypeError, "LSTM has no argument 'colour'; it has input_size"),
        ((3, 5), {"backend": "tpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_constructions(
    arguments: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fastrnn.torch.LSTM(*arguments, **options)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (0, 0, 3)])
def test_no_steps_and_no_rows(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    y, (h, _) = LAYER(x)
    assert y.shape == (*shape[:2], 5)
    assert h.shape == (2, shape[1], 5)
    (y.sum() + h.sum()).backward()
    assert x.grad.shape == shape


# ---- torch.compile -------------------------------------------------------------------------------

COMPILED = covering(
    2,
    kind=["LSTM", "GRU", "RNN"],
    batch_first=[False, True],
    bidirectional=[False, True],
    state=[True, False],
    form=["padded", "unbatched", "lengths", "resets"],
)


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: "-".join(map(str, case.values())))
def test_opcheck_accepts_the_operators(case: dict[str, Any]) -> None:
    case = dict(case)
    kind, form, with_state = (case.pop(n) for n in ("kind", "form", "state"))
    ours = getattr(fastrnn.torch, kind)(3, 5, 2, dtype=torch.float64, **case)
    x = normal(4, 2, 3, dtype=torch.float64)
    if case["batch_first"]:
        x = x.transpose(0, 1)
    if form == "unbatched":
        x = x[0]
    batch = (2,) if form != "unbatched" else ()
    state = unpack(state_for(ours, *batch, dtype=torch.float64)) if with_state else ()
    state = (*state, None, None)[:2]
    lengths = torch.tensor([3, 0]) if form == "lengths" else None
    resets = normal(4, 2) > 0 if form == "resets" else None
    text = ours._text("float64", "highest", "auto", ours.batch_first)
    rest = (*state, list(ours.parameters()), lengths, resets, None, text)
    torch.library.opcheck(operator.run, (x.requires_grad_(), *rest))
    y, _, c = operator.run(x, *rest)
    plain = [each.detach() if isinstance(each, torch.Tensor) else each for each in rest]
    plain[2] = [p.detach() for p in rest[2]]
    dc = torch.ones_like(c) if kind == "LSTM" else None
    flows = (torch.ones_like(y), None, dc)
    torch.library.opcheck(operator.run_backward, (*flows, x.detach(), *plain))


class Tagger(nn.Module):  # type: ignore[misc]
    """A model with a recurrent layer inside."""

    def __init__(self, home: Any, kind: str = "LSTM", **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 3)
        self.rnn = getattr(home, kind)(3, 5, 2, batch_first=True, **options)
        self.head = nn.Linear(self.rnn.hidden_size * (1 + self.rnn.bidirectional), 4)

    def forward(self, tokens: torch.Tensor, **how: Any) -> torch.Tensor:
        return self.head(self.rnn(self.embed(tokens), **how)[0])


TOKENS = torch.arange(14).reshape(2, 7) % 11


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_model_compiles_as_one_graph_and_backpropagates(backend: str) -> None:
    torch._dynamo.reset()
    model = Tagger(fastrnn.torch, bidirectional=True)
    theirs = Tagger(nn, bidirectional=True)
    theirs.load_state_dict(model.state_dict())
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    want, got = theirs(TOKENS), compiled(TOKENS)
    torch.testing.assert_close(got, want)
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), list(model.parameters())),
        torch.autograd.grad(want.square().sum(), list(theirs.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(TOKENS[:1]), want[:1])


def test_compiled_with_lengths_resets_dropout_and_autocast() -> None:
    torch._dynamo.reset()
    model = Tagger(fastrnn.torch, "GRU", dropout=0.5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    how = {"lengths": torch.tensor([7, 3]), "resets": torch.zeros(7, 2, dtype=torch.bool)}
    how["resets"][2] = True
    a, b = compiled(TOKENS, **how), compiled(TOKENS, **how)
    assert not torch.equal(a, b)
    a.sum().backward()
    model.eval()
    torch.testing.assert_close(compiled(TOKENS, **how), model(TOKENS, **how))
    with torch.autocast("cpu", torch.bfloat16):
        got, want = compiled(TOKENS), model(TOKENS)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, want, atol=1e-2, rtol=2e-2)


def test_a_packed_sequence_breaks_a_compiled_graph_and_runs() -> None:
    torch._dynamo.reset()
    theirs, ours = pair("LSTM", 3, 5)
    compiled = torch.compile(ours, backend="aot_eager")
    packed = rnn.pack_sequence([normal(n, 3) for n in (2, 5, 1)], enforce_sorted=False)
    torch.testing.assert_close(compiled(packed)[0].data, theirs(packed)[0].data)


def test_export() -> None:
    model = Tagger(fastrnn.torch).eval()
    program = torch.export.export(model, (TOKENS,), dynamic_shapes=({0: torch.export.Dim("B")},))
    assert "fastrnn.run" in str(program.graph)
    torch.testing.assert_close(program.module()(TOKENS[:1]), model(TOKENS[:1]))


# ---- accelerate ----------------------------------------------------------------------------------


class Deep(nn.Module):  # type: ignore[misc]
    """RNNs at several depths, one of them twice, one in a plain list, beside other things."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
        self.blocks = nn.ModuleDict({"a": nn.ModuleList([nn.GRU(4, 4), nn.RNN(4, 4, 1, "relu")])})
        self.again = self.blocks["a"][0]
        self.norm = nn.BatchNorm1d(4)
        self.unregistered = [self.first]
        self.scale = torch.full((), 2.0) * self.norm.weight[0]  # no leaf: deepcopy refuses it
        self.run = self.forward_all  # bound to this instance

    def forward_all(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)[0]
        for each in (*self.blocks["a"], self.again):
            y = each(y)[0]
        return self.norm(y.flatten(0, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def test_accelerate_replaces_every_rnn_and_shares_parameters() -> None:
    model = Deep()
    fast = fastrnn.torch.accelerate(model)
    assert type(fast) is Deep
    kinds = [type(m) for m in fast.modules() if isinstance(m, modules.Recurrent)]
    assert kinds == [fastrnn.torch.LSTM, fastrnn.torch.GRU, fastrnn.torch.RNN]
    assert not any(isinstance(m, nn.RNNBase) for m in fast.modules())
    assert fast.again is fast.blocks["a"][0]
    assert fast.unregistered[0] is fast.first
    assert fast.run.__self__ is fast
    assert type(model.first) is nn.LSTM
    mine, its = dict(fast.named_parameters()), dict(model.named_parameters())
    assert list(mine) == list(its)
    assert all(mine[name] is its[name] for name in its)
    assert fast.norm.running_mean is model.norm.running_mean
    assert list(fast.state_dict()) == list(model.state_dict())
    x = normal(5, 2, 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(3):  # a step of the one is a step of the other
        optimizer.zero_grad()
        fast(x).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(fast.eval()(x), model.eval()(x), atol=1e-5, rtol=1e-4)
    assert fast.first.training is False
    assert fastrnn.torch.accelerate(model).first.training is False


def test_accelerate_takes_a_single_module() -> None:
    module = nn.GRU(3, 5, 2, dropout=0.3, bias=False).double()
    fast: Any = fastrnn.torch.accelerate(module)
    assert type(fast) is fastrnn.torch.GRU
    assert fast.weight_ih_l1 is module.weight_ih_l1
    assert (fast.dropout, fast.bias, fast.num_layers) == (0.3, False, 2)


class Own(nn.GRU):
    """A subclass."""


def test_accelerate_names_what_it_leaves() -> None:
    model = nn.ModuleDict(
        {
            "good": nn.LSTM(3, 5),
            "own": Own(3, 5),
            "hooked": nn.GRU(3, 5),
            "normed": nn.utils.parametrizations.weight_norm(nn.LSTM(3, 5), "weight_hh_l0"),
            "dropped": nn.GRU(3, 5, 2, dropout=1.0),
            "cell": nn.LSTMCell(3, 5),
        }
    )
    model["hooked"].register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="left as it is") as caught:
        fast = fastrnn.torch.accelerate(model)
    (warning,) = caught
    text = str(warning.message)
    assert warning.filename == __file__
    for words in (
        "own (a subclass, test_torch.Own)",
        "hooked (it has hooks)",
        "normed (a subclass, torch",
        "dropped (dropout must be in [0, 1), got 1.0)",
        "cell (a cell, stepped by the model's own loop",
    ):
        assert words in text
    assert "good" not in text
    assert type(fast["good"]) is fastrnn.torch.LSTM
    assert [type(fast[n]) for n in ("own", "hooked", "cell")] == [Own, nn.GRU, nn.LSTMCell]
    with pytest.warns(UserWarning, match=r"there is no LSTM, GRU or RNN of torch.nn"):
        fastrnn.torch.accelerate(nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
        fastrnn.torch.accelerate([])


# ---- the example ------------------------------------------------------------------------------


def test_the_actor_critic_agrees_with_torchs_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """It compares the gradients of all three before it times them."""
    main = runpy.run_path(str(ROOT / "examples" / "actor_critic.py"))["main"]
    sizes = {"steps": 12, "environments": 5, "hidden": 8, "ends": 0.3, "rounds": 1}
    best = main([f"--{name}={value}" for name, value in sizes.items()])
    assert len(best) == 3
    out = capsys.readouterr().out
    assert "T=12 B=5 H=8" in out
    assert all(name in out for name in best)


# ---- the package ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["modules", "accelerate"])
def test_the_examples_in_the_docstrings_run(where: str) -> None:
    result = doctest.testmod(sys.modules[f"fastrnn.torch.{where}"])
    assert result.attempted > 0
    assert result.failed == 0


def test_without_torch_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['torch'] = None; import fastrnn.torch"
    root = str(Path(fastrnn.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert "ImportError: fastrnn.torch needs torch: pip install 'fastrnn[torch]'" in done.stderr


def test_every_mixture_of_states_and_gradients_runs() -> None:
    """Which of x, the state and the parameters want a gradient changes what autograd passes."""
    for wants in itertools.product([False, True], repeat=3):
        ours = fastrnn.torch.LSTM(3, 5)
        x = normal(4, 2, 3).requires_grad_(wants[0])
        state = [part.detach().requires_grad_(wants[1]) for part in (H[:1], C[:1])]
        for p in ours.parameters():
            p.requires_grad_(wants[2])
        y, _ = ours(x, tuple(state))
        assert y.requires_grad is any(wants)
        if any(wants):
            y.sum().backward()
        assert [t.grad is not None for t in (x, state[0], ours.weight_hh_l0)] == list(wants)
