"""Text as characters: each character is a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.fields.category import Embedding
from segue.fields.field import Encoder, Field, Values
from segue.fields.vocabulary import Vocabulary
from segue.schema import Input, Positive, Role


class Text(Field):
    """A text per sequence, read character by character; characters never seen in training rows are
    "unknown".
    """

    long = False

    class Spec(Input):
        """Options of kind `text`."""

        roles: ClassVar[tuple[Role, ...]] = ("step", "apart")
        size: Positive | None = None

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._size = spec.size
        self.vocabulary = Vocabulary()

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return whole and values.dtype == pl.String

    def fit(self, frame: pl.DataFrame) -> None:
        self.vocabulary = Vocabulary.of(frame[self.columns[0]])

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        return torch.from_numpy(self.vocabulary.encode(frame[self.columns[0]]))[:, None]

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        codes = [[self.vocabulary.code(row[0])] for row in rows]
        return None if [None] in codes else np.array(codes, np.int64)

    def encoder(self) -> Encoder:
        return Embedding([len(self.vocabulary)], self._size or 64)

    def fitted(self) -> dict[str, Any]:
        return {"characters": list(self.vocabulary.names)}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(fitted["characters"])

    def example(self, index: int) -> str | None:
        return next(iter(self.vocabulary.names), None)

    def describe(self) -> str:
        return f"{len(self.vocabulary.names)} different characters"
