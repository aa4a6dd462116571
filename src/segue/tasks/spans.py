"""Spans of tags such as ``B-artist I-artist O``, and their score as conlleval has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"


class Span(NamedTuple):
    """Steps ``start .. stop - 1``, which are one thing of a kind."""

    start: int
    stop: int
    kind: str


def are_bio(names: Sequence[str]) -> bool:
    """Whether all tags are ``O``, ``B-kind`` or ``I-kind``, and some begin a span."""
    marked = [name for name in names if name != OUTSIDE]
    begins = any(name.startswith("B-") for name in marked)
    return begins and all(name[:2] in ("B-", "I-") and name[2:] for name in marked)


def spans_of(tags: Sequence[str | None], lengths: NDArray[np.int64]) -> set[Span]:
    """The spans among the tags of all sequences, one after another.

    A span begins at ``B-kind``, and also at an ``I-kind`` that follows no tag of its kind; it goes
    on with each ``I-kind`` and ends with its sequence at the latest (Tjong Kim Sang and De Meulder
    2003, conlleval). A missing tag is outside.

    >>> sorted(spans_of(["B-a", "I-a", "O", "I-b"], np.array([4])))
    [Span(start=0, stop=2, kind='a'), Span(start=3, stop=4, kind='b')]
    """
    found, begun, kind = set(), 0, ""
    firsts = set((np.cumsum(lengths) - lengths).tolist())
    for step, tag in enumerate([*tags, OUTSIDE]):
        mark, own = (tag or OUTSIDE)[:1], (tag or OUTSIDE)[2:]
        goes_on = mark == "I" and own == kind and step not in firsts
        if kind and not goes_on:
            found.add(Span(begun, step, kind))
        if not goes_on:
            begun, kind = step, own
    return found


def span_f1(predicted: set[Span], actual: set[Span]) -> float:
    """2 hits / (predicted + actual), where a hit has the same steps and the same kind; NaN where
    there are no spans at all.
    """
    count = len(predicted) + len(actual)
    return 2 * len(predicted & actual) / count if count else float("nan")
