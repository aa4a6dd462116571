"""Text: each character, byte, word or piece of a word is a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import StrictBool, model_validator
from torch import Tensor

from segue.errors import DataError
from segue.fields.category import Embedding
from segue.fields.field import Encoder, Field, Values, raw_column, unfolded
from segue.fields.units import Bytes, Characters, Subwords, Units, Words
from segue.fields.vocabulary import UNKNOWN, Vocabulary, unworded
from segue.schema import Input, Positive, Role

Unit = Literal["character", "byte", "word", "bpe"]


class Text(Field):
    """A text per sequence, read unit by unit, each a learnt vector; a list of texts is one that has
    been cut already.

    Units that the training rows lack, or have fewer than `least` times, are "unknown".
    """

    long = False

    class Spec(Input):
        """Options of kind `text`."""

        roles: ClassVar[tuple[Role, ...]] = ("step", "apart")
        unit: Unit = "character"
        split: Literal["words", "spaces"] = "words"
        vocabulary: Positive = 4000
        least: Positive = 1
        lower: StrictBool = False
        size: Positive | None = None

        @model_validator(mode="after")
        def _options_go_with_the_unit(self) -> Text.Spec:
            closed = self.unit in ("byte", "bpe")
            if closed and self.least > 1:
                raise ValueError(f"`least` with characters or words, not with unit {self.unit}")
            if self.unit == "byte" and self.lower:
                raise ValueError("`lower` with another unit than byte")
            return self

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._spec = spec
        self.units = units_of(spec, f"inputs.{name}")
        self.vocabulary = Vocabulary()
        self._seen = self._unseen = 0
        self.learns_steps = isinstance(self.units, Subwords)
        # Unit by unit, as in a live record, since a letter may be lowered by those around it; but
        # pieces of words are learnt from what is lowered already.
        self._lowers_texts = spec.lower and spec.unit == "bpe"
        self._lowers_units = spec.lower and spec.unit != "bpe"

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return whole and values.dtype == pl.String

    def fit_steps(self, frame: pl.DataFrame) -> None:
        """Learn where to cut, from whole training texts; pieces of words alone need it."""
        if not isinstance(self.units, Subwords):
            return
        texts = frame[self.columns[0]].drop_nulls()
        self.units.learn((_lowered(texts) if self._lowers_texts else texts).to_list())

    def folded(self, steps: pl.Series, lengths: NDArray[np.int64]) -> pl.Series:
        """The texts of units one after another, of which each has so many."""
        parts = np.split(steps.to_numpy(), np.cumsum(lengths)[:-1])
        texts = [self.units.join(own.tolist()) for own in parts]
        return pl.Series(steps.name, texts, dtype=pl.String)

    def unfold(self, cells: pl.Series, origin: str) -> tuple[pl.Series, NDArray[np.int64]]:
        """The units of all texts, one after another, and how many each has.

        Raises:
            DataError: cells that are neither texts nor lists of texts.
        """
        if cells.dtype in (pl.String, pl.Null):
            texts = cells.cast(pl.String).fill_null("")
            units, lengths = self.units.cut(_lowered(texts) if self._lowers_texts else texts)
        elif cells.dtype == pl.List(pl.String) and self.units.closed() is None:
            units, lengths = unfolded(cells, origin)
        else:
            where, got = f"{origin}: column {cells.name!r}", str(cells.dtype)
            raise DataError(where, "a text in every cell", got, "correct it, or its kind")
        return (_lowered(units) if self._lowers_units else units), lengths

    def fit(self, frame: pl.DataFrame) -> None:
        units = frame[self.columns[0]]
        self.vocabulary = self.units.closed() or Vocabulary.of(units, self._spec.least)
        self._seen, self._unseen = len(units), int((self.vocabulary.encode(units) == 0).sum())

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        return torch.from_numpy(self.vocabulary.encode(frame[self.columns[0]]))[:, None]

    def unknown(self, encoded: Any, steps: Tensor) -> int:
        return int((encoded[steps] == UNKNOWN).sum())

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        if self._spec.unit == "byte":
            return raw_column(name, values, pl.UInt8, "a byte, 0 to 255", origin)
        units = raw_column(name, values, pl.String, f"a {self.units.name}", origin)
        return _lowered(units) if self._lowers_units else units

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        codes = [[self.vocabulary.code(self._plain(row[0]))] for row in rows]
        return None if [None] in codes else np.array(codes, np.int64)

    def _plain(self, unit: Any) -> Any:
        return unit.lower() if self._lowers_units and isinstance(unit, str) else unit

    def encoder(self) -> Encoder:
        return Embedding([len(self.vocabulary)], self._spec.size or 64)

    def fitted(self) -> dict[str, Any]:
        found: dict[str, Any] = {"seen": self._seen, "unseen": self._unseen}
        if isinstance(self.units, Subwords):
            return found | self.units.pairs.fitted()
        return found | ({} if self.units.closed() else {"names": list(self.vocabulary.names)})

    def restore(self, fitted: dict[str, Any]) -> None:
        if isinstance(self.units, Subwords):
            self.units.pairs.restore(fitted)
        self.vocabulary = self.units.closed() or Vocabulary(fitted["names"])
        self._seen, self._unseen = int(fitted["seen"]), int(fitted["unseen"])

    def example(self, index: int) -> Any:
        return next(iter(unworded(self.vocabulary.names[:1], str(self.units.dtype()))), None)

    def describe(self) -> str:
        unknown = ""
        if self._unseen:
            unknown = f"; {self._unseen:,} of {self._seen:,} training steps are unknown"
        return f"{len(self.vocabulary.names):,} different {self.units.name}s{unknown}"


def units_of(spec: Text.Spec, where: str) -> Units:
    """The units that the options of a text name; `where` they stand, for messages."""
    if spec.unit == "bpe":
        return Subwords(spec.vocabulary, f"{where}.vocabulary")
    if spec.unit == "word":
        return Words(spaces=spec.split == "spaces")
    return Bytes() if spec.unit == "byte" else Characters()


def _lowered(values: pl.Series) -> pl.Series:
    return values.str.to_lowercase()
