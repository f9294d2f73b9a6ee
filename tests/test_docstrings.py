"""What `help` says of public names: every argument, attributes, errors, an example, neighbours."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import fastrnn
from fastrnn.docstrings import documented

RECURRENT = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")
CLASSES = (*RECURRENT, "Linear", "Embedding", "LayerNorm", "Conv1d", "SGD", "Adam")
FUNCTIONS = ("softmax_cross_entropy", "mse", "clip_grad_norm")


def sections(text: str) -> dict[str, str]:
    """The parts of a docstring by their titles; what stands before the first is ""."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def names(section: str) -> set[str]:
    """The names that a section of numpydoc's form lists."""
    heads = [line.partition(" : ")[0] for line in section.splitlines() if re.match(r"\w", line)]
    return {name.strip() for head in heads for name in head.split(",")}


@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
def test_all_is_said(name: str) -> None:
    found: Any = getattr(fastrnn, name)
    text = inspect.getdoc(found)
    assert text is not None
    assert re.search(r"^ *<\w+>$", text, re.MULTILINE) is None
    said = sections(text)
    assert names(said["Parameters"]) == set(inspect.signature(found).parameters)
    assert {"Raises", "Examples", "See Also"} <= said.keys()
    for other in said["See Also"].replace("\n", " ").split(","):
        assert hasattr(fastrnn, other.strip()), other


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_are_there(name: str) -> None:
    kind: Any = getattr(fastrnn, name)
    linear = fastrnn.Linear(2, 2, rng=0)
    made = kind(linear, lr=0.1) if name in ("SGD", "Adam") else None
    if made is None:
        sizes = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
        made = kind(*[2] * len(sizes))
    for attribute in names(sections(inspect.getdoc(kind) or "")["Attributes"]) - {"..."}:
        assert hasattr(made, attribute), attribute


@pytest.mark.parametrize("name", RECURRENT)
def test_the_table_names_every_parameter_and_its_shape(name: str) -> None:
    """For sizes that tell all letters apart."""
    kind: Any = getattr(fastrnn, name)
    sizes = {"I": 3, "H": 5, "D": 1, "P": 5}
    extra: dict[str, Any] = {}
    if name.startswith("LSTM"):
        extra, sizes["P"] = {"proj_size": 2, "peephole": True}, 2
    if not name.endswith("Cell"):
        extra |= {"num_layers": 2, "bidirectional": True}
        sizes["D"] = 2
    params = kind(3, 5, rng=0, **extra).params
    rows = re.findall(r"``(\w+)``(, ...)?  +(\(.*?\))", inspect.getdoc(kind) or "")
    shapes: dict[str, tuple[int, ...]] = {}
    for entry, _, shape in rows:
        shapes[entry] = eval(shape, {}, sizes)
        if not entry.endswith("_l1") and "_l0" in entry and "weight_ih" not in entry:
            shapes[entry.replace("_l0", "_l1")] = shapes[entry]
    expected = {each: value.shape for each, value in params.items() if "_reverse" not in each}
    assert shapes == expected
    if sizes["D"] == 2:
        assert all(params[each + "_reverse"].shape == shapes[each] for each in shapes)


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        documented(type("Wrong", (), {"__doc__": "A class.\n\n    <no_such_part>\n"}))
