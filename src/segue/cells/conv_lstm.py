"""The convolutional LSTM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segue.cells.cell import check_switch
from segue.cells.conv_cell import ConvCell
from segue.cells.lstm import LSTMState


class ConvLSTM(ConvCell):
    """The convolutional LSTM of Shi et al., 2015 (arXiv:1506.04214), over 1, 2 or 3 dimensions; *
    is the convolution, . the product of elements.

        i_t, f_t = sigmoid(W_i * [x_t, h_{t-1}] + p_i . c_{t-1} + b_i), likewise f
        g_t = tanh(W_g * [x_t, h_{t-1}] + b_g)
        c_t = f_t . c_{t-1} + i_t . g_t
        o_t = sigmoid(W_o * [x_t, h_{t-1}] + p_o . c_t + b_o)
        h_t = o_t . tanh(c_t)        y_t = h_t

    where W * [x, h] is W_x * x + W_h * h. The peepholes p, a weight for every place of the picture,
    are those of the paper; without them these terms fall away. b_f starts at 1.

    Shapes: x ``[B, I, *size]``, h, c and y ``[B, H, *size]``, p ``[3, H, *size]``; gates in the
        order i, f, g, o; see `ConvCell`.

    Args:
        inputs: I, the channels of a picture.
        hidden: H, the channels of the state.
        size: the extents of a picture.
        kernel: the extent of both kernels along every axis; odd.
        peepholes: whether the gates see c.

    >>> cell = ConvLSTM(1, 4, size=(8, 8))
    >>> y, state = cell.step(torch.zeros(2, 1, 8, 8), cell.initial_state(2))
    >>> y.shape, state.c.shape
    (torch.Size([2, 4, 8, 8]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        size: Sequence[int],
        *,
        kernel: int = 3,
        peepholes: bool = False,
    ) -> None:
        super().__init__(inputs, hidden, size, kernel, gates=4)
        check_switch("ConvLSTM.peepholes", peepholes)
        self.w_c = nn.Parameter(torch.zeros(3, hidden, *self.size)) if peepholes else None
        with torch.no_grad():
            self.b_h[hidden : 2 * hidden] = 1

    def initial_state(self, batch: int) -> LSTMState:
        """h = 0, c = 0."""
        return LSTMState(self._zeros(batch), self._zeros(batch))

    def _advance(self, p: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i, f, g, o = (p + self._recurrent(state.h)).chunk(4, dim=1)
        if self.w_c is not None:
            i, f = i + self.w_c[0] * state.c, f + self.w_c[1] * state.c
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        if self.w_c is not None:
            o = o + self.w_c[2] * c
        c = c.to(state.c.dtype)
        h = (torch.sigmoid(o) * torch.tanh(c)).to(state.h.dtype)
        return h.to(p.dtype), LSTMState(h, c)
