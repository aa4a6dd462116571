"""What laws have in common whose state enters them linearly: minGRU, minLSTM, RG-LRU."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell
from segue.cells.law import present
from segue.errors import ShapeError
from segue.ragged import Ragged, one_step, unchecked
from segue.shapes import check


class LinearState(NamedTuple):
    """h ``[B, H]``."""

    h: Tensor


class LinearCell(Cell):
    """A cell h_t = a_t * h_{t-1} + b_t, y_t = h_t, in which a and b depend on the input alone, by
    the sums p_t = W x_t + b_h of its gates.

    So these are made for all steps at once, and what is left for the loop over time is a
    multiply-add. In float32 on the CPU the product, the gates and the loop are one native call,
    whose bits depend neither on the batch, nor on chunks.

    Shapes: x ``[B, I]``; p ``[B, G H]``; a, b, h and y ``[B, H]``.

    Attributes:
        law: the name of its native form in `segue.ops.given.DIAGONAL`; empty where it has none. A
            subclass that changes `terms` has another law.
    """

    law: ClassVar[str] = ""

    def __init__(self, inputs: int, hidden: int, gates: int) -> None:
        super().__init__(inputs=inputs, hidden=hidden)
        self.inputs, self.outputs = inputs, hidden
        self.w_xh = nn.Parameter(torch.empty(gates * hidden, inputs))
        self.b_h = nn.Parameter(torch.zeros(gates * hidden))
        for gate in torch.split(self.w_xh, hidden):
            nn.init.xavier_uniform_(gate)

    def of_gates(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """w_g and b_g of `segue.ops.Diagonal`, where gates are read off another one."""
        return None, None

    @abstractmethod
    def terms(self, p: Tensor, rates: Tensor | None) -> tuple[Tensor, Tensor]:
        """a and b: ``[N, G H] -> [N, H]``, twice; the rates are those of `rates`."""

    def rates(self) -> Tensor | None:
        """What the law knows of each unit besides, ``[H]``; None for nothing."""
        return None

    def initial_state(self, batch: int) -> LinearState:
        """h = 0."""
        dtype, device = ops.carried_dtype(self.w_xh), self.w_xh.device
        return LinearState(torch.zeros(batch, self.outputs, dtype=dtype, device=device))

    def step(self, x: Tensor, state: LinearState) -> tuple[Tensor, LinearState]:
        """One step of B sequences: ``[B, I] -> [B, H]``.

        Raises:
            ShapeError: x is not ``[B, I]``, or the state is that of other sequences.
        """
        check(f"{type(self).__name__}.step", x, "B I", {"I": self.inputs})
        return self._scan(one_step(x), state)

    def scan(
        self, x: Ragged, state: LinearState, kept: Tensor | None = None
    ) -> tuple[Tensor, LinearState]:
        """All steps of all sequences: ``[N, I] -> [N, H]``.

        Args:
            kept: ``[N, H]``, what is left of the state before each step; None for all of it. With
                it, torch makes a and b, and the loop alone is native.
        """
        check(f"{type(self).__name__}.scan", x.values, "N I", {"I": self.inputs})
        return self._scan(x, state, kept)

    def _scan(
        self, x: Ragged, state: LinearState, kept: Tensor | None = None
    ) -> tuple[Tensor, LinearState]:
        shape = x.batch, self.outputs
        if state.h.shape != shape:
            got, fix = str(list(state.h.shape)), "take it from initial_state(B)"
            raise ShapeError(f"the state of {type(self).__name__}", str(list(shape)), got, fix)
        rates = self.rates()
        tensors = present(x.values, self.w_xh, self.b_h, rates, state.h)
        held = self.w_xh, self.b_h, rates
        given = ops.Diagonal(x.values, x.lengths, *held, state.h, self.law, *self.of_gates())
        if self.law and kept is None and ops.native_runs(tensors):
            y, h, _ = ops.scan(given, self._meaning)
            return y, LinearState(h)
        a, b = self.terms(_sums(given, ops.linear), rates)
        a = a if kept is None else a * kept
        y, h = ops.scan_linear(a.to(state.h.dtype), b.to(state.h.dtype), x, state.h)
        return y.to(x.values.dtype), LinearState(h)

    def _meaning(self, given: ops.Diagonal) -> tuple[Tensor, Tensor]:
        """The native call in terms that torch differentiates any number of times."""
        a, b = self.terms(_sums(given, nn.functional.linear), given.rates)
        return ops.scan_linear(a, b, unchecked(given.x, given.lengths), given.h)


def _sums(given: ops.Diagonal, linear: Callable[..., Tensor]) -> Tensor:
    """p of all steps, ``[N, G H]``."""
    v = linear(given.x, given.w_xh, given.b)
    if given.w_g is None or given.b_g is None:
        return v
    size = given.w_g.shape[1]
    parts = itertools.cycle(torch.split(v, size, dim=1))
    blocks = zip(parts, torch.split(given.w_g, size), torch.split(given.b_g, size), strict=False)
    return torch.cat([*(linear(*block) for block in blocks), v], dim=1)
