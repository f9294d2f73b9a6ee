"""`fastrnn.distributed` on processes: MPI's and torch's; one that fails; one that is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn.io import safetensors

PROGRAM = str(Path(__file__).with_name("program.py"))
LIMIT = 300  # seconds that only a hang exceeds


def start(kind: str, size: int, folder: Path, *failure: object) -> list[Any]:
    """Start a job: one process that starts the ranks, or the ranks themselves."""
    arguments = [PROGRAM, str(folder), kind, *map(str, failure)]
    environment = os.environ | {"FASTRNN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    options: Any = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": environment,
    }
    if kind == "mpi":
        mpiexec = Path(sys.executable).with_name("mpiexec")
        command = [str(mpiexec), "-n", str(size), sys.executable, "-m", "mpi4py", *arguments]
        return [subprocess.Popen(command, **options)]
    (folder / "store").unlink(missing_ok=True)
    jobs = []
    for rank in range(size):
        environment |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
        jobs.append(
            subprocess.Popen([sys.executable, *arguments], **options | {"env": environment})
        )
    return jobs


def finish(jobs: list[Any]) -> tuple[list[int], str, str]:
    """Wait for a job; return its exit statuses and what it printed."""
    texts = [job.communicate(timeout=LIMIT) for job in jobs]
    return (
        [job.returncode for job in jobs],
        "".join(t for t, _ in texts),
        "".join(t for _, t in texts),
    )


def params(folder: Path) -> Any:
    arrays, _ = safetensors.read(folder / "checkpoint.safetensors")
    assert arrays["steps"] == 6
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Parameters and state after six steps of one process."""
    folder = tmp_path_factory.mktemp("one")
    statuses, _, errors = finish(start("mpi", 1, folder))
    assert statuses == [0], errors
    return params(folder)


@pytest.mark.parametrize(("kind", "size"), [("mpi", 3), ("gloo", 2)])
def test_as_one_process(kind: str, size: int, undisturbed: Any, tmp_path: Path) -> None:
    statuses, output, errors = finish(start(kind, size, tmp_path))
    assert set(statuses) == {0}, errors
    assert output.count(f" of {size}") == size
    np.testing.assert_allclose(params(tmp_path), undisturbed, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["mpi", "gloo"])
def test_a_rank_that_fails_ends_the_job_with_its_error(kind: str, tmp_path: Path) -> None:
    statuses, _, errors = finish(start(kind, 2, tmp_path, "raise", 1, 2))
    assert 0 not in statuses
    assert "OSError: the disk is full" in errors
    if kind == "gloo":  # MPI may end a rank before it has printed
        assert "RuntimeError: rank 1 has ended: OSError: the disk is full" in errors


def test_killed_and_resumed_with_fewer_ranks(undisturbed: Any, tmp_path: Path) -> None:
    at = random.SystemRandom().randrange(2, 6)
    statuses, _, _ = finish(start("mpi", 3, tmp_path, "kill", 2, at))
    assert 0 not in statuses
    kept, _ = safetensors.read(tmp_path / "checkpoint.safetensors")
    assert kept["steps"] in (at - 1, at)  # rank 0 may be ended before it has written
    statuses, _, errors = finish(start("mpi", 2, tmp_path))
    assert statuses == [0], errors
    np.testing.assert_allclose(params(tmp_path), undisturbed, rtol=0, atol=1e-10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of memory are POSIX's")
def test_data_beyond_memory() -> None:
    """Four GiB of rows, in a process that may not have more than one."""
    example = Path(__file__).parents[2] / "examples" / "beyond_memory.py"
    command = [sys.executable, str(example), "--gib", "4", "--limit-gib", "1"]
    environment = os.environ | {"FASTRNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "one file: 32768 rows" in done.stdout
    assert "files: 512 rows" in done.stdout
