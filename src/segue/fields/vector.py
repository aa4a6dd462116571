"""Vectors: a list of as many numbers at every step, such as the bands of a spectrum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import field_validator
from torch import Tensor

from segue.errors import DataError
from segue.fields.field import Encoder, Field, Values
from segue.fields.maps import Maps, check_patch
from segue.fields.number import NumberEncoder, plain_numbers, scale_of
from segue.schema import Input, Positive

AT_ONCE = 2**22
"""Numbers that are scaled at once; bounds the memory."""


class Vector(Field):
    """A list of F numbers per step.

    Every element is scaled as a column of kind `number` is: ``(v - shift) / scale`` with its mean
    and standard deviation in the training rows (``scale: standard``), with its minimum and range
    (``minmax``), or not at all. An element that is missing, and every element of a missing list, is
    "not observed". With ``maps`` the numbers are a picture, row by row, which stays one; all its
    places then have one shift and one scale, and a missing one is 0 after scaling.
    """

    class Spec(Input):
        """Options of kind `vector`.

        Attributes:
            size: F; by default the length of the first list in the training rows, or what `maps`
                says.
            maps: the numbers are a picture of this shape, channels first, such as [1, 32, 32], for
                convolutional layers.
            patch: squares of this many places along every extent become channels (Shi et al.,
                2015), which makes a picture smaller, and all that is done with it quicker.
        """

        size: Positive | None = None
        scale: Literal["standard", "minmax", "none"] = "standard"
        maps: tuple[Positive, ...] | None = None
        patch: Positive = 1

        @field_validator("maps")
        @classmethod
        def _has_channels_and_extents(cls, maps: tuple[int, ...] | None) -> tuple[int, ...] | None:
            if maps is not None and not 2 <= len(maps) <= 4:
                raise ValueError("channels and 1 to 3 extents, such as [1, 32, 32]")
            return maps

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._scale, self._patch, self.maps = spec.scale, spec.patch, spec.maps
        drawn = None if spec.maps is None else int(np.prod(spec.maps))
        if drawn is not None:
            check_patch(f"inputs.{name}", spec.maps or (), spec.patch)
        self.size = spec.size or drawn or 0
        self.shift: NDArray[np.float64] = np.zeros(self.size)
        self.scale: NDArray[np.float64] = np.ones(self.size)
        self.gaps: NDArray[np.bool_] = np.zeros(self.size, bool)
        """Elements that are missing in some training rows; see `Number.gaps`."""
        self.unit = 1.0
        """The time from one step to the next, in which the time since is measured."""

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        if whole or not _is_of_numbers(values):
            return False
        lengths = values.drop_nulls().arr if isinstance(values.dtype, pl.Array) else values.list
        is_measured = values.dtype.inner.is_float()  # type: ignore[attr-defined]
        return is_measured and lengths.len().drop_nulls().n_unique() == 1

    def fit(self, frame: pl.DataFrame) -> None:
        series, origin = frame[self.columns[0]], "training rows"
        self.size = self.size or _first_length(series, origin)
        found = _Moments(self.size)
        for _, values in _blocks(series, self.size, origin):
            found.add(values)
        self.gaps = found.count < len(series)
        if self.maps is not None:
            found, self.gaps = found.together(), np.zeros(self.size, bool)
        shift, scale = np.zeros(self.size), np.ones(self.size)
        if self._scale == "standard":
            shift, scale = found.mean, found.deviation
        elif self._scale == "minmax":
            shift, scale = found.least, found.most - found.least
        there = found.count > 0
        shift, scale = np.where(there, shift, 0.0), np.where(there, scale, 1.0)
        self.shift = np.broadcast_to(shift, self.size).copy()
        scale = np.broadcast_to(scale, self.size)
        self.scale = np.array([scale_of(*pair) for pair in zip(scale, self.shift, strict=True)])

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        encoded = np.empty((frame.height, self.size), np.float32)
        for some, values in _blocks(frame[self.columns[0]], self.size, origin):
            encoded[some] = (values - self.shift) / self.scale
        return self._shaped(torch.from_numpy(encoded))

    def _shaped(self, encoded: Tensor) -> Tensor:
        return encoded if self.maps is None else encoded.view(-1, *self.maps)

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        lists = [row[0] for row in rows]
        if any(type(one) is not list or len(one) != self.size for one in lists):
            return None
        values = plain_numbers(lists)
        if values is None:
            return None
        encoded = ((values - self.shift) / self.scale).astype(np.float32)
        return encoded if self.maps is None else encoded.reshape(-1, *self.maps)

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        lists = [one.tolist() if isinstance(one, np.ndarray) else one for one in values]
        try:
            return pl.Series(name, lists, dtype=pl.List(pl.Float64))
        except (TypeError, pl.exceptions.PolarsError):
            culprit = next((one for one in lists if not _is_list_of_numbers(one)), lists)
            expected = "a list of numbers, or null where it is not observed"
            raise DataError(f"{origin}: {name!r}", expected, repr(culprit), "correct it") from None

    def encoder(self) -> Encoder:
        if self.maps is not None:
            return Maps(self.maps, self._patch)
        return NumberEncoder(torch.from_numpy(self.gaps), self.unit)

    def fitted(self) -> dict[str, Any]:
        return {
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "gaps": self.gaps.tolist(),
            "unit": self.unit,
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.shift, self.scale = np.array(fitted["shift"], float), np.array(fitted["scale"], float)
        self.gaps, self.unit = np.array(fitted["gaps"], bool), float(fitted["unit"])
        self.size = len(self.shift)

    def example(self, index: int) -> Any:
        return [float(f"{value:.4g}") for value in self.shift]

    def describe(self) -> str:
        if self.maps is not None:
            return "pictures of " + " x ".join(map(str, self.maps))
        return f"{self.size} numbers a step, {int(self.gaps.sum())} of them with gaps"


class _Moments:
    """Count, mean, standard deviation and range of each of F elements, block by block."""

    def __init__(self, size: int) -> None:
        self.count, self._total, self._squares = (np.zeros(size) for _ in range(3))
        self.least, self.most = np.full(size, np.inf), np.full(size, -np.inf)
        self._level: NDArray[np.float64] | None = None

    def add(self, values: NDArray[np.float64]) -> None:
        """More rows ``[n, F]``, NaN where one is missing."""
        seen = ~np.isnan(values)
        if self._level is None:
            # Squares of differences from about the mean keep their digits.
            rows = np.where(seen, values, 0.0).sum(0) / np.maximum(1, seen.sum(0))
            self._level = rows
        away = np.where(seen, values - self._level, 0.0)
        self.count = self.count + seen.sum(0)
        self._total, self._squares = self._total + away.sum(0), self._squares + (away**2).sum(0)
        self.least = np.fmin(self.least, np.fmin.reduce(values, 0, initial=np.inf))
        self.most = np.fmax(self.most, np.fmax.reduce(values, 0, initial=-np.inf))

    @property
    def mean(self) -> NDArray[np.float64]:
        return (0.0 if self._level is None else self._level) + self._away

    @property
    def deviation(self) -> NDArray[np.float64]:
        mean_square = self._squares / np.maximum(1, self.count)
        return np.sqrt(np.maximum(0.0, mean_square - self._away**2))

    @property
    def _away(self) -> NDArray[np.float64]:
        return self._total / np.maximum(1, self.count)

    def together(self) -> _Moments:
        """The same of all elements as one."""
        one, weight = _Moments(1), self.count / max(1.0, self.count.sum())
        one.count = self.count.sum(keepdims=True)
        one._level = (weight * self.mean).sum(keepdims=True)
        spread = (weight * (self.deviation**2 + (self.mean - one._level) ** 2)).sum(keepdims=True)
        one._squares = spread * one.count
        there = self.count > 0
        if there.any():
            one.least, one.most = (
                self.least[there].min(keepdims=True),
                self.most[there].max(keepdims=True),
            )
        return one


def _is_of_numbers(series: pl.Series) -> bool:
    return isinstance(series.dtype, pl.List | pl.Array) and series.dtype.inner.is_numeric()


def _is_list_of_numbers(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list | tuple) and all(
        one is None or isinstance(one, int | float) and not isinstance(one, bool) for one in value
    )


def _first_length(series: pl.Series, origin: str) -> int:
    lists = _lists(series, origin).drop_nulls()
    if not len(lists) or not len(lists[0]):
        where, fix = f"{origin}: column {series.name!r}", "give some, or say `size`"
        raise DataError(where, "a list of numbers in some training row", "none", fix)
    return len(lists[0])


def _lists(series: pl.Series, origin: str) -> pl.Series:
    if isinstance(series.dtype, pl.Array) and _is_of_numbers(series):
        return series.arr.to_list()
    if not (_is_of_numbers(series) or series.dtype in (pl.Null, pl.List(pl.Null))):
        got = f"{series.dtype} such as {series.drop_nulls().head(1).to_list()}"
        fix = "give lists such as [0.5, -1.2], or declare another kind"
        where = f"{origin}: column {series.name!r}"
        raise DataError(where, "a list of numbers at every step", got, fix)
    return series.cast(pl.List(pl.Float64))


def _blocks(
    series: pl.Series, size: int, origin: str
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Some rows ``[n, F]`` at a time, NaN where an element is missing.

    Raises:
        DataError: a list of another length, or with an infinite number.
    """
    rows = max(1, AT_ONCE // max(1, size))
    for low in range(0, len(series), rows):
        some = series[low : low + rows]
        yield slice(low, low + len(some)), _table(some, size, low, origin)


def _table(series: pl.Series, size: int, first: int, origin: str) -> NDArray[np.float64]:
    lists = _lists(series, origin)
    there = lists.is_not_null().to_numpy()
    lengths = lists.list.len().fill_null(size).to_numpy()
    table = np.full((len(lists), size), np.nan)
    wrong = lengths != size
    if not wrong.any():
        table[there] = lists.drop_nulls().explode().to_numpy().reshape(-1, size)
        wrong = np.isinf(table).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        where = f"{origin}: column {series.name!r}, row {first + row + 1}"
        if lengths[row] != size:
            fix = "give every list this length, null for an element that is missing"
            raise DataError(where, f"a list of {size} numbers", f"one of {lengths[row]}", fix)
        expected = "finite numbers, or null where one is missing"
        raise DataError(where, expected, "an infinite one", "correct it")
    return table
