"""A row per kind of input and per task; test_fields.py and test_tasks.py hold them to the laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from segue.fields import KINDS, Field
from segue.layers import unroll
from segue.ragged import Ragged
from segue.sequences import Sequences
from segue.tasks import TASKS, Forecast, Future, NextFrame, Task, Whole

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


# Kinds of input -----------------------------------------------------------------------------------


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


def _words(words: str) -> pl.Series:
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


def _pictures(seed: int, *extents: int) -> pl.DataFrame:
    places = np.random.default_rng(seed).integers(0, 256, (STEPS, *extents))
    dtype: Any = pl.UInt8
    for _ in extents:
        dtype = pl.List(dtype)
    return pl.DataFrame({"x": pl.Series(places.tolist(), dtype=dtype)})


def _rows_of_pictures(seed: int, width: int) -> pl.DataFrame:
    places = np.random.default_rng(seed).integers(0, 256, (STEPS, width), np.uint8)
    return pl.DataFrame({"x": pl.Series(places, dtype=pl.Array(pl.UInt8, width))})


def _chords(*chords: list[int] | None) -> pl.DataFrame:
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
        pl.DataFrame({"x": _words("a b c ü a -")}),
        pl.DataFrame({"x": _words("b ü z a -")}),
    ),
    FieldRow(
        "text-words",
        "text",
        {"unit": "word", "least": 2, "lower": True, "size": 5},
        pl.DataFrame({"x": _words("on off on it's off rare -")[:7]}),
        pl.DataFrame({"x": _words("off rare it's on -")}),
    ),
    FieldRow(
        "text-bytes",
        "text",
        {"unit": "byte"},
        pl.DataFrame({"x": pl.Series([97, 98, 97], dtype=pl.UInt8)}),
        pl.DataFrame({"x": pl.Series([255, 0, 97] * 8, dtype=pl.UInt8)})[:STEPS],
    ),
    FieldRow(
        "many_hot", "many_hot", {}, _chords([60, 64], [], [64]), _chords([64], None, [99, 60], [])
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
    FieldRow("image", "image", {"features": 5}, _pictures(1, 6, 7, 3), _pictures(2, 6, 7, 3)),
    FieldRow(
        "image-gray",
        "image",
        {"colors": "gray", "size": [8, 4], "maps": True, "patch": 2},
        _pictures(1, 9, 9),
        _pictures(2, 5, 5, 3),
    ),
    FieldRow(
        "image-rows",
        "image",
        {"colors": "gray", "steps": "rows", "size": [3, 5]},
        _rows_of_pictures(1, 5),
        _rows_of_pictures(2, 5),
    ),
    FieldRow("video", "video", {"maps": True}, _pictures(1, 4, 6, 3), _pictures(2, 4, 6, 3)),
    FieldRow(
        "category",
        "category",
        {"unknown": "allow", "size": 3},
        pl.DataFrame({"x": _words("red blue -"), "y": _words("u v w")}),
        pl.DataFrame({"x": _words("blue green - red"), "y": _words("w u new")}),
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


# Tasks --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskRow:
    """A task with options.

    Args:
        name: what the test is called.
        task: its name in the declaration.
        options: besides the task.
        train: training sequences.
        columns: the target columns.
        fields: of the inputs that the task asks for.
        right: the output that says just what the targets are, from the fitted task and the targets.
    """

    name: str
    task: str
    options: Mapping[str, Any]
    train: Sequences
    columns: tuple[str, ...]
    fields: Mapping[str, Field]
    right: Callable[[Any, Any], Tensor]

    def fresh(self) -> Task:
        """The task, not fitted."""
        kind = TASKS[self.task]
        spec = kind.Spec.model_validate({"task": self.task, **self.options})
        task = kind("y", self.columns, spec)
        task.use(self.fields)
        return task

    def fitted(self) -> Task:
        """The task, fitted on the training sequences."""
        task = self.fresh()
        task.use(self.fields)
        task.fit(self.train, self.fields)
        return task

    def targets(self, task: Task) -> Any:
        """The targets of the training sequences."""
        if isinstance(task, Forecast):
            return futures(task, self.train)
        if task.whole:
            return Whole(task.encode(self.train), torch.from_numpy(self.train.lengths))
        if isinstance(task, NextFrame):
            return frames(task, self.train)
        return task.encode(self.train)


def futures(task: Forecast, known: Sequences) -> Future:
    """What comes after every step that has a whole horizon after it in its sequence."""
    values, rows = [], []
    for row, (start, stop) in enumerate(zip(known.offsets[:-1], known.offsets[1:], strict=True)):
        for origin in range(start, stop - task.horizon):
            ahead = slice(origin + 1, origin + 1 + task.horizon)
            values.append([column[ahead] for column in task.series(known)])
            rows.append(row)
    units = (unit[rows] for unit in task.units(known.keys))
    return Future(torch.tensor(np.array(values)), *units)


def frames(task: NextFrame, known: Sequences) -> Tensor:
    """What comes after every step that has a whole horizon after it in its sequence."""
    assert task.field is not None
    encoded = task.field.encode(known.steps, known.origin)
    ahead = [
        np.arange(origin + 1, origin + 1 + task.horizon)
        for start, stop in zip(known.offsets[:-1], known.offsets[1:], strict=True)
        for origin in range(start, stop - task.horizon)
    ]
    there = np.ones((len(ahead), task.horizon), bool)
    return task.future(encoded[torch.from_numpy(np.array(ahead))], there)


def windows_of(raw: pl.Series, known: Sequences, task: NextFrame) -> list[list[Any]]:
    """Every step that has a whole horizon after it, and its horizon."""
    values = raw.to_list()
    return [
        values[origin : origin + 1 + task.horizon]
        for start, stop in zip(known.offsets[:-1], known.offsets[1:], strict=True)
        for origin in range(start, stop - task.horizon)
    ]


def _one_hot(size: int, codes: Tensor) -> Tensor:
    return 1e3 * torch.nn.functional.one_hot(codes.clamp(min=0), size).float()


def _right_class(task: Any, target: Tensor) -> Tensor:
    return _one_hot(len(task.classes), target)


def _right_labels(task: Any, target: Tensor) -> Tensor:
    return 1e3 * (2 * target.nan_to_num(0) - 1)


def _right_element(task: Any, target: Tensor) -> Tensor:
    return _one_hot(len(task.vocabulary), target)


def _right_chord(task: Any, target: Tensor) -> Tensor:
    return 1e3 * (2 * target.nan_to_num(0) - 1)


def _right_surprise(task: Any, target: Tensor) -> Tensor:
    """No surprise; scores that are those of the labels, all of them fresh."""
    known = target[:, 1].nan_to_num(0).float()
    expected = torch.zeros(len(target), 0 if task.vocabulary else len(task.columns))
    return torch.cat([torch.stack([0 * known, known, known + 1], 1), expected], 1)


def _right_number(task: Any, target: Tensor) -> Tensor:
    return target


def _right_future(task: Any, target: Future) -> Tensor:
    return target.values[..., None].expand(*target.values.shape, task.outputs)


def _right_transcript(task: Any, target: Whole) -> Tensor:
    """A path that says each symbol once, with a blank behind, and blanks to the end."""
    blank = len(task.vocabulary)
    paths = []
    for codes, steps in zip(target.labels.to_list(), target.steps.tolist(), strict=True):
        said = [code for symbol in codes.tolist() for code in (symbol, blank)]
        paths.append(torch.tensor((said + [blank] * steps)[:steps]))
    x = 1e3 * torch.nn.functional.one_hot(torch.cat(paths), blank + 1).float()
    head = task.head(blank + 1)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(blank + 1))
        head.linear.bias.zero_()
        y, _ = unroll(head, Ragged(x, target.steps))
    return y.values


def _per_sequence(values: list[Any], dtype: Any) -> Sequences:
    steps = pl.DataFrame({"x": np.zeros(STEPS)})
    return sequences(steps, static=pl.DataFrame({"y": pl.Series(values, dtype=dtype)}))


def _transcripts(values: list[str]) -> Sequences:
    lengths = (9, 2, 5, 3, 8)
    steps = pl.DataFrame({"x": np.zeros(sum(lengths))})
    return sequences(steps, lengths, pl.DataFrame({"y": values}))


def _per_step(**columns: pl.Series) -> Sequences:
    return sequences(pl.DataFrame(columns))


def _field(name: str, kind: str, values: pl.Series, **options: Any) -> dict[str, Field]:
    spec = KINDS[kind].Spec.model_validate({"kind": kind, **options})
    field = KINDS[kind](name, (name,), spec)
    field.fit(pl.DataFrame({name: values}))
    return {name: field}


def _flags(share: float, seed: int) -> pl.Series:
    """0 or 1, or nothing where nobody knows."""
    draws = np.random.default_rng(seed).random((2, STEPS))
    flags = np.where(draws[1] < 0.2, np.nan, draws[0] < share)
    return pl.Series(flags).fill_nan(None).cast(pl.Int64)


_RNG = np.random.default_rng(6)
_WALK = pl.Series(_RNG.normal(size=STEPS).cumsum() + 20)
_GAPPY = pl.Series(np.where(_RNG.random(STEPS) < 0.2, np.nan, _WALK.to_numpy())).fill_nan(None)
_LETTERS = _words("a b r a c a d a b r a")
_MOVING = _pictures(7, 16)["x"].cast(pl.List(pl.Float64))
_SHOWN = _pictures(8, 4, 5, 3)["x"]
_PLAIN = _chords([60, 64], [], [64, 67], [60])["x"]

WRITING = {"translate", "summarise"}
"""Tasks whose answer is found by a decoder: no output is right by itself; see test_translate.py."""

TASK_ROWS = [
    TaskRow(
        "classify",
        "classify",
        {},
        _per_sequence(["x", "y", "y", "z", "y"], pl.String),
        ("y",),
        {},
        _right_class,
    ),
    TaskRow(
        "classify-whole",
        "classify",
        {},
        _per_sequence([10, 2, 2, 10, 7], pl.Int16),
        ("y",),
        {},
        _right_class,
    ),
    TaskRow(
        "classify-flags",
        "classify",
        {},
        _per_sequence([True, False, True, True, False], pl.Boolean),
        ("y",),
        {},
        _right_class,
    ),
    TaskRow(
        "classify-numbers",
        "classify",
        {},
        _per_sequence([1.0, 2.5, 1.0, 2.5, 2.5], pl.Float64),
        ("y",),
        {},
        _right_class,
    ),
    TaskRow(
        "classify-weighted",
        "classify",
        {"weights": "balanced"},
        _per_sequence(["x", "y", "y", "x", "y"], pl.String),
        ("y",),
        {},
        _right_class,
    ),
    TaskRow(
        "classify-labels",
        "classify",
        {"labels": "many", "weights": {"7": 2.0}},
        _per_sequence([[10, 7], [], [7], [2, 7, 10], [2]], pl.List(pl.Int64)),
        ("y",),
        {},
        _right_labels,
    ),
    TaskRow(
        "tag-labels",
        "tag",
        {"labels": "many", "weights": "balanced"},
        _per_step(y=_flags(0.3, seed=1), z=_flags(0.6, seed=2)),
        ("y", "z"),
        {},
        _right_labels,
    ),
    TaskRow("tag", "tag", {}, _per_step(y=_words("on off - on")), ("y",), {}, _right_class),
    TaskRow(
        "regress",
        "regress",
        {},
        _per_sequence([3.0, 5.0, 4.0, 9.0, 1.0], pl.Float64),
        ("y",),
        {},
        _right_number,
    ),
    TaskRow(
        "regress-every",
        "regress",
        {"at": "every", "loss": "huber"},
        _per_step(y=_GAPPY, z=_WALK * 1e4),
        ("y", "z"),
        {},
        _right_number,
    ),
    TaskRow(
        "forecast",
        "forecast",
        {"horizon": 3, "season": 2},
        _per_step(y=_WALK),
        ("y",),
        {},
        _right_future,
    ),
    TaskRow(
        "forecast-mean",
        "forecast",
        {"horizon": 2, "quantiles": []},
        _per_step(y=_GAPPY, z=_WALK * 1e4),
        ("y", "z"),
        {},
        _right_future,
    ),
    TaskRow(
        "transcribe",
        "transcribe",
        {},
        _transcripts(["abba", "b", "ab", "c", "ba a"]),
        ("y",),
        {},
        _right_transcript,
    ),
    TaskRow(
        "transcribe-words",
        "transcribe",
        {"unit": "word", "beam": 4},
        _transcripts(["to be or not", "be", "to be", "or", "to be or not"]),
        ("y",),
        {},
        _right_transcript,
    ),
    TaskRow(
        "next",
        "next",
        {},
        _per_step(y=_LETTERS),
        ("y",),
        _field("y", "text", _LETTERS),
        _right_element,
    ),
    TaskRow(
        "next-chords",
        "next",
        {},
        _per_step(y=_PLAIN),
        ("y",),
        _field("y", "many_hot", _PLAIN),
        _right_chord,
    ),
    TaskRow(
        "anomaly",
        "anomaly",
        {},
        _per_step(y=_GAPPY, z=_WALK * 1e4),
        ("y", "z"),
        _field("y", "number", _GAPPY) | _field("z", "number", _WALK * 1e4),
        _right_surprise,
    ),
    TaskRow(
        "anomaly-labels",
        "anomaly",
        {"labels": "odd"},
        _per_step(y=_WALK, odd=_flags(0.3, seed=3)),
        ("y",),
        _field("y", "number", _WALK),
        _right_surprise,
    ),
    TaskRow(
        "anomaly-elements",
        "anomaly",
        {"smooth": 2},
        _per_step(y=_LETTERS),
        ("y",),
        _field("y", "text", _LETTERS),
        _right_surprise,
    ),
    TaskRow(
        "next-frame",
        "next_frame",
        {"horizon": 2},
        _per_step(y=_MOVING),
        ("y",),
        _field("y", "vector", _MOVING, scale="minmax", maps=[1, 4, 4], patch=2),
        _right_number,
    ),
    TaskRow(
        "next-frame-bytes",
        "next_frame",
        {"horizon": 1, "kernel": 1},
        _per_step(y=_SHOWN),
        ("y",),
        _field("y", "video", _SHOWN, maps=True),
        _right_number,
    ),
]
