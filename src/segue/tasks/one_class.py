"""One class out of several: what `Classify` and `Tag` learn unless they are to find many labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import DataError
from segue.tasks.calibration import temperature_of_classes
from segue.tasks.classes import NONE, Classes, class_scores, majority_scores, shares
from segue.tasks.labelling import Labelling, Rows


class OneClass(Labelling):
    """``softmax(W h + b)`` over the classes of the training rows.

    Loss: the cross-entropy in nats. Baseline: always the most frequent class of the training rows.
    Scores: see `segue.tasks.classes`.
    """

    main = "accuracy"

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        super().__init__(name, columns)
        self.classes = Classes([], "String")

    def fit(self, rows: Rows) -> None:
        self.classes = Classes.of(rows.frame[self.columns[0]], rows.where(self.columns[0]))
        codes = self.encode(rows)
        self.counts = torch.bincount(codes[codes != NONE], minlength=len(self.classes)).tolist()

    @property
    def names(self) -> list[str]:
        return self.classes.names

    def encode(self, rows: Rows) -> Tensor:
        values = rows.frame[self.columns[0]]
        codes = self.classes.encode(values)
        where = rows.where(self.columns[0])
        if values.null_count() and rows.required:
            place = rows.place(int(values.is_null().arg_max() or 0))
            fix = "fill it in or remove the sequence"
            raise DataError(f"{where}, {place}", "a class for every sequence", "none", fix)
        unknown = np.flatnonzero((codes == NONE) & values.is_not_null().to_numpy())
        if len(unknown):
            row = int(unknown[0])
            expected = f"one of the {len(self.classes)} classes of the training rows"
            self.refuse_unknown(rows, self.columns[0], row, values[row], expected)
        return torch.from_numpy(codes)

    def balanced(self) -> list[float]:
        """``N / (K n_k)``: every class weighs the same in all, and the mean weight is 1."""
        total, count = sum(self.counts), len(self.counts)
        return [total / (count * max(1, own)) for own in self.counts]

    def losses(self, output: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        seen = target != NONE
        return nn.functional.cross_entropy(output[seen], target[seen], weights, reduction="none")

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        return class_scores(output, target)

    def temperature(self, output: Tensor, target: Tensor) -> float:
        seen = target != NONE
        return temperature_of_classes(output[seen], target[seen]) if seen.any() else 1.0

    def baselines(self, rows: Rows) -> dict[str, dict[str, float]]:
        return {"majority": majority_scores(self.counts, self.encode(rows))}

    def decode(self, logits: NDArray[Any]) -> pl.DataFrame:
        columns = {self.name: self.classes.values[logits.argmax(1)]}
        for name, column in zip(self._share_names, shares(logits).T, strict=True):
            columns[name] = pl.Series(column)
        return pl.DataFrame(columns)

    def answers(self, logits: NDArray[Any]) -> dict[str, list[Any]]:
        listed, best = self.classes.listed, logits.argmax(1).tolist()
        found = dict(zip(self._share_names, shares(logits).T.tolist(), strict=True))
        return {self.name: [listed[code] for code in best], **found}

    @property
    def _share_names(self) -> list[str]:
        return [f"{self.name}_p_{name}" for name in self.classes.names]

    def fitted(self) -> dict[str, Any]:
        return {"classes": self.classes.names, "dtype": self.classes.dtype, "counts": self.counts}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.classes = Classes(fitted["classes"], fitted["dtype"])
        self.counts = list(fitted["counts"])
