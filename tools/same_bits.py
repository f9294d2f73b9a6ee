"""Whether two builds of the compiled backend give the same bits.

    PYTHONPATH=before python tools/same_bits.py hash before.txt
    PYTHONPATH=after python tools/same_bits.py hash after.txt
    python tools/same_bits.py compare before.txt after.txt

`hash` runs random calls, the same ones each time, on every instruction set of this machine, and
writes a line each: what was called and a hash of all that came out. Only public names are used, so
builds of different versions can be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn_tanh": ("RNN", {}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "lstm": ("LSTM", {}),
    "lstm_peephole": ("LSTM", {"peephole": True}),
}
# (T, B, I, H) that random ones do not reach: panels in pieces and in blocks, weights beyond caches,
# more rows than sums take in at once
LARGE = [
    (3, 13, 40, 520),
    (2, 30, 7, 601),
    (1, 1, 600, 512),
    (30, 20, 100, 130),
    (700, 1, 4, 33),
    (300, 60, 3, 5),
]


def main() -> int:
    """Hash or compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    hashing = commands.add_parser("hash")
    hashing.add_argument("out", type=Path)
    hashing.add_argument("--cases", type=int, default=400)
    hashing.add_argument("--isa", help="this one alone")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options.before, options.after)
    if options.isa:
        options.out.write_text("".join(f"{line}\n" for line in lines(options.isa, options.cases)))
        return 0
    from fastrnn import _core

    options.out.write_text("")
    for isa in _core.usable_isas():
        part = options.out.with_suffix(f".{isa}")
        command = [sys.executable, __file__, "hash", part, "--cases", str(options.cases)]
        subprocess.run([*command, "--isa", isa], check=True, env={**os.environ, "FASTRNN_ISA": isa})
        with options.out.open("a") as out:
            out.write(part.read_text())
        part.unlink()
    return 0


def compare(before: Path, after: Path) -> int:
    """Print the calls whose hashes differ; return the exit status."""
    old, new = (dict(line.rsplit(" ", 1) for line in path.open()) for path in (before, after))
    both = old.keys() & new.keys()
    differ = [call for call in sorted(both) if old[call] != new[call]]
    for call in differ:
        print(call)
    print(f"{len(both)} calls in both files, {len(differ)} differ")
    return 1 if differ or not both else 0


def lines(isa: str, cases: int) -> Iterator[str]:
    """Yield a line for each call."""
    for index in range(cases):
        draw = np.random.default_rng(index)
        for call, arrays in results(index, draw):
            digest = hashlib.sha256()
            for array in arrays:
                digest.update(np.ascontiguousarray(array).tobytes())
            yield f"{isa} {index} {call} {digest.hexdigest()[:16]}"


def results(index: int, draw: np.random.Generator) -> Iterator[tuple[str, list[Any]]]:
    """Yield what one random layer was asked for, and all arrays that came back."""
    import fastrnn

    kind = list(KINDS)[index % len(KINDS)]
    large = index % 20 == 19
    T, B, I, H = _sizes(draw) if not large else LARGE[index // 20 % len(LARGE)]
    if large:
        kind = list(KINDS)[index // 20 % len(KINDS)]
    name, arguments = KINDS[kind]
    dtype = np.dtype(["float32", "float64"][int(draw.random() < 0.35)])
    arguments = {**arguments, "dtype": dtype, "bidirectional": bool(draw.random() < 0.3)}
    arguments["bias"] = bool(draw.random() < 0.8)
    arguments["reproducible"] = bool(draw.random() < 0.3)
    if dtype == np.float32:
        arguments["precision"] = ["highest", "high", "medium"][int(draw.integers(3))]
    if name == "LSTM" and draw.random() < 0.3:
        arguments["proj_size"] = int(draw.integers(1, max(2, H)))
    layers = 1 if large else int(draw.integers(1, 3))
    layer = getattr(fastrnn, name)(I, H, layers, **arguments, rng=index, backend="cpu")
    layer.flat_params[...] = draw.standard_normal(layer.num_params) / (2 if H < 100 else 20)

    x = draw.standard_normal((T, B, I)).astype(dtype)
    how: dict[str, Any] = {}
    if draw.random() < 0.4:
        how["lengths"] = draw.integers(0, T + 1, B)
    if draw.random() < 0.4:
        how["resets"] = draw.random((T, B)) < 0.25
    threads = int(draw.integers(1, 3))
    text = f"{kind} {(T, B, I, H)} {arguments} layers={layers} {sorted(how)} threads={threads}"
    with fastrnn.num_threads(threads):
        y, state = layer(x, **how)
        states = state if isinstance(state, tuple) else (state,)
        yield f"inference {text}", [y, *states]
        start = tuple(draw.standard_normal(each.shape).astype(dtype) for each in states)
        given = start if isinstance(state, tuple) else start[0]
        y, state, tape = layer.forward(x, given, **how)
        after = state if isinstance(state, tuple) else (state,)
        dy = draw.standard_normal(y.shape).astype(dtype) if draw.random() < 0.8 else None
        grads = layer.backward(tape, dy, given)
        d_state = grads.state if isinstance(grads.state, tuple) else (grads.state,)
        yield f"training {text}", [y, *after, grads.x, *d_state, grads.flat]
        if T > 2:
            y, _, tape = layer.forward(x, given, **how, checkpoint_every=2)
            grads = layer.backward(tape, dy, given)
            yield f"checkpoints {text}", [y, grads.x, grads.flat]
        narrow = [None, "bfloat16", "int8"][int(draw.integers(3))]
        if narrow and dtype == np.float32:
            layer.freeze(weight_dtype=narrow)
        else:
            layer.freeze()
        y, state = layer(x, given, **how)
        yield f"frozen {narrow} {text}", [y, *(state if isinstance(state, tuple) else (state,))]
        if not arguments["bidirectional"]:
            step = layer.stepper(batch_size=B)
            yield f"stepper {narrow} {text}", [np.array(step(each)) for each in x[:20]]


def _sizes(draw: np.random.Generator) -> tuple[int, int, int, int]:
    def size(most: int, seldom: int) -> int:
        return 1 + int(draw.integers(most if draw.random() < 0.75 else seldom))

    return size(7, 30), size(9, 50), size(24, 90), size(40, 150)


if __name__ == "__main__":
    sys.exit(main())
