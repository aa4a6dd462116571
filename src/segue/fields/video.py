"""Videos: every frame is a step, decoded when it is needed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError
from segue.fields.clip import SUFFIXES, Clip
from segue.fields.field import are_paths
from segue.fields.image import Picture, Pictures, flat, nested
from segue.fields.picture import Bytes, drawn, picture_of
from segue.schema import AboveZero, Count, Role

OPEN = 4
"""Files that are open at once."""

KEPT = 2**24
"""Bytes of frames, in the form in which the network reads them, that are kept for the next time."""


class Video(Pictures):
    """A video per sequence, whose frames are the steps.

    A cell is a path to a file with a video stream, relative to the table, or a video that is at
    hand, numbers from 0 to 255 as nested lists ``[T, H, W]`` or ``[T, H, W, 3]``. Where rows are
    steps, and in a live record, a cell is one frame: ``clip.mp4#17`` for frame 17 of a file,
    counted from 0, or numbers ``[H, W]`` or ``[H, W, 3]``.

    A file is decoded once to count its frames and to find what is wrong with it, and then again
    where its frames are read; a few are in memory at any time.
    """

    class Spec(Picture):
        """Options of kind `video`.

        Attributes:
            rate: frames per second that are kept, at most; by default all.
            stream: which video stream of a file, from 0.
        """

        roles: ClassVar[tuple[Role, ...]] = ("step", "apart")
        rate: AboveZero | None = None
        stream: Count = 0

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._rate, self.stream = spec.rate, spec.stream

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return whole and are_paths(values, SUFFIXES)

    def unfold(self, cells: pl.Series, origin: str) -> tuple[pl.Series, NDArray[np.int64]]:
        """References to the frames, one after another, such as ``clip.mp4#17``, or where the videos
        are at hand flat bytes; and how many each cell has, -1 for one that is skipped.
        """
        is_path = cells.dtype in (pl.String, pl.Null)
        found: list[Any] = []
        lengths = np.zeros(len(cells), np.int64)
        for row, cell in enumerate(cells):
            if cell is None and self.may_lack:
                continue
            where = f"{origin}: column {cells.name!r}, row {row + 1}"
            try:
                own = self._references(cell, where) if is_path else self._at_hand(cell, where)
            except DataError:
                if not self._skip:
                    raise
                lengths[row] = -1
                continue
            found += own
            lengths[row] = len(own)
        if is_path:
            return pl.Series(cells.name, found, dtype=pl.String), lengths
        return flat(cells.name, found, self.width), lengths

    def _references(self, cell: str | None, where: str) -> list[str]:
        if not cell:
            fix = "fill it in, or declare `on_error: skip`"
            raise DataError(where, "a video", "an empty cell", fix)
        clip = self.open(cell, f"{where}: {cell}")
        found, shown = [], -1
        try:
            for number, seconds in enumerate(clip.times()):
                # A frame is kept if it is the first of its span of time.
                span = number if self._rate is None else int(seconds * self._rate + 1e-6)
                if span > shown:
                    found.append(f"{cell}#{number}")
                    shown = span
        finally:
            clip.close()
        return found

    def _at_hand(self, cell: pl.Series | None, where: str) -> list[Bytes]:
        if cell is None:
            raise DataError(where, "a video", "an empty cell", "fill it in")
        return [self._shown(picture, where) for picture in nested(cell)]

    def _shown(self, picture: Any, where: str) -> Bytes:
        """One frame that is at hand."""
        if picture is None:
            raise DataError(where, "a picture", "none", "fill it in")
        numbers = nested(picture) if isinstance(picture, pl.Series) else picture
        return self._hold(picture_of(numbers, self.frame, where), where)

    def open(self, path: str, where: str) -> Clip:
        """A file of this input.

        Raises:
            DataError: no such file, no video, or damaged.
        """
        return Clip(self.folder / path, self.stream, where)

    def picture(self, clip: Clip, number: int, where: str) -> Bytes:
        """A frame in the form in which the network reads it, ``[C, H, W]``."""
        shown = drawn(clip.frame(number), where)
        return self._hold(self.frame.of(shown, where), where)

    def places(self, frame: pl.DataFrame, origin: str) -> Tensor:
        series = frame[self.columns[0]]
        if series.dtype in (pl.String, pl.Null):
            return Frames(self, series, origin)  # type: ignore[return-value]
        if series.dtype != pl.Array:
            where = f"{origin}: column {series.name!r}"
            series = flat(series.name, [self._shown(cell, where) for cell in series], self.width)
        return torch.from_numpy(np.array(series.to_numpy())).view(-1, *self.shape)

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        where = f"{origin}: {name!r}"
        if all(isinstance(value, str) for value in values):
            return pl.Series(name, values, dtype=pl.String)
        found = []
        for value in values:
            step = self.as_is(value)
            found.append(self._shown(value, where) if step is None else step)
        return flat(name, found, self.width)


class Frames:
    """The frames that references speak of, ``[N, C, H, W]`` bytes, decoded when they are asked for.

    Args:
        field: the input.
        references: such as ``clip.mp4#17``.
        origin: the name of the source, for messages.

    Raises:
        DataError: one is no reference.
    """

    def __init__(self, field: Video, references: pl.Series, origin: str) -> None:
        form = r"^(.+)#(\d+)$"
        paths = references.cast(pl.String).str.extract(form, 1)
        if paths.null_count():
            row = int(paths.is_null().arg_max() or 0)
            where = f"{origin}: column {references.name!r}, row {row + 1}"
            expected = "a reference to a frame, such as 'clip.mp4#17'"
            raise DataError(where, expected, repr(references[row]), "correct it")
        self._field, self._origin = field, origin
        self._names = paths.unique(maintain_order=True).to_list()
        places = {name: place for place, name in enumerate(self._names)}
        self._files = np.array([places[path] for path in paths], np.int64)
        self._numbers = references.str.extract(form, 2).cast(pl.Int64).to_numpy()
        self._open: OrderedDict[int, Clip] = OrderedDict()
        self._kept: OrderedDict[tuple[int, int], Bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """The frames of some steps, ``[*index, C, H, W]``.

        Raises:
            DataError: a file is not there, damaged, or has no such frame.
        """
        flat = index.reshape(-1).numpy()
        wanted = list(zip(self._files[flat].tolist(), self._numbers[flat].tolist(), strict=True))
        # In the order in which they lie in the files, since decoding only goes ahead.
        found = {frame: self._picture(*frame) for frame in sorted(set(wanted))}
        shape = (len(wanted), *self._field.shape)
        pictures = np.array([found[frame] for frame in wanted], np.uint8).reshape(shape)
        return torch.from_numpy(pictures).view(*index.shape, *shape[1:])

    def _picture(self, file: int, number: int) -> Bytes:
        found = self._kept.get((file, number))
        if found is None:
            where = f"{self._origin}: {self._names[file]}"
            found = self._field.picture(self._clip(file, where), number, where)
            self._kept[file, number] = found
        self._kept.move_to_end((file, number))
        while len(self._kept) * found.nbytes > KEPT:
            self._kept.popitem(last=False)
        return found

    def _clip(self, file: int, where: str) -> Clip:
        if file not in self._open:
            self._open[file] = self._field.open(self._names[file], where)
            if len(self._open) > OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(file)
        return self._open[file]
