"""From surprises to scores: how far each is out of what was usual of late."""

from __future__ import annotations

import math
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
        peak: the last score that was fresh, and `age`, the steps since.
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
        padded = surprises.with_values(surprises.values.double()).to_padded()
        there = surprises.with_values(seen).to_padded()
        made = []
        for t in range(padded.shape[1]):
            score, state = self._step(padded[:, t], there[:, t], state)
            made.append(score)
        if not made:
            return torch.zeros(0, 2, dtype=torch.float64), state
        return Ragged.from_padded(torch.stack(made, 1), surprises.lengths).values, state

    def _step(self, u: Tensor, seen: Tensor, state: RecentState) -> tuple[Tensor, RecentState]:
        count = state.number + 1
        smooth = torch.where(count > 1, state.smooth + (u - state.smooth) / self._smooth, u)
        score = smooth
        if self._window is not None:
            z = (smooth - state.mean) / (state.variance + 1e-6).sqrt()
            tail = -torch.special.log_ndtr(-z) / math.log(10)
            score = torch.where(count > 2, tail, 0.0)
        n = count if self._window is None else count.clamp(max=self._window)
        d = smooth - state.mean
        mean, variance = state.mean + d / n, (1 - 1 / n) * (state.variance + d.square() / n)
        fresh = (score > state.peak) | (state.age + 1 >= self._hold)
        peak = torch.where(fresh, score, state.peak)
        age = torch.where(fresh, 0.0, state.age + 1)
        after = RecentState(count, smooth, mean, variance, peak, age)
        kept = RecentState(
            *(torch.where(seen, new, old) for new, old in zip(after, state, strict=True))
        )
        scored = torch.stack([score, fresh.double()], 1)
        return torch.where(seen[:, None], scored, 0.0), kept


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
