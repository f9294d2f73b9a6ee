"""The same network in torch: what `fastrnn.Graph` gives, by torch's layers and autograd.

A program with ``--torch`` trains this way instead: the same first parameters, batches, schedule and
clipping, so that what is reached and the time can be laid beside. torch's parameters are
fastrnn's arrays, not copies, so that a program scores what has been trained as it always does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn


class Node:
    """A tensor, with the directions of the layer of whose state it is."""

    def __init__(self, tensor: torch.Tensor, directions: int = 1) -> None:
        self.tensor = tensor
        self.directions = directions

    @property
    def value(self) -> Any:
        return self.tensor.detach().numpy()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)


def tensor(x: Any) -> Any:
    """Return a node's tensor, or a constant as one."""
    return x.tensor if isinstance(x, Node) else torch.as_tensor(x)


class Own(torch.autograd.Function):
    """A joint whose value and gradient are given (`fastrnn.Graph.apply`)."""

    @staticmethod
    def forward(ctx: Any, value: Any, backward: Any, *inputs: Any) -> Any:
        ctx.own = backward
        return torch.tensor(value, dtype=inputs[0].dtype)

    @staticmethod
    def backward(ctx: Any, d: Any) -> Any:
        found = ctx.own(d.numpy())
        several = found if isinstance(found, (tuple, list)) else [found]
        return None, None, *map(torch.as_tensor, several)


def twin(layer: Any) -> nn.Module:
    """Return torch's module of a layer, on the layer's own parameters."""
    if isinstance(layer, (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM)):
        kind = getattr(nn, type(layer).__name__)
        sizes = layer.input_size, layer.hidden_size, layer.num_layers
        module = kind(*sizes, bidirectional=layer.bidirectional, dropout=layer.dropout)
    elif isinstance(layer, fastrnn.Linear):
        module = nn.Linear(layer.in_features, layer.out_features)
    elif isinstance(layer, fastrnn.Embedding):
        module = nn.Embedding(layer.num_embeddings, layer.embedding_dim)
    elif isinstance(layer, (fastrnn.CRF, fastrnn.Attention)):
        module = nn.Module()
    else:
        raise TypeError(f"no twin in torch for {type(layer).__name__}")
    for name, value in layer.params.items():
        setattr(module, name, nn.Parameter(torch.from_numpy(value)))
    return module


class Graph:
    """The methods of `fastrnn.Graph` that the applications call."""

    def __init__(self, twins: dict[Any, nn.Module]) -> None:
        self.twins = twins

    def __call__(self, layer: Any, *inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        module = self.twins[layer]
        x = tensor(inputs[0])
        if isinstance(layer, (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM)):
            return self.recurrent(module, x, inputs[1] if inputs[1:] else state, lengths)
        if isinstance(layer, fastrnn.Attention):
            return Node(attend(module, x, tensor(inputs[1]), lengths))
        return Node(module(x))

    def recurrent(self, module: Any, x: Any, state: Any, lengths: Any) -> Any:
        """Return y and the state, as `fastrnn.Graph` does."""
        if isinstance(state, tuple):
            state = tuple(map(tensor, state))
        elif state is not None:
            state = tensor(state)
        if lengths is None:
            y, state = module(x, state)
        else:
            sizes = torch.as_tensor(lengths)
            y, state = module(pack_padded_sequence(x, sizes, enforce_sorted=False), state)
            y, _ = pad_packed_sequence(y, total_length=len(x))
        both = 2 if module.bidirectional else 1
        nodes = tuple(Node(s, both) for s in (state if isinstance(state, tuple) else (state,)))
        return Node(y), nodes if len(nodes) > 1 else nodes[0]

    def dropout(self, x: Any, p: float, *, variational: bool = False) -> Node:
        x = tensor(x)
        if variational:
            return Node(x * functional.dropout(torch.ones_like(x[:1]), p))
        return Node(functional.dropout(x, p))

    def tanh(self, x: Any) -> Node:
        return Node(torch.tanh(tensor(x)))

    def concat(self, xs: Any, axis: int = -1) -> Node:
        return Node(torch.cat([tensor(x) for x in xs], axis))

    def add(self, *xs: Any) -> Node:
        return Node(sum(map(tensor, xs)))

    def multiply(self, a: Any, b: Any) -> Node:
        return Node(tensor(a) * tensor(b))

    def reshape(self, x: Any, shape: Any) -> Node:
        return Node(tensor(x).reshape(shape))

    def swapaxes(self, x: Any, first: int, second: int) -> Node:
        return Node(tensor(x).swapaxes(first, second))

    def index(self, x: Any, key: Any) -> Node:
        return Node(tensor(x)[torch.as_tensor(key) if isinstance(key, np.ndarray) else key])

    def last(self, state: Any) -> Node:
        h = state[0] if isinstance(state, tuple) else state
        return Node(torch.cat(list(h.tensor[-h.directions :]), -1))

    def mean(self, y: Any, lengths: Any = None) -> Node:
        y = tensor(y)
        if lengths is None:
            return Node(y.mean(0))
        return Node((y * valid(y, lengths)).sum(0) / torch.as_tensor(lengths)[:, None].to(y.dtype))

    def max(self, y: Any, lengths: Any = None) -> Node:
        y = tensor(y)
        return Node((y if lengths is None else y.masked_fill(~valid(y, lengths), -np.inf)).amax(0))

    def apply(self, value: Any, backward: Any, *inputs: Any) -> Node:
        return Node(Own.apply(value, backward, *map(tensor, inputs)))

    def cross_entropy(
        self, logits: Any, targets: Any, *, lengths: Any = None, label_smoothing: float = 0.0
    ) -> Node:
        logits, right = tensor(logits), torch.as_tensor(targets)
        if lengths is not None:
            right = right.masked_fill(~valid(logits, lengths)[..., 0], -100)
        flat = logits.reshape(-1, logits.shape[-1]), right.reshape(-1)
        return Node(functional.cross_entropy(*flat, label_smoothing=label_smoothing))

    def mse(self, pred: Any, target: Any) -> Node:
        return Node(functional.mse_loss(tensor(pred), torch.as_tensor(target)))

    def ctc(self, logits: Any, targets: Any, lengths: Any, sizes: Any, blank: int = 0) -> Node:
        logs = torch.log_softmax(tensor(logits), -1)
        counts = torch.as_tensor(lengths), torch.as_tensor(sizes)
        loss = functional.ctc_loss(logs, torch.as_tensor(targets), *counts, blank, "sum")
        return Node(loss / len(sizes))

    def crf(self, crf: Any, scores: Any, tags: Any, lengths: Any) -> Node:
        return Node(chain_loss(self.twins[crf], tensor(scores), torch.as_tensor(tags), lengths))


def valid(y: Any, lengths: Any) -> Any:
    """Return where steps of y (T, B, ...) count, (T, B, 1)."""
    return (torch.arange(len(y))[:, None] < torch.as_tensor(lengths))[..., None]


def attend(module: Any, query: Any, memory: Any, lengths: Any) -> Any:
    """Return the context (Tq, B, K) of attention with the score "additive" or "general"."""
    keys = memory.swapaxes(0, 1)
    asked = (query @ module.weight_query.T).swapaxes(0, 1)
    if hasattr(module, "weight_key"):
        hidden = (
            asked[:, :, None] + functional.linear(keys, module.weight_key, module.bias)[:, None]
        )
        scores = hidden.tanh() @ module.weight_score
    else:
        scores = asked @ keys.swapaxes(1, 2)
    if lengths is not None:
        scores = scores.masked_fill(~valid(memory, lengths)[..., 0].T[:, None], -np.inf)
    return (scores.softmax(-1) @ keys).swapaxes(0, 1)


def chain_loss(module: Any, scores: Any, tags: Any, lengths: Any) -> Any:
    """Negative log-likelihood of a CRF over B: torch has none; one step after the other."""
    on = valid(scores, lengths)[..., 0]
    rows, ends = torch.arange(scores.shape[1]), torch.as_tensor(lengths) - 1
    each = scores.gather(2, tags[..., None])[..., 0] * on
    moves = module.transitions[tags[:-1], tags[1:]] * on[1:]
    right = each.sum() + moves.sum() + module.start_transitions[tags[0]].sum()
    right = right + module.end_transitions[tags[ends, rows]].sum()
    total = module.start_transitions + scores[0]
    for t in range(1, len(scores)):
        following = torch.logsumexp(total[:, :, None] + module.transitions, 1) + scores[t]
        total = torch.where(on[t][:, None], following, total)
    return (torch.logsumexp(total + module.end_transitions, 1).sum() - right) / scores.shape[1]


class Trainer:
    """Makes steps of Adam, as `training.Trainer` does."""

    def __init__(self, model: Any, seed: int, lr: float, max_norm: float, decay: float) -> None:
        torch.set_num_threads(fastrnn.get_num_threads())
        torch.manual_seed(seed)
        self.twins = {layer: twin(layer) for layer in model.named_layers().values()}
        self.params = [p for module in self.twins.values() for p in module.parameters()]
        self.adam = torch.optim.Adam(self.params, lr, weight_decay=decay, fused=True)
        self.max_norm = max_norm

    def graph(self) -> Graph:
        return Graph(self.twins)

    def step(self, g: Graph, loss: Node, lr: float) -> float:
        """Change the parameters by one step; return the gradient's norm before clipping."""
        self.adam.param_groups[0]["lr"] = lr
        self.adam.zero_grad()
        loss.tensor.backward()
        norm = nn.utils.clip_grad_norm_(self.params, self.max_norm)
        self.adam.step()
        return float(norm)
