"""The command line, and the parts the demo is made of."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.cli import console, demo, main
from fastrnn.cli.model import CharModel
from fastrnn.cli.ngram import witten_bell_bits
from fastrnn.cli.text import Corpus, reference_text, streams
from fastrnn.io import read_metadata, safetensors

DRAW = random.Random(7)
TEXT = "".join(DRAW.choice(["the ", "cat ", "sat. ", "on ", "a ", "mät\n"]) for _ in range(3000))
SMALL = ["--hidden", "12", "--batch", "4", "--steps", "8", "--epochs", "1"]


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    return str(tmp_path / "text")


def run_demo(out: Path, text: str, *more: str) -> int:
    return main(["demo", "--text", text, "--out", str(out), *SMALL, *more])


# --------------------------------------------------------------------------- commands


def test_info_shows_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    fastrnn.show_config()
    assert shown == capsys.readouterr().out


def test_python_m_fastrnn_is_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastrnn", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"fastrnn {fastrnn.__version__}\n"


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "{info,demo,bench,tune}" in capsys.readouterr().out


# ------------------------------------------------------------------------------- demo


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_demo_trains_saves_and_shows(
    cell: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_demo(out, text, "--cell", cell, "--layers", "2", "--seed", "3") == 0
    shown = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.safetensors", "model.safetensors", "sample.txt", "training.png",
    ]  # fmt: skip
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    sample = (out / "sample.txt").read_text(encoding="utf-8")
    assert len(sample) == 500
    assert sample in shown.out

    # The figure is that of the saved model, and far better than no model at all.
    corpus = Corpus.of(TEXT)
    model = CharModel(fastrnn.load(out / "model.safetensors"))
    bits = model.bits(*streams(corpus.held, 32))
    assert f"held-out  {bits:.3f} bits per character" in shown.out
    assert bits < 0.8 * math.log2(len(corpus.characters))
    ngram = witten_bell_bits(corpus.train, corpus.held, len(corpus.characters))
    assert f"n-gram    {ngram:.3f} bits per character" in shown.out
    assert read_metadata(out / "model.safetensors")["characters"] == corpus.characters
    assert "characters/s" in shown.err


def test_a_resumed_training_ends_where_an_unbroken_one_does(text: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ["--epochs", "2"]
    assert run_demo(whole, text, *more) == 0
    update = demo.Training.update

    def interrupted(self: demo.Training, rate: float) -> tuple[float, float]:
        if self.history.update == 250:
            raise KeyboardInterrupt
        return update(self, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo.Training, "update", interrupted)
        assert run_demo(broken, text, *more) == 130
    assert main(["demo", "--text", text, "--out", str(broken), "--resume"]) == 0
    ends = [safetensors.read(path / "checkpoint.safetensors") for path in (whole, broken)]
    for name, value in ends[0][0].items():
        np.testing.assert_array_equal(ends[1][0][name], value, err_msg=name)
    histories = [json.loads(metadata["history"]) for _, metadata in ends]
    for history in histories:
        assert history.pop("seconds") > 0
    assert histories[0]["update"] > 300
    # The mean of the interval that was broken is over the updates after the break.
    assert len(histories[0].pop("training")) == len(histories[1].pop("training"))
    assert histories[0] == histories[1]


def test_a_finished_training_goes_on_with_more_epochs(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(tmp_path / "out", text) == 0
    resume = ["demo", "--text", text, "--out", str(tmp_path / "out"), "--resume"]
    capsys.readouterr()
    assert main(resume) == 0
    shown = capsys.readouterr()
    assert "updates are done: more --epochs go on" in shown.err
    assert "held-out" in shown.out
    assert main([*resume, "--epochs", "2"]) == 0
    assert "update" in capsys.readouterr().err


def test_what_cannot_be_resumed_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    resume = ["demo", "--out", str(out), "--resume"]
    assert main([*resume, "--text", text]) == 2
    assert "there is no" in capsys.readouterr().err
    assert run_demo(out, text) == 0
    capsys.readouterr()
    assert main([*resume, "--text", text, "--hidden", "13", "--seed", "0"]) == 2
    assert "other settings: --hidden\n" in capsys.readouterr().err
    (tmp_path / "other").write_text(TEXT + "x")
    assert main([*resume, "--text", str(tmp_path / "other")]) == 2
    assert "is of another text" in capsys.readouterr().err
    path = out / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert main([*resume, "--text", text]) == 2
    assert "cannot be resumed" in capsys.readouterr().err


def test_wrong_texts_and_flags_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_demo(out, str(tmp_path / "missing")) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    assert run_demo(out, str(tmp_path / "bytes")) == 2
    assert "as UTF-8 text" in capsys.readouterr().err
    for short in ("", "a", "short"):
        (tmp_path / "short").write_text(short)
        assert run_demo(out, str(tmp_path / "short")) == 2
        assert "is too short for --batch 4 --steps 8" in capsys.readouterr().err
    (tmp_path / "file").write_text(TEXT, encoding="utf-8")
    assert run_demo(tmp_path / "file" / "sub", str(tmp_path / "file")) == 2
    assert "cannot make the folder" in capsys.readouterr().err
    assert run_demo(out, str(tmp_path / "file"), "--hidden", str(10**11)) == 2
    assert "not enough memory, try a smaller network" in capsys.readouterr().err
    (out / "checkpoint.safetensors").mkdir()
    assert run_demo(out, str(tmp_path / "file")) == 2
    assert f"cannot save to {out}: " in capsys.readouterr().err
    for flags in (
        ["--hidden", "0"],
        ["--minutes", "nan"],
        ["--cell", "tree"],
        ["--lr", "-1"],
        ["--seed", "-1"],
    ):
        with pytest.raises(SystemExit) as caught:
            run_demo(out, str(tmp_path / "file"), *flags)
        assert caught.value.code == 2
    assert "invalid positive int value: '0'" in capsys.readouterr().err


def test_training_that_diverges_says_so(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(tmp_path / "out", text, "--lr", "1e30") == 2
    assert "training diverged" in capsys.readouterr().err


def test_the_time_limit_ends_training_with_a_model(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(tmp_path / "out", text, "--epochs", "100000", "--minutes", "0.01") == 0
    history = json.loads(
        safetensors.read_metadata(tmp_path / "out" / "checkpoint.safetensors")["history"]
    )
    assert 0.2 < history["seconds"] < 1800  # so many epochs would take days
    assert "held-out" in capsys.readouterr().out


def test_training_stops_when_the_held_out_text_no_longer_gains(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = itertools.count(3.0, 0.1)
    monkeypatch.setattr(CharModel, "bits", lambda self, x, y: next(bits))
    assert run_demo(tmp_path / "out", text, "--epochs", "9") == 0
    shown = capsys.readouterr()
    assert "no longer gains" in shown.err
    first = json.loads(
        safetensors.read_metadata(tmp_path / "out" / "checkpoint.safetensors")["history"]
    )["best_update"]
    ends = f"(update {first} of {(1 + demo._PATIENCE) * first})"
    assert f"held-out  3.000 bits per character {ends}" in shown.out


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_the_best_model(text: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fastrnn", "demo", "--text", text, "--out", str(out)]
    command += [*SMALL, "--epochs", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 1800  # a hang
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert "model.safetensors is the best model" in err
    assert "Traceback" not in err
    assert set(fastrnn.load(out / "model.safetensors")) == {"embedding", "recurrent", "head"}


@pytest.mark.parametrize(
    ("words", "package", "said"),
    [
        (["demo"], "tqdm", "tqdm is not installed: pip install 'fastrnn[demo]'"),
        (["demo"], "matplotlib", "matplotlib is not installed: pip install 'fastrnn[demo]'"),
        (["bench"], "jinja2", "jinja2 is not installed: pip install 'fastrnn[bench]'"),
        (["bench"], "", "jinja2 and matplotlib and threadpoolctl and tqdm are not installed: "),
    ],
)
def test_a_missing_extra_is_one_line_and_status_2(
    words: list[str],
    package: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_spec = console.find_spec

    def without(name: str) -> Any:
        return None if name.startswith(package) else find_spec(name)

    monkeypatch.setattr(console, "find_spec", without)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"fastrnn: {said}")
    assert err.count("\n") == 1


def test_what_needs_no_extra_runs_without() -> None:
    """`import fastrnn` and `fastrnn info`, where nothing but NumPy is installed."""
    code = """
import sys
for name in ("jinja2", "matplotlib", "threadpoolctl", "tqdm"):
    sys.modules[name] = None  # an import of it fails
from fastrnn.cli import main
sys.exit(main(["info"]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def fastrnn_program(*args: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    root = str(Path(fastrnn.__path__[0]).parent)
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": root}
    command = [sys.executable, "-m", "fastrnn", *args]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=env, **how)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_an_output_that_takes_nothing_is_one_line_and_status_2(text: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train = ["demo", "--text", text, "--out", str(out), *SMALL]
    for args in (["info"], train):
        with open("/dev/full", "w") as full:
            done = fastrnn_program(*args, stdout=full)
        assert done.returncode == 2
        assert done.stderr.endswith("fastrnn: cannot write: [Errno 28] No space left on device\n")
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = fastrnn_program("info", stdout=write)
    os.close(write)
    said = "fastrnn: cannot write: [Errno 32] Broken pipe\n"
    assert (done.returncode, done.stderr) == (2, said)
    # what was trained is there all the same
    assert (out / "model.safetensors").exists()
    for args in (["info"], train):
        shell = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "fastrnn", *args]
        root = Path(fastrnn.__path__[0]).parent
        done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, cwd=root)
        said = "fastrnn: cannot write: the standard output is closed\n"
        assert (done.returncode, done.stderr) == (2, said)


def test_an_interrupt_at_the_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for place in ("_prepare", "run"):
        monkeypatch.setattr(demo, place, interrupted)
        assert main(["demo"]) == 130
        assert capsys.readouterr().err == "\nfastrnn: interrupted\n"


def test_numbers_beyond_all_bounds(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_demo(out, text, "--minutes", "1e308") == 0
    for flag in ("--batch", "--steps"):
        assert run_demo(out, text, flag, str(10**30)) == 2
        assert "is too short for" in capsys.readouterr().err
    for flag in ("--hidden", "--layers"):
        assert run_demo(out, text, flag, str(10**30)) == 2
        assert "not enough memory" in capsys.readouterr().err


def test_a_model_that_is_not_the_trainings_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    (tmp_path / "else").write_text(TEXT.replace("cat", "dog"), encoding="utf-8")
    assert run_demo(out, text) == 0
    assert run_demo(other, str(tmp_path / "else")) == 0
    resume = ["demo", "--text", text, "--out", str(out), "--resume"]
    model = out / "model.safetensors"
    good = model.read_bytes()
    for content, said in [
        ((other / "model.safetensors").read_bytes(), "is of another text or another training"),
        (good[:-1], "is not the best model: "),
        (None, f"there is no {model}, the best model"),
    ]:
        if content is None:
            model.unlink()
        else:
            model.write_bytes(content)
        capsys.readouterr()
        assert main([*resume, "--epochs", "2"]) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert len(shown.splitlines()) == 1
    model.write_bytes(good)
    assert main(resume) == 0


# ------------------------------------------------------------------------------ parts


def test_a_corpus_holds_out_the_last_tenth() -> None:
    corpus = Corpus.of(TEXT)
    assert corpus.characters == "".join(sorted(set(TEXT)))
    both = np.concatenate([corpus.train, corpus.held])
    assert "".join(corpus.characters[index] for index in both) == TEXT
    assert corpus.train.size == len(TEXT) * 9 // 10
    assert corpus.digest != Corpus.of(TEXT + "x").digest


def test_the_reference_text_comes_with_python() -> None:
    assert len(reference_text()) > 300_000


def test_streams_are_contiguous() -> None:
    inputs, targets = streams(np.arange(23), 4)
    np.testing.assert_array_equal(inputs[:, 1], [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(targets, inputs + 1)
    assert streams(np.arange(3), 4)[0].shape == (0, 4)


def naive_bits(train: str, held: str, order: int) -> float:
    """Witten-Bell by dictionaries, straight from the formula."""
    vocabulary = len(set(train + held))
    counts: dict[str, Counter[str]] = {}
    for end in range(len(train)):
        for length in range(min(order, end) + 1):
            counts.setdefault(train[end - length : end], Counter())[train[end]] += 1

    def probability(context: str, character: str) -> float:
        lower = probability(context[1:], character) if context else 1 / vocabulary
        seen = counts.get(context)
        if seen is None:
            return lower
        return (seen[character] + len(seen) * lower) / (seen.total() + len(seen))

    text = train + held
    ends = range(len(train), len(text))
    bits = [-math.log2(probability(text[max(e - order, 0) : e], text[e])) for e in ends]
    return sum(bits) / len(bits)


@pytest.mark.parametrize("order", [0, 1, 4])
def test_the_ngram_equals_its_formula(order: int) -> None:
    corpus = Corpus.of(TEXT[:2000] + "a new word")
    split = corpus.train.size
    text = TEXT[:2000] + "a new word"
    found = witten_bell_bits(corpus.train, corpus.held, len(corpus.characters), order)
    assert found == pytest.approx(naive_bits(text[:split], text[split:], order), rel=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_models_gradients_are_those_of_its_loss(cell: str) -> None:
    """Every layer's gradient against a finite difference along it, state carried in."""
    rng = np.random.default_rng(0)
    model = CharModel.new(9, cell, 6, 2, seed=0)
    layers = {
        name: type(layer)(**layer.config() | {"dtype": "float64"})
        for name, layer in model.layers.items()
    }
    model = CharModel(layers)
    x, targets = rng.integers(0, 9, (2, 7, 3))
    _, state, _ = model.gradients(x, targets, None)
    _, _, grads = model.gradients(x, targets, state)
    for layer, grad in zip(layers.values(), grads, strict=True):
        direction = grad.flat / np.linalg.norm(grad.flat)
        kept, losses = layer.flat_params.copy(), []
        for eps in (1e-5, -1e-5):
            layer.flat_params[:] = kept + eps * direction
            losses.append(model.gradients(x, targets, state)[0] * math.log(2))
        layer.flat_params[:] = kept
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx(np.linalg.norm(grad.flat), rel=1e-7)


def test_gradient_by_step_is_what_longer_windows_say() -> None:
    """dL/dstate before step t equals the gradient of the state that steps t.. start from."""
    model = CharModel.new(9, "lstm", 6, 1, seed=0)
    x, targets = np.random.default_rng(0).integers(0, 9, (2, 7, 3))
    norms = model.gradient_by_step(x, targets)
    embedded = model.embedding(x)
    _, state = model.recurrent(embedded[:4])
    y, _, tape = model.recurrent.forward(embedded[4:], state)
    logits, head_tape = model.head.forward(y[-1:])
    _, dlogits = fastrnn.softmax_cross_entropy(logits, targets[-1:])
    dy = np.zeros_like(y)
    dy[-1:] = model.head.backward(head_tape, 3 * dlogits).x
    dh, dc = model.recurrent.backward(tape, dy).state
    assert norms["h"].shape == norms["c"].shape == (7,)
    assert norms["h"][4] == pytest.approx(np.linalg.norm(dh[0], axis=1).mean(), rel=1e-5)
    assert norms["c"][4] == pytest.approx(np.linalg.norm(dc[0], axis=1).mean(), rel=1e-5)


def test_writing_follows_the_models_distribution() -> None:
    model = CharModel.new(4, "gru", 3, 1, seed=0)
    model.head.flat_params[:] = 0
    model.head.params["bias"][:] = np.log([0.1, 0.2, 0.3, 0.4])
    written = model.write(0, 20_000, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(written) / 20_000, [0.1, 0.2, 0.3, 0.4], atol=0.015)
    sharp = model.write(0, 100, 0.01, np.random.default_rng(0))
    assert set(sharp) == {3}


@pytest.mark.parametrize("live", [True, False])
def test_the_bar_is_drawn_on_terminals_only(
    live: bool, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: live, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    assert run_demo(tmp_path / "out", text) == 0
    drawn = screen.getvalue()
    assert ("\r" in drawn) is live
    assert "held-out" in drawn
