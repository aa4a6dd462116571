"""The simple recurrent network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Law, LawCell, initial
from segue.cells.init import Init, fill_gates, find
from segue.errors import SpecError
from segue.ops import fused, native

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
    """h_t = f(W_hh h_{t-1} + W_xh x_t + b_h); y_t = h_t.

    Args:
        w_xh: ``[H, I]``.
        w_hh: ``[H, H]``.
        b_h: ``[H]``.
        activation: f, a name of `ACTIVATIONS` or an elementwise function.
    """

    w_xh: Tensor
    w_hh: Tensor
    b_h: Tensor
    activation: Activation

    def weights(self) -> Sequence[Tensor]:
        """W_xh, W_hh, b_h."""
        return self.w_xh, self.w_hh, self.b_h

    def project(self, x: Tensor) -> Tensor:
        """W_xh x + b_h."""
        return ops.linear(x, self.w_xh, self.b_h)

    def advance(self, p: Tensor, state: ElmanState) -> tuple[Tensor, ElmanState]:
        """h = f(p + W_hh h)."""
        f = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        h = f((p + ops.linear(state.h.to(p.dtype), self.w_hh)).to(state.h.dtype))
        return h.to(p.dtype), ElmanState(h)

    def native(self, x: Tensor, lengths: Tensor, state: ElmanState) -> tuple[Tensor, ElmanState]:
        """The kernel scan_elman."""
        name = str(self.activation)
        y, h = native.scan_elman(x, lengths, self.w_xh, self.w_hh, self.b_h, name, state.h)
        return y, ElmanState(h)

    def fused(self, x: Tensor, is_flagged: bool, state: ElmanState) -> tuple[Tensor, ...]:
        """torch's rnn_tanh or rnn_relu."""
        name = str(self.activation)
        return fused.fused_elman(x, is_flagged, self.w_xh, self.w_hh, self.b_h, name, state.h)

    def not_native(self) -> str | None:
        """An activation that is a function of the user's."""
        if isinstance(self.activation, str):
            return None
        return "the native kernel has no custom activation"

    def not_fused(self) -> str | None:
        """Any activation but tanh and relu."""
        if self.activation in ("tanh", "relu"):
            return None
        name = self.activation if isinstance(self.activation, str) else "custom"
        return f"torch's fused Elman network has no {name} activation"


class Elman(LawCell):
    """The simple recurrent network of Elman, 1990 ("Finding structure in time", Cognitive Science
    14).

        h_t = f(W_hh h_{t-1} + W_xh x_t + b_h)        y_t = h_t

    Shapes: x ``[B, I]``, h and y ``[B, H]``, W_xh ``[H, I]``, W_hh ``[H, H]``, b_h ``[H]``.

    Args:
        inputs: I.
        hidden: H.
        activation: f: ``"tanh"``, ``"relu"``, ``"sigmoid"``, ``"identity"``, or an elementwise
            function.
        init: how the weights start, an Init or its name; b_h starts at 0.
        learn_initial: whether the first h is learned (from 0) instead of being 0.

    Raises:
        SpecError: an unknown activation, or an init that has no meaning here.

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
        init: Init | str = "orthogonal",
        learn_initial: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            fix = "give one of these names or a function"
            raise SpecError("Elman.activation", " | ".join(ACTIVATIONS), activation, fix)
        self.inputs, self.outputs = inputs, hidden
        self.activation = activation
        self.w_xh = nn.Parameter(torch.empty(hidden, inputs))
        self.w_hh = nn.Parameter(torch.empty(hidden, hidden))
        self.b_h = nn.Parameter(torch.zeros(hidden))
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
        return ElmanLaw(self.w_xh, self.w_hh, self.b_h, self.activation)

    def _state_widths(self) -> tuple[int, ...]:
        return (self.outputs,)
