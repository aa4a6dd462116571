"""The windowed Gaussian: the simple detector that an anomaly model is measured against."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

WINDOW, SLIDE = 6400, 100
"""Values that the mean and the deviation are taken from, and how many come in at once when the
window is full: the detector's own figures in the Numenta Anomaly Benchmark."""
LEAST = 1e-6
"""The deviation where all values of the window are the same."""


def rolling(
    values: NDArray[np.float64], window: int = WINDOW, slide: int = SLIDE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation that each value is compared with, ``[T]`` each.

    They are those of all values before, until there are `window` of them; then the window moves on
    by `slide` values whenever so many have come. Before the first value they are 0 and 1.

    >>> rolling(np.array([1.0, 3.0, 9.0]))[0].tolist()
    [0.0, 1.0, 2.0]
    """
    count = len(values)
    level = float(values.mean()) if count else 0.0
    # Sums of what differs from the level lose no digits to it.
    shifted = values - level
    sums = np.concatenate([[0.0], np.cumsum(shifted)])
    squares = np.concatenate([[0.0], np.cumsum(np.square(shifted))])
    place = np.arange(count)
    moves = np.maximum(place - window, 0) // slide
    stop = np.minimum(place, window) + np.where(place > window, moves * slide, 0)
    start = np.where(place > window, moves * slide, 0)
    size = np.maximum(stop - start, 1)
    mean = (sums[stop] - sums[start]) / size
    variance = (squares[stop] - squares[start]) / size - np.square(mean)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    deviation[deviation < LEAST] = LEAST
    begun = place > 0
    return np.where(begun, mean + level, 0.0), np.where(begun, deviation, 1.0)


def minus_log_density(
    values: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``-log N(x; mean, deviation)`` in nats."""
    z = (values - mean) / deviation
    found: NDArray[np.float64] = z * z / 2 + np.log(deviation) + math.log(2 * math.pi) / 2
    return found


def tail(
    values: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``-log10 Q(|x - mean| / deviation)``: the detector's score ``1 - Q`` on a scale on which it
    does not end at 1; 0 before anything was seen.
    """
    z = torch.from_numpy(np.abs(values - mean) / deviation)
    found: NDArray[np.float64] = (-torch.special.log_ndtr(-z) / math.log(10)).numpy()
    found[:1] = 0.0
    return found
