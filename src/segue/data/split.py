"""Which steps train, which choose the epoch, and which are only for the final score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segue.data.order import permutation
from segue.errors import DataError
from segue.schema import Split
from segue.sequences import Part, Sequences

PARTS = ("train", "valid", "test")


def split(sequences: Sequences, how: Split, seed: int) -> dict[str, Part]:
    """The parts train, valid and test of `sequences`; empty parts have no spans.

    Raises:
        DataError: nothing is left to train on.
    """
    if how.by == "none":
        parts = _by_row(np.zeros(sequences.count, np.int64), sequences)
    elif how.by == "given":
        parts = _given(sequences, how)
    elif how.by == "time":
        parts = _by_time(sequences, how)
    else:
        count = sequences.count
        place = permutation(seed, 0, count) if how.by == "random" else np.arange(count)
        bounds = _bounds(np.array([count]), how)
        label = np.empty(count, np.int64)
        label[place] = np.searchsorted(bounds[:, 0], np.arange(count), side="right")
        parts = _by_row(label, sequences)
    if parts["train"].steps == 0:
        got = f"none of {sequences.count} sequences, {sequences.total} steps"
        raise DataError(
            f"{sequences.origin}: data.split",
            "steps to train on",
            got,
            "make valid and test smaller",
        )
    return parts


def _by_row(label: NDArray[np.int64], sequences: Sequences) -> dict[str, Part]:
    parts = {}
    for code, name in enumerate(PARTS):
        rows = np.flatnonzero(label == code)
        parts[name] = Part(rows, np.zeros_like(rows), sequences.lengths[rows])
    return parts


def _bounds(lengths: NDArray[np.int64], how: Split) -> NDArray[np.int64]:
    """Where train and valid end, ``[2, B]``, in sequences of these lengths."""
    valid, test = (
        np.minimum(round(share), lengths)
        if share >= 1
        else np.floor(share * lengths).astype(np.int64)
        for share in (how.valid, how.test)
    )
    if how.train is not None:
        train = (
            np.minimum(round(how.train), lengths)
            if how.train >= 1
            else np.floor(how.train * lengths)
        )
        ends = np.stack([train, train + valid]).astype(np.int64)
        return np.minimum(ends, lengths)
    ends = np.stack([lengths - valid - test, lengths - test]).astype(np.int64)
    return np.maximum(ends, 0)


def _by_time(sequences: Sequences, how: Split) -> dict[str, Part]:
    first, second = _bounds(sequences.lengths, how)
    stop = sequences.lengths
    if how.train is not None and how.test >= 1:
        stop = np.minimum(stop, second + round(how.test))
    return _spans(np.zeros_like(first), first, second, stop)


def _spans(*bounds: NDArray[np.int64]) -> dict[str, Part]:
    parts = {}
    for name, start, stop in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
        rows = np.flatnonzero(stop > start)
        parts[name] = Part(rows, start[rows], stop[rows])
    return parts


def _given(sequences: Sequences, how: Split) -> dict[str, Part]:
    column = how.column or ""
    by_step = column in sequences.steps.columns
    said = (sequences.steps if by_step else sequences.static)[column].cast(str)
    unknown = said.filter(~said.is_in(PARTS) | said.is_null())
    if len(unknown):
        where = f"{sequences.origin}: column {column!r}"
        raise DataError(
            where, "train, valid or test in every row", repr(unknown[0]), "correct the column"
        )
    label = said.replace_strict(
        dict(zip(PARTS, range(3), strict=True)), return_dtype=int
    ).to_numpy()
    if not by_step:
        return _by_row(label, sequences)
    sizes = np.zeros((3, sequences.count), np.int64)
    owner = np.repeat(np.arange(sequences.count), sequences.lengths)
    np.add.at(sizes, (label, owner), 1)
    falls = np.flatnonzero((np.diff(label) < 0) & (np.diff(owner) == 0))
    if len(falls):
        raise DataError(
            f"{sequences.origin}: column {column!r}, key {sequences.keys[int(owner[falls[0]])]!r}",
            "train, then valid, then test within a key",
            f"{PARTS[label[falls[0] + 1]]} after {PARTS[label[falls[0]]]}",
            "correct the column",
        )
    ends = np.cumsum(sizes, axis=0)
    return _spans(np.zeros_like(ends[0]), *ends)
