"""What happens on the host: where arrays live, moving, freezing, errors, devices."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cases import KINDS
from device import DeviceCase, down, up

import fastrnn
from fastrnn.backends.cuda import CudaBackend
from fastrnn.backends.cuda.passes import traits
from fastrnn.cellmath import CELLS, GENERAL
from fastrnn.spec import Numerics, Options

pytestmark = pytest.mark.usefixtures("device")

X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)


@pytest.fixture
def layer(device: Any) -> Any:
    return fastrnn.LSTM(3, 4, 2, rng=0, backend="numpy").to("cuda")


# ---- where arrays live ---------------------------------------------------------------------------


def test_parameters_and_results_are_on_the_device(layer: Any) -> None:
    y, state, tape = layer.forward(up(X))
    grads = layer.backward(tape, y)
    arrays = [layer.flat_params, *layer.params.values(), y, *state, grads.x, *grads.state]
    arrays += [grads.flat, *grads.params.values()]
    assert all(type(a) is fake_cupy.ndarray for a in arrays)
    assert repr(layer.params).startswith("Parameters(weight_ih_l0: (16, 3),")


def test_there_and_back(layer: Any) -> None:
    host = layer.to("cpu")
    assert host.backend != "cuda"
    assert np.array_equal(host.flat_params, down(layer.flat_params))
    again = host.to("cuda").to("cuda")
    assert again.backend == "cuda"
    np.testing.assert_allclose(down(again(up(X))[0]), host(X)[0], atol=1e-6)
    again.flat_params[:] = 0
    assert np.array_equal(host.flat_params, down(layer.flat_params))


def test_copies_and_pickles(layer: Any) -> None:
    layer.freeze()
    want = down(layer(up(X))[0])
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.to("cuda")):
        assert other.backend == "cuda"
        assert other.frozen
        assert np.array_equal(down(other(up(X))[0]), want)


def test_save_and_load(layer: Any, tmp_path: Any) -> None:
    fastrnn.save(tmp_path / "m", layer)
    assert np.array_equal(down(fastrnn.load(tmp_path / "m").flat_params), down(layer.flat_params))
    host = fastrnn.load(tmp_path / "m", backend="numpy")
    assert np.array_equal(host.flat_params, down(layer.flat_params))


def test_parameters_are_loaded_from_either_side(layer: Any) -> None:
    values = {name: np.full(a.shape, 2, np.float32) for name, a in layer.params.items()}
    layer.load_params(values)
    assert (down(layer.flat_params) == 2).all()
    layer.load_params({name: up(a + 1) for name, a in values.items()})
    assert (down(layer.flat_params) == 3).all()
    layer.flat_params = layer.flat_params * 2
    layer.flat_params -= layer.flat_params * 0.5
    layer.params["weight_ih_l0"] -= layer.params["weight_ih_l0"]
    assert set(down(layer.flat_params)) == {0, 3}
    with pytest.raises(TypeError, match=r"flat_params must be a cupy\.ndarray of float32"):
        layer.flat_params = values["weight_ih_l0"]


def test_freezing(layer: Any) -> None:
    layer.freeze()
    want = down(layer(up(X))[0])
    for change in (
        lambda: layer.load_params(dict(layer.params)),
        lambda: setattr(layer, "flat_params", layer.flat_params * 1),
    ):
        with pytest.raises(ValueError, match="the parameters are frozen"):
            change()
    layer.flat_params[:] = 0  # CuPy's arrays cannot refuse; it takes effect with unfreeze only
    assert np.array_equal(down(layer(up(X))[0]), want)
    layer.unfreeze()
    assert not down(layer(up(X))[0]).any()


# ---- errors --------------------------------------------------------------------------------------


def test_arrays_of_numpy_in_a_layer_on_the_device(layer: Any) -> None:
    expected = (
        r"^x must be a cupy\.ndarray of float32, got numpy\.ndarray: "
        r"copy it to the GPU with cupy\.asarray\(x\)$"
    )
    with pytest.raises(TypeError, match=expected):
        layer(X)
    _, state, tape = layer.forward(up(X))
    with pytest.raises(TypeError, match=r"^state\[0\] must be a cupy\.ndarray"):
        layer(up(X), down(state))
    with pytest.raises(TypeError, match=r"^dy must be a cupy\.ndarray"):
        layer.backward(tape, X)
    with pytest.raises(TypeError, match=r"^x_t must be a cupy\.ndarray"):
        layer.stepper(2)(X[0])


def test_arrays_of_another_library_in_a_layer_on_the_device(layer: Any) -> None:
    class Tensor:
        __cuda_array_interface__ = None

    expected = r"^x must be a cupy\.ndarray of float32, got .*: share its memory with cupy\.asarray"
    with pytest.raises(TypeError, match=expected):
        layer(Tensor())


def test_arrays_of_the_device_in_a_layer_of_the_cpu(layer: Any) -> None:
    with pytest.raises(TypeError, match=r"^x must be a numpy\.ndarray of float32, got cupy\.nd"):
        layer.to("cpu")(up(X))


def test_dtypes_and_shapes(layer: Any) -> None:
    with pytest.raises(TypeError, match=r"^x must be float32, got float64: cast it with x\.astype"):
        layer(up(X.astype(np.float64)))
    with pytest.raises(ValueError, match=r"^x must be \(T, B, I=3\), got \(5, 2, 2\)$"):
        layer(up(X[:, :, :2]))


def test_plans_are_made_on_the_host(layer: Any) -> None:
    for name, value in (("lengths", np.array([1, 2])), ("resets", np.zeros((5, 2), bool))):
        with pytest.raises(TypeError, match=rf"^{name} must be on the host, where the steps are"):
            layer(up(X), **{name: up(value)})
    with pytest.raises(TypeError, match=r"^mask must be on the host"):
        layer.stepper(2).reset(up(np.array([True, False])))


def test_another_device(layer: Any) -> None:
    with fake_cupy.Device(1):
        x = up(X)
    expected = "^x is on <CUDA Device 1>, the layer's parameters on <CUDA Device 0>$"
    with pytest.raises(TypeError, match=expected):
        layer(x)


def test_a_layer_lives_on_the_device_it_was_made_on() -> None:
    with fake_cupy.Device(1):
        layer = fastrnn.GRU(3, 4, 2, bidirectional=True, rng=0, backend="cuda")
        y, state, tape = layer.forward(up(X), lengths=[5, 2], rng=1)
        grads = layer.backward(tape, y, state)
        assert all(a.device.id == 1 for a in (layer.flat_params, y, state, grads.x, grads.flat))


# ---- what stands in two languages ----------------------------------------------------------------

TRAITS = """
extern "C" const int traits[] = {Cell::kGates, Cell::kSaved, Cell::kHasC, Cell::kPeephole,
                                 Cell::kLinearBeforeReset, Cell::kResetBefore};
"""


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_the_traits_of_the_cells(kind: str) -> None:
    import ctypes

    from emulator import HEADER, build

    from fastrnn.backends.cuda import compile

    text = compile.source(compile.program(np.dtype("f4"), kind), HEADER) + TRAITS
    found = list((ctypes.c_int * 6).in_dll(build(text), "traits"))
    cell, form = CELLS[kind], traits(CELLS[kind])
    assert found == [
        *(len(cell.gates), len(cell.saved), cell.has_c),
        *(kind == "lstm_peephole", form.linear_before_reset, form.reset_before),
    ]


def test_launchers_are_kept(emulated: CudaBackend) -> None:
    first = emulated._launcher(np.dtype("f4"), CELLS["gru"], Numerics())
    assert first is emulated._launcher(np.dtype("f4"), CELLS["gru"], Numerics())
    assert first is not emulated._launcher(np.dtype("f4"), CELLS["gru"], Numerics("high"))
    chain = Numerics(reproducible=True)
    assert first is not emulated._launcher(np.dtype("f4"), CELLS["gru"], chain)
    general = GENERAL["gru_general"]
    clipped = replace(general, options=Options(clip=1.5))
    keys = [emulated._launcher(np.dtype("f4"), cell).key for cell in (general, clipped)]
    assert keys[0] != keys[1]  # of the graphs of steps


def test_a_case_of_each_kind_has_its_own_parameters() -> None:
    layer = DeviceCase("lstm_peephole", proj=True).layer().layer
    assert layer.params["weight_peephole_l0"].shape == (12,)
    assert layer.params["weight_hr_l0"].shape == (1, 4)
