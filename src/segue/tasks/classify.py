"""One class for a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields import Field
from segue.layers import Linear
from segue.schema import Output
from segue.sequences import Part, Sequences
from segue.tasks.classes import NONE, Classes, class_scores, majority_scores
from segue.tasks.task import Metrics, Task


class Classify(Task):
    """``softmax(W h + b)`` over the classes of the training rows; the loss is the cross-entropy in nats.

    Baseline: always the most frequent class of the training rows.
    """

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
        self.classes = Classes.of(
            self._values(train), f"{train.origin}: column {self.columns[0]!r}"
        )
        codes = self.encode(train)
        self.counts = torch.bincount(codes[codes != NONE], minlength=len(self.classes)).tolist()

    def encode(self, sequences: Sequences) -> Tensor:
        values = self._values(sequences)
        where = f"{sequences.origin}: column {self.columns[0]!r}"
        if values.null_count() and not self.every:
            key = sequences.keys[int(values.is_null().arg_max() or 0)]
            raise DataError(
                where,
                "a class for every sequence",
                f"none for key {key!r}",
                "fill it in or remove the key",
            )
        return torch.from_numpy(self.classes.encode(values, where))

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
        shares = torch.softmax(output.double(), 1)
        columns = {self.name: self.classes.decode(output.argmax(1))}
        for code, name in enumerate(self.classes.names):
            columns[f"{self.name}_p_{name}"] = pl.Series(shares[:, code].numpy())
        return pl.DataFrame(columns)

    def fitted(self) -> dict[str, Any]:
        return {"classes": self.classes.names, "dtype": self.classes.dtype, "counts": self.counts}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.classes, self.counts = (
            Classes(fitted["classes"], fitted["dtype"]),
            list(fitted["counts"]),
        )
