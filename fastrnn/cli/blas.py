"""NumPy's matrix products on one thread, in a process that trains with the layers."""

from __future__ import annotations

import os
import signal
import sys

from fastrnn import config

_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
)


def restart_on_one_thread() -> None:
    """Start this program anew with a BLAS of one thread, unless the user has set a number.

    OpenBLAS's threads go on spinning for some milliseconds after each product, on the cores that
    the layers' threads then need: a demo update took 130 to 250 ms with them and 36 to 88 ms
    without, on two busy cores (docs/adr/0006-one-blas-thread-in-the-demo.md). BLAS libraries read
    the number when NumPy loads them, which is before any of our code runs.
    """
    if os.name == "nt" or any(name in os.environ for name in _VARIABLES):
        return  # Windows has no exec: the shell would not wait for the new process
    environment = os.environ | dict.fromkeys(_VARIABLES, "1")
    if not environment.get("FASTRNN_NUM_THREADS"):  # OMP_NUM_THREADS would count for the layers too
        environment["FASTRNN_NUM_THREADS"] = str(config.get_num_threads())
    sys.stdout.flush()
    # an interrupt of the new program's start waits until `take_interrupts`
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def take_interrupts() -> None:
    """Let this process be interrupted, also by what has come while it started anew."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
