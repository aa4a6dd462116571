"""Output layers."""

from __future__ import annotations

from torch import Tensor, nn

from segue import ops


class Linear(nn.Linear):
    """torch.nn.Linear, whose bits do not depend on the batch where no gradient is needed (see
    `segue.ops.linear`).
    """

    def forward(self, input: Tensor) -> Tensor:
        """y = x W^T + b: ``[..., I] -> [..., O]``."""
        return ops.linear(input, self.weight, self.bias)


class Readout(Linear):
    """The output layer of a recurrent network, y_t = W_hy h_t + b_y: ``[..., H] -> [..., O]``.

    At every step as ``TimeDistributed(Readout(H, O))`` in a stack, or once on the last hidden
    state.
    """

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__(hidden, outputs)
