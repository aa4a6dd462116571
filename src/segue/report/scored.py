"""`Scored`: the raw answers of one output, and where in the data each of them stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segue.data.store import Target
from segue.evaluate import Evaluation, Score
from segue.fields.text import Text
from segue.report.plain import LABEL, label
from segue.sequences import Part, Sequences, spans
from segue.tasks import Task
from segue.trained import Trained


@dataclass(frozen=True)
class Scored:
    """M answers of the output `name`: one per scored step, or one per sequence."""

    trained: Trained
    evaluation: Evaluation
    name: str

    @property
    def task(self) -> Task:
        """What was asked."""
        return self.trained.tasks[self.name]

    @property
    def output(self) -> Tensor:
        """The raw answers, ``[M, ...]``."""
        return self.evaluation.outputs[self.name]

    @property
    def target(self) -> Target:
        """What was right."""
        target: Target = self.evaluation.targets[self.name]
        return target

    @property
    def score(self) -> Score:
        """The metrics beside those of the naive answers."""
        return self.evaluation.scores[self.name]

    @property
    def sequences(self) -> Sequences:
        """The raw data."""
        return self.evaluation.sequences

    @property
    def part(self) -> Part:
        """The P spans that were scored."""
        return self.evaluation.part

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many of the M answers each span has, ``[P]``, each at least one."""
        first, stop = self.trained.origins(self.part)
        return stop - first if self.task.every else np.ones_like(first)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The place among the M answers of each span's first, ``[P]``."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The span of each answer, ``[M]``."""
        return np.repeat(np.arange(self.part.count), self.counts)

    @cached_property
    def step(self) -> NDArray[np.int64]:
        """The step of its sequence that each answer stands at, ``[M]``."""
        first, stop = self.trained.origins(self.part)
        return spans(first, stop - first) if self.task.every else stop - 1

    def of_span(self, span: int) -> slice:
        """The answers of a span."""
        return slice(int(self.first[span]), int(self.first[span] + self.counts[span]))

    def times(self, span: int, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """When these steps of a span's sequence are."""
        first = self.sequences.offsets[self.part.rows[span]]
        times: NDArray[np.float64] = self.sequences.times[first + steps]
        return times

    def text(self, span: int) -> list[str]:
        """The beginning of a span's text, in a list that is empty where no input is a text."""
        columns = self.sequences.steps.columns
        texts = (field for field in self.trained.fields.values() if isinstance(field, Text))
        field = next((field for field in texts if field.columns[0] in columns), None)
        if field is None:
            return []
        first = int(self.sequences.offsets[self.part.rows[span]] + self.part.start[span])
        length = min(int(self.part.stop[span] - self.part.start[span]), LABEL + 1)
        units = self.sequences.steps[field.columns[0]][first : first + length]
        return [label(field.units.join(units.drop_nulls().to_list()))]

    def key(self, span: int) -> str | None:
        """The name of a span's sequence; None where the data are one sequence."""
        if self.sequences.count == 1:
            return None
        key = self.sequences.keys[int(self.part.rows[span])]
        return label(key if self.trained.declaration.data.key else f"sequence {int(key) + 1}")
