"""The regularised incomplete beta function, which the cumulative distributions of Student's t and
of the negative binomial are.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

TINY = 1e-300
MOST = 10_000
"""Terms of the continued fraction; it needs about the root of the larger parameter."""


def regularised_beta(a: Values, b: Values, x: Values) -> Values:
    """``I_x(a, b)``, the share of the beta integral below x, for a, b > 0 and 0 <= x <= 1, ``[n]``.

    The continued fraction of DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22) by the method of Lentz,
    on the side of ``I_x(a, b) = 1 - I_{1 - x}(b, a)`` where it converges quickly. Every element
    stops by itself, so its value does not depend on the others.

    >>> found = regularised_beta(np.array([1.0, 2.0]), np.ones(2), np.array([0.25, 0.5]))
    >>> found.round(12).tolist()
    [0.25, 0.25]
    """
    turned = x > (a + 1) / (a + b + 2)
    first, second = np.where(turned, b, a), np.where(turned, a, b)
    y = np.where(turned, 1 - x, x)
    found = _front(first, second, y) * _fraction(first, second, y)
    return np.where(turned, 1 - found, found)


def _front(a: Values, b: Values, x: Values) -> Values:
    """``x^a (1 - x)^b / (a B(a, b))``."""
    beta = log_gamma(a) + log_gamma(b) - log_gamma(a + b)
    logs = a * np.log(np.maximum(x, TINY)) + b * np.log1p(-x) - beta
    front: Values = np.exp(logs) / a
    return front


def _fraction(a: Values, b: Values, x: Values) -> Values:
    """The continued fraction ``1 / (1 + d_1 / (1 + d_2 / ...))``."""
    found = np.empty_like(x)
    rows = np.arange(len(x))
    c = np.ones_like(x)
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    h = d.copy()
    for m in range(1, MOST):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            h = h * (change := c * d)
        going = ~(np.abs(change - 1) <= 4 * np.finfo(np.float64).eps)
        if not going.all():
            found[rows[~going]] = h[~going]
            rows = rows[going]
            a, b, x, c, d, h = (part[going] for part in (a, b, x, c, d, h))
        if not len(rows):
            break
    found[rows] = math.nan
    return found


def log_gamma(z: Values) -> Values:
    """The logarithm of the gamma function for z > 0, ``[n]``, by Stirling's series at z + 9 (DLMF
    5.11.1, https://dlmf.nist.gov/5.11.E1) and ``G(z + 1) = z G(z)``.
    """
    high = z + 9
    square = 1 / high**2
    series = 1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))
    stirling = (high - 0.5) * np.log(high) - high + math.log(2 * math.pi) / 2 + series / high
    product = np.ones_like(z)
    for step in range(9):
        product *= z + step
    found: Values = stirling - np.log(product)
    return found


def _not_zero(value: Values) -> Values:
    return np.where(np.abs(value) < TINY, TINY, value)
