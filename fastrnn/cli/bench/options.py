"""The options of ``fastrnn bench``, and the command line that they came from."""

from __future__ import annotations

import argparse
import shlex

from ..arguments import positive
from .shapes import GATES, GROUPS, ITEMSIZE, KINDS, MAX_GFLOP

DEFAULT_GROUPS = (
    "numbers", "odd", "streaming", "audio", "rl", "rollouts", "amplifiers", "denoisers", "speakers",
    "ragged",
)  # fmt: skip
QUICK_GROUPS = ("small",)

# those that take several names
_LISTS = ("groups", "modes", "dtype", "backends")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options to the command's parser."""
    add = parser.add_argument
    add("--quick", action="store_true", help="small shapes, few rounds: about a minute")
    add(
        "--peers",
        action="store_true",
        help="beside torch, onnxruntime, openvino, jax",
    )
    add("--threads", type=positive(int), metavar="N", help="of everybody (default: ours)")
    add(
        "--groups", nargs="+", metavar="NAME", choices=tuple(GROUPS),
        help=f"of shapes: {', '.join(GROUPS)} (default: {', '.join(DEFAULT_GROUPS)})",
    )  # fmt: skip
    add(
        "--modes", nargs="+", metavar="MODE", choices=KINDS, default=list(KINDS),
        help=f"{', '.join(KINDS)} (default: all)",
    )  # fmt: skip
    add(
        "--dtype", nargs="+", metavar="DTYPE", choices=tuple(ITEMSIZE), default=["float32"],
        help=f"{', '.join(ITEMSIZE)} (default: float32)",
    )  # fmt: skip
    add("--backends", nargs="+", metavar="NAME", help='of ours (default: what "auto" means)')
    add(
        "--max-gflop", type=positive(float), metavar="N", default=MAX_GFLOP,
        help="leave out shapes of which one run takes more operations, in thousand millions "
        f"(default: {MAX_GFLOP:g})",
    )  # fmt: skip
    add(
        "--profile", action=argparse.BooleanOptionalAction, default=True,
        help="where the time goes, by Linux's perf; a second a shape (default: if perf is there)",
    )  # fmt: skip
    add(
        "--report", metavar="FILE", action="append", default=[],
        help="write one, as its name ends: .html, .md, .svg (the ratios alone), or .json with all "
        "samples; may be repeated",
    )  # fmt: skip


def add_sweep_to(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fastrnn bench sweep` to its parser."""
    add = parser.add_argument
    add("--quick", action="store_true", help="B to 13, H to 72: seconds")
    add("--threads", type=positive(int), metavar="N", help="default: ours")
    add(
        "--cell", nargs="+", choices=tuple(GATES), default=["lstm", "gru"],
        help="default: lstm gru",
    )  # fmt: skip
    add("--mode", choices=("inference", "training"), default="inference", help="default: inference")
    add("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    add(
        "--report", metavar="FILE", action="append", default=[],
        help="write one, as its name ends: .md, .svg (heat maps), or .json; may be repeated",
    )  # fmt: skip


def sweep_command(options: argparse.Namespace, threads: int) -> str:
    """The command line that does the same sweep again."""
    words = ["fastrnn", "bench", "sweep", *["--quick"] * options.quick, "--threads", str(threads)]
    words += ["--cell", *options.cell, "--mode", options.mode, "--dtype", options.dtype]
    for path in options.report:
        words += ["--report", path]
    return shlex.join(words)


def groups(options: argparse.Namespace) -> tuple[str, ...]:
    """Names of the groups to measure."""
    return tuple(options.groups or (QUICK_GROUPS if options.quick else DEFAULT_GROUPS))


def command(options: argparse.Namespace, threads: int) -> str:
    """The command line that does the same again, with what was left open written out."""
    words = ["fastrnn", "bench", *["--quick"] * options.quick, *["--peers"] * options.peers]
    words += ["--threads", str(threads)]
    for name in _LISTS:
        if getattr(options, name):
            words += [f"--{name}", *getattr(options, name)]
    if options.max_gflop != MAX_GFLOP:
        words += ["--max-gflop", f"{options.max_gflop:g}"]
    words += ["--no-profile"] * (not options.profile)
    for path in options.report:
        words += ["--report", path]
    return shlex.join(words)
