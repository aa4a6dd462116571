"""What `Classify` and `Tag` can be asked for: one class, or many labels at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Where targets stand.

    Attributes:
        frame: a row per target, M rows.
        origin: the name of the source, and `place` that of a row, for messages.
        required: whether every row must have a target.
    """

    frame: pl.DataFrame
    origin: str
    place: Callable[[int], str]
    required: bool

    def where(self, column: str) -> str:
        """What to call a column in a message."""
        return f"{self.origin}: column {column!r}"


class Labelling(ABC):
    """Targets, losses, scores and answers over K classes or labels.

    Attributes:
        main: the metric that stands for the score; the higher the better.
        counts: how often each class or label occurs in the training rows, ``[K]``.
    """

    main: ClassVar[str]

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        self.name, self.columns = name, columns
        self.counts: list[int] = []

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The K classes or labels as words."""

    @abstractmethod
    def fit(self, rows: Rows) -> None:
        """Learn them from the training rows.

        Raises:
            DataError: there are none to tell apart.
        """

    @abstractmethod
    def encode(self, rows: Rows) -> Tensor:
        """Targets; -1 or NaN where there is none.

        Raises:
            DataError: a target that the training rows lack, or none where one is required.
        """

    @abstractmethod
    def balanced(self) -> list[float]:
        """Weights that make up for how often each occurs, ``[K]``."""

    @abstractmethod
    def losses(self, output: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """The loss of each observed target of logits ``[M, K]``, times the weights ``[K]``."""

    @abstractmethod
    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Scores of logits ``[M, K]``."""

    @abstractmethod
    def temperature(self, output: Tensor, target: Tensor) -> float:
        """What to divide logits ``[M, K]`` by, so that the log-loss is lowest."""

    @abstractmethod
    def baselines(self, rows: Rows) -> dict[str, dict[str, float]]:
        """Scores of naive answers."""

    @abstractmethod
    def decode(self, logits: NDArray[Any]) -> pl.DataFrame:
        """Answers and their probabilities, a row per row of `logits` ``[M, K]``."""

    @abstractmethod
    def answers(self, logits: NDArray[Any]) -> dict[str, list[Any]]:
        """The same as lists of plain values."""

    @abstractmethod
    def fitted(self) -> dict[str, Any]:
        """What `fit` has learnt, as plain JSON values."""

    @abstractmethod
    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back what `fitted` gave."""

    def refuse_unknown(
        self, rows: Rows, column: str, row: int, value: Any, expected: str
    ) -> NoReturn:
        """Raises the error on a target that the training rows lack."""
        shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
        fix = "correct it, or see that the training part has examples of it"
        where = f"{rows.where(column)}, {rows.place(row)}"
        raise DataError(where, f"{expected} ({shown})", repr(value), fix)
