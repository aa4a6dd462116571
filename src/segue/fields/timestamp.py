"""Timestamps: where in the day, week and year a step is, and how long after the step before."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError
from segue.fields.field import Encoder, EncoderState, Field, Reading, Values, blocks
from segue.ops.program import Slot
from segue.ragged import Ragged
from segue.schema import Input

DAY = 86_400.0
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}
"""Calendar cycles and their length in seconds."""
_MONDAY = 4 * DAY  # 1970-01-05, the first Monday of the epoch


class Timestamp(Field):
    """A column of dates or date-times, as calendar features and elapsed time.

    Each cycle of the calendar (day, week from Monday, year of 365.2425 days from 5 January) that
    the training rows resolve, that is whose length is at least two steps and that they see at least
    twice, gives ``sin`` and ``cos`` of 2 pi times the phase. Where more than 1 in 100 of the
    training steps are not of the median length, ``log(1 + elapsed / unit)`` is a feature too, unit
    being that length. The future of a calendar is known, so a forecast always sees it. Times with
    an offset count in UTC.
    """

    class Spec(Input):
        """Options of kind `timestamp`."""

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.cycles: tuple[str, ...] = ()
        self.uneven = False
        self.unit = 1.0

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return values.dtype in (pl.Date, pl.Datetime)

    def fit(self, frame: pl.DataFrame) -> None:
        series = frame[self.columns[0]]
        # The first are enough to tell how even the steps are.
        steps = np.diff(seconds(series.head(100_000), "training rows"))
        steps = steps[steps > 0]
        self.unit = float(np.median(steps)) if len(steps) else 1.0
        # A jump back is the start of the next key and was left out above.
        self.uneven = bool(len(steps)) and float((steps != self.unit).mean()) > 0.01
        ends = pl.Series(series.name, [series.min(), series.max()], dtype=series.dtype)
        first, last = seconds(ends, "training rows")
        span = float(last - first)
        self.cycles = tuple(
            name
            for name, length in CYCLES.items()
            if 2 * self.unit <= length and 2 * length <= span
        )

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        """Calendar features ``[N, 2 * cycles]``: sin and cos of each cycle's phase."""
        series = frame[self.columns[0]]
        features = np.empty((len(series), 2 * len(self.cycles)), np.float32)
        for some in blocks(len(series)):
            self._fill(features[some], seconds(series[some], origin, some.start))
        return torch.from_numpy(features)

    def _fill(self, features: NDArray[np.float32], times: NDArray[np.float64]) -> None:
        for index, name in enumerate(self.cycles):
            phase = 2 * math.pi * ((times - _MONDAY) / CYCLES[name] % 1.0)
            features[:, 2 * index] = np.sin(phase)
            features[:, 2 * index + 1] = np.cos(phase)

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        times = plain_seconds([row[0] for row in rows])
        if times is None:
            return None
        features = np.empty((len(rows), 2 * len(self.cycles)), np.float32)
        self._fill(features, times)
        return features

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        return moments(name, values, origin)

    def encoder(self) -> Encoder:
        return Calendar(2 * len(self.cycles), self.unit if self.uneven else None)

    def fitted(self) -> dict[str, Any]:
        return {"cycles": list(self.cycles), "uneven": self.uneven, "unit": self.unit}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.cycles, self.uneven = tuple(fitted["cycles"]), bool(fitted["uneven"])
        self.unit = float(fitted["unit"])

    def example(self, index: int) -> str:
        return "2026-01-31 18:00:00"

    def describe(self) -> str:
        return f"cycles {', '.join(self.cycles) or 'none'}" + (
            ", uneven steps" if self.uneven else ""
        )


class Calendar(Encoder):
    """Calendar features as they are, and ``log(1 + elapsed / unit)`` where the steps are uneven."""

    def __init__(self, calendar: int, unit: float | None) -> None:
        super().__init__()
        self._unit = unit
        self.features = calendar + (unit is not None)

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        if self._unit is None:
            return x.values, state
        waited = torch.log1p(elapsed / self._unit).to(x.values.dtype)
        return torch.cat([x.values, waited[:, None]], dim=1), state

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        x = at.input(self.features - (self._unit is not None))
        if self._unit is None:
            return x, ()
        return at.program.join([x, at.program.waited(x, at.elapsed, self._unit)]), ()


def moments(name: str, values: list[Any], origin: str) -> pl.Series:
    """Dates, date-times or their texts as a column of date-times; with an offset they become UTC.

    Texts are ISO days and moments, months (``1949-01``) and quarters (``1970 Q1``), as in files.

    Raises:
        DataError: a value that is none of these.
    """
    return pl.Series(
        name, [_moment(value, f"{origin}: {name!r}") for value in values], dtype=pl.Datetime("us")
    )


def plain_seconds(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """Seconds since 1970 of the date-times of records, as `seconds` of `moments` gives them; None
    where one is none.
    """
    try:
        passed = [_moment(value, "") - _EPOCH for value in values]
    except DataError:
        return None
    micro = [(p.days * 86_400 + p.seconds) * 1_000_000 + p.microseconds for p in passed]
    return np.array(micro, np.int64) / 1e6


_EPOCH = datetime(1970, 1, 1)


def _moment(value: Any, where: str) -> datetime:
    if type(value) is datetime and value.tzinfo is None:
        return value
    text = value.isoformat() if isinstance(value, date) else str(value).strip().replace("/", "-")
    quarter = re.fullmatch(r"(\d{4})[ -]?Q([1-4])", text)
    if quarter:
        text = f"{quarter[1]}-{3 * int(quarter[2]) - 2:02d}-01"
    elif re.fullmatch(r"\d{4}-\d{2}", text):
        text += "-01"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fix = "write it as 2026-01-31 18:00:00"
        raise DataError(where, "a date or date-time", repr(value), fix) from None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def seconds(series: pl.Series, origin: str, first: int = 0) -> NDArray[np.float64]:
    """Seconds since 1970 of a column of dates or date-times.

    Args:
        first: how many rows of the column lie before `series`, for the message.

    Raises:
        DataError: the column is of another type, or a cell is empty.
    """
    where = f"{origin}: column {series.name!r}"
    if series.dtype not in (pl.Date, pl.Datetime):
        got = f"{series.dtype} such as {series.drop_nulls().head(1).to_list()}"
        fix = "write them as 2026-01-31 or 2026-01-31 18:00:00"
        raise DataError(where, "dates or date-times", got, fix)
    if series.null_count():
        row = int(series.is_null().arg_max() or 0)
        raise DataError(f"{where}, row {first + row + 1}", "a date", "an empty cell", "fill it in")
    values: NDArray[np.float64] = series.cast(pl.Datetime("us")).to_physical().to_numpy() / 1e6
    return values
