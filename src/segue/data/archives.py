"""The time series archives' formats: ``.ts`` (labelled sequences), ``.tsf`` (series to forecast).

Both start with comments (``#``) and a header (``@name value``); the rows after ``@data`` have ``:``
between fields and ``,`` between the values of a sequence; ``?`` is a missing value.
Sources: Loning et al. 2019, "sktime" (``.ts``); Godahewa et al. 2021, "Monash Time Series
Forecasting Archive" (``.tsf``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time

import polars as pl

from segue.data.piece import Hints, Piece, ReadOptions, decode
from segue.errors import DataError

_MIDNIGHT = time(0)
_MISSING = ("?", "NaN", "nan", "")
_CALENDAR = {
    "daily": (1, "d"),
    "weekly": (1, "w"),
    "monthly": (1, "mo"),
    "quarterly": (3, "mo"),
    "yearly": (12, "mo"),
}
_CLOCK = {"hourly": 3600, "minutely": 60, "secondly": 1, "half_hourly": 1800}
_UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True)
class _Archive:
    """A file taken apart: header entries in lower case, and the rows with their line numbers."""

    name: str
    header: list[tuple[str, str]]
    rows: list[str]
    lines: list[int]

    def entry(self, key: str) -> str | None:
        return next((value for name, value in self.header if name == key), None)

    def flag(self, key: str) -> bool:
        return (self.entry(key) or "").lower().split(" ")[0] == "true"

    def line(self, row: int) -> str:
        return f"{self.name}: line {self.lines[row]}"


def read_ts(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read ``.ts``: a list per channel (``value``, or ``dim_0`` ...), and ``label`` if given.

    Raises:
        DataError: no ``@data``, time stamps, a wrong number of channels, a value that is no number.
    """
    archive = _take_apart(decode(data, name, options.encoding), name)
    if archive.flag("timestamps"):
        fix = "write plain values, or a long table with a time column"
        raise DataError(name, "values without time stamps", "@timeStamps true", fix)
    labelled = archive.flag("classlabel") or archive.flag("targetlabel")
    fields = [[part.strip() for part in row.split(":")] for row in archive.rows]
    channels = _channels(archive, fields, labelled)
    titles = ["value"] if channels == 1 else [f"dim_{k}" for k in range(channels)]
    columns = [
        _sequences(archive, pl.Series(title, [row[k] for row in fields]))
        for k, title in enumerate(titles)
    ]
    if labelled:
        columns.append(_labels(archive, [row[-1] for row in fields]))
    return Piece(pl.DataFrame(columns), {"target": "label"} if labelled else {})


def read_tsf(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read ``.tsf`` into a long table: the attributes (``series_name`` first), ``time``, ``value``.

    The time runs from ``start_timestamp`` by ``@frequency``; without both it counts the steps
    from 0.

    Raises:
        DataError: no ``@data``, a row with a wrong number of fields, a value that is no number.
    """
    archive = _take_apart(decode(data, name, options.encoding), name)
    kinds = _attributes(archive)
    fields = [row.split(":") for row in archive.rows]
    _refuse_fields(archive, fields, len(kinds) + 1, [*kinds, "values"])
    columns = [
        _attribute(archive, name, kind, [row[k] for row in fields])
        for k, (name, kind) in enumerate(kinds.items())
    ]
    values = _sequences(archive, pl.Series("value", [row[-1] for row in fields]))
    wide = pl.DataFrame([*columns, values]).filter(pl.col("value").list.len() > 0)
    steps = wide.with_columns(time=pl.int_ranges(pl.col("value").list.len()))
    long = _with_times(steps.explode("time", "value"), archive.entry("frequency"))
    key = next((each for each, kind in kinds.items() if kind == "string"), None)
    rest = [each for each in kinds if each not in (key, "start_timestamp")]
    ordered = long.select(*([key] if key else []), "time", "value", *rest)
    return Piece(ordered, _tsf_hints(archive, key))


def _attributes(archive: _Archive) -> dict[str, str]:
    """The names and kinds of the fields before the values."""
    kinds: dict[str, str] = {}
    for entry in (value for key, value in archive.header if key == "attribute"):
        name, kind = (*entry.split(), "string", "string")[:2]
        if name in (*kinds, "time", "value"):
            fix = "rename the attribute"
            raise DataError(archive.name, "attributes of other names", f"'{name}'", fix)
        kinds[name] = kind.lower()
    return kinds


def _tsf_hints(archive: _Archive, key: str | None) -> Hints:
    hints: Hints = {"time": "time", "target": "value"}
    if key:
        hints["key"] = key
    horizon, frequency = archive.entry("horizon"), archive.entry("frequency")
    if horizon and horizon.isdecimal():
        hints["horizon"] = int(horizon)
    if frequency:
        hints["frequency"] = frequency
    return hints


def _take_apart(text: str, name: str) -> _Archive:
    header: list[tuple[str, str]] = []
    rows: list[str] = []
    lines: list[int] = []
    in_data = False
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if in_data:
            rows.append(line)
            lines.append(number)
        elif line.startswith("@"):
            key, _, value = line[1:].partition(" ")
            header.append((key.lower(), value.strip()))
            in_data = key.lower() == "data"
        else:
            fix = "put the header (@...) before a line @data and the rows behind it"
            raise DataError(
                f"{name}: line {number}", "a header entry or @data", repr(line[:40]), fix
            )
    if not in_data:
        fix = "put a line @data before the rows"
        raise DataError(name, "a line @data", "none", fix)
    if not rows:
        fix = "add rows below @data"
        raise DataError(name, "at least one row below @data", "a header only", fix)
    return _Archive(name, header, rows, lines)


def _channels(archive: _Archive, fields: list[list[str]], labelled: bool) -> int:
    """The number of channels, from the header or else the first row; all rows are held to it."""
    said = archive.entry("dimensions")
    channels = int(said) if said and said.isdecimal() else len(fields[0]) - labelled
    channels = 1 if said is None and archive.flag("univariate") else channels
    for row, parts in enumerate(fields):
        if len(parts) - labelled != channels:
            fix = "put `:` between channels" + (" and before the label" if labelled else "")
            expected = f"{channels} channel{'s' * (channels != 1)}" + (
                " and a label" if labelled else ""
            )
            raise DataError(archive.line(row), expected, f"{len(parts)} fields", fix)
    return channels


def _refuse_fields(
    archive: _Archive, fields: list[list[str]], width: int, names: list[str]
) -> None:
    for row, parts in enumerate(fields):
        if len(parts) != width:
            fix = "put `:` between fields, and none inside"
            raise DataError(
                archive.line(row), f"{width} fields ({', '.join(names)})", str(len(parts)), fix
            )


def _sequences(archive: _Archive, texts: pl.Series) -> pl.Series:
    """Numbers between commas as one list per row; missing values are null."""
    cells = (
        pl.when(texts != "")
        .then(texts.str.split(","))
        .otherwise(pl.lit([], dtype=pl.List(pl.String)))
    )
    lists = pl.select(cells.alias(texts.name)).to_series()
    flat = lists.filter(lists.list.len() > 0).explode().str.strip_chars()
    numbers = flat.cast(pl.Float64, strict=False)
    if (numbers.is_null() & ~flat.is_in(list(_MISSING))).any():
        _refuse_text(archive, texts)
    return lists.list.eval(pl.element().str.strip_chars().cast(pl.Float64, strict=False))


def _refuse_text(archive: _Archive, texts: pl.Series) -> None:
    for row, text in enumerate(texts):
        cells = pl.Series([cell.strip() for cell in text.split(",")])
        bad = cells.filter(
            cells.cast(pl.Float64, strict=False).is_null() & ~cells.is_in(list(_MISSING))
        )
        if len(bad):
            fix = "write numbers, and ? for a missing value"
            raise DataError(archive.line(row), "numbers", repr(bad[0]), fix)


def _labels(archive: _Archive, labels: list[str]) -> pl.Series:
    known = pl.Series(
        "label", [None if label == "?" else label for label in labels], dtype=pl.String
    )
    if archive.flag("classlabel"):
        return known
    return _number_column(archive, known)


def _attribute(archive: _Archive, key: str, kind: str, cells: list[str]) -> pl.Series:
    values = pl.Series(
        key, [None if cell.strip() in _MISSING else cell.strip() for cell in cells], dtype=pl.String
    )
    if kind == "date" or key == "start_timestamp":
        return _date_column(archive, values)
    return _number_column(archive, values) if kind in ("numeric", "integer", "real") else values


def _number_column(archive: _Archive, values: pl.Series) -> pl.Series:
    numbers = values.cast(pl.Float64, strict=False)
    _refuse_lost(archive, values, numbers, "a number")
    return numbers


def _date_column(archive: _Archive, values: pl.Series) -> pl.Series:
    """Dates as ``1979-01-01 00-00-00``; the time of day may be missing."""
    cell = pl.col(values.name)
    moment = cell.str.to_datetime("%Y-%m-%d %H-%M-%S", time_unit="us", strict=False)
    day = cell.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    dates = values.to_frame().select(pl.coalesce(moment, day)).to_series()
    _refuse_lost(archive, values, dates, "a date such as 1979-01-01 00-00-00")
    return dates


def _refuse_lost(archive: _Archive, texts: pl.Series, values: pl.Series, expected: str) -> None:
    lost = (values.is_null() & texts.is_not_null()).arg_true()
    if len(lost):
        fix = f"correct {texts.name}"
        raise DataError(archive.line(int(lost[0])), expected, repr(texts[int(lost[0])]), fix)


def _with_times(long: pl.DataFrame, frequency: str | None) -> pl.DataFrame:
    """Turn the number of the step into a date or moment, given a start and a known frequency."""
    if (
        frequency is None
        or "start_timestamp" not in long.columns
        or long["start_timestamp"].null_count()
    ):
        return long
    start, step = pl.col("start_timestamp"), pl.col("time")
    seconds = _seconds(frequency)
    if frequency in _CALENDAR:
        count, unit = _CALENDAR[frequency]
        moment = start.dt.offset_by(pl.format("{}" + unit, step * count))
    elif seconds:
        moment = start + pl.duration(seconds=step * seconds)
    else:
        return long
    timed = long.with_columns(time=moment)
    at_midnight = frequency in _CALENDAR and (timed["time"].dt.time() == _MIDNIGHT).all()
    return timed.with_columns(pl.col("time").cast(pl.Date)) if at_midnight else timed


def _seconds(frequency: str) -> int | None:
    """Seconds of a step, from words such as ``hourly``, ``10_minutes``, ``4_seconds``."""
    parts = re.fullmatch(r"(\d+)_(hours|minutes|seconds)", frequency)
    return int(parts[1]) * _UNITS[parts[2]] if parts else _CLOCK.get(frequency)
