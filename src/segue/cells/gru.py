"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Law, LawCell, initial
from segue.cells.init import Init, fill_chrono, fill_gates, find
from segue.ops import fused, native


class GRUState(NamedTuple):
    """h ``[B, H]``."""

    h: Tensor


@dataclass(frozen=True)
class GRULaw(Law):
    """The equation of `GRU`, gates in the order r, z, n.

    Args:
        w_xh: ``[3 H, I]``.
        w_hh: ``[3 H, H]``.
        b_h: ``[3 H]``.
        b_hn: ``[H]``, the bias inside the product with the reset gate; None for the form that
            resets before.
    """

    w_xh: Tensor
    w_hh: Tensor
    b_h: Tensor
    b_hn: Tensor | None

    def weights(self) -> Sequence[Tensor]:
        """W_xh, W_hh, b_h, and b_hn if there is one."""
        held = (self.w_xh, self.w_hh, self.b_h)
        return held if self.b_hn is None else (*held, self.b_hn)

    def project(self, x: Tensor) -> Tensor:
        """W_xh x + b_h."""
        return ops.linear(x, self.w_xh, self.b_h)

    def advance(self, p: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """h = (1 - z) * n + z * h."""
        h = state.h
        w_rz, w_n = self.w_hh[: 2 * h.shape[1]], self.w_hh[2 * h.shape[1] :]
        xr, xz, xn = p.to(h.dtype).chunk(3, dim=1)
        hr, hz = _product(w_rz, h, p.dtype).chunk(2, dim=1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        if self.b_hn is None:
            n = (xn + _product(w_n, r * h, p.dtype)).tanh()
        else:
            n = (xn + r * (_product(w_n, h, p.dtype) + self.b_hn)).tanh()
        h = (1 - z) * n + z * h
        return h.to(p.dtype), GRUState(h)

    def native(self, x: Tensor, lengths: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """The kernel scan_gru."""
        b_hn = self.b_h.new_zeros(state.h.shape[1]) if self.b_hn is None else self.b_hn
        is_after = self.b_hn is not None
        y, h = native.scan_gru(x, lengths, self.w_xh, self.w_hh, self.b_h, b_hn, is_after, state.h)
        return y, GRUState(h)

    def fused(self, x: Tensor, is_flagged: bool, state: GRUState) -> tuple[Tensor, ...]:
        """torch's gru."""
        assert self.b_hn is not None, "torch's gru resets after the product"
        return fused.fused_gru(x, is_flagged, self.w_xh, self.w_hh, self.b_h, self.b_hn, state.h)

    def not_native(self) -> str | None:
        """Nothing."""
        return None

    def not_fused(self) -> str | None:
        """The form that resets before the product."""
        if self.b_hn is not None:
            return None
        return "torch's fused GRU has no reset gate before the recurrent product"


def _product(w: Tensor, h: Tensor, dtype: torch.dtype) -> Tensor:
    """W h, multiplied in the dtype of the weights, given in that of the state."""
    return nn.functional.linear(h.to(dtype), w).to(h.dtype)


class GRU(LawCell):
    """The gated recurrent unit of Cho et al., 2014 (arXiv:1406.1078).

        r_t = sigmoid(W_xr x_t + W_hr h_{t-1} + b_r)        z_t alike
        n_t = tanh(W_xn x_t + b_n + r_t * (W_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}               y_t = h_t

    This is the default, torch's and cuDNN's form: the reset gate after the recurrent product (ONNX:
    linear_before_reset = 1). With ``reset_after=False``, the form of the paper's first version, n_t
    = tanh(W_xn x_t + b_n + W_hn (r_t * h_{t-1})).

    One bias per gate, and in the default form b_hn besides: r scales it, so it is not redundant
    with b_n, and weights of torch need it.

    Shapes: x ``[B, I]``, h and y ``[B, H]``, W_xh ``[3 H, I]``, W_hh ``[3 H, H]``, b_h ``[3 H]``,
        b_hn ``[H]``; the gates
    lie in the order r, z, n, as in torch. Note that z keeps the state (in the paper, and in Keras,
    so does z; in some texts 1 - z).

    Args:
        inputs: I.
        hidden: H.
        reset_after: whether the reset gate follows the recurrent product.
        init: how the weights start, an Init or its name; the biases start at 0 (chrono: that of z
            as its rule says).
        learn_initial: whether the first h is learned (from 0) instead of being 0.

    Raises:
        SpecError: an unknown init.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        reset_after: bool = True,
        init: Init | str = "orthogonal",
        learn_initial: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, hidden
        self.w_xh = nn.Parameter(torch.empty(3 * hidden, inputs))
        self.w_hh = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.b_h = nn.Parameter(torch.zeros(3 * hidden))
        self.b_hn = nn.Parameter(torch.zeros(hidden)) if reset_after else None
        self.h_0 = nn.Parameter(torch.zeros(hidden)) if learn_initial else None
        start = find(init)
        fill_gates(self.w_xh, 3, start.inputs)
        fill_gates(self.w_hh, 3, start.recurrent)
        if start.max_steps is not None:
            fill_chrono(self.b_h.detach().chunk(3)[1], start.max_steps)

    def initial_state(self, batch: int) -> GRUState:
        """h = 0, or the learned one."""
        return GRUState(initial(self.h_0, self.w_hh, batch, self.outputs))

    def law(self) -> GRULaw:
        """The law with this cell's weights."""
        return GRULaw(self.w_xh, self.w_hh, self.b_h, self.b_hn)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.outputs,)
