"""Plain JSON values for the digest: finite, rounded, short, and few."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.clock import Clock

LABEL = 60
"""Characters of a user's text that are shown where it is a label."""


def label(value: object) -> str:
    """A user's value as a short text."""
    text = str(value)
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def figures(values: NDArray[Any]) -> list[float | None]:
    """Numbers with six significant digits, None where they are not finite."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values.tolist()]


def thin(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the positions ``0 .. count - 1``, evenly spread, first and last included.

    >>> thin(7, 3).tolist()
    [0, 3, 6]
    """
    if count <= most:
        return np.arange(count)
    return np.round(np.linspace(0, count - 1, most)).astype(np.int64)


def moments(clock: Clock, times: NDArray[np.float64]) -> list[Any]:
    """Times as texts for dates, otherwise as numbers."""
    values = clock.values(times)
    return [str(value) for value in values.to_list()] if clock.dates else values.to_list()


def mean(values: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    """The mean over the values that are there, NaN where none is."""
    seen = np.isfinite(values)
    total, count = np.where(seen, values, 0.0).sum(axis), seen.sum(axis)
    found: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def plain(value: Any) -> Any:
    """The same value with None for every number that JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
