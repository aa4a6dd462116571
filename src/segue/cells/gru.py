"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import LawCell, check_dtype, check_switch, initial
from segue.cells.init import Init, fill_chrono, fill_gates, find
from segue.cells.law import Law, Noise, present
from segue.cells.norm import normed, projected, rounded
from segue.ops import fused


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
        gain_x, gain_h: ``[3 H]``, the gains of the norms; None for no layer norm.
        half: whether products are those of numbers rounded to bfloat16.
    """

    name: ClassVar[str] = "GRU"
    w_xh: Tensor
    w_hh: Tensor
    b_h: Tensor
    b_hn: Tensor | None
    gain_x: Tensor | None = None
    gain_h: Tensor | None = None
    half: bool = False

    def weights(self) -> Sequence[Tensor]:
        """W_xh, W_hh, b_h, and of b_hn and the gains those that there are."""
        return present(self.w_xh, self.w_hh, self.b_h, self.b_hn, self.gain_x, self.gain_h)

    def options(self) -> tuple[str, ...]:
        """The form that resets before the product; layer norm."""
        form = ("reset gate before the recurrent product",) if self.b_hn is None else ()
        return form if self.gain_h is None else (*form, "layer norm")

    def project(self, x: Tensor) -> Tensor:
        """W_xh x + b_h, with layer norm n(W_xh x) * gain_x + b_h."""
        hidden = self.w_hh.shape[1]
        x, w = rounded(x, self.half), rounded(self.w_xh, self.half)
        return projected(x, w, self.b_h, self.gain_x, (2 * hidden, hidden))

    def advance(
        self, p: Tensor, state: GRUState, mask: Tensor | None = None
    ) -> tuple[Tensor, GRUState]:
        """h = (1 - z) * n + z * h."""
        h, hidden = state.h, state.h.shape[1]
        seen = h if mask is None else mask * h
        xr, xz, xn = p.to(h.dtype).chunk(3, dim=1)
        gates = 2 * hidden, hidden
        if self.b_hn is None:
            hr, hz = self._product(seen, p.dtype, gates[:1], slice(gates[0])).chunk(2, dim=1)
            r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
            hn = self._product(r * seen, p.dtype, gates[1:], slice(gates[0], None))
        else:
            hr, hz, hn = self._product(seen, p.dtype, gates).chunk(3, dim=1)
            r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
            hn = r * (hn + self.b_hn)
        h = (1 - z) * (xn + hn).tanh() + z * h
        return h.to(p.dtype), GRUState(h)

    def _product(
        self, h: Tensor, dtype: torch.dtype, groups: tuple[int, ...], rows: slice | None = None
    ) -> Tensor:
        """W_hh h, or some rows of it, with layer norm normed in groups; multiplied in a dtype."""
        w, gain = self.w_hh, self.gain_h
        if rows is not None:
            w, gain = w[rows], None if gain is None else gain[rows]
        u = nn.functional.linear(rounded(h.to(dtype), self.half), rounded(w, self.half))
        return normed(u.to(h.dtype), gain, groups)

    def given(self, shared: ops.Shared, state: GRUState, noise: Noise) -> ops.Recurrent:
        """b_hn besides."""
        return ops.GRU(*shared, b_hn=self.b_hn, half=self.half)

    def fused(self, x: Tensor, is_flagged: bool, state: GRUState) -> tuple[Tensor, ...]:
        """torch's gru."""
        assert self.b_hn is not None, "torch's gru resets after the product"
        return fused.fused_gru(x, is_flagged, self.w_xh, self.w_hh, self.b_h, self.b_hn, state.h)


class GRU(LawCell):
    """The gated recurrent unit of Cho et al., 2014 (arXiv:1406.1078).

        r_t = sigmoid(W_xr x_t + W_hr h_{t-1} + b_r)        z_t alike
        n_t = tanh(W_xn x_t + b_n + r_t * (W_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}               y_t = h_t

    This is the default, torch's and cuDNN's form: the reset gate after the recurrent product (ONNX:
    linear_before_reset = 1). With ``reset_after=False``, the form of the paper's first version, n_t
    = tanh(W_xn x_t + b_n + W_hn (r_t * h_{t-1})).

    With layer norm (Ba et al., 2016, arXiv:1607.06450; n is that of `segue.cells.norm`, over the
    columns of r and z together, and over those of n),

        r_t, z_t = sigmoid(n(W_x x_t) * gain_x + n(W_h h_{t-1}) * gain_h + b)
        n_t = tanh(n(W_xn x_t) * gain_xn + b_n + r_t * (n(W_hn h_{t-1}) * gain_hn + b_hn))

    or, where the reset gate comes before, n_t = tanh(n(W_xn x_t) * gain_xn + b_n + n(W_hn (r_t *
    h_{t-1})) * gain_hn).

    One bias per gate, and in the default form b_hn besides: r scales it, so it is not redundant
    with b_n, and weights of torch need it.

    Shapes: x ``[B, I]``, h and y ``[B, H]``, W_xh ``[3 H, I]``, W_hh ``[3 H, H]``, b_h ``[3 H]``,
        b_hn ``[H]``, gain_x and gain_h ``[3 H]``; the gates
    lie in the order r, z, n, as in torch. Note that z keeps the state (in the paper, and in Keras,
    so does z; in some texts 1 - z).

    Args:
        inputs: I.
        hidden: H.
        reset_after: whether the reset gate follows the recurrent product.
        layer_norm: whether the products are normed; the gains start at 1.
        init: how the weights start, an Init or its name; the biases start at 0 (chrono: that of z
            as its rule says).
        learn_initial: whether the first h is learned (from 0) instead of being 0.
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
        reset_after: bool = True,
        layer_norm: bool = False,
        init: Init | str = "orthogonal",
        learn_initial: bool = False,
        dtype: torch.dtype | str = "float32",
    ) -> None:
        super().__init__(inputs=inputs, hidden=hidden)
        check_switch("GRU.layer_norm", layer_norm)
        self.dtype = check_dtype("GRU.dtype", dtype)
        self.inputs, self.outputs = inputs, hidden
        self.w_xh = nn.Parameter(torch.empty(3 * hidden, inputs))
        self.w_hh = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.b_h = nn.Parameter(torch.zeros(3 * hidden))
        self.b_hn = nn.Parameter(torch.zeros(hidden)) if reset_after else None
        self.gain_x = nn.Parameter(torch.ones(3 * hidden)) if layer_norm else None
        self.gain_h = nn.Parameter(torch.ones(3 * hidden)) if layer_norm else None
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
        gains = self.gain_x, self.gain_h
        half = self.dtype == "bfloat16"
        return GRULaw(self.w_xh, self.w_hh, self.b_h, self.b_hn, *gains, half)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.outputs,)
