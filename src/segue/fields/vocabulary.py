"""`Vocabulary`: values to codes and back, learnt from training rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.errors import DataError

UNKNOWN = 0
"""The code of every value that is not in the vocabulary; the first known value has code 1."""

FEW = 100
"""With fewer values than this, as in a live step, a look-up of each is quicker than a join."""


class Vocabulary:
    """Distinct values in order of falling count (then by name); code 0 is "unknown", missing values
    included.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(names)
        self._places = {name: code for code, name in enumerate(self.names, 1)}
        self._codes = pl.DataFrame(
            {"name": self.names, "code": range(1, len(self.names) + 1)},
            {"name": pl.String, "code": pl.Int64},
        )

    @classmethod
    def of(cls, values: pl.Series, least: int = 1) -> Vocabulary:
        """The vocabulary of the `values` that are there at least so many times."""
        counts = words(values.drop_nulls()).rename("name").to_frame().group_by("name").len()
        counts = counts.filter(pl.col("len") >= least)
        return cls(counts.sort(["len", "name"], descending=[True, False])["name"].to_list())

    def __len__(self) -> int:
        """Number of codes, "unknown" included."""
        return len(self.names) + 1

    def encode(self, values: pl.Series) -> NDArray[np.int64]:
        """Codes of `values`, 0 for what is not known."""
        if len(values) < FEW:
            known = [self._places.get(name, UNKNOWN) for name in words(values)]
            return np.array(known, np.int64)
        named = words(values).rename("name").to_frame()
        joined = named.join(self._codes, on="name", how="left", maintain_order="left")
        codes: NDArray[np.int64] = joined["code"].fill_null(UNKNOWN).to_numpy(writable=True)
        return codes

    def code(self, value: Any) -> int | None:
        """The code of one value of a record; None where it is neither a text nor a whole number."""
        if type(value) is str:
            return self._places.get(value, UNKNOWN)
        if type(value) is int:
            return self._places.get(str(value), UNKNOWN)
        return UNKNOWN if value is None else None

    def refuse_unknown(
        self, values: pl.Series, codes: NDArray[np.int64], where: str, fix: str
    ) -> None:
        """Raise the error on the first value that is present but unknown.

        Raises:
            DataError: there is one; `where` names the column and `fix` says what to do.
        """
        unknown = (codes == UNKNOWN) & values.is_not_null().to_numpy()
        if unknown.any():
            row = int(unknown.argmax())
            shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
            expected = f"one of the {len(self.names)} values of the training rows ({shown})"
            raise DataError(f"{where}, row {row + 1}", expected, repr(values[row]), fix)


def words(values: pl.Series) -> pl.Series:
    """Values as the words that name them: whole numbers without ``.0``, whatever their type.

    >>> words(pl.Series([1.0, 2.5, None])).to_list()
    ['1', '2.5', None]
    """
    text = values.cast(pl.String)
    if not values.dtype.is_float():
        return text
    whole = values.cast(pl.Int64, strict=False)
    either = pl.when(whole == values).then(whole.cast(pl.String)).otherwise(text)
    return pl.select(either.alias(values.name)).to_series()


def word(value: Any) -> str | None:
    """One value of a record as `words` has it; None where it is missing.

    Raises:
        TypeError: it is a list or another object without a name.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict | set):
        raise TypeError(f"{value!r} is not one value")
    named: str | None = words(pl.Series([value]))[0]
    return named


def unworded(names: Iterable[str], dtype: str) -> pl.Series:
    """Words as the values of the type ``str(dtype)`` that they came from; text for other types than
    numbers and booleans.

    >>> unworded(["1", "3"], "Int64").to_list()
    [1, 3]
    """
    texts = pl.Series(list(names), dtype=pl.String)
    if dtype == "Boolean":
        return texts == "true"
    return texts.cast(_NUMBERS[dtype]) if dtype in _NUMBERS else texts


_SIZES = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_NUMBERS: dict[str, type[pl.DataType]] = {
    name: getattr(pl, name) for name in (*_SIZES, "Float32", "Float64")
}
