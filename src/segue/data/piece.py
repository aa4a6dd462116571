"""What every reader of a file takes and gives: options and bytes in, a piece of a table out."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from segue.data.tables import Clocks
from segue.errors import DataError

Hints = dict[str, str | int]


@dataclass(frozen=True)
class ReadOptions:
    """How to read files; formats that carry their own types (Parquet, Arrow) need none of it.

    Attributes:
        separator: between the cells of a line; None finds it among comma, semicolon, tab and ``|``.
            A blank folds runs of blanks. A ``.txt`` file is a table only where it is given.
        header: the first line of delimited text holds the names.
        columns: the names where there is no header.
        lines: each line of a ``.txt`` file is a row; otherwise a file is one row.
        encoding: of text files.
        missing: cells that mean "not observed" in columns of numbers, dates and booleans; in a
            column of text they are text.
        key, time, clocks: how several tables become one; see `segue.data.tables.together`.
        events: the columns of what was observed and of its value, where a row says one value of one
            thing; see `segue.data.tables.pivoted`. `wanted` are things that need a column.
        text_columns: columns that stay text whatever their cells look like, e.g. codes (``007``).
    """

    separator: str | None = None
    header: bool = True
    columns: tuple[str, ...] | None = None
    lines: bool = False
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("", "NA", "NaN", "nan", "null", "?")
    text_columns: tuple[str, ...] = ()
    key: str | None = None
    time: str | None = None
    clocks: Clocks = "merge"
    events: tuple[str, str] | None = None
    wanted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.separator is not None and len(self.separator.encode()) != 1:
            got = repr(self.separator)
            raise DataError(
                "separator", "one ASCII character", got, "use a character such as ';' or a blank"
            )
        if self.header and self.columns is not None:
            fix = "also say header: false, or leave the names to the file"
            raise DataError("columns", "names only where there is no header", "both", fix)


@dataclass(frozen=True)
class Piece:
    """One file: its frame and what the file itself says about the roles of its columns."""

    frame: pl.DataFrame
    hints: Hints = field(default_factory=dict)


def decode(data: bytes, name: str, encoding: str) -> str:
    """Decode a text file and drop its byte order mark.

    Raises:
        DataError: a byte is not in the encoding (with its offset); the encoding is unknown.
    """
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        got = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        # Spreadsheets write UTF-16, and begin it with a mark.
        is_marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        known = "utf-16, by its first bytes" if is_marked else "e.g. latin-1"
        fix = f"save the file as UTF-8, or name its encoding ({known})"
        raise DataError(name, f"{encoding.upper()} text", got, fix) from None
    except LookupError:
        fix = "use a name that Python knows, e.g. utf-8 or latin-1"
        raise DataError("encoding", "the name of an encoding", repr(encoding), fix) from None
