"""`look` on real data and on small tables: a sensible declaration, which trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.read import ReadOptions, Table, read
from segue.errors import SpecError
from segue.infer import Look, look
from segue.run import Run, declare, records, with_settings
from segue.train import Record


def head(table: Table, **columns: pl.Expr) -> Table:
    return replace(table, frame=table.frame.with_columns(**columns))


def chorales(folder: Path) -> Table:
    pieces = json.loads((folder / "jsb_chorales" / "jsb-chorales-quarter.json").read_text())
    return read([{"chords": piece} for piece in pieces["train"][:30]])


def engines(folder: Path) -> Table:
    names = ("unit", "cycle", *(f"s{k}" for k in range(24)))
    options = ReadOptions(separator=" ", header=False, columns=names)
    table = read(folder / "cmapss_fd001" / "train_FD001.txt.gz", options)
    return replace(table, frame=table.frame.filter(pl.col("unit") <= 20))


def surnames(folder: Path) -> Table:
    table = read(folder / "surnames" / "names", ReadOptions(lines=True))
    return replace(table, frame=table.frame[::10])


def shakespeare(folder: Path) -> Table:
    return head(
        read(folder / "tinyshakespeare" / "input.txt"), text=pl.col("text").str.slice(0, 5000)
    )


def file(name: str) -> Callable[[Path], Table]:
    return lambda folder: read(folder / name)


TIME = {"by": "time", "valid": 0.15, "test": 0.15}
FEW = {"by": "random", "valid": 0, "test": 0.2}
ENOUGH = {"by": "random", "valid": 0.15, "test": 0.15}


def forecast(time: str, target: str, horizon: int, inputs: Any = None) -> dict[str, Any]:
    return {
        "data": {"rows": "steps", "time": time, "split": TIME},
        "inputs": {time: {"kind": "timestamp"}} if inputs is None else inputs,
        "outputs": {target: {"task": "forecast", "horizon": horizon}},
    }


def classify(inputs: list[str], kind: str, split: Any, target: str = "label") -> dict[str, Any]:
    return {
        "data": {"rows": "examples", "split": split},
        "inputs": {name: {"kind": kind} for name in inputs},
        "outputs": {target: {"task": "classify"}},
    }


NUMBER = {"kind": "number"}
USCHANGE = ("Quarter", "Consumption", "Income", "Production", "Savings")
ETT = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL")

REAL: dict[str, tuple[Callable[[Path], Table], dict[str, Any], list[str]]] = {
    "airline": (
        file("ts_classics/Airline.csv"),
        forecast("Date", "Passengers", 12),
        [
            "Airline.csv: 144 rows, 2 columns",
            "one sequence of 144 steps",
            "Date: 1949-01-01 to 1960-12-01, a step is 1mo",
        ],
    ),
    "uschange": (
        file("ts_classics/Uschange.csv"),
        forecast(
            "Quarter",
            "Unemployment",
            4,
            {"Quarter": {"kind": "timestamp"}, **{name: NUMBER for name in USCHANGE[1:]}},
        ),
        [
            "Uschange.csv: 187 rows, 6 columns",
            "one sequence of 187 steps",
            "Quarter: 1970-01-01 to 2016-07-01, a step is 1q",
        ],
    ),
    "co2": (
        file("ts_classics/co2.csv"),
        forecast("date", "co2", 26),
        [
            "co2.csv: 2284 rows, 2 columns",
            "one sequence of 2284 steps",
            "date: 1958-03-29 to 2001-12-29, a step is 1w",
            "co2: 59 of 2284 values are missing (2.6%)",
        ],
    ),
    "temperatures": (
        file("ts_classics/daily-min-temperatures.csv"),
        forecast("Date", "Temp", 7),
        [
            "daily-min-temperatures.csv: 3650 rows, 2 columns",
            "one sequence of 3650 steps",
            "Date: 1981-01-01 to 1990-12-31, a step is 1d; 2 steps are longer or shorter",
        ],
    ),
    "monthly sunspots": (
        file("ts_classics/monthly-sunspots.csv"),
        forecast("Month", "Sunspots", 12),
        [
            "monthly-sunspots.csv: 2820 rows, 2 columns",
            "one sequence of 2820 steps",
            "Month: 1749-01-01 to 1983-12-01, a step is 1mo",
        ],
    ),
    "yearly sunspots": (
        file("ts_classics/sunspots.csv"),
        forecast("YEAR", "SUNACTIVITY", 12, {}),
        [
            "sunspots.csv: 309 rows, 2 columns",
            "one sequence of 309 steps",
            "YEAR: 1700 to 2008, a step is 1",
        ],
    ),
    "m1 yearly": (
        file("ts_classics/m1_yearly_dataset.tsf"),
        {
            "data": {
                "rows": "steps",
                "key": "series_name",
                "time": "time",
                "split": {"by": "time", "valid": 6, "test": 6},
            },
            "inputs": {"time": {"kind": "timestamp"}},
            "outputs": {"value": {"task": "forecast", "horizon": 6}},
        },
        [
            "m1_yearly_dataset.tsf: 4515 rows, 3 columns",
            "181 sequences of 15 to 58 steps (median 21), 4515 steps in all",
            "time: 1865-01-01 to 2033-01-01, a step is 1y",
        ],
    ),
    "ett": (
        file("ett_h1/ETTh1.csv"),
        forecast(
            "date", "OT", 24, {"date": {"kind": "timestamp"}, **{name: NUMBER for name in ETT}}
        ),
        [
            "ETTh1.csv: 17420 rows, 8 columns",
            "one sequence of 17420 steps",
            "date: 2016-07-01 00:00:00 to 2018-06-26 19:00:00, a step is 1h",
        ],
    ),
    "machine temperature": (
        file("nab/data/realKnownCause/ambient_temperature_system_failure.csv"),
        forecast("timestamp", "value", 24),
        [
            "ambient_temperature_system_failure.csv: 7267 rows, 2 columns",
            "one sequence of 7267 steps",
            "timestamp: 2013-07-04 00:00:00 to 2014-05-28 15:00:00, a step is 1h; "
            "10 steps are longer or shorter",
        ],
    ),
    "arrow heads": (
        file("ucr_uea/ArrowHead/ArrowHead_TRAIN.ts"),
        classify(["value"], "number", FEW),
        [
            "ArrowHead_TRAIN.ts: 36 rows, 2 columns",
            "36 sequences of 251 to 251 steps (median 251), 9036 steps in all",
            "label: 3 classes, '0' in 33.3%",
        ],
    ),
    "basic motions": (
        file("ucr_uea/BasicMotions/BasicMotions_TRAIN.ts"),
        classify(["dim_*"], "number", FEW),
        [
            "BasicMotions_TRAIN.ts: 40 rows, 7 columns",
            "40 sequences of 100 to 100 steps (median 100), 4000 steps in all",
            "label: 4 classes, 'Standing' in 25.0%",
        ],
    ),
    "power demand": (
        file("ucr_uea/ItalyPowerDemand/ItalyPowerDemand_TRAIN.ts"),
        classify(["value"], "number", FEW),
        [
            "ItalyPowerDemand_TRAIN.ts: 67 rows, 2 columns",
            "67 sequences of 24 to 24 steps (median 24), 1608 steps in all",
            "label: 2 classes, '1' in 50.7%",
        ],
    ),
    "vowels": (
        file("ucr_uea/JapaneseVowels/JapaneseVowels_TRAIN.ts"),
        classify(["dim_*"], "number", ENOUGH),
        [
            "JapaneseVowels_TRAIN.ts: 270 rows, 13 columns",
            "270 sequences of 7 to 26 steps (median 15), 4274 steps in all",
            "label: 9 classes, '1' in 11.1%",
        ],
    ),
    "covid": (
        file("ucr_uea/Covid3Month/Covid3Month_TRAIN.ts"),
        {
            "data": {"rows": "examples", "split": FEW},
            "inputs": {"value": NUMBER},
            "outputs": {"label": {"task": "regress"}},
        },
        [
            "Covid3Month_TRAIN.ts: 140 rows, 2 columns",
            "140 sequences of 84 to 84 steps (median 84), 11760 steps in all",
            "repeated rows: 1; they may stand in the training and the test part",
        ],
    ),
    "surnames": (
        surnames,
        classify(["text"], "text", ENOUGH, "file"),
        [
            "names: 2005 rows, 2 columns",
            "2005 sequences of 2 to 18 steps (median 7), 14269 steps in all",
            "file: 18 classes, 'Russian' in 46.8%",
            "repeated rows: 106; they may stand in the training and the test part",
        ],
    ),
    "shakespeare": (
        shakespeare,
        {
            "data": {"rows": "examples", "split": TIME},
            "inputs": {"text": {"kind": "text"}},
            "outputs": {"text": {"task": "next"}},
        },
        ["input.txt: 1 rows, 1 columns", "one sequence of 5000 steps"],
    ),
    "chorales": (
        chorales,
        {
            "data": {"rows": "examples", "split": FEW},
            "inputs": {"chords": {"kind": "many_hot"}},
            "outputs": {"chords": {"task": "next"}},
        },
        [
            "records: 30 rows, 1 columns",
            "30 sequences of 33 to 129 steps (median 55), 1799 steps in all",
        ],
    ),
    "engines": (
        engines,
        {
            "data": {"rows": "steps", "key": "unit", "time": "cycle", "split": TIME},
            "inputs": {"s*": NUMBER},
            "outputs": {"s23": {"task": "forecast", "horizon": 12}},
        },
        [
            "train_FD001.txt.gz: 4168 rows, 26 columns",
            "20 sequences of 150 to 287 steps (median 198), 4168 steps in all",
            "cycle: 1 to 287, a step is 1",
            "never changes: s2, s3, s7, s12, s18 and 2 more",
        ],
    ),
}


def trained(found: Look, table: Table) -> Run:
    """One epoch of a tiny model."""
    declaration = with_settings(found.declaration, {"hidden": 4}, {"epochs": 1}, None)
    made: list[Run] = []

    def training() -> Iterator[Record]:
        made.append((yield from records(declaration, table)))

    assert len(list(training())) >= 3
    return made[0]


@pytest.mark.parametrize("name", REAL)
def test_real_data_are_understood_and_train(name: str, shared_data: Path) -> None:
    make, declaration, findings = REAL[name]
    table = make(shared_data)
    found = look(table)
    assert found.declaration.to_dict() == declaration
    assert list(found.findings) == findings
    run = trained(found, table)
    assert run.evaluation is not None
    assert declare(run.declaration.to_dict()) == run.declaration
    for score in run.evaluation.scores.values():
        assert np.isfinite(score.metrics[score.main])
    assert run.predict(table).height > 0


# Small tables -------------------------------------------------------------------------------------

DAYS = [date(2026, 1, 1) + timedelta(days=k) for k in range(30)]
WAVE = [float(k % 7) for k in range(30)]
CODES = [k % 3 for k in range(30)]


def spec(data: Any, **options: Any) -> dict[str, Any]:
    table = read(data)
    found = look(table, **options)
    trained(found, table)
    raw = found.declaration.to_dict()
    del raw["data"]["split"]
    return raw


def keyed(**columns: list[Any]) -> pl.DataFrame:
    """Ten days of three shops."""
    frame = pl.DataFrame({"day": DAYS[:10] * 3, "shop": [c for c in "abc" for _ in range(10)]})
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def test_dates_make_a_forecast() -> None:
    assert spec({"day": pl.Series(DAYS), "sold": WAVE}) == {
        "data": {"rows": "steps", "time": "day"},
        "inputs": {"day": {"kind": "timestamp"}},
        "outputs": {"sold": {"task": "forecast", "horizon": 3}},
    }


def test_numbers_without_a_clock_make_a_forecast() -> None:
    assert spec({"a": WAVE, "b": WAVE[::-1]}) == {
        "data": {"rows": "steps"},
        "inputs": {"a": NUMBER},
        "outputs": {"b": {"task": "forecast", "horizon": 3}},
    }


def test_a_counted_clock_is_a_time_but_no_input() -> None:
    assert spec({"t": list(range(30)), "b": WAVE}) == {
        "data": {"rows": "steps", "time": "t"},
        "inputs": {},
        "outputs": {"b": {"task": "forecast", "horizon": 3}},
    }


def test_the_key_is_what_makes_times_unique() -> None:
    size = [1.5] * 10 + [2.5] * 10 + [0.5] * 10
    kind = ["new"] * 20 + ["old"] * 10
    assert spec(keyed(open=["y", "n"] * 15, size=size, kind=kind, sold=WAVE)) == {
        "data": {"rows": "steps", "key": "shop", "time": "day"},
        "inputs": {
            "day": {"kind": "timestamp"},
            "open": {"kind": "category", "unknown": "allow"},
            "size": {"kind": "number", "role": "static"},
            "kind": {"kind": "category", "role": "static", "unknown": "allow"},
        },
        "outputs": {"sold": {"task": "forecast", "horizon": 1}},
    }


def test_a_label_of_steps_is_a_tag_and_of_a_key_a_class() -> None:
    tagged = spec(keyed(x=WAVE, label=CODES))
    assert tagged["outputs"] == {"label": {"task": "tag"}}
    labels = [place for place in (0, 1, 1) for _ in range(10)]
    assert spec(keyed(x=WAVE, label=labels))["outputs"] == {"label": {"task": "classify"}}
    amounts = [amount for amount in (0.5, 1.5, 2.5) for _ in range(10)]
    assert spec(keyed(x=WAVE, y=amounts))["outputs"] == {"y": {"task": "regress"}}


def test_what_is_asked_for_is_kept() -> None:
    frame = keyed(x=WAVE, sold=WAVE[::-1])
    asked = spec(frame, target="x", horizon=2)
    assert asked["outputs"] == {"x": {"task": "forecast", "horizon": 2}}
    assert "sold" in asked["inputs"]
    asked = spec(frame, target="sold", task="regress")
    assert asked["outputs"] == {"sold": {"task": "regress", "at": "every"}}
    both = spec({"day": pl.Series(DAYS), "x1": WAVE, "x2": WAVE}, target="x*", horizon=2)
    assert both["inputs"] == {"day": {"kind": "timestamp"}}
    assert both["outputs"] == {"x*": {"task": "forecast", "horizon": 2}}


def test_files_without_times_are_keys(tmp_path: Path) -> None:
    for name in "ab":
        pl.DataFrame({"x": WAVE, "z": WAVE}).write_csv(tmp_path / f"{name}.csv")
    assert spec(tmp_path)["data"] == {"rows": "steps", "key": "file"}


def test_numbered_columns_become_a_pattern() -> None:
    columns = {f"x{k}": WAVE for k in range(4)}
    assert spec({**columns, "y": WAVE})["inputs"] == {"x*": NUMBER}
    # The pattern would take a column of another kind as well.
    other = spec({**columns, "xs": ["u", "v"] * 15, "y": WAVE})
    assert list(other["inputs"]) == ["x0", "x1", "x2", "x3", "xs"]


def example(index: int, **values: Any) -> dict[str, Any]:
    return {"x": [1.0 * index, 2.5, 3.0], **values}


def examples(**make: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [example(k, **{name: one(k) for name, one in make.items()}) for k in range(30)]


def test_examples_with_labels_names_and_statics() -> None:
    found = spec(
        examples(
            id=lambda k: f"n{k}",
            site=lambda k: "ab"[k % 2],
            size=lambda k: k / 2,
            note=lambda k: f"see {k}",
            label=lambda k: k % 3,
        )
    )
    assert found == {
        "data": {"rows": "examples", "key": "id"},
        "inputs": {
            "x": NUMBER,
            "site": {"kind": "category", "role": "static", "unknown": "allow"},
            "size": {"kind": "number", "role": "static"},
        },
        "outputs": {"label": {"task": "classify"}},
    }


def test_a_list_of_targets_is_learnt_at_every_step() -> None:
    assert spec(examples(y=lambda k: [0.5, 1.5, 1.0]))["outputs"] == {
        "y": {"task": "regress", "at": "every"}
    }
    tags = spec([{"words": ["a", "b", "a"], "tags": ["n", "v", "n"]}] * 12)
    assert tags["inputs"] == {"words": {"kind": "category"}}
    assert tags["outputs"] == {"tags": {"task": "tag"}}


def test_lists_of_numbers_alone_are_forecast() -> None:
    assert spec([{"x": WAVE}] * 6) == {
        "data": {"rows": "examples"},
        "inputs": {},
        "outputs": {"x": {"task": "forecast", "horizon": 3}},
    }
    assert spec([{"x": WAVE}] * 6, horizon=2)["outputs"]["x"]["horizon"] == 2


def test_lists_of_moments_are_the_clock() -> None:
    def times(k: int) -> list[datetime]:
        return [datetime(2026, 1, 1) + timedelta(days=k + n) for n in range(3)]

    found = spec(examples(t=times, label=lambda k: k % 2))
    assert found["data"] == {"rows": "examples", "time": "t"}
    assert found["inputs"] == {"x": NUMBER, "t": {"kind": "timestamp"}}


def test_of_two_texts_the_longer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [
        {"title": f"no {k}", "body": f"what a day {k} it is", "mood": "ab"[k % 2]}
        for k in range(30)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = spec(path)
    assert found["inputs"] == {"body": {"kind": "text"}}
    assert found["outputs"] == {"mood": {"task": "classify"}}
    assert look(read(path)).findings[-1] == "not used: title"


def test_chords_of_json_lines_are_many_hot(tmp_path: Path) -> None:
    path = tmp_path / "chords.jsonl"
    path.write_text("\n".join(json.dumps({"c": [[60, 64], [], [k % 3]]}) for k in range(6)))
    found = spec(path)
    assert found["inputs"] == {"c": {"kind": "many_hot"}}
    assert found["outputs"] == {"c": {"task": "next"}}


def test_what_cannot_be_inferred_is_an_error() -> None:
    for data, options, expected in (
        (
            {"day": pl.Series(DAYS)},
            {},
            "target: expected a column to learn, got none; say --target COLUMN",
        ),
        (
            {"y": ["a", "b"] * 15},
            {},
            "arrays: expected a column to learn from, got only the target; give more columns",
        ),
        (
            {"a": WAVE, "sold": WAVE},
            {"target": "solt"},
            "outputs.solt: expected a column of arrays (a, sold), got no such column; "
            "did you mean 'sold'?",
        ),
        (
            [{"x": WAVE, "label": k % 2} for k in range(6)],
            {"horizon": 3},
            "horizon: expected a target that is a series of numbers, got 'label'; "
            "give a long table, one row per step",
        ),
    ):
        with pytest.raises(SpecError) as caught:
            look(read(data), **options)
        assert str(caught.value) == expected


def test_findings_on_wide_tables_stay_short() -> None:
    frame = pl.DataFrame({f"a{k}": [1.0, None, 3.0] * 10 for k in range(40)})
    found = look(read(frame.with_columns(y=pl.Series(WAVE), c=1.0, d=2.0)))
    assert found.findings == (
        "frame: 30 rows, 43 columns",
        "one sequence of 30 steps",
        *(f"a{k}: 10 of 30 values are missing (33.3%)" for k in range(5)),
        "35 more columns have missing values",
        "never changes: c, d",
    )


def test_a_look_prints_as_a_file_that_can_be_read(tmp_path: Path) -> None:
    found = segue.look({"day": pl.Series(DAYS), "sold": WAVE})
    path = tmp_path / "spec.yaml"
    path.write_text(str(found))
    assert declare(path) == found.declaration
