"""The examples run, and show what they say."""

from __future__ import annotations

import doctest
import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_forecast_beats_the_naive_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["forecast.py", "--epochs", "30"])
    errors = runpy.run_path(str(EXAMPLES / "forecast.py"))["main"]()
    assert errors["GRU"] < 0.75 * errors["as this year"]
    assert "GRU" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="reads a pipe as head does")
@pytest.mark.parametrize("name", ["bptt_by_hand.py", "forecast.py"])
def test_a_reader_may_stop_early(name: str) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    command += ["--epochs", "1"] if name == "forecast.py" else []
    # nobody reads: the first flush meets a broken pipe, whenever it comes
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(fastrnn.__path__[0]).parent,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate()
    assert (process.returncode, err) == (0, b"")


def test_the_sunspots_are_those_of_the_source() -> None:
    """Facts that are known from elsewhere: the length, the extremes, a famous maximum."""
    text = runpy.run_path(str(EXAMPLES / "forecast.py"))["SUNSPOTS"]
    years = dict(enumerate(map(float, text.split()), 1700))
    assert max(years) == 2008
    assert max(years, key=years.__getitem__) == 1957
    assert years[1957] == 190.2
    assert [year for year, number in years.items() if number == 0] == [1711, 1712, 1810]


def test_bptt_by_hand_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    worst = runpy.run_path(str(EXAMPLES / "bptt_by_hand.py"))["main"]()
    assert worst < 1e-13
    out = capsys.readouterr().out
    assert "gradcheck of the whole layer: True" in out
    norms = [float(line.split()[1]) for line in out.splitlines()[-13:]]
    assert norms[0] < 1e-2 * norms[-1]


def test_one_network_for_each_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "applications"))
    module = importlib.import_module("mappings")
    assert doctest.testmod(module) == (0, 2)
    for network, task in (
        (module.OneToOne, module.one_to_one),
        (module.OneToMany, module.one_to_many),
        (module.ManyToMany, module.many_to_many),
    ):
        learnt = module.learn(network, task, steps=200, seed=1)
        assert module.right(learnt, task(np.random.default_rng(2), 100)) > 0.9
