"""Choices by time: what is measured, kept, and looked up again. The timer is one of ours."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from cases import close, run
from device import DeviceCase, up

import fastrnn
import fastrnn.backends
from fastrnn.backends.cuda import compile, persistent, tune
from fastrnn.backends.cuda.launch import Launcher
from fastrnn.cli import main

F4 = np.dtype(np.float32)
FORWARD, BACKWARD = "persistent_forward", "persistent_backward"


@pytest.fixture(autouse=True)
def timed(device: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> dict[str, float]:
    """Microseconds a step of each algorithm, which tests may set, or 100. An empty cache."""
    times: dict[str, float] = {}

    def time(self: Any, work: Any) -> float:
        work()
        T = 8
        return T * times.get(str(tune._forced.get()), 100.0)

    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(type(device), "time", time)
    monkeypatch.setattr(persistent, "THREADS", 64)
    monkeypatch.setattr(tune, "_WARM_UP", 0)
    monkeypatch.setattr(tune, "_REPEATS", 1)
    device.multiprocessors = 132
    return times


def layer() -> Any:
    return fastrnn.LSTM(4, 20, rng=0, backend="cuda")


def find(B: int = 10) -> list[tune.Found]:
    backend: Any = fastrnn.backends.get("cuda")
    return list(backend.find_fastest(layer(), 8, B))


def planned(device: Any, B: int, kernel: str = FORWARD) -> str:
    launch = Launcher(device, F4, "lstm")
    plan = persistent.plan(launch, kernel, 8, B, 4, 20)
    return tune.STEPS if plan is None else plan.tiling.label


def test_the_fastest_is_taken_from_then_on(device: Any, timed: dict[str, float]) -> None:
    launch = Launcher(device, F4, "lstm")
    labels = [plan.tiling.label for plan in persistent.candidates(launch, FORWARD, 10, 4, 20)][:8]
    assert len(set(labels)) == len(labels) > 3
    assert planned(device, 10) == labels[0]  # by estimate
    timed[labels[2]], timed[tune.STEPS] = 3.0, 5.0
    forward, backward = find()
    assert (forward.kernel, forward.estimated, forward.algorithm) == (FORWARD, labels[0], labels[2])
    assert forward.times == {**dict.fromkeys(labels, 100.0), labels[2]: 3.0, tune.STEPS: 5.0}
    assert backward.kernel == BACKWARD
    assert planned(device, 10) == labels[2]
    assert planned(device, 7) != labels[2]  # another size of batch
    case = DeviceCase("lstm", (8, 10, 4, 20), dtype="float32")
    close(run(case.layer(), case.call()), run(case.host_layer(), case.call()), "float32")


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_whatever_is_chosen_is_right(device: Any, kind: str) -> None:
    case = DeviceCase(kind, (5, 10, 4, 20), dtype="float32", resets="some", lengths="positive")
    layer, call = case.layer(), case.call()
    launch, gates = Launcher(device, F4, kind), 4 if kind == "lstm" else 3
    labels = {
        plan.tiling.label
        for kernel in (FORWARD, BACKWARD)
        for plan in persistent.candidates(launch, kernel, 10, gates, 20)
    }
    with tune.forced(tune.STEPS):
        want = run(layer, call)
    for label in labels:
        device.launches.clear()
        with tune.forced(label):
            close(run(layer, call), want, "float32")
        assert any(name.startswith("persistent") for name in device.launches), label


def test_every_exchange_is_timed(device: Any, timed: dict[str, float]) -> None:
    launch = Launcher(device, F4, "lstm")
    for found in find():
        exchanges = {name.rpartition(", ")[2] for name in found.times}
        assert exchanges == {*persistent.EXCHANGES, tune.STEPS}
    work = persistent.work_of(FORWARD, 16, 4, 512, 4)
    tilings = persistent.tilings(
        work, persistent.TF32, persistent.DeviceLimits(256, 132, 227 * 1024, 8)
    )
    for _, alike in itertools.groupby(
        tilings, lambda tiling: (tiling.units, tiling.rows, tiling.columns)
    ):
        first, *rest = alike
        exchanges = [first.exchange, *(tiling.exchange for tiling in rest)]
        assert {*exchanges} - {persistent.CLUSTER} == {persistent.COUNTER, persistent.FLAGS}
        assert len({*exchanges}) == len(exchanges)
        assert all(first.time < tiling.time for tiling in rest)
    for exchange in persistent.EXCHANGES:
        with tune.forced(exchange):
            plan = persistent.plan(launch, FORWARD, 8, 10, 4, 20)
        assert plan is not None
        assert plan.tiling.exchange == exchange
    with tune.forced(persistent.FLAGS):  # of a block alone
        plan = persistent.plan(launch, FORWARD, 8, 10, 4, 4)
    assert plan is not None
    assert plan.tiling.exchange == persistent.COUNTER


def test_steps_can_be_the_fastest(device: Any, timed: dict[str, float]) -> None:
    timed[tune.STEPS] = 1.0
    assert [found.algorithm for found in find()] == [tune.STEPS] * 2
    assert planned(device, 10) == planned(device, 10, BACKWARD) == tune.STEPS
    device.launches.clear()
    layer()(up(np.zeros((8, 10, 4), np.float32)))
    assert "persistent_forward" not in device.launches


def test_a_launch_that_no_longer_fits_is_not_made(device: Any, timed: dict[str, float]) -> None:
    find()
    device.multiprocessors = 0
    assert planned(device, 10) == tune.STEPS


def test_each_pass_is_chosen_by_itself(device: Any, timed: dict[str, float]) -> None:
    launch = Launcher(device, F4, "lstm")
    tune.keep(tune.key(launch, BACKWARD, 10, 20), tune.STEPS, {tune.STEPS: 1.0})
    assert planned(device, 10, BACKWARD) == tune.STEPS != planned(device, 10)


@pytest.mark.parametrize(
    ("what", "value"), [("name", "another"), ("capability", 80), ("nvrtc", (13, 1))]
)
def test_measurements_are_of_one_machine(
    device: Any, monkeypatch: pytest.MonkeyPatch, timed: dict[str, float], what: str, value: Any
) -> None:
    timed[tune.STEPS] = 1.0
    find()
    assert planned(device, 10) == tune.STEPS
    monkeypatch.setattr(type(device), what, value)
    assert planned(device, 10) != tune.STEPS


def test_measurements_are_of_one_text(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launches = [Launcher(device, F4, "lstm"), Launcher(device, np.dtype("f8"), "lstm")]
    launches += [Launcher(device, F4, "gru"), Launcher(device, F4, "lstm", precision="high")]
    keys = [tune.key(launch, FORWARD, 2, 8) for launch in launches]
    keys += [tune.key(launches[0], *rest) for rest in ((BACKWARD, 2, 8), (FORWARD, 4, 8))]
    keys += [tune.key(launches[0], FORWARD, 2, 9)]
    monkeypatch.setattr(tune.compile, "fingerprint", lambda: "changed")
    keys += [tune.key(launches[0], FORWARD, 2, 8)]
    assert len(set(keys)) == 8


def test_buckets() -> None:
    assert [tune.bucket(B) for B in (0, 1, 2, 3, 4, 5, 64, 65)] == [1, 1, 2, 4, 4, 8, 64, 128]


# ---- the file ------------------------------------------------------------------------------------


def test_what_another_process_has_added_is_kept(device: Any) -> None:
    tune.keep("mine", tune.STEPS, {})
    content = json.loads(tune.path().read_text())
    content["algorithms"]["theirs"] = {
        "algorithm": "blocks of 2 units and 8 rows, 8 at once",
        "us": {},
    }
    tune.path().write_text(json.dumps(content))
    tune.keep("mine again", tune.STEPS, {})
    assert set(json.loads(tune.path().read_text())["algorithms"]) == {
        "mine",
        "theirs",
        "mine again",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "algorithms": {}}',
        '{"format": 1, "algorithms": {"a": {"algorithm": 1}}}',
    ],
)
def test_a_damaged_file_is_said_and_not_used(device: Any, text: str) -> None:
    want = planned(device, 10)
    tune._loaded.clear()
    tune.path().parent.mkdir(parents=True, exist_ok=True)
    tune.path().write_text(text)
    with pytest.warns(UserWarning, match=r"gpu-choices\.json is not used \(.*fastrnn tune --gpu"):
        assert planned(device, 10) == want
    assert planned(device, 10) == want  # said once
    with pytest.warns(UserWarning, match="is not used"):
        find()
    assert len(json.loads(tune.path().read_text())["algorithms"]) == 2


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """The folder of what comes with the package, which is empty."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(tune, "SHIPPED", folder)
    return folder


def test_what_comes_with_the_package(device: Any, timed: dict[str, float], shipped: Any) -> None:
    """A file that one machine has made is taken on another of its kind; the user's goes before."""
    estimated = planned(device, 10)
    timed[tune.STEPS] = 1.0
    find()
    tune.path().rename(shipped / "emulated.json")
    tune._loaded.clear()
    assert planned(device, 10) == planned(device, 10, BACKWARD) == tune.STEPS != estimated
    timed[tune.STEPS] = 1000.0
    forward, _ = find()
    assert planned(device, 10) == forward.algorithm != tune.STEPS
    tune.path().unlink()
    tune._loaded.clear()
    assert planned(device, 10) == tune.STEPS


def test_what_is_found_is_added_to_what_comes_with_the_package(device: Any, shipped: Any) -> None:
    tune.keep("theirs", tune.STEPS, {})
    tune.path().rename(shipped / "a.json")
    tune.keep("mine", tune.STEPS, {})
    assert set(tune._table()) == {"theirs", "mine"}
    assert set(json.loads(tune.path().read_text())["algorithms"]) == {"mine"}


def test_the_package_brings_measurements_of_its_own_kernels_alone() -> None:
    for file in tune.SHIPPED.glob("*.json"):
        algorithms = tune._read(file)
        assert algorithms, file
        assert all(f" | {compile.fingerprint()} | " in name for name in algorithms), file


# ---- the command ---------------------------------------------------------------------------------


def test_the_command(
    device: Any, timed: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    timed[tune.STEPS] = 2.0
    options = ["--cell", "gru", "rnn", "--hidden", "4", "--batch", "1", "2", "--steps", "8"]
    assert main(["tune", "--gpu", *options, "--dtype", "float32", "float64"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + 16 + 2
    assert shown[1].split()[:6] == ["gru", "4", "1", "float32", "highest", "forward"]
    assert (
        " steps: 2.00 us a step, not blocks of 4 units and 8 rows, 8 at once, counter: 100.00"
        in shown[1]
    )
    assert shown[-1] == f"kept in {tune.path()}"
    assert len(json.loads(tune.path().read_text())["algorithms"]) == 16


def test_the_command_where_nothing_can_be_kept(
    device: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path / "file"))
    assert main(["tune", "--gpu", "--cell", "rnn", "--hidden", "4", "--batch", "1"]) == 2
    assert capsys.readouterr().err.startswith("fastrnn tune: ")


def test_the_command_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no(name: str) -> Any:
        raise RuntimeError(f'backend "{name}" cannot be used here: no GPU')

    monkeypatch.setattr(fastrnn.backends, "get", no)
    assert main(["tune", "--gpu"]) == 2
    assert capsys.readouterr().err == ('fastrnn tune: backend "cuda" cannot be used here: no GPU\n')
    with pytest.raises(SystemExit):
        main(["tune"])
    assert "--gpu" in capsys.readouterr().err
