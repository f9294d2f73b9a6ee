"""Which algorithm a pass runs with on a GPU, by time: measured on request, kept, looked up later.

An algorithm has a label: "steps", or how a persistent launch is tiled. What was measured holds for
one kind of GPU, one NVRTC and one text of the kernels, and for batches of about one size. What the
user has measured goes before what comes with the package; where nothing was measured, the estimates
in `persistent` decide.
"""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn import forks

from . import compile

if TYPE_CHECKING:
    from .device import Device
    from .launch import Launcher

STEPS = "steps"
"""The algorithm without a persistent launch."""

FILE = "gpu-choices.json"
_FORMAT = 1

SHIPPED = Path(__file__).with_name("choices")
"""What comes with the package: such files, one for each kind of GPU."""

_REPEATS = 7
_WARM_UP = 3
"""Calls before those that count: the first compile, and record graphs."""

_forced: ContextVar[str | None] = ContextVar("fastrnn_gpu_algorithm", default=None)
_lock = forks.Lock()
_loaded: dict[Path, dict[str, Any]] = {}


@contextmanager
def forced(label: str) -> Iterator[None]:
    """Run passes with this algorithm within a ``with`` block, where it can be done."""
    token = _forced.set(label)
    try:
        yield
    finally:
        _forced.reset(token)


def choice(launch: Launcher, kernel: str, B: int, H: int) -> str | None:
    """Return the label of the algorithm that was measured to be the fastest, or None."""
    label = _forced.get()
    if label is not None:
        return label
    table = _table()
    if not table:
        return None
    found = table.get(key(launch, kernel, B, H))
    return None if found is None else str(found["algorithm"])


def key(launch: Launcher, kernel: str, B: int, H: int) -> str:
    """Return the name under which a measurement is kept."""
    device = launch.device
    version = ".".join(map(str, device.nvrtc))
    parts = (device.name, str(device.capability), f"NVRTC {version}", compile.fingerprint())
    return " | ".join((*parts, launch.key, kernel, f"H={H}", f"B<={bucket(B)}"))


def bucket(B: int) -> int:
    """Return the size that stands for a batch's: the next power of two."""
    return 1 << max(B - 1, 0).bit_length()


# ------------------------------------------------------------------------------------- the file


def path() -> Path:
    """Return where the user's measurements are kept."""
    return compile.cache_folder() / FILE


def _table() -> dict[str, Any]:
    """Return what is kept, read once."""
    where = path()
    with _lock.held:
        if where not in _loaded:
            found: dict[str, Any] = {}
            for file in (*sorted(SHIPPED.glob("*.json")), where):
                found |= _read(file)
            _loaded[where] = found
        return _loaded[where]


def _read(where: Path) -> dict[str, Any]:
    try:
        text = where.read_text(encoding="utf-8")
    except OSError:  # nobody has measured here
        return {}
    try:
        content = json.loads(text)
        algorithms: dict[str, Any] = content["algorithms"]
        labels = [each["algorithm"] for each in algorithms.values()]
        if content["format"] != _FORMAT or not all(type(label) is str for label in labels):
            raise ValueError("it has another format")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = f"{where} is not used ({error!r}): fastrnn tune --gpu makes it anew"
        warnings.warn(text, stacklevel=2)
        return {}
    return algorithms


def keep(name: str, algorithm: str, times: dict[str, float]) -> None:
    """Add a measurement to the file: the fastest algorithm, and microseconds a step of all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    where = path()
    with _lock.held:
        # Another process may have added to it.
        algorithms = _read(where) | {name: {"algorithm": algorithm, "us": times}}
        text = json.dumps({"format": _FORMAT, "algorithms": algorithms}, indent=1, sort_keys=True)
        compile.write(where, text.encode())
        _loaded.pop(where, None)


# ---------------------------------------------------------------------------------- measurement


class Found(NamedTuple):
    """What one measurement has found."""

    kernel: str
    estimated: str
    """The algorithm that would be taken without it."""
    algorithm: str
    times: dict[str, float]
    """Microseconds a step of each algorithm."""


def measure(
    device: Device,
    layer: Any,
    launch: Launcher,
    candidates: Callable[[str], tuple[str, Sequence[str]]],
    T: int,
    B: int,
) -> Iterator[Found]:
    """Time a layer's forward and backward with each of the algorithms, and keep what is found.

    Parameters
    ----------
    layer : of one pass, on the device
    launch : its kernels
    candidates : of a kernel, the algorithm that is estimated to be the fastest, and the labels of
        its best launches
    """
    gpu = layer.flat_params.device
    draw = np.random.default_rng(0).standard_normal
    with gpu:
        x = device.xp.asarray(draw((T, B, layer.input_size)), layer.dtype)
    y, _, tape = layer.forward(x)
    work: dict[str, Callable[[], object]] = {
        "persistent_forward": lambda: layer(x),
        "persistent_backward": lambda: layer.backward(tape, y),
    }
    for kernel, run in work.items():
        times = {}
        with gpu:
            estimated, labels = candidates(kernel)
            for label in (*labels, STEPS):
                with forced(label):
                    for _ in range(_WARM_UP):
                        run()
                    samples = [device.time(run) for _ in range(_REPEATS)]
                times[label] = round(statistics.median(samples) / T, 3)
            algorithm = min(times, key=times.__getitem__)
            keep(key(launch, kernel, B, layer.hidden_size), algorithm, times)
        yield Found(kernel, estimated, algorithm, times)
