"""`look`: infer a declaration from data, and say what the data are like."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import polars as pl

from segue.checkpoint import spec_kinds, spec_tasks
from segue.clock import MONTHS, Clock, changes
from segue.data.build import build, fields_of, match, tasks_of
from segue.data.columns import names_files
from segue.data.read import Table
from segue.data.split import with_split
from segue.errors import SpecError
from segue.fields import KINDS
from segue.fields.timestamp import seconds
from segue.schema import Declaration, parse
from segue.sequences import Sequences

KEY_NAMES = (
    *("key", "id", "unit", "series", "series_name", "name", "file", "session", "device"),
    *("station", "user", "store"),
)
CLASS_NAMES = ("label", "labels", "class", "tag", "tags")
TARGET_NAMES = (*CLASS_NAMES, "target", "targets", "y", "output")
TIME_NAMES = ("time", "date", "datetime", "timestamp", "year", "cycle", "step", "t")
READING = ("next", "anomaly")
"""Tasks whose target is an input as well."""
CLASSES = 20
"""Whole numbers of at most so many different values may be classes."""


@dataclass(frozen=True)
class Look:
    """What `look` found.

    Attributes:
        declaration: inferred, with everything that was said kept.
        findings: lines about the data: sizes, clock, gaps, and what may need attention.
    """

    declaration: Declaration
    findings: tuple[str, ...]

    def __str__(self) -> str:
        lines = "\n".join(f"# {line}" for line in self.findings)
        return f"{self.declaration.to_yaml()}\n{lines}\n"


def look(
    table: Table, target: str | None = None, horizon: int | None = None, task: str | None = None
) -> Look:
    """Infer a declaration.

    Args:
        target: the column to learn (or a pattern of columns); inferred from its name or place.
        horizon: forecast so many steps ahead.
        task: the name of the task; inferred from the target.

    Raises:
        SpecError: there is no such target, or none can be inferred.
        DataError: the data do not fit together (unsorted times, for one).
    """
    infer = _from_steps if table.layout == "steps" else _from_examples
    raw = infer(table, target, horizon, task)
    declaration = parse(raw, spec_kinds(), spec_tasks(), "the inferred declaration")
    fields = fields_of(declaration, table.frame.columns, table.origin)
    tasks = tasks_of(declaration, table.frame.columns, table.origin)
    sequences = build(table, declaration, fields, tasks)
    declaration = with_split(declaration, sequences, tasks.values())
    return Look(declaration, tuple(check(table, declaration, sequences)))


# Findings -----------------------------------------------------------------------------------------


def check(table: Table, declaration: Declaration, sequences: Sequences) -> Iterator[str]:
    """Lines about the data."""
    lengths, frame, data = sequences.lengths, table.frame, declaration.data
    yield f"{table.origin}: {frame.height} rows, {frame.width} columns"
    if sequences.count > 1:
        low, mid, high = int(lengths.min()), int(np.median(lengths)), int(lengths.max())
        sizes = f"{sequences.count} sequences of {low} to {high} steps (median {mid})"
        yield f"{sizes}, {sequences.total} steps in all"
    else:
        yield f"one sequence of {sequences.total} steps"
    if sequences.skipped:
        yield f"left out: {sequences.skipped} rows that cannot be read"
    if data.time is not None:
        yield from _check_clock(frame, data.time, sequences)
    yield from _check_classes(frame, declaration)
    yield from _check_cells(frame)
    if data.rows == "examples" and frame.height > 1:
        again = frame.height - frame.n_unique()
        if again:
            yield f"repeated rows: {again}; they may stand in the training and the test part"
    names = [*declaration.inputs, *declaration.outputs, *(c for c in (data.key, data.time) if c)]
    used = {column for name in names for column in match(name, frame.columns, "", table.origin)}
    unused = [column for column in frame.columns if column not in {*used, data.split.column}]
    if unused:
        yield f"not used: {_listed(unused)}"


def _check_clock(frame: pl.DataFrame, time: str, sequences: Sequences) -> Iterator[str]:
    clock = Clock.of(frame, time, sequences)
    ends = np.array([sequences.times.min(), sequences.times.max()])
    first, last = clock.values(ends).to_list()
    step = clock.name or (f"{clock.step:g} seconds" if clock.dates else f"{clock.step:g}")
    tolerance = 0.2 if clock.name in MONTHS else 0.01
    odd = int((np.abs(changes(sequences) - clock.step) > tolerance * clock.step).sum())
    uneven = f"; {odd} steps are longer or shorter" if odd else ""
    yield f"{time}: {first} to {last}, a step is {step}{uneven}"


def _check_classes(frame: pl.DataFrame, declaration: Declaration) -> Iterator[str]:
    for name, spec in declaration.outputs.items():
        if spec.task not in ("classify", "tag") or name not in frame.columns:
            continue
        values = _values(frame[name]).drop_nulls()
        most = values.value_counts(sort=True).row(0)
        share = most[1] / max(1, len(values))
        yield f"{name}: {values.n_unique()} classes, {most[0]!r} in {share:.1%}"


def _check_cells(frame: pl.DataFrame) -> Iterator[str]:
    missing, constant = {}, []
    for column in frame:
        values = _values(column)
        if values.null_count():
            missing[column.name] = values.null_count(), len(values)
        elif len(values) > 1 and not isinstance(values.dtype, pl.List) and values.n_unique() == 1:
            constant.append(column.name)
    worst = sorted(missing, key=lambda name: -missing[name][0])[:5]
    for name in worst:
        gaps, cells = missing[name]
        yield f"{name}: {gaps} of {cells} values are missing ({gaps / cells:.1%})"
    if len(missing) > len(worst):
        yield f"{len(missing) - len(worst)} more columns have missing values"
    if constant:
        yield f"never changes: {_listed(constant)}"


def _values(column: pl.Series) -> pl.Series:
    """The values of a column, of all steps where a cell is a sequence."""
    if not isinstance(column.dtype, pl.List):
        return column
    return column.filter(column.list.len() > 0).explode()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# Rows that are steps ------------------------------------------------------------------------------


def _from_steps(
    table: Table, target: str | None, horizon: int | None, task: str | None
) -> dict[str, Any]:
    frame, hints = table.frame, table.hints
    time = str(hints["time"]) if "time" in hints else _time_column(frame)
    key = str(hints["key"]) if "key" in hints else _key_column(frame, time, target)
    horizon = horizon or (int(hints["horizon"]) if "horizon" in hints else None)
    target = target or str(hints.get("target") or _target_column(frame, (time, key)))
    columns = match(target, frame.columns, "outputs", table.origin)
    static = _static_columns(frame, key)
    task = task or _step_task(frame[columns[0]], horizon, columns[0] in static)
    output: dict[str, Any] = {"task": task}
    if task == "forecast":
        output["horizon"] = horizon or _horizon(frame, time, key)
    if task == "regress" and columns[0] not in static:
        output["at"] = "every"
    inputs: dict[str, dict[str, Any]] = {}
    for column in frame.columns:
        if column == key or (column in columns and task not in READING):
            continue
        kind = kind_of(frame[column], whole=False)
        if kind is None or (column == time and kind != "timestamp"):
            continue
        inputs[column] = {"kind": kind, **({"role": "static"} if column in static else {})}
        if kind == "category":
            inputs[column]["unknown"] = "allow"
    if not inputs and task != "forecast":
        fix = "give more columns"
        raise SpecError(table.origin, "a column to learn from", "only the target", fix)
    said = {name: column for name, column in (("key", key), ("time", time)) if column is not None}
    inputs = _grouped(inputs, frame.columns, {*columns, *said.values()})
    return {"data": {"rows": "steps", **said}, "inputs": inputs, "outputs": {target: output}}


def _step_task(values: pl.Series, horizon: int | None, static: bool) -> str:
    """What to learn of a column in a long table: a class or a number of the whole sequence where it
    is static, otherwise a class at every step or a forecast.
    """
    if horizon is not None:
        return "forecast"
    few = values.dtype.is_integer() and values.n_unique() <= CLASSES
    if not values.dtype.is_numeric() or few and (static or values.name.lower() in CLASS_NAMES):
        return "classify" if static else "tag"
    return "regress" if static else "forecast"


def _time_column(frame: pl.DataFrame) -> str | None:
    dates = [c for c in frame.columns if frame[c].dtype in (pl.Date, pl.Datetime)]
    named = [c for c in frame.columns if c.lower() in TIME_NAMES and frame[c].dtype.is_numeric()]
    return next(iter([*dates, *named]), None)


def _key_column(frame: pl.DataFrame, time: str | None, target: str | None) -> str | None:
    """The column that makes times unique, where times alone are not; without times the file."""
    if time is None:
        return "file" if "file" in frame.columns else None
    if frame[time].is_unique().all():
        return None
    words = [c for c in frame.columns if frame[c].dtype == pl.String]
    named = [c for c in frame.columns if _is_key_name(c)]
    whole = [c for c in frame.columns if frame[c].dtype.is_integer()]
    for column in dict.fromkeys([*named, *words, *whole]):
        if column in (time, target) or not _repeats(frame[column]):
            continue
        if not frame.select(column, time).is_duplicated().any():
            return column
    return None


def _is_key_name(column: str) -> bool:
    return column.lower() in KEY_NAMES or column.lower().endswith("_id")


def _repeats(values: pl.Series) -> bool:
    """Whether a value occurs twice or more on average."""
    return 2 * values.n_unique() <= len(values)


def _target_column(frame: pl.DataFrame, taken: Collection[str | None]) -> str:
    """A column called target or label, else the last column of numbers."""
    free = [column for column in frame.columns if column not in taken]
    named = [column for column in free if column.lower() in TARGET_NAMES]
    numbers = [column for column in free if frame[column].dtype.is_numeric()]
    found = named or numbers[-1:] or free[-1:]
    if not found:
        raise SpecError("target", "a column to learn", "none", "say --target COLUMN")
    return found[0]


def _static_columns(frame: pl.DataFrame, key: str | None) -> set[str]:
    """The columns that do not change within any key but between keys, where keys have several
    rows.
    """
    if key is None or not frame[key].is_duplicated().any():
        return set()
    others = [c for c in frame.columns if c != key and frame[c].n_unique() > 1]
    counts = frame.group_by(key).agg(pl.col(others).n_unique())
    return {column for column in others if (counts[column] == 1).all()}


def _horizon(frame: pl.DataFrame, time: str | None, key: str | None) -> int:
    """Half a year of weeks, six years, otherwise a season of at most 96 steps, but at most a tenth
    of the longest sequence.
    """
    longest = frame.height if key is None else int(frame[key].value_counts(sort=True).row(0)[1])
    season = 12
    if time is not None and frame[time].dtype.is_temporal():
        change = np.diff(seconds(frame[time], "data"))
        step = float(np.median(change[change > 0])) if (change > 0).any() else 1.0
        season = Clock(time, dates=True, date_only=False, step=step).season or season
    steps = {52: 26, 1: 6}.get(season, min(season, 96))
    return max(1, min(steps, longest // 10))


# Rows that are whole sequences --------------------------------------------------------------------


def _from_examples(
    table: Table, target: str | None, horizon: int | None, task: str | None
) -> dict[str, Any]:
    frame = table.frame
    lists = [c for c in frame.columns if isinstance(frame[c].dtype, pl.List)]
    files = [c for c in frame.columns if names_files(frame[c])]
    texts = [c for c in frame.columns if frame[c].dtype == pl.String]
    # Of several texts the longest is read; the others may be labels or names.
    longest = sorted(texts, key=lambda c: -float(frame[c].str.len_chars().mean() or 0.0))[:1]  # type: ignore[arg-type]
    sequence = [*lists, *files] or longest
    if target is None:
        hint = table.hints.get("target")
        target = str(hint) if hint else _example_target(frame, sequence, table.origin)
    columns = match(target, frame.columns, "outputs", table.origin)
    read = [column for column in sequence if column not in columns]
    task = task or _example_task(frame[columns[0]], horizon, alone=not read)
    output: dict[str, Any] = {"task": task}
    if task == "forecast":
        steps = int(frame[columns[0]].list.len().max() or 1)  # type: ignore[arg-type]
        output["horizon"] = horizon or max(1, min(12, steps // 10))
    elif horizon is not None:
        fix = "give a long table, one row per step"
        raise SpecError("horizon", "a target that is a series of numbers", repr(target), fix)
    if task == "regress" and columns[0] in lists:
        output["at"] = "every"
    key = next((c for c in frame.columns if _is_key_name(c) and frame[c].is_unique().all()), None)
    time = next((c for c in read if _values(frame[c]).dtype in (pl.Date, pl.Datetime)), None)
    inputs = {column: {"kind": kind_of(frame[column], whole=True)} for column in read}
    if task in READING:
        inputs = {column: {"kind": kind_of(frame[column], whole=True)} for column in columns}
    for column in frame.columns:
        if column not in (*sequence, *columns, "file", key):
            inputs |= _static_input(frame[column])
    framing = (("key", None if key in columns else key), ("time", time))
    said = {name: column for name, column in framing if column is not None}
    inputs = _grouped(inputs, frame.columns, {*columns, *said.values()})
    return {"data": {"rows": "examples", **said}, "inputs": inputs, "outputs": {target: output}}


def _example_target(frame: pl.DataFrame, sequence: list[str], origin: str) -> str:
    """A column called target or label, else one of repeating words, of numbers, or a sequence."""
    rest = [column for column in frame.columns if column not in sequence]
    named = [column for column in frame.columns if column.lower() in TARGET_NAMES]
    words = [column for column in rest if not frame[column].dtype.is_numeric()]
    repeating = [column for column in words if _repeats(frame[column])]
    numbers = [c for c in rest if frame[c].dtype.is_numeric() and not _is_key_name(c)]
    found = named or repeating or numbers or words or sequence[-1:]
    if not found:
        raise SpecError(origin, "a column to learn", "none", "say --target COLUMN")
    return found[0]


def _example_task(values: pl.Series, horizon: int | None, *, alone: bool) -> str:
    """What to learn of a column whose cell is a sequence, or belongs to one.

    Args:
        alone: there is no other sequence to learn it from.
    """
    if isinstance(values.dtype, pl.List):
        is_number = _values(values).dtype.is_numeric()
        if alone or horizon is not None:
            return "forecast" if is_number else "next"
        return "regress" if _values(values).dtype.is_float() else "tag"
    if alone:
        return "next"
    few = values.dtype.is_integer() and values.n_unique() <= CLASSES
    return "classify" if few or not values.dtype.is_numeric() else "regress"


def _static_input(values: pl.Series) -> dict[str, dict[str, Any]]:
    """A column beside the sequences as an input; nothing where it is a name or a comment."""
    kind = kind_of(values, whole=False)
    if kind in (None, "many_hot") or kind == "category" and not _repeats(values):
        return {}
    unknown = {"unknown": "allow"} if kind == "category" else {}
    return {values.name: {"kind": kind, "role": "static", **unknown}}


# Inputs -------------------------------------------------------------------------------------------


def kind_of(values: pl.Series, *, whole: bool) -> str | None:
    """The first kind that the values look like; of a list, what its elements look like."""
    if whole and isinstance(values.dtype, pl.List):
        values, whole = _values(values), False
    return next((name for name, kind in KINDS.items() if kind.fits(values, whole=whole)), None)


def _grouped(
    inputs: dict[str, dict[str, Any]], columns: Iterable[str], taken: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Numbered columns of numbers (x0, x1, ...) as one pattern, where it matches nothing else."""
    groups: dict[str, list[str]] = {}
    for name, spec in inputs.items():
        stem = re.fullmatch(r"(.*?)\d+", name)
        if stem and spec == {"kind": "number"}:
            groups.setdefault(f"{stem[1]}*", []).append(name)
    found = dict(inputs)
    for pattern, names in groups.items():
        matched = [c for c in columns if fnmatchcase(c, pattern) and c not in taken]
        if len(names) >= 4 and matched == names:
            found = {
                pattern if name == names[0] else name: spec
                for name, spec in found.items()
                if name == names[0] or name not in names
            }
    return found
