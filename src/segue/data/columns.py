"""Columns: text cells get their type, values are made tidy, a table gets its fingerprint."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import polars as pl

from segue.errors import DataError
from segue.fields import KINDS

Layout = Literal["steps", "examples"]

_DATE_NAME = re.compile(r"date|time|day|timestamp", re.IGNORECASE)
_MOMENTS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")


@dataclass(frozen=True)
class Rows:
    """The files that the rows of a table came from, so that a message can name file and row.

    Rows count from 1; the header does not count.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def place(self, index: int, column: str) -> str:
        """Say where row ``index`` (from 0, over all files) of ``column`` lies."""
        for name, count in zip(self.names, self.counts, strict=True):
            if index < count:
                return f"{name}: column '{column}', row {index + 1}"
            index -= count
        raise AssertionError("a row beyond the last file")


def type_cells(cells: pl.Series, missing: tuple[str, ...], rows: Rows) -> pl.Series:
    """Turn text cells into numbers, dates, moments or booleans when all are; else keep them.

    The ``missing`` markers become null in every column that does not stay text.

    Raises:
        DataError: most cells are numbers (or dates) and some are not; a number is infinite.
    """
    text = cells.str.strip_chars()
    text = pl.select(pl.when(~text.is_in(list(missing))).then(text).alias(cells.name)).to_series()
    if text.null_count() == len(text):
        return text.cast(pl.Float64)
    numbers = text.cast(pl.Float64, strict=False)
    if _most(numbers, text):
        _refuse_mixed(numbers, text, "number", rows)
        return _whole(text, numbers)
    if _lower_in(text, ("true", "false")):
        return text.str.to_lowercase() == "true"
    return type_dates(cells, text, rows)


def type_dates(cells: pl.Series, text: pl.Series, rows: Rows) -> pl.Series:
    """Turn text into dates or moments when all of ``text`` is; else return ``cells`` as they are.

    Understands ISO days and moments, months (``1949-01``) and quarters (``1970 Q1``); a moment with
    an offset becomes UTC.

    Raises:
        DataError: most cells are dates and some are not.
    """
    sample = text.drop_nulls().head(100)
    if not sample.str.contains(r"^\d{4}([-/]\d|[ -]?Q)").any():
        return cells
    found = None if sample.str.contains(":").any() else _days(text)
    if found is None or found.null_count() > text.null_count():
        found = _moments(text)
    if not _most(found, text):
        return cells
    _refuse_mixed(found, text, "date", rows)
    return found


def tidy(values: pl.Series, rows: Rows) -> pl.Series:
    """Give a column plain types and no NaN: NaN is null, arrays are lists, categories text.

    Raises:
        DataError: a number is infinite; the column holds Python objects.
    """
    plain = _plain_type(values.dtype)
    if plain == pl.Object:
        fix = "give each cell of the column one type"
        raise DataError(
            rows.place(0, values.name), "numbers, text, dates or lists", "mixed objects", fix
        )
    values = values if plain == values.dtype else values.cast(plain)
    flat = flatten(values)
    if flat.dtype.is_float():
        if flat.is_infinite().any():
            _refuse_infinite(values, rows)
        if flat.is_nan().any():
            free = _without_nan(pl.col(values.name), values.dtype)
            return values.to_frame().select(free).to_series()
    return values


def flatten(values: pl.Series) -> pl.Series:
    """Return the innermost values of a (nested) list column; empty and null lists give none."""
    while isinstance(values.dtype, pl.List):
        values = values.filter(values.list.len() > 0).explode()
    return values


def layout_of(frame: pl.DataFrame) -> Layout:
    """Tell whether a row is a step or a whole sequence.

    A row is a whole sequence when a column holds lists or names recordings, or when no column is a
    time and some column is a text per row: nearly all cells differ (90 %) and letters outnumber
    digits, so that keys and codes do not count.
    """
    if any(isinstance(column.dtype, pl.List) or names_files(column) for column in frame):
        return "examples"
    if any(dtype.is_temporal() for dtype in frame.dtypes):
        return "steps"
    return "examples" if any(_is_prose(column) for column in frame) else "steps"


def names_files(column: pl.Series) -> bool:
    """Tell whether the cells name files of one kind, each a whole sequence."""
    return any(kind.suffixes and kind.fits(column, whole=True) for kind in KINDS.values())


def fingerprint(frame: pl.DataFrame) -> str:
    """Return the sha256 of names, types and values: the same table, the same fingerprint."""
    digest = hashlib.sha256()
    for column in frame:
        digest.update(f"{column.name}\0{column.dtype}\0".encode())
        _digest_values(digest, column)
    return digest.hexdigest()


def _most(found: pl.Series, text: pl.Series) -> bool:
    present = len(text) - text.null_count()
    return 2 * (len(found) - found.null_count()) > present


def _refuse_mixed(found: pl.Series, text: pl.Series, kind: str, rows: Rows) -> None:
    present = len(text) - text.null_count()
    good = len(found) - found.null_count()
    if good == present:
        return
    first = int((found.is_null() & text.is_not_null()).arg_true()[0])
    expected = f"a {kind} as in {good} of {present} cells"
    fix = "correct such cells, add the marker to `missing`, or name the column in `text_columns`"
    raise DataError(rows.place(first, text.name), expected, repr(text[first]), fix)


def _whole(text: pl.Series, numbers: pl.Series) -> pl.Series:
    whole = text.cast(pl.Int64, strict=False)
    if whole.null_count() > text.null_count():
        return numbers
    days = text.str.to_date("%Y%m%d", strict=False)
    in_range = whole.is_between(1700_01_01, 2100_12_31).all()
    # Three different valid days cannot be chance; fewer need a name that says so.
    sure = bool(_DATE_NAME.search(text.name)) or days.n_unique() >= 3
    if in_range and sure and days.null_count() == text.null_count():
        return days
    return whole


def _lower_in(text: pl.Series, words: tuple[str, ...]) -> bool:
    return bool(text.str.to_lowercase().is_in(list(words)).all())


def _days(text: pl.Series) -> pl.Series:
    cell = pl.col(text.name)
    day = cell.str.replace_all("/", "-").str.replace(r"^(\d{4})-(\d{2})$", "${1}-${2}-01")
    year = cell.str.extract(r"^(\d{4})[ -]?Q[1-4]$").cast(pl.Int32)
    quarter = cell.str.extract(r"^\d{4}[ -]?Q([1-4])$").cast(pl.Int32)
    either = pl.coalesce(
        day.str.to_date("%Y-%m-%d", strict=False), pl.date(year, quarter * 3 - 2, 1)
    )
    return text.to_frame().select(either.alias(text.name)).to_series()


def _moments(text: pl.Series) -> pl.Series:
    cell = pl.col(text.name).str.replace_all("/", "-").str.replace("T", " ")
    cell = cell.str.replace("Z$", "+00:00")
    local = [cell.str.to_datetime(form, time_unit="us", strict=False) for form in _MOMENTS]
    offset = [
        cell.str.to_datetime(f"{form}%:z", time_unit="us", time_zone="UTC", strict=False)
        for form in _MOMENTS
    ]
    found = pl.Series(text.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(text))
    # One form at a time until all cells are read: most columns need the first only.
    for moment in (*local, *(each.dt.replace_time_zone(None) for each in offset)):
        found = text.to_frame().select(pl.coalesce(found, moment).alias(text.name)).to_series()
        if found.null_count() == text.null_count():
            return found
    days = _days(text).cast(pl.Datetime("us"))
    return pl.select(pl.coalesce(found, days).alias(text.name)).to_series()


def _plain_type(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_plain_type(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return pl.String()
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", dtype.time_zone)
    return pl.Float64() if isinstance(dtype, pl.Decimal) else dtype


def _refuse_infinite(values: pl.Series, rows: Rows) -> NoReturn:
    # Only a failing read comes here, so a slow search row by row is good enough.
    for index in range(len(values)):
        inner = flatten(values.slice(index, 1))
        bad = inner.filter(inner.is_infinite())
        if len(bad):
            fix = "put a number there, or leave the cell empty (not observed)"
            raise DataError(rows.place(index, values.name), "a finite number", str(bad[0]), fix)
    raise AssertionError("no infinite value")


def _without_nan(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.List):
        inner: pl.DataType = dtype.inner  # type: ignore[assignment]
        return cell.list.eval(_without_nan(pl.element(), inner))
    return cell.fill_nan(None)


def _is_prose(column: pl.Series) -> bool:
    if column.dtype != pl.String or column.null_count() == len(column):
        return False
    present = column.drop_nulls()
    letters = present.str.count_matches(r"\p{L}").sum()
    digits = present.str.count_matches(r"\d").sum()
    return present.n_unique() >= 0.9 * len(present) and letters > digits


def _digest_values(digest: hashlib._Hash, values: pl.Series) -> None:
    """Feed length, nulls and values; lists as lengths and values, text as lengths and bytes."""
    digest.update(len(values).to_bytes(8, "little"))
    if values.null_count():
        digest.update(np.packbits(values.is_null().to_numpy()).tobytes())
        values = values.drop_nulls()
    if isinstance(values.dtype, pl.List):
        digest.update(values.list.len().to_numpy().astype("<i8").tobytes())
        _digest_values(digest, values.filter(values.list.len() > 0).explode())
    elif isinstance(values.dtype, pl.Struct):
        for name in values.struct.fields:
            _digest_values(digest, values.struct.field(name))
    elif values.dtype == pl.String:
        digest.update(values.str.len_bytes().to_numpy().astype("<i8").tobytes())
        digest.update("".join(values.to_list()).encode())
    elif values.dtype == pl.Binary:
        digest.update(values.bin.size().to_numpy().astype("<i8").tobytes())
        digest.update(b"".join(values.to_list()))
    else:
        digest.update(np.ascontiguousarray(values.to_physical().to_numpy()).data)
