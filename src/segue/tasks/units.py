"""Texts as codes and back: what a decoder writes one at a time."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from segue.fields.byte_pairs import BytePairs
from segue.layers.decoder import UNKNOWN

RESERVED = ("<end>", "<unknown>")
"""The names of the codes `segue.layers.decoder.END` and `UNKNOWN`."""


class Units(ABC):
    """A vocabulary of pieces of text, of which the first two are `RESERVED`. What is written with
    known pieces comes back as it was, but for white space at its ends.

    Attributes:
        most: how many pieces, the reserved ones included, where it is not said.
        known: whether every text can be written.
    """

    most: ClassVar[int]
    known: ClassVar[bool]

    @abstractmethod
    def fit(self, texts: Sequence[str], size: int) -> None:
        """Learns at most `size` pieces from texts, the reserved ones included."""

    @abstractmethod
    def __len__(self) -> int:
        """K, how many pieces there are."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The codes of a text; `UNKNOWN` for what the vocabulary lacks."""

    @abstractmethod
    def decode(self, codes: Iterable[int], others: Sequence[str] = ()) -> str:
        """The text of codes, none of them reserved; those from K on are words of `others`."""

    @abstractmethod
    def fitted(self) -> Any:
        """What was learnt, as plain JSON values."""

    @abstractmethod
    def restore(self, fitted: Any) -> None:
        """Takes back what `fitted` gave."""


class Listed(Units):
    """Pieces that a text is cut into by rule; those seen less than `least` times are unknown."""

    known = False
    least: ClassVar[int]

    def __init__(self) -> None:
        self.restore([])

    @abstractmethod
    def cut(self, text: str) -> list[str]:
        """The pieces of a text."""

    @abstractmethod
    def word(self, name: str) -> str:
        """A step of a source as a piece."""

    def fit(self, texts: Sequence[str], size: int) -> None:
        counts = Counter(piece for text in texts for piece in self.cut(text))
        often = [piece for piece, count in counts.items() if count >= self.least]
        # By falling count, then by name, so that the order of the texts does not matter.
        often.sort(key=lambda piece: (-counts[piece], piece))
        self.restore(often[: size - len(RESERVED)])

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str) -> list[int]:
        return [self.codes.get(piece, UNKNOWN) for piece in self.cut(text)]

    def decode(self, codes: Iterable[int], others: Sequence[str] = ()) -> str:
        names = (*self.names, *(self.word(name) for name in others))
        return "".join(names[code] for code in codes).strip()

    def fitted(self) -> Any:
        return list(self.names[len(RESERVED) :])

    def restore(self, fitted: Any) -> None:
        self.names: tuple[str, ...] = (*RESERVED, *fitted)
        self.codes = {name: code for code, name in enumerate(self.names) if code > UNKNOWN}


class Words(Listed):
    """Words and signs as kind `text` cuts them, each with the space before it.

    >>> words = Words()
    >>> words.cut("A dog, it's wet.")
    [' A', ' dog', ',', " it's", ' wet', '.']
    """

    most, least = 20_000, 2

    def cut(self, text: str) -> list[str]:
        return re.findall(r" ?\w+(?:['’-]\w+)*| ?[^\w\s]|\s+", " " + text.strip())

    def word(self, name: str) -> str:
        # With the space before it, unless it is known only without.
        return name if " " + name not in self.codes and name in self.codes else " " + name


class Characters(Listed):
    """Characters."""

    most, least = 10_000, 1

    def cut(self, text: str) -> list[str]:
        return list(text.strip())

    def word(self, name: str) -> str:
        return name


class Subwords(Units):
    """Pieces of words that byte pair encoding has learnt, so that no text is unknown."""

    most, known = 4_000, True

    def __init__(self) -> None:
        self._pairs = BytePairs("unit: bpe", leading=True, otherwise=", or use unit: word")

    def fit(self, texts: Sequence[str], size: int) -> None:
        self._pairs.learn([text.strip() for text in texts], size - len(RESERVED))

    def __len__(self) -> int:
        return len(self._pairs.tokens) + len(RESERVED)

    def encode(self, text: str) -> list[int]:
        return [code + len(RESERVED) for code in self._pairs.encode([text.strip()])[0]]

    def decode(self, codes: Iterable[int], others: Sequence[str] = ()) -> str:
        tokens = self._pairs.tokens
        return self._pairs.decode(tokens[code - len(RESERVED)] for code in codes).strip()

    def fitted(self) -> Any:
        return self._pairs.fitted()

    def restore(self, fitted: Any) -> None:
        self._pairs.restore(fitted)


UNITS: dict[str, type[Units]] = {"word": Words, "character": Characters, "bpe": Subwords}
"""Every kind of unit by its name in the declaration."""
