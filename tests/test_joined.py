"""Several inputs in one model: clocks of their own, absent ones, and how they are joined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.errors import DataError, SpecError
from segue.joined import Joined
from segue.layers.join import CrossAttention, GatedSum
from segue.ragged import Ragged
from segue.schema import Model


def test_the_gated_sum_is_its_equation() -> None:
    torch.manual_seed(0)
    gated = GatedSum([2, 3], 4).double()
    parts = [torch.rand(5, 2, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)]
    both = torch.cat(parts, 1)
    z = 1 / (1 + (-(both @ gated.gates.weight.T + gated.gates.bias)).exp())
    h = [(p @ w.weight.T + w.bias).tanh() for p, w in zip(parts, gated.values, strict=True)]
    assert torch.allclose(gated(parts), z[:, :4] * h[0] + z[:, 4:] * h[1], atol=1e-12)


def test_cross_attention_is_its_equation_row_by_row() -> None:
    torch.manual_seed(0)
    attend = CrossAttention(3, 2, 4).double()
    x = Ragged(torch.rand(6, 3, dtype=torch.float64), torch.tensor([2, 0, 3, 1]))
    memory = Ragged(torch.rand(7, 2, dtype=torch.float64), torch.tensor([4, 1, 2, 0]))
    w, k = attend.query, attend.key_value
    expected = []
    for queries, other in zip(x.to_list(), memory.to_list(), strict=True):
        keys, values = (other @ k.weight.T + k.bias).split(4, 1)
        scores = (queries @ w.weight.T + w.bias) @ keys.T / math.sqrt(4)
        expected.append(scores.softmax(1) @ values)
    assert torch.allclose(attend(x, memory), torch.cat(expected), atol=1e-12)


STEPS = Ragged(torch.zeros(5, 0), torch.tensor([2, 3]))


def joined(**options: Any) -> Joined:
    torch.manual_seed(0)
    made = Joined({"a": 2, "b": 1}, {}, Model(hidden=4, **options), ["b"], ())
    with torch.no_grad():
        for vector in made.absent:
            vector.fill_(7.0)
    return made


def call(module: Joined, gone: list[bool]) -> torch.Tensor:
    parts = {"a": torch.ones(5, 2), "b": torch.ones(5, 1)}
    absent = {"a": torch.zeros(5, dtype=torch.bool), "b": torch.tensor(gone)}
    found: torch.Tensor = module(STEPS, parts, {}, absent)
    return found


def test_what_is_absent_is_a_vector_that_is_learnt() -> None:
    found = call(joined(), [False, True, False, False, False])
    assert found.tolist() == [[1, 1, 1], [1, 1, 7]] + [[1, 1, 1]] * 3


def test_inputs_are_taken_away_from_whole_sequences_never_all_and_only_in_training() -> None:
    module = joined(input_dropout=0.7)
    seen = set()
    for _ in range(50):
        found = call(module, [False] * 5)
        for rows in (found[:2], found[2:]):
            assert (rows == rows[0]).all()
            seen.add(tuple((rows[0] == 7).tolist()))
    assert seen == {(False, False, False), (True, True, False), (False, False, True)}
    assert (call(module.eval(), [False] * 5) == 1).all()


# Two clocks ---------------------------------------------------------------------------------------


def pairs(count: int = 120) -> pl.DataFrame:
    """Rows with two sequences of different lengths: do both rise, or both fall?"""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(count):
        first, second = rng.choice([-1.0, 1.0], 2)
        rows.append(
            {
                "slow": (first * np.arange(rng.integers(3, 6)) + rng.normal(0, 0.1)).tolist(),
                "fast": (second * np.arange(rng.integers(8, 14)) / 3).tolist(),
                "same": "yes" if first == second else "no",
                "part": "train" if row < 90 else "test",
            }
        )
    return pl.DataFrame(rows)


def spec(slow: str, fast: str, **model: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "examples", "split": {"by": "given", "column": "part"}},
        "inputs": {
            "slow": {"kind": "number", "role": slow},
            "fast": {"kind": "number", "role": fast},
        },
        "outputs": {"same": {"task": "classify"}},
        "model": {"hidden": 16, "dropout": 0.0, **model},
        "training": {"epochs": 40, "batch": 16, "learning_rate": 0.01},
    }


@pytest.mark.parametrize("roles", [("step", "apart"), ("apart", "apart")])
@pytest.mark.parametrize("join", ["concat", "gated", "attention"])
def test_two_clocks_are_learnt_together(roles: tuple[str, str], join: str) -> None:
    run = segue.fit(spec(*roles, join=join), pairs())
    assert run.evaluation is not None
    assert run.evaluation.scores["same"].metrics["accuracy"] >= 0.95


def test_a_missing_input_is_learnt_as_such() -> None:
    """Where one of the two is missing the answer is a guess; with both it is right all the same."""
    frame = pairs()
    gone = pl.Series(np.arange(frame.height) % 5 == 0)
    frame = frame.with_columns(fast=pl.when(~gone).then("fast"))
    run = segue.fit(spec("apart", "apart"), frame)
    told = run.predict(frame)["same"] == frame["same"]
    assert told.filter(~gone).mean() >= 0.95  # type: ignore[operator]
    shares = run.predict(frame.filter(gone).with_columns(slow=pl.lit([0.0, 1.0])))["same_p_yes"]
    assert shares.n_unique() == 1


def test_inputs_of_different_lengths_without_a_role_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        segue.fit(spec("step", "step"), pairs())
    assert "as in 'slow'" in str(caught.value) and "`role: apart`" in str(caught.value)


def test_joins_that_cannot_be_are_refused() -> None:
    with pytest.raises(SpecError) as caught:
        Joined({"a": 2}, {}, Model(join="attention"), [], ())
    assert str(caught.value) == (
        "model.join: expected an input to attend to for attention, got no input of role apart; "
        "declare one, or use concat"
    )
    with pytest.raises(SpecError, match="features that are vectors for gated, got maps"):
        Joined({"a": 2}, {}, Model(join="gated"), [], (4, 4))
    with pytest.raises(SpecError, match="expected no cell that reads time"):
        segue.fit(spec("step", "apart", cell="cfc"), pairs())
