"""The masks: what they are a function of, and that they are what their text says, bit by bit."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import dropout

Array = np.ndarray[Any, np.dtype[Any]]
F4 = np.dtype(np.float32)
MASK64 = 2**64 - 1


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """Philox-4x64-10 in plain ints, from the paper: four 64-bit words."""
    c = [counter >> 64 * i & MASK64 for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [p1 >> 64 ^ c[1] ^ k0, p1 & MASK64, p0 >> 64 ^ c[3] ^ k1, p0 & MASK64]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK64, (k1 + 0xBB67AE8584CAA73B) & MASK64
    return c


def test_philox_itself() -> None:
    """Known answers of Random123, so that the oracle below is one."""
    assert philox((0, 0), 0)[:2] == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC]
    assert philox((MASK64, MASK64), 2**256 - 1)[0] == 0x87B092C3013FE90B


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9])
def test_masks_are_what_the_docstring_says(p: float) -> None:
    """A second engine makes the same masks from these lines."""
    seed, layer, start, size = 2**63 + 12345, 3, 21, 40
    got = dropout.mask(seed, layer, start, (size,), p, F4)
    for e in range(start, start + size):
        word = philox((seed, layer), e // 8 + 1)[e % 8 // 2]
        draw = word >> 32 * (e % 2) & 0xFFFFFFFF
        want = np.float32(1 / (1 - p)) if draw >= int(p * 2**32) else 0
        assert got[e - start] == want


def test_any_span_is_a_piece_of_the_whole() -> None:
    whole = dropout.mask(7, 0, 0, (1000,), 0.5, F4)
    for start, stop in ((0, 1000), (0, 1), (1, 2), (7, 9), (8, 16), (3, 999), (500, 500)):
        piece = dropout.mask(7, 0, start, (stop - start,), 0.5, F4)
        assert np.array_equal(piece, whole[start:stop])


def test_masks_differ_by_seed_and_layer() -> None:
    masks = [dropout.mask(s, n, 0, (64,), 0.5, F4) for s, n in ((0, 0), (0, 1), (1, 0), (2**32, 0))]
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_far_away_elements() -> None:
    """64-bit indexing: element 2**40 costs no more than element 0."""
    far = dropout.mask(1, 0, 2**40, (16,), 0.5, F4)
    assert set(np.unique(far)) <= {0, 2}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_share_of_zeros(p: float) -> None:
    n = 100_000
    mask = dropout.mask(11, 0, 0, (n,), p, np.dtype(np.float64))
    # Five standard deviations of a binomial share.
    assert abs((mask == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
    assert np.all(mask[mask != 0] == 1 / (1 - p))


def test_dropout_next_to_one_keeps_numbers_finite() -> None:
    layer = fastrnn.RNN(3, 4, 2, dropout=1 - 2**-53, rng=0, backend="numpy")
    y, _, tape = layer.forward(np.ones((4, 2, 3), np.float32), rng=0)
    assert np.isfinite(y).all()
    assert np.isfinite(layer.backward(tape, y).flat).all()


def test_seed() -> None:
    assert dropout.seed(3) == dropout.seed(np.int64(3)) != dropout.seed(4)
    generator = np.random.default_rng(3)
    first, second = dropout.seed(generator), dropout.seed(generator)
    assert first == dropout.seed(3)
    assert first != second
    assert dropout.seed(None) != dropout.seed(None)
    assert 0 <= dropout.seed(2**100) < 2**64


def test_only_training_drops() -> None:
    """A call has no dropout, nor has a layer with nothing above it, nor p = 0."""
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    plain = fastrnn.GRU(3, 4, 2, rng=0, backend="numpy")
    drops = fastrnn.GRU(3, 4, 2, dropout=0.5, rng=0, backend="numpy")
    assert np.array_equal(drops(x)[0], plain(x)[0])
    assert not np.array_equal(drops.forward(x, rng=0)[0], plain(x)[0])
    with pytest.warns(UserWarning, match="does nothing with num_layers=1"):
        one = fastrnn.GRU(3, 4, dropout=0.5, rng=0, backend="numpy")
    assert np.array_equal(one.forward(x, rng=0)[0], one(x)[0])


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
def test_dropout_of_one_layer_warns(kind: Any) -> None:
    """As torch's does, where the layer is made; what is between two directions is no layer."""
    text = r"^dropout is applied between layers, .* with num_layers=1, got dropout=0\.25$"
    for more in ({}, {"bidirectional": True}, {"num_layers": 1}):
        with pytest.warns(UserWarning, match=text) as caught:
            layer = kind(3, 4, dropout=0.25, backend="numpy", **more)
        assert [Path(each.filename).name for each in caught] == ["test_dropout.py"]
    # copies are of a layer that somebody has been warned of
    assert copy.deepcopy(layer).dropout == pickle.loads(pickle.dumps(layer)).dropout == 0.25
    kind(3, 4, 2, dropout=0.25, backend="numpy")
    kind(3, 4, dropout=0.0, backend="numpy")


def test_layers_of_one_seed_have_masks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And backward makes the very masks that forward made."""
    made: list[tuple[int, bytes]] = []
    mask = dropout.mask

    def spy(seed: int, layer: int, *rest: Any) -> Array:
        factors = mask(seed, layer, *rest)
        made.append((layer, factors.tobytes()))
        return factors

    layer = fastrnn.LSTM(3, 8, 3, dropout=0.5, bidirectional=True, rng=0, backend="numpy")
    monkeypatch.setattr(layer._stack.backend, "mask", spy)
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32), rng=0)
    assert [n for n, _ in made] == [0, 1]
    assert made[0][1] != made[1][1]
    layer.backward(tape, y)
    assert made[2:] == made[1::-1]
