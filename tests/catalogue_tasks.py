"""The catalogue of tasks, one row or more for each; test_tasks.py holds them to the laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from catalogue_kinds import STEPS, chords, pictures, sequences, words
from torch import Tensor

from segue.fields import KINDS, Field
from segue.layers import unroll
from segue.ragged import Ragged
from segue.sequences import Sequences
from segue.tasks import TASKS, Forecast, Future, NextFrame, Task, Whole


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
_LETTERS = words("a b r a c a d a b r a")
_MOVING = pictures(7, 16)["x"].cast(pl.List(pl.Float64))
_SHOWN = pictures(8, 4, 5, 3)["x"]
_PLAIN = chords([60, 64], [], [64, 67], [60])["x"]

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
    TaskRow("tag", "tag", {}, _per_step(y=words("on off - on")), ("y",), {}, _right_class),
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
