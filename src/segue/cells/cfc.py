"""The closed-form continuous-time network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell, check_count
from segue.cells.elman import ElmanState
from segue.errors import ShapeError
from segue.shapes import check


class CfC(Cell):
    """The closed-form continuous-time network of Hasani et al., 2022 (arXiv:2106.13898). A step is
    given the time D_t since the step before, and x_t.

        v = 1.7159 tanh(2 / 3 (W_v [x_t, h_{t-1}] + b_v))
        f, g = tanh(W_f v + b_f), tanh(W_g v + b_g)
        s = sigmoid((W_a v + b_a) D_t + W_b v + b_b)
        h_t = (1 - s) * f + s * g        y_t = h_t

    v is the paper's backbone, with the activation of LeCun et al., 1998.

    Shapes: the input ``[B, 1 + F]`` is D_t and x_t side by side; v ``[B, V]``; f, g, s, h and y
        ``[B, H]``; w_v ``[V, F + H]``, b_v ``[V]``; w_vh is W_f, W_g, W_a and W_b one below the
        other, ``[4 H, V]``, b_h alike ``[4 H]``.

    Args:
        features: F.
        hidden: H.
        backbone: V; by default H.

    Raises:
        SpecError: a size that is none.

    >>> cell = CfC(2, 5)
    >>> y, state = cell.step(torch.zeros(1, 3), cell.initial_state(1))
    >>> y.shape
    torch.Size([1, 5])
    """

    reads = "elapsed"

    def __init__(self, features: int, hidden: int, *, backbone: int | None = None) -> None:
        super().__init__(features=features, hidden=hidden)
        self.features, self.inputs, self.outputs = features, 1 + features, hidden
        wide = hidden if backbone is None else backbone
        check_count("CfC.backbone", wide)
        self.w_v = nn.Parameter(torch.empty(wide, features + hidden))
        self.b_v = nn.Parameter(torch.zeros(wide))
        self.w_vh = nn.Parameter(torch.empty(4 * hidden, wide))
        self.b_h = nn.Parameter(torch.zeros(4 * hidden))
        for weight in (self.w_v, *torch.split(self.w_vh, hidden)):
            nn.init.xavier_uniform_(weight)

    def initial_state(self, batch: int) -> ElmanState:
        """h = 0."""
        dtype, device = ops.carried_dtype(self.w_v), self.w_v.device
        return ElmanState(torch.zeros(batch, self.outputs, dtype=dtype, device=device))

    def step(self, x: Tensor, state: ElmanState) -> tuple[Tensor, ElmanState]:
        """One step: ``[B, 1 + F] -> [B, H]``.

        Raises:
            ShapeError: x is not ``[B, 1 + F]``, or the state is that of other sequences.
        """
        check("CfC.step", x, "B I", {"I": self.inputs})
        if state.h.shape != (x.shape[0], self.outputs):
            got, fix = str(list(state.h.shape)), "take it from initial_state(B)"
            raise ShapeError("the state of CfC", str([x.shape[0], self.outputs]), got, fix)
        elapsed, features = x[:, :1], x[:, 1:]
        both = torch.cat([features, state.h.to(x.dtype)], dim=1)
        v = 1.7159 * torch.tanh(2 / 3 * ops.linear(both, self.w_v, self.b_v))
        f, g, a, b = ops.linear(v, self.w_vh, self.b_h).chunk(4, dim=1)
        s = torch.sigmoid(a * elapsed + b)
        h = ((1 - s) * torch.tanh(f) + s * torch.tanh(g)).to(state.h.dtype)
        return h.to(x.dtype), ElmanState(h)
