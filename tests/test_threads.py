"""Many Python threads on one layer, the engine's own threads, and processes forked after use."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import re
import signal
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
from fastrnn import forks
from fastrnn.backends import numba

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
        thread.join(timeout=1200)  # seconds, which only a hang exceeds
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


HERE = Path(fastrnn.__path__[0]).parent


def in_a_process(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program that has run; one that hangs is a failure."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=HERE)


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
    done = in_a_process(FORK, backend)
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
    done = in_a_process(AFFINITY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


# ---- the end of the interpreter ------------------------------------------------------------------

DAEMON = """
import sys, threading
import numpy as np
import fastrnn

what, backend = sys.argv[1:]
layer = fastrnn.LSTM(24, 96, 2, rng=0, backend=backend)
cell = fastrnn.GRUCell(24, 96, rng=0, backend=backend)
x = np.random.default_rng(0).standard_normal((20, 8, 24), dtype=np.float32)
dy, dh = np.ones((20, 8, 96), np.float32), np.ones((8, 96), np.float32)
logits, targets = np.zeros((2000, 50), np.float32), np.zeros(2000, int)

def freeze():
    layer.freeze()
    layer.unfreeze()

work = {
    "layer": lambda: layer(x),
    "training": lambda: layer.backward(layer.forward(x, checkpoint_every=7)[2], dy),
    "stepper": lambda step=layer.stepper(8): step(x[0]),
    "steppers": lambda: layer.stepper()(x[0, 0]),
    "freeze": freeze,
    "int8": lambda: (layer.freeze("int8"), freeze()),
    "cell": lambda: cell.backward(cell.forward(x[0])[1], dh),
    "losses": lambda: fastrnn.softmax_cross_entropy(logits, targets),
}[what]
work()
many = threading.Semaphore(0)

def run():
    while True:
        work()
        many.release()

for _ in range(1 if what == "stepper" else 3):
    threading.Thread(target=run, daemon=True).start()
for _ in range(6):
    many.acquire()
"""


@pytest.mark.parametrize(
    "what", ["layer", "training", "stepper", "steppers", "freeze", "int8", "cell", "losses"]
)
@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
def test_the_interpreter_ends_while_threads_are_in_calls(what: str) -> None:
    """Daemon threads do not keep a program from its end, and it ends with 0."""
    for _ in range(4):
        done = in_a_process(DAEMON, what, "cpu")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- one stepper and two threads -----------------------------------------------------------------


def test_a_stepper_in_two_threads(backend: str) -> None:
    """Who comes while another is in a step gets an error; what steps were made are whole ones."""
    case = CASE.but(bidirectional=False, lengths="")
    layer = case.layer(backend)
    step, twin = layer.stepper(), layer.stepper()
    x = np.ones(layer.input_size, np.float32)

    def use(rank: int) -> tuple[int, int]:
        done = 0
        said = []
        for n in range(300):
            try:
                if rank == 3 and n % 2:
                    _ = step.state
                else:
                    step(x)
                    done += 1
            except RuntimeError as error:  # noqa: PERF203
                said.append(str(error))
        assert {text[:37] for text in said} <= {"a stepper is for one thread at a time"}
        return done, len(said)

    refused = 0
    for _ in range(20):  # until two have met, if not at once
        for done, more in together(4, use):
            refused += more
            for _ in range(done):
                twin(x)
        if refused:
            break
    assert refused
    assert_same_state(step, twin)


def test_a_stepper_within_its_own_step() -> None:
    """What Python runs in the midst of a step, as a signal's handler, gets the error too."""
    step = fastrnn.GRU(3, 4, rng=0, backend="numpy").stepper()
    x = np.ones(3, np.float32)

    def again() -> None:
        step(x)

    step._advance._passes = [again]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="one thread at a time"):
        step(x)
    for use in (
        lambda: step.state,
        step.reset,
        lambda: setattr(step, "state", np.ones((1, 1, 4), "f")),
    ):
        step._advance._passes = [use]  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="one thread at a time"):
            step(x)


def test_a_step_that_is_interrupted_is_none(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine either makes all of a step or none of it."""
    if backend == "cpu":
        pytest.skip("it has no Python between a step's passes")
    step = fastrnn.LSTM(3, 4, 2, rng=0, backend=backend).stepper()
    twin = copy.copy(step)
    x = np.ones(3, np.float32)
    step(x)
    twin(x)

    def interrupt() -> None:
        raise KeyboardInterrupt

    passes = step._advance._passes  # type: ignore[attr-defined]
    step._advance._passes = [passes[0], interrupt, passes[1]]  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        step(x)
    assert_same_state(step, twin)
    step._advance._passes = passes  # type: ignore[attr-defined]
    assert step(x).tobytes() == twin(x).tobytes()


# ---- copies of steppers --------------------------------------------------------------------------


def assert_same_state(step: Any, other: Any) -> None:
    assert [s.tobytes() for s in unpack(step.state)] == [s.tobytes() for s in unpack(other.state)]


def by_pickle(step: Any) -> Any:
    return pickle.loads(pickle.dumps(step))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, by_pickle])
@pytest.mark.parametrize("kind", ["rnn_relu", "gru", "lstm"])
@pytest.mark.parametrize("weights", ["plain", "frozen", "int8", "thawed", "frozen anew"])
def test_a_stepper_is_copied(backend: str, kind: str, weights: str, duplicate: Any) -> None:
    """A copy goes on from the same state with the same weights, apart from the first."""
    case = Case(kind, (6, 3, 5, 7), layers=2, dtype="float32", seed=4)
    layer, x = case.layer(backend), case.call().x
    if weights != "plain":
        layer.freeze("int8" if weights in ("int8", "thawed") else None)
    with fastrnn.num_threads(1):
        step, want = layer.stepper(3), layer.stepper(3)
    for each in x[:3]:
        step(each)
        want(each)
    if weights == "frozen anew":
        layer.freeze("bfloat16")
    if weights in ("thawed", "frozen anew"):
        layer.unfreeze()
    if weights in ("thawed", "frozen anew", "plain"):
        layer.flat_params *= 2  # of no effect on steppers
    copied = duplicate(step)
    assert type(copied) is type(step)
    assert copied.batch_size == 3
    assert_same_state(copied, want)
    twice = duplicate(copied)
    for each in x[3:]:
        assert copied(each).tobytes() == want(each).tobytes()
        assert step(each).tobytes() == want._y.tobytes()
    copied.reset()
    assert_same_state(step, want)
    for each in x[3:]:
        twice(each)
    assert_same_state(twice, want)


# ---- forks while locks are held ------------------------------------------------------------------

FORK_IN_THE_MIDST = """
import os, signal, sys, threading, time
import numpy as np
import fastrnn

what, backend = sys.argv[1:]
layer = fastrnn.LSTM(24, 96, 2, rng=0, backend=backend)
x = np.random.default_rng(0).standard_normal((9, 4, 24), dtype=np.float32)
want = layer(x)[0].tobytes()
step = layer.stepper()
stop = threading.Event()

def freeze():
    layer.freeze()
    layer.unfreeze()

def step_once():
    try:
        step(x[0, 0])
    except RuntimeError:
        pass

work = {
    "freeze": freeze,
    "int8": lambda: layer.freeze("int8") or layer.unfreeze(),
    "call": lambda: layer(x),
    "training": lambda: layer.backward(layer.forward(x)[2], np.ones((9, 4, 96), "f")),
    "stepper": step_once,
    "steppers": lambda: layer.stepper()(x[0, 0]),
}[what]

def run():
    while not stop.is_set():
        work()

def child():
    layer.freeze()
    assert layer(x)[0].tobytes() == want
    layer.unfreeze()
    layer.flat_params *= 1  # writeable
    layer.backward(layer.forward(x)[2], np.ones((9, 4, 96), "f"))
    step.reset()
    step(x[0, 0])
    layer.freeze("bfloat16")

threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads:
    thread.start()
try:
    for _ in range(6):
        time.sleep(0.002)
        pid = os.fork()
        if pid == 0:
            signal.alarm(600)  # one that hangs
            status = 1
            try:
                child()
                status = 0
            except BaseException as error:
                print(repr(error), flush=True)
            os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
finally:
    stop.set()
for thread in threads:
    thread.join()
print("right")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("what", ["freeze", "int8", "call", "training", "stepper", "steppers"])
def test_fork_while_other_threads_hold_locks(backend: str, what: str) -> None:
    if backend == "numba":
        pytest.skip("Numba and its BLAS have locks of their own, which a child finds taken")
    done = in_a_process(FORK_IN_THE_MIDST, what, backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


FORK_AS_A_LOCK_CHANGES_HANDS = """
import os, signal, sys, threading, time
import fastrnn

layer = fastrnn.GRU(3, 4, rng=0, backend=sys.argv[1])
sys.setswitchinterval(1000)  # no thread loses the GIL unless it gives it up
layer._lock.acquire()
thread = threading.Thread(target=layer.freeze)
thread.start()
time.sleep(0.3)  # it waits for the lock
layer._lock.release()
end = time.monotonic() + 0.1
while time.monotonic() < end:  # it has the lock now, but not the GIL
    pass
pid = os.fork()
if pid == 0:
    signal.alarm(30)  # one that hangs
    layer.freeze()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
thread.join()
print("right")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_as_a_lock_changes_hands() -> None:
    """A lock that says it is free, and is not."""
    done = in_a_process(FORK_AS_A_LOCK_CHANGES_HANDS, "numpy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


def test_locks_are_free_in_a_child() -> None:
    """Every lock of the package: held by a thread as a child is made, free there."""
    layer = fastrnn.GRU(3, 4, rng=0, backend="numpy")
    step = layer.stepper()
    lock = forks.Lock()
    with lock.held, layer._lock, step._advance.exclusive():
        layer.params.set_writeable(False)  # as in the midst of freeze()
        forks._in_child()
        with lock.held:
            pass
        step.reset()
        layer.flat_params *= 2
        layer.freeze()
    package = Path(fastrnn.__path__[0])
    made = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"threading\.R?Lock\(|Condition\(", path.read_text())
    ]
    assert sorted(made) == ["forks.py", "freezing.py"]


# ---- the caller's floating-point mode ------------------------------------------------------------

FLOAT_MODE = """
import ctypes, platform, sys
import numpy as np
import fastrnn

layer = fastrnn.LSTM(24, 64, 2, rng=0, backend="cpu")
for name, value in layer.params.items():
    if name.startswith("bias"):
        value[:] = 0
# states, products and gradients from 1e-38 on, and so denormal ones among them
x = np.random.default_rng(0).standard_normal((12, 32, 24), dtype=np.float32) * np.float32(1e-38)
dy = np.full((12, 32, 64), 1e-38, np.float32)

def bits(threads):
    with fastrnn.num_threads(threads):
        y, state, tape = layer.forward(x)
        grads = layer.backward(tape, dy)
        return [a.tobytes() for a in (y, *state, grads.x, grads.flat, layer(x)[0])]

def check(set_mode, unset_mode):
    plain = bits(1)
    set_mode()
    other = bits(1)
    for _ in range(20):
        assert bits(2) == other  # on all threads
    unset_mode()
    assert other != plain
    for _ in range(20):
        assert bits(2) == plain  # which do not keep it
    return np.frombuffer(other[0], np.float32)

mode = sys.argv[1]
if mode == "rounding":
    up = {"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]
    libm = ctypes.CDLL("libm.so.6")
    check(lambda: libm.fesetround(up), lambda: libm.fesetround(0))
    assert libm.fegetround() == 0
else:
    if mode == "torch":
        import torch
        set_mode = torch.set_flush_denormal
    else:
        set_mode = fastrnn.set_flush_denormals
    y = check(lambda: set_mode(True), lambda: set_mode(False))
    assert not np.any((y != 0) & (np.abs(y) < np.finfo(np.float32).tiny))
    if mode == "fastrnn":  # it is the calls' mode and not the thread's
        fastrnn.set_flush_denormals(True)
        layer(x)
        assert np.float32(1e-38) * np.float32(0.1) > 0
        step = layer.stepper(32)
        fastrnn.set_flush_denormals(False)
        assert np.any((step(x[0]) != 0) & (np.abs(step(x[0])) < np.finfo(np.float32).tiny))
print("right")
"""


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.skipif(sys.platform != "linux", reason="the C library is found by Linux's name")
@pytest.mark.parametrize("mode", ["rounding", "torch", "fastrnn"])
def test_the_callers_floating_point_mode(mode: str) -> None:
    """It is that of all threads of a call, and of no other call."""
    done = in_a_process(FLOAT_MODE, mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


# ---- signals -------------------------------------------------------------------------------------

INTERRUPT = """
import ctypes, gc, os, resource, signal, sys, threading, time
import numpy as np
import fastrnn

what, threads = sys.argv[1], int(sys.argv[2])
fastrnn.set_num_threads(threads)
T, B = 60000, {"by rows": 16, "by units": 1}.get(what, 3)
H = 512 if what == "by units" else 128
layer = fastrnn.LSTM(8, H, 1 if what.startswith("by") else 2, rng=0, backend="cpu",
                     bidirectional=what == "checkpoints")
x = np.broadcast_to(np.float32(0), (T, B, 8))
how = {"checkpoint_every": T // 2} if what == "checkpoints" else {}
if what == "ragged":
    how["lengths"] = [T, T // 3, 5]

class Enough(Exception):
    pass

def handler(number, frame):
    raise Enough

signal.signal(signal.SIGALRM, handler)

def interrupted(call):
    "Seconds of CPU time that a call goes on after the signal."
    start = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        call()
    except Enough:
        return time.process_time() - start
    raise AssertionError("not interrupted")

short, few = x[:9], {k: [9, 3, 2] if k == "lengths" else 4 for k in how}
y, _, tape = layer.forward(short, **few)
want = layer.backward(tape, np.ones_like(y)).flat.tobytes()
N = 4000
much = {k: [N, 9, 0] if k == "lengths" else N // 2 for k in how}
long_tape = layer.forward(x[:N], **much)[2]
dy = np.ones((N, *y.shape[1:]), np.float32)
signal.setitimer(signal.ITIMER_REAL, 0)
kept = []
for _ in range(4):
    forward = layer.forward if what == "checkpoints" else layer
    for call in (lambda: forward(x, **how), lambda: layer.backward(long_tape, dy)):
        assert interrupted(call) < 2.0 * threads, "late"
        # nothing is lost: the tape, the layer, the threads
        assert layer.backward(tape, np.ones_like(y)).flat.tobytes() == want
    gc.collect()
    kept.append(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize())
assert kept[-1] < kept[1] + (64 << 20), kept  # one forward's y and gates are more
print("right")
"""


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and interval timers")
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("what", ["by rows", "by units", "ragged", "checkpoints"])
def test_a_signal_ends_a_long_call(what: str, threads: str) -> None:
    done = in_a_process(INTERRUPT, what, threads)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


CTRL_C = """
import signal, sys, threading
import numpy as np
import fastrnn

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may have it ignored
layer = fastrnn.LSTM(8, 128, rng=0, backend=sys.argv[1])
layer(np.zeros((2, 1, 8), np.float32))  # compiled
try:
    print("ready", flush=True)
    while True:
        layer(np.zeros((20000, 4, 8), np.float32))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c(backend: str) -> None:
    command = [sys.executable, "-c", CTRL_C, backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=1200)
    assert (process.returncode, output) == (0, "interrupted\n")


ELSEWHERE = """
import signal, sys, threading, time
import numpy as np
import fastrnn

layer = fastrnn.LSTM(8, 64, rng=0, backend="cpu")
x = np.zeros((40000, 4, 8), np.float32)
handled = []
signal.signal(signal.SIGALRM, lambda number, frame: handled.append(threading.current_thread()))
results = []
thread = threading.Thread(target=lambda: results.append(layer(x)))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
thread.start()
mine = layer(x)  # a handler that raises nothing ends nothing
thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(handled) == {threading.main_thread()}
assert results[0][0].tobytes() == mine[0].tobytes()

def nested(number, frame):
    handled.append(layer(x[:50])[0].tobytes())  # the layer can be used in a handler

handled.clear()
signal.signal(signal.SIGALRM, nested)
signal.setitimer(signal.ITIMER_REAL, 0.05)
assert layer(x)[0].tobytes() == mine[0].tobytes()
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(handled) == {layer(x[:50])[0].tobytes()}
print("right")
"""


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_handlers_run_in_the_main_thread_and_calls_go_on() -> None:
    done = in_a_process(ELSEWHERE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


@pytest.mark.skipif("numba" not in BACKENDS, reason="numba is not under test")
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "gru_reset_before", "lstm_peephole"])
@pytest.mark.parametrize("rows", ["whole", "ragged", "resets"])
def test_pieces_of_a_call_make_the_same(
    monkeypatch: pytest.MonkeyPatch, kind: str, rows: str
) -> None:
    """Between pieces, Numba's loops let Python handle signals."""
    case = Case(kind, (13, 300, 3, 4), layers=2, bidirectional=True)  # one or two steps a product
    how = {"ragged": {"lengths": "zeros"}, "resets": {"resets": "often"}}.get(rows, {})
    case = case.but(**how)
    layer, call = case.layer("numba"), case.call()
    want = run(layer, call)
    pieces: list[int] = []

    class Counted(numba._Pieces):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            pieces.append(self.count)

    monkeypatch.setattr(numba, "_Pieces", Counted)
    monkeypatch.setattr(numba, "PIECE", 1)
    got = run(layer, call)
    assert set(pieces) == {13}
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-11, err_msg=name)
