"""Layers made of modules of torch, which need not be imported: a module says what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from . import checks
from .cells import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN
from .parametrized import Parametrized
from .train import Embedding, Linear
from .typing import FloatDType, LayerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


FromTorch: TypeAlias = RNN | GRU | LSTM | RNNCell | GRUCell | LSTMCell | Linear | Embedding

_CLASSES: dict[str, type[Parametrized]] = {
    kind.__name__: kind for kind in (RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Linear, Embedding)
}

# Our own modules, and those of torch, by where their classes are.
_HOMES = ("torch.nn.modules.", "fastrnn.torch.")

# What wraps a module: DataParallel and DistributedDataParallel, and torch.compile.
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module"}
_WRAPPERS |= {"OptimizedModule": "_orig_mod"}

# What names and shapes tell, and the dtype, which is chosen.
_BY_SHAPE = {"input_size", "hidden_size", "num_layers", "bidirectional", "bias", "proj_size"}
_BY_SHAPE |= {"peephole", "dtype"}


def from_torch(
    module: Any, *, dtype: FloatDType | None = None, **arguments: Unpack[LayerOptions]
) -> FromTorch:
    """Make a layer of a module of torch, with a copy of its parameters.

    Parameters
    ----------
    module : torch.nn.RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Linear or Embedding
        Or one of `fastrnn.torch`, or any of these in DataParallel, DistributedDataParallel or what
        torch.compile returned. On any device, of any dtype of floats.
    dtype : float32 or float64, optional
        Of the layer, to which the parameters are cast; by default float64 if the module is of
        that, else float32.
    **arguments
        The constructor's other arguments, such as ``backend`` or ``precision``, instead of the
        module's own.

    Returns
    -------
    fastrnn.RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Linear or Embedding
        An embedding has no ``padding_idx``: the gradient of that row is one like the others.

    Raises
    ------
    TypeError
        There is no such layer for the module, or it is of a class with a ``forward`` of its own.
    ValueError
        An embedding has ``max_norm`` or ``scale_grad_by_freq``, or an argument is wrong.

    Examples
    --------
    >>> import torch
    >>> import fastrnn
    >>> module = torch.nn.LSTM(40, 256, num_layers=2, batch_first=True)
    >>> layer = fastrnn.from_torch(module, precision="high")
    >>> layer.hidden_size, layer.num_layers, layer.batch_first, layer.precision
    (256, 2, True, 'high')
    """
    while (wrapped := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, wrapped)
    kind = _kind(module)
    sizes, options = _arguments(kind, module)
    # as attributes, which they are even where a parametrization computes them
    tensors = {
        name: getattr(module, name) for name in kind.param_shapes({**kind.defaults(), **sizes})
    }
    if dtype is None:
        double = all(str(tensor.dtype) == "torch.float64" for tensor in tensors.values())
        dtype = np.float64 if double else np.float32
    chosen: Any = {**options, **arguments}
    return cast(FromTorch, kind.from_params(tensors, dtype=dtype, **chosen))


def _kind(module: Any) -> type[Parametrized]:
    """Return the class for a module, which may inherit from torch's but not run otherwise."""
    for base in type(module).__mro__:
        if base.__name__ in _CLASSES and base.__module__.startswith(_HOMES):
            run: Any = base
            if type(module).forward is not run.forward:
                raise TypeError(
                    f"module must run as {base.__module__}.{base.__name__} does, "
                    f"got {checks.type_name(module)} with a forward() of its own"
                )
            return _CLASSES[base.__name__]
    expected = ", ".join(_CLASSES)
    raise TypeError(
        f"module must be one of torch.nn's {expected}, got {checks.type_name(module)}: "
        "take one of its submodules, or fastrnn.torch.accelerate for all of its RNNs"
    )


def _arguments(kind: type[Parametrized], module: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the constructor's arguments that shapes tell, and the others."""
    if kind is Linear:
        sizes = {name: getattr(module, name) for name in ("in_features", "out_features")}
        return sizes | {"bias": module.bias is not None}, {}
    if kind is Embedding:
        for name in ("max_norm", "scale_grad_by_freq"):
            if getattr(module, name):
                raise ValueError(
                    f"an Embedding of torch with {name} cannot be taken: {name} must be off"
                )
        return {name: getattr(module, name) for name in ("num_embeddings", "embedding_dim")}, {}
    if type(module).__module__.startswith("fastrnn."):
        config = module.config()
        return config, {name: config[name] for name in config if name not in _BY_SHAPE}
    sizes = {name: getattr(module, name) for name in ("input_size", "hidden_size", "bias")}
    options: dict[str, Any] = {}
    for name in ("num_layers", "bidirectional", "proj_size", "peephole"):
        if getattr(module, name, 0):
            sizes[name] = getattr(module, name)
    for name in ("nonlinearity", "batch_first", "reset_after"):
        if hasattr(module, name):
            options[name] = getattr(module, name)
    if getattr(module, "dropout", 0) and module.num_layers > 1:  # with one layer it does nothing
        options["dropout"] = module.dropout
    return sizes, options
