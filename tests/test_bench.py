"""``fastrnn bench``: what it counts, how it measures, what it writes."""

from __future__ import annotations

import base64
import json
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import backends
from fastrnn.cli import _parser, main
from fastrnn.cli.bench import (
    figures,
    html,
    markdown,
    measure,
    memory,
    ours,
    peaks,
    plots,
    problem,
    profile,
    registry,
    report,
    shapes,
    sweep,
)
from fastrnn.cli.bench.candidate import Candidate
from fastrnn.cli.bench.problem import Problem, WrongAnswer
from fastrnn.cli.bench.report import Report, Result, Row, Spread
from fastrnn.cli.bench.shapes import Case, Shape

ROOT = Path(__file__).parents[1]
TINY = Shape("lstm", 3, 2, 5, 4)
CASE = Case("small", TINY, "inference", "float32")
LARGER = Shape("lstm", 50, 16, 64, 96)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but three cases in a hundredth of a second each."""
    small = lambda: iter([TINY, Shape("rnn", 4, 1, 3, 2, ("step",))])  # noqa: E731
    monkeypatch.setitem(shapes.GROUPS, "small", small)
    monkeypatch.setattr(peaks, "_SIZES", [2**12, 2**14])
    monkeypatch.setattr(peaks, "_SECONDS", 1e-4)
    monkeypatch.setattr(measure, "QUICK", measure.Effort(3, 0.1))
    monkeypatch.setattr(profile, "why_not", lambda: "not here")


@pytest.fixture(autouse=True)
def same_threads() -> Any:
    """The command sets the process's number of threads."""
    threads = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(threads)


def made(**figures_of: list[float]) -> Report:
    """A report with one case and these samples; a name in capitals is a peer's."""
    rows = [
        Row(name.lower(), "peer" if name.isupper() else "ours", samples)
        for name, samples in figures_of.items()
    ]
    machine = peaks.Peaks("a guess", {"float32": 100.0}, [(1000, 50.0), (4000, 10.0)])
    facts = {"processor": 'A & B <"C">'}
    return Report(
        "fastrnn bench", facts, {"numpy": "2"}, {"jax": "not installed"}, problem.TOLERANCES,
        machine, [Result(CASE, "seconds", rows, {"openvino": "no training"})], {"lstm": "too long"},
    )  # fmt: skip


# ---------------------------------------------------------------------------- shapes


def test_flops_and_bytes_counted_by_hand() -> None:
    # 16 gate values a row and step, each of 5 + 4 products and as many additions; 3 * 2 of them
    assert CASE.flops == 6 * 16 * 2 * (5 + 4) == 1728
    assert replace(CASE, mode="training").flops == 3 * 1728
    # W (16, 5) once, R (16, 4) in each of 3 steps, 6 rows of x and of h; 4 bytes each
    assert CASE.bytes == 4 * (80 + 3 * 64 + 6 * 5 + 6 * 4)
    assert replace(CASE, dtype="float64").bytes == 2 * CASE.bytes
    # forward, gates and c of 6 rows written and read, then W, R in each step, both gradients,
    # and for each row x, dx, y and dy
    training = 80 + 192 + 54 + 2 * 6 * (16 + 4) + 80 + 192 + 144 + 6 * 2 * (5 + 4)
    assert replace(CASE, mode="training").bytes == 4 * training
    assert Case("", Shape("gru", 1, 1, 2, 3), "step", "float32").flops == 2 * 9 * 5


def test_layers_and_copies_count_as_so_many_matrices() -> None:
    shape = replace(TINY, layers=2, copies=3)
    assert shape.weights == 3 * 16 * ((5 + 4) + (4 + 4))
    assert shape.recurrent == 3 * 2 * 16 * 4
    assert (shape.inputs, shape.units) == (3 * (5 + 4), 3 * 2 * 4)
    case = replace(CASE, shape=shape)
    assert case.flops == 6 * 2 * shape.weights
    # W of all once, R of all in each of 3 steps, each layer's input read and output written
    assert case.bytes == 4 * (3 * 16 * 9 + 3 * shape.recurrent + 6 * (27 + 24))
    assert str(shape) == "3 x lstm T3 B2 I5 H4 L2"


def test_parts_side_by_side_have_weights_and_inputs_of_their_own() -> None:
    posed = Problem(replace(CASE, shape=replace(TINY, copies=2)))
    one, two = posed.parts
    assert posed.x.shape == (3, 2, 10)
    np.testing.assert_array_equal(posed.x[..., 5:], two.x)
    assert (one.x != two.x).any()
    assert (one.params["weight_hh_l0"] != two.params["weight_hh_l0"]).any()
    np.testing.assert_array_equal(posed.reference["y"][..., :4], one.reference["y"])
    assert Problem(CASE).parts[0].case == CASE


def test_groups_of_real_programs() -> None:
    found = {name: list(shapes.GROUPS[name]()) for name in shapes.GROUPS}
    sizes = {(s.T, s.B, s.H, s.resets) for s in found["rollouts"]}
    assert sizes == {(T, 128, 256, r) for T in (64, 128) for r in (0.001, 0.01, 0.03)}
    for T in (1, 64):
        sizes = {(s.layers, s.H) for s in found["amplifiers"] if s.T == T}
        assert sizes == {(1, 12), (1, 16), (2, 8), (1, 24), (1, 40)}
    assert {(s.copies, s.layers, s.H) for s in found["denoisers"]} == {(28, 1, 4), (1, 2, 600)}
    assert {(s.T, s.I, s.H, s.layers) for s in found["speakers"]} == {(160, 40, 256, 3)}
    case = Case("rollouts", found["rollouts"][2], "inference", "float32")
    resets = Problem(case).resets
    assert resets is not None
    assert resets.mean() == pytest.approx(0.03, rel=0.2)


def test_a_ragged_shape_counts_what_is_computed() -> None:
    ragged = replace(TINY, T=50, B=9, ragged=True)
    lengths = ragged.lengths()
    assert lengths is not None
    assert lengths.min() >= 1
    assert lengths.max() <= 50
    assert ragged.rows == lengths.sum() == Problem(replace(CASE, shape=ragged)).lengths.sum()
    dense = Problem(replace(CASE, shape=ragged)).dense().case.shape
    assert dense.B == 9
    assert abs(dense.rows - ragged.rows) <= dense.B / 2


def test_groups_hold_every_kind_of_case_and_nothing_twice() -> None:
    found = shapes.cases(list(shapes.GROUPS), shapes.KINDS, ["float32"])
    assert {case.kind for case in found} == set(shapes.KINDS)
    assert {case.shape.H for case in found if case.group == "odd"} == {65, 100, 257}
    assert all(max(Counter(shapes.GROUPS[name]()).values()) == 1 for name in shapes.GROUPS)
    assert {case.group for case in found if case.gflop > shapes.MAX_GFLOP} == {"deepbench"}
    some = shapes.cases(["small"], ["ragged"], ["float64"])
    assert some
    assert all(case.shape.ragged and case.dtype == "float64" for case in some)


# ---------------------------------------------------------------------------- answers

EVERY = shapes.cases(["small"], shapes.KINDS, shapes.ITEMSIZE)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_our_answers_are_right(case: Case) -> None:
    posed = Problem(case)
    for way in ours.variants(case):
        ours.candidate(posed, "numpy", way).check()


# In a process of its own: some libraries' threads and settings would stay for the other tests.
CHECK_A_PEER = """
import sys
from fastrnn.cli.bench import registry, shapes
from fastrnn.cli.bench.problem import Problem

peer = sys.argv[1]
small = [c for c in shapes.cases(["small"], shapes.KINDS, ["float32"]) if c.shape.T < 100]
able = [case for case in small if registry.why_not(peer, case) is None]
for case in able:
    registry.candidate(peer, "", Problem(case), 1).check()
print(len(able))
"""


@pytest.mark.parametrize("peer", registry.LIBRARIES)
def test_a_peers_answers_are_right(peer: str) -> None:
    if not all(find_spec(need) for need in registry.LIBRARIES[peer]):
        pytest.skip(f"{peer} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CHECK_A_PEER, peer], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= 9


def test_an_answer_of_zeros_can_be_right() -> None:
    posed = Problem(Case("", Shape("gru", 1, 2, 3, 4), "training", "float32"))
    assert not posed.reference["weight_hh_l0"].any()
    ours.candidate(posed, "numpy", "").check()


def test_a_wrong_answer_stops_before_anything_is_timed() -> None:
    posed, runs = Problem(CASE), []
    y = posed.reference["y"].copy()
    right = Candidate("abacus", "peer", posed, lambda: runs.append("right"), lambda: {"y": y})
    wrong = replace(right, name="slide rule", answer=lambda: {"y": y + abs(y).max() / 2})
    right.check()
    with pytest.raises(WrongAnswer, match=r"slide rule is wrong at .*: y differs by 5\.0e-01"):
        measure.check([right, wrong])
    with pytest.raises(WrongAnswer, match="shape"):
        replace(right, answer=lambda: {"y": y[:1]}).check()
    with pytest.raises(WrongAnswer, match="nan"):
        replace(right, answer=lambda: {"y": y * np.nan}).check()
    assert runs == []


def test_a_peer_that_fails_is_left_out_with_the_reason() -> None:
    def fail() -> Any:
        raise MemoryError("too large for an abacus")

    row = ours.candidate(Problem(CASE), "numpy", "")
    failing = replace(row, name="abacus", role="peer", answer=fail)
    assert measure.check([row, failing]) == ([row], {"abacus": "failed: too large for an abacus"})
    with pytest.raises(MemoryError):
        measure.check([replace(failing, role="ours")])


def test_a_peer_too_coarse_in_bfloat16_is_left_out() -> None:
    posed = Problem(replace(CASE, dtype="bfloat16"))
    row = ours.candidate(posed, "numpy", "")
    coarse = replace(
        row, name="abacus", role="peer", answer=lambda: {"y": posed.reference["y"] + 1}
    )
    found, failed = measure.check([row, coarse])
    assert found == [row]
    assert failed["abacus"].startswith("abacus is wrong")
    with pytest.raises(WrongAnswer):
        measure.check([replace(coarse, role="ours")])


# ---------------------------------------------------------------------------- measuring


def test_candidates_take_turns() -> None:
    rounds = list(measure.turns("abc", 12))
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert Counter(order[0] for order in rounds) == Counter(order[-1] for order in rounds)
    followed = Counter(pair for order in rounds for pair in pairwise(order))
    assert len(followed) == 6
    assert set(followed.values()) == {4}


def test_every_candidate_has_a_sample_in_each_round() -> None:
    found, _ = registry.candidates(Problem(CASE), ("numpy",), (), 1)
    samples = measure.measure(found, measure.Effort(4, 60.0))
    assert {name: len(taken) for name, taken in samples.items()} == {"numpy": 4, "numpy frozen": 4}
    assert all(0 < sample < 1 for taken in samples.values() for sample in taken)
    assert len(measure.measure(found, measure.Effort(9, 0.0))["numpy"]) == 3  # no time, still three


def test_threads_that_still_spin_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [0.0, 4e-3, 4e-3, 9e-3, 9e-3, 9.5e-3, 9.5e-3, 9.5e-3]  # two looks at work, then none
    monkeypatch.setattr(measure.time, "process_time", lambda: busy.pop(0))
    runs: list[int] = []
    measure._settle(lambda: runs.append(len(busy)), 2, 3)
    assert runs == [2, 2, 2]
    measure._settle(lambda: None, 1, 1)  # one thread: nobody else is there
    assert len(busy) == 2


def test_the_peaks_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_SIZES", [2**12, 2**14])
    monkeypatch.setattr(peaks, "_SECONDS", 1e-4)
    found = [peaks.measure(2, ("float32", "float64"))]
    monkeypatch.setattr(backends, "why_not", lambda name: "there is no compiler")
    found.append(peaks.measure(1, ("float64",)))
    assert "NumPy" in found[1].source
    for each in found:
        assert set(each.gflops) == {"float32", "float64"}
        assert all(rate > 0 for rate in [*each.gflops.values(), *dict(each.bandwidth).values()])


@pytest.mark.parametrize(("bits", "dtype"), [(32, np.float32), (64, np.float64)])
def test_the_extensions_loops_do_what_they_count(bits: int, dtype: Any) -> None:
    core: Any = pytest.importorskip("fastrnn._core")
    loop, read = getattr(core, f"fma_loop{bits}"), getattr(core, f"read_sum{bits}")
    assert loop(0) == 0
    assert loop(7) == 7 * loop(1) > 0
    for n in (0, 1, 7, 128, 1000):
        x = np.arange(n, dtype=dtype)
        assert read(x, 1) == x.sum()
        assert read(x, 3) == 3 * x.sum()


def test_a_roof_is_the_lower_of_two_peaks() -> None:
    these = peaks.Peaks("", {"float32": 100.0}, [(1000, 50.0), (4000, 10.0)])
    assert these.gbytes(10) == these.gbytes(1000) == 50
    assert these.gbytes(2000) == pytest.approx(30)  # half-way, in factors
    assert these.gbytes(4000) == these.gbytes(9999) == 10
    assert these.roof("float32", flops=8, nbytes=4, working_set=10) == 100
    assert these.roof("float32", flops=4, nbytes=4, working_set=8000) == 10
    assert these.roof("float64", 1, 1, 1) is None
    other = peaks.Peaks("", {"float32": 90.0}, [(1000, 60.0), (4000, 9.0)])
    best = peaks.Peaks("", {"float32": 100.0}, [(1000, 60.0), (4000, 10.0)])
    assert these.best(other) == other.best(these) == best


@pytest.mark.skipif(memory.why_not() is not None, reason="Linux has what it takes")
def test_memory_is_that_of_the_run_alone() -> None:
    case = replace(CASE, shape=Shape("gru", 100, 32, 64, 64), mode="memory")
    row = ours.candidate(Problem(case), "numpy", "")
    (nbytes,) = memory.measure(case, row, ("numpy",), 1, 1)
    tape = memory.tape_bytes(Problem(case), "numpy")
    assert tape < nbytes < 10 * tape
    with pytest.raises(WrongAnswer, match="memory of nobody"):
        memory.measure(case, replace(row, name="nobody"), ("numpy",), 1, 1)


# ---------------------------------------------------------------------------- where the time goes


def line(seconds: float, symbol: str, file: str = "/x/_core.cpython-311.so") -> str:
    return f" 14594.{round(seconds * 1e6):06}:      7f5a48435c51 {symbol} ({file})"


def test_samples_are_counted_by_the_part_that_ran() -> None:
    second = 1 / profile._RATE
    names = [
        "fastrnn::(anonymous namespace)::Tile<fastrnn::Vec<float>, 3, 1, 4, false>::run",
        "fastrnn::(anonymous namespace)::ForwardEpilogue<fastrnn::Vec<float>, Lstm<false>>::call",
        "fastrnn::Barrier::wait",
        "fastrnn::ForwardWeights<float>::pack",
        "fastrnn::ForwardPass<float>::step",
        "pybind11::cpp_function::dispatcher",
    ]
    lines = [line(second * k, name) for k, name in enumerate(names)]
    lines.append(line(second * 6, "_PyEval_EvalFrameDefault", "/usr/bin/python3.11"))
    lines.append(line(second * 7, "__memmove_avx_unaligned_erms", "/usr/lib/libc.so.6"))
    lines.append(line(second * 10, names[0]))  # two clock ticks without a CPU
    lines += ["", "no sample"]
    found = profile.shares(lines, 1)
    assert tuple(found) == profile.PARTS
    expected = {"products": 2, "cell": 1, "packing": 1, "waiting": 2, "Python": 2, "rest": 2}
    assert {name: round(10 * share) for name, share in found.items()} == expected
    assert sum(profile.shares(lines, 2).values()) == pytest.approx(1)
    assert profile.shares(lines, 2)["waiting"] == pytest.approx(0.6, abs=0.01)  # one never ran
    assert profile.shares([], 1) == {}
    stripped = [line(second * k, "[unknown]") for k in range(9)]
    assert profile.shares(stripped, 1) == {}


def test_every_part_has_functions_in_the_extension() -> None:
    """A function that is renamed in csrc/ must be renamed there too."""
    core: Any = pytest.importorskip("fastrnn._core")
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    done = subprocess.run(["nm", "-C", core.__file__], capture_output=True, text=True, check=True)
    names = [text.split(maxsplit=2)[-1] for text in done.stdout.splitlines() if "fastrnn::" in text]
    if not names:
        pytest.skip("the extension was stripped")
    found = Counter(profile.part(name, True) for name in names)
    assert set(found) == set(profile.PARTS)


def test_a_real_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastrnn._core")
    if profile.why_not() is not None:
        pytest.skip(str(profile.why_not()))
    monkeypatch.setattr(profile, "_SECONDS", 1.0)  # on a busy machine, too, some hundred samples
    row = registry.candidate("cpu", "frozen", Problem(replace(CASE, shape=LARGER)), 1)
    found = profile.measure(row.run, 1)
    assert sum(found.values()) == pytest.approx(1)
    assert found["products"] > found["cell"] > 0
    assert found["packing"] < found["products"] / 9


def test_perf_that_gives_up_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, None, [line(0, "fastrnn::Barrier::wait")], None, None, None])
    monkeypatch.setattr(profile, "_sample", lambda run, count: next(answers))
    assert profile.measure(lambda: None, 1)["waiting"] == 1
    assert profile.measure(lambda: None, 1) == {}


def test_where_the_time_went_is_a_line_for_each_shape() -> None:
    found = made(cpu=[1e-3, 2e-3])
    share = dict.fromkeys(profile.PARTS, 0.1) | {"products": 0.5}
    found = replace(found, results=[replace(found.results[0], where=share)])
    for text in (markdown.write(found), html.write(found)):
        assert "Where the time went" in text
        assert "not known" not in text.partition("Where the time went is")[2]
    head, (cells,) = figures.profile(found.results)
    assert head[2:] == list(profile.PARTS)
    assert cells == [str(TINY), "cpu", "50%", *["10%"] * 5]
    unknown = replace(found, profile="Linux's perf is not installed", results=[])
    for text in (markdown.write(unknown), html.write(unknown)):
        assert "not known: Linux" in text


def test_without_perf_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    profile.why_not.cache_clear()
    monkeypatch.setattr(profile.shutil, "which", lambda name: None)
    assert profile.why_not() == "Linux's perf is not installed"
    profile.why_not.cache_clear()


# ---------------------------------------------------------------------------- the sweep


def test_a_dip_is_below_a_smaller_neighbour() -> None:
    gflops = np.array([[10.0, 20.0, 30.0], [12.0, 15.0, 31.0], [9.7, 20.0, 24.0]])
    found = {(dip.B, dip.H): dip for dip in sweep.suspects("gru", [1, 2, 3], [16, 24, 32], gflops)}
    assert set(found) == {(2, 24), (3, 32)}  # growing with B is no dip, nor 9.7 beside 12
    assert found[2, 24].neighbour == "H=16"
    assert found[2, 24].loss == pytest.approx(0.25)
    assert (found[3, 32].neighbour, found[3, 32].neighbours_gflops) == ("H=24", 31.0)


def test_a_dip_is_measured_again_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Case] = []

    def gflops(layer: Any, case: Case) -> float:
        taken.append(case)
        slow = 10.0 if len(taken) < 5 else 1.0  # the machine's speed changes meanwhile
        return slow * (70.0 if case.shape.B == 3 else 80.0)

    monkeypatch.setattr(sweep, "_gflops", gflops)
    dip = sweep.confirmed(sweep.Dip("rnn", 3, 16, 1.0, "B=2", 9.0), "inference", "float32")
    assert [case.shape.B for case in taken] == [3, 2] * 5
    assert dip.loss == pytest.approx(1 / 8)
    dip = sweep.confirmed(sweep.Dip("rnn", 3, 24, 1.0, "H=16", 9.0), "training", "float64")
    assert {(case.shape.B, case.shape.H) for case in taken[10:]} == {(3, 24), (3, 16)}


@pytest.mark.skipif(backends.why_not("cpu") is not None, reason="sweeps the extension")
def test_the_sweep_writes_reports_that_name_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "QUICK", ([1, 2], [16, 24]))
    monkeypatch.setattr(sweep, "_SAMPLE", 1e-5)
    paths = [tmp_path / f"sweep.{kind}" for kind in ("md", "svg", "json")]
    words = ["bench", "sweep", "--quick", "--threads", "1", "--mode", "training"]
    assert main([*words, *(f"--report={path}" for path in paths)]) == 0
    isa = fastrnn._core.isa()
    out = capsys.readouterr().out
    assert f", {isa}, 1 thread\n" in out
    written = [path.read_text(encoding="utf-8") for path in paths]
    assert f"- instruction set of fastrnn: {isa}\n" in written[0]
    assert isa in "".join(ElementTree.fromstring(written[1]).itertext())
    found = json.loads(written[2])
    assert found["machine"]["instruction set of fastrnn"] == isa
    assert np.array(found["gflops"]["lstm"]).shape == (2, 2)
    assert np.array(found["gflops"]["gru"]).min() > 0
    assert isinstance(found["dips"], list)
    again = _parser().parse_args(found["command"].split()[1:])
    assert (again.quick, again.mode, again.cell) == (True, "training", ["lstm", "gru"])
    assert main(["bench", "sweep", "--report", "sweep.txt"]) == 2
    assert "must end in one of .md, .svg, .json" in capsys.readouterr().err


# ---------------------------------------------------------------------------- reports


def test_the_ratio_is_taken_in_each_round() -> None:
    # The second round was slow for both: its ratio is like the others.
    (result,) = made(cpu=[1.0, 8.0, 2.0], SLOW=[9.0, 90.0, 9.0], FAST=[2.0, 16.0, 6.0]).results
    assert result.best_peer is not None
    assert result.best_peer.name == "fast"
    assert result.ratio(result.best) == Spread(2.0, 2.0, 2.5)
    (alone,) = made(cpu=[1.0]).results
    assert alone.ratio(alone.best) is None
    assert report.spread([4.0]) == Spread(4.0, 4.0, 4.0)


def test_ragged_is_compared_with_dense() -> None:
    rows = [Row("cpu", "ours", [3.0, 3.0]), Row("cpu dense", "baseline", [2.0, 2.0])]
    result = Result(replace(CASE, shape=replace(TINY, ragged=True)), "seconds", rows)
    assert result.best.name == "cpu"
    assert result.over_dense == Spread(1.5, 1.5, 1.5)


def test_summary_is_the_geometric_mean_and_the_least() -> None:
    results = [*made(cpu=[1.0], TORCH=[8.0]).results, *made(cpu=[4.0], TORCH=[2.0]).results]
    assert report.summary(results) == {"cpu": (pytest.approx(2.0), 0.5)}


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    before = made(cpu=[1.0, 2.0], TORCH=[3.0, 4.0])
    report.write_json(tmp_path / "a.json", before)
    assert report.read_json(tmp_path / "a.json") == before
    for text in ("[]", "{}", '{"format": 0}', "no JSON"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ValueError, match=r"format|Expecting"):
            report.read_json(tmp_path / "b.json")


class Page(HTMLParser):
    """Checks that every element is closed, and collects what a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.outside: list[str] = []
        self.pictures: list[ElementTree.Element] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        for name, value in attrs:
            if name in ("src", "href", "data", "action") and value is not None:
                kind, _, data = value.partition("data:image/svg+xml;base64,")
                if kind:
                    self.outside.append(value)
                else:
                    self.pictures.append(ElementTree.fromstring(base64.b64decode(data)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("with_peers", [True, False])
def test_html_is_well_formed_and_needs_nothing_else(with_peers: bool) -> None:
    found = made(cpu=[1e-3, 2e-3], **({"TORCH": [3e-3, 4e-3]} if with_peers else {}))
    text = html.write(found)
    page = Page(text)
    assert page.open == []
    assert page.outside == []
    assert page.seen["img"] == len(page.pictures) == 1 + with_peers
    assert not {"script", "link", "iframe"} & set(page.seen)
    assert not {"url(", "@import", "http"} & set(re.findall(r"url\(|@import|http", text))
    assert "A &amp; B &lt;" in text
    for word in ("openvino does not take part: no training", "not installed", "lstm: too long"):
        assert word in text
    for cell in figures.table(found.results, found.peaks)[1][0]:
        assert cell in text
    assert ("peer's figure over ours</h2>" in text) == with_peers
    assert ("geometric mean" in text) == with_peers
    drawn = "".join(page.pictures[0].itertext())
    assert "float32 peak" in drawn
    assert "reading 1000 B" in drawn


@pytest.mark.parametrize("with_peers", [True, False])
def test_a_picture_of_the_ratios(with_peers: bool) -> None:
    found = made(cpu=[1e-3, 2e-3], **({"TORCH": [3e-3, 4e-3]} if with_peers else {}))
    drawn = plots.write(found)
    root = ElementTree.fromstring(drawn)
    words = "".join(root.itertext())
    assert ("2.50" in words) == with_peers
    assert (str(TINY) in words) == with_peers
    assert root.get("viewBox")
    assert plots.write(found) == drawn  # the same figures, the same bytes


def test_markdown_has_the_same_tables() -> None:
    found = made(cpu=[1e-3, 2e-3], TORCH=[3e-3, 4e-3])
    text = markdown.write(found)
    head, (line,) = figures.table(found.results, found.peaks)
    assert len(head) == len(line)
    assert all(cell in text for cell in line)
    assert "2.50 [2.25, 2.75]" in text
    assert "## small: inference, float32" in text
    assert "geometric mean 2.50" in text


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1.5e-6, "seconds", "1.5 µs"),
        (0.25, "seconds", "250 ms"),
        (12, "seconds", "12 s"),
        (2e-10, "seconds", "0.2 ns"),
        (3 * 2**20, "bytes", "3 MB"),
    ],
)
def test_amounts_in_words(value: float, unit: str, words: str) -> None:
    assert figures.amount(value, unit) == words


# ---------------------------------------------------------------------------- the command


@pytest.mark.usefixtures("tiny")
def test_the_command_measures_and_writes_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"r.{kind}" for kind in ("html", "md", "svg", "json")]
    words = ["bench", "--quick", "--threads", "1", "--backends", "numpy"]
    assert main([*words, *(f"--report={path}" for path in paths)]) == 0
    out = capsys.readouterr().out
    found = report.read_json(paths[3])
    assert [result.case.mode for result in found.results] == ["inference", "training", "step"]
    assert [row.name for row in found.results[0].rows] == ["numpy", "numpy frozen"]
    (step,) = found.results[2].rows
    assert step.p99 is not None
    assert step.p99 >= step.median
    assert "lstm T3 B2 I5 H4" in out
    assert "(p99" in out
    assert paths[1].read_text(encoding="utf-8").startswith("# fastrnn bench")
    assert Page(paths[0].read_text(encoding="utf-8")).open == []
    # the command that the report names asks for the same
    again = _parser().parse_args(found.command.split()[1:])
    assert again.report == [str(path) for path in paths]
    assert (again.quick, again.threads, again.backends) == (True, 1, ["numpy"])
    assert again.profile
    assert found.profile == "not here"
    assert found.machine["instruction set of fastrnn"] in paths[2].read_text(encoding="utf-8")


@pytest.mark.usefixtures("tiny")
def test_a_missing_peer_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    path = tmp_path / "r.json"
    words = ["bench", "--quick", "--peers", "--backends", "numpy", "--modes", "training"]
    assert main([*words, "--report", str(path)]) == 0
    listed = report.read_json(path).peers
    assert set(listed) == set(registry.LIBRARIES)
    assert listed["openvino"].startswith("openvino and onnx not installed")


def test_a_peer_that_does_not_load_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libjax.so: no such file")

    monkeypatch.setattr(registry, "find_spec", lambda name: "there")
    monkeypatch.setattr(registry, "import_module", broken)
    assert registry.missing("jax") == "installed, but does not load: libjax.so: no such file"


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_run_reports_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure_steps", interrupt)
    path = tmp_path / "r.json"
    assert main(["bench", "--quick", "--backends", "numpy", "--report", str(path)]) == 130
    found = report.read_json(path)
    assert len(found.results) == 2
    assert found.left_out == {"rnn T4 B1 I3 H2 step float32": "stopped before"}


@pytest.mark.usefixtures("tiny")
def test_shapes_that_take_too_long_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    words = ["bench", "--quick", "--backends", "numpy", "--max-gflop", "1e-6"]
    assert main([*words, "--report", str(path)]) == 0
    found = report.read_json(path)
    assert [str(result.case.shape) for result in found.results] == ["rnn T4 B1 I3 H2"]
    assert set(found.left_out.values()) == {
        "one run takes 1.73e-06 GFLOP, over --max-gflop",
        "one run takes 5.18e-06 GFLOP, over --max-gflop",
    }
    assert _parser().parse_args(found.command.split()[1:]).max_gflop == 1e-6


@pytest.mark.usefixtures("tiny")
def test_a_wrong_answer_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(problem.TOLERANCES, "float32", 0.0)
    monkeypatch.setattr(measure, "measure", None)  # nothing is timed
    assert main(["bench", "--quick", "--backends", "numpy"]) == 1
    assert "numpy is wrong at lstm T3 B2 I5 H4 inference float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--report", "figures.txt"], r"must end in one of .html, .md, .svg, .json"),
        (["--report", "no/such/folder/r.md"], "No such file"),
        (["--backends", "abacus"], "abacus"),
        (["--groups", "streaming", "--modes", "training"], "no shape"),
    ],
)
def test_what_cannot_be_done_is_said_before_measuring(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_imports_no_peer_that_is_not_asked_for() -> None:
    code = "import sys, fastrnn.cli.bench.command; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "fastrnn.cli.bench.registry" in loaded
    assert not {"torch", "onnx", "onnxruntime", "openvino", "jax"} & set(loaded)


# ---------------------------------------------------------------------------- comparing


@pytest.fixture(scope="module")
def compare() -> Any:
    return runpy.run_path(str(ROOT / "bench" / "compare.py"))["main"]


def pair(tmp_path: Path, old: Report, new: Report) -> list[str]:
    for name, found in (("old", old), ("new", new)):
        report.write_json(tmp_path / f"{name}.json", found)
    return [str(tmp_path / "old.json"), str(tmp_path / "new.json")]


def test_compare_fails_on_a_loss_beyond_the_threshold(
    tmp_path: Path, compare: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    files = pair(tmp_path, made(cpu=[1.0]), made(cpu=[1.2]))
    assert compare(files) == 1
    shown = capsys.readouterr().out
    assert "beyond the threshold" in shown
    assert 'old: A & B <"C">, not known, not known threads\n' in shown
    assert compare([*files, "--threshold", "1.3"]) == 0
    assert compare(files[::-1]) == 0


def test_compare_takes_ratios_where_there_are_peers(tmp_path: Path, compare: Any) -> None:
    old, slower = made(cpu=[1.0], TORCH=[2.0]), made(cpu=[3.0], TORCH=[6.0])
    assert compare(pair(tmp_path, old, slower)) == 0  # the machine was slower
    assert compare(pair(tmp_path, old, made(cpu=[1.0], TORCH=[1.5]))) == 1


def test_compare_needs_something_to_compare(
    tmp_path: Path, compare: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(pair(tmp_path, made(cpu=[1.0]), made(numba=[1.0]))) == 2
    assert compare([str(tmp_path / "old.json"), str(tmp_path / "none.json")]) == 2
    (tmp_path / "new.json").write_text('{"format": 1}')
    assert compare([str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 2
    assert capsys.readouterr().err.count("compare: ") == 3


def test_the_model_of_a_step_on_many_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    scaling = runpy.run_path(str(ROOT / "bench" / "scaling.py"))
    rows, T, H, I = 64, scaling["T"], scaling["H"], scaling["I"]
    layer = fastrnn.LSTM(I, H)
    assert scaling["vector_bytes"]() == 8 * (layer.num_params + 6)
    case = Case("", Shape("lstm", T, 1, I, H), "training", "float32")
    assert scaling["flops"]() == case.flops
    model = scaling["Model"](1e-3, 5e10, 2e-3, latency=1e-5, bandwidth=1e9, cores=2)
    assert model.all_reduce(1) == 0
    assert model.all_reduce(8) == pytest.approx(6e-5 + 1.75 * scaling["vector_bytes"]() / 1e9)
    computing = 1e-3 + case.flops * 16 / 5e10 + 2e-3
    assert model.step(4, rows) == pytest.approx(2 * computing + model.all_reduce(4))
    nodes = ["1", "2", "4", "8", "64", "512"]
    scaling["predict"](replace(model, cores=1024))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "ms" in line] == nodes * 2


def test_growth_draws_every_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "growth.svg"
    monkeypatch.setattr("sys.argv", ["growth.py", str(picture), "--quick"])
    runpy.run_path(str(ROOT / "bench" / "growth.py"))["main"]()
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()] == [
        f"{axis} {mode}"
        for axis in ("T", "B", "H", "layers", "threads")
        for mode in ("inference", "training")
    ]
    assert "<svg" in picture.read_text(encoding="utf-8")
