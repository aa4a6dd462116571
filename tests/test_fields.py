"""Kinds of input: laws over all, and numbers against NumPy."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import FIELDS, LENGTHS, STEPS, FieldRow
from torch import Tensor

from segue.data.read import read
from segue.errors import DataError
from segue.fields import KINDS, Encoder, Field
from segue.fields.category import Category
from segue.fields.many_hot import ManyHot
from segue.fields.number import Number, moments
from segue.fields.text import Text
from segue.fields.timestamp import CYCLES, Timestamp, seconds
from segue.fields.vocabulary import unworded, words
from segue.ragged import Ragged
from segue.run import declare
from segue.train import prepare

every_row = pytest.mark.parametrize("row", FIELDS, ids=[row.name for row in FIELDS])


def field_of(kind: str, columns: tuple[str, ...] = ("x",), **options: Any) -> Field:
    spec = KINDS[kind].Spec.model_validate({"kind": kind, **options})
    return KINDS[kind]("x", columns, spec)


def fitted(kind: str, values: Any, **options: Any) -> Field:
    field = field_of(kind, **options)
    field.fit(pl.DataFrame({"x": values}))
    return field


def encoded(field: Field, values: Any) -> Tensor:
    return field.encode(pl.DataFrame({"x": values}), "rows")


def message(field: Field, values: Any) -> str:
    with pytest.raises(DataError) as caught:
        encoded(field, values)
    return str(caught.value)


def batch(row: FieldRow, field: Field) -> tuple[Ragged, Tensor, Tensor]:
    """The other rows of the catalogue as sequences, with uneven times, and the time elapsed."""
    x = Ragged(field.encode(row.other, "rows"), torch.tensor(LENGTHS))
    gaps = np.random.default_rng(0).integers(1, 9, STEPS).astype(float)
    own = [gaps[start:stop] for start, stop in pairwise(x.offsets.tolist())]
    times = np.concatenate([part.cumsum() for part in own])
    elapsed = np.concatenate([np.append(0.0, part[1:])[: len(part)] for part in own])
    return x, torch.from_numpy(times), torch.from_numpy(elapsed)


def unrolled(encoder: Encoder, x: Ragged, times: Tensor, elapsed: Tensor, state: Any) -> Any:
    with torch.no_grad():
        return encoder.unroll(x, times, elapsed, state)


def hold_equal(a: Any, b: Any) -> None:
    """To the bit; NaN says "never" in states."""
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.nan_to_num(-1.0), other.nan_to_num(-1.0))


# Laws ---------------------------------------------------------------------------------------------


def test_every_kind_has_a_row() -> None:
    assert {row.kind for row in FIELDS} == set(KINDS)


@every_row
def test_records_encode_as_their_table(row: FieldRow) -> None:
    field = row.fitted()
    columns = [field.column(c.name, c.to_list(), "records") for c in row.other]
    live = field.encode(pl.DataFrame(columns), "records")
    assert live.dtype == field.encode(row.other, "rows").dtype
    hold_equal([live], [field.encode(row.other, "rows")])


@every_row
def test_what_was_learnt_survives_json(row: FieldRow) -> None:
    field, other = row.fitted(), row.fresh()
    other.restore(json.loads(json.dumps(field.fitted())))
    assert other.fitted() == field.fitted()
    hold_equal([other.encode(row.other, "rows")], [field.encode(row.other, "rows")])
    torch.manual_seed(0)
    one = field.encoder()
    torch.manual_seed(0)
    two = other.encoder()
    x, times, elapsed = batch(row, field)
    state = one.initial_state(x.batch)
    a, b = unrolled(one, x, times, elapsed, state), unrolled(two, x, times, elapsed, state)
    hold_equal([a[0], *a[1]], [b[0], *b[1]])


@every_row
def test_encoding_leaves_what_was_learnt(row: FieldRow) -> None:
    field = row.fitted()
    before = json.dumps(field.fitted())
    field.encode(row.other, "rows")
    assert json.dumps(field.fitted()) == before


@every_row
def test_features_are_as_many_as_said_and_finite(row: FieldRow) -> None:
    field = row.fitted()
    x, times, elapsed = batch(row, field)
    encoder = field.encoder()
    features, _ = unrolled(encoder, x, times, elapsed, encoder.initial_state(x.batch))
    assert features.shape == (STEPS, encoder.features, *encoder.size)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


@every_row
@pytest.mark.parametrize("size", [1, 2, 4])
def test_chunks_equal_the_whole(row: FieldRow, size: int) -> None:
    field = row.fitted()
    x, times, elapsed = batch(row, field)
    encoder = field.encoder()
    whole, final = unrolled(encoder, x, times, elapsed, encoder.initial_state(x.batch))
    for b, (start, stop) in enumerate(pairwise(x.offsets.tolist())):
        state, parts = encoder.initial_state(1), [whole[:0]]
        for low in range(start, stop, size):
            some = slice(low, min(low + size, stop))
            chunk = Ragged(x.values[some], torch.tensor([some.stop - low]))
            part, state = unrolled(encoder, chunk, times[some], elapsed[some], state)
            parts.append(part)
        hold_equal([torch.cat(parts)], [whole[start:stop]])
        hold_equal(state, [leaf[b : b + 1] for leaf in final])


@every_row
def test_alone_equals_in_a_batch(row: FieldRow) -> None:
    field = row.fitted()
    x, times, elapsed = batch(row, field)
    encoder = field.encoder()
    whole, final = unrolled(encoder, x, times, elapsed, encoder.initial_state(x.batch))
    for b, (start, stop) in enumerate(pairwise(x.offsets.tolist())):
        own = slice(start, stop)
        alone = unrolled(encoder, x.select([b]), times[own], elapsed[own], encoder.initial_state(1))
        hold_equal([alone[0], *alone[1]], [whole[own], *(leaf[b : b + 1] for leaf in final)])


@every_row
def test_describe_is_one_line(row: FieldRow) -> None:
    described = row.fitted().describe()
    assert described and "\n" not in described


# Numbers ------------------------------------------------------------------------------------------


def test_numbers_are_scaled_by_the_training_rows() -> None:
    train, other = np.array([2.0, 4.0, 9.0]), np.array([0.0, 100.0])
    standard = fitted("number", train)
    expected = (other - train.mean()) / train.std()
    assert encoded(standard, other)[:, 0].tolist() == expected.astype(np.float32).tolist()
    minmax = fitted("number", train, scale="minmax")
    assert encoded(minmax, other)[:, 0].tolist() == ((other - 2) / 7).astype(np.float32).tolist()
    assert encoded(fitted("number", train, scale="none"), other)[:, 0].tolist() == [0.0, 100.0]


@pytest.mark.parametrize("scale", ["standard", "minmax"])
@pytest.mark.parametrize("value", [0.1, 0.0, -1e9, 1e-300])
def test_a_constant_column_becomes_zero(scale: str, value: float) -> None:
    field = fitted("number", [value] * 1000, scale=scale)
    assert encoded(field, [value]).item() == pytest.approx(0.0, abs=1e-15)
    assert encoded(field, [value + 2.0]).item() == pytest.approx(2.0)


def test_a_column_of_tiny_numbers_is_not_constant() -> None:
    train = np.array([1.0, 2.0, 3.0]) * 1e-15
    assert encoded(fitted("number", train), train)[:, 0].tolist() == pytest.approx(
        [-math.sqrt(1.5), 0, math.sqrt(1.5)], abs=1e-6
    )


def test_a_column_without_values_becomes_zero() -> None:
    field = fitted("number", pl.Series([None, None], dtype=pl.Float64))
    assert encoded(field, [3.0]).tolist() == [[3.0]]
    assert isinstance(field, Number) and field.gaps.tolist() == [True]


def test_moments_equal_numpy_over_many_blocks() -> None:
    values = np.random.default_rng(0).normal(1e6, 1e-2, 200_000)
    values[::7] = np.nan
    count, mean, deviation = moments(pl.Series(values).fill_nan(None), "rows")
    seen = values[~np.isnan(values)]
    assert count == len(seen)
    assert mean == pytest.approx(seen.mean(), rel=1e-14)
    assert deviation == pytest.approx(seen.std(), rel=1e-6)


def not_observed(values: Any, times: Any, shift: float, scale: float, unit: float) -> Any:
    """The features of one column of one sequence, in NumPy."""
    last, rows = None, []
    for value, time in zip(values, times, strict=True):
        if value is not None:
            last = time
        since = 0.0 if last is None else time - last
        scaled = 0.0 if value is None else (value - shift) / scale
        rows.append([scaled, float(value is not None), math.log1p(since / unit)])
    return np.array(rows)


def test_missing_numbers_are_values_flags_and_times_since() -> None:
    train = [None, 2.0, 4.0, None, 9.0]
    field = fitted("number", train)
    assert isinstance(field, Number)
    field.unit = 10.0
    first, second = [None, None, 5.0, None, None, 1.0], [7.0, None]
    times = [0.0, 3.0, 10.0, 15.0, 40.0, 41.0, 100.0, 130.0]
    x = Ragged(encoded(field, first + second), torch.tensor([6, 2]))
    encoder = field.encoder()
    features, state = unrolled(
        encoder, x, torch.tensor(times).double(), torch.zeros(8), encoder.initial_state(2)
    )
    shift, scale = 5.0, float(np.std([2.0, 4.0, 9.0]))
    expected = np.concatenate(
        [
            not_observed(first, times[:6], shift, scale, 10.0),
            not_observed(second, times[6:], shift, scale, 10.0),
        ]
    )
    assert np.abs(features.numpy() - expected).max() <= 1e-6
    assert state[0].tolist() == [[41.0], [100.0]]


def test_only_columns_with_gaps_in_the_training_rows_have_flags() -> None:
    field = field_of("number", ("a", "b", "c"))
    field.fit(pl.DataFrame({"a": [1.0, 2.0], "b": [1.0, None], "c": [3.0, 4.0]}))
    encoder = field.encoder()
    assert encoder.features == 3 + 2
    frame = pl.DataFrame({"a": [None, 1.0], "b": [1.0, 1.0], "c": [3.0, None]})
    x = Ragged(field.encode(frame.cast(pl.Float64), "rows"), torch.tensor([2]))
    zeros = torch.zeros(2, dtype=torch.float64)
    features, _ = unrolled(encoder, x, zeros, zeros, encoder.initial_state(1))
    # Missing where the training rows had no gap: 0 after scaling, and nothing says so.
    assert features.tolist() == [[0, 0, -1, 1, 0], [-1, 0, 0, 1, 0]]


def test_numbers_refuse_words_and_infinity() -> None:
    field = fitted("number", [1.0, 2.0])
    assert message(field, ["a", "b"]) == (
        "rows: column 'x': expected numbers, got String such as ['a']; "
        "declare another kind or correct the column"
    )
    values = [0.0] * 100_000 + [math.inf]
    assert message(field, values) == (
        "rows: column 'x', row 100001: expected a finite number, or nothing where it is missing, "
        "got inf; correct the value or leave the cell empty"
    )


def test_records_refuse_what_is_no_number() -> None:
    with pytest.raises(DataError) as caught:
        field_of("number").column("x", [1.0, "7"], "records")
    assert str(caught.value) == (
        "records: 'x': expected a number, or null where it is not observed, got '7'; correct it"
    )


# Categories and texts -----------------------------------------------------------------------------


def test_codes_go_by_falling_count_then_by_name() -> None:
    field = fitted("category", ["b", "c", "c", "a", None], unknown="allow")
    assert isinstance(field, Category)
    assert field.vocabularies[0].names == ("c", "a", "b")
    assert encoded(field, ["a", "b", "c", "new", None])[:, 0].tolist() == [2, 3, 1, 0, 0]


def test_an_unknown_category_is_an_error_unless_allowed() -> None:
    field = fitted("category", ["a", "b", "c", "d", "e", "f"])
    assert encoded(field, ["a", None])[:, 0].tolist() == [1, 0]
    assert message(field, ["a", "z"]) == (
        "rows: column 'x', row 2: expected one of the 6 values of the training rows "
        "(a, b, c, d, e, ...), got 'z'; correct it, or train with `inputs.x: {unknown: allow}`"
    )


def test_the_unknown_starts_as_nothing() -> None:
    encoder = fitted("category", ["a", "b"]).encoder()
    x = Ragged(torch.tensor([[0], [1]]), torch.tensor([2]))
    features, _ = unrolled(encoder, x, torch.zeros(2), torch.zeros(2), ())
    assert features[0].abs().sum() == 0
    assert features[1].abs().sum() > 0


def test_a_whole_number_is_the_same_word_in_every_type() -> None:
    assert words(pl.Series([7, None])).to_list() == ["7", None]
    assert words(pl.Series([7.0, 0.5])).to_list() == ["7", "0.5"]
    assert words(pl.Series([True])).to_list() == ["true"]
    assert unworded(["7", "9"], "UInt8").to_list() == [7, 9]
    assert unworded(["true", "false"], "Boolean").to_list() == [True, False]
    assert unworded(["2026-01-01"], "Date").to_list() == ["2026-01-01"]


def test_records_refuse_what_is_no_word() -> None:
    with pytest.raises(DataError) as caught:
        field_of("category").column("x", ["a", ["b"]], "records")
    assert str(caught.value) == (
        "records: 'x': expected a word, or null where it is not observed, got ['b']; correct it"
    )


def test_characters_never_seen_are_unknown() -> None:
    field = fitted("text", list("banana"))
    assert isinstance(field, Text)
    assert field.vocabulary.names == ("a", "n", "b")
    assert encoded(field, list("nabz"))[:, 0].tolist() == [2, 1, 3, 0]


def test_many_hot_is_one_for_each_element() -> None:
    field = fitted("many_hot", [[60, 64], [64], []])
    assert isinstance(field, ManyHot)
    assert field.vocabulary.names == ("64", "60")
    values = pl.Series([[60], [], None, [64, 60, 60], [1]], dtype=pl.List(pl.Int64))
    assert encoded(field, values).tolist() == [[0, 1], [0, 0], [0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("value", ["word", 7, [[60]]])
def test_many_hot_records_refuse_what_is_no_list(value: Any) -> None:
    with pytest.raises(DataError) as caught:
        field_of("many_hot").column("x", [[60], value], "records")
    assert str(caught.value) == (
        f"records: 'x': expected a list of elements, got {value!r}; give a list such as [60, 64]"
    )


def test_many_hot_refuses_a_column_without_lists() -> None:
    field = fitted("many_hot", [[60]])
    assert message(field, [60, 64]) == (
        "rows: column 'x': expected a list of elements at every step, got Int64 such as [60]; "
        "give lists such as [60, 64], or declare another kind"
    )


# Timestamps ---------------------------------------------------------------------------------------

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def clock(step: timedelta, count: int, start: datetime = datetime(2026, 1, 1)) -> pl.Series:
    return pl.Series([start + k * step for k in range(count)])


@pytest.mark.parametrize(
    ("step", "count", "cycles"),
    [
        (HOUR, 24, ()),
        (HOUR, 49, ("day",)),
        (HOUR, 24 * 15, ("day", "week")),
        (HOUR, 24 * 731, ("day", "week", "year")),
        (timedelta(hours=13), 100, ("week",)),
        (DAY, 800, ("week", "year")),
        (timedelta(days=7), 157, ("year",)),
        (timedelta(days=365), 50, ()),
    ],
)
def test_cycles_are_those_that_the_training_rows_resolve(
    step: timedelta, count: int, cycles: tuple[str, ...]
) -> None:
    field = fitted("timestamp", clock(step, count))
    assert isinstance(field, Timestamp)
    assert (field.cycles, field.uneven, field.unit) == (cycles, False, step.total_seconds())


def test_calendar_features_are_sin_and_cos_of_the_phase() -> None:
    field = fitted("timestamp", clock(HOUR, 24 * 15))
    # A Monday at 06:00: a quarter of the day, a 28th of the week.
    found = encoded(field, [datetime(2026, 1, 5, 6)])[0].tolist()
    week = 2 * math.pi / 28
    expected = [1.0, 0.0, math.sin(week), math.cos(week)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert CYCLES["year"] == 365.2425 * 86_400


def test_uneven_steps_are_a_feature() -> None:
    times = clock(HOUR, 60).to_list()
    field = fitted("timestamp", [time for k, time in enumerate(times) if k % 10])
    assert isinstance(field, Timestamp) and field.uneven and field.unit == 3600
    encoder = field.encoder()
    x = Ragged(encoded(field, times[:2]), torch.tensor([2]))
    elapsed = torch.tensor([0.0, 7200.0], dtype=torch.float64)
    features, _ = unrolled(encoder, x, torch.zeros(2), elapsed, ())
    assert features[:, -1].tolist() == pytest.approx([0.0, math.log(3.0)])


def test_a_step_in_a_hundred_may_be_odd() -> None:
    times = clock(HOUR, 203).to_list()
    field = fitted("timestamp", times[:100] + times[101:])
    assert isinstance(field, Timestamp) and not field.uneven


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T18:00:00",
        "2026-01-31 18:00",
        "2026/01/31 18:00:00",
        "2026-01-31T18:00:00Z",
        "2026-01-31T20:00:00+02:00",
        datetime(2026, 1, 31, 18),
        datetime(2026, 1, 31, 18, tzinfo=UTC),
        datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_a_moment_may_be_written_in_many_ways(value: Any) -> None:
    column = field_of("timestamp").column("x", [value], "records")
    assert column.to_list() == [datetime(2026, 1, 31, 18)]


@pytest.mark.parametrize(
    ("value", "day"),
    [("1949-02", date(1949, 2, 1)), ("1970 Q3", date(1970, 7, 1)), (date(2026, 1, 2), None)],
)
def test_months_quarters_and_days_are_moments(value: Any, day: date | None) -> None:
    column = field_of("timestamp").column("x", [value], "records")
    assert column.to_list() == [datetime.combine(day or value, datetime.min.time())]


@pytest.mark.parametrize("value", [None, "yesterday", 7, "2026-13-01"])
def test_records_refuse_what_is_no_moment(value: Any) -> None:
    with pytest.raises(DataError) as caught:
        field_of("timestamp").column("x", [value], "records")
    assert str(caught.value) == (
        f"records: 'x': expected a date or date-time, got {value!r}; "
        "write it as 2026-01-31 18:00:00"
    )


def test_a_zone_counts_in_utc() -> None:
    there = pl.Series([datetime(2026, 7, 1)]).dt.replace_time_zone("Europe/Berlin")
    here = pl.Series([datetime(2026, 6, 30, 22)])
    assert seconds(there, "rows").tolist() == seconds(here, "rows").tolist()


def test_times_refuse_other_types_and_empty_cells() -> None:
    field = fitted("timestamp", clock(HOUR, 10))
    assert message(field, [1, 2]) == (
        "rows: column 'x': expected dates or date-times, got Int64 such as [1]; "
        "write them as 2026-01-31 or 2026-01-31 18:00:00"
    )
    assert message(field, [timedelta(hours=1)]) == (
        "rows: column 'x': expected dates or date-times, got Duration(time_unit='us') such as "
        "[datetime.timedelta(seconds=3600)]; write them as 2026-01-31 or 2026-01-31 18:00:00"
    )
    assert message(field, [*clock(HOUR, 70_000), None]) == (
        "rows: column 'x', row 70001: expected a date, got an empty cell; fill it in"
    )


# Training rows only -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "train", "other"),
    [
        ("text", ["abba", "b"], ["xyz", "aaaa"]),
        ("many_hot", [[[60], []], [[64, 60]]], [[[1], [2]], [[60]]]),
        ("category", [["u", "v"], ["u"]], [["w", "v"], ["v"]]),
    ],
)
def test_vocabularies_are_those_of_the_training_rows(kind: str, train: Any, other: Any) -> None:
    found = []
    for held_out in (train, other):
        spec = {
            "data": {"rows": "examples", "split": {"by": "given", "column": "part"}},
            "inputs": {"x": {"kind": kind, **({"unknown": "allow"} if kind == "category" else {})}},
            "outputs": {"x": {"task": "next"}},
        }
        parts = ["train", "train", "test", "test"]
        table = read(pl.DataFrame({"x": [*train, *held_out], "part": parts}))
        trained, _, _ = prepare(table, declare(spec))
        found.append((trained.fields["x"].fitted(), trained.tasks["x"].fitted()))
    assert found[0] == found[1]


# Numbers that drift -------------------------------------------------------------------------------


def test_a_limit_squeezes_what_is_far_and_leaves_what_is_near() -> None:
    options = {"kind": "number", "scale": "none", "limit": 2.0}
    field = KINDS["number"]("x", ("x",), KINDS["number"].Spec.model_validate(options))
    frame = pl.DataFrame({"x": [0.01, -2.0, 1e6, None]})
    field.fit(frame)
    found = field.encode(frame, "rows")[:, 0]
    assert found[:3].tolist() == pytest.approx([0.01, 2 * np.tanh(-1), 2.0], rel=1e-4)
    assert found[3].isnan()


def test_differences_are_changes_in_units_of_the_usual_change() -> None:
    options = {"kind": "number", "scale": "none", "differences": True}
    field = KINDS["number"]("x", ("x",), KINDS["number"].Spec.model_validate(options))
    field.fit(pl.DataFrame({"x": [0.0, 1.0, 4.0]}))
    encoder = field.encoder()
    frame = pl.DataFrame({"x": [5.0, 9.0, None, 9.0, 8.0, 1.0, 2.0]})
    steps = Ragged(field.encode(frame, "rows"), torch.tensor([5, 0, 2]))
    times = torch.zeros(7, dtype=torch.float64)
    found, _ = encoder.unroll(steps, times, times, encoder.initial_state(3))
    # The mean change of the training rows is 2; nothing stands before the first of a sequence.
    assert found[:, -1].tolist() == [0.0, 2.0, 0.0, 0.0, -0.5, 0.0, 0.5]
