"""Results against NumPy in float64 and against torch; the same bits from run to run.

Memory that is handed out is full of NaN, so that what is read before it is written shows. A result
that moves from run to run is a race.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from . import setting

# Of the largest value, against float64: float32 as the tests have it, TF32's ten and bfloat16's
# seven bits through all steps of a sequence and back.
LOWER = {"high": 5e-3, "medium": 5e-2}
PRECISIONS = ("highest", "high", "medium")

EMULATED = (5, 3, 2, 12)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True, "layers": 2, "lengths": "zeros", "resets": "some"},
    {"resets": "often", "proj": True, "batch_first": True},
]


def records(out: Path, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    backend = setting.backend(emulated)
    device = {"device": backend._device.name}
    groups = (against_float64, every_launch, steppers, training, against_torch)
    for group in groups:
        for record in group(backend, emulated, in_time):
            yield device | record
            if not in_time():
                yield device | {
                    "case": f"{group.__name__} and what follows: out of time",
                    "ok": True,
                }
                return


def against_float64(
    backend: Any, emulated: bool, in_time: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """All cells, ragged rows and resets, all ways to run a pass, several sizes and precisions."""
    from cases import KINDS, TOLERANCE, run
    from device import DeviceCase, reference

    from fastrnn.backends.cuda import persistent, tune

    large = [EMULATED] if emulated else [(100, 16, 64, 512), (60, 64, 64, 768)]
    kinds = ("lstm",) if emulated else ("lstm", "gru", "rnn_tanh")
    cases = [
        DeviceCase(kind, size, dtype="float32") for size, kind in itertools.product(large, kinds)
    ]
    in_all_precisions = len(cases)
    if emulated:  # where each program takes seconds to compile
        cases += [
            DeviceCase(kind, EMULATED, dtype="float32", **more)
            for kind, more in zip(KINDS, itertools.cycle(OPTIONS[1:]))
            if kind.startswith("lstm") or not more.get("proj")
        ]
    else:
        cases += [
            DeviceCase(kind, size, dtype=dtype, **more)
            for size in ((7, 3, 5, 4), (50, 17, 40, 130), (50, 20, 40, 72))  # the last in clusters
            for kind, dtype, more in itertools.product(KINDS, ("float32", "float64"), OPTIONS)
            if kind.startswith("lstm") or not more.get("proj")
        ]
    for number, case in enumerate(cases):
        call = case.call()
        want = run(*reference(case, call))
        # often where rows are many: the likeliest place of a race
        runs = 1 if emulated else 20 if case.sizes[1] > 3 and number % 4 == 0 else 3
        in_one_launch = not case.proj and case.kind != "gru_reset_before"
        ways = persistent.EXCHANGES if in_one_launch else ()
        for precision, way in itertools.product(
            PRECISIONS if number < in_all_precisions else PRECISIONS[:1], (*ways, tune.STEPS)
        ):
            with tune.forced(way):
                layer = case.layer(precision=precision)
                results = []
                for _ in range(runs):
                    poison(backend.xp, emulated)
                    results.append(run(layer, call))
                with stream(backend.xp, emulated):
                    results.append(run(layer, call))
            error = worst(results[0], want)
            steady = all(
                np.array_equal(each[name], results[0][name]) for each in results for name in want
            )
            yield {
                "case": str(case),
                "precision": precision,
                "way": way,
                "error": error,
                "same bits": steady,
                "runs": len(results),
                "ok": steady and error <= LOWER.get(precision, TOLERANCE[case.dtype]["rtol"]),
            }
        if not in_time():
            return


def every_launch(
    backend: Any, emulated: bool, in_time: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """Whatever `fastrnn tune` may choose is right."""
    from cases import run
    from device import DeviceCase, reference

    from fastrnn.backends.cuda import tune

    size = EMULATED if emulated else (40, 16, 64, 512)
    kinds = ("lstm", "gru")[: 1 if emulated else 2]
    for kind, precision in itertools.product(kinds, PRECISIONS[: 1 if emulated else 3]):
        case = DeviceCase(kind, size, dtype="float32")
        layer, call = case.layer(precision=precision), case.call()
        want = run(*reference(case, call))
        for label in sorted(backend.algorithms(layer.layer, size[1])):
            with tune.forced(label):
                error = worst(run(layer, call), want)
            yield {
                "case": str(case),
                "precision": precision,
                "way": label,
                "error": error,
                "ok": error <= LOWER.get(precision, 2e-4),
            }
            if not in_time():
                return


def poison(xp: Any, emulated: bool) -> None:
    """Fill what the memory pool will hand out with NaN; the emulator's memory is so anyway."""
    if not emulated:
        blocks = [xp.full(1 << bits, xp.nan, np.float64) for bits in range(6, 22) for _ in range(4)]
        del blocks


def stream(xp: Any, emulated: bool) -> Any:
    """A stream of its own, which does not wait for the default one."""
    return nullcontext() if emulated else xp.cuda.Stream(non_blocking=True)


def worst(got: dict[str, Any], want: dict[str, Any]) -> float:
    """The largest error of all results, each by its largest value; NaN is as wrong as can be."""
    errors = [
        float(np.max(np.abs(got[name] - value), initial=0) / (1 + np.max(np.abs(value), initial=0)))
        for name, value in want.items()
    ]
    return max(error if error == error else float("inf") for error in errors)


def steppers(backend: Any, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """A stepper's graph gives what a whole sequence does, on any stream."""
    from cases import KINDS
    from device import DeviceCase, down, up

    for kind in KINDS:
        case = DeviceCase(kind, (9, 3, 5, 12), dtype="float32", layers=2)
        layer, call = case.layer().layer, case.call()
        y, _ = down(layer(up(call.x), up(call.state)))
        step = layer.stepper(3)
        step.state = up(call.state)
        x = up(call.x)
        ys = []
        for t in range(9):
            wait(backend.xp, emulated)
            with stream(backend.xp, emulated) if t % 2 else nullcontext():
                ys.append(down(step(x[t])))
        error = worst({"y": np.array(ys)}, {"y": y})
        yield {"case": f"stepper-{kind}", "error": error, "ok": error <= 2e-6}


def wait(xp: Any, emulated: bool) -> None:
    if not emulated:
        xp.cuda.Device().synchronize()


def training(backend: Any, emulated: bool, in_time: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """A few steps of training with all that stands around a layer, beside the same on the CPU."""
    import fastrnn

    xp, draw = backend.xp, np.random.default_rng(0)
    tokens = draw.integers(0, 20, (12, 4))
    targets = draw.integers(0, 20, (12, 4))
    mask = draw.random((12, 4)) < 0.9
    found = []
    for device, to in (("cpu", np.asarray), ("cuda", xp.asarray)):
        table = fastrnn.Embedding(20, 8, dtype=np.float64, rng=1).to(device)
        layer = fastrnn.GRU(8, 16, 2, dropout=0.3, dtype=np.float64, rng=2).to(device)
        head = fastrnn.Linear(16, 20, dtype=np.float64, rng=3).to(device)
        adam = fastrnn.Adam([table, layer, head], 0.01)
        losses = []
        for step in range(5):
            x, x_tape = table.forward(to(tokens))
            y, _, y_tape = layer.forward(x, rng=step)
            logits, tape = head.forward(y)
            loss, dlogits = fastrnn.softmax_cross_entropy(logits, to(targets), to(mask))
            head_grads = head.backward(tape, dlogits)
            grads = layer.backward(y_tape, head_grads.x)
            all_grads = [table.backward(x_tape, grads.x), grads, head_grads]
            fastrnn.clip_grad_norm(all_grads, 1.0)
            adam.step(all_grads)
            losses.append(float(loss))
        found.append(losses)
    error = worst({"loss": np.array(found[1])}, {"loss": np.array(found[0])})
    falls = found[1][-1] < found[1][0]
    yield {"case": "training", "error": error, "ok": error <= 1e-9 and falls}


def against_torch(
    backend: Any, emulated: bool, in_time: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """torch's own layers, and arrays that go there and back through DLPack without a copy."""
    torch = setting.torch_if_any()
    if torch is None:
        yield {"case": "DLPack and torch", "not run": "torch is not installed", "ok": True}
        return
    import oracles
    from cases import run
    from device import DeviceCase, down

    for kind, more in itertools.product(oracles.TORCH_KINDS, OPTIONS[:2]):
        more = {name: value for name, value in more.items() if name != "resets"}
        case = DeviceCase(kind, (9, 4, 3, 12), dtype="float64", **more)
        layer, call = case.layer(), case.call()
        params = {name: down(value) for name, value in layer.layer.params.items()}
        error = worst(run(layer, call), oracles.torch_nn(case, params, call))
        yield {"case": f"torch-{case}", "error": error, "ok": error <= 1e-9}
    if emulated:
        yield {"case": "DLPack", "not run": "emulated", "ok": True}
        return
    import fastrnn

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for kind in ("LSTM", "GRU"):
        layer = getattr(fastrnn, kind)(24, 40, 2, rng=0, backend="cuda")
        module = getattr(torch.nn, kind)(24, 40, 2, device="cuda")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(torch.from_dlpack(layer.params[name]))
            x = torch.randn(30, 8, 24, device="cuda")
            backend.xp.cuda.Device().synchronize()  # two libraries, two streams
            mine = backend.xp.from_dlpack(x)
            y, _ = layer(mine)
            backend.xp.cuda.Device().synchronize()
            back = torch.from_dlpack(y)
            error = float((back - module(x)[0]).abs().max())
        shared = mine.data.ptr == x.data_ptr() and back.data_ptr() == y.data.ptr
        yield {"case": f"DLPack-{kind}", "error": error, "ok": shared and error <= 1e-5}
