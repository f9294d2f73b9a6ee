"""What several phases need: the device, emulated or not, and torch."""

from __future__ import annotations

from typing import Any


def torch_if_any() -> Any:
    """torch, or None. To be imported before CuPy, so that both share its CUDA libraries."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def backend(emulated: bool) -> Any:
    """The backend "cuda"; the emulator takes its place in a dry run."""
    torch = torch_if_any()
    import fastrnn.backends

    if not emulated:
        return fastrnn.backends.get("cuda")
    if torch is not None:
        torch.set_num_threads(1)  # others need theirs
    from emulator import EmulatedDevice

    from fastrnn.backends.cuda import CudaBackend, launch, persistent

    launch.THREADS = persistent.THREADS = 64
    device: Any = EmulatedDevice()
    cuda, real = CudaBackend(device), fastrnn.backends._get
    fastrnn.backends._get = lambda name: cuda if name == "cuda" else real(name)
    return cuda
