"""The command ``fastrnn``: ``info``, ``demo``, ``bench``, ``tune``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from .. import __version__, show_config
from .arguments import positive, seed
from .bench import options as bench_options
from .console import MissingExtra, require
from .tune import add_to as add_tune_options


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    if sys.stderr is None:  # closed by the shell
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
    try:
        if sys.stdout is None:
            raise OSError("the standard output is closed")
        status = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\nfastrnn: interrupted\n")
        return 130
    except MissingExtra as error:
        sys.stderr.write(f"fastrnn: {error}\n")
        return 2
    except OSError as error:
        with suppress(OSError):
            sys.stderr.write(f"fastrnn: cannot write: {error}\n")
        if argv is None and sys.stdout is not None:  # which Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    if options.command == "info":
        show_config()
        return 0
    # Each command imports what it needs when it runs: `info` is to be quick.
    if options.command == "tune":
        from . import tune

        return tune.run(options)
    if options.command == "demo":
        require("demo", "matplotlib", "tqdm")
        from . import demo

        return demo.run(options)
    require("bench", "jinja2", "matplotlib", "threadpoolctl", "tqdm")
    if options.measured == "sweep":
        from .bench import sweep

        return sweep.run(options, alone=argv is None)
    from .bench import command

    return command.run(options, alone=argv is None)  # else the process is the caller's


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fastrnn", description="Recurrent layers for NumPy code.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastrnn {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    commands.add_parser(
        "info", help="show the version, the backends that can run here, and why others cannot"
    )

    demo = commands.add_parser(
        "demo",
        help="train a character-level network on text",
        description="Train a character-level network on text, show how good it is beside an n-gram "
        "model, and let it write.",
        # What is not given is not there: --resume goes on with the settings of the training.
        argument_default=argparse.SUPPRESS,
    )
    add = demo.add_argument
    add("--text", metavar="FILE", help="UTF-8 text (default: Python's own reference)")
    add("--cell", choices=["rnn", "gru", "lstm"], help="default: lstm")
    add("--hidden", type=positive(int), metavar="H", help="hidden units (default: 256)")
    add("--layers", type=positive(int), metavar="L", help="layers (default: 1)")
    add("--batch", type=positive(int), metavar="B", help="streams of text (default: 16)")
    add("--steps", type=positive(int), metavar="T", help="steps of BPTT (default: 64)")
    add("--epochs", type=positive(int), metavar="N", help="times through the text (default: 4)")
    add("--lr", type=positive(float), help="highest learning rate (default: by cell and size)")
    add("--seed", type=seed, help="of the initial weights and the sample (default: 0)")
    add(
        "--minutes", type=positive(float), default=5.0,
        help="stop training after so many (default: 5); the learning rate falls in time",
    )  # fmt: skip
    add("--out", metavar="DIR", default="fastrnn-demo", help="folder (default: %(default)s)")
    add("--resume", action="store_true", default=False, help="go on with the training in --out")

    bench = commands.add_parser(
        "bench",
        help="measure the layers on this machine, beside other libraries",
        description="Measure the layers on this machine. Every answer is compared with the numpy "
        "backend's before it is timed.",
    )
    bench_options.add_to(bench)
    measured = bench.add_subparsers(dest="measured", title="instead of groups of shapes")
    sweep = measured.add_parser(
        "sweep",
        help="one layer at B = 1..40 and H = 16..520: where does a larger shape get slower?",
        description="Measure the throughput of a layer at B = 1..40 and H = 16, 24, .. 520, and "
        "name each shape that is more than a fifth slower than the next smaller one. It takes two "
        "to four minutes for a cell on a core with AVX2.",
    )
    bench_options.add_sweep_to(sweep)

    tune = commands.add_parser(
        "tune",
        help="find the fastest algorithms for this GPU, by timing",
        description="Time the algorithms that this GPU can run a pass with, and keep the fastest "
        "for later calls, in the folder that FASTRNN_CACHE_DIR names or in the user's cache.",
    )
    add_tune_options(tune)
    return parser
