"""Builds the C++ extension; everything else about the package is in pyproject.toml.

Environment variables:

FASTRNN_NO_EXT
    1: no extension. 0: a failing build of it is an error. Unset: a failing build is a warning,
    and the Numba or the NumPy backend serves.
FASTRNN_DEFINES
    Macros, separated by spaces, for a test build.
FASTRNN_SANITIZE
    Sanitizers for a test build: ``address,undefined`` or ``thread``.
FASTRNN_JOBS
    How many files are compiled at a time; by default one on each core.
"""

import os
import sys
import sysconfig
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

NO_EXT = os.environ.get("FASTRNN_NO_EXT", "")
DEFINES = os.environ.get("FASTRNN_DEFINES", "").split()
SANITIZE = os.environ.get("FASTRNN_SANITIZE", "")

INCLUDES = ["csrc", "fastrnn/kernels"]
SOURCES = sorted(path.as_posix() for path in Path("csrc").rglob("*.cpp"))
HEADERS = sorted(path.as_posix() for top in INCLUDES for path in Path(top).rglob("*.h"))

# Of a test build: where in build/ it is, apart from the plain one.
VARIANT = "-".join([*DEFINES, *SANITIZE.split(",")]).strip("-")

# No -march: each instruction set is a target region of its own file, chosen at run time.
# No -ffast-math and no contraction: a fused multiply-add stands where the source says so, which
# is what makes one chain of operations give the same bits on every vector width.
if sys.platform == "win32":
    FLAGS = ["/std:c++17", "/O2", "/fp:precise"]
    THREADS = []
else:
    FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-fvisibility=hidden"]
    THREADS = ["-pthread"]

# WebAssembly, for which one compiles on other platforms: of one thread, and with vectors in all of
# a module or in none of it.
if sysconfig.get_platform().endswith("wasm32"):
    FLAGS, THREADS = [*FLAGS, "-msimd128"], []

# Of test builds on Linux: every warning an error, but for values that GCC 12 takes for
# uninitialised in its own AVX-512 header.
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-maybe-uninitialized"]


class Build(build):  # type: ignore[misc]
    """Keeps the objects of a test build apart from the plain ones."""

    def initialize_options(self) -> None:
        super().initialize_options()
        if VARIANT:
            self.build_base = f"build/{VARIANT}"


class BuildExt(build_ext):  # type: ignore[misc]
    """Says what it compiles, and when the extension is left out; an optional one may fail."""

    def build_extension(self, ext: Extension) -> None:
        compile_one = self.compiler._compile

        def announced(obj: str, source: str, *rest: object) -> None:
            show(f"compiling {source}")
            compile_one(obj, source, *rest)

        self.compiler._compile = announced
        show(f"{len(SOURCES)} files of C++ to compile, one to two minutes on two cores")
        try:
            super().build_extension(ext)
        except Exception:
            if ext.optional:
                tell("the C++ extension could not be built (pip -v says why), so it is left out")
            raise


def tell(message: str) -> None:
    """Print, on the terminal too: without -v, pip keeps to itself what a build prints."""
    line = f"{message} (Numba, or else plain NumPy, does the work: fastrnn info)"
    print(f"fastrnn: {line}", file=sys.stderr)
    show(line)


def show(message: str) -> None:
    """Print a line on the terminal, if there is one."""
    try:
        with open("/dev/tty", "w", encoding="utf-8") as terminal:
            print(f"\r\x1b[Kfastrnn: {message}", file=terminal)
    except OSError:
        return


def stale(obj: str, source: str) -> bool:
    """Whether an object is older than anything that went into it."""
    made = os.path.getmtime(obj)
    return any(os.path.getmtime(path) > made for path in [source, *HEADERS, "setup.py"])


def sanitizer_flags(names: str) -> list[str]:
    # -O1, and without the checks of pointers for whose use AddressSanitizer stands, and without
    # its own of local arrays, whose bounds the other one checks: with them the kernels take ten
    # minutes to compile. Alignment stays: NumPy has arrays without it. Checks of addresses are
    # calls, which spares a third of the rest.
    unchecked = "-fno-sanitize=null,object-size,vptr,pointer-overflow"
    params = ["asan-stack=0", "asan-instrumentation-with-call-threshold=0"]
    calls = [word for param in params for word in ("--param", param)] if "address" in names else []
    always = ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]
    return [f"-fsanitize={names}", unchecked, *calls, *always]


def checked_flags() -> list[str]:
    """Flags with which tests compile on Linux."""
    # -O1 is the same arithmetic, compiled in half the time
    how = sanitizer_flags(SANITIZE) if SANITIZE else ["-O1"]
    macros = [f"-D{name}" for name in DEFINES]
    included = [f"-I{path}" for path in INCLUDES]
    return [*FLAGS, *THREADS, *how, *WARNINGS, *macros, "-fPIC", *included]


def extension() -> Pybind11Extension:
    compile_args, link_args = [*FLAGS, *THREADS], [*THREADS]
    if SANITIZE:
        compile_args += sanitizer_flags(SANITIZE)
        link_args += sanitizer_flags(SANITIZE)
    elif DEFINES and sys.platform != "win32":
        compile_args += ["-O1", *WARNINGS]  # the same arithmetic, compiled in half the time
    return Pybind11Extension(
        "fastrnn._core",
        SOURCES,
        include_dirs=INCLUDES,
        depends=[*HEADERS, "setup.py"],
        define_macros=[(name, None) for name in DEFINES],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        optional=NO_EXT != "0",
    )


if __name__ == "__main__":
    if NO_EXT == "1" and not {"bdist_wheel", "editable_wheel"}.isdisjoint(sys.argv):
        tell("FASTRNN_NO_EXT=1, so the C++ extension is left out")
    with ParallelCompile("FASTRNN_JOBS", needs_recompile=stale):
        setup(
            ext_modules=[] if NO_EXT == "1" else [extension()],
            cmdclass={"build": Build, "build_ext": BuildExt},
        )
