"""Blocks of memory that come back: what a training step frees, the next one takes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Blocks wait as long as they may, however slow the machine is; no other test has left any."""
    core.set_memory_patience(10**6)
    fastrnn.release_memory()
    yield
    core.set_memory_patience(2000)


def elsewhere(code: str, *arguments: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        cwd=sys.prefix,  # where what is installed is imported
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def address(array: Array) -> int:
    return array.ctypes.data


def test_a_block_comes_back_when_its_last_view_is_gone(layer: fastrnn.LSTM) -> None:
    _, tape = forward(layer)
    (kept,) = tape.saved[0].stacks[0][0].passes
    where, view = address(kept.saved.gates), kept.saved.gates[3:]
    del tape, kept
    _, tape = forward(layer)
    assert address(tape.saved[0].stacks[0][0].passes[0].saved.gates) != where
    del view, tape
    _, tape = forward(layer)
    assert address(tape.saved[0].stacks[0][0].passes[0].saved.gates) == where


def test_large_arrays_are_on_a_cache_line(layer: fastrnn.LSTM) -> None:
    _, tape = forward(layer)
    for array in tape.saved[0].stacks[0][0].passes[0].saved:
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


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what another thread does; only one that hangs takes so long."""
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_blocks_go_back_by_themselves(layer: fastrnn.LSTM) -> None:
    """Without a further call."""
    forward(layer)
    assert core.memory_kept() > 0
    core.set_memory_patience(0)
    assert eventually(lambda: core.memory_kept() == 0)


def test_release_memory(layer: fastrnn.LSTM) -> None:
    forward(layer, 64 * T)
    kept = core.memory_kept()
    assert kept > 64 * T * B * 4 * H * 4
    assert fastrnn.release_memory() == kept
    assert core.memory_kept() == 0 == fastrnn.release_memory()


def test_small_steps_forget_large_ones(layer: fastrnn.LSTM) -> None:
    """What is kept is at most a tenth more than what the last steps needed, or 2 MiB."""
    forward(layer, 64 * T)
    large = core.memory_kept()
    for _ in range(6):
        forward(layer, 8 * T)
    assert core.memory_kept() < large / 6 + (2 << 20)


def test_a_free_block_is_no_second_one(layer: fastrnn.LSTM) -> None:
    """Steps of other lengths each time: together no more than the longest needs, and a tenth."""
    forward(layer, 100 * T)
    longest = core.memory_kept()
    core.set_memory_patience(10**6)
    for steps in (90, 37, 61, 100, 95, 20, 83, 99, 64, 100):
        forward(layer, steps * T)
        assert core.memory_kept() < 1.1 * longest + (2 << 20)


@pytest.mark.parametrize("seed", range(2))
def test_what_varying_lengths_keep(seed: int) -> None:
    """A tenth of a case that held 1.29 GB: between steps, what the last four need and a tenth."""
    layer = fastrnn.LSTM(4, 16, rng=0, backend="cpu")

    def step(T: int) -> None:
        y, _, tape = layer.forward(np.ones((T, 64, 4), np.float32))
        layer.backward(tape, y)

    step(2000)
    need = fastrnn.release_memory() / 2000
    draw = np.random.default_rng(seed)
    lengths = np.exp(draw.uniform(math.log(50), math.log(2000), 30)).astype(int).tolist()
    for i, T in enumerate(lengths):
        step(T)
        if i >= 4:  # those before it were another test's
            most = max(lengths[i - 3 : i + 1]) * need
            assert core.memory_kept() <= 1.1 * most + (2 << 20), (i, lengths[i - 3 : i + 1])


PEAK = """
import sys, fastrnn, numpy as np
layer = fastrnn.LSTM(4, 16, rng=0, backend="cpu")

def step(T):
    y, _, tape = layer.forward(np.ones((T, 64, 4), np.float32))
    layer.backward(tape, y)

def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

step(10)
before = peak()
for T in map(int, sys.argv[1:]):
    step(T)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_varying_lengths() -> None:
    """At most 1.3 of what the longest step needs alone, of the process as the system counts it."""
    draw = np.random.default_rng(1)
    lengths = np.exp(draw.uniform(math.log(100), math.log(4000), 30)).astype(int).tolist()
    alone = int(elsewhere(PEAK, str(max(lengths)), FASTRNN_NUM_THREADS="1"))
    assert int(elsewhere(PEAK, *map(str, lengths), FASTRNN_NUM_THREADS="1")) < 1.3 * alone


@pytest.mark.parametrize(
    ("sizes", "layers"),
    [
        ((100, 256, 64, 64), 1),
        ((25, 2, 8, 512), 1),
        ((30, 64, 64, 128), 2),
        ((25, 16, 512, 512), 1),  # the last step's tape is let go between forward and backward
    ],
)
def test_steps_of_one_shape_make_no_block(sizes: tuple[int, ...], layers: int) -> None:
    """What decision 21 gained: from the fourth step on."""
    steps, batch, inputs, hidden = sizes
    layer = fastrnn.LSTM(inputs, hidden, layers, bidirectional=layers > 1, rng=0, backend="cpu")
    x = np.ones((steps, batch, inputs), np.float32)
    made = []
    for _ in range(8):
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)
        made.append(core.memory_made())
    assert made[3] == made[-1]


RLIMIT = """
import resource, sys, fastrnn, numpy as np
layer = fastrnn.LSTM(64, 64, rng=0, backend="cpu")
layer(np.ones((1, 1, 64), np.float32))
core = sys.modules["fastrnn._core"]
core.set_memory_patience(10**6)
large = np.ones((6000, 64, 64), np.float32)  # NumPy gives nothing of ours back
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (480 << 20),) * 2)

def step(T):
    x = np.ones((T, 64, 64), np.float32)
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)

step(2000)
print(core.memory_kept() > 100 << 20)
step(2600)  # what is kept makes room
try:
    layer.forward(large)
except MemoryError as error:
    print(error)
step(2600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lack_of_memory() -> None:
    """What is kept goes first; then the error says how much was asked for, and for what."""
    lines = elsewhere(RLIMIT, FASTRNN_NUM_THREADS="1").splitlines()
    assert lines[0] == "True"
    gates = 6000 * 64 * 4 * 64 * 4
    assert lines[1] == f"out of memory: {gates} bytes for the gates that backward needs"
    assert len(lines) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_threads_take_blocks() -> None:
    """No child finds the lock taken."""
    code = """
import os, threading, fastrnn, numpy as np
layer = fastrnn.LSTM(64, 64, rng=0, backend="cpu")
x = np.ones((30, 8, 64), np.float32)
going = True
def work():
    while going:
        layer.forward(x)
with fastrnn.num_threads(1):
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(30):
        child = os.fork()
        if not child:
            layer.forward(x)
            fastrnn.release_memory()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    going = False
    thread.join()
print("ok")
"""
    assert elsewhere(code, FASTRNN_NUM_THREADS="1", PYTHONWARNINGS="ignore") == "ok\n"


@pytest.mark.parametrize(
    ("text", "kept"), [("0", "0"), ("200K", "small"), ("1G", "all"), ("", "all")]
)
def test_the_limit_of_what_is_kept(text: str, kept: str) -> None:
    code = """
import fastrnn, numpy as np, sys
fastrnn.LSTM(64, 64, backend="cpu").forward(np.ones((100, 8, 64), np.float32))
core = sys.modules["fastrnn._core"]
print(core.memory_kept())
"""
    found = int(elsewhere(code, FASTRNN_CACHE_LIMIT=text))
    least, most = {"0": (0, 0), "small": (1, 200 << 10), "all": (800 << 10, 1 << 30)}[kept]
    assert least <= found <= most


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "G", "1GB", "9" * 16])
def test_a_wrong_limit(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRNN_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match="FASTRNN_CACHE_LIMIT must be a number of bytes"):
        fastrnn.backends.cpu.CpuBackend()


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
        kept = [spans[0].passes[0].saved for spans in tape.saved[0].stacks]
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
    before, after = map(int, elsewhere(code, NUMPY_MADVISE_HUGEPAGE="0").split())
    assert before == 0 < after
