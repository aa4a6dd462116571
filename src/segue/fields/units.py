"""Units: what a text is cut into, each of which is a step; and how units become a text again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.errors import SpecError
from segue.fields.byte_pairs import BYTES, BytePairs
from segue.fields.field import unfolded
from segue.fields.vocabulary import Vocabulary

WORD = r"\w+(?:['’-]\w+)*|[^\w\s]"
"""A word: letters, digits and underscores, also around an apostrophe or a hyphen; or one sign that
is neither that nor a blank, on its own.
"""
SPACED = r"\S+"
"""What stands between blanks."""


class Units(ABC):
    """One way to cut texts.

    Attributes:
        name: of one unit, for people; with an s of several.
        dtype: of a unit in a table.
    """

    name: ClassVar[str]
    dtype: ClassVar[type[pl.DataType]] = pl.String

    @abstractmethod
    def cut(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
        """The units of all texts, one after another ``[N]``, and how many each text has ``[B]``."""

    @abstractmethod
    def join(self, units: Sequence[Any]) -> str:
        """The text of some units."""

    def closed(self) -> Vocabulary | None:
        """All units that there are; None where only the training texts tell."""
        return None


class Characters(Units):
    """Every character, blanks included."""

    name = "character"

    def cut(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
        return unfolded(texts, "")

    def join(self, units: Sequence[Any]) -> str:
        return "".join(units)


class Bytes(Units):
    """Every byte of the text in UTF-8, as a number from 0 to 255; none is ever unknown."""

    name = "byte"
    dtype = pl.UInt8

    def cut(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
        joined = "".join(texts.to_list()).encode()
        values = pl.Series(texts.name, np.frombuffer(joined, np.uint8))
        return values, texts.str.len_bytes().cast(pl.Int64).to_numpy(writable=True)

    def join(self, units: Sequence[Any]) -> str:
        return bytes(units).decode(errors="replace")

    def closed(self) -> Vocabulary:
        return Vocabulary(str(value) for value in range(256))


class Words(Units):
    """Words and signs (see `WORD`), or what stands between blanks."""

    name = "word"

    def __init__(self, *, spaces: bool = False) -> None:
        self._pattern = SPACED if spaces else WORD

    def cut(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
        return unfolded(texts.str.extract_all(self._pattern), "")

    def join(self, units: Sequence[Any]) -> str:
        return " ".join(units)


class Subwords(Units):
    """Pieces of words that byte pair encoding has learnt, so that none is ever unknown; characters
    until it has.

    Args:
        size: pieces, of which 256 are the bytes.

    Raises:
        SpecError: `size` is too small, or the package tokenizers is not installed.
    """

    name = "piece"

    def __init__(self, size: int, where: str) -> None:
        if size < BYTES:
            raise SpecError(where, f"at least {BYTES}, the bytes", str(size), "make it larger")
        self._size, self.pairs = size, BytePairs(where)

    def learn(self, texts: Iterable[str]) -> None:
        """Learn the pieces from the training texts."""
        self.pairs.learn(texts, self._size)

    def cut(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
        tokens = self.pairs.tokens
        if not tokens:
            return unfolded(texts, "")
        found = self.pairs.encode(texts.to_list())
        lengths = np.array([len(codes) for codes in found], np.int64)
        pieces = [tokens[code] for codes in found for code in codes]
        return pl.Series(texts.name, pieces, dtype=pl.String), lengths

    def join(self, units: Sequence[Any]) -> str:
        return self.pairs.decode(units) if self.pairs.tokens else "".join(units)

    def closed(self) -> Vocabulary:
        return Vocabulary(self.pairs.tokens)
