"""``fastrnn demo``: a character-level network, trained on text."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import Adam, clip_grad_norm, load, save
from ..io import read_metadata, safetensors
from ..typing import Array
from .console import echo
from .model import CharModel
from .ngram import witten_bell_bits
from .plot import plot
from .text import Corpus, reference_text, streams

_MODEL = "model.safetensors"  # the best so far
_CHECKPOINT = "checkpoint.safetensors"  # all that --resume needs

_CLIP = 1.0  # largest norm of a gradient
_WARM_UP = 0.1  # of the updates, in which the learning rate rises
_PATIENCE = 4  # judgements without a new best before training stops
_DIVERGED = 100.0  # bits per character; one who only guesses needs log2 of the vocabulary
_HELD_STREAMS = 32  # the held-out text is read in so many streams
# Highest learning rates for 256 hidden units; they fall with the root of the size.
_RATES = {"rnn": 8e-3, "gru": 1e-2, "lstm": 2e-2}
# Of 0.999, 0.99, 0.98 and 0.95 the last let the default network fall fastest by far: 1.66 bits held
# out after 1000 updates, where 0.99 had 1.71.
_BETAS = 0.9, 0.95
_WEIGHT_DECAY = 1e-5


class UserError(Exception):
    """Something that the one who typed the command can mend."""


@dataclass(frozen=True)
class Settings:
    """What a training is, apart from its text. A resumed training keeps them."""

    cell: str = "lstm"
    hidden: int = 256
    layers: int = 1
    batch: int = 16
    steps: int = 64
    epochs: int = 4
    lr: float = 0.0
    seed: int = 0


@dataclass
class History:
    """How far a training is."""

    update: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_update: int = 0
    training: list[tuple[int, float]] = field(default_factory=list)  # update, bits
    held: list[tuple[int, float]] = field(default_factory=list)


def run(options: argparse.Namespace) -> int:
    """Train, and show what came of it."""
    try:
        training = _prepare(options)
        try:
            _train(training, options.minutes * 60)
            _report(training)
        except KeyboardInterrupt:
            sys.stderr.write(f"\nstopped: {training.saved()}\n")
            return 130
    except UserError as error:
        sys.stderr.write(f"fastrnn demo: {error}\n")
        return 2
    except MemoryError as error:
        sys.stderr.write(f"fastrnn demo: not enough memory, try a smaller network: {error}\n")
        return 2
    return 0


class Training:
    """A model, its text, its optimiser, and how far they are."""

    def __init__(self, corpus: Corpus, settings: Settings, folder: Path) -> None:
        self.corpus = corpus
        self.settings = settings
        self.folder = folder
        self.windows = (corpus.train.size - 1) // settings.batch // settings.steps  # in an epoch
        if self.windows < 1 or corpus.held.size <= _HELD_STREAMS:
            raise UserError(
                f"a text of {corpus.train.size + corpus.held.size} characters is too short for "
                f"--batch {settings.batch} --steps {settings.steps}"
            )
        self.inputs, self.targets = streams(corpus.train, settings.batch)
        self.held = streams(corpus.held, _HELD_STREAMS)
        self.model = CharModel.new(
            len(corpus.characters), settings.cell, settings.hidden, settings.layers, settings.seed
        )
        self.optimizer = Adam(
            self.model.layers.values(), settings.lr, _BETAS, weight_decay=_WEIGHT_DECAY
        )
        self.state: Any = None
        self.history = History()

    def update(self, rate: float) -> tuple[float, float]:
        """Do one update; return bits per character and the gradient's norm before clipping."""
        window = self.history.update % self.windows
        if window == 0:
            self.state = None
        span = slice(window * self.settings.steps, (window + 1) * self.settings.steps)
        x, targets = self.inputs[span], self.targets[span]
        bits, self.state, grads = self.model.gradients(x, targets, self.state)
        norm = clip_grad_norm(grads, _CLIP)
        self.optimizer.lr = rate
        self.optimizer.step(grads)
        self.history.update += 1
        return bits, norm

    def judge(self) -> float:
        """Measure the held-out text; save the model if it is the best so far, and save all."""
        history = self.history
        bits = self.model.bits(*self.held)
        history.held.append((history.update, bits))
        try:
            if bits < history.best:
                history.best, history.best_update = bits, history.update
                save(
                    self.folder / _MODEL,
                    self.model.layers,
                    metadata={"characters": self.corpus.characters},
                )
            self._save()
        except OSError as error:
            raise UserError(f"cannot save to {self.folder}: {error}") from None
        return bits

    def best(self) -> CharModel:
        """Return the best model so far, from its file."""
        path = self.folder / _MODEL
        try:
            characters = read_metadata(path).get("characters")
            layers: Any = load(path)
            same = {name: layer.config() for name, layer in layers.items()} == {
                name: layer.config() for name, layer in self.model.layers.items()
            }
        except FileNotFoundError:
            raise UserError(f"there is no {path}, the best model: train anew") from None
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(f"{path} is not the best model: {error}") from None
        if characters != self.corpus.characters or not same:
            raise UserError(f"{path} is of another text or another training: train anew")
        return CharModel(layers)

    def saved(self) -> str:
        """Say what stands in the folder."""
        history = self.history
        if not history.held:
            return "before anything was saved"
        return (
            f"{self.folder / _MODEL} is the best model, {history.best:.3f} bits per character "
            f"held out; --resume goes on after update {history.held[-1][0]}"
        )

    def _save(self) -> None:
        arrays = {f"adam.{key}": value for key, value in self.optimizer.state_dict().items()}
        for name, layer in self.model.layers.items():
            arrays[f"params.{name}"] = layer.flat_params
        state = self.state if isinstance(self.state, tuple) else (self.state,)
        arrays |= {f"state.{index}": part for index, part in enumerate(state)}
        metadata = {
            "settings": json.dumps(asdict(self.settings)),
            "history": json.dumps(asdict(self.history)),
            "text": self.corpus.digest,
        }
        safetensors.write(self.folder / _CHECKPOINT, arrays, metadata)

    def restore(self, arrays: dict[str, Array], history: str) -> None:
        """Go on from what `_save` wrote."""
        self.history = History(**json.loads(history))
        for name, layer in self.model.layers.items():
            layer.flat_params[:] = arrays[f"params.{name}"]
        adam = {k.removeprefix("adam."): v for k, v in arrays.items() if k.startswith("adam.")}
        self.optimizer.load_state_dict(adam)
        parts = tuple(arrays[key] for key in sorted(arrays) if key.startswith("state."))
        self.state = parts if len(parts) > 1 else parts[0]


def _prepare(options: argparse.Namespace) -> Training:
    """Make a new training, or bring back the one in the folder."""
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if f.name in options}
    if "text" in options:
        try:
            text = Path(options.text).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise UserError(f"cannot read {options.text} as UTF-8 text: {error}") from None
    else:
        text = reference_text()
    corpus = Corpus.of(text)
    folder = Path(options.out)
    if not options.resume:
        settings = Settings(**given)
        if "lr" not in given:
            rate = _RATES[settings.cell] * math.sqrt(256 / settings.hidden)
            settings = replace(settings, lr=rate)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error}") from None
        return Training(corpus, settings, folder)

    path = folder / _CHECKPOINT
    try:
        arrays, metadata = safetensors.read(path)
        settings = Settings(**json.loads(metadata["settings"]))
        if metadata["text"] != corpus.digest:
            raise UserError(f"{path} is of another text: give the same --text")
        changed = [f"--{name}" for name in given if given[name] != getattr(settings, name)]
        if set(changed) - {"--epochs"}:
            raise UserError(f"{path} was trained with other settings: {', '.join(changed)}")
        training = Training(corpus, replace(settings, **given), folder)
        training.restore(arrays, metadata["history"])
        training.best()
    except FileNotFoundError:
        raise UserError(f"there is no {path} to resume") from None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} cannot be resumed: {error}") from None
    return training


def _train(training: Training, limit: float) -> None:
    """Update until the plan or the time is over, or the held-out text no longer gains."""
    settings, history = training.settings, training.history
    window = settings.batch * settings.steps
    planned = settings.epochs * training.windows
    # Judging reads the held-out text forward only, a third of the work of an update for each
    # window of it: at this interval it takes about a twentieth of the time.
    interval = max(100, 7 * training.held[0].size // window)
    first, before = history.update, history.seconds
    if first >= planned:
        sys.stderr.write(f"all {planned} updates are done: more --epochs go on\n")
        return
    sys.stderr.write(
        f"{settings.cell} of {settings.layers} x {settings.hidden}, "
        f"{sum(layer.num_params for layer in training.model.layers.values()):,} parameters; "
        f"{training.corpus.train.size:,} characters to train on, "
        f"{training.corpus.held.size:,} held out; at most {planned} updates\n"
    )
    start = time.monotonic()
    total = planned
    recent: deque[float] = deque(maxlen=interval)
    # disable=None: no bar where standard error is no terminal
    with tqdm(total=total, initial=first, unit="update", leave=False, disable=None) as bar:
        while history.update < total:
            done = history.update - first
            if done and done % 10 == 0:
                # The learning rate is to have fallen when the time is over, so the plan must fit.
                each = (time.monotonic() - start) / done
                total = min(planned, max(first + int(min(limit / each, planned)), history.update))
                bar.total = total
            bits, norm = training.update(settings.lr * _rate(history.update / total))
            if not bits < _DIVERGED or not math.isfinite(norm):
                raise UserError(f"training diverged at update {history.update}: try a smaller --lr")
            recent.append(bits)
            mean = sum(recent) / len(recent)
            elapsed = time.monotonic() - start
            history.seconds = before + elapsed
            speed = (history.update - first) * window / elapsed
            figures = f"{speed:8,.0f} characters/s  training {mean:.3f}  gradient {norm:.3f}"
            bar.set_postfix_str(figures, refresh=False)
            bar.update()
            if history.update % interval == 0 or history.update >= total or elapsed > limit:
                history.training.append((history.update, mean))
                held = training.judge()
                line = f"update {history.update:5d}  {figures}  held-out {held:.3f}"
                bar.write(line, file=sys.stderr)
                waiting = [update for update, _ in history.held if update > history.best_update]
                if len(waiting) >= _PATIENCE:
                    bar.write("the held-out text no longer gains: stopped early", file=sys.stderr)
                    break
                if elapsed > limit:
                    break


def _rate(done: float) -> float:
    """Part of the highest learning rate after a part of the training: up, then down to zero."""
    return min(done / _WARM_UP, (1 - done) / (1 - _WARM_UP))


def _report(training: Training) -> None:
    """Show the figures, the picture and a sample of the best model."""
    corpus, history, folder = training.corpus, training.history, training.folder
    model = training.best()
    ngram = witten_bell_bits(corpus.train, corpus.held, len(corpus.characters))
    updates = [update for update, _ in history.held]
    curves: dict[str, Any] = {
        "training": (updates, [bits for _, bits in history.training]),
        "held-out": (updates, [bits for _, bits in history.held]),
        "order-4 n-gram, held-out": (updates, [ngram] * len(updates)),
    }
    norms = model.gradient_by_step(*(part[: training.settings.steps] for part in training.held))
    rng = np.random.default_rng(training.settings.seed)
    written = model.write(int(corpus.held[0]), 500, 0.7, rng)
    sample = "".join(corpus.characters[index] for index in written)
    picture = folder / "training.png"
    try:
        plot(picture, curves, norms)
        (folder / "sample.txt").write_text(sample, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot save to {folder}: {error}") from None
    characters = history.update * training.settings.batch * training.settings.steps
    echo(f"\n{sample}\n")
    echo(
        f"held-out  {history.best:.3f} bits per character (update {history.best_update} of "
        f"{history.update})\n"
        f"n-gram    {ngram:.3f} bits per character (order 4, Witten-Bell, on the same split)\n"
        f"training  {history.seconds:.1f} s, {characters:,} characters, "
        f"{characters / max(history.seconds, 1e-9):,.0f} a second\n"
        f"files     {folder / _MODEL}, {picture}"
    )
