"""A class, or any number of labels, for every step."""

from __future__ import annotations

from segue.sequences import Sequences
from segue.tasks.classify import Classify
from segue.tasks.labelling import Rows


class Tag(Classify):
    """`Classify` at every step; a step without a class counts neither in loss nor in scores."""

    title = "Tagging every step with {name}"
    every = True

    class Spec(Classify.Spec):
        """Options of task `tag`."""

    def _rows(self, sequences: Sequences) -> Rows:
        frame = sequences.steps.select(self.columns)
        return Rows(frame, sequences.origin, sequences.step_place, required=False)
