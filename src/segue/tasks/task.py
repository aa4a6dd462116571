"""What every task has: targets, a head, a loss, metrics, answers in the user's terms and naive
baselines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.fields import Field
from segue.fields.field import Values
from segue.fields.number import plain_numbers
from segue.ragged import Ragged
from segue.schema import Output
from segue.sequences import Part, Sequences

Metrics = dict[str, float]


class Whole(NamedTuple):
    """The targets of whole sequences whose steps all have an output.

    Attributes:
        labels: the codes of each of P targets.
        steps: how many rows of the outputs belong to each, int64 ``[P]``.
        sequences: what they were made from, and `rows` which of them they are, ``[P]``.
    """

    labels: Ragged
    steps: Tensor
    sequences: Sequences | None = None
    rows: NDArray[np.int64] | None = None

    def raw(self) -> Sequences:
        """The P sequences as the user gave them."""
        assert self.sequences is not None and self.rows is not None
        return self.sequences.cut(
            self.rows, np.zeros_like(self.rows), self.sequences.lengths[self.rows]
        )


class Task(ABC):
    """One declared output over one or many columns.

    Attributes:
        whole: whether the target belongs to the whole sequence though there is an output at every
            step; such sequences are never cut (see `Whole`).
        reads_series: whether the past of the target columns is read as numbers beside the features.
        waits: why it cannot answer before the sequence is whole, and so not live; "" where it can.
        every: whether there is a prediction at every step, or one at the end of each sequence.
        looks_ahead: whether the target of a step is taken from the step after it.
        title: what it does, with ``{name}`` for the output and ``{horizon}`` for its option.
        main: the metric that stands for the score, and `lower_is_better` which way it goes.
        several: whether one output may stand for many columns.
        calibrates_on: the part on which `calibrate` learns from the trained network's answers; None
            where there is nothing to learn.
    """

    Spec: ClassVar[type[Output]]
    title: ClassVar[str]
    main: str
    lower_is_better: bool = True
    looks_ahead: ClassVar[bool] = False
    several: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    reads_series: ClassVar[bool] = False
    calibrates_on: Literal["train", "valid"] | None = None
    waits: ClassVar[str] = ""
    every: bool

    def __init__(self, name: str, columns: tuple[str, ...], spec: Output) -> None:
        self.name = name
        self.columns = columns

    def use(self, fields: Mapping[str, Field]) -> None:  # noqa: B027
        """Keep what the task reads of the inputs; before `fit`, and after `restore`."""

    @abstractmethod
    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        """Learn classes or scales from the training part."""

    @abstractmethod
    def encode(self, sequences: Sequences) -> Any:
        """Targets: ``[N, ...]`` if `every`, else ``[B, ...]``; NaN or -1 where there is none. Of
        `whole` sequences a `Ragged` of B targets.

        Raises:
            DataError: a target that cannot be one.
        """

    def past(self, column: str, values: pl.Series, origin: str) -> pl.Series:
        """The numbers that are read of the past of a target column, null where not observed; by
        default its values. Of `reads_series` alone.

        Raises:
            DataError: values that are none.
        """
        return values

    def plain_past(self, rows: list[Values]) -> NDArray[np.float64] | None:
        """The same ``[N, C]`` of the values of records, the short way; None for the long one."""
        return plain_numbers(rows)

    @abstractmethod
    def head(self, features: int) -> nn.Module:
        """The module from features ``[M, F]`` to outputs ``[M, ...]``."""

    @abstractmethod
    def losses(self, output: Tensor, target: Any) -> Tensor:
        """The loss of each observed target, ``[observed]``."""

    def calibrate(self, output: Tensor, target: Any) -> None:
        """Learn from the answers of the trained network on the part `calibrates_on`."""
        raise NotImplementedError(f"{type(self).__name__} learns nothing from its answers")

    @abstractmethod
    def metrics(self, output: Tensor, target: Any) -> Metrics:
        """Scores of `output` against `target`, in the user's units."""

    def metrics_of_sequences(
        self, output: Tensor, target: Tensor, lengths: NDArray[np.int64]
    ) -> Metrics:
        """Scores besides `metrics`, of a task at every step, that need to know where sequences end:
        `lengths[p]` rows of `output` belong to the p-th.
        """
        return {}

    @abstractmethod
    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        """Scores on the `part` of `sequences` of the naive answers that `fit` has learnt."""

    @abstractmethod
    def decode(self, output: Tensor) -> pl.DataFrame:
        """Predictions in the user's terms, a row per row of `output`."""

    def decode_whole(self, output: Tensor, steps: Tensor, sequences: Sequences) -> pl.DataFrame:
        """Predictions of whole sequences in the user's terms, a row for each of P.

        Args:
            output: at all steps, ``[M, ...]``.
            steps: how many rows of it belong to each sequence, int64 ``[P]``.
            sequences: the P sequences as the user gave them.
        """
        raise NotImplementedError(f"{type(self).__name__} has an answer at every step")

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        """What `decode` says, as lists of plain values; a live step takes this way."""
        return self.decode(torch.from_numpy(output)).to_dict(as_series=False)

    @abstractmethod
    def fitted(self) -> dict[str, Any]:
        """What `fit` has learnt, as plain JSON values."""

    @abstractmethod
    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back what `fitted` gave."""
