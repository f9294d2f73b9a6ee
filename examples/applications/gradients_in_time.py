"""Vanishing and exploding gradients
=================================

Vanishing and exploding gradients, seen and mended. ::

    python examples/applications/gradients_in_time.py

1. How much of the gradient of a loss at the last of 200 steps reaches each earlier step: RNN, GRU
   and LSTM as they begin, an LSTM whose forget gates begin open (bias 5: of a cell sigmoid(5)**100,
   a half, is left after 100 steps), and an RNN with large weights, whose gradient explodes.
2. Clipping (Pascanu et al. 2013): norms of the gradient of that RNN in training, and what is left.
3. A copy task (Hochreiter and Schmidhuber 1997): two symbols are shown, 100 steps pass, and they
   are asked for, of an RNN, an LSTM, and an LSTM with open forget gates. Into its cells each of the
   100 blanks adds; where input gates begin nearly closed (bias -2), none does, and all is learnt.
   Once more with truncated backpropagation, the gradient cut each 25 steps while the state goes on:
   nothing teaches the gates to keep the symbols, and little is learnt.

The picture is what was seen. Baseline of the copy task: guessing, one in eight.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import training
from tqdm import tqdm

import fastrnn

HIDDEN, SYMBOLS, SHOWN = 64, 8, 2


def gates(lstm: fastrnn.LSTM, forget: float, take: float = 0) -> fastrnn.LSTM:
    """Let forget gates begin at sigmoid(forget) (Gers et al. 2000; Jozefowicz et al. 2015), and
    input gates at sigmoid(take)."""
    lstm.params["bias_ih_l0"][...] = np.repeat([take, forget, 0, 0], HIDDEN)  # gates i, f, g, o
    lstm.params["bias_hh_l0"][...] = 0
    return lstm


def large(rnn: fastrnn.RNN, factor: float) -> fastrnn.RNN:
    """Make an RNN's recurrent weights larger."""
    rnn.params["weight_hh_l0"][...] *= factor
    return rnn


def by_step(layer: Any, steps: int, rng: Any) -> Any:
    """Return the norm of the gradient by the input of each step, of a loss at the last one."""
    x = rng.normal(0, 0.1, (steps, 16, layer.input_size))
    y, _, tape = layer.forward(x)
    dy = np.zeros_like(y)
    dy[-1] = rng.normal(size=y.shape[1:])
    return np.linalg.norm(layer.backward(tape, dy).x, axis=(1, 2))


class Copier(fastrnn.Model):
    """A recurrent layer between an embedding and scores."""

    def __init__(self, layer: Any, rng: Any) -> None:
        self.symbols = fastrnn.Embedding(SYMBOLS + 2, 16, rng=rng)
        self.layer = layer
        self.out = fastrnn.Linear(HIDDEN, SYMBOLS, rng=rng)


def copy_task(rng: Any, batch: int, wait: int) -> tuple[Any, Any]:
    """Return x (T, B): symbols, blanks, as many questions; and the symbols (SHOWN, B)."""
    shown = rng.integers(0, SYMBOLS, (SHOWN, batch))
    blanks = np.full((wait, batch), SYMBOLS)
    return np.concatenate([shown, blanks, np.full((SHOWN, batch), SYMBOLS + 1)]), shown


def learn_to_copy(
    model: Copier, args: Any, updates: int, wait: int, cut: int = 0
) -> tuple[list[float], list[float]]:
    """Train on new sequences; return shares of right symbols, and norms before clipping.

    With ``cut`` the sequence is read in parts of so many steps, each from the last state's values,
    so that no gradient flows from one part into the one before.
    """
    rng, begin = np.random.default_rng(args.seed), time.process_time()
    train, shares, norms = training.trainer(model, args.seed, 1e-2, torch=args.torch), [], []
    for _ in tqdm(range(updates), leave=False, disable=None):
        x, right = copy_task(rng, 64, wait)
        size = cut or len(x)
        state = None
        for start in range(0, len(x), size):
            g = train.graph()
            y, state = g(model.layer, g(model.symbols, x[start : start + size]), state)
            state = tuple(n.value for n in state) if isinstance(state, tuple) else state.value
        scores = g(model.out, g.index(y, slice(-SHOWN, None)))
        norms.append(train.step(g, g.cross_entropy(scores, right), 1e-2))
        shares.append(float((scores.value.argmax(axis=-1) == right).mean()))
    args.seconds += time.process_time() - begin
    return shares, norms


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=1)
    rng = np.random.default_rng(args.seed)
    updates, wait = (5, 20) if args.quick else (400 * args.epochs, 100)

    def layer(kind: Any, size: int, dtype: Any = np.float32) -> Any:
        return kind(size, HIDDEN, dtype=dtype, rng=rng)

    seen = {
        "RNN": layer(fastrnn.RNN, 8, np.float64),
        "GRU": layer(fastrnn.GRU, 8, np.float64),
        "LSTM": layer(fastrnn.LSTM, 8, np.float64),
        "LSTM, forget bias 5": gates(layer(fastrnn.LSTM, 8, np.float64), 5),
        "RNN, weights times 4": large(layer(fastrnn.RNN, 8, np.float64), 4),
    }
    curves = {name: by_step(each, 200, rng) for name, each in seen.items()}
    print("gradient 100 steps before the last, of that at the last step:")
    for name, curve in curves.items():
        print(f"  {name:40} {curve[-101] / curve[-1]:.1e}")

    wild = Copier(large(layer(fastrnn.RNN, 16), 4), rng)
    _, norms = learn_to_copy(wild, args, min(updates, 100), wait)
    print(f"norms of the large RNN's gradient: {min(norms):.1e} to {max(norms):.1e}, clipped to 1")
    models = {
        "RNN": Copier(layer(fastrnn.RNN, 16), rng),
        "LSTM": Copier(layer(fastrnn.LSTM, 16), rng),
        "LSTM, forget bias 5": Copier(gates(layer(fastrnn.LSTM, 16), 5), rng),
        "and input bias -2": Copier(gates(layer(fastrnn.LSTM, 16), 5, -2), rng),
        "the same, cut each 25 steps": Copier(gates(layer(fastrnn.LSTM, 16), 5, -2), rng),
    }
    shares, figures = {}, {"guessing": 1 / SYMBOLS}
    for name, model in models.items():
        cut = 25 if name.startswith("the same") else 0
        shares[name], _ = learn_to_copy(model, args, updates, wait, cut)
        x, right = copy_task(rng, 500, wait)
        y, _ = model.layer(model.symbols(x))
        figures[name] = float((model.out(y[-SHOWN:]).argmax(axis=-1) == right).mean())
    what = f"share of symbols right after {wait} steps"
    training.finish(args, models["and input bias -2"], figures, what)
    picture(args.out / f"{args.name}.png", curves, norms, shares)
    return figures


def picture(path: Any, curves: Any, norms: Any, shares: Any) -> None:
    """Draw gradients by step, norms before clipping, and what was learnt."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for name, curve in curves.items():
        left.semilogy(np.arange(1 - len(curve), 1), curve / curve[-1], label=name)
    left.set(xlabel="step, from the last", ylabel="gradient by the input, of that at the last")
    left.set_ylim(1e-20, None)
    middle.semilogy(norms, label="RNN, weights times 4")
    middle.semilogy(np.minimum(norms, 1), label="clipped to 1")
    middle.set(xlabel="update", ylabel="norm of the gradient")
    for name, share in shares.items():
        size = min(10, len(share))
        right.plot(np.convolve(share, np.ones(size) / size, "valid"), label=name)
    right.axhline(1 / SYMBOLS, color="gray", linestyle=":", label="guessing")
    right.set(xlabel="update", ylabel="symbols copied right", ylim=(0, 1.05))
    for axes in (left, middle, right):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    training.run(main)
