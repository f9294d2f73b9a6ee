"""Installs the package as a user would who is offline, for the phases that follow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    begin = time.monotonic()
    source, site = out / "source", out / "site"
    for folder in (source, site):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "fastrnn", source / "fastrnn", ignore=shutil.ignore_patterns("*.so"))
    # No isolation and no dependencies: either would fetch something.
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-build-isolation"]
    command += ["--no-deps", "--no-cache-dir", "--target", str(site), str(source)]
    # The C++ engine has no part in this, and takes minutes.
    done = subprocess.run(command, env={**os.environ, "FASTRNN_NO_EXT": "1"}, stdout=sys.stderr)
    shutil.rmtree(source)
    kernels = sorted(path.name for path in site.glob("fastrnn/kernels/cuda/*.cu"))
    if done.returncode:
        shutil.rmtree(site, ignore_errors=True)  # the phases that follow take the tree
    yield {
        "ok": done.returncode == 0 and bool(kernels),
        "kernels": kernels,
        "s": round(time.monotonic() - begin, 1),
    }
