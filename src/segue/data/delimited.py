"""Delimited text: comma, semicolon, tab, ``|`` or blanks between cells, which stay text here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from segue.data.piece import Piece, ReadOptions, decode
from segue.errors import DataError


def read_delimited(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read delimited text; every cell stays text (types are found over all files at once)."""
    text = decode(data, name, options.encoding).replace("\r\n", "\n").strip("\n")
    separator = options.separator or _sniff(text)
    if separator == " ":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    lines = csv.reader(io.StringIO(text), delimiter=separator)
    first = next(lines, [])
    skipped = lines.line_num if options.header else 0
    names = _names(first, name, options)
    body = _Body(
        text.split("\n", skipped)[-1] if skipped <= text.count("\n") else "",
        name,
        separator,
        skipped,
    )
    if not body.text.strip():
        fix = "add rows, or check that the right file was given"
        raise DataError(name, "at least one row below the header", "a header only", fix)
    frame = _cells(body, names)
    return Piece(_name_the_unnamed(frame, first if options.header else names))


def read_tabbed(data: bytes, name: str, options: ReadOptions) -> Piece:
    """Read tab-separated text."""
    return read_delimited(data, name, replace(options, separator=options.separator or "\t"))


def _sniff(text: str) -> str:
    """The separator that the first line holds and most of the next lines hold as often."""
    lines = [re.sub(r'"[^"]*"', "", line) for line in text.split("\n", 20)[:20] if line.strip()]

    def score(separator: str) -> tuple[float, int]:
        count = lines[0].count(separator)
        same = sum(line.count(separator) == count for line in lines)
        return (same / len(lines) if count else 0.0, count)

    return max(",;\t|", key=score)


def _names(first: list[str], name: str, options: ReadOptions) -> list[str]:
    """One name per column; unnamed ones get a name that cannot clash until `_name_the_unnamed`."""
    if not options.header:
        names = list(options.columns or (f"column_{k + 1}" for k in range(len(first))))
        if len(names) != len(first):
            fix = "give one name per column"
            raise DataError(
                name, f"{len(names)} columns as named", f"{len(first)} in the first line", fix
            )
    else:
        names = [cell.strip() or f"\0{k}" for k, cell in enumerate(first)]
    double = sorted({each for each in names if names.count(each) > 1})
    if double:
        fix = "rename one, or say header: false if the first line holds data"
        raise DataError(
            name, "each column name once", f"'{double[0]}' {names.count(double[0])} times", fix
        )
    return names


@dataclass(frozen=True)
class _Body:
    """The rows of a table: their text, and how many lines of the file lie before it."""

    text: str
    name: str
    separator: str
    skipped: int


def _cells(body: _Body, names: list[str]) -> pl.DataFrame:
    # Blank lines would become rows of missing cells; with one cell a row they may well mean that.
    blank = len(names) > 1 and re.search(r"\n[ \t]*\n", body.text)
    text = _rewrite(body, len(names)) if blank else body.text
    try:
        return _parse(text, body.separator, names)
    except pl.exceptions.PolarsError:
        # Rare: find the culprit line by line, or mend rows that lack cells or end in empty ones.
        return _parse(_rewrite(body, len(names)), body.separator, names)


def _parse(text: str, separator: str, names: list[str]) -> pl.DataFrame:
    schema = {name: pl.String for name in names}
    source = io.BytesIO(text.encode())
    return pl.read_csv(source, has_header=False, separator=separator, schema=schema)


def _rewrite(body: _Body, width: int) -> str:
    """Write the table again without blank lines, every row with `width` cells.

    Raises:
        DataError: a line has more cells than the header; a quote does not end.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=body.separator, lineterminator="\n")
    for line, row in _rows(body):
        if len(row) < 2 and not "".join(row).strip():
            continue
        if any(cell.strip() for cell in row[width:]):
            fix = "quote cells that hold the separator, or name the right separator"
            got = str(len(row))
            raise DataError(
                f"{body.name}: line {line}", f"{width} cells as in the first line", got, fix
            )
        writer.writerow((row + [""] * width)[:width])
    return out.getvalue()


def _rows(body: _Body) -> Iterator[tuple[int, list[str]]]:
    """The rows, and the line of the file in which each starts (from 1)."""
    rows = csv.reader(io.StringIO(body.text, newline=""), delimiter=body.separator, strict=True)
    while True:
        start = body.skipped + rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            fix = "close the quotes and double those inside a cell"
            raise DataError(
                f"{body.name}: line {start}", "well-formed cells", str(error), fix
            ) from None
        yield start, row


def _name_the_unnamed(frame: pl.DataFrame, header: list[str]) -> pl.DataFrame:
    """Drop an unnamed index and unnamed empty columns; name other ones by their position."""
    for position, (column, title) in enumerate(zip(frame, header, strict=True)):
        if title.strip():
            continue
        index = position == 0 and any(_counts_from(column, start) for start in (0, 1))
        if (index and frame.width > 1) or column.null_count() == len(column):
            frame = frame.drop(column.name)
        else:
            frame = frame.rename({column.name: f"column_{position + 1}"})
    return frame


def _counts_from(cells: pl.Series, start: int) -> bool:
    counted = pl.int_range(start, start + len(cells), eager=True)
    return cells.equals(counted.cast(pl.String), check_names=False)
