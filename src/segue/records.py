"""Records as they come in live, to a batch; outputs, to predictions as they go out.

There are two ways from records to a batch. The short one takes what nearly all records are: plain
values of the right kind, complete and in time order. For anything else it gives up, and the long
one, which goes through tables as files do, encodes it all the same or says what is wrong. Where
the short way succeeds, its bits are those of the long one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from segue.data.store import Pieces
from segue.errors import DataError
from segue.fields import Field
from segue.fields.field import Values, raw_column
from segue.fields.number import numbers, plain_numbers
from segue.fields.timestamp import moments, plain_seconds, seconds
from segue.inference import Arrays, Leaf
from segue.sequences import Sequences
from segue.trained import Trained

Record: TypeAlias = Mapping[str, Any]
"""A record as it comes in: a value for every per-step input, None where it is not observed."""

Prediction: TypeAlias = dict[str, Any]
"""A record as it goes out, in the user's terms; a forecast has a list of S values per column."""

Key: TypeAlias = str | int
"""What tells one sequence from another."""

Get: TypeAlias = Callable[[Record], Values]


class Reader:
    """What a model reads from records, and says.

    Args:
        trained: a causal model.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained, self._clock = trained, trained.clock
        # S of forecasts, which answer with S values per record; None for other tasks.
        self._horizon = trained.horizon if trained.forecasts else None
        inputs, known = trained.declaration.inputs, trained.network.known
        roles = {name: inputs[name].role for name in trained.fields}
        once = ("static", "apart")
        self._static = {n: f for n, f in trained.fields.items() if roles[n] in once}
        self._apart = any(role == "apart" for role in roles.values())
        self._steps = {n: f for n, f in trained.fields.items() if roles[n] not in once}
        self._series = {n: t for n, t in trained.tasks.items() if t.reads_series}
        self._known = {name: trained.fields[name] for name in known}
        self._owner = {c: field for field in trained.fields.values() for c in field.columns}
        self.static_columns = _columns(self._static)
        self._step_columns = _columns({**self._steps, **self._series})
        self._get = {name: _getter(field.columns) for name, field in trained.fields.items()}
        self._get_series = {name: _getter(task.columns) for name, task in self._series.items()}

    def static(self, record: Record, place: str) -> Record:
        """The static inputs in the first record of a sequence.

        Raises:
            DataError: one is not there.
        """
        return {column: _value(record, column, place) for column in self.static_columns}

    def batch(
        self,
        records: Mapping[Key, list[Record]],
        static: Mapping[Key, Record],
        clock: NDArray[np.float64],
    ) -> tuple[Arrays, NDArray[np.float64]]:
        """Records of P keys as a batch, and their times.

        Args:
            records: at least one of each key.
            static: the static inputs of each key.
            clock: the time of the last record of each key ``[P]``; NaN before the first.

        Raises:
            DataError: a record lacks something, holds something of another kind, or is not later
                than the one before.
        """
        try:
            found = None if self._apart else self._short(records, static, clock)
        except KeyError:
            found = None
        return self._long(records, static, clock) if found is None else found

    # The short way

    def _short(
        self,
        records: Mapping[Key, list[Record]],
        static: Mapping[Key, Record],
        clock: NDArray[np.float64],
    ) -> tuple[Arrays, NDArray[np.float64]] | None:
        """None, or a KeyError, where the long way is to be taken."""
        flat = [record for several in records.values() for record in several]
        lengths = np.array([len(several) for several in records.values()], np.int64)
        times = self._plain_times(flat, lengths, clock)
        if times is None:
            return None
        inputs = self._plain(self._steps, flat)
        fixed = self._plain(self._static, [static[key] for key in records])
        ahead = self._plain_ahead(flat, times)
        series = {}
        for name, task in self._series.items():
            values = task.plain_past([self._get_series[name](record) for record in flat])
            if values is None:
                return None
            series[name] = values
        if inputs is None or fixed is None or ahead is None:
            return None
        at = np.arange(len(flat))
        return Arrays(inputs, fixed, series, times, lengths, at, ahead), times

    def _plain(
        self, fields: Mapping[str, Field], records: Sequence[Record]
    ) -> dict[str, Leaf] | None:
        found = {}
        for name, field in fields.items():
            encoded = field.plain([self._get[name](record) for record in records])
            if encoded is None:
                return None
            found[name] = encoded
        return found

    def _plain_times(
        self, flat: list[Record], lengths: NDArray[np.int64], clock: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        column = self._clock.column
        if column is None:
            return _counted(lengths, clock)
        if self._clock.dates:
            times = plain_seconds([record[column] for record in flat])
        else:
            values = plain_numbers([(record[column],) for record in flat])
            times = None if values is None else values[:, 0]
        if times is None or not (times > _before(times, lengths, clock)).all():
            return None
        return times

    def _plain_ahead(
        self, flat: list[Record], times: NDArray[np.float64]
    ) -> dict[str, Leaf] | None:
        horizon, clock = self._horizon or 0, self._clock
        found = {}
        for name, field in self._known.items():
            if clock.column in field.columns:
                rows: list[Values] = [(t,) for t in clock.listed(clock.after(times, horizon))]
            elif any(type(record["ahead"]) is not dict for record in flat):
                return None
            else:
                given = [self._get[name](record["ahead"]) for record in flat]
                if any(type(v) is not list or len(v) != horizon for row in given for v in row):
                    return None
                rows = [row for columns in given for row in zip(*columns, strict=True)]
            encoded = field.plain(rows)
            if encoded is None:
                return None
            found[name] = encoded.reshape(len(flat), horizon, *encoded.shape[1:])
        return found

    # The long way

    def _long(
        self,
        records: Mapping[Key, list[Record]],
        static: Mapping[Key, Record],
        clock: NDArray[np.float64],
    ) -> tuple[Arrays, NDArray[np.float64]]:
        flat = [record for several in records.values() for record in several]
        places = [
            place_of(key, row, len(records) == 1)
            for key, several in records.items()
            for row in range(len(several))
        ]
        lengths = np.array([len(several) for several in records.values()], np.int64)
        times = self._times(flat, places, lengths, clock)
        steps = []
        for column in self._step_columns:
            values = _values(flat, column, places)
            if column in self._owner:
                steps.append(self._owner[column].column(column, values, "records"))
            else:
                steps.append(raw_column(column, values, pl.Float64, "a number", "records"))
        fixed = [
            self._cells(column, [static[key][column] for key in records])
            for column in self.static_columns
        ]
        sequences = Sequences(
            steps=pl.DataFrame(steps),
            lengths=lengths,
            keys=pl.Series("key", [str(key) for key in records]),
            static=pl.DataFrame(fixed),
            times=times,
            has_time=self._clock.column is not None,
            origin="records",
        )
        store = self.trained.store(sequences, targets=False)
        zero = np.zeros(len(lengths), np.int64)
        batch = store.batch(Pieces(np.arange(len(lengths)), zero, lengths), np.arange(len(flat)))
        if self._horizon is not None:
            batch = replace(batch, ahead=self._ahead(times, flat, places))
        return Arrays.of(batch), times

    def _cells(self, column: str, values: list[Any]) -> pl.Series:
        """Static values, and whole sequences of inputs apart, as a raw column."""
        field = self._owner[column]
        if self.trained.declaration.inputs[field.name].role == "static":
            return field.column(column, values, "records")
        return pl.Series(column, values, strict=False)

    def _times(
        self,
        flat: list[Record],
        places: list[str],
        lengths: NDArray[np.int64],
        clock: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The time of every record: what it says, or, where the data have none, its number.

        Raises:
            DataError: there is none, or it is not later than that of the record before.
        """
        column, told = self._clock.column, self._clock
        if column is None:
            return _counted(lengths, clock)
        values = _values(flat, column, places)
        if told.dates:
            times = seconds(moments(column, values, "records"), "records")
        else:
            series = raw_column(column, values, pl.Float64, "a number", "records")
            times = numbers(series, "records")
        before = _before(times, lengths, clock)
        refused = ~(times > before)
        if refused.any():
            row = int(refused.argmax())
            expected = "a time"
            if np.isfinite(before[row]):
                expected += f" after {told.values(before[[row]])[0]}"
            fix = "send the records of a sequence in time order"
            raise DataError(f"{places[row]}: {column!r}", expected, str(values[row]), fix)
        return times

    def _ahead(
        self, times: NDArray[np.float64], flat: list[Record], places: list[str]
    ) -> dict[str, Tensor]:
        """The encoded inputs known ahead of every record, ``[M, S, ...]``."""
        horizon, clock = self._horizon or 0, self._clock
        found = {}
        for name, field in self._known.items():
            columns = []
            for column in field.columns:
                if column == clock.column:
                    columns.append(clock.values(clock.after(times, horizon).reshape(-1)))
                    continue
                values = [
                    value
                    for record, place in zip(flat, places, strict=True)
                    for value in _given_ahead(record, column, horizon, place)
                ]
                columns.append(field.column(column, values, "records"))
            encoded = field.encode(pl.DataFrame(columns), "records")
            found[name] = encoded.reshape(len(flat), horizon, *encoded.shape[1:])
        return found

    # From outputs to predictions

    def predictions(
        self, outputs: Mapping[str, Leaf], times: NDArray[np.float64]
    ) -> list[Prediction]:
        """A prediction for each record."""
        made: list[Prediction] = [{} for _ in times]
        for name, task in self.trained.tasks.items():
            for column, values in task.answers(outputs[name]).items():
                self._deal(made, column, values)
        if self._horizon is not None and self._clock.column is not None:
            future = self._clock.after(times, self._horizon)
            self._deal(made, self._clock.column, self._clock.listed(future))
        return made

    def _deal(self, made: list[Prediction], column: str, values: list[Any]) -> None:
        size = self._horizon
        for index, prediction in enumerate(made):
            prediction[column] = (
                values[index] if size is None else values[index * size : (index + 1) * size]
            )


def _columns(parts: Mapping[str, Any]) -> list[str]:
    """All columns that these read, each once."""
    return list(dict.fromkeys(column for part in parts.values() for column in part.columns))


def _getter(columns: tuple[str, ...]) -> Get:
    if len(columns) == 1:
        (column,) = columns
        return lambda record: (record[column],)
    get: Get = itemgetter(*columns)
    return get


def place_of(key: Key, row: int, is_single: bool) -> str:
    """What to call a record in a message."""
    return f"record {row + 1}" if is_single else f"key {key!r}, record {row + 1}"


def _values(flat: list[Record], column: str, places: list[str]) -> list[Any]:
    return [_value(record, column, place) for record, place in zip(flat, places, strict=True)]


def _value(record: Record, column: str, where: str) -> Any:
    if column not in record:
        got = "only " + ", ".join(map(str, record)) if record else "an empty record"
        fix = "add it; null says that it is not observed"
        raise DataError(where, f"a value for {column!r}", got, fix)
    return record[column]


def _counted(lengths: NDArray[np.int64], clock: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times where the data have none: the number of each record in its sequence, from 0."""
    since = np.where(np.isnan(clock), -1.0, clock) + 1 - (np.cumsum(lengths) - lengths)
    counted: NDArray[np.float64] = np.arange(lengths.sum()) + np.repeat(since, lengths)
    return counted


def _before(
    times: NDArray[np.float64], lengths: NDArray[np.int64], clock: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The time of the record before each; minus infinity before the first of a sequence."""
    begin: NDArray[np.float64] = np.where(np.isnan(clock), -np.inf, clock)
    if len(times) == len(clock):
        return begin
    before = np.concatenate([[-np.inf], times[:-1]])
    before[np.cumsum(lengths) - lengths] = begin
    return before


def _given_ahead(record: Record, column: str, horizon: int, where: str) -> Sequence[Any]:
    ahead = record.get("ahead")
    given = ahead.get(column) if isinstance(ahead, Mapping) else None
    if not isinstance(given, list | tuple) or len(given) != horizon:
        got = f"{len(given)} values" if isinstance(given, list | tuple) else "none"
        expected, fix = f"a list of the next {horizon} values", "it is declared as known ahead"
        raise DataError(f"{where}: ahead.{column}", expected, got, fix)
    return given
