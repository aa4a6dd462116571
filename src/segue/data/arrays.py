"""Values in memory become a frame: arrays, lists of arrays, dicts, records, frames of pandas.

An array of sequences becomes list columns by cutting one flat buffer, not by way of Python lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.data.records import frame_of_records
from segue.errors import DataError

ACCEPTED = "a path, a frame, an array, a list of arrays, a dict of columns or a list of records"


def frame_of(source: Any) -> tuple[pl.DataFrame, str]:
    """Turn a value in memory into a frame; the second part names it in messages.

    Raises:
        DataError: nothing that can be read; arrays of a shape that `segue.data.read.read` lacks.
    """
    if isinstance(source, pl.LazyFrame):
        return source.collect(), "frame"
    if isinstance(source, pl.DataFrame):
        return source, "frame"
    if isinstance(source, pl.Series):
        return source.rename(source.name or "x").to_frame(), "frame"
    if type(source).__module__.split(".")[0] == "pandas":
        return _of_pandas(source), "frame"
    if isinstance(source, Mapping):
        return _joined(
            [each for name, value in source.items() for each in _columns(str(name), value)]
        )
    if (
        isinstance(source, list | tuple)
        and source
        and all(isinstance(each, dict) for each in source)
    ):
        return frame_of_records(list(source), "records"), "records"
    if _is_array(source) or (isinstance(source, list | tuple) and source):
        return _joined(_columns("x", source))
    fix = "give one of these"
    got = "an empty list" if isinstance(source, list | tuple) else type(source).__qualname__
    raise DataError("data", ACCEPTED, got, fix)


def _joined(columns: list[pl.Series]) -> tuple[pl.DataFrame, str]:
    rows = {len(column) for column in columns}
    if len(rows) > 1:
        got = ", ".join(f"{len(column)} in '{column.name}'" for column in columns[:4])
        raise DataError(
            "arrays",
            "the same number of rows everywhere",
            got,
            "give each array the same first extent",
        )
    return pl.DataFrame(columns), "arrays"


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "detach")


def _numpy(value: Any, name: str) -> NDArray[Any]:
    """A NumPy view; a tensor is recognised by its methods, so torch need not be imported."""
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        value = (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiubM":
        got = f"dtype {array.dtype}"
        raise DataError(
            f"arrays: '{name}'", "numbers", got, "convert the array to float32 or float64"
        )
    return array


def _columns(name: str, value: Any) -> list[pl.Series]:
    """The columns of ``[B]``, ``[B, T]``, ``[B, T, I]``, or a list of ``[T_i]`` or ``[T_i, I]``."""
    if isinstance(value, pl.Series):
        return [value.rename(name)]
    if _is_array(value):
        array = _numpy(value, name)
        if array.ndim == 1:
            return [pl.Series(name, np.ascontiguousarray(array))]
        if array.ndim in (2, 3):
            return _equal(name, array if array.ndim == 3 else array[:, :, None])
        fix = "reshape it: sequences first, then steps, then inputs"
        raise DataError(
            f"arrays: '{name}'",
            "an array [B], [B, T] or [B, T, I]",
            f"shape {list(array.shape)}",
            fix,
        )
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
    if values is None:
        raise DataError(
            f"arrays: '{name}'",
            "an array or a list",
            type(value).__name__,
            "give one value per row",
        )
    if values and all(_is_array(each) for each in values):
        return _ragged(name, [_numpy(each, name) for each in values])
    if (
        values
        and all(isinstance(each, list | tuple) and each for each in values)
        and _is_nested(values)
    ):
        return _ragged(name, [_rectangle(each, name) for each in values])
    return [frame_of_records([{name: each} for each in values], "arrays")[name]]


def _is_nested(values: list[Any]) -> bool:
    return all(isinstance(step, list | tuple) for each in values for step in each)


def _rectangle(rows: Any, name: str) -> NDArray[Any]:
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        got = f"{widths[0]} and {widths[-1]}"
        raise DataError(
            f"arrays: '{name}'",
            "as many inputs at every step",
            got,
            "give every step the same inputs",
        )
    return _numpy(np.array(rows), name)


def _equal(name: str, array: NDArray[Any]) -> list[pl.Series]:
    """``[B, T, I]`` to I list columns of B lists of T values."""
    count, steps, inputs = array.shape
    _refuse_empty(name, array.shape)
    columns = []
    for title, k in _titles(name, inputs):
        flat = pl.Series(title, np.ascontiguousarray(array[:, :, k]).reshape(-1))
        columns.append(flat.reshape((count, steps)).arr.to_list())
    return columns


def _ragged(name: str, arrays: list[NDArray[Any]]) -> list[pl.Series]:
    """B arrays ``[T_i]`` or ``[T_i, I]`` to I list columns."""
    flat = [array[:, None] if array.ndim == 1 else array for array in arrays]
    shapes = sorted({array.shape[1:] for array in flat})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        got = " and ".join(str(list(array.shape)) for array in _two_shapes(arrays))
        fix = "give each sequence the shape [steps, inputs]"
        raise DataError(f"arrays: '{name}'", "arrays [T_i] or [T_i, I] with one I", got, fix)
    _refuse_empty(name, (len(flat), 1, *shapes[0]))
    steps = np.concatenate(flat)
    ends = [0, *np.cumsum([len(array) for array in flat]).tolist()]
    columns = []
    for title, k in _titles(name, shapes[0][0]):
        channel = np.ascontiguousarray(steps[:, k])
        dtype = pl.List(pl.Series(channel[:0]).dtype)
        cuts = [channel[start:end] for start, end in pairwise(ends)]
        columns.append(pl.Series(title, cuts, dtype=dtype))
    return columns


def _two_shapes(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    other = next((array for array in arrays if array.shape[1:] != arrays[0].shape[1:]), None)
    return [arrays[0]] if other is None else [arrays[0], other]


def _titles(name: str, inputs: int) -> list[tuple[str, int]]:
    return [(name if inputs == 1 else f"{name}{k}", k) for k in range(inputs)]


def _refuse_empty(name: str, shape: tuple[int, ...]) -> None:
    if 0 in shape:
        fix = "give at least one sequence of at least one step"
        raise DataError(f"arrays: '{name}'", "no extent of 0", f"shape {list(shape)}", fix)


def _of_pandas(source: Any) -> pl.DataFrame:
    """Convert column by column, so pyarrow is not needed; a named or dated index is a column."""
    frame = (
        source.to_frame(source.name if source.name is not None else "x")
        if source.ndim == 1
        else source
    )
    index = frame.index
    unnamed = all(name is None for name in index.names)
    if not (unnamed and index.nlevels == 1 and index.dtype.kind in "iu"):
        if unnamed and index.nlevels == 1:
            index = index.rename("time" if index.dtype.kind == "M" else "index")
        frame = frame.set_axis(index).reset_index()
    names = [
        "_".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in frame.columns
    ]
    columns = [_pandas_column(frame.iloc[:, k], name) for k, name in enumerate(names)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        got = f"'{double[0]}' {names.count(double[0])} times"
        raise DataError("frame", "each column name once", got, "rename one")
    return pl.DataFrame(columns)


def _pandas_column(column: Any, name: str) -> pl.Series:
    numpy_like = isinstance(column.dtype, np.dtype)
    if numpy_like and column.dtype.kind in "fiubmM":
        return pl.Series(name, np.ascontiguousarray(column.to_numpy()))
    missing = column.isna().to_numpy()
    if column.dtype.kind == "M":
        utc = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        moments = pl.Series(name, utc)
        zone = str(column.dt.tz)
        # polars knows zones by name only; a fixed offset stays UTC without a zone.
        named = zone in available_timezones()
        return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if named else moments
    values = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    if any(isinstance(value, list | tuple | np.ndarray) for value in values):
        values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    return frame_of_records([{name: value} for value in values], "frame")[name]
