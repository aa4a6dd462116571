"""A state that fades while nothing is seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.cells import Cell, LawCell, LinearCell
from segue.errors import SpecError
from segue.ops import State, leaves, loop, map_state
from segue.ragged import Ragged, one_step
from segue.shapes import check


class Decay(Cell):
    """Lets the state of a cell fade with the time since the step before, by a rate per unit that is
    learned (Mozer et al., 2017, arXiv:1710.04110, with one rate in place of a mixture):

        s' = s_{t-1} * exp(-softplus(rate) D_t),   y_t, s_t = cell(x_t, s')

    A step is given D_t, the time since the step before (below 0 it counts as 0), and x_t.

    Shapes: the input ``[B, 1 + I]`` is D_t and x_t side by side; rate: one ``[W]`` for every tensor
        ``[B, W]`` of the cell's state. softplus(rate) starts between 0.001 and 1, evenly in its
        logarithm.

    Args:
        body: a recurrent cell, whose state is memory alone.

    Raises:
        SpecError: another layer.
    """

    reads = "elapsed"

    def __init__(self, body: LawCell | LinearCell) -> None:
        super().__init__()
        if not isinstance(body, LawCell | LinearCell):
            expected, fix = "a recurrent cell", "wrap the cell itself"
            raise SpecError("Decay", expected, type(body).__name__, fix)
        self.body = body
        self.inputs, self.outputs = 1 + body.inputs, body.outputs
        self.rates = nn.ParameterList()
        for leaf in leaves(body.initial_state(1)):
            rate = 10 ** torch.empty(leaf.shape[1:], device=leaf.device).uniform_(-3, 0)
            self.rates.append(nn.Parameter(torch.log(torch.expm1(rate))))

    def initial_state(self, batch: int) -> State:
        """The cell's."""
        return self.body.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, 1 + I] -> [B, O]``."""
        check("Decay.step", x, "B I", {"I": self.inputs})
        if isinstance(self.body, LinearCell):
            return self.scan(one_step(x), state)
        return self._step(x, state)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: ``[N, 1 + I] -> [N, O]``; of a law that is linear in the state all at once."""
        check("Decay.scan", x.values, "N I", {"I": self.inputs})
        if isinstance(self.body, LinearCell):
            kept = self._kept(x.values[:, :1], 0)
            return self.body.scan(x.with_values(x.values[:, 1:]), state, kept)
        return loop(self._step, x, state)

    def _step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        index = iter(range(len(self.rates)))
        faded = map_state(lambda s: s * self._kept(x[:, :1], next(index)).to(s.dtype), state)
        return self.body.step(x[:, 1:], faded)

    def _kept(self, elapsed: Tensor, index: int) -> Tensor:
        """exp(-softplus(rate) D): ``[N, 1] -> [N, W]``."""
        return torch.exp(-nn.functional.softplus(self.rates[index]) * elapsed.clamp_min(0))
