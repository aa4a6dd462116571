"""The minimal GRU."""

from __future__ import annotations

import torch
from torch import Tensor

from segue.cells.linear import LinearCell


class MinGRU(LinearCell):
    """The minimal gated recurrent unit of Feng et al., 2024 (arXiv:2410.01201): a GRU whose gate
    and candidate do not see the state.

        z_t = sigmoid(W_z x_t + b_z)
        n_t = W_n x_t + b_n
        h_t = (1 - z_t) * h_{t-1} + z_t * n_t        y_t = h_t

    Shapes: x ``[B, I]``; z, n, h and y ``[B, H]``; w_xh is W_z and W_n one below the other,
        ``[2H, I]``, b_h alike ``[2H]``.

    Args:
        inputs: I.
        hidden: H.

    Raises:
        SpecError: a size that is none.

    >>> cell = MinGRU(3, 5)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 5])
    """

    law = "min_gru"

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, gates=2)

    def terms(self, p: Tensor, rates: Tensor | None) -> tuple[Tensor, Tensor]:
        """1 - z and z * n."""
        z, n = p.chunk(2, dim=-1)
        return torch.sigmoid(-z), torch.sigmoid(z) * n
