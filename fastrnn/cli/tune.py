"""What ``fastrnn tune`` does: times the algorithms for a pass on a GPU, keeps the fastest."""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

import numpy as np

from .. import GRU, LSTM, RNN, backends
from .arguments import positive
from .console import echo

CELLS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
    add = parser.add_argument
    size = positive(int)
    add("--gpu", action="store_true", required=True, help="the current GPU")
    add(
        "--cell", nargs="+", choices=tuple(CELLS), default=list(CELLS),
        help="default: all",
    )  # fmt: skip
    add(
        "--hidden", nargs="+", type=size, metavar="H", default=[128, 256, 512, 768, 1024],
        help="hidden units (default: 128 256 512 768 1024)",
    )  # fmt: skip
    add(
        "--batch", nargs="+", type=size, metavar="B", default=[1, 16, 64],
        help="each also stands for smaller ones down to its half (default: 1 16 64)",
    )  # fmt: skip
    add("--dtype", nargs="+", choices=("float32", "float64"), default=["float32"])
    add(
        "--precision", nargs="+", choices=("highest", "high", "medium"), default=["highest"],
        help="of float32 (default: highest)",
    )  # fmt: skip
    add("--steps", type=size, metavar="T", default=64, help="of a sequence (default: 64)")


def run(options: argparse.Namespace) -> int:
    """Measure all shapes that are asked for; print and keep what is found."""
    try:
        backend: Any = backends.get("cuda")
        echo(f"{'cell':5} {'H':>5} {'B':>4}  {'dtype':8} {'precision':10} {'pass':9} fastest")
        for cell, dtype, precision, H, B in itertools.product(
            options.cell, options.dtype, options.precision, options.hidden, options.batch
        ):
            if dtype == "float64" and precision != "highest":
                continue
            layer = CELLS[cell](
                H, H, dtype=np.dtype(dtype), precision=precision, rng=0, backend="cuda"
            )
            layer.freeze()
            for found in backend.find_fastest(layer, options.steps, B):
                echo(
                    f"{cell:5} {H:5} {B:4}  {dtype:8} {precision:10} "
                    f"{found.kernel.removeprefix('persistent_'):9} {_words(found)}"
                )
    except (OSError, RuntimeError) as error:
        sys.stderr.write(f"fastrnn tune: {error}\n")
        return 2
    except KeyboardInterrupt:  # what has been measured is kept
        return 130
    echo(f"\nkept in {backend.choices_path()}")
    return 0


def _words(found: Any) -> str:
    text = f"{found.algorithm}: {found.times[found.algorithm]:.2f} us a step"
    if found.algorithm != found.estimated:
        text += f", not {found.estimated}: {found.times[found.estimated]:.2f}"
    return text
