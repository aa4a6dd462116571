"""From a table and a declaration to `Sequences`: which rows belong together, in which order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.data.read import Table
from segue.errors import DataError, SpecError
from segue.fields import KINDS, Field
from segue.fields.timestamp import seconds
from segue.schema import Declaration
from segue.sequences import Sequences, rows_of
from segue.tasks import TASKS, Task

ONLY = "0"
"""The key of the one sequence where no key is declared."""


def match(name: str, columns: Iterable[str], where: str, origin: str) -> tuple[str, ...]:
    """The columns that a name or a pattern such as ``sensor_*`` stands for.

    Raises:
        SpecError: there is none.
    """
    known = list(columns)
    if name in known:
        return (name,)
    found = (
        tuple(column for column in known if fnmatchcase(column, name))
        if set(name) & set("*?[")
        else ()
    )
    if not found:
        near = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "correct the name"
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise SpecError(f"{where}.{name}", f"a column of {origin} ({shown})", "no such column", fix)
    return found


def fields_of(declaration: Declaration, columns: Iterable[str], origin: str) -> dict[str, Field]:
    """A field, not yet fitted, for every declared input; a pattern leaves out the columns declared on their own."""
    reserved = {declaration.data.key, *declaration.outputs, declaration.data.time} - set(
        declaration.inputs
    )
    fields: dict[str, Field] = {}
    for name, spec in declaration.inputs.items():
        matched = match(name, columns, "inputs", origin)
        own = tuple(
            column
            for column in matched
            if column == name or column not in reserved | set(declaration.inputs)
        )
        fields[name] = KINDS[spec.kind](name, own, spec)
    return fields


def tasks_of(declaration: Declaration, columns: Iterable[str], origin: str) -> dict[str, Task]:
    """A task, not yet fitted, for every declared output.

    Raises:
        SpecError: a column that is not there, or a forecast beside other tasks or another horizon.
    """
    tasks: dict[str, Task] = {}
    for name, spec in declaration.outputs.items():
        tasks[name] = TASKS[spec.task](name, match(name, columns, "outputs", origin), spec)
    horizons = {getattr(task, "horizon", None) for task in tasks.values()}
    if len(horizons) > 1:
        got = ", ".join(f"{name} ({spec.task})" for name, spec in declaration.outputs.items())
        raise SpecError(
            "outputs", "forecasts of one horizon, or no forecast", got, "declare two models"
        )
    return tasks


def build(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> Sequences:
    """The sequences of `table`. Target columns that the table lacks are left out: prediction does not need them.

    Raises:
        DataError: a missing column, unsorted or duplicate times within a key, lists of unequal length in an example.
    """
    _need_columns(table, declaration, fields, tasks)
    rows = _from_steps if declaration.data.rows == "steps" else _from_examples
    return rows(table, declaration, fields, tasks)


def _need_columns(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> None:
    data = declaration.data
    needed = [column for field in fields.values() for column in field.columns]
    needed += [column for column in (data.key, data.time) if column]
    present = table.frame.columns
    for column in needed:
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1)
            fix = (
                f"did you mean {near[0]!r}?" if near else "add the column or change the declaration"
            )
            raise DataError(
                table.origin, f"a column {column!r}", f"the columns {', '.join(present[:8])}", fix
            )
    if not table.frame.height:
        raise DataError(table.origin, "at least one row", "none", "give some data")


def _step_and_static(
    frame: pl.DataFrame, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> tuple[list[str], list[str], list[str]]:
    """Columns by step, static input columns, and target columns at the end of a sequence."""
    static = [
        c
        for n, field in fields.items()
        if declaration.inputs[n].role == "static"
        for c in field.columns
    ]
    steps = [
        c
        for n, field in fields.items()
        if declaration.inputs[n].role != "static"
        for c in field.columns
    ]
    ends = [
        c for task in tasks.values() if not task.every for c in task.columns if c in frame.columns
    ]
    steps += [
        c for task in tasks.values() if task.every for c in task.columns if c in frame.columns
    ]
    split = declaration.data.split.column
    if split is not None and split in frame.columns:
        (steps if declaration.data.rows == "steps" else static).append(split)
    return list(dict.fromkeys(steps)), list(dict.fromkeys(static)), list(dict.fromkeys(ends))


def _from_steps(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> Sequences:
    data, frame = declaration.data, table.frame
    steps, static, ends = _step_and_static(frame, declaration, fields, tasks)
    columns = [*dict.fromkeys([*steps, *static, *ends, *(c for c in (data.key, data.time) if c)])]
    frame = frame.select(columns)
    keys, codes = _key_codes(frame, data.key, table.origin)
    if (np.diff(codes) < 0).any():
        order = np.argsort(codes, kind="stable")
        frame, codes = frame[order], codes[order]
    lengths = np.bincount(codes, minlength=len(keys)).astype(np.int64)
    times = None if data.time is None else _clock(frame[data.time], table.origin)
    if times is not None:
        order = _time_order(times, codes, keys, declaration, table.origin)
        if order is not None:
            frame, times = frame[order], times[order]
    last = np.cumsum(lengths) - 1
    _refuse_changing(frame, static, codes, last, keys, table.origin)
    return Sequences(
        steps=frame.select(steps),
        lengths=lengths,
        keys=keys,
        static=rows_of(frame.select(list(dict.fromkeys([*static, *ends]))), last),
        times=_counted(lengths) if times is None else times,
        has_time=times is not None,
        origin=table.origin,
    )


def _key_codes(
    frame: pl.DataFrame, key: str | None, origin: str
) -> tuple[pl.Series, NDArray[np.int64]]:
    """The keys in order of first appearance, and the position of each row's key among them."""
    if key is None:
        return pl.Series("key", [ONLY]), np.zeros(frame.height, np.int64)
    if frame[key].null_count():
        row = int(frame[key].is_null().arg_max() or 0)
        raise DataError(
            f"{origin}: column {key!r}, row {row + 1}", "a key", "an empty cell", "fill it in"
        )
    keys = frame[key].unique(maintain_order=True)
    position = pl.DataFrame({key: keys, "code": np.arange(len(keys))})
    codes = frame.select(key).join(position, on=key, how="left", maintain_order="left")["code"]
    return keys.alias("key"), codes.to_numpy()


def _clock(series: pl.Series, origin: str) -> NDArray[np.float64]:
    """Times as numbers: seconds for dates, else the values."""
    if series.dtype.is_temporal():
        return seconds(series, origin)
    if not series.dtype.is_numeric() or series.null_count():
        got = f"{series.dtype} with {series.null_count()} empty cells"
        raise DataError(
            f"{origin}: column {series.name!r}",
            "dates or numbers as time",
            got,
            "correct the column",
        )
    values: NDArray[np.float64] = series.cast(pl.Float64).to_numpy()
    return values


def _time_order(
    times: NDArray[np.float64],
    codes: NDArray[np.int64],
    keys: pl.Series,
    declaration: Declaration,
    origin: str,
) -> NDArray[np.int64] | None:
    """The order that sorts rows by time within each key; None where they are sorted already."""
    same = codes[1:] == codes[:-1]
    back = same & (times[1:] < times[:-1])
    order = None
    where = f"{origin}: column {declaration.data.time!r}"
    if back.any():
        if not declaration.data.sort:
            row = int(back.argmax()) + 1
            raise DataError(
                f"{where}, key {keys[int(codes[row])]!r}",
                "times that rise within a key",
                f"a step back at its row {row - int((codes < codes[row]).sum()) + 1}",
                "sort the rows or declare `data: {sort: true}`",
            )
        order = np.lexsort((times, codes))
        times = times[order]
    twice = same & (times[1:] == times[:-1])
    if twice.any():
        row = int(twice.argmax()) + 1
        raise DataError(
            f"{where}, key {keys[int(codes[row])]!r}",
            "one row per time within a key",
            f"{int(twice.sum())} repeated times, the first at its row {row - int((codes < codes[row]).sum()) + 1}",
            "declare the column that tells these rows apart as `data: {key: ...}`, or remove the repeats",
        )
    return order


def _refuse_changing(
    frame: pl.DataFrame,
    static: list[str],
    codes: NDArray[np.int64],
    last: NDArray[np.int64],
    keys: pl.Series,
    origin: str,
) -> None:
    for column in static:
        differs = frame[column].ne_missing(frame[column][last[codes]]).to_numpy()
        if differs.any():
            key = keys[int(codes[int(differs.argmax())])]
            raise DataError(
                f"{origin}: column {column!r}, key {key!r}",
                "one value per key (its role is static)",
                "a value that changes",
                f"declare `inputs.{column}: {{role: step}}`",
            )


def _from_examples(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> Sequences:
    data, frame = declaration.data, table.frame
    steps, static, ends = _step_and_static(frame, declaration, fields, tasks)
    series = [_steps_of(frame[column], table.origin) for column in steps]
    lengths = _common_lengths(frame, series, table.origin)
    timed = None if data.time is None else _steps_of(frame[data.time], table.origin)
    keys = (
        pl.Series("key", np.arange(frame.height))
        if data.key is None
        else frame[data.key].alias("key")
    )
    if keys.n_unique() < len(keys):
        twice = keys.filter(keys.is_duplicated())[0]
        raise DataError(
            f"{table.origin}: column {data.key!r}",
            "one row per key",
            f"{twice!r} twice",
            "make keys unique",
        )
    flat = [values.filter(values.list.len() > 0).explode() for values in series]
    return Sequences(
        steps=pl.DataFrame(flat),
        lengths=lengths,
        keys=keys,
        static=frame.select(list(dict.fromkeys([*static, *ends]))),
        times=_counted(lengths) if timed is None else _clock(timed.explode(), table.origin),
        has_time=timed is not None,
        origin=table.origin,
    )


def _steps_of(series: pl.Series, origin: str) -> pl.Series:
    """A column whose cells hold sequences as a column of lists; a text is the list of its characters."""
    if series.dtype == pl.String:
        filled = series.fill_null("")
        return pl.select(
            pl.when(filled == "").then([]).otherwise(filled.str.split("")).alias(series.name)
        ).to_series()
    if isinstance(series.dtype, pl.List):
        return series
    raise DataError(
        f"{origin}: column {series.name!r}",
        "a list or a text in every cell (rows are examples)",
        str(series.dtype),
        "declare `role: static`, or `data: {rows: steps}`",
    )


def _common_lengths(frame: pl.DataFrame, series: list[pl.Series], origin: str) -> NDArray[np.int64]:
    lengths = [values.list.len().fill_null(0).cast(pl.Int64).to_numpy() for values in series]
    for other, values in zip(lengths[1:], series[1:], strict=True):
        if (other != lengths[0]).any():
            row = int((other != lengths[0]).argmax())
            raise DataError(
                f"{origin}: row {row + 1}",
                f"{lengths[0][row]} steps in {values.name!r}, as in {series[0].name!r}",
                str(other[row]),
                "give every per-step column of an example the same length",
            )
    if not lengths:
        raise DataError(
            origin, "at least one per-step input", "none", "declare an input with `role: step`"
        )
    return lengths[0]


def _counted(lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Step indices as times: 0, 1, ... within every sequence."""
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return (np.arange(len(first)) - first).astype(np.float64)
