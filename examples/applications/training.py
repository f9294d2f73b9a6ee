"""The training loop of the applications: batches by length, Adam with a cosine schedule, clipping,
and the parameters of the best epoch on the validation part."""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fastrnn


def arguments(
    text: str, epochs: int | Mapping[str, int], option: str = "corpus"
) -> argparse.Namespace:
    """Read the options that every application has; ``epochs`` may depend on one more option."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    if not isinstance(epochs, int):
        parser.add_argument(f"--{option}", choices=list(epochs), default=next(iter(epochs)))
    parser.add_argument("--epochs", type=int, help=f"by default {epochs}")
    parser.add_argument("--quick", action="store_true", help="little data, one epoch: does it run?")
    parser.add_argument("--out", type=Path, default=Path("fastrnn-applications"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.name = Path(parser.prog).stem
    if args.epochs is None:
        args.epochs = epochs if isinstance(epochs, int) else epochs[getattr(args, option)]
    if args.quick:
        args.epochs = 1
    return args


def split(n: int, rng: np.random.Generator, held: float, validation: float) -> Sequence[Any]:
    """Return row numbers for training, validation and the held-out part."""
    order = rng.permutation(n)
    first, second = int(n * held), int(n * (held + validation))
    return order[second:], order[first:second], order[:first]


def fit(
    model: Any,
    loss: Callable[[Any, Any], Any],
    lengths: Any,
    score: Callable[[], float],
    args: argparse.Namespace,
    *,
    lr: float,
    batch_size: int,
    max_norm: float = 1.0,
    weight_decay: float = 0.0,
) -> list[float]:
    """Train a model; return the scores on the validation part after each epoch.

    ``loss(g, rows)`` is the node of a batch's loss, ``lengths`` those of the rows to train on, and
    ``score()`` is larger for a better model. The best epoch's parameters are kept.
    """
    rng = np.random.default_rng(args.seed)
    adam = fastrnn.Adam(model, lr=lr, weight_decay=weight_decay)
    scores: list[float] = []
    best = copy.deepcopy(dict(model.params))
    begin = time.perf_counter()
    progress = tqdm(range(args.epochs), unit="epoch")
    for epoch in progress:
        chunks = fastrnn.batches(lengths, batch_size, rng)
        for number, rows in enumerate(chunks):
            done = (epoch + number / len(chunks)) / args.epochs
            adam.lr = lr * 0.5 * (1 + math.cos(math.pi * done))
            g = fastrnn.Graph(rng)
            grads = g.backward(loss(g, rows))
            fastrnn.clip_grad_norm(grads, max_norm)
            adam.step(grads)
        scores.append(score())
        progress.set_postfix(validation=f"{scores[-1]:.4f}")
        if scores[-1] == max(scores):
            best = copy.deepcopy(dict(model.params))
    model.load_params(best)
    print(f"trained {model.num_params} parameters in {time.perf_counter() - begin:.0f} s")
    return scores


def finish(args: argparse.Namespace, model: Any, rows: dict[str, float], what: str) -> None:
    """Save the model; print and draw its figure beside the baselines'."""
    path = args.out / f"{args.name}.safetensors"
    fastrnn.save(path, model)
    report(args, rows, what)
    print(f"saved {path} and {args.name}.png")


def report(args: argparse.Namespace, rows: dict[str, float], what: str) -> None:
    """Print and draw figures, one beside the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 0.5 + 0.4 * len(rows)), layout="constrained")
    axes.barh(list(rows)[::-1], list(rows.values())[::-1])
    axes.set_xlabel(what)
    figure.savefig(args.out / f"{args.name}.png", dpi=120)
    plt.close(figure)
    print(what)
    for name, value in rows.items():
        print(f"  {name:40} {value:.4f}")
