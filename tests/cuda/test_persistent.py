"""Persistent kernels: against the steps and the reference, in any order of threads, in every
precision, and when they cannot run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from cases import close, infer, run
from device import DeviceCase, reference, up
from emulator import EmulatedDevice, Planted, rounded

import fastrnn.backends
from fastrnn.backends.cuda import persistent, tune
from fastrnn.backends.cuda.launch import Launcher
from fastrnn.backends.cuda.passes import traits
from fastrnn.cellmath import CELLS

KINDS = ("rnn_tanh", "rnn_relu", "gru", "lstm", "lstm_peephole")
F4 = np.dtype(np.float32)
COUNTER, FLAGS, CLUSTER = EXCHANGES = persistent.EXCHANGES

# Norm of an array's error, of the norm of what float64 gives. A number rounded to TF32 is off by at
# most 2^-12 of it, one of bfloat16 by 2^-9, and a few of them meet in a result.
ERRORS = {"highest": 1e-6, "high": 1e-3, "medium": 2e-2}

TiledBy = Callable[..., None]


@pytest.fixture(autouse=True)
def small(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two warps, for speed, and no lower limit to what runs in one launch."""
    monkeypatch.setattr(persistent, "THREADS", 64)
    monkeypatch.setattr(persistent, "LEAST_STEPS", 1)
    device.multiprocessors = EmulatedDevice.multiprocessors
    monkeypatch.setattr(device, "capability", 90)


@pytest.fixture
def tiled_by(monkeypatch: pytest.MonkeyPatch) -> TiledBy:
    """Sets the tiling of all work: units of a block, rows of a group, the rest of `make_tiling`."""

    def set_tiling(
        units: int = 3,
        rows: int = 8,
        columns: int = 1,
        register_chunks: int | None = 1,
        exchange: str = COUNTER,
    ) -> None:
        def tiling(work: Any, path: Any, limits: Any) -> persistent.Tiling:
            chunks = register_chunks if path.words else 0
            return persistent.make_tiling(
                work, path, limits.threads, min(units, work.H), rows, columns, chunks, exchange
            )

        monkeypatch.setattr(persistent, "best_tiling", tiling)

    set_tiling()
    return set_tiling


def once(device: Any, case: DeviceCase, **arguments: Any) -> tuple[Any, Any]:
    """The results of a case, all of whose passes are one launch; and those of the reference."""
    layer, call = case.layer(**arguments), case.call()
    device.launches.clear()
    got = run(layer, call)
    assert "cell_forward" not in device.launches
    passes = case.layers * case.directions
    assert device.launches.count("persistent_forward") == passes
    assert device.launches.count("persistent_backward") == passes
    want = run(*reference(case, call))
    alone = infer(layer, call)
    close(alone, {name: got[name] for name in alone}, case.dtype)
    return got, want


def errors(got: Any, want: Any) -> dict[str, float]:
    """Of each array; see ERRORS."""
    norm = np.linalg.norm
    return {
        name: float(norm(got[name] - a) / norm(a)) if a.any() else float(norm(got[name]))
        for name, a in want.items()
    }


def check(device: Any, case: DeviceCase, precision: str = "highest") -> None:
    """One launch is as close to the reference as the precision allows."""
    got, want = once(device, case, precision=precision)
    if precision == "highest":
        close(got, want, case.dtype)
    if case.dtype == "float32":
        for name, error in errors(got, want).items():
            assert error < ERRORS[precision], name


def check_all(
    device: Any, tiled_by: TiledBy, case: DeviceCase, precision: str = "highest", **tiling: Any
) -> None:
    """So it is with every exchange, and they give the same bits."""
    found = []
    for exchange in EXCHANGES:
        tiled_by(**tiling, exchange=exchange)
        check(device, case, precision)
        found.append(run(case.layer(precision=precision), case.call()))
    same_bits(*found)


def same_bits(a: dict[str, Any], *others: dict[str, Any]) -> None:
    """But for a NaN's own bits, which tell nothing."""
    for other in others:
        for name, value in a.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "layers": 2, "lengths": "zeros", "resets": "some"},
        {"lengths": "positive", "dtype": "float32", "sizes": (5, 9, 3, 11)},
        {"resets": "often", "bidirectional": True, "bias": False, "sizes": (4, 5, 3, 7)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_cell(device: Any, kind: str, options: dict[str, Any], tiled_by: TiledBy) -> None:
    check_all(device, tiled_by, DeviceCase(kind, **{"dtype": "float32", **options}))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rnn_tanh", {"nonlinearity": "hard_sigmoid", "clip": 1.5}),
        ("gru", {"gate_activation": "hard_sigmoid", "gate_slope": 1 / 6, "activation": "relu"}),
        ("lstm_peephole", {"clip": 0.7, "coupled": True, "output_activation": "sigmoid"}),
    ],
)
def test_cells_with_options(device: Any, kind: str, options: dict[str, Any]) -> None:
    case = DeviceCase(kind, (5, 9, 3, 11), lengths="zeros", resets="some")
    call = case.call()
    got = run(case.layer(**options), call)
    assert "cell_forward" not in device.launches
    assert device.launches.count("persistent_backward") == 1
    close(got, run(*reference(case, call, **options)), case.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_in_double(device: Any, kind: str, tiled_by: TiledBy) -> None:
    if kind == "gru":
        check_all(device, tiled_by, DeviceCase(kind, bidirectional=True, resets="some"))
    check(device, DeviceCase(kind, bidirectional=True, layers=2, lengths="zeros", resets="some"))
    check(device, DeviceCase(kind, (1, 1, 1, 1)))


@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_every_precision(device: Any, kind: str, precision: str, tiled_by: TiledBy) -> None:
    sizes = (5, 9, 3, 12)
    for how in ({}, {"lengths": "zeros", "resets": "some", "bidirectional": True}):
        check_all(device, tiled_by, DeviceCase(kind, sizes, dtype="float32", **how), precision)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_any_order_of_blocks_and_threads(
    device: Any, kind: str, seed: int, tiled_by: TiledBy
) -> None:
    device.seed = seed
    check_all(device, tiled_by, DeviceCase(kind, (4, 9, 2, 11), dtype="float32", lengths="zeros"))


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_order_without_tensor_cores(
    device: Any, dtype: str, seed: int, tiled_by: TiledBy
) -> None:
    device.seed, device.capability = seed, 75
    check_all(device, tiled_by, DeviceCase("gru", (4, 9, 2, 11), dtype=dtype, resets="some"))


@pytest.mark.parametrize(
    ("kind", "sizes", "tiling"),
    [
        ("lstm", (3, 37, 2, 18), {"units": 16, "rows": 24, "columns": 2}),  # passes, a rest of them
        ("lstm", (3, 5, 2, 70), {"units": 8, "register_chunks": 2}),  # weights in both places
        ("lstm", (3, 5, 2, 166), {"units": 8, "register_chunks": 2, "exchange": "flags"}),
        ("gru", (3, 3, 2, 70), {"units": 16, "register_chunks": 0}),  # in shared memory alone
        ("rnn_tanh", (3, 37, 2, 18), {"rows": 24, "columns": 2, "exchange": "flags"}),
        ("gru", (3, 17, 2, 36), {"units": 36, "rows": 16, "columns": 2}),  # a block has all units
        ("rnn_tanh", (3, 1, 2, 150), {"units": 64}),  # a row alone
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shapes_of_work(
    device: Any, kind: str, sizes: Any, tiling: dict[str, Any], tiled_by: TiledBy
) -> None:
    tiled_by(**tiling)
    for lengths in ("", "positive"):
        check(device, DeviceCase(kind, sizes, dtype="float32", resets="some", lengths=lengths))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_of_work_without_tensor_cores(device: Any, dtype: str, tiled_by: TiledBy) -> None:
    device.capability = 75
    tiled_by(units=8, rows=16, columns=1 if dtype == "float64" else 2)
    check(device, DeviceCase("lstm", (3, 37, 2, 36), dtype=dtype, resets="some"))


@pytest.mark.parametrize(
    ("kind", "B", "H"), [("lstm", 3, 33), ("gru", 20, 48), ("rnn_tanh", 9, 70)]
)
def test_the_cut_that_is_chosen(device: Any, kind: str, B: int, H: int) -> None:
    check(device, DeviceCase(kind, (3, B, 2, H), dtype="float32", lengths="positive"))


@pytest.mark.parametrize(
    ("kind", "sizes", "precision"),
    [("lstm", (2, 16, 2, 128), "high"), ("gru", (2, 20, 2, 130), "medium")],
)
def test_a_launch_of_an_h100(
    device: Any, monkeypatch: pytest.MonkeyPatch, kind: str, sizes: Any, precision: str
) -> None:
    """With all of its blocks and threads."""
    monkeypatch.setattr(persistent, "THREADS", 256)
    check(device, DeviceCase(kind, sizes, dtype="float32", lengths="positive"), precision)


@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm"])
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_operands_are_rounded_as_they_should_be(
    device: Any, kind: str, precision: str, tiled_by: TiledBy
) -> None:
    """One step is, but for sums, what float64 gives of rounded weights and states."""
    case = DeviceCase(kind, (1, 9, 3, 12), dtype="float32")
    call, layer, host = (
        case.call(),
        case.layer(precision=precision),
        reference(case, case.call())[0],
    )
    params = {
        name: rounded(a, precision) if name.startswith("weight") else a
        for name, a in case.host_layer().params.items()
    }
    host.load_params({name: a.astype(np.float64) for name, a in params.items()})
    h, *c = call.state if case.is_lstm else (call.state,)
    state = tuple(a.astype(np.float64) for a in (rounded(h, precision), *c))
    x = rounded(call.x, precision).astype(np.float64)
    want = host(x, state if case.is_lstm else state[0])[0]
    np.testing.assert_allclose(layer(call.x, call.state)[0], want, rtol=0, atol=1e-6)
    assert "persistent_forward" in device.launches


def product_errors(case: DeviceCase, scale: Any, **arguments: Any) -> Any:
    """The errors of R h, as one step with relu gives it, of the sums of magnitudes."""
    layer, call = case.layer(**arguments), case.call()
    draw = np.random.default_rng(1)
    H = case.sizes[3]
    R = (draw.standard_normal((H, H)) * scale(draw, (H, H))).astype(np.float32)
    h = (draw.standard_normal((1, case.sizes[1], H)) * scale(draw, H)).astype(np.float32)
    zeros = {name: np.zeros_like(a) for name, a in case.host_layer().params.items()}
    layer.layer.load_params({**zeros, "weight_hh_l0": R})
    y = layer(call.x * 0, h)[0][0]
    h, R = h[0].astype(np.float64), R.astype(np.float64).T
    exact = h @ R
    return (np.abs(y - exact) / (np.abs(h) @ np.abs(R)))[exact > 0]


@pytest.mark.parametrize("H", [64, 512])
@pytest.mark.parametrize(
    ("scale", "worse"),
    [
        (lambda draw, size: 1.0, 1),
        (lambda draw, size: 1e-18, 1),
        # one product is the whole sum
        (lambda draw, size: 10.0 ** draw.integers(-12, 12, size), 2.5),
    ],
    ids=["normal", "small", "badly scaled"],
)
def test_three_products_of_tf32_are_as_exact_as_a_chain(
    device: Any, H: int, scale: Any, worse: float
) -> None:
    """A chain of fused multiply-adds; of tensor cores that tiling what they add up, as the emulated
    ones do."""
    case = DeviceCase("rnn_relu", (1, 8, 1, H), dtype="float32")
    three = product_errors(case, scale)
    assert device.launches[-1] == "persistent_forward"
    chain = product_errors(case, scale, reproducible=True)
    assert "chain_product" in device.launches
    assert three.max() < worse * chain.max() < 2e-6
    assert three.mean() < worse * chain.mean()


def near_tf32(a: Any) -> Any:
    """Rounded to TF32, halves to even."""
    bits = a.view(np.uint32)
    rounded = bits + np.uint32(0xFFF) + (bits >> 13 & 1) & np.uint32(0xFFFFE000)
    return rounded.view(np.float32)


def test_one_product_of_three_errs_by_eight_roundings_at_most(device: Any) -> None:
    """Where it is the whole sum. 12 x 2^-24 is the bound, 7.8 the worst of 20 million pairs, 0.84
    their mean; here are the worst of a million."""
    draw, H = np.random.default_rng(0), 32
    pairs = (1 + draw.random((2, 1_000_000))).astype(np.float32)
    large = near_tf32(pairs)
    small = near_tf32(pairs - large).astype(np.float64)
    exact, parts = pairs.astype(np.float64), large.astype(np.float64)
    three = parts[0] * parts[1] + parts[0] * small[1] + small[0] * parts[1]
    error = np.abs(three / exact.prod(0) - 1) * 2**24
    assert 0.8 < error.mean() < 0.87
    worst = np.argsort(error)[-H:]
    assert 7 < error[worst].max() < 12
    case = DeviceCase("rnn_relu", (1, 1, 1, H), dtype="float32")
    layer, call = case.layer(), case.call()
    zeros = {name: np.zeros_like(a) for name, a in case.host_layer().params.items()}
    layer.layer.load_params({**zeros, "weight_hh_l0": np.diag(pairs[0, worst])})
    y = layer(call.x * 0, pairs[1, worst].reshape(1, 1, H))[0][0, 0]
    assert device.launches[-1] == "persistent_forward"
    found = np.abs(y / exact[:, worst].prod(0) - 1) * 2**24
    assert 6 < found.max() < 12


BLANK = np.array(-1, np.int32).view(np.float32)
"""The NaN whose bits are all ones, which is what a word is before it is put."""


@pytest.mark.parametrize("kind", ["rnn_relu", "gru", "lstm"])
@pytest.mark.parametrize(
    ("precision", "capability"),
    [("highest", 90), ("highest", 75), ("high", 90), ("medium", 90)],
    ids=["highest", "chains", "high", "medium"],
)
def test_nan_passes_as_it_does_with_a_counter(
    device: Any, kind: str, precision: str, capability: int, tiled_by: TiledBy
) -> None:
    """Whatever its bits, and nobody waits for a word that was put."""
    case, device.capability = DeviceCase(kind, (3, 9, 2, 11), dtype="float32"), capability
    for bad in (BLANK, np.float32(np.nan)):
        call = case.call()
        for state in call.state if case.is_lstm else (call.state,):
            state[0, 2, 5] = bad
        for dstate in call.dstate if case.is_lstm else (call.dstate,):
            dstate[0, 3, 7] = bad
        call.x[1, 8, 1] = call.dy[1, 4, 2] = bad
        found = []
        for exchange in EXCHANGES:
            tiled_by(exchange=exchange)
            found.append(run(case.layer(precision=precision), call))
        same_bits(*found)
        assert np.isnan(found[0]["y"][:, 2]).all()
        assert not np.isnan(found[0]["y"][:, 0]).any()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 3e38])
def test_what_cannot_be_split_is_as_ieee_says(device: Any, bad: float, tiled_by: TiledBy) -> None:
    case = DeviceCase("rnn_relu", (1, 9, 2, 12), dtype="float32")
    call, found = case.call(), []
    call.state[0, 2, 5] = bad
    call.dstate[0, 3, 7] = bad
    for device.capability in (90, 75):
        with np.errstate(all="ignore"):
            found.append(run(case.layer(), call))
    for name, want in found[1].items():
        np.testing.assert_allclose(found[0][name], want, rtol=1e-5, atol=1e-5, err_msg=name)
    assert np.isnan(found[0]["y"]).any() == np.isnan(bad)


def test_long_sequences_take_several_launches(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrnn.backends.cuda import passes

    case = DeviceCase("lstm", (7, 3, 4, 5), lengths="positive", resets="some", bidirectional=True)
    layer, call = case.layer(), case.call()
    want = run(layer, call)
    monkeypatch.setattr(passes, "CHUNK_ROWS", 7)
    device.launches.clear()
    close(run(layer, call), want, case.dtype)
    assert device.launches.count("persistent_forward") == 8


def test_words_take_several_launches(
    device: Any, monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy
) -> None:
    """So that no call takes any amount of memory; a counter takes one for all steps."""
    how = {"lengths": "positive", "resets": "some", "bidirectional": True}
    case = DeviceCase("gru", (7, 9, 2, 11), dtype="float32", **how)
    layer, call = case.layer(), case.call()
    want = run(layer, call)
    tiled_by(exchange=FLAGS)
    monkeypatch.setattr(persistent, "MOST_PUBLISHED", 3 * 9 * 64 * 4)
    device.launches.clear()
    same_bits(run(layer, call), want)
    # three steps of 9 rows of G*H words, padded to 64; six of H words
    assert device.launches.count("persistent_forward") == 2 * 2
    assert device.launches.count("persistent_backward") == 2 * 3
    monkeypatch.setattr(persistent, "MOST_PUBLISHED", 1)
    device.launches.clear()
    same_bits(run(layer, call), want)
    assert device.launches.count("persistent_backward") == 2 * 7


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


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_steps_have_precisions_too(device: Any, precision: str) -> None:
    device.multiprocessors = 0
    case = DeviceCase("lstm", (5, 9, 3, 12), dtype="float32", proj=True, layers=2)
    got, want = (
        run(case.layer(precision=precision), case.call()),
        run(*reference(case, case.call())),
    )
    assert 10 * ERRORS["highest"] < max(errors(got, want).values()) < ERRORS[precision]


def test_explained(device: Any) -> None:
    case = DeviceCase("lstm", dtype="float32")
    x = up(case.call().x)
    words = {"highest": "three products of TF32", "high": "TF32", "medium": "bfloat16"}
    for precision, says in words.items():
        explained = case.layer(precision=precision).layer.explain(x)
        assert f"'recurrent products': '{says}'" in str(explained)
    assert "launches at every step" in str(case.layer(reproducible=True).layer.explain(x))


def test_chains_know_no_precision(device: Any) -> None:
    case = DeviceCase("lstm", dtype="float32")
    layer = case.layer(precision="medium", reproducible=True)
    close(run(layer, case.call()), run(*reference(case, case.call())), case.dtype)


# ---- plans ---------------------------------------------------------------------------------------

# Compute capability, multiprocessors and bytes of shared memory that a block can have.
GPUS = {
    "H100 SXM": (90, 132, 227 * 1024),
    "A100": (80, 108, 163 * 1024),
    "L4": (89, 58, 99 * 1024),
    "T4": (75, 40, 64 * 1024),
}


class Counted(EmulatedDevice):
    """A GPU of which each multiprocessor has room for one block."""

    def __init__(self, gpu: str) -> None:
        super().__init__()
        self.capability, self.multiprocessors, self.shared_memory = GPUS[gpu]

    def cooperative(
        self, program: Any, name: str, threads: int, shared: int, clustered: bool = False
    ) -> tuple[Any, int]:
        assert shared <= self.shared_memory
        return None, self.multiprocessors


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("precision", ["highest", "high", "medium", "double"])
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
def test_every_plan_fits(
    gpu: str, precision: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistent, "THREADS", 256)
    device: Any = Counted(gpu)
    dtype = np.dtype("f8" if precision == "double" else "f4")
    launch = Launcher(device, dtype, kind, False, precision)
    gates = traits(CELLS[kind]).gates
    found = 0
    for name, of_unit in (("persistent_forward", gates), ("persistent_backward", 1)):
        for H in (1, 31, 128, 256, 500, 512, 1024, 2048, 4096):
            for B in (1, 3, 16, 64, 200, 1000):
                plan = persistent.plan(launch, name, 100, B, gates, H)
                if plan is None:
                    continue
                found += 1
                tiling = plan.tiling
                across, down = tiling.grid
                assert across * down <= device.multiprocessors
                if tiling.exchange == CLUSTER:
                    assert gpu == "H100 SXM"
                    assert 1 < across <= 8
                assert (across - 1) * tiling.units < H <= across * tiling.units
                assert (down - 1) * tiling.rows < B <= down * tiling.rows
                assert tiling.rows % (8 * tiling.columns) in (0, 8)
                assert tiling.units * of_unit <= 16 * tiling.tiles
                assert tiling.shared <= device.shared_memory
                K = H if name == "persistent_forward" else gates * H
                register_chunks = (
                    min(tiling.register_chunks, 1)
                    if tiling.path.words == 0
                    else tiling.register_chunks
                )
                assert 0 <= register_chunks <= -(-K // 128)
    assert found >= {"T4": 9, "L4": 20}.get(gpu, 30), found


def planned(gpu: str, precision: str, B: int, H: int) -> persistent.Tiling | None:
    """The forward of an LSTM."""
    launch = Launcher(Counted(gpu), F4, "lstm", False, precision)  # type: ignore[arg-type]
    plan = persistent.plan(launch, "persistent_forward", 100, B, 4, H)
    return None if plan is None else plan.tiling


@pytest.mark.parametrize("gpu", ["H100 SXM", "A100"])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_usual_sizes_are_planned(gpu: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "THREADS", 256)
    for H in (128, 256, 512):
        for B in (1, 16, 64):
            tiling = planned(gpu, precision, B, H)
            assert tiling is not None, (H, B)
            assert tiling.grid[1] > 1 or B <= 16  # a large batch is shared out among groups


def test_what_does_not_fit_or_does_not_pay_has_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "THREADS", 256)
    device: Any = Counted("T4")

    def plan(steps: int = 100, chain: bool = False, B: int = 16) -> persistent.Plan | None:
        launch = Launcher(device, F4, "lstm", chain)
        return persistent.plan(launch, "persistent_forward", steps, B, 4, 128)

    assert plan() is not None
    assert plan(steps=0) is None
    assert plan(chain=True) is None
    assert plan(B=0) is None
    assert planned("T4", "highest", 16, 2048) is None
    assert planned("H100 SXM", "medium", 1000, 1024) is None


def test_a_kernel_that_leaves_no_room_is_not_launched() -> None:
    class Full(Counted):
        def cooperative(self, *_: Any) -> Any:
            return None, 0

    device: Any = Full("H100 SXM")
    launch = Launcher(device, F4, "lstm")
    for way in EXCHANGES:
        with tune.forced(way):
            assert persistent.plan(launch, "persistent_forward", 100, 16, 4, 128) is None


# ---- what goes wrong -----------------------------------------------------------------------------


def on(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Layers on this device."""
    backend = fastrnn.backends.cuda.CudaBackend(device)
    monkeypatch.setattr(fastrnn.backends, "_get", lambda name: backend)
    return backend


WAIT = "    exchange.wait();"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # the blocks do not meet
        (f"prepare(i0, 0);\n{WAIT}", "prepare(i0, 0);"),
        (f"prepare(time(s - 1), rows.many);\n{WAIT}", "prepare(time(s - 1), rows.many);"),
        # they do not wait for all of their group
        ("target += gridDim.x;", "target += gridDim.x - 1;"),
        # all groups count together
        ("arrivals(shared + 32 * blockIdx.y)", "arrivals(shared)"),
        # the sum misses its last chunks, or its last element
        (
            "int step = kRegisterChunks;\n    FASTRNN",
            "int step = kRegisterChunks + 1;\n    FASTRNN",
        ),
        ("row < rows && k < K ?", "row < rows && k < K - 1 ?"),
        # a thread reads the sums before all of them are there
        (
            "    }\n    __syncthreads();\n  }\n\n  // The products of row m",
            "    }\n  }\n\n  // The products of row m",
        ),
        # weights and values are paired wrongly
        ("{bits_of(x.v[j]), bits_of(x.v[j + 1])}", "{bits_of(x.v[j + 1]), bits_of(x.v[j])}"),
        # a product of parts is missing
        ("mma_tf32(sums.small, w.large[j], x.small[j]);", ""),
    ],
    ids=[
        *("forward", "backward", "early", "groups", "chunks", "short", "sums"),
        *("pairs", "part"),
    ],
)
def test_a_planted_bug_shows(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, tiled_by: TiledBy
) -> None:
    """In at least one of the orders; memory that nobody has written yet is NaN."""
    case = DeviceCase("lstm", (5, 11, 2, 9), dtype="float32")
    want = run(case.host_layer(), case.call())
    device = Planted(old, new)
    on(device, monkeypatch)
    # in "highest" a sum that is NaN is computed again, when what it sums has been written
    precision = "highest" if "small" in new + old else "high"
    layer = case.layer(precision=precision)
    found = []
    for device.seed in range(4):
        got = run(layer, case.call())
        found.append(all(error < ERRORS[precision] for error in errors(got, want).values()))
    assert device.planted
    assert not all(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # one word of four is not looked at
        ("all &= !blank(v);", "all &= &v == words.v + 3 || !blank(v);"),
        # what a step finds is of two steps before
        ("slot(Index n) { return n; }", "slot(Index n) { return n % 2; }"),
        # nobody reads again
        ("for (SpinWait in_vain; !all;", "for (SpinWait in_vain; false;"),
    ],
    ids=["short", "stale", "impatient"],
)
def test_a_planted_bug_of_words_shows(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, tiled_by: TiledBy
) -> None:
    tiled_by(exchange=FLAGS)
    case = DeviceCase("lstm", (5, 11, 2, 9), dtype="float32")
    want = run(case.host_layer(), case.call())
    device = Planted(old, new)
    on(device, monkeypatch)
    found = []
    for device.seed in range(4):
        got = run(case.layer(precision="high"), case.call())
        found.append(all(error < ERRORS["high"] for error in errors(got, want).values()))
    assert device.planted
    assert not all(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # a block reads before all have written
        ("wait() { cluster_wait(); }", "wait() {}"),
        # a block writes before others have cleared their memory
        ("words[i] = 0;\n    arrive();\n    wait();", "words[i] = 0;"),
        # to all but the last of its cluster
        ("block < gridDim.x; ++block)", "block < gridDim.x - 1; ++block)"),
    ],
    ids=["meeting", "start", "last"],
)
def test_a_planted_bug_of_clusters_shows(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, tiled_by: TiledBy
) -> None:
    tiled_by(exchange=CLUSTER)
    case = DeviceCase("lstm", (5, 11, 2, 9), dtype="float32")
    want = run(case.host_layer(), case.call())
    device = Planted(old, new)
    on(device, monkeypatch)
    found = []
    for device.seed in range(4):
        found.append(False)
        with suppress(RuntimeError):  # a deadlock, or a block that does not run is written to
            worst = max(errors(run(case.layer(precision="high"), case.call()), want).values())
            found[-1] = worst < ERRORS["high"]
    assert device.planted
    assert not all(found)


def test_a_block_that_has_ended_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy
) -> None:
    """Its shared memory may be another's by then."""
    tiled_by(exchange=CLUSTER)
    device = Planted("if (s + 1 < end)\n          Exchange::publish", "Exchange::publish")
    on(device, monkeypatch)
    case = DeviceCase("lstm", (2, 11, 2, 9), dtype="float32")

    def in_any_order() -> None:
        for device.seed in range(20):
            run(case.layer(), case.call())

    with pytest.raises(RuntimeError, match=r"persistent_forward .* a block that does not run"):
        in_any_order()


def test_clusters_are_of_gpus_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "THREADS", 256)
    with tune.forced(CLUSTER):
        for gpu in GPUS:
            tiling = planned(gpu, "highest", 16, 128)
            assert tiling is not None
            assert (tiling.exchange == CLUSTER) == (gpu == "H100 SXM")
        tiling = planned("H100 SXM", "highest", 16, 512)  # of more blocks than a cluster has
    assert tiling is not None
    assert tiling.exchange != CLUSTER


def test_words_that_are_not_blank_at_first_show(
    device: Any, monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy
) -> None:
    case = DeviceCase("lstm", (5, 11, 2, 9), dtype="float32")
    want = run(case.host_layer(), case.call())
    tiled_by(exchange=FLAGS)
    real = persistent.Plan._published

    def zeros(self: persistent.Plan, *args: Any) -> Any:
        shared = real(self, *args)
        shared[...] = 0
        return shared

    monkeypatch.setattr(persistent.Plan, "_published", zeros)
    worst = []
    for device.seed in range(4):
        worst.append(max(errors(run(case.layer(), case.call()), want).values()))
    assert max(worst) > 1e-3


def test_a_word_that_is_put_blank_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy
) -> None:
    tiled_by(exchange=FLAGS)
    case = DeviceCase("lstm", (2, 3, 2, 9), dtype="float32")
    call = case.call()
    call.state[0][0, 2, 5] = BLANK
    device = Planted("blank(x) ? not_a_number(x) : x", "x")
    on(device, monkeypatch)
    with pytest.raises(RuntimeError, match="deadlock in persistent_forward"):
        run(case.layer(), call)


# ---- blocks that wait ----------------------------------------------------------------------------

LONG = 10**7
"""Nanoseconds of each thread's turn: a few hundred rounds of all threads are hours."""

LOOP = "for (int first = 0; first < rows.many; first += kRowsAtOnce) {\n      if (first > 0)"
"""Of the rows of a step, forward."""


def timed(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, turn: int, device: Any = None
) -> tuple[Callable[[], Any], Callable[[], int]]:
    """What runs a case on a device whose kernels have a piece of their text changed and whose clock
    goes by turns of so many nanoseconds; and what tells how often they have looked at it."""
    device = device or Planted(old, new)
    on(device, monkeypatch)
    case = DeviceCase("rnn_tanh", (4, 3, 2, 9), dtype="float32")
    layer, call = case.layer(), case.call()

    def set_turn(turn: int) -> None:
        for library in device._libraries.values():
            ctypes.c_uint64.in_dll(library, "nanoseconds_a_turn").value = turn

    build = type(device).kernel

    def kernel(self: Any, program: Any, name: str) -> Any:
        found = build(self, program, name)
        set_turn(turn)
        return found

    monkeypatch.setattr(type(device), "kernel", kernel)

    def go() -> Any:
        try:
            return run(layer, call)
        finally:
            assert getattr(device, "planted", True)
            set_turn(1)

    def looks() -> int:
        libraries = device._libraries.values()
        return sum(ctypes.c_uint64.in_dll(each, "looks_at_the_clock").value for each in libraries)

    return go, looks


BLOCK = "if (blockIdx.x == 1 && s == begin + 1) "
AWHILE = "for (int i = 0; i < {}; ++i) wait_a_little();\n      "


@pytest.mark.parametrize("exchange", [COUNTER, FLAGS])
def test_a_block_that_goes_missing_stops_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy, exchange: str
) -> None:
    """After two seconds; and the launch is an error, where NaN alone would go on."""
    tiled_by(exchange=exchange)
    go, _ = timed(monkeypatch, LOOP, f"{BLOCK}while (true) wait_a_little();\n      {LOOP}", LONG)
    with pytest.raises(RuntimeError, match="persistent_forward was stopped by one of its threads"):
        go()


@pytest.mark.parametrize("exchange", [COUNTER, FLAGS])
def test_a_block_that_begins_late_is_waited_for(
    device: Any, monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy, exchange: str
) -> None:
    """Beside other kernels that may take hours; the two seconds begin when all blocks have."""
    tiled_by(exchange=exchange)
    case = DeviceCase("rnn_tanh", (4, 3, 2, 9), dtype="float32")
    want = run(case.layer(), case.call())
    product = "  Product<Path> product("
    late = f"  if (blockIdx.x == 1) {AWHILE.format(600)}{product}"
    go, looks = timed(monkeypatch, product, late, LONG)
    same_bits(go(), want)
    assert looks() > 0

    class Unaware(Planted):
        def text(self, program: Any) -> str:
            return super().text(program).replace("load_acquire(arrivals) >= blocks", "true")

    go, _ = timed(monkeypatch, "", "", LONG, Unaware(product, late))
    with pytest.raises(RuntimeError, match="was stopped by"):
        go()


def test_a_pause_of_the_gpu_is_no_wait(
    device: Any, monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy
) -> None:
    """As when another process has it, or a debugger: hours pass between two polls."""
    case = DeviceCase("rnn_tanh", (4, 3, 2, 9), dtype="float32")
    want = run(case.layer(), case.call())
    paused = f"{BLOCK}{AWHILE.format(100)}{LOOP}"
    go, looks = timed(monkeypatch, LOOP, paused, 10**12)
    same_bits(go(), want)
    assert looks() > 0

    class Impatient(Planted):
        def text(self, program: Any) -> str:
            return super().text(program).replace("kMostCounted = 100000000", "kMostCounted = ~0ull")

    go, _ = timed(monkeypatch, "", "", 10**12, Impatient(LOOP, paused))
    with pytest.raises(RuntimeError, match="was stopped by"):
        go()


@pytest.mark.parametrize("exchange", [COUNTER, FLAGS])
def test_who_finds_what_is_awaited_does_not_look_at_the_clock(
    monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy, exchange: str
) -> None:
    """Which takes longer than a poll; nor is it read at the first polls in vain."""
    tiled_by(exchange=exchange)
    go, looks = timed(monkeypatch, "kPolls = 16", "kPolls = 16", 1)
    before = looks()
    go()
    assert looks() == before


# ---- what a step need not load -------------------------------------------------------------------

AHEAD = {
    "dh": ("is_first && have_dh ? my_dh : dh[m * H + unit]", "my_dh"),
    "dy": ("is_first ? my_dy : dy[(start + m) * H + unit]", "my_dy"),
    "dh_direct": ("(is_first ? my_dh_direct : dh[m * H + unit])", "my_dh_direct"),
}


@pytest.mark.parametrize("what", AHEAD)
def test_what_backward_has_in_registers_is_not_loaded(
    device: Any, monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy, what: str
) -> None:
    """NaN in the place of each load changes nothing where a thread has one unit of one row."""
    tiled_by(units=9)
    old, register = AHEAD[what]
    new = old.replace(f"{register} : dh[m * H + unit]", f"{register} : not_a_number(Real())")
    new = new.replace(
        f"{register} : dy[(start + m) * H + unit]", f"{register} : not_a_number(Real())"
    )
    assert new != old
    found = []
    for B in (7, 20):  # 63 units of 64 threads; more
        case = DeviceCase("gru", (4, B, 2, 9), dtype="float32", lengths="positive")
        want = run(*reference(case, case.call()))
        planted = Planted(old, new)
        with monkeypatch.context() as patch:
            on(planted, patch)
            got = run(case.layer(), case.call())
        assert planted.planted
        found.append(all(error < ERRORS["highest"] for error in errors(got, want).values()))
    assert found == [True, False]


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_sums_by_turns_have_the_bits_of_any_exchange(
    device: Any, monkeypatch: pytest.MonkeyPatch, tiled_by: TiledBy, precision: str
) -> None:
    """Chunks of k beyond those in registers, which exchanges take one by one or in pairs."""
    case = DeviceCase("lstm", (2, 9, 2, 52), dtype="float32")  # backward: seven chunks of a warp
    check_all(device, tiled_by, case, precision, units=8)
    old = (
        "step + i, kRegisterChunks + i, in_shared);\n    }\n    FASTRNN_UNROLL\n"
        "    for (int i = 0; i < kRound"
    )
    planted = Planted(old, old.replace("kRegisterChunks + i", "0"))
    on(planted, monkeypatch)
    found = []
    for exchange in (COUNTER, FLAGS):
        tiled_by(units=8, exchange=exchange)
        found.append(run(case.layer(precision=precision), case.call()))
    assert planted.planted
    assert not all(np.array_equal(found[0][name], a) for name, a in found[1].items())
