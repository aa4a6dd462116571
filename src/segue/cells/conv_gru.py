"""The convolutional GRU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segue.cells.conv_cell import ConvCell
from segue.cells.gru import GRUState


class ConvGRU(ConvCell):
    """A GRU whose products are convolutions (* below) over 1, 2 or 3 dimensions, with the reset
    gate before the convolution (Ballas et al., 2016, arXiv:1511.06432).

        r_t, z_t = sigmoid(W_r * [x_t, h_{t-1}] + b_r), likewise z
        n_t = tanh(W_n * [x_t, r_t . h_{t-1}] + b_n)
        h_t = (1 - z_t) . n_t + z_t . h_{t-1}        y_t = h_t

    where W * [x, h] is W_x * x + W_h * h, and . the product of elements.

    Shapes: x ``[B, I, *size]``, h and y ``[B, H, *size]``; gates in the order r, z, n; see
        `ConvCell`.

    Args:
        inputs: I, the channels of a picture.
        hidden: H, the channels of the state.
        size: the extents of a picture.
        kernel: the extent of both kernels along every axis; odd.

    >>> cell = ConvGRU(1, 4, size=(8, 8))
    >>> y, state = cell.step(torch.zeros(2, 1, 8, 8), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, inputs: int, hidden: int, size: Sequence[int], *, kernel: int = 3) -> None:
        super().__init__(inputs, hidden, size, kernel, gates=3)

    def initial_state(self, batch: int) -> GRUState:
        """h = 0."""
        return GRUState(self._zeros(batch))

    def _advance(self, p: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        hidden = self.outputs
        w_rz, w_n = self.w_hh[: 2 * hidden], self.w_hh[2 * hidden :]
        r, z = torch.sigmoid(p[:, : 2 * hidden] + self._recurrent(state.h, w_rz)).chunk(2, dim=1)
        n = torch.tanh(p[:, 2 * hidden :] + self._recurrent(r * state.h, w_n))
        h = ((1 - z) * n + z * state.h).to(state.h.dtype)
        return h.to(p.dtype), GRUState(h)
