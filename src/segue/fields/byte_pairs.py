"""Byte pair encoding: pieces of words, learnt from texts, in which every text can be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

from segue.errors import SpecError

BYTES = 256
"""How many pieces there are before any is learnt."""


class BytePairs:
    """Pairs of pieces that often stand together become one, again and again (Sennrich, Haddow and
    Birch, 2016, arXiv:1508.07909), from single bytes on (Radford et al., 2019).

    A piece is written as GPT-2 has it: a printable character for each byte, ``Ġ`` for a blank. The
    package tokenizers does the work.

    Args:
        where: the option that asks for it.
        leading: a blank is thought before a text, so that its first word is written as any other.
        otherwise: what the declaration may say where the package is not installed.

    Attributes:
        tokens: the pieces, by code; none before `learn`.
        merges: the pairs that were joined, the first one first.

    Raises:
        SpecError: the package is not installed.
    """

    def __init__(self, where: str, *, leading: bool = False, otherwise: str = "") -> None:
        self._where, self._leading, self._otherwise = where, leading, otherwise
        self.tokens: list[str] = []
        self.merges: list[list[str]] = []

    def learn(self, texts: Iterable[str], size: int) -> None:
        """Learn at most `size` pieces, `BYTES` included."""
        package = self._package()
        made = package.Tokenizer(package.models.BPE())
        made.pre_tokenizer = self._bytewise()
        trainer = package.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        codes = made.get_vocab()
        merges = json.loads(made.to_str())["model"]["merges"]
        self.restore({"tokens": sorted(codes, key=codes.__getitem__), "merges": merges})

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The codes of each text."""
        return [made.ids for made in self._tokenizer.encode_batch_fast(list(texts))]

    def decode(self, tokens: Iterable[str]) -> str:
        """The text of pieces; bytes that are no text are replacement characters."""
        text: str = self._package().decoders.ByteLevel().decode(list(tokens))
        return text

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
        made.pre_tokenizer = self._bytewise()
        return made

    def _bytewise(self) -> Any:
        return self._package().pre_tokenizers.ByteLevel(add_prefix_space=self._leading)

    def _package(self) -> Any:
        try:
            return import_module("tokenizers")
        except ImportError:
            fix = "pip install 'segue[text]'" + self._otherwise
            raise SpecError(self._where, "the package tokenizers", "no such package", fix) from None
