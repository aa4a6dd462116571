"""A class, or any number of labels, for every step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.sequences import Part, Sequences
from segue.tasks.classes import NONE
from segue.tasks.classify import Classify
from segue.tasks.labelling import Rows
from segue.tasks.one_class import OneClass
from segue.tasks.spans import are_bio, span_f1, spans_of
from segue.tasks.task import Metrics


class Tag(Classify):
    """`Classify` at every step; a step without a class counts neither in loss nor in scores.

    Where the classes are ``O``, ``B-kind`` and ``I-kind``, there is a score of whole spans too,
    ``span_f1`` (see `segue.tasks.spans`).
    """

    title = "Tagging every step with {name}"
    every = True

    class Spec(Classify.Spec):
        """Options of task `tag`."""

    def _rows(self, sequences: Sequences) -> Rows:
        frame = sequences.steps.select(self.columns)
        return Rows(frame, sequences.origin, sequences.step_place, required=False)

    def metrics_of_sequences(
        self, output: Tensor, target: Tensor, lengths: NDArray[np.int64]
    ) -> Metrics:
        return self._span_scores(output.argmax(1), target, lengths)

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        found = super().baselines(sequences, part)
        if not isinstance(self.labelling, OneClass):
            return found
        known = part.of(sequences)
        target = self.encode(known)
        most = torch.full_like(target, int(np.argmax(self.counts)))
        return {"majority": {**found["majority"], **self._span_scores(most, target, known.lengths)}}

    def _span_scores(
        self, predicted: Tensor, target: Tensor, lengths: NDArray[np.int64]
    ) -> Metrics:
        if not isinstance(self.labelling, OneClass) or not are_bio(self.classes.names):
            return {}
        # A step without a class is outside of all spans, be they right or found.
        names = [*self.classes.names, None]
        right = [names[code] for code in target.tolist()]
        found = [names[code] for code in torch.where(target == NONE, NONE, predicted).tolist()]
        return {"span_f1": span_f1(spans_of(found, lengths), spans_of(right, lengths))}
