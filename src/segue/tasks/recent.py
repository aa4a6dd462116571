"""From surprises to scores: how far each is out of what was usual of late."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.ragged import Ragged


class RecentState(NamedTuple):
    """What is known of the surprises so far; all float64 ``[B]``.

    Attributes:
        number: how many there were.
        smooth: the last one, smoothed.
        mean, variance: of late.
        peak: z (or s) of the last score that was fresh, and `age`, the steps since.
    """

    number: Tensor
    smooth: Tensor
    mean: Tensor
    variance: Tensor
    peak: Tensor
    age: Tensor


class Recent:
    """With the surprises u_1, u_2, ... of a sequence, mean m and variance v of those before::

        s_t = s_{t-1} + (u_t - s_{t-1}) / smooth               s_1 = u_1
        z_t = (s_t - m_{t-1}) / sqrt(v_{t-1} + 1e-6)           0 for the first two
        score_t = -log10 Q(z_t)                                Q the upper tail of a Gaussian
        n = min(t, window);  d = s_t - m_{t-1}
        m_t = m_{t-1} + d / n;   v_t = (1 - 1 / n) (v_{t-1} + d^2 / n)

    so that m and v are those of all surprises until there are `window` of them, and fade
    exponentially from then on. It is the anomaly likelihood of Lavin and Ahmad (2015,
    arXiv:1510.03336) with a memory that does not grow: a score of 3 is one step in a thousand,
    were surprises Gaussian. Without a window the score is s_t itself.

    A score is fresh if it is higher than the last fresh one, or if that is `hold` steps ago: what
    goes on is told once.

    Args:
        smooth, window, hold: in steps; `window` None for none, `hold` 0 for scores that are always
            fresh.
    """

    def __init__(self, smooth: int, window: int | None, hold: int) -> None:
        self._smooth, self._window, self._hold = smooth, window, hold

    def initial_state(self, batch: int) -> RecentState:
        """Before the first step."""
        zero = torch.zeros(batch, dtype=torch.float64)
        return RecentState(zero, zero, zero, zero, torch.full_like(zero, -torch.inf), zero)

    def scan(
        self, surprises: Ragged, seen: Tensor, state: RecentState
    ) -> tuple[Tensor, RecentState]:
        """Scores and whether they are fresh ``[N, 2]``; steps that are not `seen` ``[N]`` score 0
        and change nothing.
        """
        # Plain numbers, one step after the other: a tensor per step and row takes many times as
        # long.
        values, there = surprises.values.double().tolist(), seen.tolist()
        rows = torch.stack(state, 1).tolist()
        found: list[tuple[float, float]] = []
        for row, (start, stop) in enumerate(pairwise(surprises.offsets.tolist())):
            scored, rows[row] = self._row(values[start:stop], there[start:stop], rows[row])
            found += scored
        raw, fresh = torch.tensor(found, dtype=torch.float64).view(-1, 2).unbind(1)
        score = raw if self._window is None else -torch.special.log_ndtr(-raw) / math.log(10)
        after = torch.tensor(rows, dtype=torch.float64).view(-1, len(state))
        scored_steps = torch.stack([torch.where(seen, score, 0.0), fresh], 1)
        return scored_steps, RecentState(*after.unbind(1))

    def _row(
        self, values: list[float], seen: list[bool], state: list[float]
    ) -> tuple[list[tuple[float, float]], list[float]]:
        """z (or s) and whether it is fresh at every step of one sequence, and its state after."""
        number, smooth, mean, variance, peak, age = state
        found = []
        for value, is_there in zip(values, seen, strict=True):
            if not is_there:
                found.append((0.0, 0.0))
                continue
            number += 1
            smooth = value if number == 1 else smooth + (value - smooth) / self._smooth
            z = smooth
            if self._window is not None:
                z = (smooth - mean) / math.sqrt(variance + 1e-6) if number > 2 else 0.0
            n = number if self._window is None else min(number, self._window)
            d = smooth - mean
            mean, variance = mean + d / n, (1 - 1 / n) * (variance + d * d / n)
            is_fresh = z > peak or age + 1 >= self._hold
            peak, age = (z, 0.0) if is_fresh else (peak, age + 1)
            found.append((z, float(is_fresh)))
        return found, [number, smooth, mean, variance, peak, age]


def fresh(scores: NDArray[np.float64], hold: int) -> NDArray[np.bool_]:
    """Which of the scores ``[T]`` of one sequence are fresh; see `Recent`.

    >>> fresh(np.array([1.0, 3.0, 2.0, 2.5]), hold=2).tolist()
    [True, True, False, True]
    """
    found = np.zeros(len(scores), bool)
    peak, age = -math.inf, 0
    for place, score in enumerate(scores.tolist()):
        found[place] = score > peak or age + 1 >= hold
        peak, age = (score, 0) if found[place] else (peak, age + 1)
    return found
