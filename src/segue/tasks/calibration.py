"""Probabilities that mean what they say: the temperature, and how far they are off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BINS = 15
"""Groups of the expected calibration error, as in Guo et al."""
HOTTEST = 100.0
"""The highest temperature, and one over the lowest: where all answers are right none is lowest."""


def temperature_of_classes(logits: Tensor, target: Tensor) -> float:
    """The temperature T with the lowest mean log-loss of ``softmax(logits / T)`` (Guo et al., 2017,
    arXiv:1706.04599).

    Args:
        logits: ``[M, K]``.
        target: codes ``[M]``.
    """
    z = logits.double()
    right = z.gather(1, target[:, None])[:, 0]

    def slope(sharpness: float) -> float:
        expected = ((z * sharpness).softmax(1) * z).sum(1)
        return float((expected - right).mean())

    return _temperature(slope)


def temperature_of_labels(logits: Tensor, target: Tensor) -> float:
    """The same for ``sigmoid(logits / T)`` of logits ``[M]`` against 0 or 1 ``[M]``."""
    z, y = logits.double(), target.double()
    return _temperature(lambda sharpness: float((((z * sharpness).sigmoid() - y) * z).mean()))


def _temperature(slope: Callable[[float], float]) -> float:
    """One over the sharpness at which the loss, convex in it, has no slope; by halving an interval
    of its logarithm.
    """
    low, high = -np.log(HOTTEST), np.log(HOTTEST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def calibration_error(sure: NDArray[Any], right: NDArray[np.bool_]) -> float:
    """The expected calibration error (Naeini et al., 2015; Guo et al., 2017): the difference
    between how sure and how often right, averaged over the answers in 15 groups of equal width.

    Args:
        sure: the probability given to each answer, ``[M]``.
        right: whether it was right, ``[M]``.

    >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False])).__round__(3)
    0.4
    """
    if not len(sure):
        return float("nan")
    group = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(group, weights=sure - right.astype(np.float64), minlength=BINS)
    return float(np.abs(gap).sum() / len(sure))
