"""The catalogue of kinds of input, one row or more for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from segue.fields import KINDS, Field
from segue.sequences import Sequences

LENGTHS = (7, 0, 5, 1, 9)
"""Steps of the sequences of every row; one has none."""
STEPS = sum(LENGTHS)


def sequences(
    steps: pl.DataFrame, lengths: tuple[int, ...] = LENGTHS, static: pl.DataFrame | None = None
) -> Sequences:
    """Sequences with hourly times and the keys k0, k1, ..."""
    return Sequences(
        steps=steps,
        lengths=np.array(lengths, np.int64),
        keys=pl.Series("key", [f"k{row}" for row in range(len(lengths))]),
        static=pl.DataFrame() if static is None else static,
        times=np.concatenate([np.arange(length) * 3600.0 for length in lengths]),
        has_time=True,
        origin="rows",
    )


@dataclass(frozen=True)
class FieldRow:
    """A kind of input with options.

    Args:
        name: what the test is called.
        kind: its name in the declaration.
        options: besides the kind.
        train: training rows; all columns are the input's.
        other: rows to encode, `STEPS` of them, with values that the training rows lack.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    train: pl.DataFrame
    other: pl.DataFrame

    def fresh(self) -> Field:
        """The field, not fitted."""
        kind = KINDS[self.kind]
        spec = kind.Spec.model_validate({"kind": self.kind, **self.options})
        return kind("x", tuple(self.train.columns), spec)

    def fitted(self) -> Field:
        """The field, fitted on the training rows."""
        field = self.fresh()
        field.fit(self.train)
        return field


def _numbers(seed: int, *, gaps: bool) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {}
    for name, size, share in (("a", 3.0, 0.3), ("b", 1e6, 0.0), ("c", 1e-9, 0.4)):
        values = rng.normal(2 * size, size, STEPS)
        missing = (rng.random(STEPS) < share) & gaps
        columns[name] = pl.Series(np.where(missing, np.nan, values)).fill_nan(None)
    return pl.DataFrame(columns)


def words(words: str) -> pl.Series:
    """Words until there are `STEPS`; a dash is a missing cell."""
    cells = [None if word == "-" else word for word in words.split()]
    return pl.Series((cells * STEPS)[:STEPS], dtype=pl.String)


def _moments(*hours: int) -> pl.DataFrame:
    start, found = datetime(2026, 1, 30, 22), []
    for step in range(STEPS):
        start += timedelta(hours=hours[step % len(hours)])
        found.append(start)
    return pl.DataFrame({"t": found})


def _vectors(seed: int, *, gaps: bool) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal([3.0, 1e6, 0.0, 1.0], [1.0, 1e6, 1e-9, 2.0], (STEPS, 4))
    lists: list[Any] = values.tolist()
    if gaps:
        for row, element in zip(*np.nonzero(rng.random((STEPS, 3)) < 0.3), strict=True):
            lists[row][element] = None
        lists[5] = None
    return pl.DataFrame({"x": pl.Series(lists, dtype=pl.List(pl.Float64))})


def pictures(seed: int, *extents: int) -> pl.DataFrame:
    places = np.random.default_rng(seed).integers(0, 256, (STEPS, *extents))
    dtype: Any = pl.UInt8
    for _ in extents:
        dtype = pl.List(dtype)
    return pl.DataFrame({"x": pl.Series(places.tolist(), dtype=dtype)})


def _rows_of_pictures(seed: int, width: int) -> pl.DataFrame:
    places = np.random.default_rng(seed).integers(0, 256, (STEPS, width), np.uint8)
    return pl.DataFrame({"x": pl.Series(places, dtype=pl.Array(pl.UInt8, width))})


def chords(*chords: list[int] | None) -> pl.DataFrame:
    lists = (list(chords) * STEPS)[:STEPS]
    return pl.DataFrame({"x": pl.Series(lists, dtype=pl.List(pl.Int64))})


def _windows(seed: int) -> pl.DataFrame:
    values = np.random.default_rng(seed).normal(-5, 2, (STEPS, 3)).astype(np.float32)
    return pl.DataFrame({"x": pl.Series(values, dtype=pl.Array(pl.Float32, 3))})


def _samples(*lists: list[float | None] | None) -> pl.DataFrame:
    return pl.DataFrame({"x": pl.Series((list(lists) * STEPS)[:STEPS], dtype=pl.List(pl.Float64))})


FIELDS = [
    FieldRow("audio", "audio", {"size": 3}, _windows(1), _windows(2)),
    FieldRow("number", "number", {}, _numbers(1, gaps=False), _numbers(2, gaps=False)),
    FieldRow(
        "number-differences",
        "number",
        {"limit": 2.0, "differences": True},
        _numbers(1, gaps=True),
        _numbers(2, gaps=True),
    ),
    FieldRow("number-gaps", "number", {}, _numbers(1, gaps=True), _numbers(2, gaps=True)),
    FieldRow(
        "number-minmax",
        "number",
        {"scale": "minmax"},
        _numbers(1, gaps=True),
        _numbers(2, gaps=True),
    ),
    FieldRow(
        "number-none", "number", {"scale": "none"}, _numbers(1, gaps=False), _numbers(2, gaps=True)
    ),
    FieldRow(
        "number-whole",
        "number",
        {},
        pl.DataFrame({"x": [1, 2, None, 7]}),
        pl.DataFrame({"x": [3, None, 5, -2] * 6})[:STEPS],
    ),
    FieldRow(
        "samples",
        "samples",
        {"size": 3},
        pl.DataFrame({"x": [[1.0, 2.0], [], [5.0]]}),
        _samples([1.0, 3.0, 2.0], [], None, [4.0, None], [7.0]),
    ),
    FieldRow("timestamp", "timestamp", {}, _moments(7), _moments(7)),
    FieldRow("timestamp-uneven", "timestamp", {}, _moments(7, 9, 30), _moments(4, 11, 2)),
    FieldRow(
        "timestamp-days",
        "timestamp",
        {},
        pl.DataFrame({"t": pl.date_range(datetime(2026, 1, 1), datetime(2028, 2, 1), eager=True)}),
        pl.DataFrame({"t": _moments(24)["t"].cast(pl.Date)}),
    ),
    FieldRow(
        "text",
        "text",
        {},
        pl.DataFrame({"x": words("a b c ü a -")}),
        pl.DataFrame({"x": words("b ü z a -")}),
    ),
    FieldRow(
        "text-words",
        "text",
        {"unit": "word", "least": 2, "lower": True, "size": 5},
        pl.DataFrame({"x": words("on off on it's off rare -")[:7]}),
        pl.DataFrame({"x": words("off rare it's on -")}),
    ),
    FieldRow(
        "text-bytes",
        "text",
        {"unit": "byte"},
        pl.DataFrame({"x": pl.Series([97, 98, 97], dtype=pl.UInt8)}),
        pl.DataFrame({"x": pl.Series([255, 0, 97] * 8, dtype=pl.UInt8)})[:STEPS],
    ),
    FieldRow(
        "many_hot", "many_hot", {}, chords([60, 64], [], [64]), chords([64], None, [99, 60], [])
    ),
    FieldRow("vector", "vector", {}, _vectors(1, gaps=False), _vectors(2, gaps=False)),
    FieldRow(
        "vector-gaps", "vector", {"scale": "minmax"}, _vectors(1, gaps=True), _vectors(2, gaps=True)
    ),
    FieldRow(
        "vector-maps",
        "vector",
        {"maps": [1, 2, 2], "patch": 2},
        _vectors(1, gaps=False),
        _vectors(2, gaps=True),
    ),
    FieldRow("image", "image", {"features": 5}, pictures(1, 6, 7, 3), pictures(2, 6, 7, 3)),
    FieldRow(
        "image-gray",
        "image",
        {"colors": "gray", "size": [8, 4], "maps": True, "patch": 2},
        pictures(1, 9, 9),
        pictures(2, 5, 5, 3),
    ),
    FieldRow(
        "image-rows",
        "image",
        {"colors": "gray", "steps": "rows", "size": [3, 5]},
        _rows_of_pictures(1, 5),
        _rows_of_pictures(2, 5),
    ),
    FieldRow("video", "video", {"maps": True}, pictures(1, 4, 6, 3), pictures(2, 4, 6, 3)),
    FieldRow(
        "category",
        "category",
        {"unknown": "allow", "size": 3},
        pl.DataFrame({"x": words("red blue -"), "y": words("u v w")}),
        pl.DataFrame({"x": words("blue green - red"), "y": words("w u new")}),
    ),
    FieldRow(
        "category-codes",
        "category",
        {},
        pl.DataFrame({"x": pl.Series([3.0, 1.5, 7.0])}),
        pl.DataFrame({"x": pl.Series([7.0, 3.0, None, 1.5] * 6)})[:STEPS],
    ),
    FieldRow(
        "category-flags",
        "category",
        {},
        pl.DataFrame({"x": [True, False, None]}),
        pl.DataFrame({"x": [False, None, True] * 8})[:STEPS],
    ),
]
