"""Many-hot steps: a set of elements at every step, such as the notes of a chord."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError
from segue.fields.field import Encoder, EncoderState, Field, Reading, Values
from segue.fields.vocabulary import Vocabulary, word
from segue.ops.program import Slot
from segue.ragged import Ragged
from segue.schema import Input


class ManyHot(Field):
    """A list of elements per step, encoded as a 0/1 vector over the elements of the training rows.

    Elements never seen in the training rows are left out. A missing list is an empty one.
    """

    class Spec(Input):
        """Options of kind `many_hot`."""

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.vocabulary = Vocabulary()

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return not whole and isinstance(values.dtype, pl.List)

    def fit(self, frame: pl.DataFrame) -> None:
        self.vocabulary = Vocabulary.of(_lists(frame[self.columns[0]], "training rows").explode())

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        return torch.from_numpy(many_hot(_lists(frame[self.columns[0]], origin), self.vocabulary))

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        codes: list[list[int | None]] = []
        for (elements,) in rows:
            if type(elements) not in (list, tuple, set, type(None)):
                return None
            codes.append([self.vocabulary.code(element) for element in elements or ()])
        found = [code for row in codes for code in row]
        if None in found:
            return None
        lengths = np.array([len(row) for row in codes], np.int64)
        return _hot(lengths, np.array(found, np.int64), self.vocabulary)

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        lists = [None if value is None else _words(value, name, origin) for value in values]
        return pl.Series(name, lists, dtype=pl.List(pl.String))

    def encoder(self) -> Encoder:
        return Identity(len(self.vocabulary.names))

    def fitted(self) -> dict[str, Any]:
        return {"elements": list(self.vocabulary.names)}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(fitted["elements"])

    def example(self, index: int) -> list[str]:
        return list(self.vocabulary.names[:3])

    def describe(self) -> str:
        return f"{len(self.vocabulary.names)} different elements"


class Identity(Encoder):
    """The encoded values are the features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        return x.values, state

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        return at.input(self.features), ()


def many_hot(lists: pl.Series, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """0/1 vectors ``[N, elements]`` of a column of lists."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    elements = lists.filter(lists.list.len() > 0).explode()
    return _hot(lengths, vocabulary.encode(elements), vocabulary)


def _hot(
    lengths: NDArray[np.int64], codes: NDArray[np.int64], vocabulary: Vocabulary
) -> NDArray[np.float32]:
    """0/1 vectors of the codes of as many elements per row as `lengths` says."""
    hot = np.zeros((len(lengths), len(vocabulary)), np.float32)
    hot[np.repeat(np.arange(len(lengths)), lengths), codes] = 1.0
    return np.ascontiguousarray(hot[:, 1:])


def _lists(series: pl.Series, origin: str) -> pl.Series:
    if not isinstance(series.dtype, pl.List):
        got = f"{series.dtype} such as {series.drop_nulls().head(1).to_list()}"
        fix = "give lists such as [60, 64], or declare another kind"
        where = f"{origin}: column {series.name!r}"
        raise DataError(where, "a list of elements at every step", got, fix)
    return series


def _words(value: Any, name: str, origin: str) -> list[str | None]:
    if not isinstance(value, list | tuple | set) or any(
        isinstance(element, list | tuple | set | dict) for element in value
    ):
        fix = "give a list such as [60, 64]"
        raise DataError(f"{origin}: {name!r}", "a list of elements", repr(value), fix)
    return [word(element) for element in value]
