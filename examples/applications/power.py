"""Power demand with intervals
===========================

How much power will a country draw in the next 48 half-hours? With an interval around it. ::

    python examples/applications/power.py

`taylor` of the package pmdarima (MIT): 4,032 half-hours of demand in England and Wales (Taylor
2003, "Short-term electricity demand forecasting using double seasonal exponential smoothing"). The
first 70 % are trained on, the next 10 % are the validation part, the last 20 % are held out, from
which forecasts begin each 6 hours. A GRU reads a week and forecasts all 48 values, as the change
against the same time a week before, with the quantiles 0.1, 0.5 and 0.9 (pinball loss).
"""

from __future__ import annotations

import re
import zipfile
from typing import Any

import baselines
import numpy as np
import packages
import training

import fastrnn

DAY, WEEK, AHEAD = 48, 336, 48
QUANTILES = np.array([0.1, 0.5, 0.9], np.float32)


def load() -> Any:
    """Return the series, megawatts."""
    with zipfile.ZipFile(packages.archive("pmdarima", "2.1.1")) as wheel:
        text = wheel.read("pmdarima/datasets/taylor.py").decode()
    block = text[text.rindex("np.array([") :]
    return np.array(re.findall(r"\d+\.?\d*", block[: block.index("])")]), np.float64)


class Demand(fastrnn.Model):
    """A GRU over a week of half-hours; its last state gives three quantiles of 48 values."""

    def __init__(self, features: int, rng: np.random.Generator, hidden: int = 64) -> None:
        self.gru = fastrnn.GRU(features, hidden, rng=rng)
        self.out = fastrnn.Linear(hidden, AHEAD * len(QUANTILES), rng=rng)

    def quantiles(self, g: Any, x: Any) -> Any:
        """Quantiles (B, 3, 48) after x (T, B, features)."""
        _, state = g(self.gru, x)
        y = g(self.out, g.dropout(g.last(state), 0.1))
        return g.reshape(y, (-1, len(QUANTILES), AHEAD))


def pinball(g: Any, y: Any, target: Any) -> Any:
    """The mean pinball loss (Koenker and Bassett 1978) of quantiles (B, 3, 48), and its slope."""
    error = target[:, None] - y.value
    weight = np.where(error > 0, QUANTILES[:, None], QUANTILES[:, None] - 1).astype(np.float32)
    return g.apply(float((weight * error).mean()), lambda d: [-d * weight / weight.size], y)


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=20)
    series = load()
    ends = int(0.7 * len(series)), int(0.8 * len(series)), len(series)
    mean, scale = series[: ends[0]].mean(), series[: ends[0]].std()
    z = ((series - mean) / scale).astype(np.float32)
    clock = 2 * np.pi * np.arange(len(z))[:, None] / np.array([DAY, WEEK])
    past = np.concatenate([[np.nan] * WEEK, z[WEEK:] - z[:-WEEK]])
    features = np.column_stack([z, past, np.sin(clock), np.cos(clock)]).astype(np.float32)
    step = 12 if args.quick else 1
    train = np.arange(2 * WEEK, ends[0] - AHEAD, step)
    validation = np.arange(ends[0], ends[1] - AHEAD, 4)
    held = np.arange(ends[1], ends[2] - AHEAD + 1, 12)

    def batch(starts: Any) -> tuple[Any, Any]:
        x = np.stack([features[s - WEEK : s] for s in starts], axis=1)
        return x, np.stack([z[s : s + AHEAD] - z[s - WEEK : s - WEEK + AHEAD] for s in starts])

    model = Demand(features.shape[1], np.random.default_rng(args.seed))

    def loss(g: Any, rows: Any) -> Any:
        x, target = batch(train[rows])
        return pinball(g, model.quantiles(g, x), target)

    def forecast(starts: Any) -> Any:
        x, _ = batch(starts)
        change = model.quantiles(fastrnn.inference, x).value * scale
        return change + np.stack([series[s - WEEK : s - WEEK + AHEAD] for s in starts])[:, None]

    def mae(y: Any, starts: Any) -> float:
        return float(np.abs(y - np.stack([series[s : s + AHEAD] for s in starts])).mean())

    lengths = np.full(len(train), WEEK)

    def score() -> float:
        return -mae(forecast(validation)[:, 1], validation)

    training.fit(model, loss, lengths, score, args, lr=3e-3, batch_size=64)
    y = forecast(held)
    target = np.stack([series[s : s + AHEAD] for s in held])
    figures = {
        "yesterday": mae(np.stack([series[s - DAY : s] for s in held]), held),
        "same time last week": mae(
            np.stack([series[s - WEEK : s - WEEK + AHEAD] for s in held]), held
        ),
        "linear, two days and last week": mae(
            baselines.linear(series, train, held, AHEAD, DAY, WEEK), held
        ),
        "GRU, median": mae(y[:, 1], held),
    }
    inside = ((y[:, 0] <= target) & (target <= y[:, 2])).mean()
    print(f"between the quantiles 0.1 and 0.9: {inside:.3f} of the held-out values")
    training.finish(args, model, figures, "mean absolute error, megawatts, next 48 half-hours")
    return figures


# sphinx_gallery_thumbnail_path = "pictures/power.png"
if __name__ == "__main__":
    training.run(main)
