"""A new cell is a header, its twin in Python, and a line each where cells are listed.

Here is one from outside, h' = h / 2 + tanh(a) / 2 (leaky units: Jaeger et al. 2007, "Optimization
and applications of echo state networks with leaky-integrator neurons"), with the scalar kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEADER = """
struct Leaky {
  static constexpr int kGates = 1, kSaved = 1, kGateGrads = 1, kRecurrentGradOffset = 0;
  static constexpr bool kHasC = false, kPeephole = false, kLinearBeforeReset = false;
  static constexpr bool kResetBefore = false, kSavesH = false, kNeedsHPrev = true;
  static constexpr bool kOptions = false;
  FASTRNN_FN static constexpr int input_block(int) { return 0; }

  template <class V>
  FASTRNN_FN static void forward(Unit<V>& u) {
    u.saved[0] = tanh(u.a[0]);
    u.h = V::broadcast(0.5) * (u.h_prev + u.saved[0]);
  }

  template <class V>
  FASTRNN_FN static void backward(Unit<V>& u) {
    u.dh_direct = V::broadcast(0.5) * u.dh;
    u.dgates[0] = u.dh_direct * tanh_slope(u.saved[0]);
  }
};
"""
IN_HEADERS = '#include "cells/leaky.h"\n'
IN_ALL = "  F(leaky, Leaky) \\\n"

TWIN = """
from fastrnn.cellmath.ops import product
from fastrnn.cellmath.rnn import gradients
import numpy as np


def forward(w, pre, h, c, saved, chain):
    recurrent = product(h, w.hh.T, chain)
    saved[:, 0] = np.tanh(pre[:, 0] + (recurrent + w.b_hh[0]))
    h[...] = 0.5 * (h + saved[:, 0])


def backward(w, saved, h_before, h, c_before, c, dh, dc, dpre, chain):
    dpre[:, 0] = 0.5 * dh * (1 - saved[:, 0] ** 2)
    dh[...] = 0.5 * dh + product(dpre[:, 0].copy(), w.hh, chain)
"""
REGISTERED = """
SPEC = CellSpec("leaky", gates=("h",), has_c=False, saved=("h",))
cellmath.CELLS["leaky"] = SPEC
cellmath.MATHS["leaky"] = cellmath.CellMath(leaky.forward, leaky.backward, leaky.gradients)
"""

# In place of `runtime/dispatch.cpp` and of the losses, which would take longer to compile.
DISPATCH = """
#include "runtime/dispatch.h"
namespace pybind11 {
class module_;
}
namespace fastrnn {
extern const KernelTable scalar_table;
const KernelTable& kernels() { return scalar_table; }
std::vector<std::string> usable_isas() { return {"scalar"}; }
void bind_sequence_losses(pybind11::module_&) {}
}
"""

CHECKED = """
import importlib.util, sys
import numpy as np
import leaky
found = importlib.util.spec_from_file_location("fastrnn._core", sys.argv[1])
core = sys.modules["fastrnn._core"] = importlib.util.module_from_spec(found)
found.loader.exec_module(core)
import fastrnn
fastrnn._core = core
from fastrnn import backends, cellmath
from fastrnn.schedule import row_schedules
from fastrnn.spec import CellSpec, Numerics, OutputGradients, PassArgs, Weights
REGISTERED

def run(name, x, h0, w, rows, dy, dh):
    engine = backends.get(name)
    args = PassArgs(SPEC, Numerics(), x, h0, None, rows, False)
    packed = engine.pack(SPEC, w, backward=True, threads=1)
    y, hn, _, saved = engine.forward(packed, args, save=True, threads=1)
    grads = Weights(*(None if a is None else np.zeros_like(a) for a in w))
    douts = OutputGradients(dy, dh, None)
    dx, dh0, _ = engine.backward(packed, args, saved, douts, grads, threads=1)
    return y, hn, dx, dh0, *grads[:4]

T, B, I, H = 5, 4, 3, 6
draw = np.random.default_rng(0).normal
x, h0, dy, dh = (draw(size=s) for s in ((T, B, I), (B, H), (T, B, H), (B, H)))
w = Weights(draw(size=(H, I)), draw(size=(H, H)), draw(size=H), draw(size=H))
resets = np.zeros((T, B), bool)
resets[2, 1] = True
for lengths in (None, np.array([5, 0, 3, 1])):
    rows = row_schedules(lengths, resets, T, B)[0]
    reference, compiled = (run(name, x, h0, w, rows, dy, dh) for name in ("numpy", "cpu"))
    for want, got in zip(reference, compiled, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)

def loss(x, h0, w):
    y, hn = run("cpu", x, h0, w, rows, dy, dh)[:2]
    return np.sum(y * dy) + np.sum(hn * dh)

for at, of in ((2, x), (3, h0), (4, w.ih), (5, w.hh), (6, w.b_ih), (7, w.b_hh)):
    index = tuple(n // 2 for n in of.shape)
    was, sides = of[index], []
    for step in (1e-6, -1e-6):
        of[index] = was + step
        sides.append(loss(x, h0, w))
    of[index] = was
    slope = (sides[0] - sides[1]) / 2e-6
    np.testing.assert_allclose(compiled[at][index], slope, rtol=1e-6, atol=1e-8)
print("right")
"""


def test_a_new_cell_is_less_than_sixty_lines() -> None:
    text = (HEADER, IN_HEADERS, IN_ALL, TWIN, REGISTERED)
    assert sum(len(part.strip().splitlines()) for part in text) < 60


@pytest.mark.skipif(sys.platform != "linux", reason="it is compiled as Linux does")
def test_a_new_cell_from_outside(tmp_path: Path) -> None:
    """Beside the library's own files, none of which is changed: in its gradients, too."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no compiler")
    cells = tmp_path / "cells"
    shutil.copytree(ROOT / "fastrnn/kernels/cells", cells)
    (cells / "leaky.h").write_text(HEADER)
    with (cells / "headers.h").open("a") as file:
        file.write(IN_HEADERS)
    listed = (cells / "all.h").read_text()
    head = "#define FASTRNN_CELLS(F)"
    line = next(each for each in listed.splitlines(True) if each.startswith(head))
    (cells / "all.h").write_text(listed.replace(line, line + IN_ALL))
    (tmp_path / "leaky.py").write_text(TWIN)
    (tmp_path / "dispatch.cpp").write_text(DISPATCH)

    folders = ("bindings", "driver")
    sources = [path for folder in folders for path in (ROOT / "csrc" / folder).glob("*.cpp")]
    sources += [ROOT / f"csrc/{name}.cpp" for name in ("runtime/threads", "runtime/allocator")]
    sources += [ROOT / "csrc/isa/scalar.cpp", tmp_path / "dispatch.cpp"]
    include = (tmp_path, ROOT / "csrc", ROOT / "fastrnn/kernels", pybind11.get_include())
    flags = ["-std=c++17", "-O0", "-ffp-contract=off", "-fvisibility=hidden", "-pthread", "-fPIC"]
    flags += [f"-I{path}" for path in (*include, sysconfig.get_path("include"))]

    def built(source: Path) -> str:
        made = str(tmp_path / f"{source.stem}.o")
        subprocess.run([compiler, *flags, "-c", source, "-o", made], check=True)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(built, sources))
    library = tmp_path / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([compiler, "-shared", "-pthread", *objects, "-o", library], check=True)
    done = subprocess.run(
        [sys.executable, "-c", CHECKED.replace("REGISTERED", REGISTERED), library],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == "right\n"
