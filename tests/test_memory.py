"""Blocks of memory that come back: what a training step frees, the next one takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cases import Array

import fastrnn

core = pytest.importorskip("fastrnn._core", reason="the cpu backend's memory")

T, B, H = 16, 8, 256  # h of all steps: 128 KiB


def forward(layer: fastrnn.LSTM, T: int = T) -> tuple[Array, fastrnn.tape.Tape]:
    x = np.ones((T, B, layer.input_size), np.float32)
    y, _, tape = layer.forward(x)
    return y, tape


@pytest.fixture
def layer() -> fastrnn.LSTM:
    return fastrnn.LSTM(3, H, rng=0, backend="cpu")


def let_go() -> None:
    """Make more requests than a free block waits for, until the next look."""
    small = fastrnn.RNN(2, 3, backend="cpu")
    for _ in range(2 * 4096):
        small(np.ones((1, 1, 2), np.float32))


def address(array: Array) -> int:
    return array.ctypes.data


def test_a_block_comes_back_when_its_last_view_is_gone(layer: fastrnn.LSTM) -> None:
    let_go()  # of what other tests have left
    _, tape = forward(layer)
    (kept,) = tape.levels[0].chains[0][0].kept
    where, view = address(kept.saved.gates), kept.saved.gates[3:]
    del tape, kept
    _, tape = forward(layer)
    assert address(tape.levels[0].chains[0][0].kept[0].saved.gates) != where
    del view, tape
    _, tape = forward(layer)
    assert address(tape.levels[0].chains[0][0].kept[0].saved.gates) == where


def test_large_arrays_are_on_a_cache_line(layer: fastrnn.LSTM) -> None:
    _, tape = forward(layer)
    for array in tape.levels[0].chains[0][0].kept[0].saved:
        assert address(array) % 64 == 0


def test_gradients_of_a_training_step_come_back(layer: fastrnn.LSTM) -> None:
    y, tape = forward(layer)
    grads = layer.backward(tape, y).flat
    where, found = address(grads), set()
    del grads
    for _ in range(3):
        grads = layer.backward(tape, y).flat
        found.add(address(grads))
        del grads
    assert where in found


def test_what_no_one_asks_for_again_is_let_go(layer: fastrnn.LSTM) -> None:
    gates = 64 * T * B * 4 * H * 4
    forward(layer, 64 * T)
    assert core.memory_kept() > gates
    for _ in range(100):
        forward(layer)
    assert core.memory_kept() < gates


def test_small_calls_let_go_too(layer: fastrnn.LSTM) -> None:
    forward(layer)
    assert core.memory_kept() > 0
    let_go()
    assert core.memory_kept() == 0


def test_threads_never_share_a_block(layer: fastrnn.LSTM) -> None:
    layer.freeze()
    x = np.random.default_rng(0).standard_normal((8, T, B, 3)).astype(np.float32)
    expected = [layer.forward(part)[2].states() for part in x]
    wrong = []

    def work(n: int) -> None:
        for _ in range(50):
            h, c = layer.forward(x[n])[2].states()
            if not (np.array_equal(h, expected[n][0]) and np.array_equal(c, expected[n][1])):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", [fastrnn.LSTM, fastrnn.GRU])
def test_what_a_block_held_before_is_in_no_result(kind: type[fastrnn.LSTM]) -> None:
    """Ragged rows, whose idle steps are written by nobody: NaN of another call stands there."""
    H = 400  # of which no other test has left blocks
    layer = kind(H, H, bidirectional=True, rng=0, backend="cpu")
    reference = kind(H, H, bidirectional=True, rng=0, backend="numpy")
    lengths = np.array([3, T, 0, 7, 1, T, 2, 9])
    x = np.random.default_rng(2).standard_normal((T, B, H)).astype(np.float32)
    dy = np.ones((T, B, 2 * H), np.float32)

    def results(layer: fastrnn.LSTM) -> list[Array]:
        y, _, tape = layer.forward(x, lengths=lengths)
        grads = layer.backward(tape, dy)
        states = tape.states()
        return [y, *(states if isinstance(states, tuple) else [states]), grads.x, grads.flat]

    def blocks(tape: fastrnn.tape.Tape) -> set[int]:
        kept = [chains[0].kept[0].saved for chains in tape.levels[0].chains]
        return {address(array) for saved in kept for array in saved if array is not None}

    want = results(reference)
    nan = np.full_like(x, np.nan)
    before = blocks(layer.forward(nan)[2])
    assert blocks(layer.forward(x, lengths=lengths)[2]) & before
    layer.backward(layer.forward(nan)[2], dy)
    for got, exact in zip(results(layer), want, strict=True):
        np.testing.assert_allclose(got, exact, rtol=0, atol=5e-6 * np.abs(exact).max())


@pytest.mark.parametrize("steps", [0, T])
def test_gradients_of_rows_that_do_not_run_are_zeros(steps: int) -> None:
    """They are made in a block that holds NaN, and nothing is added."""
    layer = fastrnn.GRU(3, 404, rng=0, backend="cpu")  # of which no other test has left blocks

    def flat(x: Array, **how: Array) -> Array:
        y, _, tape = layer.forward(x, **how)
        return layer.backward(tape, y).flat

    nan = flat(np.full((T, B, 3), np.nan, np.float32))
    assert np.isnan(nan).all()
    where = address(nan)
    del nan
    x = np.ones((steps, B, 3), np.float32)
    grads = flat(x, lengths=np.zeros(B, np.int64))
    assert address(grads) == where
    assert not grads.any()


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(),
    reason="a system without large pages",
)
def test_large_weights_ask_for_large_pages() -> None:
    """The mappings that asked have the flag "hg"; NumPy's own requests are turned off."""
    code = """
import fastrnn
def asked():
    with open("/proc/self/smaps") as maps:
        return sum(" hg" in line for line in maps if line.startswith("VmFlags"))
layer = fastrnn.LSTM(512, 512, backend="cpu")
before = asked()
layer.freeze()
print(before, asked())
"""
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=sys.prefix,  # where what is installed is imported
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())
    assert before == 0 < after
