"""The clock: how long a step is, the season, and when the next steps will be."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from catalogue_kinds import sequences

from segue.clock import Clock, changes, typical_step
from segue.fields.timestamp import seconds
from segue.sequences import Sequences


def clock_of(times: list[Any], lengths: tuple[int, ...] | None = None) -> tuple[Clock, Sequences]:
    series = pl.Series("t", times)
    numbers = seconds(series, "t") if series.dtype.is_temporal() else series.cast(pl.Float64)
    known = sequences(pl.DataFrame({"x": times}), lengths or (len(times),))
    known = Sequences(**{**vars(known), "times": np.asarray(numbers)})
    return Clock.of(pl.DataFrame([series]), "t", known), known


def every(count: int, unit: str) -> list[Any]:
    """Forty moments `count` units apart."""
    apart = pl.format("{}" + unit, pl.int_range(40) * count)
    return pl.select(pl.lit(datetime(2020, 1, 1)).dt.offset_by(apart)).to_series().to_list()


@pytest.mark.parametrize(
    ("count", "unit", "name", "season"),
    [
        (1, "s", "1s", 60),
        (1, "m", "1m", 60),
        (5, "m", "5m", 288),
        (10, "m", "10m", 144),
        (15, "m", "15m", 96),
        (30, "m", "30m", 48),
        (1, "h", "1h", 24),
        (1, "d", "1d", 7),
        (1, "w", "1w", 52),
        (1, "mo", "1mo", 12),
        (1, "q", "1q", 4),
        (1, "y", "1y", 1),
        (28, "d", None, 1),
        (7, "m", None, 1),
    ],
)
def test_steps_have_names_and_seasons(count: int, unit: str, name: str | None, season: int) -> None:
    clock, _ = clock_of(every(count, unit))
    assert (clock.name, clock.season, clock.dates) == (name, season, True)


def test_a_clock_of_numbers_tells_no_season() -> None:
    clock, _ = clock_of([3600.0 * k for k in range(10)])
    assert (clock.step, clock.name, clock.season) == (3600.0, None, None)


def future(times: list[Any], horizon: int = 3) -> list[Any]:
    clock, known = clock_of(times)
    after = clock.after(known.times[-1:], horizon)
    assert after.shape == (1, horizon)
    found: list[Any] = clock.values(after[0]).to_list()
    return found


def test_the_next_steps_are_of_the_user_s_type() -> None:
    assert future([1, 2, 3]) == [4, 5, 6]
    assert future([0.5, 1.0, 1.5]) == [2.0, 2.5, 3.0]
    assert future([0.25, 0.5], 2) == [0.75, 1.0]
    days = [date(2024, 2, 26), date(2024, 2, 27)]
    assert future(days) == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    hour = [datetime(2024, 2, 29, 22), datetime(2024, 2, 29, 23)]
    assert future(hour, 1) == [datetime(2024, 3, 1)]


def test_large_numbers_keep_their_fractions() -> None:
    assert future([1e6, 1e6 + 0.25], 1) == [1e6 + 0.5]


def test_months_quarters_and_years_are_those_of_the_calendar() -> None:
    months = [date(2023, month, 15) for month in range(1, 13)]
    assert future(months) == [date(2024, 1, 15), date(2024, 2, 15), date(2024, 3, 15)]
    quarters = [date(2023, month, 1) for month in (1, 4, 7, 10)]
    assert future(quarters, 2) == [date(2024, 1, 1), date(2024, 4, 1)]
    years = [date(year, 2, 28) for year in range(2019, 2024)]
    assert future([d.replace(day=1) for d in years], 2) == [date(2024, 2, 1), date(2025, 2, 1)]


def test_a_month_after_the_31st_is_the_end_of_a_shorter_month() -> None:
    months = [date(2023, 8, 30), date(2023, 9, 30), date(2023, 10, 30), date(2023, 11, 30)]
    assert future(months) == [date(2023, 12, 30), date(2024, 1, 30), date(2024, 2, 29)]


def test_month_ends_stay_month_ends() -> None:
    ends = [date(2023, 8, 31), date(2023, 9, 30), date(2023, 10, 31), date(2023, 11, 30)]
    assert future(ends, 4) == [
        *(date(2023, 12, 31), date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31))
    ]


def test_the_step_is_the_median_within_keys() -> None:
    times = [0, 1, 2, 3, 1000, 1001, 1010, 5, 6]
    clock, known = clock_of(times, (4, 3, 2))
    assert changes(known).tolist() == [1, 1, 1, 1, 9, 1]
    assert (typical_step(known), clock.step) == (1.0, 1.0)
    _, lonely = clock_of([5, 7], (1, 1))
    assert typical_step(lonely) == 1.0
    _, empty = clock_of([5, 7, 9], (0, 3, 0))
    assert changes(empty).tolist() == [2, 2]


def test_the_clock_of_lists_is_that_of_their_values() -> None:
    hours = [datetime(2024, 1, 1) + timedelta(hours=k) for k in range(4)]
    _, known = clock_of(hours, (2, 2))
    clock = Clock.of(pl.DataFrame({"t": [hours[:2], hours[2:]]}), "t", known)
    assert (clock.name, clock.dates, clock.date_only) == ("1h", True, False)


def test_what_a_clock_is_survives_a_file() -> None:
    clock, _ = clock_of([date(2023, 8, 31), date(2023, 9, 30)])
    assert clock.month_ends
    assert Clock(**clock.to_dict()) == clock


def test_without_times_steps_are_counted() -> None:
    known = sequences(pl.DataFrame({"x": [1, 2, 3]}), (3,))
    clock = Clock.of(known.steps, None, Sequences(**{**vars(known), "times": np.arange(3.0)}))
    assert clock == Clock(None, False, False, 1.0)
    assert clock.values(clock.after(np.array([2.0]), 2)[0]).to_list() == [3, 4]
    assert clock.values(np.array([0.0])).name == "step"
