"""Several tables of the same things become one; rows of events become columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import polars as pl

from segue.errors import DataError

Clocks = Literal["merge", "apart"]


def pivoted(
    frame: pl.DataFrame,
    framing: Sequence[str],
    name: str,
    value: str,
    wanted: Iterable[str],
    origin: str,
) -> pl.DataFrame:
    """Rows of events, each of which says one value of one thing, as a row per time with a column
    for each thing; what was not said is not observed. Of several values at one time the last
    counts.

    Args:
        framing: the columns of the key and the time; all others belong to the key.
        name, value: the columns of what was observed, and of its value.
        wanted: things that are to have a column though no event is of them.

    Raises:
        DataError: a column is missing, or a thing is called like another column.
    """
    for column in (*framing, name, value):
        if column not in frame.columns:
            got, fix = "the columns " + ", ".join(frame.columns[:8]), "correct `data`"
            raise DataError(origin, f"a column {column!r}", got, fix)
    rest = [c for c in frame.columns if c not in (*framing, name, value)]
    things = frame[name].drop_nulls().unique(maintain_order=True).cast(pl.String).to_list()
    taken = [thing for thing in things if thing in (*framing, *rest)]
    if taken:
        where = f"{origin}: column {name!r}"
        fix = "rename the column or the event"
        raise DataError(where, "names that no column has", repr(taken[0]), fix)
    index = pl.col(framing)
    wide = frame.group_by(framing, maintain_order=True).agg(
        *(pl.col(c).last() for c in rest),
        *(
            pl.col(value).filter(pl.col(name).cast(pl.String) == t).drop_nulls().last().alias(t)
            for t in things
        ),
    )
    absent = [thing for thing in wanted if thing not in wide.columns]
    empty = (pl.lit(None, dtype=frame[value].dtype).alias(thing) for thing in absent)
    return wide.with_columns(*empty).select(index, *rest, *things, *absent)


def together(
    frames: Mapping[str, pl.DataFrame], key: str | None, time: str | None, clocks: Clocks
) -> pl.DataFrame:
    """One table of several, whose rows belong together by the key.

    A table without the time has one row per key, which holds for all of the key's steps. The rows
    of the others are put in one order of time, where what a table does not say at a time is not
    observed (``merge``), or become lists in one row per key, each with its own clock (``apart``).

    Args:
        frames: by name; the first has all keys.
        key, time: the columns that tables share; found where they are not said.

    Raises:
        DataError: a table without the key, two columns of one name, a key that only a later table
            has, or one that has two rows where there should be one.
    """
    key, time = _shared(frames, key, time)
    _refuse_same_names(frames, {key, time})
    main = next(iter(frames))
    known = frames[main][key].unique()
    for name, frame in frames.items():
        lone = frame.filter(~pl.col(key).is_in(known.implode()))
        if lone.height:
            first = lone[key][0]
            rows = lone.filter(pl.col(key) == first).height
            expected = f"rows of key {first!r} in {main!r} as well"
            got = f"{rows} in {name!r} and none there"
            raise DataError(name, expected, got, "add or remove them, or name another table first")
    if not any(time in frame.columns for frame in frames.values()):
        got, fix = "none", "name it as `data: {time: ...}`"
        raise DataError(", ".join(frames), "a column of the time in one of them", got, fix)
    timed = {n: frame for n, frame in frames.items() if time in frame.columns}
    static = {n: frame for n, frame in frames.items() if time not in frame.columns}
    for name, frame in static.items():
        twice = frame.filter(pl.col(key).is_duplicated())
        if twice.height:
            got, fix = f"two rows of key {twice[key][0]!r}", f"add the column {time!r}"
            raise DataError(name, "one row per key, without a time", got, fix)
    joined = _merged(timed, key, time) if clocks == "merge" else _apart(timed, key, time)
    for frame in static.values():
        joined = joined.join(frame, on=key, how="left", maintain_order="left")
    return joined


def _shared(
    frames: Mapping[str, pl.DataFrame], key: str | None, time: str | None
) -> tuple[str, str]:
    """The columns of the key and the time."""
    common = [
        c for c in next(iter(frames.values())).columns if all(c in f for f in frames.values())
    ]
    if key is None:
        candidates = [c for c in common if c != time and c.lower() not in ("time", "date", "step")]
        if not candidates:
            names = ", ".join(frames)
            got, fix = "none", "name it as `data: {key: ...}`"
            raise DataError(names, "a column that all tables have, as the key", got, fix)
        key = candidates[0]
    for name, frame in frames.items():
        if key not in frame.columns:
            got = "the columns " + ", ".join(frame.columns[:8])
            raise DataError(name, f"a column {key!r}, the key", got, "add it")
    return key, time or next((c for c in common if c != key), "time")


def _refuse_same_names(frames: Mapping[str, pl.DataFrame], framing: set[str]) -> None:
    owner: dict[str, str] = {}
    for name, frame in frames.items():
        for column in frame.columns:
            if column in owner and column not in framing:
                got = f"one in {owner[column]!r} as well"
                raise DataError(name, f"a column {column!r} of its own", got, "rename one of them")
            owner[column] = name


def _merged(frames: Mapping[str, pl.DataFrame], key: str, time: str) -> pl.DataFrame:
    """All rows of all tables in one order of time; rows of one time are one row."""
    joined, *rest = frames.values()
    by = [key, time]
    for other in rest:
        joined = joined.join(other, on=by, how="full", coalesce=True, maintain_order="left")
    order = joined[key].unique(maintain_order=True)
    place = pl.DataFrame({key: order, "place of the key": range(len(order))})
    joined = joined.join(place, on=key, how="left", maintain_order="left")
    return joined.sort("place of the key", time, maintain_order=True).drop("place of the key")


def _apart(frames: Mapping[str, pl.DataFrame], key: str, time: str) -> pl.DataFrame:
    """A row per key, in which every column of every table is a list of its own length; the times
    are those of the first table.
    """
    main, *_ = frames.values()
    joined = pl.DataFrame({key: main[key].unique(maintain_order=True)})
    for frame in frames.values():
        lists = frame.sort(time, maintain_order=True).group_by(key, maintain_order=True)
        columns = pl.all() if frame is main else pl.all().exclude(time)
        joined = joined.join(lists.agg(columns), on=key, how="left", maintain_order="left")
    return joined
