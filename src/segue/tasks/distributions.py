"""What a forecast says of a value to come: quantiles side by side, or the law of its distribution.

In the equations a and s are the level and the scale of a series at the step of the forecast (see
`segue.forecaster`), c the P numbers that the network gives for a value y to come, and u the unit of
the loss. All of it works on float64, element by element, so that a value's answer does not depend
on its company.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from segue.tasks.beta import regularised_beta

SMALLEST = 1e-6
"""The least scale, in units of s, and the least dispersion."""


class Distribution(ABC):
    """The forecast of one value, as P numbers.

    Attributes:
        shifts: whether a series is read and forecast as a change of its last value; else it is
            scaled alone, as counts are, which are nothing at 0.
    """

    shifts: ClassVar[bool] = True

    @property
    @abstractmethod
    def parameters(self) -> int:
        """P."""

    @abstractmethod
    def linked(self, change: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        """P numbers in the user's units ``[..., P]``, from c ``[..., P]`` and a, s ``[...]``."""

    @abstractmethod
    def losses(self, output: Tensor, values: Tensor, unit: Tensor) -> Tensor:
        """The loss ``[n]`` of y ``[n]`` where ``[n, P]`` was said, with u ``[n]``."""

    def settled(self, output: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """What was said, ``[M, C, S, P]``, in the form in which it leaves the network.

        Args:
            scale: s, ``[M, C]``.
            shift: by how many s it was found to be off, ``[S, P]``; see `segue.conformal`.
        """
        return output

    @abstractmethod
    def quantile(self, output: Tensor, levels: Tensor) -> Tensor:
        """The values ``[..., Q]`` below which y falls with the probabilities `levels`, which may
        be ``[..., Q]`` or anything that goes with it.
        """

    def reached(self, output: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """``P(Y < y)`` and ``P(Y <= y)``, ``[...]``, for y `values` and what was said of them,
        ``[..., P]``; NaN where y is. Of a law alone.
        """
        raise NotImplementedError


class Quantiles(Distribution):
    """Q quantiles, each a number of its own, with the pinball loss (Koenker and Bassett 1978)::

        y_q  = a + s c_q
        loss = mean_q 2 max(q e_q, (q - 1) e_q)       e_q = (y - y_q) / u

    or without levels the mean alone, with ``loss = e^2``.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = tuple(levels)

    @property
    def parameters(self) -> int:
        return max(1, len(self.levels))

    @property
    def middle(self) -> int:
        """The place of the median, or of the mean."""
        return self.levels.index(0.5) if self.levels else 0

    def linked(self, change: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        return level[..., None] + scale[..., None] * change.double()

    def losses(self, output: Tensor, values: Tensor, unit: Tensor) -> Tensor:
        error = ((values[:, None] - output) / unit[:, None]).float()
        if not self.levels:
            return error[:, 0].square()
        levels = torch.tensor(self.levels)
        return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)

    def settled(self, output: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """In order: quantiles are learnt side by side and may cross; sorted they are never worse
        (Chernozhukov, Fernandez-Val and Galichon 2010). Shifted they stay on their side of the
        median.
        """
        found = output.sort(dim=-1).values
        if not shift.any():
            return found
        found = found + scale[..., None, None] * shift
        place = self.middle
        middle = found[..., place : place + 1]
        low = torch.minimum(found[..., :place], middle)
        high = torch.maximum(found[..., place + 1 :], middle)
        return torch.cat([low, middle, high], dim=-1).sort(dim=-1).values

    def quantile(self, output: Tensor, levels: Tensor) -> Tensor:
        return output


class Gaussian(Distribution):
    """A normal distribution with its negative log-likelihood::

    mu    = a + s c_1
    sigma = s softplus(c_2)
    loss  = log(sigma / u) + ((y - mu) / sigma)^2 / 2 + log(2 pi) / 2
    """

    parameters = 2

    def linked(self, change: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        mean, spread = _parts(change)
        return torch.stack([level + scale * mean, scale * _positive(spread)], dim=-1)

    def losses(self, output: Tensor, values: Tensor, unit: Tensor) -> Tensor:
        mean, spread = output.unbind(-1)
        error = (values - mean) / spread
        return ((spread / unit).log() + error.square() / 2 + math.log(2 * math.pi) / 2).float()

    def quantile(self, output: Tensor, levels: Tensor) -> Tensor:
        mean, spread = _parts(output)
        found: Tensor = mean[..., None] + spread[..., None] * torch.special.ndtri(levels)
        return found

    def reached(self, output: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = _parts(output)
        share = torch.special.ndtr((values - mean) / spread)
        return share, share


class StudentT(Distribution):
    """Student's t, whose tails are heavy where values are now and then far off (Lange, Little and
    Taylor 1989; as the output of a network: Salinas et al. 2020)::

        mu    = a + s c_1
        sigma = s softplus(c_2)
        nu    = 2 + softplus(c_3)                   degrees of freedom; the variance is finite
        t     = (y - mu) / sigma
        loss  = log(sigma / u) + (nu + 1) / 2 log(1 + t^2 / nu)
                + log B(nu / 2, 1 / 2) + log(nu) / 2
    """

    parameters = 3

    def linked(self, change: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        mean, spread, freedom = _parts(change)
        spread, freedom = scale * _positive(spread), 2 + _positive(freedom)
        return torch.stack([level + scale * mean, spread, freedom], dim=-1)

    def losses(self, output: Tensor, values: Tensor, unit: Tensor) -> Tensor:
        mean, spread, freedom = output.unbind(-1)
        error = (values - mean) / spread
        half = freedom / 2
        beta = half.lgamma() + math.lgamma(0.5) - (half + 0.5).lgamma()
        tail = (half + 0.5) * (error.square() / freedom).log1p()
        return ((spread / unit).log() + tail + beta + freedom.log() / 2).float()

    def quantile(self, output: Tensor, levels: Tensor) -> Tensor:
        mean, spread, freedom = _parts(output)
        shape = np.broadcast_shapes((*mean.shape, 1), levels.shape)
        wide, table = levels.expand(shape).numpy(), np.empty(shape)
        share = np.broadcast_to((1 / freedom).numpy()[..., None], shape)
        for level in np.unique(wide).tolist():
            here = wide == level
            table[here] = np.interp(share[here], SHARES, _student_quantiles(level))
        return mean[..., None] + spread[..., None] * torch.from_numpy(table)

    def reached(self, output: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread, freedom = _parts(output)
        error = ((values - mean) / spread).numpy()
        nu = freedom.numpy()
        outside = _at_known(_student_outside, nu, np.abs(error))
        share = torch.from_numpy(np.where(error > 0, 1 - outside / 2, outside / 2))
        return share, share


class NegativeBinomial(Distribution):
    """Counts that vary more than a Poisson process does (as the output of a network: Salinas et
    al. 2020, DeepAR). Counts are scaled and not shifted: a is 0::

        mu   = s softplus(c_1)
        phi  = softplus(c_2)                        dispersion: the variance is mu + phi mu^2
        r    = 1 / phi
        loss = -log P(y) = log(y B(r, y)) + (r + y) log(r + mu) - r log(r) - y log(mu)

    where the first term is ``log G(y + 1) + log G(r) - log G(y + r)`` with the gamma function G.
    """

    shifts = False
    parameters = 2

    def linked(self, change: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        mean, dispersion = _parts(change)
        return torch.stack([scale * _positive(mean), _positive(dispersion)], dim=-1)

    def losses(self, output: Tensor, values: Tensor, unit: Tensor) -> Tensor:
        mean, dispersion = output.unbind(-1)
        r = 1 / dispersion
        ways = (values + 1).lgamma() + r.lgamma() - (values + r).lgamma()
        share = (r + values) * (mean * dispersion).log1p() - values * (mean * dispersion).log()
        return (ways + share).float()

    def quantile(self, output: Tensor, levels: Tensor) -> Tensor:
        """The least count whose cumulative probability reaches the level; NaN where mu is."""
        mean, dispersion = _parts(output)
        shape = np.broadcast_shapes((*mean.shape, 1), levels.shape)
        parts = (mean[..., None], dispersion[..., None], levels.double())
        wide = (part.expand(shape).numpy() for part in parts)
        return torch.from_numpy(_at_known(_negative_binomial_quantiles, *wide))

    def reached(self, output: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        mean, dispersion = (part.numpy() for part in _parts(output))
        upto = _at_known(_negative_binomial_share, mean, dispersion, values.numpy())
        below = _at_known(_negative_binomial_share, mean, dispersion, values.numpy() - 1)
        return torch.from_numpy(below), torch.from_numpy(upto)


DISTRIBUTIONS: dict[str, type[Gaussian] | type[StudentT] | type[NegativeBinomial]] = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}
"""The laws that a forecast can have besides quantiles, by their name in a declaration."""


def _parts(numbers: Tensor) -> list[Tensor]:
    """The parameters one by one, float64 and contiguous: torch works on strided memory with other
    functions, whose last bits differ.
    """
    return [part.double().contiguous() for part in numbers.unbind(-1)]


def _positive(part: Tensor) -> Tensor:
    """softplus, by a function of torch whose bits do not depend on how many elements there are."""
    return SMALLEST - logsigmoid(-part)


SHARES: NDArray[np.float64] = np.linspace(0, 0.5, 4097)
"""The values of 1 / nu between which quantiles of Student's t are interpolated; they are smooth in
it, and that of the normal distribution at 0.
"""


def _at_known(
    function: Callable[..., NDArray[np.float64]], *arrays: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A function of flat arrays, where none of them is NaN; NaN elsewhere."""
    known = ~np.isnan(np.sum([array * 0.0 for array in arrays], axis=0))
    found = np.full(known.shape, np.nan)
    found[known] = function(*(array[known] for array in arrays))
    return found


def _student_outside(nu: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability beyond t on both sides, for t >= 0."""
    return regularised_beta(nu / 2, np.full_like(nu, 0.5), nu / (nu + t**2))


def _negative_binomial_share(
    mu: NDArray[np.float64], phi: NDArray[np.float64], count: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``P(y <= count) = I_x(r, count + 1)`` with ``x = r / (r + mu)``; 0 for a count of -1."""
    found = regularised_beta(1 / phi, np.maximum(count, 0) + 1, 1 / (1 + phi * mu))
    return np.where(count < 0, 0.0, found)


@cache
def _student_quantiles(level: float) -> NDArray[np.float64]:
    """Quantiles of Student's t at `SHARES`, by Newton's method from that of the normal
    distribution.

    Above the median the distribution function is concave, and its quantile is no less than the
    normal one; so every iterate stays below the quantile and rises to it.
    """
    upper = max(level, 1 - level)
    normal = float(torch.special.ndtri(torch.tensor(upper, dtype=torch.float64)))
    nu = 1 / SHARES[1:]
    lbeta = np.array([math.lgamma(n / 2) + math.lgamma(0.5) - math.lgamma((n + 1) / 2) for n in nu])
    t = np.full(len(nu), normal)
    for _ in range(60):
        below = 1 - _student_outside(nu, t) / 2
        density = np.exp(-(nu + 1) / 2 * np.log1p(t**2 / nu) - lbeta) / np.sqrt(nu)
        step = (upper - below) / density
        t = t + step
        if (np.abs(step) < 1e-12 * np.maximum(t, 1)).all():
            break
    return np.concatenate([[normal], t]) * (1.0 if level > 0.5 else -1.0 if level < 0.5 else 0.0)


def _negative_binomial_quantiles(
    mu: NDArray[np.float64], phi: NDArray[np.float64], level: NDArray[np.float64]
) -> NDArray[np.float64]:
    """By doubling until the level is reached, then bisection over the counts."""

    def reached(count: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _negative_binomial_share(mu[rows], phi[rows], count) >= level[rows]

    low, high = np.full(len(mu), -1.0), np.zeros(len(mu))
    rows = np.arange(len(mu))
    while len(rows := rows[~reached(high[rows], rows)]):
        low[rows], high[rows] = high[rows], 2 * high[rows] + 1
    while len(rows := np.flatnonzero(high - low > 1)):
        middle = np.floor((low[rows] + high[rows]) / 2)
        enough = reached(middle, rows)
        high[rows[enough]], low[rows[~enough]] = middle[enough], middle[~enough]
    return high
