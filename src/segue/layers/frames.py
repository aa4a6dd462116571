"""The forecaster of frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segue.cells import ConvLSTM, LSTMState


class FrameDecoder(nn.Module):
    """From what is known at a frame to the S frames after it, by a convolutional LSTM whose state
    starts from the hidden maps, as in the encoding-forecasting network of Shi et al., 2015
    (arXiv:1506.04214); unlike there, every frame that is foretold is read again::

        h_0, c_0 = tanh(U_h * m), U_c * m
        h_s, c_s = ConvLSTM(x_{s-1}, h_{s-1}, c_{s-1})       x_0 is the present frame
        g_s, u_s = sigmoid(V_g * h_s + a), V_u * h_s + b
        x_s = g_s . x_{s-1} + (1 - g_s) . u_s                s = 1 ... S

    U and V are 1 x 1 convolutions. a starts at 2: at first a frame is much like the one before.

    Shapes: m ``[M, H, *size]``, x ``[M, C, *size]``, to ``[M, S, C, *size]``.

    Args:
        inputs: H, the channels of the hidden maps.
        channels: C of a frame.
        size: the extents of the maps, one to three.
        horizon: S.
        kernel: of the convolutional LSTM.
    """

    def __init__(
        self, inputs: int, channels: int, size: Sequence[int], horizon: int, kernel: int
    ) -> None:
        super().__init__()
        self.horizon = horizon
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
        self.start = convolution(inputs, 2 * inputs, 1)
        self.cell = ConvLSTM(channels, inputs, size, kernel=kernel)
        self.out = convolution(inputs, 2 * channels, 1)
        with torch.no_grad():
            nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
            self.out.bias[:channels] = 2.0  # type: ignore[index]

    def forward(self, hidden: Tensor, frame: Tensor) -> Tensor:
        """The S frames after each of M."""
        h, c = self.start(hidden).chunk(2, dim=1)
        state, frames = LSTMState(torch.tanh(h), c), []
        for _ in range(self.horizon):
            y, state = self.cell.step(frame, state)
            gate, new = self.out(y).chunk(2, dim=1)
            gate = torch.sigmoid(gate)
            frame = gate * frame + (1 - gate) * new
            frames.append(frame)
        return torch.stack(frames, dim=1)
