"""What bench/gpu_check.py has found, in a few lines and as tables for docs/gpu.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Content = dict[str, Any]
PRECISIONS = ("float32", "TF32", "bfloat16", "float16")


def records(content: Content, phase: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = content["phases"].get(phase, {}).get("records", [])
    return found


def wrong(content: Content) -> list[dict[str, Any]]:
    """All records that say that something is not as it should be."""
    return [
        {"phase": phase, **record}
        for phase in content["phases"]
        for record in records(content, phase)
        if record.get("ok") is False
    ]


def all_well(content: Content) -> bool:
    return not wrong(content) and all(
        phase["status"] == "ended" for phase in content["phases"].values()
    )


def device(content: Content) -> str:
    names = [each["device"] for each in records(content, "probe") if "device" in each]
    return names[0] if names else "an unknown device"


def speeds(content: Content) -> dict[tuple[Any, ...], dict[tuple[str, str], dict[str, float]]]:
    """(kind, T, H, B) -> (who, precision) -> what -> microseconds a step; of ours as chosen."""
    found: dict[tuple[Any, ...], dict[tuple[str, str], dict[str, float]]] = {}
    for record in records(content, "speed"):
        if "us" not in record:
            continue
        shape = tuple(record[name] for name in ("kind", "T", "H", "B"))
        who = record["who"], record["precision"]
        # the steps were measured last, and are not what a call takes unless nothing else fits
        found.setdefault(shape, {}).setdefault(who, {}).setdefault(record["what"], record["us"])
    return found


def summary(content: Content) -> Iterator[str]:
    """Lines for the terminal."""
    yield f"{device(content)}, {content['started']}"
    for name, phase in content["phases"].items():
        yield f"  {name:12} {phase['status']}, {len(phase['records'])} records"
    bad = wrong(content)
    yield f"correctness: {len(records(content, 'correctness'))} cases, {len(bad)} wrong in all"
    for record in bad[:10]:
        yield f"  {record}"
    found = speeds(content)
    if found:
        yield "microseconds a step, forward | forward and backward, ours : torch's"
    for (kind, T, H, B), times in list(found.items())[:12]:
        cells = [
            f"{precision} {pair(times, precision, 'forward')} | {pair(times, precision, 'both')}"
            for precision in PRECISIONS
            if any(who[1] == precision for who in times)
        ]
        yield f"  {kind:4} T={T} H={H} B={B}  " + "; ".join(cells)


def pair(times: dict[tuple[str, str], dict[str, float]], precision: str, what: str) -> str:
    numbers = [times.get((who, precision), {}).get(what) for who in ("fastrnn", "torch")]
    return " : ".join("-" if us is None else f"{us:.2f}" for us in numbers)


def markdown(content: Content) -> Iterator[str]:
    """The text of docs/gpu.md between its marks."""
    if content["emulated"]:
        yield "From a dry run on the emulator, whose times say nothing.\n"
    probe = {k: v for record in records(content, "probe") for k, v in record.items()}
    versions = [f"{name} {probe[name]}" for name in ("cupy", "torch", "cuDNN") if probe.get(name)]
    day = content["started"][:10]
    yield f"Measured on one {device(content)} on {day}, {', '.join(versions)}.\n"
    checked = records(content, "correctness")
    bad = [record for record in checked if record.get("ok") is False]
    yield f"{len(checked)} cases against NumPy in float64 and torch, {len(bad)} of them wrong.\n"
    for what, words in (("forward", "Forward"), ("both", "Forward and backward")):
        yield f"{words}, microseconds a step, fastrnn : torch (cuDNN):\n"
        yield "| cell | T | H | B | " + " | ".join(PRECISIONS) + " |"
        yield "| --- | --- | --- | --- |" + " --- |" * len(PRECISIONS)
        for shape, times in speeds(content).items():
            cells = [pair(times, precision, what) for precision in PRECISIONS]
            yield "| " + " | ".join(map(str, (*shape, *cells))) + " |"
        yield ""
