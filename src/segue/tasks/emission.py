"""`Emission`: the output layer of a transcription, which knows what it said last."""

from __future__ import annotations

import torch
from torch import Tensor

from segue.cells import Cell
from segue.layers import Linear
from segue.ops import State
from segue.ragged import Ragged, unchecked

NOTHING = 0
"""The code that is never said: of a symbol that the training part lacks."""


class Emission(Cell):
    """Logits of symbols and of the blank, and the symbol that a step adds to the transcript::

        z_t = W h_t + b
        k_t = argmax z_t                        over the symbols that can be said, and the blank
        e_t = k_t if k_t is no blank and k_t != k_{t-1}, else 0
        f_t = [no symbol was added before t]
        y_t = [z_t, e_t, f_t]

    The added symbols of all steps are the labelling of the best path: repeats merged, then blanks
    taken out (Graves et al. 2006, "Connectionist temporal classification").

    Args:
        inputs: H.
        symbols: K, of which 0 is never said. The blank is the code K, so that z has K + 1 numbers.
    """

    def __init__(self, inputs: int, symbols: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, symbols + 3
        self.blank = symbols
        self.linear = Linear(inputs, symbols + 1)

    def initial_state(self, batch: int) -> State:
        """The blank was said last, and nothing was added (0, later 1): two int64 ``[B]``."""
        return torch.full((batch,), self.blank), torch.zeros(batch, dtype=torch.int64)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``[B, H] -> [B, K + 3]``."""
        return self.scan(unchecked(x, torch.ones(len(x), dtype=torch.int64)), state)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps of all sequences: ``[N, H] -> [N, K + 3]``."""
        last, begun = state
        assert isinstance(last, Tensor) and isinstance(begun, Tensor)
        logits = self.linear(x.values)
        best = 1 + logits.detach()[:, 1:].argmax(1)
        before = best.roll(1)
        filled = x.lengths > 0
        first = x.offsets[:-1][filled]
        before[first] = last[filled]
        added = (best != self.blank) & (best != before)
        # Symbols added before each step, in its own sequence.
        sums = torch.cat([added.new_zeros(1, dtype=torch.int64), added.cumsum(0)])
        rows = x.rows()
        sofar = begun[rows] + sums[:-1] - sums[x.offsets[:-1]][rows]
        said = torch.where(added, best, NOTHING)
        signs = torch.stack([said, sofar == 0], dim=1).to(logits.dtype)
        final, total = last.clone(), begun + sums[x.offsets[1:]] - sums[x.offsets[:-1]]
        final[filled] = best[x.offsets[1:][filled] - 1]
        return torch.cat([logits, signs], dim=1), (final, total.clamp(max=1))
