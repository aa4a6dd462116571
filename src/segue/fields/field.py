"""What every kind of input has: `Field` (fit, encode; no torch modules) and `Encoder` (the module behind it)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import polars as pl
from torch import Tensor, nn

from segue.errors import DataError
from segue.ragged import Ragged
from segue.schema import Input

EncoderState = tuple[Tensor, ...]


class Encoder(nn.Module, ABC):
    """Turns the encoded values of one input into features; causal, and a cell over steps.

    Attributes:
        features: F, the number of features per step.
    """

    features: int

    def initial_state(self, batch: int) -> EncoderState:
        """The state before the first step; empty for encoders without memory."""
        return ()

    @abstractmethod
    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        """Features ``[N, F]`` of the encoded values `x`, and the state after the last step of each sequence.

        Args:
            x: encoded values, ``[N, ...]``.
            times: when each step is, float64 ``[N]``.
            elapsed: time since the step before, float64 ``[N]``; 0 at the first step.
        """


class Field(ABC):
    """One declared input over one or many columns: learns what it needs from training rows, then encodes any rows."""

    Spec: ClassVar[type[Input]]

    def __init__(self, name: str, columns: tuple[str, ...], spec: Input) -> None:
        self.name = name
        self.columns = columns

    @classmethod
    @abstractmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        """Whether raw `values` look like this kind; `whole` when a cell of theirs is a whole sequence."""

    @abstractmethod
    def fit(self, frame: pl.DataFrame) -> None:
        """Learn scales or a vocabulary from training rows."""

    @abstractmethod
    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        """Encoded rows ``[N, ...]``.

        Raises:
            DataError: a value that this field cannot encode; `origin` names the source in the message.
        """

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        """Values of records as a raw column; by default words.

        Raises:
            DataError: a value that cannot be one of this kind.
        """
        return raw_column(name, values, pl.String, "a word", origin)

    @abstractmethod
    def encoder(self) -> Encoder:
        """A new encoder for what `fit` has seen."""

    @abstractmethod
    def fitted(self) -> dict[str, Any]:
        """What `fit` has learnt, as plain JSON values."""

    @abstractmethod
    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back what `fitted` gave."""

    def describe(self) -> str:
        """One line on what was learnt, for the data check."""
        return ""


def raw_column(
    name: str, values: list[Any], dtype: pl.DataType | type[pl.DataType], expected: str, origin: str
) -> pl.Series:
    """Values of records as a column of `dtype`.

    Raises:
        DataError: one of them is not `expected`.
    """
    try:
        if dtype == pl.String:
            return pl.Series(name, values).cast(pl.String)
        return pl.Series(name, values, dtype=dtype)
    except (TypeError, pl.exceptions.PolarsError):
        culprit = next((value for value in values if _refused(value, dtype)), values)
        where = f"{origin}: {name!r}"
        raise DataError(
            where, f"{expected}, or null where it is not observed", repr(culprit), "correct it"
        ) from None


def _refused(value: Any, dtype: pl.DataType | type[pl.DataType]) -> bool:
    try:
        pl.Series([value], dtype=dtype)
    except (TypeError, pl.exceptions.PolarsError):
        return True
    return False
