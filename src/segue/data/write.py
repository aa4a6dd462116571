"""`write`: a frame becomes a file of the format that its suffix names."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from segue.errors import DataError


def csv(frame: pl.DataFrame) -> bytes:
    """Delimited text; a list stands in its cell as JSON."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    cells = [
        pl.Series(name, [_json(cell) for cell in frame[name].to_list()], dtype=pl.String)
        for name in lists
    ]
    return frame.with_columns(cells).write_csv().encode()


def json_lines(frame: pl.DataFrame) -> bytes:
    """One JSON object per line."""
    return frame.write_ndjson().encode()


def parquet(frame: pl.DataFrame) -> bytes:
    """Apache Parquet."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    ".csv": csv,
    ".parquet": parquet,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
}
"""The formats by suffix."""


def write(frame: pl.DataFrame, path: Path, *, overwrite: bool = False) -> None:
    """Write `frame` in the format of the suffix of `path`.

    Raises:
        DataError: the suffix is unknown, the place is taken, or it cannot be written to.
    """
    refuse(path, overwrite=overwrite)
    write_bytes(WRITERS[path.suffix.lower()](frame), path, overwrite=overwrite)


def refuse(path: Path, *, overwrite: bool) -> None:
    """Raise if `write` would refuse: it is better known before a long computation than after it."""
    if path.suffix.lower() not in WRITERS:
        got = f"'{path.suffix}'" if path.suffix else "no suffix"
        expected = f"a name that ends in one of {' '.join(WRITERS)}"
        raise DataError(str(path), expected, got, "choose one of these formats")
    refuse_taken(path, overwrite=overwrite)


def refuse_taken(path: Path, *, overwrite: bool) -> None:
    """Raise if something lies at `path` that may not be replaced, or if there is no such folder."""
    if path.is_dir():
        raise DataError(str(path), "the name of a file", "a folder", "choose another name")
    if path.exists() and not overwrite:
        fix = "choose another name, or say --overwrite"
        raise DataError(str(path), "a new file", "one that exists", fix)
    if not path.parent.is_dir():
        got = f"no folder '{path.parent}'"
        raise DataError(str(path), "a place to write to", got, "make the folder first")


def write_bytes(data: bytes, path: Path, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all: beside its place, then renamed.

    Raises:
        DataError: the place is taken, or it cannot be written to.
    """
    refuse_taken(path, overwrite=overwrite)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        got, fix = str(error.strerror), "choose another place"
        raise DataError(str(path), "a place to write to", got, fix) from None


def _json(cell: list[object] | None) -> str | None:
    return None if cell is None else json.dumps(cell, default=str, ensure_ascii=False)
