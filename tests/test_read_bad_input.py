"""Reading what is wrong: one whole message for each way to be wrong."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from segue.data.read import ReadOptions, read
from segue.errors import DataError

TSF = """# a comment
@relation Toy
@attribute series_name string
@attribute start_timestamp date
@attribute region string
@frequency monthly
@horizon 3
@data
T1:2020-11-01 00-00-00:north:1,2,?
T2:2021-01-01 00-00-00:south:4
"""
FRAME = pl.DataFrame({"x": [1.0, None], "s": ["a", "bc"], "v": [["p"], None]})
SUFFIXES = (
    ".csv .tsv .txt .jsonl .ndjson .json .ts .tsf .parquet .arrow .feather .ipc .wav .flac .ogg"
)
TS_HEAD = "@univariate false\n@classLabel true a b\n"
CHECK = "check that the right file was given"
MIXED = "correct such cells, add the marker to `missing`, or name the column in `text_columns`"
FINITE = "put a number there, or leave the cell empty (not observed)"
RECORD = 'write each record as an object, e.g. {"x": 1}'
ENCODING = "save the file as UTF-8, or name its encoding (e.g. latin-1)"

BAD_FILES: list[tuple[str, str | bytes, str]] = [
    ("t.csv", "", f"t.csv: expected a table, got an empty file; {CHECK}"),
    ("t.csv.gz", " \n", f"t.csv.gz: expected a table, got an empty file; {CHECK}"),
    (
        "t.csv",
        "a,b\n",
        "t.csv: expected at least one row below the header, got a header only; "
        "add rows, or check that the right file was given",
    ),
    (
        "t.xls",
        "a",
        f"t.xls: expected one of {SUFFIXES}, got '.xls'; save the data in one of these formats",
    ),
    (
        "table",
        "a",
        f"table: expected one of {SUFFIXES}, got no suffix; save the data in one of these formats",
    ),
    (
        "t.csv",
        'a,b\n1,"x\ny"\n3,4,5\n',
        "t.csv: line 4: expected 2 cells as in the first line, got 3; "
        "quote cells that hold the separator, or name the right separator",
    ),
    (
        "t.csv",
        'a,b\n1,2\n3,"4\n',
        "t.csv: line 3: expected well-formed cells, got unexpected end of data; "
        "close the quotes and double those inside a cell",
    ),
    (
        "t.csv",
        "a,b\n1,Zürich\n".encode("latin-1"),
        f"t.csv: expected UTF-8 text, got byte 0xfc at offset 7; {ENCODING}",
    ),
    (
        "t.csv",
        "a,b".encode("utf-16"),
        "t.csv: expected UTF-8 text, got byte 0xff at offset 0; "
        "save the file as UTF-8, or name its encoding (utf-16, by its first bytes)",
    ),
    ("t.txt", b"ab\xff", f"t.txt: expected UTF-8 text, got byte 0xff at offset 2; {ENCODING}"),
    (
        "t.csv",
        "a,b\n1,2\n2,x\n3,4\n",
        f"t.csv: column 'b', row 2: expected a number as in 2 of 3 cells, got 'x'; {MIXED}",
    ),
    (
        "t.csv",
        "day,b\n2020-01-01,2\n2020-02-30,3\n2020-01-03,4\n",
        "t.csv: column 'day', row 2: expected a date as in 2 of 3 cells, got '2020-02-30'; "
        + MIXED,
    ),
    (
        "t.csv",
        "a,b\n1,2\n2,-inf\n",
        f"t.csv: column 'b', row 2: expected a finite number, got -inf; {FINITE}",
    ),
    (
        "t.csv",
        "a,b,a\n1,2,3\n",
        "t.csv: expected each column name once, got 'a' 2 times; "
        "rename one, or say header: false if the first line holds data",
    ),
    (
        "t.parquet",
        b"PAR1 no PAR1",
        "t.parquet: expected a Parquet file, got damaged bytes; write or copy the file again",
    ),
    (
        "t.arrow",
        b"ARROW1 no",
        "t.arrow: expected an Arrow file, got damaged bytes; write or copy the file again",
    ),
    (
        "t.csv.gz",
        gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9],
        "t.csv.gz: expected a gzip file, got damaged bytes; pack or copy the file again",
    ),
    (
        "t.csv.gz",
        b"\x1f\x8bno",
        "t.csv.gz: expected a gzip file, got damaged bytes; pack or copy the file again",
    ),
    ("t.ts", TS_HEAD, "t.ts: expected a line @data, got none; put a line @data before the rows"),
    (
        "t.ts",
        TS_HEAD + "1,2:a\n",
        "t.ts: line 3: expected a header entry or @data, got '1,2:a'; "
        "put the header (@...) before a line @data and the rows behind it",
    ),
    (
        "t.ts",
        TS_HEAD + "@data\n",
        "t.ts: expected at least one row below @data, got a header only; add rows below @data",
    ),
    (
        "t.ts",
        TS_HEAD + "@data\n1:2:a\n\n1:a\n",
        "t.ts: line 6: expected 2 channels and a label, got 2 fields; "
        "put `:` between channels and before the label",
    ),
    (
        "t.ts",
        TS_HEAD + "@data\n1,2:a\n1,x:b\n",
        "t.ts: line 5: expected numbers, got 'x'; write numbers, and ? for a missing value",
    ),
    (
        "t.ts",
        "@timeStamps true\n@data\n(0,1):a\n",
        "t.ts: expected values without time stamps, "
        "got @timeStamps true; write plain values, or a long table with a time column",
    ),
    (
        "t.ts",
        "@targetLabel true\n@data\n1,2:x\n",
        "t.ts: line 3: expected a number, got 'x'; correct label",
    ),
    (
        "t.tsf",
        TSF + "T3:1,2\n",
        "t.tsf: line 11: expected 4 fields (series_name, start_timestamp, region, values), "
        "got 2; put `:` between fields, and none inside",
    ),
    (
        "t.tsf",
        TSF.replace("2021-01-01", "soon"),
        "t.tsf: line 10: expected a date such as 1979-01-01 00-00-00, "
        "got 'soon 00-00-00'; correct start_timestamp",
    ),
    (
        "t.tsf",
        TSF.replace("region", "value"),
        "t.tsf: expected attributes of other names, got 'value'; rename the attribute",
    ),
    (
        "t.jsonl",
        '{"x": 1}\n\n{"x": \n',
        "t.jsonl: line 3: expected JSON, got '{\"x\":' (at character 7); "
        'write each record as JSON, e.g. {"x": 1}',
    ),
    (
        "t.jsonl",
        '{"x": 1}\n[2]\n',
        f"t.jsonl: line 2: expected a JSON object, got a list; {RECORD}",
    ),
    (
        "t.json",
        '{"x": [1]}',
        "t.json: expected an array of objects, got an object; "
        "write the records as [{...}, {...}] or as JSON lines (.jsonl)",
    ),
    ("t.json", '[{"x": 1}, null]', f"t.json: row 2: expected a JSON object, got null; {RECORD}"),
    (
        "t.jsonl",
        '{"x": 1}\n{"x": "a"}\n',
        "t.jsonl: column 'x', row 2: expected a number as in other rows, "
        "got a text; give the column one kind of value; null means missing",
    ),
    (
        "t.jsonl",
        '{"x": {"y": 1}}\n',
        "t.jsonl: column 'x': expected numbers, texts, booleans or lists, "
        "got objects; give each value a key of its own",
    ),
    (
        "t.jsonl",
        "{}\n",
        f"t.jsonl: expected at least one row and one column, got 0 rows of 0 columns; {CHECK}",
    ),
]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(
        gzip.compress(data) if name.endswith(".gz") and b"\x1f\x8b" != data[:2] else data
    )
    return path


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_a_bad_file_is_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "Airlines.csv",
            "Airlines.csv: expected a file, a folder or a pattern, got nothing there; "
            "did you mean 'airline.csv'?",
        ),
        ("zzz", "zzz: expected a file, a folder or a pattern, got nothing there; check the path"),
        (
            "no/where.csv",
            "no/where.csv: expected a file, a folder or a pattern, got no folder 'no'; "
            "check the path",
        ),
        (
            "empty",
            f"empty: expected at least one of {SUFFIXES}, got no such file in the folder; "
            "give a folder or a pattern with files that can be read",
        ),
        (
            "*.parquet",
            f"*.parquet: expected at least one of {SUFFIXES}, got no file that matches; "
            "give a folder or a pattern with files that can be read",
        ),
        (
            "mixed",
            "mixed: expected files of one format, got .csv and .jsonl; "
            "choose with a pattern, e.g. mixed/*.csv",
        ),
        (
            "unlike",
            "b.csv: expected the columns of a.csv, got also 'y'; "
            "give all files the same columns, or choose files with a pattern",
        ),
        (
            "taken",
            "a.csv: expected no column 'file', which is to hold the file's name, got one; "
            "rename that column, or read the files one by one",
        ),
    ],
)
def test_a_wrong_path_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "mixed", "unlike", "taken"):
        Path(folder).mkdir()
    for name, text in {
        "airline.csv": "x\n1\n",
        "mixed/a.csv": "x\n1\n",
        "mixed/b.jsonl": '{"x": 1}\n',
        "unlike/a.csv": "x\n1\n",
        "unlike/b.csv": "x,y\n1,2\n",
        "taken/a.csv": "file\n1\n",
        "taken/b.csv": "file\n2\n",
    }.items():
        Path(name).write_text(text)
    with pytest.raises(DataError) as caught:
        read(source)
    assert str(caught.value) == message


ACCEPTED = "a path, a frame, an array, a list of arrays, a dict of columns or a list of records"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, f"data: expected {ACCEPTED}, got int; give one of these"),
        ([], f"data: expected {ACCEPTED}, got an empty list; give one of these"),
        (
            pl.DataFrame(),
            "frame: expected at least one row and one column, got 0 rows of 0 columns; "
            "give some data",
        ),
        (
            np.zeros((2, 0, 3)),
            "arrays: 'x': expected no extent of 0, got shape [2, 0, 3]; "
            "give at least one sequence of at least one step",
        ),
        (
            np.zeros((1, 1, 1, 1)),
            "arrays: 'x': expected an array [B], [B, T] or [B, T, I], "
            "got shape [1, 1, 1, 1]; reshape it: sequences first, then steps, then inputs",
        ),
        (
            [np.zeros((2, 2)), np.zeros((3, 1))],
            "arrays: 'x': expected arrays [T_i] or [T_i, I] with one I, "
            "got [2, 2] and [3, 1]; give each sequence the shape [steps, inputs]",
        ),
        (
            [[[1, 2], [3]]],
            "arrays: 'x': expected as many inputs at every step, got 1 and 2; "
            "give every step the same inputs",
        ),
        (
            np.array(["a"]),
            "arrays: 'x': expected numbers, got dtype <U1; convert the array to float32 or float64",
        ),
        (
            {"x": np.zeros((2, 3)), "y": [1]},
            "arrays: expected the same number of rows everywhere, "
            "got 2 in 'x', 1 in 'y'; give each array the same first extent",
        ),
        ({"x": 1}, "arrays: 'x': expected an array or a list, got int; give one value per row"),
        (
            np.array([[1.0, np.inf]]),
            f"arrays: column 'x', row 1: expected a finite number, got inf; {FINITE}",
        ),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "frame: expected each column name once, got 'a' 2 times; rename one",
        ),
        (
            pd.DataFrame({"a": [1, "x"]}),
            "frame: column 'a', row 2: expected a number as in other rows, "
            "got a text; give the column one kind of value; null means missing",
        ),
        (
            pl.DataFrame({"a": [object()]}),
            "frame: column 'a', row 1: expected numbers, text, dates or lists, "
            "got mixed objects; give each cell of the column one type",
        ),
    ],
)
def test_a_bad_value_in_memory_is_one_clear_line(source: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(source)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"separator": "::"},
            "separator: expected one ASCII character, got '::'; "
            "use a character such as ';' or a blank",
        ),
        (
            {"columns": ("a",)},
            "columns: expected names only where there is no header, got both; "
            "also say header: false, or leave the names to the file",
        ),
    ],
)
def test_options_that_contradict_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        ReadOptions(**options)
    assert str(caught.value) == message


def test_options_that_do_not_fit_the_file_are_one_clear_line(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "1,2\n")
    with pytest.raises(DataError) as caught:
        read(path, ReadOptions(header=False, columns=("a",)))
    assert str(caught.value) == (
        "t.csv: expected 1 columns as named, got 2 in the first line; give one name per column"
    )
    with pytest.raises(DataError) as caught:
        read(path, ReadOptions(encoding="utf-99"))
    assert str(caught.value) == (
        "encoding: expected the name of an encoding, got 'utf-99'; "
        "use a name that Python knows, e.g. utf-8 or latin-1"
    )


@pytest.mark.parametrize("kind", ["parquet", "ipc"])
def test_a_cut_binary_file_never_reads(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    getattr(FRAME, f"write_{kind}")(buffer)
    whole = buffer.getvalue()
    for length in range(8, len(whole) - 1, 97):
        path = write(tmp_path, f"t.{kind}", whole[:length])
        with pytest.raises(DataError):
            read(path)


def test_a_wrong_cell_is_named_in_its_own_file(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "x\n1\n2\n3\n")
    write(tmp_path, "b.csv", "x\n4\nfive\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        "b.csv: column 'x', row 2: expected a number as in 4 of 5 cells, got 'five'; "
        "correct such cells, add the marker to `missing`, or name the column in `text_columns`"
    )
