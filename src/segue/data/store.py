"""`Store`: a data set encoded once, and the batches that are gathered from it by index.

Nothing is copied per window: a batch reads spans of the store, so memory does not grow with the
number of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.data.order import draws, permutation
from segue.errors import DataError
from segue.fields import Field
from segue.fields.number import numbers
from segue.ragged import Ragged
from segue.sequences import Part, Sequences, spans
from segue.tasks import Forecast, Future, NextFrame, Task, Whole

Target: TypeAlias = Tensor | Future | Whole


@dataclass(frozen=True)
class Batch:
    """P spans of encoded steps, one after another.

    Attributes:
        inputs: encoded per-step inputs by name, ``[n, ...]``.
        static: encoded static inputs by name, ``[P, ...]``; of an input apart its P sequences.
        series: the own past of each output that reads it by name, float64 ``[n, C]``, NaN where not
            observed.
        times: when each step is, float64 ``[n]``.
        lengths: steps of each span, int64 ``[P]``.
        at: the steps at which outputs are wanted, int64 ``[M]`` into n.
        ahead: known-ahead inputs of the S steps after each of `at`, by name, ``[M, S, ...]``.
    """

    inputs: dict[str, Tensor]
    static: dict[str, Any]
    series: dict[str, Tensor]
    times: Tensor
    lengths: Tensor
    at: Tensor
    ahead: dict[str, Tensor]


@dataclass(frozen=True)
class Pieces:
    """Training examples as indices: steps ``start .. start + length - 1`` of sequence ``row``."""

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Pieces:
        return Pieces(self.row[chosen], self.start[chosen], self.length[chosen])


class Store:
    """Encoded sequences.

    Args:
        sequences: the raw values.
        fields: fitted fields of the inputs.
        static, apart: those that are encoded once per sequence, and those that have a sequence of
            their own for each.
        tasks: fitted tasks; their targets are encoded when `targets`.
    """

    def __init__(
        self,
        sequences: Sequences,
        fields: Mapping[str, Field],
        static: frozenset[str],
        apart: frozenset[str],
        known: frozenset[str],
        tasks: Mapping[str, Task],
        *,
        targets: bool,
    ) -> None:
        self.lengths, self.offsets = sequences.lengths, sequences.offsets
        self._fields = fields
        self.times = sequences.times
        origin = sequences.origin
        self.inputs = {
            n: f.encode(sequences.steps, origin)
            for n, f in fields.items()
            if n not in static and n not in apart
        }
        self.static: dict[str, Any] = {
            n: f.encode(sequences.static, origin) for n, f in fields.items() if n in static
        }
        self._apart = {
            n: Ragged(_at_once(f.encode(steps, origin)), torch.from_numpy(lengths))
            for n, f in fields.items()
            if n in apart
            for steps, lengths in (apart_steps(f, sequences.static, origin),)
        }
        forecasts = {name: task for name, task in tasks.items() if isinstance(task, Forecast)}
        self._series = {n: _series(t, sequences) for n, t in tasks.items() if t.reads_series}
        self._known = known
        self._horizon = {name: task.horizon for name, task in forecasts.items()}
        self._frames = {n: t for n, t in tasks.items() if isinstance(t, NextFrame) and targets}
        self._units = {name: task.units(sequences.keys) for name, task in forecasts.items()}
        self.targets: dict[str, Any] = {}
        self._whole = frozenset(name for name, task in tasks.items() if task.whole)
        self._sequences = sequences if self._whole else None
        self._every = {name: task.every for name, task in tasks.items()}
        self._look_ahead = {name for name, task in tasks.items() if task.looks_ahead}
        if targets:
            self.targets = {
                n: t.encode(sequences)
                for n, t in tasks.items()
                if not isinstance(t, Forecast | NextFrame)
            }

    @property
    def horizon(self) -> int:
        """S, the longest horizon of the forecasts; 0 without any."""
        return max(self._horizon.values(), default=0)

    def remarks(self, part: Part) -> tuple[str, ...]:
        """What is to be said of a part: what has no target, and what is read as "unknown"."""
        found = []
        for name in self._whole & self.targets.keys():
            empty = int((self.targets[name].lengths[part.rows] == 0).sum())
            if empty:
                found.append(f"{name}: {empty:,} of {part.count:,} examples have no target to use")
        first, length = self.offsets[part.rows] + part.start, part.stop - part.start
        steps = torch.from_numpy(spans(first, length))
        for name, encoded in self.inputs.items():
            unknown = self._fields[name].unknown(encoded, steps)
            if unknown:
                found.append(f"{name}: {unknown:,} of {len(steps):,} steps are unknown")
        return tuple(found)

    def batch(self, pieces: Pieces, at: NDArray[np.int64]) -> Batch:
        """The encoded steps of `pieces`, with outputs wanted at `at` (indices into the batch's
        steps).
        """
        steps = spans(self.offsets[pieces.row] + pieces.start, pieces.length)
        index = torch.from_numpy(steps)
        ahead: dict[str, Tensor] = {}
        if self.horizon:
            owner = np.repeat(pieces.row, pieces.length)[at]
            future = steps[at][:, None] + np.arange(1, self.horizon + 1)
            # Beyond the last known step the last known values stand in; it is not scored.
            last = self.offsets[owner + 1][:, None] - 1
            later = torch.from_numpy(np.minimum(future, last))
            ahead = {name: self.inputs[name][later] for name in sorted(self._known)}
        return Batch(
            inputs={name: values[index] for name, values in self.inputs.items()},
            static={
                **{n: values[torch.from_numpy(pieces.row)] for n, values in self.static.items()},
                **{n: own.select(torch.from_numpy(pieces.row)) for n, own in self._apart.items()},
            },
            series={
                name: torch.from_numpy(np.stack([one.at(steps) for one in several], 1))
                for name, several in self._series.items()
            },
            times=torch.from_numpy(self.times[steps]),
            lengths=torch.from_numpy(pieces.length.astype(np.int64)),
            at=torch.from_numpy(at.astype(np.int64)),
            ahead=ahead,
        )

    def targets_at(
        self,
        pieces: Pieces,
        at: NDArray[np.int64],
        stop: NDArray[np.int64],
        *,
        from_start: bool = False,
    ) -> dict[str, Target]:
        """Targets of a batch: per step ``[M, ...]``, at the end ``[P, ...]``, of forecasts the
        `Future` of M origins.

        What would be taken from the step `stop[p]` of its sequence on is NaN or -1: another part
        owns it. So is what would be forecast before anything was observed.

        Args:
            at: the steps at which outputs are wanted, indices into the steps of the pieces.
            from_start: whether each sequence was read from its start on, or from that of the piece.
        """
        steps = spans(self.offsets[pieces.row] + pieces.start, pieces.length)
        owner = np.repeat(np.arange(len(pieces)), pieces.length)[at]
        index, rows = steps[at], pieces.row[owner]
        limit = (self.offsets[pieces.row] + stop)[owner]
        found: dict[str, Target] = {}
        for name, target in self.targets.items():
            if name in self._whole:
                steps_of = torch.from_numpy(np.bincount(owner, minlength=len(pieces)))
                labels = target.select(torch.from_numpy(pieces.row))
                found[name] = Whole(labels, steps_of, self._sequences, pieces.row)
                continue
            own = target[index] if self._every[name] else target[pieces.row]
            gone = torch.from_numpy(index + 1 >= limit)
            found[name] = without(own, gone) if name in self._look_ahead else own
        for name, task in self._frames.items():
            ahead = index[:, None] + np.arange(1, task.horizon + 1)
            frames = self.inputs[name][torch.from_numpy(np.minimum(ahead, limit[:, None] - 1))]
            found[name] = task.future(frames, ahead < limit[:, None])
        for name in self._horizon:
            several = self._series[name]
            future = index[:, None] + np.arange(1, self._horizon[name] + 1)
            inside = future < limit[:, None]
            future = np.minimum(future, len(self.times) - 1)
            values = np.empty((len(index), len(several), self._horizon[name]))
            for place, one in enumerate(several):
                if from_start:
                    begun = one.begin[rows] <= index
                else:
                    first = np.cumsum(pieces.length) - pieces.length
                    begun = one.begun(steps, at, first[owner])
                values[:, place] = np.where(inside & begun[:, None], one.at(future), np.nan)
            units = (unit[rows] for unit in self._units[name])
            found[name] = Future(torch.from_numpy(values), *units)
        return found


class _Series:
    """One column to forecast; one with gaps stays as it is, since filling them would copy it.

    Attributes:
        begin: the first step of each sequence at which it was observed, int64 ``[B]`` into N; N
            for never.
    """

    def __init__(self, column: pl.Series, offsets: NDArray[np.int64], origin: str) -> None:
        self._column, self._origin = column, origin
        self._values = None if column.null_count() else numbers(column, origin)
        self.begin = offsets[:-1].copy()
        if self._values is None:
            seen = column.is_not_null().to_numpy()
            for row, (start, stop) in enumerate(pairwise(offsets.tolist())):
                own = seen[start:stop]
                self.begin[row] = start + own.argmax() if own.any() else len(seen)

    def at(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The values at some steps, in the shape of `index`; NaN where not observed."""
        if self._values is not None:
            return self._values[index]
        return numbers(self._column.gather(index.reshape(-1)), self._origin).reshape(index.shape)

    def begun(
        self, steps: NDArray[np.int64], at: NDArray[np.int64], first: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether anything was observed among ``steps[first[m]] .. steps[at[m]]``, ``[M]``."""
        if self._values is not None:
            return np.ones(len(at), bool)
        counts = np.concatenate([[0], np.cumsum(~np.isnan(self.at(steps)))])
        seen: NDArray[np.bool_] = counts[at + 1] > counts[first]
        return seen


def _at_once(encoded: Any) -> Tensor:
    """Encoded steps, also those that are otherwise made when they are asked for."""
    whole: Tensor = encoded[torch.arange(len(encoded))]
    return encoded if isinstance(encoded, Tensor) else whole


def apart_steps(
    field: Field, frame: pl.DataFrame, origin: str
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The raw steps of an input apart, and how many each of the sequences has; none where it cannot
    be read and may be left out.

    Raises:
        DataError: columns of one input with different numbers of steps.
    """
    found = [field.unfold(frame[column], origin) for column in field.columns]
    first = found[0][1]
    for values, lengths in found[1:]:
        if (lengths != first).any():
            row = int((lengths != first).argmax())
            expected = f"{first[row]} steps in {values.name!r}, as in {field.columns[0]!r}"
            fix = "give the columns of one input the same length"
            raise DataError(f"{origin}: row {row + 1}", expected, str(lengths[row]), fix)
    return pl.DataFrame([values for values, _ in found]), np.maximum(first, 0)


def _series(task: Task, sequences: Sequences) -> list[_Series]:
    return [
        _Series(
            task.past(column, sequences.steps[column], sequences.origin),
            sequences.offsets,
            sequences.origin,
        )
        for column in task.columns
    ]


def without(target: Tensor, gone: Tensor) -> Tensor:
    """`target` with nothing to learn, NaN or -1, in the rows where `gone`."""
    nothing = torch.nan if target.is_floating_point() else -1
    return torch.where(gone.view(-1, *[1] * (target.ndim - 1)), nothing, target)


def tiles(
    part: Part, window: int | None, seed: int, epoch: int
) -> tuple[Pieces, NDArray[np.int64]]:
    """The spans of `part` cut into pieces of at most `window` steps, and the stop of the span that
    each belongs to.

    Where the cuts fall moves with the epoch, so that in time every step is seen in every place of a
    window.
    """
    if window is None:
        return Pieces(part.rows, part.start, part.stop - part.start), part.stop
    length = part.stop - part.start
    shift = (draws(seed ^ 0x5E9E, epoch, part.count) % np.uint64(window)).astype(np.int64)
    shift = np.where(length > window, shift, 0)
    count = np.where(length > window, -(-(length - shift) // window) + (shift > 0), 1)
    owner = np.repeat(np.arange(part.count), count)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    place -= (shift > 0)[owner]
    first = np.maximum(shift[owner] + place * window, 0)
    last = np.minimum(shift[owner] + (place + 1) * window, length[owner])
    return Pieces(part.rows[owner], part.start[owner] + first, last - first), part.stop[owner]


def batches(count: int, size: int | None, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The positions ``0 .. count - 1`` in the order of (seed, epoch), `size` at a time; all at once
    for None.
    """
    order = permutation(seed, epoch, count)
    size = size or max(1, count)
    for first in range(0, count, size):
        yield order[first : first + size]
