"""Several tables of the same keys, and rows of events, as one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue
from segue.data.piece import ReadOptions
from segue.data.read import read
from segue.errors import DataError

VITALS = pl.DataFrame(
    {"stay": ["b", "b", "a", "a"], "hour": [0, 2, 0, 1], "pulse": [80.0, 84, 61, 60]}
)
LABS = pl.DataFrame({"stay": ["a", "b", "a"], "hour": [1, 1, 3], "lactate": [0.9, 2.1, 1.0]})
PEOPLE = pl.DataFrame({"stay": ["a", "b"], "age": [64, 71], "died": ["no", "yes"]})
TABLES = {"vitals": VITALS, "labs": LABS, "people": PEOPLE}


def options(**more: Any) -> ReadOptions:
    return ReadOptions(**{"key": "stay", "time": "hour", **more})


def refused(sources: Any, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(sources, options(**more))
    return str(caught.value)


def test_tables_are_merged_in_one_order_of_time() -> None:
    frame = read(TABLES, options()).frame
    assert frame.rows() == [
        ("b", 0, 80.0, None, 71, "yes"),
        ("b", 1, None, 2.1, 71, "yes"),
        ("b", 2, 84.0, None, 71, "yes"),
        ("a", 0, 61.0, None, 64, "no"),
        ("a", 1, 60.0, 0.9, 64, "no"),
        ("a", 3, None, 1.0, 64, "no"),
    ]
    assert frame.columns == ["stay", "hour", "pulse", "lactate", "age", "died"]


def test_tables_apart_keep_their_own_clocks() -> None:
    table = read(TABLES, options(clocks="apart"))
    assert table.layout == "examples"
    assert table.frame.rows() == [
        ("b", [0, 2], [80.0, 84.0], [2.1], 71, "yes"),
        ("a", [0, 1], [61.0, 60.0], [0.9, 1.0], 64, "no"),
    ]


def test_a_key_without_rows_in_another_table_is_not_observed_there() -> None:
    lacking = {**TABLES, "labs": LABS.filter(pl.col("stay") == "a")}
    merged = read(lacking, options()).frame
    assert merged.filter(stay="b")["lactate"].to_list() == [None, None]
    assert read(lacking, options(clocks="apart")).frame["lactate"].to_list() == [None, [0.9, 1.0]]


def test_keys_and_names_that_do_not_go_together_are_refused() -> None:
    lone = pl.concat(
        [LABS, pl.DataFrame({"stay": ["c"] * 3, "hour": [1, 2, 3], "lactate": [1.0] * 3})]
    )
    assert refused({"vitals": VITALS, "labs": lone}) == (
        "labs: expected rows of key 'c' in 'vitals' as well, got 3 in 'labs' and none there; "
        "add or remove them, or name another table first"
    )
    assert refused({"vitals": VITALS, "more": VITALS}) == (
        "more: expected a column 'pulse' of its own, got one in 'vitals' as well; "
        "rename one of them"
    )
    assert refused({"vitals": VITALS, "labs": LABS.drop("stay")}) == (
        "labs: expected a column 'stay', the key, got the columns hour, lactate; add it"
    )
    assert refused({"vitals": VITALS, "people": pl.concat([PEOPLE, PEOPLE])}) == (
        "people: expected one row per key, without a time, got two rows of key 'a'; "
        "add the column 'hour'"
    )


EVENTS = pl.DataFrame(
    {
        "stay": ["a", "a", "a", "b"],
        "hour": [0, 0, 2, 0],
        "died": ["no", "no", "no", "yes"],
        "what": ["pulse", "lactate", "pulse", "pulse"],
        "how_much": [80.0, 2.1, 84, 61],
    }
)


def test_events_become_columns_and_the_last_of_one_time_counts() -> None:
    twice = pl.concat([EVENTS, EVENTS[:1].with_columns(how_much=pl.lit(79.0))])
    frame = read(twice, options(events=("what", "how_much"), wanted=("sodium",))).frame
    assert frame.rows() == [
        ("a", 0, "no", 79.0, 2.1, None),
        ("a", 2, "no", 84.0, None, None),
        ("b", 0, "yes", 61.0, None, None),
    ]
    assert frame.columns == ["stay", "hour", "died", "pulse", "lactate", "sodium"]


def test_events_that_cannot_be_columns_are_refused() -> None:
    assert refused(EVENTS, events=("which", "how_much")) == (
        "frame: expected a column 'which', got the columns stay, hour, died, what, how_much; "
        "correct `data`"
    )
    named = EVENTS.with_columns(what=pl.lit("died"))
    assert refused(named, events=("what", "how_much")) == (
        "frame: column 'what': expected names that no column has, got 'died'; "
        "rename the column or the event"
    )


SPEC: dict[str, Any] = {
    "data": {"rows": "steps", "key": "stay", "time": "hour", "split": {"by": "none"}},
    "inputs": {"pulse": {"kind": "number"}, "lactate": {"kind": "number"}},
    "outputs": {"died": {"task": "classify"}},
    "model": {"hidden": 4},
    "training": {"epochs": 1},
}


def test_a_model_of_several_files_predicts_from_several_files(tmp_path: Path) -> None:
    paths = {}
    for name, frame in TABLES.items():
        paths[name] = tmp_path / f"{name}.csv"
        frame.write_csv(paths[name])
    run = segue.fit(SPEC, paths)
    assert run.predict(paths)["stay"].to_list() == ["b", "a"]
    assert run.predict(paths).equals(run.predict(TABLES))


def test_new_events_may_lack_what_the_training_rows_had() -> None:
    data = {**SPEC["data"], "events": {"name": "what", "value": "how_much"}}
    run = segue.fit({**SPEC, "data": data}, EVENTS)
    assert run.predict(EVENTS.filter(pl.col("what") == "pulse")).height == 2


def test_tables_apart_are_read_by_layers_of_their_own() -> None:
    data = {**SPEC["data"], "rows": "examples", "clocks": "apart"}
    inputs = {"pulse": {"kind": "number"}, "lactate": {"kind": "number", "role": "apart"}}
    run = segue.fit({**SPEC, "data": data, "inputs": inputs}, TABLES)
    assert run.predict(TABLES)["stay"].to_list() == ["b", "a"]
    both = {name: {**given, "role": "apart"} for name, given in inputs.items()}
    run = segue.fit({**SPEC, "data": data, "inputs": both}, TABLES)
    record = {"hour": 3, "pulse": [80.0, 84.0], "lactate": [2.1]}
    told, live = run.predict(TABLES), run.session().step(record)
    assert abs(live["died_p_yes"] - told["died_p_yes"][0]) < 1e-6
