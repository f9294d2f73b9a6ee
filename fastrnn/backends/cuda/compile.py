"""CUDA programs: which files and options make one, and NVRTC with a cache on disk.

A program is compiled for one GPU architecture from text alone, so it needs no GPU: tests compile
every program for every architecture.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fastrnn.spec import Options

KERNELS = Path(__file__).parents[2] / "kernels"

GPU = "cuda/gpu.h"
"""What the kernels use of the GPU itself; the emulator of the tests brings its own."""

_VALUE = (GPU, "cuda/value.h")

# No contraction: a fused operation stands where the source says so, which gives the bits of the
# CPU's cells.
OPTIONS = ("-std=c++17", "--fmad=false")


@cache
def _cell_files() -> tuple[str, ...]:
    """Return the files of a program of a cell, but those of its kernels."""
    listed = (KERNELS / "cells/headers.h").read_text(encoding="utf-8")
    cells = re.findall(r'^#include "(.*)"$', listed, re.MULTILINE)
    shared = ("activations.h", "cells/options.h", "cells/unit.h", "cells/functions.h")
    return (*_VALUE, *shared, *cells, "cells/all.h", "cuda/cell.h", "cuda/step.h")


class Program(NamedTuple):
    """Files that are compiled as one text, and the macros that choose the cell and the type."""

    files: tuple[str, ...]
    defines: tuple[tuple[str, str], ...]


def program(
    dtype: np.dtype[Any], cell: str | None = None, options: Options | None = None
) -> Program:
    """Return the program of a cell's steps; without a cell, that of what all cells share."""
    if cell is None:
        files = (*_VALUE, "cuda/sums.cu", "cuda/runs.cu", "cuda/dropout.cu")
        return Program(files, (_real(dtype),))
    return Program((*_cell_files(), "cuda/pointwise.cu"), (_real(dtype), *_cell(cell, options)))


def persistent(
    dtype: np.dtype[Any], cell: str, name: str, options: Options | None = None, **cut: str | int
) -> Program:
    """Return the program of the kernel `name`, which runs all steps of a pass of a cell; `cut` are
    the options of kernels/cuda/persistent.h, without their prefix."""
    chosen = ((f"FASTRNN_{key.upper()}", str(value)) for key, value in cut.items())
    return Program(
        (*_cell_files(), "cuda/tile.h", "cuda/exchange.h", "cuda/persistent.h", f"cuda/{name}.cu"),
        (_real(dtype), *_cell(cell, options), *chosen),
    )


def _cell(kind: str, options: Options | None) -> list[tuple[str, str]]:
    """Return what chooses the cell: its options are constants of the program."""
    defines = [("FASTRNN_CELL", kind)]
    if options is not None:
        functions = (options.gate, options.candidate, options.output)
        clip = repr(options.clip) if math.isfinite(options.clip) else "float_of(0x7f800000u)"
        values = (
            *(f"Activation::{name}" for name in functions),
            *(f"Real({value})" for value in (repr(options.slope), clip)),
            str(options.coupled).lower(),
        )
        defines.append(("FASTRNN_OPTIONS", ", ".join(values)))
    return defines


def _real(dtype: np.dtype[Any]) -> tuple[str, str]:
    return "FASTRNN_REAL", "float" if dtype.itemsize == 4 else "double"


def source(program: Program, gpu: Path | None = None) -> str:
    """Return a program's text, with the emulator's file in place of `GPU` if there is one.

    The files follow each other in one text, with lines that tell the compiler where each begins,
    and none includes another: so a hash of the text knows all that goes in.
    """
    parts = [f"#define {name} {value}\n" for name, value in program.defines]
    for name in program.files:
        path = gpu if gpu is not None and name == GPU else KERNELS / name
        parts.append(f'#line 1 "{path.name}"\n{path.read_text(encoding="utf-8")}')
    return "".join(parts)


@cache
def fingerprint() -> str:
    """Return what changes when any kernel's text does."""
    digest = hashlib.sha256()
    for path in sorted(KERNELS.rglob("*.*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class CompileError(RuntimeError):
    """NVRTC refused a program; the text is its log."""


def nvrtc() -> Any:
    """Return CuPy's binding of NVRTC.

    Raises
    ------
    RuntimeError
        The library cannot be loaded.
    """
    try:
        binding = import_module("cupy").cuda.nvrtc
        binding.getVersion()
    except (RuntimeError, ImportError, OSError) as error:
        raise cannot_load("NVRTC", error) from error
    return binding


def cannot_load(library: str, error: Exception) -> RuntimeError:
    """Return what to raise where a library of CUDA is missing; CuPy's text of many lines lists
    folders after the first."""
    reason = str(error).partition("\n")[0]
    return RuntimeError(f'{library} cannot be loaded ({reason}): pip install "fastrnn[cuda]"')


def cubin(text: str, arch: str, options: tuple[str, ...] = OPTIONS) -> bytes:
    """Return the machine code of a program's text for an architecture such as "sm_90".

    Raises
    ------
    RuntimeError
        NVRTC is missing, or does not know the architecture.
    CompileError
        The text is wrong.
    """
    binding = nvrtc()
    version = ".".join(map(str, binding.getVersion()))
    number = int("".join(filter(str.isdigit, arch)))
    if number not in binding.getSupportedArchs():
        raise RuntimeError(f"NVRTC {version} does not know {arch}: another version of it may")
    key = "\0".join((text, arch, version, *options))
    return _cached(key, lambda: _compile(binding, text, (f"-arch={arch}", *options))[0])


def report(text: str, arch: str) -> str:
    """Return what the assembler says of a program's registers, stack and spills."""
    options = (f"-arch={arch}", *OPTIONS, "--ptxas-options=-v")
    return _compile(nvrtc(), text, options)[1]


def _compile(binding: Any, text: str, options: tuple[str, ...]) -> tuple[bytes, str]:
    made = binding.createProgram(text, "fastrnn.cu", (), ())
    try:
        try:
            binding.compileProgram(made, options)
        except binding.NVRTCError as error:
            raise CompileError(binding.getProgramLog(made)) from error
        # CuPy's binding takes the last byte of the code for the end of a string.
        return binding.getCUBIN(made) + b"\0", binding.getProgramLog(made)
    finally:
        binding.destroyProgram(made)


# ------------------------------------------------------------------------------------- the cache


def cache_folder() -> Path:
    """Return where machine code is kept: FASTRNN_CACHE_DIR, or the system's place for caches."""
    named = os.environ.get("FASTRNN_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fastrnn"


def _cached(key: str, make: Callable[[], bytes]) -> bytes:
    """Return what the file of this key holds, or what `make` returns, which is then kept."""
    path = cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.cubin"
    try:
        stored = path.read_bytes()
    except OSError:
        stored = b""
    digest, code = stored[:32], stored[32:]
    if code and hashlib.sha256(code).digest() == digest:
        return code
    code = make()
    with suppress(OSError):  # without a place to write, each process compiles for itself
        write(path, hashlib.sha256(code).digest() + code)
    return code


def write(path: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
