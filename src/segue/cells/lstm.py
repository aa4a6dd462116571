"""Long short-term memory."""

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


class LSTMState(NamedTuple):
    """h ``[B, R]``, what the gates see and the output; c ``[B, H]``, the memory."""

    h: Tensor
    c: Tensor


@dataclass(frozen=True)
class LSTMLaw(Law):
    """The equation of `LSTM`, gates in the order i, f, g, o.

    Args:
        w_xh: ``[4 H, I]``.
        w_hh: ``[4 H, R]``.
        b_h: ``[4 H]``.
        w_hr: ``[P, H]``, the projection, or None.
    """

    w_xh: Tensor
    w_hh: Tensor
    b_h: Tensor
    w_hr: Tensor | None

    def weights(self) -> Sequence[Tensor]:
        """W_xh, W_hh, b_h, and W_hr if there is one."""
        held = (self.w_xh, self.w_hh, self.b_h)
        return held if self.w_hr is None else (*held, self.w_hr)

    def project(self, x: Tensor) -> Tensor:
        """W_xh x + b_h."""
        return ops.linear(x, self.w_xh, self.b_h)

    def advance(self, p: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """c = f * c + i * g; h = W_hr (o * tanh c)."""
        gates = (p + ops.linear(state.h.to(p.dtype), self.w_hh)).to(state.c.dtype)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if self.w_hr is not None:
            h = ops.linear(h.to(p.dtype), self.w_hr).to(c.dtype)
        return h.to(p.dtype), LSTMState(h, c)

    def native(self, x: Tensor, lengths: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """The kernel scan_lstm."""
        y, h, c = native.scan_lstm(
            x, lengths, self.w_xh, self.w_hh, self.b_h, self.w_hr, state.h, state.c
        )
        return y, LSTMState(h, c)

    def fused(self, x: Tensor, is_flagged: bool, state: LSTMState) -> tuple[Tensor, ...]:
        """torch's lstm."""
        weights = (self.w_xh, self.w_hh, self.b_h, self.w_hr)
        return fused.fused_lstm(x, is_flagged, *weights, state.h, state.c)

    def not_native(self) -> str | None:
        """Nothing."""
        return None

    def not_fused(self) -> str | None:
        """Nothing."""
        return None


class LSTM(LawCell):
    """Long short-term memory of Hochreiter and Schmidhuber, 1997, and Gers et al., 2000.

        i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + b_i)        f_t, o_t alike
        g_t = tanh(W_xg x_t + W_hg h_{t-1} + b_g)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)                               y_t = h_t

    With a projection, h_t = W_hr (o_t * tanh(c_t)) (Sak et al., 2014, arXiv:1402.1128). No
    peepholes. One bias per gate.

    Shapes: x ``[B, I]``, h and y ``[B, R]``, c ``[B, H]``, W_xh ``[4 H, I]``, W_hh ``[4 H, R]``,
        b_h ``[4 H]``,
    W_hr ``[P, H]``; the gates lie in the order i, f, g, o, as in torch. R is P with a projection,
    else H.

    Args:
        inputs: I.
        hidden: H.
        projection: P, or None for none.
        forget_bias: where b_f starts; the other biases start at 0. With a chrono init the biases
            are chrono's.
        init: how the weights start, an Init or its name.
        learn_initial: whether the first h and c are learned (from 0) instead of being 0.

    Raises:
        SpecError: an unknown init.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        projection: int | None = None,
        forget_bias: float = 1.0,
        init: Init | str = "orthogonal",
        learn_initial: bool = False,
    ) -> None:
        super().__init__()
        outputs = hidden if projection is None else projection
        self.inputs, self.outputs, self.hidden = inputs, outputs, hidden
        self.w_xh = nn.Parameter(torch.empty(4 * hidden, inputs))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden, outputs))
        self.b_h = nn.Parameter(torch.zeros(4 * hidden))
        self.w_hr = None if projection is None else nn.Parameter(torch.empty(projection, hidden))
        self.h_0 = nn.Parameter(torch.zeros(outputs)) if learn_initial else None
        self.c_0 = nn.Parameter(torch.zeros(hidden)) if learn_initial else None
        self._fill(find(init), forget_bias)

    def _fill(self, init: Init, forget_bias: float) -> None:
        fill_gates(self.w_xh, 4, init.inputs)
        fill_gates(self.w_hh, 4, init.recurrent)
        if self.w_hr is not None:
            fill_gates(self.w_hr, 1, init.inputs)
        i, f, _, _ = self.b_h.detach().chunk(4)
        f.fill_(forget_bias)
        if init.max_steps is not None:
            fill_chrono(f, init.max_steps)
            i.copy_(-f)

    def initial_state(self, batch: int) -> LSTMState:
        """h = 0 and c = 0, or the learned ones."""
        return LSTMState(
            initial(self.h_0, self.w_hh, batch, self.outputs),
            initial(self.c_0, self.w_hh, batch, self.hidden),
        )

    def law(self) -> LSTMLaw:
        """The law with this cell's weights."""
        return LSTMLaw(self.w_xh, self.w_hh, self.b_h, self.w_hr)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.outputs, self.hidden)
