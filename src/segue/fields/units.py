"""Units: what a text is cut into, each of which is a step; and how units become a text again."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.errors import SpecError
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


class BytePairs(Units):
    """Pieces of words that byte pair encoding has learnt (Sennrich, Haddow and Birch 2016), from
    bytes up, so that none is ever unknown; characters until it has.

    A piece is written as GPT-2 has it: a printable character for each byte, ``Ġ`` for a blank.

    Args:
        size: pieces, of which 256 are the bytes.

    Raises:
        SpecError: `size` is too small, or the package tokenizers is not installed.
    """

    name = "piece"

    def __init__(self, size: int, where: str) -> None:
        if size < 256:
            raise SpecError(where, "at least 256, the bytes", str(size), "make it larger")
        self._size, self._where = size, where
        self.tokens: list[str] = []
        self.merges: list[list[str]] = []

    def learn(self, texts: Iterable[str]) -> None:
        """Learn the pieces from the training texts."""
        package = self._package()
        made = package.Tokenizer(package.models.BPE())
        made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = package.trainers.BpeTrainer(
            vocab_size=self._size,
            initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        codes = made.get_vocab()
        self.tokens = sorted(codes, key=codes.__getitem__)
        self.merges = json.loads(made.to_str())["model"]["merges"]
        self.__dict__.pop("_tokenizer", None)

    def cut(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
        if not self.tokens:
            return unfolded(texts, "")
        found = [made.ids for made in self._tokenizer.encode_batch_fast(texts.to_list())]
        lengths = np.array([len(codes) for codes in found], np.int64)
        pieces = [self.tokens[code] for codes in found for code in codes]
        return pl.Series(texts.name, pieces, dtype=pl.String), lengths

    def join(self, units: Sequence[Any]) -> str:
        if not self.tokens:
            return "".join(units)
        text: str = self._package().decoders.ByteLevel().decode(list(units))
        return text

    def closed(self) -> Vocabulary:
        return Vocabulary(self.tokens)

    def fitted(self) -> dict[str, Any]:
        """What `learn` has learnt, as plain JSON values."""
        return {"tokens": self.tokens, "merges": self.merges}

    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back what `fitted` gave."""
        self.tokens, self.merges = list(fitted["tokens"]), list(fitted["merges"])
        self.__dict__.pop("_tokenizer", None)

    @cached_property
    def _tokenizer(self) -> Any:
        package = self._package()
        codes = {token: code for code, token in enumerate(self.tokens)}
        merges = [(left, right) for left, right in self.merges]
        made = package.Tokenizer(package.models.BPE(vocab=codes, merges=merges))
        made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return made

    def _package(self) -> Any:
        try:
            return import_module("tokenizers")
        except ImportError:
            fix = "pip install 'segue[text]'"
            raise SpecError(self._where, "the package tokenizers", "no such package", fix) from None
