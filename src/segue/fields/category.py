"""Categories: one of a set of names, as a learnt vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.fields.field import Encoder, EncoderState, Field, Reading, Values
from segue.fields.vocabulary import UNKNOWN, Vocabulary
from segue.ops.program import Slot
from segue.ragged import Ragged
from segue.schema import Input, Positive


class Category(Field):
    """A column of names; the vocabulary is that of the training rows.

    A missing cell is "unknown". A name never seen in the training rows is an error, or "unknown" as
    well where the declaration says ``unknown: allow``.
    """

    several = True

    class Spec(Input):
        """Options of kind `category`."""

        unknown: Literal["error", "allow"] = "error"
        size: Positive | None = None

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._spec = spec
        self.vocabularies = tuple(Vocabulary() for _ in columns)

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return not whole and values.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)

    def fit(self, frame: pl.DataFrame) -> None:
        self.vocabularies = tuple(Vocabulary.of(frame[column]) for column in self.columns)

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        codes = []
        for column, vocabulary in zip(self.columns, self.vocabularies, strict=True):
            codes.append(vocabulary.encode(frame[column]))
            if self._spec.unknown == "error":
                fix = f"correct it, or train with `inputs.{self.name}: {{unknown: allow}}`"
                where = f"{origin}: column {column!r}"
                vocabulary.refuse_unknown(frame[column], codes[-1], where, fix)
        return torch.stack([torch.from_numpy(column) for column in codes], dim=1)

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        codes = [
            [v.code(value) for v, value in zip(self.vocabularies, row, strict=True)] for row in rows
        ]
        refused = (None, UNKNOWN) if self._spec.unknown == "error" else (None,)
        for row, values in zip(codes, rows, strict=True):
            if any(c in refused and v is not None for c, v in zip(row, values, strict=True)):
                return None
        return np.array(codes, np.int64)

    def encoder(self) -> Encoder:
        return Embedding([len(vocabulary) for vocabulary in self.vocabularies], self._spec.size)

    def fitted(self) -> dict[str, Any]:
        return {"vocabularies": [list(vocabulary.names) for vocabulary in self.vocabularies]}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.vocabularies = tuple(Vocabulary(names) for names in fitted["vocabularies"])

    def example(self, index: int) -> str | None:
        return next(iter(self.vocabularies[index].names), None)

    def describe(self) -> str:
        return f"{sum(len(vocabulary.names) for vocabulary in self.vocabularies)} values"


class Embedding(Encoder):
    """Codes ``[N, C]`` to learnt vectors, one table per column: row `code` of a table of
    ``sizes[c]`` rows. The row of "unknown" starts at 0, which it stays where training never sees
    one.

    Args:
        sizes: codes per column.
        size: length of a vector; by default ``min(32, 1 + codes / 2)``.
    """

    def __init__(self, sizes: list[int], size: int | None = None) -> None:
        super().__init__()
        tables = [nn.Embedding(codes, size or min(32, 1 + codes // 2)) for codes in sizes]
        for table in tables:
            with torch.no_grad():
                table.weight[UNKNOWN].zero_()
        self.tables = nn.ModuleList(tables)
        self.features = sum(table.embedding_dim for table in tables)

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        vectors = [table(x.values[:, column]) for column, table in enumerate(self.tables)]
        return torch.cat(vectors, dim=1), state

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        codes = at.input(len(self.tables), torch.int64)
        tables = [table.weight for table in self.tables if isinstance(table, nn.Embedding)]
        vectors = [at.program.embed(codes, place, table) for place, table in enumerate(tables)]
        return at.program.join(vectors), ()
