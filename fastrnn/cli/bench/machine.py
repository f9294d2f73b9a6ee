"""Facts about the machine and the software that a figure depends on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ... import show_config

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_PACKAGES = ("numpy", "numba", "torch", "onnx", "onnxruntime", "openvino", "jax", "jaxlib")


def facts(threads: int) -> dict[str, str]:
    """What the report says of the machine."""
    config: dict[str, Any] = show_config("dicts")
    return {
        "processor": _processor(),
        "CPUs": f"{os.cpu_count()}, of which this process may use {_usable()}",
        "caches": _caches() or "not known",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "instruction set of fastrnn": str(config["instruction set"]),
        "threads": str(threads),
        "date": datetime.now(timezone.utc).isoformat(" ", "seconds"),
    }


def line(facts: Mapping[str, str]) -> str:
    """The processor, the instruction set and the threads, in a line."""
    names = ("processor", "instruction set of fastrnn", "threads")
    processor, isa, threads = (facts.get(name, "not known").partition(":")[0] for name in names)
    return f"{processor}, {isa}, {threads} {'thread' if threads == '1' else 'threads'}"


def versions() -> dict[str, str]:
    """Of Python, fastrnn and everything that takes part."""
    config: dict[str, Any] = show_config("dicts")
    found = {name: version(name) for name in _PACKAGES}
    return {
        "python": config["python"],
        "fastrnn": config["fastrnn"],
        **{name: number for name, number in found.items() if number is not None},
    }


def version(package: str) -> str | None:
    """Return the version of what is installed, or None; nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def restrict(threads: int) -> str:
    """Let this process use so many CPUs only; return what was done.

    Some libraries size their pools by the CPUs they may use, and not by any setting. It must come
    before they are imported, and before any thread starts.
    """
    if not hasattr(os, "sched_setaffinity"):
        return "each library set to the number of threads; this system cannot restrict a process"
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)
    return f"this process on CPUs {', '.join(map(str, cpus))}, and each library set to {threads}"


def _usable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _caches() -> str:
    """Sizes of the first CPU's caches that hold data."""
    found = []
    for index in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)
