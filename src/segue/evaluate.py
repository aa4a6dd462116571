"""Scores beside the naive answers, on data that the model has not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from segue.data.read import Table
from segue.data.split import split
from segue.errors import DataError
from segue.sequences import Part, Sequences
from segue.tasks import Metrics, Task
from segue.torch_defaults import with_torch_defaults
from segue.trained import Trained


@dataclass(frozen=True)
class Score:
    """How one output did.

    Attributes:
        task: the kind of task.
        main: the metric that stands for the score.
        lower_is_better: which way it goes.
        metrics: of the model.
        baselines: of the naive answers by name, on the same steps.
    """

    task: str
    main: str
    lower_is_better: bool
    metrics: Metrics
    baselines: dict[str, Metrics]

    @property
    def best_baseline(self) -> str:
        """The name of the naive answer with the best main metric."""
        sign = 1 if self.lower_is_better else -1
        return min(self.baselines, key=lambda name: sign * self.baselines[name][self.main])

    @property
    def beats_naive(self) -> bool:
        """Whether the model is better than every naive answer, by the main metric."""
        ours, theirs = self.metrics[self.main], self.baselines[self.best_baseline][self.main]
        return ours < theirs if self.lower_is_better else ours > theirs


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of all outputs.

    Attributes:
        scope: what was scored, in words.
        count: predictions scored.
        scores: by output.
        outputs, targets: raw, by output; what the report draws from.
        part, sequences: where they come from.
        remarks: lines on what was left out or is unknown.
    """

    scope: str
    count: int
    scores: dict[str, Score]
    outputs: dict[str, Tensor]
    targets: dict[str, Any]
    part: Part
    sequences: Sequences
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Evaluation of {self.count} predictions on {self.scope}>\n{self.frame()}"

    def frame(self) -> pl.DataFrame:
        """One row per output and answer, the model's first, and one column per metric."""
        rows: list[dict[str, Any]] = []
        for name, score in self.scores.items():
            rows.append({"output": name, "answer": "model", **score.metrics})
            rows += [
                {"output": name, "answer": answer, **metrics}
                for answer, metrics in score.baselines.items()
            ]
        return pl.DataFrame(rows, infer_schema_length=None)


@with_torch_defaults
def evaluate(trained: Trained, table: Table, fingerprint: str, until: float | None) -> Evaluation:
    """Score `trained` on `table`.

    On the training data only the part that was held out counts; on others everything, except that a
    forecast is not asked for times that it has learnt from.

    Args:
        fingerprint: of the training data.
        until: the last time in the training part; None where there is no time.

    Raises:
        DataError: a target column is missing, or nothing is left to score.
    """
    _need_targets(trained, table)
    sequences = trained.sequences(table)
    part, scope = _scope(trained, sequences, table.fingerprint == fingerprint, until)
    first, stop = trained.origins(part)
    scored = np.flatnonzero(stop > first)
    if not len(scored):
        expected = "something to score"
        if trained.horizon:
            expected = f"sequences longer than the horizon ({trained.horizon})"
        got = f"{part.steps} steps in {part.count} sequences"
        raise DataError(table.origin, expected, got, "give more data")
    part = Part(part.rows[scored], part.start[scored], part.stop[scored])
    first, stop = first[scored], stop[scored]
    store = trained.store(sequences, targets=True)
    outputs = trained.outputs(store, part.rows, first, stop)
    targets = trained.targets(store, part.rows, first, stop, part.stop)
    scores = {
        name: Score(
            task=trained.declaration.outputs[name].task,
            main=task.main,
            lower_is_better=task.lower_is_better,
            metrics=_metrics(task, outputs[name], targets[name], stop - first),
            baselines=task.baselines(sequences, part),
        )
        for name, task in trained.tasks.items()
    }
    count = max(_count(task, outputs[name], part) for name, task in trained.tasks.items())
    remarks = (*sequences.left_out, *store.remarks(part))
    return Evaluation(scope, count, scores, outputs, targets, part, sequences, remarks)


def _count(task: Task, output: Tensor, part: Part) -> int:
    return part.count if task.whole else len(output)


def _metrics(task: Task, output: Tensor, target: Any, lengths: NDArray[np.int64]) -> Metrics:
    found = task.metrics(output, target)
    return {**found, **task.metrics_of_sequences(output, target, lengths)} if task.every else found


def _need_targets(trained: Trained, table: Table) -> None:
    for name, task in trained.tasks.items():
        absent = [column for column in task.columns if column not in table.frame.columns]
        if absent:
            expected = f"the target column {absent[0]!r} of {name}"
            got = "the columns " + ", ".join(table.frame.columns[:8])
            raise DataError(table.origin, expected, got, "add it, or use predict")


def _scope(
    trained: Trained, sequences: Sequences, same: bool, until: float | None
) -> tuple[Part, str]:
    """What may be scored, and how to call it."""
    if same:
        parts = split(sequences, trained.declaration.data.split, trained.declaration.training.seed)
        for name in ("test", "valid"):
            if parts[name].steps:
                scope = f"the {name} part of the training data ({parts[name].steps} steps)"
                return parts[name], scope
        scope = "the training data themselves: no part was held out, so this says little"
        return Part.whole(sequences), scope
    if trained.horizon and until is not None and sequences.has_time:
        start = _steps_until(sequences, until)
        if (start > 0).any() and (start < sequences.lengths).any():
            rows = np.flatnonzero(start < sequences.lengths)
            part = Part(rows, start[rows], sequences.lengths[rows])
            return part, f"the {part.steps} steps after the training part"
    return Part.whole(sequences), f"all {sequences.count} sequences ({sequences.total} steps)"


def _steps_until(sequences: Sequences, until: float) -> NDArray[np.int64]:
    """How many steps of each sequence are not after `until`, ``[B]``."""
    owner = np.repeat(np.arange(sequences.count), sequences.lengths)
    return np.bincount(owner[sequences.times <= until], minlength=sequences.count).astype(np.int64)
