"""The real-gated linear recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.cells.cell import check_count
from segue.cells.linear import LinearCell
from segue.errors import SpecError

POWER = 8.0
"""c of the equation."""

MOST_BLOCKS, LEAST_UNITS = 16, 16
"""How many blocks the gates have where none are asked for, and of how many units at least."""


class RGLRU(LinearCell):
    """The real-gated linear recurrent unit of De et al., 2024 (Griffin, arXiv:2402.19427).

        v_t = W_v x_t + b_v
        r_t, i_t = sigmoid(W_r v_t + b_r), sigmoid(W_i v_t + b_i)
        log a_t = -c softplus(decay) r_t,   c = 8
        h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * v_t)        y_t = h_t

    W_r and W_i are block-diagonal, as in the authors' own RecurrentGemma: the gates of a unit see
    the v of its block alone. So the law has little more than one product of all units. v_t is there
    the output of layers of its own; here W_v lets H be another number than I. decay starts so that
    exp(-c softplus(decay)) is uniform in (0.9, 0.999).

    Shapes: x ``[B, I]``; r, i, a, v, h and y ``[B, H]``; decay ``[H]``; w_xh, which is W_v, ``[H,
        I]``, b_h ``[H]``; w_g ``[2H, H / blocks]``, the blocks of W_r and then those of W_i, one
        below the other, b_g ``[2H]``.

    Args:
        inputs: I.
        hidden: H.
        blocks: of each of W_r and W_i, a divisor of H; 1 for full matrices. By default the most of
            16, 8, 4, 2 and 1 that cut H into equal blocks of at least 16 units.

    Raises:
        SpecError: a size that is none, or blocks that do not divide H.

    >>> cell = RGLRU(3, 5)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 5])
    """

    law = "rg_lru"

    def __init__(self, inputs: int, hidden: int, *, blocks: int | None = None) -> None:
        super().__init__(inputs, hidden, gates=1)
        self.blocks = _usual(hidden) if blocks is None else blocks
        check_count("RGLRU.blocks", self.blocks)
        if hidden % self.blocks:
            expected, fix = f"a divisor of the {hidden} hidden units", "1 is always one"
            raise SpecError("RGLRU.blocks", expected, repr(blocks), fix)
        self.w_g = nn.Parameter(torch.empty(2 * hidden, hidden // self.blocks))
        self.b_g = nn.Parameter(torch.zeros(2 * hidden))
        for block in torch.split(self.w_g, hidden // self.blocks):
            nn.init.xavier_uniform_(block)
        kept = torch.empty(hidden).uniform_(0.9, 0.999)
        # softplus(decay) = -log(kept) / c
        self.decay = nn.Parameter(torch.log(torch.expm1(-torch.log(kept) / POWER)))

    def rates(self) -> Tensor:
        """c softplus(decay)."""
        return POWER * nn.functional.softplus(self.decay)

    def of_gates(self) -> tuple[Tensor, Tensor]:
        """Those of r and i, which are read off v."""
        return self.w_g, self.b_g

    def terms(self, p: Tensor, rates: Tensor | None) -> tuple[Tensor, Tensor]:
        """a and sqrt(1 - a^2) * i * v."""
        assert rates is not None, "an RG-LRU has rates"
        r, i, v = p.chunk(3, dim=-1)
        log_a = -rates * torch.sigmoid(r)
        # 1 - a^2 without cancellation, and away from 0, where the root has no slope.
        scale = torch.sqrt((-torch.expm1(2 * log_a)).clamp_min(1e-12))
        return torch.exp(log_a), scale * torch.sigmoid(i) * v


def _usual(hidden: int) -> int:
    blocks = MOST_BLOCKS
    while blocks > 1 and (hidden % blocks or hidden < blocks * LEAST_UNITS):
        blocks //= 2
    return blocks
