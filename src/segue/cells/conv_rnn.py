"""The convolutional simple recurrent network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segue.cells.conv_cell import ConvCell
from segue.cells.elman import ElmanState


class ConvRNN(ConvCell):
    """An Elman network whose products are convolutions (* below) over 1, 2 or 3 dimensions.

        h_t = tanh(W_x * x_t + W_h * h_{t-1} + b)        y_t = h_t

    Shapes: x ``[B, I, *size]``, h and y ``[B, H, *size]``; see `ConvCell`.

    Args:
        inputs: I, the channels of a picture.
        hidden: H, the channels of the state.
        size: the extents of a picture.
        kernel: the extent of both kernels along every axis; odd.

    >>> cell = ConvRNN(1, 4, size=(8, 8))
    >>> y, state = cell.step(torch.zeros(2, 1, 8, 8), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, inputs: int, hidden: int, size: Sequence[int], *, kernel: int = 3) -> None:
        super().__init__(inputs, hidden, size, kernel, gates=1)

    def initial_state(self, batch: int) -> ElmanState:
        """h = 0."""
        return ElmanState(self._zeros(batch))

    def _advance(self, p: Tensor, state: ElmanState) -> tuple[Tensor, ElmanState]:
        h = torch.tanh(p + self._recurrent(state.h)).to(state.h.dtype)
        return h.to(p.dtype), ElmanState(h)
