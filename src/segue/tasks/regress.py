"""Numbers: at the end of a sequence or at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields import Field
from segue.fields.number import numbers, scale_of
from segue.layers import Linear
from segue.schema import Output
from segue.sequences import Part, Sequences
from segue.tasks.task import Metrics, Task


class Regress(Task):
    """``y = W h + b`` for each target column; targets are standardised with the training rows, so
    the loss has no unit.

    Losses of the error e: ``mse`` e^2, ``mae`` |e|, ``huber`` e^2 / 2 up to 1 and |e| - 1/2 beyond.
    Metrics over all columns, in their units: rmse, mae, and r2, the mean over the columns of the
    share of the variance that is explained. Baselines: the mean and the median of the training
    rows.
    """

    title = "Estimating {name}"
    main = "rmse"
    several = True

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
            seen = raw[:, index][~raw[:, index].isnan()].numpy()
            if not len(seen):
                where, fix = f"{train.origin}: column {column!r}", "fill in the target"
                raise DataError(where, "numbers in the training rows", "no value at all", fix)
            self.shift[index], self.median[index] = seen.mean(), float(np.median(seen))
            self.scale[index] = scale_of(seen.std(), seen.mean())

    def encode(self, sequences: Sequences) -> Tensor:
        raw = self._raw(sequences)
        missing = raw.isnan()
        if missing.any() and not self.every:
            row, column = missing.nonzero()[0].tolist()
            where = f"{sequences.origin}: column {self.columns[column]!r}, {sequences.place(row)}"
            fix = "fill it in or remove the sequence"
            raise DataError(where, "a number for every sequence", "none", fix)
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
        return self._scores(output.double() * self.scale, target.double() * self.scale)

    @staticmethod
    def _scores(answer: Tensor, target: Tensor) -> Metrics:
        """Scores of answers ``[M, C]`` (or ``[C]``) against targets ``[M, C]``, NaN for none."""
        seen = ~target.isnan()
        error = torch.where(seen, answer - target, 0.0)
        spread = torch.where(seen, target - target.nanmean(0), 0.0).square().sum(0)
        explained = 1 - error.square().sum(0) / spread
        count = seen.sum()
        return {
            "rmse": float((error.square().sum() / count).sqrt()),
            "mae": float(error.abs().sum() / count),
            "r2": float(explained.mean()) if (spread > 0).all() else float("nan"),
        }

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        target = self._raw(part.of(sequences))
        answers = {"mean": self.shift, "median": self.median}
        return {name: self._scores(answer, target) for name, answer in answers.items()}

    def decode(self, output: Tensor) -> pl.DataFrame:
        values = self._values(output.numpy())
        return pl.DataFrame({column: values[:, i] for i, column in enumerate(self.columns)})

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        return dict(zip(self.columns, self._values(output).T.tolist(), strict=True))

    def _values(self, output: NDArray[Any]) -> NDArray[np.float64]:
        """Numbers in the user's units, ``[M, C]``."""
        values: NDArray[np.float64] = output * self.scale.numpy() + self.shift.numpy()
        return values

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
