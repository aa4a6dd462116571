"""What a transcript is made of: edits, the search for the likeliest labelling, the output layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segue.layers import unroll
from segue.ragged import Ragged
from segue.tasks.beam import Following, Labels, Language, search
from segue.tasks.edits import edits, error_rate
from segue.tasks.emission import Emission

# Edits --------------------------------------------------------------------------------------------


def by_definition(found: str, right: str) -> int:
    """The recursion, as it is written."""

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (found[i - 1] != right[j - 1]),
        )

    return distance(len(found), len(right))


def random_text(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("abc"), int(rng.integers(0, 9))))


@pytest.mark.parametrize("seed", range(40))
def test_edits_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, right = random_text(rng), random_text(rng)
    assert edits(found, right) == by_definition(found, right)
    assert edits(right, found) == edits(found, right)
    assert edits(found, found) == 0


@pytest.mark.parametrize("seed", range(10))
def test_edits_keep_the_triangle(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    one, two, three = (random_text(rng) for _ in range(3))
    assert edits(one, three) <= edits(one, two) + edits(two, three)


def test_an_error_rate_is_over_all_symbols_that_are_right() -> None:
    assert error_rate(["ab", ""], ["abc", "d"]) == 2 / 4
    assert error_rate([["on", "off"]], [["on"]]) == 1.0
    assert math.isnan(error_rate(["a"], [""]))


# The search ---------------------------------------------------------------------------------------

SYMBOLS, BLANK = 2, 2


def shares_of(seed: int, steps: int) -> NDArray[np.float64]:
    """Log-probabilities ``[steps, 3]``, none of them small."""
    logits = np.random.default_rng(seed).normal(size=(steps, SYMBOLS + 1))
    found: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return found


def labelling(path: Sequence[int]) -> Labels:
    merged = [code for code, _ in itertools.groupby(path)]
    return tuple(code for code in merged if code != BLANK)


def all_labellings(shares: NDArray[np.float64]) -> dict[Labels, float]:
    """The probability of every labelling, summed over all of its paths."""
    found: dict[Labels, float] = {}
    for path in itertools.product(range(SYMBOLS + 1), repeat=len(shares)):
        share = math.exp(sum(row[code] for row, code in zip(shares, path, strict=True)))
        found[labelling(path)] = found.get(labelling(path), 0.0) + share
    return found


class Bigrams:
    """A language model that has seen the last symbol alone."""

    def __init__(self, seed: int) -> None:
        table = np.random.default_rng(seed).random((SYMBOLS + 1, SYMBOLS + 1))
        self.table = np.log(table / table.sum(1, keepdims=True))
        self.steps = 0

    def first(self) -> tuple[Following, Any]:
        return self.table[BLANK], BLANK

    def step(self, labels: Sequence[int], states: Sequence[Any]) -> list[tuple[Following, Any]]:
        self.steps += len(labels)
        return [(self.table[label], label) for label in labels]

    def log(self, labels: Labels) -> float:
        pairs = itertools.pairwise((BLANK, *labels))
        return float(sum(self.table[before, label] for before, label in pairs))


@pytest.mark.parametrize("seed", range(20))
def test_a_wide_beam_finds_the_likeliest_labelling(seed: int) -> None:
    shares = shares_of(seed, 6)
    found = all_labellings(shares)
    assert sum(found.values()) == pytest.approx(1.0)
    assert search(shares, BLANK, 1000) == max(found, key=found.__getitem__)


@pytest.mark.parametrize("seed", range(10))
def test_a_language_model_and_a_bonus_count_as_written(seed: int) -> None:
    shares, model = shares_of(seed, 6), Bigrams(seed)
    found = all_labellings(shares)
    scores = {y: math.log(share) + 0.7 * model.log(y) + 0.4 * len(y) for y, share in found.items()}
    best = search(shares, BLANK, 1000, Language(model, weight=0.7, bonus=0.4))
    assert best == max(scores, key=scores.__getitem__)


def test_a_narrow_beam_asks_the_language_model_a_bounded_number_of_times() -> None:
    model = Bigrams(0)
    search(shares_of(0, 50), BLANK, 3, Language(model, weight=1.0, bonus=0.0))
    assert 0 < model.steps <= 3 * 50


def test_the_best_path_is_not_always_the_best_labelling() -> None:
    # Blank twice is the likeliest path (0.36); but the paths of a single 0 have 0.64 together.
    shares = np.log(np.array([[0.4, 1e-9, 0.6], [0.4, 1e-9, 0.6]]))
    assert labelling(shares.argmax(1).tolist()) == ()
    assert search(shares, BLANK, 10) == (0,)


def test_nothing_is_said_of_no_steps() -> None:
    assert search(np.zeros((0, 3)), BLANK, 4) == ()


# The output layer ---------------------------------------------------------------------------------


def emission(seed: int = 0) -> tuple[Emission, Ragged]:
    torch.manual_seed(seed)
    layer = Emission(5, 4)
    lengths = torch.tensor([7, 0, 12, 1])
    return layer, Ragged(3 * torch.randn(20, 5), lengths)


@torch.no_grad()
def test_what_is_added_is_the_labelling_of_the_best_path() -> None:
    layer, x = emission()
    y, _ = unroll(layer, x)
    for own, said in zip(x.to_list(), y.to_list(), strict=True):
        logits = layer.linear(own)
        assert torch.equal(said[:, :5], logits)
        path = (1 + logits[:, 1:].argmax(1)).tolist()
        merged = [code for code, _ in itertools.groupby(path)]
        added = said[:, 5][said[:, 5] > 0].tolist()
        assert added == [code for code in merged if code != 4]
        # The flag is up until something was added.
        begun = (said[:, 5] > 0).cumsum(0) - (said[:, 5] > 0).long()
        assert torch.equal(said[:, 6], (begun == 0).float())


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 3, 5])
def test_chunks_of_an_emission_equal_the_whole(size: int) -> None:
    layer, x = emission(1)
    whole, final = unroll(layer, x)
    for row, own in enumerate(x.to_list()):
        state, parts = layer.initial_state(1), [whole.values[:0]]
        for chunk in own.split(size) if len(own) else ():
            part, state = unroll(layer, chunk[None], state)
            parts.append(part[0])
        assert torch.equal(torch.cat(parts)[:, 5:], whole.to_list()[row][:, 5:])
        for ours, theirs in zip(state, final, strict=True):
            assert ours.shape == (1,) and torch.equal(ours, theirs[row : row + 1])


@torch.no_grad()
def test_steps_of_an_emission_equal_its_scan() -> None:
    layer, x = emission(2)
    whole, _ = unroll(layer, x)
    state = layer.initial_state(1)
    for step, value in enumerate(x.to_list()[2]):
        y, state = layer.step(value[None], state)
        torch.testing.assert_close(y[0], whole.to_list()[2][step])
