"""Forward and backward of fastrnn.torch's modules beside torch.nn's, padded and packed, in turns.

    python bench/torch_module.py --groups small ragged --threads 1

The shapes are those of `fastrnn bench`. Figures are the least of some rounds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
import fastrnn.torch
from fastrnn.cli.bench import machine
from fastrnn.cli.bench.shapes import GROUPS, MAX_GFLOP, cases


def least(runs: dict[str, Any], rounds: int) -> dict[str, float]:
    """Return the least seconds of each, of rounds in which they take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description="Time fastrnn.torch beside torch.nn.")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=["small", "ragged"])
    parser.add_argument("--threads", type=int, default=fastrnn.get_num_threads())
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fastrnn.set_num_threads(options.threads)
    print(machine.line(machine.facts(options.threads)))
    print(f"{'milliseconds, forward and backward':44} {'torch':>9} {'module':>9} {'layer':>9}")
    for case in cases(options.groups, ("training", "ragged"), ["float32"]):
        s = case.shape
        if case.mode != "training" or s.resets or case.gflop > MAX_GFLOP:
            continue
        theirs = getattr(torch.nn, s.cell.upper())(s.I, s.H)
        ours = getattr(fastrnn.torch, s.cell.upper())(s.I, s.H)
        ours.load_state_dict(theirs.state_dict())
        layer = fastrnn.from_torch(theirs)
        x = torch.randn(s.T, s.B, s.I)
        lengths = s.lengths()
        array = x.numpy()
        given: Any = x
        if lengths is not None:
            given = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)

        def module(module: Any, given: Any = given) -> None:
            module.zero_grad(set_to_none=True)
            y = module(given)[0]
            (y if isinstance(y, torch.Tensor) else y.data).sum().backward()

        def own(layer: Any = layer, x: Any = array, lengths: Any = lengths) -> None:
            y, _, tape = layer.forward(x, lengths=lengths)
            y[...] = 1
            layer.backward(tape, y)

        runs = {
            "torch": lambda m=theirs, run=module: run(m),
            "module": lambda m=ours, run=module: run(m),
            "layer": own,
        }
        best = least(runs, options.rounds)
        print(f"{s!s:44} " + " ".join(f"{1e3 * best[name]:9.3f}" for name in runs))


if __name__ == "__main__":
    main()
