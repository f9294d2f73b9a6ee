"""The package as it is installed: size, import, metadata, and what is in the compiled code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grid import BACKENDS

import fastrnn

ROOT = Path(__file__).parents[1]

needs_extension = pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")


def python(*args: str, env: dict[str, str] | None = None) -> str:
    """Run a new interpreter, which imports what is installed, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, check=True, cwd=sys.prefix, env=env
    )
    return done.stdout + done.stderr


def test_metadata_and_module_name_the_same_version() -> None:
    assert importlib.metadata.version("fastrnn") == fastrnn.__version__


def test_the_extras_that_the_documents_name_are_there() -> None:
    extras = importlib.metadata.metadata("fastrnn").get_all("Provides-Extra") or []
    assert set(extras) >= {"numba", "cuda", "demo", "bench", "peers", "test", "docs", "dev"}


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    assert sorted(set(fastrnn.__all__)) == sorted(fastrnn.__all__)
    for name in fastrnn.__all__:
        assert name == "__version__" or getattr(fastrnn, name).__doc__, name


def test_import_brings_nothing_but_numpy() -> None:
    code = (
        "import sys, numpy; old = set(sys.modules); import fastrnn; print(*set(sys.modules) - old)"
    )
    loaded = {name.partition(".")[0] for name in python("-c", code).split()}
    # numpy.random, which NumPy itself imports at first use, is made with Cython
    ours = {name for name in loaded - sys.stdlib_module_names if "cython" not in name}
    assert ours <= {"fastrnn", "numpy"}


def test_import_adds_less_than_a_tenth_of_a_second_to_numpy(tmp_path: Path) -> None:
    """Of the processor's time, whatever else it does."""
    # with bytecode, as pip leaves it
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    code = (
        "import numpy, time; start = time.process_time(); import fastrnn\n"
        "print(time.process_time() - start)"
    )
    python("-c", code, env=env)  # compiles the bytecode
    assert min(float(python("-c", code, env=env)) for _ in range(5)) < 0.1


def test_import_starts_no_thread_and_prints_nothing() -> None:
    code = "import fastrnn, threading; assert threading.active_count() == 1"
    assert python("-c", code) == ""


def test_the_headers_are_installed() -> None:
    kernels = Path(fastrnn.__file__).parent / "kernels"
    assert (kernels / "cells" / "lstm.h").is_file()
    assert (kernels / "cuda" / "pointwise.cu").is_file()
    assert (kernels.parent / "py.typed").is_file()


@needs_extension
def test_the_compiled_file_is_small() -> None:
    spec = importlib.util.find_spec("fastrnn._core")
    assert spec is not None
    assert spec.origin is not None
    # compressed as in a wheel
    assert len(zlib.compress(Path(spec.origin).read_bytes())) < 3_000_000


def tool(name: str) -> str:
    """Path of a program; without it the test is skipped, on CI it fails."""
    found = shutil.which(name)
    if found is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def build() -> Iterator[dict[str, Any]]:
    """What setup.py says of the build; in its directory, for it names files relative to itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield runpy.run_path("setup.py", run_name="flags")


@pytest.fixture(scope="module", params=["scalar", "avx2", "avx512"])
def isa_object(request: pytest.FixtureRequest, build: dict[str, Any]) -> Path:
    """The object of csrc/isa/*.cpp that the build of the extension has left; where there is none,
    one compiled with the flags of setup.py for tests, kept in build/, by one process at a time."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("reads x86-64 objects in ELF")
    import fcntl  # Linux has it

    name = request.param
    source, made = f"csrc/isa/{name}.cpp", Path(f"build/objects/{name}.o")
    for left in Path("build").glob(f"temp*/csrc/isa/{name}.o"):
        if not build["stale"](left, source):
            return left
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or build["stale"](made, source):
            command = [tool("g++"), *build["checked_flags"](), "-c", source, "-o", str(made)]
            subprocess.run(command, check=True)
    return made


@needs_extension
def test_a_kernel_object_shares_no_code_with_others(isa_object: Path) -> None:
    """A weak symbol would let the linker put one instruction set's copy into another's path."""
    symbols = subprocess.run(
        [tool("nm"), "-C", str(isa_object)], capture_output=True, text=True, check=True
    ).stdout
    assert "table" in symbols
    weak = re.findall(r"^[0-9a-f ]* [VvWwu] (.*)$", symbols, re.MULTILINE)
    # a pointer to the C++ run time, no code
    assert set(weak) <= {"DW.ref.__gxx_personality_v0"}


@needs_extension
def test_wide_registers_appear_only_where_they_belong(isa_object: Path) -> None:
    code = subprocess.run(
        [tool("objdump"), "-d", "--no-show-raw-insn", str(isa_object)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    registers = set(re.findall(r"%([xyz]mm)\d", code))
    widest = {"scalar": "xmm", "avx2": "ymm", "avx512": "zmm"}[isa_object.stem]
    assert max(registers) == widest


def test_the_flags_bind_the_binary_to_no_machine(build: dict[str, Any]) -> None:
    unwanted = ("-m", "-Ofast", "-ffast-math")
    assert not [flag for flag in build["FLAGS"] if flag.startswith(unwanted)]


def test_webassembly_is_built_with_its_vectors_and_without_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("emscripten_4_0_9_wasm32", "pyodide_2025_0_wasm32", "emscripten-4.0.9-wasm32"):
        monkeypatch.setenv("_PYTHON_HOST_PLATFORM", name)
        build = runpy.run_path("setup.py", run_name="flags")
        made = build["extension"]()
        assert "-msimd128" in made.extra_compile_args
        assert "-pthread" not in [*made.extra_compile_args, *made.extra_link_args]
        assert "-pthread" not in build["checked_flags"]()
