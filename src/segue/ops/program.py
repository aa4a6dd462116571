"""Programs: a causal layer, or a whole model, as a list of operations that one native call runs.

A program is built once, slot by slot: every operation gives the slot of its result. Weights are
copied and packed as they are at that moment. What the operations do, and what a slot is, says
csrc/program.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.ops.given import DIAGONAL
from segue.ops.native import ACTIVATIONS, load

Slot: TypeAlias = int
Array: TypeAlias = NDArray[np.generic]

NOWHERE: Slot = -1
"""In place of a slot: there is none."""

_TYPES = {torch.float32: "f", torch.float64: "d", torch.int64: "q"}


class Program:
    """A list of operations over slots.

    Attributes:
        lengths: the slot of the steps of each sequence, int64 ``[B]``, which every program has.
    """

    lengths: Slot = 0

    def __init__(self) -> None:
        self.native: Any = load("segue._native").Program()
        self.run, self.step = self.native.__call__, self.native.step
        self.set_row = self.native.set_row

    # What the caller hands over

    def input(self, name: str, rows: str, axes: Sequence[int], dtype: torch.dtype) -> Slot:
        """An array ``[rows, *axes]``; `rows` is one of N, B, M and E."""
        return int(self.native.input(name, _TYPES[dtype], rows, list(axes)))

    def state(self, name: str, axes: Sequence[int], dtype: torch.dtype) -> int:
        """A tensor of the state, ``[B, *axes]``; the number of the state, counted from 0."""
        return int(self.native.state(name, _TYPES[dtype], list(axes)))

    def fresh(self, name: str, axes: Sequence[int], first: Tensor) -> int:
        """A state ``[M, *axes]`` that is the program's own and begins anew in every call, as
        `first`, which stands as often in a row as it fits; its number, below 0.
        """
        return int(self.native.fresh(name, "M", list(axes), memory(first.flatten())))

    def output(self, slot: Slot) -> None:
        """One more array that a call gives."""
        self.native.output(slot)

    def last_axis(self, slot: Slot) -> int:
        """How many numbers lie side by side in a slot."""
        return int(self.native.last_axis(slot))

    # Operations of layers, on the last axis

    def affine(self, x: Slot, weight: Tensor, bias: Tensor | None, blocks: int = 1) -> Slot:
        """W x + b; W may be of several blocks, the rows of each ``[O / blocks, K]``, which read
        the parts of x, of K numbers, in turn.
        """
        return int(self.native.affine(x, memory(weight), memory(bias), blocks))

    def elman(
        self,
        x: Slot,
        lengths: Slot,
        h: int,
        weights: tuple[Tensor, Tensor, Tensor],
        activation: str,
        gain_x: Tensor | None,
        gain_h: Tensor | None,
        zoneout: float,
    ) -> Slot:
        """The law of `segue.cells.Elman`; `weights` are w_xh, b_h, w_hh."""
        held, gains = map(memory, weights), map(memory, (gain_x, gain_h))
        code = ACTIVATIONS[activation]
        return int(self.native.elman(x, lengths, h, *held, code, *gains, zoneout))

    def lstm(
        self,
        x: Slot,
        lengths: Slot,
        h: int,
        c: int,
        weights: tuple[Tensor | None, ...],
        zoneout: tuple[float, float],
    ) -> Slot:
        """The law of `segue.cells.LSTM`.

        `weights` are w_xh, b_h, w_hh, w_hr, w_c, gain_x, gain_h, gain_c, b_c.
        """
        held = [memory(weight) for weight in weights]
        held[4] = None if held[4] is None else held[4].reshape(-1)
        return int(self.native.lstm(x, lengths, h, c, *held, *zoneout))

    def gru(
        self,
        x: Slot,
        lengths: Slot,
        h: int,
        weights: tuple[Tensor | None, ...],
        zoneout: float,
    ) -> Slot:
        """The law of `segue.cells.GRU`; `weights` are w_xh, b_h, w_hh, b_hn, gain_x, gain_h."""
        return int(self.native.gru(x, lengths, h, *map(memory, weights), zoneout))

    def diagonal(
        self, x: Slot, lengths: Slot, h: int, law: str, weights: tuple[Tensor | None, ...]
    ) -> Slot:
        """A law of `segue.ops.given.DIAGONAL`; `weights` are w_xh, b, rates. Without the first two
        x are the sums of the gates.
        """
        held = map(memory, weights)
        return int(self.native.diagonal(x, lengths, h, DIAGONAL[law], *held))

    def add(self, a: Slot, b: Slot) -> Slot:
        """a + b."""
        return int(self.native.add(a, b))

    def join(self, parts: Sequence[Slot]) -> Slot:
        """One beside the other; of no parts ``[N, 0]``."""
        return parts[0] if len(parts) == 1 else int(self.native.join(list(parts)))

    def copy(self, x: Slot) -> Slot:
        """x, in memory of its own."""
        return int(self.native.join([x]))

    def take(self, x: Slot, index: Slot) -> Slot:
        """The rows of x at these places; zeros for a place below 0."""
        return int(self.native.take(x, index))

    # Operations of records

    def spread(self, x: Slot) -> Slot:
        """A row per sequence ``[B, F]``, at each of its steps ``[N, F]``."""
        return int(self.native.spread(x))

    def elapsed(self, times: Slot, clock: int) -> Slot:
        """The time since the step before, float64 ``[N]``; 0 at the first step of all."""
        return int(self.native.elapsed(times, clock))

    def waited(self, x: Slot, elapsed: Slot, unit: float) -> Slot:
        """log(1 + elapsed / unit), a column for every row of x; 0 where `elapsed` is `NOWHERE`."""
        return int(self.native.waited(x, elapsed, unit))

    def embed(self, codes: Slot, column: int, table: Tensor) -> Slot:
        """The rows of a table that a column of codes names."""
        return int(self.native.embed(codes, column, memory(table)))

    def observed(
        self, x: Slot, times: Slot, gaps: Sequence[int], unit: float, last_seen: int
    ) -> Slot:
        """The equation of `segue.fields.number.NumberEncoder`.

        Without a state (`NOWHERE`) every row stands alone.
        """
        return int(self.native.observed(x, times, list(gaps), unit, last_seen))

    def mean(self, x: Slot, ends: Slot, total: int, count: int) -> Slot:
        """The mean of x over each sequence so far, at the places `ends`."""
        return int(self.native.mean(x, ends, total, count))

    # Operations of a forecast

    def segments(
        self,
        values: Slot,
        features: Slot,
        wanted: Slot,
        how: tuple[int, int, bool, bool],
        states: Sequence[int],
        typical: Sequence[Sequence[float]],
    ) -> Any:
        """All of a forecast that no weights take part in; see csrc/program.h, Segmented.

        `how` are k, the n segments that are read anew at every wanted step (0: the last one, at
        every step), whether there are gaps, and whether a is the mean of the look-back. `states`
        are ring, seen, gap, age and taken of `segue.forecaster.ForecasterState`, `typical` are r
        and m of each column.
        """
        return self.native.segments(values, features, wanted, *how, list(states), typical)

    def tanh_of_sums(self, per_series: Slot, per_step: Slot) -> Slot:
        """tanh(a + b) of a ``[M, C, U]`` and b ``[M, S, U]``: ``[M, C, S, U]``."""
        return int(self.native.tanh_of_sums(per_series, per_step))

    def mean_of(self, parts: Sequence[Slot]) -> Slot:
        """The mean of slots of one shape: their sum in order, divided by how many they are."""
        if len(parts) == 1:
            return parts[0]
        return int(self.native.mean_of(list(parts)))

    def rescale(
        self, past: Any, change: Slot, horizon: int, shift: Sequence[float], middle: int
    ) -> Slot:
        """a + s * change, quantiles in order: float64 ``[M, C, S, Q]``.

        Where there is a `shift`, of S * Q numbers, s times it is added then, and none passes the
        one in the middle.
        """
        return int(self.native.rescale(past, change, horizon, list(shift), middle))


def memory(tensor: Tensor | None) -> Array | None:
    """A tensor as contiguous float32 for packing."""
    if tensor is None:
        return None
    return tensor.detach().to(torch.float32).contiguous().numpy()
