"""Records: JSON arrays and JSON lines become columns of one kind of value each."""

from __future__ import annotations

import json
from datetime import date, datetime
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
import polars as pl

from segue.data.piece import Piece, ReadOptions, decode
from segue.errors import DataError


def read_json_lines(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read one JSON object a line.

    Raises:
        DataError: a line is not JSON, or JSON but not an object (with its number).
    """
    records: list[dict[str, Any]] = []
    # Not splitlines: a JSON text may hold other line ends than "\n".
    for number, line in enumerate(decode(data, name, options.encoding).split("\n"), start=1):
        if line.strip():
            records.append(
                _object(_loads(line, f"{name}: line {number}"), f"{name}: line {number}")
            )
    return Piece(frame_of_records(records, name))


def read_json(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read one JSON array of objects."""
    value = _loads(decode(data, name, options.encoding), name)
    if not isinstance(value, list):
        fix = "write the records as [{...}, {...}] or as JSON lines (.jsonl)"
        raise DataError(name, "an array of objects", _kind(value), fix)
    return Piece(
        frame_of_records(
            [_object(row, f"{name}: row {k + 1}") for k, row in enumerate(value)], name
        )
    )


def frame_of_records(records: list[dict[str, Any]], name: str) -> pl.DataFrame:
    """Turn records into columns; a key that a record lacks is missing there.

    Raises:
        DataError: a column holds values of more than one kind, or objects.
    """
    names = dict.fromkeys(key for record in records for key in record)
    columns = []
    for key in names:
        values = [record.get(key) for record in records]
        dtype = _type_of(values, name, key)
        columns.append(pl.Series(key, values, dtype=dtype, strict=False))
    return pl.DataFrame(columns)


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        short = text.strip()[:40]
        at = f" (at character {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        fix = 'write each record as JSON, e.g. {"x": 1}'
        raise DataError(where, "JSON", f"{short!r}{at}", fix) from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        fix = 'write each record as an object, e.g. {"x": 1}'
        raise DataError(where, "a JSON object", _kind(value), fix)
    return value


_KINDS: tuple[tuple[Any, str], ...] = (
    (bool | np.bool_, "a boolean"),
    (Real, "a number"),
    (str, "a text"),
    (datetime, "a moment"),
    (date, "a date"),
    (list | tuple, "a list"),
)


_TYPES = {
    "a boolean": pl.Boolean(),
    "a text": pl.String(),
    "a moment": pl.Datetime("us"),
    "a date": pl.Date(),
    "null": pl.Float64(),
}


def _kind(value: Any) -> str:
    return "null" if value is None else _kind_of(type(value))


def _kind_of(kind: type) -> str:
    return next((word for base, word in _KINDS if issubclass(kind, base)), "an object")


def _type_of(values: list[Any], name: str, key: str) -> pl.DataType:
    """The one type of all values, which lists share with their elements."""
    # By the few types rather than the many values, for speed.
    types = set(map(type, values)) - {type(None)}
    kinds = {_kind_of(each) for each in types} or {"null"}
    if len(kinds) > 1:
        _refuse_mixed(values, name, key)
    kind = kinds.pop()
    if kind == "an object":
        fix = "give each value a key of its own"
        where = f"{name}: column '{key}'"
        raise DataError(where, "numbers, texts, booleans or lists", "objects", fix)
    if kind == "a list":
        inner = [each for value in values if value for each in value]
        return pl.List(_type_of(inner, name, key))
    if kind == "a number":
        whole = all(issubclass(each, Integral) for each in types)
        return pl.Int64() if whole and _fits(values) else pl.Float64()
    return _TYPES[kind]


def _fits(values: list[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(-(2**63) <= min(present) and max(present) < 2**63)


def _refuse_mixed(values: list[Any], name: str, key: str) -> NoReturn:
    first = next(_kind(value) for value in values if value is not None)
    for row, value in enumerate(values, start=1):
        if value is not None and _kind(value) != first:
            where, fix = f"{name}: column '{key}', row {row}", "give the column one kind of value"
            raise DataError(
                where, f"{first} as in other rows", _kind(value), f"{fix}; null means missing"
            )
    raise AssertionError("all values are of one kind")
