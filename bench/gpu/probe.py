"""What machine this is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import setting


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    torch = setting.torch_if_any()
    yield {
        "python": platform.python_version(),
        "Python.h": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
        "processors": os.cpu_count(),
        "torch": None if torch is None else torch.__version__,
        "cuDNN": None if torch is None else torch.backends.cudnn.version(),
    }
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
        smi = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        done = subprocess.run(smi, capture_output=True, text=True)
        yield {"nvidia-smi": (done.stdout + done.stderr).strip()}
    import numpy as np

    import fastrnn

    usable = "emulated" if emulated else fastrnn.backends.why_not("cuda") or "usable"
    yield {"fastrnn": fastrnn.__version__, "numpy": np.__version__, "cuda": usable}
    backend = setting.backend(emulated)
    device = backend._device
    yield {
        "device": device.name,
        "capability": device.capability,
        "nvrtc": list(device.nvrtc),
        "multiprocessors": device.multiprocessors,
        "shared_memory": device.shared_memory,
        "cupy": backend.xp.__version__,
    }
    if not emulated:
        runtime = backend.xp.cuda.runtime
        yield {
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
            "attributes": dict(backend.xp.cuda.Device().attributes),
        }
