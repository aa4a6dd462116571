"""How well scores rank the steps that are positive above those that are not, at all thresholds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Curve(NamedTuple):
    """What is claimed at every threshold, from the highest score to the lowest.

    Attributes:
        threshold: the different scores, falling, ``[U]``; what is not below one is claimed.
        hits: positives among the claimed, ``[U]``.
        claimed: how many are claimed, ``[U]``.
        positives, negatives: how many there are.
    """

    threshold: NDArray[np.float64]
    hits: NDArray[np.int64]
    claimed: NDArray[np.int64]
    positives: int
    negatives: int

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share of the positives that is claimed (the true positive rate), ``[U]``."""
        share: NDArray[np.float64] = self.hits / self.positives
        return share

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share of the claimed that is positive, ``[U]``."""
        share: NDArray[np.float64] = self.hits / self.claimed
        return share

    @property
    def fallout(self) -> NDArray[np.float64]:
        """The share of the negatives that is claimed (the false positive rate), ``[U]``."""
        share: NDArray[np.float64] = (self.claimed - self.hits) / self.negatives
        return share


def curve(scores: NDArray[Any], positive: NDArray[np.bool_]) -> Curve:
    """The curve of finite scores ``[M]`` and what is positive ``[M]``."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    # Equal scores are claimed together, so a threshold ends at the last of them.
    ends = np.flatnonzero(np.diff(ranked, append=-np.inf))
    hits = np.cumsum(positive[order], dtype=np.int64)
    count = int(positive.sum())
    return Curve(ranked[ends], hits[ends], ends + 1, count, len(ranked) - count)


def roc_auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """The area under recall over fallout: the chance that a positive is scored above a negative,
    equal scores counting half (Hanley and McNeil, 1982). NaN where one of the two is missing.

    >>> roc_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    found = curve(scores, positive)
    if not found.positives or not found.negatives:
        return float("nan")
    return float(np.trapezoid(np.append(0, found.recall), np.append(0, found.fallout)))


def average_precision(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """The area under precision over recall, as steps: ``sum_u (R_u - R_{u-1}) P_u`` over the
    thresholds u. NaN where nothing is positive.

    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True])).__round__(3)
    0.833
    """
    found = curve(scores, positive)
    if not found.positives:
        return float("nan")
    return float((np.diff(found.recall, prepend=0) * found.precision).sum())
