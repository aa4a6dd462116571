"""How many symbols must be changed, and the error rates that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def edits(found: Sequence[Any], right: Sequence[Any]) -> int:
    """The least number of symbols to put in, take out or replace that makes `right` of `found`
    (Levenshtein 1966)::

        D[i, 0] = i,  D[0, j] = j
        D[i, j] = min(D[i-1, j] + 1, D[i, j-1] + 1, D[i-1, j-1] + [found_i != right_j])

    >>> edits("kitten", "sitting")
    3
    """
    codes = {symbol: code for code, symbol in enumerate(dict.fromkeys([*found, *right]))}
    across = np.array([codes[symbol] for symbol in right], np.int64)
    place = np.arange(len(right) + 1)
    row = place
    for count, symbol in enumerate(found, 1):
        below = np.minimum(row[1:] + 1, row[:-1] + (across != codes[symbol]))
        # D[i, j-1] + 1 runs along the row: the least of what came before, plus the way from there.
        row = np.minimum.accumulate(np.concatenate([[count], below]) - place) + place
    return int(row[-1])


def error_rate(found: Sequence[Sequence[Any]], right: Sequence[Sequence[Any]]) -> float:
    """Edits over all pairs, divided by the symbols of all of `right`; above 1 where too much was
    found, NaN where nothing is right.
    """
    count = sum(map(len, right))
    made = sum(edits(ours, theirs) for ours, theirs in zip(found, right, strict=True))
    return made / count if count else float("nan")
