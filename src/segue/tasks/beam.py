"""The likeliest labelling under connectionist temporal classification (CTC), by prefix beam search.

A path says a symbol or the blank at every step. It stands for the labelling that is left when
repeats are merged and then blanks are taken out (Graves et al. 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = tuple[int, ...]
Following: TypeAlias = NDArray[np.float64]
"""The log-probability of each code to come next ``[C]``."""

NEVER = -math.inf
LEAST = math.log(1e-4)
"""A symbol less likely than this at a step is not tried there."""


class LanguageModel(Protocol):
    """What says how likely a symbol follows others."""

    def first(self) -> tuple[Following, Any]:
        """What comes first, and the state before any symbol."""

    def step(self, labels: Sequence[int], states: Sequence[Any]) -> list[tuple[Following, Any]]:
        """What comes after each of `labels`, each in its own state, and the state after it."""


class Language(NamedTuple):
    """A language model in a search.

    Attributes:
        model: what it says.
        weight: of its log-probabilities.
        bonus: added for every symbol, since a language model likes few.
    """

    model: LanguageModel
    weight: float
    bonus: float


class _Prefix(NamedTuple):
    """Log-probabilities of the paths that end in a blank, and in the last symbol."""

    blank: float
    symbol: float

    @property
    def total(self) -> float:
        return _plus(self.blank, self.symbol)


def search(
    shares: NDArray[np.float64], blank: int, width: int, language: Language | None = None
) -> Labels:
    """The labelling y of the highest score among those that stayed within the beam::

        b'(y) = (b(y) + s(y)) p(blank)                          paths that end in a blank
        s'(y) = s(y) p(y_n) + (b(x) + [y_n != x_n] s(x)) p(y_n)    where y is x with y_n behind
        score = log(b(y) + s(y)) + weight log p_language(y) + bonus |y|

    (Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", algorithm 1, with symbols in the place of words).

    Args:
        shares: log-probabilities ``[T, C]``; a code of minus infinity is never said.
        blank: the code of the blank.
        width: labellings that are kept from step to step.
    """
    beam: dict[Labels, _Prefix] = {(): _Prefix(0.0, NEVER)}
    told = _Told(language)
    for row in shares:
        likely = [int(code) for code in np.flatnonzero(row > LEAST) if code != blank]
        grown: dict[Labels, _Prefix] = {}
        for labels, prefix in beam.items():
            last = labels[-1] if labels else blank
            stay = prefix.symbol + row[last] if labels else NEVER
            _add(grown, labels, _Prefix(prefix.total + row[blank], stay))
            for code in likely:
                before = prefix.blank if code == last else prefix.total
                _add(grown, (*labels, code), _Prefix(NEVER, before + row[code]))
        ranked = sorted(grown, key=lambda y: grown[y].total + told.score(y), reverse=True)
        beam = {labels: grown[labels] for labels in ranked[:width]}
        told.keep(beam)
    return max(beam, key=lambda y: beam[y].total + told.score(y))


class _Told:
    """What the language model says of the labellings in the beam and of those one symbol longer."""

    def __init__(self, language: Language | None) -> None:
        self._language = language
        if language is not None:
            self._known: dict[Labels, tuple[float, Following, Any]] = {
                (): (0.0, *language.model.first())
            }

    def score(self, labels: Labels) -> float:
        """weight log p(labels) + bonus |labels|."""
        if self._language is None:
            return 0.0
        return self._language.weight * self._log(labels) + self._language.bonus * len(labels)

    def _log(self, labels: Labels) -> float:
        if labels in self._known:
            return self._known[labels][0]
        sofar, following, _ = self._known[labels[:-1]]
        return sofar + float(following[labels[-1]])

    def keep(self, beam: dict[Labels, _Prefix]) -> None:
        """Go on to these labellings, each of which was known or is one symbol longer, and forget
        the others.
        """
        if self._language is None:
            return
        new = [labels for labels in beam if labels not in self._known]
        states = [self._known[labels[:-1]][2] for labels in new]
        stepped = self._language.model.step([labels[-1] for labels in new], states) if new else []
        scores = [self._log(labels) for labels in new]
        self._known = {labels: one for labels, one in self._known.items() if labels in beam}
        for labels, score, told in zip(new, scores, stepped, strict=True):
            self._known[labels] = (score, *told)


def _add(grown: dict[Labels, _Prefix], labels: Labels, more: _Prefix) -> None:
    old = grown.get(labels)
    if old is not None:
        more = _Prefix(_plus(old.blank, more.blank), _plus(old.symbol, more.symbol))
    grown[labels] = more


def _plus(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    if one < other:
        one, other = other, one
    return one if other == NEVER else one + math.log1p(math.exp(other - one))
