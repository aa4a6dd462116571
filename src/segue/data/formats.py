"""File formats by suffix: the bytes of one file become one piece of a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from segue.data.archives import read_ts, read_tsf
from segue.data.delimited import read_delimited, read_tabbed
from segue.data.piece import Piece, ReadOptions, decode
from segue.data.records import read_json, read_json_lines
from segue.errors import DataError
from segue.fields import KINDS

Types = Literal["all", "dates", "none"]
"""What is left to find out in columns of text: every type, dates only, or nothing."""


@dataclass(frozen=True)
class Format:
    """How to read one format.

    Attributes:
        name: the first of its suffixes.
        read: bytes, file name and options to a piece; None where the files of a table are cells of
            it, such as recordings.
        types: what is left to find out when all files are stacked.
        text: may be compressed by gzip; an empty file is reported as such.
    """

    name: str
    read: Callable[[bytes, str, ReadOptions], Piece] | None
    types: Types = "none"
    text: bool = True


def read_text(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read a text file into a column ``text``: one row, or a row per line that is not empty."""
    text = decode(data, name, options.encoding).replace("\r\n", "\n")
    rows = [line for line in text.split("\n") if line.strip()] if options.lines else [text]
    return Piece(pl.DataFrame({"text": rows}, schema={"text": pl.String}))


def read_parquet(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read a Parquet file."""
    return Piece(_binary(pl.read_parquet, data, name, "a Parquet file"))


def read_arrow(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read an Arrow IPC (Feather 2) file or stream."""
    reader = pl.read_ipc if data[:6] == b"ARROW1" else pl.read_ipc_stream
    return Piece(_binary(reader, data, name, "an Arrow file"))


def _binary(reader: Callable[..., pl.DataFrame], data: bytes, name: str, what: str) -> pl.DataFrame:
    try:
        return reader(io.BytesIO(data))
    # A damaged file can make the reader panic, which is not an Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        fix = "write or copy the file again"
        raise DataError(name, what, "damaged bytes", fix) from None


_CELLS = {
    suffix: Format(kind.suffixes[0], None, text=False)
    for kind in KINDS.values()
    for suffix in kind.suffixes
}

SUFFIXES: dict[str, Format] = {
    ".csv": Format(".csv", read_delimited, "all"),
    ".tsv": Format(".tsv", read_tabbed, "all"),
    ".txt": Format(".txt", read_text),
    ".jsonl": Format(".jsonl", read_json_lines, "dates"),
    ".ndjson": Format(".jsonl", read_json_lines, "dates"),
    ".json": Format(".json", read_json, "dates"),
    ".ts": Format(".ts", read_ts),
    ".tsf": Format(".tsf", read_tsf),
    ".parquet": Format(".parquet", read_parquet, "dates", text=False),
    ".arrow": Format(".arrow", read_arrow, "dates", text=False),
    ".feather": Format(".arrow", read_arrow, "dates", text=False),
    ".ipc": Format(".arrow", read_arrow, "dates", text=False),
    **_CELLS,
}
"""Every suffix that can be read; those of text may have ``.gz`` behind them."""
