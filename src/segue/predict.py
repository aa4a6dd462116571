"""Predictions for data without answers: of every sequence, of every step, or of the future."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from segue.errors import DataError
from segue.sequences import Sequences, spans
from segue.trained import Trained


def predict(trained: Trained, source: Any, ahead: Any = None) -> pl.DataFrame:
    """Predictions in the user's terms.

    Tasks at the end of a sequence give one row per sequence; tasks at every step one row per step; forecasts the S steps
    after the last row of every sequence, with their times: the real future, for which no rows need to be made up.

    Args:
        ahead: the future of inputs declared as known ahead: a table with the key, the time and these columns, S rows per
            sequence. Calendars need nothing.

    Raises:
        DataError: the data lack what the model reads.
    """
    sequences = trained.sequences(source)
    if trained.forecasts:
        return _future(trained, sequences, ahead)
    store = trained.store(sequences, targets=False)
    rows = np.arange(sequences.count)
    outputs = trained.outputs(store, rows, np.zeros_like(rows), sequences.lengths)
    every = [name for name, task in trained.tasks.items() if task.every]
    by_end = (
        pl.DataFrame([sequences.keys])
        if trained.declaration.data.key
        else pl.DataFrame({"row": rows})
    )
    by_end = by_end.rename({"key": trained.declaration.data.key or "row"}, strict=False)
    ends = [task.decode(outputs[name]) for name, task in trained.tasks.items() if not task.every]
    by_end = pl.concat([by_end, *ends], how="horizontal")
    if not every:
        return by_end
    # Answers at the end stand on every step of their sequence.
    by_step = by_end[np.repeat(rows, sequences.lengths)]
    times = trained.clock.values(sequences.times)
    steps = [trained.tasks[name].decode(outputs[name]) for name in every]
    return pl.concat([by_step, pl.DataFrame([times]), *steps], how="horizontal")


def _future(trained: Trained, sequences: Sequences, ahead: Any) -> pl.DataFrame:
    """S rows per sequence, from the step after its last."""
    if not sequences.lengths.all():
        key = sequences.keys[int((sequences.lengths == 0).argmax())]
        raise DataError(
            sequences.origin,
            "at least one step of every sequence",
            f"none for key {key!r}",
            "remove it",
        )
    horizon = trained.horizon
    last = sequences.times[sequences.offsets[1:] - 1]
    times = trained.clock.after(last, horizon)
    longer = _with_future(trained, sequences, times, ahead)
    store = trained.store(longer, targets=False)
    rows = np.arange(sequences.count)
    outputs = trained.outputs(store, rows, sequences.lengths - 1, sequences.lengths)
    columns: list[pl.Series] = []
    if trained.declaration.data.key:
        columns.append(sequences.keys[np.repeat(rows, horizon)].alias(trained.declaration.data.key))
    columns.append(trained.clock.values(times.reshape(-1)))
    answers = [task.decode(outputs[name]) for name, task in trained.tasks.items()]
    return pl.concat([pl.DataFrame(columns), *answers], how="horizontal")


def _with_future(
    trained: Trained, sequences: Sequences, times: np.ndarray[Any, Any], ahead: Any
) -> Sequences:
    """The sequences with S rows each after their last, which hold what is known ahead and are never read as past."""
    horizon, count = trained.horizon, sequences.count
    known = {column for name in trained.network.known for column in trained.fields[name].columns}
    given = _given(trained, known - {trained.clock.column}, sequences, times, ahead)
    columns = []
    for series in sequences.steps:
        if series.name == trained.clock.column:
            future = trained.clock.values(times.reshape(-1)).cast(series.dtype)
        elif series.name in given:
            future = given[series.name].cast(series.dtype)
        else:
            future = pl.Series(series.name, [None] * (count * horizon), dtype=series.dtype)
        columns.append(pl.concat([series, future.alias(series.name)]))
    # The last known values of all sequences, then the future of each: put into sequence order.
    start = np.stack(
        [sequences.offsets[:-1], sequences.total + np.arange(count) * horizon], axis=1
    ).reshape(-1)
    length = np.stack([sequences.lengths, np.full(count, horizon)], axis=1).reshape(-1)
    index = spans(start, length)
    frame = pl.DataFrame(columns)
    return replace(
        sequences,
        steps=frame[index] if columns else frame,
        lengths=sequences.lengths + horizon,
        times=np.concatenate([sequences.times, times.reshape(-1)])[index],
    )


def _given(
    trained: Trained,
    columns: set[str],
    sequences: Sequences,
    times: np.ndarray[Any, Any],
    ahead: Any,
) -> dict[str, pl.Series]:
    """The future of the declared columns, S values per sequence in order."""
    if not columns:
        return {}
    horizon, data = trained.horizon, trained.declaration.data
    where = "ahead"
    if ahead is None:
        got, fix = "none", f"give a table with S = {horizon} rows per sequence"
        raise DataError(where, f"the future of {', '.join(sorted(columns))}", got, fix)
    frame = trained.read(ahead).frame
    needed = [*columns, *([data.key] if data.key else [])]
    absent = [column for column in needed if column not in frame.columns]
    if absent:
        raise DataError(where, f"a column {absent[0]!r}", ", ".join(frame.columns), "add it")
    found: dict[str, list[Any]] = {column: [] for column in columns}
    for key in sequences.keys:
        own = frame.filter(pl.col(data.key) == key) if data.key else frame
        if own.height < horizon:
            raise DataError(
                f"{where}: key {key!r}", f"{horizon} rows", str(own.height), "add the missing rows"
            )
        own = own.sort(data.time) if data.time in own.columns and data.time else own
        for column in columns:
            found[column].extend(own[column][:horizon].to_list())
    owner = {
        column: trained.fields[name]
        for name in trained.network.known
        for column in trained.fields[name].columns
    }
    return {column: owner[column].column(column, values, where) for column, values in found.items()}
