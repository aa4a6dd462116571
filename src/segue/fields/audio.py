"""Audio: recordings, as feature vectors of short windows, one window a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError, SpecError
from segue.fields.field import (
    Encoder,
    Field,
    Values,
    are_paths,
    blocks,
    raw_column,
    unfolded,
)
from segue.fields.many_hot import Identity
from segue.fields.number import scale_of
from segue.fields.recording import Decoder, heard
from segue.fields.spectrum import Kind, Spectrum
from segue.schema import AboveZero, Count, Input, Positive, Role


class Audio(Field):
    """A column of paths to recordings: each is as many steps as it has windows.

    A step is the feature vector of one window, see `segue.fields.spectrum.Spectrum`; coefficient c
    of it becomes ``(v - shift[c]) / scale[c]`` with the mean and the standard deviation of all
    windows of the training rows. A live record holds the vector of one window, which `spectrum`
    makes of samples as they come in.
    """

    long = False
    suffixes = (".wav", ".flac", ".ogg")

    class Spec(Input):
        """Options of kind `audio`."""

        roles: ClassVar[tuple[Role, ...]] = ("step", "apart")
        rate: Positive = 16_000
        channels: Literal["mean", "left", "right"] | Count = "mean"
        features: Kind = "log_mel"
        size: Positive = 40
        coefficients: Positive = 13
        window: AboveZero = 0.025
        hop: AboveZero = 0.01
        deltas: Literal[0, 1, 2] = 0
        stack: Positive = 1
        on_error: Literal["stop", "skip"] = "stop"

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._spec = spec
        laws = ("rate", "features", "size", "coefficients", "window", "hop", "deltas", "stack")
        try:
            self.spectrum = Spectrum(**{law: getattr(spec, law) for law in laws})
        except SpecError as error:
            where = f"inputs.{name}.{error.where}"
            raise SpecError(where, error.expected, error.got, error.fix) from None
        self.shift: NDArray[np.float64] = np.zeros(self.spectrum.width)
        self.scale: NDArray[np.float64] = np.ones(self.spectrum.width)

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        return whole and are_paths(values, cls.suffixes)

    def unfold(self, cells: pl.Series, origin: str) -> tuple[pl.Series, NDArray[np.int64]]:
        """The windows of all recordings, one after another, and the number of each recording's.

        A cell may also hold the windows themselves, a list of vectors. A recording that cannot be
        read has -1 where the declaration says ``on_error: skip``.

        Raises:
            DataError: one cannot be read, or is shorter than a window.
        """
        if isinstance(cells.dtype, pl.List):
            steps, lengths = unfolded(cells, origin)
            return self.column(cells.name, steps.to_list(), origin), lengths
        frames = [np.empty((0, self.spectrum.width), np.float32)]
        lengths = np.full(len(cells), -1, np.int64)
        with Decoder() as decoder:
            for row, cell in enumerate(cells):
                where = f"{origin}: column {cells.name!r}, row {row + 1}"
                if cell is None and self.may_lack:
                    lengths[row] = 0
                    continue
                try:
                    own = self._frames(decoder, cell, where)
                except DataError:
                    if self._spec.on_error == "stop":
                        raise
                    continue
                frames += own
                lengths[row] = sum(map(len, own))
        return pl.Series(cells.name, np.concatenate(frames), dtype=self._dtype), lengths

    def _frames(self, decoder: Decoder, cell: str | None, where: str) -> list[NDArray[np.float32]]:
        """The windows of a recording, some at a time."""
        if cell is None:
            raise DataError(where, "a path to a sound file", "an empty cell", "fill it in")
        where = f"{where} ({cell})"
        rate, channel = self._spec.rate, self._spec.channels
        state, frames, count = self.spectrum.initial_state(), [], 0
        for samples in heard(decoder, self.folder / cell, rate, channel, where):
            own, state = self.spectrum.step(samples, state)
            frames.append(own)
            count += len(samples)
        if not any(map(len, frames)):
            steps = "a window" if self._spec.stack == 1 else f"{self._spec.stack} windows"
            expected = f"at least {steps} of {self._spec.window:g} s"
            got = f"{count / rate:.3g} s" if count else "no samples"
            raise DataError(where, expected, got, "leave it out, or declare a shorter `window`")
        return frames

    def fit(self, frame: pl.DataFrame) -> None:
        values = frame[self.columns[0]].to_numpy()
        count, total = max(1, len(values)), np.zeros(self.spectrum.width)
        for some in blocks(len(values)):
            total += values[some].sum(0, dtype=np.float64)
        self.shift, squares = total / count, np.zeros_like(total)
        for some in blocks(len(values)):
            squares += np.square(values[some] - self.shift).sum(0)
        spread = np.sqrt(squares / count)
        self.scale = np.array([scale_of(*both) for both in zip(spread, self.shift, strict=True)])

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        series = frame[self.columns[0]]
        where = f"{origin}: column {series.name!r}"
        if series.dtype != self._dtype or series.null_count():
            got = "an empty cell" if series.null_count() else str(series.dtype)
            fix = "make it with `Spectrum.step`; see docs/audio.md"
            raise DataError(where, self._expected, got, fix)
        values = series.to_numpy()
        if not np.isfinite(values).all():
            raise DataError(where, "finite numbers", "NaN or infinity", "correct the samples")
        encoded = np.empty(values.shape, np.float32)
        for some in blocks(len(values)):
            encoded[some] = (values[some] - self.shift) / self.scale
        return torch.from_numpy(encoded)

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        if any(type(row[0]) is not np.ndarray for row in rows):
            return None
        if any(row[0].shape != self.shift.shape for row in rows):
            return None
        values = np.stack([row[0] for row in rows]).astype(np.float32)
        if not np.isfinite(values).all():
            return None
        return ((values - self.shift) / self.scale).astype(np.float32)

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        return raw_column(name, values, self._dtype, self._expected, origin)

    @property
    def _dtype(self) -> pl.Array:
        return pl.Array(pl.Float32, self.spectrum.width)

    @property
    def _expected(self) -> str:
        return f"the {self.spectrum.width} numbers of a window"

    def encoder(self) -> Encoder:
        return Identity(self.spectrum.width)

    def fitted(self) -> dict[str, Any]:
        return {"shift": self.shift.tolist(), "scale": self.scale.tolist()}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.shift, self.scale = np.array(fitted["shift"], float), np.array(fitted["scale"], float)

    def example(self, index: int) -> list[float]:
        return [float(f"{mean:.4g}") for mean in self.shift]

    def describe(self) -> str:
        spectrum = self.spectrum
        per_second = spectrum.rate / spectrum.hop / spectrum.stack
        return f"{spectrum.width} {self._spec.features}, {per_second:g} steps per second"
