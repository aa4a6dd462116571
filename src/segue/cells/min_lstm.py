"""The minimal LSTM."""

from __future__ import annotations

import torch
from torch import Tensor

from segue.cells.linear import LinearCell


class MinLSTM(LinearCell):
    """The minimal LSTM of Feng et al., 2024 (arXiv:2410.01201): an LSTM whose gates do not see the
    state, whose two gates sum to 1, and whose memory is its output.

        i_t, f_t = sigmoid(W_i x_t + b_i), sigmoid(W_f x_t + b_f)
        g_t = W_g x_t + b_g
        h_t = (f_t * h_{t-1} + i_t * g_t) / (f_t + i_t)        y_t = h_t

    Shapes: x ``[B, I]``; i, f, g, h and y ``[B, H]``; w_xh is W_i, W_f and W_g one below the other,
        ``[3H, I]``, b_h alike ``[3H]``.

    Args:
        inputs: I.
        hidden: H.

    Raises:
        SpecError: a size that is none.

    >>> cell = MinLSTM(3, 5)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 5])
    """

    law = "min_lstm"

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, gates=3)

    def terms(self, p: Tensor, rates: Tensor | None) -> tuple[Tensor, Tensor]:
        """f / (f + i) and i g / (f + i)."""
        i, f, g = p.chunk(3, dim=-1)
        # The share of f is sigmoid(log f - log i), which neither over- nor underflows.
        apart = torch.nn.functional.logsigmoid(f) - torch.nn.functional.logsigmoid(i)
        return torch.sigmoid(apart), torch.sigmoid(-apart) * g
