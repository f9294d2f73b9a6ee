"""What docstrings of classes have in common, inserted where a line says ``<name>``.

`documented` puts a shared part in place of such a line when the class is made, so that ``help``,
IPython, Jupyter and Sphinx show the whole text, and each part stands in the source once. An editor
that reads the source without running it shows the class's own part, and the signature with its
types.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

C = TypeVar("C", bound=type)

_GATED = """\
gate_activation : {"sigmoid", "hard_sigmoid", "tanh", "relu"}
    In place of the gates' sigmoid. "hard_sigmoid" is max(0, min(1, gate_slope a + 1/2)).
gate_slope : float greater than 0
    Of "hard_sigmoid": 0.2 as in Keras 2 and ONNX, 1/6 as in Keras 3 and torch."""

_DTYPE = """\
dtype : float32 or float64
    Of parameters, input and output."""

_DEVICE = """\
device : {"cpu", "cuda"}
    Where the parameters are, and all arrays of a call: NumPy's, or CuPy's."""

_PARAMS = """\
params : mapping of str to ndarray
    The parameters by name, in torch's order; views into ``flat_params`` that can be written to.
flat_params : ndarray
    All parameters as one contiguous vector. Setting it copies values in.
num_params : int"""

SHARED = {
    "rnn_equations": """\
::

    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)""",
    "gru_equations": """\
::

    r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_{t-1} + b_hn))        reset_after=True
    n_t = tanh(W_in x_t + b_in + W_hn (r_t * h_{t-1}) + b_hn)        reset_after=False
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

The rows of the weights are the gates r, z, n.""",
    "lstm_equations": """\
::

    i_t = sigmoid(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi + p_i * c_{t-1})
    f_t = sigmoid(W_if x_t + b_if + W_hf h_{t-1} + b_hf + p_f * c_{t-1})
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = sigmoid(W_io x_t + b_io + W_ho h_{t-1} + b_ho + p_o * c_t)
    h_t = W_hr (o_t * tanh(c_t))

The rows of the weights are the gates i, f, g, o. The terms p are there with ``peephole``, the
product with W_hr with ``proj_size``.""",
    "rnn_options": """\
nonlinearity : {"tanh", "relu", "sigmoid", "hard_sigmoid"}
    "hard_sigmoid" is max(0, min(1, gate_slope a + 1/2)).
gate_slope : float greater than 0
    Of "hard_sigmoid".
clip : float greater than 0, optional
    The argument of the nonlinearity is clipped to -clip .. clip first, as ONNX's `clip` does.""",
    "gru_options": f"""\
reset_after : bool
    Apply the reset gate after the recurrent product, as torch and cuDNN do, or before it, as
    in the paper's first form.
{_GATED}
activation : {{"tanh", "relu", "sigmoid", "hard_sigmoid"}}
    In place of the tanh of n.
clip : float greater than 0, optional
    The arguments of the gates' activations and of that of n are clipped to -clip .. clip
    first, as ONNX's `clip` does.""",
    "lstm_options": f"""\
proj_size : int in 0..H-1
    P, the size that h is projected to (Sak et al. 2014, "Long short-term memory recurrent
    neural network architectures for large scale acoustic modeling"); 0 for none.
peephole : bool
    Let the gates see c (Gers and Schmidhuber 2000, "Recurrent nets that time and count").
{_GATED}
activation : {{"tanh", "relu", "sigmoid", "hard_sigmoid"}}
    In place of the tanh of g, and of that of c.
output_activation : like ``activation``, optional
    In place of the tanh of c, if that is to be another.
clip : float greater than 0, optional
    The arguments of the gates' activations and of that of g are clipped to -clip .. clip
    first, as ONNX's `clip` does.
coupled : bool
    f_t = 1 - i_t, as with ONNX's `input_forget`; the rows of f in the parameters are not used.""",
    "bias": """\
bias : bool
    Whether there are bias_ih and bias_hh.""",
    "layer_options": """\
bias : bool
    Whether there are bias_ih and bias_hh.
batch_first : bool
    x, y and their gradients are (B, T, .) in place of (T, B, .); states are not affected.
dropout : float in [0, 1)
    Probability with which `forward` sets outputs of all layers but the last to zero, scaling
    the others by 1 / (1 - dropout). With one layer it does nothing, and a warning says so.
bidirectional : bool
    D = 2: a second direction runs from the last step to the first.
reverse : bool
    The only direction runs from the last step, of each row by ``lengths``, to the first.""",
    "recurrent_options": f"""\
{_DTYPE}
rng : None, int or numpy.random.Generator
    Source of the initial parameters, uniform(-1/sqrt(H), 1/sqrt(H)).
precision : {{"highest", "high", "medium"}}
    Of products in float32, as `torch.set_float32_matmul_precision` means it: float32 accuracy,
    that of three products of bfloat16 terms, or that of bfloat16. The lower ones run as
    "highest" where that is as fast; `show_config` says where.
reproducible : bool
    The same bits for any batch size, position in the batch, number of threads and padding.
backend : {{"auto", "cpu", "numba", "numpy", "cuda"}}
    "auto": FASTRNN_BACKEND from the environment if set, else the first usable of the CPU ones,
    with a warning, once a process, if that is not "cpu".""",
    "recurrent_attributes": f"""\
{_PARAMS}
dtype : numpy.dtype
backend : str
    Name of the backend in use, never "auto".
frozen : bool
    Whether `freeze` has made the parameters read-only.
weight_dtype : str
    Type of the weights that calls use: that of the layer, or of `freeze`.
input_size, hidden_size, ...
    The arguments above, ``rng`` apart, can be read and do not change.""",
    "recurrent_raises": """\
TypeError, ValueError
    An argument has a wrong type, or a value out of its range.
RuntimeError
    The backend cannot be used here; the text says what is missing.""",
    "dtype": _DTYPE,
    "device": _DEVICE,
    "attributes": f"""\
{_PARAMS}
dtype : numpy.dtype
device : str
    "cpu" or "cuda".""",
    "raises": """\
TypeError, ValueError
    An argument has another type, or a size is not positive.
RuntimeError
    There is no such device here; the text names what is missing.""",
    "optimizer_attributes": """\
layers : tuple
    Those whose parameters it changes, in the order of the constructor.
lr : float
    Step size of the next step; can be set.
steps : int
    Steps taken so far.""",
}

_GATES = {"rnn": ("H", ""), "gru": ("3*H", "rows r, z, n"), "lstm": ("4*H", "rows i, f, g, o")}


def _parameters(kind: str, *, layer: bool) -> str:
    """Return the table of a recurrent layer's, or cell's, parameters."""
    rows, order = _GATES[kind]
    width, more = ("P" if kind == "lstm" else "H"), ("_l0``, ..." if layer else "``")
    table: list[tuple[str, ...]] = [("name", "shape", "gate order")]
    table.append(("``weight_ih_l0``" if layer else "``weight_ih``", f"({rows}, I)", order))
    if layer:
        table.append(("``weight_ih_l1``, ...", f"({rows}, D*{width})", order))
    table.append(("``weight_hh" + more, f"({rows}, {width})", order))
    table += [(f"``bias_{side}" + more, f"({rows},)", order) for side in ("ih", "hh")]
    if kind == "lstm":
        table.append(("``weight_hr" + more, "(P, H)", "with ``proj_size``"))
        table.append(("``weight_peephole" + more, "(3*H,)", "rows i, f, o; with ``peephole``"))
    head = "The entries of ``params``, as torch names and orders them"
    if layer:
        head += "; behind the names of the second\ndirection stands ``_reverse``"
    return f"{head}:\n\n" + "\n".join(_simple_table(table if order else [r[:2] for r in table]))


def _simple_table(rows: list[tuple[str, ...]]) -> Iterable[str]:
    """Yield the lines of a table of reStructuredText; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    yield rule
    for number, row in enumerate(rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
        if number == 0:
            yield rule
    yield rule


for _kind in _GATES:
    SHARED[f"{_kind}_layer_parameters"] = _parameters(_kind, layer=True)
    SHARED[f"{_kind}_cell_parameters"] = _parameters(_kind, layer=False)


def documented(cls: C) -> C:
    """Put the shared parts into the docstring of a class."""
    if cls.__doc__ is not None:  # as under python -OO
        cls.__doc__ = re.sub(r"^( *)<(\w+)>$", _indented, cls.__doc__, flags=re.MULTILINE)
    return cls


def _indented(line: re.Match[str]) -> str:
    indent, name = line.groups()
    text: str = SHARED[name].replace("\n", "\n" + indent)
    return indent + re.sub(r"^ +$", "", text, flags=re.MULTILINE)
