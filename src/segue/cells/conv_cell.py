"""What the convolutional recurrences have in common: the products of a law become convolutions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell, check_count
from segue.errors import ShapeError, SpecError
from segue.ops import State
from segue.ragged import Ragged

_CONVOLUTIONS = {
    1: nn.functional.conv1d,
    2: nn.functional.conv2d,
    3: nn.functional.conv3d,
}


class ConvCell(Cell):
    """A recurrence over pictures, in 1, 2 or 3 dimensions: W_x * x_t and W_h * h_{t-1} are
    convolutions, with zeros around the picture, so that it keeps its size.

    Shapes: x ``[B, I, *size]``, states and y ``[B, H, *size]``, w_xh ``[G H, I, *kernel]``, w_hh
        ``[G H, H, *kernel]``, b_h ``[G H]``.

    Args:
        inputs: I, the channels of a picture.
        hidden: H, the channels of the state.
        size: the extents of a picture, 1 to 3 of them.
        kernel: the extent of both kernels along every axis; odd.
        gates: G.

    Raises:
        SpecError: a size or an extent that is none, another number of extents, or an even kernel.
    """

    def __init__(
        self, inputs: int, hidden: int, size: Sequence[int], kernel: int, gates: int
    ) -> None:
        super().__init__(inputs=inputs, hidden=hidden, kernel=kernel)
        name = type(self).__name__
        if not isinstance(size, Sequence) or len(size) not in _CONVOLUTIONS:
            fix = "give the extents of a picture, such as (32, 32)"
            raise SpecError(f"{name}.size", "1 to 3 whole numbers above 0", repr(size), fix)
        for extent in size:
            check_count(f"{name}.size", extent)
        if kernel % 2 == 0:
            fix = "give an odd number, which has a middle"
            raise SpecError(f"{name}.kernel", "an odd number above 0", str(kernel), fix)
        self.inputs, self.outputs, self.size, self.kernel = inputs, hidden, tuple(size), kernel
        extents = (kernel,) * len(size)
        self.w_xh = nn.Parameter(torch.empty(gates * hidden, inputs, *extents))
        self.w_hh = nn.Parameter(torch.empty(gates * hidden, hidden, *extents))
        self.b_h = nn.Parameter(torch.zeros(gates * hidden))
        for weight in (self.w_xh, self.w_hh):
            for gate in torch.split(weight, hidden):
                nn.init.xavier_uniform_(gate)

    @abstractmethod
    def _advance(self, p: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, from the input's convolution ``[B, G H, *size]``."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, I, *size] -> [B, H, *size]``.

        Raises:
            ShapeError: x has another shape, or the state is that of other sequences.
        """
        self._check(f"{type(self).__name__}.step", x, x.shape[0], state)
        return self._advance(self._convolved(x, self.w_xh, self.b_h), state)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: ``[N, I, *size] -> [N, H, *size]``; the inputs are convolved all at once."""
        self._check(f"{type(self).__name__}.scan", x.values, x.batch, state)
        p = self._convolved(x.values, self.w_xh, self.b_h)
        return ops.loop(self._advance, x.with_values(p), state)

    def _zeros(self, batch: int) -> Tensor:
        dtype, device = ops.carried_dtype(self.w_hh), self.w_hh.device
        return torch.zeros(batch, self.outputs, *self.size, dtype=dtype, device=device)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _CONVOLUTIONS[len(self.size)](x, weight, bias, padding=self.kernel // 2)

    def _recurrent(self, h: Tensor, weight: Tensor | None = None) -> Tensor:
        """W_h * h, or the convolution with a part of W_h, in the dtype of the weights."""
        weight = self.w_hh if weight is None else weight
        return self._convolved(h.to(weight.dtype), weight)

    def _check(self, where: str, x: Tensor, batch: int, state: State) -> None:
        wanted = [self.inputs, *self.size]
        if list(x.shape[1:]) != wanted:
            written = "[N, " + ", ".join(map(str, wanted)) + "]"
            fix = "bring the pictures to one size, channels first"
            raise ShapeError(where, written, str(list(x.shape)), fix)
        for leaf in ops.leaves(state):
            shape = [batch, self.outputs, *self.size]
            if list(leaf.shape) != shape:
                got, fix = str(list(leaf.shape)), "take it from initial_state(B)"
                raise ShapeError(f"the state of {type(self).__name__}", str(shape), got, fix)
