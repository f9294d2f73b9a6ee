"""What several phases need: the device, emulated or not, and torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def torch_if_any() -> Any:
    """torch, or None. To be imported before CuPy, so that both share its CUDA libraries."""
    try:
        import torch
    except ImportError:
        return None
    return torch


Changes = Sequence[tuple[str, str]]


def backend(emulated: bool, changes: Changes = ()) -> Any:
    """The backend "cuda", from now on; the emulator takes its place in a dry run. The kernels' text
    is changed: each of the old pieces that occur becomes the new one."""
    torch = torch_if_any()
    import fastrnn.backends
    from fastrnn.backends.cuda import CudaBackend, launch, persistent
    from fastrnn.backends.cuda.device import CupyDevice

    kind: Any = CupyDevice
    if emulated:
        if torch is not None:
            torch.set_num_threads(1)  # others need theirs
        from emulator import EmulatedDevice as kind

        launch.THREADS = persistent.THREADS = 64
    elif not changes:
        return fastrnn.backends.get("cuda")

    class Changed(kind):  # type: ignore[misc]
        def text(self, program: Any) -> str:
            text: str = super().text(program)
            for old, new in changes:
                text = text.replace(old, new)
            return text

    cuda = CudaBackend(Changed())
    real = _real.setdefault("get", fastrnn.backends._get)
    fastrnn.backends._get = lambda name: cuda if name == "cuda" else real(name)
    return cuda


_real: dict[str, Any] = {}
