"""The simple recurrent network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import LawCell, check_dtype, check_switch, initial
from segue.cells.init import Init, fill_gates, find
from segue.cells.law import Law, Noise, present
from segue.cells.norm import normed, projected, rounded
from segue.errors import SpecError
from segue.ops import fused

Activation: TypeAlias = str | Callable[[Tensor], Tensor]


class ElmanState(NamedTuple):
    """h ``[B, H]``."""

    h: Tensor


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": _identity,
}


@dataclass(frozen=True)
class ElmanLaw(Law):
    """The equation of `Elman`.

    Args:
        w_xh: ``[H, I]``.
        w_hh: ``[H, H]``.
        b_h: ``[H]``.
        activation: f, a name of `ACTIVATIONS` or an elementwise function.
        gain_x, gain_h: ``[H]``, the gains of the two norms; None for no layer norm.
        half: whether products are those of numbers rounded to bfloat16.
    """

    name: ClassVar[str] = "Elman network"
    w_xh: Tensor
    w_hh: Tensor
    b_h: Tensor
    activation: Activation
    gain_x: Tensor | None = None
    gain_h: Tensor | None = None
    half: bool = False

    def weights(self) -> Sequence[Tensor]:
        """W_xh, W_hh, b_h, and the gains if there are any."""
        return present(self.w_xh, self.w_hh, self.b_h, self.gain_x, self.gain_h)

    def options(self) -> tuple[str, ...]:
        """Another activation than tanh; layer norm."""
        f = self.activation if isinstance(self.activation, str) else "custom"
        activation = () if f == "tanh" else (f"{f} activation",)
        return activation if self.gain_h is None else (*activation, "layer norm")

    def project(self, x: Tensor) -> Tensor:
        """W_xh x + b_h, with layer norm n(W_xh x) * gain_x + b_h."""
        x, w = rounded(x, self.half), rounded(self.w_xh, self.half)
        return projected(x, w, self.b_h, self.gain_x)

    def advance(
        self, p: Tensor, state: ElmanState, mask: Tensor | None = None
    ) -> tuple[Tensor, ElmanState]:
        """h = f(p + W_hh (m * h))."""
        f = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        seen = state.h if mask is None else mask * state.h
        seen, w = rounded(seen.to(p.dtype), self.half), rounded(self.w_hh, self.half)
        u = normed(ops.linear(seen, w), self.gain_h)
        h = f((p + u).to(state.h.dtype))
        return h.to(p.dtype), ElmanState(h)

    def given(self, shared: ops.Shared, state: ElmanState, noise: Noise) -> ops.Recurrent:
        """The activation besides."""
        return ops.Elman(*shared, activation=str(self.activation), half=self.half)

    def fused(self, x: Tensor, is_flagged: bool, state: ElmanState) -> tuple[Tensor, ...]:
        """torch's rnn_tanh or rnn_relu."""
        name = str(self.activation)
        return fused.fused_elman(x, is_flagged, self.w_xh, self.w_hh, self.b_h, name, state.h)


class Elman(LawCell):
    """The simple recurrent network of Elman, 1990 ("Finding structure in time", Cognitive Science
    14).

        h_t = f(W_xh x_t + W_hh h_{t-1} + b_h)        y_t = h_t

    With layer norm (Ba et al., 2016, arXiv:1607.06450; n is that of `segue.cells.norm`, over all H
    columns),

        h_t = f(n(W_xh x_t) * gain_x + n(W_hh h_{t-1}) * gain_h + b_h)

    Shapes: x ``[B, I]``, h and y ``[B, H]``, W_xh ``[H, I]``, W_hh ``[H, H]``, b_h, gain_x and
        gain_h ``[H]``.

    Args:
        inputs: I.
        hidden: H.
        activation: f: ``"tanh"``, ``"relu"``, ``"sigmoid"``, ``"identity"``, or an elementwise
            function.
        layer_norm: whether the two products are normed; the gains start at 1.
        init: how the weights start, an Init or its name; b_h starts at 0.
        learn_initial: whether the first h is learned (from 0) instead of being 0.
        dtype: of what is multiplied, float32 or bfloat16, as torch's dtype or its name; weights,
            sums and states are float32 with either.

    Raises:
        SpecError: a size that is none, an unknown activation, a switch that is none, or an init
            that has no meaning here.

    >>> cell = Elman(3, 5)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        activation: Activation = "tanh",
        layer_norm: bool = False,
        init: Init | str = "orthogonal",
        learn_initial: bool = False,
        dtype: torch.dtype | str = "float32",
    ) -> None:
        super().__init__(inputs=inputs, hidden=hidden)
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            fix = "give one of these names or a function"
            raise SpecError("Elman.activation", " | ".join(ACTIVATIONS), activation, fix)
        check_switch("Elman.layer_norm", layer_norm)
        self.dtype = check_dtype("Elman.dtype", dtype)
        self.inputs, self.outputs = inputs, hidden
        self.activation = activation
        self.w_xh = nn.Parameter(torch.empty(hidden, inputs))
        self.w_hh = nn.Parameter(torch.empty(hidden, hidden))
        self.b_h = nn.Parameter(torch.zeros(hidden))
        self.gain_x = nn.Parameter(torch.ones(hidden)) if layer_norm else None
        self.gain_h = nn.Parameter(torch.ones(hidden)) if layer_norm else None
        self.h_0 = nn.Parameter(torch.zeros(hidden)) if learn_initial else None
        start = find(init)
        if start.max_steps is not None:
            fix = "use an LSTM or a GRU, or another init"
            raise SpecError("Elman.init", "an init without gates", "chrono", fix)
        fill_gates(self.w_xh, 1, start.inputs)
        fill_gates(self.w_hh, 1, start.recurrent)

    def initial_state(self, batch: int) -> ElmanState:
        """h = 0, or the learned one."""
        return ElmanState(initial(self.h_0, self.w_hh, batch, self.outputs))

    def law(self) -> ElmanLaw:
        """The law with this cell's weights."""
        gains = self.gain_x, self.gain_h
        half = self.dtype == "bfloat16"
        return ElmanLaw(self.w_xh, self.w_hh, self.b_h, self.activation, *gains, half)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.outputs,)
