"""`fastrnn.distributed`: n processes against one, and what happens when they differ or fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from group import ThreadGroup
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn

I, H, T = 3, 5, 7
KINDS: list[Any] = [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM]


def data(rows: int, seed: int = 0, dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, rows, I)).astype(dtype)
    target = rng.standard_normal((T, rows, H)).astype(dtype)
    return x, target, rng.integers(0, T + 1, rows)


def gradients(layer: Any, x: Any, target: Any, lengths: Any) -> tuple[Any, float, int]:
    """Gradients of the mean over the valid steps, the mean, and how many steps are valid."""
    y, _, tape = layer.forward(x, lengths=lengths)
    valid = np.arange(T)[:, None] < lengths
    loss, dy = fastrnn.mse(y, target, valid)
    return layer.backward(tape, dy), loss, int(valid.sum())


def alone(kind: Any, rows: int, steps: int, dtype: Any = np.float64) -> tuple[Any, list[float]]:
    """Train one process on all rows."""
    layer = kind(I, H, dtype=dtype, rng=1)
    adam = fastrnn.Adam(layer, lr=0.01)
    losses = []
    for step in range(steps):
        grads, loss, valid = gradients(layer, *data(rows, step, dtype))
        if valid:
            adam.step(grads)
        losses.append(loss)
    return layer.flat_params.copy(), losses


def shard(arrays: tuple[Any, Any, Any], own: slice) -> tuple[Any, Any, Any]:
    x, target, lengths = arrays
    return x[:, own], target[:, own], lengths[own]


@pytest.mark.parametrize("kind", KINDS)
def test_any_shards_give_the_parameters_of_one_process(kind: Any) -> None:
    expected, losses = alone(kind, rows=9, steps=4)
    cuts = [0, 0, 2, 9]  # a rank without rows, two of unequal size

    def program(comm: Any) -> Any:
        layer = kind(I, H, dtype=np.float64, rng=comm.rank)  # rank 0's is wanted
        if comm.rank == 0:
            layer.flat_params = kind(I, H, dtype=np.float64, rng=1).flat_params
        own = slice(cuts[comm.rank], cuts[comm.rank + 1])
        with fastrnn.distributed(fastrnn.Adam(layer, lr=0.01), comm) as adam:
            means = []
            for step in range(4):
                grads, loss, valid = gradients(layer, *shard(data(9, step), own))
                given = grads if valid or step % 2 else None
                means.append(adam.step(given, loss=loss, weight=valid))
        return layer.flat_params.copy(), means

    for params, means in ThreadGroup(3).run(program):
        np.testing.assert_allclose(params, expected, rtol=0, atol=1e-14)
        np.testing.assert_allclose(means, losses, rtol=1e-13)


@settings(max_examples=30)
@given(
    size=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 11), min_size=3, max_size=3),
    pieces=st.integers(1, 3),
    max_norm=st.sampled_from([None, 1e-3, 1e3]),
)
def test_accumulated_and_clipped(
    size: int, cuts: list[int], pieces: int, max_norm: float | None
) -> None:
    layer = fastrnn.GRU(I, H, dtype=np.float64, rng=1)
    grads, loss, _ = gradients(layer, *data(11))
    if max_norm is not None:
        fastrnn.clip_grad_norm(grads, max_norm)
    fastrnn.SGD(layer, lr=0.1).step(grads)
    ends = [0, *sorted(cuts[: size - 1]), 11]

    def program(comm: Any) -> Any:
        own = fastrnn.GRU(I, H, dtype=np.float64, rng=1)
        sgd = fastrnn.distributed(fastrnn.SGD(own, lr=0.1), comm, max_norm=max_norm)
        rows = np.arange(ends[comm.rank], ends[comm.rank + 1])
        for part in np.array_split(rows, pieces):
            x, target, lengths = data(11)
            grads, loss, valid = gradients(own, x[:, part], target[:, part], lengths[part])
            sgd.accumulate(grads, loss=loss, weight=valid)
        return sgd.step(), own.flat_params.copy()

    for mean, params in ThreadGroup(size).run(program):
        assert mean == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(params, layer.flat_params, rtol=0, atol=1e-14)


def test_two_runs_give_the_same_bits_in_float32() -> None:
    def program(comm: Any) -> Any:
        layer = fastrnn.LSTM(I, H, rng=1)
        with fastrnn.distributed(fastrnn.Adam(layer, lr=0.01), comm) as adam:
            for step in range(3):
                arrays = shard(data(9, step, np.float32), slice(comm.rank, None, comm.size))
                grads, loss, valid = gradients(layer, *arrays)
                adam.step(grads, loss=loss, weight=valid)
        return layer.flat_params.tobytes()

    first, second = ThreadGroup(3).run(program), ThreadGroup(3).run(program)
    assert first == second
    assert len(set(first)) == 1
    expected, _ = alone(fastrnn.LSTM, rows=9, steps=3, dtype=np.float32)
    got = np.frombuffer(first[0], np.float32)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_optimiser_state_and_generator_start_as_those_of_rank_0() -> None:
    layer = fastrnn.RNN(I, H, dtype=np.float64, rng=1)
    adam = fastrnn.Adam(layer, lr=0.01)
    grads, _, _ = gradients(layer, *data(4))
    adam.step(grads)
    state, params = adam.state_dict(), layer.flat_params.copy()
    adam.step(gradients(layer, *data(4))[0])

    def program(comm: Any) -> Any:
        own = fastrnn.RNN(I, H, dtype=np.float64, rng=comm.rank)
        own_adam = fastrnn.Adam(own, lr=0.01)
        rng = np.random.Generator(np.random.MT19937(comm.rank))
        if comm.rank == 0:
            own.flat_params = params
            own_adam.load_state_dict(state)
        both = fastrnn.distributed(own_adam, comm, rng=rng)
        both.step(gradients(own, *data(4))[0])
        return own.flat_params.copy(), own_adam.steps, rng.random(3)

    for got, steps, numbers in ThreadGroup(2).run(program):
        np.testing.assert_allclose(got, layer.flat_params, rtol=0, atol=1e-15)
        assert steps == 2
        expected = np.random.Generator(np.random.MT19937(0)).random(3)
        np.testing.assert_array_equal(numbers, expected)


def test_one_exchange_a_step() -> None:
    group = ThreadGroup(2)
    layer = fastrnn.RNN(I, H, rng=1)

    def program(comm: Any) -> Any:
        own = fastrnn.RNN(I, H, rng=1)
        sgd = fastrnn.distributed(fastrnn.SGD(own, lr=0.1), comm)
        before = group.calls, group.bytes
        for _ in range(5):
            sgd.step(gradients(own, *data(2, dtype=np.float32))[0])
        return group.calls - before[0], group.bytes - before[1]

    calls, sent = group.run(program)[0]
    assert calls == 5
    assert sent == 5 * 8 * (layer.flat_params.size + 6)


def test_no_rows_anywhere_change_nothing() -> None:
    def program(comm: Any) -> Any:
        layer = fastrnn.RNN(I, H, rng=1)
        adam = fastrnn.distributed(fastrnn.Adam(layer), comm)
        before = layer.flat_params.copy()
        nan = gradients(layer, *data(1, dtype=np.float32))[0]
        nan.flat[:] = np.nan
        assert adam.step() == 0.0
        assert adam.step(nan, loss=np.nan, weight=0) == 0.0
        np.testing.assert_array_equal(layer.flat_params, before)
        return adam.optimiser.steps

    assert ThreadGroup(2).run(program) == [0, 0]


def test_a_failure_ends_all_ranks_with_its_text() -> None:
    def program(comm: Any) -> Any:
        layer = fastrnn.RNN(I, H, rng=1)
        with fastrnn.distributed(fastrnn.SGD(layer, lr=0.1), comm) as sgd:
            for step in range(9):
                if comm.rank == 1 and step == 3:
                    raise OSError("the disk is füll")
                sgd.step(gradients(layer, *data(2, dtype=np.float32))[0])

    first, second, third = ThreadGroup(3).run(program)
    assert isinstance(second, OSError)
    for other in (first, third):
        assert isinstance(other, RuntimeError)
        assert str(other) == "rank 1 has ended: OSError: the disk is füll"


def test_an_error_inside_step_ends_all_ranks() -> None:
    def program(comm: Any) -> Any:
        layer = fastrnn.RNN(I, H, rng=1)
        sgd = fastrnn.distributed(fastrnn.SGD(layer, lr=0.1), comm)
        grads = gradients(layer, *data(2, dtype=np.float32))[0]
        weight = -1 if comm.rank == 0 else 1
        try:
            sgd.step(grads, weight=weight)
        except (ValueError, RuntimeError) as error:
            with pytest.raises(RuntimeError, match="takes part no longer"):
                sgd.step(grads)
            return str(error)

    first, second = ThreadGroup(2).run(program)
    assert first.startswith("weight must be")
    assert second == f"rank 0 has ended: ValueError: {first}"


def test_a_rank_whose_data_end_early_is_named() -> None:
    def program(comm: Any) -> Any:
        layer = fastrnn.RNN(I, H, rng=1)
        with fastrnn.distributed(fastrnn.SGD(layer, lr=0.1), comm) as sgd:
            for _ in range(2 if comm.rank == 1 else 4):
                sgd.step(gradients(layer, *data(2, dtype=np.float32))[0])

    for error in ThreadGroup(2).run(program):
        assert isinstance(error, RuntimeError)
        assert str(error) == "rank 1 has ended: it has left after step 2, while others go on"


def test_a_step_of_the_inner_optimiser_alone_is_found() -> None:
    def program(comm: Any) -> Any:
        layer = fastrnn.RNN(I, H, rng=1)
        sgd = fastrnn.distributed(fastrnn.SGD(layer, lr=0.1), comm)
        grads = gradients(layer, *data(2, dtype=np.float32))[0]
        if comm.rank == 1:
            sgd.optimiser.step(grads)
        sgd.step(grads)

    for error in ThreadGroup(2).run(program):
        assert isinstance(error, RuntimeError)
        assert str(error) == "ranks 0 .. 1 have made 0, 1 steps of the optimiser"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden_size": 4}, r"layers\[0\].weight_ih_l0 is \(12, 3\), on rank 0 \(15, 3\)"),
        ({"dtype": np.float64}, r"layers\[0\].dtype is float64, on rank 0 float32"),
        ({"bias": False}, r"layers\[0\].bias_hh_l0 is missing, on rank 0 \(15,\)"),
    ],
)
def test_another_model_is_said_at_once(change: dict[str, Any], text: str) -> None:
    def program(comm: Any) -> Any:
        arguments = {"hidden_size": H} | (change if comm.rank == 1 else {})
        fastrnn.distributed(fastrnn.SGD(fastrnn.GRU(I, **arguments), lr=0.1), comm)

    for error in ThreadGroup(3).run(program):
        assert isinstance(error, RuntimeError)
        with pytest.raises(RuntimeError, match=text):
            raise error
        assert str(error).startswith("rank 1 differs from rank 0: ")


def test_another_optimiser_or_number_of_layers_is_said_at_once() -> None:
    def program(comm: Any) -> Any:
        layers = [fastrnn.RNN(I, H) for _ in range(1 + comm.rank)]
        made = fastrnn.Adam(layers) if comm.rank else fastrnn.SGD(layers, lr=0.1, momentum=0.5)
        fastrnn.distributed(made, comm)

    for error in ThreadGroup(2).run(program):
        assert "number of layers is 2, on rank 0 1" in str(error)


def test_wrong_arguments() -> None:
    sgd = fastrnn.SGD(fastrnn.RNN(I, H), lr=0.1)
    comm = ThreadGroup(1).ranks[0]
    with pytest.raises(TypeError, match="optimiser must be one of fastrnn's, got int"):
        fastrnn.distributed(1, comm)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got int, which has no rank, size, allreduce_, broadcast_"):
        fastrnn.distributed(sgd, 1)
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got int"):
        fastrnn.distributed(sgd, comm, rng=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_norm must be"):
        fastrnn.distributed(sgd, comm, max_norm=-1.0)
