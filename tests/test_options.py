"""What each option promises: against finite differences, the pieces, the block, the plain call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import (
    KINDS,
    Array,
    Call,
    Case,
    Results,
    back,
    close,
    pack,
    parts,
    run,
    same_bits,
    slopes,
    unpack,
)
from grid import per_backend
from oracles import by_hand

import fastrnn

# One line per option: what it changes in the case, in the layer's arguments, in forward's.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}),
    "no_state": ({"state": False}, {}, {}),
    "no_bias": ({"bias": False}, {}, {}),
    "layers": ({"layers": 3}, {}, {}),
    "bidirectional": ({"layers": 2, "bidirectional": True}, {}, {}),
    "batch_first": ({"batch_first": True}, {}, {}),
    "lengths": ({"lengths": "zeros", "bidirectional": True}, {}, {}),
    "resets": ({"resets": "some", "bidirectional": True}, {}, {}),
    "lengths_resets": ({"lengths": "zeros", "resets": "often", "layers": 2}, {}, {}),
    "dropout": ({"layers": 3}, {"dropout": 0.4}, {"rng": 5}),
    "checkpoint": ({"layers": 2, "lengths": "zeros"}, {}, {"checkpoint_every": 4}),
    "dropout_checkpoint": (
        {"layers": 2, "bidirectional": True},
        {"dropout": 0.4},
        {"rng": 5, "checkpoint_every": 4},
    ),
    "reproducible": ({"layers": 2}, {"reproducible": True}, {}),
    "proj": ({"layers": 2, "proj": True}, {}, {}),
}
MIXTURES = [
    (kind, option)
    for option in OPTIONS
    for kind in KINDS
    if option != "proj" or kind.startswith("lstm")
]


@pytest.mark.parametrize(
    ("backend", "mixture"), per_backend(MIXTURES, MIXTURES[::7]), indirect=["backend"]
)
def test_finite_differences(backend: str, mixture: tuple[str, str]) -> None:
    kind, option = mixture
    changes, arguments, how = OPTIONS[option]
    case = Case(kind=kind, sizes=(9, 3, 5, 4)).but(**changes)
    differences, products = slopes(case.layer(backend, **arguments), case.call(), **how)
    for name, value in products.items():
        np.testing.assert_allclose(value, differences[name], rtol=1e-6, atol=1e-7, err_msg=name)


# ---- lengths and resets --------------------------------------------------------------------------

PIECES = [
    Case(kind, (8, 4, 5, 4), layers=2, bidirectional=both, lengths=lengths, resets=resets)
    for kind in KINDS
    for both in (False, True)
    for lengths, resets in (("zeros", ""), ("", "some"), ("positive", "often"))
]


def by_pieces(layer: Any, case: Case, call: Call) -> Results:
    """Each row cut at its length and at its resets, every piece a call of its own."""
    steps, batch = call.x.shape[:2]
    lengths = call.how.get("lengths", np.full(batch, steps))
    resets = call.how.get("resets", np.zeros((steps, batch), bool))
    ahead = (np.arange(case.layers * case.directions) % case.directions == 0)[:, None, None]
    total = {"y": np.zeros((steps, batch, case.directions * case.output))}
    # What a row of no steps leaves as it is; every other row overwrites all of it.
    total |= {name: state.copy() for name, state in parts(call.state, "hn", "cn").items()}
    total["dx"] = np.zeros_like(call.x)
    total |= {name: state.copy() for name, state in parts(call.dstate, "dh0", "dc0").items()}
    total |= {"d" + name: np.zeros_like(value) for name, value in layer.params.items()}
    for b, n in enumerate(lengths):
        row = slice(b, b + 1)
        starts = [t for t in range(n) if t == 0 or resets[t, b]]
        for start, stop in zip(starts, [*starts[1:], n], strict=False):
            # The forward direction's state enters the first piece and leaves the last, the reverse
            # direction's the other way round; a reset at step 0 lets the forward one's not enter.
            enters, leaves = (
                np.where(ahead, start == 0, stop == n),
                np.where(ahead, stop == n, start == 0),
            )
            counts = enters & ~(ahead & resets[0, b])
            piece = Call(
                call.x[start:stop, row],
                pack(np.where(counts, s[:, row], 0) for s in unpack(call.state)),
                {},
                call.dy[start:stop, row],
                pack(np.where(leaves, s[:, row], 0) for s in unpack(call.dstate)),
            )
            for name, value in run(layer, piece).items():
                whole = total[name]
                if name in ("y", "dx"):
                    whole[start:stop, row] = value
                elif name in ("hn", "cn"):
                    whole[:, row] = np.where(leaves, value, whole[:, row])
                elif name in ("dh0", "dc0"):
                    whole[:, row] = np.where(enters, np.where(counts, value, 0), whole[:, row])
                else:
                    whole += value
    return total


@pytest.mark.parametrize(
    ("backend", "case"), per_backend(PIECES, PIECES[::5]), indirect=["backend"]
)
def test_lengths_and_resets_equal_the_pieces(backend: str, case: Case) -> None:
    """The same numbers, and with reproducible=True the same bits, as running the pieces alone."""
    call = case.call()
    for reproducible in (False, True):
        layer = case.layer(backend, reproducible=reproducible)
        got, want = run(layer, call), by_pieces(layer, case, call)
        close(got, want, case.dtype)
        if reproducible:
            names = [n for n in ("y", "hn", "cn", "dx", "dh0", "dc0") if n in want]
            same_bits({n: got[n] for n in names}, {n: want[n] for n in names})


@pytest.mark.parametrize("kind", KINDS)
def test_work_follows_valid_steps(backend: str, kind: str) -> None:
    """What lies in the padding is not read: NaN there, in x as in dy, changes no bit."""
    case = Case(kind=kind, layers=2, bidirectional=True, lengths="zeros", resets="some")
    layer, call = case.layer(backend), case.call()
    want = run(layer, call)
    padding = np.arange(case.sizes[0])[:, None] >= call.how["lengths"]
    call.x[padding] = call.dy[padding] = np.nan
    same_bits(run(layer, call), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_resets_stop_what_is_not_finite(backend: str, kind: str, bad: float) -> None:
    """A reset is a start from zeros, not a product with 0: NaN and inf do not pass it."""
    case = Case(kind=kind, sizes=(9, 3, 5, 4), layers=2, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    call.how["resets"] = np.zeros((9, 3), bool)
    call.how["resets"][[3, 6]] = True
    want = run(layer, call)
    call.x[4] = call.dy[4] = bad  # in the middle of the second of three pieces
    got = run(layer, call)
    assert not np.isfinite(got["y"][3:6]).all()
    for name in ("y", "dx"):
        np.testing.assert_array_equal(got[name][[0, 1, 2, 6, 7, 8]], want[name][[0, 1, 2, 6, 7, 8]])
    for name in ("hn", "cn", "dh0", "dc0"):
        if name in want:
            np.testing.assert_array_equal(got[name], want[name])


# ---- tapes ---------------------------------------------------------------------------------------

TAPES = [
    Case(kind, (9, 3, 5, 4), layers=2, lengths="zeros", resets="some", bidirectional=both)
    for kind in KINDS
    for both in (False, True)
]


@pytest.mark.parametrize(("backend", "case"), per_backend(TAPES, TAPES[::4]), indirect=["backend"])
def test_checkpoints_change_nothing(backend: str, case: Case) -> None:
    """For spans of one step, of a divisor of T, of no divisor, of T and of more than T."""
    call = case.call()
    layer = case.layer(backend, dropout=0.3)
    want = run(layer, call, rng=5)
    for every in (1, 3, 4, 9, 20):
        got = run(layer, call, rng=5, checkpoint_every=every)
        if backend == "cpu":
            same_bits(got, want)
        close(got, want, case.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_save_memory(backend: str, kind: str) -> None:
    """16 spans of 16 steps keep about an eighth of 256 steps: 16 states and one span's values."""
    case = Case(kind=kind, sizes=(256, 3, 5, 8), layers=2)
    layer, call = case.layer(backend), case.call()
    plain = layer.forward(call.x)[2].nbytes
    assert plain >= 2 * 256 * 3 * 8 * 8  # at least h of every step and layer
    assert layer.forward(call.x, checkpoint_every=16)[2].nbytes < plain / 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"checkpoint_every": 4}], ids=["plain", "checkpoints"])
def test_a_tape_stands_alone(backend: str, kind: str, how: dict[str, Any]) -> None:
    """Used twice, across other calls, and after its outputs and gradients have been overwritten."""
    case = Case(kind=kind, layers=2, bidirectional=True, lengths="zeros")
    layer, call = case.layer(backend), case.call()
    want = run(layer, call, **how)
    y, state, tape = layer.forward(call.x, call.state, **call.how, **how)
    other = case.but(seed=8).call()
    other_tape = layer.forward(other.x, other.state, **other.how)[2]
    for out in (y, *unpack(state)):
        out[...] = np.nan
    first = back(layer, tape, call)
    same_bits(first, {name: want[name] for name in first})
    for gradient in first.values():
        gradient[...] = np.nan
    back(layer, other_tape, other)
    again = back(layer, tape, call)
    same_bits(again, {name: want[name] for name in again})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"checkpoint_every": 4}], ids=["plain", "checkpoints"])
def test_states_of_every_step(backend: str, kind: str, how: dict[str, Any]) -> None:
    for case in TAPES:
        if case.kind != kind:
            continue
        layer, call = case.layer(backend), case.call()
        want: Results = {}
        by_hand(case, layer.params, call, states=want)
        tape = layer.forward(call.x, call.state, **call.how, **how)[2]
        close(parts(tape.states(), "h", "c"), want, case.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_either_gradient_alone(backend: str, kind: str) -> None:
    """No dy, no dstate, and both as zeros: what is left out counts as zero."""
    case = Case(kind=kind, layers=2, bidirectional=True)
    layer, call = case.layer(backend), case.call()
    tape = layer.forward(call.x, call.state)[2]
    zeros = Call(
        call.x,
        call.state,
        {},
        np.zeros_like(call.dy),
        pack(np.zeros_like(s) for s in unpack(call.dstate)),
    )
    for dy, dstate in ((None, call.dstate), (call.dy, None), (None, None)):
        part = Call(call.x, call.state, {}, dy, dstate)
        whole = Call(
            call.x,
            call.state,
            {},
            zeros.dy if dy is None else dy,
            zeros.dstate if dstate is None else dstate,
        )
        close(back(layer, tape, part), back(layer, tape, whole), case.dtype)


# ---- dropout -------------------------------------------------------------------------------------


def masks(backend: str, case: Case, p: float, rng: Any) -> list[Array]:
    """The factors that dropout puts between the layers, seen through networks that show them.

    Layer k of a relu network with bias 1 and no weights gives ones; the next and last layer has the
    identity as its weights, so its output is the mask on layer k's.
    """
    steps, batch, inputs, width = *case.sizes[:3], case.output
    x = np.zeros((steps, batch, inputs))
    seen = []
    for k in range(case.layers - 1):
        shape = Case(
            kind="rnn_relu",
            sizes=(steps, batch, inputs, width),
            layers=k + 2,
            bidirectional=case.bidirectional,
        )
        layer = shape.layer(backend, dropout=p)
        layer.flat_params[:] = 0
        for d, suffix in enumerate(("", "_reverse")[: case.directions]):
            layer.params[f"bias_ih_l{k}{suffix}"][:] = 1
            show = layer.params[f"weight_ih_l{k + 1}{suffix}"]
            show[:, d * width : (d + 1) * width] = np.eye(width)
        seen.append(layer.forward(x, rng=rng)[0])
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"checkpoint_every": 4}], ids=["plain", "checkpoints"])
def test_dropout_is_one_mask(backend: str, kind: str, how: dict[str, Any]) -> None:
    """Forward and every gradient are those of a network with these factors between its layers."""
    case = Case(kind=kind, layers=3, bidirectional=True, lengths="zeros", batch_first=True)
    layer, call = case.layer(backend, dropout=0.4), case.call()
    seen = masks(backend, case, 0.4, 11)
    close(run(layer, call, rng=11, **how), by_hand(case, layer.params, call, seen), case.dtype)
    y, _ = layer(call.x, call.state, **call.how)  # inference drops nothing
    close({"y": y}, {"y": by_hand(case, layer.params, call)["y"]}, case.dtype)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(backend: str, p: float) -> None:
    """Factors are 0 or 1/(1-p), 1 on average, and those of two layers, calls or steps differ."""
    case = Case(sizes=(40, 16, 3, 32), layers=3)
    first, second = masks(backend, case, p, 1)
    (other, _) = masks(backend, case, p, 2)
    for mask in (first, second, other):
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - p)], rtol=1e-15)
        spread = np.sqrt(p / (1 - p) / mask.size)
        assert abs(mask.mean() - 1) < 5 * spread
        assert not np.array_equal(mask[0], mask[1])
    # Independent masks agree in p^2 + (1-p)^2 of their elements.
    agree = p**2 + (1 - p) ** 2
    for a, b in ((first, second), (first, other)):
        spread = np.sqrt(agree * (1 - agree) / a.size)
        assert abs((a == b).mean() - agree) < 5 * spread


def test_dropout_draws_from_rng(backend: str) -> None:
    """An int is one mask for good; a Generator goes on; None is a new one each time."""
    case = Case(layers=2, sizes=(6, 3, 5, 16))
    layer, x = case.layer(backend, dropout=0.5), case.call().x

    def y(rng: Any) -> bytes:
        return bytes(layer.forward(x, rng=rng)[0].tobytes())

    draw = np.random.default_rng(3)
    assert y(3) == y(3) != y(4)
    assert y(draw) != y(draw)
    assert y(np.random.default_rng(3)) == y(np.random.default_rng(3))
    assert y(None) != y(None)


# ---- one step at a time --------------------------------------------------------------------------

STEPS = [
    Case(kind=kind, sizes=(6, batch, 5, 7), layers=layers, proj=proj, dtype=dtype, bias=batch > 1)
    for kind in KINDS
    for batch, layers, dtype in ((1, 1, "float32"), (3, 2, "float64"))
    for proj in ((False, True) if kind.startswith("lstm") else (False,))
]


@pytest.mark.parametrize(("backend", "case"), per_backend(STEPS, STEPS[::3]), indirect=["backend"])
def test_stepper_equals_the_block(backend: str, case: Case) -> None:
    """The same numbers, with reproducible=True the same bits, from zeros and from a given state."""
    call = case.call()
    for reproducible in (False, True):
        layer = case.layer(backend, reproducible=reproducible)
        step = layer.stepper(batch_size=case.sizes[1])
        for state in (None, call.state):
            if state is None:
                step.reset()
            else:
                step.state = state
            got = {"y": np.stack([step(x).copy() for x in call.x])}
            got |= parts(step.state, "hn", "cn")
            y, final = layer(call.x, state)
            want = {"y": y, **parts(final, "hn", "cn")}
            close(got, want, case.dtype)
            if reproducible:
                same_bits(got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_stepper_resets_rows(backend: str, kind: str) -> None:
    """step.reset(mask) is the block's resets; step.state is a copy; x_t may be (I,)."""
    case = Case(kind=kind, layers=2, resets="some", state=False)
    layer, call = case.layer(backend), case.call()
    step = layer.stepper(batch_size=case.sizes[1])
    ys = []
    for x, mask in zip(call.x, call.how["resets"], strict=True):
        step.reset(mask)
        ys.append(step(x).copy())
        for state in unpack(step.state):
            state[...] = np.nan
    close({"y": np.stack(ys)}, {"y": layer(call.x, **call.how)[0]}, case.dtype)

    single = layer.stepper()
    y = np.stack([single(x).copy() for x in call.x[:, 0]])
    close({"y": y}, {"y": layer(call.x[:, 0])[0]}, case.dtype)


CELLS = {"rnn_tanh": fastrnn.RNNCell, "gru": fastrnn.GRUCell, "lstm": fastrnn.LSTMCell}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_equal_the_layer(backend: str, kind: str) -> None:
    """A loop over forward and back over backward is the layer's BPTT, summed by the caller."""
    case = Case(kind=kind)
    layer, call = case.layer(backend), case.call()
    cell = CELLS[kind](*case.sizes[2:], dtype=np.float64, backend=backend)
    cell.load_params({name.removesuffix("_l0"): value for name, value in layer.params.items()})
    state = pack(s[0] for s in unpack(call.state))
    ys, tapes = [], []
    for x in call.x:
        np.testing.assert_array_equal(
            unpack(cell(x, state))[0], unpack(cell.forward(x, state)[0])[0]
        )
        state, tape = cell.forward(x, state)
        ys.append(unpack(state)[0])
        tapes.append(tape)
    got = {"y": np.stack(ys), **parts(pack(s[None] for s in unpack(state)), "hn", "cn")}
    dstate = pack(s[0].copy() for s in unpack(call.dstate))
    dxs, total = [], np.zeros_like(cell.flat_params)
    for tape, dy in zip(reversed(tapes), call.dy[::-1], strict=True):
        dh, *dc = unpack(dstate)
        grads = cell.backward(tape, pack((dh + dy, *dc)))
        dstate = grads.state
        dxs.append(grads.x)
        total += grads.flat
    got["dx"] = np.stack(dxs[::-1])
    got |= parts(pack(s[None] for s in unpack(dstate)), "dh0", "dc0")
    want = run(layer, call)
    close(got, {name: want[name] for name in got}, case.dtype)
    flat = np.concatenate([want["d" + name].ravel() for name in layer.params])
    close({"flat": total}, {"flat": flat}, case.dtype)
