"""Programs, the cache of machine code, and what CuPy must bring: no GPU and no CuPy needed."""

from __future__ import annotations

import ctypes
import re
import shutil
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import fake_cupy
import numpy as np
import pytest

import fastrnn
import fastrnn.backends
from fastrnn.backends.cuda import CudaBackend, compile, why_not
from fastrnn.backends.cuda.device import CupyDevice
from fastrnn.cellmath import CELLS, GENERAL
from fastrnn.cli import main

LSTM = compile.program(np.dtype("f4"), "lstm")


class Nvrtc:
    """As cupy.cuda.nvrtc; the machine code is a number."""

    class NVRTCError(RuntimeError):
        pass

    version = (13, 0)
    compiled = 0

    def getVersion(self) -> tuple[int, int]:
        return self.version

    def getSupportedArchs(self) -> tuple[int, ...]:
        return (75, 90)

    def createProgram(self, text: str, *_: Any) -> Any:
        return SimpleNamespace(text=text, alive=True)

    def compileProgram(self, made: Any, options: tuple[str, ...]) -> None:
        self.options = options
        if "wrong" in made.text:
            raise self.NVRTCError("NVRTC_ERROR_COMPILATION (6)")
        self.compiled += 1

    def getProgramLog(self, made: Any) -> str:
        return "pointwise.cu(7): error"

    def getCUBIN(self, made: Any) -> bytes:
        return b"code %d" % self.compiled

    def destroyProgram(self, made: Any) -> None:
        assert made.alive
        made.alive = False


class Module:
    """As cupy.cuda.function.Module."""

    loaded: list[tuple[int, bytes]]

    def load(self, code: bytes) -> None:
        self.loaded.append((fake_cupy.Device().id, code))

    def get_function(self, name: str) -> str:
        return f"{name} of {len(self.loaded)}"


@pytest.fixture
def nvrtc(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Nvrtc:
    """A CuPy with two devices whose NVRTC is ours; an empty cache."""
    binding = Nvrtc()
    runtime = fake_cupy._Runtime
    runtime.getDevice = staticmethod(lambda: fake_cupy.Device().id)  # type: ignore[attr-defined]
    cuda = SimpleNamespace(
        Device=fake_cupy.Device,
        device=fake_cupy.cuda.device,
        runtime=runtime,
        nvrtc=binding,
        function=SimpleNamespace(Module=type("Fresh", (Module,), {"loaded": []})),
    )
    monkeypatch.setattr(fake_cupy, "cuda", cuda)
    fake_cupy.install(monkeypatch, gemm_ex)
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path / "cache"))
    return binding


# ---- programs ------------------------------------------------------------------------------------


def test_a_program_is_one_text_that_includes_nothing() -> None:
    double = np.dtype("f8")
    programs = [compile.program(double, cell) for cell in (None, *CELLS)]
    programs.append(compile.persistent(double, "gru", "persistent_forward", path="Chains", tiles=2))
    for program in programs:
        text = compile.source(program)
        assert "#include" not in text
        assert "#define FASTRNN_REAL double\n" in text
        assert text.count("#line 1 ") == len(program.files)
    assert "#define FASTRNN_PATH Chains\n#define FASTRNN_TILES 2\n" in text


def test_a_cells_traits_are_those_of_its_kernels() -> None:
    """`CellSpec` says what kernels/cells say."""
    text = "".join(path.read_text() for path in sorted(compile.KERNELS.glob("cells/*.h")))
    types = dict(re.findall(r"F\((\w+), ([A-Z]\w+)<", text))
    bodies = dict(re.findall(r"struct (\w+) \{(.*?)\n\};", text, re.S))
    assert set(types) == {*CELLS, *GENERAL}
    for kind, spec in (CELLS | GENERAL).items():
        constants = dict(re.findall(r"\b(k\w+) = (\w+)[,;]", bodies[types[kind]]))
        assert {
            "kGates": str(len(spec.gates)),
            "kHasC": str(spec.has_c).lower(),
            "kLinearBeforeReset": str(spec.linear_before_reset).lower(),
            "kResetBefore": str(spec.reset_before).lower(),
        }.items() <= constants.items(), kind


def test_threads_are_counted_in_64_bits() -> None:
    """A launch of more than 2^31 threads takes more memory than a test can have."""
    counted = re.compile(r"(\w*)\(?blockIdx\.[xyz]\)? \* blockDim")
    kinds = [counted.findall(path.read_text()) for path in compile.KERNELS.glob("cuda/*.*")]
    assert {kind for found in kinds for kind in found} == {"Index"}


# ---- the cache -----------------------------------------------------------------------------------


def test_code_is_kept_by_all_that_it_depends_on(
    nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile.cubin("text", "sm_90")
    assert first == b"code 1\0"  # the byte that the binding takes away is put back
    assert compile.cubin("text", "sm_90") == first
    assert nvrtc.options[0] == "-arch=sm_90"
    changes: list[Any] = [
        lambda: compile.cubin("another text", "sm_90"),
        lambda: compile.cubin("text", "sm_75"),
        lambda: compile.cubin("text", "sm_90", ("-std=c++20",)),
    ]
    for count, change in enumerate(changes, 2):
        assert change() == change() == b"code %d\0" % count
    nvrtc.version = (13, 1)
    assert compile.cubin("text", "sm_90") == b"code 5\0"


def test_a_damaged_file_is_compiled_again(nvrtc: Nvrtc) -> None:
    compile.cubin("text", "sm_90")
    (file,) = compile.cache_folder().iterdir()
    for damage in (b"", file.read_bytes()[:-1], b"\0" * 40):
        file.write_bytes(damage)
        count = nvrtc.compiled
        assert compile.cubin("text", "sm_90") == b"code %d\0" % (count + 1)
        assert compile.cubin("text", "sm_90") == b"code %d\0" % (count + 1)


def test_no_place_to_write(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path / "file"))
    assert compile.cubin("text", "sm_90") != compile.cubin("text", "sm_90")


def test_what_cannot_be_written_leaves_nothing(
    nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(compile.os, "replace", fail)
    assert compile.cubin("text", "sm_90") == b"code 1\0"
    assert not [*compile.cache_folder().iterdir()]


def test_a_change_of_any_kernel_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    fingerprint = compile.fingerprint.__wrapped__
    before = fingerprint()
    folder = tmp_path / "kernels"
    shutil.copytree(compile.KERNELS, folder)
    monkeypatch.setattr(compile, "KERNELS", folder)
    assert fingerprint() == before
    for name in ("cuda/persistent_forward.cu", "cells/gru.h", "activations.h"):
        (folder / name).write_text((folder / name).read_text() + "//\n")
        assert fingerprint() != before
        before = fingerprint()


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTRNN_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert compile.cache_folder().as_posix() == "/caches/fastrnn"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert compile.cache_folder().as_posix().endswith("/Library/Caches/fastrnn")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert compile.cache_folder().as_posix() == "/local/fastrnn"


def test_what_nvrtc_refuses(nvrtc: Nvrtc) -> None:
    with pytest.raises(compile.CompileError, match=r"pointwise\.cu\(7\): error"):
        compile.cubin("wrong", "sm_90")
    with pytest.raises(RuntimeError, match=r"^NVRTC 13\.0 does not know sm_130: another version"):
        compile.cubin("text", "sm_130")


# ---- the device ----------------------------------------------------------------------------------


def test_each_device_loads_a_program_once(nvrtc: Nvrtc) -> None:
    device = CupyDevice()
    loaded = fake_cupy.cuda.function.Module.loaded
    kernel = device.kernel(LSTM, "cell_forward")
    assert kernel == "cell_forward of 1"
    assert device.kernel(LSTM, "cell_forward") is kernel
    assert device.kernel(LSTM, "cell_backward") == "cell_backward of 1"
    with fake_cupy.Device(1):
        assert device.kernel(LSTM, "cell_forward") == "cell_forward of 2"
    assert loaded == [(0, b"code 1\0"), (1, b"code 1\0")]  # compiled once: the same architecture
    device.kernel(compile.program(np.dtype("f8"), "lstm"), "cell_forward")
    assert len(loaded) == 3


def test_each_kind_of_device_has_its_machine_code(
    nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_cupy.Device, "capabilities", {0: "90", 1: "75"})
    device = CupyDevice()
    for number, arch in ((0, "sm_90"), (1, "sm_75")):
        with fake_cupy.Device(number):
            device.kernel(LSTM, "cell_forward")
        assert nvrtc.options[0] == f"-arch={arch}"
    assert fake_cupy.cuda.function.Module.loaded == [(0, b"code 1\0"), (1, b"code 2\0")]


def test_cooperative_kernels(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is asked for with the memory that the launch will take."""
    asked: list[Any] = []
    launched: list[Any] = []

    class Function:
        ptr = 77

        def __call__(self, *args: Any, **keywords: Any) -> None:
            launched.append((args, keywords))

    driver = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        funcSetAttribute=lambda *args: asked.append(args),
        occupancyMaxActiveBlocksPerMultiprocessor=lambda *args: asked.append(args) or 2,
    )
    attributes = {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448}
    monkeypatch.setattr(fake_cupy.cuda, "driver", driver, raising=False)
    monkeypatch.setattr(fake_cupy.Device, "attributes", attributes, raising=False)
    monkeypatch.setattr(Module, "get_function", lambda self, name: Function())
    device = CupyDevice()
    assert device.shared_memory == 232448
    kernel, room = device.cooperative(LSTM, "persistent_forward", 256, 100_000)
    assert room == 264
    assert asked == [(77, 8, 232448), (77, 256, 100_000)]
    kernel((3,), (256,), (1, 2), 100_000)
    assert launched == [(((3,), (256,), (1, 2), 100_000), {"enable_cooperative_groups": True})]
    kernel, room = device.cooperative(LSTM, "persistent_forward", 256, 90_000, clustered=True)
    assert (room, asked[2:]) == (264, [(77, 8, 232448), (77, 256, 90_000)])
    kernel((3,), (256,), (1, 2), 90_000)
    assert launched[1:] == [(((3,), (256,), (1, 2), 90_000), {})]


def test_what_is_measured_is_kept_by(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = {0: {"name": b"One"}, 1: {"name": b"Other"}}
    runtime = fake_cupy._Runtime
    monkeypatch.setattr(runtime, "getDeviceProperties", properties.__getitem__, raising=False)
    device = CupyDevice()
    assert (device.name, device.capability, device.nvrtc) == ("One", 90, (13, 0))
    with fake_cupy.Device(1):
        assert device.name == "Other"


def test_time_is_that_of_the_stream(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def record(self) -> None:
            log.append("record")

        def synchronize(self) -> None:
            log.append("wait")

    cuda = fake_cupy.cuda
    monkeypatch.setattr(cuda, "Event", Event, raising=False)
    monkeypatch.setattr(cuda, "get_elapsed_time", lambda begin, end: 0.25, raising=False)
    assert CupyDevice().time(lambda: log.append("work")) == 250.0
    assert log == ["record", "work", "record", "wait"]


def in_memory(address: int, rows: int, leading: int, columns: int, dtype: Any) -> Any:
    """The matrix (rows, columns) whose columns begin `leading` elements apart, as BLAS has it."""
    count = (columns - 1) * leading + rows
    kind = ctypes.c_float if dtype == np.float32 else ctypes.c_double
    flat = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), (count,))
    steps = (flat.itemsize, leading * flat.itemsize)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), steps)


def gemm_ex(*args: int) -> None:
    """cublasGemmEx on the host, as strict with leading dimensions."""
    handle, a_turned, b_turned, m, n, k, alpha, a, a_type, lda = args[:10]
    b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm = args[10:]
    assert (handle, algorithm) == (1, -1)
    assert a_type == b_type == c_type
    dtype = {0: np.float32, 1: np.float64}[c_type]
    computed[:] = [compute]
    a_shape, b_shape = (k, m) if a_turned else (m, k), (n, k) if b_turned else (k, n)
    assert lda >= a_shape[0]
    assert ldb >= b_shape[0]
    assert ldc >= m
    left = in_memory(a, a_shape[0], lda, a_shape[1], dtype)
    right = in_memory(b, b_shape[0], ldb, b_shape[1], dtype)
    out = in_memory(c, m, ldc, n, dtype)
    one, add = (in_memory(x, 1, 1, 1, dtype)[0, 0] for x in (alpha, beta))
    product = (left.T if a_turned else left) @ (right.T if b_turned else right)
    out[...] = one * product + (add * out if add else 0)


computed: list[int] = []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)])
def test_products_go_to_cublas(
    nvrtc: Nvrtc, dtype: str, accumulate: bool, sizes: tuple[int, int, int]
) -> None:
    (M, K, N), draw = sizes, np.random.default_rng(0)
    device = CupyDevice()

    def matrix(rows: int, columns: int, how: str) -> Any:
        turned = how == "turned"
        shape = (columns, rows) if turned else (rows, columns)
        extra = 3 if how == "part" else 0
        whole = draw.standard_normal((shape[0], shape[1] + extra)).astype(dtype)
        a = fake_cupy.ndarray(whole)[:, extra:]
        return a.T if turned else a

    for a_how in ("whole", "turned", "part"):
        for b_how in ("whole", "turned", "part"):
            a, b, out = matrix(M, K, a_how), matrix(K, N, b_how), matrix(M, N, "whole")
            want = a.get() @ b.get() + (out.get() if accumulate else 0)
            device.gemm(a, b, out, accumulate, "highest")
            np.testing.assert_allclose(out.get(), want, rtol=1e-5, atol=1e-6)
    device.gemm(a[:0], b, out[:0], accumulate, "highest")  # no rows


def test_products_have_precisions(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of float32, and where the GPU has them."""
    single, double = (fake_cupy.asarray(np.eye(4, dtype=dtype)) for dtype in ("f4", "f8"))
    kinds = {"highest": 68, "high": 77, "medium": 75}
    for precision, kind in kinds.items():
        CupyDevice().gemm(single, single, single, False, precision)
        assert computed == [kind]
    CupyDevice().gemm(double, double, double, False, "highest")
    assert computed == [70]

    class Turing(fake_cupy.Device):
        def __init__(self, id: int | None = None) -> None:
            super().__init__(id)
            self.compute_capability = "75"

    monkeypatch.setattr(fake_cupy.cuda, "Device", Turing)
    for precision in kinds:
        CupyDevice().gemm(single, single, single, False, precision)
        assert computed == [68]


# ---- recording -----------------------------------------------------------------------------------


class CudaError(RuntimeError):
    """As CUDARuntimeError and CUDADriverError."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"status {status}")


class Stream:
    """As cupy.cuda.Stream; what happens to streams and allocators is written down."""

    log: list[Any]
    current: list[Any]
    status = 0
    ptr = 0

    def __init__(self, non_blocking: bool = False) -> None:
        self.capturing, self.ptr = False, 5
        assert non_blocking

    def __enter__(self) -> None:
        self.current.append(self)

    def __exit__(self, *_: Any) -> None:
        self.current.pop()

    def begin_capture(self) -> None:
        self.capturing = True
        self.log.append("begin")

    def end_capture(self) -> Any:
        self.capturing = False
        self.log.append("end")
        if self.status:
            raise CudaError(self.status)
        return SimpleNamespace(launch=lambda: self.log.append("launch"))

    def is_capturing(self) -> bool:
        return self.capturing


@pytest.fixture
def streams(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> type[Stream]:
    """The class of streams of a CuPy that can record."""
    log: list[Any] = []
    default = SimpleNamespace(ptr=0, is_capturing=lambda: False)
    Fresh: Any = type("Fresh", (Stream,), {"log": log, "current": [default]})

    @contextmanager
    def using_allocator(allocator: Any) -> Any:
        log.append(allocator)
        yield
        log.append("allocator back")

    cuda = fake_cupy.cuda
    monkeypatch.setattr(cuda, "Stream", Fresh, raising=False)
    monkeypatch.setattr(cuda, "using_allocator", using_allocator, raising=False)
    monkeypatch.setattr(cuda, "get_current_stream", lambda: Fresh.current[-1], raising=False)
    monkeypatch.setattr(cuda, "driver", SimpleNamespace(CUDADriverError=CudaError), raising=False)
    monkeypatch.setattr(cuda.runtime, "CUDARuntimeError", CudaError)
    return Fresh


def test_a_recording(streams: type[Stream]) -> None:
    device = CupyDevice()
    assert device.place() == (0, 0)
    assert not device.recording
    seen: list[Any] = []
    launch = device.record(lambda: seen.append((device.place(), device.recording)))
    assert seen == [((0, 5), True)]  # on a stream of its own
    assert device.place() == (0, 0)
    assert launch is not None
    launch()
    assert streams.log[1:] == ["begin", "end", "allocator back", "launch"]


def test_a_recording_that_asks_for_memory_is_none(streams: type[Stream]) -> None:
    device = CupyDevice()
    assert device.record(lambda: streams.log[0](16)) is None
    assert streams.log[1:3] == ["begin", "end"]
    assert device.place() == (0, 0)


@pytest.mark.parametrize("status", [801, 900, 901, 905])
def test_what_cannot_be_recorded(streams: type[Stream], status: int) -> None:
    def work() -> None:
        raise CudaError(status)

    device = CupyDevice()
    assert device.record(work) is None
    streams.status = 901  # what the end says of a recording that something has spoiled
    assert device.record(work) is None
    assert device.record(lambda: None) is None


@pytest.mark.parametrize("end", [0, 901])
def test_products_that_cublas_does_not_record(streams: type[Stream], end: int) -> None:
    """Its own error, and what the end of a recording says that was spoiled so."""
    streams.status = end
    device = CupyDevice()
    for status in (1, 3, 13, 14, 15):  # not initialised, no memory, failed, internal, not supported

        def work(status: int = status) -> None:
            raise fake_cupy.CUBLASError(status)

        assert device.record(work) is None
        assert not device.recording


def test_other_errors_of_a_recording_are_raised(streams: type[Stream]) -> None:
    def work() -> None:
        raise CudaError(719)

    device = CupyDevice()
    with pytest.raises(CudaError, match="719"):
        device.record(work)
    with pytest.raises(ZeroDivisionError):
        device.record(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert not device.recording


# ---- what is missing -----------------------------------------------------------------------------


def test_all_is_there(nvrtc: Nvrtc) -> None:
    assert why_not() is None
    assert isinstance(CudaBackend()._device, CupyDevice)


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    fastrnn.backends._get.cache_clear()
    reason = fastrnn.backends.why_not("cuda")
    assert reason is not None
    assert reason.startswith("CuPy is not usable (")
    assert reason.endswith('pip install "fastrnn[cuda]"')
    with pytest.raises(RuntimeError, match=r'^backend "cuda" cannot be used here: CuPy is not'):
        fastrnn.LSTM(3, 4, backend="cuda")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (35, "there is no CUDA driver, or one older than CuPy needs"),
        (100, "there is a CUDA driver, but no NVIDIA GPU that it may use"),
        (999, "CUDA does not start"),
    ],
)
def test_no_driver(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch, status: int, reason: str) -> None:
    def fail() -> int:
        raise CudaError(status)

    monkeypatch.setattr(fake_cupy._Runtime, "getDeviceCount", staticmethod(fail))
    monkeypatch.setattr(fake_cupy._Runtime, "CUDARuntimeError", CudaError)
    assert why_not() == f"{reason} (status {status})"
    assert fastrnn.show_config("dicts")["backends"]["cuda"] == f"not usable: {why_not()}"


def test_the_status_of_the_real_cupy() -> None:
    runtime = pytest.importorskip("cupy").cuda.runtime
    try:
        runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        status = error.status
    else:
        pytest.skip("there is a driver, and a GPU")
    assert status in (35, 100)


class Old(fake_cupy.Device):
    """A device of Volta's."""

    def __init__(self, id: int | None = None) -> None:
        super().__init__(id)
        self.compute_capability = "70"


TOO_OLD = "GPU {} has compute capability 7.0, 7.5 (Turing) or later is needed"


def test_an_old_gpu(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_cupy.cuda, "Device", Old)
    assert why_not() == TOO_OLD.format(0)


def test_an_old_gpu_beside_a_new_one(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    device = CupyDevice()
    device.kernel(LSTM, "cell_forward")
    monkeypatch.setattr(fake_cupy.cuda, "Device", Old)
    with fake_cupy.Device(1), pytest.raises(RuntimeError) as raised:
        device.kernel(LSTM, "cell_forward")
    assert str(raised.value) == TOO_OLD.format(1)
    assert device.kernel(LSTM, "cell_forward") == "cell_forward of 1"


# ---- the caller's stream -------------------------------------------------------------------------


def test_all_is_queued_on_the_callers_stream(
    streams: type[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing names a stream, so that CuPy takes the current one."""
    launched: list[Any] = []

    class Function:
        ptr = 77

        def __call__(self, *args: Any, **keywords: Any) -> None:
            launched.append((streams.current[-1].ptr, keywords))

    driver = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        funcSetAttribute=lambda *args: None,
        occupancyMaxActiveBlocksPerMultiprocessor=lambda *args: 1,
    )
    attributes = {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448}
    monkeypatch.setattr(fake_cupy.cuda, "driver", driver)
    monkeypatch.setattr(fake_cupy.Device, "attributes", attributes, raising=False)
    monkeypatch.setattr(Module, "get_function", lambda self, name: Function())
    device = CupyDevice()
    kernels = [device.kernel(LSTM, "cell_forward"), device.cooperative(LSTM, "run", 256, 0)[0]]
    for stream in (streams.current[0], streams(non_blocking=True)):
        with stream if isinstance(stream, Stream) else nullcontext():
            for kernel in kernels:
                kernel((1,), (256,), ())
    assert [ptr for ptr, _ in launched] == [0, 0, 5, 5]
    assert not any("stream" in keywords for _, keywords in launched)


def test_no_nvrtc(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise RuntimeError("libnvrtc.so.13: cannot open shared object file")

    monkeypatch.setattr(nvrtc, "getVersion", fail)
    reason = str(why_not())
    assert reason.startswith("NVRTC cannot be loaded (libnvrtc.so.13: cannot open")
    assert reason.endswith('pip install "fastrnn[cuda]"')


class NoCublas(SimpleNamespace):
    """`cupy.cuda` where the library is not found, as CuPy says it: in many lines."""

    @property
    def cublas(self) -> Any:
        raise ImportError('Failure finding "libcublas.so.13"\n  listdir("/lib"):\n    libm.so.6')


def test_no_cublas(nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_cupy, "cuda", without_cublas())
    assert why_not() == (
        'cuBLAS cannot be loaded (Failure finding "libcublas.so.13"): pip install "fastrnn[cuda]"'
    )


def without_cublas() -> Any:
    return NoCublas(**{k: v for k, v in vars(fake_cupy.cuda).items() if k != "cublas"})


@pytest.mark.parametrize("missing", ["CuPy", "driver", "GPU", "NVRTC", "cuBLAS"])
def test_what_is_missing_is_said_wherever_a_gpu_is_asked_for(
    nvrtc: Nvrtc,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    gru, linear = fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(3, 4, rng=0)
    fastrnn.save(tmp_path / "m", gru)
    fastrnn.backends._get.cache_clear()

    def fail(error: Exception) -> Any:
        raise error

    if missing == "CuPy":
        monkeypatch.setitem(sys.modules, "cupy", None)
    elif missing == "driver":
        count = staticmethod(lambda: fail(CudaError(35)))
        monkeypatch.setattr(fake_cupy._Runtime, "getDeviceCount", count)
        monkeypatch.setattr(fake_cupy._Runtime, "CUDARuntimeError", CudaError)
    elif missing == "GPU":
        monkeypatch.setattr(fake_cupy.cuda, "Device", Old)
    elif missing == "NVRTC":
        monkeypatch.setattr(nvrtc, "getVersion", lambda: fail(RuntimeError("libnvrtc.so.13")))
    else:
        monkeypatch.setattr(fake_cupy, "cuda", without_cublas())
    expected = f'^backend "cuda" cannot be used here: {re.escape(str(why_not()))}$'
    assert missing.lower() in expected.lower()
    for ask in (
        lambda: fastrnn.LSTMCell(3, 4, backend="cuda"),
        lambda: fastrnn.Linear(3, 4, device="cuda"),
        lambda: fastrnn.Embedding(3, 4, device="cuda"),
        lambda: gru.to("cuda"),
        lambda: gru.to("cuda:1"),
        lambda: linear.to("cuda"),
        lambda: fastrnn.load(tmp_path / "m", backend="cuda"),
    ):
        with pytest.raises(RuntimeError, match=expected):
            ask()
    with monkeypatch.context() as environment:
        environment.setenv("FASTRNN_BACKEND", "cuda")
        with pytest.raises(RuntimeError, match=expected):
            fastrnn.GRU(3, 4)
    assert main(["tune", "--gpu"]) == 2
    said = capsys.readouterr().err
    assert re.search(expected.replace("^", "^fastrnn tune: "), said, re.MULTILINE)
    assert gru(np.zeros((2, 1, 3), np.float32))[0].shape == (2, 1, 4)  # the CPU goes on
