"""What is wrong with the data gives one clear line, from the front door, and destroys nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.errors import InputError
from segue.run import Run

STEPS = 24
DAYS = [date(2026, 1, 1) + timedelta(days=k) for k in range(STEPS)]
CHECK = "check that the right file was given"
MIXED = "correct such cells, add the marker to `missing`, or name the column in `text_columns`"
FINITE = "put a number there, or leave the cell empty (not observed)"
TINY = {"hidden": 3}
SHORT = {"epochs": 1}


def message(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def frame(**columns: Any) -> pl.DataFrame:
    """Two shops, a day per row."""
    values = {
        "shop": ["a"] * STEPS + ["b"] * STEPS,
        "day": DAYS * 2,
        "x": np.sin(np.arange(2.0 * STEPS)),
        "word": ["on", "off"] * STEPS,
        "y": np.arange(2.0 * STEPS),
        **columns,
    }
    return pl.DataFrame(values)


def spec(output: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "steps", "key": "shop", "time": "day", **data},
        "inputs": {"x": {"kind": "number"}, "word": {"kind": "category"}},
        "outputs": {"y": output or {"task": "forecast", "horizon": 2}},
    }


def fit(data: Any, raw: Any = None, **options: Any) -> Run:
    return segue.fit(raw or spec(), data, model=TINY, training=SHORT, **options)


@pytest.fixture(scope="module")
def run() -> Run:
    """A forecast of two shops."""
    return fit(frame())


@pytest.fixture(scope="module")
def classifier() -> Run:
    """A class per list."""
    raw = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"label": {"task": "classify"}},
    }
    return fit({"x": np.ones((4, 3)), "label": ["a", "b", "a", "b"]}, raw)


def put(values: Any, row: int, value: Any) -> list[Any]:
    """The values with another one in a row, counted from 1."""
    found = list(values)
    found[row - 1] = value
    return found


# Files --------------------------------------------------------------------------------------------

FILES: list[tuple[str, bytes, str]] = [
    ("t.csv", b"", f"t.csv: expected a table, got an empty file; {CHECK}"),
    (
        "t.csv",
        b"day,x,y\n",
        "t.csv: expected at least one row below the header, got a header only; "
        f"add rows, or {CHECK}",
    ),
    (
        "t.csv",
        "day,x,y\n2026-01-01,1,Zürich\n".encode("latin-1"),
        "t.csv: expected UTF-8 text, got byte 0xfc at offset 22; "
        "save the file as UTF-8, or name its encoding (e.g. latin-1)",
    ),
    (
        "t.txt",
        b"so far so \xff",
        "t.txt: expected UTF-8 text, got byte 0xff at offset 10; "
        "save the file as UTF-8, or name its encoding (e.g. latin-1)",
    ),
    (
        "t.csv",
        b"x,y\n1,2\n2,high\n3,4\n",
        f"t.csv: column 'y', row 2: expected a number as in 2 of 3 cells, got 'high'; {MIXED}",
    ),
    (
        "t.csv",
        b"x,y\n1,2\n2,inf\n3,4\n",
        f"t.csv: column 'y', row 2: expected a finite number, got inf; {FINITE}",
    ),
    (
        "t.jsonl",
        b'{"x": 1}\n{"x": "a"}\n',
        "t.jsonl: column 'x', row 2: expected a number as in other rows, got a text; "
        "give the column one kind of value; null means missing",
    ),
    (
        "t.jsonl",
        b'{"x": 1}\n[1]\n',
        "t.jsonl: line 2: expected a JSON object, got a list; "
        'write each record as an object, e.g. {"x": 1}',
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), FILES)
def test_files_that_cannot_be_read(
    name: str, content: bytes, expected: str, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert message(segue.look, path) == expected
    assert message(fit, path) == expected
    assert message(run.predict, path) == expected
    assert message(run.evaluate, path) == expected
    assert path.read_bytes() == content


def test_paths_that_lead_nowhere(tmp_path: Path, run: Run) -> None:
    (tmp_path / "shops.csv").write_text("x,y\n1,2\n")
    for call in (segue.look, fit, run.predict):
        assert message(call, tmp_path / "shop.csv") == (
            f"{tmp_path / 'shop.csv'}: expected a file, a folder or a pattern, got nothing there; "
            "did you mean 'shops.csv'?"
        )
    assert message(segue.load, tmp_path / "run") == (
        f"{tmp_path / 'run' / 'manifest.json'}: expected a run folder with manifest.json, "
        "got No such file or directory; check the path"
    )
    assert message(segue.fit, tmp_path / "spec.yaml", frame()) == (
        f"{tmp_path / 'spec.yaml'}: expected a readable file, got No such file or directory; "
        "check the path"
    )


# Values -------------------------------------------------------------------------------------------

ROW = 5


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinity_is_refused_everywhere(value: float, run: Run) -> None:
    for column in ("x", "y"):
        bad = frame(**{column: put(frame()[column], ROW, value)})
        expected = f"frame: column '{column}', row {ROW}: expected a finite number, got {value}"
        for call in (segue.look, fit, run.predict, run.evaluate):
            assert message(call, bad) == f"{expected}; {FINITE}"
    x = np.ones((3, 4, 2))
    x[1, 2, 0] = value
    assert message(segue.fit, x, np.ones(3)) == (
        f"frame: column 'x0', row 2: expected a finite number, got {value}; {FINITE}"
    )


def test_nan_is_not_observed_but_not_in_a_time_a_key_or_a_target_at_the_end() -> None:
    gappy = frame(x=put(frame()["x"], ROW, float("nan")), y=put(frame()["y"], ROW, float("nan")))
    assert fit(gappy).evaluation is not None
    times = [float(k) for k in range(2 * STEPS)]
    assert message(fit, frame(day=put(times, ROW, float("nan")))) == (
        "frame: column 'day', row 5: expected a time, got an empty cell; fill it in"
    )
    assert message(fit, frame(shop=put(frame()["shop"], ROW, None))) == (
        "frame: column 'shop', row 5: expected a key, got an empty cell; fill it in"
    )
    assert message(segue.fit, np.ones((3, 4)), np.array([1.0, np.nan, 2.0])) == (
        "frame: column 'y', row 2: expected a number for every sequence, got none; "
        "fill it in or remove the sequence"
    )


def test_mixed_types_are_refused() -> None:
    mixed = frame().with_columns(y=pl.Series(put(map(str, range(2 * STEPS)), ROW, "high")))
    assert message(fit, mixed) == (
        "frame: column 'y': expected numbers, got String such as ['0']; "
        "declare another kind or correct the column"
    )
    assert message(fit, [{"x": 1.0, "y": 1}, {"x": "a", "y": 2}]) == (
        "records: column 'x', row 2: expected a number as in other rows, got a text; "
        "give the column one kind of value; null means missing"
    )


# Targets ------------------------------------------------------------------------------------------


def test_a_target_that_is_missing(run: Run, classifier: Run) -> None:
    assert message(fit, frame().drop("y")) == (
        "outputs.y: expected a column of frame (shop, day, x, word), got no such column; "
        "correct the name"
    )
    assert message(run.predict, frame().drop("y")) == (
        "frame: expected a column 'y', got the columns shop, day, x, word; "
        "add it or change the declaration"
    )
    examples = {"x": np.ones((2, 3))}
    assert classifier.predict(examples).height == 2
    assert message(classifier.evaluate, examples) == (
        "arrays: expected the target column 'label' of label, got the columns x; "
        "add it, or use predict"
    )
    empty = frame(y=pl.Series([None] * 2 * STEPS, dtype=pl.Float64))
    assert message(fit, empty) == (
        "frame: column 'y': expected numbers in the training rows, got no value at all; "
        "fill in the target"
    )
    assert message(segue.fit, np.ones((2, 3)), ["a", None]) == (
        "frame: column 'y': expected at least two classes in the training rows, got only 'a'; "
        "give examples of every class"
    )


def test_one_class_only() -> None:
    assert message(segue.fit, np.ones((3, 4)), ["a", "a", "a"]) == (
        "frame: column 'y': expected at least two classes in the training rows, got only 'a'; "
        "give examples of every class"
    )
    assert message(fit, frame(y="calm"), spec({"task": "tag"})) == (
        "frame: column 'y': expected at least two classes in the training rows, got only 'calm'; "
        "give examples of every class"
    )


def test_a_horizon_longer_than_the_data() -> None:
    long = spec({"task": "forecast", "horizon": 30})
    assert message(fit, frame(), long) == (
        "frame: outputs.y.horizon: expected fewer steps than the longest training sequence has "
        "(24), got 30; shorten the horizon or give longer sequences"
    )
    held_out = {"by": "time", "valid": 0, "test": 0.2}
    assert message(fit, frame(), spec({"task": "forecast", "horizon": 6}), split=held_out) == (
        "frame: data.split.test: expected spans of at least the horizon (6 steps), "
        "got at most 4 steps; make data.split.test larger or 0, or shorten the horizon"
    )


def test_a_key_with_one_row() -> None:
    third = pl.DataFrame({"shop": "c", "day": DAYS[0], "x": 0.5, "word": "on", "y": 1.0})
    some = pl.concat([frame(), third.cast(dict(frame().schema))])
    learnt = fit(some)
    made = learnt.predict(third)
    assert made["day"].to_list() == [DAYS[1], DAYS[2]]
    assert made["y"].is_not_null().all()
    ones = frame(shop=[f"s{k}" for k in range(2 * STEPS)])
    assert message(fit, ones) == (
        "frame: outputs.y.horizon: expected fewer steps than the longest training sequence has "
        "(1), got 2; shorten the horizon or give longer sequences"
    )


# Categories ---------------------------------------------------------------------------------------


def test_a_category_never_seen_in_training(run: Run) -> None:
    new = frame(word=put(frame()["word"], ROW, "broken"))
    expected = (
        "frame: column 'word', row 5: expected one of the 2 values of the training rows (off, on), "
        "got 'broken'; correct it, or train with `inputs.word: {unknown: allow}`"
    )
    assert message(run.predict, new) == expected
    assert message(run.evaluate, new) == expected
    record = {"day": DAYS[0], "x": 1.0, "word": "broken", "y": 1.0}
    assert message(run.session().step, record) == expected.replace("frame", "records").replace(
        "row 5", "row 1"
    )
    allowed = spec()
    allowed["inputs"]["word"]["unknown"] = "allow"
    assert fit(frame(), allowed).predict(new).height == 4


def test_a_class_never_seen_in_training(classifier: Run) -> None:
    data = {"x": np.ones((2, 3)), "label": ["a", "z"]}
    assert message(classifier.evaluate, data) == (
        "arrays: column 'label', row 2: expected one of the 2 classes of the training rows (a, b), "
        "got 'z'; correct it, or see that the training part has examples of it"
    )


# Nothing is destroyed -----------------------------------------------------------------------------


def test_an_error_leaves_the_run_and_its_folder_as_they_were(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    answer = run.predict(frame())
    loaded = segue.load(folder)
    for call in (run.predict, run.evaluate, loaded.predict, loaded.evaluate):
        message(call, frame().drop("x"))
    message(run.save, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run.predict(frame()).equals(answer)
    assert loaded.predict(frame()).equals(answer)


def test_a_frame_is_left_as_it_was(run: Run) -> None:
    data = frame()
    before = data.clone()
    unsorted = data[::-1]
    message(fit, unsorted)
    fit(unsorted, spec(sort=True))
    run.predict(data)
    assert data.equals(before)
    assert unsorted.equals(before[::-1])
