"""What only a GPU can show: that the kernels are right on it, and how long they take.

    python bench/gpu_check.py --out DIR             on a machine with a GPU, at most nine minutes
    python bench/gpu_check.py --out DIR --emulated  a dry run on the emulator of tests/cuda

Each phase is a process of its own with a limit of time, for an error on a GPU spoils the process it
happens in. Records are written one by one to DIR/PHASE.jsonl, and in the end all to
DIR/gpu_check.json. Nothing is fetched from anywhere. torch is compared with where it is installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "cuda")]

# Seconds; with the start of each process less than nine minutes together.
LIMITS = {"probe": 30, "correctness": 150, "speed": 320}

Record = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--emulated", action="store_true", help="dry run without a GPU")
    parser.add_argument("--phase", choices=LIMITS, help="this one only, in this process")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.phase:
        run_phase(args.phase, args.out, args.emulated)
        return 0
    failed = [phase for phase in LIMITS if not in_own_process(phase, args.out, args.emulated)]
    summary = collect(args.out, failed)
    print(table(summary))
    return bool(failed)


def in_own_process(phase: str, out: Path, emulated: bool) -> bool:
    """Run a phase; return whether it ended well and in time."""
    (out / f"{phase}.jsonl").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--out", str(out), "--phase", phase]
    with open(out / f"{phase}.log", "w") as log:
        try:
            done = subprocess.run(
                [*command, *["--emulated"] * emulated],
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=LIMITS[phase],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except subprocess.TimeoutExpired:
            log.write(f"\nstopped after {LIMITS[phase]} s\n")
            return False
    return done.returncode == 0


def run_phase(phase: str, out: Path, emulated: bool) -> None:
    """Write the phase's records, each as soon as it is there."""
    if emulated:
        emulate()
    phases = {"probe": probe, "correctness": correctness, "speed": speed}
    with open(out / f"{phase}.jsonl", "w") as file:
        for record in phases[phase](emulated):
            file.write(json.dumps(record) + "\n")
            file.flush()


def collect(out: Path, failed: list[str]) -> Record:
    """Join the records of all phases in one file."""
    summary: Record = {"failed": failed}
    for phase in LIMITS:
        file = out / f"{phase}.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        summary[phase] = [json.loads(line) for line in lines]
    (out / "gpu_check.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def emulate() -> None:
    """Let the backend "cuda" be the emulator."""
    from emulator import EmulatedDevice

    import fastrnn.backends
    from fastrnn.backends.cuda import CudaBackend, launch, persistent

    launch.THREADS = persistent.THREADS = 64
    backend, real = CudaBackend(EmulatedDevice()), fastrnn.backends._get
    # mypy: the registry's function is given another value on purpose
    fastrnn.backends._get = lambda name: backend if name == "cuda" else real(name)  # type: ignore[assignment]


# ---- probe ---------------------------------------------------------------------------------------


def probe(emulated: bool) -> Iterator[Record]:
    """What machine this is."""
    import numpy as np

    import fastrnn

    yield {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fastrnn": fastrnn.__version__,
        "cuda": "emulated" if emulated else fastrnn.backends.why_not("cuda") or "usable",
        "torch": torch_version(),
    }
    if emulated:
        return
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
        smi = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        yield {"nvidia-smi": subprocess.run(smi, capture_output=True, text=True).stdout}
    xp = fastrnn.backends.get("cuda").xp
    device = xp.cuda.Device()
    properties = xp.cuda.runtime.getDeviceProperties(device.id)
    yield {
        "cupy": xp.__version__,
        "nvrtc": xp.cuda.nvrtc.getVersion(),
        "device": properties["name"].decode(),
        "compute capability": device.compute_capability,
        "attributes": dict(device.attributes),
    }


def torch_version() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    version: str = torch.__version__
    return version


# ---- correctness ---------------------------------------------------------------------------------


def correctness(emulated: bool) -> Iterator[Record]:
    """Both ways of running a pass against NumPy in float64; and the same bits from run to run, on
    a stream of its own as well."""
    import numpy as np
    from cases import KINDS, TOLERANCE, run
    from device import DeviceCase, reference

    import fastrnn.backends
    from fastrnn.backends.cuda import persistent

    options: list[Record] = [
        {},
        {"bidirectional": True, "layers": 2, "lengths": "zeros", "resets": "some"},
    ]
    sizes = [(4, 3, 2, 9)] if emulated else [(7, 3, 5, 4), (50, 17, 40, 130)]
    grid = itertools.product(KINDS, sizes, ("float32", "float64"), options)
    cases = [DeviceCase(kind, size, dtype=dtype, **more) for kind, size, dtype, more in grid]
    if not emulated:
        cases += [DeviceCase(kind, (100, 16, 64, 512), dtype="float32") for kind in KINDS]
    ways = {"steps": 0, "persistent": persistent.MOST_ROWS}
    for case in cases:
        call = case.call()
        want = run(*reference(case, call))
        for way, persistent.MOST_ROWS in ways.items():
            layer = case.layer()
            results = [run(layer, call) for _ in range(2 if emulated else 20)]
            if not emulated:
                with fastrnn.backends.get("cuda").xp.cuda.Stream(non_blocking=True):
                    results.append(run(layer, call))
            error = max(
                float(np.max(np.abs(results[0][name] - value)) / (1 + np.max(np.abs(value))))
                for name, value in want.items()
            )
            steady = all(
                np.array_equal(each[name], results[0][name]) for each in results for name in want
            )
            ok = steady and error <= TOLERANCE[case.dtype]["rtol"]
            yield {"case": str(case), "way": way, "error": error, "same bits": steady, "ok": ok}


# ---- speed ---------------------------------------------------------------------------------------


def speed(emulated: bool) -> Iterator[Record]:
    """Microseconds a step: fastrnn's two ways and torch's cuDNN, forward, and with backward."""
    import numpy as np

    import fastrnn
    from fastrnn.backends.cuda import persistent

    xp = fastrnn.backends.get("cuda").xp
    wait = (lambda: None) if emulated else xp.cuda.Device().synchronize
    grid = [(6, 8, 2)] if emulated else [(1024, 768, 16)]
    if not emulated:
        grid += [(256, H, B) for H in (512, 256, 1024, 128, 2048) for B in (16, 1, 64, 256)]
    limit = persistent.MOST_ROWS
    for (T, H, B), kind in itertools.product(grid, ("LSTM", "GRU")):
        size = {"kind": kind, "T": T, "H": H, "B": B}
        x = xp.asarray(np.random.default_rng(0).standard_normal((T, B, H)), np.float32)
        layer = getattr(fastrnn, kind)(H, H, rng=0, backend="cuda")
        layer.freeze()
        for way in ("persistent", "steps"):
            persistent.MOST_ROWS = limit if way == "persistent" else 0

            def forward(layer: Any = layer, x: Any = x) -> None:
                layer(x)

            def both(layer: Any = layer, x: Any = x) -> None:
                y, _, tape = layer.forward(x)
                layer.backward(tape, y)

            for name, call in {"forward": forward, "both": both}.items():
                yield {**size, "way": way, "what": name, "us": timed(call, wait, emulated) / T}
        if not emulated and torch_version() is not None:
            yield from torch_speed(kind, T, H, B, size)


def torch_speed(kind: str, T: int, H: int, B: int, size: Record) -> Iterator[Record]:
    """The same of torch's module in each of its precisions."""
    import torch

    ways = {
        "torch float32": (torch.float32, False),
        "torch TF32": (torch.float32, True),
        "torch bfloat16": (torch.bfloat16, True),
        "torch float16": (torch.float16, True),
    }
    for way, (dtype, tf32) in ways.items():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        module = getattr(torch.nn, kind)(H, H, device="cuda", dtype=dtype)
        x = torch.randn(T, B, H, device="cuda", dtype=dtype, requires_grad=True)

        def forward(module: Any = module, x: Any = x) -> None:
            with torch.no_grad():
                module(x)

        def both(module: Any = module, x: Any = x) -> None:
            y, _ = module(x)
            y.backward(y.detach())

        for name, call in {"forward": forward, "both": both}.items():
            us = timed(call, torch.cuda.synchronize, False) / T
            yield {**size, "way": way, "what": name, "us": us}


def timed(call: Callable[[], Any], wait: Callable[[], Any], emulated: bool) -> float:
    """Return the median of a call's microseconds, after calls that warm up."""
    times = []
    for repeat in range(2 if emulated else 13):
        wait()
        start = time.perf_counter()
        call()
        wait()
        if repeat >= (1 if emulated else 3):
            times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def table(summary: Record) -> str:
    """A few lines to read."""
    wrong = [record for record in summary["correctness"] if not record["ok"]]
    lines = [
        f"correctness: {len(summary['correctness'])} cases, {len(wrong)} wrong",
        *(f"  {record}" for record in wrong),
        "microseconds a step, forward | forward and backward:",
    ]
    rows: dict[tuple[Any, ...], Record] = {}
    for record in summary["speed"]:
        key = tuple(record[name] for name in ("kind", "T", "H", "B", "way"))
        rows.setdefault(key, {})[record["what"]] = record["us"]
    for (kind, T, H, B, way), us in rows.items():
        both = f"{us['both']:9.2f}" if "both" in us else "        -"
        lines.append(f"  {kind:4} T={T} H={H} B={B}  {way:15} {us['forward']:9.2f} | {both}")
    if summary["failed"]:
        lines.append(f"failed: {', '.join(summary['failed'])}; see their .log files")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
