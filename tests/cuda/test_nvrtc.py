"""Machine code for every architecture, from NVRTC; no GPU. Needs the extra [cuda-test]."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest
from emulator import KERNEL, EmulatedDevice

import fastrnn
import fastrnn.backends
from fastrnn.backends.cuda import CudaBackend, compile, persistent
from fastrnn.cellmath import CELLS
from fastrnn.spec import Options

pytest.importorskip("cupy", reason='NVRTC comes with the extra "cuda-test"')
try:
    compile.nvrtc()
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)

SM_90 = ("-arch=sm_90", *compile.OPTIONS)
ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")
PROGRAMS = [
    pytest.param(compile.program(np.dtype(dtype), cell), id=f"{dtype}-{cell}")
    for dtype in ("float32", "float64")
    for cell in (None, *CELLS)
] + [
    pytest.param(compile.program(np.dtype(dtype), cell, Options(clip=2.0)), id=f"{dtype}-{cell}")
    for dtype in ("float32", "float64")
    for cell in ("lstm_general_peephole", "gru_general_reset_before")
]

# Of the 65536 that a multiprocessor has, 64 let four blocks of 256 threads share it. A persistent
# block has a multiprocessor to itself.
MOST_REGISTERS, MOST_REGISTERS_PERSISTENT = 64, 255

_USAGE = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers",
    re.DOTALL,
)


def text_of(dtype: str, cell: str | None) -> str:
    return compile.source(compile.program(np.dtype(dtype), cell))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_kernel_fits_into_registers(program: compile.Program, arch: str) -> None:
    text = compile.source(program)
    report = compile.report(text, arch)
    assert f"for '{arch}'" in report
    usage = {name: tuple(map(int, rest)) for name, *rest in _USAGE.findall(report)}
    assert sorted(usage) == sorted(KERNEL.findall(text))
    for name, (stack, stores, loads, registers) in usage.items():
        assert (stack, stores, loads) == (0, 0, 0), name
        assert registers <= MOST_REGISTERS, name


def persistent_program(
    path: persistent.MatmulPath,
    cell: str,
    direction: str,
    tiles: int,
    columns: int,
    exchange: str = persistent.COUNTER,
) -> compile.Program:
    """The program of a tiling with as many weights in registers as a plan may ask for."""
    itemsize = 8 if path is persistent.CHAINS_DOUBLE else 4
    gates = len(CELLS[cell].gates) if direction == "forward" else 1
    units = 16 * tiles // gates
    H = 8 * units if exchange == CLUSTER else 4096
    work = persistent.Work(64, H, gates, 8192, itemsize, 3)
    tiling = persistent.make_tiling(
        work, path, persistent.THREADS, units, 64, columns, exchange=exchange
    )
    name = f"persistent_{direction}"
    return compile.persistent(np.dtype(f"f{itemsize}"), cell, name, **tiling.options)


THREE, TF32, BF16 = persistent.THREE_TF32, persistent.TF32, persistent.BF16
TENSOR_ARCHS = [arch for arch in ARCHS if arch != "sm_75"]
# (path, tiles, columns): those with most sums, and those with most weights
WIDE = [(THREE, 4, 1), (TF32, 4, 2), (TF32, 8, 1), (BF16, 4, 1), (BF16, 7, 1), (BF16, 8, 1)]
DEEP = [(THREE, 1, 1), (THREE, 2, 2), (TF32, 1, 2), (TF32, 2, 1), (BF16, 1, 1), (BF16, 2, 2)]
CHAINS = [(persistent.CHAINS, 2, 2), (persistent.CHAINS, 4, 1), (persistent.CHAINS_DOUBLE, 2, 1)]
COUNTER, FLAGS, CLUSTER = persistent.EXCHANGES
# sm_86, sm_89 and sm_90a differ little from their neighbours
WITH_CLUSTERS = ["sm_90", "sm_100", "sm_120"]
USUAL = [arch for arch in TENSOR_ARCHS if arch not in ("sm_86", "sm_89", "sm_90a")]
PERSISTENT = [
    *((arch, "lstm_peephole", *shape, COUNTER) for arch in USUAL for shape in WIDE),
    *((arch, "lstm_peephole", *shape, FLAGS) for arch in TENSOR_ARCHS for shape in WIDE),
    *(("sm_80", "lstm", *shape, COUNTER) for shape in DEEP),
    *(("sm_90", "gru", *shape, FLAGS) for shape in DEEP),
    *(("sm_90", cell, *WIDE[0], COUNTER) for cell in ("gru", "rnn_tanh", "rnn_relu")),
    *(("sm_75", "lstm_peephole", *shape, each) for each in (COUNTER, FLAGS) for shape in CHAINS),
    *(("sm_90", "lstm_peephole", *shape, each) for each in (COUNTER, CLUSTER) for shape in CHAINS),
    *((arch, "lstm_peephole", *shape, CLUSTER) for arch in WITH_CLUSTERS for shape in WIDE),
    *(("sm_90", "gru", *shape, CLUSTER) for shape in DEEP),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("arch", "cell", "path", "tiles", "columns", "exchange"),
    PERSISTENT,
    ids=lambda value: value.name if isinstance(value, persistent.MatmulPath) else str(value),
)
def test_weights_in_registers_leave_room(
    arch: str,
    cell: str,
    path: persistent.MatmulPath,
    tiles: int,
    columns: int,
    exchange: str,
    direction: str,
) -> None:
    program = persistent_program(path, cell, direction, tiles, columns, exchange)
    ((_, *numbers),) = _USAGE.findall(compile.report(compile.source(program), arch))
    stack, stores, loads, registers = map(int, numbers)
    assert (stack, stores, loads) == (0, 0, 0), registers
    assert registers <= MOST_REGISTERS_PERSISTENT


class Noting(EmulatedDevice):
    """A device that knows which programs it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.programs: set[compile.Program] = set()

    def kernel(self, program: compile.Program, name: str) -> Any:
        self.programs.add(program)
        return super().kernel(program, name)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_first_step_of_training_compiles_in_two_or_three_seconds(
    compiler: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device: Any = Noting()
    backend = CudaBackend(device)
    monkeypatch.setattr(fastrnn.backends, "_get", lambda name: backend)
    layer = getattr(fastrnn, kind)(3, 16, 2, dropout=0.1, backend="cuda")
    y, _, tape = layer.forward(fake_cupy.asarray(np.ones((4, 2, 3), np.float32)), rng=0)
    layer.backward(tape, y)
    assert len(device.programs) >= 2
    begin = time.process_time()
    for program in device.programs:
        compile.report(compile.source(program), "sm_90")
    # of a slow core: a Zen 1 at 2.5 GHz takes 2.0 to 2.2 s, a Zen 4 stays under 2 s
    assert time.process_time() - begin < 3


def test_the_budget_finds_a_spill() -> None:
    """Twenty-four registers are too few for an LSTM's backward in double precision."""
    text = text_of("float64", "lstm")
    options = ("-arch=sm_90", *compile.OPTIONS, "--maxrregcount=24", "--ptxas-options=-v")
    report = compile._compile(compile.nvrtc(), text, options)[1]
    assert any(int(stores) for _, _, stores, _, _ in _USAGE.findall(report))


def test_an_error_names_the_file_and_the_line() -> None:
    text = text_of("float32", "gru").replace("u.h_prev = load(h + i);", "u.h_prev = nothing;", 1)
    with pytest.raises(compile.CompileError, match=r'pointwise\.cu\(\d+\): error: .*"nothing"'):
        compile.report(text, "sm_90")


@pytest.fixture(scope="module")
def cuobjdump() -> str:
    """The program that reads machine code, from its wheel or from a toolkit."""
    for folder in map(Path, sys.path):
        program = folder / "nvidia" / "cu13" / "bin" / "cuobjdump"
        if program.is_file():
            return str(program)
    found = shutil.which("cuobjdump")
    if found is None:
        pytest.skip('cuobjdump comes with the extra "cuda-test"')
    return found


def test_the_machine_code_is_whole(cuobjdump: str, tmp_path: Any, monkeypatch: Any) -> None:
    """What is kept on disk is what the tools of CUDA can read, with its last byte."""
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path / "cache"))
    text = text_of("float32", None)
    code = compile.cubin(text, "sm_90")
    assert compile.cubin(text, "sm_90") == code
    file = tmp_path / "shared.cubin"
    file.write_bytes(code)
    listing = subprocess.run(
        [cuobjdump, "-sass", str(file)], capture_output=True, text=True, check=True
    ).stdout
    functions = dict(re.findall(r"Function : (\w+)(.*?)(?=Function :|\Z)", listing, re.DOTALL))
    assert set(functions) == set(KERNEL.findall(text))
    assert "FFMA" in functions["chain_product"]
    assert "BAR.SYNC" in functions["chain_product"]
    for name, body in functions.items():
        assert not re.search(r"\b(LDL|STL)\b", body), name


def test_tensor_cores_are_used(cuobjdump: str, tmp_path: Any) -> None:
    """A chunk of k is one instruction of bfloat16, two of TF32, six for three products."""
    for path, bf16, tf32 in ((BF16, 1, 0), (TF32, 0, 2), (THREE, 0, 6), (persistent.CHAINS, 0, 0)):
        program = persistent_program(path, "lstm", "forward", 2, 1)
        file = tmp_path / f"{path.name}.cubin"
        file.write_bytes(compile._compile(compile.nvrtc(), compile.source(program), SM_90)[0])
        listing = subprocess.run(
            [cuobjdump, "-sass", str(file)], capture_output=True, text=True, check=True
        ).stdout
        assert not re.search(r"\b(LDL|STL)\b", listing)
        register_chunks = int(dict(program.defines)["FASTRNN_REGISTER_CHUNKS"])
        for kind, count in ((r"16816\.F32\.BF16", bf16), (r"1688\.F32\.TF32", tf32)):
            found = len(re.findall(rf"HMMA\.{kind}", listing))
            # two tiles; chunks in registers are unrolled, those in shared memory once or more
            assert found >= 2 * (register_chunks + 1) * count
            assert bool(found) == bool(count)
        loads = r"LDG\.E\.64" if path is BF16 else r"LDG\.E\.128"
        assert len(re.findall(loads, listing)) >= register_chunks


def instructions(cuobjdump: str, tmp_path: Any, program: compile.Program) -> list[str]:
    """The machine code of a program for sm_90, an instruction a line, in the order they stand."""
    file = tmp_path / "program.cubin"
    file.write_bytes(compile._compile(compile.nvrtc(), compile.source(program), SM_90)[0])
    listing = subprocess.run(
        [cuobjdump, "-sass", str(file)], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?(.*?);", listing, re.MULTILINE)


@pytest.mark.parametrize("path", [BF16, TF32, THREE], ids=lambda path: path.name)
def test_the_exchange_does_not_wait_for_the_input(
    cuobjdump: str, tmp_path: Any, path: persistent.MatmulPath
) -> None:
    """What a step needs besides is on its way from memory when the first words are asked for: an
    addition before that would wait for it."""
    code = instructions(
        cuobjdump, tmp_path, persistent_program(path, "lstm", "forward", 1, 1, FLAGS)
    )
    first = next(i for i, each in enumerate(code) if re.match(r"LDG\.E\S*\.STRONG", each))
    before = code[first - 110 : first]
    assert sum(each.startswith("LDG.E R") for each in before) >= 5  # c, and W x of four gates
    assert not [each for each in before if each.startswith(("FADD", "FFMA", "FMUL"))]


def chain(code: list[str]) -> int:
    """How many products of tensor cores follow each other, each adding to the one before."""
    depth: dict[str, int] = {}
    for each in code:
        found = re.match(r"HMMA\S* (R\w+), R\w+(?:\.reuse)?, R\w+(?:\.reuse)?, (R\w+)", each)
        if found:
            to, added = found.groups()
            depth[to] = depth.get(added, 0) + 1
    return max(depth.values())


@pytest.mark.parametrize(("path", "each"), [(BF16, 1), (TF32, 2), (THREE, 4)])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_products_of_a_tile_are_no_chain(
    cuobjdump: str, tmp_path: Any, path: persistent.MatmulPath, each: int, direction: str
) -> None:
    """Of one tile chunks go to four sums by turns. `each` is the chain of one chunk."""
    program = persistent_program(path, "lstm", direction, 1, 1)
    register_chunks = int(dict(program.defines)["FASTRNN_REGISTER_CHUNKS"])
    longest = chain(instructions(cuobjdump, tmp_path, program))
    # those in registers; then in a loop one of four, and of its rest
    assert longest <= (-(-register_chunks // 4) + 2) * each < register_chunks * each


def test_cupy_has_what_its_stand_in_has() -> None:
    """The emulated device must not offer more than the real one."""
    import cupy
    import fake_cupy

    own = {"Address", "Borrowed", "CUBLASError", "Host", "ReservesMemory", "cuda", "install"}
    own |= {"lent", "ndarray", "queue", "recording"}
    functions = [
        name
        for name, value in vars(fake_cupy).items()
        if getattr(value, "__module__", None) == fake_cupy.__name__ and not name.startswith("_")
    ]
    assert len(functions) > 8
    for name in {*functions, "concatenate"} - own:
        assert hasattr(cupy if name != "Device" else cupy.cuda, name), name
    for name in vars(fake_cupy.ndarray):
        assert name in ("_host", "__weakref__", "__dict__", "__bool__") or hasattr(
            cupy.ndarray, name
        ), name
    assert cupy.ndarray.__module__ == fake_cupy.ndarray.__module__ == "cupy"


def test_cupy_has_what_the_device_asks_for() -> None:
    import cupy

    for path in (
        "random.standard_normal",
        "cuda.Device.compute_capability",
        "cuda.device.get_cublas_handle",
        "cuda.function.Module.load",
        "cuda.function.Module.get_function",
        "cuda.Device.attributes",
        "cuda.Device.__enter__",
        "cuda.Event.record",
        "cuda.Event.synchronize",
        "cuda.get_elapsed_time",
        "cuda.runtime.getDeviceProperties",
        "cuda.Graph.launch",
        "cuda.Stream.begin_capture",
        "cuda.Stream.end_capture",
        "cuda.Stream.is_capturing",
        "cuda.driver.CUDADriverError",
        "cuda.get_current_stream",
        "cuda.using_allocator",
        "cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES",
        "cuda.driver.funcSetAttribute",
        "cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor",
        "cuda.runtime.getDevice",
        "cuda.runtime.getDeviceCount",
        "cuda.runtime.CUDARuntimeError",
        "asnumpy",
    ):
        found = cupy
        for name in path.split("."):
            found = getattr(found, name)


def ptx(text: str) -> bytes:
    """What NVRTC makes of a text, with the options of all programs, before the assembler."""
    binding = compile.nvrtc()
    made = binding.createProgram(text, "fastrnn.cu", (), ())
    binding.compileProgram(made, ("-arch=compute_90", *compile.OPTIONS))
    code: bytes = binding.getPTX(made)
    binding.destroyProgram(made)
    return code


def test_operations_are_fused_only_where_the_source_says_so() -> None:
    """Else the cells would not have the bits of the CPU's."""
    kernel = 'extern "C" __global__ void kernel(float* a) {{ a[0] = {}; }}'
    assert b"fma.rn.f32" not in ptx(kernel.format("a[1] * a[2] + a[3]"))
    assert b"fma.rn.f32" in ptx(kernel.format("fmaf(a[1], a[2], a[3])"))


def test_what_blocks_write_for_each_other_is_not_read_through_a_cache_of_constants() -> None:
    """ld.global.nc may give what was there before the launch; the emulator cannot see that."""
    for direction in ("forward", "backward"):
        code = ptx(compile.source(persistent_program(BF16, "gru", direction, 1, 1)))
        assert b"ld.global.nc" not in code
        assert b"ld.global.cg" in code
        assert b"ld.acquire.gpu" in code
        assert b"red.release.gpu" in code


def test_clusters_read_their_own_memory_and_write_to_all() -> None:
    for path, kind in ((BF16, b"b16"), (TF32, b"f32"), (persistent.CHAINS_DOUBLE, b"f64")):
        code = ptx(compile.source(persistent_program(path, "gru", "forward", 1, 1, CLUSTER)))
        assert b".reqnctapercluster 8, 1, 1" in code
        assert b"st.shared::cluster." + kind in code
        assert b"barrier.cluster.arrive.release" in code
        assert b"barrier.cluster.wait.acquire" in code
        four = {b"b16": b"v2.u32", b"f32": b"v4.u32", b"f64": b"v2.f64"}[kind]
        assert b"ld.shared." + four in code
        assert b"ld.global.cg" not in code


def test_words_are_loaded_and_stored_whole() -> None:
    """Each as wide as it is looked at: what is written in halves may be read in halves."""
    for path, kind in ((BF16, b"b16"), (TF32, b"f32"), (persistent.CHAINS_DOUBLE, b"f64")):
        code = ptx(compile.source(persistent_program(path, "gru", "forward", 1, 1, FLAGS)))
        assert b"ld.global.nc" not in code
        assert b"ld.global.cg" not in code
        many = b"v2" if kind == b"f64" else b"v4"
        assert b"ld.relaxed.gpu.global." + many + b"." + kind in code
        assert b"st.relaxed.gpu.global." + kind in code
