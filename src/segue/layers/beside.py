"""`Beside`: what carries the time since the step before past the layers that do not read it."""

from __future__ import annotations

import torch
from torch import Tensor

from segue.cells import Cell
from segue.layers.time import scan_of
from segue.ops import State
from segue.ragged import Ragged
from segue.shapes import check


class Beside(Cell):
    """A cell in a stack in which D_t, the time since the step before, goes along in front::

        [D_t, x_t] -> [D_t, cell(x_t)]           a cell that does not read time
        [D_t, x_t] -> [D_t, cell([D_t, x_t])]    one that does

    The state is the cell's.

    Args:
        cell: any cell.
        reads: whether `cell` reads D_t.
    """

    def __init__(self, cell: Cell, *, reads: bool) -> None:
        super().__init__()
        self.cell, self._skipped = cell, 0 if reads else 1
        self.inputs, self.outputs = cell.inputs + self._skipped, 1 + cell.outputs

    def initial_state(self, batch: int) -> State:
        """The cell's."""
        return self.cell.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, I] -> [B, 1 + O]``."""
        check("Beside.step", x, "B I", {"I": self.inputs})
        y, state = self.cell.step(x[:, self._skipped :], state)
        return torch.cat([x[:, :1], y.to(x.dtype)], dim=1), state

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: ``[N, I] -> [N, 1 + O]``."""
        y, state = scan_of(self.cell)(x.with_values(x.values[:, self._skipped :]), state)
        return torch.cat([x.values[:, :1], y.to(x.values.dtype)], dim=1), state
