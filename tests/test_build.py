"""Tables become sequences: which rows belong together, in which order, and what is refused."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from segue.data.build import build, fields_of, tasks_of
from segue.data.read import read
from segue.errors import DataError, SpecError
from segue.run import declare
from segue.sequences import Part, Sequences, spans

FORECAST = {"task": "forecast", "horizon": 1}


def made(frame: Any, raw: dict[str, Any]) -> Sequences:
    table, declaration = read(frame), declare(raw)
    columns = table.frame.columns
    fields = fields_of(declaration, columns, table.origin)
    return build(table, declaration, fields, tasks_of(declaration, columns, table.origin))


def spec(inputs: Any = None, outputs: Any = None, **data: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "steps", **data},
        "inputs": {"x": {"kind": "number"}} if inputs is None else inputs,
        "outputs": outputs or {"y": FORECAST},
    }


def message(frame: Any, raw: dict[str, Any]) -> str:
    with pytest.raises((DataError, SpecError)) as caught:
        made(frame, raw)
    return str(caught.value)


def long(keys: str, times: list[Any], **columns: list[Any]) -> pl.DataFrame:
    values = [float(k) for k in range(len(keys))]
    return pl.DataFrame({"k": list(keys), "t": times, "x": values, "y": values, **columns})


KEYED = {"key": "k", "time": "t"}


# Rows that are steps ------------------------------------------------------------------------------


def test_interleaved_keys_come_together_in_order_of_first_appearance() -> None:
    found = made(long("babab", [1, 1, 2, 2, 3]), spec(**KEYED))
    assert found.keys.to_list() == ["b", "a"]
    assert found.lengths.tolist() == [3, 2]
    assert found.offsets.tolist() == [0, 3, 5]
    assert found.steps["x"].to_list() == [0, 2, 4, 1, 3]
    assert found.times.tolist() == [1, 2, 3, 1, 2]
    # Messages count the rows as they lie now.
    assert found.origin == "frame (sorted by k)"
    assert (found.place(1), found.step_place(4)) == ("key 'a'", "key 'a', step 2")


def test_without_a_key_all_rows_are_one_sequence() -> None:
    found = made(long("ab", [1, 2]), spec())
    assert found.lengths.tolist() == [2]
    assert found.times.tolist() == [0, 1]
    assert (found.has_time, found.keyed, found.origin) == (False, False, "frame")


def test_only_declared_columns_are_kept() -> None:
    found = made(long("ab", [1, 2], z=[1, 2]), spec(**KEYED))
    assert found.steps.columns == ["x", "y"]
    assert found.static.width == 0


def test_contiguous_rows_are_not_copied() -> None:
    frame = long("aabb", [1, 2, 1, 2])
    found = made(frame, spec(**KEYED))
    for column in ("x", "y"):
        ours, theirs = found.steps[column].to_numpy(), frame[column].to_numpy()
        assert np.shares_memory(ours, theirs)
    part = Part(np.array([0, 1]), np.array([1, 0]), np.array([2, 1]))
    cut = part.of(found).steps["x"]
    assert cut.to_list() == [1, 2]
    assert np.shares_memory(cut.to_numpy(), frame["x"].to_numpy())
    second = found.cut(np.array([1]), np.array([0]), np.array([2]))
    assert np.shares_memory(second.steps["x"].to_numpy(), frame["x"].to_numpy())
    assert second.keys.to_list() == ["b"]


def test_integer_keys_and_times_are_kept() -> None:
    frame = pl.DataFrame({"k": [7, 7, 3], "t": [5, 9, 1], "x": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    found = made(frame, spec(**KEYED))
    assert found.keys.to_list() == [7, 3]
    assert found.times.tolist() == [5, 9, 1]


def test_dates_are_seconds() -> None:
    times = [date(1970, 1, 2), date(1970, 1, 4)]
    assert made(long("aa", times), spec(**KEYED)).times.tolist() == [86_400, 3 * 86_400]
    moments = [datetime(1970, 1, 1, 0, 0, 1, 500_000), datetime(1970, 1, 1, 1)]
    assert made(long("aa", moments), spec(**KEYED)).times.tolist() == [1.5, 3600]


def test_unsorted_times_are_an_error_or_sorted() -> None:
    frame = long("aaba", [1, 3, 1, 2])
    assert message(frame, spec(**KEYED)) == (
        "frame: column 't', key 'a', its row 3: expected times that rise within a key, "
        "got 2 after 3; sort the rows or declare `data: {sort: true}`"
    )
    found = made(frame, spec(**KEYED, sort=True))
    assert found.steps["x"].to_list() == [0, 3, 1, 2]
    assert found.times.tolist() == [1, 2, 3, 1]
    assert found.origin == "frame (sorted by k, t)"
    days = [date(2026, 1, 2), date(2026, 1, 1)]
    assert message(long("aa", days), spec(time="t")) == (
        "frame: column 't', row 2: expected times that rise within a key, "
        "got 2026-01-01 after 2026-01-02; sort the rows or declare `data: {sort: true}`"
    )


def test_repeated_times_are_an_error_though_sorted() -> None:
    frame = long("aaab", [2, 1, 2, 2])
    assert message(frame, spec(**KEYED, sort=True)) == (
        "frame: column 't', key 'a', its row 3: expected one row per time within a key, "
        "got 2 twice; remove it, or declare the column that tells such rows apart as "
        "`data: {key: ...}`"
    )
    assert message(long("abab", [1, 1, 2, 2]), spec(time="t")) == (
        "frame: column 't', row 2: expected one row per time within a key, "
        "got 1 twice, and 1 more; remove it, or declare the column that tells such rows apart as "
        "`data: {key: ...}`"
    )


def test_empty_keys_and_times_are_errors() -> None:
    frame = long("aa", [1, 2]).with_columns(k=pl.Series(["a", None]))
    assert message(frame, spec(**KEYED)) == (
        "frame: column 'k', row 2: expected a key, got an empty cell; fill it in"
    )
    assert message(long("aa", [1, None]), spec(**KEYED)) == (
        "frame: column 't', row 2: expected a time, got an empty cell; fill it in"
    )
    assert message(long("aa", ["x", "y"]), spec(**KEYED)) == (
        "frame: column 't': expected dates or numbers as time, got String such as ['x']; "
        "correct the column"
    )


def test_a_static_column_has_one_row_per_key() -> None:
    raw = spec({"x": {"kind": "number"}, "s": {"kind": "category", "role": "static"}}, **KEYED)
    found = made(long("abab", [1, 1, 2, 2], s=["u", "v", "u", "v"]), raw)
    assert found.static["s"].to_list() == ["u", "v"]
    assert found.steps.columns == ["x", "y"]
    assert message(long("abab", [1, 1, 2, 2], s=["u", "v", "u", "w"]), raw) == (
        "frame: column 's', key 'b': expected one value per key (its role is static), "
        "got 'v' and 'w'; declare `inputs.s: {role: step}`"
    )


def test_a_target_at_the_end_is_that_of_the_last_row() -> None:
    raw = spec(outputs={"y": {"task": "regress"}}, **KEYED)
    found = made(long("abab", [2, 1, 1, 2]), raw | {"data": {**raw["data"], "sort": True}})
    assert found.static["y"].to_list() == [0.0, 3.0]


def test_targets_may_be_absent_but_not_the_series_to_forecast() -> None:
    table = read(long("aa", [1, 2]))
    for outputs, fails in (({"y": {"task": "regress"}}, False), ({"y": FORECAST}, True)):
        declaration = declare(spec(outputs=outputs, **KEYED))
        fields = fields_of(declaration, table.frame.columns, "frame")
        tasks = tasks_of(declaration, table.frame.columns, "frame")
        less = read(table.frame.drop("y"))
        if not fails:
            assert build(less, declaration, fields, tasks).static.width == 0
            continue
        with pytest.raises(DataError) as caught:
            build(less, declaration, fields, tasks)
        assert str(caught.value) == (
            "frame: expected a column 'y', got the columns k, t, x; add it or change the "
            "declaration"
        )


# Columns ------------------------------------------------------------------------------------------

WIDE = pl.DataFrame({name: [1.0, 2.0] for name in ("t", "x0", "x1", "x2", "y0", "y1", "k")})


def columns_of(raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    declaration = declare(raw)
    return (
        {n: f.columns for n, f in fields_of(declaration, WIDE.columns, "wide").items()},
        {n: t.columns for n, t in tasks_of(declaration, WIDE.columns, "wide").items()},
    )


def test_patterns_leave_out_what_has_another_use() -> None:
    inputs = {"*": {"kind": "number"}, "x1": {"kind": "category"}}
    raw = spec(inputs, {"y*": FORECAST}, key="k", time="t")
    assert columns_of(raw) == ({"*": ("x0", "x2"), "x1": ("x1",)}, {"y*": ("y0", "y1")})
    raw = spec({"x0": {"kind": "number"}}, {"*": FORECAST, "y0": FORECAST}, key="k", time="t")
    assert columns_of(raw)[1] == {"*": ("x0", "x1", "x2", "y1"), "y0": ("y0",)}
    named = spec({"k": {"kind": "number"}, "x[02]": {"kind": "number"}}, {"y?": FORECAST}, key="k")
    assert columns_of(named) == ({"k": ("k",), "x[02]": ("x0", "x2")}, {"y?": ("y0", "y1")})


NUMBER, REGRESS = {"kind": "number"}, {"task": "regress"}
COLUMNS: list[tuple[dict[str, Any], str]] = [
    (
        spec({"x00": NUMBER}, {"y0": REGRESS}),
        "inputs.x00: expected a column of wide (t, x0, x1, x2, y0, y1, k), got no such column; "
        "did you mean 'x0'?",
    ),
    (
        spec({"z*": NUMBER}, {"y0": REGRESS}),
        "inputs.z*: expected a column of wide (t, x0, x1, x2, y0, y1, k), got no such column; "
        "correct the name",
    ),
    (
        spec({"x0": NUMBER}, {"price": REGRESS}),
        "outputs.price: expected a column of wide (t, x0, x1, x2, y0, y1, k), "
        "got no such column; correct the name",
    ),
    (
        spec({"x0": NUMBER, "y?": NUMBER}, {"y*": REGRESS}),
        "inputs.y?: expected columns for this pattern, got only y0, y1, which have another use; "
        "remove the pattern",
    ),
    (
        spec({"x0": NUMBER, "y0": NUMBER}, {"y0": REGRESS}),
        "inputs.y0: expected a column that is not to be predicted, got the target of regress; "
        "remove it from the inputs",
    ),
    (
        spec({"x*": {"kind": "many_hot"}}, {"y0": REGRESS}),
        "inputs.x*.kind: expected one column for kind many_hot, got x0, x1, x2; "
        "declare each column on its own",
    ),
    (
        {**spec({"x0": NUMBER}, {"t": REGRESS}), "data": {"rows": "steps", "time": "t"}},
        "outputs.t: expected neither data.key nor data.time, got the time; predict another column",
    ),
    (
        spec({"x0": NUMBER}, {"y*": {"task": "classify"}}),
        "outputs.y*.task: expected one column for task classify, got y0, y1; "
        "declare each column on its own, or labels: many",
    ),
    (
        spec({"x0": {"kind": "text"}}, {"y0": REGRESS}),
        "inputs.x0.kind: expected a kind with a value per row, got text where rows are steps; "
        "declare kind category, or rows: examples",
    ),
    (
        spec({"x0": NUMBER}, {"y0": FORECAST, "y1": REGRESS}),
        "outputs: expected forecasts of one horizon, or no forecast, got y0 (forecast), "
        "y1 (regress); declare two models",
    ),
    (
        spec({"x0": NUMBER}, {"y0": FORECAST, "y1": {"task": "forecast", "horizon": 2}}),
        "outputs: expected forecasts of one horizon, or no forecast, got y0 (forecast), "
        "y1 (forecast); declare two models",
    ),
]


@pytest.mark.parametrize(("raw", "expected"), COLUMNS)
def test_columns_that_do_not_fit_are_errors(raw: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        columns_of(raw)
    assert str(caught.value) == expected


def test_a_key_or_a_time_that_is_not_there_is_an_error() -> None:
    assert message(long("aa", [1, 2]), spec(key="kk")) == (
        "frame: expected a column 'kk', got the columns k, t, x, y; did you mean 'k'?"
    )


# Rows that are examples ---------------------------------------------------------------------------


def examples(inputs: Any, outputs: Any = None, **data: Any) -> dict[str, Any]:
    outputs = outputs or {"y": {"task": "regress"}}
    return {"data": {"rows": "examples", **data}, "inputs": inputs, "outputs": outputs}


LISTS = {"x": [[1.0, 2.0], [], [3.0], None], "y": [1.0, 2.0, 3.0, 4.0]}


def test_a_list_is_a_sequence_and_may_be_empty() -> None:
    found = made(pl.DataFrame(LISTS, strict=False), examples({"x": {"kind": "number"}}))
    assert found.lengths.tolist() == [2, 0, 1, 0]
    assert found.steps["x"].to_list() == [1, 2, 3]
    assert found.times.tolist() == [0, 1, 0]
    assert found.static["y"].to_list() == [1, 2, 3, 4]
    assert found.keys.to_list() == [0, 1, 2, 3]
    assert found.place(2) == "row 3"


def test_a_text_is_a_sequence_of_characters() -> None:
    frame = pl.DataFrame({"x": ["ab", "", None, "ü\n"], "y": [1.0, 2.0, 3.0, 4.0]})
    found = made(frame, examples({"x": {"kind": "text"}}))
    assert found.lengths.tolist() == [2, 0, 0, 2]
    assert found.steps["x"].to_list() == ["a", "b", "ü", "\n"]


def test_lists_of_lists_are_steps_of_lists() -> None:
    frame = pl.DataFrame({"x": [[[60, 64], []], [[1]]]})
    found = made(frame, examples({"x": {"kind": "many_hot"}}, {"x": {"task": "next"}}))
    assert found.lengths.tolist() == [2, 1]
    assert found.steps["x"].to_list() == [[60, 64], [], [1]]


def test_a_key_names_examples_and_must_be_unique() -> None:
    frame = pl.DataFrame(LISTS, strict=False).with_columns(k=pl.Series(["a", "b", "c", "d"]))
    raw = examples({"x": {"kind": "number"}}, key="k")
    assert made(frame, raw).keys.to_list() == ["a", "b", "c", "d"]
    twice = frame.with_columns(k=pl.Series(["a", "b", "b", "d"]))
    assert message(twice, raw) == (
        "frame: column 'k': expected one row per key, got 'b' twice; make keys unique"
    )


def test_unequal_lengths_are_an_error_that_names_the_row() -> None:
    frame = pl.DataFrame({"x": [[1.0], [1.0, 2.0]], "z": [[1.0], [1.0]], "y": [1.0, 2.0]})
    raw = examples({"x": {"kind": "number"}, "z": {"kind": "number"}})
    assert message(frame, raw) == (
        "frame: row 2: expected 2 steps in 'z', as in 'x', got 1; "
        "give every per-step column of an example the same length, "
        "or declare one of the two as `role: apart`"
    )


def test_a_cell_that_is_no_sequence_is_an_error() -> None:
    frame = pl.DataFrame({"x": [[1.0], [2.0]], "z": [1.0, 2.0], "y": [1.0, 2.0]})
    raw = examples({"x": {"kind": "number"}, "z": {"kind": "number"}})
    assert message(frame, raw) == (
        "frame: column 'z': expected a list or a text in every cell (rows are examples), "
        "got Float64; declare `role: static`, or `data: {rows: steps}`"
    )


def test_an_example_without_inputs_by_step_is_one_step() -> None:
    frame = pl.DataFrame({"z": [1.0, 2.0], "y": [1.0, 2.0]})
    static = examples({"z": {"kind": "number", "role": "static"}})
    assert made(frame, static).lengths.tolist() == [1, 1]


TIMED = {
    "x": [[1.0, 2.0], [], [3.0, 4.0]],
    "t": [[5, 9], [], [2, 1]],
    "y": [1.0, 2.0, 3.0],
}


def test_times_of_examples_rise_or_are_sorted() -> None:
    frame, inputs = pl.DataFrame(TIMED), {"x": {"kind": "number"}}
    found = made(frame, examples(inputs, time="t", sort=True))
    assert found.times.tolist() == [5, 9, 1, 2]
    assert found.steps["x"].to_list() == [1, 2, 4, 3]
    assert message(frame, examples(inputs, time="t")) == (
        "frame: column 't', row 3, step 2: expected times that rise within a key, got 1 after 2; "
        "sort the rows or declare `data: {sort: true}`"
    )


# Pieces -------------------------------------------------------------------------------------------


def test_cutting_takes_the_steps_between() -> None:
    frame = long("aaabbbcc", [1, 2, 3, 1, 2, 3, 1, 2])
    found = made(frame, spec(**KEYED))
    rows, start, length = np.array([2, 0, 0]), np.array([1, 1, 0]), np.array([1, 2, 0])
    cut = found.cut(rows, start, length)
    assert cut.steps["x"].to_list() == [7, 1, 2]
    assert cut.times.tolist() == [2, 2, 3]
    assert cut.keys.to_list() == ["c", "a", "a"]
    assert cut.offsets.tolist() == [0, 1, 3, 3]
    none = found.cut(*[np.zeros(0, np.int64)] * 3)
    assert (none.count, none.total, none.steps.height) == (0, 0, 0)


def test_many_pieces_equal_few() -> None:
    count = 3000
    frame = pl.DataFrame({"k": np.repeat(np.arange(count), 3), "t": np.tile([1, 2, 3], count)})
    frame = frame.with_columns(x=pl.int_range(3 * count), y=1.0)
    found = made(frame, spec(**KEYED))
    rows = np.arange(0, count, 2)
    cut = found.cut(rows, np.ones_like(rows), np.full_like(rows, 2))
    assert cut.steps["x"].to_list() == spans(3 * rows + 1, np.full_like(rows, 2)).tolist()
    assert cut.times.tolist() == [2, 3] * len(rows)
