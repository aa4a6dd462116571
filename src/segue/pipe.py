"""Live sessions over a pipe: lines of JSON in, predictions out, the state carried per key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from segue.errors import DataError
from segue.run import Run

SINGLE = ""
"""The key of all lines where no field says which sequence a record belongs to."""


def answers(
    run: Run, lines: Iterable[str], key: str | None = None
) -> Iterator[dict[str, Any] | DataError]:
    """The prediction after every line, as soon as the line is there.

    A line is a JSON object with a value for every input of the model (null: not observed). A new
    key starts a new sequence. Empty lines are passed over. The answer repeats the key, and the time
    of the record where the answer is for this step.

    Args:
        key: the field that says which sequence a record belongs to; None for the declared one.

    Yields:
        a prediction, or, for a line that is wrong, the error; all states are then as they were.

    Raises:
        CausalError: the model reads the future.
    """
    sessions = run.sessions()
    key = key or run.declaration.data.key
    time = run.declaration.data.time
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(line, key)
            name = SINGLE if key is None else str(record[key])
            prediction = sessions.step({name: record})[name]
        except DataError as error:
            yield _at_line(number, error)
            continue
        given = {} if key is None else {key: record[key]}
        if time is not None and time not in prediction:
            given[time] = record[time]
        yield given | prediction


def _record(line: str, key: str | None) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = line.strip()
    if not isinstance(record, dict):
        text = line.strip()
        got = text if len(text) <= 60 else text[:57] + "..."
        raise DataError("record 1", "a JSON object", got, "send one object per line")
    if key is not None and not isinstance(record.get(key), str | int | float):
        got = json.dumps(record[key]) if key in record else f"only {', '.join(record)}"
        fix = "add the name or number of the sequence"
        raise DataError("record 1", f"the key {key!r} as text or a number", got, fix)
    return record


def _at_line(number: int, error: DataError) -> DataError:
    """The error with the number of the line as its place; a line is one record."""
    place = error.where.removeprefix("record 1").removeprefix("records").removeprefix(": ")
    where = f"line {number}: {place}" if place else f"line {number}"
    return DataError(where, error.expected, error.got, error.fix)
