"""From a table and a declaration to `Sequences`: which rows belong together, in which order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.data.read import Table
from segue.errors import DataError, SpecError
from segue.fields import KINDS, Field
from segue.fields.field import unfolded
from segue.fields.timestamp import seconds
from segue.schema import Declaration
from segue.sequences import Sequences, rows_of
from segue.tasks import TASKS, Task

ONLY = "0"
"""The key of the one sequence where no key is declared."""


# Columns ------------------------------------------------------------------------------------------


def match(name: str, columns: Iterable[str], where: str, origin: str) -> tuple[str, ...]:
    """The columns that a name or a pattern such as ``sensor_*`` stands for.

    Raises:
        SpecError: there is none.
    """
    known = list(columns)
    if name in known:
        return (name,)
    found = tuple(
        column for column in known if set(name) & set("*?[") and fnmatchcase(column, name)
    )
    if not found:
        near = difflib.get_close_matches(name, known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "correct the name"
        expected = f"a column of {origin} ({_shown(known)})"
        raise SpecError(f"{where}.{name}", expected, "no such column", fix)
    return found


def fields_of(declaration: Declaration, columns: Iterable[str], origin: str) -> dict[str, Field]:
    """A field, not yet fitted, for every declared input.

    A pattern leaves out the columns that are declared on their own, the key, the time and the
    targets.

    Raises:
        SpecError: a column that is not there, a target among the inputs, or a kind that does not
            fit.
    """
    known = list(columns)
    targets = {
        column: spec
        for name, spec in declaration.outputs.items()
        for column in match(name, known, "outputs", origin)
    }
    taken = {column for column, spec in targets.items() if not spec.is_input}
    taken |= _frame_of(declaration)
    fields: dict[str, Field] = {}
    for name, spec in declaration.inputs.items():
        kind, where = KINDS[spec.kind], f"inputs.{name}"
        own = _own(name, known, "inputs", declaration.inputs, taken, origin)
        _refuse_many(kind.several, own, f"{where}.kind", f"one column for kind {spec.kind}")
        if name in targets and not targets[name].reads_itself:
            got, fix = f"the target of {targets[name].task}", "remove it from the inputs"
            raise SpecError(where, "a column that is not to be predicted", got, fix)
        if declaration.data.rows == "steps" and not kind.long:
            got, fix = (
                f"{spec.kind} where rows are steps",
                "declare kind category, or rows: examples",
            )
            raise SpecError(f"{where}.kind", "a kind with a value per row", got, fix)
        fields[name] = kind(name, own, spec)
    return fields


def tasks_of(declaration: Declaration, columns: Iterable[str], origin: str) -> dict[str, Task]:
    """A task, not yet fitted, for every declared output.

    A pattern leaves out the columns that are declared on their own, the key and the time.

    Raises:
        SpecError: a column that is not there, the key or the time, or a forecast beside other tasks
            or another horizon.
    """
    known = list(columns)
    tasks: dict[str, Task] = {}
    for name, spec in declaration.outputs.items():
        task = TASKS[spec.task]
        if name in (declaration.data.key, declaration.data.time):
            got = "the key" if name == declaration.data.key else "the time"
            expected = "neither data.key nor data.time"
            raise SpecError(f"outputs.{name}", expected, got, "predict another column")
        own = _own(name, known, "outputs", declaration.outputs, _frame_of(declaration), origin)
        _refuse_many(task.several, own, f"outputs.{name}.task", f"one column for task {spec.task}")
        tasks[name] = task(name, own, spec)
    horizons = {
        (spec.task, getattr(spec, "horizon", None)) if hasattr(spec, "horizon") else None
        for spec in declaration.outputs.values()
    }
    if len(horizons) > 1:
        got = ", ".join(f"{name} ({spec.task})" for name, spec in declaration.outputs.items())
        expected = "forecasts of one horizon, or no forecast"
        raise SpecError("outputs", expected, got, "declare two models")
    return tasks


def _own(
    name: str,
    columns: list[str],
    section: str,
    declared: Mapping[str, Any],
    taken: set[str],
    origin: str,
) -> tuple[str, ...]:
    """What `name` stands for: itself, or what its pattern matches and nothing else claims."""
    found = match(name, columns, section, origin)
    own = tuple(column for column in found if column == name or column not in {*declared, *taken})
    if not own:
        got = f"only {_shown(found)}, which have another use"
        raise SpecError(f"{section}.{name}", "columns for this pattern", got, "remove the pattern")
    return own


def _frame_of(declaration: Declaration) -> set[str]:
    """The columns that say where rows belong, and those that scores alone read."""
    data = declaration.data
    framing = (data.key, data.time, data.split.column)
    beside = {column for spec in declaration.outputs.values() for column in spec.beside}
    return {column for column in framing if column is not None} | beside


def _refuse_many(several: bool, columns: tuple[str, ...], where: str, expected: str) -> None:
    if len(columns) > 1 and not several:
        raise SpecError(where, expected, _shown(columns), "declare each column on its own")


def _shown(columns: Iterable[str]) -> str:
    names = list(columns)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


# Sequences ----------------------------------------------------------------------------------------


def build(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> Sequences:
    """The sequences of `table`.

    Where rows are steps, a key's target at the end is that of its last row. Target columns that the
    table lacks are left out: prediction does not need them.

    Raises:
        DataError: a missing column, unsorted or duplicate times within a key, a static column that
            changes within a key, lists of unequal length in an example.
    """
    _need_columns(table, declaration, fields, tasks)
    for field in fields.values():
        field.folder = table.folder
    rows = _from_steps if declaration.data.rows == "steps" else _from_examples
    return rows(table, declaration, fields, tasks)


def _need_columns(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> None:
    data, present = declaration.data, table.frame.columns
    needed = [column for field in fields.values() for column in field.columns]
    needed += [column for column in (data.key, data.time) if column]
    for name, task in tasks.items():
        needed += task.columns if declaration.outputs[name].reads_itself else ()
    for column in needed:
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "add it or change the declaration"
            got = f"the columns {_shown(present)}"
            raise DataError(table.origin, f"a column {column!r}", got, fix)
    if not table.frame.height:
        raise DataError(table.origin, "at least one row", "none", "give some data")


def _step_and_static(
    frame: pl.DataFrame, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> tuple[list[str], list[str], list[str]]:
    """Columns by step, columns of inputs that are kept as they are, once per sequence, and target
    columns at the end of one.
    """
    steps: list[str] = []
    static: list[str] = []
    ends: list[str] = []
    for name, field in fields.items():
        once = declaration.inputs[name].role in ("static", "apart") or field.learns_steps
        (static if once else steps).extend(field.columns)
    for task in tasks.values():
        present = [column for column in task.columns if column in frame.columns]
        (steps if task.every and not task.whole else ends).extend(present)
    for spec in declaration.outputs.values():
        steps.extend(column for column in spec.beside if column in frame.columns)
    part = declaration.data.split.column
    if part is not None and part in frame.columns:
        (steps if declaration.data.rows == "steps" else static).append(part)
    return list(dict.fromkeys(steps)), list(dict.fromkeys(static)), list(dict.fromkeys(ends))


def _from_steps(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> Sequences:
    data, frame, origin = declaration.data, table.frame, table.origin
    steps, static, ends = _step_and_static(frame, declaration, fields, tasks)
    framing = [column for column in (data.key, data.time) if column]
    frame = frame.select(list(dict.fromkeys([*steps, *static, *ends, *framing])))
    keys, codes = _key_codes(frame, data.key, origin)
    if (codes[1:] < codes[:-1]).any():
        together = np.argsort(codes, kind="stable")
        frame, codes = frame[together], codes[together]
        origin = f"{table.origin} (sorted by {data.key})"
    times = None
    if data.time is not None:
        times = _clock(frame[data.time], origin)

        def place(code: int, own: int) -> str:
            at = f"key {keys[code]!r}, its row" if data.key else "row"
            return f"{table.origin}: column {data.time!r}, {at} {own + 1}"

        order = _time_order(times, codes, frame[data.time], data.sort, place)
        if order is not None:
            frame, times = frame[order], times[order]
            origin = f"{table.origin} (sorted by {', '.join(framing)})"
    lengths = np.bincount(codes, minlength=len(keys)).astype(np.int64)
    last = np.cumsum(lengths) - 1
    _refuse_changing(frame, static, codes, last, keys, table.origin)
    return Sequences(
        steps=frame.select(steps),
        lengths=lengths,
        keys=keys,
        static=rows_of(frame.select(list(dict.fromkeys([*static, *ends]))), last),
        times=_counted(lengths) if times is None else times,
        has_time=times is not None,
        origin=origin,
        keyed=data.key is not None,
    )


def _key_codes(
    frame: pl.DataFrame, key: str | None, origin: str
) -> tuple[pl.Series, NDArray[np.int64]]:
    """The keys in order of first appearance, and the place of each row's key among them."""
    if key is None:
        return pl.Series("key", [ONLY]), np.zeros(frame.height, np.int64)
    _refuse_no_key(frame[key], origin)
    keys = frame[key].unique(maintain_order=True)
    position = pl.DataFrame({key: keys, "code": np.arange(len(keys))})
    codes = frame.select(key).join(position, on=key, how="left", maintain_order="left")["code"]
    return keys.alias("key"), codes.to_numpy()


def _refuse_no_key(keys: pl.Series, origin: str) -> None:
    if keys.null_count():
        row = int(keys.is_null().arg_max() or 0)
        where = f"{origin}: column {keys.name!r}, row {row + 1}"
        raise DataError(where, "a key", "an empty cell", "fill it in")


def _time_order(
    times: NDArray[np.float64],
    codes: NDArray[np.int64],
    clock: pl.Series,
    sort: bool,
    place: Callable[[int, int], str],
) -> NDArray[np.int64] | None:
    """The order that sorts rows by time within each key; None where they are sorted already.

    Args:
        times, clock: when each row is, as numbers and as the user's values.
        codes: the place of each row's key among the keys, rising.
        sort: whether unsorted rows are put in order; otherwise they are an error.
        place: what to call a row, from its key's place and its own place within the key.
    """
    same = codes[1:] == codes[:-1]
    back = np.flatnonzero(same & (times[1:] < times[:-1])) + 1
    order = None
    if len(back):
        if not sort:
            row = int(back[0])
            where = place(int(codes[row]), row - int((codes < codes[row]).sum()))
            got = f"{clock[row]} after {clock[row - 1]}"
            fix = "sort the rows or declare `data: {sort: true}`"
            raise DataError(where, "times that rise within a key", got, fix)
        order = np.lexsort((times, codes))
        times, clock = times[order], clock[order]
    twice = np.flatnonzero(same & (times[1:] == times[:-1])) + 1
    if len(twice):
        row = int(twice[0])
        where = place(int(codes[row]), row - int((codes < codes[row]).sum()))
        got = f"{clock[row]} twice" + (f", and {len(twice) - 1} more" if len(twice) > 1 else "")
        fix = "remove it, or declare the column that tells such rows apart as `data: {key: ...}`"
        raise DataError(where, "one row per time within a key", got, fix)
    return order


def _clock(series: pl.Series, origin: str) -> NDArray[np.float64]:
    """Times as numbers: seconds for dates, else the values."""
    if series.dtype.is_temporal():
        return seconds(series, origin)
    where = f"{origin}: column {series.name!r}"
    if not series.dtype.is_numeric():
        got = f"{series.dtype} such as {series.drop_nulls().head(1).to_list()}"
        raise DataError(where, "dates or numbers as time", got, "correct the column")
    if series.null_count():
        row = int(series.is_null().arg_max() or 0)
        raise DataError(f"{where}, row {row + 1}", "a time", "an empty cell", "fill it in")
    values: NDArray[np.float64] = series.cast(pl.Float64).to_numpy()
    return values


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
            row = int(differs.argmax())
            where = f"{origin}: column {column!r}, key {keys[int(codes[row])]!r}"
            got = f"{frame[column][row]!r} and {frame[column][int(last[codes[row]])]!r}"
            fix = f"declare `inputs.{column}: {{role: step}}`"
            raise DataError(where, "one value per key (its role is static)", got, fix)


def _from_examples(
    table: Table, declaration: Declaration, fields: dict[str, Field], tasks: dict[str, Task]
) -> Sequences:
    data, frame, origin = declaration.data, table.frame, table.origin
    steps, static, ends = _step_and_static(frame, declaration, fields, tasks)
    found = _unfolded(frame, declaration, fields, steps, origin)
    kept = np.logical_and.reduce([lengths >= 0 for _, lengths in found] or [np.array(True)])
    skipped = int((~kept).sum()) if kept.ndim else 0
    # Of all rows, so that a number names the row of the table even where others are left out.
    keys, times = _example_keys(frame, data.key, origin), None
    if skipped:
        if skipped == frame.height:
            expected, fix = "at least one example that can be read", "declare `on_error: stop`"
            raise DataError(origin, expected, f"{skipped} that cannot", fix)
        keys = keys.filter(pl.Series(kept))
        found = [_without_rows(values, lengths, kept) for values, lengths in found]
        frame = frame.filter(pl.Series(kept))
    lengths = _common_lengths(found, frame.height, origin)
    flat = pl.DataFrame([values for values, _ in found])
    if data.time is not None:
        times = _clock(flat[data.time], origin) if found else _ends(frame[data.time], origin)

        def place(code: int, own: int) -> str:
            at = f"key {keys[code]!r}" if data.key else f"row {code + 1}"
            return f"{origin}: column {data.time!r}, {at}, step {own + 1}"

        codes = np.repeat(np.arange(len(lengths)), lengths)
        order = _time_order(times, codes, flat[data.time], data.sort, place) if found else None
        if order is not None:
            flat, times = flat[order], times[order]
    return Sequences(
        steps=flat.select(list(dict.fromkeys([*steps, *_learnt(fields)]))),
        lengths=lengths,
        keys=keys,
        static=frame.select(list(dict.fromkeys([*static, *ends]))),
        times=_counted(lengths) if times is None else times,
        has_time=times is not None,
        origin=origin,
        keyed=data.key is not None,
        skipped=skipped,
    )


def _learnt(fields: dict[str, Field]) -> list[str]:
    """The columns of inputs whose steps are learnt: raw cells of theirs are kept as well."""
    return [column for field in fields.values() if field.learns_steps for column in field.columns]


def _unfolded(
    frame: pl.DataFrame,
    declaration: Declaration,
    fields: dict[str, Field],
    steps: list[str],
    origin: str,
) -> list[tuple[pl.Series, NDArray[np.int64]]]:
    """Every column by step as its raw steps, and how many each example has."""
    roles = {name: given.role for name, given in declaration.inputs.items()}
    owner = {
        column: field
        for name, field in fields.items()
        if roles[name] in ("step", "known")
        for column in field.columns
    }
    timed = [declaration.data.time] if declaration.data.time and (owner or steps) else []
    columns = dict.fromkeys([*owner, *steps, *timed])
    return [
        (owner[column].unfold if column in owner else unfolded)(frame[column], origin)
        for column in columns
    ]


def _ends(cells: pl.Series, origin: str) -> NDArray[np.float64]:
    """The last time of each example, all of whose inputs have clocks of their own."""
    return _clock(cells.list.last() if isinstance(cells.dtype, pl.List) else cells, origin)


def _without_rows(
    values: pl.Series, lengths: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[pl.Series, NDArray[np.int64]]:
    steps = np.repeat(kept, np.maximum(lengths, 0))
    return values.filter(pl.Series(steps)), lengths[kept]


def _example_keys(frame: pl.DataFrame, key: str | None, origin: str) -> pl.Series:
    """The key of every row; its number where there is none."""
    if key is None:
        return pl.Series("key", np.arange(frame.height))
    _refuse_no_key(frame[key], origin)
    twice = frame[key].filter(frame[key].is_duplicated())
    if len(twice):
        where, got = f"{origin}: column {key!r}", f"{twice[0]!r} twice"
        raise DataError(where, "one row per key", got, "make keys unique")
    return frame[key].alias("key")


def _common_lengths(
    found: list[tuple[pl.Series, NDArray[np.int64]]], count: int, origin: str
) -> NDArray[np.int64]:
    """The steps of each example, which all columns by step have in common; without such columns
    every example is one step.
    """
    if not found:
        return np.ones(count, np.int64)
    first, lengths = found[0]
    for values, other in found[1:]:
        if (other != lengths).any():
            row = int((other != lengths).argmax())
            expected = f"{lengths[row]} steps in {values.name!r}, as in {first.name!r}"
            fix = (
                "give every per-step column of an example the same length, or declare one of the"
                " two as `role: apart`"
            )
            raise DataError(f"{origin}: row {row + 1}", expected, str(other[row]), fix)
    return lengths


def _counted(lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Step indices as times: 0, 1, ... within every sequence."""
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return (np.arange(len(first)) - first).astype(np.float64)
