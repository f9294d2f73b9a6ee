"""`reproducible=True` on the emulated device: the tests of the CPU's backends, run on it."""

from __future__ import annotations

import dataclasses

import pytest
import test_reproducible as cpu
from cases import Case
from device import DeviceCase

pytestmark = pytest.mark.usefixtures("device")

# A quarter of them, for each of a product's chains runs as 256 threads: both dtypes, all kinds.
CASES = [
    DeviceCase(**dataclasses.asdict(case))
    for case in cpu.CASES
    if case.sizes[0] == 7 and case.dtype == ("float32" if case.lengths else "float64")
][::2]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    "check",
    [
        cpu.test_batch_and_position,
        cpu.test_padding,
        cpu.test_chunks,
        cpu.test_inference,
        cpu.test_checkpoints,
    ],
)
def test_bits(check, case: Case) -> None:
    check("cuda", case)
