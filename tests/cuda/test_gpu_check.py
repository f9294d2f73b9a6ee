"""The check that needs a GPU, in a dry run without one; what becomes of a phase that goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device import up

from fastrnn.backends.cuda import compile

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))
gpu_check, gpu_table, first, primitives, table = map(
    import_module, ("gpu_check", "gpu_table", "gpu.first", "gpu.primitives", "gpu.table")
)
ONE = np.ones(1, np.uint32)


@pytest.fixture(scope="module")
def found(compiler: None, tmp_path_factory: Any) -> Any:
    """The result of a dry run."""
    out = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_check.py"), "--out", str(out), "--emulated"],
        capture_output=True,
        text=True,
    )
    logs = "".join(path.read_text() for path in sorted(out.glob("*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return json.loads((out / "gpu_check.json").read_text()) | {"printed": done.stdout}


def records(found: Any, phase: str) -> Any:
    return found["phases"][phase]["records"]


def test_every_phase_ends(found: Any) -> None:
    assert list(found["phases"]) == list(gpu_check.LIMITS)
    assert {phase["status"] for phase in found["phases"].values()} == {"ended"}
    assert "0 wrong in all" in found["printed"]
    assert found["emulated"]
    for phase in ("primitives", "correctness", "speed", "profile"):
        assert {record["device"] for record in records(found, phase)} == {"emulated"}


def test_what_is_looked_at_first(found: Any) -> None:
    """The ten lines without torch, what kernels rest on, exchanges, two streams, and changes."""
    assert next(iter(gpu_check.LIMITS)) == "first"
    assert sum(limit for _, limit in first.CHECKS.values()) <= gpu_check.LIMITS["first"] - 8
    checked = records(found, "first")
    assert all(record["ok"] for record in checked)
    ended = [record["check"] for record in checked if "status" in record]
    assert ended == list(first.CHECKS)
    assert {each["way"] for each in checked if each.get("what") == "exchange"} == {
        "counter",
        "flags",
        "cluster",
    }
    assert len([each for each in checked if each.get("what") == "two streams"]) == 2
    ways = [each["as before"] for each in checked if each.get("what") == "a step"]
    assert ways == [None, *first.BEFORE]
    named = {each.get("what") for each in checked}
    assert {"ten lines", "tensor cores", "round trip of a word", "meeting", "cluster"} <= named


@pytest.mark.parametrize("change", first.BEFORE)
def test_what_was_before_is_known_in_the_kernels_text(change: str) -> None:
    texts = [
        compile.source(compile.persistent(np.dtype("f4"), "lstm", name))
        for name in ("persistent_forward", "persistent_backward")
    ]
    for old, _ in first.BEFORE[change]:
        assert any(text.count(old) == 1 for text in texts), old


def test_a_first_check_that_goes_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """And the ones after it run."""
    script = tmp_path / "bench" / "gpu_check.py"
    script.parent.mkdir()
    script.write_text(
        PHASE + "if 'bad' in sys.argv: sys.exit(3)\nif 'slow' in sys.argv: time.sleep(99)"
    )
    monkeypatch.setattr(first, "ROOT", tmp_path)
    monkeypatch.setattr(first, "CHECKS", dict.fromkeys(("bad", "slow", "good"), (None, 9)))
    told = list(first.records(tmp_path, False, lambda: True))
    assert [(each["check"], each["status"], each["ok"]) for each in told if "status" in each] == [
        ("bad", "ended with 3", False),
        ("slow", "stopped after 9 s", False),
        ("good", "ended with 0", True),
    ]
    assert [each["n"] for each in told if "n" in each] == [1, 1, 1]
    assert [each["not run"] for each in first.records(tmp_path, True, lambda: False)] == [
        "the time is over"
    ] * 3


def test_what_is_probed_and_built(found: Any) -> None:
    probed = {name: value for each in records(found, "probe") for name, value in each.items()}
    assert probed["cuda"] == "emulated"
    assert probed["capability"] == 90
    (built,) = records(found, "build")
    assert built["ok"]
    assert "persistent" in " ".join(built["kernels"])


def test_primitives(found: Any) -> None:
    ran = [record["what"] for record in records(found, "primitives")]
    assert ran.count("meeting") == 3
    assert {
        "launch",
        "exchange",
        "tensor cores",
        "cooperative launch in a graph",
        "cluster",
    } <= set(ran)
    assert all(record["ok"] for record in records(found, "primitives"))


def test_correctness(found: Any) -> None:
    checked = records(found, "correctness")
    assert all(record["ok"] for record in checked)
    ways = {(record.get("way"), record.get("precision")) for record in checked}
    assert {("counter", "medium"), ("flags", "medium"), ("steps", "highest")} <= ways
    assert ("cluster", "medium") in ways
    names = " ".join(record["case"] for record in checked)
    assert all(word in names for word in ("stepper-gru", "training", "lstm_peephole", "DLPack"))


def test_speed(found: Any) -> None:
    measured = records(found, "speed")
    ways = {(record["kind"], record["who"], record["precision"]) for record in measured}
    for kind in ("LSTM", "GRU"):
        assert {(kind, "fastrnn", name) for name in ("float32", "TF32", "bfloat16")} <= ways
    assert all(record["us"] > 0 for record in measured)
    asked = {"chosen", "counter", "flags", "cluster", "steps"}
    assert {record["asked for"] for record in measured if record["who"] == "fastrnn"} == asked
    assert {record["way"] for record in measured if record["who"] == "fastrnn"} == {
        "persistent kernel",
        "launches at every step",
    }


# ---- what goes wrong -----------------------------------------------------------------------------

PHASE = """
import sys, time
print('{"n": 1}', flush=True)
"""


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, text: str, limit: float) -> Any:
    script = tmp_path / "phase.py"
    script.write_text(PHASE + text)
    monkeypatch.setattr(gpu_check, "__file__", str(script))
    monkeypatch.setattr(gpu_check, "MARGIN", 0.1)
    monkeypatch.setitem(gpu_check.LIMITS, "speed", limit)
    report = gpu_check.Report(tmp_path / "found.json", False)
    end = time.monotonic() + 100
    gpu_check.run_in_own_process("speed", report, tmp_path, False, end)
    found = json.loads((tmp_path / "found.json").read_text())
    return found["phases"]["speed"]


def test_a_phase_that_fails_has_its_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    phase = run(monkeypatch, tmp_path, "sys.exit('no')", 60)
    assert phase["records"] == [{"n": 1}]
    assert phase["status"] == "failed with 1, see speed.log"
    assert (tmp_path / "speed.log").read_text() == "no\n"


def test_a_phase_that_hangs_is_stopped_with_what_it_has_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    text = (
        "import subprocess; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
    )
    begin = time.monotonic()
    phase = run(monkeypatch, tmp_path, text, 3)
    assert phase["records"] == [{"n": 1}]
    assert phase["status"] == "stopped after 3 s"
    assert time.monotonic() - begin < 90  # what it has started sleeps for 99


def test_no_phase_begins_when_the_time_is_over(tmp_path: Any) -> None:
    report = gpu_check.Report(tmp_path / "found.json", False)
    gpu_check.run_in_own_process("speed", report, tmp_path, False, time.monotonic() + 5)
    assert report.content["phases"]["speed"]["status"] == "no time was left"


def test_the_limits_are_those_of_nine_minutes() -> None:
    assert sum(gpu_check.LIMITS.values()) <= gpu_check.ALTOGETHER <= 540


@pytest.mark.parametrize("factor", [1, 1.01, np.nan])
def test_an_exchange_that_goes_wrong_is_seen(
    device: Any, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    monkeypatch.setattr(
        primitives, "on_host", lambda _, a: a._host * (factor if a.dtype == "f4" else 1)
    )
    device.multiprocessors = 132
    assert primitives.exchange(device, 3, 4, 64, 3)["ok"] == (factor == 1)


def test_a_meeting_that_somebody_misses_is_seen(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primitives, "fresh", lambda device: (up(ONE * 0), up(ONE)))
    device.multiprocessors = 132
    assert not primitives.meetings(device, 2, 64, 3)["ok"]
    device.multiprocessors = 0
    assert not primitives.meetings(device, 2, 64, 3)["ok"]


@pytest.mark.parametrize("arch", ["sm_90", "sm_100", "sm_120"])
def test_clusters_compile(arch: str) -> None:
    pytest.importorskip("cupy", reason='NVRTC comes with the extra "cuda-test"')
    assert "'clusters'" in compile.report(compile.source(primitives.clusters(8)), arch)


# ---- the tables ----------------------------------------------------------------------------------


def test_the_tables(found: Any, tmp_path: Any) -> None:
    results = tmp_path / "found.json"
    results.write_text(json.dumps(found))
    command = [sys.executable, str(BENCH / "gpu_table.py"), str(results)]
    done = subprocess.run([*command, "--print"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "From a dry run on the emulator, whose times say nothing."
    assert sum(line.startswith("| LSTM | 6 | 12 | 3 |") for line in lines) == 2
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "a dry run is nothing to publish" in done.stderr


def test_the_page_has_the_marks() -> None:
    page = gpu_table.PAGE.read_text()
    changed = gpu_table.replaced(gpu_table.replaced(page, "FIRST"), "SECOND")
    assert "FIRST" not in changed
    before, _, after = changed.partition("SECOND")
    assert page.startswith(before)
    assert page.endswith(after)
    with pytest.raises(SystemExit):
        gpu_table.replaced("no marks", "one")


def test_what_is_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "emulated": False,
        "started": "2030-01-01",
        "phases": {
            "correctness": {
                "status": "ended",
                "records": [{"case": "a", "ok": False}, {"case": "b", "ok": True}],
            }
        },
    }
    lines = list(table.summary(content))
    assert "correctness: 2 cases, 1 wrong in all" in lines
    assert "'case': 'a'" in lines[-1]
    assert not table.all_well(content)
    content["phases"]["correctness"]["records"].pop(0)
    assert table.all_well(content)
    content["phases"]["correctness"]["status"] = "stopped after 3 s"
    assert not table.all_well(content)
