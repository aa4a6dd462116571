"""The real-gated linear recurrent unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.cells.linear import LinearCell

POWER = 8.0
"""c of the equation."""


class RGLRU(LinearCell):
    """The real-gated linear recurrent unit of De et al., 2024 (Griffin, arXiv:2402.19427).

        r_t, i_t = sigmoid(W_r x_t + b_r), sigmoid(W_i x_t + b_i)
        log a_t = -c softplus(decay) r_t,   c = 8
        h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * v_t),   v_t = W_v x_t + b_v        y_t = h_t

    In Griffin v_t is the input itself; the product lets H be another number than I. decay starts so
    that exp(-c softplus(decay)) is uniform in (0.9, 0.999).

    Shapes: x ``[B, I]``; r, i, a, v, h and y ``[B, H]``; decay ``[H]``; w_xh is W_r, W_i and W_v
        one below the other, ``[3H, I]``, b_h alike ``[3H]``.

    Args:
        inputs: I.
        hidden: H.

    >>> cell = RGLRU(3, 5)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 5])
    """

    law = "rg_lru"

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, gates=3)
        kept = torch.empty(hidden).uniform_(0.9, 0.999)
        # softplus(decay) = -log(kept) / c
        self.decay = nn.Parameter(torch.log(torch.expm1(-torch.log(kept) / POWER)))

    def rates(self) -> Tensor:
        """c softplus(decay)."""
        return POWER * nn.functional.softplus(self.decay)

    def terms(self, p: Tensor, rates: Tensor | None) -> tuple[Tensor, Tensor]:
        """a and sqrt(1 - a^2) * i * v."""
        assert rates is not None, "an RG-LRU has rates"
        r, i, v = p.chunk(3, dim=-1)
        log_a = -rates * torch.sigmoid(r)
        # 1 - a^2 without cancellation, and away from 0, where the root has no slope.
        scale = torch.sqrt((-torch.expm1(2 * log_a)).clamp_min(1e-12))
        return torch.exp(log_a), scale * torch.sigmoid(i) * v
