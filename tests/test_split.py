"""Splits: no step is in two parts, and the shares are what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from catalogue_kinds import sequences

from segue.data.order import permutation
from segue.data.read import read
from segue.data.split import PARTS, inferred, refuse_short, split, with_split
from segue.errors import DataError, SpecError
from segue.run import declare
from segue.schema import Split
from segue.sequences import Part, Sequences, spans
from segue.tasks import TASKS
from segue.train import prepare


def of(*lengths: int, **columns: list[Any]) -> Sequences:
    frame = pl.DataFrame({"x": np.arange(sum(lengths)), **columns})
    return sequences(frame, lengths)


def cut(known: Sequences, seed: int = 0, **how: Any) -> dict[str, Part]:
    return split(known, Split(**{"valid": 0, "test": 0, **how}), seed)


def steps(known: Sequences, part: Part) -> list[int]:
    found = spans(known.offsets[part.rows] + part.start, part.stop - part.start)
    return found.tolist()


def sizes(parts: dict[str, Part]) -> tuple[int, ...]:
    return tuple(parts[name].steps for name in PARTS)


WAYS: list[dict[str, Any]] = [
    {"by": "time", "valid": 0.2, "test": 0.3},
    {"by": "time", "valid": 3, "test": 4},
    {"by": "time", "train": 0.5, "valid": 0.1, "test": 0.1},
    {"by": "time", "train": 5, "valid": 2, "test": 2},
    {"by": "key", "valid": 0.25, "test": 1},
    {"by": "random", "valid": 2, "test": 0.25},
    {"by": "none"},
    {"by": "given", "column": "part"},
]


@pytest.mark.parametrize("how", WAYS, ids=lambda how: "-".join(map(str, how.values())))
def test_no_step_is_in_two_parts(how: dict[str, Any]) -> None:
    lengths = (9, 1, 20, 13, 0, 7)
    part = [name for n in lengths for name in (["train"] * n + ["valid"] * n + ["test"] * n)[::3]]
    known = of(*lengths, part=part)
    parts = cut(known, **how)
    taken = [step for name in PARTS for step in steps(known, parts[name])]
    assert len(taken) == len(set(taken)) <= known.total
    assert parts["train"].steps > 0
    for name in PARTS:
        assert (parts[name].start >= 0).all()
        assert (parts[name].stop <= known.lengths[parts[name].rows]).all()


def test_shares_of_the_time() -> None:
    known = of(100, 10)
    parts = cut(known, by="time", valid=0.29, test=0.2)
    assert steps(known, parts["train"]) == [*range(51), *range(100, 106)]
    assert steps(known, parts["valid"]) == [*range(51, 80), 106, 107]
    assert steps(known, parts["test"]) == [*range(80, 100), 108, 109]


def test_counts_of_the_time_are_for_every_key() -> None:
    known = of(10, 6)
    parts = cut(known, by="time", valid=2, test=3)
    assert steps(known, parts["train"]) == [0, 1, 2, 3, 4, 10]
    assert steps(known, parts["valid"]) == [5, 6, 11, 12]
    assert steps(known, parts["test"]) == [7, 8, 9, 13, 14, 15]


def test_a_train_count_lets_the_others_follow_and_leaves_the_rest() -> None:
    known = of(20)
    assert sizes(cut(known, by="time", train=8, valid=3, test=4)) == (8, 3, 4)
    # A test part of a fraction takes all that is left.
    assert sizes(cut(known, by="time", train=0.5, valid=0.1, test=0.1)) == (10, 2, 8)
    assert sizes(cut(known, by="time", train=15, valid=4, test=9)) == (15, 4, 1)


def test_the_official_split_of_ett(shared_data: Path) -> None:
    table = read(shared_data / "ett_h1" / "ETTh1.csv")
    how = {"by": "time", "train": 8640, "valid": 2880, "test": 2880}
    spec = {
        "data": {"rows": "steps", "time": "date", "split": how},
        "inputs": {"date": {"kind": "timestamp"}},
        "outputs": {"[HMLO]*": {"task": "forecast", "horizon": 96}},
    }
    _, known, parts = prepare(table, declare(spec))
    assert sizes(parts) == (8640, 2880, 2880)
    assert steps(known, parts["test"])[0] == 11_520
    dates = table.frame["date"][[8640, 11_520]].to_list()
    # Twelve, four and four months of thirty days from the first of July 2016 on.
    assert [str(day) for day in dates] == ["2017-06-26 00:00:00", "2017-10-24 00:00:00"]


def test_shares_of_the_keys_go_by_their_order() -> None:
    parts = cut(of(*[2] * 10), by="key", valid=0.2, test=3)
    assert [parts[name].rows.tolist() for name in PARTS] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


def test_random_keys_are_those_of_the_seed() -> None:
    known = of(*[1] * 20)
    one, same, other = (cut(known, seed, by="random", valid=5, test=5) for seed in (1, 1, 2))
    order = permutation(1, 0, 20)
    assert one["train"].rows.tolist() == sorted(order[:10].tolist())
    assert one["valid"].rows.tolist() == sorted(order[10:15].tolist())
    assert one["test"].rows.tolist() == sorted(order[15:].tolist())
    for name in PARTS:
        assert one[name].rows.tolist() == same[name].rows.tolist()
    assert one["test"].rows.tolist() != other["test"].rows.tolist()


def test_nothing_is_held_out_by_none() -> None:
    assert sizes(cut(of(3, 4), by="none")) == (7, 0, 0)


# Given by a column --------------------------------------------------------------------------------


def given(known: Sequences) -> dict[str, Part]:
    return split(known, Split(by="given", column="part"), 0)


def test_a_part_may_be_given_for_every_step() -> None:
    known = of(4, 3, part=["train", "train", "valid", "test", "train", "test", "test"])
    parts = given(known)
    assert [steps(known, parts[name]) for name in PARTS] == [[0, 1, 4], [2], [3, 5, 6]]


def test_a_part_may_be_given_for_every_sequence() -> None:
    static = pl.DataFrame({"part": ["test", "train", "valid"]})
    known = sequences(pl.DataFrame({"x": range(6)}), (2, 3, 1), static)
    assert [steps(known, given(known)[name]) for name in PARTS] == [[2, 3, 4], [5], [0, 1]]


def message(known: Sequences, **how: Any) -> str:
    with pytest.raises(DataError) as caught:
        cut(known, **how)
    return str(caught.value)


def test_given_parts_that_are_none_are_errors() -> None:
    how = {"by": "given", "column": "part"}
    start = "rows: column 'part': expected train, valid or test in every row, got "
    assert message(of(2, part=["train", "trian"]), **how) == f"{start}'trian'; correct the column"
    assert message(of(2, part=["train", None]), **how) == f"{start}None; correct the column"
    assert message(of(2, part=[1, 2]), **how) == f"{start}'1'; correct the column"
    assert message(of(2, 2, part=["train", "test", "test", "train"]), **how) == (
        "rows: column 'part', key 'k1': expected train, then valid, then test, "
        "got train after test; correct the column"
    )
    assert message(of(2), **how) == (
        "rows: column 'part': expected the column that data.split names, got no such column; "
        "add it or change data.split"
    )


def test_nothing_left_to_train_on_is_an_error() -> None:
    assert message(of(3, 1), by="time", valid=2, test=2) == (
        "rows: data.split: expected steps to train on, got none of 2 sequences, 4 steps; "
        "make valid and test smaller"
    )


# What is not said ---------------------------------------------------------------------------------


def chosen(known: Sequences, horizon: int, **how: Any) -> tuple[Any, ...]:
    found = inferred(Split(**how), known, horizon)
    return found.by, found.valid, found.test


def test_a_forecast_and_a_single_sequence_are_split_by_time() -> None:
    assert chosen(of(200), 0) == ("time", 0.15, 0.15)
    assert chosen(of(200, 200), 24) == ("time", 0.15, 0.15)
    assert chosen(of(200_000), 0) == ("time", 0.05, 0.1)


def test_other_sequences_are_split_at_random() -> None:
    assert chosen(of(*[2] * 199), 0) == ("random", 0, 0.2)
    assert chosen(of(*[2] * 200), 0) == ("random", 0.15, 0.15)


def test_held_out_parts_of_short_series_are_one_horizon_each() -> None:
    assert chosen(of(25), 6) == ("time", 6, 6)
    assert chosen(of(18), 6) == ("time", 0, 6)
    assert chosen(of(12), 6) == ("time", 0, 0)


def test_what_is_said_stays() -> None:
    assert chosen(of(200), 24, by="random", test=1) == ("random", 0, 1)
    assert chosen(of(25), 6, valid=0.3) == ("time", 0.3, 6)
    assert chosen(of(25), 6, by="none") == ("none", None, None)
    assert inferred(Split(train=8), of(200), 1).train == 8


def test_a_held_out_part_shorter_than_the_horizon_is_an_error() -> None:
    known = of(100, 40)
    kind = TASKS["forecast"]
    task = kind("y", ("x",), kind.Spec.model_validate({"task": "forecast", "horizon": 24}))
    refuse_short(cut(known, by="time", test=0.25), [task], "t.csv")
    with pytest.raises(DataError) as caught:
        refuse_short(cut(known, by="time", test=0.2), [task], "t.csv")
    assert str(caught.value) == (
        "t.csv: data.split.test: expected spans of at least the horizon (24 steps), "
        "got at most 20 steps; make data.split.test larger or 0, or shorten the horizon"
    )
    spec = {
        "data": {"rows": "steps"},
        "outputs": {"x": {"task": "forecast", "horizon": 24}},
    }
    assert with_split(declare(spec), of(100), [task]).data.split == Split(
        by="time", valid=24, test=24
    )


def test_what_belongs_to_a_whole_sequence_is_never_cut() -> None:
    kind = TASKS["transcribe"]
    task = kind("y", ("y",), kind.Spec.model_validate({"task": "transcribe"}))
    spec: dict[str, Any] = {
        "data": {"rows": "steps"},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"y": {"task": "transcribe"}},
    }
    assert with_split(declare(spec), of(100), [task]).data.split.by == "random"
    spec["data"]["split"] = {"by": "time"}
    with pytest.raises(SpecError) as caught:
        with_split(declare(spec), of(100), [task])
    assert str(caught.value) == (
        "data.split.by: expected key, random, given or none with task transcribe, got time; "
        "leave it out: a sequence and its target are never cut"
    )
