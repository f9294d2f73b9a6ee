"""How many CPUs this process may use, as the system says.

A process may be bound to some CPUs (its affinity), and Linux may give it less time than these
have: a quota of its control group, which is how ``docker run --cpus=2``, Kubernetes and Slurm limit
it. Both versions of control groups are read as cgroups(7) and the kernel's documentation of
cgroup-v2 and of CFS bandwidth control describe them.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeAlias

_Read: TypeAlias = Callable[[Path], float | None]


def available(root: Path = Path("/")) -> int:
    """Return the number of CPUs to use: those of the affinity, or fewer where a quota gives less.

    Parameters
    ----------
    root : where /proc and what /proc/self/mountinfo names are found
    """
    if sys.platform == "emscripten":  # a WebAssembly module has one thread
        return 1
    bound = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    limit = quota(root)
    return cpus if limit is None else max(1, min(cpus, math.ceil(limit)))


def quota(root: Path = Path("/")) -> float | None:
    """Return the least quota of this process's control groups, in CPUs; None if there is none.

    A group has at most what each group above it has. What cannot be read, or makes no sense, limits
    nothing: it is not the user's to mend.
    """
    limits = [
        limit
        for mount, group, read in _hierarchies(root)
        for each in (group, *group.parents)
        if (limit := read(_below(root, mount) / each)) is not None
    ]
    return min(limits, default=None)


def _hierarchies(root: Path) -> Iterator[tuple[str, PurePosixPath, _Read]]:
    """Yield where control groups of the CPU are mounted, this process's group there, and what
    reads a group's quota."""
    own = dict(_own_groups(root))
    for line in _lines(root / "proc/self/mountinfo"):
        # 36 35 98:0 /root /mount options, optional fields - type source super-options
        fields, dash, rest = line.partition(" - ")
        words, kind = fields.split(), rest.split()
        if not dash or len(words) < 5 or len(kind) < 3:
            continue
        controllers = kind[2].split(",") if kind[0] == "cgroup" else [""]
        name = "cpu" if "cpu" in controllers else ""
        if kind[0] not in ("cgroup", "cgroup2") or (kind[0] == "cgroup" and not name):
            continue
        if name not in own:
            continue
        shown, mount = PurePosixPath(_unescaped(words[3])), _unescaped(words[4])
        # In a container the mount may show a part only, of which the process's group is the top.
        group = own[name]
        inside = group.relative_to(shown) if group.is_relative_to(shown) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()
        yield mount, inside, _read_v1 if name else _read_v2


def _own_groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield controllers and this process's group: "cpu" of version 1, "" of version 2."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        names = controllers.split(",")
        if colon and ("cpu" in names or not controllers):
            yield "cpu" if controllers else "", PurePosixPath(path)


def _read_v2(group: Path) -> float | None:
    words = " ".join(_lines(group / "cpu.max")).split()
    return _ratio(*words) if len(words) == 2 else None


def _read_v1(group: Path) -> float | None:
    quota, period = (_lines(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _ratio(quota[0], period[0]) if quota and period else None


def _ratio(quota: str, period: str) -> float | None:
    """Return a quota in CPUs; None for "max", -1 and whatever is none."""
    try:
        limit, per = int(quota), int(period)
        return limit / per if limit > 0 and per > 0 else None
    except (ValueError, OverflowError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(word: str) -> str:
    """Return a word of mountinfo, which has spaces and such as octal numbers."""
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        word = word.replace(code, character)
    return word


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")
