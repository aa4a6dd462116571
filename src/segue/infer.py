"""`look`: infer a declaration from data, and say what the data are like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from segue.checkpoint import spec_kinds, spec_tasks
from segue.clock import Clock
from segue.data.build import build, fields_of, match, tasks_of
from segue.data.read import Table
from segue.errors import SpecError
from segue.fields import KINDS
from segue.schema import Declaration, parse
from segue.sequences import Sequences

KEY_NAMES = (
    "key",
    "id",
    "unit",
    "series",
    "series_name",
    "name",
    "file",
    "session",
    "device",
    "station",
    "user",
    "store",
)
TARGET_NAMES = ("target", "label", "class", "y", "output")
TIME_NAMES = ("time", "date", "datetime", "timestamp", "cycle", "step", "t")
FEW = 200
"""With fewer sequences than this none are held out for validation: they are worth more in training."""


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
        return (
            self.declaration.to_yaml()
            + "\n"
            + "\n".join(f"# {line}" for line in self.findings)
            + "\n"
        )


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
    return Look(declaration, tuple(check(table, declaration, sequences)))


def check(table: Table, declaration: Declaration, sequences: Sequences) -> Iterator[str]:
    """Lines about the data."""
    lengths, frame = sequences.lengths, table.frame
    yield f"{table.origin}: {frame.height} rows, {frame.width} columns"
    if sequences.count > 1:
        low, mid, high = int(lengths.min()), int(np.median(lengths)), int(lengths.max())
        yield f"{sequences.count} sequences of {low} to {high} steps (median {mid}), {sequences.total} steps in all"
    else:
        yield f"one sequence of {sequences.total} steps"
    time = declaration.data.time
    if time is not None and declaration.data.rows == "steps":
        yield from _check_clock(frame, time, sequences)
    for column in frame.columns:
        missing = frame[column].null_count()
        if missing:
            yield f"{column}: {missing} of {frame.height} values are missing ({missing / frame.height:.1%})"
        if (
            frame[column].n_unique() == 1
            and frame.height > 1
            and not isinstance(frame[column].dtype, pl.List)
        ):
            yield f"{column}: never changes"


def _check_clock(frame: pl.DataFrame, time: str, sequences: Sequences) -> Iterator[str]:
    clock = Clock.of(frame, time, sequences)
    first, last = clock.values(np.array([sequences.times.min(), sequences.times.max()])).to_list()
    name = clock.name or (f"{clock.step:g} seconds" if clock.dates else f"{clock.step:g}")
    change = np.diff(sequences.times)
    ends = sequences.offsets[1:-1]
    inside = np.ones(len(change), bool)
    inside[ends[(ends > 0) & (ends < sequences.total)] - 1] = False
    tolerance = 0.2 if clock.name in ("1mo", "1q", "1y") else 0.01
    odd = int((np.abs(change[inside] - clock.step) > tolerance * clock.step).sum())
    uneven = f"; {odd} steps are longer or shorter" if odd else ""
    yield f"{time}: {first} to {last}, a step is {name}{uneven}"


def _from_steps(
    table: Table, target: str | None, horizon: int | None, task: str | None
) -> dict[str, Any]:
    frame, hints = table.frame, table.hints
    time = str(hints["time"]) if "time" in hints else _time_column(frame)
    key = str(hints["key"]) if "key" in hints else _key_column(frame, time, target)
    horizon = horizon or (int(hints["horizon"]) if "horizon" in hints else None)
    target = target or (
        str(hints["target"]) if "target" in hints else _target_column(frame, {time, key})
    )
    columns = _matching(frame, target, table.origin)
    task = task or _task(frame[columns[0]], horizon, forecastable=time is not None or key is None)
    static = (
        set() if key is None else {c for c in frame.columns if _is_static(frame, key, c)} - {key}
    )
    inputs = {}
    for column in frame.columns:
        if column == key or (column in columns and task != "next"):
            continue
        kind = _kind(frame[column], whole=False)
        if kind is None or (column == time and kind != "timestamp"):
            continue
        inputs[column] = {"kind": kind, **({"role": "static"} if column in static else {})}
        if kind == "category":
            inputs[column]["unknown"] = "allow"
    if not inputs and task != "forecast":
        raise SpecError(
            table.origin, "a column to learn from", "only the target", "give more columns"
        )
    by_time = task == "forecast" or key is None
    output = {
        "task": task,
        **({"horizon": horizon or _horizon(frame, time, key)} if task == "forecast" else {}),
    }
    if task == "regress" and columns[0] not in static and key is not None:
        output["at"] = "every"
    data = {
        "rows": "steps",
        "key": key,
        "time": time,
        "split": {"by": "time" if by_time else "random"},
    }
    inputs = inputs or {target: {"kind": "number"}}
    return {"data": data, "inputs": inputs, "outputs": {target: output}}


def _from_examples(
    table: Table, target: str | None, horizon: int | None, task: str | None
) -> dict[str, Any]:
    frame = table.frame
    if horizon is not None:
        fix = "give a long table, one row per step"
        raise SpecError("horizon", "rows that are steps", "rows that are whole sequences", fix)
    lists = [c for c in frame.columns if isinstance(frame[c].dtype, pl.List)]
    texts = [c for c in frame.columns if frame[c].dtype == pl.String]
    target = target or (str(table.hints["target"]) if "target" in table.hints else None)
    if target is None:
        named = [c for c in frame.columns if c.lower() in TARGET_NAMES]
        scalars = [c for c in frame.columns if c not in lists and frame[c].dtype.is_numeric()]
        sequence = (
            lists or [max(texts, key=lambda c: frame[c].str.len_chars().mean() or 0)]
            if lists or texts
            else []
        )
        rest = [c for c in frame.columns if c not in sequence]
        target = (named or [c for c in rest if c not in scalars] or scalars or sequence or [None])[
            0
        ]
    if target is None:
        raise SpecError(table.origin, "a column to learn", "none", "say --target COLUMN")
    columns = _matching(frame, target, table.origin)
    read = [c for c in (lists or texts) if c not in columns]
    task = task or ("next" if not read else _task(frame[columns[0]], None, forecastable=False))
    if task == "next":
        read = list(columns)
    inputs: dict[str, dict[str, Any]] = {}
    for column in read:
        inputs[column] = {"kind": _kind(frame[column], whole=True)}
    for column in frame.columns:
        if column not in (*read, *columns, "file") and column not in texts:
            inputs[column] = {"kind": _kind(frame[column], whole=False), "role": "static"}
    split = (
        {"by": "random", "valid": 0.15, "test": 0.15}
        if frame.height >= FEW
        else {"by": "random", "valid": 0, "test": 0.2}
    )
    if frame.height == 1:
        split = {"by": "time", "valid": 0.05, "test": 0.1}
    return {
        "data": {"rows": "examples", "split": split},
        "inputs": inputs,
        "outputs": {target: {"task": task}},
    }


def _kind(values: pl.Series, *, whole: bool) -> str | None:
    """The first kind that the values look like; of a list, what its elements look like."""
    if whole and isinstance(values.dtype, pl.List):
        values, whole = values.explode(), False
    return next((name for name, kind in KINDS.items() if kind.fits(values, whole=whole)), None)


def _task(values: pl.Series, horizon: int | None, *, forecastable: bool) -> str:
    """forecast with a horizon or a clock, classify words and tags, regress numbers."""
    if horizon is not None:
        return "forecast"
    if isinstance(values.dtype, pl.List):
        inner = values.explode()
        return "tag" if not inner.dtype.is_float() else "regress"
    if not values.dtype.is_numeric():
        return "classify"
    if forecastable:
        return "forecast"
    return "classify" if values.dtype.is_integer() and values.n_unique() <= 20 else "regress"


def _time_column(frame: pl.DataFrame) -> str | None:
    dates = [column for column in frame.columns if frame[column].dtype.is_temporal()]
    named = [c for c in frame.columns if c.lower() in TIME_NAMES and frame[c].dtype.is_numeric()]
    return (dates or named or [None])[0]


def _key_column(frame: pl.DataFrame, time: str | None, target: str | None) -> str | None:
    """The column that makes times unique, where times alone are not."""
    if time is None or frame[time].is_unique().all():
        return None
    words = [c for c in frame.columns if frame[c].dtype == pl.String]
    named = [c for c in frame.columns if c.lower() in KEY_NAMES or c.lower().endswith("_id")]
    whole = [c for c in frame.columns if frame[c].dtype.is_integer()]
    for column in dict.fromkeys([*named, *words, *whole]):
        if column not in (time, target) and not frame.select(column, time).is_duplicated().any():
            return column
    return None


def _target_column(frame: pl.DataFrame, taken: set[str | None]) -> str:
    """A column called target or label, else the last column of numbers."""
    free = [column for column in frame.columns if column not in taken]
    named = [column for column in free if column.lower() in TARGET_NAMES]
    numbers = [column for column in free if frame[column].dtype.is_numeric()]
    found = named or numbers[-1:] or free[-1:]
    if not found:
        raise SpecError("target", "a column to learn", "none", "say --target COLUMN")
    return found[0]


def _matching(frame: pl.DataFrame, target: str, origin: str) -> tuple[str, ...]:
    return match(target, frame.columns, "outputs", origin)


def _is_static(frame: pl.DataFrame, key: str, column: str) -> bool:
    return bool((frame.group_by(key).agg(pl.col(column).n_unique())[column] == 1).all())


def _horizon(frame: pl.DataFrame, time: str | None, key: str | None) -> int:
    """Half a year of weeks, otherwise a season, but at most a tenth of a sequence."""
    length = frame.height if key is None else int(frame.group_by(key).len()["len"].max() or 1)  # type: ignore[arg-type]
    season = 12
    if time is not None and frame[time].dtype.is_temporal():
        times = frame[time].cast(pl.Datetime("us")).to_physical().to_numpy() / 1e6
        change = np.diff(times)
        step = float(np.median(change[change > 0])) if (change > 0).any() else 1.0
        season = Clock(time, dates=True, date_only=False, step=step).season or 12
    return max(1, min(26 if season == 52 else season, length // 10))
