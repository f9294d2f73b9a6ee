"""A model and a training run in one file: names, what does not fit, and a run that is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from translator import Translator

import fastrnn
from fastrnn.io import safetensors

#: Trains for 12 steps, saves after each, and goes on from what is there; prints the losses.
RUN = """
import os, sys
import numpy as np, fastrnn
from translator import Translator
path, kill = sys.argv[1], int(sys.argv[2])
model = Translator(dtype=np.float32)
adam, rng, step = fastrnn.Adam(model, 0.02), np.random.default_rng(3), 0
if os.path.exists(path):
    step = fastrnn.load(path, into=model, optimizer=adam, rng=rng)
while step < 12:
    adam.lr = 0.02 / (1 + step)
    g = fastrnn.Graph(rng)
    loss = model.loss(g)
    grads = g.backward(loss)
    fastrnn.clip_grad_norm(grads, 1.0)
    adam.step(grads)
    step += 1
    fastrnn.save(path, model, adam, rng, step)
    if step == kill:
        os.kill(os.getpid(), 9)
print(model.flat_params.tobytes().hex())
"""


def run(path: Path, kill: int = -1) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(kill)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env=os.environ
        | {"PYTHONPATH": str(Path(fastrnn.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="kills by SIGKILL")
def test_a_run_that_is_killed_goes_on_to_the_bit(tmp_path: Path) -> None:
    step = random.Random(fastrnn.__version__).randrange(1, 12)
    whole = run(tmp_path / "whole")
    assert run(tmp_path / "killed", step) == (-9, "")
    assert run(tmp_path / "killed") == whole
    assert whole[0] == 0


def trained(steps: int = 3) -> tuple[Any, Any, Any]:
    model = Translator()
    adam, rng = fastrnn.Adam(model, 0.02), np.random.default_rng(3)
    for _ in range(steps):
        train(model, adam, rng)
    return model, adam, rng


def train(model: Any, adam: Any, rng: Any) -> float:
    g = fastrnn.Graph(rng)
    loss = model.loss(g)
    adam.step(g.backward(loss))
    return float(loss)


def test_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, adam, rng = trained()
    model.save(path, optimizer=adam, rng=rng, step=3, metadata={"words": "11"})
    arrays, _ = safetensors.read(path)
    own = {name: value for name, value in arrays.items() if not name.startswith("fastrnn.")}
    assert list(own) == list(model.params)
    for name, value in model.params.items():
        assert np.array_equal(own[name], value)
    assert fastrnn.io.read_metadata(path) == {"words": "11"}
    # without the model's class: its layers by name
    layers = fastrnn.load(path)
    assert list(layers) == list(model.named_layers())
    assert np.array_equal(layers["enc"].flat_params, model.enc.flat_params)
    assert np.array_equal(layers["start"].value, model.start.value)
    assert layers["att"].score == "general"


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_loading(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "model.safetensors"
    model, adam, _ = trained()
    rng = np.random.Generator(kind(5))
    rng.standard_normal(3, np.float32)
    fastrnn.save(path, model, adam, rng, 3)
    other = Translator(backend="numpy")
    assert other.load(path) == 3
    assert np.array_equal(other.flat_params, model.flat_params)
    other = Translator()
    again, draws = fastrnn.Adam(other, 0.5), np.random.Generator(kind(6))
    assert fastrnn.load(path, into=other, optimizer=again, rng=draws) == 3
    assert again.lr == 0.02
    assert [train(model, adam, rng) for _ in range(2)] == [
        train(other, again, draws) for _ in range(2)
    ]


def test_layers_alone_and_in_mappings(tmp_path: Path) -> None:
    path = tmp_path / "layers"
    a, b = fastrnn.GRU(3, 4, rng=0), fastrnn.LayerNorm(4)
    empty = fastrnn.GRU(3, 4)
    several = {"a": empty, "b": fastrnn.LayerNorm(4)}
    for layers, into in ((a, empty), ({"a": a, "b": b}, several)):
        empty.flat_params[...] = 0
        sgd = fastrnn.SGD(a, 0.1, momentum=0.9)
        fastrnn.save(path, layers, sgd)
        assert fastrnn.load(path, into=into, optimizer=fastrnn.SGD(a, 0.2, momentum=0.5)) is None
        assert np.array_equal(empty.flat_params, a.flat_params)
    fastrnn.save(path, fastrnn.Parameter(np.ones(3)))
    assert np.array_equal(fastrnn.load(path).value, np.ones(3))
    fastrnn.save(path, fastrnn.Attention(2, 3, score="additive", hidden_size=5, rng=0))
    assert fastrnn.load(path).hidden_size == 5


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, adam, rng = trained()
    fastrnn.save(path, model, adam, rng)

    def refused(match: str, into: Any, error: Any = ValueError, **how: Any) -> None:
        before = [layer.flat_params.copy() for layer in into.named_layers().values()]
        with pytest.raises(error, match=match):
            fastrnn.load(path, into=into, **how)
        after = [layer.flat_params for layer in into.named_layers().values()]
        assert all(map(np.array_equal, before, after))

    other = Translator(dtype=np.float32)
    refused("emb is of dtype='float64' in it, 'float32' in into", other)
    other = Translator()
    other.dec = fastrnn.GRU(5, 12, dtype=np.float64, reset_after=False)
    refused("dec is of reset_after=True in it, False in into", other)
    other.dec = fastrnn.RNN(5, 12, dtype=np.float64)
    refused("dec is GRU in it, RNN in into", other)
    other = Translator()
    other.more = fastrnn.Linear(1, 1)
    refused("it holds the layers 'emb', .*, into has .*'more'", other)
    other = Translator()
    other.enc.freeze()
    refused("the parameters are frozen", other)
    other = Translator()
    refused("its optimizer is Adam, got SGD", other, optimizer=fastrnn.SGD(other, 0.1))
    refused("optimizer: state must hold", other, optimizer=fastrnn.Adam(other.enc))
    philox = np.random.Generator(np.random.Philox(1))
    refused("its random numbers are PCG64's, those of rng Philox's", other, rng=philox)
    refused("rng must be a numpy.random.Generator, got int", other, TypeError, rng=1)
    refused("optimizer must be SGD or Adam, got .*Translator", other, TypeError, optimizer=other)
    refused("backend is for new layers", other, TypeError, backend="numpy")
    with pytest.raises(TypeError, match="into must be given beside optimizer and rng"):
        fastrnn.load(path, optimizer=adam)
    fastrnn.save(path, model)
    refused("no optimizer was saved in it", other, optimizer=fastrnn.Adam(other))
    refused("no rng was saved in it", other, rng=rng)
    how: dict[str, Any] = {"rng": {"rng": rng}, "optimizer": {"optimizer": fastrnn.Adam(other)}}
    for name, text in (("rng", "{}"), ("step", "many"), ("optimizer", '{"class": 1}')):
        arrays, metadata = safetensors.read(path)
        safetensors.write(path, arrays, metadata | {f"fastrnn.{name}": text})
        refused("KeyError|ValueError", other, **how.get(name, {}))
        safetensors.write(path, arrays, metadata)


def test_what_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "none"
    layer = fastrnn.Linear(1, 1)
    for arguments, error, match in (
        ((layer, layer), TypeError, "optimizer must be SGD or Adam, got fastrnn"),
        ((layer, None, 5), TypeError, "rng must be a numpy.random.Generator"),
        ((layer, None, None, -1), ValueError, "step must be at least 0, got -1"),
        (({"fastrnn.x": layer},), ValueError, "names of layers must not begin with 'fastrnn.'"),
        ((object(),), TypeError, "mappings of these and models, got object"),
    ):
        with pytest.raises(error, match=match):
            fastrnn.save(path, *arguments)
    assert not path.exists()
    assert json.dumps(layer.config())
