"""What the launch code needs of a GPU: CuPy gives it, and in the tests an emulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Protocol, TypeAlias

import numpy as np

from fastrnn import forks

from . import compile

Array: TypeAlias = Any
"""A C-contiguous array of the device's namespace `xp`."""

Kernel = Callable[..., None]
"""Called as ``kernel(grid, block, args, shared_mem)``; args are ints (addresses among them) and
floats, 8 bytes each."""

OLDEST = 75

TENSOR_CORES = 80
"""First compute capability that has TF32 and bfloat16."""

CLUSTERS = 90
"""First compute capability that has clusters of blocks."""

# Of cublas_api.h and library_types.h.
_TYPES = {4: 0, 8: 1}  # CUDA_R_32F, CUDA_R_64F
_COMPUTE_32F, _COMPUTE_64F, _ANY_ALGORITHM = 68, 70, -1
_COMPUTE = {"highest": _COMPUTE_32F, "high": 77, "medium": 75}  # _FAST_TF32, _FAST_16BF


# cudaErrorInsufficientDriver is also what is said where there is none; cudaErrorNoDevice
_NO_DEVICE = {
    35: "there is no CUDA driver, or one older than CuPy needs",
    100: "there is a CUDA driver, but no NVIDIA GPU that it may use",
}


class Device(Protocol):
    """A GPU. Everything is queued on the caller's current stream, and nothing waits."""

    xp: Any
    """The namespace of the arrays: cupy, or what stands in for it."""

    def kernel(self, program: compile.Program, name: str) -> Kernel:
        """Return a kernel, compiled and loaded for the current device."""

    def cooperative(
        self,
        program: compile.Program,
        name: str,
        threads: int,
        shared: int,
        clustered: bool = False,
    ) -> tuple[Kernel, int]:
        """Return a kernel whose blocks wait for each other, all or those of a cluster; and how many
        of them, with so many threads and bytes of shared memory, the current device holds at
        once."""

    @property
    def name(self) -> str:
        """What the maker calls the current device."""

    @property
    def capability(self) -> int:
        """Compute capability of the current device, such as 90."""

    @property
    def nvrtc(self) -> tuple[int, int]:
        """Version of NVRTC."""

    @property
    def multiprocessors(self) -> int:
        """Number of multiprocessors of the current device."""

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory that a block on the current device can have."""

    def time(self, work: Callable[[], object]) -> float:
        """Return how many microseconds the current stream takes for some work; wait for it."""

    def gemm(self, a: Array, b: Array, out: Array, accumulate: bool, precision: str) -> None:
        """Write a (M, K) times b (K, N) to out (M, N), or add it; the precision is of float32."""

    def place(self) -> tuple[int, int]:
        """Return the current device and stream, as what tells them from others."""

    @property
    def recording(self) -> bool:
        """Whether the current stream records what is queued instead of running it."""

    def record(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Return what queues on the current stream, as one graph, all that `work` queues; None if
        that cannot be recorded. `work` must have run before; now, what it queues does not run."""


class CupyDevice:
    """The current device of CuPy.

    Raises
    ------
    RuntimeError
        There is none that can be used; the text says what is missing.
    """

    def __init__(self) -> None:
        try:
            self.xp: Any = import_module("cupy")
        except ImportError as error:
            raise RuntimeError(
                f'CuPy is not usable ({error}): pip install "fastrnn[cuda]"'
            ) from error
        runtime = self.xp.cuda.runtime
        try:
            runtime.getDeviceCount()
        except runtime.CUDARuntimeError as error:
            reason = _NO_DEVICE.get(error.status, "CUDA does not start")
            raise RuntimeError(f"{reason} ({error})") from error
        self._arch()
        compile.nvrtc()
        try:
            # As an attribute: CuPy then looks for the library where pip puts it, which an import of
            # the module itself does not.
            self._cublas: Any = self.xp.cuda.cublas
        except (ImportError, RuntimeError, OSError) as error:
            raise compile.cannot_load("cuBLAS", error) from error
        self._kernels: dict[tuple[int, compile.Program, str], Kernel] = {}
        self._modules: dict[tuple[int, compile.Program], Any] = {}
        self._known: dict[int, dict[str, int]] = {}
        self._names: dict[int, str] = {}
        self._lock = forks.Lock()

    def _arch(self) -> str:
        """Return the architecture of the current device."""
        capability = self.capability
        if capability < OLDEST:
            raise RuntimeError(
                f"GPU {self.xp.cuda.Device().id} has compute capability "
                f"{capability // 10}.{capability % 10}, "
                f"{OLDEST // 10}.{OLDEST % 10} (Turing) or later is needed"
            )
        return f"sm_{capability}"

    @property
    def capability(self) -> int:
        """Compute capability of the current device; CuPy remembers it."""
        return int(self.xp.cuda.Device().compute_capability)

    @property
    def name(self) -> str:
        """What the maker calls the current device."""
        device = self.xp.cuda.runtime.getDevice()
        if device not in self._names:
            name: bytes = self.xp.cuda.runtime.getDeviceProperties(device)["name"]
            self._names[device] = name.decode()
        return self._names[device]

    @property
    def nvrtc(self) -> tuple[int, int]:
        """Version of NVRTC."""
        version: tuple[int, int] = compile.nvrtc().getVersion()
        return version

    def time(self, work: Callable[[], object]) -> float:
        """Return how long some work takes; see `Device.time`."""
        cuda = self.xp.cuda
        begin, end = cuda.Event(), cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        microseconds: float = cuda.get_elapsed_time(begin, end) * 1e3
        return microseconds

    def cooperative(
        self,
        program: compile.Program,
        name: str,
        threads: int,
        shared: int,
        clustered: bool = False,
    ) -> tuple[Kernel, int]:
        """Return a kernel and how many of its blocks run at once; see `Device.cooperative`."""
        function: Any = self.kernel(program, name)
        driver = self.xp.cuda.driver
        # As much as there is, not as much as this launch takes: other threads launch it as well.
        most = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        driver.funcSetAttribute(function.ptr, most, self.shared_memory)
        each = driver.occupancyMaxActiveBlocksPerMultiprocessor(function.ptr, threads, shared)
        kernel = function if clustered else partial(function, enable_cooperative_groups=True)
        return kernel, each * self.multiprocessors

    @property
    def multiprocessors(self) -> int:
        """Number of multiprocessors of the current device."""
        return self._attributes()["MultiProcessorCount"]

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory that a block on the current device can have."""
        return self._attributes()["MaxSharedMemoryPerBlockOptin"]

    def _attributes(self) -> dict[str, int]:
        """Return the current device's attributes, which CuPy asks for one by one."""
        device = self.xp.cuda.runtime.getDevice()
        if device not in self._known:
            self._known[device] = dict(self.xp.cuda.Device().attributes)
        return self._known[device]

    def kernel(self, program: compile.Program, name: str) -> Kernel:
        """Return a kernel; see `Device.kernel`."""
        device = self.xp.cuda.runtime.getDevice()
        key = device, program, name
        found = self._kernels.get(key)
        if found is None:
            with self._lock.held:
                module = self._modules.get((device, program))
                if module is None:
                    module = self.xp.cuda.function.Module()
                    module.load(compile.cubin(self.text(program), self._arch()))
                    self._modules[device, program] = module
                found = self._kernels[key] = module.get_function(name)
        return found

    def text(self, program: compile.Program) -> str:
        """Return what is compiled."""
        return compile.source(program)

    def gemm(self, a: Array, b: Array, out: Array, accumulate: bool, precision: str) -> None:
        """Write or add a product, through cuBLAS; see `Device.gemm`."""
        if out.size == 0:
            return
        (M, K), N, itemsize = a.shape, b.shape[1], out.itemsize
        how = _COMPUTE_64F
        if itemsize == 4:
            tensor_cores = self.capability >= TENSOR_CORES
            how = _COMPUTE[precision] if tensor_cores else _COMPUTE_32F
        # on the host, and read before the call returns
        scalars = np.array([1.0, float(accumulate)], out.dtype)
        one, kind = scalars.ctypes.data, _TYPES[itemsize]
        # A matrix here is its transpose there, where columns lie side by side.
        self._cublas.gemmEx(
            self.xp.cuda.device.get_cublas_handle(),
            *(int(not _in_rows(b)), int(not _in_rows(a)), N, M, K, one),
            *(b.data.ptr, kind, _leading(b), a.data.ptr, kind, _leading(a)),
            *(one + itemsize, out.data.ptr, kind, _leading(out), how, _ANY_ALGORITHM),
        )

    def place(self) -> tuple[int, int]:
        """Return the current device and stream; see `Device.place`."""
        cuda = self.xp.cuda
        return cuda.runtime.getDevice(), cuda.get_current_stream().ptr

    @property
    def recording(self) -> bool:
        """Whether the current stream is recording; see `Device.recording`."""
        recording: bool = self.xp.cuda.get_current_stream().is_capturing()
        return recording

    def record(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Return what launches the graph of some work; see `Device.record`."""
        cuda = self.xp.cuda
        # The default stream cannot record; this one waits for none, and none for it.
        stream = cuda.Stream(non_blocking=True)
        try:
            with stream, cuda.using_allocator(_refuse):
                stream.begin_capture()
                try:
                    work()
                finally:
                    graph = stream.end_capture()
        except (_ReservesMemoryError, self._cublas.CUBLASError):
            # The same products have just run, so cuBLAS refuses nothing but to be recorded.
            return None
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            if error.status not in _CANNOT_RECORD:
                raise
            return None
        launch: Callable[[], None] = graph.launch
        return launch


# cudaErrorNotSupported, and cudaErrorStreamCapture...
_CANNOT_RECORD = {801, *range(900, 909)}


class _ReservesMemoryError(Exception):
    """Work that is being recorded asks for memory, which would be another's when it runs."""


def _refuse(size: int) -> Any:
    raise _ReservesMemoryError(size)


def _in_rows(a: Array) -> bool:
    """Whether the rows of a matrix, not its columns, are contiguous."""
    return bool(a.strides[1] == a.itemsize)


def _leading(a: Array) -> int:
    """Return the elements from row to row, or from column to column."""
    along = 0 if _in_rows(a) else 1
    return int(max(a.strides[along] // a.itemsize, a.shape[1 - along]))
