"""Persistent kernels: against the steps, in any order of threads, and when they cannot run."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from cases import close, infer, run
from device import DeviceCase
from emulator import EmulatedDevice, Planted

import fastrnn.backends
from fastrnn.backends.cuda import persistent
from fastrnn.backends.cuda.launch import Launcher
from fastrnn.backends.cuda.passes import shape
from fastrnn.cellmath import CELLS

KINDS = ("rnn_tanh", "rnn_relu", "gru", "lstm", "lstm_peephole")
F4 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def small(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two warps, for speed, and no lower limit to what runs in one launch."""
    monkeypatch.setattr(persistent, "THREADS", 64)
    monkeypatch.setattr(persistent, "LEAST_STEPS", 1)
    device.multiprocessors = EmulatedDevice.multiprocessors


def both(device: Any, case: DeviceCase, multiprocessors: int, seed: int = 0) -> None:
    """The same from one launch as from steps."""
    layer, call = case.layer(), case.call()
    device.multiprocessors = 0
    want = run(layer, call)
    assert not [name for name in device.launches if name.startswith("persistent")]
    device.launches.clear()
    device.multiprocessors, device.seed = multiprocessors, seed
    close(run(layer, call), want, case.dtype)
    assert "cell_forward" not in device.launches
    passes = case.layers * case.directions
    assert device.launches.count("persistent_forward") == passes
    assert device.launches.count("persistent_backward") == passes
    close(infer(layer, call), {k: want[k] for k in ("y", "hn", "cn") if k in want}, case.dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "layers": 2, "lengths": "zeros", "resets": "some"},
        {"lengths": "positive", "dtype": "float32", "sizes": (5, 9, 3, 11)},
        {"resets": "often", "bidirectional": True, "bias": False, "sizes": (4, 5, 3, 7)},
        {"sizes": (1, 1, 1, 1)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_cell(device: Any, kind: str, options: dict[str, Any]) -> None:
    both(device, DeviceCase(kind, **options), multiprocessors=132)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_any_order_of_blocks_and_threads(device: Any, kind: str, seed: int) -> None:
    both(device, DeviceCase(kind, (4, 3, 2, 9), lengths="zeros"), 4, seed)


@pytest.mark.parametrize(
    ("sizes", "multiprocessors"),
    [
        ((3, 3, 2, 33), 3),  # 16 units to a block, the last of them alone in its block
        ((3, 37, 2, 5), 5),  # more rows than groups
        ((3, 70, 2, 70), 40),  # more rows than a tile takes, and more sums than it holds
        ((3, 1, 2, 150), 150),  # a row alone: the threads share the sums
    ],
)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_shapes_of_work(
    device: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    sizes: tuple[int, int, int, int],
    multiprocessors: int,
) -> None:
    monkeypatch.setattr(persistent, "MOST_ROWS", 100)
    for lengths in ("", "positive"):
        both(device, DeviceCase(kind, sizes, resets="some", lengths=lengths), multiprocessors)
        device.launches.clear()


def test_long_sequences_take_several_launches(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrnn.backends.cuda import passes

    case = DeviceCase("lstm", (7, 3, 4, 5), lengths="positive", resets="some", bidirectional=True)
    layer, call = case.layer(), case.call()
    want = run(layer, call)
    monkeypatch.setattr(passes, "CHUNK_ROWS", 7)
    device.launches.clear()
    close(run(layer, call), want, case.dtype)
    assert device.launches.count("persistent_forward") == 8


def test_checkpoints(device: Any) -> None:
    case = DeviceCase("gru", (7, 3, 4, 5), layers=2, lengths="zeros", resets="some")
    layer, call = case.layer(), case.call()
    close(run(layer, call, checkpoint_every=3), run(layer, call), case.dtype)
    assert "cell_forward" not in device.launches


@pytest.mark.parametrize(
    "case", [DeviceCase("lstm", proj=True), DeviceCase("gru_reset_before")], ids=str
)
def test_what_takes_two_products_a_step_runs_in_steps(device: Any, case: DeviceCase) -> None:
    run(case.layer(), case.call())
    assert "cell_forward" in device.launches
    assert "persistent_forward" not in device.launches


# ---- plans ---------------------------------------------------------------------------------------

# Multiprocessors and bytes of shared memory that a block can have.
GPUS = {
    "H100 SXM": (132, 227 * 1024),
    "A100": (108, 163 * 1024),
    "L4": (58, 99 * 1024),
    "T4": (40, 64 * 1024),
}


class Counted(EmulatedDevice):
    """A GPU of which each multiprocessor has room for one block."""

    def __init__(self, gpu: str) -> None:
        super().__init__()
        self.multiprocessors, self.shared_memory = GPUS[gpu]

    def cooperative(self, program: Any, name: str, threads: int, shared: int) -> tuple[Any, int]:
        assert shared <= self.shared_memory
        return None, self.multiprocessors


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
def test_every_plan_fits(gpu: str, dtype: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "THREADS", 256)
    device: Any = Counted(gpu)
    launch = Launcher(device, np.dtype(dtype), kind)
    gates = shape(CELLS[kind]).gates
    found = 0
    for H in (1, 31, 128, 256, 500, 512, 1024, 2048, 4096):
        for B in (1, 3, 16, 64):
            plan = persistent.plan(launch, "persistent_forward", 100, B, gates, H)
            if plan is None:
                continue
            found += 1
            assert plan.blocks <= device.multiprocessors
            assert plan.blocks * plan.units >= H
            assert (plan.blocks - 1) * plan.units < H
            assert plan.shared <= device.shared_memory
            # the threads are shared out without a rest, and their sums fit into the tile
            assert 256 % (plan.units * plan.groups) == 0
            assert 256 * 4 * gates <= 4096
    assert found >= 8


def test_what_does_not_fit_has_no_plan() -> None:
    device: Any = Counted("T4")

    def plan(B: int, H: int, steps: int = 100, chain: bool = False) -> persistent.Plan | None:
        launch = Launcher(device, F4, "lstm", chain)
        return persistent.plan(launch, "persistent_forward", steps, B, 4, H)

    assert plan(16, 128) is not None
    assert plan(16, 2048) is None
    assert plan(1000, 128) is None
    assert plan(16, 128, steps=0) is None
    assert plan(16, 128, chain=True) is None


def test_a_kernel_that_leaves_no_room_is_not_launched() -> None:
    class Full(Counted):
        def cooperative(self, program: Any, name: str, threads: int, shared: int) -> Any:
            return None, 0

    device: Any = Full("H100 SXM")
    launch = Launcher(device, F4, "lstm")
    assert persistent.plan(launch, "persistent_forward", 100, 16, 4, 128) is None


# ---- what goes wrong -----------------------------------------------------------------------------


def on(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Layers on this device."""
    backend = fastrnn.backends.cuda.CudaBackend(device)
    monkeypatch.setattr(fastrnn.backends, "_get", lambda name: backend)
    return backend


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # the blocks do not meet
        ("if (s + 1 < end && well) well = meeting.wait();", ""),
        ("if (well) well = meeting.wait();", ""),
        # the sum misses its last element
        ("k < deep; k += my.slices", "k < deep - 1; k += my.slices"),
        # a block reads the tile before all of it is there
        (
            "    }\n    __syncthreads();\n    for (int k = my.slice",
            "    }\n    for (int k = my.slice",
        ),
    ],
    ids=["forward", "backward", "short", "early"],
)
def test_a_planted_bug_shows(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """In at least one of the orders; memory that nobody has written yet is NaN."""
    case = DeviceCase("lstm", (5, 3, 2, 9))
    want = run(case.host_layer(), case.call())
    device = Planted(old, new)
    on(device, monkeypatch)
    layer = case.layer()
    found = []
    for device.seed in range(4):
        got = run(layer, case.call())
        found.append(all(np.allclose(got[name], want[name]) for name in want))
    assert device.planted
    assert not all(found)


def test_blocks_that_wait_in_vain_give_up(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not run at the same time: no hang, and NaN, which is no result."""

    class Alone(EmulatedDevice):
        def cooperative(self, program: Any, name: str, threads: int, shared: int) -> Any:
            _, room = super().cooperative(program, name, threads, shared)
            library = self._libraries[program]
            ctypes.c_uint64.in_dll(library, "nanoseconds_a_turn").value = 10**7
            return self.wrap(library, name), room

    alone = Alone()
    on(alone, monkeypatch)
    case = DeviceCase("gru", (4, 3, 2, 9))
    layer, call = case.layer(), case.call()
    y, hn = layer(call.x, call.state)
    assert np.isnan(y[-1]).any()
    assert np.isnan(hn).any()
    for library in alone._libraries.values():
        ctypes.c_uint64.in_dll(library, "nanoseconds_a_turn").value = 1
