"""Answers of another make: torch.nn in float64, and the same cells step by step in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from cases import Array, Call, Case, Results, pack, unpack

torch.set_num_threads(1)  # for the reason given in conftest.py
TORCH_KINDS = ("rnn_tanh", "rnn_relu", "gru", "lstm")


def leaf(a: Array) -> torch.Tensor:
    """A float64 tensor to differentiate by."""
    return torch.tensor(np.asarray(a, np.float64), requires_grad=True)


def leaves(case: Case, call: Call) -> tuple[torch.Tensor, ...]:
    """The initial state as tensors: zeros where the call gives none."""
    entries, batch = case.layers * case.directions, case.sizes[1]
    if call.state is None:
        widths = (case.output, case.sizes[3])[: 1 + case.is_lstm]
        return tuple(leaf(np.zeros((entries, batch, width))) for width in widths)
    return tuple(map(leaf, unpack(call.state)))


def differentiate(
    x: torch.Tensor,
    initial: tuple[torch.Tensor, ...],
    weights: Mapping[str, torch.Tensor],
    y: torch.Tensor,
    final: tuple[torch.Tensor, ...],
    call: Call,
) -> Results:
    """autograd's gradients of <dy, y> + <dstate, final>, with the outputs, as Results."""
    loss = torch.zeros((), dtype=torch.float64)
    if call.dy is not None:
        loss = loss + (y * torch.tensor(call.dy, dtype=torch.float64)).sum()
    if call.dstate is not None:
        for value, gradient in zip(final, unpack(call.dstate), strict=True):
            loss = loss + (value * torch.tensor(gradient, dtype=torch.float64)).sum()
    sources = {"x": x, **dict(zip(("h0", "c0"), initial, strict=False)), **weights}
    gradients = torch.autograd.grad(
        loss, list(sources.values()), allow_unused=True, materialize_grads=True
    )
    outputs = {"y": y, **dict(zip(("hn", "cn"), final, strict=False))}
    return {
        **{name: value.detach().numpy() for name, value in outputs.items()},
        **{"d" + name: g.numpy() for name, g in zip(sources, gradients, strict=True)},
    }


def torch_nn(case: Case, params: Mapping[str, Array], call: Call) -> Results:
    """torch.nn's module in float64, run row by row where rows have lengths.

    torch refuses an empty row: its y is zeros and its final state the initial one.
    """
    module, x, initial = torch_module(case, params, call)
    rows = x if case.batch_first else x.transpose(0, 1)
    lengths = call.how.get("lengths")
    if lengths is None:
        y, final = module(x, pack(initial))
    else:
        ys, finals = [], []
        for b, n in enumerate(map(int, lengths)):
            row = tuple(s[:, b : b + 1].contiguous() for s in initial)
            steps = torch.zeros(len(rows[b]), case.directions * case.output, dtype=torch.float64)
            if n > 0:
                piece = rows[b : b + 1, :n] if case.batch_first else rows[b, :n].unsqueeze(1)
                out, new = module(piece, pack(row))
                row = unpack(new)
                steps = torch.cat([out.flatten(0, 1), steps[n:]])
            ys.append(steps)
            finals.append(row)
        y = torch.stack(ys, 0 if case.batch_first else 1)
        final = pack(torch.cat(states, 1) for states in zip(*finals, strict=True))
    return differentiate(x, initial, named(module, params), y, unpack(final), call)


def torch_packed(case: Case, params: Mapping[str, Array], call: Call) -> Results:
    """torch's own way with lengths: one packed call."""
    module, x, initial = torch_module(case, params, call)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(call.how["lengths"]), case.batch_first, enforce_sorted=False
    )
    out, final = module(packed, pack(initial))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(out, case.batch_first, total_length=case.sizes[0])
    return differentiate(x, initial, named(module, params), y, unpack(final), call)


def torch_module(
    case: Case, params: Mapping[str, Array], call: Call
) -> tuple[torch.nn.RNNBase, torch.Tensor, tuple[torch.Tensor, ...]]:
    """The module with fastrnn's parameters, whose names and shapes load_state_dict checks."""
    options: dict[str, Any] = {}
    if case.is_lstm:
        options["proj_size"] = case.proj_size
    if case.kind.startswith("rnn"):
        options["nonlinearity"] = case.kind.removeprefix("rnn_")
    cls = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    module = cls[case.kind.split("_")[0]](
        *case.sizes[2:],
        case.layers,
        bias=case.bias,
        batch_first=case.batch_first,
        bidirectional=case.bidirectional,
        dtype=torch.float64,
        **options,
    )
    module.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    return module, leaf(call.x), leaves(case, call)


def named(module: torch.nn.Module, params: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """The module's parameters, in fastrnn's order."""
    own = dict(module.named_parameters())
    return {name: own[name] for name in params}


# ---- plain torch, step by step -----------------------------------------------------------------

Weights = Callable[[str], torch.Tensor]  # "ih", "hh", "b_ih", "b_hh", "hr", "peephole"
Step = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
STEMS = {
    "ih": "weight_ih",
    "hh": "weight_hh",
    "hr": "weight_hr",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "peephole": "weight_peephole",
}


def weight_of(weights: Mapping[str, torch.Tensor], suffix: str, short: str) -> torch.Tensor:
    """One parameter of one layer and direction; a bias that the layer has not is 0."""
    if short in ("b_ih", "b_hh") and "bias_ih_l0" not in weights:
        return torch.zeros((), dtype=torch.float64)
    return weights[STEMS[short] + suffix]


class Squash:
    """The functions of the cells."""

    sigmoid = staticmethod(torch.sigmoid)
    tanh = staticmethod(torch.tanh)


class Linear(Squash):
    """Those of a build with FASTRNN_LINEAR_ACTIVATIONS."""

    sigmoid = staticmethod(lambda a: a / 4 + 0.5)
    tanh = staticmethod(lambda a: a)


def rnn_step(
    f: type[Squash], w: Weights, x: torch.Tensor, h: torch.Tensor, c: None, relu: bool
) -> tuple[torch.Tensor, None]:
    """Elman 1990."""
    a = x @ w("ih").T + w("b_ih") + h @ w("hh").T + w("b_hh")
    return (torch.relu(a) if relu else f.tanh(a)), None


def gru_step(
    f: type[Squash], w: Weights, x: torch.Tensor, h: torch.Tensor, c: None, after: bool
) -> tuple[torch.Tensor, None]:
    """Cho et al. 2014, eq. 5-8: `after` multiplies by r behind R_n, the first form before it."""
    x_r, x_z, x_n = (x @ w("ih").T + w("b_ih")).chunk(3, 1)
    r_r, r_z, r_n = w("hh").chunk(3)
    b_r, b_z, b_n = w("b_hh").expand(3 * h.shape[1]).chunk(3)
    r = f.sigmoid(x_r + h @ r_r.T + b_r)
    z = f.sigmoid(x_z + h @ r_z.T + b_z)
    new = r * (h @ r_n.T + b_n) if after else (r * h) @ r_n.T + b_n
    return (1 - z) * f.tanh(x_n + new) + z * h, None


def lstm_step(
    f: type[Squash],
    w: Weights,
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    peephole: bool,
    proj: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gers et al. 2000, with Gers' peepholes (2002) and Sak et al.'s (2014) projection."""
    a_i, a_f, a_g, a_o = (x @ w("ih").T + w("b_ih") + h @ w("hh").T + w("b_hh")).chunk(4, 1)
    p_i, p_f, p_o = w("peephole").chunk(3) if peephole else (torch.zeros(()),) * 3
    c = f.sigmoid(a_f + p_f * c) * c + f.sigmoid(a_i + p_i * c) * f.tanh(a_g)
    m = f.sigmoid(a_o + p_o * c) * f.tanh(c)
    return (m @ w("hr").T if proj else m), c


def step_of(case: Case, f: type[Squash]) -> Step:
    """The case's cell as step(w, x, h, c) -> (h, c)."""
    if case.is_lstm:
        peephole = case.kind == "lstm_peephole"
        return partial(lstm_step, f, peephole=peephole, proj=case.proj)
    if case.kind.startswith("gru"):
        return partial(gru_step, f, after=case.kind == "gru")
    return partial(rnn_step, f, relu=case.kind == "rnn_relu")


def by_hand(
    case: Case,
    params: Mapping[str, Array],
    call: Call,
    masks: list[Array] | None = None,
    states: dict[str, Array] | None = None,
    functions: type[Squash] = Squash,
) -> Results:
    """Every option by masks over whole batches, in plain torch.

    `masks`: what each layer's output but the last's is multiplied by, (T, B, D*P) each.
    `states`: a dictionary to put those after every step into, (T, L*D, B, P or H).
    """
    weights = {name: leaf(value) for name, value in params.items()}
    x, initial = leaf(call.x), leaves(case, call)
    steps, batch = case.sizes[:2]
    every = torch.arange(steps)[:, None]
    lengths = torch.tensor(call.how.get("lengths", np.full(batch, steps)))
    active = every < lengths
    starts = torch.tensor(call.how.get("resets", np.zeros((steps, batch), bool))) & active
    step = step_of(case, functions)
    out = x.transpose(0, 1) if case.batch_first else x
    final: list[list[torch.Tensor]] = []
    chains: list[list[list[torch.Tensor]]] = []
    for number in range(case.layers):
        ys = []
        for reverse in range(case.directions):
            entry = number * case.directions + reverse

            w = partial(weight_of, weights, f"_l{number}" + "_reverse" * reverse)
            # A reset starts the forward direction from zeros there, the reverse one a step earlier.
            cut = torch.cat([starts[1:], torch.zeros(1, batch, dtype=bool)]) if reverse else starts
            now: list[Any] = [s[entry] for s in initial]
            y: list[Any] = [None] * steps
            chain: list[Any] = [None] * steps
            for t in reversed(range(steps)) if reverse else range(steps):
                now = [torch.where(cut[t, :, None], 0.0, s) for s in now]
                h, c = step(w, out[t], *now, *[None] * (2 - len(now)))
                new = (h,) if c is None else (h, c)
                runs = active[t, :, None]
                now = [torch.where(runs, a, b) for a, b in zip(new, now, strict=True)]
                y[t] = torch.where(runs, h, 0.0)
                chain[t] = now
            ys.append(torch.stack(y) if steps else out.new_zeros((0, batch, case.output)))
            final.append(now)
            chains.append(chain)
        out = torch.cat(ys, -1)
        if masks is not None and number < case.layers - 1:
            out = out * torch.tensor(masks[number], dtype=torch.float64)
    if states is not None:
        for k, name in enumerate(("h", "c")[: len(initial)]):
            states[name] = np.array(
                [[chain[t][k].detach().numpy() for chain in chains] for t in range(steps)]
            )
    y_out = out.transpose(0, 1) if case.batch_first else out
    finals = tuple(torch.stack(s) for s in zip(*final, strict=True))
    return differentiate(x, initial, weights, y_out, finals, call)
