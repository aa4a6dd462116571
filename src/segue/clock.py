"""The clock of the data: how long a step is, how many steps make a season, and when the next steps will be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.fields.timestamp import seconds
from segue.sequences import Sequences

STEPS = (
    ("1m", 60.0, 60),
    ("15m", 900.0, 96),
    ("30m", 1_800.0, 48),
    ("1h", 3_600.0, 24),
    ("1d", 86_400.0, 7),
    ("1w", 604_800.0, 52),
    ("1mo", 2_629_746.0, 12),
    ("1q", 7_889_238.0, 4),
    ("1y", 31_556_952.0, 1),
)
"""The usual steps of a calendar: name, mean length in seconds, and how many make a season."""


@dataclass(frozen=True)
class Clock:
    """When steps happen.

    Attributes:
        column: the time column; None where the data have no time and steps are counted.
        dates: whether it holds dates or date-times; times are then seconds since 1970.
        date_only: whether it holds dates without a time of day.
        step: the typical time from one step to the next.
    """

    column: str | None
    dates: bool
    date_only: bool
    step: float

    @classmethod
    def of(cls, frame: pl.DataFrame, column: str | None, train: Sequences) -> Clock:
        """The clock of training data; `frame` holds the raw time column."""
        dtype = None if column is None else frame[column].dtype
        dates = dtype is not None and dtype.is_temporal()
        return cls(column, dates, dtype == pl.Date, typical_step(train))

    @property
    def name(self) -> str | None:
        """The name of the calendar's step, such as ``1h``; None where it is not one of the usual ones."""
        near = [
            name for name, length, _ in STEPS if self.dates and 0.85 < self.step / length < 1.15
        ]
        return near[0] if near else None

    @property
    def season(self) -> int | None:
        """Steps in a season of the calendar; None where the clock does not tell."""
        if not self.dates:
            return None
        return next((season for name, _, season in STEPS if name == self.name), 1)

    def after(self, last: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """The times of the next steps ``[B, horizon]`` after the times `last` ``[B]``; months and years are calendar ones."""
        ahead = np.arange(1, horizon + 1)
        if self.name not in ("1mo", "1q", "1y"):
            return last[:, None] + self.step * ahead
        start = pl.DataFrame(
            {"t": self.values(np.repeat(last, horizon)), "n": np.tile(ahead, len(last))}
        )
        unit = {"1mo": (1, "mo"), "1q": (3, "mo"), "1y": (1, "y")}[self.name]
        offset = (pl.col("n") * unit[0]).cast(pl.String) + unit[1]
        moved = start.select(pl.col("t").dt.offset_by(offset))["t"]
        return seconds(moved, "future times").reshape(len(last), horizon)

    def values(self, times: NDArray[np.float64]) -> pl.Series:
        """Times as the user's values: dates, date-times or numbers."""
        name = self.column or "step"
        if not self.dates:
            whole = np.allclose(times, np.round(times))
            return pl.Series(name, np.round(times).astype(np.int64) if whole else times)
        moments = pl.Series(name, np.round(times * 1e6).astype(np.int64)).cast(pl.Datetime("us"))
        return moments.cast(pl.Date) if self.date_only else moments

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def typical_step(sequences: Sequences) -> float:
    """The median time from one step to the next within a sequence."""
    change = np.diff(sequences.times)
    inside = np.ones(len(change), bool)
    ends = sequences.offsets[1:-1]
    inside[ends[(ends > 0) & (ends < sequences.total)] - 1] = False
    change = change[inside & (change > 0)]
    return float(np.median(change)) if len(change) else 1.0
