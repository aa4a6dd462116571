"""Predictions for data without answers: of every sequence, of every step, or of the future."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from segue.data.store import Store
from segue.errors import DataError
from segue.fields.number import numbers
from segue.fields.timestamp import seconds
from segue.sequences import Part, Sequences, rows_of, spans
from segue.torch_defaults import with_torch_defaults
from segue.trained import Trained


def predict(trained: Trained, source: Any, ahead: Any = None) -> pl.DataFrame:
    """Predictions in the user's terms.

    Tasks at the end of a sequence give one row per sequence; tasks at every step one row per step
    (on which the answers at the end stand too); forecasts the S steps after the last row of every
    sequence, with their times: the real future, for which no rows need to be made up.

    Args:
        ahead: the future of inputs declared as known ahead: a table with the key, the time and
            these columns, which has S rows per sequence after its last. Calendars need nothing.

    Returns:
        the key (or the row, counted from 0), the time of the step where there is one, and the
        columns of each task; see `segue.tasks.Task.decode`.

    Raises:
        DataError: the data lack what the model reads.
    """
    return predicted(trained, source, ahead)[0]


@with_torch_defaults
def predicted(
    trained: Trained, source: Any, ahead: Any = None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """What `predict` gives, and lines on what was left out or is unknown."""
    sequences = trained.sequences(source)
    if trained.horizon:
        return _future(trained, sequences, ahead), ()
    store = trained.store(sequences, targets=False)
    answers = _answers(trained, sequences, store)
    return answers, (*sequences.left_out, *store.remarks(Part.whole(sequences)))


def _answers(trained: Trained, sequences: Sequences, store: Store) -> pl.DataFrame:
    """A row per sequence, or per step."""
    rows = np.arange(sequences.count)
    outputs = trained.outputs(store, rows, np.zeros_like(rows), sequences.lengths)
    every = [name for name, task in trained.tasks.items() if task.every and not task.whole]
    key = trained.declaration.data.key
    # Where rows were left out, the keys tell which are there.
    is_named = key is not None or sequences.skipped > 0
    names = sequences.keys.alias(key or "row") if is_named else pl.Series("row", rows)
    lengths = torch.from_numpy(sequences.lengths)
    ends = [
        task.decode_whole(outputs[name], lengths, sequences)
        if task.whole
        else task.decode(outputs[name])
        for name, task in trained.tasks.items()
        if name not in every
    ]
    by_end = pl.concat([pl.DataFrame([names]), *ends], how="horizontal")
    if not every:
        return by_end
    by_step = by_end[np.repeat(rows, sequences.lengths)]
    times = trained.clock.values(sequences.times)
    steps = [trained.tasks[name].decode(outputs[name]) for name in every]
    return pl.concat([by_step, pl.DataFrame([times]), *steps], how="horizontal")


def _future(trained: Trained, sequences: Sequences, ahead: Any) -> pl.DataFrame:
    """S rows per sequence, from the step after its last."""
    if not sequences.lengths.all():
        key = sequences.keys[int((sequences.lengths == 0).argmax())]
        got = f"none for key {key!r}"
        expected = "at least one step of every sequence"
        raise DataError(sequences.origin, expected, got, "remove it")
    horizon, key = trained.horizon, trained.declaration.data.key
    times = trained.clock.after(sequences.times[sequences.offsets[1:] - 1], horizon)
    longer = sequences
    if trained.forecasts:
        longer = _with_future(trained, sequences, times, ahead)
    store = trained.store(longer, targets=False)
    rows = np.arange(sequences.count)
    outputs = trained.outputs(store, rows, sequences.lengths - 1, sequences.lengths)
    columns = [sequences.keys[np.repeat(rows, horizon)].alias(key)] if key else []
    if not (key or trained.forecasts):
        columns = [pl.Series("row", np.repeat(rows, horizon))]
    columns.append(trained.clock.values(times.reshape(-1)))
    answers = [task.decode(outputs[name]) for name, task in trained.tasks.items()]
    return pl.concat([pl.DataFrame(columns), *answers], how="horizontal")


def _with_future(
    trained: Trained, sequences: Sequences, times: NDArray[np.float64], ahead: Any
) -> Sequences:
    """The sequences with S rows each after their last, for what is known ahead.

    These rows are never read as past. Their times are `times` ``[B, S]``.
    """
    count, horizon = times.shape
    given = _given(trained, sequences, ahead)
    columns = []
    for series in sequences.steps:
        if series.name == trained.clock.column:
            future = trained.clock.values(times.reshape(-1))
        else:
            future = given.get(series.name, pl.Series([None] * (count * horizon)))
        columns.append(pl.concat([series, future.cast(series.dtype).alias(series.name)]))
    # The past of all sequences, then the future of each: put into sequence order.
    start = np.stack([sequences.offsets[:-1], sequences.total + np.arange(count) * horizon], 1)
    length = np.stack([sequences.lengths, np.full(count, horizon)], 1)
    index = spans(start.reshape(-1), length.reshape(-1))
    return replace(
        sequences,
        steps=rows_of(pl.DataFrame(columns), index),
        lengths=sequences.lengths + horizon,
        times=np.concatenate([sequences.times, times.reshape(-1)])[index],
    )


def _given(trained: Trained, sequences: Sequences, ahead: Any) -> dict[str, pl.Series]:
    """The future of the columns that no calendar tells, S values per sequence in order."""
    horizon, data = trained.horizon, trained.declaration.data
    owner = {c: trained.fields[n] for n in trained.network.known for c in trained.fields[n].columns}
    columns = sorted(owner.keys() - {trained.clock.column})
    if not columns:
        return {}
    if ahead is None:
        got, fix = "none", f"give a table with {horizon} rows per sequence"
        raise DataError("ahead", f"the future of {', '.join(columns)}", got, fix)
    frame = trained.read(ahead).frame
    for column in [*columns, *(name for name in (data.key, data.time) if name)]:
        if column not in frame.columns:
            got = "the columns " + ", ".join(frame.columns[:8])
            raise DataError("ahead", f"a column {column!r}", got, "add it")
    if data.time:
        times = (seconds if trained.clock.dates else numbers)(frame[data.time], "ahead")
        frame = frame.with_columns(pl.Series(data.time, times))
    found: dict[str, list[Any]] = {column: [] for column in columns}
    ends = sequences.times[sequences.offsets[1:] - 1]
    for key, end in zip(sequences.keys, ends, strict=True):
        own = frame.filter(pl.col(data.key).cast(str) == str(key)) if data.key else frame
        if data.time:
            own = own.filter(pl.col(data.time) > end).sort(data.time)
        if own.height < horizon:
            where = f"ahead: key {key!r}" if data.key else "ahead"
            expected = f"{horizon} rows after the last of the data"
            raise DataError(where, expected, str(own.height), "add the missing rows")
        for column in columns:
            found[column].extend(own[column][:horizon])
    return {column: owner[column].column(column, found[column], "ahead") for column in columns}
