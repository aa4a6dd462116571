"""One class for a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields import Field
from segue.layers import Linear
from segue.schema import Output
from segue.sequences import Part, Sequences
from segue.tasks.classes import NONE, Classes, class_scores, majority_scores, shares
from segue.tasks.task import Metrics, Task


class Classify(Task):
    """``softmax(W h + b)`` over the classes of the training rows; the loss is the cross-entropy in
    nats.

    Baseline: always the most frequent class of the training rows. Scores: see
    `segue.tasks.classes`.
    """

    title = "Classifying sequences by {name}"
    every = False
    main = "accuracy"
    lower_is_better = False

    class Spec(Output):
        """Options of task `classify`."""

    def __init__(self, name: str, columns: tuple[str, ...], spec: Output) -> None:
        super().__init__(name, columns, spec)
        self.classes = Classes([], "String")
        self.counts: list[int] = []

    def _values(self, sequences: Sequences) -> pl.Series:
        """The target column; `tag` reads it from the steps."""
        return sequences.static[self.columns[0]]

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        where = f"{train.origin}: column {self.columns[0]!r}"
        self.classes = Classes.of(self._values(train), where)
        codes = self.encode(train)
        self.counts = torch.bincount(codes[codes != NONE], minlength=len(self.classes)).tolist()

    def encode(self, sequences: Sequences) -> Tensor:
        values = self._values(sequences)
        codes = self.classes.encode(values)
        where = f"{sequences.origin}: column {self.columns[0]!r}"
        if values.null_count() and not self.every:
            place = sequences.place(int(values.is_null().arg_max() or 0))
            fix = "fill it in or remove the sequence"
            raise DataError(f"{where}, {place}", "a class for every sequence", "none", fix)
        unknown = np.flatnonzero((codes == NONE) & values.is_not_null().to_numpy())
        if len(unknown):
            row = int(unknown[0])
            place = self._place(sequences, row)
            shown = ", ".join(self.classes.names[:5]) + (", ..." if len(self.classes) > 5 else "")
            expected = f"one of the {len(self.classes)} classes of the training rows ({shown})"
            fix = "correct it, or see that the training part has examples of it"
            raise DataError(f"{where}, {place}", expected, repr(values[row]), fix)
        return torch.from_numpy(codes)

    def _place(self, sequences: Sequences, row: int) -> str:
        return sequences.place(row)

    def head(self, features: int) -> nn.Module:
        return Linear(features, len(self.classes))

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        seen = target != NONE
        return nn.functional.cross_entropy(output[seen], target[seen], reduction="none")

    def metrics(self, output: Tensor, target: Tensor) -> Metrics:
        return class_scores(output, target)

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        return {"majority": majority_scores(self.counts, self.encode(part.of(sequences)))}

    def decode(self, output: Tensor) -> pl.DataFrame:
        logits = output.numpy()
        columns = {self.name: self.classes.values[logits.argmax(1)]}
        for name, column in zip(self._share_names, shares(logits).T, strict=True):
            columns[name] = pl.Series(column)
        return pl.DataFrame(columns)

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        listed, best = self.classes.listed, output.argmax(1).tolist()
        found = dict(zip(self._share_names, shares(output).T.tolist(), strict=True))
        return {self.name: [listed[code] for code in best], **found}

    @property
    def _share_names(self) -> list[str]:
        return [f"{self.name}_p_{name}" for name in self.classes.names]

    def fitted(self) -> dict[str, Any]:
        return {"classes": self.classes.names, "dtype": self.classes.dtype, "counts": self.counts}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.classes = Classes(fitted["classes"], fitted["dtype"])
        self.counts = list(fitted["counts"])
