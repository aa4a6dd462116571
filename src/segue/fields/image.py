"""Images: PNG and JPEG files, or pictures that are at hand as numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, StrictBool
from torch import Tensor

from segue.errors import DataError
from segue.fields.field import Encoder, Field, are_paths
from segue.fields.many_hot import Identity
from segue.fields.maps import Convolutions, Maps, check_patch
from segue.fields.number import scale_of
from segue.fields.picture import (
    Bytes,
    Colors,
    Frame,
    is_in_bytes,
    picture_of,
    read_picture,
)
from segue.schema import Input, Positive

Cell = str | bytes | NDArray[Any]


def _both(value: object) -> object:
    """A number stands for a height and a width."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Extents = Annotated[tuple[Positive, Positive], BeforeValidator(_both)]
"""Height and width."""


class Picture(Input):
    """Options that `image` and `video` have in common.

    Attributes:
        size: height and width that every picture is brought to, or one number for both.
        crop: height and width of the middle part that is cut out first.
        colors: three channels, or one.
        maps: keep pictures as maps, for convolutional layers; otherwise three convolutions read
            each into a vector.
        patch: with `maps`, squares of this many places become channels (Shi et al., 2015).
        features: without `maps`, the length F of the vector.
        on_error: what to do about a file that cannot be read where rows are examples: stop, or
            leave the example out.
    """

    size: Extents | None = None
    crop: Extents | None = None
    colors: Colors = "rgb"
    maps: StrictBool = False
    patch: Positive = 1
    features: Positive = 64
    on_error: Literal["stop", "skip"] = "stop"

    @property
    def frame(self) -> Frame:
        """The form of the pictures."""
        return Frame(self.crop, self.size, self.colors)


class Pictures(Field):
    """What `image` and `video` have in common: pictures of one shape, as bytes.

    Bytes v become ``(v / 255 - shift) / scale`` with the mean and standard deviation of all places
    of the training rows, of at most `LOOKED_AT` pictures among them.

    Attributes:
        shape: C, height and width; what `size` says, or those of the first picture; (0, 0, 0)
            before.
    """

    LOOKED_AT = 1000

    def __init__(self, name: str, columns: tuple[str, ...], spec: Picture) -> None:
        super().__init__(name, columns, spec)
        self.frame, self._skip = spec.frame, spec.on_error == "skip"
        self.maps, self.patch, self._features = spec.maps, spec.patch, spec.features
        self.shift, self.scale = 0.0, 1.0
        known = spec.size or spec.crop
        self.shape = (self.frame.channels, *known) if known else (0, 0, 0)
        if known and self.maps:
            check_patch(f"inputs.{name}", self.shape, self.patch)

    def fit(self, frame: pl.DataFrame) -> None:
        chosen = np.unique(np.linspace(0, frame.height - 1, self.LOOKED_AT).astype(np.int64))
        places, counts = self.places(frame[chosen], "training rows"), np.zeros(256, np.int64)
        for low in range(0, len(chosen), 16):
            some = places[torch.arange(low, min(low + 16, len(chosen)))]
            counts += np.bincount(some.numpy().reshape(-1), minlength=256)
        levels, shares = np.arange(256) / 255, counts / max(1, counts.sum())
        self.shift = float(levels @ shares)
        spread = float(np.sqrt((levels - self.shift) ** 2 @ shares))
        self.scale = scale_of(spread, self.shift)

    @abstractmethod
    def places(self, frame: pl.DataFrame, origin: str) -> Tensor:
        """Raw steps as bytes, ``[N, ...]``."""

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        return self.places(frame, origin)

    def _hold(self, picture: Bytes, where: str) -> Bytes:
        """The picture, if it has the shape of the first one.

        Raises:
            DataError: it has another.
        """
        if self.shape == (0, 0, 0):
            self.shape = picture.shape
            if self.maps:
                check_patch(f"inputs.{self.name}", self.shape, self.patch)
        if picture.shape != self.shape:
            expected = f"a picture of {self.shape[1]} x {self.shape[2]}, as the first one"
            got = f"{picture.shape[1]} x {picture.shape[2]}"
            fix = f"declare `inputs.{self.name}: {{size: [height, width]}}`"
            raise DataError(where, expected, got, fix)
        return picture

    def encoder(self) -> Encoder:
        scaling = {"shift": self.shift, "scale": self.scale}
        if self.maps:
            return Maps(self.shape, self.patch, **scaling)
        return Convolutions(self.shape, self._features, **scaling)

    def fitted(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "shift": self.shift, "scale": self.scale}

    def restore(self, fitted: dict[str, Any]) -> None:
        channels, height, width = fitted["shape"]
        self.shape = int(channels), int(height), int(width)
        self.shift, self.scale = float(fitted["shift"]), float(fitted["scale"])

    def example(self, index: int) -> Any:
        return np.full(self.width, round(255 * self.shift)).tolist()

    @property
    def width(self) -> int:
        """F, the bytes of a raw step."""
        return int(np.prod(self.shape))

    def as_is(self, value: Any) -> Bytes | None:
        """A value of a record that is a raw step already, F bytes, channels first; else None.

        Raw steps are what is taken from data to be sent as records.
        """
        step = np.asarray(value) if isinstance(value, list | tuple | np.ndarray) else np.zeros(0)
        if step.shape != (self.width,) or step.dtype.kind not in "ui" or not is_in_bytes(step):
            return None
        return step.astype(np.uint8)

    def describe(self) -> str:
        channels, height, width = self.shape
        return f"pictures of {height} x {width}, {'gray' if channels == 1 else 'rgb'}"


class Image(Pictures):
    """A picture per step, or one for a whole sequence; or, with ``steps: rows``, a picture whose
    rows are the steps.

    A cell is a path to a PNG or a JPEG, relative to the table, or the bytes of such a file, or
    numbers from 0 to 255 as nested lists ``[H, W]`` or ``[H, W, 3]``. Where rows are examples, a
    cell may also hold a list of paths, which are its steps.
    """

    class Spec(Picture):
        """Options of kind `image`.

        Attributes:
            steps: ``none``, a picture is one step; ``rows``, each of its rows is one.
        """

        steps: Literal["none", "rows"] = "none"

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.by_row = spec.steps == "rows"

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return are_paths(values, (".png", ".jpg", ".jpeg"))

    def unfold(self, cells: pl.Series, origin: str) -> tuple[pl.Series, NDArray[np.int64]]:
        """The pictures, or their rows, one after another, as flat bytes; and how many each cell
        has, -1 for one that is skipped.
        """
        found: list[Bytes] = []
        lengths = np.zeros(len(cells), np.int64)
        for row, cell in enumerate(_cells(cells, origin)):
            if self.may_lack and len(cell) == 1 and cell[0] is None:
                continue
            where = f"{origin}: column {cells.name!r}, row {row + 1}"
            try:
                pictures = [self._picture(one, where) for one in cell]
            except DataError:
                if not self._skip:
                    raise
                lengths[row] = -1
                continue
            if self.by_row:
                pictures = [rows for picture in pictures for rows in picture.transpose(1, 0, 2)]
            found += pictures
            lengths[row] = len(pictures)
        return flat(cells.name, found, self.width), lengths

    @property
    def width(self) -> int:
        channels, height, width = self.shape
        return channels * width * (1 if self.by_row else height)

    def _picture(self, cell: Cell | None, where: str) -> Bytes:
        if cell is None or isinstance(cell, str) and not cell:
            fix = "fill it in, or declare `on_error: skip`"
            raise DataError(where, "a picture", "an empty cell", fix)
        if isinstance(cell, str | bytes):
            return self._hold(read_picture(cell, self.folder, self.frame, where), where)
        return self._hold(picture_of(cell, self.frame, where), where)

    def places(self, frame: pl.DataFrame, origin: str) -> Tensor:
        series = frame[self.columns[0]]
        raw = series if series.dtype == pl.Array else self._raw(series, origin)
        places = torch.from_numpy(np.array(raw.to_numpy()))
        return places if self.by_row else places.view(-1, *self.shape)

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        places = self.places(frame, origin)
        return (places / 255 - self.shift) / self.scale if self.by_row else places

    def _raw(self, series: pl.Series, origin: str) -> pl.Series:
        """The pictures of a column whose cells each hold one, as flat bytes."""
        where = f"{origin}: column {series.name!r}"
        places = (f"{where}, row {row + 1}" for row in range(len(series)))
        cells = (cell[0] for cell in _cells(series, origin))
        found = [self._picture(cell, place) for cell, place in zip(cells, places, strict=True)]
        return flat(series.name, found, self.width)

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        return flat(
            name, [self._step(value, f"{origin}: {name!r}") for value in values], self.width
        )

    def _step(self, value: Any, where: str) -> Bytes:
        """A step that comes live."""
        step = self.as_is(value)
        if step is not None:
            return step
        if not self.by_row:
            return self._picture(value, where)
        fix = "send one row, one color after another"
        raise DataError(where, f"{self.width} numbers from 0 to 255", repr(value), fix)

    def encoder(self) -> Encoder:
        return Identity(self.shape[0] * self.shape[2]) if self.by_row else super().encoder()


def flat(name: str, pictures: list[Bytes], width: int) -> pl.Series:
    """Pictures, or parts of some, as a raw column of `width` bytes each."""
    found = np.array(pictures, np.uint8).reshape(len(pictures), width)
    return pl.Series(name, found, dtype=pl.Array(pl.UInt8, width))


def _cells(series: pl.Series, origin: str) -> Iterator[list[Any]]:
    """The pictures of each cell: paths, bytes, or arrays."""
    if series.dtype in (pl.String, pl.Binary, pl.Null):
        yield from ([cell] for cell in series)
    elif series.dtype == pl.List(pl.String):
        yield from ([None] if cell is None else cell.to_list() for cell in series)
    elif isinstance(series.dtype, pl.List | pl.Array):
        yield from ([None if cell is None else nested(cell)] for cell in series)
    else:
        got = f"{series.dtype} such as {series.drop_nulls().head(1).to_list()}"
        where, fix = f"{origin}: column {series.name!r}", "declare another kind"
        raise DataError(where, "paths, or pictures as lists of numbers", got, fix)


def nested(cell: pl.Series) -> NDArray[Any] | list[Any]:
    """Nested lists as an array; as they are where their lengths differ."""
    values, shape = cell, [len(cell)]
    while isinstance(values.dtype, pl.List | pl.Array):
        values = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
        lengths = values.list.len().unique()
        if len(lengths) != 1 or not lengths[0]:
            return cell.to_list()
        shape.append(int(lengths[0]))
        values = values.explode()
    return values.to_numpy().reshape(shape)
