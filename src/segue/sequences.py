"""`Sequences`: the user's values before any encoding, sequence after sequence, without padding."""

from __future__ import annotations

from collections.abc import Sequence as Rows
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
        times: when each step is, float64 ``[N]``, in units of the clock (seconds for dates, else the column's own); the
            step's index where the data have no time.
        has_time: whether `times` came from the data.
        origin: the name of the source, for messages.
    """

    steps: pl.DataFrame
    lengths: NDArray[np.int64]
    keys: pl.Series
    static: pl.DataFrame
    times: NDArray[np.float64]
    has_time: bool
    origin: str

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

    def select(self, rows: NDArray[np.int64] | Rows[int]) -> Sequences:
        """The sequences with these indices, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return self.cut(chosen, np.zeros(len(chosen), np.int64), self.lengths[chosen])

    def head(self, lengths: NDArray[np.int64]) -> Sequences:
        """The first `lengths[b]` steps of every sequence."""
        return self.cut(
            np.arange(self.count), np.zeros(self.count, np.int64), np.minimum(lengths, self.lengths)
        )

    def cut(
        self, rows: NDArray[np.int64], start: NDArray[np.int64], length: NDArray[np.int64]
    ) -> Sequences:
        """Pieces: `length[p]` steps of sequence `rows[p]` from its step `start[p]` on."""
        index = spans(self.offsets[rows] + start, length)
        return replace(
            self,
            steps=rows_of(self.steps, index),
            lengths=np.asarray(length, np.int64),
            keys=self.keys[rows],
            static=rows_of(self.static, rows),
            times=self.times[index],
        )


@dataclass(frozen=True)
class Part:
    """Spans of sequences: steps ``start[p] .. stop[p] - 1`` of sequence ``rows[p]``.

    What lies before `start` may be read (it is the past), but nothing there is scored or learnt from.
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


def whole(sequences: Sequences) -> Part:
    """All steps of all sequences."""
    rows = np.arange(sequences.count)
    return Part(rows, np.zeros_like(rows), sequences.lengths)


def spans(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers ``start[p] .. start[p] + length[p] - 1`` of every p, one after another.

    >>> spans(np.array([0, 10]), np.array([2, 3])).tolist()
    [0, 1, 10, 11, 12]
    """
    first = np.cumsum(length) - length
    return np.arange(int(length.sum()), dtype=np.int64) + np.repeat(start - first, length)


def rows_of(frame: pl.DataFrame, rows: NDArray[np.int64]) -> pl.DataFrame:
    """These rows of a frame, which may have no columns at all."""
    return frame[rows] if frame.width else frame
