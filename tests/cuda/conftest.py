"""The backend "cuda" on the emulated device."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import numpy as np
import pytest
from emulator import EmulatedDevice

import fastrnn.backends
from fastrnn.backends.cuda import CudaBackend


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip unless there is a compiler for the emulator; on Linux, CI must have one."""
    if sys.platform != "linux":
        pytest.skip("the emulator's fibers are those of Linux")
    program = os.environ.get("CXX", "g++")
    if shutil.which(program) is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"the emulator needs {program}")


@pytest.fixture(scope="session")
def emulated(compiler: None) -> CudaBackend:
    """A backend that keeps what it has compiled."""
    return CudaBackend(EmulatedDevice())


@pytest.fixture
def device(emulated: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The emulated device, which is what backend="cuda" means here."""
    real = fastrnn.backends._get
    monkeypatch.setattr(
        fastrnn.backends, "_get", lambda name: emulated if name == "cuda" else real(name)
    )
    found: Any = emulated._device
    found.seed = 0
    found.multiprocessors = 0  # steps; test_persistent.py has its own way
    found.launches.clear()
    return found


@pytest.fixture(params=["numpy", "cuda"])
def side(request: Any) -> tuple[str, Any]:
    """A backend and the namespace of its arrays."""
    if request.param == "numpy":
        return "numpy", np
    request.getfixturevalue("device")
    backend: Any = fastrnn.backends.get("cuda")
    assert isinstance(backend, CudaBackend)
    return "cuda", backend.xp
