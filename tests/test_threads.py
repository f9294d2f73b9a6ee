"""Many Python threads on one layer, the engine's own threads, and processes forked after use."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import KINDS, Case, Results, back, run, same_bits, unpack
from grid import BACKENDS, per_backend

import fastrnn

# Large enough for the engine to use its threads.
CASE = Case(
    "lstm", (15, 33, 24, 48), layers=2, bidirectional=True, dtype="float32", lengths="zeros"
)


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)` .. `work(count - 1)` return, all started at the same moment."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def target(rank: int) -> None:
        gate.wait()
        try:
            results[rank] = work(rank)
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=target, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=1800)
        assert not thread.is_alive(), "a thread hangs"
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


MIXTURES = [(kind, how) for kind in KINDS for how in ("plain", "frozen")]


@pytest.mark.parametrize(
    ("backend", "mixture"),
    per_backend(MIXTURES, MIXTURES[::7], slow=("numpy", "numba")),
    indirect=["backend"],
)
def test_eight_threads_on_one_layer(backend: str, mixture: tuple[str, str]) -> None:
    """Each runs its own batches forward and backward, and gets the single-thread bits."""
    kind, how = mixture
    # Only the extension has threads of its own to wake; BLAS's would fight over the cores for long.
    case = CASE.but(kind=kind, sizes=CASE.sizes if backend == "cpu" else (5, 9, 8, 7))
    layer = case.layer(backend)
    if how == "frozen":
        layer.freeze()
    calls = [case.but(seed=rank).call() for rank in range(8)]
    want = [run(layer, call) for call in calls]

    def work(rank: int) -> list[Results]:
        with fastrnn.num_threads(1 + rank % 2):
            return [run(layer, calls[(rank + n) % 8]) for n in range(4)]

    for rank, results in enumerate(together(8, work)):
        for n, got in enumerate(results):
            same_bits(got, want[(rank + n) % 8])


def test_one_tape_from_many_threads(backend: str) -> None:
    layer, call = CASE.layer(backend, dropout=0.3), CASE.call()
    for how in ({}, {"checkpoint_every": 4}):
        tape = layer.forward(call.x, call.state, **call.how, rng=1, **how)[2]
        want = back(layer, tape, call)
        for got in together(8, lambda rank, tape=tape: back(layer, tape, call)):
            same_bits(got, want)


def test_freezing_while_others_run(backend: str) -> None:
    """freeze() and unfreeze() change no result of the calls that run meanwhile."""
    layer, call = CASE.layer(backend), CASE.call()
    want, _ = layer(call.x)

    def work(rank: int) -> list[Any]:
        if rank == 0:
            for _ in range(50):
                layer.freeze()
                layer.unfreeze()
            return []
        return [layer(call.x)[0] for _ in range(4)]

    for results in together(4, work):
        for y in results:
            assert y.tobytes() == want.tobytes()


def test_steppers_of_one_layer(backend: str) -> None:
    """One stream a thread, each with a stepper of its own."""
    case = CASE.but(bidirectional=False, lengths="")
    layer, call = case.layer(backend), case.call()

    def stream(row: int) -> bytes:
        step = layer.stepper()
        return b"".join(step(x).tobytes() for x in np.ascontiguousarray(call.x[:, row]))

    want = [stream(row) for row in range(8)]
    assert together(8, stream) == want


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
def test_a_call_lets_other_threads_run() -> None:
    """Without the GIL in the extension, this thread counts on while another is in a long call."""
    layer = fastrnn.LSTM(64, 256, rng=0, backend="cpu")
    x = np.zeros((400, 16, 64), np.float32)
    layer(x[:2])
    done = threading.Event()

    def call() -> None:
        with fastrnn.num_threads(1):
            layer(x)
        done.set()

    thread = threading.Thread(target=call)
    thread.start()
    turns = 0
    while not done.is_set():
        turns += 1
    thread.join()
    # With the GIL held throughout there is a handful of turns, before the call and after it.
    assert turns > 1000


FORK = """
import multiprocessing, sys
import numpy as np
import fastrnn

layer = fastrnn.LSTM(24, 48, 2, bidirectional=True, rng=0, backend=sys.argv[1])
x = np.random.default_rng(0).standard_normal((10, 33, 24), dtype=np.float32)

def bits():
    y, state, tape = layer.forward(x)
    grads = layer.backward(tape, np.ones_like(y))
    return [a.tobytes() for a in (y, *state, grads.x, grads.flat)]

def child(queue, depth):
    first = bits()
    if depth:  # a child that has used the engine forks again
        inner = fork(depth - 1)
        queue.put([first, *inner])
    else:
        queue.put([first])

def fork(depth):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue, depth))
    process.start()
    results = queue.get()
    process.join()
    assert process.exitcode == 0, process.exitcode
    return results

fastrnn.set_num_threads(2)
want = bits()  # the engine's threads are there now
for got in fork(1) + fork(0) + [bits()]:
    assert got == want
print("right")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_after_use(backend: str) -> None:
    """A child has none of its parent's threads; it must neither wait for them nor compute else."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, backend],
        capture_output=True,
        text=True,
        timeout=1800,  # one that hangs is a failure
        cwd=Path(fastrnn.__path__[0]).parent,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


def test_spawned_processes(backend: str) -> None:
    """A layer sent to another process by pickle gives the same bits there."""
    layer, call = CASE.layer(backend), CASE.call()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        y, state = pool.apply(layer, (call.x,))
    want, final = layer(call.x)
    assert y.tobytes() == want.tobytes()
    assert [s.tobytes() for s in unpack(state)] == [s.tobytes() for s in unpack(final)]


AFFINITY = """
import os
from pathlib import Path
import numpy as np
import fastrnn

fastrnn.set_num_threads(2)
layer = fastrnn.LSTM(64, 256, rng=0, backend="cpu")
x = np.ones((20, 1, 64), np.float32)

mine = os.sched_getaffinity(0)
layer(x)
tasks = Path("/proc/self/task").iterdir()
(worker,) = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == "fastrnn"]
assert os.sched_getaffinity(0) == mine
kept = os.sched_getaffinity(worker)
assert kept < mine and len(kept) == len(mine) - 1, (kept, mine)

(one,) = wish = mine - kept  # what somebody else wants, and the pool did not
os.sched_setaffinity(worker, wish)
for cpu in (one, *kept, one):
    os.sched_setaffinity(0, {cpu})
    layer(x)
    assert os.sched_getaffinity(worker) == wish
print("right")
"""


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="this system says nothing of CPUs, or there is one",
)
def test_a_worker_keeps_off_its_callers_cpu() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFFINITY],
        capture_output=True,
        text=True,
        timeout=1800,
        cwd=Path(fastrnn.__path__[0]).parent,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")
