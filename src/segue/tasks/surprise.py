"""How surprising each step is: heads that are cells and compare a step with what they predicted."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue.cells import Cell
from segue.layers import Linear
from segue.ops import State
from segue.ragged import Ragged
from segue.tasks.recent import Recent, RecentState

LEAST = -5.0
"""The lowest logarithm of a scale: a column that never changes would drive it down forever."""
FREEDOM = 4.0
"""Degrees of freedom of Student's t: the lowest whole number at which kurtosis is not finite."""


class SurpriseState(NamedTuple):
    """What was said of the step to come, ``[B, P]``, and the surprises of late."""

    prediction: Tensor
    recent: RecentState


class Surprise(Cell):
    """At every step, minus the logarithm of the probability that the step before gave it::

        surprise_t = -log p(x_t; prediction_{t-1})      in nats
        prediction_t = W h_t + b                        the parameters of p, for the next step

    The state is the last prediction, and what `Recent` knows of the surprises so far; before the
    first step the prediction is `first`, the training rows as a whole. The output is ``[surprise,
    score, is fresh, expected]``; see `Recent` for the score, which is made of surprises or of
    errors, and `expected` for the rest. While training there is no score, which nothing is learnt
    from.

    Args:
        hidden: H.
        columns: C, how many numbers of x_t follow h_t in the input.
        expected: how many numbers `expected` has.
        first: the prediction before the first step, ``[P]``.
        recent: how surprises become scores.
        of_errors: whether errors do, in place of surprises.
    """

    reads_target = True
    first: Tensor

    def __init__(
        self,
        hidden: int,
        columns: int,
        *,
        expected: int,
        first: Tensor,
        recent: Recent,
        of_errors: bool,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = hidden + columns, 3 + expected
        self._hidden, self._recent, self._of_errors = hidden, recent, of_errors
        self.register_buffer("first", first)
        self.linear = Linear(hidden, len(first))

    @abstractmethod
    def surprise(self, prediction: Tensor, x: Tensor) -> Tensor:
        """``-log p(x; prediction)`` of observed values, ``[N]``; 0 where nothing was observed.

        Args:
            prediction: ``[N, P]``.
            x: ``[N, C]``, NaN where not observed.
        """

    @abstractmethod
    def error(self, prediction: Tensor, x: Tensor) -> Tensor:
        """How far x is from what was expected, ``[N]``; 0 where nothing was observed."""

    @abstractmethod
    def expected(self, prediction: Tensor) -> Tensor:
        """What a prediction says of the step in a few numbers, ``[N, E]``."""

    def initial_state(self, batch: int) -> State:
        """The training rows as a whole, and no surprises yet."""
        return SurpriseState(
            self.first.expand(batch, -1).clone(), self._recent.initial_state(batch)
        )

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, H + C] -> [B, 3 + E]``."""
        return self.scan(Ragged(x, torch.ones(len(x), dtype=torch.int64)), state)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: ``[N, H + C] -> [N, 3 + E]``."""
        hidden, own = x.values[:, : self._hidden], x.values[:, self._hidden :]
        predicted = self.linear(hidden)
        rows = (x.lengths > 0).nonzero()[:, 0]
        first, last = x.offsets[:-1][rows], x.offsets[1:][rows] - 1
        # What was predicted for each step stands one step before it.
        before = predicted.roll(1, 0).index_copy(0, first, state.prediction[rows])
        surprise = self.surprise(before, own)
        if self.training:
            scored, recent = surprise.new_zeros(len(surprise), 2), state.recent
        else:
            seen = ~own.isnan().all(1)
            usual = self.error(before, own) if self._of_errors else surprise
            scored, recent = self._recent.scan(x.with_values(usual.detach()), seen, state.recent)
        output = torch.cat([surprise[:, None], scored.to(surprise), self.expected(before)], dim=1)
        after = state.prediction.index_copy(0, rows, predicted[last])
        return output, SurpriseState(after, recent)


class NumberSurprise(Surprise):
    """Of C numbers in units of the training rows, independent given the past::

        z = (x - mu) / s                              mu and log s from W h + b
        gaussian:  z^2 / 2 + log s + log(2 pi) / 2
        laplace:   |z| + log s + log 2
        student:   (v + 1) / 2 log(1 + z^2 / v) + log s + log(B(1/2, v/2) v^(1/2)),   v = 4

    summed over the columns that were observed. The error is the sum of |x - mu|, `expected` is mu.

    Args:
        columns: C.
        distribution: ``gaussian``, ``laplace`` or ``student``.
        spread: ``learnt`` from the past, or ``constant``: log s is then one weight per column.
    """

    def __init__(
        self,
        hidden: int,
        columns: int,
        *,
        distribution: str,
        spread: str,
        recent: Recent,
        of_errors: bool = False,
    ) -> None:
        constant = spread == "constant"
        first = torch.zeros(columns if constant else 2 * columns)
        super().__init__(
            hidden, columns, expected=columns, first=first, recent=recent, of_errors=of_errors
        )
        self._distribution = distribution
        self.log_scale = nn.Parameter(torch.zeros(columns)) if constant else None

    def surprise(self, prediction: Tensor, x: Tensor) -> Tensor:
        log_scale = self._log_scale(prediction).clamp(min=LEAST)
        seen = ~x.isnan()
        z = torch.where(seen, x - self.expected(prediction), 0.0) * torch.exp(-log_scale)
        nll = log_scale + _minus_log_density(z, self._distribution)
        return torch.where(seen, nll, 0.0).sum(1)

    def error(self, prediction: Tensor, x: Tensor) -> Tensor:
        return (x - self.expected(prediction)).abs().nan_to_num(0).sum(1)

    def _log_scale(self, prediction: Tensor) -> Tensor:
        if self.log_scale is None:
            return prediction.chunk(2, dim=1)[1]
        return self.log_scale

    def expected(self, prediction: Tensor) -> Tensor:
        return prediction if self.log_scale is not None else prediction.chunk(2, dim=1)[0]


class ElementSurprise(Surprise):
    """Of one of K elements: the cross-entropy of ``softmax(W h + b)``. The error is one minus the
    probability, `expected` is empty.

    Args:
        shares: the logarithm of how often each element occurs in the training rows, ``[K]``.
    """

    def __init__(
        self, hidden: int, *, shares: Tensor, recent: Recent, of_errors: bool = False
    ) -> None:
        super().__init__(hidden, 1, expected=0, first=shares, recent=recent, of_errors=of_errors)
        with torch.no_grad():
            self.linear.bias.copy_(shares)

    def surprise(self, prediction: Tensor, x: Tensor) -> Tensor:
        seen = ~x[:, 0].isnan()
        code = x[:, 0].nan_to_num(0).long()
        nll = nn.functional.cross_entropy(prediction, code, reduction="none")
        return torch.where(seen, nll, 0.0)

    def error(self, prediction: Tensor, x: Tensor) -> Tensor:
        return -torch.expm1(-self.surprise(prediction, x))

    def expected(self, prediction: Tensor) -> Tensor:
        return prediction[:, :0]


def _minus_log_density(z: Tensor, distribution: str) -> Tensor:
    """Of a value z in units of the scale."""
    if distribution == "gaussian":
        return z.square() / 2 + math.log(2 * math.pi) / 2
    if distribution == "laplace":
        return z.abs() + math.log(2)
    v = FREEDOM
    norm = math.lgamma(v / 2) - math.lgamma((v + 1) / 2) + math.log(v * math.pi) / 2
    return (v + 1) / 2 * torch.log1p(z.square() / v) + norm
