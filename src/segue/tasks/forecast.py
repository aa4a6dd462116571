"""The next S steps of one or many series, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, NoReturn

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field as Bound
from torch import Tensor

from segue.errors import DataError
from segue.fields import Field
from segue.fields.number import numbers
from segue.schema import Output, Positive
from segue.sequences import Part, Sequences
from segue.tasks.task import Metrics, Task

Quantile = Annotated[float, Bound(gt=0, lt=1)]


class Future(NamedTuple):
    """What came after M origins.

    Attributes:
        values: the next S values, float64 ``[M, C, S]``, NaN where not observed.
        spread: standard deviation of each series in the training rows, ``[M, C]``; the unit of the loss.
        naive: mean absolute change over one season in the training rows, ``[M, C]``; the unit of MASE.
    """

    values: Tensor
    spread: Tensor
    naive: Tensor


class Forecast(Task):
    """From every step t, the values of the target columns at t+1 .. t+S.

    With quantiles the loss is twice the pinball loss, averaged over the quantiles q:
    ``2 max(q e, (q - 1) e)`` of the error ``e = y - forecast`` in units of the series' standard deviation; with
    ``quantiles: []`` it is ``e^2`` and the forecast is the mean. The point forecast is the middle quantile.

    Metrics: mae, rmse, ``mse_scaled`` (squared error in units of the training standard deviation), ``mase`` (mean
    absolute error over that of the seasonal naive forecast in the training rows; Hyndman and Koehler 2006), ``smape``
    (200 |e| / (|y| + |f|), in per cent), and ``coverage``, the share of values inside the outer quantiles.

    Baselines: the last value; the value one season ago; the last value with the mean slope of the past (drift); the
    value one season ago with the mean change over a season in the past.
    """

    every = True
    main = "mase"

    class Spec(Output):
        """Options of task `forecast`.

        Attributes:
            horizon: S, how many steps ahead.
            quantiles: levels of the forecast distribution; an empty list forecasts the mean.
            season: steps in a season m, such as 24 for hourly values; inferred from the clock.
        """

        horizon: Positive
        quantiles: tuple[Quantile, ...] = (0.1, 0.5, 0.9)
        season: Positive | None = None

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.horizon = spec.horizon
        self.quantiles = tuple(sorted(spec.quantiles))
        self.season = spec.season or 1
        self.gaps = False
        """Whether the training rows have missing values."""
        self._units: dict[str, list[list[float]]] = {}

    @property
    def outputs(self) -> int:
        """Q, numbers per forecast value."""
        return max(1, len(self.quantiles))

    @property
    def middle(self) -> int:
        """The index of the point forecast among the outputs."""
        return self.outputs // 2

    def series(self, sequences: Sequences) -> list[NDArray[np.float64]]:
        """The values of the target columns, ``[N]`` each, NaN where missing; views of the frame where it has none."""
        return [numbers(sequences.steps[column], sequences.origin) for column in self.columns]

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        values = np.stack(self.series(train))
        if not np.isfinite(values).any(1).all():
            where = f"{train.origin}: column {self.columns[int((~np.isfinite(values).any(1)).argmax())]!r}"
            raise DataError(
                where, "numbers in the training rows", "no value at all", "fill in the target"
            )
        longest = int(train.lengths.max())
        if longest <= self.horizon:
            raise DataError(
                f"{train.origin}: outputs.{self.name}.horizon",
                f"fewer steps than the longest training sequence has ({longest})",
                str(self.horizon),
                "shorten the horizon or give longer sequences",
            )
        self.gaps = bool(np.isnan(values).any())
        for row, key in enumerate(train.keys):
            own = values[:, train.offsets[row] : train.offsets[row + 1]]
            self._units[str(key)] = [_spread(own), _seasonal_change(own, self.season)]
        self._units[""] = np.nanmean(np.array(list(self._units.values())), axis=0).tolist()

    def units(self, keys: pl.Series) -> tuple[Tensor, Tensor]:
        """Spread and naive error of each key's series, ``[B, C]`` each; the mean over keys for an unknown key."""
        found = [self._units.get(str(key), self._units[""]) for key in keys]
        table = torch.tensor(found, dtype=torch.float64)
        return table[:, 0], table[:, 1]

    def encode(self, sequences: Sequences) -> NoReturn:
        raise AssertionError(
            "the targets of a forecast are gathered per batch; see Store.targets_at"
        )

    def head(self, features: int) -> NoReturn:
        raise AssertionError("a forecast has a Forecaster instead of a head")

    def losses(self, output: Tensor, target: Future) -> Tensor:  # type: ignore[override]
        error = (target.values[..., None] - output) / target.spread[..., None, None]
        error = error[~error.isnan().any(-1)].float()
        if not self.quantiles:
            return error[:, 0].square()
        levels = torch.tensor(self.quantiles)
        return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)

    def metrics(self, output: Tensor, target: Future) -> Metrics:  # type: ignore[override]
        scores = self._scores(output[..., self.middle], target)
        if len(self.quantiles) > 1:
            seen = ~target.values.isnan()
            inside = (target.values >= output[..., 0]) & (target.values <= output[..., -1])
            scores["coverage"] = float(inside[seen].double().mean())
        return scores

    def _scores(self, forecast: Tensor, target: Future) -> Metrics:
        error = target.values - forecast
        size = 200 * error.abs() / (target.values.abs() + forecast.abs()).clamp(min=1e-300)
        return {
            "mase": float((error.abs() / target.naive[..., None]).nanmean()),
            "mae": float(error.abs().nanmean()),
            "rmse": math.sqrt(float(error.square().nanmean())),
            "mse_scaled": float((error / target.spread[..., None]).square().nanmean()),
            "smape": float(size.nanmean()),
        }

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        found: dict[str, list[Tensor]] = {}
        futures: list[Future] = []
        columns = self.series(sequences)
        spread, naive = self.units(sequences.keys)
        for row, start, stop in zip(part.rows, part.start, part.stop, strict=True):
            first = sequences.offsets[row]
            origins = np.arange(max(start - 1, 0), stop - self.horizon)
            if not len(origins):
                continue
            past = np.stack([_filled(column[first : first + stop]) for column in columns])
            raw = np.stack([column[first : first + stop] for column in columns])
            ahead = origins[:, None] + np.arange(1, self.horizon + 1)
            values = torch.from_numpy(raw[:, ahead].transpose(1, 0, 2))
            size = (len(origins), len(columns))
            futures.append(Future(values, spread[row].expand(size), naive[row].expand(size)))
            for name, forecast in naive_forecasts(past, origins, self.horizon, self.season).items():
                found.setdefault(name, []).append(torch.from_numpy(forecast.transpose(1, 0, 2)))
        future = Future(*(torch.cat(parts) for parts in zip(*futures, strict=True)))
        return {name: self._scores(torch.cat(parts), future) for name, parts in found.items()}

    def decode(self, output: Tensor) -> pl.DataFrame:
        """``[M, C, S, Q]`` to M * S rows: column (the point forecast) and column_q10, ... for each quantile."""
        columns: dict[str, NDArray[np.float64]] = {}
        for index, name in enumerate(self.columns):
            values = output[:, index].double().numpy()
            columns[name] = values[..., self.middle].reshape(-1)
            if len(self.quantiles) > 1:
                for place, level in enumerate(self.quantiles):
                    columns[f"{name}_q{level * 100:g}"] = values[..., place].reshape(-1)
        return pl.DataFrame(columns).fill_nan(None)

    def fitted(self) -> dict[str, Any]:
        return {"gaps": self.gaps, "units": self._units}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.gaps, self._units = bool(fitted["gaps"]), dict(fitted["units"])


def naive_forecasts(
    past: NDArray[np.float64], origins: NDArray[np.int64], horizon: int, season: int
) -> dict[str, NDArray[np.float64]]:
    """The naive forecasts ``[C, M, S]`` from `origins` ``[M]`` of gapless series `past` ``[C, T]``."""
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
        change = np.cumsum(past[:, season:] - past[:, :-season], axis=1)
        count = np.maximum(origins - season + 1, 0)
        mean = np.where(count > 0, change[:, np.maximum(count, 1) - 1] / np.maximum(count, 1), 0.0)
        forecasts["seasonal naive"] = past[:, same]
        forecasts["seasonal naive with drift"] = past[:, same] + mean[..., None] * seasons
    return forecasts


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Missing values replaced by the last one before them, or the first one after where there is none before."""
    series = pl.Series(values).fill_nan(None)
    return (
        series.fill_null(strategy="forward")
        .fill_null(strategy="backward")
        .fill_null(0.0)
        .to_numpy()
    )


def _spread(values: NDArray[np.float64]) -> list[float]:
    deviation = [float(np.nanstd(row)) if np.isfinite(row).any() else 0.0 for row in values]
    return [value if value > 0 else 1.0 for value in deviation]


def _seasonal_change(values: NDArray[np.float64], season: int) -> list[float]:
    lag = season if values.shape[1] > season else 1
    change = [np.abs(row[lag:] - row[:-lag]) for row in values]
    mean = [float(np.nanmean(row)) if np.isfinite(row).any() else 0.0 for row in change]
    return [value if value > 0 else 1.0 for value in mean]
