"""Which steps train, which choose the epoch, and which are only for the final score."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.data.order import permutation
from segue.errors import DataError, SpecError
from segue.schema import Declaration, Split
from segue.sequences import Part, Sequences
from segue.tasks import Task

PARTS = ("train", "valid", "test")

FEW = 200
"""With fewer sequences than this none are held out for validation: training needs them more."""

LONG = 100_000
"""A single sequence of so many steps that a smaller share of it is enough to judge by."""


def with_split(
    declaration: Declaration, sequences: Sequences, tasks: Iterable[Task]
) -> Declaration:
    """The declaration with its split inferred where it was left open; see `inferred`.

    Raises:
        SpecError: a split that cuts sequences whose targets belong to the whole of them.
    """
    tasks = list(tasks)
    uncut = next((task.name for task in tasks if task.whole), None)
    if uncut is not None and declaration.data.split.by == "time":
        expected = f"key, random, given or none with task {declaration.outputs[uncut].task}"
        fix = "leave it out: a sequence and its target are never cut"
        raise SpecError("data.split.by", expected, "time", fix)
    horizon = max(getattr(task, "horizon", 0) for task in tasks)
    how = inferred(declaration.data.split, sequences, horizon, cuts=uncut is None)
    data = declaration.data.model_copy(update={"split": how})
    return declaration.model_copy(update={"data": data})


def inferred(how: Split, sequences: Sequences, horizon: int, *, cuts: bool = True) -> Split:
    """`how` with what it leaves open: by default the last steps of a forecast and of a single
    sequence are held out, otherwise sequences at random.

    Where a share would leave less than the horizon to be scored, the parts are of one horizon each,
    as far as that leaves more than one horizon to train on.

    Args:
        horizon: S of a forecast; 0 for other tasks.
        cuts: whether sequences may be cut.
    """
    by = how.by or ("time" if horizon or (cuts and sequences.count == 1) else "random")
    if by in ("given", "none"):
        return how.model_copy(update={"by": by})
    valid: float = 0.15
    test: float = 0.15
    if by != "time" and sequences.count < FEW:
        valid, test = 0, 0.2
    elif by == "time" and sequences.total > LONG and not horizon:
        valid, test = 0.05, 0.1
    steps = int(np.median(sequences.lengths))
    if by == "time" and valid * steps < horizon:
        valid, test = (horizon if steps > more * horizon else 0 for more in (3, 2))
    held_out = {
        "valid": valid if how.valid is None else how.valid,
        "test": test if how.test is None else how.test,
    }
    return how.model_copy(update={"by": by, **held_out})


def split(sequences: Sequences, how: Split, seed: int) -> dict[str, Part]:
    """The parts train, valid and test of `sequences`; empty parts have no spans.

    Args:
        how: with nothing left open; see `inferred`.
        seed: of a random split.

    Raises:
        DataError: nothing is left to train on; a given split is not one.
    """
    if how.by == "given":
        parts = _given(sequences, how)
    elif how.by == "time":
        ends = _ends(sequences.lengths, how)
        parts = _spans(np.zeros_like(ends[0]), *ends)
    else:
        parts = _by_row(_labels(sequences.count, how, seed), sequences)
    if parts["train"].steps == 0:
        where = f"{sequences.origin}: data.split"
        got = f"none of {sequences.count} sequences, {sequences.total} steps"
        raise DataError(where, "steps to train on", got, "make valid and test smaller")
    return parts


def refuse_short(parts: dict[str, Part], tasks: Iterable[Task], origin: str) -> None:
    """Refuse a held-out part that is too short for a forecast: better before training than after.

    Raises:
        DataError: there is one.
    """
    horizon = max(getattr(task, "horizon", 0) for task in tasks)
    for name in ("valid", "test"):
        longest = int((parts[name].stop - parts[name].start).max(initial=0))
        if 0 < longest < horizon:
            expected = f"spans of at least the horizon ({horizon} steps)"
            fix = f"make data.split.{name} larger or 0, or shorten the horizon"
            where = f"{origin}: data.split.{name}"
            raise DataError(where, expected, f"at most {longest} steps", fix)


def _labels(count: int, how: Split, seed: int) -> NDArray[np.int64]:
    """The part of every sequence: 0 train, 1 valid, 2 test, 3 none."""
    if how.by == "none":
        return np.zeros(count, np.int64)
    place = permutation(seed, 0, count) if how.by == "random" else np.arange(count)
    label = np.empty(count, np.int64)
    ends = _ends(np.array([count]), how)[:, 0]
    label[place] = np.searchsorted(ends, np.arange(count), side="right")
    return label


def _by_row(label: NDArray[np.int64], sequences: Sequences) -> dict[str, Part]:
    parts = {}
    for code, name in enumerate(PARTS):
        rows = np.flatnonzero(label == code)
        parts[name] = Part(rows, np.zeros_like(rows), sequences.lengths[rows])
    return parts


def _ends(lengths: NDArray[np.int64], how: Split) -> NDArray[np.int64]:
    """Where train, valid and test end, ``[3, B]``, in sequences of these lengths."""
    valid, test = _count(how.valid, lengths), _count(how.test, lengths)
    if how.train is None:
        ends = np.stack([lengths - valid - test, lengths - test, lengths])
        return np.maximum(ends, 0)
    first = _count(how.train, lengths)
    rest = test if how.test is not None and how.test >= 1 else lengths
    return np.minimum(np.cumsum(np.stack([first, valid, rest]), axis=0), lengths)


def _count(share: float | None, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    share = share or 0
    if share >= 1:
        return np.minimum(round(share), lengths)
    # 0.29 * 100 is 28.999999999999996.
    counts: NDArray[np.int64] = np.floor(share * lengths + 1e-9).astype(np.int64)
    return counts


def _spans(*bounds: NDArray[np.int64]) -> dict[str, Part]:
    parts = {}
    for name, start, stop in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
        rows = np.flatnonzero(stop > start)
        parts[name] = Part(rows, start[rows], stop[rows])
    return parts


def _given(sequences: Sequences, how: Split) -> dict[str, Part]:
    column = how.column or ""
    where = f"{sequences.origin}: column {column!r}"
    by_step = column in sequences.steps.columns
    frame = sequences.steps if by_step else sequences.static
    if column not in frame.columns:
        fix = "add it or change data.split"
        raise DataError(where, "the column that data.split names", "no such column", fix)
    said = frame[column].cast(pl.String)
    unknown = said.filter(~said.is_in(PARTS) | said.is_null())
    if len(unknown):
        expected, got = "train, valid or test in every row", repr(unknown[0])
        raise DataError(where, expected, got, "correct the column")
    codes = dict(zip(PARTS, range(3), strict=True))
    label = said.replace_strict(codes, return_dtype=pl.Int64).to_numpy()
    if not by_step:
        return _by_row(label, sequences)
    owner = np.repeat(np.arange(sequences.count), sequences.lengths)
    falls = np.flatnonzero((np.diff(label) < 0) & (np.diff(owner) == 0))
    if len(falls):
        before, after = PARTS[label[falls[0]]], PARTS[label[falls[0] + 1]]
        where, fix = f"{where}, {sequences.place(int(owner[falls[0]]))}", "correct the column"
        raise DataError(where, "train, then valid, then test", f"{after} after {before}", fix)
    sizes = np.zeros((3, sequences.count), np.int64)
    np.add.at(sizes, (label, owner), 1)
    ends = np.cumsum(sizes, axis=0)
    return _spans(np.zeros_like(ends[0]), *ends)
