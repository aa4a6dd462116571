"""Numbers: at the end of a sequence or at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields import Field
from segue.fields.number import numbers
from segue.layers import Linear
from segue.schema import Output
from segue.sequences import Part, Sequences
from segue.tasks.task import Metrics, Task


class Regress(Task):
    """``y = W h + b`` for each target column; targets are standardised with the training rows, so the loss has no unit.

    Losses: ``mse`` (squared error), ``mae`` (absolute error), ``huber``. Baselines: the mean and the median of the
    training rows.
    """

    main = "rmse"

    class Spec(Output):
        """Options of task `regress`."""

        at: Literal["end", "every"] = "end"
        loss: Literal["mse", "mae", "huber"] = "mse"

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.every = spec.at == "every"
        self._loss = spec.loss
        self.shift = torch.zeros(len(columns), dtype=torch.float64)
        self.scale = torch.ones(len(columns), dtype=torch.float64)
        self.median = torch.zeros(len(columns), dtype=torch.float64)

    def _raw(self, sequences: Sequences) -> Tensor:
        frame = sequences.steps if self.every else sequences.static
        columns = [numbers(frame[column], sequences.origin) for column in self.columns]
        return torch.from_numpy(np.stack(columns, axis=1))

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        raw = self._raw(train)
        for index, column in enumerate(self.columns):
            seen = raw[:, index][~raw[:, index].isnan()]
            if not len(seen):
                where = f"{train.origin}: column {column!r}"
                raise DataError(
                    where, "numbers in the training rows", "no value at all", "fill in the target"
                )
            self.shift[index], self.median[index] = seen.mean(), seen.median()
            deviation = seen.std(correction=0)
            self.scale[index] = deviation if deviation > 0 else 1.0

    def encode(self, sequences: Sequences) -> Tensor:
        raw = self._raw(sequences)
        missing = raw.isnan().any(1)
        if missing.any() and not self.every:
            key = sequences.keys[int(missing.int().argmax())]
            where = f"{sequences.origin}: column {self.columns[0]!r}"
            raise DataError(
                where,
                "a number for every sequence",
                f"none for key {key!r}",
                "fill it in or remove the key",
            )
        return ((raw - self.shift) / self.scale).float()

    def head(self, features: int) -> nn.Module:
        return Linear(features, len(self.columns))

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        seen = ~target.isnan()
        error = output[seen] - target[seen]
        if self._loss == "huber":
            return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")
        return error.square() if self._loss == "mse" else error.abs()

    def metrics(self, output: Tensor, target: Tensor) -> Metrics:
        return self._scores(
            (output.double() - target.double()) * self.scale, target.double() * self.scale
        )

    @staticmethod
    def _scores(error: Tensor, target: Tensor) -> Metrics:
        seen = ~error.isnan()
        spread = (target[seen] - target[seen].mean()).square().sum()
        squared = error[seen].square()
        return {
            "rmse": float(squared.mean().sqrt()),
            "mae": float(error[seen].abs().mean()),
            "r2": float(1 - squared.sum() / spread) if spread > 0 else float("nan"),
        }

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        target = self._raw(part.of(sequences))
        answers = {"mean": self.shift, "median": self.median}
        return {name: self._scores(answer - target, target) for name, answer in answers.items()}

    def decode(self, output: Tensor) -> pl.DataFrame:
        values = output.double() * self.scale + self.shift
        return pl.DataFrame(
            {column: values[:, index].numpy() for index, column in enumerate(self.columns)}
        )

    def fitted(self) -> dict[str, Any]:
        return {
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "median": self.median.tolist(),
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.shift = torch.tensor(fitted["shift"], dtype=torch.float64)
        self.scale = torch.tensor(fitted["scale"], dtype=torch.float64)
        self.median = torch.tensor(fitted["median"], dtype=torch.float64)
