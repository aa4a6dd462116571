"""Numbers: scaled, with "not observed" where one is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import StrictBool
from torch import Tensor

from segue.errors import DataError
from segue.fields.differences import Differences
from segue.fields.field import (
    Encoder,
    EncoderState,
    Field,
    Reading,
    Values,
    blocks,
    raw_column,
)
from segue.ops.program import NOWHERE, Slot
from segue.ragged import Ragged
from segue.schema import AboveZero, Input


class Number(Field):
    """One or many columns of numbers.

    A value ``v`` becomes ``(v - shift) / scale`` with the mean and standard deviation of the
    training rows (``scale: standard``), their minimum and range (``minmax``), or stays as it is
    (``none``). With a limit L it is then ``L tanh(v / L)``: what lies far from the training rows
    stays within L. With `differences` its changes are features as well (`Differences`). A missing
    number is NaN until the encoder turns it into "not observed"; no arithmetic is done on it.
    """

    several = True

    class Spec(Input):
        """Options of kind `number`.

        Attributes:
            scale: what shift and scale are.
            clip: scaled values further from 0 are cut there, so that outliers do no harm.
        """

        scale: Literal["standard", "minmax", "none"] = "standard"
        limit: AboveZero | None = None
        differences: StrictBool = False

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._scale, self._limit, self._differences = spec.scale, spec.limit, spec.differences
        self.shift: NDArray[np.float64] = np.zeros(len(columns))
        self.scale: NDArray[np.float64] = np.ones(len(columns))
        self.gaps: NDArray[np.bool_] = np.zeros(len(columns), bool)
        """Columns with missing values in the training rows; only these have an observed flag and a
        time since. A value that is missing elsewhere is 0 after scaling, without a flag."""
        self.unit = 1.0
        """The time from one step to the next, in which the time since is measured."""
        self.change: NDArray[np.float64] = np.ones(len(columns))
        """The mean absolute change from row to row in the training rows, after scaling."""

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return values.dtype.is_numeric()

    def fit(self, frame: pl.DataFrame) -> None:
        for index, column in enumerate(self.columns):
            series = frame[column]
            count, mean, deviation = moments(series, "training rows")
            self.gaps[index] = count < len(series)
            if count and self._scale == "standard":
                self.shift[index], self.scale[index] = mean, deviation
            elif count and self._scale == "minmax":
                values = numbers(series, "training rows")
                self.shift[index] = np.fmin.reduce(values)
                self.scale[index] = np.fmax.reduce(values) - self.shift[index]
            self.scale[index] = scale_of(self.scale[index], self.shift[index])
        if self._differences:
            changes = np.abs(np.diff(self.encode(frame, "training rows").numpy(), axis=0))
            seen = np.isfinite(changes)
            mean = np.where(seen, changes, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
            self.change = np.where(mean > 0, mean, 1.0).astype(np.float64)

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        encoded = np.empty((frame.height, len(self.columns)), np.float32)
        for index, column in enumerate(self.columns):
            for some, values in _blocks(frame[column], origin):
                scaled = (values - self.shift[index]) / self.scale[index]
                encoded[some, index] = self._limited(scaled)
        return torch.from_numpy(encoded)

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        values = plain_numbers(rows)
        if values is None:
            return None
        return self._limited((values - self.shift) / self.scale).astype(np.float32)

    def _limited(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._limit is None:
            return values
        limited: NDArray[np.float64] = self._limit * np.tanh(values / self._limit)
        return limited

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        return raw_column(name, values, pl.Float64, "a number", origin)

    def encoder(self) -> Encoder:
        encoder = NumberEncoder(torch.from_numpy(self.gaps), self.unit)
        if not self._differences:
            return encoder
        return Differences(encoder, torch.from_numpy(self.change).float())

    def fitted(self) -> dict[str, Any]:
        return {
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "gaps": self.gaps.tolist(),
            "unit": self.unit,
            **({"change": self.change.tolist()} if self._differences else {}),
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.shift, self.scale = np.array(fitted["shift"], float), np.array(fitted["scale"], float)
        self.gaps, self.unit = np.array(fitted["gaps"], bool), float(fitted["unit"])
        self.change = np.array(fitted.get("change", self.change), float)

    def example(self, index: int) -> float:
        return float(f"{self.shift[index]:.4g}")

    def describe(self) -> str:
        if len(self.columns) > 1:
            return f"{len(self.columns)} columns, {int(self.gaps.sum())} of them with gaps"
        return f"shift {self.shift[0]:.4g}, scale {self.scale[0]:.4g}" + (
            ", with gaps" if self.gaps[0] else ""
        )


class NumberEncoder(Encoder):
    """Scaled numbers to features: the values, then for the columns with gaps the flags and the
    times since.

    ``[v or 0]``, ``[observed]``, ``[log(1 + (t - t_last) / unit)]`` where t_last is when the column
    was last observed; 0 while it never was. State: t_last ``[B, gaps]``, float64, NaN for never.

    Args:
        gaps: which columns have gaps, bool ``[C]``.
        unit: the time from one step to the next.
    """

    gaps: Tensor

    def __init__(self, gaps: Tensor, unit: float) -> None:
        super().__init__()
        self.register_buffer("gaps", gaps.nonzero()[:, 0], persistent=False)
        self._unit = unit
        self.features = len(gaps) + 2 * len(self.gaps)

    def leave_flags(self) -> None:
        self.features -= 2 * len(self.gaps)
        self.gaps = self.gaps[:0]

    def observed(self, x: Tensor) -> Tensor:
        return (~torch.isnan(x)).to(x.dtype)

    def initial_state(self, batch: int) -> EncoderState:
        if not len(self.gaps):
            return ()
        return (torch.full((batch, len(self.gaps)), torch.nan, dtype=torch.float64),)

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        values = torch.nan_to_num(x.values, nan=0.0)
        if not len(self.gaps):
            return values, state
        observed = ~torch.isnan(x.values[:, self.gaps])
        seen_at = torch.where(observed, times[:, None], -torch.inf)
        before = torch.nan_to_num(state[0], nan=-torch.inf)
        padded = torch.cat(
            [before[:, None], _padded_with(x.with_values(seen_at), -torch.inf)], dim=1
        )
        last = padded.cummax(dim=1).values
        after = last[:, -1]
        last_seen = Ragged.from_padded(last[:, 1:], x.lengths).values
        since = torch.where(torch.isinf(last_seen), 0.0, times[:, None] - last_seen) / self._unit
        features = torch.cat(
            [values, observed.to(values.dtype), torch.log1p(since).to(values.dtype)], dim=1
        )
        return features, (torch.where(torch.isinf(after), torch.nan, after),)

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        gaps = self.gaps.tolist()
        x = at.input(self.features - 2 * len(gaps))
        state = at.state("when last observed", len(gaps)) if gaps else ()
        seen = state[0] if state else NOWHERE
        return at.program.observed(x, at.times, gaps, self._unit, seen), state


def moments(series: pl.Series, origin: str) -> tuple[int, float, float]:
    """How many values are there, their mean, and their standard deviation (over the count, not the
    count less one); 0 where there are none.

    Raises:
        DataError: the column does not hold finite numbers.
    """
    count, total, squares = 0, 0.0, 0.0
    for _, values in _blocks(series, origin):
        seen = values[~np.isnan(values)]
        count, total = count + len(seen), total + float(seen.sum())
    mean = total / max(1, count)
    for _, values in _blocks(series, origin):
        squares += float(np.square(values[~np.isnan(values)] - mean).sum())
    return count, mean, math.sqrt(squares / max(1, count))


def scale_of(spread: float, level: float) -> float:
    """`spread` as a scale to divide by: 1 where values do not change but for rounding."""
    return float(spread) if spread > 1e-12 * abs(level) else 1.0


def numbers(series: pl.Series, origin: str, first: int = 0) -> NDArray[np.float64]:
    """The values of a column as float64, NaN where one is missing.

    Args:
        first: how many rows of the column lie before `series`, for the message.

    Raises:
        DataError: the column does not hold finite numbers.
    """
    where = f"{origin}: column {series.name!r}"
    if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        got = f"{series.dtype} such as {series.drop_nulls().head(1).to_list()}"
        raise DataError(where, "numbers", got, "declare another kind or correct the column")
    # A null of a Float64 series is NaN in NumPy.
    values: NDArray[np.float64] = series.cast(pl.Float64).to_numpy()
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        where = f"{where}, row {first + row + 1}"
        expected = "a finite number, or nothing where it is missing"
        fix = "correct the value or leave the cell empty"
        raise DataError(where, expected, repr(float(values[row])), fix)
    return values


def plain_numbers(rows: Sequence[Values]) -> NDArray[np.float64] | None:
    """Plain numbers of records as float64 ``[N, C]``, NaN for None; None where one is none, or so
    large that it may not be finite.
    """
    if not _PLAIN.issuperset(map(type, chain.from_iterable(rows))):
        return None
    values = np.array(rows, np.float64)
    return None if (np.abs(values) > _LARGE).any() else values


_PLAIN = {float, int, type(None), np.float64, np.float32}
_LARGE = 1e18


def _blocks(series: pl.Series, origin: str) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for some in blocks(len(series)):
        yield some, numbers(series[some], origin, some.start)


def _padded_with(x: Ragged, fill: float) -> Tensor:
    padded = x.to_padded()
    real = torch.arange(padded.shape[1])[None] < x.lengths[:, None]
    return torch.where(real[..., None], padded, fill)
