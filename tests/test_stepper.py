"""Steppers: of cells, states that come and go, rows in another order, steps that are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import KINDS, Array, Case, pack, unpack
from grid import BACKENDS, per_backend

import fastrnn

T, B, I, H = 6, 3, 5, 4
CASES = [Case(kind, (T, B, I, H), 2, dtype="float32", proj=kind == "lstm") for kind in KINDS]

CELLS: dict[str, Any] = {
    "rnn": lambda **how: fastrnn.RNNCell(I, H, rng=0, **how),
    "relu": lambda **how: fastrnn.RNNCell(I, H, nonlinearity="relu", rng=0, **how),
    "gru": lambda **how: fastrnn.GRUCell(I, H, rng=0, **how),
    "gru_reset_before": lambda **how: fastrnn.GRUCell(I, H, reset_after=False, rng=0, **how),
    "lstm": lambda **how: fastrnn.LSTMCell(I, H, rng=0, **how),
    "projected": lambda **how: fastrnn.LSTMCell(I, H, proj_size=2, rng=0, **how),
    "peephole": lambda **how: fastrnn.LSTMCell(I, H, peephole=True, bias=False, rng=0, **how),
}


def noise(*shape: int) -> Array:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


def same(got: Any, want: Any) -> None:
    """The same form and numbers of a state."""
    assert isinstance(got, tuple) == isinstance(want, tuple)
    for one, other in zip(unpack(got), unpack(want), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


# ---- steps that are kept -------------------------------------------------------------------------


def test_a_copy_can_be_kept(backend: str) -> None:
    """A list of what steps return is a list of one buffer; of copies it is the block's answer."""
    layer, x = fastrnn.LSTM(I, H, 2, rng=0, backend=backend), noise(T, B, I)
    step = layer.stepper(B)
    buffers = [step(x_t) for x_t in x]
    assert all(y is buffers[0] for y in buffers)
    step.reset()
    kept = [step(x_t, copy=True) for x_t in x]
    np.testing.assert_allclose(kept, layer(x)[0], atol=2e-6)
    assert step(x[0], copy=False) is buffers[0]
    single = layer.stepper()
    rows = [single(x_t, copy=True) for x_t in x[:, 0]]
    assert rows[0].shape == (H,)
    np.testing.assert_allclose(rows, layer(x[:, 0])[0], atol=2e-6)


@pytest.mark.parametrize("copy", [1, None, "yes", np.ones(2)])
def test_copy_must_be_a_bool(copy: Any) -> None:
    step = fastrnn.GRU(I, H, rng=0, backend="numpy").stepper()
    with pytest.raises(TypeError, match="copy must be a bool, got "):
        step(noise(I), copy=copy)
    assert not step.state.any()


# ---- a stepper's state and an unbatched call's ---------------------------------------------------


@pytest.mark.parametrize(("backend", "case"), per_backend(CASES, CASES[-1:]), ids=str)
def test_a_state_goes_from_a_call_to_a_stepper_and_back(backend: str, case: Case) -> None:
    layer, x = case.layer(backend), noise(2 * T, I)
    want, end = layer(x)
    _, state = layer(x[:T])
    step = layer.stepper()
    step.state = state  # unbatched into the stepper
    got = [step(x_t, copy=True) for x_t in x[T : T + 3]]
    np.testing.assert_allclose(got, want[T : T + 3], rtol=1e-5, atol=2e-6)
    y, last = layer(x[T + 3 :], step.state)  # the stepper's into an unbatched call
    np.testing.assert_allclose(y, want[T + 3 :], rtol=1e-5, atol=2e-6)
    same(last, end)
    # what a call of a batch of one gave, or got, fits as before
    _, batched = layer(x[:T, None])
    step.state = batched
    same(step.state, batched)
    same(layer(x[T:, None], step.state)[1], pack(part[:, None] for part in unpack(end)))


@pytest.mark.parametrize(("backend", "case"), per_backend(CASES, CASES[-1:]), ids=str)
def test_training_goes_on_from_a_steppers_state(backend: str, case: Case) -> None:
    layer, x = case.layer(backend), noise(T, I)
    step = layer.stepper()
    step(noise(1, I))
    y, state, tape = layer.forward(x, step.state)
    want = layer.forward(x, pack(part[:, 0] for part in unpack(step.state)))
    same((y, *unpack(state)), (want[0], *unpack(want[1])))
    # and its form is taken as that of a gradient too
    grads = layer.backward(tape, None, pack(np.ones_like(part) for part in unpack(step.state)))
    other = layer.backward(want[2], None, pack(np.ones_like(part) for part in unpack(want[1])))
    same(grads.state, other.state)
    np.testing.assert_allclose(grads.flat, other.flat, rtol=1e-5, atol=2e-6)


def test_states_of_other_forms_are_refused() -> None:
    layer = fastrnn.GRU(I, H, 2, rng=0, backend="numpy")
    step, wide = layer.stepper(), layer.stepper(B)
    for stepper, shape, text in [
        (step, (1, H), r"\(L\*D=2, H=4\), got \(1, 4\)"),
        (step, (2, B, H), r"\(L\*D=2, B=1, H=4\), got \(2, 3, 4\)"),
        (step, (H,), r"\(L\*D=2, H=4\) or \(L\*D=2, B=1, H=4\), got \(4,\)"),
        (wide, (2, H), r"\(L\*D=2, B=3, H=4\), got \(2, 4\)"),
        (wide, (2, 1, H), r"\(L\*D=2, B=3, H=4\), got \(2, 1, 4\)"),
    ]:
        with pytest.raises(ValueError, match=f"^state must be {text}$"):
            stepper.state = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"^state must be \(L\*D=2, B=1, H=4\), got \(2, 3, 4\)$"):
        layer(noise(T, I), np.zeros((2, B, H), np.float32))


# ---- rows in another order -----------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 1], [1, 1, 1], [2, 2, 0]])
def test_rows_go_on_from_the_state_of_others(backend: str, rows: list[int]) -> None:
    layer, x = fastrnn.LSTM(I, H, 2, proj_size=2, rng=0, backend=backend), noise(3, B, I)
    step = layer.stepper(B)
    step(x[0])
    state = step.state
    step.reorder(rows)
    same(step.state, pack(part[:, rows] for part in state))
    want, _ = layer(x[1:2], pack(part[:, rows] for part in state))
    np.testing.assert_allclose(step(x[1]), want[0], atol=2e-6)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_rows_of_a_cell(kind: str) -> None:
    step = CELLS[kind](backend="numpy").stepper(B)
    step(noise(B, I))
    state = step.state
    step.reorder(np.array([2, 2, 0], np.uint8))
    same(step.state, pack(part[[2, 2, 0]] for part in unpack(state)))


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([0, 1], ValueError, r"rows must be \(B=3,\), got \(2,\)"),
        ([[0, 1, 2]], ValueError, r"rows must be \(B=3,\), got \(1, 3\)"),
        (1, ValueError, r"rows must be \(B=3,\), got \(\)"),
        ([0, 1, 3], ValueError, r"rows must be in 0\.\.2, got 3"),
        ([0, -1, 2], ValueError, r"rows must be in 0\.\.2, got -1"),
        ([0.0, 1.0, 2.0], TypeError, "rows must be ints, got float64"),
        ([True, False, True], TypeError, "rows must be ints, got bool"),
        (None, ValueError, "rows must be"),
        ([[0], [1, 2], [3]], ValueError, "rows must be an array, got list of unequal parts"),
        (np.ma.masked_array([0, 1, 2], [1, 0, 0]), TypeError, "rows must have no mask"),
    ],
)
def test_wrong_rows_are_refused(rows: Any, error: type[Exception], text: str) -> None:
    step = fastrnn.GRU(I, H, rng=0, backend="numpy").stepper(B)
    step(noise(B, I))
    before = step.state
    with pytest.raises(error, match=text):
        step.reorder(rows)
    np.testing.assert_array_equal(step.state, before)


# ---- of cells ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, B])
@pytest.mark.parametrize(("backend", "kind"), per_backend(list(CELLS), ["lstm"]))
def test_a_cells_stepper_does_what_its_calls_do(backend: str, kind: str, batch: int) -> None:
    cell, x = CELLS[kind](backend=backend), noise(T, batch, I)
    step, state = cell.stepper(batch), None
    for x_t in x[:3]:
        y = step(x_t)
        state = cell(x_t, state)
        same(step.state, state)
        np.testing.assert_array_equal(y, unpack(step.state)[0])
    # a state comes from calls and goes to them
    state = cell(x[3], step.state)
    step.state = state
    step(x[4])
    same(step.state, cell(x[4], state))
    step.reset(np.arange(batch) == 0)
    for part in unpack(step.state):
        assert not part[0].any()
        assert batch == 1 or part[1:].any()
    step.reset()
    same(step.state, pack(np.zeros_like(part) for part in unpack(state)))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cells_stepper_without_a_batch(kind: str) -> None:
    cell, x = CELLS[kind](backend="numpy"), noise(T, I)
    step = cell.stepper()
    state = cell(x[0])
    step.state = state  # (H,)
    y = step(x[1])
    state = cell(x[1], state)
    assert y.shape == unpack(state)[0].shape
    same(pack(part[0] for part in unpack(step.state)), state)
    same(cell(x[2], step.state), cell(x[2], state))  # (1, H) into an unbatched call


def test_a_cells_stepper_holds_a_snapshot_and_narrow_weights(backend: str) -> None:
    cell = fastrnn.GRUCell(I, H, rng=0, backend=backend)
    x = noise(2, I)
    want = cell(x[0])
    step = cell.stepper()
    cell.flat_params[:] = 0
    np.testing.assert_allclose(step(x[0]), want, atol=2e-6)
    cell = fastrnn.GRUCell(I, H, rng=0, backend=backend)
    cell.freeze("int8")
    np.testing.assert_allclose(cell.stepper()(x[0]), cell(x[0]), atol=2e-6)


def test_a_cells_stepper_refuses_what_a_layers_does() -> None:
    cell = fastrnn.LSTMCell(I, H, rng=0, backend="numpy")
    for batch, error in [
        (0, ValueError),
        (1.0, TypeError),
        (None, TypeError),
        (2**62, MemoryError),
    ]:
        with pytest.raises(error, match="batch_size"):
            cell.stepper(batch)
    step = cell.stepper(B)
    with pytest.raises(ValueError, match=r"x_t must be \(B=3, I=5\), got \(3, 4\)"):
        step(noise(B, H))
    with pytest.raises(TypeError, match="state must be a tuple"):
        step.state = np.zeros((B, H), np.float32)
    with pytest.raises(ValueError, match=r"state\[0\] must be \(B=3, H=4\), got \(1, 3, 4\)"):
        step.state = (np.zeros((1, B, H), np.float32),) * 2


@pytest.mark.skipif("cpu" not in BACKENDS, reason="cpu is not under test")
def test_a_cells_step_is_the_same_function_as_a_layers() -> None:
    """And so takes as long: one call of the extension, bound once."""
    layer = fastrnn.LSTM(I, H, rng=0, backend="cpu").stepper()
    cell = fastrnn.LSTMCell(I, H, rng=0, backend="cpu").stepper()
    assert type(cell) is type(layer)
    assert type(cell._advance) is type(layer._advance)
    x = noise(I)
    np.testing.assert_array_equal(cell(x), layer(x))


# ---- gradients of one of the two -----------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("peephole", [True, False])
def test_a_missing_part_of_dstate_is_zeros(backend: str, batched: bool, peephole: bool) -> None:
    how: dict[str, Any] = {"peephole": peephole, "rng": 0, "backend": backend}
    layer = fastrnn.LSTM(I, H, 2, proj_size=2, bidirectional=True, **how)
    cell = fastrnn.LSTMCell(I, H, proj_size=2, **how)
    x = noise(T, B, I) if batched else noise(T, I)
    _, states, tape = layer.forward(x)
    state, cell_tape = cell.forward(x[0])
    for run, ends in [
        (lambda dstate: layer.backward(tape, None, dstate), states),
        (lambda dstate: cell.backward(cell_tape, dstate), state),
    ]:
        dh, dc = (noise(*part.shape) for part in ends)
        for partial, full in [
            ((dh, None), (dh, np.zeros_like(dc))),
            ([None, dc], (np.zeros_like(dh), dc)),
            ((None, None), (np.zeros_like(dh), np.zeros_like(dc))),
        ]:
            got, want = run(partial), run(full)
            for one, other in zip((got.x, *got.state), (want.x, *want.state), strict=True):
                np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(got.flat, want.flat)
    with pytest.raises(ValueError, match=r"dstate\[1\] must be"):
        layer.backward(tape, None, (None, noise(2, 2)))
    with pytest.raises(TypeError, match=r"state\[1\] must be"):
        layer(x, (states[0], None))  # a state that is half there is a slip
