"""The clock of the data: how long a step is, how many steps make a season, and when the next steps
will be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.fields.timestamp import DAY, seconds
from segue.sequences import Sequences

STEPS = (
    ("1s", 1.0, 60),
    ("1m", 60.0, 60),
    ("5m", 300.0, 288),
    ("10m", 600.0, 144),
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

MONTHS = {"1mo": 1, "1q": 3, "1y": 12}
"""Steps that are not of one length, in months."""


@dataclass(frozen=True)
class Clock:
    """When steps happen.

    Attributes:
        column: the time column; None where the data have no time and steps are counted.
        dates: whether it holds dates or date-times; times are then seconds since 1970.
        date_only: whether it holds dates without a time of day.
        step: the typical time from one step to the next.
        month_ends: whether all training times are on the last day of a month.
    """

    column: str | None
    dates: bool
    date_only: bool
    step: float
    month_ends: bool = False

    @classmethod
    def of(cls, frame: pl.DataFrame, column: str | None, train: Sequences) -> Clock:
        """The clock of training data; `frame` holds the raw time column."""
        cell = None if column is None else frame[column].dtype
        # In rows that are whole sequences a cell holds the times of all steps.
        dtype = cell.inner if isinstance(cell, pl.List) else cell
        dates = dtype is not None and dtype.is_temporal()
        clock = cls(column, dates, dtype == pl.Date, typical_step(train))
        if clock.name not in MONTHS:
            return clock
        return replace(clock, month_ends=bool((_moments(train.times + DAY).dt.day() == 1).all()))

    @property
    def name(self) -> str | None:
        """The name of the calendar's step, such as ``1h``; None where it is not a usual one."""
        near = [name for name, length, _ in STEPS if abs(self.step / length - 1) < 0.05]
        return near[0] if near and self.dates else None

    @property
    def season(self) -> int | None:
        """Steps in a season of the calendar; None where the clock does not tell."""
        if not self.dates:
            return None
        return next((season for name, _, season in STEPS if name == self.name), 1)

    def after(self, last: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
        """The times of the next steps ``[B, horizon]`` after the times `last` ``[B]``.

        Months, quarters and years are those of the calendar: a month after 31 January is the last
        day of February; month ends stay month ends.
        """
        ahead = np.arange(1, horizon + 1)
        if self.name not in MONTHS:
            return last[:, None] + self.step * ahead
        months = np.tile(ahead * MONTHS[self.name], len(last))
        start = pl.DataFrame({"t": _moments(np.repeat(last, horizon)), "n": months})
        moved = pl.col("t").dt.offset_by(pl.format("{}mo", "n"))
        if self.month_ends:
            moved = moved.dt.month_end()
        return seconds(start.select(moved)["t"], "future times").reshape(len(last), horizon)

    def values(self, times: NDArray[np.float64]) -> pl.Series:
        """Times as the user's values: dates, date-times or numbers."""
        name = self.column or "step"
        if not self.dates:
            return pl.Series(name, _whole(times))
        moments = _moments(times).alias(name)
        return moments.cast(pl.Date) if self.date_only else moments

    def listed(self, times: NDArray[np.float64]) -> list[Any]:
        """`values` of all of `times` as a list; a live step takes this way."""
        if not self.dates:
            listed: list[Any] = _whole(times).reshape(-1).tolist()
            return listed
        micro = np.round(times * 1e6).astype(np.int64).reshape(-1).tolist()
        moments = [_EPOCH + timedelta(microseconds=count) for count in micro]
        return [moment.date() for moment in moments] if self.date_only else moments

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def changes(sequences: Sequences, most: int | None = None) -> NDArray[np.float64]:
    """The times from one step to the next within every sequence, of the first `most` steps."""
    times, ends = sequences.times[:most], sequences.offsets[1:-1]
    inside = np.ones(max(len(times) - 1, 0), bool)
    inside[ends[(ends > 0) & (ends < len(times))] - 1] = False
    return np.diff(times)[inside]


def typical_step(sequences: Sequences) -> float:
    """The median time from one step to the next within a sequence, of the first 100,000 steps."""
    change = changes(sequences, 100_000)
    change = change[change > 0]
    return float(np.median(change)) if len(change) else 1.0


_EPOCH = datetime(1970, 1, 1)


def _whole(times: NDArray[np.float64]) -> NDArray[Any]:
    """Times as whole numbers, if all of them are."""
    nearest = np.round(times)
    return nearest.astype(np.int64) if (np.abs(times - nearest) <= 1e-9).all() else times


def _moments(times: NDArray[np.float64]) -> pl.Series:
    """Seconds since 1970 as date-times."""
    return pl.Series("t", np.round(times * 1e6).astype(np.int64)).cast(pl.Datetime("us"))
