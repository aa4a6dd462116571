"""A class for every step."""

from __future__ import annotations

import polars as pl

from segue.schema import Output
from segue.sequences import Sequences
from segue.tasks.classify import Classify


class Tag(Classify):
    """`Classify` at every step; a step without a class counts neither in loss nor in scores."""

    title = "Tagging every step with {name}"
    every = True

    class Spec(Output):
        """Options of task `tag`."""

    def _values(self, sequences: Sequences) -> pl.Series:
        return sequences.steps[self.columns[0]]

    def _place(self, sequences: Sequences, row: int) -> str:
        return sequences.step_place(row)
