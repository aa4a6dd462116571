"""One class, or any number of labels, for a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, StrictBool
from torch import Tensor, nn

from segue.errors import SpecError
from segue.fields import Field
from segue.fields.vocabulary import word
from segue.layers import Linear
from segue.schema import AboveZero, Output
from segue.sequences import Part, Sequences
from segue.tasks.classes import Classes
from segue.tasks.labelling import Labelling, Rows
from segue.tasks.many_labels import ManyLabels
from segue.tasks.one_class import OneClass
from segue.tasks.task import Metrics, Task


def _worded(value: object) -> object:
    """The keys of a mapping as words: YAML reads a bare 7 as a number."""
    return {word(key): own for key, own in value.items()} if isinstance(value, dict) else value


Weights = Annotated[Literal["none", "balanced"] | dict[str, AboveZero], BeforeValidator(_worded)]


class Classify(Task):
    """``W h + b`` as the logits of `OneClass` or of `ManyLabels`, divided by a temperature where
    the probabilities are calibrated.
    """

    title = "Classifying sequences by {name}"
    every = False
    lower_is_better = False
    several = True

    class Spec(Output):
        """Options of task `classify`."""

        labels: Literal["one", "many"] = "one"
        weights: Weights = "none"
        calibrate: StrictBool = False

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        many = spec.labels == "many"
        if len(columns) > 1 and not many:
            got, fix = ", ".join(columns[:8]), "declare each column on its own, or labels: many"
            where = f"outputs.{name}.task"
            raise SpecError(where, f"one column for task {spec.task}", got, fix)
        self.labelling: Labelling = (ManyLabels if many else OneClass)(name, columns)
        self.main = self.labelling.main
        self.calibrates_on = "valid" if spec.calibrate else None
        self.temperature = 1.0
        self._said, self._weights = spec.weights, torch.ones(0)

    @property
    def classes(self) -> Classes:
        """The classes, of one class alone."""
        assert isinstance(self.labelling, OneClass)
        return self.labelling.classes

    @property
    def counts(self) -> list[int]:
        """How often each class or label occurs in the training rows, ``[K]``."""
        return self.labelling.counts

    def _rows(self, sequences: Sequences) -> Rows:
        """The target columns; `tag` reads them from the steps."""
        frame = sequences.static.select(self.columns)
        return Rows(frame, sequences.origin, sequences.place, required=True)

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        self.labelling.fit(self._rows(train))
        self._weights = self._loss_weights()

    def _loss_weights(self) -> Tensor:
        """What each class or label weighs in the loss ``[K]``; nothing where all weigh 1."""
        if self._said == "none":
            return torch.ones(0)
        if self._said == "balanced":
            return torch.tensor(self.labelling.balanced())
        names = self.labelling.names
        for name in self._said:
            if name not in names:
                where = f"outputs.{self.name}.weights.{name}"
                expected = "one of " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                raise SpecError(where, expected, repr(name), "correct or remove it")
        return torch.tensor([float(self._said.get(name, 1.0)) for name in names])

    def encode(self, sequences: Sequences) -> Tensor:
        return self.labelling.encode(self._rows(sequences))

    def head(self, features: int) -> nn.Module:
        return Linear(features, len(self.labelling.names))

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        weights = self._weights.to(output.dtype) if len(self._weights) else None
        return self.labelling.losses(output, target, weights)

    def calibrate(self, output: Tensor, target: Tensor) -> None:
        self.temperature = self.labelling.temperature(output, target)

    def metrics(self, output: Tensor, target: Tensor) -> Metrics:
        return self.labelling.metrics(output / self.temperature, target)

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        return self.labelling.baselines(self._rows(part.of(sequences)))

    def decode(self, output: Tensor) -> pl.DataFrame:
        return self.labelling.decode(output.numpy() / self.temperature)

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        return self.labelling.answers(output / self.temperature)

    def fitted(self) -> dict[str, Any]:
        return {**self.labelling.fitted(), "temperature": self.temperature}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.labelling.restore(fitted)
        self.temperature = float(fitted.get("temperature", 1.0))
