"""Run an application for several seeds, and print its row of the table in docs/applications.md.

    python examples/applications/table.py names.py --seeds 3 --torch
    python examples/applications/table.py tagging.py --corpus brown

Options that are not its own go to the program. Each run keeps its figures in a folder below
``--out``; what is there already is not run again. Of each figure, the mean over the seeds, and the
standard deviation behind it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def results(program: str, rest: list[str], seeds: int, torch: bool, out: Path) -> list[Any]:
    """Return what the runs of a program have kept, one for each seed."""
    found = []
    for seed in range(seeds):
        parts = [Path(program).stem, *rest, str(seed), *(["torch"] if torch else [])]
        folder = out / "-".join(part.strip("-") for part in parts)
        if not (kept := list(folder.glob("*.json"))):
            command = [sys.executable, str(HERE / program), *rest, "--seed", str(seed)]
            command += ["--torch"] if torch else []
            subprocess.run([*command, "--out", str(folder)], check=True)
            kept = list(folder.glob("*.json"))
        found.append(json.loads(kept[0].read_text()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--torch", action="store_true", help="the same network in torch as well")
    parser.add_argument("--out", type=Path, default=Path("fastrnn-applications"))
    args, rest = parser.parse_known_args()
    sides = {"fastrnn": results(args.program, rest, args.seeds, False, args.out)}
    if args.torch:
        sides["torch"] = results(args.program, rest, args.seeds, True, args.out)
    first = sides["fastrnn"][0]
    print(f"{args.program} {' '.join(rest)}: {first['what']}")
    print(f"| figure | {' | '.join(sides)} |")
    print("| --- |" + " ---: |" * len(sides))
    for name in first["figures"]:
        columns = [summary([run["figures"][name] for run in runs]) for runs in sides.values()]
        print(f"| {name} | {' | '.join(columns)} |")
    times = [f"{np.mean([run['seconds'] for run in runs]):.0f} s" for runs in sides.values()]
    print(f"| time | {' | '.join(times)} |")


def summary(values: list[float]) -> str:
    """Return the mean of some values, and their standard deviation if there is any."""
    digits = 1 if abs(np.mean(values)) >= 10 else 3
    if len(values) == 1 or np.ptp(values) == 0:
        return f"{np.mean(values):.{digits}f}"
    return f"{np.mean(values):.{digits}f} ({np.std(values, ddof=1):.{digits}f})"


if __name__ == "__main__":
    main()
