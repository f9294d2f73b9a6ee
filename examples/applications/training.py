"""What the applications share: options, the training loop, and the report of figures."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn


def arguments(
    text: str, epochs: int | Mapping[str, int], option: str = "corpus"
) -> argparse.Namespace:
    """Read the options that every application has; ``epochs`` may depend on one more option.

    ``seconds``, the processor's time in training, is counted up by what trains.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    if not isinstance(epochs, int):
        parser.add_argument(f"--{option}", choices=list(epochs), default=next(iter(epochs)))
    parser.add_argument("--epochs", type=int, help=f"by default {epochs}")
    parser.add_argument("--quick", action="store_true", help="little data, one epoch: does it run?")
    parser.add_argument("--torch", action="store_true", help="train the same network in torch")
    parser.add_argument("--out", type=Path, default=Path("fastrnn-applications"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.name = Path(parser.prog).stem
    args.seconds = 0.0
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


class Trainer:
    """Makes steps of Adam on clipped gradients; `in_torch.Trainer` does the same in torch."""

    def __init__(self, model: Any, seed: int, lr: float, max_norm: float, decay: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.adam = fastrnn.Adam(model, lr=lr, weight_decay=decay)
        self.max_norm = max_norm

    def graph(self) -> Any:
        return fastrnn.Graph(self.rng)

    def step(self, g: Any, loss: Any, lr: float) -> float:
        """Change the parameters by one step; return the gradient's norm before clipping."""
        grads = g.backward(loss)
        norm = fastrnn.clip_grad_norm(grads, self.max_norm)
        self.adam.lr = lr
        self.adam.step(grads)
        return float(norm)


def trainer(
    model: Any, seed: int, lr: float, max_norm: float = 1.0, decay: float = 0.0, torch: bool = False
) -> Any:
    """Return what trains a model, here or in torch."""
    if torch:
        import in_torch

        return in_torch.Trainer(model, seed, lr, max_norm, decay)
    return Trainer(model, seed, lr, max_norm, decay)


def cosine(lr: float, done: float) -> float:
    """Return the learning rate once a share of the training is done."""
    return lr * 0.5 * (1 + math.cos(math.pi * done))


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
    ``score()`` is larger for a better model. The best epoch's parameters are kept. Batches are of
    rows of about one length, the learning rate falls along a cosine.
    """
    from tqdm import tqdm

    rng = np.random.default_rng(args.seed)
    train = trainer(model, args.seed, lr, max_norm, weight_decay, args.torch)
    scores: list[float] = []
    best = copy.deepcopy(dict(model.params))
    progress = tqdm(range(args.epochs), unit="epoch", disable=None)
    for epoch in progress:
        begin = time.process_time()
        chunks = fastrnn.batches(lengths, batch_size, rng)
        for number, rows in enumerate(chunks):
            g = train.graph()
            done = (epoch + number / len(chunks)) / args.epochs
            train.step(g, loss(g, rows), cosine(lr, done))
        args.seconds += time.process_time() - begin
        scores.append(score())
        progress.set_postfix(validation=f"{scores[-1]:.4f}")
        if scores[-1] == max(scores):
            best = copy.deepcopy(dict(model.params))
    model.load_params(best)
    return scores


def finish(args: argparse.Namespace, model: Any, rows: dict[str, float], what: str) -> None:
    """Save the model; print, keep and draw its figure beside the baselines'."""
    path = args.out / f"{args.name}.safetensors"
    fastrnn.save(path, model)
    report(args, rows, what)
    where = "torch" if args.torch else "fastrnn"
    print(f"{model.num_params} parameters, trained by {where} in {args.seconds:.0f} s")
    print(f"saved {path}, {args.name}.png and {args.name}.json")


def report(args: argparse.Namespace, rows: dict[str, float], what: str) -> None:
    """Print, keep and draw figures, one beside the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 0.5 + 0.4 * len(rows)), layout="constrained")
    axes.barh(list(rows)[::-1], list(rows.values())[::-1])
    axes.set_xlabel(what)
    figure.savefig(args.out / f"{args.name}.png", dpi=120)
    plt.close(figure)
    kept = {"what": what, "figures": rows, "seconds": args.seconds}
    (args.out / f"{args.name}.json").write_text(json.dumps(kept, indent=1))
    print(what)
    for name, value in rows.items():
        print(f"  {name:40} {value:.4f}")


def run(main: Callable[[], Any]) -> None:
    """Run a program; whoever reads what it prints may have seen enough, as `head` has."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
