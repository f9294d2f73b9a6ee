"""What only a GPU can show: that the kernels are right on it, and how long they take.

    python bench/gpu_check.py --out DIR             on a machine with a GPU, at most nine minutes
    python bench/gpu_check.py --out DIR --emulated  a dry run on the emulator of tests/cuda

Nothing is fetched from anywhere. Each phase is a process of its own with a limit of time, for an
error on a GPU spoils the process it happens in, and what hangs is stopped. Every record goes to
DIR/gpu_check.json as soon as it is there; what a phase prints goes to DIR/PHASE.log. torch is
compared with where it is installed. bench/gpu_table.py makes docs/gpu.md of the result.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Seconds. Together less than what all may take, for the start of each process takes some too.
LIMITS = {
    "first": 170,
    "probe": 20,
    "build": 45,
    "primitives": 35,
    "correctness": 95,
    "speed": 130,
    "profile": 35,
}
ALTOGETHER = 535

# A dry run compiles, and other work may go on beside it.
EMULATED = 10

# A phase that looks at the clock ends so long before it would be stopped.
MARGIN = 8

Record = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--emulated", action="store_true", help="dry run without a GPU")
    parser.add_argument("--phases", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--here", type=float, metavar="S", help=argparse.SUPPRESS)
    parser.add_argument("--check", help=argparse.SUPPRESS)  # one of the first phase
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.here is not None:  # in the process of one phase
        run_phase(args.phases[0], out, args.emulated, args.here, args.check)
        return 0
    report = Report(out / "gpu_check.json", args.emulated)
    end = time.monotonic() + ALTOGETHER * (EMULATED if args.emulated else 1)
    for phase in args.phases:
        run_in_own_process(phase, report, out, args.emulated, end)
    from gpu import table

    print("\n".join(table.summary(report.content)))
    return 0 if table.all_well(report.content) else 1


class Report:
    """The file of results, whole after every record."""

    def __init__(self, path: Path, emulated: bool) -> None:
        self._path = path
        self.content: Record = {
            "format": 1,
            "emulated": emulated,
            "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "phases": {},
        }
        self._write()

    def begin(self, phase: str) -> None:
        self.content["phases"][phase] = {"status": "unfinished", "records": []}
        self._write()

    def add(self, phase: str, record: Record) -> None:
        self.content["phases"][phase]["records"].append(record)
        self._write()

    def end(self, phase: str, status: str, seconds: float) -> None:
        self.content["phases"][phase] |= {"status": status, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(draft, self._path)


def run_in_own_process(phase: str, report: Report, out: Path, emulated: bool, end: float) -> None:
    """Run a phase and report how it ended."""
    report.begin(phase)
    begin = time.monotonic()
    limit = min(LIMITS[phase] * (EMULATED if emulated else 1), end - begin)
    if limit <= MARGIN:
        report.end(phase, "no time was left", 0)
        return
    command = [sys.executable, __file__, "--out", str(out), "--phases", phase]
    command += ["--here", str(limit - MARGIN), *["--emulated"] * emulated]
    with open(out / f"{phase}.log", "w") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that what it starts itself is stopped with it
        )
        with process:
            reader = threading.Thread(target=read, args=(process.stdout, report, phase))
            reader.start()
            try:
                code = process.wait(limit)
                status = "ended" if code == 0 else f"failed with {code}, see {phase}.log"
            except subprocess.TimeoutExpired:
                status = f"stopped after {limit:.0f} s"
            with contextlib.suppress(ProcessLookupError):  # nobody of it is left
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
    report.end(phase, status, time.monotonic() - begin)


def read(lines: Iterable[str], report: Report, phase: str) -> None:
    """Report the records of a process until it ends."""
    for line in lines:
        report.add(phase, json.loads(line))


def run_phase(phase: str, out: Path, emulated: bool, seconds: float, check: str | None) -> None:
    """Write the records of a phase, or of one of its checks, to the standard output, which nothing
    else may write to."""
    records = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    installed = out / "site"
    sys.path[:0] = [str(installed if installed.is_dir() else ROOT)]
    sys.path[1:1] = [str(ROOT / "tests"), str(ROOT / "tests" / "cuda")]
    module = importlib.import_module(f"gpu.{phase}")
    end = time.monotonic() + seconds
    name = ""

    def in_time() -> bool:
        return time.monotonic() < end

    found = module.CHECKS[check][0](emulated, in_time) if check else None
    for record in found or module.records(out, emulated, in_time):
        name = record.get("device", name)
        records.write(json.dumps({"device": name, **record} if name else record) + "\n")
        records.flush()


if __name__ == "__main__":
    sys.exit(main())
