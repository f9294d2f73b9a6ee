"""Threads and show_config."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import config, cpus


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTRNN_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(config, "_everywhere", None)


def elsewhere(question: Callable[[], Any]) -> Any:
    """The answer of another thread."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(question()))
    thread.start()
    thread.join()
    return answers[0]


def test_default_is_the_cpus_of_this_process() -> None:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert affinity is not None
    limit = cpus.quota()
    expected = affinity if limit is None else min(affinity, max(1, math.ceil(limit)))
    assert fastrnn.get_num_threads() == expected


@pytest.mark.parametrize(
    ("text", "threads"), [("3", 3), (" 5 ", 5), ("4,2", 4), ("2, 1", 2), ("99999", 1024)]
)
def test_openmps_number(monkeypatch: pytest.MonkeyPatch, text: str, threads: int) -> None:
    """It counts where FASTRNN_NUM_THREADS does not, whatever the CPUs."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert fastrnn.get_num_threads() == threads
    monkeypatch.setattr(config, "_everywhere", None)
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "7")
    assert fastrnn.get_num_threads() == 7


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ",", ",2", "2;1", "9" * 9999])
def test_openmps_number_with_nonsense(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It is no setting of ours: a warning, once, and what would hold without it."""
    without = fastrnn.get_num_threads()
    monkeypatch.setattr(config, "_everywhere", None)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.warns(RuntimeWarning, match=r"^OMP_NUM_THREADS must be .*, got .*: ignored$"):
        assert fastrnn.get_num_threads() == without
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastrnn.get_num_threads()
    monkeypatch.setattr(config, "_everywhere", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "  ")  # as if it were not set
    assert fastrnn.get_num_threads() == without


# What Linux shows: mount points of control groups and this process's own group.
V2 = "35 24 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
CPU1 = "sys/fs/cgroup/cpu,cpuacct/"


def test_webassembly_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert cpus.available() == fastrnn.get_num_threads() == 1


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "limit"),
    [
        # version 2: docker --cpus=2 in a namespace of its own; no limit; half a CPU
        ([V2], ["0::/"], {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        ([V2], ["0::/"], {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ([V2], ["0::/"], {"sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        # the top group has no such file
        ([V2], ["0::/a/b"], {"sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        # the least of all groups above counts
        (
            [V2],
            ["0::/a/b"],
            {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "300000 100000"},
            3.0,
        ),
        (
            [V2],
            ["0::/a/b"],
            {"sys/fs/cgroup/a/b/cpu.max": "100000 50000", "sys/fs/cgroup/a/cpu.max": "3000 1000"},
            2.0,
        ),
        # version 1, beside a controller of something else
        (
            [MEMORY, V1],
            ["9:memory:/m", "4:cpu,cpuacct:/jobs/7"],
            {
                CPU1 + "jobs/7/cpu.cfs_quota_us": "250000",
                CPU1 + "jobs/7/cpu.cfs_period_us": "100000",
                CPU1 + "cpu.cfs_quota_us": "-1",
                CPU1 + "cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            [V1],
            ["4:cpu,cpuacct:/"],
            {CPU1 + "cpu.cfs_quota_us": "-1", CPU1 + "cpu.cfs_period_us": "100000"},
            None,
        ),
        # a container that sees the host's name of its group, which is mounted as the top
        (
            [V1.replace("/ /sys", "/docker/1f /sys")],
            ["4:cpu,cpuacct:/docker/1f"],
            {CPU1 + "cpu.cfs_quota_us": "400000", CPU1 + "cpu.cfs_period_us": "100000"},
            4.0,
        ),
        (
            [V2.replace("/ /sys", "/.. /sys")],
            ["0::/../../x"],
            {"sys/fs/cgroup/cpu.max": "100000 100000"},
            1.0,
        ),
        # both versions side by side; a name with a space
        (
            [V1, V2.replace("/sys/fs/cgroup", r"/mnt/a\040b")],
            ["4:cpu,cpuacct:/", "0::/s"],
            {
                CPU1 + "cpu.cfs_quota_us": "800000",
                CPU1 + "cpu.cfs_period_us": "100000",
                "mnt/a b/s/cpu.max": "600000 100000",
            },
            6.0,
        ),
        # nothing of the kind, or nothing that makes sense
        ([], [], {}, None),
        ([V2], ["0::/"], {}, None),
        ([MEMORY], ["9:memory:/m", "0::/"], {}, None),
        ([V1], ["4:cpu,cpuacct:/"], {CPU1 + "cpu.cfs_quota_us": "100000"}, None),
        *(
            ([V2], ["0::/"], {"sys/fs/cgroup/cpu.max": text}, None)
            for text in ("", "two 100000", "100000", "100000 0", "-5 100000", "9" * 999 + " 1")
        ),
        (["nonsense", "1 2 3 - cgroup2", V2 + " -"], ["nonsense", "::", "0"], {}, None),
    ],
)
def test_quota_of_control_groups(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mounts: list[str],
    groups: list[str],
    files: dict[str, str],
    limit: float | None,
) -> None:
    proc = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups}
    for name, text in {**{name: "\n".join(lines) for name, lines in proc.items()}, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cpus.quota(tmp_path) == limit
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert cpus.available(tmp_path) == (64 if limit is None else math.ceil(limit))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert cpus.available(tmp_path) == 1


def test_default_minds_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "quota", lambda root: 0.3)
    assert fastrnn.get_num_threads() == 1


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRNN_NUM_THREADS", " 3 ")
    assert fastrnn.get_num_threads() == 3
    # Asked once: what comes later does not count.
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "4")
    assert fastrnn.get_num_threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1025", "9" * 9999])
def test_environment_with_nonsense(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Raised by the first call that needs it, not at import; a number set in Python overrides."""
    monkeypatch.setenv("FASTRNN_NUM_THREADS", text)
    with pytest.raises(ValueError, match=r"^FASTRNN_NUM_THREADS must be an int in 1..1024, got "):
        fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    assert fastrnn.get_num_threads() == 2


def test_set_is_for_all_threads() -> None:
    fastrnn.set_num_threads(5)
    assert fastrnn.get_num_threads() == elsewhere(fastrnn.get_num_threads) == 5


def test_block_is_for_this_thread_only() -> None:
    fastrnn.set_num_threads(5)
    with fastrnn.num_threads(2):
        assert fastrnn.get_num_threads() == 2
        with fastrnn.num_threads(3):
            assert fastrnn.get_num_threads() == 3
            assert elsewhere(fastrnn.get_num_threads) == 5
            # A context that is carried over brings its number with it.
            here = contextvars.copy_context()
            assert elsewhere(lambda: here.run(fastrnn.get_num_threads)) == 3
        assert fastrnn.get_num_threads() == 2
        fastrnn.set_num_threads(7)
        assert fastrnn.get_num_threads() == 2
    assert fastrnn.get_num_threads() == 7


def test_block_ends_with_an_error() -> None:
    before = fastrnn.get_num_threads()
    with pytest.raises(KeyError), fastrnn.num_threads(before + 1):
        raise KeyError
    assert fastrnn.get_num_threads() == before


def test_blocks_of_two_tasks_do_not_meet() -> None:
    async def task(n: int) -> int:
        with fastrnn.num_threads(n):
            await asyncio.sleep(0)
            return fastrnn.get_num_threads()

    async def both() -> list[int]:
        return list(await asyncio.gather(task(2), task(3)))

    assert asyncio.run(both()) == [2, 3]


@pytest.mark.parametrize(
    ("n", "error", "text"),
    [
        (0, ValueError, "n must be in 1..1024, got 0"),
        (-2, ValueError, "n must be in 1..1024, got -2"),
        (10**9, ValueError, "n must be in 1..1024, got 1000000000"),
        (2.0, TypeError, "n must be an int, got float"),
        (True, TypeError, "n must be an int, got bool"),
        ("2", TypeError, "n must be an int, got str"),
        (None, TypeError, "n must be an int, got NoneType"),
    ],
)
def test_wrong_numbers(n: Any, error: type[Exception], text: str) -> None:
    before = fastrnn.get_num_threads()
    for call in (fastrnn.set_num_threads, lambda n: fastrnn.num_threads(n).__enter__()):
        with pytest.raises(error) as info:
            call(n)
        assert str(info.value) == text
    assert fastrnn.get_num_threads() == before


def test_calls_use_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fastrnn.GRU(3, 4, 2, rng=0, backend="numpy")
    seen: list[int] = []
    backend = layer._stack.backend

    class Spy:
        def forward(self, *args: Any, threads: int, **kwargs: Any) -> Any:
            seen.append(threads)
            return backend.forward(*args, threads=threads, **kwargs)

    monkeypatch.setattr(layer._stack, "backend", Spy())
    monkeypatch.setattr(Spy, "pack", backend.pack, raising=False)
    with fastrnn.num_threads(9):
        layer(np.zeros((2, 1, 3), np.float32))
    assert seen == [9, 9]


# ---- show_config ---------------------------------------------------------------------------------


def test_show_config_as_dicts() -> None:
    facts = fastrnn.show_config("dicts")
    assert facts["fastrnn"] == fastrnn.__version__
    assert facts["numpy"] == np.__version__
    assert set(facts["backends"]) == {"cpu", "numba", "numpy", "cuda"}
    assert facts["backends"]["numpy"] == "usable"
    assert facts["backends"][facts["auto"]] == "usable"
    assert facts["threads"] == fastrnn.get_num_threads()
    # What a lower precision than float32's brings, or that it brings nothing.
    isa = facts["instruction set"]
    for name in ("highest", "high", "medium"):
        assert facts["precision"][name].startswith("tile unit, terms=") == (isa == "amx")
        assert ("no tile unit" in facts["precision"][name]) == (
            isa != "amx" and not (name == "medium" and isa == "avx512bf16")
        )
    dots = facts["precision"]["medium"].count("dot products, terms=1")
    assert dots == (isa in ("avx512bf16", "amx"))


def test_show_config_writes_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert fastrnn.show_config() is None
    text = capsys.readouterr().out
    facts = fastrnn.show_config(mode="dicts")
    assert f"fastrnn: {facts['fastrnn']}\n" in text
    for name, state in facts["backends"].items():
        assert f"\n  {name}: {state}\n" in text
    assert f"\nthreads: {facts['threads']}\n" in text


def test_show_config_with_another_mode() -> None:
    with pytest.raises(ValueError, match=r"^mode must be one of 'stdout', 'dicts', got 'yaml'$"):
        fastrnn.show_config("yaml")  # type: ignore[call-overload]


def test_show_config_shows_wrong_settings() -> None:
    """It is what one runs to find them, so it must not fail on them."""
    wrong = {"FASTRNN_BACKEND": "gpu", "FASTRNN_NUM_THREADS": "many", "FASTRNN_ISA": "sse9"}
    shown = subprocess.run(
        [sys.executable, "-c", "import fastrnn; fastrnn.show_config()"],
        env=os.environ | wrong,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "auto: none: FASTRNN_BACKEND must be one of" in shown
    assert "threads: none: FASTRNN_NUM_THREADS must be an int in 1..1024, got 'many'" in shown
    for name, value in wrong.items():
        assert f"\n  {name}: {value}\n" in shown


@pytest.mark.skipif(os.name != "posix", reason="an environment of bytes")
@pytest.mark.parametrize("name", [b"\xff\xfe", b"avx2\xff", "é€".encode(), "\u202e".encode()])
def test_an_instruction_set_that_is_no_text(name: bytes) -> None:
    """An error that names the setting, on a terminal of any encoding; show_config shows it."""
    pytest.importorskip("fastrnn._core")
    make = "import fastrnn\ntry: fastrnn.GRU(2, 3)\nexcept RuntimeError as error: print(error)\n"
    done = subprocess.run(
        [sys.executable, "-c", make + "fastrnn.show_config()"],
        env=os.environb | {b"FASTRNN_ISA": name, b"PYTHONIOENCODING": b"ascii"},
        cwd=Path(fastrnn.__path__[0]).parent,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode("ascii")
    text = ascii(os.fsdecode(name))
    assert shown.startswith("FASTRNN_ISA must be one of ")
    assert shown.splitlines()[0].endswith(f"on this machine, got {text}")
    assert "instruction set: none: FASTRNN_ISA must be one of " in shown
    assert f"\n  FASTRNN_ISA: {text[1:-1]}\n" in shown
