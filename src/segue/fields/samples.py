"""Samples: a faster clock inside the steps, such as a sensor's readings between two pictures."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue import ops
from segue.cells import GRU, State
from segue.errors import DataError
from segue.fields.field import Encoder, EncoderState, Field, Reading
from segue.fields.number import numbers, scale_of
from segue.layers import unroll
from segue.layers.compiled import NoForm
from segue.ops.program import Slot
from segue.ragged import Ragged
from segue.schema import Input, Positive, Role


class Samples(Field):
    """A list of numbers at every step, as many as there were since the step before: none, some, or
    thousands. Missing ones are left out. They are scaled with the training rows' mean and standard
    deviation, and read by a cell of their own, whose state goes on from step to step.
    """

    class Spec(Input):
        """Options of kind `samples`.

        Attributes:
            size: hidden units of the cell that reads them.
        """

        roles: ClassVar[tuple[Role, ...]] = ("step",)
        size: Positive = 16

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._size = spec.size
        self.shift, self.scale = 0.0, 1.0

    @classmethod
    def fits(cls, values: pl.Series, *, whole: bool) -> bool:
        # A list of numbers may as well be a vector or a set; that has to be said.
        return False

    def fit(self, frame: pl.DataFrame) -> None:
        values, _ = self._flat(frame[self.columns[0]], "training rows")
        self.shift = float(values.mean()) if len(values) else 0.0
        self.scale = scale_of(float(values.std()) if len(values) else 0.0, self.shift)

    def encode(self, frame: pl.DataFrame, origin: str) -> Tensor:
        """``[N, L]``: the samples of each step, then NaN up to the longest."""
        values, counts = self._flat(frame[self.columns[0]], origin)
        encoded = np.full((len(counts), max(1, int(counts.max(initial=0)))), np.nan, np.float32)
        encoded[np.arange(encoded.shape[1]) < counts[:, None]] = (values - self.shift) / self.scale
        return torch.from_numpy(encoded)

    def _flat(self, lists: pl.Series, origin: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """All samples, and how many each step has.

        Raises:
            DataError: cells that are no lists of finite numbers.
        """
        if lists.dtype == pl.Null:
            return np.zeros(0), np.zeros(len(lists), np.int64)
        if not isinstance(lists.dtype, pl.List):
            where = f"{origin}: column {lists.name!r}"
            fix = "give lists such as [0.1, 0.3], or declare kind number"
            raise DataError(where, "a list of numbers at every step", str(lists.dtype), fix)
        present = lists.list.drop_nulls()
        counts = present.list.len().fill_null(0).cast(pl.Int64).to_numpy(writable=True)
        flat = present.filter(present.list.len() > 0).explode()
        return numbers(flat, origin), counts

    def column(self, name: str, values: list[Any], origin: str) -> pl.Series:
        try:
            return pl.Series(name, values, dtype=pl.List(pl.Float64))
        except (TypeError, pl.exceptions.PolarsError):
            got, fix = repr(values)[:60], "send lists such as [0.1, 0.3]"
            raise DataError(f"{origin}: {name!r}", "lists of numbers", got, fix) from None

    def encoder(self) -> Encoder:
        return SamplesEncoder(self._size)

    def fitted(self) -> dict[str, Any]:
        return {"shift": self.shift, "scale": self.scale}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.shift, self.scale = float(fitted["shift"]), float(fitted["scale"])

    def example(self, index: int) -> list[float]:
        return [float(f"{self.shift:.4g}")]

    def describe(self) -> str:
        return f"shift {self.shift:.4g}, scale {self.scale:.4g}"


class SamplesEncoder(Encoder):
    """The hidden state of a GRU after the last sample at or before each step; 0 before the first.

    State: the cell's, and that hidden state of the last step.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cell = GRU(1, size)
        self.features = size

    def initial_state(self, batch: int) -> EncoderState:
        start = self.cell.initial_state(batch)
        return (*ops.leaves(start), torch.zeros(batch, self.features))

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        *leaves, last = state
        seen = ~x.values.isnan()
        counts = seen.sum(1)
        inner = torch.zeros(x.batch, dtype=torch.int64).index_add(0, x.rows(), counts)
        samples = Ragged(x.values[seen][:, None], inner)
        hidden, after = unroll(self.cell, samples, self._nested(leaves))
        # How many samples there were up to each step, in all and of its own sequence.
        ends = counts.cumsum(0)
        begun = ends > samples.offsets[x.rows()]
        place = (ends - 1).clamp_min(0)
        known = torch.cat([hidden.values, last.new_zeros(1, self.features)])
        features = torch.where(begun[:, None], known[place], last[x.rows()])
        filled = (x.lengths > 0)[:, None]
        return features, (
            *ops.leaves(after),
            torch.where(filled, x.with_values(features).last(), last),
        )

    def _nested(self, leaves: list[Tensor]) -> State:
        left = iter(leaves)
        return ops.map_state(lambda _: next(left), self.cell.initial_state(1))

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        raise NoForm(f"{at.name}, samples inside a step, which have no native form")
