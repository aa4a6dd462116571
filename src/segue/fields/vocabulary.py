"""`Vocabulary`: values to codes and back, learnt from training rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from segue.errors import DataError

UNKNOWN = 0
"""The code of every value that is not in the vocabulary; the first known value has code 1."""


class Vocabulary:
    """Distinct values in order of falling count (then by name); code 0 is "unknown", missing values included."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(names)
        self._codes = pl.DataFrame(
            {"name": self.names, "code": range(1, len(self.names) + 1)},
            {"name": pl.String, "code": pl.Int64},
        )

    @classmethod
    def of(cls, values: pl.Series) -> Vocabulary:
        """The vocabulary of `values`."""
        counts = (
            values.drop_nulls().cast(pl.String).rename("name").to_frame().group_by("name").len()
        )
        return cls(counts.sort(["len", "name"], descending=[True, False])["name"].to_list())

    def __len__(self) -> int:
        """Number of codes, "unknown" included."""
        return len(self.names) + 1

    def encode(self, values: pl.Series) -> NDArray[np.int64]:
        """Codes of `values`, 0 for what is not known."""
        joined = (
            values.cast(pl.String)
            .rename("name")
            .to_frame()
            .join(self._codes, on="name", how="left", maintain_order="left")
        )
        codes: NDArray[np.int64] = joined["code"].fill_null(UNKNOWN).to_numpy(writable=True)
        return codes

    def refuse_unknown(
        self, values: pl.Series, codes: NDArray[np.int64], where: str, fix: str
    ) -> None:
        """Raise the error on the first value that is present but unknown."""
        unknown = (codes == UNKNOWN) & values.is_not_null().to_numpy()
        if unknown.any():
            row = int(unknown.argmax())
            shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
            raise DataError(
                f"{where}, row {row + 1}",
                f"one of the {len(self.names)} values of the training rows ({shown})",
                repr(str(values[row])),
                fix,
            )
