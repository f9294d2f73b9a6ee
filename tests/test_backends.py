"""One pass of a backend: the reference against finite differences, the others against it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from cases import TOLERANCE
from grid import BACKENDS, per_backend

import fastrnn.backends
from fastrnn.backends.sequence import CHUNK_ROWS
from fastrnn.cellmath import CELLS, GENERAL, MATHS, lstm
from fastrnn.schedule import RowSchedule, row_schedules
from fastrnn.spec import CellSpec, Numerics, OutputGradients, PassArgs, Saved, Weights

Array = np.ndarray[Any, np.dtype[Any]]

ROWS = ("all", "lengths", "resets", "lengths_resets")


@dataclass(frozen=True)
class Case:
    """A pass with all its numbers drawn from a seed; no size is equal to another."""

    kind: str
    rows: str = "all"
    reverse: bool = False
    proj: bool = False
    bias: bool = True
    dtype: str = "float64"
    sizes: tuple[int, int, int, int] = (5, 4, 2, 3)  # T, B, I, H

    def __str__(self) -> str:
        flags = [f for f in ("reverse", "proj") if getattr(self, f)] + ["no_bias"] * (not self.bias)
        return "-".join([self.kind, self.rows, self.dtype, *flags])

    @property
    def cell(self) -> CellSpec:
        return CELLS[self.kind]


class Problem(NamedTuple):
    """What one pass takes, forward and backward."""

    cell: CellSpec
    weights: Weights
    x: Array
    h0: Array
    c0: Array | None
    rows: RowSchedule
    dy: Array | None
    dh: Array
    dc: Array | None
    reverse: bool

    def args(self, reproducible: bool = False) -> PassArgs:
        numerics = Numerics(reproducible=reproducible)
        return PassArgs(self.cell, numerics, self.x, self.h0, self.c0, self.rows, self.reverse)


def make(case: Case) -> Problem:
    T, B, I, H = case.sizes
    P = H - 1 if case.proj else H
    cell, G = case.cell, len(case.cell.gates)
    rng = np.random.default_rng(1997)

    def draw(*shape: int) -> Array:
        return rng.normal(size=shape).astype(case.dtype)

    lengths = np.array([2, 0, T, 3, 1, T - 1] * B)[:B] if "lengths" in case.rows else None
    resets = rng.random((T, B)) < 0.3 if "resets" in case.rows else None
    weights = Weights(
        draw(G * H, I),
        draw(G * H, P),
        draw(G * H) if case.bias else None,
        draw(G * H) if case.bias else None,
        draw(P, H) if case.proj else None,
        draw(3 * H) if case.kind == "lstm_peephole" else None,
    )
    return Problem(
        cell,
        weights,
        x=draw(T, B, I),
        h0=draw(B, P),
        c0=draw(B, H) if cell.has_c else None,
        rows=row_schedules(lengths, resets, T, B)[case.reverse],
        dy=draw(T, B, P),
        dh=draw(B, P),
        dc=draw(B, H) if cell.has_c else None,
        reverse=case.reverse,
    )


def forward(
    backend: str, p: Problem, *, save: bool = False, reproducible: bool = False
) -> tuple[Array, Array, Array | None, Saved | None]:
    engine = fastrnn.backends.get(backend)
    packed = engine.pack(p.cell, p.weights, backward=True, threads=1)
    return engine.forward(packed, p.args(reproducible), save=save, threads=1)


def everything(backend: str, p: Problem, *, reproducible: bool = False) -> dict[str, Array]:
    """Results and gradients of a pass by name."""
    engine = fastrnn.backends.get(backend)
    y, hn, cn, saved = forward(backend, p, save=True, reproducible=reproducible)
    assert saved is not None
    assert not np.shares_memory(y, saved.y)
    grads = Weights(*(a if a is None else np.zeros_like(a) for a in p.weights))
    dx, dh0, dc0 = engine.backward(
        engine.pack(p.cell, p.weights, backward=True, threads=1),
        p.args(reproducible),
        saved,
        OutputGradients(p.dy, p.dh, p.dc),
        grads,
        threads=1,
    )
    ran = p.rows.active(*p.x.shape[:2])[..., None]
    results = {"y": y, "hn": hn, "cn": cn, "saved_y": saved.y, "dx": dx, "dh0": dh0, "dc0": dc0}
    results["gates"] = np.where(ran, saved.gates, 0)
    results["saved_c"] = None if saved.c is None else np.where(ran, saved.c, 0)
    results |= {f"d_{k}": a for k, a in grads._asdict().items()}
    return {name: a for name, a in results.items() if a is not None}


def assert_same(got: dict[str, Array], expected: dict[str, Array], dtype: str) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == np.dtype(dtype), name
        np.testing.assert_allclose(got[name], value, **TOLERANCE[dtype], err_msg=name)


def every_case(**fixed: Any) -> list[Case]:
    cases = [
        Case(kind, rows, reverse, proj, **fixed)
        for kind, rows, reverse, proj in itertools.product(CELLS, ROWS, (False, True), (0, 1))
        if kind.startswith("lstm") or not proj
    ]
    return cases + [Case(kind, bias=False, **fixed) for kind in CELLS]


# ------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("case", every_case(), ids=str)
def test_finite_differences(case: Case) -> None:
    """Along a random direction of each input, for a random linear function of all results."""
    p = make(case)
    inputs = {"x": p.x, "h0": p.h0, "c0": p.c0} | p.weights._asdict()
    got = everything("numpy", p)
    rng = np.random.default_rng(1990)
    for name, value in inputs.items():
        if value is None:
            continue
        direction = rng.normal(size=value.shape)
        # In a ragged batch the padding has no influence, and its gradient is 0.
        analytic = np.vdot(got.get(f"d{name}", got.get(f"d_{name}")), direction)
        step = 1e-6
        numeric = (
            loss(replaced(p, name, value + step * direction))
            - loss(replaced(p, name, value - step * direction))
        ) / (2 * step)
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def replaced(p: Problem, name: str, value: Array) -> Problem:
    if name in p._fields:
        return p._replace(**{name: value})
    return p._replace(weights=p.weights._replace(**{name: value}))


def loss(p: Problem) -> float:
    y, hn, cn, _ = forward("numpy", p)
    total = np.vdot(y, p.dy) + np.vdot(hn, p.dh)
    return float(total if cn is None else total + np.vdot(cn, p.dc))


@pytest.mark.parametrize("case", every_case(), ids=str)
def test_one_row_by_hand(case: Case) -> None:
    """The last row of the batch, one unit and one step at a time, from the equations."""
    p = make(case)
    y, hn, cn, _ = forward("numpy", p)
    T, B, _, H = case.sizes
    row = B - 1
    active = p.rows.active(T, B)[:, row]
    h, c = p.h0[row], None if p.c0 is None else p.c0[row]
    zero = np.zeros(H)
    for t in range(T)[:: -1 if case.reverse else 1]:
        if not active[t]:
            np.testing.assert_array_equal(y[t, row], 0)
            continue
        if p.rows.resets is not None and p.rows.resets[t, row]:
            h, c = np.zeros_like(h), zero
        h, c = by_hand(p, p.x[t, row], h, c)
        np.testing.assert_allclose(y[t, row], h, atol=1e-14)
    np.testing.assert_allclose(hn[row], h, atol=1e-14)
    if cn is not None:
        np.testing.assert_allclose(cn[row], c, atol=1e-14)


def by_hand(p: Problem, x: Array, h: Array, c: Array | None) -> tuple[Array, Array | None]:
    w, kind, G = p.weights, p.cell.kind, len(p.cell.gates)
    b_ih, b_hh = (np.zeros(w.ih.shape[0]) if b is None else b for b in (w.b_ih, w.b_hh))

    def sigmoid(a: Array) -> Array:
        return 1 / (1 + np.exp(-a))

    W = np.split(w.ih @ x + b_ih, G)
    R, b = np.split(w.hh, G), np.split(b_hh, G)
    if kind == "rnn_tanh":
        return np.tanh(W[0] + R[0] @ h + b[0]), c
    if kind == "rnn_relu":
        return np.maximum(W[0] + R[0] @ h + b[0], 0), c
    if kind.startswith("gru"):
        r, z = (sigmoid(W[k] + R[k] @ h + b[k]) for k in (0, 1))
        before = kind == "gru_reset_before"
        n = np.tanh(W[2] + (R[2] @ (r * h) + b[2] if before else r * (R[2] @ h + b[2])))
        return (1 - z) * n + z * h, c
    assert c is not None
    p_i, p_f, p_o = np.zeros((3, c.size)) if w.peephole is None else np.split(w.peephole, 3)
    i = sigmoid(W[0] + R[0] @ h + b[0] + p_i * c)
    f = sigmoid(W[1] + R[1] @ h + b[1] + p_f * c)
    g = np.tanh(W[2] + R[2] @ h + b[2])
    c = f * c + i * g
    m = sigmoid(W[3] + R[3] @ h + b[3] + p_o * c) * np.tanh(c)
    return m if w.hr is None else w.hr @ m, c


# --------------------------------------------------------------------------------- every backend


@pytest.mark.parametrize("case", every_case(), ids=str)
def test_equals_the_reference(backend: str, case: Case) -> None:
    p = make(case)
    assert_same(everything(backend, p), everything("numpy", p), case.dtype)


@pytest.mark.parametrize(("backend", "kind"), per_backend(list(CELLS), ["lstm"]))
def test_float32(backend: str, kind: str) -> None:
    case = Case(kind, "lengths_resets", dtype="float32")
    expected = everything("numpy", make(replace(case, dtype="float64")))
    expected = {name: a.astype("float32") for name, a in expected.items()}
    assert_same(everything(backend, make(case)), expected, "float32")


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_chains_equal_products(backend: str, kind: str, reproducible: bool) -> None:
    case = Case(kind, "lengths_resets", reverse=reproducible)
    p = make(case)
    got = everything(backend, p, reproducible=reproducible)
    assert_same(got, everything("numpy", p), "float64")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows", ["all", "lengths"])
def test_more_steps_than_a_chunk(backend: str, rows: str, reverse: bool) -> None:
    B = 6
    case = Case("lstm", rows, reverse, sizes=(2 * CHUNK_ROWS // B + 3, B, 2, 3))
    p = make(case)
    y, hn, *_ = forward(backend, p)
    h, c = p.h0, p.c0
    engine = fastrnn.backends.get(backend)
    packed = engine.pack(p.cell, p.weights, backward=True, threads=1)
    for t in range(len(p.x))[:: -1 if reverse else 1]:
        args = p.args()._replace(x=p.x[t : t + 1], h0=h, c0=c, rows=p.rows.span(t, t + 1))
        y_t, h, c, _ = engine.forward(packed, args, save=False, threads=1)
        np.testing.assert_allclose(y[t], y_t[0], atol=1e-12)
    np.testing.assert_allclose(hn, h, atol=1e-12)


@pytest.mark.parametrize("sizes", [(0, 4, 2, 3), (5, 0, 2, 3), (0, 0, 2, 3)])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_nothing_to_do(backend: str, kind: str, sizes: tuple[int, int, int, int]) -> None:
    p = make(Case(kind, sizes=sizes))
    got = everything(backend, p)
    assert got["y"].shape == (*sizes[:2], 3)
    assert got["dx"].shape == sizes[:3]
    assert_same({"hn": got["hn"], "dh0": got["dh0"]}, {"hn": p.h0, "dh0": p.dh}, "float64")
    for name in ("hn", "dh0"):
        assert not np.shares_memory(got[name], p.h0)
        assert not np.shares_memory(got[name], p.dh)
    for name in Weights._fields:
        assert not got.get(f"d_{name}", np.zeros(1)).any()


def test_no_row_has_a_step(backend: str) -> None:
    p = make(Case("lstm"))._replace(rows=row_schedules(np.zeros(4, np.int64), None, 5, 4)[0])
    got = everything(backend, p)
    np.testing.assert_array_equal(got["hn"], p.h0)
    np.testing.assert_array_equal(got["dh0"], p.dh)
    assert not got["y"].any()
    assert not got["dx"].any()


def test_any_strides(backend: str) -> None:
    p = make(Case("lstm"))
    expected = everything(backend, p)
    assert p.dy is not None
    for order in ((2, 1, 0), (1, 0, 2)):
        back = np.argsort(order)
        x, dy = (a.transpose(order).copy().transpose(back) for a in (p.x, p.dy))
        assert_same(everything(backend, p._replace(x=x, dy=dy)), expected, "float64")
    x, dy = (np.repeat(a, 2, axis=2)[::-1, :, ::2][::-1] for a in (p.x, p.dy))
    x.flags.writeable = dy.flags.writeable = False
    assert_same(everything(backend, p._replace(x=x, dy=dy)), expected, "float64")


def test_inputs_are_left_alone(backend: str) -> None:
    p = make(Case("lstm_peephole", "lengths_resets"))
    arrays = [a for part in (p, p.weights, p.rows) for a in part if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    everything(backend, p)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_dy(backend: str) -> None:
    p = make(Case("gru", "lengths"))
    assert p.dy is not None
    expected = everything(backend, p._replace(dy=np.zeros_like(p.dy)))
    assert_same(everything(backend, p._replace(dy=None)), expected, "float64")


def test_a_pack_is_a_snapshot(backend: str) -> None:
    p = make(Case("lstm"))
    engine = fastrnn.backends.get(backend)
    expected = forward(backend, p)[0]
    packed = engine.pack(p.cell, p.weights, backward=True, threads=1)
    for a in p.weights:
        if a is not None:
            a.fill(np.nan)
    got = engine.forward(packed, p.args(), save=False, threads=1)[0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_pack_for_one_call(backend: str, kind: str, steps: int) -> None:
    p = make(Case(kind, proj=kind == "lstm"))
    engine = fastrnn.backends.get(backend)
    args = p.args(reproducible=True)._replace(x=p.x[:steps])
    results = []
    for single_use, backward in ((False, False), (True, False), (True, True)):
        packed = engine.pack(p.cell, p.weights, backward=backward, threads=1, single_use=single_use)
        results.append(engine.forward(packed, args, save=False, threads=1)[:3])
    for want, *others in zip(*results, strict=True):
        for got in others:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_bad_numbers_stay_in_their_row(backend: str, kind: str, bad: float) -> None:
    p = make(Case(kind))
    clean = everything(backend, p)
    p.x[1, 2, 0] = bad
    got = everything(backend, p)
    others = [0, 1, 3]
    for name in ("y", "dx"):
        np.testing.assert_allclose(got[name][:, others], clean[name][:, others], atol=1e-12)
    if np.isnan(bad):
        assert np.isnan(got["y"][1:, 2]).all()
    elif kind not in ("rnn_relu", "lstm_peephole"):
        assert np.isfinite(got["y"][:, 2]).all()


@pytest.mark.parametrize("kind", CELLS)
def test_bind(backend: str, kind: str) -> None:
    p = make(Case(kind, proj=kind == "lstm"))
    engine = fastrnn.backends.get(backend)
    y, hn, cn, _ = forward(backend, p)
    x, h, out = p.x[:1].copy(), p.h0.copy(), np.empty_like(p.h0[None])
    c = None if p.c0 is None else p.c0.copy()
    packed = engine.pack(p.cell, p.weights, backward=True, threads=1)
    bound = engine.bind(packed, p.args()._replace(x=x, h0=h, c0=c), out, threads=1)
    step = engine.join([bound], x[0], [h] if c is None else [h, c])
    for t in range(len(p.x)):
        step(p.x[t])
        np.testing.assert_allclose(out[0], y[t], atol=1e-12)
    np.testing.assert_allclose(h, hn, atol=1e-12)
    if c is not None:
        np.testing.assert_allclose(c, cn, atol=1e-12)


# ---------------------------------------------------------------------------------- the registry


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"backend must be one of 'cpu', .*, got 'tpu'"):
        fastrnn.backends.get("tpu")
    with pytest.raises(ValueError, match=r"'auto', 'cpu', .*, got 'tpu'"):
        fastrnn.backends.resolve("tpu")


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTRNN_BACKEND", raising=False)
    usable = [n for n in ("cpu", "numba", "numpy") if fastrnn.backends.why_not(n) is None]
    assert fastrnn.backends.resolve("auto") == usable[0]
    monkeypatch.setenv("FASTRNN_BACKEND", "numpy")
    assert fastrnn.backends.resolve("auto") == "numpy"
    assert fastrnn.backends.resolve(BACKENDS[-1]) == BACKENDS[-1]
    monkeypatch.setenv("FASTRNN_BACKEND", "abacus")
    with pytest.raises(ValueError, match=r"FASTRNN_BACKEND must be one of .*, got 'abacus'"):
        fastrnn.backends.resolve("auto")


def test_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTRNN_BACKEND", raising=False)
    monkeypatch.setitem(sys.modules, "scipy", None)
    reason = fastrnn.backends.why_not("numba")
    assert reason is not None
    assert 'pip install "fastrnn[numba]"' in reason
    fastrnn.backends._get.cache_clear()
    with pytest.raises(RuntimeError, match=r'backend "numba" cannot be used here: .*scipy'):
        fastrnn.backends.get("numba")


def test_backends_are_imported_when_asked_for() -> None:
    text = "import sys, fastrnn.backends; sys.exit('numba' in sys.modules or 'cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0


def test_specs_and_maths_are_of_the_same_cells() -> None:
    assert CELLS.keys() | GENERAL.keys() == MATHS.keys()
    assert all(name == cell.kind for name, cell in CELLS.items())
    assert MATHS["lstm"].forward is lstm.forward


# ------------------------------------------------------------------------------------ Numba only

needs_numba = pytest.mark.skipif("numba" not in BACKENDS, reason="numba is not under test")


@needs_numba
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_accuracy_of_tanh(name: str) -> None:
    from numba import njit

    from fastrnn.backends import numba_tanh

    tanh = njit(error_model="numpy")(getattr(numba_tanh, name))

    @njit
    def each(x: Array) -> Array:
        out = np.empty_like(x)
        for k in range(x.size):
            out[k] = tanh(x[k])
        return out

    rng = np.random.default_rng(1)
    tiny = 10 ** rng.uniform(-35, 0, 5000) * rng.choice([-1, 1], 5000)
    x = np.concatenate([rng.uniform(-25, 25, 5000), tiny, [1e30, -1e30]]).astype(name)
    exact = np.tanh(x.astype(np.longdouble))
    assert np.max(np.abs(each(x) - exact) / np.spacing(np.abs(exact).astype(name))) < 4
    edges = np.array([np.nan, np.inf, -np.inf, 0.0, np.finfo(name).smallest_subnormal], name)
    np.testing.assert_array_equal(each(edges), np.array([np.nan, 1, -1, 0, edges[4]], name))


CACHED = """
import sys, numpy as np
from fastrnn.backends import get, numba
from fastrnn.spec import Numerics, PassArgs, Weights
from fastrnn.cellmath import CELLS
from fastrnn.schedule import ALL_ROWS
digest, *kinds = sys.argv[1:]
if digest:
    numba._digest = lambda: digest
hits = []
for kind in kinds:
    results = []
    for engine in (get("numpy"), get("numba")):
        cell, one = CELLS[kind], np.ones((1, 1))
        packed = engine.pack(
            cell, Weights(*[np.ones((len(cell.gates), 1))] * 2), backward=False, threads=1
        )
        c = one if cell.has_c else None
        args = PassArgs(cell, Numerics(), one[None], one, c, ALL_ROWS, False)
        results.append(engine.forward(packed, args, save=False, threads=1)[0])
    np.testing.assert_allclose(*results)
    hits.append(sum(engine.loops(cell, packed).forward.__wrapped__.stats.cache_hits.values()))
print(*hits)
"""


def cache_hits(folder: Any, digest: str, *kinds: str) -> str:
    """Run these kinds in a process of their own, which must get them right."""
    run = subprocess.run(
        [sys.executable, "-c", CACHED, digest, *kinds],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return run.stdout.strip()


@needs_numba
def test_what_interrupts_numba_is_raised_itself() -> None:
    from fastrnn.backends import numba

    def interrupted(interrupt: Exception | None) -> None:
        try:
            raise SystemError("inner") from interrupt
        except SystemError as error:
            raise SystemError("outer") from error

    call = numba._interruptible(interrupted)
    late = TimeoutError("late")
    with pytest.raises(TimeoutError, match="late") as caught:
        call(late)
    assert caught.value is late
    with pytest.raises(SystemError, match="outer"):
        call(None)


@needs_numba
def test_compiled_code_is_kept_and_keyed_by_all_its_text(tmp_path: Any) -> None:
    """Numba alone would not notice a change in a function that the compiled one calls."""
    assert cache_hits(tmp_path, "", "rnn_relu") == "0"
    assert cache_hits(tmp_path, "", "rnn_relu") == "1"
    assert cache_hits(tmp_path, "other", "rnn_relu") == "0"


@needs_numba
def test_cells_compiled_by_different_processes_do_not_mix(tmp_path: Any) -> None:
    """Numba's symbols are unique within a process only: two first loops once had the same one."""
    assert cache_hits(tmp_path, "", "rnn_tanh") == "0"
    assert cache_hits(tmp_path, "", "rnn_relu") == "0"
    assert cache_hits(tmp_path, "", "rnn_tanh", "rnn_relu") == "1 1"


@needs_numba
def test_no_place_for_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrnn.backends import numba, numpy

    def no_source() -> str:
        raise OSError("could not get source code")

    maths = MATHS["rnn_relu"]
    plain = numpy.loops(maths)
    assert numba._jit(plain.forward, maths.forward).stats.cache_path is not None
    monkeypatch.setattr(numba, "_digest", no_source)
    assert numba._jit(plain.forward, maths.forward).stats.cache_path is None
