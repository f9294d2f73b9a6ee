"""Padding, batches, beam search, sampling, schedules."""

from __future__ import annotations

import doctest
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn.models import generate, graph, model, ragged
from fastrnn.train import schedules


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    rest=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    batch_first=st.booleans(),
)
def test_pad(lengths: list[int], rest: tuple[int, ...], batch_first: bool) -> None:
    rows = [np.random.default_rng(n).standard_normal((n, *rest)) for n in lengths]
    array, found = fastrnn.pad(rows, value=7, batch_first=batch_first)
    assert found.tolist() == lengths
    assert array.dtype == np.float64
    assert array.flags.c_contiguous
    array = array.swapaxes(0, 1) if batch_first else array
    assert array.shape == (max(lengths), len(lengths), *rest)
    for b, row in enumerate(rows):
        assert np.array_equal(array[: len(row), b], row)
        assert (array[len(row) :, b] == 7).all()


def test_what_pad_makes_of_types() -> None:
    assert fastrnn.pad([[1], []])[0].dtype == np.int64
    assert fastrnn.pad([[1], [0.5]])[0].dtype == np.float64
    assert fastrnn.pad([[1], [2, 3]], dtype=np.float32)[0].dtype == np.float32
    assert fastrnn.pad([np.float32([1])])[0].dtype == np.float32
    assert fastrnn.pad([[], []])[0].shape == (0, 2)
    for wrong, error, match in (
        ([], ValueError, "must hold a sequence, got none"),
        ("abc", TypeError, "sequences must be a list, got str"),
        ([1, 2], TypeError, r"sequences\[0\] must be a sequence, got int"),
        (
            [np.ones((2, 3)), np.ones((2, 4))],
            ValueError,
            r"\(2, 3\) in one, \(2, 4\) in seq.*\[1\]",
        ),
        (
            [[[1, 2], [3]]],
            ValueError,
            r"sequences\[0\] must be an array, got list of unequal parts",
        ),
    ):
        with pytest.raises(error, match=match):
            fastrnn.pad(wrong)  # type: ignore[arg-type]


@given(
    lengths=st.lists(st.integers(0, 20), max_size=40),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_batches_have_every_row_once_and_like_lengths(
    lengths: list[int], size: int, seed: int
) -> None:
    found = fastrnn.batches(lengths, size, seed)
    assert sorted(itertools.chain(*(batch.tolist() for batch in found))) == list(
        range(len(lengths))
    )
    assert sorted(map(len, found))[1:] == [size] * (len(found) - 1)
    again = fastrnn.batches(np.array(lengths, int), size, np.random.default_rng(seed))
    assert all(map(np.array_equal, found, again))
    spans = sorted((min(np.take(lengths, b)), max(np.take(lengths, b))) for b in found)
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(spans))


def test_epochs_of_batches_differ() -> None:
    rng = np.random.default_rng(0)
    epochs = [fastrnn.batches([3] * 10 + [5] * 10, 5, rng) for _ in range(2)]
    assert not all(map(np.array_equal, *epochs))
    assert len(fastrnn.batches([[1, 2], "abc"], 2, 0)) == 1
    with pytest.raises(TypeError, match="lengths must be ints, got float64"):
        fastrnn.batches([0.5], 2)
    with pytest.raises(ValueError, match=r"lengths must be \(N,\), got \(1, 1\)"):
        fastrnn.batches(np.ones((1, 1), int), 2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        fastrnn.batches([1], 0)


# ---- beam search ---------------------------------------------------------------------------------


class Table:
    """Log-probabilities that depend on all tokens so far, row by row as a stepper's state."""

    def __init__(self, width: int, V: int, seed: int) -> None:
        self.past: list[tuple[int, ...]] = [()] * width
        self.V, self.seed = V, seed

    def of(self, past: tuple[int, ...]) -> Any:
        z = np.random.default_rng([self.seed, *past]).standard_normal(self.V) * 2
        return z - np.log(np.exp(z).sum())

    def step(self, tokens: Any) -> Any:
        self.past = [(*past, int(token)) for past, token in zip(self.past, tokens, strict=True)]
        return np.stack([self.of(past) for past in self.past])

    def reorder(self, rows: Any) -> None:
        self.past = [self.past[row] for row in rows]


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_the_exhaustive_search(seed: int, penalty: float) -> None:
    V, steps, start, end = 3, 4, 1, 0
    width = V**steps
    table = Table(width, V, seed)
    everything = []
    for n in range(1, steps + 1):
        for tokens in itertools.product(range(V), repeat=n):
            inside = end not in tokens[:-1]
            if inside and (tokens[-1] == end or n == steps):
                score = sum(table.of((start, *tokens[:k]))[tokens[k]] for k in range(n))
                everything.append((score / n**penalty, list(tokens)))
    everything.sort(reverse=True)
    sequences, scores = fastrnn.beam_search(
        table.step,
        start,
        end,
        width=width,
        max_steps=steps,
        reorder=table.reorder,
        length_penalty=penalty,
    )
    assert sequences == [tokens for _, tokens in everything]
    np.testing.assert_allclose(scores, [score for score, _ in everything], rtol=1e-12)


def test_a_beam_of_one_is_greedy() -> None:
    table = Table(1, 5, 3)
    sequences, scores = fastrnn.beam_search(
        table.step, 2, 0, width=1, max_steps=6, reorder=table.reorder
    )
    live, total, past = [], 0.0, (2,)
    ends = []
    for _ in range(6):
        p = table.of(past)
        ends.append((total + p[0], [*live, 0]))
        token = int(1 + p[1:].argmax())
        total, live, past = total + p[token], [*live, token], (*past, token)
    assert (scores[0], sequences[0]) in [*ends, (total, live)]
    assert scores[0] == max(score for score, _ in ends) or sequences[0] == live


def test_what_beam_search_refuses() -> None:
    with pytest.raises(ValueError, match=r"\(width=2, V\) with end=3 below V, got \(2, 3\)"):
        fastrnn.beam_search(lambda t: np.zeros((2, 3)), 0, 3, width=2, max_steps=2)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        fastrnn.beam_search(lambda t: t, 0, 0, width=0, max_steps=2)


# ---- sampling ------------------------------------------------------------------------------------


def test_samples_have_the_distribution() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    logits = np.broadcast_to(np.log(p) + 3, (20000, 4))

    def shares(**how: Any) -> Any:
        return np.bincount(fastrnn.sample(logits, 0, **how), minlength=4) / 20000

    np.testing.assert_allclose(shares(), p, atol=0.015)
    q = p**2 / (p**2).sum()
    np.testing.assert_allclose(shares(temperature=0.5), q, atol=0.015)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.79), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.81), np.array([50, 30, 15, 0]) / 95, atol=0.015)
    np.testing.assert_array_equal(shares(top_k=1), [1, 0, 0, 0])
    np.testing.assert_array_equal(shares(temperature=0), [1, 0, 0, 0])
    np.testing.assert_array_equal(shares(top_p=1e-9), [1, 0, 0, 0])


def test_what_sample_takes_and_refuses() -> None:
    logits = np.array([[[0.0, -np.inf, 1e30]]], np.float32)
    assert fastrnn.sample(logits, 0).tolist() == [[2]]
    assert fastrnn.sample(logits[0, 0], 0) == 2
    for wrong, how, error, match in (
        (logits, {"temperature": -1}, ValueError, "temperature must be at least 0"),
        (logits, {"top_k": 0}, ValueError, "top_k must be at least 1"),
        (logits, {"top_p": 0}, ValueError, r"top_p must be in \(0, 1\], got 0"),
        (logits * np.nan, {}, ValueError, "finite largest value"),
        ([0.0], {}, TypeError, "logits must be a numpy.ndarray"),
    ):
        arguments: Any = how
        with np.errstate(all="ignore"), pytest.raises(error, match=match):
            fastrnn.sample(wrong, 0, **arguments)  # type: ignore[arg-type]


# ---- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [schedules.cosine, schedules.linear])
def test_schedules_rise_and_fall(kind: Any) -> None:
    values = [kind(step, 10, warmup_steps=4, end=0.1) for step in range(14)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[4] == 1
    assert values == values[:4] + sorted(values[4:], reverse=True)
    np.testing.assert_allclose(values[10:], 0.1)


def test_what_schedules_refuse() -> None:
    for call, match in (
        (lambda: schedules.cosine(-1, 10), "step must be at least 0, got -1"),
        (lambda: schedules.linear(0, 0), "steps must be at least 1, got 0"),
        (lambda: schedules.cosine(0, 3, warmup_steps=3), r"warmup_steps must be in 0\.\.2, got 3"),
        (lambda: schedules.staircase(0, 0), "every must be at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("module", [generate, graph, model, ragged, schedules])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
