"""`read`: whatever the user has (a file, a folder, a frame, arrays) becomes one `Table`."""

from __future__ import annotations

import difflib
import glob
import gzip
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from segue.data.arrays import frame_of
from segue.data.columns import Layout, Rows, fingerprint, layout_of, tidy, type_cells, type_dates
from segue.data.formats import SUFFIXES, Format, Types
from segue.data.piece import Hints, Piece, ReadOptions
from segue.data.tables import pivoted, together
from segue.errors import DataError

__all__ = ["ReadOptions", "Table", "read"]


@dataclass(frozen=True)
class Table:
    """Raw values, before any declaration.

    Attributes:
        frame: the values; missing is null, no float is NaN or infinite.
        layout: ``steps`` (a row is a step) or ``examples`` (a row is a whole sequence: lists, or a
            text per row).
        origin: a short name for messages: of the file or folder; ``frame``, ``arrays`` ...
        hints: what the file says about itself: the columns ``key``, ``time`` and ``target``, the
            ``horizon`` and the ``frequency``.
        folder: where paths in the cells start from.
        fingerprint: sha256 of names, types and values, whatever the place or format of the file.
    """

    frame: pl.DataFrame
    layout: Layout
    origin: str
    hints: Hints
    fingerprint: str
    folder: Path = Path()


def read(source: Any, options: ReadOptions | None = None) -> Table:
    """Read data from wherever they are.

    Args:
        source: a path to a file (.csv .tsv .txt .jsonl .ndjson .json .ts .tsf, each also with .gz;
            .parquet .arrow .feather .ipc), a folder of files of one format, or a pattern such as
            ``logs/*.csv`` (several files are stacked, and a column ``file`` holds the stem of the
            name); a recording (.wav .flac .ogg), a folder or a pattern of recordings, or a folder
            of such folders (a row per recording, with columns ``file``, ``path`` and, where there
            are several folders, ``label``); a dict of such sources by name, which are several
            tables of the same keys; a frame or series of polars or pandas; an array or tensor ``[B,
            T, I]`` (columns ``x0`` ..., or ``x`` when I = 1), ``[B, T]`` or ``[B]``; a list of
            ``[T_i, I]`` or ``[T_i]``; a dict of such arrays or of lists; a list of records.
        options: how to read text files.

    Raises:
        DataError: the data are not there, not readable or not usable.
    """
    options = options or ReadOptions()
    return _wide(_read(source, options), options)


def _read(source: Any, options: ReadOptions) -> Table:
    if isinstance(source, Mapping) and source and all(map(_is_table, source.values())):
        return _read_tables(source, options)
    if isinstance(source, str | Path):
        return _read_files(source, options)
    frame, origin = frame_of(source)
    if frame.height == 0 or frame.width == 0:
        got = f"{frame.height} rows of {frame.width} columns"
        raise DataError(origin, "at least one row and one column", got, "give some data")
    rows = Rows((origin,), (frame.height,))
    return _finish(_type(frame, "dates", options, rows), origin, {}, rows)


def _is_table(source: Any) -> bool:
    return isinstance(source, str | Path | pl.DataFrame | Table)


def _read_tables(sources: Mapping[str, Any], options: ReadOptions) -> Table:
    """Several tables as one."""
    tables = {
        str(name): each if isinstance(each, Table) else _read(each, options)
        for name, each in sources.items()
    }
    frames = {name: table.frame for name, table in tables.items()}
    frame = together(frames, options.key, options.time, options.clocks)
    first = next(iter(tables.values()))
    origin = " + ".join(tables)
    return Table(frame, layout_of(frame), origin, {}, fingerprint(frame), first.folder)


def _wide(table: Table, options: ReadOptions) -> Table:
    """Rows of events as a row per time."""
    if options.events is None:
        return table
    framing = [column for column in (options.key, options.time) if column]
    frame = pivoted(table.frame, framing, *options.events, options.wanted, table.origin)
    return replace(table, frame=frame, layout="steps", fingerprint=fingerprint(frame))


def _finish(
    frame: pl.DataFrame,
    origin: str,
    hints: Hints,
    rows: Rows,
    layout: Layout | None = None,
    folder: Path = Path(),
) -> Table:
    frame = pl.DataFrame([tidy(column, rows) for column in frame])
    return Table(frame, layout or layout_of(frame), origin, hints, fingerprint(frame), folder)


def _read_files(source: str | Path, options: ReadOptions) -> Table:
    paths, form = _find(source)
    if form.read is None:
        return _places(paths, Path(source).name)
    if form.name == ".txt" and options.separator:
        form = SUFFIXES[".csv"]
    pieces = [_read_piece(path, form, options) for path in paths]
    names = tuple(path.name for path in paths)
    rows = Rows(names, tuple(piece.frame.height for piece in pieces))
    frame = _type(_stack(paths, pieces), form.types, options, rows)
    origin = names[0] if len(names) == 1 else Path(source).name
    layout: Layout | None = "examples" if form.name == ".txt" else None
    return _finish(frame, origin, _shared_hints(pieces), rows, layout, paths[0].parent)


def _type(frame: pl.DataFrame, types: Types, options: ReadOptions, rows: Rows) -> pl.DataFrame:
    """Find the types that the source leaves open."""
    keep = (*options.text_columns, "file")
    words = [column for column in frame if column.dtype == pl.String and column.name not in keep]
    if types == "all":
        return frame.with_columns(type_cells(column, options.missing, rows) for column in words)
    if types == "dates":
        return frame.with_columns(type_dates(column, column, rows) for column in words)
    return frame


def _shared_hints(pieces: list[Piece]) -> Hints:
    first = pieces[0].hints
    return {
        key: first[key]
        for key in first
        if all(piece.hints.get(key) == first[key] for piece in pieces)
    }


# Finding files ------------------------------------------------------------------------------------


def _find(source: str | Path) -> tuple[list[Path], Format]:
    """The files that a path, a folder or a pattern means, sorted by name, and their one format."""
    path = Path(source)
    if path.is_file():
        return [path], _format(path)
    if path.is_dir():
        found = sorted(
            each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")
        )
        found = [each for each in found if _suffix(each) in SUFFIXES] or _files_below(path)
        nothing = "no such file in the folder"
    elif glob.has_magic(str(path)):
        found = sorted(
            Path(each) for each in glob.glob(str(path), recursive=True) if Path(each).is_file()
        )
        nothing = "no file that matches"
    else:
        raise DataError(str(source), "a file, a folder or a pattern", *_nothing_there(path))
    if not found:
        fix = "give a folder or a pattern with files that can be read"
        raise DataError(str(source), f"at least one of {_all_suffixes()}", nothing, fix)
    formats = {_format(each).name: _format(each) for each in found}
    if len(formats) > 1:
        fix = f"choose with a pattern, e.g. {path.name if path.is_dir() else '.'}/*{min(formats)}"
        raise DataError(str(source), "files of one format", " and ".join(sorted(formats)), fix)
    return found, formats.popitem()[1]


def _files_below(folder: Path) -> list[Path]:
    """The files in the folders of a folder that are cells of a table, such as recordings."""
    found = sorted(each for each in folder.glob("[!.]*/[!.]*") if each.is_file())
    return [each for each in found if _suffix(each) in SUFFIXES and _format(each).read is None]


def _places(paths: list[Path], origin: str) -> Table:
    """A row for each file: ``file``, the stem of its name; ``path``, where it is in the folder that
    holds them all; and where they lie in several folders ``label``, the name of its own.
    """
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    frame = pl.DataFrame(
        {
            "file": [_stem(path) for path in paths],
            "path": [path.relative_to(folder).as_posix() for path in paths],
        }
    )
    if len({path.parent for path in paths}) > 1:
        frame = frame.with_columns(label=pl.Series([path.parent.name for path in paths]))
    # Other recordings under the same names are other data.
    sizes = pl.Series([path.stat().st_size for path in paths])
    return Table(frame, "examples", origin, {}, fingerprint(frame.with_columns(size=sizes)), folder)


def _suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case, without ``.gz``."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    packed = name.endswith(".gz")
    return f"{suffix}.gz" if packed and suffix in SUFFIXES and not SUFFIXES[suffix].text else suffix


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _format(path: Path) -> Format:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        got = f"'{suffix}'" if suffix else "no suffix"
        raise DataError(
            path.name, f"one of {_all_suffixes()}", got, "save the data in one of these formats"
        )
    return SUFFIXES[suffix]


def _all_suffixes() -> str:
    return " ".join(SUFFIXES)


def _nothing_there(path: Path) -> tuple[str, str]:
    """What stands in the place of a path that does not exist, and what may have been meant."""
    folder = path.parent
    if not folder.is_dir():
        return f"no folder '{folder}'", "check the path"
    names = [each.name for each in folder.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3) or difflib.get_close_matches(
        path.name.lower(), names, n=3
    )
    fix = (
        "did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
        if near
        else "check the path"
    )
    return "nothing there", fix


# Reading and stacking -----------------------------------------------------------------------------


def _read_piece(path: Path, form: Format, options: ReadOptions) -> Piece:
    try:
        data = path.read_bytes()
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise DataError(path.name, "a readable file", got, "check its permissions") from None
    if path.name.lower().endswith(".gz"):
        data = _unpack(data, path.name)
    if not data or data.isspace():
        raise DataError(
            path.name, "a table", "an empty file", "check that the right file was given"
        )
    assert form.read is not None
    piece = form.read(data, path.name, options)
    if piece.frame.height == 0 or piece.frame.width == 0:
        got = f"{piece.frame.height} rows of {piece.frame.width} columns"
        raise DataError(
            path.name, "at least one row and one column", got, "check that the right file was given"
        )
    return piece


def _unpack(data: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        fix = "pack or copy the file again"
        raise DataError(name, "a gzip file", "damaged bytes", fix) from None


def _stack(paths: list[Path], pieces: list[Piece]) -> pl.DataFrame:
    """One frame of all files; with more than one a column ``file`` is added."""
    frames = [piece.frame for piece in pieces]
    if len(frames) == 1:
        return frames[0]
    first = frames[0].columns
    for path, frame in zip(paths, frames, strict=True):
        _refuse_other_columns(path.name, frame.columns, paths[0].name, first)
    named = [
        frame.select(*first, file=pl.lit(_stem(path)))
        for path, frame in zip(paths, frames, strict=True)
    ]
    try:
        return pl.concat(named, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        got = str(error).split("\n")[0]
        fix = "give each column one type in all files"
        raise DataError(paths[0].parent.name, "the same types in all files", got, fix) from None


def _refuse_other_columns(name: str, columns: list[str], first_name: str, first: list[str]) -> None:
    if "file" in columns:
        fix = "rename that column, or read the files one by one"
        raise DataError(name, "no column 'file', which is to hold the file's name", "one", fix)
    lacking = [column for column in first if column not in columns]
    surplus = [column for column in columns if column not in first]
    if lacking or surplus:
        got = f"no '{lacking[0]}'" if lacking else f"also '{surplus[0]}'"
        fix = "give all files the same columns, or choose files with a pattern"
        raise DataError(name, f"the columns of {first_name}", got, fix)
