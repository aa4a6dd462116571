"""`Sequences`: the user's values before any encoding, sequence after sequence, without padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """B sequences as the user gave them.

    Attributes:
        steps: one row per step, N rows, the steps of a sequence one after another in time order.
        lengths: steps of each sequence, int64 ``[B]``, summing to N.
        keys: the name of each sequence, ``[B]``.
        static: one row per sequence, B rows: what does not change from step to step.
        times: when each step is, float64 ``[N]``, in units of the clock (seconds for dates, else
            the column's own); the step's index where the data have no time.
        has_time: whether `times` came from the data.
        origin: the name of the source, for messages.
        skipped: examples that could not be read and were left out, as the declaration allows.
        keyed: whether `keys` came from the data; otherwise they count the sequences from 0.
    """

    steps: pl.DataFrame
    lengths: NDArray[np.int64]
    keys: pl.Series
    static: pl.DataFrame
    times: NDArray[np.float64]
    has_time: bool
    origin: str
    keyed: bool = True
    skipped: int = 0

    @property
    def count(self) -> int:
        """B, the number of sequences."""
        return len(self.lengths)

    @property
    def total(self) -> int:
        """N, the number of steps of all sequences."""
        return int(self.lengths.sum())

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each sequence starts, and N at the end: ``[B + 1]``."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def left_out(self) -> tuple[str, ...]:
        """A line on what was skipped, for people; none where nothing was."""
        if not self.skipped:
            return ()
        count = f"{self.skipped:,} of {self.count + self.skipped:,}"
        return (f"{count} rows are left out, since they cannot be read",)

    def place(self, row: int) -> str:
        """What to call a sequence in a message."""
        return f"key {self.keys[row]!r}" if self.keyed else f"row {int(self.keys[row]) + 1}"

    def step_place(self, step: int) -> str:
        """What to call a step, counted over all sequences, in a message."""
        row = int(np.searchsorted(self.offsets, step, side="right")) - 1
        return f"{self.place(row)}, step {step - int(self.offsets[row]) + 1}"

    def cut(
        self, rows: NDArray[np.int64], start: NDArray[np.int64], length: NDArray[np.int64]
    ) -> Sequences:
        """Pieces: `length[p]` steps of sequence `rows[p]` from its step `start[p]` on."""
        place = _Places(self.offsets[rows] + start, length)
        return replace(
            self,
            steps=place.of_frame(self.steps),
            lengths=np.asarray(length, np.int64),
            keys=self.keys[rows],
            static=rows_of(self.static, rows),
            times=place.of_array(self.times),
        )


@dataclass(frozen=True)
class Part:
    """Spans of sequences: steps ``start[p] .. stop[p] - 1`` of sequence ``rows[p]``.

    What lies before `start` may be read (it is the past), but nothing there is scored or learnt
    from.
    """

    rows: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @classmethod
    def whole(cls, sequences: Sequences) -> Part:
        """All steps of all sequences."""
        rows = np.arange(sequences.count)
        return cls(rows, np.zeros_like(rows), sequences.lengths)

    @property
    def count(self) -> int:
        """Number of spans."""
        return len(self.rows)

    @property
    def steps(self) -> int:
        """Number of steps in all spans."""
        return int((self.stop - self.start).sum())

    def of(self, sequences: Sequences) -> Sequences:
        """These spans on their own, without their past."""
        return sequences.cut(self.rows, self.start, self.stop - self.start)


def spans(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers ``start[p] .. start[p] + length[p] - 1`` of every p, one after another.

    >>> spans(np.array([0, 10]), np.array([2, 3])).tolist()
    [0, 1, 10, 11, 12]
    """
    first = np.cumsum(length) - length
    shift: NDArray[np.int64] = np.repeat(start - first, length)
    return np.arange(len(shift), dtype=np.int64) + shift


def rows_of(frame: pl.DataFrame, rows: NDArray[np.int64]) -> pl.DataFrame:
    """These rows of a frame, which may have no columns at all."""
    return frame[rows] if frame.width else frame


class _Places:
    """Where spans lie; what is taken from there is not copied if they are few or lie together."""

    FEW = 1000

    def __init__(self, start: NDArray[np.int64], length: NDArray[np.int64]) -> None:
        together = bool((start[1:] == start[:-1] + length[:-1]).all()) and len(start) > 0
        first, size = (start[:1], length.sum(keepdims=True)) if together else (start, length)
        self._pieces = list(zip(first.tolist(), size.tolist(), strict=True))
        self._spans = (start, length)

    def of_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not frame.width:
            return frame
        if 0 < len(self._pieces) <= self.FEW:
            pieces = [frame.slice(start, length) for start, length in self._pieces]
            return pl.concat(pieces, rechunk=False)
        return frame[spans(*self._spans)]

    def of_array(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        pieces = [values[start : start + length] for start, length in self._pieces]
        return pieces[0] if len(pieces) == 1 else np.concatenate([values[:0], *pieces])
