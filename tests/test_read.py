"""Reading: types, formats, arrays, fingerprints, and one whole message for each way to be wrong."""

from __future__ import annotations

import gzip
import io
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from segue.data.read import ReadOptions, Table, read

TS = """# a comment
@problemName Toy
@timeStamps false
@univariate false
@classLabel true up down
@data
1,2,3:4,5,6:up
?,2:4,:down
"""
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


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(
        gzip.compress(data) if name.endswith(".gz") and b"\x1f\x8b" != data[:2] else data
    )
    return path


def read_csv(folder: Path, content: str, options: ReadOptions | None = None) -> pl.DataFrame:
    return read(write(folder, "table.csv", content), options).frame


def column(
    folder: Path, *cells: str, name: str = "x", options: ReadOptions | None = None
) -> pl.Series:
    rows = "".join(f'{k},"{cell}"\n' for k, cell in enumerate(cells))
    return read_csv(folder, f"k,{name}\n{rows}", options)[name]


MARCH, APRIL, MAY = date(2020, 3, 1), date(2020, 4, 1), date(2020, 5, 1)
US = pl.Datetime("us")


# Types of cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        (["1", "-2", " 3 "], pl.Int64, [1, -2, 3]),
        (["1", "2.5", "1e3"], pl.Float64, [1.0, 2.5, 1000.0]),
        (["1", "", "NA", "nan", "null", "?"], pl.Int64, [1, None, None, None, None, None]),
        (["99999999999999999999"], pl.Float64, [1e20]),
        (["", "NA"], pl.Float64, [None, None]),
        (["true", "False", "?"], pl.Boolean, [True, False, None]),
        (["a", "NA", "1"], pl.String, ["a", "NA", "1"]),
        (["2020-02-29", "2020-03-01"], pl.Date, [date(2020, 2, 29), MARCH]),
        (["1949-01", "1949-12"], pl.Date, [date(1949, 1, 1), date(1949, 12, 1)]),
        (["1970 Q1", "1970Q4"], pl.Date, [date(1970, 1, 1), date(1970, 10, 1)]),
        (["20200301", "20200401", "20200501"], pl.Date, [MARCH, APRIL, MAY]),
        (["20200229", "20200230", "20200231"], pl.Int64, [20200229, 20200230, 20200231]),
        (["2020-03-01 10:00", "2020-03-01"], US, [datetime(2020, 3, 1, 10), datetime(2020, 3, 1)]),
        (["2020-01-01T10:00:00.5Z"], US, [datetime(2020, 1, 1, 10, 0, 0, 500_000)]),
        (["2020-01-01T10:00:00+02:00"], US, [datetime(2020, 1, 1, 8)]),
    ],
)  # fmt: skip
def test_a_column_has_the_type_that_all_its_cells_have(
    tmp_path: Path, cells: list[str], dtype: pl.DataType, values: list[Any]
) -> None:
    got = column(tmp_path, *cells)
    assert (got.dtype, got.to_list()) == (dtype, values)


def test_two_eight_digit_numbers_are_dates_only_where_the_name_says_so(tmp_path: Path) -> None:
    assert column(tmp_path, "20200101", "20200102", name="size").dtype == pl.Int64
    assert column(tmp_path, "20200101", "20200102", name="start_date").dtype == pl.Date


def test_markers_and_text_columns_are_options(tmp_path: Path) -> None:
    assert column(tmp_path, "1", "-", options=ReadOptions(missing=("-",))).to_list() == [1, None]
    codes = column(tmp_path, "007", "7A", "008", options=ReadOptions(text_columns=("x",)))
    assert codes.to_list() == ["007", "7A", "008"]


# Delimited text -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    rows = [["time", "note"], ["2020-01-01", '"a,b;c|d"'], ["2020-01-02", "e"]]
    text = "".join(separator.join(row) + "\r\n" for row in rows)
    assert read_csv(tmp_path, "\ufeff" + text)["note"].to_list() == ["a,b;c|d", "e"]


def test_runs_of_blanks_are_one_separator(tmp_path: Path) -> None:
    path = write(tmp_path, "units.txt.gz", "1  2.5 \n\n3\t 4   \n")
    options = ReadOptions(separator=" ", header=False, columns=("unit", "load"))
    assert read(path, options).frame.rows() == [(1, 2.5), (3, 4.0)]


def test_unnamed_columns_are_dropped_when_they_say_nothing(tmp_path: Path) -> None:
    assert read_csv(tmp_path, ",x\n0,5\n1,6\n").columns == ["x"]
    assert read_csv(tmp_path, ",x\n1,5\n2,6\n").columns == ["x"]
    assert read_csv(tmp_path, ",x\n3,5\n1,6\n").columns == ["column_1", "x"]
    assert read_csv(tmp_path, "x,\n3,\n1,\n").columns == ["x"]


def test_blank_lines_short_rows_and_surplus_empty_cells_are_harmless(tmp_path: Path) -> None:
    text = 'a,b\n1,"x\n\ny"\n\n2\n3,z,,\n\n'
    assert read_csv(tmp_path, text).rows() == [(1, "x\n\ny"), (2, None), (3, "z")]
    assert read_csv(tmp_path, "a,b,c\n1,2\n3\n").rows() == [(1, 2, None), (3, None, None)]
    assert read_csv(tmp_path, "a\n1\n\n3\n\n")["a"].to_list() == [1, None, 3]


def test_other_encodings_are_an_option(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "k,ort\n1,Zürich\n".encode("latin-1"))
    assert read(path, ReadOptions(encoding="latin-1")).frame["ort"][0] == "Zürich"


# Several files ------------------------------------------------------------------------------------


def test_files_of_a_folder_are_stacked_and_typed_together(tmp_path: Path) -> None:
    write(tmp_path, "b.csv", "x,y\n1.5,?\n")
    write(tmp_path, "a.csv.gz", "y,x\n3,1\n4,2\n")
    write(tmp_path, "README.md", "not data")
    expected = {"y": [3, 4, None], "x": [1.0, 2.0, 1.5], "file": ["a", "a", "b"]}
    table = read(tmp_path)
    assert table.frame.to_dict(as_series=False) == expected
    assert table.origin == tmp_path.name
    assert read(tmp_path / "*.csv").frame.columns == ["x", "y"]


# Text, JSON, binary -------------------------------------------------------------------------------


def test_a_text_file_is_one_row_or_a_row_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "words.txt", "one\r\n\r\none\n")
    whole, lines = read(path), read(path, ReadOptions(lines=True))
    assert (whole.layout, whole.frame.rows()) == ("examples", [("one\n\none\n",)])
    assert (lines.layout, lines.frame.rows()) == ("examples", [("one",), ("one",)])


@pytest.mark.parametrize("name", ["r.jsonl", "r.ndjson.gz", "r.json"])
def test_json_records_keep_their_types_and_dates_are_found(tmp_path: Path, name: str) -> None:
    lines = [
        '{"t": "2020-01-01", "x": 1, "s": "1"}',
        '{"t": "2020-01-02", "x": NaN, "v": [1, 2.5]}',
    ]
    text = "[" + ",".join(lines) + "]" if name == "r.json" else "\n".join(lines) + "\n\n"
    frame = read(write(tmp_path, name, text)).frame
    assert frame.rows() == [
        (date(2020, 1, 1), 1.0, "1", None),
        (date(2020, 1, 2), None, None, [1.0, 2.5]),
    ]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.feather", "t.ipc", "stream.arrow"])
def test_binary_tables_hold_the_same_table(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"x": [1.0, None], "s": ["a", "b"], "v": [[1, 2], [3]]})
    buffer = io.BytesIO()
    kind = "ipc_stream" if name == "stream.arrow" else "parquet" if "parquet" in name else "ipc"
    getattr(frame, f"write_{kind}")(buffer)
    table = read(write(tmp_path, name, buffer.getvalue()))
    assert table.frame.equals(frame)
    assert table.fingerprint == read(frame).fingerprint


# Archives -----------------------------------------------------------------------------------------


def test_ts_has_a_list_per_channel_and_a_label(tmp_path: Path) -> None:
    table = read(write(tmp_path, "toy.ts", TS))
    assert table.frame.to_dict(as_series=False) == {
        "dim_0": [[1.0, 2.0, 3.0], [None, 2.0]],
        "dim_1": [[4.0, 5.0, 6.0], [4.0, None]],
        "label": ["up", "down"],
    }
    assert (table.layout, table.hints) == ("examples", {"target": "label"})


def test_ts_with_a_target_value_and_one_channel(tmp_path: Path) -> None:
    text = "@univariate true\n@targetlabel true\n@data\n1,2:0.5\n3:?\n"
    frame = read(write(tmp_path, "toy.ts.gz", text)).frame
    assert frame.to_dict(as_series=False) == {"value": [[1.0, 2.0], [3.0]], "label": [0.5, None]}


def test_tsf_is_a_long_table_with_times_from_the_frequency(tmp_path: Path) -> None:
    table = read(write(tmp_path, "toy.tsf", TSF))
    assert table.frame.rows() == [
        ("T1", date(2020, 11, 1), 1.0, "north"),
        ("T1", date(2020, 12, 1), 2.0, "north"),
        ("T1", date(2021, 1, 1), None, "north"),
        ("T2", date(2021, 1, 1), 4.0, "south"),
    ]
    assert table.frame.columns == ["series_name", "time", "value", "region"]
    assert table.hints == {
        "key": "series_name",
        "time": "time",
        "target": "value",
        "horizon": 3,
        "frequency": "monthly",
    }
    assert table.layout == "steps"


@pytest.mark.parametrize(
    ("frequency", "second"),
    [
        ("10_minutes", datetime(2020, 11, 1, 0, 10)),
        ("half_hourly", datetime(2020, 11, 1, 0, 30)),
        ("weekly", date(2020, 11, 8)),
        ("quarterly", date(2021, 2, 1)),
        ("yearly", date(2021, 11, 1)),
        ("fortnightly", 1),
    ],
)
def test_tsf_frequencies(tmp_path: Path, frequency: str, second: Any) -> None:
    text = TSF.replace("monthly", frequency)
    assert read(write(tmp_path, "toy.tsf", text)).frame["time"][1] == second


# Frames and arrays --------------------------------------------------------------------------------


def test_frames_lose_nan_categories_and_arrays_but_no_value() -> None:
    frame = pl.DataFrame(
        {
            "x": [1.0, float("nan")],
            "v": [[float("nan"), 2.0], []],
            "c": pl.Series(["u", "v"], dtype=pl.Categorical),
            "a": np.ones((2, 3)),
            "t": ["2020-01-01", "2020-01-02"],
        }
    )
    for source in (frame, frame.lazy()):
        got = read(source).frame
        assert got.schema == {
            "x": pl.Float64,
            "v": pl.List(pl.Float64),
            "c": pl.String,
            "a": pl.List(pl.Float64),
            "t": pl.Date,
        }
        assert got.select("x", "v").rows() == [(1.0, [None, 2.0]), (None, [])]


def test_a_pandas_frame_is_the_polars_frame() -> None:
    times = pd.DatetimeIndex(["2020-03-29 00:30", "2020-03-29 01:30"], tz="UTC")
    frame = pd.DataFrame(
        {
            "x": [1.5, np.nan],
            "n": pd.array([1, None], dtype="Int64"),
            "s": ["a", None],
            "c": pd.Categorical(["u", "v"]),
            "b": [True, False],
            "v": [[1, 2], np.array([3.5])],
            "zurich": times.tz_convert("Europe/Zurich"),
        },
        index=times.tz_localize(None),
    )
    got = read(frame).frame
    assert got.drop("zurich").rows() == [
        (datetime(2020, 3, 29, 0, 30), 1.5, 1, "a", "u", True, [1.0, 2.0]),
        (datetime(2020, 3, 29, 1, 30), None, None, None, "v", False, [3.5]),
    ]
    assert got.columns == ["time", *frame.columns]
    assert got["zurich"].dt.convert_time_zone("UTC").dt.replace_time_zone(None).equals(got["time"])
    assert read(frame["x"].reset_index(drop=True)).frame.columns == ["x"]


VALUES = np.arange(24, dtype=np.float32).reshape(2, 4, 3)


@pytest.mark.parametrize(
    "source", [VALUES, torch.from_numpy(VALUES), list(VALUES), VALUES.tolist()]
)
def test_an_array_of_sequences_has_a_list_column_per_input(source: Any) -> None:
    table = read(source)
    assert table.layout == "examples"
    assert table.frame.columns == ["x0", "x1", "x2"]
    assert np.array_equal(np.stack([c.to_list() for c in table.frame], axis=-1), VALUES)


def test_arrays_keep_their_precision_and_unequal_lengths() -> None:
    ragged = [
        np.ones((2, 1), np.float32),
        np.zeros((0, 1), np.float32),
        np.full((1, 1), 3, np.float32),
    ]
    frame = read(ragged).frame
    assert frame.schema == {"x": pl.List(pl.Float32)}
    assert frame["x"].to_list() == [[1.0, 1.0], [], [3.0]]
    assert read(np.ones((2, 3))).frame["x"].to_list() == [[1.0] * 3] * 2
    assert read([[1, 2], [3]]).frame["x"].to_list() == [[1, 2], [3]]
    assert read([torch.ones(2), torch.ones(1)]).frame["x"].to_list() == [[1.0, 1.0], [1.0]]
    assert read(np.array([1.0, np.nan])).frame["x"].to_list() == [1.0, None]


def test_a_dict_names_its_arrays() -> None:
    table = read({"x": VALUES[:, :, :2], "y": torch.tensor([1.0, 2.0]), "label": ["a", "b"]})
    assert table.frame.columns == ["x0", "x1", "y", "label"]
    assert table.origin == "arrays"


def test_records_are_a_table() -> None:
    table = read([{"t": datetime(2020, 1, 1), "x": np.float32(1)}, {"t": None, "x": np.int64(2)}])
    assert table.frame.rows() == [(datetime(2020, 1, 1), 1.0), (None, 2.0)]


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        ({"x": [1, 2, 3]}, "steps"),
        ({"key": ["fan", "fan", "pump"], "x": [1, 2, 3]}, "steps"),
        ({"code": ["A1", "A22", "A333"], "x": [1, 2, 3]}, "steps"),
        ({"name": ["Meier", "Huber", "Keller"], "origin": ["a", "a", "b"]}, "examples"),
        ({"t": [date(2020, 1, k) for k in (1, 2, 3)], "note": ["hot", "wet", "dry"]}, "steps"),
        ({"x": [[1, 2], [3], []]}, "examples"),
    ],
)
def test_a_row_is_a_sequence_when_it_holds_a_list_or_a_text(columns: Any, layout: str) -> None:
    assert read(pl.DataFrame(columns)).layout == layout


# Fingerprints -------------------------------------------------------------------------------------

RICH = pl.DataFrame(
    {
        "x": [1.0, None],
        "s": ["a", "bc"],
        "v": [["p"], None],
        "b": [True, None],
        "d": [date(2020, 1, 1), None],
    }
)


def test_the_fingerprint_is_the_same_in_every_run_and_place(tmp_path: Path) -> None:
    assert (
        read(RICH).fingerprint == "09a48c31cbbc52e6db88488c69494d10f8d41a5dcf167ce4883fb1b64164c799"
    )
    (tmp_path / "deep").mkdir()
    texts = [
        write(tmp_path, "a.csv", "x,s\n1,a\n"),
        write(tmp_path / "deep", "b.csv.gz", "x;s\n1;a\n"),
    ]
    assert len({read(path).fingerprint for path in texts}) == 1


@pytest.mark.parametrize(
    "change",
    [
        pl.col("x").fill_null(0.0),
        pl.col("x").cast(pl.Float32),
        pl.col("x").alias("y"),
        pl.col("x").reverse(),
        pl.Series("s", ["ab", "c"]),
        pl.Series("v", [["p"], []]),
        pl.Series("b", [True, False]),
    ],
)
def test_any_change_changes_the_fingerprint(change: Any) -> None:
    assert read(RICH.with_columns(change)).fingerprint != read(RICH).fingerprint


# Real data ----------------------------------------------------------------------------------------


USCHANGE = ("Consumption", "Income", "Production", "Savings", "Unemployment")


@pytest.mark.parametrize(
    ("name", "rows", "time", "first", "values"),
    [
        ("Airline.csv", 144, "Date", date(1949, 1, 1), {"Passengers": pl.Int64}),
        ("co2.csv", 2284, "date", date(1958, 3, 29), {"co2": pl.Float64}),
        ("daily-min-temperatures.csv", 3650, "Date", date(1981, 1, 1), {"Temp": pl.Float64}),
        ("monthly-sunspots.csv", 2820, "Month", date(1749, 1, 1), {"Sunspots": pl.Float64}),
        ("sunspots.csv", 309, "YEAR", 1700, {"SUNACTIVITY": pl.Float64}),
        ("Uschange.csv", 187, "Quarter", date(1970, 1, 1), dict.fromkeys(USCHANGE, pl.Float64)),
    ],
)
def test_the_classics_have_their_types(
    shared_data: Path, name: str, rows: int, time: str, first: Any, values: dict[str, Any]
) -> None:
    table = read(shared_data / "ts_classics" / name)
    kind = pl.Int64 if isinstance(first, int) else pl.Date
    assert (table.layout, table.frame.height) == ("steps", rows)
    assert dict(table.frame.schema) == {time: kind, **values}
    assert table.frame[time][0] == first


def test_the_co2_record_keeps_its_missing_weeks(shared_data: Path) -> None:
    assert read(shared_data / "ts_classics" / "co2.csv").frame["co2"].null_count() == 59


def test_m1_has_181_yearly_series(shared_data: Path) -> None:
    table = read(shared_data / "ts_classics" / "m1_yearly_dataset.tsf")
    assert table.frame["series_name"].n_unique() == 181
    assert (table.hints["horizon"], table.hints["frequency"]) == (6, "yearly")
    assert table.frame["time"][:2].to_list() == [date(1972, 1, 1), date(1973, 1, 1)]


@pytest.mark.parametrize(
    ("name", "rows", "channels", "lengths", "classes"),
    [
        ("ArrowHead", (36, 175), 1, (251, 251), 3),
        ("BasicMotions", (40, 40), 6, (100, 100), 4),
        ("ItalyPowerDemand", (67, 1029), 1, (24, 24), 2),
        ("JapaneseVowels", (270, 370), 12, (7, 29), 9),
        ("PLAID", (537, 537), 1, (100, 1344), 11),
    ],
)
def test_the_archives_have_the_sizes_that_they_state(
    shared_data: Path,
    name: str,
    rows: tuple[int, int],
    channels: int,
    lengths: tuple[int, int],
    classes: int,
) -> None:
    folder = shared_data / "ucr_uea" / name
    train, test = (read(folder / f"{name}_{part}.ts").frame for part in ("TRAIN", "TEST"))
    both = pl.concat([train, test])
    steps = [both[title].list.len() for title in both.columns[:-1]]
    assert (train.height, test.height) == rows
    assert len(steps) == channels
    assert (min(s.min() for s in steps), max(s.max() for s in steps)) == lengths
    assert both["label"].n_unique() == classes


def test_a_regression_archive_has_numbers_as_labels(shared_data: Path) -> None:
    frame = read(shared_data / "ucr_uea" / "Covid3Month").frame
    assert (frame.height, frame["label"].dtype) == (201, pl.Float64)
    assert frame["file"].unique().sort().to_list() == ["Covid3Month_TEST", "Covid3Month_TRAIN"]


def test_other_real_tables(shared_data: Path) -> None:
    hourly = read(shared_data / "m4_hourly" / "Hourly-train.csv.gz").frame
    assert hourly.shape == (414, 961)
    assert hourly.dtypes[0] == pl.String
    assert all(dtype.is_numeric() for dtype in hourly.dtypes[1:])
    ett = read(shared_data / "ett_h1").frame
    assert (ett.shape, ett["date"].dtype) == ((17420, 8), pl.Datetime("us"))
    engines = ReadOptions(separator=" ", header=False)
    assert read(shared_data / "cmapss_fd001" / "train_FD001.txt.gz", engines).frame.shape == (
        20631,
        26,
    )


def test_real_texts(shared_data: Path) -> None:
    names: Table = read(shared_data / "surnames" / "names", ReadOptions(lines=True))
    assert (names.layout, names.frame.shape) == ("examples", (20050, 2))
    assert names.frame["file"].n_unique() == 18
    assert len(set("".join(names.frame["text"].to_list()))) == 83
    plays = read(shared_data / "tinyshakespeare" / "input.txt").frame
    assert len(plays["text"][0]) == 1_115_394
