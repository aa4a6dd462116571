"""The next S steps of one or many series, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NoReturn

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import StrictBool, field_validator, model_validator
from torch import Tensor

from segue.errors import DataError
from segue.fields import Field
from segue.fields.field import blocks
from segue.fields.number import moments, numbers, scale_of
from segue.schema import Output, Positive, real
from segue.sequences import Part, Sequences
from segue.tasks.distributions import DISTRIBUTIONS, Distribution, Quantiles
from segue.tasks.task import Metrics, Task

Quantile = Annotated[float, real("a level above 0 and below 1", lambda q: 0 < q < 1)]

ORIGINS = 1024
"""Forecasts that are scored at once; bounds the memory."""


class Future(NamedTuple):
    """What came after M origins.

    Attributes:
        values: the next S values, float64 ``[M, C, S]``, NaN where not observed.
        spread: standard deviation of each series in the training rows, ``[M, C]``.
        naive: mean absolute change over one season in the training rows, ``[M, C]``; the unit of
            MASE.
        level: mean absolute value in the training rows, ``[M, C]``.
    """

    values: Tensor
    spread: Tensor
    naive: Tensor
    level: Tensor


class Forecast(Task):
    """From every step t, the values of the target columns at t+1 .. t+S.

    The network gives the numbers of a `Distribution` for every value to come, whose docstring has
    the loss: quantiles with the pinball loss, or the parameters of a law with its negative
    log-likelihood. The point forecast is the quantile 0.5; with ``quantiles: []`` it is the mean,
    of quantiles learnt by the squared error.

    With ``conformal`` the band is set so that it would have held in the validation part; see
    `segue.conformal`.

    Metrics: mae, rmse, ``mse_scaled`` (squared error in units of the spread), ``mase`` (absolute
    error over that of the seasonal naive forecast in the training rows; Hyndman and Koehler 2006),
    ``smape`` (200 |y - f| / (|y| + |f|), in per cent), and ``coverage``, the share of values inside
    the outer quantiles, beside ``nominal``, what it should be.

    Baselines: the last value; the value one season ago; the last value with the mean slope of the
    past (drift); the value one season ago with the mean change over a season in the past. A missing
    value of the past is the last one before it.
    """

    title = "Forecasting {name} {horizon} steps ahead"
    every = True
    reads_series = True
    main = "mase"
    several = True

    class Spec(Output):
        """Options of task `forecast`.

        Attributes:
            horizon: S, how many steps ahead.
            quantiles: levels of the forecast distribution, 0.5 among them; an empty list forecasts
                the mean.
            distribution: what is learnt: the ``quantiles`` themselves, or a law from which they
                follow: ``gaussian``, ``student_t`` (heavy tails), ``negative_binomial`` (counts).
            conformal: whether the quantiles but 0.5 are calibrated on the validation part.
            season: steps in a season m, such as 24 for hourly values; inferred from the clock.
            unit: what the loss measures the errors of a series in: its ``spread`` (standard
                deviation in the training rows), or its ``level`` (mean absolute value), so that
                relative errors count, as in sMAPE.
        """

        reads_itself: ClassVar[bool] = True
        horizon: Positive
        quantiles: tuple[Quantile, ...] = (0.1, 0.5, 0.9)
        season: Positive | None = None
        distribution: Literal["quantiles", "gaussian", "student_t", "negative_binomial"] = (
            "quantiles"
        )
        conformal: StrictBool = False
        unit: Literal["spread", "level"] = "spread"

        @field_validator("quantiles")
        @classmethod
        def _one_is_the_median(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
            if levels and (0.5 not in levels or len(set(levels)) < len(levels)):
                raise ValueError("different levels with 0.5 among them, or []")
            return levels

        @model_validator(mode="after")
        def _a_band_to_calibrate(self) -> Forecast.Spec:
            if self.conformal and len(self.quantiles) < 2:
                raise ValueError("at least two quantiles with `conformal: true`")
            return self

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.horizon = spec.horizon
        self.quantiles = tuple(sorted(spec.quantiles))
        self.season = spec.season or 1
        self.unit = spec.unit
        self.conformal = spec.conformal
        law = DISTRIBUTIONS.get(spec.distribution)
        self.distribution: Distribution = Quantiles(self.quantiles) if law is None else law()
        self.levels: list[list[float]] = [list(self.quantiles)] * self.horizon
        """The levels ``[S][Q]`` at which a law is read, as calibrated."""
        self.shift: list[list[float]] = [[0.0] * self.outputs] * self.horizon
        """By how many units of the scale quantiles are moved, ``[S][P]``, as calibrated."""
        self.gaps = False
        """Whether the training rows have missing values."""
        self.typical: list[list[float]] = []
        """Of each column the usual spread of a training series in units of its level, and the least
        spread of any, ``[2][C]``.
        """
        self._units: dict[str, list[list[float]]] = {}
        self._mean_units: list[list[float]] = []

    @property
    def outputs(self) -> int:
        """P, numbers per forecast value."""
        return self.distribution.parameters

    @property
    def has_band(self) -> bool:
        """Whether there is more than a point forecast."""
        return len(self.quantiles) > 1

    @property
    def nominal(self) -> float:
        """The share of values that should fall inside the outer quantiles."""
        return self.quantiles[-1] - self.quantiles[0] if self.has_band else 0.0

    @property
    def middle(self) -> int:
        """The index of the point forecast among the `values`."""
        return self.quantiles.index(0.5) if self.quantiles else 0

    def values(self, output: Tensor) -> Tensor:
        """What was said of every value, ``[M, C, S, P]``, as its quantiles ``[M, C, S, Q]`` in
        order; as the mean ``[M, C, S, 1]`` where there are none.
        """
        if not self.quantiles:
            return output[..., :1]
        return self.distribution.quantile(output, torch.tensor(self.levels, dtype=torch.float64))

    def series(self, sequences: Sequences) -> list[NDArray[np.float64]]:
        """The values of the target columns, ``[N]`` each, NaN where missing; views of the frame
        where it has none.
        """
        return [numbers(sequences.steps[column], sequences.origin) for column in self.columns]

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        longest = int(train.lengths.max())
        if longest <= self.horizon:
            where = f"{train.origin}: outputs.{self.name}.horizon"
            expected = f"fewer steps than the longest training sequence has ({longest})"
            fix = "shorten the horizon or give longer sequences"
            raise DataError(where, expected, str(self.horizon), fix)
        units = np.full((train.count, 3, len(self.columns)), np.nan)
        for place, column in enumerate(self.columns):
            series = train.steps[column]
            if series.null_count() == len(series):
                where = f"{train.origin}: column {column!r}"
                fix = "fill in the target"
                raise DataError(where, "numbers in the training rows", "no value at all", fix)
            if not self.distribution.shifts:
                _refuse_all_but_counts(column, train)
            self.gaps = self.gaps or series.null_count() > 0
            for row, (start, length) in enumerate(zip(train.offsets, train.lengths, strict=False)):
                own = series.slice(start, length)
                units[row, :, place] = _units_of(own, self.season, train.origin)
        known = ~np.isnan(units)
        mean = np.where(known, units, 0.0).sum(0) / np.maximum(known.sum(0), 1)
        mean[mean == 0] = 1.0
        self._mean_units = mean.tolist()
        filled = np.where(known, units, mean)
        spread, level = filled[:, 0], filled[:, 2]
        self.typical = [(spread / level).mean(0).tolist(), spread.min(0).tolist()]
        self._units = dict(zip(map(str, train.keys), filled.tolist(), strict=True))

    def units(self, keys: pl.Series) -> tuple[Tensor, Tensor, Tensor]:
        """Spread, naive error and level of each key's series, ``[B, C]`` each; those of a key
        without training values are the means over the other keys.
        """
        found = [self._units.get(str(key), self._mean_units) for key in keys]
        table = torch.tensor(found, dtype=torch.float64)
        return table[:, 0], table[:, 1], table[:, 2]

    def encode(self, sequences: Sequences) -> NoReturn:
        raise AssertionError(
            "the targets of a forecast are gathered per batch; see Store.targets_at"
        )

    def head(self, features: int) -> NoReturn:
        raise AssertionError("a forecast has a Forecaster instead of a head")

    def losses(self, output: Tensor, target: Future) -> Tensor:
        unit = (target.level if self.unit == "level" else target.spread)[..., None]
        seen = ~target.values.isnan()
        own = unit.expand_as(target.values)[seen]
        return self.distribution.losses(output[seen], target.values[seen], own)

    def metrics(self, output: Tensor, target: Future) -> Metrics:
        found = self.values(output)
        scores = _means(_sums(found[..., self.middle], target))
        if self.has_band:
            seen = ~target.values.isnan()
            inside = (target.values >= found[..., 0]) & (target.values <= found[..., -1])
            scores["coverage"] = float(inside[seen].double().mean())
            scores["nominal"] = round(self.nominal, 12)
        return scores

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        sums: dict[str, Tensor] = {}
        columns = self.series(sequences)
        units = self.units(sequences.keys)
        for row, start, stop in zip(part.rows, part.start, part.stop, strict=True):
            lows = range(max(start - 1, 0), stop - self.horizon, ORIGINS)
            if not lows:
                continue
            first = sequences.offsets[row]
            raw = np.stack([column[first : first + stop] for column in columns])
            past = np.stack([filled(values) for values in raw])
            begun = np.array([int((~np.isnan(values)).argmax()) for values in raw])
            # Some origins at a time, since each has S values.
            for low in lows:
                origins = np.arange(low, min(low + ORIGINS, stop - self.horizon))
                ahead = raw[:, origins[:, None] + np.arange(1, self.horizon + 1)]
                ahead[origins < begun[:, None]] = np.nan
                own = (unit[row].expand(len(origins), -1) for unit in units)
                future = Future(torch.from_numpy(ahead.transpose(1, 0, 2)), *own)
                forecasts = naive_forecasts(past, origins, self.horizon, self.season)
                for name, forecast in forecasts.items():
                    found = _sums(torch.from_numpy(forecast.transpose(1, 0, 2)), future)
                    sums[name] = sums.get(name, torch.zeros_like(found)) + found
        return {name: _means(found) for name, found in sums.items()}

    def decode(self, output: Tensor) -> pl.DataFrame:
        """``[M, C, S, P]`` to M * S rows: for each column the point forecast, and column_q10, ...
        for its quantiles.
        """
        return pl.DataFrame(self._columns(output)).fill_nan(None)

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        made = self._columns(torch.from_numpy(output))
        columns = {name: values.tolist() for name, values in made.items()}
        if not np.isnan(output).any():
            return columns
        return {
            name: [None if math.isnan(value) else value for value in values]
            for name, values in columns.items()
        }

    def _columns(self, output: Tensor) -> dict[str, NDArray[np.float64]]:
        columns: dict[str, NDArray[np.float64]] = {}
        found = self.values(output).double().numpy()
        for index, name in enumerate(self.columns):
            values = found[:, index]
            columns[name] = values[..., self.middle].reshape(-1)
            if self.has_band:
                for place, level in enumerate(self.quantiles):
                    columns[f"{name}_q{level * 100:g}"] = values[..., place].reshape(-1)
        return columns

    def fitted(self) -> dict[str, Any]:
        return {
            "gaps": self.gaps,
            "units": self._units,
            "mean_units": self._mean_units,
            "levels": self.levels,
            "shift": self.shift,
            "typical": self.typical,
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.gaps, self._units = bool(fitted["gaps"]), dict(fitted["units"])
        self._mean_units = list(fitted["mean_units"])
        self.levels, self.shift = list(fitted["levels"]), list(fitted["shift"])
        self.typical = list(fitted["typical"])


_NAMES = ("mase", "mae", "rmse", "mse_scaled", "smape")


def _sums(forecast: Tensor, target: Future) -> Tensor:
    """The sums over all observed targets of what `_means` averages, and their count."""
    total = torch.zeros(len(_NAMES) + 1, dtype=torch.float64)
    for some, values, spread, naive, _ in zip(
        *(torch.split(part, ORIGINS) for part in (forecast, *target)), strict=True
    ):
        seen = ~values.isnan()
        size = torch.where(seen, (values - some).abs(), 0.0)
        share = 200 * size / (values.abs() + some.abs()).clamp(min=1e-300)
        parts = (size / naive[..., None], size, size**2, (size / spread[..., None]) ** 2, share)
        total += torch.stack([*(torch.where(seen, part, 0.0).sum() for part in parts), seen.sum()])
    return total


def _means(sums: Tensor) -> Metrics:
    scores = dict(zip(_NAMES, (sums[:-1] / sums[-1]).tolist(), strict=True))
    return {**scores, "rmse": math.sqrt(scores["rmse"])}


def naive_forecasts(
    past: NDArray[np.float64], origins: NDArray[np.int64], horizon: int, season: int
) -> dict[str, NDArray[np.float64]]:
    """The naive forecasts of gapless series, ``[C, M, S]``.

    Args:
        past: the series, ``[C, T]``; only what is up to an origin is used.
        origins: the steps from which to forecast, ``[M]``.
        season: steps in a season; 1 for none.
    """
    ahead = np.arange(1, horizon + 1)
    now = past[:, origins, None]
    slope = (past[:, origins] - past[:, :1]) / np.maximum(origins, 1)
    forecasts = {
        "last value": np.repeat(now, horizon, axis=2),
        "drift": now + slope[..., None] * ahead,
    }
    if season > 1:
        seasons = -(-ahead // season)
        same = np.maximum(origins[:, None] + ahead - seasons * season, 0)
        # Sums of the changes over a season that end at each step; none before step `season`.
        change = np.zeros_like(past)
        change[:, season:] = np.cumsum(past[:, season:] - past[:, :-season], axis=1)
        mean = change[:, origins] / np.maximum(origins - season + 1, 1)
        forecasts["seasonal naive"] = past[:, same]
        forecasts["seasonal naive with drift"] = past[:, same] + mean[..., None] * seasons
    return forecasts


def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A missing value is the last one before it, or the first one after where there is none."""
    series = pl.Series(values).fill_nan(None).fill_null(strategy="forward")
    return series.fill_null(strategy="backward").fill_null(0.0).to_numpy()


def _refuse_all_but_counts(column: str, train: Sequences) -> None:
    values = numbers(train.steps[column], train.origin)
    bad = values[(values < 0) | (values % 1 > 0)]
    if len(bad):
        where, fix = f"{train.origin}: column {column!r}", "choose another distribution"
        raise DataError(where, "counts 0, 1, 2, ... for negative_binomial", f"{bad[0]:g}", fix)


def _units_of(series: pl.Series, season: int, origin: str) -> tuple[float, float, float]:
    """Standard deviation, mean absolute change over a season, and mean absolute value; NaN where
    nothing tells.
    """
    count, mean, deviation = moments(series, origin)
    if not count:
        return math.nan, math.nan, math.nan
    level = sum(np.nansum(np.abs(numbers(series[some], origin))) for some in blocks(len(series)))
    lag = season if len(series) > season else 1
    total, pairs = 0.0, 0
    for some in blocks(len(series) - lag):
        size = min(some.stop, len(series) - lag) - some.start
        early, late = series.slice(some.start, size), series.slice(some.start + lag, size)
        change = np.abs(numbers(late, origin) - numbers(early, origin))
        total, pairs = total + np.nansum(change), pairs + int((~np.isnan(change)).sum())
    naive = scale_of(total / pairs, mean) if pairs else math.nan
    return scale_of(deviation, mean), naive, float(level) / count or 1.0
