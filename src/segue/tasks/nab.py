"""The score of the Numenta Anomaly Benchmark: early answers inside labelled windows count, false
alarms cost.

Lavin and Ahmad, Evaluating Real-Time Anomaly Detection Algorithms, 2015, arXiv:1510.03336; the
details are those of the benchmark's own scorer (github.com/numenta/NAB, 1.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM = 0.11
"""The cost of an alarm far from every window, in the standard profile; a window that is missed
costs 1, one that is found at its first step earns 1."""

NONE, PROBATION = -1, -2
"""In place of a window: the step lies in none, or does not count at all."""


class Steps(NamedTuple):
    """What an alarm at each of T steps is worth.

    Attributes:
        scores: how anomalous the step is, ``[T]``; NaN never raises an alarm.
        worth: what an alarm there adds, ``[T]``; of several in one window the best counts.
        window: the number of the window that the step lies in, or `NONE` or `PROBATION`, ``[T]``.
    """

    scores: NDArray[np.float64]
    worth: NDArray[np.float64]
    window: NDArray[np.int64]


class Best(NamedTuple):
    """The threshold at which a detector scores best, alarms being at scores not below it.

    Attributes:
        score: 100 where every window is found at its first step without a false alarm, 0 where
            nothing is ever found; NaN without windows.
        threshold: infinite where no alarm at all is best.
        found: windows with an alarm, of `windows`.
        false: alarms outside the windows.
    """

    score: float
    threshold: float
    found: int
    windows: int
    false: int


def sigma(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """``2 / (1 + exp(5 y)) - 1`` of the place y relative to a window's end; -1 beyond 3 widths.

    >>> sigma(np.array([-1.0, 0.0, 4.0])).round(3).tolist()
    [0.987, 0.0, -1.0]
    """
    value: NDArray[np.float64] = 2 / (1 + np.exp(5 * np.minimum(y, 3.0))) - 1
    return np.where(y > 3, -1.0, value)


def windows_of(labels: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and past-the-last step of every run of labelled steps.

    >>> windows_of(np.array([0, 1, 1, 0, 1], bool))
    [(1, 3), (4, 5)]
    """
    edge = np.flatnonzero(np.diff(np.concatenate([[0], labels.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edge[::2], edge[1::2], strict=True)]


def steps_of(
    scores: NDArray[np.float64], windows: Sequence[tuple[int, int]], probation: int = 0
) -> Steps:
    """The steps of one series.

    In a window of w steps, an alarm at the step with k more until its end is worth
    ``sigma(-(k + 1) / w) / sigma(-1)``; d steps after the last step of a window
    ``0.11 sigma(d / (w - 1))``; and -0.11 before all windows.

    Args:
        scores: how anomalous each step is, ``[T]``.
        windows: first and past-the-last step of each window, in order.
        probation: so many first steps do not count.
    """
    place = np.arange(len(scores))
    worth = np.full(len(scores), -FALSE_ALARM)
    window = np.full(len(scores), NONE)
    for number, (first, stop) in enumerate(windows):
        width = stop - first
        inside = place[first:stop]
        worth[inside] = sigma((inside - stop) / width) / sigma(np.array(-1.0))
        window[inside] = number
        after = place[stop:]
        worth[after] = FALSE_ALARM * sigma((after - (stop - 1)) / max(1, width - 1))
    window[:probation] = PROBATION
    return Steps(scores, worth, window)


def probation_of(steps: int) -> int:
    """The steps of a series of the benchmark that are for learning: 15 per cent, at most 750."""
    return math.ceil(min(math.floor(0.15 * steps), 0.15 * 5000))


def best(series: Iterable[Steps]) -> Best:
    """The best of all thresholds, the same one for all series."""
    scores, worth, window = _together(series)
    count = len(np.unique(window[window != NONE]))
    order = _ranked(scores)
    scores, worth, window = scores[order], worth[order], window[order]
    found, gain = _gains(worth, window)
    total = np.concatenate([[0.0], np.cumsum(gain)])
    # A threshold takes all steps of its score, so it ends where the next score differs.
    ends = np.append(0, np.flatnonzero(np.diff(scores, append=-np.inf)) + 1)
    place = int(ends[int(total[ends].argmax())])
    return Best(
        score=_normalised(float(total[place]), count),
        threshold=float(scores[place - 1]) if place else math.inf,
        found=int(found[:place].sum()),
        windows=count,
        false=int((window[:place] == NONE).sum()),
    )


def at(series: Iterable[Steps], threshold: float) -> float:
    """The score at a threshold that was chosen beforehand."""
    scores, worth, window = _together(series)
    order = _ranked(scores)
    _, gain = _gains(worth[order], window[order])
    alarms = int((scores >= threshold).sum())
    return _normalised(float(gain[:alarms].sum()), len(np.unique(window[window != NONE])))


def _together(
    series: Iterable[Steps],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Scores, worth and windows of the steps that count, the windows of all series numbered."""
    parts, first = [], 0
    for one in series:
        counts = one.window != PROBATION
        window = np.where(one.window >= 0, one.window + first, NONE)[counts]
        scores = np.where(np.isnan(one.scores), -np.inf, one.scores)[counts]
        parts.append((scores, one.worth[counts], window))
        first = max(first, int(one.window.max(initial=NONE)) + 1 + first)
    together = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    return together[0], together[1], together[2]


def _ranked(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The steps that can raise an alarm, from the highest score to the lowest."""
    order = np.argsort(-scores, kind="stable")
    return order[: int((scores > -np.inf).sum())]


def _gains(
    worth: NDArray[np.float64], window: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each alarm is the first in its window, and what it adds to the score of the alarms
    before it, of which there are none at first and every window costs 1.
    """
    found, gain = np.zeros(len(worth), bool), worth.copy()
    for number in np.unique(window[window != NONE]):
        own = np.flatnonzero(window == number)
        found[own[0]] = True
        highest = np.maximum.accumulate(np.concatenate([[-1.0], worth[own]]))
        gain[own] = np.diff(highest)
    return found, gain


def _normalised(gained: float, windows: int) -> float:
    """What was gained over no alarm at all, in per cent of what could be gained."""
    return 100 * gained / (2 * windows) if windows else math.nan
