"""As much of CuPy as fastrnn uses, over NumPy's memory, and as strict where the two meet.

An array of this module is no NumPy array: what mixes the two raises TypeError, as CuPy does. And
nothing is done with an array, but looked at, unless its device is the thread's current one.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

Host = np.ndarray[Any, np.dtype[Any]]


class _Current(threading.local):
    """The numbers of the devices that this thread has entered."""

    def __init__(self) -> None:
        self.entered = [0]


class Device:
    """A device that can be the current one, of two."""

    _of_thread = _Current()
    capabilities: ClassVar[dict[int, str]] = {0: "90", 1: "90"}

    def __init__(self, id: int | None = None) -> None:
        self.id = Device._of_thread.entered[-1] if id is None else id
        self.compute_capability = self.capabilities[self.id]

    def __enter__(self) -> Device:
        Device._of_thread.entered.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        Device._of_thread.entered.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


class ReservesMemory(Exception):
    """Work that is being recorded asks for memory."""


_queue: list[Callable[[], None]] | None = None


def queue(work: Callable[[], None]) -> None:
    """Run some work, or record it."""
    if _queue is None:
        work()
    else:
        _queue.append(work)


@contextmanager
def recording() -> Iterator[list[Callable[[], None]]]:
    """Record what is queued, as the current stream does in a capture."""
    global _queue
    outer, _queue = _queue, []
    try:
        yield _queue
    finally:
        _queue = outer


def _owner(host: Host) -> weakref.ref[Host]:
    """The array whose memory this is."""
    while isinstance(host.base, np.ndarray):
        host = host.base
    return weakref.ref(host)


class Address(int):
    """Where an array begins. It does not keep the memory."""

    owner: weakref.ref[Host]

    def check(self) -> None:
        assert self.owner() is not None, "memory that has been given back"


class Borrowed:
    """An array as what is recorded has it, which does not keep the memory."""

    def __init__(self, host: Host) -> None:
        self._owner, self._dtype = _owner(host), host.dtype
        self._shape, self._strides, self._address = host.shape, host.strides, host.ctypes.data
        assert min(host.strides, default=0) >= 0

    def __call__(self) -> Host:
        assert self._owner() is not None, "memory that has been given back"
        if 0 in self._shape:
            return np.empty(self._shape, self._dtype)
        steps = zip(self._shape, self._strides, strict=True)
        size = self._dtype.itemsize + sum((n - 1) * stride for n, stride in steps)
        buffer = (ctypes.c_char * size).from_address(self._address)
        return np.ndarray(self._shape, self._dtype, buffer, strides=self._strides)


def lent(value: Any) -> Callable[[], Any]:
    """What gives an operand of queued work: an array by its address, if that is recorded."""
    is_array = isinstance(value, np.ndarray)
    return Borrowed(value) if is_array and _queue is not None else lambda: value


class ndarray:
    """An array on a device."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: Host, device: Device | None = None) -> None:
        if _queue is not None and host.base is None:
            raise ReservesMemory
        self._host = host
        self.device = Device() if device is None else device

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> ndarray:
        """NumPy's functions of our arrays, as CuPy has them: none takes NumPy's arrays as well."""
        out = keywords.pop("out", ())
        results = {"out": tuple(map(_operand, out))} if out else {}
        operands = tuple(map(_operand, inputs))
        if out:
            call = getattr(ufunc, method)
            arrays = [lent(a) for a in operands], [lent(a) for a in results["out"]]
            queue(lambda: call(*(a() for a in arrays[0]), out=tuple(a() for a in arrays[1])))
            return out[0]
        return ndarray(np.asarray(getattr(ufunc, method)(*operands, **keywords)))

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> ndarray:
        return globals()[function.__name__](*args, **keywords)

    def __float__(self) -> float:
        return float(_here(self)._host)

    def __array__(self, *_: Any, **__: Any) -> Host:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use .get()")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._host.__array_interface__, "version": 3}

    @property
    def data(self) -> Any:
        _here(self)
        address = Address(self._host.ctypes.data)
        address.owner = _owner(self._host)
        return SimpleNamespace(ptr=address)

    @property
    def flags(self) -> Any:
        flags = self._host.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    def get(self) -> Host:
        return _here(self)._host.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __dlpack__(self, **how: Any) -> Any:
        return self._host.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._host.__dlpack_device__()

    def __getitem__(self, index: Any) -> ndarray:
        return _like(self, np.asarray(self._host[_index(index, self._host.shape)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        _here(self)
        at, operand, host = _index(index, self._host.shape), _operand(value), lent(self._host)
        source = lent(operand)

        def write() -> None:
            host()[at] = source()

        queue(write)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"fake {self._host!r}"

    def __bool__(self) -> bool:
        raise AssertionError("the truth of an array waits for the GPU")

    def __getstate__(self) -> dict[str, Any]:
        raise AssertionError("an array of the GPU in a pickle")


def _host_attribute(name: str) -> Any:
    return property(lambda self: getattr(self._host, name))


def _method(name: str) -> Any:
    def call(self: ndarray, *args: Any, out: ndarray | None = None, **keywords: Any) -> ndarray:
        if out is not None:
            keywords["out"] = _operand(out)
        return _like(self, np.asarray(getattr(self._host, name)(*args, **keywords)))

    return call


def _operator(name: str) -> Any:
    def call(self: ndarray, other: Any = None) -> Any:
        if isinstance(other, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        assert _queue is None, "not in what is recorded"
        operands = () if other is None else (_operand(other),)
        result = getattr(_here(self)._host, name)(*operands)
        return self if result is self._host else ndarray(np.asarray(result))

    return call


for _name in ("shape", "dtype", "strides", "ndim", "size", "itemsize", "nbytes"):
    setattr(ndarray, _name, _host_attribute(_name))
for _name in ("reshape", "copy", "swapaxes", "astype", "sum", "max", "argmax", "view", "transpose"):
    setattr(ndarray, _name, _method(_name))
for _name in (
    *("add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "matmul"),
    *("truediv", "rtruediv", "itruediv", "lt", "gt", "ge", "and", "or", "invert", "neg"),
):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
ndarray.T = property(lambda self: _like(self, self._host.T))
ndarray.__module__ = "cupy"


def _index(index: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(index, tuple):
        many = len(index) == len(shape)  # else there is an ellipsis, or an axis left out
        return tuple(_index(i, shape[k : k + 1] if many else ()) for k, i in enumerate(index))
    if isinstance(index, np.ndarray):
        raise TypeError("an index on the host")
    if not isinstance(index, ndarray):
        return index
    host = _here(index)._host
    # CuPy takes indices modulo the axis, since to raise it would have to wait
    return host % shape[0] if index.dtype.kind in "iu" and shape else host


def _operand(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return _here(value)._host if isinstance(value, ndarray) else value


def _like(a: ndarray, host: Host) -> ndarray:
    """A view of an array, or what has been made of it."""
    is_view = host.size == 0 or np.may_share_memory(host, a._host)
    return ndarray(host, (a if is_view else _here(a)).device)


def _here(a: ndarray) -> ndarray:
    """An array that something is done with."""
    assert a.device == Device(), "an array of another device"
    return a


def empty(shape: Any, dtype: Any = float) -> ndarray:
    """Filled with NaN or ones, so that what is read before it is written shows."""
    host = np.empty(shape, dtype)
    host.fill(np.nan if host.dtype.kind == "f" else 1)
    return ndarray(host)


def empty_like(a: ndarray, shape: Any = None) -> ndarray:
    return empty(a.shape if shape is None else shape, a.dtype)


def zeros_like(a: ndarray) -> ndarray:
    return zeros(a.shape, a.dtype)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return ndarray(np.zeros(shape, dtype))


def asarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray):
        return _here(a) if dtype is None or a.dtype == dtype else a.astype(dtype)
    return ndarray(np.array(a, dtype))


def from_dlpack(a: Any) -> ndarray:
    return ndarray(np.from_dlpack(a))


def asnumpy(a: Any) -> Host:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def ascontiguousarray(a: ndarray) -> ndarray:
    return a if _here(a).flags.c_contiguous else ndarray(np.ascontiguousarray(a._host))


def concatenate(arrays: Any, axis: int = 0) -> ndarray:
    return ndarray(np.concatenate([_operand(a) for a in arrays], axis=axis))


def split(a: ndarray, parts: int, axis: int = 0) -> list[ndarray]:
    return [_like(a, part) for part in np.split(a._host, parts, axis=axis)]


def matmul(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    result = None if out is None else _operand(out)
    with np.errstate(all="ignore"):
        return ndarray(np.matmul(_operand(a), _operand(b), out=result))


def arange(stop: int, dtype: Any = None) -> ndarray:
    return ndarray(np.arange(stop, dtype=dtype))


def argsort(a: ndarray, kind: str | None = None) -> ndarray:
    return ndarray(np.argsort(_operand(a), kind="stable"))


def searchsorted(a: ndarray, v: ndarray) -> ndarray:
    return ndarray(np.searchsorted(_operand(a), _operand(v)))


def where(condition: ndarray, x: Any, y: Any) -> ndarray:
    return ndarray(np.where(_operand(condition), _operand(x), _operand(y)))


def vdot(a: ndarray, b: ndarray) -> ndarray:
    return ndarray(np.asarray(np.vdot(_operand(a), _operand(b))))


def _ufunc(name: str) -> Any:
    def call(*operands: Any) -> ndarray:
        return ndarray(np.asarray(getattr(np, name)(*map(_operand, operands))))

    return call


exp, log, square, maximum = map(_ufunc, ("exp", "log", "square", "maximum"))


class _Runtime:
    class CUDARuntimeError(RuntimeError):
        pass

    @staticmethod
    def getDeviceCount() -> int:
        return 2


cuda = SimpleNamespace(
    Device=Device, runtime=_Runtime, device=SimpleNamespace(get_cublas_handle=lambda: 1)
)
__version__ = "14"


class CUBLASError(RuntimeError):
    """What CuPy makes of a status of cuBLAS that is no success."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"cuBLAS status {status}")


def install(monkeypatch: Any, gemm: Any) -> None:
    """Let `import cupy` find this module, and CuPy's cuBLAS have this `gemmEx`."""
    monkeypatch.setitem(sys.modules, "cupy", sys.modules[__name__])
    cublas = SimpleNamespace(gemmEx=gemm, CUBLASError=CUBLASError)
    monkeypatch.setattr(cuda, "cublas", cublas, raising=False)
