"""The real CuPy where there is no GPU: each test is a process of its own, without torch, whose
libraries would be CuPy's too. Needs the extra [cuda-test]."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cupy", reason='CuPy comes with the extra "cuda-test"')

ROOT = Path(__file__).parents[2]

# What asks a driver for a GPU, answered; all else is CuPy's own.
BEGIN = """
import sys
sys.modules["torch"] = None
import cupy
class Device:
    id, compute_capability = 0, "90"
cupy.cuda.Device = Device
cupy.cuda.runtime.getDeviceCount = lambda: 1
from fastrnn.backends.cuda import why_not
from fastrnn.backends.cuda.device import CupyDevice
"""


def run(text: str) -> list[str]:
    """Run a program after BEGIN where the loader finds no CUDA by itself; return its lines."""
    named = ("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_PATH", "CUDA_HOME", "CONDA_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", BEGIN + text]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_cublas_is_found_where_pip_puts_it() -> None:
    """`pip install "cupy-cuda13x[ctk]"` is enough: no CUDA toolkit, and no path to one."""
    usable, loaded, product = run("""
import ctypes
try:
    ctypes.CDLL("libcublas.so.13")
except OSError:
    pass
else:
    sys.exit("the loader knows cuBLAS by itself: nothing is tested")
print(why_not())
device = CupyDevice()
maps = open("/proc/self/maps").read().split()
print(*{path for path in maps if "libcublas.so" in path})
print(device._cublas.gemmEx.__doc__)
""")
    assert usable == "None"
    assert "site-packages/nvidia/" in loaded or "dist-packages/nvidia/" in loaded
    assert product == (
        "gemmEx(intptr_t handle, int transa, int transb, int m, int n, int k, size_t alpha, "
        "size_t A, int Atype, int lda, size_t B, int Btype, int ldb, size_t beta, size_t C, "
        "int Ctype, int ldc, int computeType, int algo)"
    )


@pytest.mark.parametrize("library", ["NVRTC", "cuBLAS"])
def test_what_is_not_installed_is_said_in_a_line(library: str) -> None:
    said = run(f"""
from cuda import pathfinder
load = pathfinder.load_nvidia_dynamic_lib
def find(name):
    if name != "{library.lower()}":
        return load(name)
    raise pathfinder.DynamicLibNotFoundError("Failure finding it\\n  listdir(...):\\n    libm.so")
pathfinder.load_nvidia_dynamic_lib = find
print(why_not())
""")
    assert said == [f'{library} cannot be loaded (Failure finding it): pip install "fastrnn[cuda]"']


def test_a_refusal_of_cublas_is_known_by_its_class() -> None:
    """What a recording must expect; without a GPU cuBLAS makes no handle."""
    name, status, refused = run("""
device = CupyDevice()
error = device._cublas.CUBLASError
try:
    device._cublas.create()
except error as raised:
    print(type(raised).__name__, raised.status, isinstance(raised, RuntimeError), sep="\\n")
""")
    assert (name, refused) == ("CUBLASError", "True")
    assert int(status) > 0
