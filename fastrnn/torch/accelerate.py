"""Models of torch with their recurrent modules replaced."""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

import torch

from .. import checks
from .modules import GRU, LSTM, RNN, Recurrent

Model = TypeVar("Model", bound=torch.nn.Module)

_OURS: dict[type[torch.nn.Module], type[Recurrent]] = {
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNN: RNN,
}

_A_CELL = "a cell, stepped by the model's own loop: one call of a layer can take the loop's place"

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def accelerate(model: Model) -> Model:
    """Return a copy of a model in which every LSTM, GRU and RNN of torch.nn runs on fastrnn.

    The copy has the model's own parameters and buffers, not copies of them: what trains one, trains
    both, and an optimiser of the model's parameters serves the copy. The model stays as it is.

    Parameters
    ----------
    model : torch.nn.Module
        With recurrent modules at any depth; or one of them. It must be one that `copy.deepcopy`
        can copy.

    Returns
    -------
    torch.nn.Module
        Of the same class; of `fastrnn.torch` if the model is a recurrent module itself.

    Raises
    ------
    TypeError
        ``model`` is no torch.nn.Module.

    Warns
    -----
    UserWarning
        A recurrent module is left as it is, or there is none; the text names it and the reason. A
        subclass is left, since it may compute something else (weight norm by parametrization makes
        one), a module with hooks, which may want to see torch's own, and a cell, whose steps are a
        loop of the model's own: what is faster is one call of a layer in the loop's place.

    Examples
    --------
    >>> import torch
    >>> import fastrnn.torch
    >>> class Tagger(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.rnn = torch.nn.LSTM(8, 16, bidirectional=True)
    ...         self.head = torch.nn.Linear(32, 5)
    ...
    ...     def forward(self, x):
    ...         return self.head(self.rnn(x)[0])
    >>> model = Tagger()
    >>> fast = fastrnn.torch.accelerate(model)
    >>> type(fast.rnn)
    <class 'fastrnn.torch.modules.LSTM'>
    >>> fast.rnn.weight_ih_l0 is model.rnn.weight_ih_l0
    True
    >>> x = torch.randn(20, 4, 8)
    >>> torch.allclose(model(x), fast(x), atol=1e-6)
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {checks.type_name(model)}")
    # What deepcopy is not to copy, but to take as it is, or to replace.
    memo: dict[int, Any] = {}
    left = []
    for name, module in model.named_modules():
        for tensor in _tensors(module):
            memo[id(tensor)] = tensor
        if isinstance(module, torch.nn.RNNCellBase):
            left.append(f"{name or 'the model'} ({_A_CELL})")
        if not isinstance(module, torch.nn.RNNBase):
            continue
        reason = _why_not(module)
        if reason is None:
            memo[id(module)] = _replacement(module)
        else:
            left.append(f"{name or 'the model'} ({reason})")
    if left:
        warnings.warn(f"left as it is: {', '.join(left)}", stacklevel=2)
    elif not any(isinstance(each, torch.nn.RNNBase) for each in model.modules()):
        warnings.warn("there is no LSTM, GRU or RNN of torch.nn in the model", stacklevel=2)
    return copy.deepcopy(model, memo)


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return a module's own parameters, buffers and other tensors, which deepcopy may refuse."""
    values = [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _why_not(module: Any) -> str | None:
    """Return why a recurrent module of torch cannot be replaced, or None if it can."""
    if type(module) not in _OURS:
        return f"a subclass, {checks.type_name(module)}"
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        return "it has hooks"
    dtypes = {each.dtype for each in module.parameters()}
    if len(dtypes) > 1:
        return "its parameters have several dtypes"
    try:
        _replacement(module)
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return None


def _replacement(module: Any) -> Recurrent:
    """Return a module of ours with the parameters of one of torch's."""
    kind = _OURS[type(module)]
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional")
    arguments = {name: getattr(module, name) for name in names}
    if module.proj_size:
        arguments["proj_size"] = module.proj_size
    if kind is RNN:
        arguments["nonlinearity"] = module.mode.removeprefix("RNN_").lower()
    ours = kind(**arguments, device="meta")
    ours.dropout = module.dropout
    for name, parameter in module.named_parameters():
        ours.register_parameter(name, parameter)
    ours._engine("float32", "highest", "auto", False)  # dropout is checked too
    ours.train(module.training)
    return ours
