"""Long short-term memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import LawCell, check_count, check_dtype, check_switch, initial
from segue.cells.init import Init, fill_chrono, fill_gates, find
from segue.cells.law import Law, Noise, present
from segue.cells.norm import normed, projected, rounded
from segue.ops import fused


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
        w_c: ``[3, H]``, the peepholes of i, f and o, or None.
        gain_x, gain_h: ``[4 H]``, the gains of the norms; None for no layer norm.
        gain_c, b_c: ``[H]``, gain and bias of the norm of c; likewise.
        half: whether products are those of numbers rounded to bfloat16.
    """

    name: ClassVar[str] = "LSTM"
    w_xh: Tensor
    w_hh: Tensor
    b_h: Tensor
    w_hr: Tensor | None
    w_c: Tensor | None = None
    gain_x: Tensor | None = None
    gain_h: Tensor | None = None
    gain_c: Tensor | None = None
    b_c: Tensor | None = None
    half: bool = False

    def weights(self) -> Sequence[Tensor]:
        """W_xh, W_hh, b_h, and of the others those that there are."""
        rest = self.gain_x, self.gain_h, self.gain_c, self.b_c
        return present(self.w_xh, self.w_hh, self.b_h, self.w_hr, self.w_c, *rest)

    def options(self) -> tuple[str, ...]:
        """Layer norm, peepholes."""
        norm = () if self.gain_h is None else ("layer norm",)
        return norm if self.w_c is None else (*norm, "peepholes")

    def project(self, x: Tensor) -> Tensor:
        """W_xh x + b_h, with layer norm n(W_xh x) * gain_x + b_h."""
        x, w = rounded(x, self.half), rounded(self.w_xh, self.half)
        return projected(x, w, self.b_h, self.gain_x)

    def advance(
        self, p: Tensor, state: LSTMState, mask: Tensor | None = None
    ) -> tuple[Tensor, LSTMState]:
        """c = f * c + i * g; h = W_hr (o * tanh c)."""
        c = state.c
        seen = state.h if mask is None else mask * state.h
        seen, w = rounded(seen.to(p.dtype), self.half), rounded(self.w_hh, self.half)
        u = normed(ops.linear(seen, w), self.gain_h)
        i, f, g, o = (p + u).to(c.dtype).chunk(4, dim=1)
        if self.w_c is not None:
            i, f = i + self.w_c[0] * c, f + self.w_c[1] * c
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        if self.w_c is not None:
            o = o + self.w_c[2] * c
        h = o.sigmoid() * self._shown(c).tanh()
        if self.w_hr is not None:
            m, w = rounded(h.to(p.dtype), self.half), rounded(self.w_hr, self.half)
            h = ops.linear(m, w).to(c.dtype)
        return h.to(p.dtype), LSTMState(h, c)

    def _shown(self, c: Tensor) -> Tensor:
        """c as h sees it, with layer norm n(c) * gain_c + b_c."""
        return c if self.b_c is None else normed(c, self.gain_c) + self.b_c

    def given(self, shared: ops.Shared, state: LSTMState, noise: Noise) -> ops.Recurrent:
        """Projection, peepholes, the norm of c, and c with its zoneout besides."""
        keep, rate = noise.of(1)
        more = self.w_hr, self.w_c, self.gain_c, self.b_c
        return ops.LSTM(*shared, *more, c=state.c, keep_c=keep, rate_c=rate, half=self.half)

    def fused(self, x: Tensor, is_flagged: bool, state: LSTMState) -> tuple[Tensor, ...]:
        """torch's lstm."""
        weights = (self.w_xh, self.w_hh, self.b_h, self.w_hr)
        return fused.fused_lstm(x, is_flagged, *weights, state.h, state.c)


class LSTM(LawCell):
    """Long short-term memory of Hochreiter and Schmidhuber, 1997, and Gers et al., 2000.

        i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + b_i)        f_t, o_t alike
        g_t = tanh(W_xg x_t + W_hg h_{t-1} + b_g)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)                               y_t = h_t

    With a projection, h_t = W_hr (o_t * tanh(c_t)) (Sak et al., 2014, arXiv:1402.1128).
    One bias per gate.

    With peepholes (Gers and Schmidhuber, 2000, "Recurrent nets that time and count"), the gates see
    the memory, o the new one: p_i * c_{t-1} is added inside i_t, p_f * c_{t-1} inside f_t, p_o *
    c_t inside o_t.

    With layer norm (Ba et al., 2016, arXiv:1607.06450; n is that of `segue.cells.norm`, over all 4
    H columns, and over the H of c), the peepholes seeing c itself,

        gates = n(W_xh x_t) * gain_x + n(W_hh h_{t-1}) * gain_h + b_h
        h_t = o_t * tanh(n(c_t) * gain_c + b_c)

    Shapes: x ``[B, I]``, h and y ``[B, R]``, c ``[B, H]``, W_xh ``[4 H, I]``, W_hh ``[4 H, R]``,
        b_h ``[4 H]``,
    W_hr ``[P, H]``, W_c = [p_i, p_f, p_o] ``[3, H]``, gain_x and gain_h ``[4 H]``, gain_c and b_c
    ``[H]``; the gates lie in the order i, f, g, o, as in torch. R is P with a projection,
    else H.

    Args:
        inputs: I.
        hidden: H.
        projection: P, or None for none.
        forget_bias: where b_f starts; the other biases start at 0. With a chrono init the biases
            are chrono's.
        peepholes: whether the gates see the memory; W_c starts at 0.
        layer_norm: whether products and memory are normed; the gains start at 1, b_c at 0.
        init: how the weights start, an Init or its name.
        learn_initial: whether the first h and c are learned (from 0) instead of being 0.
        dtype: of what is multiplied, float32 or bfloat16, as torch's dtype or its name; weights,
            sums and states are float32 with either.

    Raises:
        SpecError: a size that is none, an unknown init, or a switch that is none.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        projection: int | None = None,
        forget_bias: float = 1.0,
        peepholes: bool = False,
        layer_norm: bool = False,
        init: Init | str = "orthogonal",
        learn_initial: bool = False,
        dtype: torch.dtype | str = "float32",
    ) -> None:
        super().__init__(inputs=inputs, hidden=hidden)
        check_switch("LSTM.peepholes", peepholes)
        check_switch("LSTM.layer_norm", layer_norm)
        if projection is not None:
            check_count("LSTM.projection", projection)
        self.dtype = check_dtype("LSTM.dtype", dtype)
        outputs = hidden if projection is None else projection
        self.inputs, self.outputs, self.hidden = inputs, outputs, hidden
        self.w_xh = nn.Parameter(torch.empty(4 * hidden, inputs))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden, outputs))
        self.b_h = nn.Parameter(torch.zeros(4 * hidden))
        self.w_hr = None if projection is None else nn.Parameter(torch.empty(projection, hidden))
        self.w_c = nn.Parameter(torch.zeros(3, hidden)) if peepholes else None
        self.gain_x = nn.Parameter(torch.ones(4 * hidden)) if layer_norm else None
        self.gain_h = nn.Parameter(torch.ones(4 * hidden)) if layer_norm else None
        self.gain_c = nn.Parameter(torch.ones(hidden)) if layer_norm else None
        self.b_c = nn.Parameter(torch.zeros(hidden)) if layer_norm else None
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
        norm = self.gain_x, self.gain_h, self.gain_c, self.b_c
        half = self.dtype == "bfloat16"
        return LSTMLaw(self.w_xh, self.w_hh, self.b_h, self.w_hr, self.w_c, *norm, half)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.outputs, self.hidden)
