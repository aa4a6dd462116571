"""What every kind of input has: `Field` (fit, encode; no torch modules) and `Encoder` (the module
behind it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields.vocabulary import word
from segue.ops.program import NOWHERE, Program, Slot
from segue.ragged import Ragged
from segue.schema import Input

EncoderState = tuple[Tensor, ...]

Values: TypeAlias = Sequence[Any]
"""The values of one record, one for each column of a field."""


@dataclass(frozen=True)
class Reading:
    """Where in a program an encoder reads.

    Attributes:
        program: the program.
        name: of the input, for messages.
        rows: the letter of what is counted, and `axes` between it and the encoded values.
        times, elapsed: the slots of the times of steps; `NOWHERE` where each row stands alone.
    """

    program: Program
    name: str
    rows: str
    axes: tuple[int, ...] = ()
    times: Slot = NOWHERE
    elapsed: Slot = NOWHERE

    def input(self, width: int, dtype: torch.dtype = torch.float32) -> Slot:
        """The encoded values, ``[rows, *axes, width]``."""
        return self.program.input(self.name, self.rows, [*self.axes, width], dtype)

    def state(self, name: str, width: int) -> tuple[int, ...]:
        """A float64 state of the encoder; none where each row stands alone."""
        if self.times == NOWHERE:
            return ()
        return (self.program.state(f"{name} of {self.name}", [width], torch.float64),)


class Encoder(nn.Module, ABC):
    """Turns the encoded values of one input into features; causal, and a cell over steps.

    Attributes:
        features: F, the number of features per step; channels where they are maps.
        size: the extents of maps; () for vectors.
        absent: whether the value of a step may be missing as a whole: its encoding is then NaN, and
            a vector that is learnt stands in place of its features.
    """

    features: int
    size: tuple[int, ...] = ()
    absent: bool = False

    def leave_flags(self) -> None:
        """Give the values alone: the layers read by themselves which were observed, and when."""

    def observed(self, x: Tensor) -> Tensor | None:
        """Flags ``[N, F']``, 1 where each of the first F' features of encoded values was observed;
        None where all are.
        """
        return None

    def initial_state(self, batch: int) -> EncoderState:
        """The state before the first step; empty for encoders without memory."""
        return ()

    @abstractmethod
    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        """Features ``[N, F]`` of the encoded values `x`, and the state after each last step.

        Args:
            x: encoded values, ``[N, ...]``.
            times: when each step is, float64 ``[N]``.
            elapsed: time since the step before, float64 ``[N]``; 0 at the first step.
            state: of B rows.
        """

    @abstractmethod
    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        """Adds the same to a program: the slot of the features, and the numbers of the states."""


class Field(ABC):
    """One declared input over one or many columns: learns what it needs from training rows, then
    encodes any rows.

    Attributes:
        several: whether one input may stand for many columns.
        long: whether a long table, whose rows are steps, can hold it.
        may_lack: whether a whole sequence may be missing: one that is apart has no steps then.
        learns_steps: whether what a step is has to be learnt, from the raw cells of the training
            part (`fit_steps`), before anything else.
        suffixes: of the files that its cells name; none where cells hold the values themselves.
        folder: where paths in the data start from.
    """

    Spec: ClassVar[type[Input]]
    several: ClassVar[bool] = False
    long: ClassVar[bool] = True
    learns_steps: bool = False
    suffixes: ClassVar[tuple[str, ...]] = ()
    folder: Path = Path()

    def __init__(self, name: str, columns: tuple[str, ...], spec: Input) -> None:
        self.name = name
        self.columns = columns
        self.may_lack = spec.role == "apart"

    @classmethod
    @abstractmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        """Whether raw `values` look like this kind; `whole` when a cell holds a whole sequence."""

    def unfold(self, cells: pl.Series, origin: str) -> tuple[pl.Series, NDArray[np.int64]]:
        """Cells that hold whole sequences, as the raw steps of all of them one after another, and
        how many each has; -1 for a cell whose row is to be left out.

        Raises:
            DataError: a cell that holds no sequence of this kind.
        """
        return unfolded(cells, origin)

    def folded(self, steps: pl.Series, lengths: NDArray[np.int64]) -> pl.Series:
        """Raw cells of these raw steps; of `learns_steps` alone."""
        raise NotImplementedError(f"{type(self).__name__} knows what a step is")

    def fit_steps(self, frame: pl.DataFrame) -> None:
        """Learn from the raw cells of the training part what a step is; of `learns_steps` alone."""
        raise NotImplementedError(f"{type(self).__name__} knows what a step is")

    @abstractmethod
    def fit(self, frame: pl.DataFrame) -> None:
        """Learn scales or a vocabulary from training rows."""

    @abstractmethod
    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        """Encoded rows ``[N, ...]``.

        Raises:
            DataError: a value that this field cannot encode; `origin` names the source.
        """

    def unknown(self, encoded: Any, steps: Tensor) -> int:
        """How many of these encoded steps are read as "unknown"; for what people are told."""
        return 0

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        """Values of records as a raw column; by default words.

        Raises:
            DataError: a value that cannot be one of this kind.
        """
        return raw_column(name, values, pl.String, "a word", origin)

    def plain(self, rows: Sequence[Values]) -> NDArray[Any] | None:
        """Encoded rows ``[N, ...]`` of the values of records, the short way, which live steps take.

        Where all of them are what they usually are, the bits are those of `column` and `encode`,
        which take all that can be taken and say what is wrong with the rest; else None.
        """
        return None

    @abstractmethod
    def encoder(self) -> Encoder:
        """A new encoder for what `fit` has seen."""

    @abstractmethod
    def fitted(self) -> dict[str, Any]:
        """What `fit` has learnt, as plain JSON values."""

    @abstractmethod
    def restore(self, fitted: dict[str, Any]) -> None:
        """Take back what `fitted` gave."""

    def example(self, index: int) -> Any:
        """A value of one of the columns that a record may hold, to show; None for not observed."""
        return None

    def describe(self) -> str:
        """One line on what was learnt, for the data check."""
        return ""


def are_paths(values: pl.Series, suffixes: tuple[str, ...]) -> bool:
    """Whether all cells name files with one of these suffixes, in large or small letters.

    >>> are_paths(pl.Series(["a.wav", "b/c.FLAC", None]), (".wav", ".flac"))
    True
    """
    if values.dtype != pl.String or values.null_count() == len(values):
        return False
    small = values.drop_nulls().str.to_lowercase()
    return bool(
        pl.select(pl.any_horizontal(*(small.str.ends_with(s) for s in suffixes))).to_series().all()
    )


def unfolded(cells: pl.Series, origin: str) -> tuple[pl.Series, NDArray[np.int64]]:
    """The steps of cells that hold lists, or texts of which each character is a step, one cell
    after another, and how many each has; an empty cell has none.

    Raises:
        DataError: cells of another type.
    """
    if cells.dtype == pl.String:
        text = cells.fill_null("")
        split = pl.when(text == "").then([]).otherwise(text.str.split(""))
        cells = pl.select(split.alias(cells.name)).to_series()
    elif cells.dtype == pl.Null:
        return cells.clear(), np.zeros(len(cells), np.int64)
    elif not isinstance(cells.dtype, pl.List):
        where = f"{origin}: column {cells.name!r}"
        expected = "a list or a text in every cell (rows are examples)"
        fix = "declare `role: static`, or `data: {rows: steps}`"
        raise DataError(where, expected, str(cells.dtype), fix)
    lengths = cells.list.len().fill_null(0).cast(pl.Int64).to_numpy(writable=True)
    return cells.filter(cells.list.len() > 0).explode(), lengths


def blocks(count: int) -> Iterator[slice]:
    """The rows ``0 .. count - 1`` some at a time, so that what is computed between takes little
    memory.
    """
    size = 65_536
    return (slice(low, low + size) for low in range(0, count, size))


def raw_column(
    name: str, values: list[Any], dtype: pl.DataType | type[pl.DataType], expected: str, origin: str
) -> pl.Series:
    """Values of records as a column of `dtype`; what is to be a text may be any plain value.

    Raises:
        DataError: one of them is not `expected`.
    """
    try:
        return _column(name, values, dtype)
    except (TypeError, pl.exceptions.PolarsError):
        culprit = next((value for value in values if _refused(value, dtype)), values)
        wanted = f"{expected}, or null where it is not observed"
        raise DataError(f"{origin}: {name!r}", wanted, repr(culprit), "correct it") from None


def _column(name: str, values: list[Any], dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
    texts = [word(value) for value in values] if dtype == pl.String else values
    return pl.Series(name, texts, dtype=dtype)


def _refused(value: Any, dtype: pl.DataType | type[pl.DataType]) -> bool:
    try:
        _column("", [value], dtype)
    except (TypeError, pl.exceptions.PolarsError):
        return True
    return False
